/* settings.c - see settings.h. */
#include "cli/settings.h"

#include "base/fd.h"
#include "base/units.h"

#include <string.h>
#include <unistd.h>

#define FILE_BYTES_MAX (64 * VZ_KIB)

void vz_settings_clear(vz_settings *settings)
{
    g_clear_pointer(&settings->transport, g_free);
    g_clear_pointer(&settings->connect, g_free);
}

static bool check_transport(const char *transport, GError **err)
{
    if (strcmp(transport, "tcp") == 0)
        return true;
    return vz_fail(
        err, VZ_ERR_INVALID_ARG,
        "transport '%s' is not in this version; tcp is, or give a whole URI instead of a "
        "host",
        transport);
}

static bool set(vz_settings *settings, const char *key, const char *value, GError **err)
{
    char **slot = strcmp(key, "transport") == 0 ? &settings->transport
                  : strcmp(key, "connect") == 0 ? &settings->connect
                                                : NULL;
    if (!slot)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "there is no setting '%s'", key);
    if (slot == &settings->transport && !check_transport(value, err))
        return false;
    g_free(*slot);
    *slot = g_strdup(value);
    return true;
}

static bool parse_line(vz_settings *settings, char *line, GError **err)
{
    char *text = g_strstrip(line);
    if (*text == '\0' || *text == '#')
        return true;
    char *equals = strchr(text, '=');
    if (!equals)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'key = value' is expected");
    *equals = '\0';
    return set(settings, g_strstrip(text), g_strstrip(equals + 1), err);
}

bool vz_settings_load(const char *path, vz_settings *ret_settings, GError **err)
{
    g_auto(vz_settings)
        settings = {.transport = g_strdup("tcp"), .connect = g_strdup("vz:///system")};
    g_autofree char *data = NULL;
    g_auto(GStrv) lines = NULL;
    if (access(path, F_OK) == 0) {
        if (!vz_file_read(path, FILE_BYTES_MAX, &data, NULL, err))
            return false;
        lines = g_strsplit(data, "\n", -1);
    }
    for (int i = 0; lines && lines[i]; i++)
        if (!parse_line(&settings, lines[i], err)) {
            g_prefix_error(err, "%s, line %d: ", path, i + 1);
            return false;
        }
    *ret_settings = settings;
    settings = (vz_settings){0};
    return true;
}

char *vz_settings_destination(const char *host, const char *transport, GError **err)
{
    if (strstr(host, "://"))
        return g_strdup(host);
    if (!check_transport(transport, err))
        return NULL;
    if (*host == '\0' || strcspn(host, " \t/?#@\"'") < strlen(host)) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is neither a host nor a URI", host);
        return NULL;
    }
    /* More than one colon: an IPv6 address without its brackets. */
    const char *colon = strchr(host, ':');
    bool bare = *host != '[' && colon && strchr(colon + 1, ':');
    return g_strdup_printf("vz+%s://%s%s%s/system", transport, bare ? "[" : "", host,
                           bare ? "]" : "");
}

char *vz_settings_host_of(const char *uri)
{
    const char *start = strstr(uri, "://");
    if (!start || start[3] == '/' || start[3] == '\0')
        return g_strdup(uri);
    start += 3;
    const char *end = *start == '[' ? strchr(start, ']') : start + strcspn(start, ":/?#");
    if (!end)
        return g_strdup(uri);
    if (*start == '[')
        start++;
    return g_strndup(start, (size_t)(end - start));
}
