/* job.c - questions about migration jobs, and the few things that may be done to one. The questions
 * run on the loop, from snapshots; the rest on the domain's actor, inside the job's waits. */
#include "api/api.h"

#include "api/job_params.h"
#include "base/units.h"

#include <string.h>

enum { STATS_COMPLETED = 1, STATS_KEEP_COMPLETED = 2 };
#define SPEED_MAX_MIB ((uint64_t)INT64_MAX / VZ_MIB)

/* One that is shut off has a job only while its definition moves. */
static bool check_may_have_job(const vz_snapshot *s, GError **err)
{
    return s->has_job || vz_snapshot_check_active(s, err);
}

bool vz_api_domain_get_job_info(vz_call *call, const vz_wire_domain_args *args,
                                vz_wire_domain_get_job_info_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s || !check_may_have_job(s, err))
        return false;
    const vz_job_stats *j = &s->job_stats;
    ret->type = (int32_t)j->type;
    ret->time_elapsed = j->time_elapsed_ms;
    ret->time_remaining = j->type == VZ_JOB_BOUNDED ? j->time_remaining_ms : 0;
    ret->data_total = j->memory_total_bytes + j->disk_total_bytes;
    ret->data_processed = j->memory_processed_bytes + j->disk_processed_bytes;
    ret->data_remaining = j->memory_remaining_bytes + j->disk_remaining_bytes;
    ret->mem_total = j->memory_total_bytes;
    ret->mem_processed = j->memory_processed_bytes;
    ret->mem_remaining = j->memory_remaining_bytes;
    ret->file_total = j->disk_total_bytes;
    ret->file_processed = j->disk_processed_bytes;
    ret->file_remaining = j->disk_remaining_bytes;
    return true;
}

static void forget_completed(vz_domain *domain, void *data)
{
    (void)data;
    vz_domain_set_completed(domain, NULL);
}

static void give_stats(vz_call *call, const vz_job_stats *stats,
                       vz_wire_domain_get_job_stats_ret *ret)
{
    ret->type = (int32_t)stats->type;
    if (stats->type == VZ_JOB_NONE)
        return;
    /* errmsg points into the statistics, so they must live as long as the call. */
    vz_job_stats *kept = vz_call_alloc(call, sizeof(*kept));
    vz_tparam *params = vz_call_alloc(call, VZ_JOB_PARAMS_MAX * sizeof(*params));
    *kept = *stats;
    ret->params.count = (uint32_t)vz_job_params(kept, params);
    ret->params.items = params;
}

bool vz_api_domain_get_job_stats(vz_call *call, const vz_wire_domain_flags_args *args,
                                 vz_wire_domain_get_job_stats_ret *ret, GError **err)
{
    if (!vz_api_check_flags(args->flags, STATS_COMPLETED | STATS_KEEP_COMPLETED,
                            "virDomainGetJobStats", err))
        return false;
    g_autoptr(vz_domain) domain = vz_api_find(&args->dom, err);
    if (!domain)
        return false;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!(args->flags & STATS_COMPLETED)) {
        if (!check_may_have_job(s, err))
            return false;
        give_stats(call, &s->job_stats, ret);
        return true;
    }
    give_stats(call, &s->completed, ret);
    if (s->completed.type != VZ_JOB_NONE && !(args->flags & STATS_KEEP_COMPLETED))
        vz_domain_post(domain, VZ_TASK_DURING_JOB, forget_completed, NULL, NULL);
    return true;
}

/* ---- during the job ---- */

static bool abort_job(vz_domain *domain, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!check_may_have_job(s, err))
        return false;
    if (!s->has_job)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "no job is active on the domain");
    if (!s->job.ops || !s->job.ops->abort)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "cannot abort %s", s->job.title);
    return s->job.ops->abort(domain, s->job.data, err);
}

bool vz_api_domain_abort_job(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return abort_job(vz_api_subject(call), err);
}

bool vz_api_domain_abort_job_flags(vz_call *call, const vz_wire_domain_flags_args *args,
                                   GError **err)
{
    enum { POSTCOPY = 1 };
    if (!vz_api_check_flags(args->flags, POSTCOPY, "virDomainAbortJobFlags", err))
        return false;
    vz_domain *domain = vz_api_subject(call);
    if (!(args->flags & POSTCOPY))
        return abort_job(domain, err);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return vz_snapshot_check_active(s, err) &&
           (s->has_job && s->job.ops && s->job.ops->pause_postcopy
                ? s->job.ops->pause_postcopy(domain, s->job.data, err)
                : vz_fail(err, VZ_ERR_OPERATION_INVALID,
                          "current job is not outgoing migration in post-copy mode"));
}

bool vz_api_domain_migrate_start_post_copy(vz_call *call,
                                           const vz_wire_domain_migrate_start_post_copy_args *args,
                                           GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return vz_api_check_flags(args->flags, 0, "virDomainMigrateStartPostCopy", err) &&
           vz_snapshot_check_active(s, err) &&
           (s->has_job && s->job.ops && s->job.ops->start_postcopy
                ? s->job.ops->start_postcopy(domain, s->job.data, err)
                : vz_fail(err, VZ_ERR_OPERATION_INVALID,
                          "post-copy can only be started while outgoing migration is in "
                          "progress"));
}

