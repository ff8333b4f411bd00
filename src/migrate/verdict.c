/* verdict.c - see verdict.h. */
#include "migrate/verdict.h"

#include "base/log.h"
#include "migrate/destination.h"
#include "migrate/service.h"

#include <string.h>

#define ASK_AGAIN_US ((int64_t)500 * 1000)
/* An answer waits so long for the guest's process to be proved dead. */
#define DISSOLVE_PATIENCE_US ((int64_t)5 * 1000000)
#define DISSOLVE_POLL_US     ((gulong)20 * 1000)

/* --- asking --- */

/* A borrowed inbox that is cancelled would end the exchange: while settling it is not. */
static json_t *exchange(vz_migration *migration, const char *op, int64_t patience_us, GError **err)
{
    vz_ask_request request = {.host = migration->peer_host,
                              .port = migration->peer_port,
                              .keys = migration->keys,
                              .peer_fingerprint = migration->peer_fingerprint,
                              .inbox =
                                  migration->domain ? vz_domain_inbox(migration->domain) : NULL,
                              .deadline_us = vz_now_us() + patience_us};
    memcpy(request.job, migration->job, VZ_UUID_BYTES);
    json_t *object = json_pack("{ss ss}", "op", op, "incarnation", migration->incarnation);
    char *text = json_dumps(object, JSON_COMPACT);
    json_decref(object);
    g_autoptr(GBytes) question = g_bytes_new_take(text, strlen(text));
    g_autoptr(GBytes) answer = NULL;
    if (!vz_ask(&request, question, &answer, err))
        return NULL;
    gsize bytes;
    const void *data = g_bytes_get_data(answer, &bytes);
    json_t *reply = json_loadb(data, bytes, 0, NULL);
    if (!reply)
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the destination's answer makes no sense");
    return reply;
}

bool vz_verdict_probe(vz_migration *migration, int64_t patience_us, GError **err)
{
    json_t *reply = exchange(migration, "probe", patience_us, err);
    if (!reply) {
        g_prefix_error(err, "cannot ask the destination what becomes of the guest, so it is not "
                            "let go: ");
        return false;
    }
    const char *record = json_string_value(json_object_get(reply, "record"));
    bool ready = record && strcmp(record, vz_record_name(VZ_RECORD_PREPARED)) == 0;
    if (!ready)
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "the destination's record of the job is '%s'",
                record ? record : "missing");
    json_decref(reply);
    return ready;
}

static vz_outcome ask_once(vz_migration *migration, bool *ret_again)
{
    static const struct {
        const char *word;
        vz_outcome answer;
        bool again;
    } words[] = {{"running", VZ_OUTCOME_MOVED, false},
                 {"aborted", VZ_OUTCOME_NOT_MOVED, false},
                 {"wait", VZ_OUTCOME_UNKNOWN, true},
                 {"unknown", VZ_OUTCOME_UNKNOWN, false}};
    g_autoptr(GError) err = NULL;
    json_t *reply = exchange(migration, "verdict", VZ_ASK_DEADLINE_US, &err);
    *ret_again = true;
    if (!reply) {
        vz_warn(migration->id, "%s does not answer: %s", migration->peer_name, err->message);
        return VZ_OUTCOME_UNKNOWN;
    }
    vz_outcome answer = VZ_OUTCOME_UNKNOWN;
    const char *word = json_string_value(json_object_get(reply, "verdict"));
    for (size_t i = 0; word && i < G_N_ELEMENTS(words); i++) {
        if (strcmp(words[i].word, word) == 0) {
            answer = words[i].answer;
            *ret_again = words[i].again;
        }
    }
    vz_info(migration->id, "%s says '%s' (record: %s)", migration->peer_name, word ? word : "?",
            json_string_value(json_object_get(reply, "record")));
    json_decref(reply);
    return answer;
}

vz_outcome vz_verdict_ask(vz_migration *migration)
{
    int64_t deadline_us = vz_now_us() + VZ_VERDICT_PATIENCE_US;
    vz_migration_uncancel(migration);
    for (;;) {
        bool again = true;
        vz_outcome answer = ask_once(migration, &again);
        if (answer != VZ_OUTCOME_UNKNOWN || !again || vz_now_us() >= deadline_us)
            return answer;
        vz_wait_uncancellable(vz_domain_inbox(migration->domain), NULL, NULL,
                              vz_now_us() + ASK_AGAIN_US);
    }
}

bool vz_verdict_forget(vz_migration *migration)
{
    g_autoptr(GError) err = NULL;
    json_t *reply = exchange(migration, "forget", VZ_ASK_DEADLINE_US, &err);
    if (!reply)
        vz_warn(migration->id, "%s keeps its record of the job: %s", migration->peer_name,
                err->message);
    json_decref(reply);
    return reply != NULL;
}

/* --- answering --- */

