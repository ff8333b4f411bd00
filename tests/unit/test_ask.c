/* test_ask.c - questions between two daemons: answered, refused, lost, and never waited for in
 * vain. */
#include "channel/exchange.h"
#include "support/channel_pair.h"

#include "base/fd.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    char *dir, *key_path;
    vz_channel_keys *ours; /* the asker's */
    char *host_fingerprint;
    channel_host *host;
    int answers;  /* atomic */
    bool is_open; /* the job does not know its peer yet */
} fixture;

/* As a daemon does it: the key comes from its file each time, so also after a restart. */
static bool find(const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                 char **ret_peer_fingerprint, void *user)
{
    const fixture *f = user;
    g_autoptr(GError) err = NULL;
    if (memcmp(job, f->job, VZ_UUID_BYTES) != 0)
        return false;
    *ret_keys = vz_channel_keys_load(f->key_path, &err);
    g_assert_no_error(err);
    *ret_peer_fingerprint = f->is_open ? NULL : g_strdup(vz_channel_keys_fingerprint(f->ours));
    return true;
}

/* Echoes; "fail" fails, "long" answers too much, "slow" takes its time. */
static bool answer(const vz_ask_visit *visit, GBytes *question, GBytes **ret_answer, void *user,
                   GError **err)
{
    fixture *f = user;
    g_assert_cmpmem(visit->job, VZ_UUID_BYTES, f->job, VZ_UUID_BYTES);
    g_assert_cmpstr(visit->peer_address, ==, "127.0.0.1");
    __atomic_add_fetch(&f->answers, 1, __ATOMIC_RELAXED);
    const char *text = g_bytes_get_data(question, NULL);
    if (strcmp(text, "fail") == 0)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "no verdict yet");
    if (strcmp(text, "slow") == 0)
        g_usleep(G_USEC_PER_SEC);
    g_assert_true(visit->is_stranger == f->is_open);
    if (strcmp(text, "who") == 0)
        question = g_bytes_new(visit->peer_fingerprint, strlen(visit->peer_fingerprint));
    else
        g_bytes_ref(question);
    *ret_answer = strcmp(text, "long") == 0
                      ? g_bytes_new_take(g_malloc0(VZ_ASK_MAX_BYTES + 1), VZ_ASK_MAX_BYTES + 1)
                      : g_bytes_ref(question);
    g_bytes_unref(question);
    return true;
}

static void set_up(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    vz_uuid_generate(f->job);
    f->dir = channel_temp_dir();
    f->key_path = g_build_filename(f->dir, "key.pem", NULL);
    f->ours = vz_channel_keys_generate(&err);
    g_autoptr(vz_channel_keys) theirs = vz_channel_keys_generate(&err);
    g_assert_true(vz_channel_keys_save(theirs, f->key_path, &err));
    f->host_fingerprint = g_strdup(vz_channel_keys_fingerprint(theirs));
    vz_ask_handlers handlers = {find, answer, f};
    f->host = channel_host_new(&handlers);
}

static void tear_down(fixture *f, G_GNUC_UNUSED const void *data)
{
    channel_host_free(f->host);
    vz_channel_keys_free(f->ours);
    channel_remove_dir(f->dir);
    g_free(f->host_fingerprint);
    g_free(f->key_path);
    g_free(f->dir);
}

static vz_ask_request request_of(const fixture *f, int ms)
{
    vz_ask_request request = {
        .host = "127.0.0.1",
        .port = f->host ? vz_port_number(f->host->port) : 0,
        .keys = f->ours,
        .peer_fingerprint = f->host_fingerprint,
        .deadline_us = vz_now_us() + ms * (int64_t)1000,
    };
    memcpy(request.job, f->job, VZ_UUID_BYTES);
    return request;
}

static bool ask(const vz_ask_request *request, const char *text, size_t bytes, GBytes **ret,
                GError **err)
{
    g_autoptr(GBytes) question = g_bytes_new(text, bytes);
    return vz_ask(request, question, ret, err);
}

static void test_round_trip(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autofree char *big = g_malloc(VZ_ASK_MAX_BYTES);
    memset(big, 'q', VZ_ASK_MAX_BYTES);
    const size_t sizes[] = {0, 1, 1000, VZ_ASK_MAX_BYTES};
    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(sizes); i++) {
        g_autoptr(GError) err = NULL;
        g_autoptr(GBytes) got = NULL;
        vz_ask_request request = request_of(f, 5000);
        request.inbox = i % 2 ? inbox : NULL;
        ask(&request, big, sizes[i / 2], &got, &err);
        g_assert_no_error(err);
        g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got), big, sizes[i / 2]);
    }
    g_assert_cmpint(f->answers, ==, 2 * G_N_ELEMENTS(sizes));
}

