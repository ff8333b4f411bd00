/* question.c - see question.h. */
#include "migrate/question.h"

#include "migrate/offline.h"
#include "migrate/postcopy.h"
#include "migrate/service.h"
#include "migrate/verdict.h"
#include "migrate/visit.h"
#include "migrate/whereabouts.h"

#include <string.h>

/* --- asking --- */

static json_t *ask(const vz_ask_request *request, const char *incarnation, json_t *take_object,
                   GError **err)
{
    if (incarnation)
        json_object_set_new(take_object, "incarnation", json_string(incarnation));
    char *text = json_dumps(take_object, JSON_COMPACT);
    json_decref(take_object);
    g_autoptr(GBytes) question = g_bytes_new_take(text, strlen(text));
    g_autoptr(GBytes) answer = NULL;
    if (!vz_ask(request, question, &answer, err))
        return NULL;
    gsize bytes;
    const void *data = g_bytes_get_data(answer, &bytes);
    json_t *reply = json_loadb(data, bytes, 0, NULL);
    if (!reply)
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the other host's answer makes no sense");
    return reply;
}

json_t *vz_question_of_job(vz_migration *m, json_t *take_object, int64_t patience_us, GError **err)
{
    bool unknown = false;
    vz_ask_request request = {.host = m->peer_host,
                              .port = m->peer_port,
                              .ret_unknown = &unknown,
                              .keys = m->keys,
                              .peer_fingerprint = m->peer_fingerprint,
                              .inbox = m->domain ? vz_domain_inbox(m->domain) : NULL,
                              .deadline_us = vz_now_us() + patience_us};
    memcpy(request.job, m->job, VZ_UUID_BYTES);
    json_t *reply = ask(&request, m->incarnation, take_object, err);
    m->unknown_there = unknown ? m->unknown_there + 1 : 0;
    return reply;
}

json_t *vz_question_of_trail(const vz_trail *trail, json_t *take_object, vz_inbox *inbox,
                             int64_t patience_us, GError **err)
{
    if (!trail->peer_host || trail->peer_port == 0 || !trail->peer_incarnation) {
        json_decref(take_object);
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s did not say where it can be asked",
                trail->peer_name);
        return NULL;
    }
    vz_ask_request request = {.host = trail->peer_host,
                              .port = trail->peer_port,
                              .keys = trail->keys,
                              .peer_fingerprint = trail->peer_fingerprint,
                              .inbox = inbox,
                              .deadline_us = vz_now_us() + patience_us};
    memcpy(request.job, trail->job, VZ_UUID_BYTES);
    return ask(&request, trail->peer_incarnation, take_object, err);
}

bool vz_question_hello(const vz_ask_request *request, const char *incarnation, GError **err)
{
    json_t *reply = ask(request, incarnation, json_pack("{ss}", "op", VZ_VISIT_OP), err);
    bool answered = reply && json_is_true(json_object_get(reply, "hello"));
    if (reply && !answered)
        vz_fail(err, VZ_ERR_OPERATION_FAILED,
                "what answers at %s port %u is not the daemon that was asked before", request->host,
                request->port);
    json_decref(reply);
    return answered;
}

/* --- answering --- */

static vz_migration *find_job(vz_migrate *service, const uint8_t job[VZ_UUID_BYTES])
{
    vz_migration *migration = vz_migrate_find(service, VZ_SIDE_DESTINATION, job);
    return migration ? migration : vz_migrate_find(service, VZ_SIDE_SOURCE, job);
}

/* The server's copy is its own: the job may be forgotten while it answers. */
static bool keys_of_job(const vz_migration *migration, vz_channel_keys **ret_keys,
                        char **ret_peer_fingerprint)
{
    g_autoptr(GError) forgotten = NULL;
    g_autofree char *peer = vz_journal_get(migration->journal, VZ_NOTE_PEER_FINGERPRINT);
    g_autofree char *invitation = vz_journal_get(migration->journal, VZ_NOTE_INVITATION);
    g_autofree char *path = g_strconcat(vz_journal_path(migration->journal), ".key", NULL);
    if ((!peer && !invitation) || !(*ret_keys = vz_channel_keys_load(path, &forgotten)))
        return false;
    *ret_peer_fingerprint = g_steal_pointer(&peer);
    return true;
}

