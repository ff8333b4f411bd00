/* destination.c - see destination.h. */
#include "migrate/destination.h"

#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "migrate/service.h"
#include "migrate/stats.h"
#include "storage/lease.h"

#include <stdlib.h>
#include <string.h>

#define NOTE_OLD_CONFIG "old-config"

/* --- the end of a job --- */

static void give_place_back(vz_migration *m, vz_domain *domain)
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

/* Nothing of the guest is left here; the record stays, to answer, if there can be a question. */
static void close_aborted(vz_migration *m, const char *reason)
{
    g_autoptr(vz_domain) domain = m->domain ? vz_domain_ref(m->domain) : NULL;
    vz_warn(m->id, "arrival of '%s' undone: %s", domain ? vz_domain_name(domain) : "?", reason);
    vz_migration_detach(m, VZ_JOB_FAILED, reason);
    give_place_back(m, domain);
    g_atomic_int_set(&m->dissolved, 1);
    forget_unless_probed(m);
}

static void close_started(vz_migration *m)
{
    g_autoptr(vz_domain) domain = vz_domain_ref(m->domain);
    vz_info(m->id, "'%s' has arrived from %s", vz_domain_name(domain), m->peer_name);
    vz_migration_detach(m, VZ_JOB_COMPLETED, NULL);
    if (m->guest_died) /* it has run here, but not for long; the job kept that to itself */
        vz_life_guest_ended(domain);
    give_place_back(m, domain);
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
        close_aborted(m, reason);
        return;
    }
    vz_error(m->id, "'%s' may have run here: %s", vz_domain_name(domain), reason);
    vz_migration_detach(m, VZ_JOB_FAILED, reason);
    vz_life_guest_ended(domain);
    give_place_back(m, domain);
    g_atomic_int_set(&m->dissolved, 1);
}

/* Makes the record final, then takes everything back. Where the record cannot be written the guest
 * stays as it is: nothing that is not durable may be told to the source. */
static void give_up(vz_migration *m, const char *reason)
{
    g_autoptr(GError) err = NULL;
    vz_record record = vz_journal_state(m->journal);
    if (record != VZ_RECORD_ABORTED && !vz_journal_advance(m->journal, VZ_RECORD_ABORTED, &err)) {
        vz_error(m->id, "cannot give up: %s", err->message);
        return;
    }
    m->busy++;
    vz_migration_uncancel(m);
    if (vz_saga_settle(&m->saga, &err) == VZ_SAGA_UNDONE)
        close_aborted(m, reason);
    else
        vz_error(m->id, "cannot be undone: %s", err ? err->message : "it was committed");
    m->busy--;
}

/* A job whose start failed: tried again until it works or QEMU is dead. */
static void go_forward_again(vz_migration *m)
{
    if (!m->domain || m->busy)
        return;
    g_autoptr(GError) err = NULL;
    m->busy++;
    vz_migration_uncancel(m);
    if (m->guest_died && vz_journal_state(m->journal) != VZ_RECORD_STARTED) {
        close_dead(m);
    } else if (vz_saga_run(&m->saga, VZ_PHASE_FINISH, &err) == VZ_SAGA_OK) {
        close_started(m);
    } else {
        vz_error(m->id, "'%s' is committed to run here, but does not start: %s",
                 vz_domain_name(m->domain), err->message);
        vz_migrate_retry(m, go_forward_again);
    }
    m->busy--;
}

/* --- Prepare --- */

static bool take_source(vz_migration *m, const vz_cookie *cookie, GError **err)
{
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    if (!cookie->fingerprint || !vz_fingerprint_parse(cookie->fingerprint, fingerprint) ||
        !cookie->release_hash)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie names no valid key");
    m->peer_fingerprint = g_strdup(cookie->fingerprint);
    m->peer_name = g_strdup(cookie->host_name);
    m->release = g_strdup(cookie->release_hash);
    m->disks_offered = json_incref(cookie->disks);
    return true;
}

