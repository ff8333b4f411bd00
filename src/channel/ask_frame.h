/* ask_frame.h - the frames of `ask`, for its two sides (ask.c, ask_server.c). */
#pragma once

#include "channel/tls.h"

bool vz_ask_frame_write(vz_tls *tls, const vz_io *io, uint32_t code, GBytes *bytes, GError **err);

/* Reads one frame of at most VZ_ASK_MAX_BYTES; a NUL follows the bytes, uncounted. RPC where the
 * peer announces more. */
bool vz_ask_frame_read(vz_tls *tls, const vz_io *io, uint32_t *ret_code, GBytes **ret_bytes,
                       GError **err);
