/* watch.c - see watch.h. */
#include "cli/watch.h"

#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define POLL_EVERY_US ((int64_t)250000)
#define FIRST_POLL_US ((int64_t)100000)

#define STATE_PAUSED     3
#define PAUSED_MIGRATION 2

#define JOB_TYPE_COMPLETED 3

static void on_signal(int fd, short revents, void *data)
{
    vz_watch *watch = data;
    struct signalfd_siginfo info;
    (void)revents;
    if (read(fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    watch->signals++;
    if (watch->signals == 1)
        vz_print_note(watch->printer, "aborting; once more leaves the migration to the daemon");
    else
        vz_inbox_cancel(watch->session->inbox);
}

static void on_event(vz_event_id id, int32_t callback_id, const void *body, void *data)
{
    vz_watch *watch = data;
    const vz_wire_event_job_completed *event = body;
    (void)callback_id;
    if (id == VZ_EVENT_job_completed &&
        memcmp(event->dom.uuid, watch->target->wire.uuid, sizeof(event->dom.uuid)) == 0)
        vz_reading_from_params(JOB_TYPE_COMPLETED, event->params.items, event->params.count,
                               &watch->final);
}

static void register_event(vz_watch *watch)
{
    const vz_client_wait wait = VZ_SESSION_WAIT(NULL);
    const vz_wire_event_callback_register_any_args args = {.event_id = VZ_EVENT_job_completed,
                                                           .dom = &watch->target->wire};
    vz_wire_int_ret ret = {0};
    g_autoptr(GError) ignored = NULL;
    vz_client_set_event_fn(watch->session->client, on_event, watch);
    vz_remote_connect_domain_event_callback_register_any(watch->session->client, &args, &ret, &wait,
                                                         &ignored);
}

bool vz_watch_start(vz_watch *watch, vz_session *session, const vz_target *target,
                    vz_printer *printer, GError **err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    *watch = (vz_watch){.session = session, .target = target, .printer = printer};
    watch->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (watch->signal_fd < 0)
        return vz_fail_errno(err, errno, "cannot watch for signals");
    vz_inbox_watch(session->inbox, watch->signal_fd, POLLIN, on_signal, watch);
    register_event(watch);
    return true;
}

/* Readings are for show: a failed one is skipped, the answer of the call decides. */
static void read_progress(vz_watch *watch)
{
    g_autoptr(GError) ignored = NULL;
    g_autoptr(GError) ignored_too = NULL;
    vz_reading reading = {0};
    int state = 0, reason = 0;
    if (!vz_session_job(watch->session, watch->target, false, &reading, &ignored) ||
        reading.type == VZ_JOB_TYPE_NONE)
        return;
    watch->last = reading;
    bool known = vz_session_state(watch->session, watch->target, &state, &reason, &ignored_too);
    bool switching = known && state == STATE_PAUSED && reason == PAUSED_MIGRATION;
    vz_progress_view view = vz_progress_update(&watch->progress, &reading, switching, vz_now_us());
    vz_print_progress(watch->printer, &view, known ? vz_session_state_name(state) : NULL,
                      vz_now_us());
}

#define PASSES_BEFORE_POSTCOPY 2

/* The second pass copies what was written during the first, and so shows whether there is an end to
 * it; the third has begun when it was not short enough. */
static void drive_postcopy(vz_watch *watch)
{
    const vz_client_wait wait = VZ_SESSION_WAIT(NULL);
    const vz_wire_domain_migrate_start_post_copy_args args = {.dom = watch->target->wire};
    g_autoptr(GError) why = NULL;
    if (!watch->postcopy || watch->switched || watch->signals > 0 ||
        watch->last.iteration <= PASSES_BEFORE_POSTCOPY)
        return;
    watch->switched = true;
    if (vz_remote_domain_migrate_start_post_copy(watch->session->client, &args, &wait, &why))
        vz_print_note(watch->printer, "the guest writes faster than it is copied: switching to "
                                      "post-copy");
    else
        vz_print_note(watch->printer, "cannot switch to post-copy: %s", why->message);
}

/* There may be no job yet when the user already wants to stop it: then again, later. */
static void drive_abort(vz_watch *watch)
{
    const vz_wire_domain_args args = {.dom = watch->target->wire};
    const vz_client_wait wait = VZ_SESSION_WAIT(NULL);
    g_autoptr(GError) why = NULL;
    if (watch->signals == 0 || watch->abort_is_over)
        return;
    if (!watch->abort) {
        watch->abort =
            vz_client_start(watch->session->client, VZ_PROC_domain_abort_job, &args, &why);
        return;
    }
    if (!vz_pending_done(watch->abort))
        return;
    vz_pending *answered = g_steal_pointer(&watch->abort);
    watch->abort_is_over = vz_client_finish(watch->session->client, answered, NULL, &wait, &why) ||
                           vz_error_number(why) != VZ_ERR_OPERATION_INVALID;
    if (watch->abort_is_over && why)
        vz_print_note(watch->printer, "cannot abort: %s", why->message);
}

static bool something_to_do(void *data)
{
    const vz_watch *watch = data;
    return vz_pending_done(watch->perform) ||
           (watch->signals > 0 && !watch->abort && !watch->abort_is_over);
}

static bool answer(vz_watch *watch, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    vz_wire_migrate_perform3_ret ret = {0};
    vz_pending *answered = g_steal_pointer(&watch->perform);
    return vz_client_finish(watch->session->client, answered, &ret, &wait, err);
}

bool vz_watch_run(vz_watch *watch, const vz_wire_migrate_perform3_params_args *args, bool *ret_left,
                  GError **err)
{
    vz_session *session = watch->session;
    int64_t next_us = vz_now_us() + FIRST_POLL_US;
    *ret_left = false;
    watch->perform =
        vz_client_start(session->client, VZ_PROC_domain_migrate_perform3_params, args, err);
    if (!watch->perform)
        return false;
    while (!vz_pending_done(watch->perform)) {
        if (vz_wait(session->inbox, something_to_do, watch, next_us) == VZ_WAIT_CANCELLED) {
            *ret_left = true;
            return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "left while the migration was going on");
        }
        drive_abort(watch);
        if (vz_now_us() < next_us || vz_pending_done(watch->perform))
            continue;
        read_progress(watch);
        drive_postcopy(watch);
        next_us = vz_now_us() + POLL_EVERY_US;
    }
    return answer(watch, err);
}

void vz_watch_clear(vz_watch *watch)
{
    /* Pending calls belong to the client and go with it. */
    if (!watch->session)
        return;
    if (watch->session->client)
        vz_client_set_event_fn(watch->session->client, NULL, NULL);
    vz_inbox_unwatch(watch->session->inbox, watch->signal_fd);
    vz_fd_clear(&watch->signal_fd);
    watch->session = NULL;
}
