/* destination.c - see destination.h: Prepare and Finish. How an arrival ends is
 * destination_settle.c's. */
#include "migrate/destination_settle.h"

#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "migrate/choice.h"
#include "migrate/direct.h"
#include "migrate/postcopy.h"
#include "migrate/service.h"
#include "migrate/stats.h"
#include "storage/lease.h"

#include <string.h>

/* --- Prepare --- */

bool vz_destination_check_host(const vz_migrate *service, const vz_cookie *cookie, GError **err)
{
    const vz_migrate_config *settings = vz_migrate_settings(service);
    return memcmp(cookie->host_uuid, settings->host_uuid, VZ_UUID_BYTES) != 0 ||
           vz_fail(err, VZ_ERR_INTERNAL_ERROR,
                   "attempt to migrate guest to the same host: both call themselves '%s' and "
                   "have the same host UUID",
                   settings->host_name);
}

/* What of it nobody asked for is taken as far as this host can. */
static bool take_stream(vz_migration *m, const json_t *stream, GError **err)
{
    g_autoptr(GError) none = NULL; /* which another step finds */
    if (!vz_stream_from_json(stream, &m->stream, err))
        return false;
    if (m->stream.free_channels || m->stream.free_compress) {
        const char *emulator = m->def->emulator ? m->def->emulator : vz_qemu_default_emulator();
        const vz_stream_host here = vz_choice_host(vz_qemu_caps_get(emulator, &none));
        vz_stream_narrow(&m->stream, &here);
    }
    if (!vz_options_has(m->options, VZ_OPTION_OFFLINE))
        vz_choice_show_stream(&m->stream, &m->stats);
    return true;
}

static bool take_source(vz_migration *m, const vz_cookie *cookie, GError **err)
{
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    if (!cookie->fingerprint || !vz_fingerprint_parse(cookie->fingerprint, fingerprint) ||
        !cookie->release_hash)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie names no valid key");
    m->peer_fingerprint = g_strdup(cookie->fingerprint);
    if (cookie->incarnation && !vz_uuid_parse(cookie->incarnation, fingerprint))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie names no valid incarnation");
    m->peer_name = g_strdup(cookie->host_name);
    memcpy(m->peer_uuid, cookie->host_uuid, VZ_UUID_BYTES);
    m->peer_host = g_strdup(cookie->address);
    m->peer_port = cookie->port;
    m->incarnation = g_strdup(cookie->incarnation);
    if (cookie->invitation && !vz_migration_note(m, VZ_NOTE_INVITATION, cookie->invitation, err))
        return false;
    m->release = g_strdup(cookie->release_hash);
    m->disks_offered = json_incref(cookie->disks);
    return take_stream(m, cookie->stream, err);
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
    return vz_migration_note(m, VZ_NOTE_OLD_CONFIG, xml, err);
}

static bool note_prepare(vz_migration *m, GError **err)
{
    g_autofree char *facts = g_strdup_printf("%" G_GUINT64_FORMAT, m->saga.facts);
    return vz_migration_note(m, VZ_NOTE_DOMAIN, vz_domain_uuid_text(m->domain), err) &&
           vz_migration_note(m, VZ_NOTE_NAME, vz_domain_name(m->domain), err) &&
           vz_migration_note(m, VZ_NOTE_FACTS, facts, err) && vz_migration_note_peer(m, err) &&
           vz_migration_note(m, VZ_NOTE_RELEASE, m->release, err) && note_old_config(m, err) &&
           vz_journal_sync(m->journal, err);
}

static uint64_t facts_of(const vz_options *options, const vz_def *def)
{
    uint64_t facts = vz_options_has(options, VZ_OPTION_PERSIST_DEST) ? VZ_FACT_PERSIST_DEST : 0;
    if (vz_options_has(options, VZ_OPTION_PAUSED))
        facts |= VZ_FACT_PAUSED;
    if (vz_options_has(options, VZ_OPTION_POSTCOPY))
        facts |= VZ_FACT_POSTCOPY;
    if (vz_options_has(options, VZ_OPTION_OFFLINE))
        facts |= VZ_FACT_OFFLINE;
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].path)
            facts |= VZ_FACT_DISKS;
    return facts;
}

char *vz_destination_cookie(const vz_migration *m)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autofree char *fingerprint = g_strdup(vz_channel_keys_fingerprint(m->keys));
    g_autofree char *host_name = g_strdup(settings->host_name);
    g_autofree char *incarnation = g_strdup(vz_migrate_incarnation(m->service));
    vz_cookie cookie = {.host_name = host_name,
                        .fingerprint = fingerprint,
                        .incarnation = incarnation,
                        .address = m->data_host,
                        .port = vz_port_number(vz_migrate_port(m->service)),
                        .direct_port = vz_direct_port(m),
                        .disks = m->disks_answered,
                        .stream = vz_stream_to_json(&m->stream)};
    memcpy(cookie.job, m->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    char *text = vz_cookie_format(&cookie);
    json_decref(cookie.stream);
    return text;
}

/* A failed Prepare leaves no record: its caller never learned of one, so nobody will ask. */
static void discard(vz_migration *m, vz_domain *domain, const char *reason)
{
    vz_warn(m->id, "arrival of '%s' refused: %s", vz_domain_name(domain), reason);
    vz_migration_detach(m, VZ_JOB_FAILED, reason);
    vz_destination_give_place_back(m, domain);
    vz_migration_forget(m);
}

/* --- a client that lives, but does not go on --- */

