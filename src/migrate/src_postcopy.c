/* src_postcopy.c - see postcopy.h: the source's part of post-copy, from the wish to switch to the
 * last page. Actor thread of the domain. */
#include "migrate/postcopy.h"

#include "base/log.h"
#include "driver/qemu/driver.h"
#include "migrate/service.h"
#include "migrate/source_settle.h"
#include "migrate/stream_sockets.h"

#define POLL_US ((int64_t)200 * 1000)
/* From the release to the moment in which QEMU cannot go back. */
#define DECIDE_DEADLINE_US ((int64_t)30 * 1000000)
/* QEMU connects before it stops the guest; more than this would only lengthen its stop. */
#define CHANNELS_PATIENCE_US ((int64_t)1000 * 1000)
/* A phase waits so long for a broken connection before its client hears of it; then it is tried
 * again by vz_migrate_retry. */
#define BROKEN_PATIENCE_US ((int64_t)30 * 1000000)
#define AGAIN_FIRST_US     ((int64_t)250 * 1000)
#define AGAIN_LAST_US      ((int64_t)8 * 1000000)
/* QEMU notices a broken connection by itself, but not if it is one that it does not use now. */
#define SHORT_PATIENCE_US ((int64_t)10 * 1000000)
/* The destination pauses its QEMU first. */
#define RECOVER_DEADLINE_US ((int64_t)20 * 1000000)

/* --- the switch --- */

/* QEMU puts the guest back into the state that it stopped it in when it takes the end of the stream
 * for a failure (10.0), and by then it runs on the destination. A guest that is paused before stays
 * so. */
bool vz_source_start_postcopy(vz_migration *m, vz_qemu *qemu, GError **err)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    if (snapshot->state != VZ_STATE_RUNNING)
        return vz_memory_start_postcopy(vz_qemu_qmp(qemu), err);
    if (!vz_qemu_stop(qemu, err))
        return false;
    vz_source_set_paused(m);
    if (vz_memory_start_postcopy(vz_qemu_qmp(qemu), err))
        return true;
    vz_source_resume_guest(m);
    return false;
}

bool vz_source_op_start_postcopy(vz_domain *domain, void *job, GError **err)
{
    vz_migration *m = job;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    if (!m->stream.postcopy)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "switching to post-copy requires migration to be started with "
                       "VIR_MIGRATE_POSTCOPY flag");
    m->memory_event = true; /* the step looks at once */
    if (m->postcopy_wanted)
        return true;
    /* Before the stream begins the step tells QEMU. */
    if (m->downtime_limit_ms != 0 && qemu && !vz_source_start_postcopy(m, qemu, err))
        return false;
    m->postcopy_wanted = true;
    return true;
}

bool vz_source_await_postcopy_channels(vz_migration *m, GError **err)
{
    int64_t deadline_us = vz_now_us() + CHANNELS_PATIENCE_US;
    while (m->postcopy_wanted && m->n_channels < vz_stream_channels(&m->stream) &&
           vz_now_us() < deadline_us) {
        vz_wait_uncancellable(vz_domain_inbox(m->domain), vz_migration_stirred, m,
                              MIN(deadline_us, vz_now_us() + POLL_US));
        if (!vz_source_open_channels(m, err))
            return false;
    }
    return true;
}

bool vz_source_note_switch(vz_migration *m, vz_memory_status status)
{
    g_autoptr(GError) err = NULL;
    if (!vz_memory_is_postcopy(status))
        return false;
    /* QEMU knows it, too; the note is for when it has died. */
    if (!m->switched && (!vz_migration_note(m, VZ_NOTE_SWITCHED, "yes", &err) ||
                         !vz_journal_sync(m->journal, &err)))
        vz_warn(m->id, "the switch to post-copy is not in its record: %s", err->message);
    m->switched = true;
    if (status == VZ_MEMORY_POSTCOPY)
        vz_postcopy_say(m, VZ_STATE_PAUSED, VZ_PAUSED_POSTCOPY, VZ_EVENT_SUSPENDED,
                        VZ_SUSPENDED_POSTCOPY);
    else
        vz_postcopy_say(m, VZ_STATE_PAUSED, VZ_PAUSED_POSTCOPY_FAILED, VZ_EVENT_SUSPENDED,
                        VZ_SUSPENDED_POSTCOPY_FAILED);
    return true;
}

bool vz_source_is_decided(vz_migration *m)
{
    int64_t deadline_us = vz_now_us() + DECIDE_DEADLINE_US;
    while (m->saga.facts & VZ_FACT_POSTCOPY) {
        vz_memory_status status;
        g_autoptr(GError) err = NULL;
        vz_qemu *qemu = vz_migration_qemu(m, &err);
        if (!qemu)
            return m->guest_died;
        if (!vz_memory_query(vz_qemu_qmp(qemu), &status, NULL, NULL, &err))
            return false;
        vz_source_note_switch(m, status);
        if (status != VZ_MEMORY_DEVICE)
            return true;
        if (vz_now_us() >= deadline_us)
            return false;
        vz_wait_uncancellable(vz_domain_inbox(m->domain), vz_migration_stirred, m,
                              vz_now_us() + POLL_US);
    }
    return true;
}

