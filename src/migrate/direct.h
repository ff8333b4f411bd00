/* direct.h - a direct stream: memory goes from QEMU to QEMU, not through the job's carriers, by a
 * TCP port of the destination's QEMU or by a unix socket on each host, which the caller joins.
 *
 *     caller asks    destination, Prepare                  source, Perform
 *     TCP            QEMU listens on one of VZ_DIRECT_PORTS, connects to it
 *                    which the cookie tells
 *     unix           QEMU makes the socket PATH            connects to its own host's PATH
 *
 * Only memory takes this way. All questions, and with them the release and the commit, go to the
 * data port as ever. What is not encrypted by TLS is not authenticated either; a guest of a
 * stranger would be loaded here, but never committed, for lack of the proof of the release.
 *
 * Actor thread, unless said. */
#pragma once

#include "migrate/memory.h"
#include "migrate/migration.h"

/* From direct_port of virtvzd.conf on; as many as libvirt's range has. */
#define VZ_DIRECT_PORTS 64

typedef enum { VZ_DIRECT_NONE, VZ_DIRECT_TCP, VZ_DIRECT_UNIX } vz_direct_way;

/* What the caller asks for. Any thread. */
vz_direct_way vz_direct_way_of(const vz_options *options);

/* Where QEMU's certificates are: virtvzd.conf's directory, or libvirt's. Any thread. */
const char *vz_direct_tls_dir(const vz_migrate *service);
/* The host name that the destination's certificate has to be for. As libvirt: tls.destination, or
 * the host of the migration URI, which by default is the destination's own name. Caller frees. Any
 * thread. */
char *vz_direct_expected_name(const vz_options *options, const char *peer_name);

/* Destination: QEMU listens. SYSTEM_ERROR where something is at the path already;
 * OPERATION_FAILED with QEMU's words. */
bool vz_direct_listen(vz_migration *migration, vz_qemu *qemu, GError **err);
/* For Prepare's cookie; 0: not by TCP. */
uint16_t vz_direct_port(const vz_migration *migration);
/* Destination: has the source, which probes while it sends, done so within the phase's time? No
 * carrier tells when it has died. */
bool vz_direct_source_lives(vz_migration *migration);

/* Source: the way is what Begin was asked for, and the destination agrees: its cookie and URI. */
bool vz_direct_agree(vz_migration *migration, const vz_cookie *cookie, const char *uri,
                     GError **err);
/* Source: starts the stream. SYSTEM_ERROR where nobody listens at the path. */
bool vz_direct_send(vz_migration *migration, vz_qemu *qemu, const vz_memory_limits *limits,
                    GError **err);
/* Source: takes back what was done to QEMU for it. Idempotent. */
void vz_direct_undo(vz_migration *migration);

/* Removes the socket that the record names; frees. Any thread that owns the job. */
void vz_direct_close(vz_migration *migration);