/* Disks or memory; and none of it was cut off. */
static bool something_comes(const vz_migration *m)
{
    size_t n = 0;
    bool some = false;
    const vz_channel_info *all = m->carrier ? vz_carrier_channels(m->carrier, &n) : NULL;
    for (size_t i = 0; i < n; i++) {
        if (all[i].state == VZ_CHANNEL_FAILED)
            return false;
        some |= all[i].state != VZ_CHANNEL_EXPECTED;
    }
    return some;
}

/* That may take its time. Where all of it has come, the source decides: it may have let go. */
static void no_finish(vz_migration *m)
{
    if (vz_journal_state(m->journal) != VZ_RECORD_PREPARED)
        return;
    if (something_comes(m) || vz_direct_source_lives(m))
        vz_migrate_watch_phase(m, no_finish);
    else
        vz_destination_leave(m, "nothing came from the source in time");
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
    m->client_address = g_strdup(request->client_address);
    m->data_uri = g_strdup(request->data_uri);
    m->data_host = g_strdup(request->data_host);
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
    vz_migration_publish(m, vz_migration_offline(m) ? "definition" : "memory");
    vz_migrate_watch_phase(m, no_finish);
    *ret_cookie = vz_destination_cookie(m);
    *ret_migration = g_steal_pointer(&m);
    return true;
}

char *vz_destination_prepare_again(vz_migrate *service, const uint8_t job[VZ_UUID_BYTES],
                                   GError **err)
{
    g_autoptr(vz_migration) m = vz_migrate_find(service, VZ_SIDE_DESTINATION, job);
    if (m && vz_journal_state(m->journal) >= VZ_RECORD_PREPARED &&
        vz_journal_state(m->journal) <= VZ_RECORD_STARTED)
        return vz_destination_cookie(m);
    vz_fail(err, VZ_ERR_OPERATION_INVALID, "no guest arrives here by that job");
    return NULL;
}

/* --- Finish --- */

vz_def *vz_destination_config(const vz_migration *m, GError **err)
{
    if (!m->config_xml && !m->source_is_dead && !vz_migration_offline(m)) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the source sent no persistent definition");
        return NULL;
    }
    g_autoptr(vz_def) parsed = m->config_xml
                                   ? vz_migrate_settings(m->service)->parse(m->config_xml, err)
                                   : vz_def_copy(m->def);
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

/* All is taken back already. */
static void close_undone(vz_migration *m, const char *reason)
{
    g_autoptr(GError) ignored = NULL;
    if (vz_journal_state(m->journal) != VZ_RECORD_ABORTED)
        vz_journal_advance(m->journal, VZ_RECORD_ABORTED, &ignored);
    vz_destination_close_aborted(m, reason);
}

static bool finish(vz_migration *m, const vz_cookie *cookie, const vz_options *options,
                   GError **err)
{
    m->cookie_in = cookie;
    g_free(m->config_xml);
    m->config_xml = g_strdup(cookie->config_xml);
    m->run_on_arrival = cookie->running && !vz_options_has(options, VZ_OPTION_PAUSED);
    if (cookie->stats && !vz_migration_offline(m))
        vz_stats_from_json(cookie->stats, &m->stats);
    m->busy++;
    vz_saga_rewind(&m->saga, VZ_PHASE_FINISH);
    bool alone = m->source_is_dead || vz_destination_may_be_switched(m);
    m->saga.floor = alone ? m->saga.next : 0; /* there is no other copy to go back to */
    vz_saga_result result =
        vz_migration_note(m, "run-on-arrival", m->run_on_arrival ? "yes" : "no", err)
            ? vz_saga_run(&m->saga, VZ_PHASE_FINISH, err)
            : vz_saga_settle(&m->saga, err);
    m->cookie_in = NULL;
    m->busy--;
    if (result == VZ_SAGA_OK) {
        uint64_t here_us = (uint64_t)(m->resumed_at_us - m->finish_at_us);
        if (!vz_migration_offline(m))
            m->stats.downtime_ms = (cookie->paused_us + here_us) / 1000;
        vz_destination_arrived(m);
        return true;
    }
    if (result == VZ_SAGA_PENDING) {
        vz_migrate_retry(m, vz_destination_go_forward_again);
        return false;
    }
    if (alone)
        vz_destination_leave(m, (*err)->message);
    else
        close_undone(m, (*err)->message);
    return false;
}

/* The source's copy cannot run any more, and Finish will not come: what the source would have said
 * in its cookie is not known, so the guest runs, under the definition that it came with. */
bool vz_destination_finish_alone(vz_migration *m, GError **err)
{
    g_autofree char *name = g_strdup(m->peer_name);
    vz_cookie cookie = {.host_name = name, .running = !(m->saga.facts & VZ_FACT_PAUSED)};
    vz_record record = vz_journal_state(m->journal);
    if (m->busy || (record != VZ_RECORD_PREPARED && record != VZ_RECORD_LOADED))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the job's record says '%s'",
                       vz_record_name(record));
    if (!m->no_way_back && !vz_destination_has_everything(m))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "not all of the guest has come, so it cannot run here");
    m->source_is_dead = true;
    bool finished = finish(m, &cookie, m->options, err);
    m->source_is_dead = finished; /* else it may have come back when this is tried again */
    return finished;
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
    static const vz_cookie none;
    if (!cancelled && (cookie || vz_migration_offline(m)))
        return finish(m, cookie ? cookie : &none, options, err);
    vz_destination_leave(m, cancelled ? "the client cancelled the migration"
                                      : "Finish came without the source's cookie");
    if (!m->domain)
        return refuse_finish(m, err);
    return vz_fail(
        err, VZ_ERR_OPERATION_FAILED,
        "all of the guest has come, so %s has let it go; it is kept until %s asks for it",
        m->peer_name, m->peer_name);
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
