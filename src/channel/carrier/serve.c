/* serve.c - see serve.h. One detached thread per connection, with a copy of what it needs. */
#include "channel/carrier/serve.h"

#include "channel/carrier/pump.h"
#include "channel/dial.h"
#include "channel/exchange.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/units.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>

/* Deep enough for GnuTLS's handshake with room to spare; hundreds of threads stay cheap. */
#define STACK_BYTES   ((size_t)512 * 1024)
#define LOCAL_POLL_MS 1

typedef struct {
    vz_serve *serve;
    vz_channel *channel; /* NULL: the peer's preface will name it */
    vz_preface preface;
    int tcp_fd;
    int timeout_ms;
} work;

void vz_serve_init(vz_serve *serve)
{
    pthread_mutex_init(&serve->lock, NULL);
}

static void drop_fresh(vz_serve *serve, unsigned i)
{
    serve->n_fresh--;
    memmove(&serve->fresh[i], &serve->fresh[i + 1], (serve->n_fresh - i) * sizeof(int));
}

static void add_fresh(vz_serve *serve, int fd)
{
    pthread_mutex_lock(&serve->lock);
    if (serve->n_fresh == VZ_SERVE_FRESH_MAX) {
        shutdown(serve->fresh[0], SHUT_RDWR); /* its thread wakes up and closes it */
        drop_fresh(serve, 0);
    }
    serve->fresh[serve->n_fresh++] = fd;
    pthread_mutex_unlock(&serve->lock);
}

/* Before the socket is closed or belongs to a channel. */
static void remove_fresh(vz_serve *serve, int fd)
{
    pthread_mutex_lock(&serve->lock);
    unsigned i = 0;
    while (i < serve->n_fresh && serve->fresh[i] != fd)
        i++;
    if (i < serve->n_fresh)
        drop_fresh(serve, i);
    pthread_mutex_unlock(&serve->lock);
}

/* Strangers decide how often this happens, so the log has an end. */
static void log_refusal(vz_serve *serve, const GError *why)
{
    pthread_mutex_lock(&serve->lock);
    bool shown = serve->n_refusals++ < VZ_SERVE_REFUSALS_LOGGED;
    pthread_mutex_unlock(&serve->lock);
    if (shown)
        vz_warn("carrier", "a connection was turned away: %s", why->message);
}

static bool start_thread(void *(*run)(void *), work *w)
{
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
#ifdef VZ_CARRIER_SECCOMP
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
#endif
    bool started = pthread_create(&thread, &attributes, run, w) == 0;
    pthread_attr_destroy(&attributes);
    return started;
}

/* The daemon may connect the local end only now that the channel is open. An abort shuts the TCP
 * socket down, which ends the poll. */
static bool await_local(const work *w, GError **err)
{
    int local_fd = vz_channel_local_fd(w->channel);
    int64_t deadline_us = vz_now_us() + w->timeout_ms * VZ_USEC_PER_MSEC;
    struct pollfd tcp = {.fd = w->tcp_fd};
    struct sockaddr_storage peer;
    socklen_t bytes = sizeof(peer);
    while (getpeername(local_fd, (struct sockaddr *)&peer, &bytes) < 0) {
        if (poll(&tcp, 1, LOCAL_POLL_MS) > 0)
            return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                           "the connection ended before the guest's end was there");
        if (vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the guest's end did not come");
        bytes = sizeof(peer);
    }
    return true;
}

static bool pump_channel(const work *w, vz_tls *tls, GError **err)
{
    if (!await_local(w, err))
        return false;
    vz_pump_request request = {
        .tls = tls,
        .tcp_fd = w->tcp_fd,
        .local_fd = vz_channel_local_fd(w->channel),
        .owner_fd = vz_channel_owner_fd(w->channel),
        .counters = vz_channel_counters(w->channel),
    };
    return vz_pump_run(&request, err);
}

static bool open_and_pump(const work *w, GError **err)
{
    int64_t began_us = vz_now_us();
    vz_io io = {NULL, began_us + w->timeout_ms * VZ_USEC_PER_MSEC};
    g_autoptr(vz_tls) tls =
        vz_tls_new(w->tcp_fd, VZ_TLS_OPENER, w->serve->keys, w->serve->peer_fingerprint, err);
    if (!tls || !vz_exchange_open(tls, &io, &w->preface, err))
        return false;
    g_autofree char *cipher = vz_tls_describe(tls);
    vz_table_open(w->serve->table, w->channel, cipher, vz_now_us() - began_us);
    return pump_channel(w, tls, err);
}

