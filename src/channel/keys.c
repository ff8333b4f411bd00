/* keys.c - see keys.h. */
#include "channel/keys.h"

#include "channel/credentials.h"

#include "base/fd.h"
#include "base/text.h"

#include <errno.h>
#include <gnutls/abstract.h>
#include <gnutls/crypto.h>
#include <string.h>
#include <sys/stat.h>

struct vz_channel_keys {
    char *private_pem;
    size_t private_bytes;
    gnutls_datum_t public_pem;
    char fingerprint[VZ_FINGERPRINT_TEXT_BYTES];
};

static void privkey_clear(gnutls_privkey_t *key)
{
    if (*key)
        gnutls_privkey_deinit(*key);
}

static void x509_privkey_clear(gnutls_x509_privkey_t *key)
{
    if (*key)
        gnutls_x509_privkey_deinit(*key);
}

static void pubkey_clear(gnutls_pubkey_t *key)
{
    if (*key)
        gnutls_pubkey_deinit(*key);
}

static void datum_clear(gnutls_datum_t *datum)
{
    if (datum->data)
        gnutls_memset(datum->data, 0, datum->size);
    gnutls_free(datum->data);
    datum->data = NULL;
}

#define auto_privkey      __attribute__((cleanup(privkey_clear))) gnutls_privkey_t
#define auto_x509_privkey __attribute__((cleanup(x509_privkey_clear))) gnutls_x509_privkey_t
#define auto_pubkey       __attribute__((cleanup(pubkey_clear))) gnutls_pubkey_t
#define auto_datum        __attribute__((cleanup(datum_clear))) gnutls_datum_t

static bool fail_gnutls(GError **err, int code, const char *what)
{
    return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "%s: %s", what, gnutls_strerror(code));
}

/* Fills in the public half and its fingerprint. */
static bool derive_public(vz_channel_keys *keys, gnutls_x509_privkey_t source, GError **err)
{
    auto_privkey key = NULL;
    auto_pubkey public_key = NULL;
    auto_datum spki = {NULL, 0};
    int r = gnutls_privkey_init(&key);
    if (r == 0)
        r = gnutls_privkey_import_x509(key, source, 0);
    if (r == 0)
        r = gnutls_pubkey_init(&public_key);
    if (r == 0)
        r = gnutls_pubkey_import_privkey(public_key, key, GNUTLS_KEY_DIGITAL_SIGNATURE, 0);
    if (r == 0)
        r = gnutls_pubkey_export2(public_key, GNUTLS_X509_FMT_PEM, &keys->public_pem);
    if (r == 0)
        r = gnutls_pubkey_export2(public_key, GNUTLS_X509_FMT_DER, &spki);
    uint8_t digest[VZ_FINGERPRINT_BYTES];
    if (r == 0)
        r = gnutls_hash_fast(GNUTLS_DIG_SHA256, spki.data, spki.size, digest);
    if (r < 0)
        return fail_gnutls(err, r, "cannot derive a public key");
    g_autofree char *text = vz_hex(digest, sizeof(digest));
    g_strlcpy(keys->fingerprint, text, sizeof(keys->fingerprint));
    return true;
}

static vz_channel_keys *keys_of(gnutls_x509_privkey_t key, GError **err)
{
    g_autoptr(vz_channel_keys) keys = g_new0(vz_channel_keys, 1);
    auto_datum pem = {NULL, 0};
    int r =
        gnutls_x509_privkey_export2_pkcs8(key, GNUTLS_X509_FMT_PEM, NULL, GNUTLS_PKCS_PLAIN, &pem);
    if (r < 0) {
        fail_gnutls(err, r, "cannot write a private key");
        return NULL;
    }
    keys->private_bytes = pem.size;
    keys->private_pem = g_strndup((const char *)pem.data, pem.size);
    return derive_public(keys, key, err) ? g_steal_pointer(&keys) : NULL;
}

