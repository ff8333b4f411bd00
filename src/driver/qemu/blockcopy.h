/* blockcopy.h - a disk copied from one running QEMU to another: NBD between them, a mirror job in
 * the source. By what was tried on QEMU 10.0 (facts/qemu.md 3):
 *
 *     destination: serve, export each ─► a unix socket
 *     source:      start (a connection to that socket, by whatever way) ─► RUNNING ─► READY: from
 *                  now on what the guest writes goes to both; finish ─► CONCLUDED; end
 *
 * Holes are not sent, and zeroes become holes. Named by the disk's target, at most
 * VZ_BLOCKCOPY_NAME_MAX bytes. Actor thread; errors as vz_qmp_command's. */
#pragma once

#include "driver/qemu/qmp.h"

#define VZ_BLOCKCOPY_NAME_MAX 24

/* Of a QEMU that waits for a guest: its images become writable now. */
bool vz_blockcopy_serve(vz_qmp *qmp, const char *socket_path, GError **err);
/* node: what the guest's device has. storage: of a raw image, the node below that; else NULL. It is
 * written to by another node then, for what comes as zeroes is to become a hole although the guest
 * may not make any. */
bool vz_blockcopy_export(vz_qmp *qmp, const char *disk, const char *node, const char *storage,
                         GError **err);
/* What came is on disk as far as the source's QEMU has flushed, which it does at its end.
 * Idempotent, as the next, which is for each disk that was exported; both before the guest runs. */
bool vz_blockcopy_stop_serving(vz_qmp *qmp, GError **err);
/* Also at the source, of a copy of which nothing else is left. */
bool vz_blockcopy_remove_node(vz_qmp *qmp, const char *disk, GError **err);

typedef struct {
    const char *disk; /* the target, "vda" */
    const char *node; /* which is copied */
    int fd;           /* connected to the other QEMU's socket; borrowed, QEMU gets a copy */
    bool synchronous; /* the guest's writes wait for the other host */
    uint64_t bytes_s; /* 0: no limit */
} vz_blockcopy_request;

/* Begins; on failure nothing of it is left. Blocks while QEMU and the other one greet. */
bool vz_blockcopy_start(vz_qmp *qmp, const vz_blockcopy_request *request, GError **err);

typedef enum {
    VZ_BLOCKCOPY_RUNNING,
    VZ_BLOCKCOPY_READY,     /* both are alike but for what is on its way */
    VZ_BLOCKCOPY_CONCLUDED, /* both are alike, and the other is flushed */
    VZ_BLOCKCOPY_FAILED,
    VZ_BLOCKCOPY_NONE, /* there is no such copy */
} vz_blockcopy_state;

typedef struct {
    vz_blockcopy_state state;
    uint64_t done_bytes; /* of total; both grow while the guest writes */
    uint64_t total_bytes;
    char reason[128]; /* FAILED: QEMU's */
} vz_blockcopy_progress;

bool vz_blockcopy_query(vz_qmp *qmp, const char *disk, vz_blockcopy_progress *ret_progress,
                        GError **err);
bool vz_blockcopy_set_speed(vz_qmp *qmp, const char *disk, uint64_t bytes_s, GError **err);
/* Of a READY one: no more goes over than what makes both alike; it is CONCLUDED soon. The guest is
 * to stand still. */
bool vz_blockcopy_finish(vz_qmp *qmp, const char *disk, GError **err);
/* Of one that is CONCLUDED or FAILED: forgets it and closes its connection. */
bool vz_blockcopy_end(vz_qmp *qmp, const char *disk, GError **err);
/* Of one in any state: it is to fail. It has to be ended then. */
bool vz_blockcopy_cancel(vz_qmp *qmp, const char *disk, GError **err);
