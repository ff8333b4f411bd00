/* stream.h - server side of a stream (libvirt facts 1.7): pumps between a client and a descriptor.
 *
 *     client  -- STREAM packets -->  bounded buffer  -->  fd  (a pty, a socket)
 *     client  <--  packets, only while its socket takes them  <--  fd
 *
 * The handler of a procedure with a stream calls vz_stream_open and returns true; from then on the
 * loop thread does the pumping. It ends when the descriptor ends (EOF to the client), when the
 * client finishes, aborts or goes away, or by vz_stream_abort. */
#pragma once

#include "rpc/call.h"

typedef struct vz_stream vz_stream;

typedef enum {
    VZ_STREAM_BOTH_WAYS, /* a console */
    VZ_STREAM_TO_CLIENT,
    VZ_STREAM_FROM_CLIENT,
} vz_stream_direction;

typedef struct {
    vz_call *call; /* the opening call; its reply is sent before the first packet */
    int take_fd;   /* made non-blocking; closed at the end of the stream */
    vz_stream_direction direction;
    void (*on_end)(void *data); /* loop thread, once, must not block; may be NULL */
    void *data;
    GDestroyNotify drop; /* frees data after on_end; may be NULL */
} vz_stream_request;

/* Handler's thread. false (and the descriptor closed, data dropped, on_end not called): the
 * connection is dead or has too many streams. *ret_stream (may be NULL) is a reference. */
bool vz_stream_open(const vz_stream_request *request, vz_stream **ret_stream, GError **err);

/* Any thread: ends it with an error to the client (console taken over by another). */
void vz_stream_abort(vz_stream *stream, GError *take_error);

void vz_stream_unref(vz_stream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_stream, vz_stream_unref)
