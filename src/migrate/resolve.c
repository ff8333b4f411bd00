/* resolve.c - see resolve.h. */
#include "migrate/resolve.h"

#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "migrate/destination.h"
#include "migrate/service.h"
#include "migrate/source_settle.h"
#include "migrate/whereabouts.h"
#include "storage/lease.h"

#include <string.h>

/* What is decided about. */
typedef struct {
    vz_migrate *service;
    vz_domain *domain;
    vz_migration *m; /* the job that holds the domain; NULL: none. Referenced */
    json_t *there;   /* of the other host: an answer or its silence; of marks: one each */
    bool settled;    /* there was a job, and asking has ended it */
} matter;

static void matter_clear(matter *x)
{
    vz_migration_unref(x->m);
    json_decref(x->there);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(matter, matter_clear)

static vz_migration *job_of(vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!s->has_job || (s->job.ops != &vz_source_ops && s->job.ops != &vz_destination_ops))
        return NULL;
    return vz_migration_ref(s->job.data);
}

static bool is(const json_t *object, const char *key, const char *word)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, word) == 0;
}

static bool is_true(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static bool is_silent(const json_t *answer)
{
    return json_object_get(answer, "silence") != NULL;
}

/* --- evidence --- */

static json_t *ask_source(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    json_t *answer = vz_whereabouts_ask_peer(m, &err);
    return answer ? answer : json_pack("{ss}", "silence", err->message);
}

/* Looks again; a job may end by what it hears. */
static void examine(vz_migrate *service, vz_domain *domain, matter *ret)
{
    *ret = (matter){.service = service, .domain = domain, .m = job_of(domain)};
    vz_migration *m = ret->m;
    if (!m) {
        ret->there = vz_whereabouts_evidence(service, domain);
    } else if (m->side == VZ_SIDE_SOURCE) {
        m->resolving = true;
        if (vz_journal_state(m->journal) != VZ_RECORD_NONE)
            vz_source_settle(m);
        m->resolving = false;
        ret->there = json_incref(m->answer);
    } else {
        ret->there = ask_source(m);
    }
    ret->settled = m && !m->domain;
}

/* --- what may be decided --- */

static bool refuse_settled(const matter *x, GError **err)
{
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   x->settled ? "it is settled by now: the other host has answered"
                              : "nothing is in doubt about domain '%s'",
                   vz_domain_name(x->domain));
}

/* On the source: the other copy must not be known to live, nor to be able to say. */
static bool may_take_back(const matter *x, GError **err)
{
    const vz_migration *m = x->m;
    if (vz_journal_state(m->journal) != VZ_RECORD_RELEASED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the guest has not been let go, so it is here; 'vz abort' ends the job");
    if (m->switched)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the guest was switched to post-copy, so it cannot go on here");
    if (m->guest_died)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the guest's copy here has died, so it cannot go on here");
    if (x->there && !is_silent(x->there) && !is(x->there, "verdict", "unknown"))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "%s answers, and will say what becomes of the guest; it says '%s' now",
                       m->peer_name, json_string_value(json_object_get(x->there, "verdict")));
    return true;
}

static bool may_leave_there(const matter *x, GError **err)
{
    const vz_migration *m = x->m;
    if (vz_journal_state(m->journal) != VZ_RECORD_RELEASED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the guest has not been let go");
    if (m->switched && !m->guest_died && !is_true(x->there, "dead"))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the guest waits on %s for memory that is here still; 'virsh migrate "
                       "--postcopy-resume' connects again",
                       m->peer_name);
    if (m->guest_died)
        return true; /* nothing of it can run here */
    if (is(x->there, "verdict", "unknown") &&
        (is_true(x->there, "defined") || is_true(x->there, "guest")))
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "neither the guest nor its definition is seen on %s, so the copy here may be "
                   "the only one",
                   m->peer_name);
}

/* On the destination. */
static bool may_start_arrival(const matter *x, GError **err)
{
    const vz_migration *m = x->m;
    vz_record record = vz_journal_state(m->journal);
    if (record != VZ_RECORD_PREPARED && record != VZ_RECORD_LOADED)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "its arrival is decided: the record says '%s'", vz_record_name(record));
    if (is(x->there, "where", "guest"))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "%s answers: it has its copy still, decides, and will ask for the guest",
                       m->peer_name);
    return true;
}

