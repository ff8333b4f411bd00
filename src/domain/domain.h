/* domain.h - a domain: what it is now, and the actor that alone may change it.
 *
 *     loop, host actor, other domains          the domain's actor thread
 *     ───────────────────────────────          ─────────────────────────
 *     vz_domain_snapshot  (a reference    ◄──  vz_domain_set_*  (copies, changes, swaps)
 *       to an immutable struct)                vz_domain_driver_data, the job
 *     vz_domain_post      (a task)        ──►  runs it
 *
 * Reference counted, because it crosses threads. uuid and name never change. Lock order: table,
 * domain, actor; none is held while another subsystem is called. */
#pragma once

#include "base/wait.h"
#include "base/text.h"
#include "domain/job.h"
#include "domain/state.h"

#include <sys/types.h>

typedef struct vz_def vz_def;       /* domain/def.h: immutable, reference counted */
typedef struct vz_table vz_table;   /* domain/table.h */
typedef struct vz_driver vz_driver; /* driver/driver.h */

/* What a domain is at one moment. Immutable; hold it as long as you like. */
typedef struct {
    int refs;  /* atomic */
    int id;    /* -1 while inactive */
    pid_t pid; /* of what runs it; 0 while inactive */
    vz_state state;
    int reason;
    bool autostart;
    bool autodestroy; /* dies with the connection that started it */
    bool reboot;      /* its guest's next shutdown is the first half of a reboot */
    bool starting;    /* somebody starts it here: other hosts are told so (migrate/whereabouts.h) */
    vz_def *live;     /* NULL while inactive */
    vz_def *config;   /* NULL for a transient domain */
    char **messages;  /* NULL-terminated; never NULL */
    bool has_job;
    vz_job job;                    /* valid with has_job */
    vz_job_stats job_stats;        /* of the running job; type NONE without one */
    vz_job_stats completed;        /* of the last job that ended; type NONE without one */
    uint64_t max_speed_bytes_s;    /* of the next migration; 0: the default */
    uint64_t max_downtime_ms;      /* of the next migration; 0: the default */
    uint64_t max_postcopy_bytes_s; /* of the next migration; 0: no limit */
    uint64_t cache_bytes;          /* of xbzrle, of the next migration; 0: the default */
} vz_snapshot;

vz_snapshot *vz_snapshot_ref(vz_snapshot *snapshot);
void vz_snapshot_unref(vz_snapshot *snapshot); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_snapshot, vz_snapshot_unref)

static inline bool vz_snapshot_active(const vz_snapshot *snapshot)
{
    return snapshot->live != NULL;
}

static inline bool vz_snapshot_persistent(const vz_snapshot *snapshot)
{
    return snapshot->config != NULL;
}

/* Neither active nor persistent: reserved in the table, but not yet, or no longer, a domain. */
static inline bool vz_snapshot_empty(const vz_snapshot *snapshot)
{
    return !snapshot->live && !snapshot->config;
}

/* Used by the table only; everyone else gets domains from it. table and driver are borrowed. */
vz_domain *vz_domain_new(const uint8_t uuid[VZ_UUID_BYTES], const char *name, vz_table *table,
                         const vz_driver *driver);
vz_domain *vz_domain_ref(vz_domain *domain);
void vz_domain_unref(vz_domain *domain); /* NULL is allowed */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_domain, vz_domain_unref)

/* Any thread; constant. */
const uint8_t *vz_domain_uuid(const vz_domain *domain);
const char *vz_domain_uuid_text(const vz_domain *domain);
const char *vz_domain_name(const vz_domain *domain);
vz_table *vz_domain_table(const vz_domain *domain);
const vz_driver *vz_domain_driver(const vz_domain *domain);

/* Any thread. The caller unrefs. */
vz_snapshot *vz_domain_snapshot(vz_domain *domain);

/* Any thread: runs run(domain, data) on the domain's actor, which is started if need be; the
 * domain is referenced meanwhile. VZ_TASK_DURING_JOB also runs inside a wait of the running task.
 * drop (may be NULL) frees data afterwards. false: the program is ending, nothing will run. */
