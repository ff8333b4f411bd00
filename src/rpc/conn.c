/* conn.c - one client's connection, on the loop thread; vz_conn_send and the hooks on any.
 *
 *     other threads -> ready (locked) -> turn (loop) -> packets -> socket
 *
 * A turn takes what others made ready, dispatches packets that are buffered, writes, and then
 * decides whether to go on reading: not while the client has too many calls or does not read its
 * replies. */
#include "rpc/internal.h"

#include "base/fd.h"
#include "base/log.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

static void turn(vz_conn *conn);

/* ---- who it is ---- */

/* The numeric address of either end of a TCP socket; an IPv4 peer of an IPv6 socket as IPv4. */
static char *numeric_address(const struct sockaddr_storage *address, socklen_t bytes)
{
    char host[NI_MAXHOST];
    if (getnameinfo((const struct sockaddr *)address, bytes, host, sizeof(host), NULL, 0,
                    NI_NUMERICHOST))
        return NULL;
    return g_strdup(g_str_has_prefix(host, "::ffff:") ? host + strlen("::ffff:") : host);
}

static void identify_tcp(vz_conn *conn, int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) == 0)
        conn->local_address = numeric_address(&address, bytes);
    bytes = sizeof(address);
    if (getpeername(fd, (struct sockaddr *)&address, &bytes) == 0)
        conn->remote_address = numeric_address(&address, bytes);
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    conn->uid = (uid_t)-1;
    conn->name = g_strdup_printf("client %" G_GUINT64_FORMAT " (%s)", conn->id,
                                 conn->remote_address ? conn->remote_address : "gone");
}

static void identify_unix(vz_conn *conn, int fd)
{
    struct ucred peer = {0, (uid_t)-1, (gid_t)-1};
    socklen_t bytes = sizeof(peer);
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes);
    conn->uid = peer.uid;
    conn->pid = peer.pid;
    conn->name =
        g_strdup_printf("client %" G_GUINT64_FORMAT " (uid %d, pid %d%s)", conn->id, (int)peer.uid,
                        (int)peer.pid, conn->kind == VZ_LISTEN_READONLY ? ", read-only" : "");
}

uint64_t vz_conn_id(const vz_conn *conn)
{
    return conn->id;
}

bool vz_conn_readonly(const vz_conn *conn)
{
    return __atomic_load_n(&conn->readonly, __ATOMIC_ACQUIRE);
}

uid_t vz_conn_uid(const vz_conn *conn)
{
    return conn->uid;
}

pid_t vz_conn_pid(const vz_conn *conn)
{
    return conn->pid;
}

const char *vz_conn_local_address(const vz_conn *conn)
{
    return conn->local_address;
}

const char *vz_conn_remote_address(const vz_conn *conn)
{
    return conn->remote_address;
}

const char *vz_conn_name(const vz_conn *conn)
{
    return conn->name;
}

/* ---- birth, references ---- */

static void on_socket(GIOCondition ready, void *data);

vz_conn *vz_conn_new(vz_server *server, vz_listen_kind kind, int take_fd, uint64_t id)
{
    vz_conn *conn = g_new0(vz_conn, 1);
    conn->refs = 1;
    conn->id = id;
    conn->kind = kind;
    conn->readonly = kind == VZ_LISTEN_READONLY;
    conn->server = server;
    conn->loop = vz_loop_ref(server->loop);
    conn->max_calls = server->limits.max_calls_per_client;
    conn->born_us = g_get_monotonic_time();
    vz_keepalive_init(&conn->keepalive, server->limits.keepalive_interval_s,
                      server->limits.keepalive_count, conn->born_us);
    g_mutex_init(&conn->lock);
    g_queue_init(&conn->ready);
    conn->hooks = g_array_new(FALSE, FALSE, sizeof(vz_close_hook));
    if (kind == VZ_LISTEN_TCP)
        identify_tcp(conn, take_fd);
    else
        identify_unix(conn, take_fd);
    conn->packets = vz_packets_new(take_fd);
    conn->watch = vz_loop_watch(conn->loop, take_fd, G_IO_IN, on_socket, conn);
    return conn;
}

vz_conn *vz_conn_ref(vz_conn *conn)
{
    g_atomic_int_inc(&conn->refs);
    return conn;
}

static void drop_ready(vz_conn *conn)
{
    for (GByteArray *bytes; (bytes = g_queue_pop_head(&conn->ready));)
        g_byte_array_unref(bytes);
}

void vz_conn_unref(vz_conn *conn)
{
    if (!conn || !g_atomic_int_dec_and_test(&conn->refs))
        return;
    g_assert(!conn->server && !conn->packets);
    drop_ready(conn);
    g_array_unref(conn->hooks);
    vz_loop_unref(conn->loop);
    g_mutex_clear(&conn->lock);
    g_free(conn->local_address);
    g_free(conn->remote_address);
    g_free(conn->name);
    g_free(conn);
}

