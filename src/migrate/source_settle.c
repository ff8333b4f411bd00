/* source_settle.c - see source_settle.h. */
#include "migrate/source_settle.h"

#include "base/log.h"
#include "migrate/disks.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "migrate/postcopy.h"
#include "migrate/service.h"
#include "migrate/verdict.h"
#include "storage/identify.h"

#include <string.h>

/* --- the end of a job --- */

/* The destination may forget only what is durable here; where it knows of the job it is told, and
 * until it has heard the record here stays, to tell it again after a restart. */
static void end_record(vz_migration *m)
{
    if (!m->peer_fingerprint || !m->incarnation) {
        vz_migration_forget(m);
        return;
    }
    /* The destination is being told why the domain stays (offline.h), and ends by that. */
    bool answering =
        g_atomic_pointer_get(&m->let_go) && vz_journal_state(m->journal) == VZ_RECORD_NONE;
    vz_verdict_end(m); /* if it fails now, the errand tries it again */
    if (answering)
        vz_migrate_errand_later(m);
    else
        vz_migrate_errand(m);
}

static void close_job(vz_migration *m, vz_job_type outcome, const char *error_text)
{
    g_autoptr(vz_domain) domain = m->domain ? vz_domain_ref(m->domain) : NULL;
    bool left = m->guest_left || m->guest_died;
    vz_migration_uncancel(m);
    vz_migration_detach(m, outcome, error_text);
    end_record(m);
    if (m->reserved)
        vz_table_release(domain, VZ_RESERVE_DEFINE);
    m->reserved = false;
    if (!domain || outcome == VZ_JOB_COMPLETED || !left)
        return;
    g_autoptr(GError) err = NULL;
    if (!vz_life_end(domain, m->guest_left ? VZ_SHUTOFF_SHUTDOWN : VZ_SHUTOFF_CRASHED,
                     m->guest_left ? VZ_STOPPED_SHUTDOWN : VZ_STOPPED_CRASHED, &err))
        vz_error(vz_domain_name(domain), "%s", err->message);
}

void vz_source_close_failed(vz_migration *m, const GError *error)
{
    bool aborted = error && vz_error_number(error) == VZ_ERR_OPERATION_ABORTED;
    g_autofree char *text = error ? vz_error_text(error) : NULL;
    vz_warn(m->id, "migration of '%s' undone: %s", m->domain ? vz_domain_name(m->domain) : "?",
            text ? text : "no reason");
    close_job(m, aborted ? VZ_JOB_CANCELLED : VZ_JOB_FAILED, text);
}

void vz_source_enter_doubt(vz_migration *m)
{
    bool offline = vz_migration_offline(m);
    if (m->retries == 0) {
        vz_domain_add_message(
            m->domain,
            "migration job %s is in doubt: %s does not say whether the guest %s there; it %s here "
            "and %s is asked again",
            m->id, m->peer_name, offline ? "is defined" : "runs",
            offline ? "is not started" : "stays paused", m->peer_name);
        vz_error(m->id, "in doubt: '%s' %s until %s has answered", vz_domain_name(m->domain),
                 offline ? "is not started" : "stays paused", m->peer_name);
    }
    vz_migration_publish(m, VZ_PHASE_IN_DOUBT);
    vz_migrate_retry(m, vz_source_settle);
}

bool vz_source_go_forward(vz_migration *m, GError **err)
{
    vz_saga_result result = vz_saga_run(&m->saga, VZ_PHASE_CONFIRM, err);
    if (result == VZ_SAGA_OK && m->pages_lost) {
        vz_fail(err, VZ_ERR_OPERATION_FAILED,
                "the guest is lost: one side of its post-copy died before all of its memory had "
                "come to %s",
                m->peer_name);
        close_job(m, VZ_JOB_FAILED, (*err)->message);
        return false;
    }
    if (result == VZ_SAGA_OK) {
        vz_info(m->id, "'%s' has moved to %s", vz_domain_name(m->domain), m->peer_name);
        close_job(m, VZ_JOB_COMPLETED, NULL);
        return true;
    }
    if (result == VZ_SAGA_UNDONE)
        vz_source_close_failed(m, *err);
    else if (m->saga.pivoted && !m->postcopy_held)
        vz_migrate_retry(m, vz_source_settle);
    else if (m->saga.pivoted)
        vz_warn(m->id, "%s", (*err)->message);
    else
        vz_source_enter_doubt(m);
    return false;
}

void vz_source_settle(vz_migration *m)
{
    if (!m->domain || m->busy)
        return;
    g_autoptr(GError) err = NULL;
    m->busy++;
    vz_migration_uncancel(m);
    vz_saga_result result = vz_saga_settle(&m->saga, &err);
    if (result == VZ_SAGA_UNDONE) {
        vz_fail(&err, VZ_ERR_OPERATION_ABORTED, "%s",
                m->abort_reason ? m->abort_reason : "the migration was given up");
        vz_source_close_failed(m, err);
    } else if (result == VZ_SAGA_PENDING) {
        vz_source_enter_doubt(m);
    } else {
        vz_source_go_forward(m, &err);
    }
    m->busy--;
}

static void settle_task(vz_domain *domain, void *data)
{
    (void)domain;
    vz_source_settle(data);
}

void vz_source_settle_later(vz_migration *m)
{
    vz_domain_post(m->domain, VZ_TASK_NORMAL, settle_task, vz_migration_ref(m),
                   (GDestroyNotify)vz_migration_unref);
}

void vz_source_give_up(vz_migration *m, const char *reason)
{
    if (!m->abort_reason)
        m->abort_reason = g_strdup(reason);
    vz_source_settle(m);
}

