/* stream_sockets.c - see stream_sockets.h. */
#include "migrate/stream_sockets.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define SOCKET       "stream.sock"
#define BUFFER_BYTES (1024 * 1024)

struct vz_stream_sockets {
    char *directory;
    struct sockaddr_un address; /* in it */
    vz_purpose purpose;
    pid_t pid;
    int pidfd;       /* borrowed */
    vz_inbox *inbox; /* source */
    int listener;    /* source; -1 */
    bool *stirred;   /* source; borrowed */
    GArray *fds;     /* int. source: not taken yet; destination: by index, -1 once joined */
};

/* Big buffers suit a pump. Without the right to more than the system's limit it gets that. */
static int new_socket(GError **err)
{
    int bytes = BUFFER_BYTES;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        vz_fail_errno(err, errno, "cannot make a socket");
    else if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    return fd;
}

static void remove_place(const vz_stream_sockets *s)
{
    unlink(s->address.sun_path);
    rmdir(s->directory);
}

/* A fresh place that only QEMU's user and root can enter. */
static vz_stream_sockets *make_place(vz_qemu *qemu, vz_purpose purpose, GError **err)
{
    uid_t uid;
    gid_t gid;
    vz_qemu_identity(qemu, &uid, &gid);
    vz_stream_sockets *s = g_new0(vz_stream_sockets, 1);
    s->purpose = purpose;
    s->directory = g_build_filename(
        vz_qemu_rundir(qemu),
        purpose == VZ_PURPOSE_DISK ? VZ_QEMU_DISKS_DIRECTORY : VZ_QEMU_MIGRATION_DIRECTORY, NULL);
    s->address.sun_family = AF_UNIX;
    g_snprintf(s->address.sun_path, sizeof(s->address.sun_path), "%s/" SOCKET, s->directory);
    s->pid = vz_qemu_pid(qemu);
    s->pidfd = vz_qemu_pidfd(qemu);
    s->listener = -1;
    s->fds = g_array_new(FALSE, FALSE, sizeof(int));
    remove_place(s);
    if (strlen(s->directory) + sizeof("/" SOCKET) > sizeof(s->address.sun_path))
        errno = ENAMETOOLONG;
    else if (mkdir(s->directory, 0700) == 0 && chown(s->directory, uid, gid) == 0)
        return s;
    vz_fail_errno(err, errno, "cannot make the directory '%s'", s->directory);
    vz_stream_close(s);
    return NULL;
}

static void on_connection(int fd, short revents, void *data)
{
    (void)revents;
    vz_stream_sockets *s = data;
    struct ucred peer = {.pid = -1};
    socklen_t bytes = sizeof(peer);
    vz_autofd connection = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (connection < 0 || getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0 ||
        peer.pid != s->pid)
        return;
    int taken = vz_steal_fd(&connection);
    g_array_append_val(s->fds, taken);
    *s->stirred = true;
}

static bool listen_for(vz_stream_sockets *s, vz_qemu *qemu, GError **err)
{
    uid_t uid;
    gid_t gid;
    vz_qemu_identity(qemu, &uid, &gid);
    s->listener = new_socket(err);
    if (s->listener < 0)
        return false;
    return (bind(s->listener, (struct sockaddr *)&s->address, sizeof(s->address)) == 0 &&
            chown(s->address.sun_path, uid, gid) == 0 &&
            listen(s->listener, VZ_CARRIER_CHANNELS_MAX) == 0) ||
           vz_fail_errno(err, errno, "cannot listen on '%s'", s->address.sun_path);
}

vz_stream_sockets *vz_stream_listen(vz_qemu *qemu, vz_inbox *inbox, bool *stirred, GError **err)
{
    vz_stream_sockets *s = make_place(qemu, VZ_PURPOSE_MEMORY, err);
    if (!s)
        return NULL;
    if (!listen_for(s, qemu, err)) {
        vz_stream_close(s);
        return NULL;
    }
    s->inbox = inbox;
    s->stirred = stirred;
    vz_inbox_watch(inbox, s->listener, POLLIN, on_connection, s);
    return s;
}

int vz_stream_take(vz_stream_sockets *s)
{
    if (s->fds->len == 0)
        return -1;
    int fd = g_array_index(s->fds, int, 0);
    g_array_remove_index(s->fds, 0);
    return fd;
}

vz_stream_sockets *vz_stream_prepare(vz_qemu *qemu, vz_purpose purpose, GError **err)
{
    return make_place(qemu, purpose, err);
}

/* The carrier gets a socket that is not connected yet, and begins when it is. */
bool vz_stream_expect(vz_stream_sockets *s, vz_carrier *carrier, unsigned channels, GError **err)
{
    while (s->fds->len < channels) {
        vz_autofd ours = new_socket(err);
        vz_autofd carriers = ours < 0 ? -1 : dup(ours);
        if (ours < 0)
            return false;
        if (carriers < 0)
            return vz_fail_errno(err, errno, "cannot copy a socket");
        if (!vz_carrier_expect(carrier, s->purpose, (uint16_t)s->fds->len, vz_steal_fd(&carriers),
                               s->pidfd, err))
            return false;
        int kept = vz_steal_fd(&ours);
        g_array_append_val(s->fds, kept);
    }
    return true;
}

void vz_stream_skip(vz_stream_sockets *s, unsigned channels)
{
    static const int none = -1;
    while (s->fds->len < channels)
        g_array_append_val(s->fds, none);
}

void vz_stream_join(vz_stream_sockets *s, vz_carrier *carrier, uint16_t index)
{
    int *fd = index < s->fds->len ? &g_array_index(s->fds, int, index) : NULL;
    if (!fd || *fd < 0)
        return;
    if (connect(*fd, (struct sockaddr *)&s->address, sizeof(s->address)) < 0) {
        vz_warn("stream", "%s channel %u: QEMU does not listen on '%s': %s",
                vz_purpose_name(s->purpose), index, s->address.sun_path, g_strerror(errno));
        vz_carrier_abort(carrier, s->purpose, index);
    }
    vz_fd_clear(fd);
}

const char *vz_stream_path(const vz_stream_sockets *s)
{
    return s->address.sun_path;
}

void vz_stream_close(vz_stream_sockets *s)
{
    if (!s)
        return;
    if (s->listener >= 0 && s->inbox)
        vz_inbox_unwatch(s->inbox, s->listener);
    vz_fd_clear(&s->listener);
    for (guint i = 0; i < s->fds->len; i++)
        vz_fd_clear(&g_array_index(s->fds, int, i));
    g_array_unref(s->fds);
    remove_place(s);
    g_free(s->directory);
    g_free(s);
}
