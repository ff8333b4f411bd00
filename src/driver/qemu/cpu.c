/* cpu.c - see cpu.h. A static expansion has exactly the names of features for truths; a full one
 * mixes them with settings. */
#include "driver/qemu/cpu.h"

#include <string.h>

static GHashTable *new_set(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

static json_t *expand(vz_qmp *qmp, const char *model, json_t *take_properties, GError **err)
{
    json_t *described = json_pack("{ss}", "name", model);
    if (take_properties)
        json_object_set_new(described, "props", take_properties);
    return vz_qmp_command(qmp, "query-cpu-model-expansion",
                          json_pack("{ss so}", "type", "static", "model", described),
                          VZ_QMP_TIMEOUT_US, err);
}

GHashTable *vz_qemu_cpu_model_features(vz_qmp *qmp, const char *model, json_t *take_properties,
                                       GError **err)
{
    const char *name;
    json_t *value;
    json_t *reply = expand(qmp, model, take_properties, err);
    if (!reply)
        return NULL;
    json_t *properties = json_object_get(json_object_get(reply, "model"), "props");
    GHashTable *set = new_set();
    json_object_foreach(properties, name, value)
    {
        if (json_is_true(value) && g_hash_table_size(set) < VZ_QEMU_CPU_FEATURES_MAX)
            g_hash_table_add(set, g_strdup(name));
    }
    if (!properties) {
        g_clear_pointer(&set, g_hash_table_unref);
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU does not tell what CPU model '%s' is", model);
    }
    json_decref(reply);
    return set;
}

/* The path of the first CPU in QEMU's object tree. Caller frees. */
static char *cpu_path(vz_qmp *qmp, GError **err)
{
    json_t *cpus = vz_qmp_command(qmp, "query-cpus-fast", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!cpus)
        return NULL;
    char *path = g_strdup(json_string_value(json_object_get(json_array_get(cpus, 0), "qom-path")));
    json_decref(cpus);
    if (!path)
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU does not name the guest's first CPU");
    return path;
}

static json_t *property(vz_qmp *qmp, const char *path, const char *name, GError **err)
{
    return vz_qmp_command(qmp, "qom-get", json_pack("{ss ss}", "path", path, "property", name),
                          VZ_QMP_TIMEOUT_US, err);
}

/* "qemu64-x86_64-cpu" -> "qemu64"; what the definition calls a default or "host" has a type, too.
 * Caller frees. */
static char *model_of(vz_qmp *qmp, const char *path, const vz_def *def, GError **err)
{
    json_t *type = property(qmp, path, "type", err);
    if (!type)
        return NULL;
    g_autofree char *suffix = g_strdup_printf("-%s-cpu", def->os.arch);
    const char *text = json_string_value(type);
    char *model = text && g_str_has_suffix(text, suffix)
                      ? g_strndup(text, strlen(text) - strlen(suffix))
                      : NULL;
    json_decref(type);
    if (!model)
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU does not tell the model of the guest's CPU");
    return model;
}

static json_t *properties_of(const vz_def *def)
{
    json_t *properties = json_object();
    for (size_t i = 0; i < def->cpu.n_features; i++) {
        const vz_def_cpu_feature *f = &def->cpu.features[i];
        bool off = f->policy == VZ_CPU_POLICY_DISABLE || f->policy == VZ_CPU_POLICY_FORBID;
        json_object_set_new(properties, f->name, json_boolean(!off));
    }
    return properties;
}

GHashTable *vz_qemu_cpu_guest_features(vz_qmp *qmp, const vz_def *def, GError **err)
{
    size_t i;
    json_t *name;
    g_autofree char *path = cpu_path(qmp, err);
    g_autofree char *model = path ? model_of(qmp, path, def, err) : NULL;
    json_t *lacking = model ? property(qmp, path, "unavailable-features", err) : NULL;
    if (!lacking)
        return NULL;
    GHashTable *set = vz_qemu_cpu_model_features(qmp, model, properties_of(def), err);
    json_array_foreach(lacking, i, name)
    {
        if (set && json_string_value(name))
            g_hash_table_remove(set, json_string_value(name));
    }
    json_decref(lacking);
    return set;
}

static bool is_subset(GHashTable *set, GHashTable *allowed)
{
    GHashTableIter iter;
    void *name;
    g_hash_table_iter_init(&iter, set);
    while (g_hash_table_iter_next(&iter, &name, NULL))
        if (!g_hash_table_contains(allowed, name))
            return false;
    return true;
}

/* Runs here, and is a name to choose by: no version of another, no placeholder. */
static bool is_candidate(const json_t *definition, const char *name)
{
    return name && json_array_size(json_object_get(definition, "unavailable-features")) == 0 &&
           !json_is_true(json_object_get(definition, "deprecated")) && strcmp(name, "base") != 0 &&
           strcmp(name, "max") != 0 && strcmp(name, "host") != 0 &&
           !g_regex_match_simple("-v[0-9]+$", name, 0, 0);
}

char *vz_qemu_cpu_baseline(vz_qmp *qmp, GHashTable *allowed)
{
    size_t i;
    json_t *definition;
    char *best = NULL;
    guint most = 0;
    g_autoptr(GError) ignored = NULL; /* then nothing is recommended */
    json_t *all = vz_qmp_command(qmp, "query-cpu-definitions", NULL, VZ_QMP_TIMEOUT_US, &ignored);
    json_array_foreach(all, i, definition)
    {
        const char *name = json_string_value(json_object_get(definition, "name"));
        if (!is_candidate(definition, name))
            continue;
        g_autoptr(GError) unknown = NULL;
        g_autoptr(GHashTable) set = vz_qemu_cpu_model_features(qmp, name, NULL, &unknown);
        if (!set || g_hash_table_size(set) <= most || !is_subset(set, allowed))
            continue;
        most = g_hash_table_size(set);
        g_free(best);
        best = g_strdup(name);
    }
    json_decref(all);
    return best;
}
