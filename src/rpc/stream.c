/* stream.c - see stream.h. Everything but opening and asking for an abort is on the loop thread.
 *
 *     OPENED -> RUNNING -> EOF_SENT -> ENDED        the descriptor ended, the client then finishes
 *                  |  \--> FINISHING ---^           the client finished, its input is still written
 *                  \--------------------^           abort by either side, connection lost
 *
 * A server must never send STREAM/OK but in answer to the client's finish or abort: libvirt's
 * client drops the whole connection then (facts 1.7). */
#include "rpc/internal.h"

#include "base/fd.h"

#include <errno.h>
#include <glib-unix.h>
#include <unistd.h>

#define READ_BYTES ((size_t)64 * 1024)
G_STATIC_ASSERT(READ_BYTES <= VZ_FRAME_STREAM_MAX);

typedef enum { OPENED, RUNNING, EOF_SENT, FINISHING, ENDED } stream_state;

struct vz_stream {
    gint refs;
    vz_conn *conn;
    vz_frame frame; /* of the opening call */
    vz_stream_request request;

    /* loop thread */
    stream_state state;
    int fd;
    GSource *watch;    /* NULL: there is nothing to wait for */
    GByteArray *input; /* from the client, not yet written */
    GError *aborted;   /* before it began */
};

static vz_stream *stream_ref(vz_stream *stream)
{
    g_atomic_int_inc(&stream->refs);
    return stream;
}

/* What is due once, whoever ends it. */
static void tell_end(vz_stream *stream)
{
    stream->state = ENDED;
    g_mutex_lock(&stream->conn->lock);
    stream->conn->n_streams--;
    g_mutex_unlock(&stream->conn->lock);
    if (stream->request.on_end)
        stream->request.on_end(stream->request.data);
    if (stream->request.drop)
        stream->request.drop(stream->request.data);
}

void vz_stream_unref(vz_stream *stream)
{
    if (!stream || !g_atomic_int_dec_and_test(&stream->refs))
        return;
    if (stream->state != ENDED) /* the loop was closed before it could begin */
        tell_end(stream);
    g_clear_error(&stream->aborted);
    vz_fd_clear(&stream->fd);
    g_byte_array_unref(stream->input);
    vz_conn_unref(stream->conn);
    g_free(stream);
}

static void unref_stream(void *stream)
{
    vz_stream_unref(stream);
}

/* ---- opening, on the handler's thread ---- */

static bool take_place(vz_conn *conn)
{
    g_mutex_lock(&conn->lock);
    bool room = conn->n_streams < VZ_STREAMS_PER_CONN;
    conn->n_streams += room;
    g_mutex_unlock(&conn->lock);
    return room;
}

bool vz_stream_open(vz_call *call, const vz_stream_request *request, vz_stream **ret_stream,
                    GError **err)
{
    vz_autofd fd = request->take_fd;
    g_assert(!call->stream);
    if (!take_place(call->conn)) {
        if (request->drop)
            request->drop(request->data);
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "a connection may have at most %d streams at once", VZ_STREAMS_PER_CONN);
    }
    g_unix_set_fd_nonblocking(fd, TRUE, NULL);
    vz_stream *stream = g_new0(vz_stream, 1);
    stream->refs = 1;
    stream->conn = vz_conn_ref(call->conn);
    stream->frame = call->frame;
    stream->request = *request;
    stream->fd = vz_steal_fd(&fd);
    stream->input = g_byte_array_new();
    call->stream = stream;
    if (ret_stream)
        *ret_stream = stream_ref(stream);
    return true;
}

/* ---- the loop's side ---- */

static void send_packet(vz_stream *stream, vz_packet_status status, const void *data, size_t bytes)
{
    vz_frame frame = stream->frame;
    frame.type = VZ_PACKET_STREAM;
    frame.status = status;
    GByteArray *packet = g_byte_array_new();
    size_t payload = vz_frame_begin(packet, &frame);
    if (bytes)
        g_byte_array_append(packet, data, (guint)bytes);
    g_autoptr(GError) err = NULL;
    bool ended = vz_frame_end(packet, payload, &err);
    g_assert(ended);
    vz_conn_send(stream->conn, packet);
}

static bool holds_back(const vz_stream *stream)
{
    return stream->request.holds_back && stream->input->len > VZ_STREAM_INPUT_HOLD_BYTES;
}

/* Input has gone; `held` is what holds_back said before. */
static void let_go_on(vz_stream *stream, bool held)
{
    if (held && !holds_back(stream))
        vz_conn_wake(stream->conn);
}

