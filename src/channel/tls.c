/* tls.c - see tls.h.
 *
 *     plain ─ gnutls_record_send ─► push ─► out buffer ─ vz_tls_flush ─► socket
 *     plain ◄ gnutls_record_recv ◄─ pull ◄─ in buffer  ◄──── recv ────── socket
 *
 * Room for a whole record is made sure of before a record is made, so push never has to refuse. */
#include "channel/tls.h"

#include "channel/credentials.h"
#include "channel/dial.h"

#include "base/text.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define RECORD_PLAIN_MAX ((size_t)16384)
#define RECORD_WIRE_MAX  (RECORD_PLAIN_MAX + 256 + 5) /* RFC 8446 5.2, with the header */
/* Kept free for alerts, key updates and the handshake's small messages. */
#define OUT_RESERVE_BYTES ((size_t)8192)
#define OUT_BYTES         (VZ_TLS_BATCH_BYTES + RECORD_WIRE_MAX + OUT_RESERVE_BYTES)

#define LINGER_US        G_USEC_PER_SEC
#define LINGER_BYTES_MAX ((size_t)64 * 1024)

struct vz_tls {
    int fd;
    vz_tls_role role;
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
    uint8_t peer_fingerprint[VZ_FINGERPRINT_BYTES];
    bool any_peer; /* whoever comes; peer_fingerprint is then what it showed */
    bool wrong_peer;
    bool drained;  /* the last pull found nothing */
    int io_errnum; /* of the socket, where that is why GnuTLS failed */
    uint8_t *in;
    size_t in_start, in_end;
    uint8_t *out;
    size_t out_start, out_end;
    uint64_t wire_sent, wire_received;
};

static ssize_t pull(gnutls_transport_ptr_t pointer, void *data, size_t bytes)
{
    vz_tls *tls = pointer;
    if (tls->in_start == tls->in_end) {
        ssize_t n = recv(tls->fd, tls->in, VZ_TLS_BATCH_BYTES, MSG_DONTWAIT);
        if (n <= 0) {
            tls->drained = n < 0 && (errno == EAGAIN || errno == EINTR);
            if (n < 0 && !tls->drained)
                tls->io_errnum = errno;
            gnutls_transport_set_errno(tls->session, tls->drained ? EAGAIN : errno);
            return n;
        }
        tls->in_start = 0;
        tls->in_end = (size_t)n;
        tls->wire_received += (size_t)n;
    }
    size_t n = MIN(bytes, tls->in_end - tls->in_start);
    memcpy(data, tls->in + tls->in_start, n);
    tls->in_start += n;
    return (ssize_t)n;
}

static ssize_t push(gnutls_transport_ptr_t pointer, const giovec_t *vector, int n_vectors)
{
    vz_tls *tls = pointer;
    size_t bytes = 0;
    for (int i = 0; i < n_vectors; i++)
        bytes += vector[i].iov_len;
    if (bytes > OUT_BYTES - tls->out_end) {
        gnutls_transport_set_errno(tls->session, EAGAIN);
        return -1;
    }
    for (int i = 0; i < n_vectors; i++) {
        memcpy(tls->out + tls->out_end, vector[i].iov_base, vector[i].iov_len);
        tls->out_end += vector[i].iov_len;
    }
    return (ssize_t)bytes;
}

/* The one place where a peer is recognised: the SHA-256 of its raw public key. That it also holds
 * the private key is what GnuTLS checks by the handshake's signature. */
static int verify_peer(gnutls_session_t session)
{
    vz_tls *tls = gnutls_session_get_ptr(session);
    unsigned n = 0;
    const gnutls_datum_t *key = gnutls_certificate_get_peers(session, &n);
    uint8_t digest[VZ_FINGERPRINT_BYTES];
    bool known = n == 1 && key &&
                 gnutls_certificate_type_get2(session, GNUTLS_CTYPE_PEERS) == GNUTLS_CRT_RAWPK &&
                 gnutls_hash_fast(GNUTLS_DIG_SHA256, key->data, key->size, digest) == 0;
    if (known && tls->any_peer)
        memcpy(tls->peer_fingerprint, digest, sizeof(digest));
    bool right = known && gnutls_memcmp(digest, tls->peer_fingerprint, sizeof(digest)) == 0;
    tls->wrong_peer = !right;
    return right ? 0 : GNUTLS_E_CERTIFICATE_ERROR;
}

