/* test_port.c - hostile guests at the data port: garbage, silence, half handshakes, wrong keys and
 * words. After each the port and the carrier still serve the honest peer. */
#include "channel/credentials.h"
#include "channel/dial.h"
#include "channel/exchange.h"
#include "support/channel_pair.h"

#include "base/fd.h"

#include <gnutls/abstract.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_US (3 * G_USEC_PER_SEC)

typedef struct {
    channel_pair *pair;
} fixture;

static void set_up(fixture *f, G_GNUC_UNUSED const void *data)
{
    f->pair = channel_pair_new();
}

/* Whatever was done to it, an honest peer gets through. */
static void tear_down(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, b;
    channel_pair_open(f->pair, 900, &a, &b);
    GThread *reader = channel_reader(b, 9);
    g_thread_join(channel_writer(a, 9, 1 << 20, true));
    g_assert_cmpuint(GPOINTER_TO_SIZE(g_thread_join(reader)), ==, 1 << 20);
    close(a);
    close(b);
    channel_pair_free(f->pair);
}

static int call(fixture *f)
{
    g_autoptr(GError) err = NULL;
    vz_dial_request request = {.host = "127.0.0.1",
                               .port = vz_port_number(f->pair->host->port),
                               .deadline_us = vz_now_us() + ANSWER_US};
    int fd = vz_dial(&request, &err);
    g_assert_no_error(err);
    return fd;
}

static void say_prologue(int fd, const uint8_t job[VZ_UUID_BYTES], vz_door door)
{
    vz_prologue prologue = {.door = door};
    memcpy(prologue.job, job, VZ_UUID_BYTES);
    uint8_t bytes[VZ_PROLOGUE_BYTES];
    vz_prologue_encode(&prologue, bytes);
    g_assert_cmpint(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), ==, sizeof(bytes));
}

/* The other side hangs up within `ms`, after at most some bytes (an alert). */
static void assert_hung_up(int fd, int ms)
{
    int64_t deadline_us = vz_now_us() + ms * (int64_t)1000;
    char bytes[4096];
    for (;;) {
        g_assert_true(vz_poll_one(fd, POLLIN, deadline_us));
        if (recv(fd, bytes, sizeof(bytes), 0) <= 0)
            return;
    }
}

static void test_garbage(fixture *f, G_GNUC_UNUSED const void *data)
{
    uint8_t bytes[4096];
    for (unsigned round = 0; round < 200; round++) {
        vz_autofd fd = call(f);
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)g_test_rand_int();
        if (round % 4 == 1) /* a good beginning */
            say_prologue(fd, f->pair->job, VZ_DOOR_CARRIER);
        if (round % 4 == 2) /* no such job */
            say_prologue(fd, bytes, VZ_DOOR_CARRIER);
        if (round % 4 == 3) /* nobody answers questions here */
            say_prologue(fd, f->pair->job, VZ_DOOR_ASK);
        send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
        shutdown(fd, SHUT_WR); /* noise may look like the head of a long record */
        assert_hung_up(fd, 3000);
    }
}

static void test_wrong_prologue_version(fixture *f, G_GNUC_UNUSED const void *data)
{
    vz_autofd fd = call(f);
    vz_prologue prologue = {.door = VZ_DOOR_CARRIER};
    memcpy(prologue.job, f->pair->job, VZ_UUID_BYTES);
    uint8_t bytes[VZ_PROLOGUE_BYTES];
    vz_prologue_encode(&prologue, bytes);
    bytes[9] = 2;
    g_assert_cmpint(send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL), ==, sizeof(bytes));
    assert_hung_up(fd, 3000);
}

