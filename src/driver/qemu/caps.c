/* caps.c - see caps.h.
 *
 * Locks: `registry` guards the table of what is known and is held for moments; `probing` is held
 * while a binary is asked, so that many domains that start at once ask once. probing is taken
 * before registry, never the other way. */
#include "driver/qemu/caps.h"

#include "base/fd.h"
#include "driver/qemu/caps_probe.h"
#include "driver/qemu/cpu.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define CACHE_FORMAT     3
#define CACHE_BYTES_MAX  ((size_t)8 * 1024 * 1024)
#define BOOT_ID_PATH     "/proc/sys/kernel/random/boot_id"
#define DEFAULT_EMULATOR "/usr/bin/qemu-system-x86_64"

struct vz_qemu_caps {
    char *emulator;
    unsigned version;
    char *package;
    char *arch;
    GArray *machines;      /* vz_qemu_machine; its strings are owned by `strings` */
    GPtrArray *cpu_models; /* with the terminating NULL */
    GHashTable *devices;
    GHashTable *commands;
    GHashTable *migration_capabilities;
    GHashTable *migration_parameters;
    GStringChunk *strings;
    bool kvm;
    char *kvm_why;
    GHashTable *cpu_features[2]; /* by vz_accel; NULL: not known */
};

typedef struct {
    char *key; /* size and times of the binary when it was asked */
    vz_qemu_caps *caps;
    GSList *older; /* of binaries that were replaced: running domains still point to them */
} entry;

static struct {
    char *cache_dir;
    char *accel;
    char *user;
} settings;

static GMutex probing;
static GMutex registry;
static GHashTable *entries; /* path -> entry, never removed */

bool vz_qemu_caps_setup(const vz_qemu_caps_settings *wanted, GError **err)
{
    const char *accel = wanted->accel ? wanted->accel : "auto";
    if (!g_str_equal(accel, "auto") && !g_str_equal(accel, "kvm") && !g_str_equal(accel, "tcg"))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "accelerator '%s' is not one of auto, kvm and tcg",
                       accel);
    g_free(settings.cache_dir);
    g_free(settings.accel);
    g_free(settings.user);
    settings.cache_dir = g_strdup(wanted->cache_dir);
    settings.accel = g_strdup(accel);
    settings.user = g_strdup(wanted->user);
    return true;
}

const char *vz_qemu_default_emulator(void)
{
    return DEFAULT_EMULATOR;
}

static GHashTable *new_set(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

/* Adds the string under `key` of each object of a list. */
static void add_names(GHashTable *set, const json_t *list, const char *key)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(json_object_get(item, key));
        if (name)
            g_hash_table_add(set, g_strdup(name));
    }
}

static const char *keep(vz_qemu_caps *caps, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? g_string_chunk_insert_const(caps->strings, text) : NULL;
}

static void parse_machines(vz_qemu_caps *caps, const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        json_int_t max_cpus = json_integer_value(json_object_get(item, "cpu-max"));
        vz_qemu_machine machine = {
            .name = keep(caps, item, "name"),
            .alias = keep(caps, item, "alias"),
            .default_cpu = keep(caps, item, "default-cpu-type"),
            .ram_id = keep(caps, item, "default-ram-id"),
            .max_cpus = (unsigned)CLAMP(max_cpus, 0, G_MAXINT),
            .is_default = json_is_true(json_object_get(item, "is-default")),
            .deprecated = json_is_true(json_object_get(item, "deprecated")),
        };
        if (machine.name)
            g_array_append_val(caps->machines, machine);
    }
}

static gint compare_strings(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void parse_cpu_models(vz_qemu_caps *caps, const json_t *list)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name)
            g_ptr_array_add(caps->cpu_models, g_strdup(name));
    }
    g_ptr_array_sort(caps->cpu_models, compare_strings);
    g_ptr_array_add(caps->cpu_models, NULL);
}

