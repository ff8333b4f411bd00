/* life.c - see life.h. Only the order of things is here; what a guest is, the driver knows. */
#include "driver/life.h"

#include "base/log.h"
#include "base/spawn.h"
#include "domain/def.h"
#include "domain/store.h"
#include "domain/table.h"
#include "storage/lease.h"

#include <string.h>

static vz_life_start_check start_check;
static void *start_check_user;

void vz_life_set_start_check(vz_life_start_check check, void *user)
{
    start_check_user = user;
    start_check = check;
}

/* ---- state and status ---- */

/* What is on disk follows what is in memory; a guest is never harmed because a file cannot be
 * written, but the next daemon would not find it, so it is said loudly. */
static void save_status(vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!s->live)
        return;
    vz_status status = {.id = s->id,
                        .state = (int)s->state,
                        .reason = s->reason,
                        .pid = s->pid,
                        .start_time = vz_process_start_time(s->pid),
                        .autodestroy = s->autodestroy,
                        .xml = vz_def_format(s->live, VZ_DEF_FORMAT_STATUS)};
    if (status.start_time == 0) { /* it has just died; its end will be dealt with */
        vz_status_clear(&status);
        return;
    }
    g_strlcpy(status.boot_id, vz_boot_id(), sizeof(status.boot_id));
    g_autoptr(GError) err = NULL;
    if (!vz_store_save_status(vz_table_store(vz_domain_table(domain)), vz_domain_uuid_text(domain),
                              &status, &err))
        vz_error(vz_domain_name(domain),
                 "its state cannot be saved, so it would be lost at a restart of virtvzd: %s",
                 err->message);
    vz_status_clear(&status);
}

void vz_life_state(vz_domain *domain, vz_state state, int reason)
{
    vz_domain_set_state(domain, state, reason);
    save_status(domain);
}

void vz_life_changed(vz_domain *domain, vz_state state, int reason, vz_event event, int detail)
{
    vz_life_state(domain, state, reason);
    vz_table_emit(domain, event, detail);
}

/* ---- start ---- */

/* The file of an inactive domain is one that could not be read when virtvzd started (or removed
 * since), so nobody knows whether its QEMU still runs. */
static bool refuse_unknown(vz_domain *domain, GError **err)
{
    g_autofree char *path = NULL;
    if (!vz_store_has_status(vz_table_store(vz_domain_table(domain)), vz_domain_uuid_text(domain),
                             &path))
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "domain '%s' may be running already: '%s' says so but cannot be used; once no "
                   "QEMU of it runs, remove that file",
                   vz_domain_name(domain), path);
}

static bool refuse_marked(vz_domain *domain, bool automatic, bool *ret_given, GError **err)
{
    vz_store *store = vz_table_store(vz_domain_table(domain));
    const char *uuid = vz_domain_uuid_text(domain);
    g_autofree char *moved = NULL;
    g_autofree char *arriving = NULL;
    if (!vz_store_get_mark(store, uuid, VZ_MARK_MOVED, &moved, err) ||
        !vz_store_get_mark(store, uuid, VZ_MARK_ARRIVING, &arriving, err))
        return false;
    if (!moved && !arriving)
        return true;
    if (start_check)
        return start_check(domain, automatic, ret_given, start_check_user, err);
    if (moved)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "domain '%s' has been moved to %s, so it may be running there",
                       vz_domain_name(domain), moved);
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "domain '%s' has not finished arriving from %s, so it may be running there",
                   vz_domain_name(domain), arriving);
}

/* Before QEMU opens an image that another host writes to. *ret_seize: that host has given the guest
 * up, or is dead, as whoever asked for the start has made sure. */
static bool refuse_leased(vz_domain *domain, const vz_life_start_request *request,
                          const vz_def *def, bool *ret_seize, GError **err)
{
    bool given = *ret_seize;
    g_autoptr(vz_lease_holder) holder = vz_lease_find_holder(domain, def);
    *ret_seize = holder && (given || (vz_lease_fencing() && !request->automatic));
    return !holder || *ret_seize || vz_lease_refuse(domain, holder, err);
}

