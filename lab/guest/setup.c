/* What is done once before the guest beats: mounts, kernel modules, the address. A shell script
 * did this in 0.9 s of emulated boot time; this takes a tenth of that. Modules come in sets that
 * build.sh orders: one file /modules/SET with a name a line, what a module needs before it. */
#include "beat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define INTERFACE    "eth0"
#define NO_IPV6_PATH "/proc/sys/net/ipv6/conf/" INTERFACE "/disable_ipv6"
#define PATH_SIZE    128

void vz_setup_mounts(void)
{
    mount("dev", "/dev", "devtmpfs", MS_NOSUID, NULL);
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

static void load_module(const char *name)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "/modules/%s.ko", name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    /* Two sets may name the same module. */
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) != 0 && errno != EEXIST))
        vz_guest_fail("module %s: %s", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void load_set(const char *set)
{
    char path[PATH_SIZE], name[PATH_SIZE / 2];
    snprintf(path, sizeof path, "/modules/%s", set);
    FILE *file = fopen(path, "re");
    if (!file) {
        vz_guest_fail("%s: %s", path, strerror(errno));
        return;
    }
    while (fgets(name, sizeof name, file)) {
        name[strcspn(name, "\n")] = '\0';
        load_module(name);
    }
    fclose(file);
}

void vz_setup_modules(void)
{
    load_set("base");
    if (strstr(vz_the_guest.options.disk, "/vd"))
        load_set("vd");
    if (strstr(vz_the_guest.options.disk, "/sd"))
        load_set("sd");
}

static void put_address(struct sockaddr *to, struct in_addr address)
{
    struct sockaddr_in internet = {.sin_family = AF_INET, .sin_addr = address};
    memcpy(to, &internet, sizeof internet);
}

static bool set_address(int fd, struct in_addr address, unsigned prefix)
{
    struct ifreq request = {.ifr_name = INTERFACE};
    struct in_addr mask = {.s_addr = prefix == 0 ? 0 : htonl(UINT32_MAX << (32 - prefix))};
    put_address(&request.ifr_addr, address);
    if (ioctl(fd, SIOCSIFADDR, &request) != 0)
        return false;
    put_address(&request.ifr_netmask, mask);
    if (ioctl(fd, SIOCSIFNETMASK, &request) != 0)
        return false;
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    return ioctl(fd, SIOCSIFFLAGS, &request) == 0;
}

static bool set_gateway(int fd, const char *text)
{
    struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};
    struct in_addr gateway, any = {0};
    if (text[0] == '\0')
        return true;
    if (inet_pton(AF_INET, text, &gateway) != 1) {
        errno = EINVAL;
        return false;
    }
    put_address(&route.rt_gateway, gateway);
    put_address(&route.rt_dst, any);
    put_address(&route.rt_genmask, any);
    return ioctl(fd, SIOCADDRT, &route) == 0;
}

/* Without this the kernel sends router solicitations: a quiet guest must send nothing. */
static void disable_ipv6(void)
{
    int fd = open(NO_IPV6_PATH, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "1", 1) != 1)
        vz_guest_fail(NO_IPV6_PATH ": %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

void vz_setup_network(void)
{
    char text[VZ_NAME_MAX];
    struct in_addr address;
    snprintf(text, sizeof text, "%s", vz_the_guest.options.ip);
    if (text[0] == '\0')
        return;
    char *slash = strchr(text, '/');
    unsigned long prefix = slash ? strtoul(slash + 1, NULL, 10) : 32;
    if (slash)
        *slash = '\0';
    if (inet_pton(AF_INET, text, &address) != 1 || prefix > 32) {
        vz_guest_fail("vz.ip: '%s' is not ADDRESS/PREFIX", vz_the_guest.options.ip);
        return;
    }
    disable_ipv6();
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || !set_address(fd, address, (unsigned)prefix))
        vz_guest_fail(INTERFACE " gets no address: %s", strerror(errno));
    else if (!set_gateway(fd, vz_the_guest.options.gw))
        vz_guest_fail("no route by '%s': %s", vz_the_guest.options.gw, strerror(errno));
    if (fd >= 0)
        close(fd);
}
