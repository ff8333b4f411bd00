/* destination_ops.c - what others may do to a domain that arrives, and what its QEMU reports. On
 * the domain's actor, often inside a wait of the job itself. */
#include "base/json.h"
#include "migrate/destination_settle.h"
#include "migrate/postcopy.h"

#include <string.h>

static bool op_abort(vz_domain *domain, void *job, GError **err)
{
    vz_migration *m = job;
    if (vz_destination_may_be_switched(m))
        return vz_fail(
            err, VZ_ERR_OPERATION_INVALID,
            "domain '%s' arrives from %s by post-copy, so this may be its only copy; abort "
            "it there, which is refused once it runs here",
            vz_domain_name(domain), m->peer_name);
    if (vz_journal_state(m->journal) >= VZ_RECORD_COMMITTED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the guest is already starting here");
    if (m->busy)
        vz_migration_abort(m, "job 'migration in' canceled by client");
    else
        vz_destination_give_up(m, "job 'migration in' canceled by client");
    return true;
}

/* It runs here; only some of its pages do not yet. */
static bool is_ours(const vz_migration *m)
{
    return m->switched && vz_journal_state(m->journal) == VZ_RECORD_STARTED;
}

static bool op_refuse(vz_domain *domain, void *job, bool *ret_handled, GError **err)
{
    const vz_migration *m = job;
    *ret_handled = false;
    if (is_ours(m))
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "domain '%s' is arriving from %s (migration job %s)", vz_domain_name(domain),
                   m->peer_name, m->id);
}

/* The source hears of it when it looks for the guest. */
static bool op_destroy(vz_domain *domain, void *job, GError **err)
{
    vz_migration *m = job;
    if (!is_ours(m) || m->busy)
        return op_abort(domain, job, err);
    vz_destination_close_started(m);
    return true;
}

static bool op_event(vz_domain *domain, void *job, const char *name, const struct json_t *data,
                     int64_t when_us)
{
    (void)domain;
    (void)when_us;
    vz_migration *m = job;
    if (strcmp(name, "MIGRATION") == 0) {
        m->reported = vz_memory_status_parse(vz_json_text(data, "status"));
        m->memory_event = true;
        vz_destination_stirred(m);
        return true;
    }
    if (is_ours(m))
        return false;
    /* The steps say what the guest's state is until the job ends. */
    return strcmp(name, "STOP") == 0 || strcmp(name, "RESUME") == 0;
}

static void died_later(vz_domain *domain, void *data)
{
    (void)domain;
    vz_migration *m = data;
    if (m->domain && vz_journal_state(m->journal) < VZ_RECORD_COMMITTED)
        vz_destination_give_up(m, "QEMU ended on the destination while the guest arrived");
    else if (m->domain)
        vz_destination_go_forward_again(m);
}

static bool op_died(vz_domain *domain, void *job)
{
    vz_migration *m = job;
    m->guest_died = true;
    if (!m->busy)
        vz_domain_post(domain, VZ_TASK_NORMAL, died_later, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
    return true;
}

const vz_job_ops vz_destination_ops = {
    .abort = op_abort,
    .suspend = op_refuse,
    .resume = op_refuse,
    .destroy = op_destroy,
    .event = op_event,
    .died = op_died,
};