static void unref_later(void *conn)
{
    vz_conn_unref(conn);
}

/* ---- close hooks ---- */

bool vz_conn_alive(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    bool alive = !conn->dead;
    g_mutex_unlock(&conn->lock);
    return alive;
}

static void drop_hook(const vz_close_hook *hook)
{
    if (hook->drop)
        hook->drop(hook->data);
}

/* Takes the hook of that key out; its drop function is the caller's to call. conn->lock is held. */
static bool take_hook(vz_conn *conn, const void *key, vz_close_hook *ret_hook)
{
    for (guint i = 0; i < conn->hooks->len; i++) {
        vz_close_hook *hook = &g_array_index(conn->hooks, vz_close_hook, i);
        if (hook->key != key)
            continue;
        *ret_hook = *hook;
        g_array_remove_index(conn->hooks, i);
        return true;
    }
    return false;
}

bool vz_conn_on_close(vz_conn *conn, const void *key, void (*fn)(void *data), void *data,
                      GDestroyNotify drop)
{
    vz_close_hook hook = {key, fn, data, drop}, old;
    g_mutex_lock(&conn->lock);
    bool alive = !conn->dead;
    bool replaced = take_hook(conn, key, &old);
    if (alive)
        g_array_append_val(conn->hooks, hook);
    g_mutex_unlock(&conn->lock);
    if (replaced)
        drop_hook(&old);
    if (!alive)
        drop_hook(&hook);
    return alive;
}

bool vz_conn_forget_close(vz_conn *conn, const void *key)
{
    vz_close_hook hook;
    g_mutex_lock(&conn->lock);
    bool found = take_hook(conn, key, &hook);
    g_mutex_unlock(&conn->lock);
    if (found)
        drop_hook(&hook);
    return found;
}

static void run_hooks(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    GArray *hooks = conn->hooks;
    conn->hooks = g_array_new(FALSE, FALSE, sizeof(vz_close_hook));
    g_mutex_unlock(&conn->lock);
    for (guint i = 0; i < hooks->len; i++) {
        const vz_close_hook *hook = &g_array_index(hooks, vz_close_hook, i);
        hook->fn(hook->data);
        drop_hook(hook);
    }
    g_array_unref(hooks);
}

void vz_conn_close(vz_conn *conn, const char *why)
{
    vz_server *server = conn->server;
    if (!server)
        return;
    if (why)
        vz_warn(conn->name, "%s: connection closed", why);
    else
        vz_debug(conn->name, "connection closed");
    g_mutex_lock(&conn->lock);
    conn->dead = true;
    drop_ready(conn);
    g_mutex_unlock(&conn->lock);
    vz_loop_unwatch(&conn->watch);
    vz_events_forget(server->events, conn);
    vz_stream_end_all(conn);
    g_clear_pointer(&conn->packets, vz_packets_free);
    conn->server = NULL;
    run_hooks(conn);
    vz_server_forget(server, conn);
}

/* ---- packets out ---- */

static void run_turn(void *data)
{
    vz_conn *conn = data;
    g_mutex_lock(&conn->lock);
    conn->turn_posted = false;
    g_mutex_unlock(&conn->lock);
    if (conn->server)
        turn(conn);
}

/* Asks for a turn, once. conn->lock is held. */
static void post_turn(vz_conn *conn)
{
    if (conn->turn_posted || conn->dead)
        return;
    conn->turn_posted = true;
    vz_loop_post(conn->loop, run_turn, vz_conn_ref(conn), unref_later);
}

void vz_conn_send(vz_conn *conn, GByteArray *take_packet)
{
    g_mutex_lock(&conn->lock);
    if (conn->dead) {
        g_byte_array_unref(take_packet);
    } else {
        conn->unsent_bytes += take_packet->len;
        g_queue_push_tail(&conn->ready, take_packet);
        post_turn(conn);
    }
    g_mutex_unlock(&conn->lock);
}

static void close_deaf(void *data)
{
    vz_conn_close(data, "the client does not read its events");
}

void vz_conn_send_event(vz_conn *conn, GByteArray *take_packet)
{
    if (vz_conn_unsent(conn) <= VZ_CONN_QUEUE_EVENT_BYTES) {
        vz_conn_send(conn, take_packet);
        return;
    }
    g_byte_array_unref(take_packet);
    vz_loop_post(conn->loop, close_deaf, vz_conn_ref(conn), unref_later);
}

void vz_conn_call_done(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    conn->calls--;
    post_turn(conn);
    g_mutex_unlock(&conn->lock);
}

void vz_conn_wake(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    post_turn(conn);
    g_mutex_unlock(&conn->lock);
}

size_t vz_conn_unsent(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    size_t bytes = conn->unsent_bytes;
    g_mutex_unlock(&conn->lock);
    return bytes;
}