static int set_up_session(vz_tls *tls)
{
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS | GNUTLS_ENABLE_RAWPK;
    int r = gnutls_init(&tls->session,
                        flags | (tls->role == VZ_TLS_ACCEPTOR ? GNUTLS_SERVER : GNUTLS_CLIENT));
    if (r == 0)
        r = gnutls_priority_set_direct(tls->session, VZ_TLS_PRIORITY, NULL);
    if (r == 0)
        r = gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, tls->credentials);
    if (r < 0)
        return r;
    if (tls->role == VZ_TLS_ACCEPTOR)
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUIRE);
    gnutls_session_set_ptr(tls->session, tls);
    gnutls_session_set_verify_function(tls->session, verify_peer);
    gnutls_transport_set_ptr(tls->session, tls);
    gnutls_transport_set_pull_function(tls->session, pull);
    gnutls_transport_set_vec_push_function(tls->session, push);
    return 0;
}

vz_tls *vz_tls_new(int fd, vz_tls_role role, const vz_channel_keys *keys,
                   const uint8_t peer_fingerprint[VZ_FINGERPRINT_BYTES], GError **err)
{
    g_autoptr(vz_tls) tls = g_new0(vz_tls, 1);
    tls->fd = fd;
    tls->role = role;
    tls->any_peer = !peer_fingerprint;
    if (peer_fingerprint)
        memcpy(tls->peer_fingerprint, peer_fingerprint, VZ_FINGERPRINT_BYTES);
    tls->in = g_malloc(VZ_TLS_BATCH_BYTES);
    tls->out = g_malloc(OUT_BYTES);
    tls->credentials = vz_channel_keys_credentials(keys, err);
    if (!tls->credentials)
        return NULL;
    int r = set_up_session(tls);
    if (r < 0) {
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "cannot set up TLS: %s", gnutls_strerror(r));
        return NULL;
    }
    return g_steal_pointer(&tls);
}

void vz_tls_free(vz_tls *tls)
{
    if (!tls)
        return;
    if (tls->session)
        gnutls_deinit(tls->session);
    if (tls->credentials)
        gnutls_certificate_free_credentials(tls->credentials);
    g_free(tls->in);
    g_free(tls->out);
    g_free(tls);
}

static bool fail_socket(GError **err, int errnum)
{
    if (errnum == ETIMEDOUT)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "the link to the peer is dead: nothing was acknowledged for %d s",
                       VZ_CHANNEL_USER_TIMEOUT_MS / 1000);
    if (errnum == ECONNRESET || errnum == EPIPE)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "the peer cut the connection (its end failed, was aborted, or died)");
    return vz_fail_errno(err, errnum, "the connection broke");
}

static bool fail_tls(vz_tls *tls, int code, GError **err)
{
    if (tls->wrong_peer)
        return vz_fail(err, VZ_ERR_AUTH_FAILED,
                       "the peer's key is not the one whose fingerprint its cookie carried");
    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
        return vz_fail(err, VZ_ERR_AUTH_FAILED, "the peer refused our key or our TLS (alert: %s)",
                       gnutls_alert_get_name(gnutls_alert_get(tls->session)));
    if (tls->wire_received == 0 &&
        (code == GNUTLS_E_PREMATURE_TERMINATION || tls->io_errnum == ECONNRESET))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "the peer closed the connection before TLS began%s",
                       tls->role == VZ_TLS_OPENER
                           ? " (it does not know this job, or does not speak this protocol)"
                           : "");
    if (tls->io_errnum != 0)
        return fail_socket(err, tls->io_errnum);
    if (code == GNUTLS_E_PREMATURE_TERMINATION)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "the connection was cut: it ended without the peer's end mark (the carrier "
                       "or the host died)");
    return vz_fail(err, VZ_ERR_AUTH_FAILED, "TLS failed: %s", gnutls_strerror(code));
}

