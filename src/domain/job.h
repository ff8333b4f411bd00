/* job.h - what the rest of the program sees of a migration job: its statistics, and the few
 * things that others may do to it while it runs.
 *
 * src/migrate owns the job and fills these in; src/api serves them. Names, units and numbers are
 * those of virDomainGetJobStats (libvirt facts 3.7): times in ms, sizes in bytes. */
#pragma once

#include "base/error.h"

#include <stdint.h>

typedef struct vz_domain vz_domain;
struct json_t;

typedef enum {
    VZ_JOB_NONE = 0,
    VZ_JOB_BOUNDED = 1,
    VZ_JOB_UNBOUNDED = 2, /* what a running migration reports */
    VZ_JOB_COMPLETED = 3,
    VZ_JOB_FAILED = 4,
    VZ_JOB_CANCELLED = 5,
} vz_job_type;

typedef enum {
    VZ_JOB_OP_UNKNOWN = 0,
    VZ_JOB_OP_MIGRATION_IN = 4,
    VZ_JOB_OP_MIGRATION_OUT = 5,
} vz_job_operation;

#define VZ_JOB_MESSAGE_MAX 256

/* Longest stop of a guest that a migration aims for, where nobody said another: measured as the
 * best start (architecture.md); and the most that QEMU takes. */
#define VZ_DOWNTIME_DEFAULT_MS 50
#define VZ_DOWNTIME_MAX_MS     2000000

/* Of the method xbzrle: QEMU's default, and the least that it takes; powers of two. */
#define VZ_CACHE_DEFAULT_BYTES ((uint64_t)64 * 1024 * 1024)
#define VZ_CACHE_MIN_BYTES     4096

/* Plain data, copied by value. A group whose has_ is false is not reported at all. */
typedef struct {
    vz_job_type type;
    vz_job_operation operation;
    uint64_t time_elapsed_ms;
    uint64_t time_elapsed_net_ms;
    uint64_t time_remaining_ms; /* reported while BOUNDED */
    uint64_t downtime_ms;       /* expected while running, measured when completed */
    uint64_t downtime_net_ms;
    uint64_t setup_time_ms;
    uint64_t memory_total_bytes;
    uint64_t memory_processed_bytes;
    uint64_t memory_remaining_bytes;
    uint64_t memory_bytes_s;
    uint64_t memory_constant_pages;
    uint64_t memory_normal_pages;
    uint64_t memory_normal_bytes;
    uint64_t memory_dirty_pages_s;
    uint64_t memory_page_bytes;
    uint64_t memory_iteration;
    uint64_t memory_postcopy_requests;
    uint64_t disk_total_bytes;
    uint64_t disk_processed_bytes;
    uint64_t disk_remaining_bytes;
    uint64_t disk_bytes_s;
    uint64_t compression_cache_bytes;
    uint64_t compression_bytes;
    uint64_t compression_pages;
    uint64_t compression_cache_misses;
    uint64_t compression_overflow;
    int32_t auto_converge_throttle_percent;
    bool has_time_elapsed_net;
    bool has_downtime;
    bool has_downtime_net;
    bool has_setup_time;
    bool has_memory_pages; /* constant, normal, normal_bytes */
    bool has_compression;
    bool has_auto_converge;
    bool has_stream;                     /* how memory travels (migrate/stream.h) */
    uint64_t stream_channels;            /* of multifd; 0: without */
    char stream_compress[16];            /* "none", "zstd"... */
    char stream_why[VZ_JOB_MESSAGE_MAX]; /* a sentence; "" for none */
    bool has_sample;                     /* what of its memory was packed on trial before */
    uint64_t sample_bytes;
    uint64_t sample_packed_bytes;
    uint64_t sample_bytes_s;             /* by one processor */
    char phase[32];                      /* our own word for where the job is; "" for none */
    char error_text[VZ_JOB_MESSAGE_MAX]; /* completed or failed jobs; "" for none */
} vz_job_stats;

/* What others may ask of a running job. Every function is called on the domain's actor thread,
 * often inside a vz_wait of the job itself, and then may not wait itself. NULL members answer 55.
 */
typedef struct {
    /* Begins to cancel; returns at once. */
    bool (*abort)(vz_domain *domain, void *job, GError **err);
    bool (*set_max_downtime)(vz_domain *domain, void *job, uint64_t downtime_ms, GError **err);
    bool (*set_max_speed)(vz_domain *domain, void *job, uint64_t bytes_s, GError **err);
    bool (*set_cache)(vz_domain *domain, void *job, uint64_t bytes, GError **err);
    bool (*start_postcopy)(vz_domain *domain, void *job, GError **err);
    bool (*pause_postcopy)(vz_domain *domain, void *job, GError **err);
    bool (*set_postcopy_speed)(vz_domain *domain, void *job, uint64_t bytes_s, GError **err);
    /* A suspend or resume by a user during the job. Called after the usual checks and in place of
     * the driver's own: true and *ret_handled == false lets the driver go on as without a job. */
    bool (*suspend)(vz_domain *domain, void *job, bool *ret_handled, GError **err);
    bool (*resume)(vz_domain *domain, void *job, bool *ret_handled, GError **err);
    /* Destroy by a user. Before the release: begins the abort, true; the destroy is then done as
     * soon as the job is over. After it: false, naming what would help. */
    bool (*destroy)(vz_domain *domain, void *job, GError **err);
    /* An event of the guest's QEMU (QMP name and data, monotonic arrival time). true: the job has
     * dealt with it and the driver shall not change the domain's state for it. */
    bool (*event)(vz_domain *domain, void *job, const char *name, const struct json_t *data,
                  int64_t when_us);
    /* The guest's process is gone (proved). Called before the driver makes the domain inactive.
     * true: the job makes it inactive itself (vz_life_end). */
    bool (*died)(vz_domain *domain, void *job);
} vz_job_ops;

/* The holder of a domain's job guard. */
typedef struct {
    vz_job_operation operation;
    char title[160]; /* "migration out to 10.1.1.2", for messages */
    char token[37];  /* the job's uuid; "" for none */
    const vz_job_ops *ops;
    void *data; /* handed to ops; owned by src/migrate */
} vz_job;
