/* fd.c - see fd.h. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 64
/* A listener whose backlog is full lets a caller wait. */
#define CONNECT_PATIENCE_S 5

void vz_fd_clear(int *fd)
{
    if (*fd < 0)
        return;
    int saved = errno;
    close(*fd);
    errno = saved;
    *fd = -1;
}

bool vz_file_read(const char *path, size_t max_bytes, char **ret_data, size_t *ret_bytes,
                  GError **err)
{
    vz_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return vz_fail_errno(err, errno, "cannot open '%s'", path);
    g_autoptr(GByteArray) data = g_byte_array_new();
    for (;;) {
        uint8_t chunk[16384];
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vz_fail_errno(err, errno, "cannot read '%s'", path);
        if (n == 0)
            break;
        if (data->len + (size_t)n > max_bytes)
            return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "'%s' is larger than %zu bytes", path,
                           max_bytes);
        g_byte_array_append(data, chunk, (guint)n);
    }
    if (ret_bytes)
        *ret_bytes = data->len;
    g_byte_array_append(data, (const uint8_t *)"", 1);
    *ret_data = (char *)g_byte_array_free(g_steal_pointer(&data), FALSE);
    return true;
}

bool vz_fd_write_all(int fd, const void *data, size_t bytes, GError **err)
{
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return vz_fail_errno(err, errno, "cannot write");
        p += n;
        bytes -= (size_t)n;
    }
    return true;
}

bool vz_file_sync_name(const char *path, GError **err)
{
    g_autofree char *directory = g_path_get_dirname(path);
    vz_autofd fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return vz_fail_errno(err, errno, "cannot sync directory '%s'", directory);
    return true;
}

bool vz_file_write_durable(const char *path, const char *data, size_t bytes, mode_t mode,
                           GError **err)
{
    g_autofree char *temporary = g_strconcat(path, ".new", NULL);
    vz_autofd fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return vz_fail_errno(err, errno, "cannot create '%s'", temporary);
    if (!vz_fd_write_all(fd, data, bytes, err) || fsync(fd) < 0 || rename(temporary, path) < 0) {
        int errnum = errno;
        unlink(temporary);
        if (!*err)
            vz_fail_errno(err, errnum, "cannot write '%s'", path);
        else
            g_prefix_error(err, "'%s': ", path);
        return false;
    }
    return vz_file_sync_name(path, err);
}

bool vz_fd_append_durable(int fd, const char *data, size_t bytes, GError **err)
{
    if (!vz_fd_write_all(fd, data, bytes, err))
        return false;
    return fdatasync(fd) == 0 || vz_fail_errno(err, errno, "cannot sync");
}

bool vz_file_remove_durable(const char *path, GError **err)
{
    if (unlink(path) < 0)
        return errno == ENOENT || vz_fail_errno(err, errno, "cannot remove '%s'", path);
    return vz_file_sync_name(path, err);
}

bool vz_fd_send(int socket, const void *data, size_t bytes, const int *fds, size_t n_fds,
                GError **err)
{
    g_assert(n_fds <= VZ_FD_PASS_MAX);
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VZ_FD_PASS_MAX * sizeof(int))];
    } control;
    memset(&control, 0, sizeof(control));
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (n_fds > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(header), fds, n_fds * sizeof(int));
    }
    ssize_t n;
    do
        n = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return vz_fail_errno(err, errno, "cannot send descriptors");
    return (size_t)n == bytes || vz_fail(err, VZ_ERR_SYSTEM_ERROR, "short write of descriptors");
}

ssize_t vz_fd_receive(int socket, void *data, size_t max_bytes, int ret_fds[VZ_FD_PASS_MAX],
                      size_t *ret_n_fds, GError **err)
{
    struct iovec iov = {.iov_base = data, .iov_len = max_bytes};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(VZ_FD_PASS_MAX * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    *ret_n_fds = 0;
    ssize_t n;
    do
        n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
        if (errno != EAGAIN)
            vz_fail_errno(err, errno, "cannot receive descriptors");
        return -1;
    }
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&message); h; h = CMSG_NXTHDR(&message, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
            if (*ret_n_fds < VZ_FD_PASS_MAX)
                ret_fds[(*ret_n_fds)++] = fd;
            else
                close(fd);
        }
    }
    return n;
}

static bool unix_address(const char *path, struct sockaddr_un *ret_address, GError **err)
{
    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(ret_address->sun_path))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "socket path '%s' is longer than %zu bytes", path,
                       sizeof(ret_address->sun_path) - 1);
    memcpy(ret_address->sun_path, path, strlen(path) + 1);
    return true;
}

int vz_unix_listen(const char *path, mode_t mode, GError **err)
{
    struct sockaddr_un address;
    if (!unix_address(path, &address, err))
        return -1;
    vz_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        vz_fail_errno(err, errno, "cannot make a socket");
        return -1;
    }
    unlink(path);
    /* On Linux the mode of the socket's inode comes from fchmod before bind, less the umask. */
    if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(path, mode) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        vz_fail_errno(err, errno, "cannot listen on '%s'", path);
        return -1;
    }
    return vz_steal_fd(&fd);
}

int vz_unix_connect(const char *path, GError **err)
{
    struct sockaddr_un address;
    if (!unix_address(path, &address, err))
        return -1;
    const struct timeval patience = {.tv_sec = CONNECT_PATIENCE_S};
    const struct timeval for_ever = {0};
    vz_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)) < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &for_ever, sizeof(for_ever)) < 0) {
        vz_fail_errno(err, errno, "cannot connect to '%s'", path);
        return -1;
    }
    return vz_steal_fd(&fd);
}
