/* call.h - one call of one client, as a handler sees it.
 *
 * A call is made by the loop from a frame, runs on the thread that its row names, and is answered
 * exactly once: by the handler's return, or, after vz_call_defer, by vz_call_reply or vz_call_fail.
 * Reference counted, because it crosses threads; dropping the last reference of an unanswered call
 * answers it with an error, so no client waits for ever. If its connection died meanwhile the
 * answer is dropped; the call itself goes on. */
#pragma once

#include "rpc/conn.h"
#include "rpc/procs.h"
#include "wire/arena.h"

typedef struct vz_call vz_call;

typedef struct {
    vz_proc proc;
    bool (*run)(vz_call *call, const void *args, void *ret, GError **err);
} vz_handler;

vz_call *vz_call_ref(vz_call *call);
void vz_call_unref(vz_call *call);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_call, vz_call_unref)

/* Runs the handler and answers, unless it deferred. A vz_task_fn: the backend posts it with
 * vz_call_ref(call) as data and vz_call_drop as drop. */
void vz_call_run(void *call);
/* A GDestroyNotify: vz_call_unref. */
void vz_call_drop(void *call);

/* The handler (on its thread, before it returns true) leaves the answer to somebody else, who holds
 * a reference. */
void vz_call_defer(vz_call *call);
/* Any thread, once, after vz_call_defer. `ret` is the struct of the row (NULL where that is none);
 * it is encoded before this returns. */
void vz_call_reply(vz_call *call, const void *ret);
/* The same with an error. */
void vz_call_fail(vz_call *call, GError *take_error);

const vz_procedure *vz_call_procedure(const vz_call *call);
/* Borrowed. NULL never: a dead connection stays readable while the call lives. */
vz_conn *vz_call_conn(vz_call *call);
/* The decoded args; for who answers a deferred call. They live as long as the call. */
const void *vz_call_args(const vz_call *call);

/* What the backend found for it (the domain of a DOMAIN row). `drop` frees it with the call. Set by
 * the backend before it posts the call, read by the handler. */
void vz_call_set_subject(vz_call *call, void *subject, GDestroyNotify drop);
void *vz_call_subject(const vz_call *call);

/* Zeroed memory that lives as long as the call (VZ_CALL_RET_MAX in all). One thread at a time: that
 * of the handler, or of who answers it. Aborts on overflow like g_malloc: sizes come from
 * ourselves. */
void *vz_call_alloc(vz_call *call, size_t bytes);
/* NULL gives NULL. */
const char *vz_call_strdup(vz_call *call, const char *text);
