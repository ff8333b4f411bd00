/* probe_call.h - asking virtvz-probe (probe.c), which touches images' directories in our stead.
 *
 * Blocks until the deadline, in any thread but the loop's: a path on a dead network file system
 * costs a process, and what is done about that is the caller's. */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

/* Another program than the installed virtvz-probe; before threads, for tests. Borrowed. */
void vz_probe_set_program(const char *path);

/* Runs it with these words (NULL-terminated). Its reply, a JSON object that the caller decrefs;
 * NULL with err where it failed, did not end in time, or said nothing sensible. A reply may hold an
 * "error" of its own. */
json_t *vz_probe_call(const char *const *words, int64_t timeout_us, GError **err);

/* One that stays, says a line and waits to be told to go on, for what must not pay for its start.
 */
typedef struct vz_probe vz_probe;

vz_probe *vz_probe_start(const char *const *words, GError **err);
/* Its next line, as vz_probe_call. */
json_t *vz_probe_read(vz_probe *probe, int64_t timeout_us, GError **err);
/* Lets it go on; does not wait. */
void vz_probe_go_on(vz_probe *probe);
/* Ends it, whatever it does, and waits for that, but not for one that a dead file server holds. */
void vz_probe_stop(vz_probe *take_probe);
