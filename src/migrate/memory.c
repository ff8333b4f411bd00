/* memory.c - see memory.h. */
#include "migrate/memory.h"

#include <string.h>

#define FD_NAME         "virtvz-migration"
#define PASSES_PER_STEP 3

vz_memory_status vz_memory_status_parse(const char *word)
{
    static const struct {
        const char *word;
        vz_memory_status status;
    } words[] = {
        {"setup", VZ_MEMORY_ACTIVE},        {"active", VZ_MEMORY_ACTIVE},
        {"device", VZ_MEMORY_ACTIVE},       {"wait-unplug", VZ_MEMORY_ACTIVE},
        {"cancelling", VZ_MEMORY_ACTIVE},   {"pre-switchover", VZ_MEMORY_PRE_SWITCHOVER},
        {"completed", VZ_MEMORY_COMPLETED}, {"failed", VZ_MEMORY_FAILED},
        {"cancelled", VZ_MEMORY_CANCELLED},
    };
    for (size_t i = 0; word && i < G_N_ELEMENTS(words); i++)
        if (strcmp(words[i].word, word) == 0)
            return words[i].status;
    return VZ_MEMORY_NONE;
}

static json_t *capability(const char *name)
{
    return json_pack("{ss sb}", "capability", name, "state", 1);
}

static bool set_capabilities(vz_qmp *qmp, const char *side_capability, GError **err)
{
    json_t *args = json_pack("{s[ooo]}", "capabilities", capability("events"),
                             capability("return-path"), capability(side_capability));
    return vz_qmp_do(qmp, "migrate-set-capabilities", args, VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_set_limits(vz_qmp *qmp, const vz_memory_limits *limits, GError **err)
{
    uint64_t bandwidth =
        limits->bandwidth_bytes_s ? limits->bandwidth_bytes_s : VZ_BANDWIDTH_UNLIMITED_BYTES_S;
    json_t *args = json_pack("{sI sI}", "max-bandwidth", (json_int_t)bandwidth, "downtime-limit",
                             (json_int_t)limits->downtime_limit_ms);
    return vz_qmp_do(qmp, "migrate-set-parameters", args, VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_send(vz_qmp *qmp, int fd, const vz_memory_limits *limits, GError **err)
{
    return set_capabilities(qmp, "pause-before-switchover", err) &&
           vz_memory_set_limits(qmp, limits, err) && vz_qmp_send_fd(qmp, FD_NAME, fd, err) &&
           vz_qmp_do(qmp, "migrate", json_pack("{ss}", "uri", "fd:" FD_NAME), VZ_QMP_TIMEOUT_US,
                     err);
}

bool vz_memory_receive(vz_qmp *qmp, int fd, GError **err)
{
    return set_capabilities(qmp, "late-block-activate", err) &&
           vz_qmp_send_fd(qmp, FD_NAME, fd, err) &&
           vz_qmp_do(qmp, "migrate-incoming", json_pack("{ss}", "uri", "fd:" FD_NAME),
                     VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_release(vz_qmp *qmp, GError **err)
{
    return vz_qmp_do(qmp, "migrate-continue", json_pack("{ss}", "state", "pre-switchover"),
                     VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_cancel(vz_qmp *qmp, GError **err)
{
    return vz_qmp_do(qmp, "migrate_cancel", NULL, VZ_QMP_TIMEOUT_US, err);
}

static uint64_t number(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    double real = json_number_value(value);
    return real > 0
               ? (json_is_integer(value) ? (uint64_t)json_integer_value(value) : (uint64_t)real)
               : 0;
}

static void read_stats(const json_t *info, vz_job_stats *stats)
{
    const json_t *ram = json_object_get(info, "ram");
    stats->time_elapsed_ms = number(info, "total-time");
    stats->has_downtime = true;
    stats->downtime_ms = json_object_get(info, "downtime") ? number(info, "downtime")
                                                           : number(info, "expected-downtime");
    stats->has_setup_time = true;
    stats->setup_time_ms = number(info, "setup-time");
    if (!ram)
        return;
    stats->memory_total_bytes = number(ram, "total");
    stats->memory_processed_bytes = number(ram, "transferred");
    stats->memory_remaining_bytes = number(ram, "remaining");
    /* QEMU reports megabits of 10^6 a second. */
    stats->memory_bytes_s = (uint64_t)(json_number_value(json_object_get(ram, "mbps")) * 125000.0);
    stats->has_memory_pages = true;
    stats->memory_constant_pages = number(ram, "duplicate");
    stats->memory_normal_pages = number(ram, "normal");
    stats->memory_normal_bytes = number(ram, "normal-bytes");
    stats->memory_dirty_pages_s = number(ram, "dirty-pages-rate");
    stats->memory_page_bytes = number(ram, "page-size");
    stats->memory_iteration = number(ram, "dirty-sync-count");
    stats->memory_postcopy_requests = number(ram, "postcopy-requests");
}

bool vz_memory_query(vz_qmp *qmp, vz_memory_status *ret_status, vz_job_stats *stats,
                     char **ret_reason, GError **err)
{
    json_t *info = vz_qmp_command(qmp, "query-migrate", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!info)
        return false;
    const char *reason = json_string_value(json_object_get(info, "error-desc"));
    *ret_status = vz_memory_status_parse(json_string_value(json_object_get(info, "status")));
    if (stats)
        read_stats(info, stats);
    if (ret_reason)
        *ret_reason = g_strdup(reason ? reason : "");
    json_decref(info);
    return true;
}

uint64_t vz_memory_downtime_step_ms(uint64_t pass)
{
    uint64_t limit_ms = VZ_DOWNTIME_LIMIT_FIRST_MS;
    for (uint64_t p = PASSES_PER_STEP; p < pass && limit_ms < VZ_DOWNTIME_LIMIT_LAST_MS;
         p += PASSES_PER_STEP)
        limit_ms = MIN(limit_ms * 2, VZ_DOWNTIME_LIMIT_LAST_MS);
    return limit_ms;
}