/* More silent connections than there is room for: the oldest make way. Then one that is slow. */
static void test_slow_loris(fixture *f, G_GNUC_UNUSED const void *data)
{
    enum { CALLERS = VZ_PORT_HALF_OPEN_MAX + 20 };
    int fds[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++) {
        fds[i] = call(f);
        g_assert_cmpint(send(fds[i], "vz-", 3, MSG_NOSIGNAL), ==, 3);
    }
    for (unsigned i = 0; i < 20; i++)
        assert_hung_up(fds[i], 3000);
    int a, b;
    channel_pair_open(f->pair, 0, &a, &b); /* while the others wait */
    int64_t began_us = vz_now_us();
    assert_hung_up(fds[CALLERS - 1], VZ_PORT_PROLOGUE_TIMEOUT_MS + 2000);
    g_assert_cmpint(vz_now_us() - began_us, >, VZ_PORT_PROLOGUE_TIMEOUT_MS * 500);
    for (unsigned i = 0; i < CALLERS; i++)
        close(fds[i]);
    close(a);
    close(b);
}

/* The id of a job is seen on the wire, so anyone may begin handshakes; more than there is room for
 * must not lock the peer out. */
static void test_half_handshakes(fixture *f, G_GNUC_UNUSED const void *data)
{
    enum { CALLERS = 100 };
    int fds[CALLERS];
    for (unsigned i = 0; i < CALLERS; i++) {
        fds[i] = call(f);
        say_prologue(fds[i], f->pair->job, VZ_DOOR_CARRIER);
        if (i % 2) /* the head of a TLS record that never comes */
            g_assert_cmpint(send(fds[i], "\x16\x03\x01\x02\x00", 5, MSG_NOSIGNAL), ==, 5);
    }
    int a, b;
    channel_pair_open(f->pair, 0, &a, &b);
    assert_hung_up(fds[0], 3000);
    for (unsigned i = 0; i < CALLERS; i++)
        close(fds[i]);
    close(a);
    close(b);
}

/* An honest key, and `bytes` instead of an honest preface. Returns what was answered. */
static char *answer_to(fixture *f, const uint8_t *bytes, size_t n_bytes)
{
    g_autoptr(GError) err = NULL;
    vz_autofd fd = call(f);
    vz_io io = {NULL, vz_now_us() + ANSWER_US};
    uint8_t pin[VZ_FINGERPRINT_BYTES], answer[VZ_ANSWER_MAX_BYTES];
    vz_fingerprint_parse(vz_channel_keys_fingerprint(f->pair->target_keys), pin);
    say_prologue(fd, f->pair->job, VZ_DOOR_CARRIER);
    g_autoptr(vz_tls) tls = vz_tls_new(fd, VZ_TLS_OPENER, f->pair->source_keys, pin, &err);
    g_assert_true(vz_tls_handshake(tls, &io, &err));
    g_assert_true(vz_tls_write(tls, &io, bytes, n_bytes, &err));
    vz_tls_read(tls, &io, answer, VZ_ANSWER_HEAD_BYTES, &err);
    g_assert_no_error(err);
    size_t length = vz_answer_length(answer);
    g_assert_cmpuint(length, >, 0);
    g_assert_true(
        vz_tls_read(tls, &io, answer + VZ_ANSWER_HEAD_BYTES, length - VZ_ANSWER_HEAD_BYTES, &err));
    if (vz_answer_check(answer, length, &err))
        return g_strdup("accepted");
    /* A refusal is the end of it, and a clean one. */
    uint8_t more;
    g_assert_cmpint(vz_poll_one(fd, POLLIN, io.deadline_us), ==, true);
    g_autoptr(GError) ignored = NULL;
    g_assert_cmpint(vz_tls_decrypt(tls, &more, 1, &ignored), ==, 0);
    return g_strdup(err->message);
}

static void assert_answer(fixture *f, const vz_preface *preface, const char *expected)
{
    uint8_t bytes[VZ_PREFACE_BYTES];
    vz_preface_encode(preface, bytes);
    g_autofree char *answer = answer_to(f, bytes, sizeof(bytes));
    g_assert_nonnull(strstr(answer, expected));
}

