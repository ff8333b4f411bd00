/* internal.h - what the files of the server side share, file by file. Not for other folders.
 *
 *     server.c    listeners, the table of connections, the tick
 *     conn.c      one connection: bytes in, packets out, keepalive, its end
 *     dispatch.c  a packet -> a call, or an error at once
 *     call.c      a call: running and answering it
 *     session.c   the procedures about the connection itself
 *     events.c    registrations, and events to them
 *     stream.c    a stream and its descriptor
 *
 * Locks, in the order in which they may be taken: events->lock, conn->lock, loop->lock. */
#pragma once

#include "rpc/call.h"
#include "rpc/keepalive.h"
#include "rpc/loop.h"
#include "rpc/packets.h"
#include "rpc/server.h"
#include "rpc/stream.h"

/* Replies that wait for a slow client: beyond this its socket is not read, so it gets no more calls
 * in. Streams stop reading their descriptor far earlier, for the sake of the replies. */
#define VZ_CONN_QUEUE_SOFT_BYTES   ((size_t)1024 * 1024)
#define VZ_STREAM_QUEUE_SOFT_BYTES ((size_t)256 * 1024)
/* A client that registered for events and does not read them is dropped at this. */
#define VZ_CONN_QUEUE_EVENT_BYTES ((size_t)16 * 1024 * 1024)
/* Input of a stream that its descriptor does not take: a console's guest, say. */
#define VZ_STREAM_INPUT_BYTES ((size_t)1024 * 1024)
/* From here on a stream that holds back does so: one packet more still fits. */
#define VZ_STREAM_INPUT_HOLD_BYTES (VZ_STREAM_INPUT_BYTES - VZ_FRAME_STREAM_MAX)
#define VZ_STREAMS_PER_CONN        16
#define VZ_EVENTS_PER_CONN         1024
/* Messages that a peer may send before it has opened, and by the read-only socket: what the largest
 * argument there (a list of domains for statistics) needs. */
#define VZ_MESSAGE_UNOPENED_BYTES ((size_t)64 * 1024)
#define VZ_MESSAGE_READONLY_BYTES ((size_t)4 * 1024 * 1024)
/* A connection that has not opened by then is dropped. */
#define VZ_OPEN_DEADLINE_US (60 * G_USEC_PER_SEC)
/* Memory of the decoded arguments of one call, and of what its handler allocates for the reply. */
#define VZ_CALL_ARGS_BYTES ((size_t)64 * 1024 * 1024)
#define VZ_CALL_RET_BYTES  ((size_t)64 * 1024 * 1024)

/* Texts of errors are cut to this. */
#define VZ_ERROR_TEXT_BYTES ((size_t)64 * 1024)

#define VZ_ERROR_DOMAIN_RPC       7
#define VZ_ERROR_DOMAIN_PARALLELS 48 /* what libvirt calls its vz driver */
#define VZ_ERROR_LEVEL_ERROR      2

/* ---- conn.c ---- */

typedef enum {
    VZ_LISTEN_READWRITE,
    VZ_LISTEN_READONLY,
    VZ_LISTEN_TCP,
} vz_listen_kind;

typedef struct {
    const void *key;
    void (*fn)(void *data);
    void *data;
    GDestroyNotify drop;
} vz_close_hook;

struct vz_conn {
    gint refs;
    /* constant */
    uint64_t id;
    vz_listen_kind kind;
    uid_t uid;
    pid_t pid;
    char *local_address;
    char *remote_address;
    char *name;
    vz_loop *loop;
    unsigned max_calls;
    int64_t born_us;
    bool readonly; /* atomic; never goes back to false */

    /* loop thread; server is NULL once it is dead */
    vz_server *server;
    vz_packets *packets;
    GSource *watch;
    bool authenticated;
    bool opened;
    bool closing; /* dies when its queue is empty */
    bool pings;   /* the client asked for keepalive */
    vz_keepalive keepalive;
    GHashTable *streams; /* serial -> vz_stream, owned */

    GMutex lock; /* guards the rest */
    bool dead;
    bool turn_posted;
    unsigned calls;
    unsigned n_streams;
    GQueue ready;        /* of GByteArray: to be queued by the loop */
    size_t unsent_bytes; /* in ready and in packets */
    GArray *hooks;       /* of vz_close_hook */
};