bool vz_tls_flush(vz_tls *tls, GError **err)
{
    while (tls->out_start < tls->out_end) {
        ssize_t n = send(tls->fd, tls->out + tls->out_start, tls->out_end - tls->out_start,
                         MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || fail_socket(err, errno);
        tls->out_start += (size_t)n;
        tls->wire_sent += (size_t)n;
    }
    tls->out_start = tls->out_end = 0;
    return true;
}

size_t vz_tls_unsent(const vz_tls *tls)
{
    return tls->out_end - tls->out_start;
}

static bool flush_all(vz_tls *tls, const vz_io *io, GError **err)
{
    for (;;) {
        if (!vz_tls_flush(tls, err))
            return false;
        if (vz_tls_unsent(tls) == 0)
            return true;
        if (!vz_io_wait(io, tls->fd, POLLOUT, err))
            return false;
    }
}

bool vz_tls_handshake(vz_tls *tls, const vz_io *io, GError **err)
{
    for (;;) {
        int r = gnutls_handshake(tls->session);
        if (r < 0 && gnutls_error_is_fatal(r)) {
            fail_tls(tls, r, err);
            gnutls_alert_send_appropriate(tls->session, r);
            vz_tls_linger(tls);
            return false;
        }
        if (!flush_all(tls, io, err))
            return false;
        if (r == 0)
            return true;
        if (r == GNUTLS_E_AGAIN && !vz_io_wait(io, tls->fd, POLLIN, err)) {
            g_prefix_error(err, "TLS handshake: ");
            return false;
        }
    }
}

ssize_t vz_tls_encrypt(vz_tls *tls, const void *data, size_t bytes, GError **err)
{
    const uint8_t *p = data;
    size_t done = 0;
    while (done < bytes && OUT_BYTES - tls->out_end >= RECORD_WIRE_MAX + OUT_RESERVE_BYTES) {
        ssize_t n = gnutls_record_send(tls->session, p + done, MIN(bytes - done, RECORD_PLAIN_MAX));
        if (n == GNUTLS_E_INTERRUPTED)
            continue;
        if (n < 0) {
            fail_tls(tls, (int)n, err);
            return -1;
        }
        done += (size_t)n;
    }
    return (ssize_t)done;
}

bool vz_tls_encrypt_end(vz_tls *tls, GError **err)
{
    int r = gnutls_bye(tls->session, GNUTLS_SHUT_WR);
    return r == 0 || fail_tls(tls, r, err);
}

ssize_t vz_tls_decrypt(vz_tls *tls, void *data, size_t max_bytes, GError **err)
{
    for (;;) {
        tls->drained = false;
        ssize_t n = gnutls_record_recv(tls->session, data, max_bytes);
        if (n >= 0)
            return n;
        if (n == GNUTLS_E_AGAIN && tls->drained)
            return VZ_TLS_AGAIN;
        /* AGAIN without an empty socket: a message of TLS itself (a key update) was handled. */
        if (n != GNUTLS_E_AGAIN && n != GNUTLS_E_INTERRUPTED) {
            fail_tls(tls, (int)n, err);
            return -1;
        }
    }
}

bool vz_tls_write(vz_tls *tls, const vz_io *io, const void *data, size_t bytes, GError **err)
{
    const uint8_t *p = data;
    while (bytes > 0) {
        ssize_t n = vz_tls_encrypt(tls, p, bytes, err);
        if (n < 0 || !flush_all(tls, io, err))
            return false;
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

bool vz_tls_read(vz_tls *tls, const vz_io *io, void *data, size_t bytes, GError **err)
{
    uint8_t *p = data;
    while (bytes > 0) {
        ssize_t n = vz_tls_decrypt(tls, p, bytes, err);
        if (n == 0)
            return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the peer ended the exchange early");
        if (n == -1 || (n == VZ_TLS_AGAIN && !vz_io_wait(io, tls->fd, POLLIN, err)))
            return false;
        if (n > 0) {
            p += n;
            bytes -= (size_t)n;
        }
    }
    return true;
}

bool vz_tls_end(vz_tls *tls, const vz_io *io, GError **err)
{
    return vz_tls_encrypt_end(tls, err) && flush_all(tls, io, err);
}

void vz_tls_linger(vz_tls *tls)
{
    g_autoptr(GError) ignored = NULL;
    if (!vz_tls_flush(tls, &ignored))
        return;
    shutdown(tls->fd, SHUT_WR);
    int64_t deadline_us = vz_now_us() + LINGER_US;
    for (size_t dropped = 0; dropped < LINGER_BYTES_MAX && vz_now_us() < deadline_us;) {
        if (!vz_poll_one(tls->fd, POLLIN, deadline_us))
            return;
        ssize_t n = recv(tls->fd, tls->in, VZ_TLS_BATCH_BYTES, MSG_DONTWAIT);
        if (n <= 0)
            return;
        dropped += (size_t)n;
    }
}

void vz_tls_peer_fingerprint(const vz_tls *tls, char ret_text[VZ_FINGERPRINT_TEXT_BYTES])
{
    g_autofree char *text = vz_hex(tls->peer_fingerprint, VZ_FINGERPRINT_BYTES);
    g_strlcpy(ret_text, text, VZ_FINGERPRINT_TEXT_BYTES);
}

char *vz_tls_describe(const vz_tls *tls)
{
    const char *cipher = gnutls_cipher_get_name(gnutls_cipher_get(tls->session));
    const char *version = gnutls_protocol_get_name(gnutls_protocol_get_version(tls->session));
    const char *group = gnutls_group_get_name(gnutls_group_get(tls->session));
    return g_strdup_printf("%s %s %s", version ? version : "?", cipher ? cipher : "?",
                           group ? group : "?");
}

void vz_tls_counters(const vz_tls *tls, uint64_t *ret_wire_sent, uint64_t *ret_wire_received)
{
    *ret_wire_sent = tls->wire_sent;
    *ret_wire_received = tls->wire_received;
}
