/* stream.h - server side of a stream (libvirt facts 1.7): pumps between a client and a descriptor.
 *
 *     client  -- STREAM packets -->  bounded buffer  -->  fd  (a pty, a socket)
 *     client  <--  packets, only while its socket takes them  <--  fd
 *
 * The handler of a procedure with a stream calls vz_stream_open and returns true; from then on the
 * loop thread does the pumping. It ends when the descriptor ends (EOF to the client), when the
 * client finishes, aborts or goes away, or by vz_stream_abort. The program must ignore SIGPIPE. */
#pragma once

#include "rpc/call.h"

typedef struct vz_stream vz_stream;

typedef struct {
    int take_fd; /* made non-blocking; closed at the end of the stream */
    /* What the descriptor has not taken holds up the whole connection, instead of ending the
     * stream: for a client that sends more than a console's user types, on a connection of its own.
     */
    bool holds_back;
    void (*tune)(int fd);       /* the connection's socket, as the stream begins; may be NULL */
    void (*on_end)(void *data); /* once, must not block; may be NULL. Loop thread (or, after the
                                   server was freed, that of the last reference) */
    void *data;
    GDestroyNotify drop; /* frees data after on_end; may be NULL */
} vz_stream_request;

/* Handler's thread, once for a call. The stream begins with the call's reply; if the call fails
 * after all it ends at once. false (and the descriptor closed, data dropped, on_end not called):
 * the connection has too many streams. *ret_stream (may be NULL) is a reference. */
bool vz_stream_open(vz_call *call, const vz_stream_request *request, vz_stream **ret_stream,
                    GError **err);

/* Any thread: ends it with an error to the client (console taken over by another). A stream that
 * has ended is left alone. */
void vz_stream_abort(vz_stream *stream, GError *take_error);

void vz_stream_unref(vz_stream *stream);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_stream, vz_stream_unref)