static void release_fd(vz_stream *stream)
{
    bool held = holds_back(stream);
    vz_loop_unwatch(&stream->watch);
    vz_fd_clear(&stream->fd);
    g_byte_array_set_size(stream->input, 0);
    let_go_on(stream, held);
}

/* Takes it out of the connection and tells who opened it. The caller holds a reference. */
static void end(vz_stream *stream)
{
    GHashTable *streams = stream->conn->streams;
    void *serial = GUINT_TO_POINTER(stream->frame.serial);
    if (stream->state == ENDED)
        return;
    release_fd(stream);
    tell_end(stream);
    if (streams && g_hash_table_lookup(streams, serial) == stream)
        g_hash_table_remove(streams, serial);
}

static void end_with_error(vz_stream *stream, const GError *error)
{
    vz_frame frame = stream->frame;
    frame.type = VZ_PACKET_STREAM;
    vz_conn_send(stream->conn, vz_dispatch_error_packet(&frame, error));
    end(stream);
}

/* The answer to the client's finish or abort. */
static void confirm(vz_stream *stream)
{
    send_packet(stream, VZ_STATUS_OK, NULL, 0);
    end(stream);
}

/* The descriptor will give and take no more. */
static void fd_ended(vz_stream *stream)
{
    release_fd(stream);
    if (stream->state == FINISHING) {
        confirm(stream);
        return;
    }
    send_packet(stream, VZ_STATUS_CONTINUE, NULL, 0);
    stream->state = EOF_SENT;
}

