/* destination_settle.c - see destination_settle.h. */
#include "migrate/destination_settle.h"

#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "driver/qemu/userfault.h"
#include "migrate/disks.h"
#include "migrate/memory.h"
#include "migrate/postcopy.h"
#include "migrate/service.h"
#include "migrate/trail.h"
#include "storage/lease.h"

#include <stdlib.h>
#include <string.h>

/* --- the end of a job --- */

void vz_destination_give_place_back(vz_migration *m, vz_domain *domain)
{
    if (m->reserved)
        vz_table_release(domain, VZ_RESERVE_START);
    m->reserved = false;
}

/* A source that never asked cannot have released, so it will never ask. */
static void forget_unless_probed(vz_migration *m)
{
    g_autofree char *probed = vz_journal_get(m->journal, VZ_NOTE_PROBED);
    if (!probed)
        vz_migration_forget(m);
}

void vz_destination_close_aborted(vz_migration *m, const char *reason)
{
    g_autoptr(vz_domain) domain = m->domain ? vz_domain_ref(m->domain) : NULL;
    vz_warn(m->id, "arrival of '%s' undone: %s", domain ? vz_domain_name(domain) : "?", reason);
    vz_migration_detach(m, VZ_JOB_FAILED, reason);
    vz_destination_give_place_back(m, domain);
    g_atomic_int_set(&m->dissolved, 1);
    forget_unless_probed(m);
}

void vz_destination_close_started(vz_migration *m)
{
    g_autoptr(vz_domain) domain = vz_domain_ref(m->domain);
    vz_info(m->id, "'%s' has arrived from %s", vz_domain_name(domain), m->peer_name);
    vz_migration_detach(m, VZ_JOB_COMPLETED, NULL);
    if (m->guest_died) /* it has run here, but not for long; the job kept that to itself */
        vz_life_guest_ended(domain);
    vz_destination_give_place_back(m, domain);
}

/* QEMU is dead after the commit. A guest whose start was not tried cannot have run: the commit is
 * revoked, and the source goes on with it. Else nobody can know, and that is the answer. */
static void close_dead(vz_migration *m)
{
    static const char reason[] = "QEMU ended on the destination before the guest was seen to run";
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_domain) domain = vz_domain_ref(m->domain);
    if (vz_journal_revoke(m->journal, &err)) {
        vz_saga_revoke(&m->saga);
        vz_destination_close_aborted(m, reason);
        return;
    }
    vz_error(m->id, "'%s' may have run here: %s", vz_domain_name(domain), reason);
    vz_migration_detach(m, VZ_JOB_FAILED, reason);
    vz_life_guest_ended(domain);
    vz_destination_give_place_back(m, domain);
    g_atomic_int_set(&m->dissolved, 1);
}

static void give_up_again(vz_migration *m)
{
    if (m->domain && !m->busy && vz_journal_state(m->journal) < VZ_RECORD_COMMITTED)
        vz_destination_give_up(m, m->abort_reason);
}

/* Makes the record final, then takes everything back. Where the record cannot be written the guest
 * stays as it is, and it is tried again: nothing that is not durable may be told to the source. */
void vz_destination_give_up(vz_migration *m, const char *reason)
{
    g_autoptr(GError) err = NULL;
    vz_record record = vz_journal_state(m->journal);
    if (!m->abort_reason)
        m->abort_reason = g_strdup(reason);
    if (record != VZ_RECORD_ABORTED && !vz_journal_advance(m->journal, VZ_RECORD_ABORTED, &err)) {
        vz_error(m->id, "the arrival of '%s' cannot be given up yet: %s", vz_domain_name(m->domain),
                 err->message);
        vz_migrate_retry(m, give_up_again);
        return;
    }
    m->busy++;
    vz_migration_uncancel(m);
    vz_saga_revoke(&m->saga); /* the record has decided */
    vz_destination_close_aborted(m, m->abort_reason);
    m->busy--;
}

/* A definition is whole at the source, on disk, until this host has committed: nothing is lost. */
bool vz_destination_has_everything(vz_migration *m)
{
    if (vz_migration_offline(m))
        return false;
    vz_memory_status status = VZ_MEMORY_NONE;
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_migration_qemu(m, &err);
    return qemu && vz_memory_query(vz_qemu_qmp(qemu), &status, NULL, NULL, &err) &&
           status == VZ_MEMORY_COMPLETED;
}

void vz_destination_leave(vz_migration *m, const char *reason)
{
    bool switched = vz_destination_may_be_switched(m);
    if (vz_journal_state(m->journal) == VZ_RECORD_ABORTED ||
        (!switched && !vz_destination_has_everything(m))) {
        vz_destination_give_up(m, reason);
        return;
    }
    const char *what =
        switched ? "the guest may have been switched to post-copy" : "all of the guest has come";
    vz_domain_add_message(m->domain,
                          "migration job %s is in doubt: %s, but %s; it stays paused here until %s "
                          "asks for it",
                          m->id, reason, what, m->peer_name);
    vz_error(m->id, "in doubt: %s, but of '%s' %s; it is kept until %s asks for it", reason,
             vz_domain_name(m->domain), what, m->peer_name);
    vz_migration_publish(m, VZ_PHASE_IN_DOUBT);
}

