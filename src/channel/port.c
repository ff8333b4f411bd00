/* port.c - see port.h.
 *
 * Lock: port->lock guards the jobs; everything else belongs to the loop thread. */
#include "channel/port.h"

#include "channel/control.h"

#include "base/fd.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <glib-unix.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#define LISTEN_BACKLOG 128
/* Connections taken in one turn of the loop, which has other work. */
#define ACCEPT_BATCH 16
/* Without a free descriptor the listener stays readable; look again when some may have come free.
 */
#define EXHAUSTED_PAUSE_MS 100

typedef struct {
    vz_port *port;
    int fd;
    GSource *readable;
    GSource *timeout;
    size_t n_bytes;
    uint8_t bytes[VZ_PROLOGUE_BYTES];
} caller;

struct vz_port {
    GMainContext *context;
    vz_ask_server *ask;
    int listener;
    uint16_t number;
    GSource *readable;
    GSource *pause;
    GQueue callers; /* caller, the oldest first */
    pthread_mutex_t lock;
    GHashTable *jobs; /* uuid -> descriptor of the carrier's control connection + 1 */
};

static void source_clear(GSource **source)
{
    if (!*source)
        return;
    g_source_destroy(*source);
    g_source_unref(*source);
    *source = NULL;
}

static void caller_free(caller *c)
{
    g_queue_remove(&c->port->callers, c);
    source_clear(&c->readable);
    source_clear(&c->timeout);
    vz_fd_clear(&c->fd);
    g_free(c);
}

/* A connection for a carrier, given to it. false: no such job. */
static bool give(vz_port *port, const uint8_t job[VZ_UUID_BYTES], int fd)
{
    vz_control_message message = {.type = VZ_CONTROL_GIVE};
    g_autoptr(GError) err = NULL;
    pthread_mutex_lock(&port->lock);
    int control = GPOINTER_TO_INT(g_hash_table_lookup(port->jobs, job)) - 1;
    bool given = control >= 0 && vz_control_send(control, &message, &fd, 1, &err);
    pthread_mutex_unlock(&port->lock);
    return given;
}