static void parse_migration_parameters(vz_qemu_caps *caps, const json_t *replies)
{
    const char *name;
    json_t *value;
    json_t *set = json_object_get(replies, "query-migrate-parameters");
    json_object_foreach(set, name, value)
    {
        g_hash_table_add(caps->migration_parameters, g_strdup(name));
    }
    add_names(caps->migration_parameters, json_object_get(replies, "device-list-properties"),
              "name");
    if (json_is_true(json_object_get(replies, "multifd-zstd")))
        g_hash_table_add(caps->migration_parameters, g_strdup(VZ_QEMU_PARAMETER_ZSTD));
}

static void parse_cpu_features(vz_qemu_caps *caps, vz_accel accel, const json_t *names)
{
    size_t i;
    json_t *name;
    if (!json_is_array(names) || json_array_size(names) > VZ_QEMU_CPU_FEATURES_MAX)
        return;
    caps->cpu_features[accel] = new_set();
    json_array_foreach((json_t *)(uintptr_t)names, i, name)
    {
        if (json_string_value(name))
            g_hash_table_add(caps->cpu_features[accel], g_strdup(json_string_value(name)));
    }
}

static bool parse_version(vz_qemu_caps *caps, const json_t *replies, GError **err)
{
    json_t *version = json_object_get(replies, "query-version");
    json_t *target = json_object_get(replies, "query-target");
    const char *package = "";
    const char *arch = NULL;
    int major;
    int minor;
    int micro;
    if (json_unpack(version, "{s:{s:i, s:i, s:i}, s?s}", "qemu", "major", &major, "minor", &minor,
                    "micro", &micro, "package", &package) < 0 ||
        json_unpack(target, "{s:s}", "arch", &arch) < 0 || major < 0 || minor < 0 || micro < 0 ||
        major > 999 || minor > 999 || micro > 999)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "QEMU '%s' does not tell its version and target", caps->emulator);
    caps->version = (unsigned)major * 1000000 + (unsigned)minor * 1000 + (unsigned)micro;
    caps->package = g_strdup(package);
    caps->arch = g_strdup(arch);
    return true;
}

vz_qemu_caps *vz_qemu_caps_parse(const char *emulator, const json_t *replies, GError **err)
{
    g_autoptr(vz_qemu_caps) caps = g_new0(vz_qemu_caps, 1);
    caps->emulator = g_strdup(emulator);
    caps->machines = g_array_new(FALSE, FALSE, sizeof(vz_qemu_machine));
    caps->cpu_models = g_ptr_array_new_with_free_func(g_free);
    caps->devices = new_set();
    caps->commands = new_set();
    caps->migration_capabilities = new_set();
    caps->migration_parameters = new_set();
    caps->strings = g_string_chunk_new(4096);
    if (!parse_version(caps, replies, err))
        return NULL;
    parse_machines(caps, json_object_get(replies, "query-machines"));
    parse_cpu_models(caps, json_object_get(replies, "query-cpu-definitions"));
    add_names(caps->devices, json_object_get(replies, "qom-list-types"), "name");
    add_names(caps->commands, json_object_get(replies, "query-commands"), "name");
    add_names(caps->migration_capabilities, json_object_get(replies, "query-migrate-capabilities"),
              "capability");
    parse_migration_parameters(caps, replies);
    parse_cpu_features(caps, VZ_ACCEL_TCG, json_object_get(replies, "cpu-features"));
    if (caps->machines->len == 0)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "QEMU '%s' has no machines", emulator), NULL;
    return g_steal_pointer(&caps);
}

void vz_qemu_caps_set_kvm(vz_qemu_caps *caps, bool works, const char *why)
{
    caps->kvm = works;
    g_free(caps->kvm_why);
    caps->kvm_why = g_strdup(why ? why : "");
}

void vz_qemu_caps_free(vz_qemu_caps *caps)
{
    if (!caps)
        return;
    g_free(caps->emulator);
    g_free(caps->package);
    g_free(caps->arch);
    g_free(caps->kvm_why);
    g_array_unref(caps->machines);
    g_ptr_array_unref(caps->cpu_models);
    g_hash_table_unref(caps->devices);
    g_hash_table_unref(caps->commands);
    g_hash_table_unref(caps->migration_capabilities);
    g_hash_table_unref(caps->migration_parameters);
    for (size_t i = 0; i < G_N_ELEMENTS(caps->cpu_features); i++)
        g_clear_pointer(&caps->cpu_features[i], g_hash_table_unref);
    g_string_chunk_free(caps->strings);
    g_free(caps);
}

