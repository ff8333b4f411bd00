/* sample.h - a look at a guest's memory from outside, before it moves: how much of it is in use,
 * and how small and how fast zstd makes that.
 *
 * Some thousand pages of the mapping of QEMU's that is the guest's memory are looked at, whether
 * they are there and not all zero: with huge pages much is resident that nobody ever wrote. The
 * first of them are packed on trial, in portions as large as QEMU's. No page is brought in for
 * that, the guest runs on, and it ends after some 40 ms with what it has by then. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Less than that says nothing about the rest. */
#define VZ_SAMPLE_PACK_MIN ((uint64_t)64 * 1024)

typedef struct {
    uint64_t used_bytes;   /* of the memory: neither absent nor zero, reckoned */
    uint64_t tried_bytes;  /* that were packed on trial */
    uint64_t packed_bytes; /* what came of them */
    uint64_t pack_bytes_s; /* packed in a second of one processor's time */
} vz_sample;

/* Of the QEMU of that pid, whose guest has so much memory. false: it cannot be looked at. */
bool vz_sample_memory(pid_t pid, uint64_t ram_bytes, vz_sample *ret_sample);

typedef struct {
    uint64_t start, bytes;
} vz_sample_mapping;

/* The smallest mapping in a text of /proc/PID/maps that can hold so much; false: none is that
 * large. */
bool vz_sample_find_mapping(const char *maps, uint64_t ram_bytes, vz_sample_mapping *ret_mapping);
/* The look at it; false: it cannot be read. */
bool vz_sample_mapping_of(pid_t pid, const vz_sample_mapping *mapping, vz_sample *ret_sample);