void vz_destination_go_forward_again(vz_migration *m)
{
    if (!m->domain || m->busy)
        return;
    g_autoptr(GError) err = NULL;
    m->busy++;
    vz_migration_uncancel(m);
    vz_record record = vz_journal_state(m->journal);
    if (record == VZ_RECORD_ABORTED) {
        vz_destination_give_up(m, "the source's operator has taken the guest back");
    } else if (m->guest_died && record != VZ_RECORD_STARTED) {
        close_dead(m);
    } else if (vz_saga_run(&m->saga, VZ_PHASE_FINISH, &err) == VZ_SAGA_OK) {
        vz_destination_arrived(m);
    } else {
        vz_error(m->id, "'%s' is committed to run here, but does not start: %s",
                 vz_domain_name(m->domain), err->message);
        vz_migrate_retry(m, vz_destination_go_forward_again);
    }
    m->busy--;
}

void vz_destination_client_lost(vz_migration *m)
{
    if (m->domain && !m->busy && vz_journal_state(m->journal) < VZ_RECORD_COMMITTED)
        vz_destination_leave(m, "the client that drove the migration has gone");
}

/* --- being asked --- */

static void dissolve(vz_domain *domain, void *data)
{
    (void)domain;
    vz_migration *m = data;
    if (m->busy) /* a Finish that waits: its saga undoes everything, since it cannot commit */
        vz_migration_abort(m, "the source was told that the move is off");
    else if (m->domain)
        vz_destination_give_up(m, m->abort_reason ? m->abort_reason
                                                  : "the source was told that the move is off");
}

/* The source's operator took the guest back: what arrived here, running or not, goes away. */
static void condemn(vz_domain *domain, void *data)
{
    vz_migration *m = data;
    g_autoptr(GError) err = NULL;
    if (!m->domain && !vz_migration_attach(m, domain, &vz_destination_ops, &err))
        vz_error(m->id, "'%s' cannot be taken away: %s", vz_domain_name(domain), err->message);
    else
        vz_destination_give_up(m, "the source's operator has taken the guest back");
}

static void finish_alone(vz_domain *domain, void *data)
{
    vz_migration *m = data;
    g_autoptr(GError) err = NULL;
    if (!m->domain || vz_journal_state(m->journal) >= VZ_RECORD_COMMITTED ||
        vz_destination_finish_alone(m, &err))
        return;
    vz_warn(m->id, "'%s' is not started although the source's copy is dead: %s",
            vz_domain_name(domain), err->message);
    if (m->domain && !m->no_way_back && vz_journal_state(m->journal) < VZ_RECORD_COMMITTED &&
        !vz_destination_has_everything(m))
        vz_destination_give_up(m, "the source's copy has died, and not all of it has come");
}

static void finish_switched(vz_domain *domain, void *data)
{
    vz_migration *m = data;
    m->no_way_back = true;
    finish_alone(domain, data);
}

static void keep(vz_domain *domain, void *data)
{
    (void)domain;
    vz_migration *m = data;
    if (m->domain && !m->busy && !vz_migration_in_doubt(m) &&
        vz_journal_state(m->journal) < VZ_RECORD_COMMITTED)
        vz_destination_leave(m, "the source's copy has died, and may have run on before that");
}

/* A reference, or NULL. Any thread. */
static vz_domain *find_domain(const vz_migration *m)
{
    g_autoptr(GError) ignored = NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    if (!vz_migration_domain_uuid(m, uuid))
        return NULL;
    return vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, &ignored);
}

static bool post(vz_migration *m, vz_domain *domain, vz_task_class kind, vz_domain_fn run)
{
    return vz_domain_post(domain, kind, run, vz_migration_ref(m),
                          (GDestroyNotify)vz_migration_unref);
}

/* Of a guest of which something is here. */
static bool post_if_here(vz_migration *m, vz_task_class kind, vz_domain_fn run)
{
    g_autoptr(vz_domain) domain = g_atomic_int_get(&m->dissolved) ? NULL : find_domain(m);
    return domain && post(m, domain, kind, run);
}

void vz_destination_dissolve(vz_migration *m)
{
    post_if_here(m, VZ_TASK_DURING_JOB, dissolve);
}

void vz_destination_condemn(vz_migration *m)
{
    g_autoptr(vz_domain) domain = find_domain(m);
    if (domain) {
        post(m, domain, VZ_TASK_NORMAL, condemn);
        return;
    }
    vz_destination_remove_disks(m);
    g_atomic_int_set(&m->dissolved, 1);
}

bool vz_destination_go_on_alone(vz_migration *m, bool switched)
{
    return post_if_here(m, VZ_TASK_NORMAL, switched ? finish_switched : finish_alone);
}