/* What persist will overwrite, for an undo after a restart. */
static bool note_old_config(vz_migration *m, GError **err)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    if (!(m->saga.facts & VZ_FACT_PERSIST_DEST) || !snapshot->config)
        return true;
    m->old_config = vz_def_ref(snapshot->config);
    g_autofree char *xml =
        vz_def_format(m->old_config, VZ_DEF_FORMAT_SECURE | VZ_DEF_FORMAT_INACTIVE);
    return vz_migration_note(m, NOTE_OLD_CONFIG, xml, err);
}

static bool note_prepare(vz_migration *m, GError **err)
{
    g_autofree char *facts = g_strdup_printf("%" G_GUINT64_FORMAT, m->saga.facts);
    return vz_migration_note(m, VZ_NOTE_DOMAIN, vz_domain_uuid_text(m->domain), err) &&
           vz_migration_note(m, "name", vz_domain_name(m->domain), err) &&
           vz_migration_note(m, VZ_NOTE_FACTS, facts, err) &&
           vz_migration_note(m, VZ_NOTE_PEER_NAME, m->peer_name, err) &&
           vz_migration_note(m, VZ_NOTE_PEER_FINGERPRINT, m->peer_fingerprint, err) &&
           note_old_config(m, err) && vz_journal_sync(m->journal, err);
}

static uint64_t facts_of(const vz_options *options, const vz_def *def)
{
    uint64_t facts = vz_options_has(options, VZ_OPTION_PERSIST_DEST) ? VZ_FACT_PERSIST_DEST : 0;
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].path)
            facts |= VZ_FACT_DISKS;
    return facts;
}

static char *prepare_cookie(const vz_migration *m)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autofree char *fingerprint = g_strdup(vz_channel_keys_fingerprint(m->keys));
    g_autofree char *host_name = g_strdup(settings->host_name);
    g_autofree char *incarnation = g_strdup(vz_migrate_incarnation(m->service));
    vz_cookie cookie = {.host_name = host_name,
                        .fingerprint = fingerprint,
                        .incarnation = incarnation,
                        .port = vz_port_number(vz_migrate_port(m->service)),
                        .disks = m->disks_answered};
    memcpy(cookie.job, m->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    return vz_cookie_format(&cookie);
}

/* A failed Prepare leaves no record: its caller never learned of one, so nobody will ask. */
static void discard(vz_migration *m, vz_domain *domain, const char *reason)
{
    vz_warn(m->id, "arrival of '%s' refused: %s", vz_domain_name(domain), reason);
    vz_migration_detach(m, VZ_JOB_FAILED, reason);
    give_place_back(m, domain);
    vz_migration_forget(m);
}

bool vz_destination_prepare(vz_migrate *service, vz_domain *domain,
                            const vz_destination_request *request, vz_migration **ret_migration,
                            char **ret_cookie, GError **err)
{
    g_autoptr(vz_migration) m =
        vz_migration_create(service, VZ_SIDE_DESTINATION, request->cookie->job, err);
    if (!m) {
        vz_table_release(domain, VZ_RESERVE_START);
        return false;
    }
    m->reserved = true;
    m->options = vz_options_copy(request->options);
    m->def = vz_def_ref(request->def);
    m->saga.steps = vz_destination_steps;
    m->saga.facts = facts_of(m->options, m->def);
    m->cookie_in = request->cookie;
    m->busy++;
    bool ok = take_source(m, request->cookie, err) &&
              vz_migration_attach(m, domain, &vz_destination_ops, err) && note_prepare(m, err) &&
              vz_saga_run(&m->saga, VZ_PHASE_PREPARE, err) == VZ_SAGA_OK;
    m->cookie_in = NULL;
    m->busy--;
    if (!ok) {
        discard(m, domain, (*err)->message);
        return false;
    }
    vz_migration_publish(m, "memory");
    *ret_cookie = prepare_cookie(m);
    *ret_migration = g_steal_pointer(&m);
    return true;
}

/* --- Finish --- */

vz_def *vz_destination_config(const vz_migration *m, GError **err)
{
    if (!m->config_xml) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the source sent no persistent definition");
        return NULL;
    }
    g_autoptr(vz_def) parsed = vz_migrate_settings(m->service)->parse(m->config_xml, err);
    if (!parsed)
        return NULL;
    vz_def *config = vz_def_copy(parsed);
    g_free(config->name);
    config->name = g_strdup(vz_domain_name(m->domain));
    memcpy(config->uuid, vz_domain_uuid(m->domain), VZ_UUID_BYTES);
    return config;
}

