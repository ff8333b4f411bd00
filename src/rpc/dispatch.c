/* dispatch.c - a packet of a client: whose is it, may it, and where does it run. Loop thread.
 *
 * What the peer must never send closes the connection; what it may not or cannot ask for is
 * answered with an error in libvirtd's words, since clients look at them ("unknown procedure" makes
 * them fall back to older calls). */
#include "rpc/internal.h"

#include "wire/xdr.h"

#include <string.h>

static GByteArray *packet_begin(const vz_frame *frame, vz_packet_type type, vz_packet_status status,
                                size_t *ret_payload)
{
    vz_frame answer = *frame;
    answer.type = type;
    answer.status = status;
    GByteArray *packet = g_byte_array_new();
    *ret_payload = vz_frame_begin(packet, &answer);
    return packet;
}

static void packet_end(GByteArray *packet, size_t payload)
{
    g_autoptr(GError) err = NULL;
    bool ended = vz_frame_end(packet, payload, &err);
    g_assert(ended);
}

GByteArray *vz_dispatch_empty_packet(const vz_frame *frame, vz_packet_type type,
                                     vz_packet_status status)
{
    size_t payload;
    GByteArray *packet = packet_begin(frame, type, status, &payload);
    packet_end(packet, payload);
    return packet;
}

GByteArray *vz_dispatch_error_packet(const vz_frame *frame, const GError *error)
{
    vz_packet_type type = frame->type == VZ_PACKET_CALL ? VZ_PACKET_REPLY : VZ_PACKET_STREAM;
    size_t length = strnlen(error->message, VZ_ERROR_TEXT_BYTES);
    g_autofree char *valid = g_utf8_make_valid(error->message, (gssize)length);
    g_autoptr(GError) err = g_error_new_literal(error->domain, error->code, valid);
    g_autofree char *text = vz_error_text(err);
    vz_error_code code = vz_error_number(error);
    const vz_wire_error body = {
        .code = (int32_t)code,
        .domain = code == VZ_ERR_RPC ? VZ_ERROR_DOMAIN_RPC : VZ_ERROR_DOMAIN_PARALLELS,
        .message = text,
        .level = VZ_ERROR_LEVEL_ERROR,
        .str1 = "%s",
        .str2 = valid,
        .int1 = -1,
        .int2 = -1,
    };
    size_t payload;
    GByteArray *packet = packet_begin(frame, type, VZ_STATUS_ERROR, &payload);
    g_autoptr(GError) failure = NULL;
    bool encoded = vz_xdr_encode(&vz_schema_error, &body, packet, &failure);
    g_assert(encoded);
    packet_end(packet, payload);
    return packet;
}

static const vz_handler *find_handler(const vz_server *server, vz_proc number)
{
    for (size_t i = 0; i < server->n_handlers; i++)
        if (server->handlers[i].proc == number)
            return &server->handlers[i];
    return NULL;
}

/* Before AUTH_LIST nothing else is served; before CONNECT_OPEN only the question whether there is
 * keepalive, which libvirt's clients ask first (facts 1.3, 2). */
static bool check_state(const vz_conn *conn, const vz_procedure *procedure, GError **err)
{
    if (procedure->number == VZ_PROC_auth_list)
        return true;
    if (!conn->authenticated)
        return vz_fail(err, VZ_ERR_RPC, "authentication required");
    if (conn->opened || procedure->number == VZ_PROC_connect_open ||
        procedure->number == VZ_PROC_connect_supports_feature)
        return true;
    return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "connection not open");
}

static bool check_access(const vz_conn *conn, const vz_procedure *procedure, GError **err)
{
    if (procedure->access == VZ_ACCESS_READ || !vz_conn_readonly(conn))
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_DENIED, "read only access prevents %s", procedure->name);
}

/* The domain of a DOMAIN row is the first field of its arguments (asserted by a test). */
static bool run(vz_server *server, vz_call *call, GError **err)
{
    switch (call->procedure->runs_on) {
    case VZ_RUNS_ON_LOOP:
        vz_call_run(call);
        return true;
    case VZ_RUNS_ON_HOST:
        return server->backend.post_to_host(server->backend.data, call, err);
    case VZ_RUNS_ON_DOMAIN:
        return server->backend.post_to_domain(server->backend.data, call, call->args, err);
    }
    g_assert_not_reached();
}

static bool dispatch_known_call(vz_conn *conn, const vz_frame *frame, const uint8_t *data,
                                size_t bytes, GError **err)
{
    const vz_procedure *procedure = vz_procedure_program(frame->procedure) == frame->program
                                        ? vz_procedure_find(frame->procedure)
                                        : NULL;
    const vz_handler *handler = procedure ? find_handler(conn->server, procedure->number) : NULL;
    if (!handler)
        return vz_fail(err, VZ_ERR_RPC, "unknown procedure: %d", frame->procedure);
    if (!check_state(conn, procedure, err) || !check_access(conn, procedure, err))
        return false;
    g_autoptr(vz_call) call = vz_call_new(conn, procedure, handler, data, bytes, err);
    if (!call)
        return false;
    g_autoptr(GError) refusal = NULL;
    if (!run(conn->server, call, &refusal))
        vz_call_fail(call, g_steal_pointer(&refusal));
    return true;
}

static void dispatch_call(vz_conn *conn, const vz_frame *frame, const uint8_t *data, size_t bytes)
{
    g_autoptr(GError) err = NULL;
    bool ok;
    bool known = frame->program == VZ_PROGRAM_REMOTE || frame->program == VZ_PROGRAM_VIRTVZ;
    if (!known || frame->version != VZ_PROGRAM_VERSION)
        ok = vz_fail(&err, VZ_ERR_RPC, "Cannot find program %u version %u", frame->program,
                     frame->version);
    else if (frame->status != VZ_STATUS_OK)
        ok = vz_fail(&err, VZ_ERR_RPC, "Unexpected message status %u", frame->status);
    else
        ok = dispatch_known_call(conn, frame, data, bytes, &err);
    if (!ok)
        vz_conn_send(conn, vz_dispatch_error_packet(frame, err));
}

bool vz_dispatch_packet(vz_conn *conn, const uint8_t *data, size_t bytes, GError **err)
{
    vz_frame frame;
    vz_frame_parse(data, &frame);
    if (frame.program == VZ_PROGRAM_KEEPALIVE) {
        if (frame.procedure == VZ_KEEPALIVE_PING)
            vz_conn_send(conn, vz_keepalive_packet(VZ_KEEPALIVE_PONG));
        return true;
    }
    switch (frame.type) {
    case VZ_PACKET_CALL:
        dispatch_call(conn, &frame, data, bytes);
        return true;
    case VZ_PACKET_STREAM:
    case VZ_PACKET_STREAM_HOLE:
        vz_stream_packet(conn, &frame, data + VZ_FRAME_HEADER_BYTES, bytes - VZ_FRAME_HEADER_BYTES);
        return true;
    default:
        return vz_fail(err, VZ_ERR_RPC, "a packet of type %u came from a client", frame.type);
    }
}
