/* source.c - see source.h. */
#include "migrate/source.h"

#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "migrate/memory.h"
#include "migrate/service.h"
#include "migrate/stats.h"
#include "migrate/uri.h"
#include "migrate/verdict.h"

#include <stdlib.h>
#include <string.h>

static void settle(vz_migration *m);

/* --- the end of a job --- */

/* The destination may forget only what is durable here; where it knows of the job it is told, and
 * until it has heard the record here stays, to tell it again after a restart. */
static void end_record(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    if (!m->peer_fingerprint || !m->incarnation)
        vz_migration_forget(m);
    else if (vz_journal_state(m->journal) == VZ_RECORD_ENDED ||
             vz_journal_advance(m->journal, VZ_RECORD_ENDED, &err))
        vz_migrate_errand(m);
    else
        vz_error(m->id, "the job is over, but its record cannot say so: %s", err->message);
}

static void close_job(vz_migration *m, vz_job_type outcome, const char *error_text)
{
    g_autoptr(vz_domain) domain = m->domain ? vz_domain_ref(m->domain) : NULL;
    bool left = m->guest_left || m->guest_died;
    vz_migration_uncancel(m);
    vz_migration_detach(m, outcome, error_text);
    end_record(m);
    if (!domain || outcome == VZ_JOB_COMPLETED || !left)
        return;
    g_autoptr(GError) err = NULL;
    if (!vz_life_end(domain, m->guest_left ? VZ_SHUTOFF_SHUTDOWN : VZ_SHUTOFF_CRASHED,
                     m->guest_left ? VZ_STOPPED_SHUTDOWN : VZ_STOPPED_CRASHED, &err))
        vz_error(vz_domain_name(domain), "%s", err->message);
}

static void close_failed(vz_migration *m, const GError *error)
{
    bool aborted = error && vz_error_number(error) == VZ_ERR_OPERATION_ABORTED;
    g_autofree char *text = error ? vz_error_text(error) : NULL;
    vz_warn(m->id, "migration of '%s' undone: %s", m->domain ? vz_domain_name(m->domain) : "?",
            text ? text : "no reason");
    close_job(m, aborted ? VZ_JOB_CANCELLED : VZ_JOB_FAILED, text);
}

static void enter_doubt(vz_migration *m)
{
    if (m->retries == 0) {
        vz_domain_add_message(
            m->domain,
            "migration job %s is in doubt: %s does not say whether the guest runs "
            "there; it stays paused here and %s is asked again",
            m->id, m->peer_name, m->peer_name);
        vz_error(m->id, "in doubt: '%s' stays paused until %s has answered",
                 vz_domain_name(m->domain), m->peer_name);
    }
    vz_migration_publish(m, "in doubt");
    vz_migrate_retry(m, settle);
}

/* The guest has moved: everything that is left is done, however often it takes. */
static bool go_forward(vz_migration *m, GError **err)
{
    vz_saga_result result = vz_saga_run(&m->saga, VZ_PHASE_CONFIRM, err);
    if (result == VZ_SAGA_OK) {
        vz_info(m->id, "'%s' has moved to %s", vz_domain_name(m->domain), m->peer_name);
        close_job(m, VZ_JOB_COMPLETED, NULL);
        return true;
    }
    if (result == VZ_SAGA_UNDONE)
        close_failed(m, *err);
    else if (m->saga.pivoted)
        vz_migrate_retry(m, settle);
    else
        enter_doubt(m);
    return false;
}

/* From outside a phase: an abort between phases, a lost client, a retry, a restart. */
static void settle(vz_migration *m)
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
        close_failed(m, err);
    } else if (result == VZ_SAGA_PENDING) {
        enter_doubt(m);
    } else {
        go_forward(m, &err);
    }
    m->busy--;
}

/* As a task of its own. */
static void settle_later(vz_domain *domain, void *data)
{
    (void)domain;
    settle(data);
}

/* --- phases --- */

