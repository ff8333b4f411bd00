/* pump.c - see pump.h.
 *
 * Both directions take turns on non-blocking sockets; the thread sleeps when neither can go on:
 *
 *     local ─ recv ─► out ─ encrypt ─► TLS's buffer ─ flush ─► TCP
 *     local ◄ send ── in  ◄──────────── decrypt ◄───────────── TCP
 *
 * Each buffer is filled only when it is empty, so a slow end holds up the other by back-pressure
 * alone, and the one direction never waits for the other. */
#include "channel/carrier/pump.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define BUFFER_BYTES VZ_TLS_BATCH_BYTES
/* A process that dies closes its sockets some moments before its pidfd says so. */
#define OWNER_GRACE_MS 50

typedef struct {
    uint8_t *data;
    size_t start, end;
    bool ended; /* nothing more will be put in */
    bool done;  /* and that was passed on */
} buffer;

typedef struct {
    const vz_pump_request *r;
    buffer out, in;
    bool progress;
} pump;

static bool is_empty(const buffer *b)
{
    return b->start == b->end;
}

static void count(pump *p, uint64_t sent, uint64_t received)
{
    vz_counters *c = p->r->counters;
    uint64_t wire_sent, wire_received;
    vz_tls_counters(p->r->tls, &wire_sent, &wire_received);
    vz_counter_set(&c->sent, vz_counter_get(&c->sent) + sent);
    vz_counter_set(&c->received, vz_counter_get(&c->received) + received);
    vz_counter_set(&c->wire_sent, wire_sent);
    vz_counter_set(&c->wire_received, wire_received);
}

static bool fail_local(GError **err, int errnum, const char *verb)
{
    return vz_fail(err, VZ_ERR_OPERATION_FAILED, "cannot %s the local end: %s", verb,
                   g_strerror(errnum));
}

/* Whether the local end closed because its process died: a close that is the kernel's doing looks
 * like one that was meant. */
static bool owner_died(const vz_pump_request *r)
{
    struct pollfd local = {.fd = r->local_fd};
    struct pollfd owner = {.fd = r->owner_fd, .events = POLLIN};
    if (r->owner_fd < 0 || poll(&local, 1, 0) <= 0 || !(local.revents & POLLHUP))
        return false;
    return poll(&owner, 1, OWNER_GRACE_MS) > 0;
}

static bool read_local(pump *p, GError **err)
{
    buffer *b = &p->out;
    ssize_t n = recv(p->r->local_fd, b->data, BUFFER_BYTES, MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR || fail_local(err, errno, "read from");
    if (n == 0 && owner_died(p->r))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the process at the local end died");
    b->start = 0;
    b->end = (size_t)n;
    b->ended = n == 0;
    p->progress = true;
    return true;
}

static bool step_out(pump *p, GError **err)
{
    buffer *b = &p->out;
    if (is_empty(b) && !b->ended && !read_local(p, err))
        return false;
    if (!is_empty(b)) {
        ssize_t n = vz_tls_encrypt(p->r->tls, b->data + b->start, b->end - b->start, err);
        if (n < 0)
            return false;
        b->start += (size_t)n;
        p->progress = p->progress || n > 0;
        count(p, (uint64_t)n, 0);
    }
    if (b->ended && is_empty(b) && !b->done) {
        b->done = true;
        if (!vz_tls_encrypt_end(p->r->tls, err))
            return false;
    }
    size_t unsent = vz_tls_unsent(p->r->tls);
    if (unsent == 0)
        return true;
    bool fine = vz_tls_flush(p->r->tls, err);
    p->progress = p->progress || vz_tls_unsent(p->r->tls) < unsent;
    return fine;
}

/* Takes what has arrived, up to a full buffer. */
static bool read_tls(pump *p, GError **err)
{
    buffer *b = &p->in;
    b->start = b->end = 0;
    while (b->end < BUFFER_BYTES) {
        ssize_t n = vz_tls_decrypt(p->r->tls, b->data + b->end, BUFFER_BYTES - b->end, err);
        if (n == VZ_TLS_AGAIN)
            return true;
        if (n < 0)
            return false;
        p->progress = true;
        b->end += (size_t)n;
        b->ended = n == 0;
        if (b->ended)
            return true;
    }
    return true;
}

static bool step_in(pump *p, GError **err)
{
    buffer *b = &p->in;
    if (is_empty(b) && !b->ended && !read_tls(p, err))
        return false;
    if (!is_empty(b)) {
        ssize_t n = send(p->r->local_fd, b->data + b->start, b->end - b->start,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return fail_local(err, errno, "write to");
        n = MAX(n, 0);
        b->start += (size_t)n;
        p->progress = p->progress || n > 0;
        count(p, 0, (uint64_t)n);
    }
    if (b->ended && is_empty(b) && !b->done) {
        b->done = true;
        /* The local end may be gone already; it then has no use for the news. */
        shutdown(p->r->local_fd, SHUT_WR);
    }
    return true;
}

/* Sleeps until a step can go on. The local socket is left out while nothing is wanted of it: that
 * its other end is closed would be reported at once, again and again. */
static bool wait_for_work(pump *p, GError **err)
{
    bool unsent = vz_tls_unsent(p->r->tls) > 0;
    bool want_in = is_empty(&p->in) && !p->in.ended;
    bool read_local_end = is_empty(&p->out) && !p->out.ended;
    bool write_local_end = !is_empty(&p->in);
    struct pollfd fds[2] = {
        {.fd = p->r->tcp_fd, .events = (short)((want_in ? POLLIN : 0) | (unsent ? POLLOUT : 0))},
        {.fd = read_local_end || write_local_end ? p->r->local_fd : -1,
         .events = (short)((read_local_end ? POLLIN : 0) | (write_local_end ? POLLOUT : 0))},
    };
    if (poll(fds, 2, -1) < 0 && errno != EINTR)
        return vz_fail_errno(err, errno, "cannot wait for sockets");
    /* With nothing wanted of TCP no step would come across its error. */
    if (fds[0].events == 0 && (fds[0].revents & (POLLERR | POLLHUP)))
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "the peer cut the connection before all had been delivered");
    return true;
}

bool vz_pump_run(const vz_pump_request *request, GError **err)
{
    g_autofree uint8_t *out = g_malloc(BUFFER_BYTES);
    g_autofree uint8_t *in = g_malloc(BUFFER_BYTES);
    pump p = {.r = request, .out = {.data = out}, .in = {.data = in}};
    for (;;) {
        p.progress = false;
        bool fine = step_out(&p, err) && step_in(&p, err);
        count(&p, 0, 0);
        if (!fine)
            return false;
        if (p.out.done && p.in.done && vz_tls_unsent(request->tls) == 0)
            return true;
        if (!p.progress && !wait_for_work(&p, err))
            return false;
    }
}
