/* uri.c - see uri.h. Everything that a URI can say and we do not do is refused, never ignored. */
#include "rpc/uri.h"

#include <string.h>

#define FORMS "vz:///system, vz+unix:///system?socket=PATH or vz+tcp://HOST[:PORT]/system"

void vz_uri_clear(vz_uri *uri)
{
    g_clear_pointer(&uri->path, g_free);
    g_clear_pointer(&uri->host, g_free);
}

char *vz_uri_authority(const vz_uri *uri)
{
    return g_strdup_printf(strchr(uri->host, ':') ? "[%s]:%u" : "%s:%u", uri->host, uri->port);
}

static bool check_common(GUri *uri, const char *text, GError **err)
{
    const char *path = g_uri_get_path(uri);
    if (strcmp(path, "/system"))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the path of URI '%s' is '%s', not '/system'", text,
                       path);
    if (g_uri_get_userinfo(uri))
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "URI '%s' names a user, but no transport of ours logs in", text);
    if (g_uri_get_fragment(uri))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "URI '%s' has a fragment", text);
    return true;
}

/* Takes `socket` out of the query; other parameters are refused. */
static bool parse_query(GUri *uri, const char *text, char **ret_socket, GError **err)
{
    const char *query = g_uri_get_query(uri);
    *ret_socket = NULL;
    if (!query)
        return true;
    g_autoptr(GHashTable) params = g_uri_parse_params(query, -1, "&;", G_URI_PARAMS_NONE, NULL);
    if (!params)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the query of URI '%s' is malformed", text);
    GHashTableIter iter;
    void *name, *value;
    g_hash_table_iter_init(&iter, params);
    while (g_hash_table_iter_next(&iter, &name, &value))
        if (strcmp(name, "socket") || *(const char *)value != '/')
            return vz_fail(err, VZ_ERR_INVALID_ARG,
                           "'%s=%s' in URI '%s' is not supported; socket=PATH is", (char *)name,
                           (char *)value, text);
    *ret_socket = g_strdup(g_hash_table_lookup(params, "socket"));
    return true;
}

static bool parse_unix(GUri *uri, const char *text, char *take_socket, vz_uri *ret_uri,
                       GError **err)
{
    const char *host = g_uri_get_host(uri);
    if (host && *host) {
        g_free(take_socket);
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "URI '%s' names a host for a transport of this host; vz+tcp://%s/system "
                       "works where virtvzd listens on TCP there",
                       text, host);
    }
    *ret_uri = (vz_uri){.path = take_socket ? take_socket : g_strdup(VZ_SOCKET_READWRITE)};
    return true;
}

static bool parse_tcp(GUri *uri, const char *text, const char *socket, vz_uri *ret_uri,
                      GError **err)
{
    const char *host = g_uri_get_host(uri);
    int port = g_uri_get_port(uri);
    if (!host || !*host)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "URI '%s' names no host", text);
    if (socket)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "URI '%s' names a socket for TCP", text);
    if (port == 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "URI '%s' names port 0", text);
    *ret_uri = (vz_uri){.host = g_strdup(host), .port = port < 0 ? VZ_TCP_PORT : (uint16_t)port};
    return true;
}

static bool is_unix(GUri *uri)
{
    const char *scheme = g_uri_get_scheme(uri);
    return !strcmp(scheme, "vz") || !strcmp(scheme, "vz+unix");
}

static bool refuse(GUri *uri, const char *text, GError **err)
{
    const char *scheme = g_uri_get_scheme(uri);
    const char *host = g_uri_get_host(uri);
    if (!strcmp(scheme, "vz") || !strcmp(scheme, "vz+tls"))
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "URI '%s' asks for TLS, which this version does not speak; "
                       "vz+tcp://%s/system works where virtvzd listens on TCP",
                       text, host && *host ? host : "HOST");
    return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' in URI '%s' is not supported; use " FORMS, scheme,
                   text);
}

bool vz_uri_parse(const char *text, vz_uri *ret_uri, GError **err)
{
    g_autofree char *socket = NULL;
    g_autoptr(GUri) uri = g_uri_parse(text, G_URI_FLAGS_NONE, NULL);
    if (!uri)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is not a URI; use " FORMS, text);
    const char *host = g_uri_get_host(uri);
    bool tcp = !strcmp(g_uri_get_scheme(uri), "vz+tcp");
    /* vz://HOST/system means TLS, like everywhere in libvirt. */
    bool tls = !strcmp(g_uri_get_scheme(uri), "vz") && host && *host;
    if (!tcp && (tls || !is_unix(uri)))
        return refuse(uri, text, err);
    if (!check_common(uri, text, err) || !parse_query(uri, text, &socket, err))
        return false;
    if (tcp)
        return parse_tcp(uri, text, socket, ret_uri, err);
    return parse_unix(uri, text, g_steal_pointer(&socket), ret_uri, err);
}
