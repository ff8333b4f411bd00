/* control.c - see control.h. */
#include "channel/control.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Version 1's message; later ones are longer. */
#define MESSAGE_MIN_BYTES sizeof(vz_control_message)
#define LISTEN_BACKLOG    4
/* A burst at the data port is passed on message by message, and must not stop at the default
 * buffer, which holds some fifty. */
#define SEND_BUFFER_BYTES (4 * 1024 * 1024)
#define SOCKET_KIND       (SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK)

G_STATIC_ASSERT(sizeof(vz_control_message) ==
                72 + VZ_UUID_BYTES + VZ_CHANNEL_CIPHER_BYTES + VZ_CHANNEL_REASON_BYTES);

bool vz_control_send(int fd, const vz_control_message *message, const int *fds, size_t n_fds,
                     GError **err)
{
    vz_control_message copy = *message;
    copy.version = VZ_CONTROL_VERSION;
    /* "Writable" leaves three quarters of the buffer, so the message fits although others may send
     * on the same socket at this moment. */
    if (!vz_poll_one(fd, POLLOUT, vz_now_us()))
        return false;
    return vz_fd_send(fd, &copy, sizeof(copy), fds, n_fds, err);
}

vz_control_result vz_control_receive(int fd, vz_control_message *ret_message,
                                     int ret_fds[VZ_FD_PASS_MAX], size_t *ret_n_fds)
{
    /* A later version's tail is cut off by the kernel. */
    vz_control_message message;
    memset(&message, 0, sizeof(message));
    g_autoptr(GError) err = NULL;
    ssize_t n = vz_fd_receive(fd, &message, sizeof(message), ret_fds, ret_n_fds, &err);
    if (n < 0 && !err)
        return VZ_CONTROL_NOTHING;
    if (n < (ssize_t)MESSAGE_MIN_BYTES || message.version == 0) {
        for (size_t i = 0; i < *ret_n_fds; i++)
            vz_fd_clear(&ret_fds[i]);
        *ret_n_fds = 0;
        return VZ_CONTROL_ENDED;
    }
    message.cipher[sizeof(message.cipher) - 1] = '\0';
    message.reason[sizeof(message.reason) - 1] = '\0';
    *ret_message = message;
    return VZ_CONTROL_GOT;
}

static bool socket_address(const char *rundir, struct sockaddr_un *ret_address, GError **err)
{
    memset(ret_address, 0, sizeof(*ret_address));
    ret_address->sun_family = AF_UNIX;
    g_autofree char *path = g_build_filename(rundir, VZ_CARRIER_SOCKET_NAME, NULL);
    if (g_strlcpy(ret_address->sun_path, path, sizeof(ret_address->sun_path)) >=
        sizeof(ret_address->sun_path))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "socket path '%s' is longer than %zu bytes", path,
                       sizeof(ret_address->sun_path) - 1);
    return true;
}

int vz_control_listen(const char *rundir, GError **err)
{
    struct sockaddr_un address;
    if (!socket_address(rundir, &address, err))
        return -1;
    vz_autofd fd = socket(AF_UNIX, SOCKET_KIND, 0);
    unlink(address.sun_path);
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        chmod(address.sun_path, 0600) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        vz_fail_errno(err, errno, "cannot listen on '%s'", address.sun_path);
        return -1;
    }
    return vz_steal_fd(&fd);
}

/* The system's limit binds only those without the right to exceed it. */
static void widen(int fd)
{
    int bytes = SEND_BUFFER_BYTES;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

int vz_control_connect(const char *rundir, GError **err)
{
    struct sockaddr_un address;
    if (!socket_address(rundir, &address, err))
        return -1;
    vz_autofd fd = socket(AF_UNIX, SOCKET_KIND, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        vz_fail_errno(err, errno, "cannot connect to carrier at '%s'", address.sun_path);
        return -1;
    }
    widen(fd);
    return vz_steal_fd(&fd);
}

void vz_control_remove(const char *rundir)
{
    g_autofree char *path = g_build_filename(rundir, VZ_CARRIER_SOCKET_NAME, NULL);
    unlink(path);
}

bool vz_control_pair(int ret_fds[2], GError **err)
{
    if (socketpair(AF_UNIX, SOCKET_KIND, 0, ret_fds) < 0)
        return vz_fail_errno(err, errno, "cannot make a socket pair");
    widen(ret_fds[0]);
    widen(ret_fds[1]);
    return true;
}

void vz_control_from_info(const vz_channel_info *info, vz_control_message *ret_message)
{
    memset(ret_message, 0, sizeof(*ret_message));
    ret_message->type = VZ_CONTROL_CHANNEL;
    ret_message->purpose = (uint16_t)info->purpose;
    ret_message->index = info->index;
    ret_message->state = info->state;
    ret_message->reason_code = info->reason_code;
    ret_message->sent_bytes = info->sent_bytes;
    ret_message->received_bytes = info->received_bytes;
    ret_message->wire_sent_bytes = info->wire_sent_bytes;
    ret_message->wire_received_bytes = info->wire_received_bytes;
    ret_message->connect_us = info->connect_us;
    g_strlcpy(ret_message->cipher, info->cipher, sizeof(ret_message->cipher));
    g_strlcpy(ret_message->reason, info->reason, sizeof(ret_message->reason));
}

void vz_control_to_info(const vz_control_message *message, vz_channel_info *ret_info)
{
    memset(ret_info, 0, sizeof(*ret_info));
    ret_info->purpose = (vz_purpose)message->purpose;
    ret_info->index = message->index;
    ret_info->state = MIN(message->state, VZ_CHANNEL_FAILED);
    ret_info->reason_code = message->reason_code;
    ret_info->sent_bytes = message->sent_bytes;
    ret_info->received_bytes = message->received_bytes;
    ret_info->wire_sent_bytes = message->wire_sent_bytes;
    ret_info->wire_received_bytes = message->wire_received_bytes;
    ret_info->connect_us = message->connect_us;
    g_strlcpy(ret_info->cipher, message->cipher, sizeof(ret_info->cipher));
    g_strlcpy(ret_info->reason, message->reason, sizeof(ret_info->reason));
}