typedef void (*vz_domain_fn)(vz_domain *domain, void *data);
bool vz_domain_post(vz_domain *domain, vz_task_class task_class, vz_domain_fn run, void *data,
                    GDestroyNotify drop);

/* Actor thread only: the inbox to wait on and to watch descriptors in. Valid until the task
 * returns, or as long as vz_domain_keep_actor holds the thread. */
vz_inbox *vz_domain_inbox(vz_domain *domain);

/* Actor thread: the thread stays although no task is queued (a QEMU is watched). Counted. */
void vz_domain_keep_actor(vz_domain *domain);
void vz_domain_release_actor(vz_domain *domain);

/* Not the actor thread: ends the actor for good, dropping what is queued, cancelling the running
 * task's waits, and waiting for its end; then runs on_end(domain) on it. For the program's end. */
void vz_domain_stop_actor(vz_domain *domain, vz_task_fn on_end);

/* True on the domain's actor thread; for assertions. */
bool vz_domain_on_actor(vz_domain *domain);

/* ---- Actor thread only, from here on. ---- */

/* The driver's own; NULL while inactive. Not freed by the domain. For a guest's vz_qemu see
 * driver/qemu/driver.h. */
void *vz_domain_driver_data(vz_domain *domain);
void vz_domain_set_driver_data(vz_domain *domain, void *data);

void vz_domain_set_state(vz_domain *domain, vz_state state, int reason);
/* Takes the definition and gives up the one before. Active: a definition, its id and the pid of
 * what runs it. Inactive: NULL, -1, 0. */
void vz_domain_set_live(vz_domain *domain, vz_def *take_live, int id, pid_t pid);
void vz_domain_set_config(vz_domain *domain, vz_def *take_config);
void vz_domain_set_autostart(vz_domain *domain, bool autostart);
void vz_domain_set_autodestroy(vz_domain *domain, bool autodestroy);
void vz_domain_set_reboot(vz_domain *domain, bool reboot);
void vz_domain_set_starting(vz_domain *domain, bool starting);
void vz_domain_set_migration_limits(vz_domain *domain, uint64_t max_speed_bytes_s,
                                    uint64_t max_downtime_ms);
void vz_domain_set_postcopy_limit(vz_domain *domain, uint64_t max_postcopy_bytes_s);
void vz_domain_set_migration_cache(vz_domain *domain, uint64_t cache_bytes);

/* Adds a line that `virsh dominfo` shows (bounded, oldest dropped; a repeated line is not
 * added); clears them all. */
void vz_domain_add_message(vz_domain *domain, const char *format, ...) G_GNUC_PRINTF(2, 3);
void vz_domain_clear_messages(vz_domain *domain);

/* The job guard. OPERATION_INVALID while another holds it: "another migration job is already
 * running" in libvirt's words. Running statistics start as type UNBOUNDED with the operation. */
bool vz_domain_job_begin(vz_domain *domain, const vz_job *job, GError **err);
/* Gives the guard back. completed (may be NULL) is kept for `domjobinfo --completed` until the next
 * job ends or the domain becomes inactive and is removed. No effect without a job. */
void vz_domain_job_end(vz_domain *domain, const vz_job_stats *completed);
/* New statistics of the running job; cheap enough for ten times a second. */
void vz_domain_set_job_stats(vz_domain *domain, const vz_job_stats *stats);
/* Replaces or, with NULL, forgets the completed statistics. */
void vz_domain_set_completed(vz_domain *domain, const vz_job_stats *completed);

/* Any thread: OPERATION_INVALID naming the job if the snapshot has one. For what a job forbids. */
bool vz_snapshot_check_no_job(const vz_snapshot *snapshot, GError **err);

/* Any thread: OPERATION_INVALID "domain is not running" unless active. */
bool vz_snapshot_check_active(const vz_snapshot *snapshot, GError **err);
