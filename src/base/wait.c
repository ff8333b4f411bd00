/* wait.c - see wait.h.
 *
 * Lock: inbox->lock guards queue, cancelled, closed. The watches belong to the owner thread. The
 * eventfd wakes the owner; it is counted down at each turn, so no wake-up is lost. */
#include "base/wait.h"

#include "base/fd.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct {
    vz_task_class task_class;
    vz_task_fn run;
    void *data;
    GDestroyNotify drop;
} task;

typedef struct {
    int fd;
    short events;
    vz_watch_fn fn;
    void *data;
} watch;

struct vz_inbox {
    GMutex lock;
    GQueue queue;
    bool cancelled;
    bool closed;
    int wake_fd;
    GArray *watches;
};

int64_t vz_now_us(void)
{
    return g_get_monotonic_time();
}

vz_inbox *vz_inbox_new(void)
{
    vz_inbox *inbox = g_new0(vz_inbox, 1);
    g_mutex_init(&inbox->lock);
    g_queue_init(&inbox->queue);
    inbox->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(inbox->wake_fd >= 0);
    inbox->watches = g_array_new(FALSE, FALSE, sizeof(watch));
    return inbox;
}

static void task_free(task *t)
{
    if (t->drop)
        t->drop(t->data);
    g_free(t);
}

void vz_inbox_free(vz_inbox *inbox)
{
    if (!inbox)
        return;
    for (task *t; (t = g_queue_pop_head(&inbox->queue));)
        task_free(t);
    vz_fd_clear(&inbox->wake_fd);
    g_array_unref(inbox->watches);
    g_mutex_clear(&inbox->lock);
    g_free(inbox);
}

static void wake(vz_inbox *inbox)
{
    uint64_t one = 1;
    ssize_t n = write(inbox->wake_fd, &one, sizeof(one));
    (void)n; /* full means that it is awake already */
}

bool vz_inbox_post(vz_inbox *inbox, vz_task_class task_class, vz_task_fn run, void *data,
                   GDestroyNotify drop)
{
    task *t = g_new0(task, 1);
    *t = (task){task_class, run, data, drop};
    g_mutex_lock(&inbox->lock);
    bool open = !inbox->closed;
    if (open)
        g_queue_push_tail(&inbox->queue, t);
    g_mutex_unlock(&inbox->lock);
    if (open)
        wake(inbox);
    else
        task_free(t);
    return open;
}

static void set_flag(vz_inbox *inbox, bool *flag, bool value)
{
    g_mutex_lock(&inbox->lock);
    *flag = value;
    g_mutex_unlock(&inbox->lock);
    wake(inbox);
}

void vz_inbox_cancel(vz_inbox *inbox)
{
    set_flag(inbox, &inbox->cancelled, true);
}

void vz_inbox_uncancel(vz_inbox *inbox)
{
    set_flag(inbox, &inbox->cancelled, false);
}

void vz_inbox_close(vz_inbox *inbox)
{
    set_flag(inbox, &inbox->closed, true);
}

static bool get_flag(vz_inbox *inbox, const bool *flag)
{
    g_mutex_lock(&inbox->lock);
    bool value = *flag;
    g_mutex_unlock(&inbox->lock);
    return value;
}

bool vz_inbox_cancelled(vz_inbox *inbox)
{
    return get_flag(inbox, &inbox->cancelled);
}

static guint find_watch(vz_inbox *inbox, int fd)
{
    guint i = 0;
    while (i < inbox->watches->len && g_array_index(inbox->watches, watch, i).fd != fd)
        i++;
    return i;
}

void vz_inbox_watch(vz_inbox *inbox, int fd, short events, vz_watch_fn fn, void *data)
{
    vz_inbox_unwatch(inbox, fd);
    watch w = {fd, events, fn, data};
    g_array_append_val(inbox->watches, w);
}

void vz_inbox_unwatch(vz_inbox *inbox, int fd)
{
    guint i = find_watch(inbox, fd);
    if (i < inbox->watches->len)
        g_array_remove_index(inbox->watches, i);
}

