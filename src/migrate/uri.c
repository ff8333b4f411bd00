/* uri.c - see uri.h.
 *
 * Called when options are parsed, by the daemon for callers and by vz for its user. libvirt's old
 * form "tcp:HOST:PORT" is no valid URI for a URI parser, so this one is our own, and small. */
#include "migrate/uri.h"

#include <string.h>
#include <sys/un.h>

#define PORT_MAX           65535
#define LIBVIRT_PORT_FIRST 49152
#define LIBVIRT_PORT_LAST  49215

/* What follows "SCHEME:"; NULL: it has another scheme. */
static const char *after_scheme(const char *uri, const char *scheme)
{
    size_t length = strlen(scheme);
    return g_ascii_strncasecmp(uri, scheme, length) == 0 && uri[length] == ':' ? uri + length + 1
                                                                               : NULL;
}

/* Why it is none that could be parsed. */
static bool refuse_scheme(const char *uri, const char *known, GError **err)
{
    const char *colon = strchr(uri, ':');
    size_t length = colon ? (size_t)(colon - uri) : 0;
    if (strnlen(uri, VZ_URI_BYTES_MAX) == VZ_URI_BYTES_MAX)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "a migration URI has at most %d bytes",
                       VZ_URI_BYTES_MAX - 1);
    if (length == 0 || strspn(uri, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                   "0123456789+-.") < length)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "missing scheme in migration URI: %s (tcp:HOST[:PORT] is expected)", uri);
    return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "unsupported scheme %.*s in migration URI %s (%s is supported)", (int)length,
                   uri, uri, known);
}

/* Splits HOST or [HOST] off; *ret_rest is what follows it. */
static char *take_host(const char *text, const char **ret_rest)
{
    const char *start = text;
    const char *end;
    if (*text == '[') {
        start = text + 1;
        end = strchr(start, ']');
        if (!end)
            return NULL;
        *ret_rest = end + 1;
    } else {
        end = text + strcspn(text, ":/?#");
        *ret_rest = end;
    }
    size_t length = (size_t)(end - start);
    if (length == 0 || strcspn(start, " \t\r\n@/?#") < length)
        return NULL;
    return g_strndup(start, length);
}

bool vz_uri_parse_data(const char *uri, char **ret_host, uint16_t *ret_port, GError **err)
{
    const char *rest = after_scheme(uri, "tcp");
    if (!rest || strnlen(uri, VZ_URI_BYTES_MAX) == VZ_URI_BYTES_MAX)
        return refuse_scheme(uri, "tcp:", err);
    if (g_str_has_prefix(rest, "//"))
        rest += 2;

    g_autofree char *host = take_host(rest, &rest);
    if (!host)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "missing host in migration URI: %s", uri);

    guint64 port = 0;
    if (*rest == ':') {
        size_t digits = strspn(rest + 1, "0123456789");
        g_autofree char *number = g_strndup(rest + 1, digits);
        if (!g_ascii_string_to_unsigned(number, 10, 1, PORT_MAX, &port, NULL))
            return vz_fail(err, VZ_ERR_INVALID_ARG, "malformed port in migration URI: %s", uri);
        rest += 1 + digits;
    }
    if (*rest != '\0' && strcmp(rest, "/") != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "migration URI %s has something after host and port: '%s'", uri, rest);
    if (ret_host)
        *ret_host = g_steal_pointer(&host);
    if (ret_port)
        *ret_port = (uint16_t)port;
    return true;
}

char *vz_uri_format_data(const char *host, uint16_t port)
{
    bool brackets = strchr(host, ':') != NULL;
    return g_strdup_printf("tcp:%s%s%s:%u", brackets ? "[" : "", host, brackets ? "]" : "", port);
}

bool vz_uri_is_guessed_port(uint16_t port)
{
    return port >= LIBVIRT_PORT_FIRST && port <= LIBVIRT_PORT_LAST;
}

const char *vz_uri_unix_path(const char *uri)
{
    const char *rest = after_scheme(uri, "unix");
    return rest && g_str_has_prefix(rest, "//") ? rest + 2 : rest;
}

bool vz_uri_is_rdma(const char *uri)
{
    return after_scheme(uri, "rdma") != NULL;
}

bool vz_uri_check_migrate(const char *uri, GError **err)
{
    struct sockaddr_un address;
    const char *path = vz_uri_unix_path(uri);
    if (after_scheme(uri, "tcp"))
        return vz_uri_parse_data(uri, NULL, NULL, err);
    if (!path)
        return vz_uri_is_rdma(uri) || refuse_scheme(uri, "tcp: or unix:", err);
    if (*path != '/')
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "migration URI %s has no absolute path (unix:///PATH is expected)", uri);
    if (strlen(path) >= sizeof(address.sun_path))
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "the path in migration URI %s has %zu bytes, and a socket's has at most %zu",
                       uri, strlen(path), sizeof(address.sun_path) - 1);
    return true;
}
