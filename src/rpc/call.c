/* call.c - see call.h. Made on the loop thread, handed on by posting, so that one thread has it at
 * a time; only `refs` and `answered` are touched by several. */
#include "rpc/internal.h"

#include "wire/xdr.h"

#include <string.h>

/* What decoding may take, by the size of what came: the densest list (empty strings) takes six
 * times its bytes. */
#define ARGS_BYTES_PER_BYTE 8
#define ARGS_BYTES_LEAST    ((size_t)4096)

static vz_arena *args_arena(size_t payload_bytes)
{
    size_t wanted = ARGS_BYTES_LEAST + payload_bytes * ARGS_BYTES_PER_BYTE;
    return vz_arena_new(MIN(wanted, VZ_CALL_ARGS_BYTES));
}

vz_call *vz_call_new(vz_conn *conn, const vz_procedure *procedure, const vz_handler *handler,
                     const uint8_t *packet, size_t bytes, GError **err)
{
    const uint8_t *payload = packet + VZ_FRAME_HEADER_BYTES;
    size_t payload_bytes = bytes - VZ_FRAME_HEADER_BYTES;
    g_autoptr(vz_arena) arena = args_arena(payload_bytes);
    void *args = vz_arena_alloc(arena, procedure->args->size);
    if (!vz_xdr_decode(procedure->args, payload, payload_bytes, arena, args, err))
        return NULL;
    vz_call *call = g_new0(vz_call, 1);
    call->refs = 1;
    call->conn = vz_conn_ref(conn);
    call->procedure = procedure;
    call->handler = handler;
    vz_frame_parse(packet, &call->frame);
    call->args = args;
    call->arena = g_steal_pointer(&arena);
    call->ret_arena = vz_arena_new(VZ_CALL_RET_BYTES);
    g_mutex_lock(&conn->lock);
    conn->calls++;
    g_mutex_unlock(&conn->lock);
    return call;
}

vz_call *vz_call_ref(vz_call *call)
{
    g_atomic_int_inc(&call->refs);
    return call;
}

static void call_free(vz_call *call)
{
    if (call->drop_subject)
        call->drop_subject(call->subject);
    vz_arena_free(call->arena);
    vz_arena_free(call->ret_arena);
    vz_conn_unref(call->conn);
    g_free(call);
}

void vz_call_unref(vz_call *call)
{
    if (!call || !g_atomic_int_dec_and_test(&call->refs))
        return;
    if (!g_atomic_int_get(&call->answered)) {
        GError *err = NULL;
        vz_fail(&err, VZ_ERR_OPERATION_FAILED, "%s was given up unanswered: virtvzd is stopping",
                call->procedure->name);
        vz_call_fail(call, err);
    }
    call_free(call);
}

void vz_call_drop(void *call)
{
    vz_call_unref(call);
}

/* ---- answers ---- */

static void answer(vz_call *call, GByteArray *take_packet, bool ok)
{
    bool first = g_atomic_int_compare_and_exchange(&call->answered, 0, 1);
    g_assert(first);
    vz_stream *stream = g_steal_pointer(&call->stream);
    if (stream && ok) {
        vz_stream_begin(stream, take_packet);
    } else {
        if (stream)
            vz_stream_begin(stream, NULL);
        vz_conn_send(call->conn, take_packet);
    }
    vz_conn_call_done(call->conn);
}

static GByteArray *encode_reply(const vz_call *call, const void *ret, GError **err)
{
    vz_frame frame = call->frame;
    frame.type = VZ_PACKET_REPLY;
    frame.status = VZ_STATUS_OK;
    g_autoptr(GByteArray) packet = g_byte_array_new();
    size_t payload = vz_frame_begin(packet, &frame);
    if (!vz_xdr_encode(call->procedure->ret, ret, packet, err) ||
        !vz_frame_end(packet, payload, err))
        return NULL;
    return g_steal_pointer(&packet);
}

void vz_call_reply(vz_call *call, const void *ret)
{
    GError *err = NULL;
    GByteArray *packet = encode_reply(call, ret, &err);
    if (packet)
        answer(call, packet, true);
    else
        vz_call_fail(call, err);
}

void vz_call_fail(vz_call *call, GError *take_error)
{
    g_autoptr(GError) err = take_error;
    answer(call, vz_dispatch_error_packet(&call->frame, err), false);
}

void vz_call_run(void *data)
{
    vz_call *call = data;
    GError *err = NULL;
    void *ret = vz_call_alloc(call, call->procedure->ret->size);
    bool ok = call->handler->run(call, call->args, ret, &err);
    if (ok && call->deferred)
        return;
    if (ok)
        vz_call_reply(call, ret);
    else
        vz_call_fail(call, err);
}

void vz_call_defer(vz_call *call)
{
    call->deferred = true;
}

/* ---- what handlers ask ---- */

const vz_procedure *vz_call_procedure(const vz_call *call)
{
    return call->procedure;
}

vz_conn *vz_call_conn(vz_call *call)
{
    return call->conn;
}

const void *vz_call_args(const vz_call *call)
{
    return call->args;
}

void vz_call_set_subject(vz_call *call, void *subject, GDestroyNotify drop)
{
    call->subject = subject;
    call->drop_subject = drop;
}

void *vz_call_subject(const vz_call *call)
{
    return call->subject;
}

void *vz_call_alloc(vz_call *call, size_t bytes)
{
    void *memory = vz_arena_alloc(call->ret_arena, bytes);
    if (!memory)
        g_error("the reply to %s needs more than its %zu bytes", call->procedure->name,
                VZ_CALL_RET_BYTES);
    return memory;
}

const char *vz_call_strdup(vz_call *call, const char *text)
{
    if (!text)
        return NULL;
    size_t bytes = strlen(text) + 1;
    return memcpy(vz_call_alloc(call, bytes), text, bytes);
}