static void test_errors(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    GBytes *got = NULL;
    vz_ask_request request = request_of(f, 5000);
    g_assert_false(ask(&request, "fail", 4, &got, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_INVALID);
    g_assert_cmpstr(err->message, ==, "no verdict yet");
    g_clear_error(&err);
    g_assert_false(ask(&request, "long", 4, &got, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_INTERNAL_ERROR);
    g_clear_error(&err);
    g_autofree char *huge = g_malloc0(VZ_ASK_MAX_BYTES + 1);
    g_assert_false(ask(&request, huge, VZ_ASK_MAX_BYTES + 1, &got, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
    g_assert_null(got);
}

static void test_strangers(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_channel_keys) stranger = vz_channel_keys_generate(&err);
    GBytes *got = NULL;
    vz_ask_request request = request_of(f, 5000);
    bool unknown = false;
    request.ret_unknown = &unknown;
    request.job[3] ^= 1;
    g_assert_false(ask(&request, "x", 1, &got, &err));
    g_assert_true(unknown);
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(err->message, "it does not know this job"));
    g_clear_error(&err);
    request = request_of(f, 5000);
    request.keys = stranger;
    request.ret_unknown = &unknown;
    g_assert_false(ask(&request, "x", 1, &got, &err));
    g_assert_false(unknown);
    g_assert_error(err, VZ_ERROR, VZ_ERR_AUTH_FAILED);
    g_clear_error(&err);
    request = request_of(f, 5000);
    request.peer_fingerprint = vz_channel_keys_fingerprint(stranger);
    g_assert_false(ask(&request, "x", 1, &got, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_AUTH_FAILED);
    g_assert_cmpint(f->answers, ==, 0); /* nothing was asked of the handler */
}

/* A job that does not know its peer yet lets anybody in, and is told which key he holds. */
static void test_open_job(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_channel_keys) stranger = vz_channel_keys_generate(&err);
    const char *theirs = vz_channel_keys_fingerprint(stranger);
    g_autoptr(GBytes) got = NULL;
    vz_ask_request request = request_of(f, 5000);
    request.keys = stranger;
    f->is_open = true;
    ask(&request, "who", 3, &got, &err);
    g_assert_no_error(err);
    g_assert_cmpmem(g_bytes_get_data(got, NULL), g_bytes_get_size(got), theirs, strlen(theirs));
    /* He still knows whom he asks. */
    request = request_of(f, 5000);
    request.keys = stranger;
    request.peer_fingerprint = theirs;
    g_clear_pointer(&got, g_bytes_unref);
    g_assert_false(ask(&request, "who", 3, &got, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_AUTH_FAILED);
}

/* A peer that may ask announces more than there may be: cut off, before any memory is spent. */
static void test_oversize_frame(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    vz_prologue prologue = {.door = VZ_DOOR_ASK};
    memcpy(prologue.job, f->job, VZ_UUID_BYTES);
    uint8_t bytes[VZ_PROLOGUE_BYTES], pin[VZ_FINGERPRINT_BYTES], head[8] = {0xff, 0xff, 0xff, 0xff};
    vz_prologue_encode(&prologue, bytes);
    vz_fingerprint_parse(f->host_fingerprint, pin);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(vz_port_number(f->host->port)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    vz_autofd fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(write(fd, bytes, sizeof(bytes)), ==, sizeof(bytes));
    vz_io io = {NULL, vz_now_us() + 3 * G_USEC_PER_SEC};
    vz_preface preface = {.purpose = VZ_PURPOSE_ASK};
    memcpy(preface.job, f->job, VZ_UUID_BYTES);
    g_autoptr(vz_tls) tls = vz_tls_new(fd, VZ_TLS_OPENER, f->ours, pin, &err);
    g_assert_true(vz_exchange_open(tls, &io, &preface, &err));
    g_assert_true(vz_tls_write(tls, &io, head, sizeof(head), &err));
    g_assert_false(vz_tls_read(tls, &io, head, sizeof(head), &err));
    g_assert_false(g_error_matches(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT));
    g_assert_cmpint(f->answers, ==, 0);
}

static void *ask_slowly(void *data)
{
    fixture *f = data;
    g_autoptr(GError) err = NULL;
    g_autoptr(GBytes) got = NULL;
    vz_ask_request request = request_of(f, 20000);
    ask(&request, "slow", 4, &got, &err);
    g_assert_no_error(err);
    return NULL;
}

/* More questions than threads: all are answered, several at a time. */
static void test_many(fixture *f, G_GNUC_UNUSED const void *data)
{
    GThread *threads[2 * VZ_ASK_THREADS];
    int64_t began_us = vz_now_us();
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        threads[i] = g_thread_new("asker", ask_slowly, f);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++)
        g_thread_join(threads[i]);
    g_assert_cmpint(f->answers, ==, G_N_ELEMENTS(threads));
    g_assert_cmpint(vz_now_us() - began_us, <, 6 * G_USEC_PER_SEC);
}

static void cancel(void *data)
{
    vz_inbox_cancel(data);
}

static void test_black_hole(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    vz_autofd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, bytes), ==, 0);
    g_assert_cmpint(listen(listener, 4), ==, 0);
    getsockname(listener, (struct sockaddr *)&address, &bytes);
    for (unsigned i = 0; i < 3; i++) {
        g_autoptr(GError) err = NULL;
        GBytes *got = NULL;
        vz_ask_request request = request_of(f, 300);
        request.port = ntohs(address.sin_port);
        request.inbox = i > 0 ? inbox : NULL;
        if (i == 2)
            vz_inbox_post(inbox, VZ_TASK_DURING_JOB, cancel, inbox, NULL);
        int64_t began_us = vz_now_us();
        g_assert_false(ask(&request, "x", 1, &got, &err));
        g_assert_cmpint((int)vz_error_number(err), ==,
                        i == 2 ? (int)VZ_ERR_OPERATION_ABORTED : (int)VZ_ERR_OPERATION_TIMEOUT);
        g_assert_cmpint(vz_now_us() - began_us, <, G_USEC_PER_SEC);
    }
}

#define ADD(name, fn) g_test_add("/ask/" name, fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("round-trip", test_round_trip);
    ADD("errors", test_errors);
    ADD("strangers", test_strangers);
    ADD("open-job", test_open_job);
    ADD("oversize-frame", test_oversize_frame);
    ADD("many", test_many);
    ADD("black-hole", test_black_hole);
    return g_test_run();
}