static void test_prefaces(fixture *f, G_GNUC_UNUSED const void *data)
{
    vz_preface good = {.version = VZ_CHANNEL_VERSION, .purpose = VZ_PURPOSE_MEMORY, .index = 3};
    memcpy(good.job, f->pair->job, VZ_UUID_BYTES);
    vz_preface bad = good;
    bad.version = VZ_CHANNEL_VERSION + 1;
    assert_answer(f, &bad, "version");
    bad.version = 0;
    assert_answer(f, &bad, "version");
    bad = good;
    bad.job[0] ^= 1;
    assert_answer(f, &bad, "another job");
    bad = good;
    bad.index = VZ_CHANNEL_INDEX_MAX + 1;
    assert_answer(f, &bad, "malformed");
    bad = good;
    bad.purpose = VZ_PURPOSE_ASK; /* through the wrong door */
    bad.index = 0;
    assert_answer(f, &bad, "nobody waits");
    assert_answer(f, &good, "nobody waits");
    uint8_t noise[VZ_PREFACE_MAX_BYTES];
    memset(noise, 'x', sizeof(noise));
    g_autofree char *answer = answer_to(f, noise, sizeof(noise));
    g_assert_nonnull(strstr(answer, "malformed"));
    int end = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 3);
    assert_answer(f, &good, "accepted");
    assert_answer(f, &good, "each is accepted once"); /* replayed */
    close(end);
}

static void wait_readable(int fd)
{
    vz_poll_one(fd, POLLIN, vz_now_us() + 50000);
}

static gnutls_session_t foreign_session(int fd, gnutls_certificate_credentials_t credentials,
                                        const char *priority)
{
    gnutls_session_t session;
    g_assert_cmpint(gnutls_init(&session, GNUTLS_CLIENT | GNUTLS_ENABLE_RAWPK | GNUTLS_NO_SIGNAL),
                    ==, 0);
    g_assert_cmpint(gnutls_priority_set_direct(session, priority, NULL), ==, 0);
    gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials);
    gnutls_transport_set_int(session, fd);
    return session;
}

/* After 2^24 records GnuTLS changes the keys in mid-stream. That is 256 GB, too many for a test, so
 * the peer asks for it: the pump has to follow, and to change its own. */
static void test_key_update(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    vz_autofd fd = call(f);
    vz_autofd end = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 0);
    gnutls_certificate_credentials_t own = vz_channel_keys_credentials(f->pair->source_keys, &err);
    gnutls_session_t session = foreign_session(fd, own, VZ_TLS_PRIORITY);
    vz_preface preface = {.version = VZ_CHANNEL_VERSION, .purpose = VZ_PURPOSE_MEMORY};
    memcpy(preface.job, f->pair->job, VZ_UUID_BYTES);
    uint8_t bytes[VZ_PREFACE_BYTES], answer[VZ_ANSWER_MAX_BYTES];
    vz_preface_encode(&preface, bytes);
    say_prologue(fd, f->pair->job, VZ_DOOR_CARRIER);
    int r;
    while ((r = gnutls_handshake(session)) == GNUTLS_E_AGAIN)
        wait_readable(fd);
    g_assert_cmpint(r, ==, 0);
    g_assert_cmpint(gnutls_record_send(session, bytes, sizeof(bytes)), ==, sizeof(bytes));
    while ((r = (int)gnutls_record_recv(session, answer, sizeof(answer))) == GNUTLS_E_AGAIN)
        wait_readable(fd);
    g_assert_cmpint(r, ==, VZ_ANSWER_HEAD_BYTES);
    char word[16];
    for (int i = 0; i < 5; i++) {
        g_assert_cmpint(gnutls_session_key_update(session, GNUTLS_KU_PEER), ==, 0);
        g_assert_cmpint(gnutls_record_send(session, "to them", 7), ==, 7);
        g_assert_cmpint(recv(end, word, 7, MSG_WAITALL), ==, 7);
        g_assert_cmpmem(word, 7, "to them", 7);
        g_assert_cmpint(send(end, "to us", 5, MSG_NOSIGNAL), ==, 5);
        while ((r = (int)gnutls_record_recv(session, word, sizeof(word))) == GNUTLS_E_AGAIN)
            wait_readable(fd);
        g_assert_cmpint(r, ==, 5);
        g_assert_cmpmem(word, 5, "to us", 5);
    }
    gnutls_deinit(session);
    gnutls_certificate_free_credentials(own);
}