bool vz_api_domain_migrate_set_max_downtime(
    vz_call *call, const vz_wire_domain_migrate_set_max_downtime_args *args, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!vz_api_check_flags(args->flags, 0, "virDomainMigrateSetMaxDowntime", err) ||
        !vz_snapshot_check_active(s, err))
        return false;
    if (args->downtime > VZ_DOWNTIME_MAX_MS)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "downtime must be at most %d ms, which is what QEMU takes",
                       VZ_DOWNTIME_MAX_MS);
    uint64_t limit_ms = args->downtime ? args->downtime : VZ_DOWNTIME_DEFAULT_MS;
    if (s->has_job && s->job.ops && s->job.ops->set_max_downtime &&
        !s->job.ops->set_max_downtime(domain, s->job.data, limit_ms, err))
        return false;
    vz_domain_set_migration_limits(domain, s->max_speed_bytes_s, args->downtime);
    return true;
}

bool vz_api_domain_migrate_get_max_downtime(vz_call *call, const vz_wire_domain_flags_args *args,
                                            vz_wire_uhyper_ret *ret, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(vz_api_subject(call));
    if (!vz_api_check_flags(args->flags, 0, "virDomainMigrateGetMaxDowntime", err) ||
        !vz_snapshot_check_active(s, err))
        return false;
    ret->value = s->max_downtime_ms ? s->max_downtime_ms : VZ_DOWNTIME_DEFAULT_MS;
    return true;
}

bool vz_api_domain_migrate_set_compression_cache(
    vz_call *call, const vz_wire_domain_migrate_set_compression_cache_args *args, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    uint64_t bytes = args->cache_size;
    if (!vz_api_check_flags(args->flags, 0, "virDomainMigrateSetCompressionCache", err) ||
        !vz_snapshot_check_active(s, err))
        return false;
    if (bytes < VZ_CACHE_MIN_BYTES || bytes > INT64_MAX || (bytes & (bytes - 1)) != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "a compression cache of %" G_GUINT64_FORMAT
                       " bytes: QEMU takes powers of two from %d on",
                       bytes, VZ_CACHE_MIN_BYTES);
    if (s->has_job && s->job.ops && s->job.ops->set_cache &&
        !s->job.ops->set_cache(domain, s->job.data, bytes, err))
        return false;
    vz_domain_set_migration_cache(domain, bytes);
    return true;
}

bool vz_api_domain_migrate_get_compression_cache(vz_call *call,
                                                 const vz_wire_domain_flags_args *args,
                                                 vz_wire_uhyper_ret *ret, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(vz_api_subject(call));
    if (!vz_api_check_flags(args->flags, 0, "virDomainMigrateGetCompressionCache", err) ||
        !vz_snapshot_check_active(s, err))
        return false;
    ret->value = s->cache_bytes ? s->cache_bytes : VZ_CACHE_DEFAULT_BYTES;
    return true;
}

enum { SPEED_POSTCOPY = 1 };

static bool set_postcopy_speed(vz_domain *domain, const vz_snapshot *s, uint64_t bytes_s,
                               GError **err)
{
    if (s->has_job && s->job.ops && s->job.ops->set_postcopy_speed &&
        !s->job.ops->set_postcopy_speed(domain, s->job.data, bytes_s, err))
        return false;
    vz_domain_set_postcopy_limit(domain, bytes_s);
    return true;
}

bool vz_api_domain_migrate_set_max_speed(vz_call *call,
                                         const vz_wire_domain_migrate_set_max_speed_args *args,
                                         GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!vz_api_check_flags(args->flags, SPEED_POSTCOPY, "virDomainMigrateSetMaxSpeed", err))
        return false;
    if (args->bandwidth > SPEED_MAX_MIB)
        return vz_fail(err, VZ_ERR_OVERFLOW, "bandwidth must be less than %" G_GUINT64_FORMAT,
                       SPEED_MAX_MIB + 1);
    uint64_t bytes_s = args->bandwidth * VZ_MIB;
    if (args->flags & SPEED_POSTCOPY)
        return vz_snapshot_check_active(s, err) && set_postcopy_speed(domain, s, bytes_s, err);
    if (s->has_job && s->job.ops && s->job.ops->set_max_speed &&
        !s->job.ops->set_max_speed(domain, s->job.data, bytes_s, err))
        return false;
    vz_domain_set_migration_limits(domain, bytes_s, s->max_downtime_ms);
    return true;
}

bool vz_api_domain_migrate_get_max_speed(vz_call *call, const vz_wire_domain_flags_args *args,
                                         vz_wire_uhyper_ret *ret, GError **err)
{
    if (!vz_api_check_flags(args->flags, SPEED_POSTCOPY, "virDomainMigrateGetMaxSpeed", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(vz_api_subject(call));
    if (args->flags & SPEED_POSTCOPY) {
        ret->value = s->max_postcopy_bytes_s / VZ_MIB; /* 0, as libvirt, for no limit */
        return vz_snapshot_check_active(s, err);
    }
    ret->value = s->max_speed_bytes_s ? s->max_speed_bytes_s / VZ_MIB : SPEED_MAX_MIB;
    return true;
}