/* Runs one phase; true: done. On failure the job is closed, or left in doubt. */
static bool run_phase(vz_migration *m, vz_phase phase, GError **err)
{
    m->busy++;
    vz_saga_result result = vz_saga_run(&m->saga, phase, err);
    if (result == VZ_SAGA_UNDONE)
        close_failed(m, *err);
    else if (result == VZ_SAGA_PENDING)
        enter_doubt(m);
    m->busy--;
    return result == VZ_SAGA_OK;
}

static uint64_t facts_of(const vz_options *options, const vz_def *def)
{
    uint64_t facts = 0;
    if (!vz_options_has(options, VZ_OPTION_LIVE))
        facts |= VZ_FACT_COMA;
    if (vz_options_has(options, VZ_OPTION_PERSIST_DEST))
        facts |= VZ_FACT_PERSIST_DEST;
    if (vz_options_has(options, VZ_OPTION_UNDEFINE_SOURCE))
        facts |= VZ_FACT_UNDEFINE_SOURCE;
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].path)
            facts |= VZ_FACT_DISKS;
    return facts;
}

static bool note_begin(vz_migration *m, GError **err)
{
    g_autofree char *facts = g_strdup_printf("%" G_GUINT64_FORMAT, m->saga.facts);
    return vz_migration_note(m, VZ_NOTE_DOMAIN, vz_domain_uuid_text(m->domain), err) &&
           vz_migration_note(m, VZ_NOTE_FACTS, facts, err) &&
           vz_migration_note(m, "release", m->release, err) && vz_journal_sync(m->journal, err);
}

static char *begin_cookie(const vz_migration *m)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autofree char *release_hash = vz_release_hash(m->release);
    g_autofree char *fingerprint = g_strdup(vz_channel_keys_fingerprint(m->keys));
    g_autofree char *host_name = g_strdup(settings->host_name);
    vz_cookie cookie = {.host_name = host_name,
                        .fingerprint = fingerprint,
                        .release_hash = release_hash,
                        .disks = m->disks_offered};
    memcpy(cookie.job, m->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    return vz_cookie_format(&cookie);
}

static vz_migration *new_job(vz_migrate *service, vz_domain *domain,
                             const vz_source_request *request, GError **err)
{
    uint8_t job[VZ_UUID_BYTES];
    vz_uuid_generate(job);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (!vz_snapshot_check_active(snapshot, err) || !vz_snapshot_check_no_job(snapshot, err))
        return NULL;
    g_autoptr(vz_migration) m = vz_migration_create(service, VZ_SIDE_SOURCE, job, err);
    if (!m)
        return NULL;
    m->options = vz_options_copy(request->options);
    m->peer_to_peer = request->peer_to_peer;
    m->release = vz_release_generate();
    m->was_running = snapshot->state == VZ_STATE_RUNNING;
    m->saga.steps = vz_source_steps;
    m->saga.facts = facts_of(m->options, snapshot->live);
    if (vz_migration_attach(m, domain, &vz_source_ops, err) && note_begin(m, err))
        return g_steal_pointer(&m);
    vz_migration_detach(m, VZ_JOB_FAILED, (*err)->message);
    vz_migration_forget(m);
    return NULL;
}

bool vz_source_begin(vz_migrate *service, vz_domain *domain, const vz_source_request *request,
                     vz_migration **ret_migration, char **ret_cookie, char **ret_xml, GError **err)
{
    g_autoptr(vz_migration) m = new_job(service, domain, request, err);
    if (!m)
        return false;
    vz_migration_publish(m, "begin");
    if (!run_phase(m, VZ_PHASE_BEGIN, err))
        return false;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    *ret_xml = vz_def_format(snapshot->live, VZ_DEF_FORMAT_MIGRATABLE | VZ_DEF_FORMAT_INACTIVE |
                                                 VZ_DEF_FORMAT_SECURE);
    *ret_cookie = begin_cookie(m);
    *ret_migration = g_steal_pointer(&m);
    return true;
}

