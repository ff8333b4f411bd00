/* dst_postcopy.c - see postcopy.h: the destination's part of post-copy. The guest runs here while
 * its pages come, so that its actor is never kept waiting for them. Actor thread, unless said. */
#include "migrate/postcopy.h"

#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "driver/qemu/userfault.h"
#include "migrate/destination_settle.h"
#include "migrate/service.h"
#include "migrate/stream_sockets.h"

#include <string.h>

#define POLL_US ((int64_t)50 * 1000)
/* For a QEMU whose connection is broken to see that. */
#define PAUSE_PATIENCE_US ((int64_t)5 * 1000000)
/* For the actor to get round to it; shorter than the asker's deadline. */
#define VISIT_PATIENCE_US ((int64_t)15 * 1000000)
#define LAST_WORDS_US     ((int64_t)30 * 1000000)
#define ALL_PAGES         "pages" /* a note: they have come */

bool vz_destination_allow_userfault(vz_migration *m, GError **err)
{
    uid_t uid;
    gid_t gid;
    vz_qemu *qemu = m->stream.postcopy ? vz_migration_qemu(m, err) : NULL;
    if (!m->stream.postcopy || !qemu)
        return !m->stream.postcopy;
    vz_qemu_identity(qemu, &uid, &gid);
    m->has_userfault = vz_userfault_allow(uid, gid, err);
    return m->has_userfault;
}

bool vz_destination_has_package(vz_migration *m, vz_memory_status status)
{
    vz_qemu_status now;
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_memory_is_postcopy(status) ? vz_migration_qemu(m, &err) : NULL;
    return qemu && vz_qemu_query_status(qemu, &now, &err) && strcmp(now.status, "inmigrate") != 0;
}

/* By its events: a guest that waits for a page may keep QEMU's main loop, and then nothing else is
 * heard of it. A daemon that was restarted has seen none. */
static bool query(vz_migration *m, vz_memory_status *ret_status, GError **err)
{
    vz_qemu *qemu = vz_migration_qemu(m, err);
    *ret_status = m->reported;
    return qemu && (m->reported != VZ_MEMORY_NONE ||
                    vz_memory_query(vz_qemu_qmp(qemu), ret_status, NULL, NULL, err));
}

bool vz_destination_may_be_switched(vz_migration *m)
{
    vz_memory_status status;
    g_autoptr(GError) err = NULL;
    g_autofree char *probed = vz_journal_get(m->journal, VZ_NOTE_PROBED);
    if (!(m->saga.facts & VZ_FACT_POSTCOPY) || !probed || m->guest_died)
        return false;
    /* A QEMU that cannot be asked just now may hold the only copy. */
    return !query(m, &status, &err) ||
           (status != VZ_MEMORY_COMPLETED && status != VZ_MEMORY_FAILED);
}

/* The source's QEMU has to hear the end, or takes the move for failed and runs the guest again
 * (QEMU 10.0, migration_completion): the carrier lives until then. */
static int64_t last_words_until(vz_migration *m)
{
    if (m->whole_at_us == 0)
        m->whole_at_us = vz_now_us();
    return m->whole_at_us + LAST_WORDS_US;
}

bool vz_destination_receive_pages(vz_migration *m, GError **err)
{
    vz_memory_status status;
    g_autoptr(GError) none = NULL;
    if (!m->carrier && !vz_migration_keep_carrier(m, vz_destination_on_channel, &none))
        vz_warn(m->id, "%s", none->message);
    if (!query(m, &status, err))
        return false;
    if (status == VZ_MEMORY_COMPLETED && vz_postcopy_living_channels(m) > 0 &&
        vz_now_us() < last_words_until(m))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "the source has not heard of the end yet");
    if (status == VZ_MEMORY_COMPLETED)
        return vz_migration_note(m, ALL_PAGES, "yes", err) && vz_journal_sync(m->journal, err);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(m->domain);
    if (s->state == VZ_STATE_RUNNING && status == VZ_MEMORY_POSTCOPY)
        vz_postcopy_say(m, VZ_STATE_RUNNING, VZ_RUNNING_POSTCOPY, VZ_EVENT_RESUMED,
                        VZ_RESUMED_POSTCOPY);
    else if (s->state == VZ_STATE_RUNNING && vz_memory_is_postcopy(status))
        vz_postcopy_say(m, VZ_STATE_RUNNING, VZ_RUNNING_POSTCOPY_FAILED, VZ_EVENT_RESUMED,
                        VZ_RESUMED_POSTCOPY_FAILED);
    return vz_fail(err, VZ_ERR_OPERATION_INVALID, "not all of the guest's memory has come");
}

