/* io.h - waiting for a socket, in an actor (its inbox is served meanwhile) or in a plain thread. */
#pragma once

#include "base/wait.h"

/* How a blocking call waits: at most until the deadline; with an inbox (of the calling thread),
 * watches and DURING_JOB tasks are served, and a cancel ends it. */
typedef struct {
    vz_inbox *inbox; /* may be NULL */
    int64_t deadline_us;
} vz_io;

/* Waits until poll(2) would report one of `events` (or an error) on fd. false: OPERATION_TIMEOUT
 * "timed out", or OPERATION_ABORTED; the caller prefixes what was waited for. */
bool vz_io_wait(const vz_io *io, int fd, short events, GError **err);
