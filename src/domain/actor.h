/* actor.h - a thread that exists only while there is work.
 *
 * Tasks posted to an actor run one after the other on its thread. The thread is started by the
 * first task, and ends when none is queued and nobody keeps it, so that a thousand idle domains
 * cost no thread. The host actor is one that is kept for ever. */
#pragma once

#include "base/wait.h"

typedef struct vz_actor vz_actor;

/* name shows in ps and gdb (15 bytes). */
vz_actor *vz_actor_new(const char *name);
/* Gives up the owner's hold. The thread ends by itself after the running task; later posts are
 * refused. NULL is allowed. */
void vz_actor_free(vz_actor *actor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_actor, vz_actor_free)

/* Any thread. As vz_inbox_post. */
bool vz_actor_post(vz_actor *actor, vz_task_class task_class, vz_task_fn run, void *data,
                   GDestroyNotify drop);

/* Actor thread, within a task or a watch: its inbox. NULL on any other thread. */
vz_inbox *vz_actor_inbox(vz_actor *actor);

/* Any thread. Counted: the thread is not ended between keep and release. keep does not start it. */
void vz_actor_keep(vz_actor *actor);
void vz_actor_release(vz_actor *actor);

/* Any thread but the actor's: refuses further tasks, drops queued ones, cancels the waits of the
 * running one, and returns when the thread has ended. on_end (may be NULL) runs on the thread as
 * its last act, if there is a thread. */
void vz_actor_stop(vz_actor *actor, vz_task_fn on_end, void *data);