/* Of a domain with marks: no host may be known to have it. */
static bool may_forget_marks(const matter *x, GError **err)
{
    const char *mark;
    json_t *answer;
    json_object_foreach(x->there, mark, answer)
    {
        if (is(answer, "where", "guest"))
            return vz_fail(err, VZ_ERR_OPERATION_INVALID, "%s: %s",
                           json_string_value(json_object_get(answer, "host")),
                           json_string_value(json_object_get(answer, "detail")));
    }
    return true;
}

static bool may(const matter *x, vz_resolution decision, GError **err)
{
    if (x->settled || (!x->m && json_object_size(x->there) == 0))
        return refuse_settled(x, err);
    if (x->m && x->m->side == VZ_SIDE_SOURCE)
        return decision == VZ_RESOLVE_HERE ? may_take_back(x, err) : may_leave_there(x, err);
    if (decision == VZ_RESOLVE_THERE)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "only the host that let a guest go can leave it to the other one");
    return x->m ? may_start_arrival(x, err) : may_forget_marks(x, err);
}

/* --- the evidence as it is shown --- */

static json_t *describe_here(vz_domain *domain)
{
    static const char *const states[] = {
        [VZ_STATE_RUNNING] = "running",        [VZ_STATE_PAUSED] = "paused",
        [VZ_STATE_SHUTDOWN] = "shutting down", [VZ_STATE_SHUTOFF] = "shut off",
        [VZ_STATE_CRASHED] = "crashed",        [VZ_STATE_PMSUSPENDED] = "suspended"};
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    const char *state = s->state < G_N_ELEMENTS(states) ? states[s->state] : NULL;
    return json_pack("{sb sb ss}", "guest", vz_snapshot_active(s), "defined",
                     vz_snapshot_persistent(s), "state", state ? state : "unknown");
}

static json_t *choice(const matter *x, vz_resolution decision)
{
    g_autoptr(GError) err = NULL;
    return may(x, decision, &err) ? json_true() : json_string(err->message);
}

static const char *state_of(const matter *x)
{
    if (x->settled)
        return "settled";
    if (!x->m)
        return json_object_size(x->there) > 0 ? "marked" : "settled";
    return vz_migration_in_doubt(x->m) ? "in doubt" : "migrating";
}

static json_t *show(const matter *x)
{
    const vz_migration *m = x->m;
    const char *record = m ? vz_record_name(vz_journal_state(m->journal)) : NULL;
    json_t *object =
        json_pack("{ss ss ss so sO* s{so so}}", "domain", vz_domain_name(x->domain), "host",
                  vz_migrate_settings(x->service)->host_name, "state", state_of(x), "here",
                  describe_here(x->domain), "there", x->there, "choices", "here",
                  choice(x, VZ_RESOLVE_HERE), "there", choice(x, VZ_RESOLVE_THERE));
    if (m && !x->settled) {
        json_object_set_new(object, "job", json_string(m->id));
        json_object_set_new(object, "direction",
                            json_string(m->side == VZ_SIDE_SOURCE ? "out" : "in"));
        json_object_set_new(object, "peer", json_string(m->peer_name ? m->peer_name : "?"));
        json_object_set_new(object, "record", json_string(record));
    }
    return object;
}

json_t *vz_resolve_evidence(vz_migrate *service, vz_domain *domain)
{
    g_auto(matter) x = {0};
    examine(service, domain, &x);
    return show(&x);
}

/* --- the decision --- */

static bool decide_on_source(const matter *x, vz_resolution decision, GError **err)
{
    vz_migration *m = x->m;
    vz_record to = decision == VZ_RESOLVE_HERE ? VZ_RECORD_RESOLVED_HERE : VZ_RECORD_RESOLVED_THERE;
    /* Whom the destination will ask where the guest is, when it has heard. */
    if ((decision == VZ_RESOLVE_HERE && !vz_trail_save(m, err)) ||
        !vz_journal_advance(m->journal, to, err))
        return false;
    if (decision == VZ_RESOLVE_HERE) {
        g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(x->domain);
        g_autoptr(GError) why = NULL;
        if (snapshot->live && !vz_lease_seize(x->domain, snapshot->live, &why))
            vz_warn(m->id, "%s", why->message);
        if (!m->abort_reason)
            m->abort_reason = g_strdup("the operator took the guest back");
    }
    vz_source_settle(m);
    return true;
}

