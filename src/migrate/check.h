/* check.h - `vz check`: what a move would do, and all that stands in its way, with nothing moved,
 * nothing prepared and nothing left behind.
 *
 *     source's daemon                              destination's daemon
 *     SOURCE checks; disks offered  ── cookie ──►  DESTINATION checks, disks answered,
 *     WAY checks: notes seen back,  ◄─ findings ─  a greeting expected at the data port
 *     a greeting by the data port
 *     the notes removed; memory, its changes and the link measured: the plan
 *
 * The functions that look are those of a real move (precheck.h). A daemon that is killed in the
 * middle leaves a note beside an image, which hinders nothing. */
#pragma once

#include "migrate/migration.h"

typedef struct {
    vz_migrate *service;
    vz_domain *domain;
    const char *dconnuri;
    const vz_options *options; /* as for a peer-to-peer Perform */
    uint64_t max_downtime_ms;  /* 0: the domain's, or the daemon's */
} vz_check_request;

/* The plan, the caller's:
 *   {"domain", "uuid", "move": true where nothing refuses it,
 *    "from": {"host", "qemu"?}, "to": {"host"?, "uri", "data"?: "tcp:HOST:PORT", "qemu"?},
 *    "guest": "running" | "paused" | ..., "live",
 *    "memory": {"total_bytes", "used_bytes"?, "used_from"?, "dirty_bytes_s"?},
 *    "stream"?: {"compression", "channels", "why", "sample"?: {"bytes", "packed_bytes",
 * "bytes_s"}}, "rate": {"bytes_s"?, "from"}, "bytes"?, "total_ms"?, "downtime_ms"?,
 * "unpredictable"?: why, "disks": [{"target", "path", "shared": proved}], "findings": [finding.h,
 * with "side": "source" | "destination" | "way"]} Actor thread; serves the inbox; takes a second or
 * two. */
json_t *vz_check_run(const vz_check_request *request);

/* The destination's part. */
typedef struct {
    vz_migrate *service;
    const vz_cookie *cookie;   /* of the source */
    const vz_options *options; /* as for Prepare */
    const char *data_uri;      /* where the source is to knock */
    int64_t arrived_us;        /* when it was asked, by this host's wall clock */
} vz_check_visit;

/* {"findings", "cookie": text of a vz_cookie, "uri", "qemu"}; the caller's. Blocks; not the loop.
 */
json_t *vz_check_answer(const vz_check_visit *visit, GError **err);
