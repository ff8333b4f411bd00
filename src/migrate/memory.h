/* memory.h - a guest's memory in QEMU's terms: an outgoing or incoming stream.
 *
 * The commands were tried on QEMU 10.0 (docs of qapi/migration.json). Both ends use `return-path`:
 * the source's "completed" then means that the destination has loaded everything. The source uses
 * `pause-before-switchover`: its QEMU stops at "pre-switchover" with the guest paused and waits for
 * vz_memory_release; the destination uses `late-block-activate`: images are opened for writing only
 * by `cont`. Actor thread. */
#pragma once

#include "domain/job.h"
#include "driver/qemu/process.h"
#include "migrate/stream.h"

/* QEMU's MigrationStatus as far as we tell it apart. */
typedef enum {
    VZ_MEMORY_NONE,
    VZ_MEMORY_ACTIVE, /* setup, active, wait-unplug */
    VZ_MEMORY_PRE_SWITCHOVER,
    VZ_MEMORY_DEVICE,              /* the last state is on its way; QEMU may still go either way */
    VZ_MEMORY_POSTCOPY,            /* the guest is the destination's, its pages follow */
    VZ_MEMORY_POSTCOPY_PAUSED,     /* the connection is broken */
    VZ_MEMORY_POSTCOPY_RECOVERING, /* a new one is being made */
    VZ_MEMORY_COMPLETED,
    VZ_MEMORY_FAILED,
    VZ_MEMORY_CANCELLED,
} vz_memory_status;

vz_memory_status vz_memory_status_parse(const char *word);

/* The guest's gap starts so low, and is raised only while rounds do not converge: rounds near the
 * limit are as short as the limit, so trying costs little. QEMU's default is 300 ms. */
#define VZ_DOWNTIME_LIMIT_FIRST_MS 20
#define VZ_DOWNTIME_LIMIT_LAST_MS  400
/* QEMU's own cap of 128 MiB/s would double the time on any fast link; this is its largest value
 * that no arithmetic of its overflows. */
#define VZ_BANDWIDTH_UNLIMITED_BYTES_S ((uint64_t)1 << 40)

typedef struct {
    uint64_t bandwidth_bytes_s; /* 0: unlimited */
    uint64_t downtime_limit_ms;
} vz_memory_limits;

/* Tells QEMU how, and starts: the sender connects to the unix socket, once per channel, the
 * receiver listens on it; or on what a URI of QEMU's says. ARGUMENT_UNSUPPORTED, before anything
 * was changed, for what this QEMU cannot. */
bool vz_memory_send(vz_qemu *qemu, const char *path, const vz_stream *stream,
                    const vz_memory_limits *limits, GError **err);
bool vz_memory_receive(vz_qemu *qemu, const char *path, const vz_stream *stream, GError **err);

/* Changes the limits of a running stream. */
bool vz_memory_set_limits(vz_qmp *qmp, const vz_memory_limits *limits, GError **err);

/* The cache of xbzrle, also while the stream runs. */
bool vz_memory_set_cache(vz_qmp *qmp, uint64_t bytes, GError **err);

/* Lets the last state go. Only after the journal says so. */
bool vz_memory_release(vz_qmp *qmp, GError **err);

/* Asks QEMU to give up; the status then becomes CANCELLED or FAILED. */
bool vz_memory_cancel(vz_qmp *qmp, GError **err);

/* Is it a status of post-copy? */
bool vz_memory_is_postcopy(vz_memory_status status);
/* Post-copy. The source's: switches as soon as it can; the status then becomes PRE_SWITCHOVER as at
 * any other switch. */
bool vz_memory_start_postcopy(vz_qmp *qmp, GError **err);
/* 0: no limit. */
bool vz_memory_set_postcopy_rate(vz_qmp *qmp, uint64_t bytes_s, GError **err);
/* Either side: breaks the connection on purpose; the status becomes POSTCOPY_PAUSED. This and
 * vz_memory_recover work also while the destination's QEMU waits for a page in its main loop, in
 * which it answers nothing else. */
bool vz_memory_pause_postcopy(vz_qmp *qmp, GError **err);
/* The two halves of a recovery, each of a side that is POSTCOPY_PAUSED: the destination listens,
 * then the source connects, once per channel. */
bool vz_memory_recover(vz_qmp *qmp, const char *path, GError **err);
bool vz_memory_resume(vz_qmp *qmp, const char *path, GError **err);

/* Where the stream is, with libvirt's statistics (only the memory's part is written), and QEMU's
 * own reason for a failure ("" none; caller frees). */
bool vz_memory_query(vz_qmp *qmp, vz_memory_status *ret_status, vz_job_stats *stats,
                     char **ret_reason, GError **err);

/* The TCP port on which the receiver listens; 0 with err. */
uint16_t vz_memory_port(vz_qmp *qmp, GError **err);

/* The downtime limit for a pass (1 is the first) that did not converge before. */
uint64_t vz_memory_downtime_step_ms(uint64_t pass);
