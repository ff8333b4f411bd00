/* whereabouts.c - see whereabouts.h. */
#include "migrate/whereabouts.h"

#include "base/log.h"
#include "domain/table.h"
#include "migrate/service.h"
#include "storage/lease.h"

#include <string.h>

/* How far a question is passed on. Coming back clears the mark, so there is no circle but in
 * damaged records. */
#define HOPS_MAX 8
/* Each host on the way leaves its asker this much more time than it takes itself. */
#define HOP_US ((int64_t)1000 * 1000)

static const char *const marks[] = {VZ_MARK_MOVED, VZ_MARK_ARRIVING};

static vz_store *store_of(vz_migrate *service)
{
    return vz_table_store(vz_migrate_settings(service)->table);
}

static json_t *say(const char *where, const char *detail)
{
    return json_pack("{ss ss}", "where", where, "detail", detail);
}

static bool says(const json_t *answer, const char *where)
{
    const char *word = json_string_value(json_object_get(answer, "where"));
    return word && strcmp(word, where) == 0;
}

static const char *detail_of(const json_t *answer)
{
    const char *text = json_string_value(json_object_get(answer, "detail"));
    return text ? text : "it does not say why";
}

/* --- answering --- */

typedef struct {
    vz_migrate *service;
    char domain[VZ_UUID_TEXT_BYTES];
    uint8_t uuid[VZ_UUID_BYTES];
    const vz_trail *asker;
    json_int_t hops;
    bool claim; /* the asker starts it, if it is nowhere else */
} search;

/* What the table knows of it: a guest, a job, an arrival; NULL: none of these. */
static json_t *look_in_table(const search *s, bool *ret_defined)
{
    g_autoptr(GError) none = NULL;
    const vz_migrate_config *settings = vz_migrate_settings(s->service);
    g_autoptr(vz_domain) domain = vz_table_find_uuid(settings->table, s->uuid, NULL, &none);
    *ret_defined = false;
    if (!domain)
        return NULL;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    g_autofree char *text = NULL;
    *ret_defined = vz_snapshot_persistent(snapshot);
    if (vz_snapshot_active(snapshot))
        text = g_strdup_printf("there is a guest of it on %s", settings->host_name);
    else if (snapshot->has_job)
        text = g_strdup_printf("%s still settles a migration of it (%s)", settings->host_name,
                               snapshot->job.title);
    else if (snapshot->starting || vz_snapshot_empty(snapshot))
        text = g_strdup_printf("it is arriving or being started on %s", settings->host_name);
    return text ? say("guest", text) : NULL;
}

/* The right to start it goes to the asker: from now on this host asks before it starts it. */
static json_t *give_away(const search *s)
{
    char job[VZ_UUID_TEXT_BYTES];
    bool defined;
    g_autoptr(GError) err = NULL;
    if (!s->claim)
        return say("gone", "nothing of it is there");
    vz_uuid_format(s->asker->job, job);
    g_autofree char *value = g_strdup_printf("%s %.*s", job, VZ_MARK_HOST_MAX, s->asker->peer_name);
    if (!vz_store_set_mark(store_of(s->service), s->domain, VZ_MARK_MOVED, value, &err) ||
        !vz_store_clear_mark(store_of(s->service), s->domain, VZ_MARK_ARRIVING, &err))
        return say("unknown", err->message);
    /* A start that was quicker holds its place in the table before it reads the mark. */
    json_t *other = look_in_table(s, &defined);
    if (!other)
        return say("gone", "nothing of it is there");
    if (!vz_store_clear_mark(store_of(s->service), s->domain, VZ_MARK_MOVED, &err))
        vz_warn(s->domain, "%s", err->message);
    return other;
}

