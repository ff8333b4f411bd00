/* client.h - a client of a virtvzd: for vz, and for peer-to-peer migration.
 *
 * Belongs to one thread, the owner of the inbox given to vz_client_open, which is the only one that
 * may call anything here. The socket is watched in that inbox: whatever wait of it is going on,
 * replies are sorted in, pings answered and events delivered. Calls may overlap. */
#pragma once

#include "base/wait.h"
#include "rpc/optional_parameters.h"
#include "rpc/procs.h"
#include "wire/arena.h"

typedef struct vz_client vz_client;
typedef struct vz_pending vz_pending;

/* Connects and opens: AUTH_LIST, keepalive, CONNECT_OPEN. URIs: vz:///system,
 * vz+unix:///system?socket=PATH, vz+tcp://HOST[:PORT]/system (INVALID_ARG for others, saying what
 * would work). SYSTEM_ERROR in libvirt's words where nobody answers, OPERATION_TIMEOUT at the
 * deadline, OPERATION_ABORTED when the inbox is cancelled. */
vz_client *vz_client_open(const char *uri, vz_inbox *inbox, int64_t deadline_us, GError **err);
/* Says goodbye without waiting, forgets what is pending. Accepts NULL. */
void vz_client_free(vz_client *client);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_client, vz_client_free)

/* false once the connection is lost; *err (may be NULL here) says why. */
bool vz_client_alive(const vz_client *client, GError **err);
/* The numeric address of a TCP peer, and ours towards it; NULL for unix sockets. */
const char *vz_client_remote_address(const vz_client *client);
const char *vz_client_local_address(const vz_client *client);

/* How long to wait, and whether vz_inbox_cancel ends it. After a timeout or a cancel the peer still
 * works on the call; its reply will be dropped. */
typedef struct {
    int64_t deadline_us;
    bool cancellable;
    vz_arena *arena; /* what *ret points to */
} vz_client_wait;

/* One call. The typed functions at the end are the way in. A peer's error comes back with its code
 * and text; a lost connection is SYSTEM_ERROR, a timeout OPERATION_TIMEOUT, a cancel
 * OPERATION_ABORTED. */
bool vz_client_call(vz_client *client, vz_proc proc, const void *args, void *ret,
                    const vz_client_wait *wait, GError **err);

/* The same in two halves, for calls that overlap. args is encoded before start returns (NULL for
 * none). */
vz_pending *vz_client_start(vz_client *client, vz_proc proc, const void *args, GError **err);
/* Answered, or lost. Never blocks by itself: some wait of the inbox must go on. */
bool vz_pending_done(const vz_pending *pending);
/* Waits for the answer and frees `pending` in every case. */
bool vz_client_finish(vz_client *client, vz_pending *take_pending, void *ret,
                      const vz_client_wait *wait, GError **err);

/* The socket; -1: the connection is lost. Borrowed, to be tuned. */
int vz_client_fd(const vz_client *client);

/* The call opens a stream, and from its answer on the connection carries nothing else; the client
 * is freed in every case. Returns a stream socket: what is written to it goes up the stream, what
 * comes down is read from it. Its end finishes the stream; a connection that is cut, or a stream
 * that the peer ends, ends it. Both ways at most a few MiB are on their way. A thread of its own
 * pumps until then. -1 with vz_client_call's errors. */
int vz_client_become_stream(vz_client *take_client, vz_proc proc, const void *args,
                            const vz_client_wait *wait, GError **err);

/* Is there a feature (VIR_DRV_FEATURE number)? */
bool vz_client_supports(vz_client *client, int32_t feature, const vz_client_wait *wait,
                        bool *ret_supported, GError **err);

/* Events of callbacks that were registered by vz_remote_connect_domain_event_callback_register_any.
 * `body` is the struct of the EVENT row, valid during the call. fn may not free the client. */
typedef void (*vz_client_event_fn)(vz_event_id id, int32_t callback_id, const void *body,
                                   void *data);
void vz_client_set_event_fn(vz_client *client, vz_client_event_fn fn, void *data);

/* vz_remote_<name>(client, args, ret, wait, err), without args or ret where the row says none. */
#define PROC(nr, name, args_type, ret_type, runs_on, in_job, access)                               \
    static inline bool vz_remote_##name(vz_client *client VZ_ARGS_PARAMETER(args_type)             \
                                            VZ_RET_PARAMETER(ret_type),                            \
                                        const vz_client_wait *wait, GError **err)                  \
    {                                                                                              \
        return vz_client_call(client, VZ_PROC_##name, VZ_ARGS_OR_NULL(args_type),                  \
                              VZ_RET_OR_NULL(ret_type), wait, err);                                \
    }
#include "procs.def"
#undef PROC
