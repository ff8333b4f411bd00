/* wait.h - inboxes, and the only way to block.
 *
 * An actor is a thread with an inbox. Others post tasks to it; it runs them one after the other.
 * While a task waits for something (vz_wait), the inbox goes on serving: descriptors that are
 * watched (a QMP socket, a pidfd, an RPC connection) and tasks posted as VZ_TASK_DURING_JOB (abort,
 * suspend, speed). All other tasks stay queued until the running one returns.
 *
 *     post ──► [ task | task | task ] ──► vz_inbox_run (one at a time)
 *                                            └─ task calls vz_wait(done?) ─┬─ watched fds
 *                                                                         └─ DURING_JOB tasks
 *
 * A thread of a program without actors (vz, tests) makes an inbox of its own and waits on it. */
#pragma once

#include "base/error.h"

#include <stdint.h>

typedef struct vz_inbox vz_inbox;

typedef enum {
    VZ_TASK_NORMAL,     /* waits until the running task has returned */
    VZ_TASK_DURING_JOB, /* also served inside vz_wait */
} vz_task_class;

typedef enum {
    VZ_WAIT_DONE,
    VZ_WAIT_TIMEOUT,
    VZ_WAIT_CANCELLED,
} vz_wait_result;

typedef void (*vz_task_fn)(void *data);
typedef void (*vz_watch_fn)(int fd, short revents, void *data);
typedef bool (*vz_done_fn)(void *data);

#define VZ_NO_DEADLINE INT64_MAX

/* Monotonic time in microseconds; what every deadline is measured in. */
int64_t vz_now_us(void);

vz_inbox *vz_inbox_new(void);
/* Drops tasks that have not run (through their drop function). No thread may use it any more. */
void vz_inbox_free(vz_inbox *inbox);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_inbox, vz_inbox_free)

/* Any thread. `drop` (may be NULL) frees data after the task ran, or in its stead. false (and data
 * is dropped) once the inbox is closed. */
bool vz_inbox_post(vz_inbox *inbox, vz_task_class task_class, vz_task_fn run, void *data,
                   GDestroyNotify drop);

/* Any thread: makes the current vz_wait, and every later one, return VZ_WAIT_CANCELLED until
 * vz_inbox_uncancel. */
void vz_inbox_cancel(vz_inbox *inbox);
void vz_inbox_uncancel(vz_inbox *inbox);
bool vz_inbox_cancelled(vz_inbox *inbox);

/* Owner thread only. `events` as in poll(2); the function is called from any wait of this inbox.
 * One watch per descriptor. Unwatching from inside a watch function is allowed. */
void vz_inbox_watch(vz_inbox *inbox, int fd, short events, vz_watch_fn fn, void *data);
void vz_inbox_unwatch(vz_inbox *inbox, int fd);

/* Owner thread: serves tasks of every class and watches until vz_inbox_close. */
void vz_inbox_run(vz_inbox *inbox);

/* Any thread: vz_inbox_run returns after the current task; later posts are refused. */
void vz_inbox_close(vz_inbox *inbox);

/* Owner thread: serves watches and DURING_JOB tasks until done(data), the deadline or a cancel.
 * done is called before each sleep. done == NULL just sleeps until the deadline. */
vz_wait_result vz_wait(vz_inbox *inbox, vz_done_fn done, void *data, int64_t deadline_us);

/* The same, deaf to cancel: for what must be finished once begun (undo, settle). */
vz_wait_result vz_wait_uncancellable(vz_inbox *inbox, vz_done_fn done, void *data,
                                     int64_t deadline_us);

/* Polls one descriptor without an inbox: for a short exchange with a local process (a QMP reply)
 * that nothing may interrupt. true: ready. */
bool vz_poll_one(int fd, short events, int64_t deadline_us);