static bool launch(vz_domain *domain, const vz_life_start_request *request, const vz_def *def,
                   GError **err)
{
    const vz_driver *driver = vz_domain_driver(domain);
    g_autoptr(vz_def) runnable = vz_def_copy(def);
    vz_def *live = NULL;
    runnable->id = vz_table_next_id(vz_domain_table(domain));
    vz_domain_clear_messages(domain);
    vz_domain_keep_actor(domain);
    const vz_driver_start start = {.def = runnable, .incoming = request->incoming};
    if (!driver->start(domain, &start, &live, err)) {
        vz_domain_release_actor(domain);
        vz_domain_set_state(domain, VZ_STATE_SHUTOFF, VZ_SHUTOFF_FAILED);
        return false;
    }
    vz_domain_set_live(domain, live, runnable->id, driver->pid(domain));
    vz_domain_set_autodestroy(domain, request->autodestroy);
    return true;
}

static bool start_guest(vz_domain *domain, const vz_life_start_request *request, GError **err)
{
    const vz_driver *driver = vz_domain_driver(domain);
    g_autoptr(vz_snapshot) before = vz_domain_snapshot(domain);
    if (vz_snapshot_active(before))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is already running");
    const vz_def *def = request->def ? request->def : before->config;
    if (!def)
        return vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)",
                       vz_domain_uuid_text(domain), vz_domain_name(domain));
    bool seize = false;
    if (!refuse_unknown(domain, err) ||
        (!request->incoming && (!refuse_marked(domain, request->automatic, &seize, err) ||
                                !refuse_leased(domain, request, def, &seize, err))))
        return false;
    if (!launch(domain, request, def, err))
        return false;
    if (request->incoming) {
        vz_life_changed(domain, VZ_STATE_PAUSED, VZ_PAUSED_MIGRATION, VZ_EVENT_STARTED,
                        VZ_STARTED_MIGRATED);
        return true;
    }
    /* A daemon that dies in what follows finds a paused guest, and says so. */
    vz_life_state(domain, VZ_STATE_PAUSED, VZ_PAUSED_STARTING_UP);
    /* Only now, with QEMU's own locks held, which another host may have refused. */
    if (!vz_lease_take(domain, def, seize, err) ||
        (!request->paused && !driver->resume(domain, err))) {
        g_autoptr(GError) ignored = NULL;
        vz_life_end(domain, VZ_SHUTOFF_FAILED, VZ_STOPPED_FAILED, &ignored);
        return false;
    }
    if (request->paused) {
        vz_life_changed(domain, VZ_STATE_PAUSED, VZ_PAUSED_USER, VZ_EVENT_STARTED,
                        VZ_STARTED_BOOTED);
        vz_table_emit(domain, VZ_EVENT_SUSPENDED, VZ_SUSPENDED_PAUSED);
        return true;
    }
    /* Measured with libvirt 11.3: its first event of a start is that the CPUs run. */
    vz_life_changed(domain, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, VZ_EVENT_RESUMED,
                    VZ_RESUMED_UNPAUSED);
    vz_table_emit(domain, VZ_EVENT_STARTED, VZ_STARTED_BOOTED);
    return true;
}

bool vz_life_start(vz_domain *domain, const vz_life_start_request *request, GError **err)
{
    /* Before another host is asked, which may be asking this one at the same moment. */
    vz_domain_set_starting(domain, true);
    bool started = start_guest(domain, request, err);
    vz_domain_set_starting(domain, false);
    return started;
}

/* ---- end ---- */

/* The process is dead: what remains is bookkeeping. The leases first: who sees that it is off may
 * start it on another host. */