vz_channel_keys *vz_channel_keys_generate(GError **err)
{
    auto_x509_privkey key = NULL;
    int r = gnutls_x509_privkey_init(&key);
    if (r == 0)
        r = gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
                                         GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0);
    if (r < 0) {
        fail_gnutls(err, r, "cannot make a key pair");
        return NULL;
    }
    return keys_of(key, err);
}

void vz_channel_keys_free(vz_channel_keys *keys)
{
    if (!keys)
        return;
    vz_channel_pem_free(keys->private_pem);
    datum_clear(&keys->public_pem);
    g_free(keys);
}

const char *vz_channel_keys_fingerprint(const vz_channel_keys *keys)
{
    return keys->fingerprint;
}

bool vz_channel_keys_save(const vz_channel_keys *keys, const char *path, GError **err)
{
    return vz_file_write_durable(path, keys->private_pem, keys->private_bytes, 0600, err);
}

vz_channel_keys *vz_channel_keys_load(const char *path, GError **err)
{
    struct stat status;
    if (stat(path, &status) < 0) {
        vz_fail_errno(err, errno, "cannot read key '%s'", path);
        return NULL;
    }
    if (status.st_mode & (S_IRWXG | S_IRWXO)) {
        vz_fail(err, VZ_ERR_SYSTEM_ERROR, "key '%s' is open to others (mode %o); it must be 0600",
                path, (unsigned)status.st_mode & 07777);
        return NULL;
    }
    char *pem = NULL;
    size_t bytes = 0;
    if (!vz_file_read(path, VZ_KEY_FILE_MAX_BYTES, &pem, &bytes, err))
        return NULL;
    vz_channel_keys *keys = vz_channel_keys_from_pem(pem, bytes, err);
    vz_channel_pem_free(pem);
    if (!keys)
        g_prefix_error(err, "'%s': ", path);
    return keys;
}

char *vz_channel_keys_to_pem(const vz_channel_keys *keys)
{
    return g_strndup(keys->private_pem, keys->private_bytes);
}

vz_channel_keys *vz_channel_keys_from_pem(const char *pem, size_t bytes, GError **err)
{
    if (bytes > VZ_KEY_FILE_MAX_BYTES) {
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "a key of %zu bytes is too long", bytes);
        return NULL;
    }
    auto_x509_privkey key = NULL;
    gnutls_datum_t text = {(unsigned char *)(uintptr_t)pem, (unsigned)bytes};
    int r = gnutls_x509_privkey_init(&key);
    if (r == 0)
        r = gnutls_x509_privkey_import(key, &text, GNUTLS_X509_FMT_PEM);
    if (r < 0) {
        fail_gnutls(err, r, "not a private key");
        return NULL;
    }
    return keys_of(key, err);
}

void vz_channel_pem_free(char *pem)
{
    if (pem)
        gnutls_memset(pem, 0, strlen(pem));
    g_free(pem);
}

bool vz_fingerprint_parse(const char *text, uint8_t ret_fingerprint[VZ_FINGERPRINT_BYTES])
{
    return text && vz_unhex(text, ret_fingerprint, VZ_FINGERPRINT_BYTES);
}

gnutls_certificate_credentials_t vz_channel_keys_credentials(const vz_channel_keys *keys,
                                                             GError **err)
{
    gnutls_certificate_credentials_t credentials = NULL;
    gnutls_datum_t private_pem = {(unsigned char *)keys->private_pem,
                                  (unsigned)keys->private_bytes};
    int r = gnutls_certificate_allocate_credentials(&credentials);
    if (r == 0)
        r = gnutls_certificate_set_rawpk_key_mem(credentials, &keys->public_pem, &private_pem,
                                                 GNUTLS_X509_FMT_PEM, NULL, 0, NULL, 0, 0);
    if (r < 0) {
        if (credentials)
            gnutls_certificate_free_credentials(credentials);
        fail_gnutls(err, r, "cannot use a key pair for TLS");
        return NULL;
    }
    return credentials;
}
