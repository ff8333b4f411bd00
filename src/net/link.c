/* link.c - see link.h. One short-lived netlink socket per request: the calls are rare, and a thread
 * may have changed its network namespace in between. */
#include "net/link.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define TUN_PATH "/dev/net/tun"
/* The first free number is the kernel's to find: no two processes can get the same. */
#define TAP_NAME_TEMPLATE "vnet%d"
/* As libvirt: the bridge takes the lowest MAC of its ports for its own, and this is the highest. */
#define TAP_MAC_FIRST_BYTE 0xfe
#define MESSAGE_BYTES      ((size_t)32 * 1024)
/* The kernel answers at once; this only guards against a broken one. */
#define ANSWER_TIMEOUT_S 5

typedef struct mnl_socket mnl_socket;
G_DEFINE_AUTOPTR_CLEANUP_FUNC(mnl_socket, mnl_socket_close)

typedef struct {
    unsigned index;
    unsigned mtu;
    char kind[32]; /* "bridge", "tun", ""... */
} link_info;

static int on_kind(const struct nlattr *attribute, void *data)
{
    link_info *info = data;
    if (mnl_attr_get_type(attribute) == IFLA_INFO_KIND &&
        mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) == 0)
        g_strlcpy(info->kind, mnl_attr_get_str(attribute), sizeof(info->kind));
    return MNL_CB_OK;
}

static int on_attribute(const struct nlattr *attribute, void *data)
{
    link_info *info = data;
    if (mnl_attr_get_type(attribute) == IFLA_MTU && mnl_attr_validate(attribute, MNL_TYPE_U32) == 0)
        info->mtu = mnl_attr_get_u32(attribute);
    else if (mnl_attr_get_type(attribute) == IFLA_LINKINFO)
        mnl_attr_parse_nested(attribute, on_kind, info);
    return MNL_CB_OK;
}

static int on_link(const struct nlmsghdr *message, void *data)
{
    link_info *info = data;
    const struct ifinfomsg *head = mnl_nlmsg_get_payload(message);
    info->index = (unsigned)head->ifi_index;
    mnl_attr_parse(message, sizeof(*head), on_attribute, info);
    return MNL_CB_STOP;
}

/* Sends one request and reads the answer. Returns 0 or an errno. */
static int transact(struct nlmsghdr *request, link_info *ret_info)
{
    g_autoptr(mnl_socket) netlink = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
    if (!netlink || mnl_socket_bind(netlink, 0, MNL_SOCKET_AUTOPID) < 0)
        return errno;
    struct timeval timeout = {.tv_sec = ANSWER_TIMEOUT_S};
    setsockopt(mnl_socket_get_fd(netlink), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    request->nlmsg_seq = 1;
    if (mnl_socket_sendto(netlink, request, request->nlmsg_len) < 0)
        return errno;
    g_autofree char *answer = g_malloc(MESSAGE_BYTES);
    int more = MNL_CB_OK;
    while (more == MNL_CB_OK) {
        ssize_t n = mnl_socket_recvfrom(netlink, answer, MESSAGE_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? ETIMEDOUT : errno;
        more = mnl_cb_run(answer, (size_t)n, request->nlmsg_seq, mnl_socket_get_portid(netlink),
                          ret_info ? on_link : NULL, ret_info);
    }
    return more < 0 ? errno : 0;
}

static struct nlmsghdr *new_request(void *buffer, uint16_t type, uint16_t flags,
                                    struct ifinfomsg **ret_head)
{
    struct nlmsghdr *request = mnl_nlmsg_put_header(buffer);
    request->nlmsg_type = type;
    request->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
    *ret_head = mnl_nlmsg_put_extra_header(request, sizeof(**ret_head));
    (*ret_head)->ifi_family = AF_UNSPEC;
    return request;
}

/* 0 or an errno; ENODEV: no such interface. */
static int query(const char *name, link_info *ret_info)
{
    if (!*name || strlen(name) >= IFNAMSIZ)
        return ENODEV;
    char buffer[1024] = {0};
    struct ifinfomsg *head;
    struct nlmsghdr *request = new_request(buffer, RTM_GETLINK, 0, &head);
    mnl_attr_put_strz(request, IFLA_IFNAME, name);
    link_info info = {0};
    int errnum = transact(request, &info);
    if (errnum == 0)
        *ret_info = info;
    return errnum;
}

static bool query_or_fail(const char *name, link_info *ret_info, GError **err)
{
    int errnum = query(name, ret_info);
    return errnum == 0 || vz_fail_errno(err, errnum, "Cannot get interface MTU on '%s'", name);
}

bool vz_link_mtu(const char *name, unsigned *ret_mtu, GError **err)
{
    link_info info;
    if (!query_or_fail(name, &info, err))
        return false;
    *ret_mtu = info.mtu;
    return true;
}

bool vz_link_exists(const char *name)
{
    link_info info;
    return query(name, &info) == 0;
}

static bool query_bridge(const char *name, link_info *ret_info, GError **err)
{
    if (!query_or_fail(name, ret_info, err))
        return false;
    return strcmp(ret_info->kind, "bridge") == 0 ||
           vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                   "'%s' is not a bridge, so no guest can be connected to it", name);
}

bool vz_link_check_bridge(const char *name, GError **err)
{
    link_info info;
    return query_bridge(name, &info, err);
}

/* Attaches a new descriptor to the tap called *name (a template for a new one), whose name the
 * kernel then writes there. */
static int attach_tap(char name[IFNAMSIZ], bool existing, GError **err)
{
    vz_autofd fd = open(TUN_PATH, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        vz_fail_errno(err, errno, "Unable to open " TUN_PATH ", is tun module loaded?");
        return -1;
    }
    struct ifreq request = {0};
    memcpy(request.ifr_name, name, IFNAMSIZ);
    request.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR);
    if (!existing)
        request.ifr_flags = (short)(request.ifr_flags | (short)IFF_TUN_EXCL);
    if (ioctl(fd, TUNSETIFF, &request) < 0) {
        vz_fail_errno(err, errno, "Unable to create tap device '%s'", name);
        return -1;
    }
    memcpy(name, request.ifr_name, IFNAMSIZ);
    return vz_steal_fd(&fd);
}

