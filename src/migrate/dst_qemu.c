/* dst_qemu.c - the steps of the destination for a VM run by QEMU, in order. Actor thread. */
#include "migrate/destination.h"

#include "base/fd.h"
#include "base/log.h"
#include "domain/table.h"
#include "driver/life.h"
#include "driver/qemu/driver.h"
#include "migrate/direct.h"
#include "migrate/disks.h"
#include "migrate/memory.h"
#include "migrate/offline.h"
#include "migrate/postcopy.h"
#include "migrate/precheck.h"
#include "migrate/service.h"
#include "migrate/stream_sockets.h"
#include "migrate/trail.h"
#include "migrate/whereabouts.h"
#include "storage/identify.h"
#include "storage/lease.h"

#include <stdlib.h>
#include <string.h>

#define POLL_US ((int64_t)200 * 1000)
/* The source's "completed" means that QEMU has loaded everything here; this is only for its event
 * to come round. */
#define LOAD_DEADLINE_US ((int64_t)30 * 1000000)

static bool mark_arriving(vz_migration *m, GError **err)
{
    g_autofree char *moved = NULL;
    return vz_trail_get_mark(m, VZ_MARK_MOVED, &moved, err) &&
           (!moved || vz_migration_note(m, VZ_NOTE_MOVED_BEFORE, moved, err)) &&
           vz_whereabouts_check_arrival(m, err) && vz_trail_save(m, err) &&
           vz_trail_mark(m, VZ_MARK_ARRIVING, err);
}

static void unmark_arriving(vz_migration *m)
{
    vz_trail_call_off(m);
}

static bool answer_disks(vz_migration *m, GError **err)
{
    const vz_identify_policy policy = vz_disks_policy(m->options);
    bool answered = vz_disks_check_list(m->def, m->options, err) &&
                    vz_identify_answer(m->def, m->disks_offered, &policy, &m->disks_answered, err);
    if (!answered)
        vz_precheck_help(err, VZ_REMEDY_DISKS);
    return answered;
}

static void withdraw_answers(vz_migration *m)
{
    if (m->def && m->disks_offered)
        vz_identify_remove(m->def, m->disks_offered);
}

static bool start_incoming(vz_migration *m, GError **err)
{
    vz_life_start_request request = {.def = m->def, .incoming = true};
    return vz_life_start(m->domain, &request, err) && vz_migration_note_process(m, err);
}

static void end_incoming(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    if (!vz_life_end(m->domain, VZ_SHUTOFF_FAILED, VZ_STOPPED_FAILED, &err))
        vz_error(m->id, "'%s' cannot be taken away: %s", vz_domain_name(m->domain), err->message);
}

void vz_destination_on_channel(vz_carrier *carrier, const vz_channel_info *info, void *user)
{
    vz_migration *m = user;
    if (info->purpose == VZ_PURPOSE_MEMORY && info->state == VZ_CHANNEL_OPEN && m->sockets)
        vz_stream_join(m->sockets, carrier, info->index);
    if (info->purpose == VZ_PURPOSE_DISK && info->state == VZ_CHANNEL_OPEN && m->disk_sockets)
        vz_stream_join(m->disk_sockets, carrier, info->index);
    if (info->state >= VZ_CHANNEL_FINISHED)
        vz_destination_stirred(m);
}

static bool open_door(vz_migration *m, GError **err)
{
    vz_qemu *qemu = vz_migration_qemu(m, err);
    bool direct = vz_direct_way_of(m->options) != VZ_DIRECT_NONE;
    bool carried = !direct || vz_disks_copied(m->disks_answered) > 0;
    if (!qemu || (carried && (!vz_migration_start_carrier(m, vz_destination_on_channel, err) ||
                              !vz_destination_serve_disks(m, err))))
        return false;
    if (direct)
        return vz_direct_listen(m, qemu, err);
    return vz_destination_allow_userfault(m, err) &&
           (m->sockets = vz_stream_prepare(qemu, VZ_PURPOSE_MEMORY, err)) != NULL &&
           vz_memory_receive(qemu, vz_stream_path(m->sockets), &m->stream, err) &&
           vz_stream_expect(m->sockets, m->carrier, vz_stream_channels(&m->stream), err);
}

static void close_door(vz_migration *m)
{
    vz_migration_stop_carrier(m);
}

/* All but the renaming, which has to wait until the guest has been let go. The undo of this step is
 * that of take-lease, too, which so needs no sync of the journal while the guest is stopped. */
static bool prepare_leases(vz_migration *m, GError **err)
{
    json_t *images = vz_lease_images(m->def);
    char *text = json_dumps(images, JSON_COMPACT);
    bool noted = vz_migration_note(m, VZ_NOTE_LEASES, text ? text : "[]", err);
    if (noted)
        m->leases = vz_lease_arrival_prepare(m->domain, images, m->id);
    json_decref(images);
    free(text);
    return noted;
}

static bool take_leases(vz_migration *m, GError **err)
{
    /* Those prepared are gone after a restart, and once this was undone. Nobody waits then. */
    if (!m->leases && m->source_is_dead && !prepare_leases(m, err))
        return false;
    /* A guest without a lease runs all the same. */
    vz_lease_arrival_begin(m->leases);
    return true;
}

