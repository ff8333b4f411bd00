/* offline.c - see offline.h.
 *
 * Lock: let_go->lock guards what follows it; held for copying only. */
#include "migrate/offline.h"

#include "base/log.h"
#include "migrate/destination.h"
#include "migrate/service.h"
#include "migrate/source.h"
#include "migrate/uri.h"

#include <string.h>

/* One answer waits so long for Perform's steps, then it says "wait". */
#define ANSWER_PATIENCE_US ((int64_t)3 * 1000000)
#define ANSWER_POLL_US     ((gulong)10 * 1000)
/* The destination goes on asking so long: proving the disks and the way to ask takes up to 20 s
 * where a path or a host is slow to say no. */
#define FETCH_PATIENCE_US ((int64_t)40 * 1000000)
#define FETCH_AGAIN_US    ((int64_t)100 * 1000)

typedef enum { RUNNING, RELEASED, FAILED } progress;

struct vz_let_go {
    char *peer_fingerprint; /* who has shown the invitation */
    GMutex lock;
    progress progress;
    int error_code;
    char *error_text;
};

void vz_let_go_free(vz_let_go *let_go)
{
    if (!let_go)
        return;
    g_mutex_clear(&let_go->lock);
    g_free(let_go->peer_fingerprint);
    g_free(let_go->error_text);
    g_free(let_go);
}

/* --- the source --- */

typedef struct {
    vz_migration *migration;
    vz_cookie cookie;
    char *uri;
} visit;

static void visit_free(void *data)
{
    visit *v = data;
    vz_migration_unref(v->migration);
    vz_cookie_clear(&v->cookie);
    g_free(v->uri);
    g_free(v);
}

static void note_progress(vz_let_go *let_go, bool released, const GError *err)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&let_go->lock);
    let_go->progress = released ? RELEASED : FAILED;
    if (released)
        return;
    let_go->error_code = (int)vz_error_number(err);
    let_go->error_text = g_strdup(err->message);
}

static void perform(vz_domain *domain, void *data)
{
    visit *v = data;
    vz_migration *m = v->migration;
    g_autoptr(GError) err = NULL;
    g_autofree char *cookie = NULL;
    vz_source_destination to = {.cookie = &v->cookie, .uri = v->uri};
    bool released = m->domain
                        ? vz_source_perform(m, &to, &cookie, &err)
                        : vz_fail(&err, VZ_ERR_OPERATION_INVALID,
                                  "the migration of '%s' was given up", vz_domain_name(domain));
    note_progress(g_atomic_pointer_get(&m->let_go), released, err);
}

/* The first who shows the invitation is the destination; later he asks again, and nobody else. */
static vz_let_go *admit(const vz_asked *asked, bool *ret_first, GError **err)
{
    static GMutex lock; /* of every job's first moment */
    vz_migration *m = asked->migration;
    const char *shown = json_string_value(json_object_get(asked->object, "invitation"));
    g_autofree char *invitation =
        m && m->side == VZ_SIDE_SOURCE ? vz_journal_get(m->journal, VZ_NOTE_INVITATION) : NULL;
    if (!invitation || !shown || strcmp(invitation, shown) != 0) {
        vz_fail(err, VZ_ERR_OPERATION_INVALID, "this host has not invited anybody to that");
        return NULL;
    }
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&lock);
    vz_let_go *let_go = g_atomic_pointer_get(&m->let_go);
    *ret_first = !let_go;
    if (*ret_first) {
        let_go = g_new0(vz_let_go, 1);
        g_mutex_init(&let_go->lock);
        let_go->peer_fingerprint = g_strdup(asked->peer_fingerprint);
        g_atomic_pointer_set(&m->let_go, let_go);
    }
    if (strcmp(let_go->peer_fingerprint, asked->peer_fingerprint) == 0)
        return let_go;
    vz_fail(err, VZ_ERR_OPERATION_INVALID, "another host has shown that invitation before");
    return NULL;
}

/* What Perform would have been called with. */
static bool read_visit(const vz_asked *asked, visit *ret, GError **err)
{
    char *text = json_dumps(json_object_get(asked->object, "cookie"), JSON_COMPACT);
    bool ok = text ? vz_cookie_parse(text, strlen(text), "prepare", &ret->cookie, err)
                   : vz_fail(err, VZ_ERR_INVALID_ARG, "the question has no cookie");
    free(text);
    const char *uri = json_string_value(json_object_get(asked->object, "uri"));
    if (!ok)
        return false;
    if (!ret->cookie.fingerprint || strcmp(ret->cookie.fingerprint, asked->peer_fingerprint) != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the cookie is of another host than who asks");
    ret->uri = uri ? g_strdup(uri) : vz_uri_format_data(asked->peer_address, ret->cookie.port);
    ret->migration = vz_migration_ref(asked->migration);
    return true;
}

static bool begin(const vz_asked *asked, GError **err)
{
    vz_migration *m = asked->migration;
    uint8_t uuid[VZ_UUID_BYTES];
    if (!vz_migration_domain_uuid(m, uuid))
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the record names no domain");
    g_autoptr(vz_domain) domain =
        vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, err);
    if (!domain)
        return false;
    visit *v = g_new0(visit, 1);
    if (!read_visit(asked, v, err)) {
        visit_free(v);
        return false;
    }
    return vz_domain_post(domain, VZ_TASK_NORMAL, perform, v, visit_free) ||
           vz_fail(err, VZ_ERR_OPERATION_ABORTED, "the daemon is stopping");
}

