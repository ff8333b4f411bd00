/* domain.c - see domain.h.
 *
 * domain->lock guards only the pointer to the current snapshot. A writer (always the actor) copies
 * the snapshot, changes the copy, and swaps. driver_data belongs to the actor thread. */
#include "domain/domain.h"

#include "domain/actor.h"
#include "domain/def.h"

#include <string.h>

#define MESSAGES_MAX 16

struct vz_domain {
    int refs; /* atomic */
    uint8_t uuid[VZ_UUID_BYTES];
    char uuid_text[VZ_UUID_TEXT_BYTES];
    char *name;
    vz_table *table;
    const vz_driver *driver;
    vz_actor *actor;
    GMutex lock;
    vz_snapshot *snapshot;
    void *driver_data;
};

/* ---- snapshots ---- */

static vz_snapshot *snapshot_new(void)
{
    vz_snapshot *s = g_new0(vz_snapshot, 1);
    s->refs = 1;
    s->id = -1;
    s->state = VZ_STATE_SHUTOFF;
    s->messages = g_new0(char *, 1);
    return s;
}

static vz_snapshot *snapshot_copy(const vz_snapshot *from)
{
    vz_snapshot *s = g_new0(vz_snapshot, 1);
    *s = *from;
    s->refs = 1;
    s->live = from->live ? vz_def_ref(from->live) : NULL;
    s->config = from->config ? vz_def_ref(from->config) : NULL;
    s->messages = g_strdupv(from->messages);
    return s;
}

vz_snapshot *vz_snapshot_ref(vz_snapshot *snapshot)
{
    g_atomic_int_inc(&snapshot->refs);
    return snapshot;
}

void vz_snapshot_unref(vz_snapshot *snapshot)
{
    if (!snapshot || !g_atomic_int_dec_and_test(&snapshot->refs))
        return;
    vz_def_unref(snapshot->live);
    vz_def_unref(snapshot->config);
    g_strfreev(snapshot->messages);
    g_free(snapshot);
}

bool vz_snapshot_check_no_job(const vz_snapshot *snapshot, GError **err)
{
    if (!snapshot->has_job)
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "another job of the domain is running: %s; wait for it or abort it",
                   snapshot->job.title);
}

bool vz_snapshot_check_active(const vz_snapshot *snapshot, GError **err)
{
    return vz_snapshot_active(snapshot) ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is not running");
}

/* ---- the domain ---- */

vz_domain *vz_domain_new(const uint8_t uuid[VZ_UUID_BYTES], const char *name, vz_table *table,
                         const vz_driver *driver)
{
    vz_domain *domain = g_new0(vz_domain, 1);
    domain->refs = 1;
    memcpy(domain->uuid, uuid, VZ_UUID_BYTES);
    vz_uuid_format(uuid, domain->uuid_text);
    domain->name = g_strdup(name);
    domain->table = table;
    domain->driver = driver;
    domain->actor = vz_actor_new(name);
    g_mutex_init(&domain->lock);
    domain->snapshot = snapshot_new();
    return domain;
}

vz_domain *vz_domain_ref(vz_domain *domain)
{
    g_atomic_int_inc(&domain->refs);
    return domain;
}

void vz_domain_unref(vz_domain *domain)
{
    if (!domain || !g_atomic_int_dec_and_test(&domain->refs))
        return;
    g_assert(!domain->driver_data);
    vz_actor_free(domain->actor);
    vz_snapshot_unref(domain->snapshot);
    g_mutex_clear(&domain->lock);
    g_free(domain->name);
    g_free(domain);
}

const uint8_t *vz_domain_uuid(const vz_domain *domain)
{
    return domain->uuid;
}

const char *vz_domain_uuid_text(const vz_domain *domain)
{
    return domain->uuid_text;
}

const char *vz_domain_name(const vz_domain *domain)
{
    return domain->name;
}

vz_table *vz_domain_table(const vz_domain *domain)
{
    return domain->table;
}

const vz_driver *vz_domain_driver(const vz_domain *domain)
{
    return domain->driver;
}

vz_snapshot *vz_domain_snapshot(vz_domain *domain)
{
    g_mutex_lock(&domain->lock);
    vz_snapshot *snapshot = vz_snapshot_ref(domain->snapshot);
    g_mutex_unlock(&domain->lock);
    return snapshot;
}

/* ---- the actor ---- */

typedef struct {
    vz_domain *domain;
    vz_domain_fn run;
    void *data;
    GDestroyNotify drop;
} domain_task;

static void run_domain_task(void *data)
{
    domain_task *task = data;
    task->run(task->domain, task->data);
}

static void drop_domain_task(void *data)
{
    domain_task *task = data;
    if (task->drop)
        task->drop(task->data);
    vz_domain_unref(task->domain);
    g_free(task);
}

bool vz_domain_post(vz_domain *domain, vz_task_class task_class, vz_domain_fn run, void *data,
                    GDestroyNotify drop)
{
    domain_task *task = g_new0(domain_task, 1);
    *task = (domain_task){vz_domain_ref(domain), run, data, drop};
    return vz_actor_post(domain->actor, task_class, run_domain_task, task, drop_domain_task);
}

void vz_domain_stop_actor(vz_domain *domain, vz_task_fn on_end)
{
    vz_actor_stop(domain->actor, on_end, domain);
}

vz_inbox *vz_domain_inbox(vz_domain *domain)
{
    vz_inbox *inbox = vz_actor_inbox(domain->actor);
    g_assert(inbox);
    return inbox;
}

void vz_domain_keep_actor(vz_domain *domain)
{
    vz_actor_keep(domain->actor);
}

