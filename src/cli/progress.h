/* progress.h - readings of a job's statistics, and what a person is shown of them.
 *
 * The statistics of a migration go up and down: while the guest writes, what remains grows. What is
 * shown never runs backwards and reaches 100 % only when the migration is done. Pure; no I/O. */
#pragma once

#include "wire/tparam.h"

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VZ_PHASE_TEXT_MAX  32
#define VZ_CHOICE_TEXT_MAX 256

/* One reading: the typed parameters of virDomainGetJobStats (libvirt facts 3.7) that vz shows. What
 * was not there is 0. */
typedef struct {
    int type; /* virDomainJobType: 0 none, 1, 2 running, 3 completed, 4 failed, 5 cancelled */
    int operation;
    uint64_t elapsed_ms;
    uint64_t remaining_ms;
    uint64_t downtime_ms;
    uint64_t total_bytes;
    uint64_t processed_bytes;
    uint64_t remaining_bytes;
    uint64_t memory_bytes_s;
    uint64_t disk_bytes_s;
    uint64_t disk_total_bytes;
    uint64_t disk_remaining_bytes;
    uint64_t iteration;
    uint64_t dirty_pages_s;
    uint64_t page_bytes;
    uint64_t sample_bytes; /* of its memory, that were packed on trial */
    uint64_t sample_packed_bytes;
    uint64_t sample_bytes_s;
    uint64_t channels; /* of multifd */
    bool has_downtime;
    /* The daemon's own words ("vz.phase"...); "": it gave none. */
    char phase[VZ_PHASE_TEXT_MAX];
    char compression[VZ_PHASE_TEXT_MAX];
    char choice[VZ_CHOICE_TEXT_MAX]; /* why memory travels so */
} vz_reading;

#define VZ_JOB_TYPE_NONE    0
#define VZ_JOB_TYPE_RUNNING 2
#define VZ_JOB_OPERATION_IN 4

void vz_reading_from_params(int type, const vz_tparam *params, size_t count,
                            vz_reading *ret_reading);

/* What is shown. */
typedef struct {
    const char *phase;  /* never NULL; static or of the progress */
    unsigned percent;   /* 0-100, never less than before */
    uint64_t bytes_s;   /* 0: not known */
    int64_t left_ms;    /* -1: not known */
    uint64_t iteration; /* 0: none */
    uint64_t elapsed_ms;
} vz_progress_view;

/* Zero-initialised. */
typedef struct {
    double fraction;
    int64_t last_us;
    uint64_t last_bytes;
    double bytes_s;
    char phase[VZ_PHASE_TEXT_MAX];
} vz_progress;

/* One more reading, taken at now_us. `switching`: the guest is already paused for the switch. */
vz_progress_view vz_progress_update(vz_progress *progress, const vz_reading *reading,
                                    bool switching, int64_t now_us);