/* --- the pages --- */

/* Nothing is left to be served, or nobody to be served; what has not come is gone. */
static bool lose(vz_migration *m, const char *why)
{
    m->pages_lost = true;
    vz_domain_add_message(m->domain, "migration job %s: lost in post-copy: %s", m->id, why);
    vz_error(m->id, "'%s' is lost in post-copy: %s", vz_domain_name(m->domain), why);
    return true;
}

/* Breaks a connection of which a part has been missing for long, so that it can be made anew. */
static void break_crippled(vz_migration *m, int64_t *whole_us)
{
    g_autoptr(GError) err = NULL;
    if (vz_postcopy_living_channels(m) >= vz_stream_channels(&m->stream))
        *whole_us = vz_now_us();
    vz_qemu *qemu = vz_migration_qemu(m, &err);
    if (!qemu || vz_now_us() - *whole_us < SHORT_PATIENCE_US)
        return;
    *whole_us = vz_now_us();
    if (!vz_memory_pause_postcopy(vz_qemu_qmp(qemu), &err))
        vz_warn(m->id, "a connection of post-copy is broken: %s", err->message);
}

/* What the destination answers. true: it listens, from channel *ret_first on, or *ret_over. */
static bool ask_to_listen(vz_migration *m, unsigned *ret_first, bool *ret_over, GError **err)
{
    json_t *question =
        json_pack("{ss si}", "op", "recover", "first", (int)vz_postcopy_next_channel(m));
    json_t *reply = vz_question_of_job(m, question, RECOVER_DEADLINE_US, err);
    if (!reply)
        return false;
    const json_t *first = json_object_get(reply, "first");
    json_int_t number = json_integer_value(first);
    bool dead = json_is_true(json_object_get(reply, "dead"));
    *ret_over = dead || json_is_true(json_object_get(reply, "completed"));
    bool ok = *ret_over || (json_is_integer(first) && number >= vz_postcopy_next_channel(m) &&
                            number <= VZ_CHANNEL_INDEX_MAX);
    json_decref(reply);
    if (!ok)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s does not say where to connect",
                       m->peer_name);
    *ret_first = (unsigned)number;
    return !dead || lose(m, "the guest has ended on the destination before all of it had come");
}

/* One attempt. true: QEMU connects; or *ret_over: there is nothing left to connect for. */
static bool connect_again(vz_migration *m, bool *ret_over, GError **err)
{
    unsigned first = 0;
    *ret_over = false;
    if (!vz_migration_keep_carrier(m, NULL, err) || !ask_to_listen(m, &first, ret_over, err))
        return false;
    vz_qemu *qemu = *ret_over ? NULL : vz_migration_qemu(m, err);
    if (!qemu)
        return *ret_over;
    vz_stream_close(g_steal_pointer(&m->sockets));
    m->sockets = vz_stream_listen(qemu, vz_domain_inbox(m->domain), &m->memory_event, err);
    m->n_channels = first;
    return m->sockets && vz_memory_resume(vz_qemu_qmp(qemu), vz_stream_path(m->sockets), err);
}

typedef struct {
    int64_t broken_us; /* 0: it is not */
    int64_t again_us;
    int64_t pause_us;
    int64_t whole_us; /* when all channels lived last */
} watch;

/* false with err: it is broken, and this round does not mend it. */
static bool mend(vz_migration *m, watch *w, bool *ret_over, GError **err)
{
    g_autoptr(GError) why = NULL;
    if (w->broken_us == 0)
        *w = (watch){.broken_us = vz_now_us(), .again_us = vz_now_us(), .pause_us = AGAIN_FIRST_US};
    if (m->postcopy_held)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "job 'migration out' was paused in post-copy by a user; 'virsh migrate "
                       "--postcopy-resume' lets it go on");
    if (vz_now_us() < w->again_us)
        return true;
    bool connects = connect_again(m, ret_over, &why);
    w->again_us = vz_now_us() + w->pause_us;
    w->pause_us = MIN(w->pause_us * 2, AGAIN_LAST_US);
    w->whole_us = vz_now_us();
    if (connects)
        return true;
    vz_warn(m->id, "post-copy cannot go on yet: %s", why->message);
    return (m->retries == 0 && vz_now_us() - w->broken_us < BROKEN_PATIENCE_US) ||
           vz_fail(err, VZ_ERR_OPERATION_FAILED,
                   "job 'migration out' failed in post-copy phase; the guest runs on %s, but waits "
                   "for memory that is here still, and connecting is tried again: %s",
                   m->peer_name, why->message);
}

/* The connection is there, or comes. */
static void serve(vz_migration *m, watch *w, vz_memory_status status)
{
    g_autoptr(GError) err = NULL;
    if (status == VZ_MEMORY_POSTCOPY && w->broken_us != 0) {
        vz_info(m->id, "post-copy goes on");
        w->broken_us = 0;
    }
    if (m->sockets && !vz_source_open_channels(m, &err)) {
        vz_warn(m->id, "a connection of post-copy: %s", err->message);
        g_clear_error(&err);
    }
    break_crippled(m, &w->whole_us);
}

