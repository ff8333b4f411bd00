/* job_params.c - see job_params.h. Names and units: libvirt facts 3.7. */
#include "api/job_params.h"

#include <string.h>

#define ALWAYS SIZE_MAX

static const struct {
    const char *field;
    size_t value; /* offset of a uint64_t */
    size_t has;   /* offset of the bool that says whether it is there, or ALWAYS */
} rows[] = {
#define ROW(field, value, has)                                                                     \
    {                                                                                              \
        field, offsetof(vz_job_stats, value), has                                                  \
    }
#define HAS(member) offsetof(vz_job_stats, member)
    ROW("time_elapsed", time_elapsed_ms, ALWAYS),
    ROW("time_elapsed_net", time_elapsed_net_ms, HAS(has_time_elapsed_net)),
    ROW("downtime", downtime_ms, HAS(has_downtime)),
    ROW("downtime_net", downtime_net_ms, HAS(has_downtime_net)),
    ROW("setup_time", setup_time_ms, HAS(has_setup_time)),
    ROW("memory_total", memory_total_bytes, ALWAYS),
    ROW("memory_processed", memory_processed_bytes, ALWAYS),
    ROW("memory_remaining", memory_remaining_bytes, ALWAYS),
    ROW("memory_bps", memory_bytes_s, ALWAYS),
    ROW("memory_constant", memory_constant_pages, HAS(has_memory_pages)),
    ROW("memory_normal", memory_normal_pages, HAS(has_memory_pages)),
    ROW("memory_normal_bytes", memory_normal_bytes, HAS(has_memory_pages)),
    ROW("memory_dirty_rate", memory_dirty_pages_s, ALWAYS),
    ROW("memory_iteration", memory_iteration, ALWAYS),
    ROW("memory_postcopy_requests", memory_postcopy_requests, ALWAYS),
    ROW("memory_page_size", memory_page_bytes, ALWAYS),
    ROW("disk_total", disk_total_bytes, ALWAYS),
    ROW("disk_processed", disk_processed_bytes, ALWAYS),
    ROW("disk_remaining", disk_remaining_bytes, ALWAYS),
    ROW("disk_bps", disk_bytes_s, ALWAYS),
    ROW("compression_cache", compression_cache_bytes, HAS(has_compression)),
    ROW("compression_bytes", compression_bytes, HAS(has_compression)),
    ROW("compression_pages", compression_pages, HAS(has_compression)),
    ROW("compression_cache_misses", compression_cache_misses, HAS(has_compression)),
    ROW("compression_overflow", compression_overflow, HAS(has_compression)),
    /* Not libvirt's, whose clients pass by fields that they do not know. */
    ROW("vz.channels", stream_channels, HAS(has_stream)),
    ROW("vz.sample.bytes", sample_bytes, HAS(has_sample)),
    ROW("vz.sample.packed", sample_packed_bytes, HAS(has_sample)),
    ROW("vz.sample.bps", sample_bytes_s, HAS(has_sample)),
#undef ROW
#undef HAS
};

static vz_tparam ullong(const char *field, uint64_t value)
{
    return (vz_tparam){.field = field, .type = VZ_TPARAM_ULLONG, .value.ul = value};
}

static vz_tparam text(const char *field, const char *value)
{
    return (vz_tparam){.field = field, .type = VZ_TPARAM_STRING, .value.s = value};
}

static const void *at(const vz_job_stats *stats, size_t offset)
{
    return (const char *)stats + offset;
}

size_t vz_job_params(const vz_job_stats *stats, vz_tparam params[VZ_JOB_PARAMS_MAX])
{
    bool ended = stats->type >= VZ_JOB_COMPLETED;
    size_t n = 0;
    params[n++] = (vz_tparam){
        .field = "operation", .type = VZ_TPARAM_INT, .value.i = (int32_t)stats->operation};
    if (stats->type == VZ_JOB_BOUNDED)
        params[n++] = ullong("time_remaining", stats->time_remaining_ms);
    params[n++] = ullong("data_total", stats->memory_total_bytes + stats->disk_total_bytes);
    params[n++] =
        ullong("data_processed", stats->memory_processed_bytes + stats->disk_processed_bytes);
    params[n++] =
        ullong("data_remaining", stats->memory_remaining_bytes + stats->disk_remaining_bytes);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].has != ALWAYS && !*(const bool *)at(stats, rows[i].has))
            continue;
        uint64_t value;
        memcpy(&value, at(stats, rows[i].value), sizeof(value));
        params[n++] = ullong(rows[i].field, value);
    }
    if (stats->has_auto_converge)
        params[n++] = (vz_tparam){.field = "auto_converge_throttle",
                                  .type = VZ_TPARAM_INT,
                                  .value.i = stats->auto_converge_throttle_percent};
    if (stats->has_stream)
        params[n++] = text("vz.compression", stats->stream_compress);
    if (*stats->stream_why)
        params[n++] = text("vz.choice", stats->stream_why);
    if (!ended && *stats->phase)
        params[n++] = text("vz.phase", stats->phase);
    if (ended)
        params[n++] = (vz_tparam){.field = "success",
                                  .type = VZ_TPARAM_BOOLEAN,
                                  .value.i = stats->type == VZ_JOB_COMPLETED};
    if (ended && *stats->error_text)
        params[n++] = text("errmsg", stats->error_text);
    return n;
}
