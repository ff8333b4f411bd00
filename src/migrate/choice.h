/* choice.h - the daemon's own choice of how memory travels, where the caller leaves it open: by
 * how many connections, and whether packed by zstd.
 *
 * It weighs two ways against each other, by the memory that each moves in a second:
 *
 *     plain     what n channels and the link carry
 *     packed    the same, times what a sample of the guest's pages shrinks to; but no more than n
 *               processors pack
 *
 * with n up to the processors of both hosts. Packing takes processors from guests, and a
 * destination that has them not to spare falls behind, so it has to move half as much again. `vz
 * check` and the move call the same functions. */
#pragma once

#include "domain/domain.h"
#include "migrate/options.h"
#include "migrate/sample.h"
#include "migrate/stream.h"

/* Where nobody knows how fast the link is memory goes plain, and as if by a gigabit: packed, on a
 * link that is faster than the hosts pack, the guest stands still for longer at the end. */
#define VZ_CHOICE_LINK_DEFAULT_BYTES_S ((uint64_t)125000000)
/* What one connection carries, encrypted by one processor: measured with AES-128-GCM. */
#define VZ_CHOICE_CHANNEL_BYTES_S ((uint64_t)500000000)
/* More bring QEMU little. */
#define VZ_CHOICE_CHANNELS_MAX 8

/* So long a sample is used again, so that a move does what a check has just said. */
#define VZ_CHOICE_GOOD_US ((int64_t)60 * 1000000)

typedef struct {
    vz_sample sample;      /* zeros: there is none */
    uint64_t link_bytes_s; /* the cap of the caller, or its speed; 0: not known */
    vz_stream_host here;
} vz_choice_facts;

typedef struct {
    vz_choice_facts facts;
    vz_stream stream;
    char why[VZ_JOB_MESSAGE_MAX];
} vz_choice;

/* Pure: from `facts`, the rest. */
void vz_choice_decide(vz_choice *choice, const vz_options *options);

/* The same for a guest: gathers the facts, and the sample where it can matter. `peer` is the
 * destination's numeric address, where the caller has not named one; NULL: not known. Actor thread;
 * some 40 ms. */
void vz_choice_make(vz_choice *choice, vz_domain *domain, const vz_options *options,
                    const char *peer);

/* Takes what the destination's cookie says (NULL: nothing) as vz_stream_take_answer does, and says
 * in `why` where it has taken less than was chosen. */
bool vz_choice_take_answer(vz_stream *stream, char why[VZ_JOB_MESSAGE_MAX], const json_t *answer,
                           GError **err);

/* By the sample: bytes on the wire for a byte of memory (1: as many), and how much is packed in a
 * second at most (0: it is not packed, or not known). */
double vz_choice_shrinks_to(const vz_choice *choice);
uint64_t vz_choice_packs_bytes_s(const vz_choice *choice);

/* What the QEMU of these capabilities (NULL: not known, so it has nothing) and this host have. */
struct vz_qemu_caps;
vz_stream_host vz_choice_host(const struct vz_qemu_caps *caps);

/* Into a job's statistics. */
void vz_choice_show(const vz_choice *choice, vz_job_stats *stats);
/* The stream alone, as the destination knows it. */
void vz_choice_show_stream(const vz_stream *stream, vz_job_stats *stats);