static bool decide(const matter *x, vz_resolution decision, GError **err)
{
    if (!x->m)
        return vz_whereabouts_override(x->domain, err);
    g_autofree char *evidence = json_dumps(x->there, JSON_COMPACT);
    g_autofree char *note = g_strdup_printf("%s %s", decision == VZ_RESOLVE_HERE ? "here" : "there",
                                            evidence ? evidence : "");
    if (!vz_migration_note(x->m, VZ_NOTE_RESOLVED, note, err))
        return false;
    if (x->m->side == VZ_SIDE_SOURCE)
        return decide_on_source(x, decision, err);
    if (!vz_destination_finish_alone(x->m, err))
        return false;
    /* The mark goes: what this host's operator starts is not the source's to take away. */
    g_autoptr(GError) why = NULL;
    if (!vz_trail_unmark(x->service, vz_domain_uuid_text(x->domain), VZ_MARK_ARRIVING, x->m->id,
                         &why))
        vz_warn(x->m->id, "the guest runs, but stays marked as arriving: %s", why->message);
    return true;
}

static char *outcome_text(const matter *x, vz_resolution decision)
{
    const char *name = vz_domain_name(x->domain);
    if (!x->m)
        return g_strdup_printf("this host may start '%s' again", name);
    if (decision == VZ_RESOLVE_THERE)
        return g_strdup_printf("'%s' is left to %s; its copy here has ended", name,
                               x->m->peer_name);
    if (x->m->side == VZ_SIDE_SOURCE)
        return g_strdup_printf("'%s' goes on here; %s is told to give its copy up, until it has "
                               "heard",
                               name, x->m->peer_name);
    return g_strdup_printf("'%s' runs here; %s ends its copy when it is back", name,
                           x->m->peer_name);
}

bool vz_resolve(vz_migrate *service, vz_domain *domain, vz_resolution decision, char **ret_text,
                GError **err)
{
    g_auto(matter) x = {0};
    examine(service, domain, &x);
    if (!may(&x, decision, err))
        return false;
    g_autofree char *evidence = json_dumps(x.there, JSON_COMPACT);
    g_autofree char *text = outcome_text(&x, decision);
    if (!decide(&x, decision, err))
        return false;
    vz_warn(x.m ? x.m->id : vz_domain_name(domain),
            "resolved by the operator: %s; what was known of the other host: %s", text,
            evidence ? evidence : "nothing");
    vz_domain_add_message(domain, "resolved by the operator: %s", text);
    *ret_text = g_steal_pointer(&text);
    return true;
}

bool vz_resolve_hurry(vz_domain *domain, GError **err)
{
    g_autoptr(vz_migration) m = job_of(domain);
    if (!m || !m->busy)
        return true;
    if (m->side == VZ_SIDE_SOURCE && vz_journal_state(m->journal) == VZ_RECORD_RELEASED) {
        m->resolving = true;
        return true;
    }
    return vz_fail(
        err, VZ_ERR_OPERATION_INVALID,
        "domain '%s' is being migrated (job %s), and nothing is in doubt; 'vz abort' ends "
        "the job",
        vz_domain_name(domain), m->id);
}

/* --- the list of jobs --- */

static json_t *describe_job(vz_migration *m)
{
    g_autofree char *domain = vz_journal_get(m->journal, VZ_NOTE_DOMAIN);
    g_autofree char *name = vz_journal_get(m->journal, VZ_NOTE_NAME);
    g_autofree char *peer = vz_journal_get(m->journal, VZ_NOTE_PEER_NAME);
    g_autoptr(GError) none = NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    g_autoptr(vz_domain) d =
        vz_migration_domain_uuid(m, uuid)
            ? vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, &none)
            : NULL;
    g_autoptr(vz_snapshot) s = d ? vz_domain_snapshot(d) : NULL;
    bool runs = s && s->has_job && strcmp(s->job.token, m->id) == 0;
    return json_pack(
        "{ss ss ss ss ss ss ss sb}", "domain", name ? name : "?", "uuid", domain ? domain : "?",
        "job", m->id, "direction", m->side == VZ_SIDE_SOURCE ? "out" : "in", "peer",
        peer ? peer : "?", "record", vz_record_name(vz_journal_state(m->journal)), "phase",
        runs ? s->job_stats.phase : "over; the other host has not heard so yet", "running", runs);
}

json_t *vz_resolve_jobs(vz_migrate *service)
{
    json_t *jobs = json_array();
    g_autoptr(GPtrArray) all = vz_migrate_list(service);
    for (guint i = 0; i < all->len; i++)
        json_array_append_new(jobs, describe_job(all->pdata[i]));
    return jobs;
}