bool vz_destination_keep(vz_migration *m)
{
    return post_if_here(m, VZ_TASK_NORMAL, keep);
}

/* --- after a restart --- */

void vz_destination_give_leases_back(vz_migration *m)
{
    g_autofree char *text = vz_journal_get(m->journal, VZ_NOTE_LEASES);
    json_t *images = text ? json_loads(text, 0, NULL) : NULL;
    g_clear_pointer(&m->leases, vz_lease_arrival_free);
    vz_lease_give_back(images, m->id);
    json_decref(images);
}

/* What persist did, if it was begun; a step that was not is not undone. */
static void reload_old_config(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = vz_journal_get(m->journal, VZ_NOTE_OLD_CONFIG);
    m->old_config = xml ? vz_migrate_settings(m->service)->parse(xml, &err) : NULL;
    m->persisted = !err;
    if (err)
        vz_error(m->id, "its definition stays as it is, for the one before cannot be read: %s",
                 err->message);
}

/* A guest that was to stay paused, of which the record was quicker than the status file. */
static void take_over_paused(vz_domain *domain, void *data)
{
    (void)data;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (!snapshot->has_job && snapshot->state == VZ_STATE_PAUSED &&
        snapshot->reason == VZ_PAUSED_MIGRATION)
        vz_life_state(domain, VZ_STATE_PAUSED, VZ_PAUSED_USER);
}

static void recover(vz_domain *domain, void *data)
{
    vz_migration *m = data;
    g_autoptr(GError) err = NULL;
    reload_old_config(m);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    /* One that was started is left alone where only its status is lost. */
    bool started = vz_journal_state(m->journal) == VZ_RECORD_STARTED;
    if (!vz_migration_offline(m) && !vz_snapshot_active(snapshot))
        m->guest_died = started ? vz_migration_process_dead(m) : vz_migration_end_process(m);
    m->def = snapshot->live ? vz_def_ref(snapshot->live) : NULL;
    if (!vz_migration_attach(m, domain, &vz_destination_ops, &err)) {
        vz_error(m->id, "the arrival cannot be settled: %s", err->message);
        return;
    }
    if (vz_journal_state(m->journal) >= VZ_RECORD_COMMITTED &&
        vz_journal_state(m->journal) <= VZ_RECORD_STARTED)
        vz_destination_go_forward_again(m);
    else
        vz_destination_leave(m, "virtvzd was restarted while the guest arrived");
    take_over_paused(domain, NULL);
}

/* No guest was found again. That is no proof, for its status may be lost; its process is. */
static void recover_without_guest(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *process = vz_journal_get(m->journal, VZ_NOTE_PROCESS);
    if (vz_journal_state(m->journal) < VZ_RECORD_COMMITTED &&
        !vz_journal_advance(m->journal, VZ_RECORD_ABORTED, &err))
        vz_error(m->id, "%s", err->message);
    vz_migration_stop_carrier(m);
    if (!vz_migration_end_process(m)) {
        vz_error(m->id, "the process of its guest (%s) does not end, so nothing is said of it",
                 process ? process : "unknown");
        return;
    }
    if (vz_journal_state(m->journal) == VZ_RECORD_ABORTED) {
        vz_destination_give_leases_back(m); /* which look for the images */
        vz_destination_remove_disks(m);
        vz_trail_call_off(m);
    }
    g_atomic_int_set(&m->dissolved, 1);
    if (vz_journal_state(m->journal) == VZ_RECORD_ABORTED)
        forget_unless_probed(m);
}

void vz_destination_recover(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *facts = vz_journal_get(m->journal, VZ_NOTE_FACTS);
    g_autofree char *run = vz_journal_get(m->journal, "run-on-arrival");
    m->saga.steps = vz_destination_steps;
    m->saga.facts = facts ? g_ascii_strtoull(facts, NULL, 10) : 0;
    m->run_on_arrival = run && strcmp(run, "yes") == 0;
    m->release = vz_journal_get(m->journal, VZ_NOTE_RELEASE);
    m->options = vz_options_new();
    vz_postcopy_reload(m);
    if (!vz_saga_recover(&m->saga, &err)) {
        vz_error(m->id, "the arrival cannot be settled: %s", err->message);
        return;
    }
    g_autoptr(vz_domain) domain = find_domain(m);
    if (vz_journal_state(m->journal) == VZ_RECORD_STARTED && !domain &&
        !vz_saga_is_over(&m->saga) && !vz_migration_process_dead(m))
        return; /* its pages go on coming */
    if (vz_journal_state(m->journal) == VZ_RECORD_STARTED &&
        (!domain || vz_saga_is_over(&m->saga))) {
        vz_migration_stop_carrier(m);
        if (domain)
            vz_domain_post(domain, VZ_TASK_NORMAL, take_over_paused, NULL, NULL);
        return;
    }
    if (domain) {
        m->has_userfault = m->stream.postcopy && vz_userfault_keep();
        vz_domain_post(domain, VZ_TASK_NORMAL, recover, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
        return;
    }
    recover_without_guest(m);
}