static bool refuse_finish(const vz_migration *m, GError **err)
{
    return vz_fail(err, VZ_ERR_MIGRATE_FINISH_OK,
                   "nothing of the guest is left on the destination; it goes on at %s",
                   m->peer_name);
}

static bool finish(vz_migration *m, const vz_cookie *cookie, const vz_options *options,
                   GError **err)
{
    m->cookie_in = cookie;
    m->config_xml = g_strdup(cookie->config_xml);
    m->run_on_arrival = cookie->running && !vz_options_has(options, VZ_OPTION_PAUSED);
    if (cookie->stats)
        vz_stats_from_json(cookie->stats, &m->stats);
    m->busy++;
    vz_saga_result result =
        vz_migration_note(m, "run-on-arrival", m->run_on_arrival ? "yes" : "no", err)
            ? vz_saga_run(&m->saga, VZ_PHASE_FINISH, err)
            : vz_saga_settle(&m->saga, err);
    m->cookie_in = NULL;
    m->busy--;
    if (result == VZ_SAGA_OK) {
        uint64_t here_us = (uint64_t)(m->resumed_at_us - m->finish_at_us);
        m->stats.downtime_ms = (cookie->paused_us + here_us) / 1000;
        close_started(m);
        return true;
    }
    if (result == VZ_SAGA_PENDING) {
        vz_migrate_retry(m, go_forward_again);
        return false;
    }
    g_autoptr(GError) ignored = NULL;
    if (vz_journal_state(m->journal) != VZ_RECORD_ABORTED)
        vz_journal_advance(m->journal, VZ_RECORD_ABORTED, &ignored);
    close_aborted(m, (*err)->message);
    return false;
}

bool vz_destination_finish(vz_migration *m, const vz_cookie *cookie, const vz_options *options,
                           bool cancelled, GError **err)
{
    m->finish_at_us = vz_now_us();
    vz_record record = vz_journal_state(m->journal);
    if (record == VZ_RECORD_STARTED)
        return true;
    if (record == VZ_RECORD_ABORTED || !m->domain)
        return refuse_finish(m, err); /* without a domain: undone, but the record could not say */
    if (record >= VZ_RECORD_COMMITTED)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "the guest is committed to run here, but has not started yet");
    if (cancelled || !cookie) {
        give_up(m, cancelled ? "the client cancelled the migration"
                             : "Finish came without the source's cookie");
        return refuse_finish(m, err);
    }
    return finish(m, cookie, options, err);
}

char *vz_destination_finish_cookie(const vz_migration *m)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autofree char *host_name = g_strdup(settings->host_name);
    vz_cookie cookie = {.host_name = host_name};
    memcpy(cookie.job, m->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    if (m->resumed_at_us)
        cookie.reply_us = (uint64_t)(vz_now_us() - m->resumed_at_us);
    return vz_cookie_format(&cookie);
}

void vz_destination_client_lost(vz_migration *m)
{
    if (m->domain && !m->busy && vz_journal_state(m->journal) < VZ_RECORD_COMMITTED)
        give_up(m, "the client that drove the migration has gone");
}

/* --- being asked --- */

