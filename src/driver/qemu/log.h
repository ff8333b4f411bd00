/* log.h - a domain's QEMU log: what QEMU writes to its standard error, below a banner per run.
 *
 * A guest can make QEMU write without end, so the file is bounded: an old one is set aside at the
 * start, and one that grows while QEMU runs is cut (vz_qemu_log_watch). */
#pragma once

#include "base/error.h"
#include "base/wait.h"

#include <sys/types.h>

#define VZ_QEMU_LOG_ROTATE_BYTES ((off_t)1024 * 1024)     /* at the start: moved to NAME.log.1 */
#define VZ_QEMU_LOG_CUT_BYTES    ((off_t)8 * 1024 * 1024) /* while it runs: cut to nothing */

typedef struct vz_qemu_log vz_qemu_log;

/* Opens (creates, 0600) LOG_DIR/NAME.log for appending. */
vz_qemu_log *vz_qemu_log_open(const char *log_dir, const char *name, GError **err);
/* The same for a run that an earlier daemon began: the file is not set aside, since QEMU writes to
 * it, and last words come from behind that run's banner. */
vz_qemu_log *vz_qemu_log_reopen(const char *log_dir, const char *name, GError **err);
void vz_qemu_log_free(vz_qemu_log *log);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_qemu_log, vz_qemu_log_free)

/* Writes the banner of a new run: a line of text, and the command line so that a shell would take
 * it. Last words come from behind it. */
void vz_qemu_log_begin(vz_qemu_log *log, const char *text, const char *const *argv);

/* For QEMU's standard error; borrowed. */
int vz_qemu_log_fd(const vz_qemu_log *log);

/* The last lines of this run, without time stamps, joined by "; ". Caller frees; "" none. */
char *vz_qemu_log_tail(const vz_qemu_log *log);

/* Cuts the file when it grows too large, from the inbox's waits until the log is freed. */
void vz_qemu_log_watch(vz_qemu_log *log, vz_inbox *inbox);