vz_migration *vz_source_find(vz_domain *domain, const vz_cookie *cookie, GError **err)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    vz_migration *m =
        snapshot->has_job && snapshot->job.ops == &vz_source_ops ? snapshot->job.data : NULL;
    if (m && (!cookie || memcmp(m->job, cookie->job, VZ_UUID_BYTES) == 0))
        return vz_migration_ref(m);
    vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain '%s' is not being migrated by %s",
            vz_domain_name(domain), m ? "the job that the cookie names" : "any job");
    return NULL;
}

/* Who the destination is: from Prepare's cookie and address. */
static bool take_destination(vz_migration *m, const vz_source_destination *to, GError **err)
{
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    const vz_cookie *cookie = to->cookie;
    if (!cookie->fingerprint || !vz_fingerprint_parse(cookie->fingerprint, fingerprint) ||
        !cookie->incarnation || !vz_uuid_parse(cookie->incarnation, fingerprint))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the destination's cookie names no valid key");
    g_autofree char *host = NULL;
    uint16_t port = 0;
    if (!to->uri)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the destination gave no address");
    if (!vz_uri_parse_data(to->uri, &host, &port, err))
        return false;
    m->peer_fingerprint = g_strdup(cookie->fingerprint);
    m->peer_name = g_strdup(cookie->host_name);
    m->incarnation = g_strdup(cookie->incarnation);
    m->peer_host = g_steal_pointer(&host);
    m->peer_port = port ? port : cookie->port;
    m->disks_answered = json_incref(cookie->disks);
    return true;
}

static char *perform_cookie(vz_migration *m)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    g_autofree char *host_name = g_strdup(settings->host_name);
    g_autofree char *config_xml = NULL;
    if (m->saga.facts & VZ_FACT_PERSIST_DEST)
        config_xml =
            vz_def_format(snapshot->config ? snapshot->config : snapshot->live,
                          VZ_DEF_FORMAT_INACTIVE | VZ_DEF_FORMAT_MIGRATABLE | VZ_DEF_FORMAT_SECURE);
    vz_cookie cookie = {.host_name = host_name,
                        .release = m->release,
                        .config_xml = config_xml,
                        .running = m->was_running,
                        .stats = vz_stats_to_json(&m->stats)};
    if (m->paused_at_us)
        cookie.paused_us = (uint64_t)(vz_now_us() - m->paused_at_us);
    memcpy(cookie.job, m->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    char *text = vz_cookie_format(&cookie);
    json_decref(cookie.stats);
    return text;
}

bool vz_source_perform(vz_migration *m, const vz_source_destination *destination, char **ret_cookie,
                       GError **err)
{
    if (!vz_saga_expects(&m->saga, VZ_PHASE_PERFORM))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "migration job %s has been performed already; confirm it", m->id);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    m->was_running = snapshot->state == VZ_STATE_RUNNING;
    if (!vz_migration_note(m, "was-running", m->was_running ? "yes" : "no", err) ||
        !take_destination(m, destination, err)) {
        vz_source_give_up(m, (*err)->message);
        return false;
    }
    if (m->abort_reason) {
        vz_migration_fail_aborted(m, err);
        settle(m);
        return false;
    }
    if (!run_phase(m, VZ_PHASE_PERFORM, err))
        return false;
    *ret_cookie = perform_cookie(m);
    if (m->abort_reason) /* its client went after the release: no Confirm will come */
        vz_domain_post(m->domain, VZ_TASK_NORMAL, settle_later, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
    return true;
}

/* The gap as both hosts measured it: from the guest's stop here to the answer of Finish, less what
 * the destination spent between the guest's resumption and its reply. No clocks are compared. */
static void measure_downtime(vz_migration *m, const vz_cookie *cookie)
{
    if (!cookie || m->paused_at_us == 0)
        return;
    uint64_t gap_us = (uint64_t)(vz_now_us() - m->paused_at_us);
    m->stats.has_downtime = true;
    m->stats.downtime_ms = (gap_us > cookie->reply_us ? gap_us - cookie->reply_us : gap_us) / 1000;
}

