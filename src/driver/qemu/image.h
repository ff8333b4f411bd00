/* image.h - opening disk images without ever waiting for their file system.
 *
 * An image may lie on an NFS server that has gone: every touch (open, stat, read) happens in a
 * forked helper that hands the descriptor back and is abandoned at the deadline. Formats come from
 * the definition and, below a qcow2, from its header; nothing is ever probed, because the content
 * of a raw disk belongs to its guest. Any thread but the loop; blocks until the deadline. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* How deep a chain may be. */
#define VZ_IMAGE_CHAIN_MAX  64
#define VZ_IMAGE_TIMEOUT_US (20 * (int64_t)1000000)

typedef struct {
    int fd;            /* close-on-exec; owned */
    bool block_device; /* else a regular file */
    uint64_t bytes;    /* of the file or device */
    uint64_t device;   /* st_dev and st_ino, or st_rdev and 0 of a block device */
    uint64_t inode;
} vz_image;

typedef struct {
    char *path;
    char *format; /* "raw" or "qcow2" */
    bool read_only;
    vz_image image;
} vz_image_layer;

typedef struct {
    vz_image_layer *layers; /* top first */
    size_t n_layers;
} vz_image_chain;

void vz_image_clear(vz_image *image);
void vz_image_chain_free(vz_image_chain *chain);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_image_chain, vz_image_chain_free)

typedef struct {
    const char *path;
    const char *format; /* NULL: raw */
    bool read_only;
    bool direct; /* O_DIRECT, for cache='none'; QEMU takes no other descriptor for it */
    uid_t uid;   /* tried when root may not open it (root_squash); 0: not tried */
    gid_t gid;
    bool only_as_user; /* opened as uid and gid, to see whether they may */
    int64_t deadline_us;
} vz_image_request;

/* Opens one file as asked (never creating it). SYSTEM_ERROR "Cannot access storage file 'PATH':
 * why" as libvirt says it; OPERATION_TIMEOUT when its file system does not answer. */
bool vz_image_open(const vz_image_request *request, vz_image *ret_image, GError **err);

/* Opens a disk with everything below it, backing files read-only. Formats other than raw and qcow2,
 * a backing file without a format in the header, an external data file, built-in encryption:
 * CONFIG_UNSUPPORTED. */
vz_image_chain *vz_image_chain_open(const vz_image_request *request, GError **err);
