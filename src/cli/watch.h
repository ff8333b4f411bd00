/* watch.h - a migration while it runs: the call that migrates is outstanding, and beside it on the
 * same connection progress is asked for and, when the user wants to stop, the abort is sent.
 *
 *     Perform  ─────────────────────────────────────────► answer
 *     job stats, state   ·   ·   ·   ·   ·   ·             every quarter of a second
 *     Ctrl-C, SIGTERM             └─ abort ─► the answer is waited for
 *     once more                              └─ leave: the daemon goes on without us
 *
 * One thread; everything happens inside waits of the session's inbox. */
#pragma once

#include "cli/print.h"
#include "cli/session.h"

typedef struct {
    vz_session *session;
    const vz_target *target;
    vz_printer *printer;
    vz_pending *perform; /* owned until vz_watch_run returns */
    vz_progress progress;
    vz_reading last;  /* the newest reading while it ran */
    vz_reading final; /* the daemon's last word (JOB_COMPLETED event); type NONE: none came */
    int signal_fd;
    bool postcopy; /* to be set after vz_watch_start: switch when the second pass has not converged
                    */
    bool switched; /* it was asked for */
    unsigned signals; /* how often the user asked to stop */
    bool abort_is_over;
    vz_pending *abort;
} vz_watch;

/* From here on SIGINT and SIGTERM are counted instead of obeyed (a terminal that goes away still
 * ends vz, and the daemon goes on with the migration); and the daemon is asked to
 * tell how the job of the target ends. Failing to register for that is no error. */
bool vz_watch_start(vz_watch *watch, vz_session *session, const vz_target *target,
                    vz_printer *printer, GError **err);
/* Sends the call, and stays until it is answered. true: moved. false: the answer's error, or
 * *ret_left where the user did not want to wait for it. */
bool vz_watch_run(vz_watch *watch, const vz_wire_migrate_perform3_params_args *args, bool *ret_left,
                  GError **err);
void vz_watch_clear(vz_watch *watch);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_watch, vz_watch_clear)