/* Takes the next task; during a wait only those that may run inside one. */
static task *next_task(vz_inbox *inbox, bool any_class)
{
    task *found = NULL;
    g_mutex_lock(&inbox->lock);
    for (GList *l = inbox->queue.head; l; l = l->next) {
        task *t = l->data;
        if (any_class || t->task_class == VZ_TASK_DURING_JOB) {
            found = t;
            g_queue_delete_link(&inbox->queue, l);
            break;
        }
    }
    g_mutex_unlock(&inbox->lock);
    return found;
}

static bool run_next_task(vz_inbox *inbox, bool any_class)
{
    task *t = next_task(inbox, any_class);
    if (!t)
        return false;
    t->run(t->data);
    task_free(t);
    return true;
}

static int timeout_until(int64_t deadline_us)
{
    if (deadline_us == VZ_NO_DEADLINE)
        return -1;
    int64_t left_us = deadline_us - vz_now_us();
    if (left_us <= 0)
        return 0;
    int64_t left_ms = (left_us + 999) / 1000;
    return left_ms > G_MAXINT ? G_MAXINT : (int)left_ms;
}

/* Sleeps until a watch, a wake-up or the deadline; runs the watches that are ready. */
static void sleep_once(vz_inbox *inbox, int64_t deadline_us)
{
    guint n = inbox->watches->len;
    g_autofree struct pollfd *fds = g_new0(struct pollfd, n + 1);
    fds[0] = (struct pollfd){.fd = inbox->wake_fd, .events = POLLIN};
    for (guint i = 0; i < n; i++) {
        const watch *w = &g_array_index(inbox->watches, watch, i);
        fds[i + 1] = (struct pollfd){.fd = w->fd, .events = w->events};
    }
    if (poll(fds, n + 1, timeout_until(deadline_us)) <= 0)
        return;
    if (fds[0].revents) {
        uint64_t count;
        ssize_t r = read(inbox->wake_fd, &count, sizeof(count));
        (void)r;
    }
    for (guint i = 1; i <= n; i++) {
        if (!fds[i].revents)
            continue;
        /* An earlier watch function may have removed this one. */
        guint at = find_watch(inbox, fds[i].fd);
        if (at < inbox->watches->len) {
            watch w = g_array_index(inbox->watches, watch, at);
            w.fn(w.fd, fds[i].revents, w.data);
        }
    }
}

void vz_inbox_run(vz_inbox *inbox)
{
    while (!get_flag(inbox, &inbox->closed))
        if (!run_next_task(inbox, true))
            sleep_once(inbox, VZ_NO_DEADLINE);
}

static vz_wait_result wait_for(vz_inbox *inbox, vz_done_fn done, void *data, int64_t deadline_us,
                               bool cancellable)
{
    for (;;) {
        if (done && done(data))
            return VZ_WAIT_DONE;
        if (cancellable && vz_inbox_cancelled(inbox))
            return VZ_WAIT_CANCELLED;
        if (vz_now_us() >= deadline_us)
            return VZ_WAIT_TIMEOUT;
        if (!run_next_task(inbox, false))
            sleep_once(inbox, deadline_us);
    }
}

vz_wait_result vz_wait(vz_inbox *inbox, vz_done_fn done, void *data, int64_t deadline_us)
{
    return wait_for(inbox, done, data, deadline_us, true);
}

vz_wait_result vz_wait_uncancellable(vz_inbox *inbox, vz_done_fn done, void *data,
                                     int64_t deadline_us)
{
    return wait_for(inbox, done, data, deadline_us, false);
}

bool vz_poll_one(int fd, short events, int64_t deadline_us)
{
    struct pollfd p = {.fd = fd, .events = events};
    for (;;) {
        int n = poll(&p, 1, timeout_until(deadline_us));
        if (n > 0)
            return true;
        if (n == 0 || errno != EINTR)
            return false;
        if (vz_now_us() >= deadline_us)
            return false;
    }
}