static json_t *ask_trail(const vz_trail *trail, json_int_t hops, bool claim, vz_inbox *inbox,
                         GError **err)
{
    char domain[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(trail->domain, domain);
    return vz_question_of_trail(
        trail,
        json_pack("{ss ss sI sb}", "op", "where", "domain", domain, "hops", hops, "claim", claim),
        inbox, VZ_QUESTION_DEADLINE_US - hops * HOP_US, err);
}

/* It went on to another host, which is asked in the asker's stead. */
static json_t *pass_on(const search *s, const vz_trail *next)
{
    g_autoptr(GError) err = NULL;
    if (s->hops + 1 >= HOPS_MAX)
        return say("unknown", "the hosts' records of its moves lead in a circle");
    json_t *answer = ask_trail(next, s->hops + 1, s->claim, NULL, &err);
    if (answer && says(answer, "gone")) {
        json_decref(answer);
        return give_away(s);
    }
    if (answer)
        return answer;
    g_autofree char *text =
        g_strdup_printf("%s may have it, and does not answer: %s", next->peer_name, err->message);
    return say("unknown", text);
}

/* The host that a mark names; NULL: the mark or what it names is damaged. */
static vz_trail *trail_of_mark(vz_migrate *service, const char *value, GError **err)
{
    uint8_t job[VZ_UUID_BYTES];
    if (vz_trail_mark_job(value, job))
        return vz_trail_load(service, job, err);
    vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the mark '%s' is damaged", value);
    return NULL;
}

static bool leads_to(const vz_trail *trail, const uint8_t host[VZ_UUID_BYTES])
{
    return memcmp(trail->peer_uuid, host, VZ_UUID_BYTES) == 0;
}

static json_t *follow_mark(const search *s, const char *mark, GError **err)
{
    g_autoptr(vz_trail) next = trail_of_mark(s->service, mark, err);
    if (!next)
        return NULL;
    /* Left to the asker's host: a definition here obeys the mark. */
    return leads_to(next, s->asker->peer_uuid) ? say("gone", "it was left to the asker")
                                               : pass_on(s, next);
}

/* Nothing of it is here, but who sent it here may not have ended its copy. */
static json_t *ask_its_source(const search *s, const char *mark, GError **err)
{
    g_autoptr(vz_trail) source = trail_of_mark(s->service, mark, err);
    if (!source)
        return NULL;
    return leads_to(source, s->asker->peer_uuid) ? give_away(s) : pass_on(s, source);
}

static json_t *find(const search *s, GError **err)
{
    bool defined;
    g_autofree char *moved = NULL;
    g_autofree char *arriving = NULL;
    json_t *here = look_in_table(s, &defined);
    if (here)
        return here;
    if (!vz_store_get_mark(store_of(s->service), s->domain, VZ_MARK_MOVED, &moved, err) ||
        !vz_store_get_mark(store_of(s->service), s->domain, VZ_MARK_ARRIVING, &arriving, err))
        return NULL;
    if (moved)
        return follow_mark(s, moved, err);
    if (defined)
        return say("defined", "it is defined there");
    if (vz_store_has_status(store_of(s->service), s->domain, NULL))
        return say("unknown", "a guest of it may run there whose status cannot be read");
    return arriving ? ask_its_source(s, arriving, err) : give_away(s);
}

json_t *vz_whereabouts_reply_where(const vz_asked *asked, GError **err)
{
    const json_t *object = asked->object;
    const char *domain = json_string_value(json_object_get(object, "domain"));
    search s = {.service = asked->service,
                .hops = json_integer_value(json_object_get(object, "hops")),
                .claim = json_is_true(json_object_get(object, "claim"))};
    g_autoptr(vz_trail) asker = vz_trail_load(asked->service, asked->job, err);
    if (!asker)
        return NULL;
    if (!domain || !vz_uuid_parse(domain, s.uuid) || s.hops < 0 || s.hops >= HOPS_MAX ||
        memcmp(s.uuid, asker->domain, VZ_UUID_BYTES) != 0) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the question is not about the domain of its job");
        return NULL;
    }
    vz_uuid_format(s.uuid, s.domain);
    s.asker = asker;
    return find(&s, err);
}

void vz_whereabouts_describe(const vz_migration *m, json_t *reply)
{
    g_autoptr(GError) none = NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    g_autoptr(vz_domain) domain =
        vz_migration_domain_uuid(m, uuid)
            ? vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, &none)
            : NULL;
    g_autoptr(vz_snapshot) snapshot = domain ? vz_domain_snapshot(domain) : NULL;
    json_object_set_new(reply, "guest", json_boolean(snapshot && vz_snapshot_active(snapshot)));
    json_object_set_new(reply, "defined",
                        json_boolean(snapshot && vz_snapshot_persistent(snapshot)));
}

/* --- asking --- */

/* The host that a mark names is asked. NULL: it could not be. */
static json_t *ask_by_mark(vz_migrate *service, const char *value, bool claim, vz_inbox *inbox,
                           GError **err)
{
    g_autoptr(vz_trail) trail = trail_of_mark(service, value, err);
    return trail ? ask_trail(trail, 0, claim, inbox, err) : NULL;
}

static bool refuse(const vz_domain *domain, const char *mark, const char *host,
                   const json_t *answer, GError **err)
{
    const char *name = vz_domain_name(domain);
    const char *how = strcmp(mark, VZ_MARK_MOVED) == 0 ? "has moved to" : "has come from";
    if (says(answer, "guest"))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain '%s' %s %s: %s", name, how, host,
                       detail_of(answer));
    if (says(answer, "defined"))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "domain '%s' %s %s and is defined there, so it could be started on both; "
                       "start it there, or undefine it there first",
                       name, how, host);
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "domain '%s' %s %s and may be running there: %s; if it surely is not, 'vz "
                   "resolve %s --here' says so",
                   name, how, host, detail_of(answer), name);
}

/* Never NULL: silence is an answer, too. */
static json_t *ask_or_suppose(vz_migrate *service, vz_domain *domain, const char *value, bool claim,
                              bool automatic)
{
    const char *host = vz_trail_mark_host(value);
    g_autoptr(GError) silence = NULL;
    json_t *answer = ask_by_mark(service, value, claim, vz_domain_inbox(domain), &silence);
    if (answer)
        return answer;
    if (vz_lease_fencing() && !automatic) {
        vz_warn(vz_domain_name(domain), "%s is silent (%s) and counts as dead: fencing = yes", host,
                silence->message);
        return say("gone", "fenced");
    }
    g_autofree char *text = g_strdup_printf("it does not answer (%s)", silence->message);
    return say("unknown", text);
}

