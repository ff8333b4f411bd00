/* client_stream.h - the client's side of a stream that has a connection of its own:
 *
 *     whoever opened it ◄─ socket ─► thread ◄─ STREAM packets ─► the peer's daemon
 *
 * For vz_client_become_stream. */
#pragma once

#include "rpc/packets.h"

/* What waits on its way, in each direction, before the other side is not read any more. */
#define VZ_CLIENT_STREAM_QUEUE_BYTES ((size_t)1024 * 1024)
/* A peer that does not confirm the end of a stream in time is left. */
#define VZ_CLIENT_STREAM_FINISH_MS 10000

/* `frame` is that of the stream's packets. Starts the thread and returns the socket (non-blocking,
 * close-on-exec); -1 with SYSTEM_ERROR. take_packets is always consumed. */
int vz_client_stream_start(vz_packets *take_packets, const vz_frame *frame, GError **err);
