/* keys.h - the ephemeral key pair of one side of one job.
 *
 * Each side of a job makes a pair of its own (ECDSA P-256, used as a raw public key, RFC 7250: no
 * certificate, so no X.509 parser ever reads what a peer sent). The cookies carry only the
 * fingerprints; each side pins the other's. The private key is kept in the job's directory, since
 * `ask` must still work after a restart. A vz_channel_keys is immutable: any thread. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define VZ_FINGERPRINT_BYTES      32 /* SHA-256 of the DER SubjectPublicKeyInfo */
#define VZ_FINGERPRINT_TEXT_BYTES 65 /* lower-case hex, with the NUL */
#define VZ_KEY_FILE_MAX_BYTES     4096

typedef struct vz_channel_keys vz_channel_keys;

/* Makes a new pair. NULL with INTERNAL_ERROR where GnuTLS fails. Takes well under a millisecond of
 * processor time, so it may be called from any actor. */
vz_channel_keys *vz_channel_keys_generate(GError **err);

/* Accepts NULL; the private key is wiped. */
void vz_channel_keys_free(vz_channel_keys *keys);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_channel_keys, vz_channel_keys_free)

/* The fingerprint of the own public key, as the cookie carries it: VZ_FINGERPRINT_TEXT_BYTES - 1
 * hex digits. Lives as long as the keys. */
const char *vz_channel_keys_fingerprint(const vz_channel_keys *keys);

/* Writes the private key to a file of mode 0600, durable when true is returned. */
bool vz_channel_keys_save(const vz_channel_keys *keys, const char *path, GError **err);

/* Reads what vz_channel_keys_save wrote. NULL: SYSTEM_ERROR (missing, or readable by others than
 * its owner) or INTERNAL_ERROR (not a key). */
vz_channel_keys *vz_channel_keys_load(const char *path, GError **err);

/* The private key as PEM, and back; for the memfd that a carrier gets it in. The caller wipes the
 * text with vz_channel_pem_free. */
char *vz_channel_keys_to_pem(const vz_channel_keys *keys);
vz_channel_keys *vz_channel_keys_from_pem(const char *pem, size_t bytes, GError **err);
void vz_channel_pem_free(char *pem);

/* Whether a peer's text has the form of a fingerprint. A cookie's fingerprint is to be checked with
 * this before it is used. */
bool vz_fingerprint_parse(const char *text, uint8_t ret_fingerprint[VZ_FINGERPRINT_BYTES]);
