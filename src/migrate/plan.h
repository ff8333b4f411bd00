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
    bool has_dirty_rate;
    uint64_t dirty_bytes_s; /* what the guest writes; where it runs on while it is copied */
    uint64_t disk_bytes;    /* that are copied before, by the same link; what a guest writes to them
                               meanwhile is not known */
    bool live;
    uint64_t rate_bytes_s;  /* of the link; 0: not known */
    char *rate_from;        /* or why it is not known */
    double shrinks_to;      /* of memory, on the wire; 0: it is not packed */
    uint64_t packs_bytes_s; /* at most; 0: it is not packed */
    uint64_t downtime_limit_ms;
} vz_plan_costs;

void vz_plan_costs_clear(vz_plan_costs *costs);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_plan_costs, vz_plan_costs_clear)

typedef struct {
    uint64_t bytes;    /* on the wire; 0: not known */
    bool has_times;    /* else `why` says why there are none; static */
    uint64_t total_ms; /* of the copying */
    uint64_t downtime_ms;
    const char *why;
} vz_plan_prediction;

/* Memory is sent once, then what was written meanwhile, and so on: with the guest writing a part p
 * of what goes over in a time this adds up to used / (1 - p). */
void vz_plan_predict(const vz_plan_costs *costs, vz_plan_prediction *ret_prediction);

/* QEMU samples for a second how much the guest writes; serves the inbox meanwhile. */
void vz_plan_measure_writes(vz_domain *domain, vz_plan_costs *costs);

/* The cap, if there is one that is less than what the kernel says of the interface to `peer`
 * (numeric; NULL: it is not known), else that; 0: not known. *ret_from: how it is known, or why
 * not; caller frees. */
uint64_t vz_plan_rate(const char *peer, uint64_t cap_bytes_s, char **ret_from);