typedef struct {
    bool claim;     /* the right to start goes over, and the mark goes */
    bool automatic; /* nobody has asked for it just now */
} asking;

static bool check_mark(vz_migrate *service, vz_domain *domain, asking how, const char *mark,
                       const char *value, GError **err)
{
    json_t *answer = ask_or_suppose(service, domain, value, how.claim, how.automatic);
    bool ok = says(answer, "gone")
                  ? !how.claim || vz_store_clear_mark(store_of(service),
                                                      vz_domain_uuid_text(domain), mark, err)
                  : refuse(domain, mark, vz_trail_mark_host(value), answer, err);
    json_decref(answer);
    return ok;
}

static bool check_marks(vz_migrate *service, vz_domain *domain, asking how, bool *ret_given,
                        GError **err)
{
    for (size_t i = 0; i < G_N_ELEMENTS(marks); i++) {
        g_autofree char *value = NULL;
        if (!vz_store_get_mark(store_of(service), vz_domain_uuid_text(domain), marks[i], &value,
                               err) ||
            (value && !check_mark(service, domain, how, marks[i], value, err)))
            return false;
        *ret_given = *ret_given || value;
    }
    return true;
}

bool vz_whereabouts_check_start(vz_domain *domain, bool automatic, bool *ret_given, void *user,
                                GError **err)
{
    const asking how = {.claim = true, .automatic = automatic};
    return check_marks(user, domain, how, ret_given, err);
}

bool vz_whereabouts_may_start(vz_migrate *service, vz_domain *domain, GError **err)
{
    bool given = false;
    return check_marks(service, domain, (asking){.automatic = true}, &given, err);
}

bool vz_whereabouts_check_arrival(const vz_migration *m, GError **err)
{
    g_autofree char *mark = NULL;
    g_autoptr(GError) silence = NULL;
    const char *uuid = vz_domain_uuid_text(m->domain);
    if (!vz_trail_get_mark(m, VZ_MARK_ARRIVING, &mark, err))
        return false;
    g_autoptr(vz_trail) earlier = mark ? trail_of_mark(m->service, mark, &silence) : NULL;
    if (!mark || (earlier && leads_to(earlier, m->peer_uuid)))
        return true;
    json_t *answer =
        earlier ? ask_trail(earlier, 0, false, vz_domain_inbox(m->domain), &silence) : NULL;
    bool ok = answer && says(answer, "gone");
    if (!ok)
        vz_fail(err, VZ_ERR_OPERATION_INVALID,
                "domain '%s' came here from %s before, which has not ended its copy: %s; when that "
                "host answers this settles itself, and if it never will, remove '%s.marks' in "
                "the state directory's 'domains' on %s",
                vz_domain_name(m->domain), vz_trail_mark_host(mark),
                answer ? detail_of(answer) : silence->message, uuid,
                vz_migrate_settings(m->service)->host_name);
    json_decref(answer);
    return ok;
}

json_t *vz_whereabouts_evidence(vz_migrate *service, vz_domain *domain)
{
    json_t *evidence = json_object();
    for (size_t i = 0; i < G_N_ELEMENTS(marks); i++) {
        g_autoptr(GError) err = NULL;
        g_autofree char *value = NULL;
        if (!vz_store_get_mark(store_of(service), vz_domain_uuid_text(domain), marks[i], &value,
                               &err) ||
            !value)
            continue;
        json_t *answer = ask_by_mark(service, value, false, vz_domain_inbox(domain), &err);
        if (!answer)
            answer = json_pack("{ss}", "silence", err->message);
        json_object_set_new(answer, "host", json_string(vz_trail_mark_host(value)));
        json_object_set_new(evidence, marks[i], answer);
    }
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    g_autoptr(vz_lease_holder) holder =
        snapshot->config ? vz_lease_find_holder(domain, snapshot->config) : NULL;
    if (holder) {
        g_autofree char *detail =
            g_strdup_printf("it has the lease of '%s' since %s", holder->image, holder->since);
        json_object_set_new(evidence, "lease",
                            json_pack("{ss ss}", "host", holder->host_name, "detail", detail));
    }
    return evidence;
}

json_t *vz_whereabouts_ask_peer(const vz_migration *m, GError **err)
{
    g_autoptr(vz_trail) trail = vz_trail_load(m->service, m->job, err);
    return trail ? ask_trail(trail, 0, false, vz_domain_inbox(m->domain), err) : NULL;
}

bool vz_whereabouts_override(vz_domain *domain, GError **err)
{
    vz_store *store = vz_table_store(vz_domain_table(domain));
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    for (size_t i = 0; i < G_N_ELEMENTS(marks); i++)
        if (!vz_store_clear_mark(store, vz_domain_uuid_text(domain), marks[i], err))
            return false;
    return !snapshot->config || vz_lease_seize(domain, snapshot->config, err);
}
