/* plan.h - what a move will cost: how much is to be sent, how fast, how long that takes. From what
 * is measured or told, never guessed: what nobody knows stays unknown, and each figure says where
 * it comes from.
 *
 * vz_plan_predict is pure; the others ask the guest's QEMU or the kernel, on the domain's actor. */
#pragma once

#include "domain/domain.h"

typedef struct {
    uint64_t ram_bytes;  /* the guest's maximum */
    uint64_t used_bytes; /* of it, in use: what is sent at least once; 0: not known */
    const char *used_from;
    bool has_dirty_rate;
    uint64_t dirty_bytes_s; /* what the guest writes; where it runs on while it is copied */
    bool live;
    uint64_t rate_bytes_s; /* of the link; 0: not known */
    char *rate_from;       /* or why it is not known */
    uint64_t downtime_limit_ms;
} vz_plan_costs;

void vz_plan_costs_clear(vz_plan_costs *costs);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_plan_costs, vz_plan_costs_clear)

typedef struct {
    uint64_t bytes;    /* 0: not known */
    bool has_times;    /* else `why` says why there are none; static */
    uint64_t total_ms; /* of the copying */
    uint64_t downtime_ms;
    const char *why;
} vz_plan_prediction;

/* Memory is sent once, then what was written meanwhile, and so on: with the guest writing a part p
 * of what the link carries this adds up to used / (1 - p). */
void vz_plan_predict(const vz_plan_costs *costs, vz_plan_prediction *ret_prediction);

/* Guest memory that has to be sent, in the QEMU of this pid: of the mapping that is the guest's
 * memory, a sample of pages is looked at, whether they are there and not all zero, since with huge
 * pages much is resident that nobody ever wrote. Where it cannot be read, what is resident counts.
 */
void vz_plan_measure_memory(pid_t qemu_pid, vz_plan_costs *costs);

/* The smallest mapping in a text of /proc/PID/smaps that can hold the guest's memory. */
typedef struct {
    uint64_t start, bytes;
    uint64_t used_bytes; /* resident or swapped out */
} vz_plan_mapping;
/* false: no mapping is that large. */
bool vz_plan_find_mapping(const char *smaps, uint64_t ram_bytes, vz_plan_mapping *ret_mapping);
/* Bytes of a mapping of a process that are neither absent nor zero, by a sample; 0: it cannot be
 * read. */
uint64_t vz_plan_sample(pid_t pid, const vz_plan_mapping *mapping);

/* QEMU samples for a second how much the guest writes; serves the inbox meanwhile. */
void vz_plan_measure_writes(vz_domain *domain, vz_plan_costs *costs);

/* The cap, if there is one, else what the kernel says of the interface to `peer` (numeric). */
void vz_plan_find_rate(const char *peer, uint64_t cap_bytes_s, vz_plan_costs *costs);
