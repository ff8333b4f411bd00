/* test_link.c - taps and bridges, in a network namespace of the test's own. */
#include "net/link.h"

#include "base/fd.h"

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static const uint8_t guest_mac[VZ_MAC_BYTES] = {0x52, 0x54, 0, 1, 2, 3};

static const char *unavailable; /* why the namespace could not be made */

static void write_text(const char *path, const char *text)
{
    vz_autofd fd = open(path, O_WRONLY);
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        return;
}

static bool make_namespace(void)
{
    if (geteuid() == 0)
        return unshare(CLONE_NEWNET) == 0;
    g_autofree char *map = g_strdup_printf("0 %u 1", (unsigned)geteuid());
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0)
        return false;
    write_text("/proc/self/setgroups", "deny");
    write_text("/proc/self/uid_map", map);
    return true;
}

/* Skips, by name, what this machine does not permit. */
static bool skipped(void)
{
    if (unavailable)
        g_test_skip(unavailable);
    return unavailable != NULL;
}

static bool make_bridge(const char *name)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool made = ioctl(fd, SIOCBRADDBR, name) == 0;
    struct ifreq request = {.ifr_mtu = 1400};
    g_strlcpy(request.ifr_name, name, sizeof(request.ifr_name));
    made = made && ioctl(fd, SIOCSIFMTU, &request) == 0;
    close(fd);
    return made;
}

static void test_mtu_words(void)
{
    g_autoptr(GError) err = NULL;
    unsigned mtu;
    g_assert_false(vz_link_mtu("brA", &mtu, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_assert_cmpstr(err->message, ==, "Cannot get interface MTU on 'brA': No such device");
    g_autoptr(GError) again = NULL;
    g_assert_false(vz_link_check_bridge("a-name-that-is-too-long", &again));
    g_assert_true(strstr(again->message, "No such device"));
}

static void test_loopback(void)
{
    if (skipped())
        return;
    g_autoptr(GError) err = NULL;
    unsigned mtu = 0;
    g_assert_true(vz_link_mtu("lo", &mtu, &err));
    g_assert_cmpuint(mtu, ==, 65536);
    g_assert_false(vz_link_check_bridge("lo", &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
}

static struct ifreq get_interface(const char *name, unsigned long what)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {0};
    g_strlcpy(request.ifr_name, name, sizeof(request.ifr_name));
    g_assert_cmpint(ioctl(fd, what, &request), ==, 0);
    close(fd);
    return request;
}

/* Succeeds only for a port of that bridge. */
static bool leave_bridge(const char *bridge, const char *port)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = get_interface(port, SIOCGIFINDEX);
    g_strlcpy(request.ifr_name, bridge, sizeof(request.ifr_name));
    bool left = ioctl(fd, SIOCBRDELIF, &request) == 0;
    close(fd);
    return left;
}

static void test_tap(void)
{
    if (skipped())
        return;
    if (!make_bridge("brtest")) {
        g_test_skip("bridges are not permitted here");
        return;
    }
    vz_link_tap_request request = {.bridge = "brtest", .guest_mac = guest_mac};
    g_autoptr(GError) err = NULL;
    g_autofree char *first = NULL;
    g_autofree char *second = NULL;
    vz_autofd first_fd = -1;
    vz_autofd second_fd = -1;
    g_assert_true(vz_link_tap_open(&request, &first, &first_fd, &err));
    g_assert_true(vz_link_tap_open(&request, &second, &second_fd, &err));
    g_assert_cmpstr(first, ==, "vnet0");
    g_assert_cmpstr(second, ==, "vnet1");

    unsigned mtu = 0;
    g_assert_true(vz_link_mtu(first, &mtu, &err));
    g_assert_cmpuint(mtu, ==, 1400); /* the bridge's */
    struct ifreq flags = get_interface(first, SIOCGIFFLAGS);
    g_assert_true(flags.ifr_flags & IFF_UP);
    struct ifreq address = get_interface(first, SIOCGIFHWADDR);
    g_assert_cmpuint((uint8_t)address.ifr_hwaddr.sa_data[0], ==, 0xfe);
    g_assert_cmpmem(address.ifr_hwaddr.sa_data + 1, 5, guest_mac + 1, 5);
    struct ifreq tun = {0};
    g_assert_cmpint(ioctl(first_fd, TUNGETIFF, &tun), ==, 0);
    g_assert_true(tun.ifr_flags & IFF_VNET_HDR);
    g_assert_true(leave_bridge("brtest", first));

    vz_fd_clear(&first_fd);
    g_assert_false(vz_link_exists(first)); /* gone with its descriptor */
    g_assert_true(vz_link_remove(second, &err));
    g_assert_false(vz_link_exists(second));
    g_assert_true(vz_link_remove(second, &err)); /* nothing to do is success */
}

static void test_tap_refusals(void)
{
    if (skipped())
        return;
    g_autofree char *name = NULL;
    int fd = -1;
    vz_link_tap_request missing = {.bridge = "brA", .guest_mac = guest_mac};
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_link_tap_open(&missing, &name, &fd, &err));
    g_assert_cmpstr(err->message, ==, "Cannot get interface MTU on 'brA': No such device");
    g_assert_false(vz_link_exists("vnet0"));

    vz_link_tap_request absent = {.name = "tap7", .existing = true, .guest_mac = guest_mac};
    g_clear_error(&err);
    g_assert_false(vz_link_tap_open(&absent, &name, &fd, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
    g_assert_false(vz_link_exists("tap7"));

    vz_link_tap_request template = {.name = "tap%d", .guest_mac = guest_mac};
    g_clear_error(&err);
    g_assert_false(vz_link_tap_open(&template, &name, &fd, &err));

    vz_link_tap_request named = {.name = "tap8", .guest_mac = guest_mac, .mtu = 1300};
    g_clear_error(&err);
    vz_autofd held = -1;
    g_autofree char *held_name = NULL;
    g_assert_true(vz_link_tap_open(&named, &held_name, &held, &err));
    g_assert_cmpstr(held_name, ==, "tap8");
    g_assert_false(vz_link_tap_open(&named, &name, &fd, &err)); /* its owner keeps it */
    g_assert_cmpint(fd, ==, -1);
}

int main(int argc, char **argv)
{
    if (!make_namespace())
        unavailable = "a network namespace is not permitted here";
    else if (access("/dev/net/tun", R_OK | W_OK) < 0)
        unavailable = "/dev/net/tun is not there";
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/link/mtu-words", test_mtu_words);
    g_test_add_func("/link/loopback", test_loopback);
    g_test_add_func("/link/tap", test_tap);
    g_test_add_func("/link/tap-refusals", test_tap_refusals);
    return g_test_run();
}
