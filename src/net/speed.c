/* speed.c - see link.h: the way to another host, and how fast its first wire is. */
#include "net/link.h"

#include "base/fd.h"

#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SYS_NET          "/sys/class/net"
#define BYTES_S_PER_MBIT ((uint64_t)1000000 / 8)
#define PROBE_PORT       "9"      /* nothing is sent */
#define LOWER_PREFIX     "lower_" /* sysfs: what an interface stands on */
#define DEPTH_MAX        4        /* a VLAN on a bond under a bridge */

/* The own address that the kernel would send from. */
static bool own_address(const char *peer, struct sockaddr_storage *ret)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                             .ai_socktype = SOCK_DGRAM};
    struct addrinfo *found = NULL;
    socklen_t bytes = sizeof(*ret);
    if (getaddrinfo(peer, PROBE_PORT, &hints, &found) != 0)
        return false;
    vz_autofd fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, found->ai_addr, found->ai_addrlen) == 0 &&
              getsockname(fd, (struct sockaddr *)ret, &bytes) == 0;
    freeaddrinfo(found);
    return ok;
}

static bool same_address(const struct sockaddr *a, const struct sockaddr_storage *b)
{
    if (!a || a->sa_family != b->ss_family)
        return false;
    if (a->sa_family == AF_INET)
        return ((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr ==
               ((const struct sockaddr_in *)(const void *)b)->sin_addr.s_addr;
    return a->sa_family == AF_INET6 &&
           memcmp(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr,
                  &((const struct sockaddr_in6 *)(const void *)b)->sin6_addr,
                  sizeof(struct in6_addr)) == 0;
}

char *vz_link_towards(const char *address)
{
    struct sockaddr_storage own;
    struct ifaddrs *all = NULL;
    char *name = NULL;
    if (!own_address(address, &own) || getifaddrs(&all) < 0)
        return NULL;
    for (const struct ifaddrs *one = all; one && !name; one = one->ifa_next)
        if (same_address(one->ifa_addr, &own))
            name = g_strdup(one->ifa_name);
    freeifaddrs(all);
    return name;
}

/* 0: it is no card, or has no link. */
static uint64_t speed_of_card(const char *name)
{
    g_autofree char *device = g_strdup_printf(SYS_NET "/%s/device", name);
    g_autofree char *path = g_strdup_printf(SYS_NET "/%s/speed", name);
    g_autofree char *text = NULL;
    if (access(device, F_OK) != 0 || !g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    int64_t mbit = g_ascii_strtoll(text, NULL, 10);
    return mbit > 0 ? (uint64_t)mbit * BYTES_S_PER_MBIT : 0;
}

/* A bridge, VLAN or bond is as fast as the fastest card below it: one stream goes by one of them.
 */
static uint64_t speed_at(const char *name, int depth)
{
    uint64_t fastest = speed_of_card(name);
    g_autofree char *path = g_strdup_printf(SYS_NET "/%s", name);
    g_autoptr(GDir) dir = depth < DEPTH_MAX ? g_dir_open(path, 0, NULL) : NULL;
    for (const char *entry; dir && (entry = g_dir_read_name(dir));) {
        uint64_t speed = g_str_has_prefix(entry, LOWER_PREFIX)
                             ? speed_at(entry + strlen(LOWER_PREFIX), depth + 1)
                             : 0;
        fastest = MAX(fastest, speed);
    }
    return fastest;
}

uint64_t vz_link_speed_bytes_s(const char *name)
{
    return speed_at(name, 0);
}