static bool await_leases(vz_migration *m, GError **err)
{
    (void)err;
    vz_lease_arrival_end(m->leases, m->domain);
    g_clear_pointer(&m->leases, vz_lease_arrival_free);
    return true;
}

static bool record_prepared(vz_migration *m, GError **err)
{
    vz_precheck_tell_unproved(m); /* not before: what is started begins without messages */
    return vz_journal_advance(m->journal, VZ_RECORD_PREPARED, err);
}

static bool check_proof(const vz_migration *m, GError **err)
{
    if (m->source_is_dead)
        return true;
    const char *release = m->cookie_in && m->cookie_in->release ? m->cookie_in->release : m->proof;
    g_autofree char *hash = release ? vz_release_hash(release) : NULL;
    if (!hash || !m->release || strcmp(hash, m->release) != 0)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the source has not shown that it has let the guest go, so it is not "
                       "started here");
    return true;
}

static bool load(vz_migration *m, GError **err)
{
    if (!check_proof(m, err))
        return false;
    int64_t deadline_us = vz_now_us() + LOAD_DEADLINE_US;
    for (;;) {
        vz_memory_status status;
        g_autofree char *reason = NULL;
        vz_qemu *qemu = vz_migration_qemu(m, err);
        if (!qemu || !vz_memory_query(vz_qemu_qmp(qemu), &status, NULL, &reason, err)) {
            g_prefix_error(err, "on the destination: ");
            return false;
        }
        m->switched = vz_destination_has_package(m, status);
        if (m->switched && !vz_migration_note(m, VZ_NOTE_SWITCHED, "yes", err))
            return false;
        if (status == VZ_MEMORY_COMPLETED || m->switched)
            return vz_journal_state(m->journal) == VZ_RECORD_LOADED ||
                   vz_journal_advance(m->journal, VZ_RECORD_LOADED, err);
        if (status == VZ_MEMORY_FAILED || vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                           "the guest did not arrive whole on the destination: %s",
                           *reason ? reason : "its state is incomplete");
        if (vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
}

/* Peer to peer the source has sent it. */
static bool fetch_proof(vz_migration *m, GError **err)
{
    bool sent = m->cookie_in && m->cookie_in->release;
    return (sent || m->proof || vz_offline_fetch_proof(m, err)) && check_proof(m, err) &&
           (vz_journal_state(m->journal) == VZ_RECORD_LOADED ||
            vz_journal_advance(m->journal, VZ_RECORD_LOADED, err));
}

static bool persist(vz_migration *m, GError **err)
{
    vz_def *config = vz_destination_config(m, err);
    m->persisted = config && vz_life_define(m->domain, config, err);
    return m->persisted;
}

static void unpersist(vz_migration *m)
{
    if (!m->persisted)
        return;
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    bool back = true;
    if (m->old_config)
        back = vz_life_define(m->domain, g_steal_pointer(&m->old_config), &err);
    else if (vz_snapshot_persistent(snapshot))
        back = vz_life_undefine(m->domain, &err);
    if (!back)
        vz_error(m->id, "the definition of '%s' stays: %s", vz_domain_name(m->domain),
                 err->message);
    m->persisted = false;
}

static bool commit(vz_migration *m, GError **err)
{
    return vz_journal_advance(m->journal, VZ_RECORD_COMMITTED, err);
}

static vz_outcome committed(vz_migration *m)
{
    vz_record record = vz_journal_state(m->journal);
    return record >= VZ_RECORD_COMMITTED && record <= VZ_RECORD_STARTED ? VZ_OUTCOME_MOVED
                                                                        : VZ_OUTCOME_NOT_MOVED;
}

static bool start_guest(vz_migration *m, GError **err)
{
    vz_record record = vz_journal_state(m->journal);
    if (record == VZ_RECORD_STARTED)
        return true;
    /* First: without a QEMU nothing is attempted, and the commit can be revoked. Its death may not
     * have been noticed yet. */
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (qemu && !vz_qemu_alive(qemu))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the QEMU of domain '%s' has just ended",
                       vz_domain_name(m->domain));
    if (!qemu ||
        (record == VZ_RECORD_COMMITTED && !vz_migration_note(m, VZ_NOTE_MAY_HAVE_RUN, "yes", err)))
        return false;
    if ((record == VZ_RECORD_COMMITTED &&
         !vz_journal_advance(m->journal, VZ_RECORD_START_ATTEMPTED, err)))
        return false;
    if (m->run_on_arrival && !vz_qemu_cont(qemu, err))
        return false;
    m->resumed_at_us = vz_now_us();
    if (!vz_journal_advance(m->journal, VZ_RECORD_STARTED, err))
        return false;
    if (m->run_on_arrival && m->switched)
        vz_life_changed(m->domain, VZ_STATE_RUNNING, VZ_RUNNING_POSTCOPY, VZ_EVENT_RESUMED,
                        VZ_RESUMED_POSTCOPY);
    else if (m->run_on_arrival)
        vz_life_changed(m->domain, VZ_STATE_RUNNING, VZ_RUNNING_MIGRATED, VZ_EVENT_RESUMED,
                        VZ_RESUMED_MIGRATED);
    else
        vz_life_changed(m->domain, VZ_STATE_PAUSED, VZ_PAUSED_USER, VZ_EVENT_SUSPENDED,
                        VZ_SUSPENDED_PAUSED);
    return true;
}

/* A definition is here for good with the commit: what is called started is nothing more. */
static bool settle_in(vz_migration *m, GError **err)
{
    return vz_journal_state(m->journal) == VZ_RECORD_STARTED ||
           vz_journal_advance(m->journal, VZ_RECORD_STARTED, err);
}

/* It is back, if it was ever here. A crash before this leaves a mark that asks the source, which
 * says that the guest was left to this host. */
static bool unmark_moved(vz_migration *m, GError **err)
{
    if (!vz_store_clear_mark(vz_table_store(vz_domain_table(m->domain)),
                             vz_domain_uuid_text(m->domain), VZ_MARK_MOVED, err))
        return false;
    vz_trail_replace_older(m);
    return true;
}

/* Switches learn the guest's new place from this, or from what it sends itself. */
static bool announce(vz_migration *m, GError **err)
{
    (void)err; /* a guest that is not announced runs all the same */
    g_autoptr(GError) why = NULL;
    vz_qemu *qemu = vz_migration_qemu(m, &why);
    if (!qemu || !vz_qemu_announce_self(qemu, &why))
        vz_warn(m->id, "the network was not told where the guest is: %s", why->message);
    return true;
}

const vz_step vz_destination_steps[] = {
    /* clang-format off */
    /* name               phase             kind              when                   unless           run              undo              ask */
    { "check-host",       VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, 0,                     0,               vz_precheck_host, NULL,            NULL },
    { "mark-arriving",    VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, 0,                     0,               mark_arriving,   unmark_arriving,  NULL },
    { "answer-disks",     VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, VZ_FACT_DISKS,         0,               answer_disks,    withdraw_answers, NULL },
    { "create-disks",     VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, VZ_FACT_DISKS,         VZ_FACT_OFFLINE, vz_destination_create_disks, vz_destination_remove_disks, NULL },
    { "start-incoming",   VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, 0,                     VZ_FACT_OFFLINE, start_incoming,  end_incoming,     NULL },
    { "open-door",        VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, 0,                     VZ_FACT_OFFLINE, open_door,       close_door,       NULL },
    { "prepare-lease",    VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, VZ_FACT_DISKS,         VZ_FACT_OFFLINE, prepare_leases,  vz_destination_give_leases_back, NULL },
    { "record-prepared",  VZ_PHASE_PREPARE, VZ_STEP_UNDOABLE, 0,                     0,               record_prepared, NULL,             NULL },
    { "fetch-proof",      VZ_PHASE_FINISH,  VZ_STEP_UNDOABLE, VZ_FACT_OFFLINE,       0,               fetch_proof,     NULL,             NULL },
    { "close-disks",      VZ_PHASE_FINISH,  VZ_STEP_UNDOABLE, VZ_FACT_DISKS,         VZ_FACT_OFFLINE, vz_destination_close_disks, NULL,  NULL },
    { "load",             VZ_PHASE_FINISH,  VZ_STEP_UNDOABLE, 0,                     VZ_FACT_OFFLINE, load,            NULL,             NULL },
    { "take-lease",       VZ_PHASE_FINISH,  VZ_STEP_UNDOABLE, VZ_FACT_DISKS,         VZ_FACT_OFFLINE, take_leases,     NULL,             NULL },
    { "persist",          VZ_PHASE_FINISH,  VZ_STEP_UNDOABLE, VZ_FACT_PERSIST_DEST,  0,               persist,         unpersist,        NULL },
    { "await-lease",      VZ_PHASE_FINISH,  VZ_STEP_UNDOABLE, VZ_FACT_DISKS,         VZ_FACT_OFFLINE, await_leases,    NULL,             NULL },
    { "commit",           VZ_PHASE_FINISH,  VZ_STEP_PIVOT,    0,                     0,               commit,          NULL,             committed },
    { "start-guest",      VZ_PHASE_FINISH,  VZ_STEP_FORWARD,  0,                     VZ_FACT_OFFLINE, start_guest,     NULL,             NULL },
    { "settle-in",        VZ_PHASE_FINISH,  VZ_STEP_FORWARD,  VZ_FACT_OFFLINE,       0,               settle_in,       NULL,             NULL },
    { "unmark-moved",     VZ_PHASE_FINISH,  VZ_STEP_FORWARD,  0,                     0,               unmark_moved,    NULL,             NULL },
    { "announce",         VZ_PHASE_FINISH,  VZ_STEP_FORWARD,  0,                     VZ_FACT_OFFLINE, announce,        NULL,             NULL },
    { "receive-pages",    VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  VZ_FACT_POSTCOPY,      0,               vz_destination_receive_pages, NULL, NULL },
    { NULL,               VZ_PHASE_CONFIRM, VZ_STEP_FORWARD,  0,                     0,               NULL,            NULL,             NULL },
    /* clang-format on */
};
