/* actor.c - see actor.h.
 *
 * actor->lock guards everything here. `pending` counts tasks posted and not yet finished, including
 * the running ones; when it and `keeps` are 0 the inbox is taken off the actor and closed, under
 * the lock, so that a task posted at that moment starts a new thread with a new inbox. The old
 * thread then only frees its inbox. References: the owner, and each thread. */
#include "domain/actor.h"

#include <string.h>

#define NAME_BYTES 16

struct vz_actor {
    GMutex lock;
    GCond ended;
    int refs;
    char name[NAME_BYTES];
    vz_inbox *inbox;  /* of the current thread; NULL without one */
    GThread *thread;  /* its identity, for vz_actor_inbox */
    unsigned threads; /* alive, the current one included */
    unsigned pending;
    unsigned keeps;
    bool stopping;
    vz_task_fn on_end;
    void *on_end_data;
};

typedef struct {
    vz_actor *actor;
    vz_task_fn run;
    void *data;
    GDestroyNotify drop;
} actor_task;

typedef struct {
    vz_actor *actor;
    vz_inbox *inbox;
} actor_thread;

vz_actor *vz_actor_new(const char *name)
{
    vz_actor *actor = g_new0(vz_actor, 1);
    g_mutex_init(&actor->lock);
    g_cond_init(&actor->ended);
    actor->refs = 1;
    g_strlcpy(actor->name, name, sizeof(actor->name));
    return actor;
}

static void actor_unref(vz_actor *actor)
{
    if (!g_atomic_int_dec_and_test(&actor->refs))
        return;
    g_mutex_clear(&actor->lock);
    g_cond_clear(&actor->ended);
    g_free(actor);
}

/* With the lock held. */
static void end_if_idle(vz_actor *actor)
{
    bool idle = actor->pending == 0 && (actor->keeps == 0 || actor->stopping);
    if (!idle || !actor->inbox)
        return;
    vz_inbox_close(actor->inbox);
    actor->inbox = NULL;
    actor->thread = NULL;
}

void vz_actor_free(vz_actor *actor)
{
    if (!actor)
        return;
    g_mutex_lock(&actor->lock);
    actor->stopping = true;
    end_if_idle(actor);
    g_mutex_unlock(&actor->lock);
    actor_unref(actor);
}

static void *thread_main(void *data)
{
    actor_thread *self = data;
    vz_actor *actor = self->actor;
    vz_inbox_run(self->inbox);
    g_mutex_lock(&actor->lock);
    vz_task_fn on_end = actor->inbox == self->inbox ? actor->on_end : NULL;
    g_mutex_unlock(&actor->lock);
    if (on_end)
        on_end(actor->on_end_data);
    g_mutex_lock(&actor->lock);
    if (actor->inbox == self->inbox) {
        actor->inbox = NULL;
        actor->thread = NULL;
    }
    g_mutex_unlock(&actor->lock);
    vz_inbox_free(self->inbox);
    g_mutex_lock(&actor->lock);
    actor->threads--;
    g_cond_broadcast(&actor->ended);
    g_mutex_unlock(&actor->lock);
    actor_unref(actor);
    g_free(self);
    return NULL;
}

/* With the lock held. */
static void start_thread(vz_actor *actor)
{
    actor_thread *self = g_new0(actor_thread, 1);
    self->actor = actor;
    self->inbox = actor->inbox = vz_inbox_new();
    g_atomic_int_inc(&actor->refs);
    actor->threads++;
    actor->thread = g_thread_new(actor->name, thread_main, self);
    g_thread_unref(actor->thread);
}

static void run_task(void *data)
{
    actor_task *task = data;
    task->run(task->data);
}

static void drop_task(void *data)
{
    actor_task *task = data;
    vz_actor *actor = task->actor;
    if (task->drop)
        task->drop(task->data);
    g_free(task);
    g_mutex_lock(&actor->lock);
    actor->pending--;
    end_if_idle(actor);
    g_mutex_unlock(&actor->lock);
    actor_unref(actor);
}

bool vz_actor_post(vz_actor *actor, vz_task_class task_class, vz_task_fn run, void *data,
                   GDestroyNotify drop)
{
    g_mutex_lock(&actor->lock);
    bool accept = !actor->stopping;
    if (accept) {
        if (!actor->inbox)
            start_thread(actor);
        actor_task *task = g_new0(actor_task, 1);
        *task = (actor_task){actor, run, data, drop};
        actor->pending++;
        g_atomic_int_inc(&actor->refs);
        vz_inbox_post(actor->inbox, task_class, run_task, task, drop_task);
    }
    g_mutex_unlock(&actor->lock);
    if (!accept && drop)
        drop(data);
    return accept;
}

vz_inbox *vz_actor_inbox(vz_actor *actor)
{
    g_mutex_lock(&actor->lock);
    vz_inbox *inbox = actor->thread == g_thread_self() ? actor->inbox : NULL;
    g_mutex_unlock(&actor->lock);
    return inbox;
}

void vz_actor_keep(vz_actor *actor)
{
    g_mutex_lock(&actor->lock);
    actor->keeps++;
    g_mutex_unlock(&actor->lock);
}

void vz_actor_release(vz_actor *actor)
{
    g_mutex_lock(&actor->lock);
    g_assert(actor->keeps > 0);
    actor->keeps--;
    end_if_idle(actor);
    g_mutex_unlock(&actor->lock);
}

void vz_actor_stop(vz_actor *actor, vz_task_fn on_end, void *data)
{
    g_mutex_lock(&actor->lock);
    g_assert(actor->thread != g_thread_self());
    actor->stopping = true;
    actor->on_end = on_end;
    actor->on_end_data = data;
    if (actor->inbox) {
        /* Tasks that are still queued are dropped by vz_inbox_free on the thread. */
        vz_inbox_cancel(actor->inbox);
        vz_inbox_close(actor->inbox);
    }
    while (actor->threads > 0)
        g_cond_wait(&actor->ended, &actor->lock);
    g_mutex_unlock(&actor->lock);
}
