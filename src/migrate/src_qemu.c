/* src_qemu.c - the steps of the source for a VM run by QEMU, in order.
 *
 * Each `run` does one thing and each `undo` takes that back; the order and the decisions are
 * saga.c's. Actor thread of the domain. */
#include "migrate/source.h"

#include "base/fd.h"
#include "base/log.h"
#include "channel/dial.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "migrate/direct.h"
#include "migrate/disks.h"
#include "migrate/memory.h"
#include "migrate/postcopy.h"
#include "migrate/precheck.h"
#include "migrate/service.h"
#include "migrate/stream_sockets.h"
#include "migrate/trail.h"
#include "migrate/uri.h"
#include "migrate/tunnel.h"
#include "migrate/verdict.h"
#include "migrate/whereabouts.h"
#include "storage/identify.h"
#include "storage/lease.h"

#include <string.h>
#include <unistd.h>

#define CONNECT_DEADLINE_US ((int64_t)15 * 1000000)
#define POLL_US             ((int64_t)200 * 1000)
/* While memory is copied the destination's daemon is asked so often whether it is still there: one
 * that died before the release is a failure now, and a guest in doubt after it. */
#define PROBE_US ((int64_t)1000 * 1000)
/* It may be silent for so long, so that a link that is cut for 3 s is survived; not longer, since a
 * guest that stops for the switchover meanwhile waits for it. */
#define PROBE_PATIENCE_US  ((int64_t)5 * 1000000)
#define PROBE_AGAIN_US     ((int64_t)500 * 1000)
#define CANCEL_DEADLINE_US ((int64_t)30 * 1000000)
/* From the release to "completed": bounded by the carrier, which notices a dead link, and by QEMU;
 * this is only for a QEMU that says nothing any more. */
#define SWITCHOVER_DEADLINE_US ((int64_t)300 * 1000000)

/* What moves is the right to start it, too, so this host must have it; nobody was fenced for a
 * move. */
static bool check_stopped(vz_migration *m, GError **err)
{
    bool given = false;
    return vz_whereabouts_check_start(m->domain, true, &given, m->service, err);
}

static bool offer_disks(vz_migration *m, GError **err)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    if (!vz_identify_offer(vz_migration_subject(m, snapshot),
                           vz_migrate_settings(m->service)->host_name,
                           vz_options_has(m->options, VZ_OPTION_UNSAFE), &m->disks_offered, err))
        return false;
    if (vz_migration_offline(m))
        vz_identify_withhold_copies(m->disks_offered);
    char *text = json_dumps(m->disks_offered, JSON_COMPACT);
    bool noted = vz_migration_note(m, "disks-offered", text, err);
    free(text);
    return noted;
}

static void withdraw_disks(vz_migration *m)
{
    if (m->disks_offered)
        vz_identify_remove(NULL, m->disks_offered);
    json_decref(m->disks_offered);
    m->disks_offered = NULL;
}

static bool meet_destination(vz_migration *m, GError **err)
{
    return vz_migration_note_peer(m, err) &&
           (vz_migration_offline(m) || vz_migration_note_process(m, err)) &&
           vz_journal_sync(m->journal, err);
}

static bool prove_disks(vz_migration *m, GError **err)
{
    bool proved = vz_identify_confirm(m->disks_offered, m->disks_answered,
                                      vz_options_has(m->options, VZ_OPTION_UNSAFE), err);
    vz_identify_remove(NULL, m->disks_offered);
    if (!proved) {
        vz_precheck_help(err, VZ_REMEDY_DISKS);
        return false;
    }
    vz_precheck_tell_unproved(m);
    return vz_source_note_copies(m, err);
}

static bool open_channel(vz_migration *m, GError **err)
{
    vz_migration_publish(m, "connect");
    bool needed = !m->direct || vz_disks_copied(m->disks_answered) > 0;
    return !needed || vz_migration_start_carrier(m, NULL, err);
}

static void close_channel(vz_migration *m)
{
    vz_migration_stop_carrier(m);
}

/* Data and questions go by the port that the caller asked for, if the destination answers there. */
static bool go_by_asked_port(vz_migration *m, GError **err)
{
    uint16_t own = m->peer_port;
    m->peer_port = m->asked_port;
    if (vz_verdict_probe(m, VZ_QUESTION_DEADLINE_US, err) && vz_migration_note_peer(m, err))
        return true;
    m->peer_port = own;
    return false;
}

