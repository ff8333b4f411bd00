/* tls.h - TLS 1.3 over a non-blocking socket, between two pinned raw public keys.
 *
 * The socket is read and written in large pieces (VZ_TLS_BATCH_BYTES), many records at a time.
 * One thread at a time uses a vz_tls. Used by the carrier's pump (non-blocking functions), and by
 * handshakes and `ask` (blocking ones, see io.h).
 *
 * Errors: AUTH_FAILED, wrong key on either side; OPERATION_FAILED, the peer closed before TLS began
 * (so it does not know the job); SYSTEM_ERROR, the connection broke or was cut: the texts tell
 * these apart. */
#pragma once

#include "channel/io.h"
#include "channel/keys.h"

#include <sys/types.h>

/* Exactly this and nothing else is offered or accepted. AES-128-GCM is first: twice as fast as
 * ChaCha20 where the processor has AES; GnuTLS's own order would prefer others. */
#define VZ_TLS_PRIORITY                                                                            \
    "NONE:+VERS-TLS1.3:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:+AEAD:"                        \
    "+GROUP-X25519:+GROUP-SECP256R1:+SIGN-ECDSA-SECP256R1-SHA256:"                                 \
    "+CTYPE-SRV-RAWPK:+CTYPE-CLI-RAWPK:%SERVER_PRECEDENCE"

#define VZ_TLS_BATCH_BYTES ((size_t)256 * 1024)

typedef struct vz_tls vz_tls;

typedef enum { VZ_TLS_OPENER, VZ_TLS_ACCEPTOR } vz_tls_role;

/* The socket is borrowed and must outlive the vz_tls; the keys only this call. peer_fingerprint
 * NULL: whoever has a key is let in, and it is the caller's to find out who that is. */
vz_tls *vz_tls_new(int fd, vz_tls_role role, const vz_channel_keys *keys,
                   const uint8_t peer_fingerprint[VZ_FINGERPRINT_BYTES], GError **err);
void vz_tls_free(vz_tls *tls);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_tls, vz_tls_free)

/* Blocking. When the opener's returns, the acceptor may still refuse our key: the next read says. A
 * failed handshake tells the peer why (alert) as far as that is possible without waiting long. */
bool vz_tls_handshake(vz_tls *tls, const vz_io *io, GError **err);
/* Sends all / reads exactly `bytes`; an end of the stream before that is an error. */
bool vz_tls_write(vz_tls *tls, const vz_io *io, const void *data, size_t bytes, GError **err);
bool vz_tls_read(vz_tls *tls, const vz_io *io, void *data, size_t bytes, GError **err);
/* Says that nothing more comes from here, and flushes. */
bool vz_tls_end(vz_tls *tls, const vz_io *io, GError **err);
/* Closes the sending side and drops what still comes, for a moment: so that the last words (a
 * refusal) are not lost by a reset. */
void vz_tls_linger(vz_tls *tls);

/* Non-blocking. Takes as much as there is room for and returns how much; -1 with err. */
ssize_t vz_tls_encrypt(vz_tls *tls, const void *data, size_t bytes, GError **err);
/* Queues the end of the stream. Only while vz_tls_unsent() == 0. */
bool vz_tls_encrypt_end(vz_tls *tls, GError **err);
/* Sends what the socket takes. */
bool vz_tls_flush(vz_tls *tls, GError **err);
size_t vz_tls_unsent(const vz_tls *tls);

#define VZ_TLS_AGAIN (-2) /* nothing there; poll the socket */
/* Returns > 0 bytes, 0 for the peer's clean end, VZ_TLS_AGAIN, or -1 with err (a cut is an error).
 */
ssize_t vz_tls_decrypt(vz_tls *tls, void *data, size_t max_bytes, GError **err);

/* The key that the peer has proved to hold, once the handshake is done. */
void vz_tls_peer_fingerprint(const vz_tls *tls, char ret_text[VZ_FINGERPRINT_TEXT_BYTES]);
/* "TLS1.3 AES-128-GCM ..." once the handshake is done. Caller frees. */
char *vz_tls_describe(const vz_tls *tls);
void vz_tls_counters(const vz_tls *tls, uint64_t *ret_wire_sent, uint64_t *ret_wire_received);