bool vz_verdict_find_keys(const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                          char **ret_peer_fingerprint, void *user)
{
    g_autoptr(vz_migration) migration = vz_migrate_find(user, VZ_SIDE_DESTINATION, job);
    g_autofree char *peer =
        migration ? vz_journal_get(migration->journal, VZ_NOTE_PEER_FINGERPRINT) : NULL;
    if (!peer)
        return false;
    g_autoptr(GError) err = NULL;
    /* The server's copy is its own: the job may be forgotten while it answers. */
    g_autofree char *path = g_strconcat(vz_journal_path(migration->journal), ".key", NULL);
    *ret_keys = vz_channel_keys_load(path, &err);
    if (!*ret_keys)
        return false;
    *ret_peer_fingerprint = g_steal_pointer(&peer);
    return true;
}

/* Waits a while for the guest to be gone. */
static bool wait_dissolved(vz_migration *migration)
{
    int64_t deadline_us = vz_now_us() + DISSOLVE_PATIENCE_US;
    while (!g_atomic_int_get(&migration->dissolved) && vz_now_us() < deadline_us)
        g_usleep(DISSOLVE_POLL_US);
    return g_atomic_int_get(&migration->dissolved);
}

/* The table of docs/migration.md. */
static const char *judge(vz_migration *migration)
{
    g_autoptr(GError) err = NULL;
    vz_record record = vz_journal_state(migration->journal);
    if (record < VZ_RECORD_COMMITTED) {
        if (!vz_journal_advance(migration->journal, VZ_RECORD_ABORTED, &err)) {
            vz_warn(migration->id, "no answer can be given: %s", err->message);
            return "wait"; /* a Finish was quicker, or no tombstone can be made */
        }
        record = VZ_RECORD_ABORTED;
    }
    if (record == VZ_RECORD_ABORTED) {
        vz_destination_dissolve(migration, "the source asked and was told that the move is off");
        return wait_dissolved(migration) ? "aborted" : "wait";
    }
    if (record == VZ_RECORD_STARTED)
        return "running";
    if (!g_atomic_int_get(&migration->dissolved))
        return "wait";
    /* The guest's process is proved dead. */
    if (record == VZ_RECORD_COMMITTED && vz_journal_revoke(migration->journal, &err))
        return "aborted";
    return "unknown";
}

/* The source has ended its part for good. What was not committed here is given up with it. */
static bool forget(vz_migration *migration, GError **err)
{
    vz_record record = vz_journal_state(migration->journal);
    if (record < VZ_RECORD_COMMITTED) {
        if (!vz_journal_advance(migration->journal, VZ_RECORD_ABORTED, err))
            return false;
        vz_destination_dissolve(migration, "the source has given the migration up");
        if (!wait_dissolved(migration))
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the guest's process does not end");
    } else if (record != VZ_RECORD_STARTED && record != VZ_RECORD_ABORTED) {
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the job is not decided: its record says '%s'", vz_record_name(record));
    }
    vz_migration_forget(migration);
    return true;
}

static json_t *reply_to(vz_migration *migration, const char *op, GError **err)
{
    if (strcmp(op, "probe") == 0) {
        /* Durable before the answer: a source that was never answered cannot have released. */
        g_autofree char *probed = vz_journal_get(migration->journal, VZ_NOTE_PROBED);
        if ((!probed && !vz_migration_note(migration, VZ_NOTE_PROBED, "yes", err)) ||
            !vz_journal_sync(migration->journal, err))
            return NULL;
        return json_pack("{ss}", "record", vz_record_name(vz_journal_state(migration->journal)));
    }
    if (strcmp(op, "verdict") == 0) {
        const char *verdict = judge(migration);
        return json_pack("{ss ss}", "verdict", verdict, "record",
                         vz_record_name(vz_journal_state(migration->journal)));
    }
    if (strcmp(op, "forget") == 0)
        return forget(migration, err) ? json_pack("{ss}", "record", "none") : NULL;
    vz_fail(err, VZ_ERR_INVALID_ARG, "there is no question '%s'", op);
    return NULL;
}

bool vz_verdict_answer(const uint8_t job[VZ_UUID_BYTES], GBytes *question, GBytes **ret_answer,
                       void *user, GError **err)
{
    g_autoptr(vz_migration) migration = vz_migrate_find(user, VZ_SIDE_DESTINATION, job);
    if (!migration)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "this host has no record of the job");
    gsize bytes;
    const void *data = g_bytes_get_data(question, &bytes);
    json_t *object = json_loadb(data, bytes, 0, NULL);
    const char *op = json_string_value(json_object_get(object, "op"));
    const char *incarnation = json_string_value(json_object_get(object, "incarnation"));
    bool same = incarnation && strcmp(incarnation, vz_migrate_incarnation(user)) == 0;
    json_t *reply = NULL;
    if (op && !same)
        reply = json_pack("{ss ss}", "verdict", "unknown", "record", "of another incarnation");
    else if (op)
        reply = reply_to(migration, op, err);
    else
        vz_fail(err, VZ_ERR_INVALID_ARG, "the question makes no sense");
    json_decref(object);
    if (!reply)
        return false;
    char *text = json_dumps(reply, JSON_COMPACT);
    json_decref(reply);
    *ret_answer = g_bytes_new_take(text, strlen(text));
    return true;
}