static progress wait_for(vz_let_go *let_go)
{
    int64_t deadline_us = vz_now_us() + ANSWER_PATIENCE_US;
    for (;;) {
        g_mutex_lock(&let_go->lock);
        progress now = let_go->progress;
        g_mutex_unlock(&let_go->lock);
        if (now != RUNNING || vz_now_us() >= deadline_us)
            return now;
        g_usleep(ANSWER_POLL_US);
    }
}

json_t *vz_offline_reply_let_go(const vz_asked *asked, GError **err)
{
    bool first = false;
    vz_let_go *let_go = admit(asked, &first, err);
    if (!let_go)
        return NULL;
    g_autoptr(GError) why = NULL;
    if (first && !begin(asked, &why))
        note_progress(let_go, false, why);
    switch (wait_for(let_go)) {
    case RUNNING:
        return json_pack("{ss}", "let-go", "wait");
    case RELEASED: {
        g_autofree char *proof = vz_journal_get(asked->migration->journal, VZ_NOTE_RELEASE);
        return json_pack("{ss ss}", "let-go", "released", "release", proof);
    }
    case FAILED:
        return json_pack("{ss si ss}", "let-go", "failed", "code", let_go->error_code, "text",
                         let_go->error_text);
    }
    g_assert_not_reached();
}

/* --- the destination --- */

static json_t *question_of(const vz_migration *m)
{
    g_autofree char *invitation = vz_journal_get(m->journal, VZ_NOTE_INVITATION);
    g_autofree char *cookie = vz_destination_cookie(m);
    return json_pack("{ss ss* so ss*}", "op", "let-go", "invitation", invitation, "cookie",
                     json_loads(cookie, 0, NULL), "uri", m->data_uri);
}

/* The source where it said that it is; else where the client is, which often is the source itself;
 * else by its name. A wrong host cannot show the source's key. */
static json_t *ask_source(vz_migration *m, GError **err)
{
    g_autofree char *said = m->peer_host;
    const char *const places[] = {said, m->client_address, m->peer_name};
    m->peer_host = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(places) && !m->abort_reason; i++) {
        g_autoptr(GError) why = NULL;
        if (!places[i])
            continue;
        m->peer_host = g_strdup(places[i]);
        json_t *reply = vz_question_of_job(m, question_of(m), VZ_QUESTION_DEADLINE_US, &why);
        if (reply) {
            g_clear_error(err);
            return reply;
        }
        if (!*err) /* the first one's says most */
            g_propagate_error(err, g_steal_pointer(&why));
        g_clear_pointer(&m->peer_host, g_free);
    }
    return NULL;
}

typedef enum { GIVEN, NOT_GIVEN, NOT_YET } gift;

static gift take_answer(vz_migration *m, const json_t *reply, GError **err)
{
    const char *word = json_string_value(json_object_get(reply, "let-go"));
    const char *proof = json_string_value(json_object_get(reply, "release"));
    const char *text = json_string_value(json_object_get(reply, "text"));
    if (word && strcmp(word, "wait") == 0)
        return NOT_YET;
    if (word && strcmp(word, "released") == 0 && proof) {
        m->proof = g_strdup(proof);
        return GIVEN;
    }
    if (text)
        vz_fail_from_peer(err, (int)json_integer_value(json_object_get(reply, "code")), text);
    else
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s's answer makes no sense", m->peer_name);
    return NOT_GIVEN;
}

bool vz_offline_fetch_proof(vz_migration *m, GError **err)
{
    int64_t deadline_us = vz_now_us() + FETCH_PATIENCE_US;
    for (;;) {
        json_t *reply = ask_source(m, err);
        if (!reply && m->abort_reason) {
            g_clear_error(err);
            return vz_migration_fail_aborted(m, err);
        }
        if (!reply) {
            g_prefix_error(err, "cannot ask %s to let the domain go: ", m->peer_name);
            return false;
        }
        gift answer = take_answer(m, reply, err);
        json_decref(reply);
        if (answer != NOT_YET)
            return answer == GIVEN;
        if (vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "%s does not let the domain go in time",
                           m->peer_name);
        if (vz_wait(vz_domain_inbox(m->domain), NULL, NULL, vz_now_us() + FETCH_AGAIN_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
}
