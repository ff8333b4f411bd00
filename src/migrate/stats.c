/* stats.c - see stats.h. */
#include "migrate/stats.h"

#include <glib.h>
#include <stddef.h>

#define NUMBER(member)                                                                             \
    {                                                                                              \
#member, offsetof(vz_job_stats, member)                                                    \
    }

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
    NUMBER(time_elapsed_ms),        NUMBER(downtime_ms),
    NUMBER(setup_time_ms),          NUMBER(memory_total_bytes),
    NUMBER(memory_processed_bytes), NUMBER(memory_remaining_bytes),
    NUMBER(memory_bytes_s),         NUMBER(memory_constant_pages),
    NUMBER(memory_normal_pages),    NUMBER(memory_normal_bytes),
    NUMBER(memory_dirty_pages_s),   NUMBER(memory_page_bytes),
    NUMBER(memory_iteration),       NUMBER(sample_bytes),
    NUMBER(sample_packed_bytes),    NUMBER(sample_bytes_s),
};

static uint64_t *at(const vz_job_stats *stats, size_t offset)
{
    return (uint64_t *)(void *)((char *)(uintptr_t)stats + offset);
}

json_t *vz_stats_to_json(const vz_job_stats *stats)
{
    json_t *object = json_object();
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
        json_object_set_new(object, numbers[i].name,
                            json_integer((json_int_t)*at(stats, numbers[i].offset)));
    json_object_set_new(object, "stream_why", json_string(stats->stream_why));
    return object;
}

void vz_stats_from_json(const json_t *object, vz_job_stats *stats)
{
    for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++) {
        const json_t *value = json_object_get(object, numbers[i].name);
        if (json_is_integer(value) && json_integer_value(value) >= 0)
            *at(stats, numbers[i].offset) = (uint64_t)json_integer_value(value);
    }
    const char *why = json_string_value(json_object_get(object, "stream_why"));
    g_strlcpy(stats->stream_why, why ? why : "", sizeof(stats->stream_why));
    stats->has_sample = stats->sample_bytes > 0;
    stats->has_downtime = true;
    stats->has_setup_time = true;
    stats->has_memory_pages = true;
}
