/* test_rpc.c - the tables, keepalive and URIs by themselves; then our client against our server. */
#include "../support/fake_host.h"
#include "base/fd.h"
#include "base/units.h"
#include "rpc/client.h"
#include "rpc/keepalive.h"
#include "rpc/uri.h"
#include "wire/xdr.h"

#include <glib-unix.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- tables ---- */

static void test_rows(void)
{
    for (size_t i = 0; i < vz_n_procedures; i++) {
        const vz_procedure *row = &vz_procedures[i];
        g_assert_true(vz_procedure_find((int32_t)row->number) == row); /* no number twice */
        if (row->runs_on != VZ_RUNS_ON_DOMAIN)
            continue;
        const vz_field *first = row->args->fields();
        g_assert_true(first->sub == &vz_schema_domain);
        g_assert_cmpuint(first->offset, ==, 0);
    }
    for (size_t i = 0; i < vz_n_event_kinds; i++) {
        const vz_field *first = vz_event_kinds[i].body->fields();
        g_assert_true(first->sub == &vz_schema_domain);
        g_assert_cmpint(vz_event_kinds[i].id, <, VZ_EVENT_IDS);
    }
    g_assert_null(vz_procedure_find(0));
    g_assert_null(vz_procedure_find(-1));
}

static void test_keepalive(void)
{
    vz_keepalive k;
    int64_t s = VZ_USEC_PER_SEC;
    vz_keepalive_init(&k, 5, 2, 0);
    g_assert_cmpint(vz_keepalive_tick(&k, 4 * s), ==, VZ_KEEPALIVE_NOTHING);
    g_assert_cmpint(vz_keepalive_tick(&k, 5 * s), ==, VZ_KEEPALIVE_SEND_PING);
    g_assert_cmpint(vz_keepalive_tick(&k, 6 * s), ==, VZ_KEEPALIVE_NOTHING);
    vz_keepalive_heard(&k, 7 * s);
    g_assert_cmpint(vz_keepalive_tick(&k, 11 * s), ==, VZ_KEEPALIVE_NOTHING);
    g_assert_cmpint(vz_keepalive_tick(&k, 12 * s), ==, VZ_KEEPALIVE_SEND_PING);
    g_assert_cmpint(vz_keepalive_tick(&k, 17 * s), ==, VZ_KEEPALIVE_SEND_PING);
    g_assert_cmpint(vz_keepalive_tick(&k, 21 * s), ==, VZ_KEEPALIVE_NOTHING);
    g_assert_cmpint(vz_keepalive_tick(&k, 22 * s), ==, VZ_KEEPALIVE_DEAD);
    vz_keepalive_init(&k, 0, 2, 0);
    g_assert_cmpint(vz_keepalive_tick(&k, 1000 * s), ==, VZ_KEEPALIVE_NOTHING);
}