static char *key_of(const char *emulator, GError **err)
{
    struct stat st;
    if (stat(emulator, &st) < 0) {
        vz_fail_errno(err, errno, "cannot check QEMU binary '%s'", emulator);
        return NULL;
    }
    return g_strdup_printf("%s %lld %lld.%09ld %lld.%09ld", emulator, (long long)st.st_size,
                           (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
                           (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
}

static char *cache_path(const char *emulator)
{
    if (!settings.cache_dir)
        return NULL;
    g_autofree char *hash = g_compute_checksum_for_string(G_CHECKSUM_SHA256, emulator, -1);
    g_autofree char *name = g_strdup_printf("%.16s.json", hash);
    return g_build_filename(settings.cache_dir, name, NULL);
}

/* {"format", "key", "replies", "kvm": {"boot", "works", "why"}}, or NULL where there is none that
 * is good for this binary. Caller decrefs. */
static json_t *load_cache(const char *emulator, const char *key)
{
    g_autofree char *path = cache_path(emulator);
    g_autofree char *text = NULL;
    g_autoptr(GError) ignored = NULL; /* without a cache the binary is asked */
    size_t bytes;
    if (!path || !vz_file_read(path, CACHE_BYTES_MAX, &text, &bytes, &ignored))
        return NULL;
    json_t *cache = json_loadb(text, bytes, 0, NULL);
    const char *cached_key = json_string_value(json_object_get(cache, "key"));
    if (json_integer_value(json_object_get(cache, "format")) == CACHE_FORMAT && cached_key &&
        g_str_equal(cached_key, key))
        return cache;
    json_decref(cache);
    return NULL;
}

static void save_cache(const char *emulator, json_t *cache)
{
    g_autofree char *path = cache_path(emulator);
    if (!path)
        return;
    char *text = json_dumps(cache, JSON_COMPACT);
    g_autoptr(GError) ignored = NULL; /* the next start asks again */
    if (text && g_mkdir_with_parents(settings.cache_dir, 0755) == 0)
        vz_file_write_durable(path, text, strlen(text), 0644, &ignored);
    free(text);
}

static char *boot_id(void)
{
    char *text = NULL;
    if (!g_file_get_contents(BOOT_ID_PATH, &text, NULL, NULL))
        return g_strdup("unknown");
    return g_strchomp(text);
}

/* The lists of a cache, or fresh ones put into it. */
static bool ensure_lists(json_t *cache, const char *emulator, const vz_qemu_user *user,
                         bool *changed, GError **err)
{
    if (json_object_get(cache, "replies"))
        return true;
    json_t *replies = vz_caps_probe_lists(emulator, user, err);
    if (!replies)
        return false;
    json_object_set_new(cache, "replies", replies);
    *changed = true;
    return true;
}

static void ensure_kvm(json_t *cache, const char *emulator, const vz_qemu_user *user, bool *changed)
{
    g_autofree char *boot = boot_id();
    const char *cached_boot =
        json_string_value(json_object_get(json_object_get(cache, "kvm"), "boot"));
    if (cached_boot && g_str_equal(cached_boot, boot))
        return;
    g_autofree char *why = NULL;
    bool works = vz_caps_probe_guest(emulator, "kvm", "host", user, &why);
    json_object_set_new(cache, "kvm",
                        json_pack("{s:s, s:b, s:s}", "boot", boot, "works", works, "why",
                                  works ? "a probing guest ran on it" : why));
    *changed = true;
}

/* What the configuration says of KVM comes before what a probe says. */
static void apply_kvm(vz_qemu_caps *caps, json_t *cache, const vz_qemu_user *user, bool *changed)
{
    if (settings.accel && g_str_equal(settings.accel, "kvm")) {
        vz_qemu_caps_set_kvm(caps, true, "the configuration says that it works");
    } else if (settings.accel && g_str_equal(settings.accel, "tcg")) {
        vz_qemu_caps_set_kvm(caps, false, "the configuration turns it off");
    } else {
        ensure_kvm(cache, caps->emulator, user, changed);
        const json_t *kvm = json_object_get(cache, "kvm");
        vz_qemu_caps_set_kvm(caps, json_is_true(json_object_get(kvm, "works")),
                             json_string_value(json_object_get(kvm, "why")));
    }
}

/* KVM gives what the processor, its microcode and the kernel have, so this is good for one boot. */
static void ensure_kvm_cpu(vz_qemu_caps *caps, json_t *cache, const vz_qemu_user *user,
                           bool *changed)
{
    g_autofree char *boot = boot_id();
    const json_t *known = json_object_get(cache, "kvm-cpu");
    if (!caps->kvm)
        return;
    if (g_strcmp0(json_string_value(json_object_get(known, "boot")), boot) != 0) {
        json_object_set_new(cache, "kvm-cpu",
                            json_pack("{s:s, s:o}", "boot", boot, "features",
                                      vz_caps_probe_cpu(caps->emulator, "kvm", user)));
        *changed = true;
    }
    parse_cpu_features(caps, VZ_ACCEL_KVM,
                       json_object_get(json_object_get(cache, "kvm-cpu"), "features"));
}

static vz_qemu_caps *ask(const char *emulator, const char *key, GError **err)
{
    vz_qemu_user user;
    if (!vz_qemu_user_find(settings.user, &user, err))
        return NULL;
    bool changed = false;
    json_t *cache = load_cache(emulator, key);
    if (!cache)
        cache = json_pack("{s:i, s:s}", "format", CACHE_FORMAT, "key", key);
    vz_qemu_caps *caps = NULL;
    if (ensure_lists(cache, emulator, &user, &changed, err))
        caps = vz_qemu_caps_parse(emulator, json_object_get(cache, "replies"), err);
    if (caps) {
        apply_kvm(caps, cache, &user, &changed);
        ensure_kvm_cpu(caps, cache, &user, &changed);
    }
    if (caps && changed)
        save_cache(emulator, cache);
    json_decref(cache);
    return caps;
}

/* key NULL: whatever its binary has become since. */
static const vz_qemu_caps *lookup(const char *emulator, const char *key)
{
    g_mutex_lock(&registry);
    const entry *e = entries ? g_hash_table_lookup(entries, emulator) : NULL;
    const vz_qemu_caps *caps = e && (!key || g_str_equal(e->key, key)) ? e->caps : NULL;
    g_mutex_unlock(&registry);
    return caps;
}

static void remember(const char *emulator, const char *key, vz_qemu_caps *caps)
{
    g_mutex_lock(&registry);
    if (!entries)
        entries = g_hash_table_new(g_str_hash, g_str_equal);
    entry *e = g_hash_table_lookup(entries, emulator);
    if (!e) {
        e = g_new0(entry, 1);
        g_hash_table_insert(entries, g_strdup(emulator), e);
    }
    if (e->caps)
        e->older = g_slist_prepend(e->older, e->caps);
    g_free(e->key);
    e->key = g_strdup(key);
    e->caps = caps;
    g_mutex_unlock(&registry);
}

const vz_qemu_caps *vz_qemu_caps_get(const char *emulator, GError **err)
{
    g_autofree char *key = key_of(emulator, err);
    if (!key)
        return NULL;
    const vz_qemu_caps *known = lookup(emulator, key);
    if (known)
        return known;
    g_mutex_lock(&probing);
    known = lookup(emulator, key);
    if (!known) {
        vz_qemu_caps *caps = ask(emulator, key, err);
        if (caps)
            remember(emulator, key, caps);
        known = caps;
    }
    g_mutex_unlock(&probing);
    return known;
}

const vz_qemu_caps *vz_qemu_caps_peek(const char *emulator)
{
    return lookup(emulator, NULL);
}

unsigned vz_qemu_caps_version(const vz_qemu_caps *caps)
{
    return caps->version;
}

const char *vz_qemu_caps_package(const vz_qemu_caps *caps)
{
    return caps->package;
}

const char *vz_qemu_caps_arch(const vz_qemu_caps *caps)
{
    return caps->arch;
}

const char *vz_qemu_caps_emulator(const vz_qemu_caps *caps)
{
    return caps->emulator;
}

const vz_qemu_machine *vz_qemu_caps_machines(const vz_qemu_caps *caps, size_t *ret_n)
{
    *ret_n = caps->machines->len;
    return (const vz_qemu_machine *)(const void *)caps->machines->data;
}

const vz_qemu_machine *vz_qemu_caps_machine(const vz_qemu_caps *caps, const char *name)
{
    for (guint i = 0; i < caps->machines->len; i++) {
        const vz_qemu_machine *machine = &g_array_index(caps->machines, vz_qemu_machine, i);
        if (g_strcmp0(machine->name, name) == 0 || g_strcmp0(machine->alias, name) == 0)
            return machine;
    }
    return NULL;
}

const char *const *vz_qemu_caps_cpu_models(const vz_qemu_caps *caps)
{
    return (const char *const *)caps->cpu_models->pdata;
}

bool vz_qemu_caps_has_cpu_model(const vz_qemu_caps *caps, const char *name)
{
    return g_strv_contains(vz_qemu_caps_cpu_models(caps), name);
}

bool vz_qemu_caps_has_device(const vz_qemu_caps *caps, const char *name)
{
    return g_hash_table_contains(caps->devices, name);
}

bool vz_qemu_caps_has_migration_capability(const vz_qemu_caps *caps, const char *name)
{
    return g_hash_table_contains(caps->migration_capabilities, name);
}

bool vz_qemu_caps_has_migration_parameter(const vz_qemu_caps *caps, const char *name)
{
    return g_hash_table_contains(caps->migration_parameters, name);
}

bool vz_qemu_caps_has_command(const vz_qemu_caps *caps, const char *name)
{
    return g_hash_table_contains(caps->commands, name);
}

bool vz_qemu_caps_kvm(const vz_qemu_caps *caps, const char **ret_why)
{
    if (ret_why)
        *ret_why = caps->kvm_why ? caps->kvm_why : "nobody asked";
    return caps->kvm;
}

bool vz_qemu_caps_accel(const vz_qemu_caps *caps, vz_def_type type, vz_accel *ret_accel,
                        char **ret_note, GError **err)
{
    const char *why;
    bool kvm = vz_qemu_caps_kvm(caps, &why);
    if (type == VZ_DEF_TYPE_KVM && !kvm)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "domain type 'kvm' needs KVM, which does not work here: %s; type 'vz' takes "
                       "the best that works, 'qemu' is emulated",
                       why);
    bool use_kvm = kvm && type != VZ_DEF_TYPE_QEMU;
    *ret_accel = use_kvm ? VZ_ACCEL_KVM : VZ_ACCEL_TCG;
    if (use_kvm)
        *ret_note = g_strdup("runs on KVM");
    else if (type == VZ_DEF_TYPE_QEMU)
        *ret_note = g_strdup("runs on TCG, as the domain type 'qemu' says");
    else
        *ret_note = g_strdup_printf(
            "runs on TCG, many times slower than KVM, which does not work here: %s", why);
    return true;
}

GHashTable *vz_qemu_caps_cpu_features(const vz_qemu_caps *caps, vz_accel accel)
{
    return caps->cpu_features[accel];
}

char *vz_qemu_caps_baseline(const vz_qemu_caps *caps, vz_accel accel, GHashTable *allowed)
{
    vz_qemu_user user;
    g_autoptr(GError) ignored = NULL; /* then none is recommended */
    return vz_qemu_user_find(settings.user, &user, &ignored)
               ? vz_caps_probe_baseline(caps->emulator, accel == VZ_ACCEL_KVM ? "kvm" : "tcg",
                                        &user, allowed)
               : NULL;
}
