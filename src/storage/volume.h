/* volume.h - an image file: what it is like, and making another of its kind on this host.
 *
 *     look ──► shape ──(cookie)──► create: DIR/.virtvz-JOB-N, empty, formatted
 *                                     │ its inode is noted by the caller, durably
 *                                  settle: gets its name, if nothing has it
 *                                     │
 *                                  remove: what of the two is this very file
 *
 * So a file that was there before is never touched, whenever this host stops in between.
 * virtvz-probe touches the paths, qemu-img makes formats; all calls block up to
 * VZ_VOLUME_DEADLINE_US for each, in any thread but the loop's. */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

/* A path that does not answer for so long counts as unreachable: NFS retries for minutes. */
#define VZ_VOLUME_DEADLINE_US ((int64_t)20 * 1000000)
/* QEMU's own limit on a disk is a little less. */
#define VZ_VOLUME_BYTES_MAX ((uint64_t)1 << 62)

typedef enum { VZ_VOLUME_RAW, VZ_VOLUME_QCOW2 } vz_volume_format;

typedef struct {
    vz_volume_format format;
    uint64_t virtual_bytes;   /* what a guest sees, or a raw file's own size */
    uint64_t allocated_bytes; /* of its file system */
    uint32_t uid, gid;
    uint32_t mode; /* permissions only */
    /* qcow2: as the header says (docs/interop/qcow2.rst of QEMU) */
    uint32_t cluster_bytes;
    uint32_t version;
    bool lazy_refcounts;
    bool extended_l2;
    bool zstd;
    bool snapshots; /* inside */
    bool backing;   /* it is only the top of a chain */
} vz_volume_shape;

/* What is at a path. *ret_exists false: nothing, and the shape is empty. *ret_free_bytes: of its
 * file system, to others than root. SYSTEM_ERROR "cannot ..."; CONFIG_UNSUPPORTED: not a file, or
 * not of that format. */
bool vz_volume_look(const char *path, vz_volume_format format, vz_volume_shape *ret_shape,
                    bool *ret_exists, uint64_t *ret_free_bytes, GError **err);

/* As it travels; the caller decrefs. from_json: INVALID_ARG names the member that cannot be. */
json_t *vz_volume_shape_to_json(const vz_volume_shape *shape);
bool vz_volume_shape_from_json(const json_t *object, vz_volume_shape *ret_shape, GError **err);

/* Makes an empty image of that shape for this path under a name that only `job` (hex and dashes)
 * and `number` have. *ret_created names it, for the caller to note durably and for what follows;
 * caller decrefs; its members "device" and "free" (bytes) tell of the file system. On failure
 * nothing is left. OPERATION_FAILED where that has too little room for what is allocated at the
 * source. A shape with a backing file is the caller's to refuse. */
bool vz_volume_create(const char *path, const char *job, unsigned number,
                      const vz_volume_shape *shape, json_t **ret_created, GError **err);
/* Says so. */
bool vz_volume_fail_no_room(const char *path, uint64_t needed_bytes, uint64_t free_bytes,
                            GError **err);
/* Gives it its name. OPERATION_INVALID: something has it by now. */
bool vz_volume_settle(const json_t *created, GError **err);
/* Removes it, under whichever of both names; what else has its name stays. Idempotent; logged. */
void vz_volume_remove(const json_t *created);
/* What has been copied away: the file that PATH leads to gets the name FILE.migrated-JOB.
 * *ret_aside: that; NULL: nothing is there, or it has not this inode number (JSON; NULL: any).
 * Caller frees. */
bool vz_volume_put_aside(const char *path, const char *job, const json_t *inode, char **ret_aside,
                         GError **err);
/* Removes it. Idempotent; logged. */
void vz_volume_remove_aside(const char *aside);
/* For a record that was written before `create` was called: only the name that it would have had.
 */
json_t *vz_volume_expected(const char *path, const char *job, unsigned number);
