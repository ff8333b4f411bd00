/* client_stream.c - see client_stream.h.
 *
 *     socket ─ read_local ─► packets ─────► connection     not read while much is queued
 *     socket ◄ write_local ─ down ◄─ take_packets ─ connection     likewise
 *
 * All but the start is on the thread, which waits without a deadline for either end: a dead link is
 * noticed by the connection, whose opener has set it up so. */
#include "rpc/client_stream.h"

#include "rpc/keepalive.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/wait.h"
#include "base/units.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

/* Whatever the peer sends in a stream, or instead of one. */
#define PACKET_BYTES_MAX (VZ_FRAME_HEADER_BYTES + VZ_FRAME_STREAM_MAX)

typedef struct {
    vz_packets *packets;
    int local;
    vz_frame frame;
    GByteArray *down;  /* has come, and the local end has not taken it */
    bool down_ended;   /* nothing more comes */
    bool down_told;    /* and the local end knows */
    int64_t finish_us; /* 0: the local end is open; else when to stop waiting for the peer */
    bool over;
    uint8_t buffer[VZ_FRAME_STREAM_MAX];
} pump;

static void pump_free(pump *p)
{
    vz_packets_free(p->packets);
    vz_fd_clear(&p->local);
    g_byte_array_unref(p->down);
    g_free(p);
}

static void send_packet(pump *p, vz_packet_status status, const void *data, size_t bytes)
{
    g_autoptr(GError) impossible = NULL;
    vz_frame frame = p->frame;
    frame.status = status;
    GByteArray *packet = g_byte_array_sized_new((guint)(VZ_FRAME_HEADER_BYTES + bytes));
    size_t payload = vz_frame_begin(packet, &frame);
    if (bytes > 0)
        g_byte_array_append(packet, data, (guint)bytes);
    bool ended = vz_frame_end(packet, payload, &impossible);
    g_assert(ended);
    vz_packets_queue(p->packets, packet);
}

/* ---- down ---- */

static void take_packet(pump *p, const uint8_t *data, size_t bytes)
{
    vz_frame frame;
    vz_frame_parse(data, &frame);
    if (frame.program == VZ_PROGRAM_KEEPALIVE && frame.procedure == VZ_KEEPALIVE_PING &&
        vz_packets_queued(p->packets) < VZ_CLIENT_STREAM_QUEUE_BYTES)
        vz_packets_queue(p->packets, vz_keepalive_packet(VZ_KEEPALIVE_PONG));
    if (frame.program != p->frame.program || frame.type != VZ_PACKET_STREAM ||
        frame.serial != p->frame.serial)
        return;
    size_t n = bytes - VZ_FRAME_HEADER_BYTES;
    if (frame.status != VZ_STATUS_CONTINUE) /* our end is confirmed, or the peer aborts */
        p->over = true;
    else if (n == 0)
        p->down_ended = true;
    else if (!p->down_ended)
        g_byte_array_append(p->down, data + VZ_FRAME_HEADER_BYTES, (guint)n);
}

static bool has_room(const pump *p)
{
    return p->down->len < VZ_CLIENT_STREAM_QUEUE_BYTES;
}

static bool take_packets(pump *p, GError **err)
{
    const uint8_t *data;
    size_t bytes;
    while (!p->over && has_room(p)) {
        if (!vz_packets_next(p->packets, PACKET_BYTES_MAX, &data, &bytes, err))
            return false;
        if (!data)
            return true;
        take_packet(p, data, bytes);
    }
    return true;
}

static void write_local(pump *p)
{
    while (p->down->len > 0) {
        ssize_t n = send(p->local, p->down->data, p->down->len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        /* Nobody is there any more to take it. */
        g_byte_array_remove_range(p->down, 0, n < 0 ? p->down->len : (guint)n);
    }
    if (p->down_ended && !p->down_told) {
        p->down_told = true;
        shutdown(p->local, SHUT_WR);
    }
}

/* ---- up ---- */

static bool reads_local(const pump *p)
{
    return p->finish_us == 0 && vz_packets_queued(p->packets) < VZ_CLIENT_STREAM_QUEUE_BYTES;
}

static void read_local(pump *p)
{
    ssize_t n = recv(p->local, p->buffer, sizeof(p->buffer), MSG_DONTWAIT);
    if (n > 0) {
        send_packet(p, VZ_STATUS_CONTINUE, p->buffer, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        send_packet(p, VZ_STATUS_OK, NULL, 0);
        p->finish_us = vz_now_us() + VZ_CLIENT_STREAM_FINISH_MS * VZ_USEC_PER_MSEC;
    }
}

/* ---- the thread ---- */

/* The local socket is left out while nothing is wanted of it: that its other end is closed would be
 * reported at once, again and again. */
static bool wait_for_work(pump *p, struct pollfd fds[2])
{
    short up = reads_local(p) ? POLLIN : 0;
    short down = p->down->len > 0 ? POLLOUT : 0;
    fds[0] = (struct pollfd){.fd = vz_packets_fd(p->packets),
                             .events = (short)((has_room(p) ? POLLIN : 0) |
                                               (vz_packets_queued(p->packets) ? POLLOUT : 0))};
    fds[1] = (struct pollfd){.fd = up || down ? p->local : -1, .events = (short)(up | down)};
    int timeout_ms = -1;
    if (p->finish_us != 0)
        timeout_ms = (int)MAX((p->finish_us - vz_now_us()) / VZ_USEC_PER_MSEC, 0);
    int n = poll(fds, 2, timeout_ms);
    return n > 0 || (n < 0 && errno == EINTR);
}

static bool turn(pump *p, GError **err)
{
    struct pollfd fds[2] = {{.fd = -1}, {.fd = -1}};
    if (!take_packets(p, err))
        return false;
    write_local(p);
    if (!vz_packets_flush(p->packets, err))
        return false;
    if (p->over)
        return true;
    if (!wait_for_work(p, fds))
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the end of the stream was not confirmed");
    const short gone = POLLHUP | POLLERR;
    bool reads = has_room(p);
    if ((fds[0].revents & (POLLIN | gone)) && reads && !vz_packets_fill(p->packets, err))
        return false;
    if ((fds[0].revents & gone) && !reads)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "the connection was cut");
    if ((fds[1].revents & (POLLIN | gone)) && reads_local(p))
        read_local(p);
    return true;
}

static void *run(void *data)
{
    pump *p = data;
    g_autoptr(GError) err = NULL;
    bool fine = true;
    while (fine && !p->over)
        fine = turn(p, &err);
    if (!fine)
        vz_warn("stream", "ended early: %s", err->message);
    pump_free(p);
    return NULL;
}

static bool start_thread(pump *p, GError **err)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int errnum = pthread_create(&thread, &attributes, run, p);
    pthread_attr_destroy(&attributes);
    return errnum == 0 || vz_fail_errno(err, errnum, "cannot start a thread for a stream");
}

int vz_client_stream_start(vz_packets *take_packets, const vz_frame *frame, GError **err)
{
    int pair[2] = {-1, -1};
    pump *p = g_new0(pump, 1);
    p->packets = take_packets;
    p->frame = *frame;
    p->down = g_byte_array_new();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        vz_fail_errno(err, errno, "cannot make a socket");
    p->local = pair[0];
    vz_autofd theirs = pair[1];
    if (theirs >= 0 && start_thread(p, err))
        return vz_steal_fd(&theirs);
    pump_free(p);
    return -1;
}
