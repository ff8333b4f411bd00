/* loop.c - see loop.h.
 *
 * Lock: loop->lock guards tasks and closed. An eventfd wakes the context. Not
 * g_main_context_invoke: it would run the function at once when called on the loop thread, inside
 * whatever is going on. */
#include "rpc/loop.h"

#include "base/fd.h"

#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    void (*fn)(void *data);
    void *data;
    GDestroyNotify drop;
} task;

typedef struct {
    GSource source;
    void *tag; /* of the descriptor; NULL: a tick */
    int64_t interval_us;
    vz_loop_fn fn;
    void *data;
} watch_source;

struct vz_loop {
    gint refs;
    GMainContext *context;
    GSource *wake_watch;
    int wake_fd;
    GMutex lock;
    GQueue tasks;
    bool closed;
};

static void task_free(task *t)
{
    if (t->drop)
        t->drop(t->data);
    g_free(t);
}

static task *next_task(vz_loop *loop)
{
    g_mutex_lock(&loop->lock);
    task *t = g_queue_pop_head(&loop->tasks);
    g_mutex_unlock(&loop->lock);
    return t;
}

static guint count_tasks(vz_loop *loop)
{
    g_mutex_lock(&loop->lock);
    guint n = loop->tasks.length;
    g_mutex_unlock(&loop->lock);
    return n;
}

/* Only what is there now: a task that posts another one must not keep descriptors waiting. */
static void run_tasks(GIOCondition ready, void *data)
{
    (void)ready;
    vz_loop *loop = data;
    uint64_t count;
    ssize_t got = read(loop->wake_fd, &count, sizeof(count));
    (void)got;
    vz_loop_ref(loop);
    for (guint left = count_tasks(loop); left > 0; left--) {
        task *t = next_task(loop);
        if (!t)
            break;
        t->fn(t->data);
        task_free(t);
    }
    vz_loop_unref(loop);
}

vz_loop *vz_loop_new(GMainContext *context)
{
    vz_loop *loop = g_new0(vz_loop, 1);
    loop->refs = 1;
    loop->context = g_main_context_ref(context ? context : g_main_context_default());
    g_mutex_init(&loop->lock);
    g_queue_init(&loop->tasks);
    loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(loop->wake_fd >= 0);
    loop->wake_watch = vz_loop_watch(loop, loop->wake_fd, G_IO_IN, run_tasks, loop);
    return loop;
}

vz_loop *vz_loop_ref(vz_loop *loop)
{
    g_atomic_int_inc(&loop->refs);
    return loop;
}

void vz_loop_unref(vz_loop *loop)
{
    if (!loop || !g_atomic_int_dec_and_test(&loop->refs))
        return;
    g_assert(loop->closed);
    g_main_context_unref(loop->context);
    vz_fd_clear(&loop->wake_fd);
    g_mutex_clear(&loop->lock);
    g_free(loop);
}

void vz_loop_close(vz_loop *loop)
{
    vz_loop_unwatch(&loop->wake_watch);
    g_mutex_lock(&loop->lock);
    loop->closed = true;
    g_mutex_unlock(&loop->lock);
    for (task *t; (t = next_task(loop));)
        task_free(t);
}

void vz_loop_post(vz_loop *loop, void (*fn)(void *data), void *data, GDestroyNotify drop)
{
    task *t = g_new0(task, 1);
    *t = (task){fn, data, drop};
    g_mutex_lock(&loop->lock);
    bool open = !loop->closed;
    if (open) {
        uint64_t one = 1;
        g_queue_push_tail(&loop->tasks, t);
        ssize_t put = write(loop->wake_fd, &one, sizeof(one));
        (void)put; /* full means that it is awake already */
    }
    g_mutex_unlock(&loop->lock);
    if (!open)
        task_free(t);
}

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer user_data)
{
    (void)callback;
    (void)user_data;
    watch_source *watch = (watch_source *)(void *)source;
    GIOCondition ready = 0;
    if (watch->tag)
        ready = g_source_query_unix_fd(source, watch->tag);
    else
        g_source_set_ready_time(source, g_source_get_time(source) + watch->interval_us);
    watch->fn(ready, watch->data);
    return G_SOURCE_CONTINUE;
}

static GSourceFuncs watch_functions = {.dispatch = dispatch};

static watch_source *source_new(vz_loop_fn fn, void *data)
{
    watch_source *watch =
        (watch_source *)(void *)g_source_new(&watch_functions, sizeof(watch_source));
    watch->fn = fn;
    watch->data = data;
    return watch;
}

GSource *vz_loop_watch(vz_loop *loop, int fd, GIOCondition events, vz_loop_fn fn, void *data)
{
    watch_source *watch = source_new(fn, data);
    watch->tag = g_source_add_unix_fd(&watch->source, fd, events);
    g_source_attach(&watch->source, loop->context);
    return &watch->source;
}

void vz_loop_rewatch(GSource *watch, GIOCondition events)
{
    g_source_modify_unix_fd(watch, ((watch_source *)(void *)watch)->tag, events);
}

GSource *vz_loop_tick(vz_loop *loop, unsigned interval_ms, vz_loop_fn fn, void *data)
{
    watch_source *watch = source_new(fn, data);
    watch->interval_us = (int64_t)interval_ms * 1000;
    g_source_set_ready_time(&watch->source, g_get_monotonic_time() + watch->interval_us);
    g_source_attach(&watch->source, loop->context);
    return &watch->source;
}

void vz_loop_unwatch(GSource **source)
{
    if (!*source)
        return;
    g_source_destroy(*source);
    g_source_unref(*source);
    *source = NULL;
}
