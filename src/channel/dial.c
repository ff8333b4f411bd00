/* dial.c - see dial.h. */
#include "channel/dial.h"

#include "channel/io.h"

#include "base/fd.h"
#include "base/spawn.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define ADDRESSES_MAX      16
#define HOST_NAME_BYTES    254 /* RFC 1035's limit, with the NUL */
#define RESOLVE_TIMEOUT_US (5 * G_USEC_PER_SEC)

typedef struct {
    struct sockaddr_storage address;
    socklen_t bytes;
} endpoint;

/* false where `host` is not a numeric address. */
static bool parse_numeric(const char *host, uint16_t port, endpoint *ret)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char service[8];
    g_snprintf(service, sizeof(service), "%u", port);
    if (getaddrinfo(host, service, &hints, &list) != 0)
        return false;
    memcpy(&ret->address, list->ai_addr, list->ai_addrlen);
    ret->bytes = list->ai_addrlen;
    freeaddrinfo(list);
    return true;
}

/* "HOST (ADDRESS) port N", without the brackets where the host is the address. */
static char *label_of(const char *host, uint16_t port, const endpoint *at)
{
    char text[NI_MAXHOST] = "";
    getnameinfo((const struct sockaddr *)&at->address, at->bytes, text, sizeof(text), NULL, 0,
                NI_NUMERICHOST);
    if (!*text || strcmp(text, host) == 0)
        return g_strdup_printf("%s port %u", host, port);
    return g_strdup_printf("%s (%s) port %u", host, text, port);
}

/* The addresses of a name, by a helper process: the resolver may hang for longer than we may. */
static size_t resolve(const vz_dial_request *request, endpoint ret[ADDRESSES_MAX], GError **err)
{
    const char *const argv[] = {"getent", "ahosts", request->host, NULL};
    g_autofree char *output = NULL;
    int64_t deadline_us = MIN(request->deadline_us, vz_now_us() + RESOLVE_TIMEOUT_US);
    g_autoptr(GError) why = NULL;
    if (!vz_run(argv, deadline_us, &output, &why)) {
        bool late = g_error_matches(why, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
        vz_fail(err, late ? VZ_ERR_OPERATION_TIMEOUT : VZ_ERR_SYSTEM_ERROR,
                "unable to resolve host name '%s': %s", request->host,
                late ? "the resolver does not answer" : "name not known");
        return 0;
    }
    g_auto(GStrv) lines = g_strsplit(output, "\n", -1);
    size_t n = 0;
    for (char **line = lines; *line && n < ADDRESSES_MAX; line++) {
        char address[NI_MAXHOST], type[16];
        if (sscanf(*line, "%1000s %15s", address, type) == 2 && strcmp(type, "STREAM") == 0 &&
            parse_numeric(address, request->port, &ret[n]))
            n++;
    }
    if (n == 0)
        vz_fail(err, VZ_ERR_SYSTEM_ERROR, "unable to resolve host name '%s': it has no address",
                request->host);
    return n;
}

static bool bind_local(int fd, const char *bind_address, GError **err)
{
    if (!bind_address)
        return true;
    endpoint local;
    if (!parse_numeric(bind_address, 0, &local))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is not a numeric address to connect from",
                       bind_address);
    return bind(fd, (struct sockaddr *)&local.address, local.bytes) == 0 ||
           vz_fail_errno(err, errno, "cannot connect from local address '%s'", bind_address);
}

static bool fail_connect(GError **err, int errnum, const vz_dial_request *request,
                         const char *label)
{
    if (errnum == ECONNREFUSED)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "unable to connect to %s: connection refused (is virtvzd running on %s, and "
                       "is port %u its data port?)",
                       label, request->host, request->port);
    if (errnum == ETIMEDOUT)
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
                       "unable to connect to %s: timed out (is the host up, and does no firewall "
                       "drop packets to port %u?)",
                       label, request->port);
    return vz_fail_errno(err, errnum, "unable to connect to %s", label);
}

static int dial_one(const vz_dial_request *request, const endpoint *to, GError **err)
{
    g_autofree char *label = label_of(request->host, request->port, to);
    vz_autofd fd =
        socket(to->address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
    if (fd < 0) {
        fail_connect(err, errno, request, label);
        return -1;
    }
    if (!bind_local(fd, request->bind_address, err))
        return -1;
    int errnum = connect(fd, (const struct sockaddr *)&to->address, to->bytes) == 0 ? 0 : errno;
    if (errnum == EINPROGRESS) {
        vz_io io = {request->inbox, request->deadline_us};
        g_autoptr(GError) why = NULL;
        if (!vz_io_wait(&io, fd, POLLOUT, &why)) {
            if (g_error_matches(why, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT))
                fail_connect(err, ETIMEDOUT, request, label);
            else
                vz_fail(err, VZ_ERR_OPERATION_ABORTED, "connecting to %s: cancelled", label);
            return -1;
        }
        socklen_t bytes = sizeof(errnum);
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &bytes);
    }
    if (errnum != 0) {
        fail_connect(err, errnum, request, label);
        return -1;
    }
    vz_dial_set_options(fd);
    return vz_steal_fd(&fd);
}

int vz_dial(const vz_dial_request *request, GError **err)
{
    endpoint addresses[ADDRESSES_MAX];
    size_t n = 1;
    if (request->way.dial)
        return request->way.dial(request, err);
    if (strlen(request->host) >= HOST_NAME_BYTES || request->host[0] == '-' ||
        request->host[0] == '\0' || request->port == 0) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "'%.64s' port %u is not an address to connect to",
                request->host, request->port);
        return -1;
    }
    if (!parse_numeric(request->host, request->port, &addresses[0]))
        n = resolve(request, addresses, err);
    for (size_t i = 0; i < n; i++) {
        g_clear_error(err);
        int fd = dial_one(request, &addresses[i], err);
        if (fd >= 0)
            return fd;
        if (g_error_matches(*err, VZ_ERROR, VZ_ERR_OPERATION_ABORTED))
            break;
    }
    return -1;
}

static void set_int(int fd, int level, int name, int value)
{
    int r = setsockopt(fd, level, name, &value, sizeof(value));
    (void)r;
}

void vz_dial_set_options(int fd)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, VZ_CHANNEL_KEEPALIVE_IDLE_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, VZ_CHANNEL_KEEPALIVE_INTERVAL_S);
    set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, VZ_CHANNEL_KEEPALIVE_COUNT);
    set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, VZ_CHANNEL_USER_TIMEOUT_MS);
}

void vz_dial_peer_address(int fd, char ret_text[VZ_ADDRESS_TEXT_BYTES])
{
    static const char mapped[] = "::ffff:"; /* IPv4 on a socket that speaks both */
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    ret_text[0] = '\0';
    if (getpeername(fd, (struct sockaddr *)&address, &bytes) < 0 || address.ss_family == AF_UNIX ||
        getnameinfo((const struct sockaddr *)&address, bytes, ret_text, VZ_ADDRESS_TEXT_BYTES, NULL,
                    0, NI_NUMERICHOST) != 0)
        ret_text[0] = '\0';
    else if (g_str_has_prefix(ret_text, mapped) && strchr(ret_text, '.'))
        memmove(ret_text, ret_text + strlen(mapped), strlen(ret_text + strlen(mapped)) + 1);
}