/* QEMU took the end of the connection for a failure. All may have come all the same. */
static bool has_failed(vz_migration *m, vz_memory_status status, bool *ret_over, GError **err)
{
    unsigned first;
    g_autoptr(GError) why = NULL;
    if (status != VZ_MEMORY_FAILED || !ask_to_listen(m, &first, ret_over, &why) || !*ret_over)
        return false;
    g_clear_error(err);
    return true;
}

/* One round. *ret_over: it is over, in whichever way. */
static bool round_of(vz_migration *m, watch *w, bool *ret_over, GError **err)
{
    vz_memory_status status = VZ_MEMORY_NONE;
    if (m->pages_lost)
        return *ret_over = true;
    if (m->guest_died)
        return *ret_over = lose(m, "QEMU ended on the source before all of its memory had gone");
    if (!vz_source_look(m, &status, "post-copy", err))
        return has_failed(m, status, ret_over, err);
    vz_source_note_switch(m, status);
    *ret_over = status == VZ_MEMORY_COMPLETED;
    if (status == VZ_MEMORY_POSTCOPY_PAUSED)
        return mend(m, w, ret_over, err);
    if (vz_memory_is_postcopy(status))
        serve(m, w, status);
    return true;
}

/* After a restart: a channel that nobody knows of is none that lives. */
static void find_carrier_again(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    if (!m->carrier && !vz_migration_keep_carrier(m, NULL, &err))
        vz_warn(m->id, "%s", err->message);
}

bool vz_source_serve_pages(vz_migration *m, GError **err)
{
    watch w = {.whole_us = vz_now_us()};
    find_carrier_again(m);
    for (;;) {
        bool over = false;
        if (!round_of(m, &w, &over, err))
            return false;
        if (over)
            return true;
        if (vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
}

void vz_source_drop_pages(vz_migration *m)
{
    lose(m, "its copy on the source was destroyed while pages of it were needed");
    m->memory_event = true;
    if (!m->busy)
        vz_source_settle_later(m);
}

/* --- by call --- */

static bool fail_not_postcopy(vz_domain *domain, GError **err)
{
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "domain '%s' is not in an outgoing migration in post-copy phase",
                   vz_domain_name(domain));
}

bool vz_source_op_pause_postcopy(vz_domain *domain, void *job, GError **err)
{
    vz_migration *m = job;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    if (!m->switched || !qemu)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "current job is not outgoing migration in post-copy mode");
    if (!vz_migration_note(m, VZ_NOTE_HELD, "yes", err))
        return false;
    m->postcopy_held = true;
    m->memory_event = true;
    g_autoptr(GError) paused = NULL; /* by itself, already */
    g_autoptr(GError) ignored = NULL;
    vz_memory_status status;
    if (vz_memory_pause_postcopy(vz_qemu_qmp(qemu), &paused) ||
        (vz_memory_query(vz_qemu_qmp(qemu), &status, NULL, NULL, err) &&
         (status == VZ_MEMORY_POSTCOPY_PAUSED ||
          vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s", paused->message))))
        return true;
    m->postcopy_held = false;
    vz_migration_note(m, VZ_NOTE_HELD, "no", &ignored);
    return false;
}

bool vz_source_op_set_postcopy_speed(vz_domain *domain, void *job, uint64_t bytes_s, GError **err)
{
    vz_migration *m = job;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    m->stream.postcopy_bytes_s = bytes_s;
    return m->downtime_limit_ms == 0 || !qemu ||
           vz_memory_set_postcopy_rate(vz_qemu_qmp(qemu), bytes_s, err);
}

vz_migration *vz_source_find_postcopy(vz_domain *domain, GError **err)
{
    g_autoptr(vz_migration) m = vz_source_find(domain, NULL, err);
    if (m && m->switched)
        return g_steal_pointer(&m);
    g_clear_error(err);
    fail_not_postcopy(domain, err);
    return NULL;
}

bool vz_source_resume_postcopy(vz_migration *m, GError **err)
{
    watch w = {.whole_us = vz_now_us()};
    if (!vz_migration_note(m, VZ_NOTE_HELD, "no", err))
        return false;
    m->postcopy_held = false;
    find_carrier_again(m);
    m->busy++;
    bool ok = true;
    bool flows = false;
    while (ok && !flows) {
        bool over = false;
        ok = round_of(m, &w, &over, err);
        flows = over || (w.broken_us == 0 && ok);
        if (ok && !flows &&
            vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
                VZ_WAIT_CANCELLED)
            ok = vz_migration_fail_aborted(m, err);
    }
    m->busy--;
    if (ok) /* whoever resumed it confirms it, or has gone */
        vz_migrate_watch_phase(m, vz_source_no_confirm);
    else
        vz_migrate_retry(m, vz_source_settle);
    return ok;
}