void vz_domain_release_actor(vz_domain *domain)
{
    vz_actor_release(domain->actor);
}

bool vz_domain_on_actor(vz_domain *domain)
{
    return vz_actor_inbox(domain->actor) != NULL;
}

/* ---- changes, on the actor thread ---- */

void *vz_domain_driver_data(vz_domain *domain)
{
    return domain->driver_data;
}

void vz_domain_set_driver_data(vz_domain *domain, void *data)
{
    domain->driver_data = data;
}

/* A copy to change. Only the actor swaps snapshots, so it cannot go stale before commit. */
static vz_snapshot *change(vz_domain *domain)
{
    g_autoptr(vz_snapshot) now = vz_domain_snapshot(domain);
    return snapshot_copy(now);
}

static void commit(vz_domain *domain, vz_snapshot *take_changed)
{
    g_mutex_lock(&domain->lock);
    vz_snapshot *old = domain->snapshot;
    domain->snapshot = take_changed;
    g_mutex_unlock(&domain->lock);
    vz_snapshot_unref(old);
}

void vz_domain_set_state(vz_domain *domain, vz_state state, int reason)
{
    vz_snapshot *s = change(domain);
    s->state = state;
    s->reason = reason;
    commit(domain, s);
}

void vz_domain_set_live(vz_domain *domain, vz_def *take_live, int id, pid_t pid)
{
    vz_snapshot *s = change(domain);
    vz_def_unref(s->live);
    s->live = take_live;
    s->id = take_live ? id : -1;
    s->pid = take_live ? pid : 0;
    commit(domain, s);
}

void vz_domain_set_config(vz_domain *domain, vz_def *take_config)
{
    vz_snapshot *s = change(domain);
    vz_def_unref(s->config);
    s->config = take_config;
    if (!take_config)
        s->autostart = false;
    commit(domain, s);
}

void vz_domain_set_autostart(vz_domain *domain, bool autostart)
{
    vz_snapshot *s = change(domain);
    s->autostart = autostart;
    commit(domain, s);
}

void vz_domain_set_autodestroy(vz_domain *domain, bool autodestroy)
{
    vz_snapshot *s = change(domain);
    s->autodestroy = autodestroy;
    commit(domain, s);
}

void vz_domain_set_reboot(vz_domain *domain, bool reboot)
{
    vz_snapshot *s = change(domain);
    s->reboot = reboot;
    commit(domain, s);
}

void vz_domain_set_starting(vz_domain *domain, bool starting)
{
    vz_snapshot *s = change(domain);
    s->starting = starting;
    commit(domain, s);
}

void vz_domain_set_migration_limits(vz_domain *domain, uint64_t max_speed_bytes_s,
                                    uint64_t max_downtime_ms)
{
    vz_snapshot *s = change(domain);
    s->max_speed_bytes_s = max_speed_bytes_s;
    s->max_downtime_ms = max_downtime_ms;
    commit(domain, s);
}

void vz_domain_set_postcopy_limit(vz_domain *domain, uint64_t max_postcopy_bytes_s)
{
    vz_snapshot *s = change(domain);
    s->max_postcopy_bytes_s = max_postcopy_bytes_s;
    commit(domain, s);
}

void vz_domain_set_migration_cache(vz_domain *domain, uint64_t cache_bytes)
{
    vz_snapshot *s = change(domain);
    s->cache_bytes = cache_bytes;
    commit(domain, s);
}

void vz_domain_add_message(vz_domain *domain, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    vz_snapshot *s = change(domain);
    if (g_strv_contains((const char *const *)s->messages, text)) {
        vz_snapshot_unref(s);
        return;
    }
    guint n = g_strv_length(s->messages);
    if (n == MESSAGES_MAX) {
        g_free(s->messages[0]);
        memmove(s->messages, s->messages + 1, n * sizeof(char *));
        n--;
    }
    s->messages = g_renew(char *, s->messages, n + 2);
    s->messages[n] = g_steal_pointer(&text);
    s->messages[n + 1] = NULL;
    commit(domain, s);
}

void vz_domain_clear_messages(vz_domain *domain)
{
    vz_snapshot *s = change(domain);
    g_strfreev(s->messages);
    s->messages = g_new0(char *, 1);
    commit(domain, s);
}

/* ---- the job ---- */

bool vz_domain_job_begin(vz_domain *domain, const vz_job *job, GError **err)
{
    g_autoptr(vz_snapshot) now = vz_domain_snapshot(domain);
    if (now->has_job)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "another migration job is already running for the domain: %s",
                       now->job.title);
    vz_snapshot *s = change(domain);
    s->has_job = true;
    s->job = *job;
    s->job_stats = (vz_job_stats){.type = VZ_JOB_UNBOUNDED, .operation = job->operation};
    commit(domain, s);
    return true;
}

void vz_domain_job_end(vz_domain *domain, const vz_job_stats *completed)
{
    vz_snapshot *s = change(domain);
    if (s->has_job && completed)
        s->completed = *completed;
    s->has_job = false;
    s->job = (vz_job){.ops = NULL};
    s->job_stats = (vz_job_stats){.type = VZ_JOB_NONE};
    commit(domain, s);
}

void vz_domain_set_job_stats(vz_domain *domain, const vz_job_stats *stats)
{
    vz_snapshot *s = change(domain);
    if (s->has_job)
        s->job_stats = *stats;
    commit(domain, s);
}

void vz_domain_set_completed(vz_domain *domain, const vz_job_stats *completed)
{
    vz_snapshot *s = change(domain);
    s->completed = completed ? *completed : (vz_job_stats){.type = VZ_JOB_NONE};
    commit(domain, s);
}