static void become_inactive(vz_domain *domain, vz_shutoff_reason reason, int stopped_detail)
{
    g_autoptr(vz_snapshot) before = vz_domain_snapshot(domain);
    vz_lease_release(domain, before->live);
    vz_domain_set_live(domain, NULL, -1, 0);
    vz_domain_set_state(domain, VZ_STATE_SHUTOFF, (int)reason);
    vz_domain_set_autodestroy(domain, false);
    vz_store_remove_status(vz_table_store(vz_domain_table(domain)), vz_domain_uuid_text(domain));
    vz_table_prune(domain);
    vz_table_emit(domain, VZ_EVENT_STOPPED, stopped_detail);
    vz_domain_release_actor(domain);
}

static bool end(vz_domain *domain, bool graceful, vz_shutoff_reason reason, int stopped_detail,
                GError **err)
{
    /* The table's reference may go, and with it the last one. */
    g_autoptr(vz_domain) hold = vz_domain_ref(domain);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(hold);
    if (!vz_snapshot_active(s))
        return true;
    if (!vz_domain_driver(domain)->kill(domain, graceful, err)) {
        vz_domain_add_message(domain, "could not be ended: %s", (*err)->message);
        return false;
    }
    become_inactive(domain, reason, stopped_detail);
    return true;
}

bool vz_life_end(vz_domain *domain, vz_shutoff_reason reason, int stopped_detail, GError **err)
{
    return end(domain, false, reason, stopped_detail, err);
}

bool vz_life_destroy_during_job(vz_domain *domain, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!s->has_job)
        return true;
    if (!s->job.ops || !s->job.ops->destroy)
        return vz_snapshot_check_no_job(s, err);
    return s->job.ops->destroy(domain, s->job.data, err);
}

bool vz_life_destroy(vz_domain *domain, bool graceful, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return vz_snapshot_check_active(s, err) && vz_snapshot_check_no_job(s, err) &&
           end(domain, graceful, VZ_SHUTOFF_DESTROYED, VZ_STOPPED_DESTROYED, err);
}

/* ---- what users do to a running guest ---- */

static bool check_awake(const vz_snapshot *s, GError **err)
{
    if (!vz_snapshot_check_active(s, err))
        return false;
    return s->state != VZ_STATE_PMSUSPENDED ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is pmsuspended");
}

typedef bool (*job_op)(vz_domain *domain, void *job, bool *ret_handled, GError **err);

/* Lets the job do it in the driver's stead. */
static bool ask_job(vz_domain *domain, const vz_snapshot *s, job_op op, bool *ret_handled,
                    GError **err)
{
    *ret_handled = false;
    return !s->has_job || !op || op(domain, s->job.data, ret_handled, err);
}

bool vz_life_suspend(vz_domain *domain, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    bool handled = false;
    if (!check_awake(s, err))
        return false;
    if (s->state == VZ_STATE_PAUSED)
        return true;
    if (!ask_job(domain, s, s->has_job && s->job.ops ? s->job.ops->suspend : NULL, &handled, err))
        return false;
    if (handled)
        return true;
    if (!vz_domain_driver(domain)->suspend(domain, err))
        return false;
    vz_life_changed(domain, VZ_STATE_PAUSED, VZ_PAUSED_USER, VZ_EVENT_SUSPENDED,
                    VZ_SUSPENDED_PAUSED);
    return true;
}

/* Whoever undoes a migration, or ends it with the guest paused, gives the pause another reason. */
static bool refuse_let_go(vz_domain *domain, const vz_snapshot *s, GError **err)
{
    if (s->has_job || s->state != VZ_STATE_PAUSED || s->reason != VZ_PAUSED_MIGRATION)
        return true;
    return vz_fail(
        err, VZ_ERR_OPERATION_INVALID,
        "domain '%s' is paused by a migration of which this host has no usable record, so "
        "it may be running on the other host; once it surely is not, destroy it here and "
        "start it",
        vz_domain_name(domain));
}

