/* source.c - see source.h: the phases. How a job ends is source_settle.c's. */
#include "migrate/source_settle.h"

#include "base/log.h"
#include "migrate/choice.h"
#include "migrate/direct.h"
#include "migrate/facts.h"
#include "migrate/postcopy.h"
#include "migrate/service.h"
#include "migrate/stats.h"
#include "migrate/uri.h"

#include <string.h>

/* It travels in a cookie, in which each of its bytes may become two, with some other members. */
#define KEPT_XML_BYTES_MAX (VZ_COOKIE_BYTES_MAX * 7 / 16)

/* Runs one phase; true: done. On failure the job is closed, or left in doubt. */
static bool run_phase(vz_migration *m, vz_phase phase, GError **err)
{
    m->busy++;
    vz_saga_result result = vz_saga_run(&m->saga, phase, err);
    if (result == VZ_SAGA_UNDONE)
        vz_source_close_failed(m, *err);
    else if (result == VZ_SAGA_PENDING)
        vz_source_enter_doubt(m);
    m->busy--;
    return result == VZ_SAGA_OK;
}

static uint64_t facts_of(const vz_options *options, const vz_def *def)
{
    uint64_t facts = 0;
    if (vz_options_has(options, VZ_OPTION_OFFLINE))
        facts |= VZ_FACT_OFFLINE;
    else if (!vz_options_has(options, VZ_OPTION_LIVE))
        facts |= VZ_FACT_COMA;
    if (vz_options_has(options, VZ_OPTION_PERSIST_DEST))
        facts |= VZ_FACT_PERSIST_DEST;
    if (vz_options_has(options, VZ_OPTION_UNDEFINE_SOURCE))
        facts |= VZ_FACT_UNDEFINE_SOURCE;
    if (vz_options_has(options, VZ_OPTION_POSTCOPY))
        facts |= VZ_FACT_POSTCOPY;
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].path)
            facts |= VZ_FACT_DISKS;
    return facts;
}

static bool note_begin(vz_migration *m, GError **err)
{
    g_autofree char *facts = g_strdup_printf("%" G_GUINT64_FORMAT, m->saga.facts);
    return vz_migration_note(m, VZ_NOTE_DOMAIN, vz_domain_uuid_text(m->domain), err) &&
           vz_migration_note(m, VZ_NOTE_NAME, vz_domain_name(m->domain), err) &&
           vz_migration_note(m, VZ_NOTE_FACTS, facts, err) &&
           vz_migration_note(m, VZ_NOTE_RELEASE, m->release, err) &&
           vz_journal_sync(m->journal, err);
}

static char *begin_cookie(const vz_migration *m, const char *local_address)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autofree char *release_hash = vz_release_hash(m->release);
    g_autofree char *fingerprint = g_strdup(vz_channel_keys_fingerprint(m->keys));
    g_autofree char *host_name = g_strdup(settings->host_name);
    g_autofree char *incarnation = g_strdup(vz_migrate_incarnation(m->service));
    bool advertised = settings->advertised && *settings->advertised;
    g_autofree char *invitation = vz_journal_get(m->journal, VZ_NOTE_INVITATION);
    g_autofree char *address = advertised   ? g_strdup(settings->advertised)
                               : invitation ? g_strdup(local_address)
                                            : NULL;
    g_auto(vz_guest_facts) facts = {0};
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    vz_guest_facts_gather(m->domain, snapshot->live, &facts);
    json_auto_t *told = vz_guest_facts_to_json(&facts);
    vz_cookie cookie = {.host_name = host_name,
                        .fingerprint = fingerprint,
                        .release_hash = release_hash,
                        .facts = told,
                        .incarnation = incarnation,
                        .address = address,
                        .invitation = invitation,
                        .port = vz_port_number(vz_migrate_port(m->service)),
                        .disks = m->disks_offered,
                        .stream = vz_stream_to_json(&m->stream)};
    memcpy(cookie.job, m->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    char *text = vz_cookie_format(&cookie);
    json_decref(cookie.stream);
    return text;
}

static void say_stream(const vz_migration *m, const char *done)
{
    const vz_job_stats *s = &m->stats;
    vz_info(m->id, "memory %s: compression %s, %u channels of multifd: %s", done,
            s->stream_compress, m->stream.channels, s->stream_why);
}

char *vz_source_cookie(vz_migration *m, const char *local_address, const char *peer)
{
    if (!vz_migration_offline(m)) {
        g_autofree vz_choice *choice = g_new0(vz_choice, 1);
        vz_choice_make(choice, m->domain, m->options, peer);
        m->stream = choice->stream;
        vz_choice_show(choice, &m->stats);
        say_stream(m, "is to travel so");
    }
    return begin_cookie(m, local_address);
}

/* --- the definitions that go with the guest --- */

/* dumpxml hides passwords, so a document without one does not mean that there is to be none. */
static vz_def *with_passwords(const vz_def *def, const vz_def *own)
{
    vz_def *copy = vz_def_copy(def);
    for (size_t i = 0; i < MIN(copy->n_graphics, own->n_graphics); i++)
        if (!copy->graphics[i].passwd)
            copy->graphics[i].passwd = g_strdup(own->graphics[i].passwd);
    return copy;
}

