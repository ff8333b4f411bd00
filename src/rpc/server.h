/* server.h - virtvzd's side of the libvirt remote protocol.
 *
 *     socket -> connection (frame, bounds) -> dispatch (row, access) -> backend -> handler -> reply
 *
 * Lives on the loop thread: the thread that runs `context`. It knows neither domains nor drivers;
 * the backend vtable finds actors, the handlers do the work. */
#pragma once

#include "rpc/call.h"

typedef struct vz_server vz_server;
typedef struct vz_events vz_events;

/* How calls reach their threads. Called on the loop thread; must not block. Each posts
 * (vz_call_run, vz_call_ref(call), vz_call_drop) to an inbox and returns true; or returns false
 * with an error, which becomes the reply. */
typedef struct {
    bool (*post_to_host)(void *data, vz_call *call, GError **err);
    /* Finds the domain by dom->uuid (NO_DOMAIN if there is none), applies the row's in_job
     * (vz_call_procedure(call)): NO fails with OPERATION_INVALID while a job holds the domain, YES
     * posts as VZ_TASK_DURING_JOB; sets the call's subject. */
    bool (*post_to_domain)(void *data, vz_call *call, const vz_wire_domain *dom, GError **err);
    void *data;
} vz_rpc_backend;

typedef struct {
    unsigned max_clients;          /* connections at once; more are closed at once */
    unsigned max_readonly_clients; /* of them, by the read-only socket */
    unsigned max_calls_per_client; /* then its socket is not read until one is answered */
    unsigned keepalive_interval_s; /* silence before a ping; 0: no pings to clients */
    unsigned keepalive_count;      /* unanswered pings before the client is dropped */
} vz_server_limits;

/* The defaults, with the reason for each value at its definition. */
extern const vz_server_limits vz_server_default_limits;

/* Handlers are usually vz_handlers of rpc/handler_table.h. backend and handlers are copied. */
vz_server *vz_server_new(GMainContext *context, const vz_rpc_backend *backend,
                         const vz_handler *handlers, size_t n_handlers,
                         const vz_server_limits *limits);

/* Each listens from now on; loop thread; false with SYSTEM_ERROR naming path or address.
 * readwrite: mode 0770, peers other than root (or the daemon's own user) are refused with
 * AUTH_FAILED. readonly: mode 0777, anyone, READ rows only. Parent directories are made. */
bool vz_server_listen_readwrite(vz_server *server, const char *path, GError **err);
bool vz_server_listen_readonly(vz_server *server, const char *path, GError **err);
/* No authentication, no encryption: whoever reaches the port is root here. Only when the
 * configuration says so. `address` is numeric; port 0 picks one. */
bool vz_server_listen_tcp(vz_server *server, const char *address, uint16_t port, uint16_t *ret_port,
                          GError **err);

/* Where events go to be delivered to registered clients (rpc/events.h). Borrowed. */
vz_events *vz_server_events(vz_server *server);

/* Loop thread: stops listening, closes every connection (their close hooks run), unlinks the
 * sockets. Calls that still run are answered into nothing; their references keep what they need. */
void vz_server_free(vz_server *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_server, vz_server_free)