/* The destination's own port first: on a host that runs libvirt, too, another guest's QEMU may wait
 * at the one that was guessed, and a stray connection would ruin that guest's move. */
static bool go_by_own_port(vz_migration *m, GError **err)
{
    g_autoptr(GError) neither = NULL;
    if (vz_verdict_probe(m, VZ_QUESTION_DEADLINE_US, err)) {
        if (m->asked_port)
            vz_info(m->id, "data goes to port %u, not to %u, which is taken for a guess",
                    m->peer_port, m->asked_port);
        return true;
    }
    if (!m->asked_port || m->abort_reason || !go_by_asked_port(m, &neither))
        return false;
    g_clear_error(err);
    return true;
}

/* Before the destination has to keep its record for us: where nobody can connect, nobody asked. */
static bool knock(const vz_migration *m, uint16_t port, GError **err)
{
    const vz_dial_request request = {.host = m->peer_host,
                                     .port = port,
                                     .way = vz_tunnel_way(m->tunnel),
                                     .inbox = vz_domain_inbox(m->domain),
                                     .deadline_us = vz_now_us() + VZ_QUESTION_DEADLINE_US};
    vz_autofd fd = vz_dial(&request, err);
    if (fd < 0)
        g_prefix_error(err, "the destination's data port cannot be reached: ");
    return fd >= 0;
}

static bool prove_ask(vz_migration *m, GError **err)
{
    bool guess = vz_uri_is_guessed_port(m->asked_port);
    bool by_asked = m->asked_port && !guess;
    /* A guessed port may be another's, so there nobody knocks. Once it is noted, the destination
     * keeps its record until it is told to forget it. */
    if ((guess || knock(m, by_asked ? m->asked_port : m->peer_port, err)) &&
        vz_migration_note(m, VZ_NOTE_PROBED, "yes", err) &&
        (by_asked ? go_by_asked_port(m, err) : go_by_own_port(m, err)))
        return true;
    vz_precheck_help(err, m->tunnel ? VZ_REMEDY_TUNNEL : VZ_REMEDY_PORT);
    return false;
}

void vz_source_set_paused(vz_migration *m)
{
    if (m->paused_at_us == 0)
        m->paused_at_us = vz_now_us();
    vz_life_changed(m->domain, VZ_STATE_PAUSED, VZ_PAUSED_MIGRATION, VZ_EVENT_SUSPENDED,
                    VZ_SUSPENDED_MIGRATED);
}

static bool pause_guest(vz_migration *m, GError **err)
{
    if (!m->was_running)
        return true;
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (!qemu || !vz_qemu_stop(qemu, err))
        return false;
    vz_source_set_paused(m);
    return true;
}

bool vz_source_look(vz_migration *m, vz_memory_status *ret_status, const char *phase, GError **err)
{
    g_autofree char *reason = NULL;
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (!qemu || !vz_memory_query(vz_qemu_qmp(qemu), ret_status, &m->stats, &reason, err))
        return false;
    vz_migration_publish(m, phase);
    if (m->io_error && vz_options_has(m->options, VZ_OPTION_ABORT_ON_ERROR) &&
        vz_journal_state(m->journal) != VZ_RECORD_RELEASED)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "job 'migration out' failed due to I/O error: a disk of domain '%s' failed, "
                       "so it is paused here ('virsh domstate --reason')",
                       vz_domain_name(m->domain));
    if (*ret_status != VZ_MEMORY_FAILED && *ret_status != VZ_MEMORY_CANCELLED)
        return true;
    vz_channel_info info;
    bool cut = m->carrier && vz_carrier_info(m->carrier, VZ_PURPOSE_MEMORY, 0, &info) &&
               info.state == VZ_CHANNEL_FAILED;
    return vz_fail(err, VZ_ERR_OPERATION_FAILED, "job 'migration out' failed: %s%s%s",
                   *reason ? reason : "QEMU gave up",
                   cut ? "; the channel to the destination: " : "", cut ? info.reason : "");
}

static void climb_downtime_ladder(vz_migration *m)
{
    uint64_t limit_ms = vz_memory_downtime_step_ms(m->stats.memory_iteration);
    if (m->fixed_downtime || limit_ms <= m->downtime_limit_ms)
        return;
    g_autoptr(GError) err = NULL;
    vz_memory_limits limits = {m->bandwidth_bytes_s, limit_ms};
    m->downtime_limit_ms = limit_ms;
    vz_qemu *qemu = vz_migration_qemu(m, &err);
    if (!qemu || !vz_memory_set_limits(vz_qemu_qmp(qemu), &limits, &err))
        vz_warn(m->id, "the downtime limit stays: %s", err->message);
}

