/* arrival_address.c - see arrival_address.h. */
#include "migrate/arrival_address.h"

#include "base/fd.h"
#include "channel/dial.h"
#include "migrate/uri.h"

#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

static bool is_wildcard(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

/* "0.0.0.0 port 16515", for refusals; caller frees. */
static char *own_address(vz_migrate *service)
{
    const char *address = vz_migrate_settings(service)->data_address;
    return g_strdup_printf("%s port %u",
                           address && *address ? address : "all addresses of this host,",
                           vz_port_number(vz_migrate_port(service)));
}

/* Is it an address of this host? Only such a one can be bound. */
static bool is_own(const struct sockaddr_storage *address, socklen_t bytes)
{
    struct sockaddr_storage any_port = *address;
    vz_autofd fd = socket(address->ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (address->ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&any_port)->sin6_port = 0;
    else
        ((struct sockaddr_in *)(void *)&any_port)->sin_port = 0;
    return fd >= 0 && bind(fd, (struct sockaddr *)&any_port, bytes) == 0;
}

static bool is_here(vz_migrate *service, const char *host, char **ret_numeric, GError **err)
{
    char numeric[VZ_ADDRESS_TEXT_BYTES] = "";
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    vz_dial_request request = {.host = host,
                               .port = vz_port_number(vz_migrate_port(service)),
                               .deadline_us = vz_now_us() + VZ_ARRIVAL_ADDRESS_TIMEOUT_US};
    vz_autofd fd = vz_dial(&request, err);
    if (fd < 0)
        return false;
    vz_dial_peer_address(fd, numeric);
    if (getpeername(fd, (struct sockaddr *)&address, &bytes) < 0 || !is_own(&address, bytes))
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED, "%s is another host's address", numeric);
    *ret_numeric = g_strdup(numeric);
    return true;
}

/* false with 74: nothing of this host's data port is at `host`. */
static bool check_host(vz_migrate *service, vz_option_id id, const char *host, char **ret_numeric,
                       GError **err)
{
    g_autoptr(GError) why = NULL;
    g_autofree char *own = own_address(service);
    return is_here(service, host, ret_numeric, &why) ||
           vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "parameter '%s' names '%s', but data arrives at %s (data_address and data_port "
                   "of virtvzd.conf set that): %s",
                   vz_option_info(id)->name, host, own, why->message);
}

static bool check_port(vz_migrate *service, vz_option_id id, uint64_t port, GError **err)
{
    uint16_t own = vz_port_number(vz_migrate_port(service));
    return port == 0 || port == own ||
           vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "parameter '%s' names port %" G_GUINT64_FORMAT ", but disks arrive at this "
                   "host's one data port, %u, with everything else; leave it out",
                   vz_option_info(id)->name, port, own);
}

bool vz_arrival_address_check(vz_migrate *service, const vz_options *options, char **ret_host,
                              GError **err)
{
    const char *listen = vz_options_text(options, VZ_OPTION_LISTEN_ADDRESS);
    const char *disks = vz_options_text(options, VZ_OPTION_DISKS_URI);
    g_autofree char *numeric = NULL;
    g_autofree char *host = NULL;
    g_autofree char *ignored = NULL;
    uint16_t port = 0;
    if (listen && !check_host(service, VZ_OPTION_LISTEN_ADDRESS, listen, &numeric, err))
        return false;
    if (!check_port(service, VZ_OPTION_DISKS_PORT,
                    vz_options_number(options, VZ_OPTION_DISKS_PORT, 0), err))
        return false;
    if (disks && !(vz_uri_parse_data(disks, &host, &port, err) &&
                   check_port(service, VZ_OPTION_DISKS_URI, port, err) &&
                   check_host(service, VZ_OPTION_DISKS_URI, host, &ignored, err)))
        return false;
    *ret_host = listen && !is_wildcard(listen) ? g_steal_pointer(&numeric) : NULL;
    return true;
}

/* The host that the caller or the configuration names, else the last resort (NULL: none). Caller
 * frees. */
static char *choose_host(vz_migrate *service, const vz_options *options, const char *listen_host,
                         const char *last_resort, uint16_t *ret_port)
{
    const char *advertised = vz_migrate_settings(service)->advertised;
    const char *asked = vz_options_text(options, VZ_OPTION_URI);
    char *host = NULL;
    /* Its form was checked with the options; unix: names no host. */
    g_autoptr(GError) ignored = NULL;
    *ret_port = 0;
    if (asked)
        vz_uri_parse_data(asked, &host, ret_port, &ignored);
    if (*ret_port == 0)
        *ret_port = vz_port_number(vz_migrate_port(service));
    if (host)
        return host;
    bool is_advertised = advertised && *advertised;
    return g_strdup(listen_host ? listen_host : is_advertised ? advertised : last_resort);
}

static const char *last_resort(vz_migrate *service, const char *client_came_by)
{
    return client_came_by ? client_came_by : vz_migrate_settings(service)->host_name;
}

char *vz_arrival_address_known(vz_migrate *service, const vz_options *options,
                               const char *listen_host)
{
    uint16_t port;
    g_autofree char *host = choose_host(service, options, listen_host, NULL, &port);
    return host ? vz_uri_format_data(host, port) : NULL;
}

char *vz_arrival_address_host(vz_migrate *service, const vz_options *options,
                              const char *listen_host, const char *client_came_by)
{
    uint16_t port;
    return choose_host(service, options, listen_host, last_resort(service, client_came_by), &port);
}

char *vz_arrival_address_uri(vz_migrate *service, const vz_options *options,
                             const char *listen_host, const char *client_came_by)
{
    uint16_t port;
    g_autofree char *host =
        choose_host(service, options, listen_host, last_resort(service, client_came_by), &port);
    return vz_uri_format_data(host, port);
}