bool vz_question_find_keys(const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                           char **ret_peer_fingerprint, void *user)
{
    g_autoptr(GError) unknown = NULL;
    g_autoptr(vz_migration) migration = find_job(user, job);
    if (vz_visits_find(vz_migrate_visits(user), job, ret_keys, ret_peer_fingerprint) ||
        (migration && keys_of_job(migration, ret_keys, ret_peer_fingerprint)))
        return true;
    g_autoptr(vz_trail) trail = vz_trail_load(user, job, &unknown);
    if (!trail)
        return false;
    *ret_keys = g_steal_pointer(&trail->keys);
    *ret_peer_fingerprint = g_steal_pointer(&trail->peer_fingerprint);
    return true;
}

static json_t *reply_hello(const vz_asked *asked, GError **err)
{
    (void)asked;
    (void)err;
    return json_pack("{sb}", "hello", 1);
}

static const struct {
    const char *op;
    json_t *(*reply)(const vz_asked *asked, GError **err);
    bool of_strangers; /* of one whom the job does not know yet */
} ops[] = {
    {"probe", vz_verdict_reply_probe, false},      {"verdict", vz_verdict_reply_verdict, false},
    {"forget", vz_verdict_reply_forget, false},    {"condemn", vz_verdict_reply_condemn, false},
    {"where", vz_whereabouts_reply_where, false},  {"let-go", vz_offline_reply_let_go, true},
    {"recover", vz_postcopy_reply_recover, false}, {VZ_VISIT_OP, reply_hello, false},
};

static json_t *reply_to(const vz_asked *asked, bool is_stranger, GError **err)
{
    const char *op = json_string_value(json_object_get(asked->object, "op"));
    const char *incarnation = json_string_value(json_object_get(asked->object, "incarnation"));
    /* Its keys are good for this alone, and it is good for nothing else. */
    if (vz_visits_end(vz_migrate_visits(asked->service), asked->job) !=
        (g_strcmp0(op, VZ_VISIT_OP) == 0)) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is not asked by these keys", op ? op : "");
        return NULL;
    }
    for (size_t i = 0; op && i < G_N_ELEMENTS(ops); i++) {
        if (strcmp(ops[i].op, op) != 0 || (is_stranger && !ops[i].of_strangers))
            continue;
        if (!incarnation || strcmp(incarnation, vz_migrate_incarnation(asked->service)) != 0)
            return json_pack("{ss ss ss}", "verdict", "unknown", "record", "of another incarnation",
                             "where", "unknown");
        return ops[i].reply(asked, err);
    }
    vz_fail(err, VZ_ERR_INVALID_ARG, "there is no question '%s'%s", op ? op : "",
            is_stranger ? " of a host that the job does not know" : "");
    return NULL;
}

bool vz_question_answer(const vz_ask_visit *visit, GBytes *question, GBytes **ret_answer,
                        void *user, GError **err)
{
    gsize bytes;
    const void *data = g_bytes_get_data(question, &bytes);
    g_autoptr(vz_migration) migration = find_job(user, visit->job);
    json_t *object = json_loadb(data, bytes, 0, NULL);
    vz_asked asked = {.service = user,
                      .migration = migration,
                      .object = object,
                      .peer_address = visit->peer_address,
                      .peer_fingerprint = visit->peer_fingerprint};
    memcpy(asked.job, visit->job, VZ_UUID_BYTES);
    json_t *reply = reply_to(&asked, visit->is_stranger, err);
    json_decref(object);
    if (!reply)
        return false;
    char *text = json_dumps(reply, JSON_COMPACT);
    json_decref(reply);
    *ret_answer = g_bytes_new_take(text, strlen(text));
    return true;
}