bool vz_life_resume(vz_domain *domain, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    bool handled = false;
    if (!check_awake(s, err))
        return false;
    if (s->state == VZ_STATE_RUNNING)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is already running");
    if (!refuse_let_go(domain, s, err))
        return false;
    if (!ask_job(domain, s, s->has_job && s->job.ops ? s->job.ops->resume : NULL, &handled, err))
        return false;
    if (handled)
        return true;
    if (!vz_domain_driver(domain)->resume(domain, err))
        return false;
    vz_life_changed(domain, VZ_STATE_RUNNING, VZ_RUNNING_UNPAUSED, VZ_EVENT_RESUMED,
                    VZ_RESUMED_UNPAUSED);
    return true;
}

typedef bool (*guest_op)(vz_domain *domain, GError **err);

static bool ask_guest(vz_domain *domain, guest_op op, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return vz_snapshot_check_active(s, err) && op(domain, err);
}

bool vz_life_shutdown(vz_domain *domain, GError **err)
{
    return ask_guest(domain, vz_domain_driver(domain)->shutdown, err);
}

bool vz_life_reboot(vz_domain *domain, GError **err)
{
    return ask_guest(domain, vz_domain_driver(domain)->reboot, err);
}

bool vz_life_reset(vz_domain *domain, GError **err)
{
    return ask_guest(domain, vz_domain_driver(domain)->reset, err);
}

/* ---- definitions ---- */

bool vz_life_define(vz_domain *domain, vz_def *take_config, GError **err)
{
    g_autoptr(vz_def) config = take_config;
    g_autoptr(vz_snapshot) before = vz_domain_snapshot(domain);
    g_autofree char *xml = vz_def_format(config, VZ_DEF_FORMAT_SECURE | VZ_DEF_FORMAT_INACTIVE);
    if (!vz_store_save_config(vz_table_store(vz_domain_table(domain)), vz_domain_uuid_text(domain),
                              xml, err))
        return false;
    vz_domain_set_config(domain, g_steal_pointer(&config));
    vz_table_emit(domain, VZ_EVENT_DEFINED, before->config ? VZ_DEFINED_UPDATED : VZ_DEFINED_ADDED);
    return true;
}

bool vz_life_undefine(vz_domain *domain, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!vz_snapshot_persistent(s))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "cannot undefine transient domain");
    if (!vz_store_remove_config(vz_table_store(vz_domain_table(domain)),
                                vz_domain_uuid_text(domain), err))
        return false;
    vz_domain_set_config(domain, NULL);
    vz_table_prune(domain);
    vz_table_emit(domain, VZ_EVENT_UNDEFINED, VZ_UNDEFINED_REMOVED);
    return true;
}

bool vz_life_set_autostart(vz_domain *domain, bool autostart, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!vz_snapshot_persistent(s))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "cannot set autostart for transient domain");
    if (s->autostart == autostart)
        return true;
    if (!vz_store_set_autostart(vz_table_store(vz_domain_table(domain)),
                                vz_domain_uuid_text(domain), autostart, err))
        return false;
    vz_domain_set_autostart(domain, autostart);
    return true;
}

/* ---- adoption ---- */

/* What the guest does now decides the state; the reason is kept where the state is the same. */
static void take_alive_state(vz_domain *domain, vz_alive alive, vz_state was, int reason)
{
    vz_state now = VZ_STATE_PAUSED;
    switch (alive) {
    case VZ_ALIVE_RUNNING:
        now = VZ_STATE_RUNNING;
        break;
    case VZ_ALIVE_SHUTDOWN:
        now = VZ_STATE_SHUTDOWN;
        break;
    case VZ_ALIVE_CRASHED:
        now = VZ_STATE_CRASHED;
        break;
    case VZ_ALIVE_PMSUSPENDED:
        now = VZ_STATE_PMSUSPENDED;
        break;
    case VZ_ALIVE_INCOMING:
    case VZ_ALIVE_POSTMIGRATE:
        was = now;
        reason = VZ_PAUSED_MIGRATION;
        break;
    case VZ_ALIVE_PAUSED:
        break;
    }
    vz_life_state(domain, now, now == was ? reason : 0);
}