/* false: the descriptor has ended. */
static bool pump_out(vz_stream *stream)
{
    uint8_t buffer[READ_BYTES];
    ssize_t got = read(stream->fd, buffer, sizeof(buffer));
    if (got > 0)
        send_packet(stream, VZ_STATUS_CONTINUE, buffer, (size_t)got);
    /* A pty whose other side is closed says EIO. */
    return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

static bool pump_in(vz_stream *stream)
{
    bool held = holds_back(stream);
    while (stream->input->len > 0) {
        ssize_t put = write(stream->fd, stream->input->data, stream->input->len);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return errno == EAGAIN;
        g_byte_array_remove_range(stream->input, 0, (guint)put);
        let_go_on(stream, held);
    }
    return true;
}

static void on_fd(GIOCondition ready, void *data);

/* Waits for what can be done now: to read only while the client takes it. No watch at all where
 * that is nothing, because a hang-up would be reported again and again. */
static void update_watch(vz_stream *stream)
{
    bool reads =
        stream->state == RUNNING && vz_conn_unsent(stream->conn) < VZ_STREAM_QUEUE_SOFT_BYTES;
    bool writes = stream->input->len > 0;
    GIOCondition events = (reads ? G_IO_IN : 0) | (writes ? G_IO_OUT : 0);
    if (!events || stream->fd < 0)
        vz_loop_unwatch(&stream->watch);
    else if (stream->watch)
        vz_loop_rewatch(stream->watch, events);
    else
        stream->watch = vz_loop_watch(stream->conn->loop, stream->fd, events, on_fd, stream);
}

static void on_fd(GIOCondition ready, void *data)
{
    g_autoptr(vz_stream) stream = stream_ref(data);
    bool open = pump_in(stream);
    if (open && stream->state == RUNNING && (ready & (G_IO_IN | G_IO_HUP | G_IO_ERR)))
        open = pump_out(stream);
    if (!open)
        fd_ended(stream);
    else if (stream->state == FINISHING && stream->input->len == 0)
        confirm(stream);
    if (stream->state != ENDED)
        update_watch(stream);
}

/* ---- begin ---- */

typedef struct {
    vz_stream *stream;
    GByteArray *reply; /* NULL: the call failed */
} beginning;

static void drop_beginning(void *data)
{
    beginning *b = data;
    g_clear_pointer(&b->reply, g_byte_array_unref);
    vz_stream_unref(b->stream);
    g_free(b);
}

/* A client that uses the serial of a running stream again has given that one up. */
static void add_to_conn(vz_stream *stream)
{
    vz_conn *conn = stream->conn;
    void *serial = GUINT_TO_POINTER(stream->frame.serial);
    if (!conn->streams)
        conn->streams = g_hash_table_new_full(NULL, NULL, NULL, unref_stream);
    vz_stream *old = g_hash_table_lookup(conn->streams, serial);
    if (old)
        end(old);
    g_hash_table_insert(conn->streams, serial, stream_ref(stream));
}

/* Known before its reply goes out, because the client may answer that at once. */
static void begin(void *data)
{
    beginning *b = data;
    vz_stream *stream = b->stream;
    if (!b->reply || !stream->conn->server) {
        end(stream);
        return;
    }
    add_to_conn(stream);
    stream->state = RUNNING;
    if (stream->request.tune)
        stream->request.tune(vz_packets_fd(stream->conn->packets));
    vz_conn_send(stream->conn, g_steal_pointer(&b->reply));
    if (stream->aborted)
        end_with_error(stream, stream->aborted);
    else
        update_watch(stream);
}

void vz_stream_begin(vz_stream *take_stream, GByteArray *take_reply)
{
    beginning *b = g_new0(beginning, 1);
    *b = (beginning){take_stream, take_reply};
    vz_loop_post(take_stream->conn->loop, begin, b, drop_beginning);
}

/* ---- abort ---- */

typedef struct {
    vz_stream *stream;
    GError *error;
} abortion;

static void drop_abortion(void *data)
{
    abortion *a = data;
    vz_stream_unref(a->stream);
    g_clear_error(&a->error);
    g_free(a);
}

static void abort_now(void *data)
{
    abortion *a = data;
    if (a->stream->state == OPENED && !a->stream->aborted)
        a->stream->aborted = g_steal_pointer(&a->error);
    else if (a->stream->state == RUNNING || a->stream->state == FINISHING)
        end_with_error(a->stream, a->error);
    else
        end(a->stream);
}

void vz_stream_abort(vz_stream *stream, GError *take_error)
{
    abortion *a = g_new0(abortion, 1);
    *a = (abortion){stream_ref(stream), take_error};
    vz_loop_post(stream->conn->loop, abort_now, a, drop_abortion);
}

/* ---- packets from the client ---- */

static void take_input(vz_stream *stream, const uint8_t *data, size_t bytes)
{
    if (stream->state != RUNNING || !bytes)
        return;
    if (stream->input->len + bytes > VZ_STREAM_INPUT_BYTES) {
        g_autoptr(GError) err = NULL;
        vz_fail(&err, VZ_ERR_RESOURCE_BUSY,
                "the other end of the stream has not taken %u bytes of input; try again slower",
                stream->input->len);
        end_with_error(stream, err);
        return;
    }
    g_byte_array_append(stream->input, data, (guint)bytes);
    if (pump_in(stream))
        update_watch(stream);
    else
        fd_ended(stream);
}

static void finish(vz_stream *stream)
{
    if (stream->state == RUNNING && stream->input->len > 0) {
        stream->state = FINISHING;
        update_watch(stream);
    } else {
        confirm(stream);
    }
}

void vz_stream_packet(vz_conn *conn, const vz_frame *frame, const uint8_t *payload, size_t bytes)
{
    vz_stream *known =
        conn->streams ? g_hash_table_lookup(conn->streams, GUINT_TO_POINTER(frame->serial)) : NULL;
    if (!known || known->frame.procedure != frame->procedure)
        return;
    g_autoptr(vz_stream) stream = stream_ref(known);
    if (frame->type == VZ_PACKET_STREAM_HOLE) {
        g_autoptr(GError) err = NULL;
        vz_fail(&err, VZ_ERR_RPC, "a hole came in a stream that was not opened as sparse");
        end_with_error(stream, err);
        return;
    }
    switch ((int)frame->status) {
    case VZ_STATUS_CONTINUE:
        take_input(stream, payload, bytes);
        break;
    case VZ_STATUS_OK:
        finish(stream);
        break;
    default: /* ERROR is the client's abort; what else comes is none of the protocol */
        confirm(stream);
        break;
    }
}

/* ---- the connection's side ---- */

bool vz_stream_holds_back(const vz_conn *conn)
{
    GHashTableIter iter;
    void *stream;
    if (!conn->streams)
        return false;
    g_hash_table_iter_init(&iter, conn->streams);
    while (g_hash_table_iter_next(&iter, NULL, &stream))
        if (holds_back(stream))
            return true;
    return false;
}

void vz_stream_resume_all(vz_conn *conn)
{
    if (!conn->streams)
        return;
    GHashTableIter iter;
    void *stream;
    g_hash_table_iter_init(&iter, conn->streams);
    while (g_hash_table_iter_next(&iter, NULL, &stream))
        update_watch(stream);
}

void vz_stream_end_all(vz_conn *conn)
{
    if (!conn->streams)
        return;
    GHashTable *streams = g_steal_pointer(&conn->streams);
    GHashTableIter iter;
    void *stream;
    g_hash_table_iter_init(&iter, streams);
    while (g_hash_table_iter_next(&iter, NULL, &stream))
        end(stream);
    g_hash_table_unref(streams);
}
