/* exchange.c - see exchange.h. */
#include "channel/exchange.h"

#include <string.h>

bool vz_exchange_open(vz_tls *tls, const vz_io *io, const vz_preface *preface, GError **err)
{
    vz_preface own = *preface;
    own.version = VZ_CHANNEL_VERSION;
    uint8_t bytes[VZ_PREFACE_BYTES];
    vz_preface_encode(&own, bytes);
    if (!vz_tls_handshake(tls, io, err) || !vz_tls_write(tls, io, bytes, sizeof(bytes), err))
        return false;
    uint8_t answer[VZ_ANSWER_MAX_BYTES];
    if (!vz_tls_read(tls, io, answer, VZ_ANSWER_HEAD_BYTES, err)) {
        g_prefix_error(err, "waiting for the answer to the preface: ");
        return false;
    }
    size_t length = vz_answer_length(answer);
    if (length == 0)
        return vz_fail(err, VZ_ERR_RPC, "the answer to the preface is malformed");
    return vz_tls_read(tls, io, answer + VZ_ANSWER_HEAD_BYTES, length - VZ_ANSWER_HEAD_BYTES,
                       err) &&
           vz_answer_check(answer, length, err);
}

bool vz_exchange_read_preface(vz_tls *tls, const vz_io *io, const uint8_t job[VZ_UUID_BYTES],
                              vz_preface *ret_preface, vz_answer *ret_answer, GError **err)
{
    uint8_t bytes[VZ_PREFACE_MAX_BYTES];
    if (!vz_tls_handshake(tls, io, err) || !vz_tls_read(tls, io, bytes, VZ_PREFACE_HEAD_BYTES, err))
        return false;
    size_t length = vz_preface_length(bytes);
    *ret_answer = VZ_ANSWER_MALFORMED;
    if (length == 0)
        return true;
    if (!vz_tls_read(tls, io, bytes + VZ_PREFACE_HEAD_BYTES, length - VZ_PREFACE_HEAD_BYTES, err))
        return false;
    *ret_answer = vz_preface_decode(bytes, length, ret_preface);
    if (*ret_answer == VZ_ANSWER_ACCEPTED && memcmp(ret_preface->job, job, VZ_UUID_BYTES) != 0)
        *ret_answer = VZ_ANSWER_WRONG_JOB;
    return true;
}

static bool send_answer(vz_tls *tls, const vz_io *io, vz_answer answer, GError **err)
{
    uint8_t bytes[VZ_ANSWER_MAX_BYTES];
    size_t length = vz_answer_encode(answer, bytes);
    return vz_tls_write(tls, io, bytes, length, err);
}

bool vz_exchange_accept(vz_tls *tls, const vz_io *io, GError **err)
{
    return send_answer(tls, io, VZ_ANSWER_ACCEPTED, err);
}

void vz_exchange_refuse(vz_tls *tls, const vz_io *io, vz_answer answer)
{
    g_autoptr(GError) ignored = NULL;
    if (send_answer(tls, io, answer, &ignored) && vz_tls_end(tls, io, &ignored))
        vz_tls_linger(tls);
}
