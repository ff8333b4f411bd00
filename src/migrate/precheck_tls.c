/* precheck_tls.c - see precheck.h: the x509 certificates of a direct stream with TLS, before QEMU
 * finds in the middle of a move that they will not do. */
#include "migrate/precheck.h"

#include "base/fd.h"
#include "migrate/direct.h"
#include "migrate/service.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <unistd.h>

#define FILE_BYTES_MAX ((size_t)256 * 1024)
#define CHAIN_MAX      8
#define NAME_BYTES     256

#define REMEDY_FILES                                                                               \
    "certtool or openssl make ca-cert.pem, server-cert.pem, server-key.pem, client-cert.pem and "  \
    "client-key.pem; without --tls nothing on a direct stream is encrypted"
#define REMEDY_NAME "name the host that it is for with --tls-destination"

typedef struct {
    gnutls_x509_crt_t *items;
    unsigned count;
} certificates;

static void certificates_clear(certificates *c)
{
    for (unsigned i = 0; i < c->count; i++)
        gnutls_x509_crt_deinit(c->items[i]);
    gnutls_free(c->items);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(certificates, certificates_clear)

static bool load(const char *path, certificates *ret, GError **err)
{
    g_autofree char *text = NULL;
    size_t bytes = 0;
    if (!vz_file_read(path, FILE_BYTES_MAX, &text, &bytes, err))
        return false;
    const gnutls_datum_t data = {(unsigned char *)text, (unsigned)bytes};
    int rc = gnutls_x509_crt_list_import2(&ret->items, &ret->count, &data, GNUTLS_X509_FMT_PEM, 0);
    if (rc < 0)
        ret->count = 0;
    return rc >= 0 || vz_fail(err, VZ_ERR_OPERATION_FAILED, "'%s' holds no certificate: %s", path,
                              gnutls_strerror(rc));
}

/* As QEMU will: by this host's CA, now. */
static bool check_trust(const char *path, const certificates *own, const certificates *ca,
                        GError **err)
{
    unsigned status = 0;
    gnutls_datum_t words = {NULL, 0};
    int rc = gnutls_x509_crt_list_verify(own->items, MIN(own->count, CHAIN_MAX), ca->items,
                                         ca->count, NULL, 0, 0, &status);
    if (rc >= 0 && status == 0)
        return true;
    if (rc >= 0)
        rc = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &words, 0);
    vz_fail(err, VZ_ERR_OPERATION_FAILED, "'%s' is of no use: %s", path,
            words.data ? (const char *)words.data : gnutls_strerror(rc));
    gnutls_free(words.data);
    return false;
}

static bool check_name(const char *path, gnutls_x509_crt_t certificate, const char *expected,
                       GError **err)
{
    char name[NAME_BYTES] = "";
    size_t bytes = sizeof(name);
    if (gnutls_x509_crt_check_hostname(certificate, expected))
        return true;
    if (gnutls_x509_crt_get_subject_alt_name(certificate, 0, name, &bytes, NULL) < 0) {
        bytes = sizeof(name);
        gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name, &bytes);
    }
    g_autofree char *shown = g_utf8_make_valid(name, -1);
    return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                   "Certificate does not match the hostname %s: '%s' is for '%s'", expected, path,
                   shown);
}

static bool look_at_files(const char *dir, const char *endpoint, const char *path,
                          certificates *own, GError **err)
{
    g_auto(certificates) ca = {0};
    g_autofree char *ca_path = g_build_filename(dir, "ca-cert.pem", NULL);
    g_autofree char *key = g_strdup_printf("%s/%s-key.pem", dir, endpoint);
    if (!load(ca_path, &ca, err) || !load(path, own, err))
        return false;
    if (access(key, R_OK) < 0)
        return vz_fail_errno(err, errno, "cannot read '%s'", key);
    return check_trust(path, own, &ca, err);
}

void vz_precheck_certificates(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) err = NULL;
    g_auto(certificates) own = {0};
    if (!s->options || !vz_options_has(s->options, VZ_OPTION_TLS) ||
        vz_direct_way_of(s->options) == VZ_DIRECT_NONE)
        return;
    bool is_destination = s->cookie != NULL;
    const char *endpoint = is_destination ? "server" : "client";
    const char *dir = vz_direct_tls_dir(s->service);
    const char *remedy = REMEDY_FILES;
    g_autofree char *path = g_strdup_printf("%s/%s-cert.pem", dir, endpoint);
    g_autofree char *expected = vz_direct_expected_name(s->options, s->here.host_name);
    bool ok = look_at_files(dir, endpoint, path, &own, &err);
    if (ok && is_destination) {
        remedy = REMEDY_NAME;
        ok = check_name(path, own.items[0], expected, &err);
    }
    if (ok)
        return;
    g_prefix_error(&err, "TLS of a direct stream needs x509 certificates in '%s' on %s: ", dir,
                   s->here.host_name);
    vz_findings_refuse_error(findings, name, err, remedy);
}
