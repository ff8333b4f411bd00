/* stream_sockets.h - where QEMU and the job's carrier meet, channel by channel.
 *
 *     source         QEMU connects to a socket of ours, once per channel, when it wants one
 *     destination    QEMU listens, and is connected to when the peer's channel has opened: not
 *                    earlier, since it waits in its main loop for a channel's first bytes
 *
 * Both in the run directory of the guest's QEMU. QEMU takes several channels only by sockets with a
 * name (QEMU 10.0, migration.c: transport_supports_multi_channels). Actor thread. */
#pragma once

#include "channel/carrier.h"
#include "driver/qemu/process.h"

typedef struct vz_stream_sockets vz_stream_sockets;

/* Begins to listen for this QEMU; `stirred` is set whenever it has connected. */
vz_stream_sockets *vz_stream_listen(vz_qemu *qemu, vz_inbox *inbox, bool *stirred, GError **err);
/* A connection of QEMU's that was not taken yet, in their order: the caller's. -1: none. */
int vz_stream_take(vz_stream_sockets *sockets);

/* Makes the place where this QEMU is to listen, for what this purpose carries. */
vz_stream_sockets *vz_stream_prepare(vz_qemu *qemu, vz_purpose purpose, GError **err);
/* Lets the carrier expect channels up to this number, each to be joined when it opens. */
bool vz_stream_expect(vz_stream_sockets *sockets, vz_carrier *carrier, unsigned channels,
                      GError **err);
/* The channels below this number belong to an earlier connection. */
void vz_stream_skip(vz_stream_sockets *sockets, unsigned channels);
/* A channel has opened: joins it to QEMU, or aborts it where that does not listen. */
void vz_stream_join(vz_stream_sockets *sockets, vz_carrier *carrier, uint16_t index);

/* What QEMU is to connect to, or to listen on. Borrowed. */
const char *vz_stream_path(const vz_stream_sockets *sockets);

/* Removes the place and closes what was not taken or joined. NULL is fine. */
void vz_stream_close(vz_stream_sockets *sockets);
