/* frame.h - the 28 bytes in front of each packet (libvirt facts 1.1, 1.2). */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define VZ_PROGRAM_REMOTE    0x20008086u
#define VZ_PROGRAM_QEMU      0x20008087u
#define VZ_PROGRAM_LXC       0x00068000u
#define VZ_PROGRAM_KEEPALIVE 0x6b656570u
#define VZ_PROGRAM_VIRTVZ    0x2000767au /* our own, for what libvirt has no procedure for */
#define VZ_PROGRAM_VERSION   1u

#define VZ_KEEPALIVE_PING 1
#define VZ_KEEPALIVE_PONG 2

typedef enum {
    VZ_PACKET_CALL = 0,
    VZ_PACKET_REPLY = 1,
    VZ_PACKET_MESSAGE = 2,
    VZ_PACKET_STREAM = 3,
    VZ_PACKET_CALL_WITH_FDS = 4,
    VZ_PACKET_REPLY_WITH_FDS = 5,
    VZ_PACKET_STREAM_HOLE = 6,
} vz_packet_type;

typedef enum {
    VZ_STATUS_OK = 0,
    VZ_STATUS_ERROR = 1,
    VZ_STATUS_CONTINUE = 2,
} vz_packet_status;

#define VZ_FRAME_LENGTH_BYTES ((size_t)4)
#define VZ_FRAME_HEADER_BYTES ((size_t)28) /* with the length word */
/* libvirt's bound on a message, not counting the length word. */
#define VZ_FRAME_MESSAGE_MAX ((size_t)33554432)
#define VZ_FRAME_PAYLOAD_MAX                                                                       \
    (VZ_FRAME_MESSAGE_MAX - (VZ_FRAME_HEADER_BYTES - VZ_FRAME_LENGTH_BYTES))
/* Stream packets are cut to this by every peer. */
#define VZ_FRAME_STREAM_MAX ((size_t)262120)

typedef struct {
    uint32_t program;
    uint32_t version;
    int32_t procedure;
    uint32_t type; /* vz_packet_type, unchecked */
    uint32_t serial;
    uint32_t status; /* vz_packet_status, unchecked */
} vz_frame;

/* Appends length word and header to out; the payload starts at the returned offset and is appended
 * by the caller, who then calls vz_frame_end with the offset. */
size_t vz_frame_begin(GByteArray *out, const vz_frame *frame);
/* Writes the length word. RPC error (and out cut back to before the frame) if it is too large. */
bool vz_frame_end(GByteArray *out, size_t payload_offset, GError **err);

/* The size of the whole frame, length word included, from its first 4 bytes; RPC error where that
 * is less than a header or more than max_message (+ the length word). */
bool vz_frame_size(const uint8_t length_word[VZ_FRAME_LENGTH_BYTES], size_t max_message,
                   size_t *ret_bytes, GError **err);

/* The header of a whole frame (at least VZ_FRAME_HEADER_BYTES). */
void vz_frame_parse(const uint8_t *data, vz_frame *ret_frame);