static void arrived_again(vz_migration *m)
{
    if (m->domain && !m->busy)
        vz_destination_arrived(m);
}

void vz_destination_arrived(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_domain) domain = vz_domain_ref(m->domain);
    m->busy++;
    bool over = m->guest_died || vz_saga_run(&m->saga, VZ_PHASE_CONFIRM, &err) == VZ_SAGA_OK;
    m->busy--;
    if (!over) {
        vz_migration_publish(m, "post-copy");
        vz_migrate_retry(m, arrived_again);
        return;
    }
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (m->switched && s->state == VZ_STATE_RUNNING)
        vz_postcopy_say(m, VZ_STATE_RUNNING, VZ_RUNNING_MIGRATED, VZ_EVENT_RESUMED,
                        VZ_RESUMED_MIGRATED);
    bool shut_down = s->state == VZ_STATE_SHUTDOWN && !m->guest_died;
    vz_destination_close_started(m);
    if (shut_down && !vz_life_end(domain, VZ_SHUTOFF_SHUTDOWN, VZ_STOPPED_SHUTDOWN, &err))
        vz_error(vz_domain_name(domain), "%s", err->message);
}

static void arrived_task(vz_domain *domain, void *data)
{
    (void)domain;
    arrived_again(data);
}

void vz_destination_stirred(vz_migration *m)
{
    if (m->domain && !m->busy && vz_saga_expects(&m->saga, VZ_PHASE_CONFIRM))
        vz_domain_post(m->domain, VZ_TASK_NORMAL, arrived_task, vz_migration_ref(m),
                       (GDestroyNotify)vz_migration_unref);
}

/* --- a new connection --- */

/* What the thread that was asked and the actor share. */
typedef struct {
    gint refs;
    vz_migration *m;
    unsigned first;
    GMutex lock;
    GCond answered;
    json_t *reply;
    GError *err;
} visit;

static void visit_unref(void *data)
{
    visit *v = data;
    if (!g_atomic_int_dec_and_test(&v->refs))
        return;
    vz_migration_unref(v->m);
    json_decref(v->reply);
    g_clear_error(&v->err);
    g_mutex_clear(&v->lock);
    g_cond_clear(&v->answered);
    g_free(v);
}

/* So that QEMU takes another connection. */
static bool await_pause(vz_migration *m, vz_memory_status *status, GError **err)
{
    int64_t deadline_us = vz_now_us() + PAUSE_PATIENCE_US;
    g_autoptr(GError) refused = NULL; /* by a QEMU that has paused by itself meanwhile */
    bool told = false;
    while (query(m, status, err)) {
        if (*status == VZ_MEMORY_COMPLETED || *status == VZ_MEMORY_POSTCOPY_PAUSED)
            return true;
        if (vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
                           "QEMU does not let go of the connection before: %s",
                           refused ? refused->message : "it says nothing");
        if (!told)
            vz_memory_pause_postcopy(vz_qemu_qmp(vz_driver_qemu_of(m->domain)), &refused);
        told = true;
        vz_wait_uncancellable(vz_domain_inbox(m->domain), NULL, NULL, vz_now_us() + POLL_US);
    }
    return false;
}

static bool listen_from(vz_migration *m, unsigned *first, GError **err)
{
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (!qemu || !vz_migration_keep_carrier(m, vz_destination_on_channel, err))
        return false;
    *first = MAX(*first, vz_postcopy_next_channel(m));
    vz_stream_close(g_steal_pointer(&m->sockets));
    m->sockets = vz_stream_prepare(qemu, VZ_PURPOSE_MEMORY, err);
    if (!m->sockets || !vz_memory_recover(vz_qemu_qmp(qemu), vz_stream_path(m->sockets), err))
        return false;
    vz_stream_skip(m->sockets, *first);
    return vz_stream_expect(m->sockets, m->carrier, *first + vz_stream_channels(&m->stream), err);
}