bool vz_source_open_channels(vz_migration *m, GError **err)
{
    int fd;
    while (m->sockets && (fd = vz_stream_take(m->sockets)) >= 0) {
        vz_qemu *qemu = vz_migration_qemu(m, err);
        if (!qemu) {
            close(fd);
            return false;
        }
        vz_carrier_connect_request request = {.host = m->peer_host,
                                              .port = m->peer_port,
                                              .way = vz_tunnel_way(m->tunnel),
                                              .purpose = VZ_PURPOSE_MEMORY,
                                              .index = (uint16_t)m->n_channels,
                                              .take_local_fd = fd,
                                              .owner_pidfd = vz_qemu_pidfd(qemu),
                                              .deadline_us = vz_now_us() + CONNECT_DEADLINE_US};
        if (!vz_carrier_connect(m->carrier, &request, err))
            return false;
        m->n_channels++;
    }
    return true;
}

/* Until QEMU has the connections that it begins with; it waits for them, too. */
static bool await_channels(vz_migration *m, GError **err)
{
    int64_t deadline_us = vz_now_us() + CONNECT_DEADLINE_US;
    while (m->n_channels < 1 + m->stream.channels) {
        vz_memory_status status;
        if (!vz_source_look(m, &status, "connect", err) || !vz_source_open_channels(m, err))
            return false;
        if (vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "QEMU does not open its channels");
        if (m->n_channels < 1 + m->stream.channels &&
            vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
                VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
    return true;
}

static bool send_by_channels(vz_migration *m, vz_qemu *qemu, const vz_memory_limits *limits,
                             GError **err)
{
    m->sockets = vz_stream_listen(qemu, vz_domain_inbox(m->domain), &m->memory_event, err);
    return m->sockets &&
           vz_memory_send(qemu, vz_stream_path(m->sockets), &m->stream, limits, err) &&
           await_channels(m, err);
}

static bool start_stream(vz_migration *m, GError **err)
{
    vz_qemu *qemu = vz_migration_qemu(m, err);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    m->fixed_downtime = snapshot->max_downtime_ms != 0;
    m->downtime_limit_ms =
        m->fixed_downtime ? snapshot->max_downtime_ms : VZ_DOWNTIME_LIMIT_FIRST_MS;
    m->bandwidth_bytes_s =
        vz_options_number(m->options, VZ_OPTION_BANDWIDTH, snapshot->max_speed_bytes_s);
    m->stream.postcopy_bytes_s =
        vz_options_number(m->options, VZ_OPTION_BANDWIDTH_POSTCOPY, snapshot->max_postcopy_bytes_s);
    m->postcopy_before_bytes_s = snapshot->max_postcopy_bytes_s;
    vz_domain_set_postcopy_limit(m->domain, m->stream.postcopy_bytes_s); /* so it is shown */
    vz_memory_limits limits = {m->bandwidth_bytes_s, m->downtime_limit_ms};
    return qemu &&
           (m->direct ? vz_direct_send(m, qemu, &limits, err)
                      : send_by_channels(m, qemu, &limits, err)) &&
           (!m->postcopy_wanted || vz_source_start_postcopy(m, qemu, err));
}

bool vz_source_probe_again(vz_migration *m, int64_t *next_probe_us, GError **err)
{
    int64_t deadline_us = vz_now_us() + PROBE_PATIENCE_US;
    if (vz_now_us() < *next_probe_us)
        return true;
    for (;;) {
        g_autoptr(GError) silence = NULL;
        if (vz_verdict_probe(m, deadline_us - vz_now_us(), &silence))
            break;
        if (vz_now_us() + PROBE_AGAIN_US >= deadline_us) {
            g_propagate_error(err, g_steal_pointer(&silence));
            return false;
        }
        if (vz_wait(vz_domain_inbox(m->domain), NULL, NULL, vz_now_us() + PROBE_AGAIN_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
    *next_probe_us = vz_now_us() + PROBE_US;
    return true;
}

static bool copy_memory(vz_migration *m, GError **err)
{
    int64_t next_probe_us = vz_now_us() + PROBE_US;
    if (!start_stream(m, err))
        return false;
    for (;;) {
        vz_memory_status status;
        if (!vz_source_look(m, &status, "memory", err) || !vz_source_open_channels(m, err) ||
            !vz_source_check_disks(m, err))
            return false;
        if (status == VZ_MEMORY_PRE_SWITCHOVER)
            break;
        climb_downtime_ladder(m);
        if (!vz_source_probe_again(m, &next_probe_us, err))
            return false;
        if (vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
    if (m->was_running && !(m->saga.facts & VZ_FACT_COMA))
        vz_source_set_paused(m);
    return vz_source_await_postcopy_channels(m, err);
}

/* true: the stream still runs in QEMU, and was told to stop. */
static bool cancel_stream(vz_migration *m, bool *cancelled, GError **err)
{
    vz_memory_status status;
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (!qemu || !vz_memory_query(vz_qemu_qmp(qemu), &status, NULL, NULL, err) ||
        (status != VZ_MEMORY_ACTIVE && status != VZ_MEMORY_PRE_SWITCHOVER &&
         status != VZ_MEMORY_DEVICE))
        return false;
    if (!*cancelled && !vz_memory_cancel(vz_qemu_qmp(qemu), err))
        return false;
    *cancelled = true;
    return true;
}

static void stop_memory(vz_migration *m)
{
    int64_t deadline_us = vz_now_us() + CANCEL_DEADLINE_US;
    g_autoptr(GError) err = NULL;
    bool cancelled = false;
    vz_source_cut_disks(m);
    while (!m->guest_died && vz_now_us() < deadline_us && cancel_stream(m, &cancelled, &err))
        vz_wait_uncancellable(vz_domain_inbox(m->domain), vz_migration_stirred, m,
                              vz_now_us() + POLL_US);
    if (err)
        vz_warn(m->id, "cancelling the stream: %s", err->message);
    if (m->downtime_limit_ms != 0)
        vz_domain_set_postcopy_limit(m->domain, m->postcopy_before_bytes_s);
    vz_direct_undo(m);
    vz_source_resume_guest(m);
}

static bool release_guest(vz_migration *m, GError **err)
{
    if (m->abort_reason)
        return vz_migration_fail_aborted(m, err);
    if (!vz_journal_advance(m->journal, VZ_RECORD_RELEASED, err))
        return false;
    if (vz_migration_offline(m)) /* nothing else goes but the proof */
        return true;
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (!qemu || !vz_memory_release(vz_qemu_qmp(qemu), err))
        return false;
    int64_t deadline_us = vz_now_us() + SWITCHOVER_DEADLINE_US;
    for (;;) {
        vz_memory_status status;
        if (!vz_source_look(m, &status, "switchover", err))
            return false;
        if (status == VZ_MEMORY_COMPLETED || vz_source_note_switch(m, status))
            return true;
        if (vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "QEMU does not finish the switchover");
        vz_wait_uncancellable(vz_domain_inbox(m->domain), vz_migration_stirred, m,
                              vz_now_us() + POLL_US);
    }
}

static vz_outcome ask_destination(vz_migration *m)
{
    vz_record record = vz_journal_state(m->journal);
    if (record == VZ_RECORD_RESOLVED_THERE)
        return VZ_OUTCOME_MOVED;
    /* Decided already; or nothing was let go: the step failed before it wrote so, and the
     * destination, which never gets the proof of a release, cannot commit. */
    if (record != VZ_RECORD_RELEASED)
        return VZ_OUTCOME_NOT_MOVED;
    if (m->verdict_known) {
        m->verdict_known = false;
        return m->verdict;
    }
    if (!vz_source_is_decided(m))
        return VZ_OUTCOME_UNKNOWN;
    vz_outcome outcome = vz_verdict_ask(m);
    g_autoptr(GError) err = NULL;
    /* So that a restart resumes it without asking again. One that cannot be told asks again, and
     * the destination keeps its answer. */
    if (outcome == VZ_OUTCOME_NOT_MOVED &&
        !vz_journal_advance(m->journal, VZ_RECORD_TAKEN_BACK, &err))
        vz_warn(m->id, "%s", err->message);
    return outcome;
}

static bool hand_over(vz_migration *m, GError **err)
{
    m->verdict = ask_destination(m);
    m->verdict_known = true;
    bool offline = vz_migration_offline(m);
    if (m->verdict == VZ_OUTCOME_MOVED)
        return true;
    if (m->verdict == VZ_OUTCOME_NOT_MOVED)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the destination did not %s; it %s here",
                       offline ? "take the domain over" : "start the guest",
                       offline ? "is still" : "goes on");
    return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                   "it cannot be told whether the guest %s on %s; it %s here and %s is asked again",
                   offline ? "is defined" : "runs", m->peer_name,
                   offline ? "is not started" : "stays paused", m->peer_name);
}

/* Before the guest's end here, so that there is no moment in which a start would not ask. */
static bool mark_moved(vz_migration *m, GError **err)
{
    if (!vz_trail_save(m, err) || !vz_trail_mark(m, VZ_MARK_MOVED, err) ||
        !vz_store_clear_mark(vz_table_store(vz_domain_table(m->domain)),
                             vz_domain_uuid_text(m->domain), VZ_MARK_ARRIVING, err))
        return false;
    vz_trail_replace_older(m);
    return true;
}

static bool end_source(vz_migration *m, GError **err)
{
    if (!m->end_announced) {
        m->end_announced = true;
        m->stats.type = m->pages_lost ? VZ_JOB_FAILED : VZ_JOB_COMPLETED;
        vz_table_emit_job_completed(m->domain, &m->stats);
    }
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    if (vz_migration_offline(m) && snapshot->config) /* left by a host that died under the guest */
        vz_lease_release(m->domain, snapshot->config);
    if (m->pages_lost)
        return vz_life_end(m->domain, VZ_SHUTOFF_CRASHED, VZ_STOPPED_FAILED, err);
    return vz_life_end(m->domain, VZ_SHUTOFF_MIGRATED, VZ_STOPPED_MIGRATED, err);
}

static bool undefine_source(vz_migration *m, GError **err)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    return !vz_snapshot_persistent(snapshot) || vz_life_undefine(m->domain, err);
}

const vz_step vz_source_steps[] = {
    /* clang-format off */
    /* name               phase             kind              when                     unless           run               undo            ask */
    { "check-guest",      VZ_PHASE_BEGIN,   VZ_STEP_UNDOABLE, 0,                       VZ_FACT_OFFLINE, vz_precheck_guest, NULL,          NULL },
    { "check-stopped",    VZ_PHASE_BEGIN,   VZ_STEP_UNDOABLE, VZ_FACT_OFFLINE,         0,               check_stopped,    NULL,           NULL },
    { "offer-disks",      VZ_PHASE_BEGIN,   VZ_STEP_UNDOABLE, VZ_FACT_DISKS,           0,               offer_disks,      withdraw_disks, NULL },
    { "meet-destination", VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 0,                       0,               meet_destination, NULL,           NULL },
    { "prove-disks",      VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, VZ_FACT_DISKS,           0,               prove_disks,      NULL,           NULL },
    { "open-channel",     VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 0,                       VZ_FACT_OFFLINE, open_channel,     close_channel,  NULL },
    { "prove-ask",        VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 0,                       0,               prove_ask,        NULL,           NULL },
    { "pause-guest",      VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, VZ_FACT_COMA,            0,               pause_guest,      vz_source_resume_guest, NULL },
    { "copy-disks",       VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, VZ_FACT_DISKS,           VZ_FACT_OFFLINE, vz_source_copy_disks, vz_source_stop_disks, NULL },
    { "copy-memory",      VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 0,                       VZ_FACT_OFFLINE, copy_memory,      stop_memory,    NULL },
    { "settle-disks",     VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, VZ_FACT_DISKS,           VZ_FACT_OFFLINE, vz_source_settle_disks, NULL,     NULL },
    { "release",          VZ_PHASE_PERFORM, VZ_STEP_RELEASE,  0,                       0,               release_guest,    NULL,           ask_destination },
    { "hand-over",        VZ_PHASE_CONFIRM, VZ_STEP_PIVOT,    0,                       0,               hand_over,        NULL,           ask_destination },
    { "serve-pages",      VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  VZ_FACT_POSTCOPY,        0,               vz_source_serve_pages, NULL,      NULL },
    { "mark-moved",       VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  0,                       0,               mark_moved,       NULL,           NULL },
    { "end-source",       VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  0,                       0,               end_source,       NULL,           NULL },
    { "put-aside",        VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  VZ_FACT_DISKS,           VZ_FACT_OFFLINE, vz_source_put_disks_aside, NULL,  NULL },
    { "undefine",         VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  VZ_FACT_UNDEFINE_SOURCE, 0,               undefine_source,  NULL,           NULL },
    { NULL,               VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  0,                       0,               NULL,             NULL,           NULL },
    /* clang-format on */
};