static void test_uris(void)
{
    static const struct {
        const char *text, *path, *host;
        uint16_t port;
        const char *refusal; /* NULL: accepted */
    } rows[] = {
        {"vz:///system", VZ_SOCKET_READWRITE, NULL, 0, NULL},
        {"vz+unix:///system", VZ_SOCKET_READWRITE, NULL, 0, NULL},
        {"vz+unix:///system?socket=/a/b", "/a/b", NULL, 0, NULL},
        {"vz+tcp://b/system", NULL, "b", 16509, NULL},
        {"vz+tcp://192.0.2.1:17000/system", NULL, "192.0.2.1", 17000, NULL},
        {"vz+tcp://[2001:db8::1]:17000/system", NULL, "2001:db8::1", 17000, NULL},
        {"vz://b/system", NULL, NULL, 0, "vz+tcp://b/system works"},
        {"vz+tls://b/system", NULL, NULL, 0, "vz+tcp://b/system works"},
        {"vz+ssh://b/system", NULL, NULL, 0, "'vz+ssh'"},
        {"qemu:///system", NULL, NULL, 0, "'qemu'"},
        {"vz:///session", NULL, NULL, 0, "'/session'"},
        {"vz+tcp:///system", NULL, NULL, 0, "names no host"},
        {"vz+tcp://b:0/system", NULL, NULL, 0, "port 0"},
        {"vz+tcp://b:70000/system", NULL, NULL, 0, "not a URI"},
        {"vz+tcp://me@b/system", NULL, NULL, 0, "names a user"},
        {"vz+unix://b/system", NULL, NULL, 0, "names a host"},
        {"vz+tcp://b/system?socket=/a", NULL, NULL, 0, "names a socket"},
        {"vz+unix:///system?mode=direct", NULL, NULL, 0, "'mode=direct'"},
        {"vz+unix:///system?socket=relative", NULL, NULL, 0, "not supported"},
        {"b", NULL, NULL, 0, "not a URI"},
        {"", NULL, NULL, 0, "not a URI"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_auto(vz_uri) uri = {0};
        g_autoptr(GError) err = NULL;
        bool ok = vz_uri_parse(rows[i].text, &uri, &err);
        g_assert_cmpint(ok, ==, rows[i].refusal == NULL);
        g_assert_cmpstr(uri.path, ==, rows[i].path);
        g_assert_cmpstr(uri.host, ==, rows[i].host);
        g_assert_cmpuint(uri.port, ==, rows[i].port);
        if (rows[i].refusal) {
            g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
            if (!strstr(err->message, rows[i].refusal))
                g_error("'%s' is not in '%s'", rows[i].refusal, err->message);
        }
    }
}

/* ---- client and server ---- */

typedef struct {
    char *dir;
    char *uri;
    char *tcp_uri;
    char *readonly_uri;
    GThread *thread;
    GMainLoop *loop;
    GMutex lock;
    GCond cond;
    bool ready;
    vz_inbox *inbox;
    vz_arena *arena;
} fixture;

static char *uri_of(const fixture *f, const char *socket)
{
    return g_strdup_printf("vz+unix:///system?socket=%s/%s", f->dir, socket);
}

static void *serve(void *data)
{
    fixture *f = data;
    g_autoptr(GError) err = NULL;
    g_autoptr(GMainContext) context = g_main_context_new();
    g_autofree char *rw = g_build_filename(f->dir, "rw", NULL);
    g_autofree char *ro = g_build_filename(f->dir, "ro", NULL);
    uint16_t port = 0;
    g_main_context_push_thread_default(context);
    vz_server *server = fake_host_new(context);
    vz_server_listen_readwrite(server, rw, &err);
    g_assert_no_error(err);
    vz_server_listen_readonly(server, ro, &err);
    g_assert_no_error(err);
    vz_server_listen_tcp(server, "127.0.0.1", 0, &port, &err);
    g_assert_no_error(err);
    g_mutex_lock(&f->lock);
    f->tcp_uri = g_strdup_printf("vz+tcp://127.0.0.1:%u/system", port);
    f->loop = g_main_loop_new(context, FALSE);
    f->ready = true;
    g_cond_signal(&f->cond);
    g_mutex_unlock(&f->lock);
    g_main_loop_run(f->loop);
    fake_host_free(server);
    g_main_context_pop_thread_default(context);
    return NULL;
}

static void set_up(fixture *f, const void *data)
{
    (void)data;
    f->dir = g_dir_make_tmp("vz-rpc-XXXXXX", NULL);
    f->uri = uri_of(f, "rw");
    f->readonly_uri = uri_of(f, "ro");
    g_mutex_init(&f->lock);
    g_cond_init(&f->cond);
    f->thread = g_thread_new("loop", serve, f);
    g_mutex_lock(&f->lock);
    while (!f->ready)
        g_cond_wait(&f->cond, &f->lock);
    g_mutex_unlock(&f->lock);
    f->inbox = vz_inbox_new();
    f->arena = vz_arena_new(64 * VZ_MIB);
}

static void stop_server(fixture *f)
{
    if (!f->thread)
        return;
    g_main_loop_quit(f->loop);
    g_thread_join(g_steal_pointer(&f->thread));
}

static void tear_down(fixture *f, const void *data)
{
    (void)data;
    stop_server(f);
    g_main_loop_unref(f->loop);
    vz_inbox_free(f->inbox);
    vz_arena_free(f->arena);
    g_assert_cmpint(g_rmdir(f->dir), ==, 0); /* the sockets are gone */
    g_free(f->dir);
    g_free(f->uri);
    g_free(f->tcp_uri);
    g_free(f->readonly_uri);
    g_mutex_clear(&f->lock);
    g_cond_clear(&f->cond);
}

static int64_t soon(void)
{
    return vz_now_us() + 20 * VZ_USEC_PER_SEC;
}

static vz_client_wait waiting(const fixture *f)
{
    return (vz_client_wait){soon(), true, f->arena};
}

static vz_client *open_client(const fixture *f, const char *uri)
{
    g_autoptr(GError) err = NULL;
    vz_client *client = vz_client_open(uri, f->inbox, soon(), &err);
    g_assert_no_error(err);
    return client;
}

static vz_wire_domain_args domain_named(const fixture *f, vz_client *client, const char *name)
{
    g_autoptr(GError) err = NULL;
    const vz_wire_domain_lookup_by_name_args args = {name};
    vz_wire_domain_ret ret;
    vz_client_wait wait = waiting(f);
    vz_remote_domain_lookup_by_name(client, &args, &ret, &wait, &err);
    g_assert_no_error(err);
    return (vz_wire_domain_args){ret.dom};
}

static void test_calls(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    vz_wire_string_ret text;
    vz_wire_connect_list_all_domains_ret list;
    const vz_wire_connect_list_all_domains_args all = {1, 3};
    bool supported = false;
    g_assert_true(vz_remote_connect_get_hostname(client, &text, &wait, &err));
    g_assert_cmpstr(text.value, ==, "host-of-writer");
    g_assert_true(vz_remote_connect_list_all_domains(client, &all, &list, &wait, &err));
    g_assert_cmpuint(list.domains.count, ==, 3);
    g_assert_cmpstr(list.domains.items[2].name, ==, "slow");
    g_assert_true(vz_client_supports(client, 13, &wait, &supported, &err) && supported);
    g_assert_true(vz_client_supports(client, 5, &wait, &supported, &err) && !supported);
    g_assert_null(vz_client_remote_address(client));
}

static void test_errors_come_back(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    const vz_wire_domain_lookup_by_name_args args = {"nope"};
    vz_wire_domain_ret ret;
    g_assert_false(vz_remote_domain_lookup_by_name(client, &args, &ret, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_NO_DOMAIN);
    g_assert_cmpstr(err->message, ==, "no domain with matching name 'nope'");
    g_clear_error(&err);
    const vz_wire_domain_args unknown = {.dom = {.name = "nope"}};
    g_assert_false(vz_remote_domain_suspend(client, &unknown, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_NO_DOMAIN);
    g_clear_error(&err);
    g_assert_false(vz_remote_domain_create(client, &unknown, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_RPC);
    g_assert_cmpstr(err->message, ==, "unknown procedure: 9");
}

static void test_readonly(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->readonly_uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    vz_wire_string_ret text;
    g_assert_true(vz_remote_connect_get_hostname(client, &text, &wait, &err));
    g_assert_cmpstr(text.value, ==, "host-of-reader");
    const vz_wire_domain_args g1 = domain_named(f, client, "g1");
    g_assert_false(vz_remote_domain_suspend(client, &g1, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_DENIED);
}

static void test_tcp(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->tcp_uri);
    g_assert_cmpstr(vz_client_remote_address(client), ==, "127.0.0.1");
    g_assert_cmpstr(vz_client_local_address(client), ==, "127.0.0.1");
    domain_named(f, client, "g1");
}

/* The second call of a connection is answered first. */
static void test_overlap(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    const vz_wire_domain_args slow = domain_named(f, client, "slow");
    vz_pending *pending = vz_client_start(client, VZ_PROC_domain_suspend, &slow, &err);
    domain_named(f, client, "g1");
    g_assert_false(vz_pending_done(pending));
    g_assert_true(vz_remote_domain_resume(client, &slow, &wait, &err));
    g_assert_true(vz_client_finish(client, pending, NULL, &wait, &err));
}

static void test_timeout_and_cancel(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f), brief = waiting(f);
    const vz_wire_domain_args slow = domain_named(f, client, "slow");
    brief.deadline_us = vz_now_us() + 50 * VZ_USEC_PER_MSEC;
    g_assert_false(vz_remote_domain_suspend(client, &slow, &brief, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
    g_clear_error(&err);
    g_assert_true(vz_remote_domain_resume(client, &slow, &wait, &err));
    vz_inbox_cancel(f->inbox);
    g_assert_false(vz_remote_domain_suspend(client, &slow, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_ABORTED);
    g_clear_error(&err);
    wait.cancellable = false; /* cancelled still, but this one does not listen */
    g_assert_true(vz_remote_domain_resume(client, &slow, &wait, &err));
    g_assert_true(vz_client_alive(client, NULL));
}

static void test_large_replies(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    vz_pending *pending[6];
    for (size_t i = 0; i < G_N_ELEMENTS(pending); i++)
        pending[i] = vz_client_start(client, VZ_PROC_connect_get_capabilities, NULL, &err);
    for (size_t i = 0; i < G_N_ELEMENTS(pending); i++) {
        vz_wire_string_ret ret;
        g_assert_true(vz_client_finish(client, pending[i], &ret, &wait, &err));
        g_assert_cmpuint(strlen(ret.value), ==, VZ_WIRE_MAX_STRING);
    }
}

static void log_event(vz_event_id id, int32_t callback_id, const void *body, void *data)
{
    const vz_wire_event_lifecycle *event = body;
    g_assert_cmpint(id, ==, VZ_EVENT_lifecycle);
    g_string_append_printf(data, "%d:%s:%d ", callback_id, event->dom.name, event->event);
}

static int32_t register_event(const fixture *f, vz_client *client, const vz_wire_domain *dom)
{
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    const vz_wire_event_callback_register_any_args args = {VZ_EVENT_lifecycle, dom};
    vz_wire_int_ret ret;
    vz_remote_connect_domain_event_callback_register_any(client, &args, &ret, &wait, &err);
    g_assert_no_error(err);
    return ret.value;
}

/* An event that was emitted before a call was answered is there before its answer. */
static void test_events(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    g_autoptr(GString) seen = g_string_new(NULL), wanted = g_string_new(NULL);
    vz_client_wait wait = waiting(f);
    const vz_wire_domain_args g1 = domain_named(f, client, "g1");
    const vz_wire_domain_args g2 = domain_named(f, client, "g2");
    vz_client_set_event_fn(client, log_event, seen);
    int32_t all = register_event(f, client, NULL);
    int32_t of_g2 = register_event(f, client, &g2.dom);
    g_assert_true(vz_remote_domain_suspend(client, &g1, &wait, &err));
    g_assert_true(vz_remote_domain_suspend(client, &g2, &wait, &err));
    const vz_wire_event_callback_deregister_any_args gone = {all};
    g_assert_true(
        vz_remote_connect_domain_event_callback_deregister_any(client, &gone, &wait, &err));
    g_assert_true(vz_remote_domain_resume(client, &g1, &wait, &err));
    g_assert_true(vz_remote_domain_resume(client, &g2, &wait, &err));
    g_string_printf(wanted, "%d:g1:3 %d:g2:3 %d:g2:3 %d:g2:4 ", all, all, of_g2, of_g2);
    g_assert_cmpstr(seen->str, ==, wanted->str);
    g_assert_false(
        vz_remote_connect_domain_event_callback_deregister_any(client, &gone, &wait, &err));
    g_clear_error(&err);
    const vz_wire_event_callback_register_any_args unknown = {VZ_EVENT_IDS, NULL};
    vz_wire_int_ret ret;
    g_assert_false(
        vz_remote_connect_domain_event_callback_register_any(client, &unknown, &ret, &wait, &err));
    g_assert_cmpstr(err->message, ==, "unsupported event ID 28");
}

static void test_server_goes(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_client) client = open_client(f, f->uri);
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    const vz_wire_domain_args slow = domain_named(f, client, "slow");
    vz_pending *pending = vz_client_start(client, VZ_PROC_domain_suspend, &slow, &err);
    domain_named(f, client, "g1");
    stop_server(f);
    g_assert_false(vz_client_finish(client, pending, NULL, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_assert_cmpstr(err->message, ==,
                    "domain_suspend was given up unanswered: virtvzd is stopping");
    g_clear_error(&err);
    g_assert_false(vz_remote_domain_resume(client, &slow, &wait, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_assert_nonnull(strstr(err->message, "is lost"));
    g_assert_false(vz_client_alive(client, NULL));
    g_clear_error(&err);
    g_assert_null(vz_client_open(f->uri, f->inbox, soon(), &err));
    g_autofree char *text =
        g_strdup_printf("Failed to connect socket to '%s/rw': No such file or directory", f->dir);
    g_assert_cmpstr(err->message, ==, text);
    g_clear_error(&err);
    g_assert_null(vz_client_open(f->tcp_uri, f->inbox, soon(), &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_assert_true(g_str_has_prefix(err->message, "unable to connect to server at '127.0.0.1:"));
    g_assert_true(g_str_has_suffix(err->message, "': Connection refused"));
}

/* A name of the domain "invalid" never resolves (RFC 6761). */
static void test_unknown_host(void)
{
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_client_open("vz+tcp://host.invalid/system", inbox, soon(), &err));
    g_assert_true(g_str_has_prefix(err->message,
                                   "unable to resolve address 'host.invalid' service '16509': "));
}

/* Takes one connection and answers it with something that is no packet. */
static void *talk_nonsense(void *data)
{
    vz_autofd fd = accept(GPOINTER_TO_INT(data), NULL, NULL);
    g_assert_cmpint(send(fd, "HTTP/1.0 400 Bad Request\r\n", 26, MSG_NOSIGNAL), ==, 26);
    char byte;
    while (read(fd, &byte, 1) == 1)
        ;
    return NULL;
}

/* A peer that accepts and says nothing, and one that talks nonsense. */
static void test_bad_peers(void)
{
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autoptr(GError) err = NULL;
    g_autofree char *dir = g_dir_make_tmp("vz-rpc-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "s", NULL);
    g_autofree char *uri = g_strdup_printf("vz+unix:///system?socket=%s", path);
    vz_autofd listener = vz_unix_listen(path, 0600, &err);
    g_assert_no_error(err);
    int64_t brief_us = 100 * VZ_USEC_PER_MSEC;
    g_assert_null(vz_client_open(uri, inbox, vz_now_us() + brief_us, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
    g_clear_error(&err);
    vz_autofd silent = accept(listener, NULL, NULL); /* of the attempt above */
    g_assert_cmpint(silent, >=, 0);
    g_unix_set_fd_nonblocking(listener, FALSE, NULL);
    GThread *peer = g_thread_new("peer", talk_nonsense, GINT_TO_POINTER(listener));
    g_assert_null(vz_client_open(uri, inbox, soon(), &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_assert_nonnull(strstr(err->message, "larger than"));
    g_thread_join(peer);
    g_unlink(path);
    g_rmdir(dir);
}

/* ---- a client that becomes a stream ---- */

typedef struct {
    vz_client *client;
    int near, far;
} streaming;

static void open_stream(const fixture *f, const char *uri, streaming *ret)
{
    g_autoptr(GError) err = NULL;
    vz_client_wait wait = waiting(f);
    vz_client *client = open_client(f, uri);
    ret->client = open_client(f, uri);
    ret->near = vz_client_become_stream(client, VZ_PROC_vz_open_data, NULL, &wait, &err);
    g_assert_no_error(err);
    ret->far = fake_host_take_data();
}

static void streaming_clear(streaming *s)
{
    vz_client_free(s->client);
    vz_fd_clear(&s->near);
    vz_fd_clear(&s->far);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(streaming, streaming_clear)

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + i / 251);
}

/* Until it takes no more for a while, or `most`. */
static size_t stuff(int fd, size_t most)
{
    uint8_t chunk[4096];
    size_t done = 0;
    while (done < most && vz_poll_one(fd, POLLOUT, vz_now_us() + 300 * VZ_USEC_PER_MSEC)) {
        for (size_t i = 0; i < sizeof(chunk); i++)
            chunk[i] = byte_at(done + i);
        ssize_t n = send(fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
        done += (size_t)MAX(n, 0);
    }
    return done;
}

static void expect_bytes(int fd, size_t bytes)
{
    uint8_t chunk[65536];
    for (size_t done = 0; done < bytes;) {
        g_assert_true(vz_poll_one(fd, POLLIN, soon()));
        ssize_t n = recv(fd, chunk, sizeof(chunk), 0);
        g_assert_cmpint(n, >, 0);
        for (size_t i = 0; i < (size_t)n; i++)
            g_assert_cmpint(chunk[i], ==, byte_at(done + i));
        done += (size_t)n;
    }
}

static void expect_end(int fd)
{
    char byte;
    g_assert_true(vz_poll_one(fd, POLLIN, soon()));
    g_assert_cmpint(recv(fd, &byte, 1, 0), ==, 0);
}

/* Nobody reads: each way comes to a stop, others are answered, and nothing is lost. */
static void test_stream(fixture *f, const void *data)
{
    const char *uris[] = {f->uri, f->tcp_uri};
    const size_t bound = 24 * VZ_MIB; /* most of it the kernel's */
    (void)data;
    for (size_t i = 0; i < G_N_ELEMENTS(uris); i++) {
        g_auto(streaming) s = {.near = -1, .far = -1};
        open_stream(f, uris[i], &s);
        size_t up = stuff(s.near, 2 * bound);
        size_t down = stuff(s.far, 2 * bound);
        g_assert_true(up > VZ_MIB && up < bound);
        g_assert_true(down > VZ_MIB / 4 && down < bound);
        domain_named(f, s.client, "g1");
        expect_bytes(s.far, up);
        expect_bytes(s.near, down);
        up = stuff(s.near, VZ_MIB); /* still comes when it has closed */
        vz_fd_clear(&s.near);
        expect_bytes(s.far, up);
        expect_end(s.far);
    }
}

static void test_stream_ends(fixture *f, const void *data)
{
    (void)data;
    g_auto(streaming) ended = {.near = -1, .far = -1};
    g_auto(streaming) cut = {.near = -1, .far = -1};
    open_stream(f, f->tcp_uri, &ended);
    size_t down = stuff(ended.far, VZ_MIB / 8);
    vz_fd_clear(&ended.far);
    expect_bytes(ended.near, down);
    expect_end(ended.near);
    open_stream(f, f->uri, &cut);
    g_autoptr(GError) err = NULL; /* of a daemon of an earlier version, say */
    vz_client_wait wait = waiting(f);
    vz_client *client = open_client(f, f->uri);
    g_assert_true(vz_client_become_stream(client, VZ_PROC_vz_list_jobs, NULL, &wait, &err) < 0);
    g_assert_nonnull(strstr(err->message, "unknown procedure"));
    stop_server(f);
    expect_end(cut.near);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/rpc/rows", test_rows);
    g_test_add_func("/rpc/keepalive", test_keepalive);
    g_test_add_func("/rpc/uris", test_uris);
    g_test_add_func("/rpc/unknown-host", test_unknown_host);
    g_test_add_func("/rpc/bad-peers", test_bad_peers);
#define WITH_SERVER(path, fn) g_test_add(path, fixture, NULL, set_up, fn, tear_down)
    WITH_SERVER("/rpc/calls", test_calls);
    WITH_SERVER("/rpc/errors", test_errors_come_back);
    WITH_SERVER("/rpc/readonly", test_readonly);
    WITH_SERVER("/rpc/tcp", test_tcp);
    WITH_SERVER("/rpc/overlap", test_overlap);
    WITH_SERVER("/rpc/timeout-and-cancel", test_timeout_and_cancel);
    WITH_SERVER("/rpc/large-replies", test_large_replies);
    WITH_SERVER("/rpc/events", test_events);
    WITH_SERVER("/rpc/server-goes", test_server_goes);
    WITH_SERVER("/rpc/stream", test_stream);
    WITH_SERVER("/rpc/stream-ends", test_stream_ends);
    return g_test_run();
}