/* ---- the loop's turns ---- */

static void take_ready(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    for (GByteArray *bytes; (bytes = g_queue_pop_head(&conn->ready));)
        vz_packets_queue(conn->packets, bytes);
    g_mutex_unlock(&conn->lock);
}

/* Writes what the socket takes; afterwards unsent_bytes is right again. Calls that had to wait for
 * that may be buffered already, and then nothing else would wake us for them. */
static bool flush(vz_conn *conn)
{
    g_autoptr(GError) err = NULL;
    size_t before = vz_packets_queued(conn->packets);
    bool ok = vz_packets_flush(conn->packets, &err);
    g_mutex_lock(&conn->lock);
    bool held_back = conn->unsent_bytes >= VZ_CONN_QUEUE_SOFT_BYTES;
    conn->unsent_bytes -= before - vz_packets_queued(conn->packets);
    if (held_back && conn->unsent_bytes < VZ_CONN_QUEUE_SOFT_BYTES)
        post_turn(conn);
    g_mutex_unlock(&conn->lock);
    return ok;
}

void vz_conn_flush(vz_conn *conn)
{
    take_ready(conn);
    flush(conn);
}

static bool may_read(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    bool may = conn->calls < conn->max_calls && conn->unsent_bytes < VZ_CONN_QUEUE_SOFT_BYTES;
    g_mutex_unlock(&conn->lock);
    return may && !conn->closing && !vz_stream_holds_back(conn);
}

static size_t message_limit(const vz_conn *conn)
{
    if (!conn->opened)
        return VZ_MESSAGE_UNOPENED_BYTES;
    return conn->kind == VZ_LISTEN_READONLY ? VZ_MESSAGE_READONLY_BYTES : VZ_FRAME_MESSAGE_MAX;
}

/* Dispatches the packets that are buffered. false: the connection is closed. */
static bool dispatch_buffered(vz_conn *conn)
{
    g_autoptr(GError) err = NULL;
    while (may_read(conn)) {
        const uint8_t *data;
        size_t bytes;
        if (!vz_packets_next(conn->packets, message_limit(conn), &data, &bytes, &err) ||
            (data && !vz_dispatch_packet(conn, data, bytes, &err))) {
            vz_conn_close(conn, err->message);
            return false;
        }
        if (!data)
            break;
        if (!conn->server)
            return false;
    }
    return true;
}

/* conn->server is set on entry; the connection may be closed on return, a reference keeps it. */
static void turn(vz_conn *conn)
{
    if (!dispatch_buffered(conn))
        return;
    take_ready(conn);
    if (!flush(conn)) {
        vz_conn_close(conn, NULL);
        return;
    }
    size_t queued = vz_packets_queued(conn->packets);
    if (conn->closing && queued == 0) {
        vz_conn_close(conn, NULL);
        return;
    }
    if (queued < VZ_STREAM_QUEUE_SOFT_BYTES)
        vz_stream_resume_all(conn);
    GIOCondition events = (may_read(conn) ? G_IO_IN : 0) | (queued ? G_IO_OUT : 0);
    vz_loop_rewatch(conn->watch, events);
}

static void on_socket(GIOCondition ready, void *data)
{
    vz_conn *conn = data;
    g_autoptr(vz_conn) alive = vz_conn_ref(conn);
    g_autoptr(GError) err = NULL;
    bool reading = may_read(conn);
    if (reading && (ready & (G_IO_IN | G_IO_HUP | G_IO_ERR))) {
        if (!vz_packets_fill(conn->packets, &err)) {
            vz_conn_close(conn, NULL);
            return;
        }
        vz_keepalive_heard(&conn->keepalive, g_get_monotonic_time());
    } else if (ready & (G_IO_HUP | G_IO_ERR)) {
        /* The client is gone; what it still wanted no longer matters to anybody. */
        vz_conn_close(conn, NULL);
        return;
    }
    turn(conn);
}

void vz_conn_tick(vz_conn *conn, int64_t now_us)
{
    if (!conn->opened && now_us - conn->born_us > VZ_OPEN_DEADLINE_US) {
        vz_conn_close(conn, "no CONNECT_OPEN came");
        return;
    }
    if (!conn->pings)
        return;
    /* While its socket is not read its answers cannot be heard. */
    if (!may_read(conn))
        vz_keepalive_heard(&conn->keepalive, now_us);
    switch (vz_keepalive_tick(&conn->keepalive, now_us)) {
    case VZ_KEEPALIVE_NOTHING:
        break;
    case VZ_KEEPALIVE_SEND_PING:
        vz_conn_send(conn, vz_keepalive_packet(VZ_KEEPALIVE_PING));
        break;
    case VZ_KEEPALIVE_DEAD:
        vz_conn_close(conn, "no answer to keepalive pings");
        break;
    }
}
