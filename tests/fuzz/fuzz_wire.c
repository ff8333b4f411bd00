/* fuzz_wire.c - frames and the codec against libFuzzer (meson -Dfuzz=true with clang).
 *
 * The input is a stream of packets, as a peer would send it. Each is decoded as what its header
 * says; what is accepted must encode to the very bytes that came: one value, one encoding. */
#include "rpc/procs.h"
#include "wire/frame.h"
#include "wire/xdr.h"

#include <string.h>

#define BUDGET ((size_t)8 * 1024 * 1024)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static const vz_schema *schema_of(const vz_frame *frame)
{
    const vz_procedure *row = vz_procedure_find(frame->procedure);
    if (frame->type == VZ_PACKET_MESSAGE) {
        for (size_t i = 0; i < vz_n_event_kinds; i++)
            if (vz_event_kinds[i].callback_proc == frame->procedure)
                return vz_event_kinds[i].body;
        return NULL;
    }
    if (frame->status == VZ_STATUS_ERROR)
        return &vz_schema_error;
    if (!row)
        return NULL;
    return frame->type == VZ_PACKET_CALL ? row->args : row->ret;
}

static void check_payload(const vz_schema *schema, const uint8_t *payload, size_t bytes)
{
    g_autoptr(vz_arena) arena = vz_arena_new(BUDGET);
    g_autoptr(GError) err = NULL;
    void *value = vz_arena_alloc(arena, schema->size);
    if (!vz_xdr_decode(schema, payload, bytes, arena, value, &err)) {
        g_assert(g_str_has_prefix(err->message, schema->name));
        return;
    }
    g_autoptr(GByteArray) again = g_byte_array_new();
    bool encoded = vz_xdr_encode(schema, value, again, &err);
    g_assert(encoded);
    g_assert_cmpmem(again->data, again->len, payload, bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    size_t packet;
    while (bytes >= VZ_FRAME_LENGTH_BYTES) {
        g_autoptr(GError) err = NULL;
        if (!vz_frame_size(data, VZ_FRAME_MESSAGE_MAX, &packet, &err) || packet > bytes)
            return 0;
        vz_frame frame;
        vz_frame_parse(data, &frame);
        const vz_schema *schema = schema_of(&frame);
        if (schema)
            check_payload(schema, data + VZ_FRAME_HEADER_BYTES, packet - VZ_FRAME_HEADER_BYTES);
        data += packet;
        bytes -= packet;
    }
    return 0;
}