/* What is not found is not dead: the source would drop the pages that have not come. */
static void fail_lost_sight(GError **err)
{
    vz_fail(err, VZ_ERR_OPERATION_FAILED,
            "virtvzd was restarted and has not found that guest's job again, but its process may "
            "live: its log says why");
}

static json_t *listen_again(vz_migration *m, vz_domain *domain, unsigned first, GError **err)
{
    vz_memory_status status;
    g_autofree char *pages = vz_journal_get(m->journal, ALL_PAGES);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (pages)
        return json_pack("{sb}", "completed", 1);
    if (m->guest_died || vz_migration_process_dead(m))
        return json_pack("{sb}", "dead", 1);
    if (!vz_snapshot_active(s) || !m->domain) {
        fail_lost_sight(err);
        return NULL;
    }
    if (!await_pause(m, &status, err))
        return NULL;
    if (status == VZ_MEMORY_COMPLETED) {
        vz_destination_stirred(m);
        return json_pack("{sb}", "completed", 1);
    }
    vz_info(m->id, "the source connects again");
    return listen_from(m, &first, err) ? json_pack("{si}", "first", (int)first) : NULL;
}

static void visit_task(vz_domain *domain, void *data)
{
    visit *v = data;
    GError *err = NULL;
    v->m->busy++;
    json_t *reply = listen_again(v->m, domain, v->first, &err);
    v->m->busy--;
    vz_destination_stirred(v->m);
    g_mutex_lock(&v->lock);
    v->reply = reply;
    v->err = err;
    g_cond_signal(&v->answered);
    g_mutex_unlock(&v->lock);
}

static json_t *visit_wait(visit *v, GError **err)
{
    int64_t deadline_us = g_get_monotonic_time() + VISIT_PATIENCE_US;
    bool in_time = true;
    g_mutex_lock(&v->lock);
    while (!v->reply && !v->err && in_time)
        in_time = g_cond_wait_until(&v->answered, &v->lock, deadline_us);
    json_t *reply = g_steal_pointer(&v->reply);
    GError *failed = g_steal_pointer(&v->err);
    g_mutex_unlock(&v->lock);
    if (failed)
        g_propagate_error(err, failed);
    else if (!reply)
        vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the guest's host is busy with it");
    return reply;
}

json_t *vz_postcopy_reply_recover(const vz_asked *asked, GError **err)
{
    vz_migration *m = asked->migration;
    json_int_t first = json_integer_value(json_object_get(asked->object, "first"));
    if (!m || m->side != VZ_SIDE_DESTINATION || vz_journal_state(m->journal) != VZ_RECORD_STARTED ||
        first < 0 || first > VZ_CHANNEL_INDEX_MAX) {
        vz_fail(err, VZ_ERR_OPERATION_INVALID, "no guest arrives here by post-copy in that job");
        return NULL;
    }
    uint8_t uuid[VZ_UUID_BYTES];
    g_autoptr(GError) none = NULL;
    g_autoptr(vz_domain) domain =
        vz_migration_domain_uuid(m, uuid)
            ? vz_table_find_uuid(vz_migrate_settings(m->service)->table, uuid, NULL, &none)
            : NULL;
    if (!domain && vz_migration_process_dead(m))
        return json_pack("{sb}", "dead", 1);
    if (!domain) {
        fail_lost_sight(err);
        return NULL;
    }
    visit *v = g_new0(visit, 1);
    v->refs = 2;
    v->m = vz_migration_ref(m);
    v->first = (unsigned)first;
    g_mutex_init(&v->lock);
    g_cond_init(&v->answered);
    json_t *reply = vz_domain_post(domain, VZ_TASK_NORMAL, visit_task, v, visit_unref)
                        ? visit_wait(v, err)
                        : NULL;
    if (!reply && !*err)
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "the daemon is stopping");
    visit_unref(v);
    return reply;
}
