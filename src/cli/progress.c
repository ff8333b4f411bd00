/* progress.c - see progress.h. Used by `vz migrate` and `vz jobs`. */
#include "cli/progress.h"

#include <string.h>

/* Nothing but the end is 100 %. */
#define FRACTION_BEFORE_END 0.99
#define MS_PER_S            1000
#define USEC_PER_SEC        1000000
/* Of the newest rate in the shown one; smooths what a reading every quarter of a second jumps. */
#define RATE_WEIGHT 0.3

typedef struct {
    const char *name;
    size_t offset;
} field;

#define AT(member) offsetof(vz_reading, member)
static const field fields[] = {
    {"time_elapsed", AT(elapsed_ms)},        {"time_remaining", AT(remaining_ms)},
    {"downtime", AT(downtime_ms)},           {"data_total", AT(total_bytes)},
    {"data_processed", AT(processed_bytes)}, {"data_remaining", AT(remaining_bytes)},
    {"memory_bps", AT(memory_bytes_s)},      {"disk_bps", AT(disk_bytes_s)},
    {"disk_total", AT(disk_total_bytes)},    {"disk_remaining", AT(disk_remaining_bytes)},
    {"memory_iteration", AT(iteration)},     {"memory_dirty_rate", AT(dirty_pages_s)},
    {"memory_page_size", AT(page_bytes)},    {"vz.channels", AT(channels)},
    {"vz.sample.bytes", AT(sample_bytes)},   {"vz.sample.packed", AT(sample_packed_bytes)},
    {"vz.sample.bps", AT(sample_bytes_s)},
};

static const struct {
    const char *name;
    size_t offset, size;
} texts[] = {
#define TEXT(name, member)                                                                         \
    {                                                                                              \
        name, AT(member), sizeof(((vz_reading *)NULL)->member)                                     \
    }
    TEXT("vz.phase", phase),
    TEXT("vz.compression", compression),
    TEXT("vz.choice", choice),
#undef TEXT
};

static void set_number(vz_reading *reading, const vz_tparam *param)
{
    for (size_t i = 0; i < G_N_ELEMENTS(fields); i++)
        if (strcmp(fields[i].name, param->field) == 0)
            memcpy((char *)reading + fields[i].offset, &param->value.ul, sizeof(uint64_t));
    if (strcmp(param->field, "downtime") == 0)
        reading->has_downtime = true;
}

static void set_text(vz_reading *reading, const vz_tparam *param)
{
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        if (strcmp(texts[i].name, param->field) == 0)
            g_strlcpy((char *)reading + texts[i].offset, param->value.s, texts[i].size);
}

void vz_reading_from_params(int type, const vz_tparam *params, size_t count,
                            vz_reading *ret_reading)
{
    vz_reading reading = {.type = type};
    for (size_t i = 0; i < count; i++) {
        if (params[i].type == VZ_TPARAM_ULLONG)
            set_number(&reading, &params[i]);
        else if (params[i].type == VZ_TPARAM_INT && strcmp(params[i].field, "operation") == 0)
            reading.operation = params[i].value.i;
        else if (params[i].type == VZ_TPARAM_STRING)
            set_text(&reading, &params[i]);
    }
    *ret_reading = reading;
}

static const char *phase_of(const vz_reading *reading, bool switching)
{
    if (*reading->phase)
        return reading->phase;
    if (switching)
        return "switching over";
    if (reading->disk_remaining_bytes > 0)
        return "copying disks";
    if (reading->total_bytes > 0)
        return "copying memory";
    return "preparing";
}

static void update_rate(vz_progress *progress, const vz_reading *reading, int64_t now_us)
{
    int64_t passed_us = now_us - progress->last_us;
    double rate = (double)(reading->memory_bytes_s + reading->disk_bytes_s);
    if (rate <= 0 && progress->last_us != 0 && passed_us > 0 &&
        reading->processed_bytes > progress->last_bytes)
        rate = (double)(reading->processed_bytes - progress->last_bytes) * USEC_PER_SEC /
               (double)passed_us;
    if (rate > 0)
        progress->bytes_s = progress->bytes_s > 0
                                ? progress->bytes_s * (1 - RATE_WEIGHT) + rate * RATE_WEIGHT
                                : rate;
    progress->last_us = now_us;
    progress->last_bytes = reading->processed_bytes;
}

static int64_t left_ms(const vz_progress *progress, const vz_reading *reading)
{
    if (reading->remaining_ms > 0)
        return (int64_t)MIN(reading->remaining_ms, (uint64_t)INT64_MAX);
    if (progress->bytes_s < 1 || reading->total_bytes == 0)
        return -1;
    double ms = (double)reading->remaining_bytes / progress->bytes_s * MS_PER_S;
    return ms < (double)G_MAXINT32 ? (int64_t)ms : -1;
}

vz_progress_view vz_progress_update(vz_progress *progress, const vz_reading *reading,
                                    bool switching, int64_t now_us)
{
    double sum = (double)reading->processed_bytes + (double)reading->remaining_bytes;
    double fraction = sum > 0 ? (double)reading->processed_bytes / sum : 0;
    progress->fraction = MAX(progress->fraction, MIN(fraction, FRACTION_BEFORE_END));
    update_rate(progress, reading, now_us);
    g_strlcpy(progress->phase, phase_of(reading, switching), sizeof(progress->phase));
    return (vz_progress_view){
        .phase = progress->phase,
        .percent = (unsigned)(progress->fraction * 100),
        .bytes_s = (uint64_t)progress->bytes_s,
        .left_ms = left_ms(progress, reading),
        .iteration = reading->iteration,
        .elapsed_ms = reading->elapsed_ms,
    };
}
