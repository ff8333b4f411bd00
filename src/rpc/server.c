/* server.c - see server.h: listening, accepting, and the end of it all. Loop thread. */
#include "rpc/internal.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <netdb.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICK_MS        1000
#define LISTEN_BACKLOG 128

const vz_server_limits vz_server_default_limits = {
    /* Far more than clients that exist; each costs about a kilobyte when idle. */
    .max_clients = 5000,
    /* Anybody may connect there, so they get a part only. */
    .max_readonly_clients = 500,
    /* virsh has two at most, a migration with pollers four. */
    .max_calls_per_client = 16,
    /* libvirt's values: dead after 30 s. */
    .keepalive_interval_s = 5,
    .keepalive_count = 5,
};

typedef struct {
    vz_server *server;
    vz_listen_kind kind;
    int fd;
    char *path;     /* to be unlinked; NULL for TCP */
    GSource *watch; /* NULL while there are no descriptors left to accept with */
} listener;

static void listener_free(void *data)
{
    listener *l = data;
    vz_loop_unwatch(&l->watch);
    vz_fd_clear(&l->fd);
    if (l->path)
        g_unlink(l->path);
    g_free(l->path);
    g_free(l);
}

static void unref_conn(void *conn)
{
    vz_conn_unref(conn);
}

static bool has_room(const vz_server *server, vz_listen_kind kind)
{
    if (g_hash_table_size(server->conns) >= server->limits.max_clients)
        return false;
    return kind != VZ_LISTEN_READONLY || server->n_readonly < server->limits.max_readonly_clients;
}

static void add_conn(vz_server *server, vz_listen_kind kind, int take_fd)
{
    vz_autofd fd = take_fd;
    if (!has_room(server, kind)) {
        vz_warn(NULL, "a client was turned away: %u are connected, %u of them read-only",
                g_hash_table_size(server->conns), server->n_readonly);
        return;
    }
    vz_conn *conn = vz_conn_new(server, kind, vz_steal_fd(&fd), server->next_conn_id++);
    g_hash_table_add(server->conns, conn);
    server->n_readonly += kind == VZ_LISTEN_READONLY;
    vz_debug(vz_conn_name(conn), "connected");
}

void vz_server_forget(vz_server *server, vz_conn *conn)
{
    server->n_readonly -= conn->kind == VZ_LISTEN_READONLY;
    g_hash_table_remove(server->conns, conn);
}

static void on_listener(GIOCondition ready, void *data)
{
    (void)ready;
    listener *l = data;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) {
        add_conn(l->server, l->kind, fd);
        return;
    }
    /* The connection stays in the backlog and would wake us for ever; the tick tries again. */
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        vz_warn(NULL, "cannot accept a client: %s", g_strerror(errno));
        vz_loop_unwatch(&l->watch);
    }
}

static void watch_listener(listener *l)
{
    if (!l->watch)
        l->watch = vz_loop_watch(l->server->loop, l->fd, G_IO_IN, on_listener, l);
}

static void add_listener(vz_server *server, vz_listen_kind kind, int take_fd, const char *path)
{
    listener *l = g_new0(listener, 1);
    l->server = server;
    l->kind = kind;
    l->fd = take_fd;
    l->path = g_strdup(path);
    g_ptr_array_add(server->listeners, l);
    watch_listener(l);
}

/* Ticking may close connections, which takes them out of the table. */
static void on_tick(GIOCondition ready, void *data)
{
    (void)ready;
    vz_server *server = data;
    int64_t now_us = g_get_monotonic_time();
    for (guint i = 0; i < server->listeners->len; i++)
        watch_listener(server->listeners->pdata[i]);
    GList *conns = g_hash_table_get_keys(server->conns);
    for (GList *c = conns; c; c = c->next) {
        g_autoptr(vz_conn) conn = vz_conn_ref(c->data);
        vz_conn_tick(conn, now_us);
    }
    g_list_free(conns);
}

vz_server *vz_server_new(GMainContext *context, const vz_rpc_backend *backend,
                         const vz_handler *handlers, size_t n_handlers,
                         const vz_server_limits *limits)
{
    vz_server *server = g_new0(vz_server, 1);
    server->loop = vz_loop_new(context);
    server->backend = *backend;
    server->handlers = g_memdup2(handlers, n_handlers * sizeof(*handlers));
    server->n_handlers = n_handlers;
    server->limits = *limits;
    server->events = vz_events_new();
    server->listeners = g_ptr_array_new_with_free_func(listener_free);
    server->conns = g_hash_table_new_full(NULL, NULL, unref_conn, NULL);
    server->tick = vz_loop_tick(server->loop, TICK_MS, on_tick, server);
    return server;
}

void vz_server_free(vz_server *server)
{
    if (!server)
        return;
    g_ptr_array_unref(server->listeners);
    vz_loop_unwatch(&server->tick);
    GList *conns = g_hash_table_get_keys(server->conns);
    for (GList *c = conns; c; c = c->next) {
        vz_conn_flush(c->data); /* calls that the stopped actors gave up have been answered */
        vz_conn_close(c->data, NULL);
    }
    g_list_free(conns);
    g_hash_table_unref(server->conns);
    vz_loop_close(server->loop);
    vz_loop_unref(server->loop);
    vz_events_free(server->events);
    g_free(server->handlers);
    g_free(server);
}

vz_events *vz_server_events(vz_server *server)
{
    return server->events;
}

static bool listen_unix(vz_server *server, vz_listen_kind kind, const char *path, mode_t mode,
                        GError **err)
{
    g_autofree char *directory = g_path_get_dirname(path);
    if (g_mkdir_with_parents(directory, 0755))
        return vz_fail_errno(err, errno, "cannot make the directory '%s'", directory);
    int fd = vz_unix_listen(path, mode, err);
    if (fd < 0)
        return false;
    add_listener(server, kind, fd, path);
    return true;
}

bool vz_server_listen_readwrite(vz_server *server, const char *path, GError **err)
{
    return listen_unix(server, VZ_LISTEN_READWRITE, path, 0770, err);
}

bool vz_server_listen_readonly(vz_server *server, const char *path, GError **err)
{
    return listen_unix(server, VZ_LISTEN_READONLY, path, 0777, err);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    char port[NI_MAXSERV];
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) ||
        getnameinfo((const struct sockaddr *)&address, bytes, NULL, 0, port, sizeof(port),
                    NI_NUMERICSERV))
        return 0;
    return (uint16_t)g_ascii_strtoull(port, NULL, 10);
}

static bool bind_and_listen(int fd, const struct addrinfo *where)
{
    int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    return !bind(fd, where->ai_addr, where->ai_addrlen) && !listen(fd, LISTEN_BACKLOG);
}

bool vz_server_listen_tcp(vz_server *server, const char *address, uint16_t port, uint16_t *ret_port,
                          GError **err)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *where;
    g_autofree char *service = g_strdup_printf("%u", port);
    int failure = getaddrinfo(address, service, &hints, &where);
    if (failure)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "cannot listen on '%s': %s", address,
                       gai_strerror(failure));
    vz_autofd fd = socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool listening = fd >= 0 && bind_and_listen(fd, where);
    int errnum = errno;
    freeaddrinfo(where);
    if (!listening)
        return vz_fail_errno(err, errnum, "cannot listen on %s port %u", address, port);
    if (ret_port)
        *ret_port = port_of(fd);
    add_listener(server, VZ_LISTEN_TCP, vz_steal_fd(&fd), NULL);
    return true;
}
