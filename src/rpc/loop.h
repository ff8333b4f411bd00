/* loop.h - the loop thread: the one that runs a GMainContext. Descriptors are watched there, and
 * any thread can have a function called there. Reference counted, since calls outlive servers. */
#pragma once

#include <glib.h>
#include <stdbool.h>

typedef struct vz_loop vz_loop;

/* Made on the loop thread. NULL: the default context. */
vz_loop *vz_loop_new(GMainContext *context);
vz_loop *vz_loop_ref(vz_loop *loop);
void vz_loop_unref(vz_loop *loop);
/* Loop thread: drops what has not run, and everything posted later. */
void vz_loop_close(vz_loop *loop);

/* Any thread: fn(data) runs later on the loop thread, in the order of posting. `drop` (may be NULL)
 * frees data afterwards, or at once when the loop is closed. */
void vz_loop_post(vz_loop *loop, void (*fn)(void *data), void *data, GDestroyNotify drop);

/* Loop thread. fn is called while one of `events`, an error or a hang-up is there. */
typedef void (*vz_loop_fn)(GIOCondition ready, void *data);
GSource *vz_loop_watch(vz_loop *loop, int fd, GIOCondition events, vz_loop_fn fn, void *data);
void vz_loop_rewatch(GSource *watch, GIOCondition events);
/* Calls fn(0, data) every interval_ms. */
GSource *vz_loop_tick(vz_loop *loop, unsigned interval_ms, vz_loop_fn fn, void *data);
/* Ends a watch or a tick and sets *source to NULL. NULL inside is fine. */
void vz_loop_unwatch(GSource **source);
