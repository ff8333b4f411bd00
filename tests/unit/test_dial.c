/* test_dial.c - connecting: names, local addresses, deadlines, and a link that is cut, for 3
 * seconds and for good (in a network namespace of its own, as root). */
#include "channel/dial.h"

#include "support/channel_pair.h"

#include "base/fd.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int listen_on_loopback(int backlog, uint16_t *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(fd, (struct sockaddr *)&address, bytes), ==, 0);
    g_assert_cmpint(listen(fd, backlog), ==, 0);
    getsockname(fd, (struct sockaddr *)&address, &bytes);
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int dial(const char *host, uint16_t port, const char *bind_address, int ms, GError **err)
{
    vz_dial_request request = {
        .host = host,
        .port = port,
        .bind_address = bind_address,
        .deadline_us = vz_now_us() + ms * (int64_t)1000,
    };
    return vz_dial(&request, err);
}

static void test_names(void)
{
    g_autoptr(GError) err = NULL;
    uint16_t port;
    vz_autofd listener = listen_on_loopback(4, &port);
    vz_autofd by_name = dial("localhost", port, NULL, 5000, &err);
    g_assert_no_error(err);
    vz_autofd bound = dial("127.0.0.1", port, "127.0.0.7", 5000, &err);
    g_assert_no_error(err);
    struct sockaddr_in local;
    socklen_t bytes = sizeof(local);
    getsockname(bound, (struct sockaddr *)&local, &bytes);
    g_assert_cmpuint(ntohl(local.sin_addr.s_addr), ==, 0x7f000007);
}

static void assert_fails(const char *host, const char *bind_address, vz_error_code code,
                         const char *text)
{
    g_autoptr(GError) err = NULL;
    uint16_t port;
    vz_autofd listener = listen_on_loopback(4, &port);
    g_assert_cmpint(dial(host, port, bind_address, 5000, &err), ==, -1);
    g_assert_cmpint((int)vz_error_number(err), ==, (int)code);
    if (!strstr(err->message, text))
        g_error("'%s' lacks '%s'", err->message, text);
}

static void test_errors(void)
{
    assert_fails("no-such-host.invalid", NULL, VZ_ERR_SYSTEM_ERROR,
                 "unable to resolve host name 'no-such-host.invalid'");
    assert_fails("127.0.0.1", "192.0.2.9", VZ_ERR_SYSTEM_ERROR, "local address '192.0.2.9'");
    assert_fails("127.0.0.1", "localhost", VZ_ERR_INVALID_ARG, "not a numeric address");
    assert_fails("-s", NULL, VZ_ERR_INVALID_ARG, "not an address");
    assert_fails("", NULL, VZ_ERR_INVALID_ARG, "not an address");
}

/* A listener whose queue is full drops SYNs, as a firewall does. */
static void test_dropped_packets(void)
{
    g_autoptr(GError) err = NULL;
    uint16_t port;
    vz_autofd listener = listen_on_loopback(0, &port);
    int filler[8];
    for (unsigned i = 0; i < G_N_ELEMENTS(filler); i++) {
        g_autoptr(GError) ignored = NULL;
        filler[i] = dial("127.0.0.1", port, NULL, 100, &ignored);
    }
    int64_t began_us = vz_now_us();
    g_assert_cmpint(dial("127.0.0.1", port, NULL, 400, &err), ==, -1);
    g_assert_cmpint(vz_now_us() - began_us, <, G_USEC_PER_SEC);
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
    g_assert_nonnull(strstr(err->message, "firewall"));
    for (unsigned i = 0; i < G_N_ELEMENTS(filler); i++)
        vz_fd_clear(&filler[i]);
}

static void set_loopback(bool up)
{
    struct ifreq request = {.ifr_name = "lo"};
    vz_autofd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    request.ifr_flags = up ? IFF_UP | IFF_RUNNING : 0;
    g_assert_cmpint(ioctl(fd, SIOCSIFFLAGS, &request), ==, 0);
}

static void test_link_cut(void)
{
    if (geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
        g_test_skip("needs a network namespace of its own");
        return;
    }
    set_loopback(true);
    channel_pair *pair = channel_pair_new();
    int a, b;
    channel_pair_open(pair, 0, &a, &b);
    GThread *reader = channel_reader(b, 1);
    GThread *writer = channel_writer(a, 1, G_MAXUINT64 / 2, false);
    vz_channel_info before, after;
    g_usleep(200000);
    set_loopback(false);
    g_usleep(3 * G_USEC_PER_SEC);
    vz_wait(pair->inbox, NULL, NULL, vz_now_us() + 1);
    vz_carrier_info(pair->target, VZ_PURPOSE_MEMORY, 0, &before);
    set_loopback(true);
    vz_wait(pair->inbox, NULL, NULL, vz_now_us() + 5 * G_USEC_PER_SEC);
    vz_carrier_info(pair->target, VZ_PURPOSE_MEMORY, 0, &after);
    g_assert_cmpint(after.state, ==, VZ_CHANNEL_OPEN);
    g_assert_cmpuint(after.received_bytes, >, before.received_bytes);
    set_loopback(false);
    int64_t cut_us = vz_now_us();
    after = channel_await_end(pair->source, 0, 2 * VZ_CHANNEL_USER_TIMEOUT_MS);
    g_assert_cmpint(after.state, ==, VZ_CHANNEL_FAILED);
    g_assert_nonnull(strstr(after.reason, "the link to the peer is dead"));
    /* The receiver sends nothing, so only its keepalive can tell. */
    after = channel_await_end(pair->target, 0, 2 * VZ_CHANNEL_USER_TIMEOUT_MS);
    g_assert_cmpint(after.state, ==, VZ_CHANNEL_FAILED);
    g_test_message("noticed after %" G_GINT64_FORMAT " ms", (vz_now_us() - cut_us) / 1000);
    g_assert_cmpint(vz_now_us() - cut_us, <, 15 * G_USEC_PER_SEC);
    g_thread_join(writer);
    g_thread_join(reader);
    close(a);
    close(b);
    channel_pair_free(pair);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/dial/names", test_names);
    g_test_add_func("/dial/errors", test_errors);
    g_test_add_func("/dial/dropped-packets", test_dropped_packets);
    g_test_add_func("/dial/link-cut", test_link_cut);
    return g_test_run();
}