/* An XML parameter of the caller, as a definition of this very domain; NULL with err. */
static vz_def *read_definition(vz_migrate *service, const vz_options *options, vz_option_id id,
                               const vz_def *live, GError **err)
{
    g_autoptr(vz_def) def = vz_migrate_settings(service)->parse(vz_options_text(options, id), err);
    if (def && vz_def_same_domain(live, def, err))
        return with_passwords(def, live);
    /* Of two documents, say which; the errors of the other are as libvirt's. */
    if (id == VZ_OPTION_PERSIST_XML)
        g_prefix_error(err, "%s: ", vz_option_info(id)->name);
    return NULL;
}

/* As it is to run there: the caller's, where that is the same machine for the guest, or as it runs
 * here. */
static char *running_xml(vz_migrate *service, const vz_options *options, const vz_def *live,
                         GError **err)
{
    g_autoptr(vz_def) changed = NULL;
    if (vz_options_has(options, VZ_OPTION_DEST_XML)) {
        changed = read_definition(service, options, VZ_OPTION_DEST_XML, live, err);
        if (!changed || !vz_def_same_abi(live, changed, err))
            return NULL;
    }
    return vz_def_format(changed ? changed : live, VZ_DEF_FORMAT_TRAVELLING);
}

/* As it is to be kept there: the caller's, which is for later starts and may be another machine, or
 * what is kept here, or as it runs here. */
static char *kept_xml(vz_migrate *service, const vz_options *options, const vz_def *own,
                      GError **err)
{
    g_autoptr(vz_def) given = NULL;
    if (vz_options_has(options, VZ_OPTION_PERSIST_XML)) {
        given = read_definition(service, options, VZ_OPTION_PERSIST_XML, own, err);
        if (!given)
            return NULL;
    }
    g_autofree char *xml = vz_def_format(given ? given : own, VZ_DEF_FORMAT_TRAVELLING);
    if (strlen(xml) <= KEPT_XML_BYTES_MAX)
        return g_steal_pointer(&xml);
    vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
            "the definition to keep on the destination has %zu bytes, and %zu is the most that "
            "travels with a guest",
            strlen(xml), KEPT_XML_BYTES_MAX);
    return NULL;
}

bool vz_source_definitions(vz_migrate *service, const vz_snapshot *snapshot,
                           const vz_options *options, char **ret_running, char **ret_kept,
                           GError **err)
{
    const vz_def *subject = snapshot->live ? snapshot->live : snapshot->config;
    const vz_def *own = snapshot->config ? snapshot->config : snapshot->live;
    g_autofree char *running = running_xml(service, options, subject, err);
    if (!running || (vz_options_has(options, VZ_OPTION_PERSIST_DEST) &&
                     !(*ret_kept = kept_xml(service, options, own, err))))
        return false;
    *ret_running = g_steal_pointer(&running);
    return true;
}

static bool check_state(const vz_snapshot *snapshot, bool offline, GError **err)
{
    if (!vz_snapshot_check_no_job(snapshot, err))
        return false;
    if (!offline)
        return vz_snapshot_check_active(snapshot, err);
    if (vz_snapshot_active(snapshot))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is running; drop --offline");
    /* It may have moved away while the call waited for the move's end. */
    return vz_snapshot_persistent(snapshot) ||
           vz_fail(err, VZ_ERR_NO_DOMAIN, "the domain is not defined here any more");
}

/* Peer to peer the source meets the destination by itself. */
static bool invite(vz_migration *m, GError **err)
{
    if (!vz_migration_offline(m) || m->peer_to_peer)
        return true;
    g_autofree char *invitation = vz_release_generate();
    return vz_migration_note(m, VZ_NOTE_INVITATION, invitation, err);
}

static vz_migration *new_job(vz_migrate *service, vz_domain *domain,
                             const vz_source_request *request, char **ret_xml, GError **err)
{
    uint8_t job[VZ_UUID_BYTES];
    vz_uuid_generate(job);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    bool offline = vz_options_has(request->options, VZ_OPTION_OFFLINE);
    if (!check_state(snapshot, offline, err))
        return NULL;
    const vz_def *subject = offline ? snapshot->config : snapshot->live;
    g_autofree char *xml = NULL;
    g_autofree char *kept = NULL;
    if (!vz_source_definitions(service, snapshot, request->options, &xml, &kept, err))
        return NULL;
    g_autoptr(vz_migration) m = vz_migration_create(service, VZ_SIDE_SOURCE, job, err);
    if (!m)
        return NULL;
    m->options = vz_options_copy(request->options);
    m->peer_to_peer = request->peer_to_peer;
    m->stream = vz_stream_plain;
    m->release = vz_release_generate();
    m->config_xml = g_steal_pointer(&kept);
    m->was_running = snapshot->state == VZ_STATE_RUNNING;
    m->saga.steps = vz_source_steps;
    m->saga.facts = facts_of(m->options, subject);
    if (vz_migration_attach(m, domain, &vz_source_ops, err) && invite(m, err) &&
        note_begin(m, err)) {
        *ret_xml = g_steal_pointer(&xml);
        return g_steal_pointer(&m);
    }
    vz_migration_detach(m, VZ_JOB_FAILED, (*err)->message);
    vz_migration_forget(m);
    return NULL;
}