/* Loop thread. The server keeps the reference that is returned. */
vz_conn *vz_conn_new(vz_server *server, vz_listen_kind kind, int take_fd, uint64_t id);
/* Loop thread: writes what is ready and what the socket takes. */
void vz_conn_flush(vz_conn *conn);
/* Loop thread: the connection dies now; its hooks run. `why` is logged (NULL: the client left). */
void vz_conn_close(vz_conn *conn, const char *why);
/* Loop thread, about every second. */
void vz_conn_tick(vz_conn *conn, int64_t now_us);
/* Any thread. A dead connection drops it. */
void vz_conn_send(vz_conn *conn, GByteArray *take_packet);
/* The same for an event: a client that does not read is dropped instead. */
void vz_conn_send_event(vz_conn *conn, GByteArray *take_packet);
/* Any thread: a call was answered, its place is free. */
void vz_conn_call_done(vz_conn *conn);
/* Any thread: what kept it from reading may be over. */
void vz_conn_wake(vz_conn *conn);
/* How much waits for the client. Any thread. */
size_t vz_conn_unsent(vz_conn *conn);

/* ---- dispatch.c ---- */

/* Loop thread: one whole packet. false (RPC): the peer breaks the protocol, close it. */
bool vz_dispatch_packet(vz_conn *conn, const uint8_t *data, size_t bytes, GError **err);
/* A packet with an error in it, that answers `frame`. */
GByteArray *vz_dispatch_error_packet(const vz_frame *frame, const GError *error);
/* A packet without payload that answers `frame`. */
GByteArray *vz_dispatch_empty_packet(const vz_frame *frame, vz_packet_type type,
                                     vz_packet_status status);

/* ---- call.c ---- */

struct vz_call {
    gint refs;
    gint answered; /* atomic */
    bool deferred; /* handler's thread */
    vz_conn *conn;
    const vz_procedure *procedure;
    const vz_handler *handler;
    vz_frame frame;
    vz_arena *arena; /* of the arguments */
    vz_arena *ret_arena;
    void *args;
    void *subject;
    GDestroyNotify drop_subject;
    vz_stream *stream; /* opened by the handler, begins with the reply */
};

/* Loop thread. Decodes the arguments; NULL with err where they are malformed. */
vz_call *vz_call_new(vz_conn *conn, const vz_procedure *procedure, const vz_handler *handler,
                     const uint8_t *packet, size_t bytes, GError **err);

/* ---- server.c ---- */

struct vz_server {
    vz_loop *loop;
    vz_rpc_backend backend;
    vz_handler *handlers;
    size_t n_handlers;
    vz_server_limits limits;
    vz_events *events;
    GPtrArray *listeners;
    GHashTable *conns; /* set of vz_conn, referenced */
    unsigned n_readonly;
    uint64_t next_conn_id;
    GSource *tick;
};

/* Loop thread: a connection of its has died. Drops the server's reference. */
void vz_server_forget(vz_server *server, vz_conn *conn);

/* ---- events.c ---- */

vz_events *vz_events_new(void);
void vz_events_free(vz_events *events);
typedef struct {
    int32_t event_id;
    const uint8_t *uuid; /* NULL: of every domain */
    bool legacy;         /* messages without callback ids */
} vz_event_request;

/* *ret_id (may be NULL) is the callback's id. */
bool vz_events_register(vz_events *events, vz_conn *conn, const vz_event_request *request,
                        int32_t *ret_id, GError **err);
bool vz_events_deregister(vz_events *events, vz_conn *conn, int32_t callback_id, GError **err);
bool vz_events_deregister_legacy(vz_events *events, vz_conn *conn, int32_t event_id, GError **err);
void vz_events_forget(vz_events *events, vz_conn *conn);

/* ---- stream.c ---- */

/* Any thread: the opening call was answered by `take_reply`, or (NULL) failed. Takes the reference.
 */
void vz_stream_begin(vz_stream *take_stream, GByteArray *take_reply);
/* Loop thread: a packet of type STREAM or STREAM_HOLE. Those of unknown streams are late: ignored.
 */
void vz_stream_packet(vz_conn *conn, const vz_frame *frame, const uint8_t *payload, size_t bytes);
/* Loop thread: a stream has so much input that no more may be read. */
bool vz_stream_holds_back(const vz_conn *conn);
/* Loop thread: the connection's queue got shorter. */
void vz_stream_resume_all(vz_conn *conn);
/* Loop thread: the connection died. */
void vz_stream_end_all(vz_conn *conn);