void vz_source_give_up(vz_migration *m, const char *reason)
{
    if (!m->abort_reason)
        m->abort_reason = g_strdup(reason);
    settle(m);
}

bool vz_source_confirm(vz_migration *m, const vz_cookie *cookie, bool cancelled, GError **err)
{
    if (vz_journal_state(m->journal) != VZ_RECORD_RELEASED) {
        vz_source_give_up(m, "the destination could not take the guest");
        return cancelled || vz_fail(err, VZ_ERR_OPERATION_INVALID,
                                    "the guest was not released, so it cannot have moved");
    }
    measure_downtime(m, cookie);
    m->busy++;
    bool moved = go_forward(m, err);
    m->busy--;
    if (cancelled && moved)
        vz_warn(m->id, "the client believed that the move had failed; the guest runs on %s",
                m->peer_name);
    if (!moved && cancelled && m->domain == NULL) {
        g_clear_error(err); /* as asked: it is undone */
        return true;
    }
    return moved;
}

void vz_source_client_lost(vz_migration *m)
{
    if (m->busy) {
        vz_migration_abort(m, "the client that drove the migration has gone");
        return;
    }
    vz_source_give_up(m, "the client that drove the migration has gone");
}

/* --- what others may do to the job --- */

static bool op_abort(vz_domain *domain, void *job, GError **err)
{
    (void)domain;
    vz_migration *m = job;
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
    return set_limits(domain, m, &limits, err);
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
    if (strcmp(name, "STOP") == 0 && m->busy && !m->user_suspended) {
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
    vz_migration *m = job;
    m->guest_died = true;
    if (!m->busy)
        vz_domain_post(domain, VZ_TASK_NORMAL, settle_later, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
    return true;
}

const vz_job_ops vz_source_ops = {
    .abort = op_abort,
    .set_max_downtime = op_set_max_downtime,
    .set_max_speed = op_set_max_speed,
    .suspend = op_suspend,
    .resume = op_resume,
    .destroy = op_destroy,
    .event = op_event,
    .died = op_died,
};

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
    g_autofree char *port = vz_journal_get(m->journal, "peer-port");
    g_autofree char *offered = vz_journal_get(m->journal, "disks-offered");
    if (!facts || !vz_migration_domain_uuid(m, ret_uuid))
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the record names no domain");
    m->release = vz_journal_get(m->journal, "release");
    m->peer_host = vz_journal_get(m->journal, "peer-host");
    m->incarnation = vz_journal_get(m->journal, "incarnation");
    m->peer_port = port ? (uint16_t)g_ascii_strtoull(port, NULL, 10) : 0;
    m->disks_offered = offered ? json_loads(offered, 0, NULL) : NULL;
    m->was_running = was_running && strcmp(was_running, "yes") == 0;
    m->options = vz_options_new();
    m->saga.steps = vz_source_steps;
    m->saga.facts = g_ascii_strtoull(facts, NULL, 10);
    vz_saga_recover(&m->saga);
    return true;
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
    m->guest_died = !vz_snapshot_active(snapshot);
    vz_source_give_up(m, "virtvzd was restarted during the migration");
}

void vz_source_recover(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    if (!reload(m, uuid, &err)) {
        vz_error(m->id, "the migration cannot be settled: %s", err->message);
        return;
    }
    vz_record record = vz_journal_state(m->journal);
    g_autoptr(vz_domain) domain =
        vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, &err);
    if (record == VZ_RECORD_ENDED ||
        (!domain && (m->saga.pivoted || record != VZ_RECORD_RELEASED))) {
        /* Without a domain there is nothing left to end, or nothing that could go on. */
        vz_migration_stop_carrier(m);
        end_record(m);
    } else if (!domain) {
        vz_error(m->id,
                 "the guest was let go to %s and nothing of it is left here; look there whether it "
                 "runs. The record stays.",
                 m->peer_name);
    } else {
        vz_info(m->id, "settling the migration of '%s' after a restart", vz_domain_name(domain));
        vz_domain_post(domain, VZ_TASK_NORMAL, recover, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
    }
}
