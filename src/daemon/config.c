/* config.c - see config.h. One setter per type of row; the rows do the rest. */
#include "daemon/config.h"

#include "base/fd.h"
#include "base/text.h"
#include <config.h>

#include <string.h>
#include <unistd.h>

#define COUNT_MAX   1000000
#define SECONDS_MAX 86400

typedef bool (*setter)(void *field, const char *value, GError **err);

static bool set_TEXT(void *field, const char *value, GError **err)
{
    (void)err;
    char **text = field;
    g_free(*text);
    *text = g_strdup(value);
    return true;
}

static bool set_BOOL(void *field, const char *value, GError **err)
{
    bool yes = g_str_equal(value, "yes");
    if (!yes && !g_str_equal(value, "no"))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is neither yes nor no", value);
    *(bool *)field = yes;
    return true;
}

static bool set_PORT(void *field, const char *value, GError **err)
{
    uint64_t number;
    if (!vz_parse_u64(value, "a port", 1, UINT16_MAX, &number, err))
        return false;
    *(uint16_t *)field = (uint16_t)number;
    return true;
}

static bool set_COUNT(void *field, const char *value, GError **err)
{
    uint64_t number;
    if (!vz_parse_u64(value, "a count", 1, COUNT_MAX, &number, err))
        return false;
    *(unsigned *)field = (unsigned)number;
    return true;
}

static bool set_SECONDS(void *field, const char *value, GError **err)
{
    uint64_t number;
    if (!vz_parse_u64(value, "seconds", 0, SECONDS_MAX, &number, err))
        return false;
    *(unsigned *)field = (unsigned)number;
    return true;
}

static const struct {
    const char *name;
    const char *initial;
    const char *help;
    size_t offset;
    setter set;
} keys[] = {
#define KEY(name, type, initial, help)                                                             \
    {#name, initial, help, offsetof(vz_config, name), set_##type},
#include "config.def"
#undef KEY
};

static void *field_of(vz_config *config, size_t key)
{
    return (char *)config + keys[key].offset;
}

vz_config *vz_config_new(void)
{
    vz_config *config = g_new0(vz_config, 1);
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autoptr(GError) err = NULL;
        bool ok = keys[i].set(field_of(config, i), keys[i].initial, &err);
        g_assert(ok);
    }
    return config;
}

void vz_config_free(vz_config *config)
{
    if (!config)
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        if (keys[i].set == set_TEXT)
            g_free(*(char **)field_of(config, i));
    g_free(config);
}

/* One `key = value` line; `seen` says which keys came before. */
static bool take_line(vz_config *config, char *line, bool *seen, GError **err)
{
    char *equals = strchr(line, '=');
    if (!equals)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "'%s' is not 'key = value'", line);
    *equals = '\0';
    const char *name = g_strstrip(line);
    const char *value = g_strstrip(equals + 1);
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        if (!g_str_equal(name, keys[i].name))
            continue;
        if (seen[i])
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s is set a second time", name);
        seen[i] = true;
        g_autoptr(GError) why = NULL;
        return keys[i].set(field_of(config, i), value, &why) ||
               vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s: %s", name, why->message);
    }
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                   "unknown key '%s'; virtvzd --help-config lists all", name);
}

vz_config *vz_config_parse(const char *text, const char *path, GError **err)
{
    g_autoptr(vz_config) config = vz_config_new();
    bool seen[G_N_ELEMENTS(keys)] = {false};
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    for (size_t i = 0; lines[i]; i++) {
        char *line = g_strstrip(lines[i]);
        if (!*line || *line == '#' || take_line(config, line, seen, err))
            continue;
        g_prefix_error(err, "%s:%zu: ", path, i + 1);
        return NULL;
    }
    return g_steal_pointer(&config);
}

vz_config *vz_config_load(const char *path, bool missing_ok, GError **err)
{
    g_autofree char *text = NULL;
    size_t bytes = 0;
    if (missing_ok && access(path, F_OK) < 0)
        return vz_config_new();
    if (!vz_file_read(path, VZ_CONFIG_FILE_MAX, &text, &bytes, err))
        return NULL;
    if (strlen(text) != bytes) {
        vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s: contains a NUL byte", path);
        return NULL;
    }
    return vz_config_parse(text, path, err);
}

char *vz_config_describe(void)
{
    GString *text = g_string_new("# virtvzd.conf: every key with its default.\n");
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        g_string_append_printf(text, "\n# %s\n#%s = %s\n", keys[i].help, keys[i].name,
                               keys[i].initial);
    return g_string_free(text, FALSE);
}
