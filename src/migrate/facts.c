/* facts.c - see facts.h. */
#include "migrate/facts.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/units.h"
#include "driver/qemu/cpu.h"
#include "driver/qemu/driver.h"

#include <string.h>

#define MEMINFO_BYTES_MAX    ((size_t)64 * 1024)
#define ACCELERATOR_TEXT_MAX 16

void vz_guest_facts_clear(vz_guest_facts *facts)
{
    g_clear_pointer(&facts->accelerator, g_free);
    g_clear_pointer(&facts->cpu_features, g_hash_table_unref);
}

static char *accelerator_of(vz_qmp *qmp, GError **err)
{
    json_t *reply = vz_qmp_command(qmp, "query-kvm", NULL, VZ_QMP_TIMEOUT_US, err);
    bool kvm = json_is_true(json_object_get(reply, "enabled"));
    char *word = reply ? g_strdup(kvm ? "kvm" : "tcg") : NULL;
    json_decref(reply);
    return word;
}

void vz_guest_facts_gather(vz_domain *domain, const vz_def *live, vz_guest_facts *ret_facts)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    *ret_facts = (vz_guest_facts){.time_us = g_get_real_time()};
    if (!qemu)
        return;
    ret_facts->qemu_version = vz_qmp_version(vz_qemu_qmp(qemu));
    ret_facts->accelerator = accelerator_of(vz_qemu_qmp(qemu), &err);
    if (!err)
        ret_facts->cpu_features = vz_qemu_cpu_guest_features(vz_qemu_qmp(qemu), live, &err);
    if (err)
        vz_info(vz_domain_name(domain), "its CPU is not compared with the destination's: %s",
                err->message);
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

json_t *vz_guest_facts_to_json(const vz_guest_facts *facts)
{
    json_t *object = json_pack("{sI sI}", "time_us", (json_int_t)facts->time_us, "qemu",
                               (json_int_t)facts->qemu_version);
    if (facts->accelerator)
        json_object_set_new(object, "accelerator", json_string(facts->accelerator));
    if (!facts->cpu_features)
        return object;
    json_t *names = json_array();
    guint n;
    g_autofree char **sorted = (char **)g_hash_table_get_keys_as_array(facts->cpu_features, &n);
    qsort(sorted, n, sizeof(*sorted), compare_names);
    for (guint i = 0; i < n; i++)
        json_array_append_new(names, json_string(sorted[i]));
    json_object_set_new(object, "cpu_features", names);
    return object;
}

static bool read_features(const json_t *names, vz_guest_facts *facts)
{
    size_t i;
    json_t *name;
    if (!json_is_array(names) || json_array_size(names) > VZ_QEMU_CPU_FEATURES_MAX)
        return false;
    facts->cpu_features = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    json_array_foreach((json_t *)(uintptr_t)names, i, name)
    {
        const char *text = json_string_value(name);
        if (!text || strlen(text) > VZ_QEMU_CPU_FEATURE_NAME_MAX ||
            !g_regex_match_simple("^[A-Za-z0-9._+-]+$", text, 0, 0))
            return false;
        g_hash_table_add(facts->cpu_features, g_strdup(text));
    }
    return true;
}

bool vz_guest_facts_from_json(const json_t *json, vz_guest_facts *ret_facts, GError **err)
{
    g_auto(vz_guest_facts) facts = {0};
    const json_t *time = json_object_get(json, "time_us");
    const json_t *qemu = json_object_get(json, "qemu");
    const json_t *accelerator = json_object_get(json, "accelerator");
    const json_t *features = json_object_get(json, "cpu_features");
    bool ok = (!json || json_is_object(json)) &&
              (!time || (json_is_integer(time) && json_integer_value(time) >= 0)) &&
              (!qemu || (json_is_integer(qemu) && json_integer_value(qemu) >= 0 &&
                         json_integer_value(qemu) <= G_MAXINT)) &&
              (!accelerator || (json_is_string(accelerator) &&
                                json_string_length(accelerator) <= ACCELERATOR_TEXT_MAX)) &&
              (!features || read_features(features, &facts));
    if (!ok)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie has malformed facts");
    facts.time_us = json_integer_value(time);
    facts.qemu_version = (unsigned)json_integer_value(qemu);
    facts.accelerator = g_strdup(json_string_value(accelerator));
    *ret_facts = facts;
    facts = (vz_guest_facts){0};
    return true;
}

uint64_t vz_host_memory_available(void)
{
    static const char key[] = "\nMemAvailable:";
    g_autoptr(GError) ignored = NULL; /* then it is not known */
    g_autofree char *text = NULL;
    if (!vz_file_read("/proc/meminfo", MEMINFO_BYTES_MAX, &text, NULL, &ignored))
        return 0;
    const char *line = strstr(text, key);
    return line ? g_ascii_strtoull(line + strlen(key), NULL, 10) * VZ_KIB : 0;
}

char *vz_qemu_version_text(unsigned version)
{
    return g_strdup_printf("%u.%u.%u", version / 1000000, version / 1000 % 1000, version % 1000);
}
