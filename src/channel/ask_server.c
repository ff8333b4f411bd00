/* ask_server.c - see ask.h: the answering side.
 *
 * A few threads take connections from a bounded queue. pthread's lock and not GLib's, since
 * ThreadSanitizer knows only the former. */
#include "channel/ask.h"

#include "channel/ask_frame.h"
#include "channel/dial.h"
#include "channel/exchange.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/units.h"

#include <fcntl.h>
#include <pthread.h>
#include <string.h>

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    int fd;
} visitor;

struct vz_ask_server {
    vz_ask_handlers handlers;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t changed;
    bool stopping;
    unsigned n_waiting, first;
    visitor waiting[VZ_ASK_QUEUE_MAX];
    unsigned n_threads;
    pthread_t threads[VZ_ASK_THREADS];
};

static vz_io limit(void)
{
    return (vz_io){NULL, vz_now_us() + VZ_ASK_IO_TIMEOUT_MS * VZ_USEC_PER_MSEC};
}

/* TLS and preface. true: the peer may ask. */
static bool admit(vz_tls *tls, const uint8_t job[VZ_UUID_BYTES], GError **err)
{
    vz_io io = limit();
    vz_preface preface = {.version = 0};
    vz_answer answer = VZ_ANSWER_ACCEPTED;
    if (!vz_exchange_read_preface(tls, &io, job, &preface, &answer, err))
        return false;
    if (answer == VZ_ANSWER_ACCEPTED && preface.purpose != VZ_PURPOSE_ASK)
        answer = VZ_ANSWER_NOT_EXPECTED;
    if (answer == VZ_ANSWER_ACCEPTED)
        return vz_exchange_accept(tls, &io, err);
    vz_exchange_refuse(tls, &io, answer);
    return vz_fail(err, VZ_ERR_OPERATION_FAILED, "refused: %s", vz_answer_text(answer));
}

static bool reply(vz_tls *tls, uint32_t code, GBytes *bytes, GError **err)
{
    vz_io io = limit();
    if (!vz_ask_frame_write(tls, &io, code, bytes, err) || !vz_tls_end(tls, &io, err))
        return false;
    vz_tls_linger(tls);
    return true;
}

static bool reply_error(vz_tls *tls, const GError *why, GError **err)
{
    char *text = vz_error_text(why);
    g_autoptr(GBytes) bytes = g_bytes_new_take(text, MIN(strlen(text), VZ_ASK_MAX_BYTES));
    return reply(tls, (uint32_t)vz_error_number(why), bytes, err);
}

static bool serve(const vz_ask_handlers *h, const visitor *v, GError **err)
{
    g_autoptr(vz_channel_keys) keys = NULL;
    g_autofree char *peer = NULL;
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    if (!h->find(v->job, &keys, &peer, h->user) ||
        (peer && !vz_fingerprint_parse(peer, fingerprint)))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "no such job here");
    g_autoptr(vz_tls) tls =
        vz_tls_new(v->fd, VZ_TLS_ACCEPTOR, keys, peer ? fingerprint : NULL, err);
    if (!tls || !admit(tls, v->job, err))
        return false;
    vz_io io = limit();
    uint32_t code = 0;
    g_autoptr(GBytes) question = NULL;
    g_autoptr(GBytes) answer = NULL;
    g_autoptr(GError) why = NULL;
    if (!vz_ask_frame_read(tls, &io, &code, &question, err))
        return false;
    vz_ask_visit visit = {.is_stranger = !peer};
    memcpy(visit.job, v->job, VZ_UUID_BYTES);
    vz_tls_peer_fingerprint(tls, visit.peer_fingerprint);
    vz_dial_peer_address(v->fd, visit.peer_address);
    if (!h->answer(&visit, question, &answer, h->user, &why))
        return reply_error(tls, why, err);
    if (g_bytes_get_size(answer) <= VZ_ASK_MAX_BYTES)
        return reply(tls, 0, answer, err);
    vz_fail(&why, VZ_ERR_INTERNAL_ERROR, "the answer of %zu bytes is too long",
            g_bytes_get_size(answer));
    return reply_error(tls, why, err);
}

static bool next_visitor(vz_ask_server *server, visitor *ret)
{
    pthread_mutex_lock(&server->lock);
    while (server->n_waiting == 0 && !server->stopping)
        pthread_cond_wait(&server->changed, &server->lock);
    bool found = !server->stopping;
    if (found) {
        *ret = server->waiting[server->first];
        server->first = (server->first + 1) % VZ_ASK_QUEUE_MAX;
        server->n_waiting--;
    }
    pthread_mutex_unlock(&server->lock);
    return found;
}

static void *run(void *data)
{
    vz_ask_server *server = data;
    visitor v;
    while (next_visitor(server, &v)) {
        char job[VZ_UUID_TEXT_BYTES];
        vz_uuid_format(v.job, job);
        g_autoptr(GError) err = NULL;
        if (!serve(&server->handlers, &v, &err))
            vz_debug(job, "a question was not answered: %s", err->message);
        vz_fd_clear(&v.fd);
    }
    return NULL;
}

vz_ask_server *vz_ask_server_new(const vz_ask_handlers *handlers)
{
    vz_ask_server *server = g_new0(vz_ask_server, 1);
    server->handlers = *handlers;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->changed, NULL);
    while (server->n_threads < VZ_ASK_THREADS &&
           pthread_create(&server->threads[server->n_threads], NULL, run, server) == 0)
        server->n_threads++;
    g_assert(server->n_threads > 0);
    return server;
}

void vz_ask_server_free(vz_ask_server *server)
{
    if (!server)
        return;
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_cond_broadcast(&server->changed);
    pthread_mutex_unlock(&server->lock);
    for (unsigned i = 0; i < server->n_threads; i++)
        pthread_join(server->threads[i], NULL);
    for (unsigned i = 0; i < server->n_waiting; i++)
        vz_fd_clear(&server->waiting[(server->first + i) % VZ_ASK_QUEUE_MAX].fd);
    pthread_cond_destroy(&server->changed);
    pthread_mutex_destroy(&server->lock);
    g_free(server);
}

void vz_ask_server_take(vz_ask_server *server, const uint8_t job[VZ_UUID_BYTES], int take_fd)
{
    vz_autofd fd = take_fd;
    vz_dial_set_options(fd);
    pthread_mutex_lock(&server->lock);
    if (server->n_waiting < VZ_ASK_QUEUE_MAX) {
        visitor *v = &server->waiting[(server->first + server->n_waiting++) % VZ_ASK_QUEUE_MAX];
        memcpy(v->job, job, VZ_UUID_BYTES);
        v->fd = vz_steal_fd(&fd);
        pthread_cond_signal(&server->changed);
    }
    pthread_mutex_unlock(&server->lock);
}