/* --- a client that lives, but does not go on --- */

static void no_perform(vz_migration *m)
{
    if (vz_journal_state(m->journal) == VZ_RECORD_NONE && !m->peer_fingerprint)
        vz_source_give_up(m,
                          "the client that drove the migration did not go on to Perform in time");
}

void vz_source_no_confirm(vz_migration *m)
{
    vz_source_give_up(m, "the client that drove the migration did not confirm it in time");
}

bool vz_source_begin(vz_migrate *service, vz_domain *domain, const vz_source_request *request,
                     vz_migration **ret_migration, char **ret_xml, GError **err)
{
    g_autofree char *xml = NULL;
    g_autoptr(vz_migration) m = new_job(service, domain, request, &xml, err);
    if (!m)
        return false;
    vz_migration_publish(m, "begin");
    if (!run_phase(m, VZ_PHASE_BEGIN, err))
        return false;
    *ret_xml = g_steal_pointer(&xml);
    if (!m->peer_to_peer)
        vz_migrate_watch_phase(m, no_perform);
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

/* Of the data port; where memory does not go there, the URI says nothing of it. */
static bool take_address(const vz_source_destination *to, char **ret_host, uint16_t *ret_port,
                         GError **err)
{
    if (!vz_uri_unix_path(to->uri))
        return vz_uri_parse_data(to->uri, ret_host, ret_port, err);
    *ret_host = g_strdup(to->cookie->address);
    *ret_port = to->cookie->port;
    return *ret_host || vz_fail(err, VZ_ERR_INVALID_ARG,
                                "the destination's cookie does not say where its data port is");
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
    if (!vz_direct_agree(m, cookie, to->uri, err) || !take_address(to, &host, &port, err))
        return false;
    m->peer_fingerprint = g_strdup(cookie->fingerprint);
    m->peer_name = g_strdup(cookie->host_name);
    memcpy(m->peer_uuid, cookie->host_uuid, VZ_UUID_BYTES);
    m->incarnation = g_strdup(cookie->incarnation);
    m->peer_host = g_steal_pointer(&host);
    m->peer_port = cookie->port;
    m->asked_port = port != cookie->port ? port : 0;
    m->disks_answered = json_incref(cookie->disks);
    vz_stream chosen = m->stream;
    if (!vz_choice_take_answer(&m->stream, m->stats.stream_why, cookie->stream, err))
        return false;
    if (m->stream.channels != chosen.channels || m->stream.compress != chosen.compress) {
        vz_choice_show_stream(&m->stream, &m->stats);
        say_stream(m, "travels so");
    }
    return true;
}

static char *perform_cookie(vz_migration *m)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    g_autofree char *host_name = g_strdup(settings->host_name);
    vz_cookie cookie = {.host_name = host_name,
                        .release = m->release,
                        .config_xml = m->config_xml,
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
        vz_source_settle(m);
        return false;
    }
    if (!run_phase(m, VZ_PHASE_PERFORM, err))
        return false;
    *ret_cookie = perform_cookie(m);
    if (m->abort_reason && m->domain) /* its client went after the release: no Confirm will come */
        vz_source_settle_later(m);
    else if (!m->peer_to_peer)
        vz_migrate_watch_phase(m, vz_source_no_confirm);
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

bool vz_source_confirm(vz_migration *m, const vz_cookie *cookie, bool cancelled, GError **err)
{
    if (vz_journal_state(m->journal) == VZ_RECORD_NONE) {
        vz_source_give_up(m, "the destination could not take the guest");
        return cancelled || vz_fail(err, VZ_ERR_OPERATION_INVALID,
                                    "the guest was not released, so it cannot have moved");
    }
    measure_downtime(m, cookie);
    m->busy++;
    bool moved = vz_source_go_forward(m, err);
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

/* --- POSTCOPY_RESUME --- */

bool vz_source_begin_again(vz_domain *domain, char **ret_cookie, char **ret_xml, GError **err)
{
    g_autoptr(vz_migration) m = vz_source_find_postcopy(domain, err);
    if (!m)
        return false;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (!vz_snapshot_check_active(snapshot, err))
        return false;
    *ret_xml = vz_def_format(snapshot->live, VZ_DEF_FORMAT_TRAVELLING);
    *ret_cookie = begin_cookie(m, NULL);
    return true;
}

bool vz_source_perform_again(vz_domain *domain, char **ret_cookie, GError **err)
{
    g_autoptr(vz_migration) m = vz_source_find_postcopy(domain, err);
    if (!m || !vz_source_resume_postcopy(m, err))
        return false;
    *ret_cookie = perform_cookie(m);
    return true;
}

bool vz_source_migrate_again(vz_domain *domain, GError **err)
{
    g_autoptr(vz_migration) m = vz_source_find_postcopy(domain, err);
    return m && vz_source_resume_postcopy(m, err) && vz_source_confirm(m, NULL, false, err);
}
