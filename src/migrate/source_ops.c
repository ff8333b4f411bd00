/* source_ops.c - what others may do to a domain while it moves away: libvirt's calls during the
 * job, and what its QEMU reports. On the domain's actor, often inside a wait of the job itself. */
#include "migrate/source_settle.h"

#include "domain/table.h"
#include "driver/qemu/driver.h"
#include "migrate/disks.h"
#include "migrate/memory.h"
#include "migrate/postcopy.h"

#include <jansson.h>
#include <string.h>

static bool op_abort(vz_domain *domain, void *job, GError **err)
{
    (void)domain;
    vz_migration *m = job;
    if (m->switched)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "cannot abort migration in post-copy mode");
    if (vz_journal_state(m->journal) == VZ_RECORD_RELEASED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the guest has been let go and may be starting on %s; the migration cannot "
                       "be aborted any more",
                       m->peer_name);
    /* Between the phases of a managed migration the next one finds the wish and ends the job, so
     * that its caller learns why; a caller that has gone is noticed by its connection. */
    vz_migration_abort(m, "job 'migration out' canceled by client");
    return true;
}

/* Before the stream starts the domain keeps the limit for it. */
static bool set_limits(vz_domain *domain, vz_migration *m, const vz_memory_limits *limits,
                       GError **err)
{
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    if (m->downtime_limit_ms == 0 || !qemu)
        return true;
    if (!vz_memory_set_limits(vz_qemu_qmp(qemu), limits, err))
        return false;
    m->bandwidth_bytes_s = limits->bandwidth_bytes_s;
    m->downtime_limit_ms = limits->downtime_limit_ms;
    return true;
}

static bool op_set_max_downtime(vz_domain *domain, void *job, uint64_t downtime_ms, GError **err)
{
    vz_migration *m = job;
    vz_memory_limits limits = {m->bandwidth_bytes_s, downtime_ms};
    if (!set_limits(domain, m, &limits, err))
        return false;
    m->fixed_downtime = true;
    return true;
}

static bool op_set_max_speed(vz_domain *domain, void *job, uint64_t bytes_s, GError **err)
{
    vz_migration *m = job;
    vz_memory_limits limits = {bytes_s, m->downtime_limit_ms};
    if (!vz_source_set_disks_speed(m, bytes_s, err) || !set_limits(domain, m, &limits, err))
        return false;
    vz_options_set_number(m->options, VZ_OPTION_BANDWIDTH, bytes_s); /* of what starts later */
    return true;
}

static bool op_set_cache(vz_domain *domain, void *job, uint64_t bytes, GError **err)
{
    vz_migration *m = job;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    if (m->downtime_limit_ms != 0 && qemu && !vz_memory_set_cache(vz_qemu_qmp(qemu), bytes, err))
        return false;
    m->stream.cache_bytes = bytes; /* where the stream has not started yet */
    return true;
}

static bool op_suspend(vz_domain *domain, void *job, bool *ret_handled, GError **err)
{
    (void)domain;
    vz_migration *m = job;
    *ret_handled = false;
    if (vz_journal_state(m->journal) == VZ_RECORD_RELEASED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the guest has been let go to %s",
                       m->peer_name);
    m->user_suspended = true;
    if (m->paused_at_us == 0)
        m->paused_at_us = vz_now_us();
    return true;
}

/* Never during the job, as in libvirt: CPUs that start while QEMU hands the last state over would
 * change memory that has been sent, and ruin the guest. */
static bool op_resume(vz_domain *domain, void *job, bool *ret_handled, GError **err)
{
    (void)ret_handled;
    const vz_migration *m = job;
    return vz_fail(
        err, VZ_ERR_OPERATION_INVALID,
        "domain '%s' is being migrated (job %s); it is resumed where it then is, or once "
        "the job is aborted ('virsh domjobabort')",
        vz_domain_name(domain), m->id);
}

static bool op_destroy(vz_domain *domain, void *job, GError **err)
{
    vz_migration *m = job;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (vz_migration_offline(m) && !vz_snapshot_check_active(snapshot, err))
        return false;
    if (m->switched && m->saga.pivoted && snapshot->state == VZ_STATE_PAUSED &&
        snapshot->reason == VZ_PAUSED_POSTCOPY_FAILED) {
        vz_source_drop_pages(m);
        return true;
    }
    if (vz_journal_state(m->journal) == VZ_RECORD_RELEASED)
        return vz_fail(
            err, VZ_ERR_OPERATION_INVALID,
            "domain '%s' has been let go and may be running on %s; its copy here ends by "
            "itself when %s has answered ('vz jobs' shows it)",
            vz_domain_name(domain), m->peer_name, m->peer_name);
    if (m->busy)
        return op_abort(domain, job, err);
    vz_source_give_up(m, "the domain was destroyed");
    return true;
}

/* It stays paused where it then is, as its user would find it without a migration. */
static void note_io_error(vz_migration *m, const struct json_t *data)
{
    const char *action = json_string_value(json_object_get(data, "action"));
    m->io_error = m->io_error || (action && strcmp(action, "stop") == 0);
    m->memory_event = true;
}

static bool op_event(vz_domain *domain, void *job, const char *name, const struct json_t *data,
                     int64_t when_us)
{
    vz_migration *m = job;
    if (strcmp(name, "MIGRATION") == 0) {
        m->memory_event = true;
        return true;
    }
    if (strcmp(name, "MIGRATION_PASS") == 0) {
        m->memory_event = true;
        vz_table_emit_iteration(domain, (int)json_integer_value(json_object_get(data, "pass")));
        return true;
    }
    if (strcmp(name, "JOB_STATUS_CHANGE") == 0)
        m->memory_event = true;
    if (strcmp(name, "BLOCK_IO_ERROR") == 0)
        note_io_error(m, data);
    if (strcmp(name, "STOP") == 0 && m->busy && !m->user_suspended && !m->io_error) {
        m->memory_event = true;
        if (m->paused_at_us == 0)
            m->paused_at_us = when_us;
        return true;
    }
    if (strcmp(name, "RESUME") == 0 && !m->user_suspended)
        return true;
    if (strcmp(name, "SHUTDOWN") == 0 && vz_journal_state(m->journal) != VZ_RECORD_RELEASED) {
        m->guest_left = true;
        vz_migration_abort(m, "the guest shut down while it was being migrated");
        return true;
    }
    return false;
}

static bool op_died(vz_domain *domain, void *job)
{
    (void)domain;
    vz_migration *m = job;
    m->guest_died = true;
    if (!m->busy)
        vz_source_settle_later(m);
    return true;
}

const vz_job_ops vz_source_ops = {
    .abort = op_abort,
    .set_max_downtime = op_set_max_downtime,
    .set_max_speed = op_set_max_speed,
    .start_postcopy = vz_source_op_start_postcopy,
    .pause_postcopy = vz_source_op_pause_postcopy,
    .set_postcopy_speed = vz_source_op_set_postcopy_speed,
    .set_cache = op_set_cache,
    .suspend = op_suspend,
    .resume = op_resume,
    .destroy = op_destroy,
    .event = op_event,
    .died = op_died,
};