static void adopt_failed(vz_domain *domain, const GError *error)
{
    g_autofree char *text = vz_error_text(error);
    if (!g_error_matches(error, VZ_ERROR, VZ_ERR_NO_DOMAIN)) {
        vz_warn(vz_domain_name(domain), "runs but does not answer: %s", text);
        vz_domain_add_message(domain, "runs but does not answer: %s", text);
        return;
    }
    vz_warn(vz_domain_name(domain), "ended while virtvzd was not running: %s", error->message);
    vz_domain_add_message(domain, "ended while virtvzd was not running: %s", error->message);
    become_inactive(domain, VZ_SHUTOFF_UNKNOWN, VZ_STOPPED_FAILED);
}

void vz_life_adopt(vz_domain *domain, const vz_life_adopt_request *request)
{
    const vz_driver *driver = vz_domain_driver(domain);
    g_autoptr(GError) err = NULL;
    vz_alive alive;
    vz_domain_keep_actor(domain);
    vz_domain_set_live(domain, request->take_live, request->id, request->pid);
    vz_domain_set_autodestroy(domain, request->autodestroy);
    vz_domain_set_state(domain, request->state, request->reason);
    const vz_driver_adopt adopt = {
        .live = request->take_live, .pid = request->pid, .start_time = request->start_time};
    if (!driver->adopt(domain, &adopt, &alive, &err)) {
        adopt_failed(domain, err);
        return;
    }
    take_alive_state(domain, alive, request->state, request->reason);
    if (alive == VZ_ALIVE_SHUTDOWN &&
        !vz_life_end(domain, VZ_SHUTOFF_SHUTDOWN, VZ_STOPPED_SHUTDOWN, &err))
        vz_error(vz_domain_name(domain), "%s", err->message);
}

/* ---- what drivers report ---- */

void vz_life_guest_shutdown(vz_domain *domain, int shutdown_detail)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (s->live && s->state != VZ_STATE_SHUTDOWN)
        vz_life_changed(domain, VZ_STATE_SHUTDOWN, 0, VZ_EVENT_SHUTDOWN, shutdown_detail);
}

void vz_life_guest_ended(vz_domain *domain)
{
    g_autoptr(vz_domain) hold = vz_domain_ref(domain);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(hold);
    if (!s->live ||
        (s->has_job && s->job.ops && s->job.ops->died && s->job.ops->died(domain, s->job.data)))
        return;
    bool orderly = s->state == VZ_STATE_SHUTDOWN;
    g_autofree char *words = vz_domain_driver(domain)->last_words(domain);
    g_autoptr(GError) err = NULL;
    if (!orderly) {
        vz_warn(vz_domain_name(domain), "its process has died%s%s", words && *words ? ": " : "",
                words ? words : "");
        vz_domain_add_message(domain, "its process died%s%s", words && *words ? ": " : "",
                              words ? words : "");
    }
    if (!vz_life_end(domain, orderly ? VZ_SHUTOFF_SHUTDOWN : VZ_SHUTOFF_CRASHED,
                     orderly ? VZ_STOPPED_SHUTDOWN : VZ_STOPPED_FAILED, &err))
        vz_error(vz_domain_name(domain), "%s", err->message);
}

void vz_life_guest_stopped(vz_domain *domain, vz_paused_reason reason, int suspended_detail)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (s->live && s->state == VZ_STATE_RUNNING)
        vz_life_changed(domain, VZ_STATE_PAUSED, (int)reason, VZ_EVENT_SUSPENDED, suspended_detail);
}

void vz_life_guest_resumed(vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (s->live && s->state != VZ_STATE_RUNNING)
        vz_life_changed(domain, VZ_STATE_RUNNING, VZ_RUNNING_UNPAUSED, VZ_EVENT_RESUMED,
                        VZ_RESUMED_UNPAUSED);
}
