/* packets.h - a non-blocking socket as a row of packets: reading them whole, queueing them to go
 * out. Used by both sides. One thread at a time; not locked. */
#pragma once

#include "wire/frame.h"

typedef struct vz_packets vz_packets;

/* Makes the descriptor non-blocking and owns it. */
vz_packets *vz_packets_new(int take_fd);
/* Closes it and forgets what is queued. */
void vz_packets_free(vz_packets *packets);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_packets, vz_packets_free)

int vz_packets_fd(const vz_packets *packets);

/* Reads once what is there. The buffer grows with the bytes that came, not with what a length word
 * promises. false: the peer closed or the socket failed (SYSTEM_ERROR). */
bool vz_packets_fill(vz_packets *packets, GError **err);

/* The next whole packet: *ret_data (valid until the next fill or next), or NULL when more bytes
 * must come first. false (RPC): the stream is garbage or the packet exceeds max_message. */
bool vz_packets_next(vz_packets *packets, size_t max_message, const uint8_t **ret_data,
                     size_t *ret_bytes, GError **err);

void vz_packets_queue(vz_packets *packets, GByteArray *take_bytes);
/* Bytes that are queued and not yet written. */
size_t vz_packets_queued(const vz_packets *packets);
/* Writes what the socket takes. false: it failed (SYSTEM_ERROR). */
bool vz_packets_flush(vz_packets *packets, GError **err);