static void hand_on(vz_port *port, const vz_prologue *prologue, int take_fd)
{
    vz_autofd fd = take_fd;
    char job[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(prologue->job, job);
    if (prologue->door == VZ_DOOR_ASK && port->ask)
        vz_ask_server_take(port->ask, prologue->job, vz_steal_fd(&fd));
    else if (prologue->door == VZ_DOOR_ASK || !give(port, prologue->job, fd))
        vz_debug(job, "dropped a data connection: no such job here");
}

static gboolean on_readable(G_GNUC_UNUSED int fd, G_GNUC_UNUSED GIOCondition condition, void *data)
{
    caller *c = data;
    ssize_t n = recv(c->fd, c->bytes + c->n_bytes, sizeof(c->bytes) - c->n_bytes, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return G_SOURCE_CONTINUE;
    c->n_bytes += (size_t)MAX(n, 0);
    if (n > 0 && c->n_bytes < sizeof(c->bytes))
        return G_SOURCE_CONTINUE;
    vz_prologue prologue;
    if (c->n_bytes == sizeof(c->bytes) && vz_prologue_decode(c->bytes, &prologue))
        hand_on(c->port, &prologue, vz_steal_fd(&c->fd));
    caller_free(c);
    return G_SOURCE_REMOVE;
}

static gboolean on_timeout(void *data)
{
    caller_free(data);
    return G_SOURCE_REMOVE;
}

/* The functions of these sources differ in type; GLib's cast goes by way of void (*)(void). */
static GSource *attach(vz_port *port, GSource *source, GSourceFunc fn, void *data)
{
    g_source_set_callback(source, fn, data, NULL);
    g_source_attach(source, port->context);
    return source;
}

void vz_port_take(vz_port *port, int take_fd)
{
    if (port->callers.length >= VZ_PORT_HALF_OPEN_MAX)
        caller_free(g_queue_peek_head(&port->callers));
    caller *c = g_new0(caller, 1);
    c->port = port;
    c->fd = take_fd;
    c->readable = attach(port, g_unix_fd_source_new(take_fd, G_IO_IN | G_IO_HUP | G_IO_ERR),
                         G_SOURCE_FUNC(on_readable), c);
    c->timeout = attach(port, g_timeout_source_new(VZ_PORT_PROLOGUE_TIMEOUT_MS), on_timeout, c);
    g_queue_push_tail(&port->callers, c);
}

static void listen_on(vz_port *port);

static gboolean on_pause_over(void *data)
{
    vz_port *port = data;
    source_clear(&port->pause);
    listen_on(port);
    return G_SOURCE_REMOVE;
}

static gboolean on_connection(G_GNUC_UNUSED int fd, G_GNUC_UNUSED GIOCondition condition,
                              void *data)
{
    vz_port *port = data;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int fresh = accept4(port->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fresh >= 0) {
            vz_port_take(port, fresh);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            source_clear(&port->readable);
            port->pause =
                attach(port, g_timeout_source_new(EXHAUSTED_PAUSE_MS), on_pause_over, port);
            return G_SOURCE_REMOVE;
        } else if (errno == EAGAIN) {
            break;
        }
    }
    return G_SOURCE_CONTINUE;
}

static void listen_on(vz_port *port)
{
    port->readable = attach(port, g_unix_fd_source_new(port->listener, G_IO_IN),
                            G_SOURCE_FUNC(on_connection), port);
}

static bool bind_and_listen(vz_port *port, const struct sockaddr *address, socklen_t bytes)
{
    int on = 1, off = 0;
    vz_autofd fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return false;
    if (address->sa_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    struct sockaddr_storage bound;
    socklen_t bound_bytes = sizeof(bound);
    if (bind(fd, address, bytes) < 0 || listen(fd, LISTEN_BACKLOG) < 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bound_bytes) < 0)
        return false;
    /* The port is at the same place in both families. */
    port->number = ntohs(((const struct sockaddr_in *)(const void *)&bound)->sin_port);
    port->listener = vz_steal_fd(&fd);
    return true;
}

static bool open_listener(vz_port *port, const vz_port_options *options, GError **err)
{
    struct sockaddr_in6 any6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(options->port), .sin6_addr = in6addr_any};
    struct sockaddr_in any4 = {.sin_family = AF_INET, .sin_port = htons(options->port)};
    const char *shown = options->address ? options->address : "all addresses";
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    char service[8];
    g_snprintf(service, sizeof(service), "%u", options->port);
    if (options->address && getaddrinfo(options->address, service, &hints, &found) != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is not a numeric address to listen on",
                       options->address);
    bool fine = found ? bind_and_listen(port, found->ai_addr, found->ai_addrlen)
                      : bind_and_listen(port, (struct sockaddr *)&any6, sizeof(any6)) ||
                            (errno == EAFNOSUPPORT &&
                             bind_and_listen(port, (struct sockaddr *)&any4, sizeof(any4)));
    int errnum = errno;
    if (found)
        freeaddrinfo(found);
    return fine ||
           vz_fail_errno(err, errnum, "cannot listen on %s port %u for data", shown, options->port);
}

static void close_control(void *value)
{
    int fd = GPOINTER_TO_INT(value) - 1;
    vz_fd_clear(&fd);
}

vz_port *vz_port_new(const vz_port_options *options, GError **err)
{
    g_autoptr(vz_port) port = g_new0(vz_port, 1);
    port->listener = -1;
    port->context =
        g_main_context_ref(options->context ? options->context : g_main_context_default());
    port->ask = options->ask;
    g_queue_init(&port->callers);
    pthread_mutex_init(&port->lock, NULL);
    port->jobs = g_hash_table_new_full(vz_uuid_hash, vz_uuid_equal, g_free, close_control);
    if (!open_listener(port, options, err))
        return NULL;
    listen_on(port);
    return g_steal_pointer(&port);
}

void vz_port_free(vz_port *port)
{
    if (!port)
        return;
    source_clear(&port->readable);
    source_clear(&port->pause);
    while (port->callers.length > 0)
        caller_free(g_queue_peek_head(&port->callers));
    vz_fd_clear(&port->listener);
    g_hash_table_unref(port->jobs);
    pthread_mutex_destroy(&port->lock);
    g_main_context_unref(port->context);
    g_free(port);
}

uint16_t vz_port_number(const vz_port *port)
{
    return port->number;
}

bool vz_port_admit(vz_port *port, vz_carrier *carrier, GError **err)
{
    int control = vz_carrier_control_dup(carrier, err);
    if (control < 0)
        return false;
    uint8_t *job = g_memdup2(vz_carrier_job(carrier), VZ_UUID_BYTES);
    pthread_mutex_lock(&port->lock);
    g_hash_table_replace(port->jobs, job, GINT_TO_POINTER(control + 1));
    pthread_mutex_unlock(&port->lock);
    return true;
}

void vz_port_dismiss(vz_port *port, const uint8_t job[VZ_UUID_BYTES])
{
    pthread_mutex_lock(&port->lock);
    g_hash_table_remove(port->jobs, job);
    pthread_mutex_unlock(&port->lock);
}