/* Everything in one message: the tap is never up with another's MAC, or outside its bridge. */
static bool configure_tap(const char *name, const vz_link_tap_request *r, const link_info *bridge,
                          GError **err)
{
    link_info tap;
    int errnum = query(name, &tap);
    if (errnum != 0)
        return vz_fail_errno(err, errnum, "cannot find tap device '%s'", name);
    char buffer[1024] = {0};
    struct ifinfomsg *head;
    struct nlmsghdr *request = new_request(buffer, RTM_NEWLINK, NLM_F_ACK, &head);
    head->ifi_index = (int)tap.index;
    head->ifi_flags = IFF_UP;
    head->ifi_change = IFF_UP;
    uint8_t mac[VZ_MAC_BYTES];
    memcpy(mac, r->guest_mac, sizeof(mac));
    mac[0] = TAP_MAC_FIRST_BYTE;
    mnl_attr_put(request, IFLA_ADDRESS, sizeof(mac), mac);
    unsigned mtu = r->mtu ? r->mtu : bridge->mtu;
    if (mtu)
        mnl_attr_put_u32(request, IFLA_MTU, mtu);
    if (r->bridge)
        mnl_attr_put_u32(request, IFLA_MASTER, bridge->index);
    errnum = transact(request, NULL);
    if (errnum == 0)
        return true;
    if (r->bridge)
        return vz_fail_errno(err, errnum, "Unable to add bridge %s port %s", r->bridge, name);
    return vz_fail_errno(err, errnum, "cannot set up tap device '%s'", name);
}

bool vz_link_tap_open(const vz_link_tap_request *request, char **ret_name, int *ret_fd,
                      GError **err)
{
    const char *wanted = request->name ? request->name : TAP_NAME_TEMPLATE;
    char name[IFNAMSIZ] = {0};
    if (g_strlcpy(name, wanted, sizeof(name)) >= sizeof(name))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "interface name '%s' is longer than %d characters", wanted, IFNAMSIZ - 1);
    /* The kernel would take '%' for a template. */
    if (request->name && strchr(request->name, '%'))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "interface name '%s' has a '%%' in it",
                       wanted);
    link_info bridge = {0};
    if (request->bridge && !query_bridge(request->bridge, &bridge, err))
        return false;
    if (request->existing && !vz_link_exists(name))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "there is no tap device '%s', which the definition expects to be there",
                       name);
    vz_autofd fd = attach_tap(name, request->existing, err);
    if (fd < 0 || (!request->existing && !configure_tap(name, request, &bridge, err)))
        return false;
    *ret_name = g_strdup(name);
    *ret_fd = vz_steal_fd(&fd);
    return true;
}

bool vz_link_remove(const char *name, GError **err)
{
    link_info info;
    int errnum = query(name, &info);
    if (errnum == 0) {
        char buffer[1024] = {0};
        struct ifinfomsg *head;
        struct nlmsghdr *request = new_request(buffer, RTM_DELLINK, NLM_F_ACK, &head);
        head->ifi_index = (int)info.index;
        errnum = transact(request, NULL);
    }
    return errnum == 0 || errnum == ENODEV ||
           vz_fail_errno(err, errnum, "cannot remove interface '%s'", name);
}

bool vz_link_set_up(const char *name, bool up, GError **err)
{
    link_info info;
    int errnum = query(name, &info);
    if (errnum == 0) {
        char buffer[1024] = {0};
        struct ifinfomsg *head;
        struct nlmsghdr *request = new_request(buffer, RTM_NEWLINK, NLM_F_ACK, &head);
        head->ifi_index = (int)info.index;
        head->ifi_change = IFF_UP;
        head->ifi_flags = up ? IFF_UP : 0;
        errnum = transact(request, NULL);
    }
    return errnum == 0 ||
           vz_fail_errno(err, errnum, "cannot set interface '%s' %s", name, up ? "up" : "down");
}
