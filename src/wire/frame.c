/* frame.c - see frame.h. Any thread; no state. */
#include "wire/frame.h"

#include <string.h>

static void put_u32(uint8_t *at, uint32_t value)
{
    uint32_t big = GUINT32_TO_BE(value);
    memcpy(at, &big, sizeof(big));
}

static uint32_t get_u32(const uint8_t *at)
{
    uint32_t big;
    memcpy(&big, at, sizeof(big));
    return GUINT32_FROM_BE(big);
}

size_t vz_frame_begin(GByteArray *out, const vz_frame *frame)
{
    uint8_t header[VZ_FRAME_HEADER_BYTES] = {0};
    put_u32(header + 4, frame->program);
    put_u32(header + 8, frame->version);
    put_u32(header + 12, (uint32_t)frame->procedure);
    put_u32(header + 16, frame->type);
    put_u32(header + 20, frame->serial);
    put_u32(header + 24, frame->status);
    g_byte_array_append(out, header, sizeof(header));
    return out->len;
}

bool vz_frame_end(GByteArray *out, size_t payload_offset, GError **err)
{
    size_t start = payload_offset - VZ_FRAME_HEADER_BYTES;
    size_t bytes = out->len - start;
    if (bytes - VZ_FRAME_LENGTH_BYTES > VZ_FRAME_MESSAGE_MAX) {
        g_byte_array_set_size(out, (guint)start);
        return vz_fail(err, VZ_ERR_RPC, "a message of %zu bytes is larger than the %zu allowed",
                       bytes, VZ_FRAME_MESSAGE_MAX);
    }
    put_u32(out->data + start, (uint32_t)bytes);
    return true;
}

bool vz_frame_size(const uint8_t length_word[VZ_FRAME_LENGTH_BYTES], size_t max_message,
                   size_t *ret_bytes, GError **err)
{
    size_t bytes = get_u32(length_word);
    if (bytes < VZ_FRAME_HEADER_BYTES)
        return vz_fail(err, VZ_ERR_RPC, "a packet of %zu bytes is shorter than its header", bytes);
    if (bytes - VZ_FRAME_LENGTH_BYTES > max_message)
        return vz_fail(err, VZ_ERR_RPC, "a packet of %zu bytes is larger than the %zu allowed here",
                       bytes, max_message);
    *ret_bytes = bytes;
    return true;
}

void vz_frame_parse(const uint8_t *data, vz_frame *ret_frame)
{
    *ret_frame = (vz_frame){
        .program = get_u32(data + 4),
        .version = get_u32(data + 8),
        .procedure = (int32_t)get_u32(data + 12),
        .type = get_u32(data + 16),
        .serial = get_u32(data + 20),
        .status = get_u32(data + 24),
    };
}
