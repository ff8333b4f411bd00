/* ask.c - see ask.h: the asking side, and what both sides send.
 *
 * Inside TLS, after the preface: question and answer are frames of a head (length u32, code u32,
 * big- endian) and that many bytes. The code is 0 but in an answer that is an error: then it is the
 * error's libvirt number, and the bytes are its text. */
#include "channel/ask.h"

#include "channel/ask_frame.h"
#include "channel/dial.h"
#include "channel/exchange.h"

#include "base/fd.h"

#include <string.h>

#define FRAME_HEAD_BYTES 8

bool vz_ask_frame_write(vz_tls *tls, const vz_io *io, uint32_t code, GBytes *bytes, GError **err)
{
    gsize n = 0;
    const void *data = g_bytes_get_data(bytes, &n);
    uint32_t head[2] = {GUINT32_TO_BE((uint32_t)n), GUINT32_TO_BE(code)};
    return vz_tls_write(tls, io, head, sizeof(head), err) && vz_tls_write(tls, io, data, n, err);
}

bool vz_ask_frame_read(vz_tls *tls, const vz_io *io, uint32_t *ret_code, GBytes **ret_bytes,
                       GError **err)
{
    uint32_t head[2];
    G_STATIC_ASSERT(sizeof(head) == FRAME_HEAD_BYTES);
    if (!vz_tls_read(tls, io, head, sizeof(head), err))
        return false;
    size_t n = GUINT32_FROM_BE(head[0]);
    if (n > VZ_ASK_MAX_BYTES)
        return vz_fail(err, VZ_ERR_RPC, "the peer announced %zu bytes, more than %zu", n,
                       VZ_ASK_MAX_BYTES);
    g_autofree char *data = g_malloc(n + 1);
    if (!vz_tls_read(tls, io, data, n, err))
        return false;
    data[n] = '\0';
    *ret_code = GUINT32_FROM_BE(head[1]);
    *ret_bytes = g_bytes_new_take(g_steal_pointer(&data), n);
    return true;
}

static bool send_prologue(int fd, const uint8_t job[VZ_UUID_BYTES], GError **err)
{
    vz_prologue prologue = {.door = VZ_DOOR_ASK};
    memcpy(prologue.job, job, VZ_UUID_BYTES);
    uint8_t bytes[VZ_PROLOGUE_BYTES];
    vz_prologue_encode(&prologue, bytes);
    return vz_fd_write_all(fd, bytes, sizeof(bytes), err);
}

static bool exchange(const vz_ask_request *r, int fd, GBytes *question, uint32_t *ret_code,
                     GBytes **ret_answer, GError **err)
{
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    if (!vz_fingerprint_parse(r->peer_fingerprint, fingerprint))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the peer's key fingerprint is malformed");
    vz_io io = {r->inbox, r->deadline_us};
    vz_preface preface = {.purpose = VZ_PURPOSE_ASK};
    memcpy(preface.job, r->job, VZ_UUID_BYTES);
    g_autoptr(vz_tls) tls = vz_tls_new(fd, VZ_TLS_OPENER, r->keys, fingerprint, err);
    return tls && send_prologue(fd, r->job, err) && vz_exchange_open(tls, &io, &preface, err) &&
           vz_ask_frame_write(tls, &io, 0, question, err) &&
           vz_ask_frame_read(tls, &io, ret_code, ret_answer, err);
}

bool vz_ask(const vz_ask_request *request, GBytes *question, GBytes **ret_answer, GError **err)
{
    if (g_bytes_get_size(question) > VZ_ASK_MAX_BYTES)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "a question of %zu bytes is above %zu",
                       g_bytes_get_size(question), VZ_ASK_MAX_BYTES);
    vz_dial_request dial = {request->host,  request->port,        request->bind_address,
                            request->inbox, request->deadline_us, request->way};
    vz_autofd fd = vz_dial(&dial, err);
    if (fd < 0)
        return false;
    uint32_t code = 0;
    g_autoptr(GBytes) answer = NULL;
    GError *failure = NULL;
    bool answered = exchange(request, fd, question, &code, &answer, &failure);
    if (request->ret_unknown) /* the one failure of that code: tls.h */
        *request->ret_unknown = g_error_matches(failure, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    if (!answered) {
        g_propagate_error(err, failure);
        g_prefix_error(err, "asking %s port %u: ", request->host, request->port);
        return false;
    }
    if (code != 0)
        return vz_fail_from_peer(err, (int)MIN(code, G_MAXINT), g_bytes_get_data(answer, NULL));
    *ret_answer = g_steal_pointer(&answer);
    return true;
}