static void dissolve(vz_domain *domain, void *data)
{
    (void)domain;
    vz_migration *m = data;
    if (m->busy) /* a Finish that waits: its saga undoes everything, since it cannot commit */
        vz_migration_abort(m, "the source was told that the move is off");
    else if (m->domain)
        give_up(m, m->abort_reason ? m->abort_reason : "the source was told that the move is off");
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

void vz_destination_dissolve(vz_migration *m, const char *reason)
{
    (void)reason;
    g_autoptr(vz_domain) domain = g_atomic_int_get(&m->dissolved) ? NULL : find_domain(m);
    if (domain)
        vz_domain_post(domain, VZ_TASK_DURING_JOB, dissolve, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
}

/* --- what others may do to the job --- */

static bool op_abort(vz_domain *domain, void *job, GError **err)
{
    (void)domain;
    vz_migration *m = job;
    if (vz_journal_state(m->journal) >= VZ_RECORD_COMMITTED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the guest is already starting here");
    if (m->busy)
        vz_migration_abort(m, "job 'migration in' canceled by client");
    else
        give_up(m, "job 'migration in' canceled by client");
    return true;
}

static bool op_refuse(vz_domain *domain, void *job, bool *ret_handled, GError **err)
{
    (void)ret_handled;
    const vz_migration *m = job;
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "domain '%s' is arriving from %s (migration job %s)", vz_domain_name(domain),
                   m->peer_name, m->id);
}

static bool op_event(vz_domain *domain, void *job, const char *name, const struct json_t *data,
                     int64_t when_us)
{
    (void)domain;
    (void)data;
    (void)when_us;
    vz_migration *m = job;
    if (strcmp(name, "MIGRATION") == 0)
        m->memory_event = true;
    /* The steps say what the guest's state is until the job ends. */
    return strcmp(name, "MIGRATION") == 0 || strcmp(name, "STOP") == 0 ||
           strcmp(name, "RESUME") == 0;
}

static void died_later(vz_domain *domain, void *data)
{
    (void)domain;
    vz_migration *m = data;
    if (m->domain && vz_journal_state(m->journal) < VZ_RECORD_COMMITTED)
        give_up(m, "QEMU ended on the destination while the guest arrived");
    else if (m->domain)
        go_forward_again(m);
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
    .destroy = op_abort,
    .event = op_event,
    .died = op_died,
};

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
    g_autofree char *xml = vz_journal_get(m->journal, NOTE_OLD_CONFIG);
    m->old_config = xml ? vz_migrate_settings(m->service)->parse(xml, &err) : NULL;
    m->persisted = !err;
    if (err)
        vz_error(m->id, "its definition stays as it is, for the one before cannot be read: %s",
                 err->message);
}

static void recover(vz_domain *domain, void *data)
{
    vz_migration *m = data;
    g_autoptr(GError) err = NULL;
    reload_old_config(m);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    m->guest_died = !vz_snapshot_active(snapshot);
    m->def = snapshot->live ? vz_def_ref(snapshot->live) : NULL;
    if (!vz_migration_attach(m, domain, &vz_destination_ops, &err)) {
        vz_error(m->id, "the arrival cannot be settled: %s", err->message);
        return;
    }
    if (vz_journal_state(m->journal) >= VZ_RECORD_COMMITTED &&
        vz_journal_state(m->journal) <= VZ_RECORD_STARTED)
        go_forward_again(m);
    else
        give_up(m, "virtvzd was restarted while the guest arrived");
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

void vz_destination_recover(vz_migration *m)
{
    vz_record record = vz_journal_state(m->journal);
    g_autoptr(GError) err = NULL;
    if (record == VZ_RECORD_STARTED) {
        g_autoptr(vz_domain) arrived = find_domain(m);
        vz_migration_stop_carrier(m);
        if (arrived)
            vz_domain_post(arrived, VZ_TASK_NORMAL, take_over_paused, NULL, NULL);
        return;
    }
    g_autofree char *facts = vz_journal_get(m->journal, VZ_NOTE_FACTS);
    g_autofree char *run = vz_journal_get(m->journal, "run-on-arrival");
    m->saga.steps = vz_destination_steps;
    m->saga.facts = facts ? g_ascii_strtoull(facts, NULL, 10) : 0;
    m->run_on_arrival = run && strcmp(run, "yes") == 0;
    m->options = vz_options_new();
    vz_saga_recover(&m->saga);
    g_autoptr(vz_domain) domain = find_domain(m);
    if (domain) {
        vz_domain_post(domain, VZ_TASK_NORMAL, recover, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
        return;
    }
    /* No guest was found again, so there is none: its process would have been adopted. */
    if (record < VZ_RECORD_COMMITTED && !vz_journal_advance(m->journal, VZ_RECORD_ABORTED, &err))
        vz_error(m->id, "%s", err->message);
    vz_migration_stop_carrier(m);
    if (vz_journal_state(m->journal) == VZ_RECORD_ABORTED)
        vz_destination_give_leases_back(m);
    g_atomic_int_set(&m->dissolved, 1);
    if (vz_journal_state(m->journal) == VZ_RECORD_ABORTED)
        forget_unless_probed(m);
}