void vz_source_client_lost(vz_migration *m)
{
    if (m->switched) {
        /* It goes on without a client: who is busy with it sees the reason at its end. */
        if (!m->abort_reason)
            m->abort_reason = g_strdup("the client that drove the migration has gone");
        if (!m->busy)
            vz_source_settle_later(m);
        return;
    }
    if (m->busy) {
        vz_migration_abort(m, "the client that drove the migration has gone");
        return;
    }
    vz_source_give_up(m, "the client that drove the migration has gone");
}

/* It is ours again, so users may resume it. */
static void leave_paused(vz_migration *m, const vz_snapshot *snapshot, vz_paused_reason reason)
{
    if (snapshot->state == VZ_STATE_PAUSED && snapshot->reason == VZ_PAUSED_MIGRATION)
        vz_life_state(m->domain, VZ_STATE_PAUSED, (int)reason);
}

void vz_source_resume_guest(vz_migration *m)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    bool by_user = snapshot->state == VZ_STATE_PAUSED && snapshot->reason != VZ_PAUSED_MIGRATION;
    if (!m->was_running)
        leave_paused(m, snapshot, VZ_PAUSED_USER);
    if (m->guest_died || m->guest_left || !m->was_running || by_user)
        return;
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_migration_qemu(m, &err);
    if (!qemu || !vz_qemu_cont(qemu, &err)) {
        vz_error(m->id, "'%s' stays paused here: %s", vz_domain_name(m->domain), err->message);
        vz_domain_add_message(m->domain, "not resumed after the migration was undone: %s",
                              err->message);
        leave_paused(m, snapshot, VZ_PAUSED_UNKNOWN);
        return;
    }
    m->paused_at_us = 0;
    if (snapshot->state == VZ_STATE_PAUSED)
        vz_life_changed(m->domain, VZ_STATE_RUNNING, VZ_RUNNING_MIGRATION_CANCELED,
                        VZ_EVENT_RESUMED, VZ_RESUMED_MIGRATED);
}

/* --- after a restart --- */

static bool reload(vz_migration *m, uint8_t ret_uuid[VZ_UUID_BYTES], GError **err)
{
    g_autofree char *facts = vz_journal_get(m->journal, VZ_NOTE_FACTS);
    g_autofree char *was_running = vz_journal_get(m->journal, "was-running");
    g_autofree char *offered = vz_journal_get(m->journal, "disks-offered");
    if (!facts || !vz_migration_domain_uuid(m, ret_uuid))
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the record names no domain");
    m->release = vz_journal_get(m->journal, VZ_NOTE_RELEASE);
    m->disks_offered = offered ? json_loads(offered, 0, NULL) : NULL;
    m->was_running = was_running && strcmp(was_running, "yes") == 0;
    m->options = vz_options_new();
    m->saga.steps = vz_source_steps;
    m->saga.facts = g_ascii_strtoull(facts, NULL, 10);
    vz_postcopy_reload(m);
    return vz_saga_recover(&m->saga, err);
}

static void recover(vz_domain *domain, void *data)
{
    vz_migration *m = data;
    g_autoptr(GError) err = NULL;
    if (!vz_migration_attach(m, domain, &vz_source_ops, &err)) {
        vz_error(m->id, "the migration cannot be settled: %s", err->message);
        return;
    }
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    m->guest_died =
        !vz_migration_offline(m) && !vz_snapshot_active(snapshot) && vz_migration_process_dead(m);
    vz_source_give_up(m, "virtvzd was restarted during the migration");
}

/* A guest that was let go and has died here since, of a transient domain: its place is held, so
 * that nobody starts another of its name before the destination has said what became of it. */
static vz_domain *hold_place(vz_migration *m, const uint8_t uuid[VZ_UUID_BYTES], GError **err)
{
    g_autofree char *name = vz_journal_get(m->journal, VZ_NOTE_NAME);
    char text[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(uuid, text);
    vz_domain *domain = vz_table_reserve(vz_migrate_settings(m->service)->table, uuid,
                                         name ? name : text, VZ_RESERVE_DEFINE, err);
    m->reserved = domain != NULL;
    return domain;
}

/* Is there anything that only the domain's actor can do? */
static bool needs_actor(const vz_migration *m, const vz_domain *domain)
{
    vz_record record = vz_journal_state(m->journal);
    if (record == VZ_RECORD_ENDED)
        return false;
    return domain || (record == VZ_RECORD_RELEASED && !m->saga.pivoted);
}

void vz_source_recover(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) none = NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    if (!reload(m, uuid, &err)) {
        vz_error(m->id, "the migration cannot be settled: %s", err->message);
        return;
    }
    g_autoptr(vz_domain) domain =
        vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, &none);
    if (!needs_actor(m, domain)) {
        if (m->saga.pivoted && vz_journal_state(m->journal) != VZ_RECORD_ENDED &&
            !vz_journal_step_done(m->journal, "put-aside"))
            vz_source_put_disks_aside(m, NULL);
        vz_migration_stop_carrier(m);
        if (m->disks_offered)
            vz_identify_remove(NULL, m->disks_offered);
        end_record(m);
        return;
    }
    if (!domain)
        domain = hold_place(m, uuid, &err);
    if (!domain) {
        vz_error(m->id, "the migration cannot be settled: %s", err->message);
        return;
    }
    vz_info(m->id, "settling the migration of '%s' after a restart", vz_domain_name(domain));
    vz_domain_post(domain, VZ_TASK_NORMAL, recover, vz_migration_ref(m),
                   (GDestroyNotify)vz_migration_unref);
}
