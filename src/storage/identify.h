/* identify.h - is it the same file on both hosts? Proved, never guessed.
 *
 *     source                                   destination
 *     offer: makes a note beside the image ──► answer: reads it there, makes another,
 *     confirm: reads that one here         ◄── and compares the image itself
 *
 * Both notes have fresh random names and texts and are made with O_EXCL in the real directory of
 * the image, so only one directory that both hosts reach can show both. The image itself is
 * compared by inode, and by QEMU's own locks (held by the source, seen by the destination) or its
 * size and time, since a guest that runs changes them. What the two hosts told each other travels
 * in the job's cookies.
 *
 * What is proved not to be shared is copied, where nothing is at its path on the destination: the
 * offer says what the image is like ("shape", volume.h), the answer "copy". What is there instead
 * is written over ("over") only where the caller has asked for a copy, and it is an image of the
 * same format and size that nobody uses and that cannot be the source's own by another way.
 *
 * What cannot be proved for want of a way (a directory that nobody can write to, a block device) is
 * unproved: refused, unless the caller has said that it is `unsafe` and so vouches for it. What is
 * proved to be another file, or not to be there, is refused in any case.
 *
 * All calls block up to VZ_IDENTIFY_DEADLINE_US per disk in a helper process; actor or host thread,
 * never the loop. */
#pragma once

#include "domain/def.h"

#include <jansson.h>

/* A path that does not answer for so long counts as unreachable: NFS retries for minutes. */
#define VZ_IDENTIFY_DEADLINE_US ((int64_t)10 * 1000000)
#define VZ_IDENTIFY_DISKS_MAX   256

/* What the caller has said of disks. Borrowed. */
typedef struct {
    bool unsafe;            /* what is unproved counts as shared */
    bool copy;              /* what is not shared is copied, also over what is there */
    const GPtrArray *among; /* targets of those that may be copied; NULL or empty: all */
} vz_identify_policy;

/* Makes the source's notes for every disk with a source. *ret_offer is a JSON array for the cookie,
 * which also names what vz_identify_remove has to take away; caller decrefs. MIGRATE_UNSAFE names
 * the disk, its path and the reason for the first that is unproved. On failure nothing is left. */
bool vz_identify_offer(const vz_def *def, const char *host, bool unsafe, json_t **ret_offer,
                       GError **err);

/* Takes back that disks could be copied. */
void vz_identify_withhold_copies(json_t *offer);

/* The destination's part: finds each offered disk in its own definition (by target name, so paths
 * may differ), reads the note, answers. MIGRATE_UNSAFE with the proof's result for the first disk
 * that is not proved shared: not shared, different, or unproved, with paths, sizes and times. */
bool vz_identify_answer(const vz_def *def, const json_t *offer, const vz_identify_policy *policy,
                        json_t **ret_answer, GError **err);

/* The source's last part: every answer must be readable beside its own image. One that is not is
 * marked in `answer` as unproved, and refused or not. */
bool vz_identify_confirm(const json_t *offer, json_t *answer, bool unsafe, GError **err);

/* The element of an offer or an answer that is about a disk; NULL: there is none. Borrowed. */
json_t *vz_identify_find(const json_t *array, const char *target);

/* For an answer about one disk that is only taken for shared: which, and why it is not proved;
 * NULL: it is proved. Caller frees. */
char *vz_identify_warning(const json_t *answer);

/* Removes both notes of every disk of an offer; either host may. Idempotent; what cannot be
 * removed is logged. `def` NULL: at the paths of the offer, else at those of the definition. */
void vz_identify_remove(const vz_def *def, const json_t *offer);
