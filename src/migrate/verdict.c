/* verdict.c - see verdict.h. */
#include "migrate/verdict.h"

#include "base/log.h"
#include "base/units.h"
#include "migrate/destination.h"
#include "migrate/service.h"
#include "migrate/whereabouts.h"

#include <string.h>

#define ASK_AGAIN_US ((int64_t)500 * 1000)
/* An answer waits so long for the guest's process to be proved dead. */
#define DISSOLVE_PATIENCE_US ((int64_t)5 * 1000000)
#define DISSOLVE_POLL_US     ((gulong)20 * 1000)

/* --- asking --- */

bool vz_verdict_probe(vz_migration *migration, int64_t patience_us, GError **err)
{
    json_t *reply =
        vz_question_of_job(migration, json_pack("{ss}", "op", "probe"), patience_us, err);
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

static void keep_answer(vz_migration *m, const json_t *reply, const GError *silence)
{
    json_decref(m->answer);
    m->answer = reply ? json_deep_copy(reply) : json_pack("{ss}", "silence", silence->message);
    m->answered_at_us = vz_now_us();
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
    /* The proof of the release, since no cookie carries it any more. Where the stream was not seen
     * to end QEMU may have run the guest again before it died, and have written to its disks. */
    bool no_way_back = migration->switched && !migration->guest_died;
    json_t *question = json_pack("{ss sb sb}", "op", "verdict", "dead", migration->guest_died,
                                 "no-way-back", no_way_back);
    if (no_way_back || (migration->guest_died && vz_saga_released(&migration->saga)))
        json_object_set_new(question, "release", json_string(migration->release));
    json_t *reply = vz_question_of_job(migration, question, VZ_QUESTION_DEADLINE_US, &err);
    *ret_again = true;
    keep_answer(migration, reply, err);
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
    const char *record = json_string_value(json_object_get(reply, "record"));
    vz_info(migration->id, "%s says '%s' (record: %s)", migration->peer_name, word ? word : "?",
            record ? record : "?");
    json_decref(reply);
    return answer;
}

vz_outcome vz_verdict_ask(vz_migration *migration)
{
    int64_t deadline_us = vz_now_us() + VZ_VERDICT_PATIENCE_US;
    for (;;) {
        bool again = true;
        vz_migration_uncancel(migration); /* a client may go meanwhile */
        vz_outcome answer = ask_once(migration, &again);
        if (answer != VZ_OUTCOME_UNKNOWN || !again || migration->resolving ||
            vz_now_us() >= deadline_us)
            return answer;
        vz_wait_uncancellable(vz_domain_inbox(migration->domain), NULL, NULL,
                              vz_now_us() + ASK_AGAIN_US);
    }
}

bool vz_verdict_end(vz_migration *migration)
{
    g_autoptr(GError) err = NULL;
    vz_record record = vz_journal_state(migration->journal);
    if (record == VZ_RECORD_ENDED || record == VZ_RECORD_RESOLVED_HERE ||
        vz_journal_advance(migration->journal, VZ_RECORD_ENDED, &err))
        return true;
    vz_error(migration->id, "the job is over, but its record cannot say so yet: %s", err->message);
    return false;
}

bool vz_verdict_forget(vz_migration *migration)
{
    g_autoptr(GError) err = NULL;
    if (!vz_verdict_end(migration))
        return false;
    bool condemn = vz_journal_state(migration->journal) == VZ_RECORD_RESOLVED_HERE;
    g_autofree char *word = vz_journal_get(migration->journal, VZ_NOTE_RESOLVED);
    bool there = word && g_str_has_prefix(word, "there");
    json_t *reply = vz_question_of_job(
        migration, json_pack("{ss sb}", "op", condemn ? "condemn" : "forget", "there", there),
        VZ_QUESTION_DEADLINE_US, &err);
    if (!reply)
        vz_warn(migration->id, "%s %s: %s", migration->peer_name,
                condemn ? "has not given its copy up" : "keeps its record of the job",
                err->message);
    json_decref(reply);
    return reply != NULL;
}

/* --- answering --- */

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
        vz_destination_dissolve(migration);
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

/* The source has ended its part for good. What was not committed here is given up with it, unless
 * its operator has left the guest to this host (`left_here`): a whole one then goes on here, and of
 * one whose start was attempted before QEMU died the definition stays. */
static bool forget(vz_migration *m, bool left_here, GError **err)
{
    vz_record record = vz_journal_state(m->journal);
    if (left_here && (record == VZ_RECORD_PREPARED || record == VZ_RECORD_LOADED) &&
        vz_destination_go_on_alone(m, false))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the guest is being started");
    if (record < VZ_RECORD_COMMITTED) {
        if (!vz_journal_advance(m->journal, VZ_RECORD_ABORTED, err))
            return false;
        vz_destination_dissolve(m);
        if (!wait_dissolved(m))
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the guest's process does not end");
    } else if (record != VZ_RECORD_STARTED && record != VZ_RECORD_ABORTED &&
               !(left_here && g_atomic_int_get(&m->dissolved))) {
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the job is not decided: its record says '%s'", vz_record_name(record));
    }
    /* The source's copy has ended: the guest may be started here without asking. */
    g_autofree char *domain = vz_journal_get(m->journal, VZ_NOTE_DOMAIN);
    if (!vz_trail_unmark(m->service, domain, VZ_MARK_ARRIVING, m->id, err))
        return false;
    vz_migration_forget(m);
    return true;
}

/* The questions about a record need one. */
static vz_migration *record_of(const vz_asked *asked, GError **err)
{
    if (asked->migration && asked->migration->side == VZ_SIDE_DESTINATION)
        return asked->migration;
    vz_fail(err, VZ_ERR_OPERATION_INVALID, "this host has no record of the job");
    return NULL;
}

json_t *vz_verdict_reply_probe(const vz_asked *asked, GError **err)
{
    vz_migration *m = record_of(asked, err);
    if (!m)
        return NULL;
    g_atomic_int_set(&m->probed_s, (gint)(vz_now_us() / VZ_USEC_PER_SEC));
    /* Durable before the answer: a source that was never answered cannot have released. */
    g_autofree char *probed = vz_journal_get(m->journal, VZ_NOTE_PROBED);
    if (!probed &&
        (!vz_migration_note(m, VZ_NOTE_PROBED, "yes", err) ||
         !vz_trail_learn_address(m, asked->peer_address, err) || !vz_journal_sync(m->journal, err)))
        return NULL;
    return json_pack("{ss}", "record", vz_record_name(vz_journal_state(m->journal)));
}

/* The source's copy has died after it had let the guest go. With the proof that it had ended by
 * then, the guest goes on here if it has come whole; else a whole one is kept for an operator. The
 * source asks again. */
static bool outlives_source(const vz_asked *asked)
{
    vz_migration *m = asked->migration;
    vz_record record = vz_journal_state(m->journal);
    const char *proof = json_string_value(json_object_get(asked->object, "release"));
    g_autofree char *hash = proof ? vz_release_hash(proof) : NULL;
    g_autofree char *expected = vz_journal_get(m->journal, VZ_NOTE_RELEASE);
    bool proved = hash && expected && strcmp(hash, expected) == 0;
    bool dead = json_is_true(json_object_get(asked->object, "dead"));
    bool switched = proved && json_is_true(json_object_get(asked->object, "no-way-back"));
    return (dead || switched) && (record == VZ_RECORD_PREPARED || record == VZ_RECORD_LOADED) &&
           (proved ? vz_destination_go_on_alone(m, switched) : vz_destination_keep(m));
}

/* With what there is of the guest, as evidence for an operator. */
json_t *vz_verdict_reply_verdict(const vz_asked *asked, GError **err)
{
    vz_migration *m = record_of(asked, err);
    if (!m)
        return NULL;
    const char *verdict = outlives_source(asked) ? "wait" : judge(m);
    json_t *reply = json_pack("{ss ss}", "verdict", verdict, "record",
                              vz_record_name(vz_journal_state(m->journal)));
    vz_whereabouts_describe(m, reply);
    return reply;
}

/* Of a job that is forgotten here: a second hearing is as good as the first. */
static json_t *reply_forgotten(void)
{
    return json_pack("{ss}", "record", "none");
}

json_t *vz_verdict_reply_forget(const vz_asked *asked, GError **err)
{
    if (!asked->migration)
        return reply_forgotten();
    vz_migration *m = record_of(asked, err);
    return m && forget(m, json_is_true(json_object_get(asked->object, "there")), err)
               ? reply_forgotten()
               : NULL;
}

/* What is here came by this job, and was not started since by this host's own operator: the mark
 * of its arrival stands. One that went on to a third host is not this host's to take away; a mark
 * that it arrived to is of an earlier move, and that of this job is ours (take_away). */
static bool may_take_away(vz_migration *m, bool *ret_ours, GError **err)
{
    g_autofree char *before = vz_journal_get(m->journal, VZ_NOTE_MOVED_BEFORE);
    g_autofree char *moved = NULL;
    g_autofree char *arriving = NULL;
    if (!vz_trail_get_mark(m, VZ_MARK_MOVED, &moved, err) ||
        !vz_trail_get_mark(m, VZ_MARK_ARRIVING, &arriving, err))
        return false;
    *ret_ours = vz_trail_mark_is_of(arriving, m->id);
    return !moved || g_strcmp0(moved, before) == 0 || vz_trail_mark_is_of(moved, m->id) ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID, "the guest has run here and has moved on to %s",
                   vz_trail_mark_host(moved));
}

/* From now on this host asks the source before it starts the guest; marked first, so that there is
 * no moment in which it would not. */
static bool take_away(vz_migration *m, GError **err)
{
    if (!vz_journal_condemn(m->journal, err) || !vz_trail_mark(m, VZ_MARK_MOVED, err))
        return false;
    g_atomic_int_set(&m->dissolved, 0); /* its process may be gone, but not its definition */
    vz_destination_condemn(m);
    if (!wait_dissolved(m))
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the guest's process does not end");
    return true;
}

json_t *vz_verdict_reply_condemn(const vz_asked *asked, GError **err)
{
    if (!asked->migration)
        return reply_forgotten();
    bool ours = false;
    vz_migration *m = record_of(asked, err);
    if (!m || !may_take_away(m, &ours, err) || (ours && !take_away(m, err)))
        return NULL;
    vz_migration_forget(m);
    return reply_forgotten();
}