static void *opener(void *data)
{
    g_autofree work *w = data;
    g_autoptr(GError) err = NULL;
    if (vz_table_attach(w->serve->table, w->channel, w->tcp_fd))
        open_and_pump(w, &err);
    else
        vz_fail(&err, VZ_ERR_OPERATION_ABORTED, "aborted");
    vz_table_end(w->serve->table, w->channel, err);
    return NULL;
}

/* TLS and preface; claims the channel that the peer names. On failure the socket is still ours. */
static vz_tls *accept_preface(work *w, const vz_io *io, GError **err)
{
    g_autoptr(vz_tls) tls =
        vz_tls_new(w->tcp_fd, VZ_TLS_ACCEPTOR, w->serve->keys, w->serve->peer_fingerprint, err);
    if (!tls)
        return NULL;
    vz_answer answer = VZ_ANSWER_ACCEPTED;
    if (!vz_exchange_read_preface(tls, io, w->serve->job, &w->preface, &answer, err))
        return NULL;
    remove_fresh(w->serve, w->tcp_fd);
    if (answer == VZ_ANSWER_ACCEPTED)
        w->channel = vz_table_claim(w->serve->table, w->preface.purpose, w->preface.index, &answer);
    if (!w->channel) {
        vz_exchange_refuse(tls, io, answer);
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "refused channel %s %u: %s",
                vz_purpose_name(w->preface.purpose), w->preface.index, vz_answer_text(answer));
        return NULL;
    }
    return g_steal_pointer(&tls);
}

static bool answer_and_pump(const work *w, vz_tls *tls, const vz_io *io, int64_t began_us,
                            GError **err)
{
    if (!vz_exchange_accept(tls, io, err))
        return false;
    g_autofree char *cipher = vz_tls_describe(tls);
    vz_table_open(w->serve->table, w->channel, cipher, vz_now_us() - began_us);
    return pump_channel(w, tls, err);
}

static void *acceptor(void *data)
{
    g_autofree work *w = data;
    g_autoptr(GError) err = NULL;
    int64_t began_us = vz_now_us();
    vz_io io = {NULL, began_us + w->timeout_ms * VZ_USEC_PER_MSEC};
    vz_dial_set_options(w->tcp_fd);
    g_autoptr(vz_tls) tls = accept_preface(w, &io, &err);
    remove_fresh(w->serve, w->tcp_fd);
    if (!tls) {
        vz_fd_clear(&w->tcp_fd);
        log_refusal(w->serve, err);
        return NULL;
    }
    if (vz_table_attach(w->serve->table, w->channel, w->tcp_fd))
        answer_and_pump(w, tls, &io, began_us, &err);
    else
        vz_fail(&err, VZ_ERR_OPERATION_ABORTED, "aborted");
    vz_table_end(w->serve->table, w->channel, err);
    return NULL;
}

void vz_serve_open(vz_serve *serve, vz_channel *channel, const vz_preface *preface, int take_tcp_fd,
                   int timeout_ms)
{
    work *w = g_new0(work, 1);
    *w = (work){serve, channel, *preface, take_tcp_fd, timeout_ms};
    if (start_thread(opener, w))
        return;
    g_autoptr(GError) err = NULL;
    vz_fail(&err, VZ_ERR_SYSTEM_ERROR, "cannot start a thread for the channel");
    vz_table_attach(serve->table, channel, take_tcp_fd);
    vz_table_end(serve->table, channel, err);
    g_free(w);
}

void vz_serve_accept(vz_serve *serve, int take_tcp_fd)
{
    work *w = g_new0(work, 1);
    *w = (work){
        .serve = serve, .tcp_fd = take_tcp_fd, .timeout_ms = VZ_CHANNEL_HANDSHAKE_TIMEOUT_MS};
    add_fresh(serve, take_tcp_fd);
    if (start_thread(acceptor, w))
        return;
    remove_fresh(serve, take_tcp_fd);
    vz_fd_clear(&w->tcp_fd);
    g_free(w);
}
