/* connect.c - see connect.h. */
#include "rpc/connect.h"

#include "base/fd.h"
#include "base/units.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Between two attempts at a unix socket whose backlog is full. */
#define BACKLOG_RETRY_US (20 * VZ_USEC_PER_MSEC)

/* Turns the end of a wait into an error; false unless it is DONE. `what` begins the message. */
static bool waited(vz_wait_result result, const char *what, GError **err)
{
    switch (result) {
    case VZ_WAIT_DONE:
        return true;
    case VZ_WAIT_TIMEOUT:
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "%s: no answer in time", what);
    case VZ_WAIT_CANCELLED:
        return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "%s: cancelled", what);
    }
    g_assert_not_reached();
}

/* ---- one descriptor becomes ready ---- */

static void note_ready(int fd, short revents, void *data)
{
    (void)fd;
    (void)revents;
    *(bool *)data = true;
}

static bool is_set(void *data)
{
    return *(bool *)data;
}

static vz_wait_result wait_fd(vz_inbox *inbox, int fd, short events, int64_t deadline_us)
{
    bool ready = false;
    vz_inbox_watch(inbox, fd, events, note_ready, &ready);
    vz_wait_result result = vz_wait(inbox, is_set, &ready, deadline_us);
    vz_inbox_unwatch(inbox, fd);
    return result;
}

/* ---- names ---- */

/* Shared by the asker and the thread; whoever drops it last frees it. */
typedef struct {
    gint refs;
    char *host;
    char *service;
    int done_fd;
    struct addrinfo *found; /* written by the thread before done_fd */
    int failure;
    int errnum;
} lookup;

static void lookup_unref(lookup *l)
{
    if (!g_atomic_int_dec_and_test(&l->refs))
        return;
    if (l->found)
        freeaddrinfo(l->found);
    vz_fd_clear(&l->done_fd);
    g_free(l->host);
    g_free(l->service);
    g_free(l);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(lookup, lookup_unref)

static void resolve(lookup *l, int flags)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICSERV | flags, .ai_socktype = SOCK_STREAM};
    l->failure = getaddrinfo(l->host, l->service, &hints, &l->found);
    l->errnum = errno;
}

static void *lookup_thread(void *data)
{
    lookup *l = data;
    uint64_t one = 1;
    resolve(l, AI_ADDRCONFIG);
    ssize_t put = write(l->done_fd, &one, sizeof(one));
    (void)put;
    lookup_unref(l);
    return NULL;
}

static lookup *lookup_new(const vz_uri *uri)
{
    lookup *l = g_new0(lookup, 1);
    l->refs = 1;
    l->host = g_strdup(uri->host);
    l->service = g_strdup_printf("%u", uri->port);
    l->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(l->done_fd >= 0);
    return l;
}

static bool lookup_failed(const lookup *l, GError **err)
{
    const char *why = l->failure == EAI_SYSTEM ? g_strerror(l->errnum) : gai_strerror(l->failure);
    return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "unable to resolve address '%s' service '%s': %s",
                   l->host, l->service, why);
}

static lookup *lookup_run(const vz_uri *uri, vz_inbox *inbox, int64_t deadline_us, GError **err)
{
    g_autoptr(lookup) l = lookup_new(uri);
    resolve(l, AI_NUMERICHOST);
    if (!l->failure)
        return g_steal_pointer(&l);
    g_autofree char *what = g_strdup_printf("unable to resolve address '%s'", uri->host);
    g_atomic_int_inc(&l->refs);
    GThread *thread = g_thread_try_new("vz-lookup", lookup_thread, l, err);
    if (!thread) {
        lookup_unref(l);
        return NULL;
    }
    g_thread_unref(thread);
    if (!waited(wait_fd(inbox, l->done_fd, POLLIN, deadline_us), what, err))
        return NULL;
    uint64_t count;
    ssize_t got = read(l->done_fd, &count, sizeof(count)); /* what orders the thread's writes */
    (void)got;
    if (l->failure) {
        lookup_failed(l, err);
        return NULL;
    }
    return g_steal_pointer(&l);
}

/* ---- TCP ---- */

typedef struct {
    vz_inbox *inbox;
    int64_t deadline_us;
    const char *what; /* for messages */
    int errnum;       /* why the last address failed */
} attempt;

/* Waits for a connect that has begun; try->errnum is its outcome. */
static bool finish_connect(attempt *try, int fd, GError **err)
{
    socklen_t bytes = sizeof(try->errnum);
    if (!waited(wait_fd(try->inbox, fd, POLLOUT, try->deadline_us), try->what, err))
        return false;
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &try->errnum, &bytes))
        try->errnum = errno;
    return true;
}

/* One address. true with *ret_fd < 0: try the next one, try->errnum says why. */
static bool try_address(attempt *try, const struct addrinfo *address, int *ret_fd, GError **err)
{
    int yes = 1;
    vz_autofd fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    *ret_fd = -1;
    try->errnum = 0;
    if (fd < 0 || (connect(fd, address->ai_addr, address->ai_addrlen) && errno != EINPROGRESS)) {
        try->errnum = errno;
        return true;
    }
    if (!finish_connect(try, fd, err))
        return false;
    if (try->errnum)
        return true;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
    *ret_fd = vz_steal_fd(&fd);
    return true;
}

static int connect_tcp(const vz_uri *uri, vz_inbox *inbox, int64_t deadline_us, GError **err)
{
    g_autoptr(lookup) l = lookup_run(uri, inbox, deadline_us, err);
    if (!l)
        return -1;
    g_autofree char *authority = vz_uri_authority(uri);
    g_autofree char *what = g_strdup_printf("unable to connect to server at '%s'", authority);
    attempt try = {inbox, deadline_us, what, 0};
    int fd = -1;
    for (const struct addrinfo *a = l->found; a && fd < 0; a = a->ai_next)
        if (!try_address(&try, a, &fd, err))
            return -1;
    if (fd < 0)
        vz_fail_errno(err, try.errnum, "%s", what);
    return fd;
}

/* ---- unix ---- */

static int connect_unix(const char *path, vz_inbox *inbox, int64_t deadline_us, GError **err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *what = g_strdup_printf("Failed to connect socket to '%s'", path);
    if (strlen(path) >= sizeof(address.sun_path)) {
        vz_fail_errno(err, ENAMETOOLONG, "%s", what);
        return -1;
    }
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    vz_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    while (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address))) {
        if (fd < 0 || errno != EAGAIN) {
            vz_fail_errno(err, errno, "%s", what);
            return -1;
        }
        vz_wait_result result =
            vz_wait(inbox, NULL, NULL, MIN(vz_now_us() + BACKLOG_RETRY_US, deadline_us));
        if (result == VZ_WAIT_TIMEOUT && vz_now_us() < deadline_us)
            continue;
        if (!waited(result, what, err))
            return -1;
    }
    return vz_steal_fd(&fd);
}

int vz_connect(const vz_uri *uri, vz_inbox *inbox, int64_t deadline_us, GError **err)
{
    if (uri->path)
        return connect_unix(uri->path, inbox, deadline_us, err);
    return connect_tcp(uri, inbox, deadline_us, err);
}