/* A handshake with GnuTLS itself, for what vz_tls would never do. Returns GnuTLS's last word. */
static int foreign_handshake(fixture *f, gnutls_certificate_credentials_t credentials,
                             const char *priority)
{
    vz_autofd fd = call(f);
    say_prologue(fd, f->pair->job, VZ_DOOR_CARRIER);
    gnutls_session_t session = foreign_session(fd, credentials, priority);
    int r;
    do {
        wait_readable(fd);
        r = gnutls_handshake(session);
    } while (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED);
    char byte;
    /* The client is through before the server has judged its key; the next word is the verdict. */
    while (r == 0 || r == GNUTLS_E_AGAIN) {
        wait_readable(fd);
        r = (int)gnutls_record_recv(session, &byte, 1);
    }
    gnutls_deinit(session);
    return r;
}

/* Whoever has only seen the right public key cannot pass for its owner. */
static void test_impostor(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_channel_keys) other = vz_channel_keys_generate(&err);
    char *pem = vz_channel_keys_to_pem(f->pair->source_keys);
    char *other_pem = vz_channel_keys_to_pem(other);
    gnutls_datum_t source_key = {(unsigned char *)pem, (unsigned)strlen(pem)};
    gnutls_datum_t other_key = {(unsigned char *)other_pem, (unsigned)strlen(other_pem)};
    gnutls_datum_t public_key = {NULL, 0};
    gnutls_pubkey_t pubkey;
    gnutls_privkey_t privkey;
    g_assert_cmpint(gnutls_privkey_init(&privkey), ==, 0);
    g_assert_cmpint(
        gnutls_privkey_import_x509_raw(privkey, &source_key, GNUTLS_X509_FMT_PEM, NULL, 0), ==, 0);
    g_assert_cmpint(gnutls_pubkey_init(&pubkey), ==, 0);
    g_assert_cmpint(gnutls_pubkey_import_privkey(pubkey, privkey, 0, 0), ==, 0);
    g_assert_cmpint(gnutls_pubkey_export2(pubkey, GNUTLS_X509_FMT_PEM, &public_key), ==, 0);
    gnutls_certificate_credentials_t credentials;
    g_assert_cmpint(gnutls_certificate_allocate_credentials(&credentials), ==, 0);
    gnutls_certificate_set_flags(credentials, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
    g_assert_cmpint(gnutls_certificate_set_rawpk_key_mem(credentials, &public_key, &other_key,
                                                         GNUTLS_X509_FMT_PEM, NULL, 0, NULL, 0, 0),
                    ==, 0);
    g_assert_cmpint(foreign_handshake(f, credentials, VZ_TLS_PRIORITY), ==,
                    GNUTLS_E_FATAL_ALERT_RECEIVED);
    gnutls_certificate_free_credentials(credentials);
    gnutls_free(public_key.data);
    gnutls_pubkey_deinit(pubkey);
    gnutls_privkey_deinit(privkey);
    vz_channel_pem_free(pem);
    vz_channel_pem_free(other_pem);
}

/* No key at all; and TLS that is not 1.3. */
static void test_foreign_tls(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    gnutls_certificate_credentials_t none;
    g_assert_cmpint(gnutls_certificate_allocate_credentials(&none), ==, 0);
    g_assert_cmpint(foreign_handshake(f, none, VZ_TLS_PRIORITY), <, 0);
    gnutls_certificate_free_credentials(none);
    gnutls_certificate_credentials_t own = vz_channel_keys_credentials(f->pair->source_keys, &err);
    const char *old = "NORMAL:-VERS-ALL:+VERS-TLS1.2:+CTYPE-SRV-RAWPK:+CTYPE-CLI-RAWPK";
    g_assert_cmpint(foreign_handshake(f, own, old), <, 0);
    gnutls_certificate_free_credentials(own);
}

#define ADD(name, fn) g_test_add("/port/" name, fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_nonnull(g_getenv("VZ_TEST_CARRIER"));
    ADD("garbage", test_garbage);
    ADD("wrong-prologue-version", test_wrong_prologue_version);
    ADD("slow-loris", test_slow_loris);
    ADD("half-handshakes", test_half_handshakes);
    ADD("prefaces", test_prefaces);
    ADD("key-update", test_key_update);
    ADD("impostor", test_impostor);
    ADD("foreign-tls", test_foreign_tls);
    return g_test_run();
}
