/* packets.c - see packets.h. The input buffer is given back when it is empty, so that an idle
 * connection costs none. */
#include "rpc/packets.h"

#include "base/fd.h"

#include <errno.h>
#include <glib-unix.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER_FIRST_BYTES ((size_t)4096)
/* One packet of the largest size; vz_packets_next never leaves more than a packet behind. */
#define BUFFER_MAX_BYTES (VZ_FRAME_LENGTH_BYTES + VZ_FRAME_MESSAGE_MAX)

struct vz_packets {
    int fd;
    uint8_t *in; /* [start, end) is what came and was not taken */
    size_t start, end, size;
    GQueue out;        /* of GByteArray */
    size_t out_offset; /* into its head */
    size_t out_bytes;
};

vz_packets *vz_packets_new(int take_fd)
{
    vz_packets *packets = g_new0(vz_packets, 1);
    packets->fd = take_fd;
    g_unix_set_fd_nonblocking(take_fd, TRUE, NULL);
    g_queue_init(&packets->out);
    return packets;
}

void vz_packets_free(vz_packets *packets)
{
    if (!packets)
        return;
    vz_fd_clear(&packets->fd);
    g_free(packets->in);
    for (GByteArray *bytes; (bytes = g_queue_pop_head(&packets->out));)
        g_byte_array_unref(bytes);
    g_free(packets);
}

int vz_packets_fd(const vz_packets *packets)
{
    return packets->fd;
}

/* Room for at least one byte: what is there moves to the front; a full buffer grows fourfold. */
static void make_room(vz_packets *packets)
{
    if (packets->start > 0) {
        memmove(packets->in, packets->in + packets->start, packets->end - packets->start);
        packets->end -= packets->start;
        packets->start = 0;
    }
    if (packets->end == packets->size) {
        size_t larger = packets->size ? packets->size * 4 : BUFFER_FIRST_BYTES;
        packets->size = MIN(larger, BUFFER_MAX_BYTES);
        packets->in = g_realloc(packets->in, packets->size);
    }
}

bool vz_packets_fill(vz_packets *packets, GError **err)
{
    make_room(packets);
    ssize_t got;
    do
        got = recv(packets->fd, packets->in + packets->end, packets->size - packets->end, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return true;
    if (got < 0)
        return vz_fail_errno(err, errno, "Cannot recv data");
    if (got == 0)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "End of file while reading data");
    packets->end += (size_t)got;
    return true;
}

static void give_back_empty_buffer(vz_packets *packets)
{
    if (packets->start < packets->end)
        return;
    g_clear_pointer(&packets->in, g_free);
    packets->start = packets->end = packets->size = 0;
}

bool vz_packets_next(vz_packets *packets, size_t max_message, const uint8_t **ret_data,
                     size_t *ret_bytes, GError **err)
{
    size_t have = packets->end - packets->start;
    size_t bytes = 0;
    *ret_data = NULL;
    if (have < VZ_FRAME_LENGTH_BYTES) {
        give_back_empty_buffer(packets);
        return true;
    }
    if (!vz_frame_size(packets->in + packets->start, max_message, &bytes, err))
        return false;
    if (have < bytes)
        return true;
    *ret_data = packets->in + packets->start;
    *ret_bytes = bytes;
    packets->start += bytes;
    return true;
}

void vz_packets_queue(vz_packets *packets, GByteArray *take_bytes)
{
    packets->out_bytes += take_bytes->len;
    g_queue_push_tail(&packets->out, take_bytes);
}

size_t vz_packets_queued(const vz_packets *packets)
{
    return packets->out_bytes;
}

bool vz_packets_flush(vz_packets *packets, GError **err)
{
    for (GByteArray *head; (head = g_queue_peek_head(&packets->out));) {
        ssize_t put = send(packets->fd, head->data + packets->out_offset,
                           head->len - packets->out_offset, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0 && errno == EAGAIN)
            return true;
        if (put < 0)
            return vz_fail_errno(err, errno, "Cannot write data");
        packets->out_offset += (size_t)put;
        packets->out_bytes -= (size_t)put;
        if (packets->out_offset == head->len) {
            g_byte_array_unref(g_queue_pop_head(&packets->out));
            packets->out_offset = 0;
        }
    }
    return true;
}
