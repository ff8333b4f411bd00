/* ask.h - one question and one answer between two daemons, authenticated by a job's keys.
 *
 * Used for verdicts (commit.md), so it must work after a restart of either daemon, without a
 * carrier, and must never hang: every call has a deadline. Asking may be repeated as often as
 * wanted; the question is to be idempotent, since a lost answer looks like a lost question. */
#pragma once

#include "channel/dial.h"
#include "channel/keys.h"
#include "channel/preface.h"

#include "base/wait.h"

#define VZ_ASK_MAX_BYTES     ((size_t)64 * 1024) /* of a question, and of an answer */
#define VZ_ASK_THREADS       4
#define VZ_ASK_QUEUE_MAX     32   /* connections that wait for a thread; more are dropped */
#define VZ_ASK_IO_TIMEOUT_MS 5000 /* for the peer's part of one exchange; the handler is ours */

typedef struct {
    const char *host;
    uint16_t port;
    const char *bind_address; /* NULL, or the numeric local address to connect from */
    uint8_t job[VZ_UUID_BYTES];
    const vz_channel_keys *keys;
    const char *peer_fingerprint;
    vz_inbox *inbox; /* of the calling thread, served meanwhile; NULL: just blocks */
    int64_t deadline_us;
    vz_dial_way way;
    bool *ret_unknown; /* NULL, or set: the peer hung up before TLS, as one does that has no such
                          job. Nobody has proved who said so. */
} vz_ask_request;

/* Asks; *ret_answer is the caller's to unref. Errors: those of vz_carrier_connect; INVALID_ARG for
 * a question above VZ_ASK_MAX_BYTES; what the peer's handler failed with (its code and text). A
 * cancelled inbox ends it with OPERATION_ABORTED. */
bool vz_ask(const vz_ask_request *request, GBytes *question, GBytes **ret_answer, GError **err);

/* Who asks. */
typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    char peer_address[VZ_ADDRESS_TEXT_BYTES]; /* numeric; "" where it is not known */
    /* The key that it has proved to hold; of a stranger that is all that is known. */
    char peer_fingerprint[VZ_FINGERPRINT_TEXT_BYTES];
    bool is_stranger;
} vz_ask_visit;

typedef struct {
    /* The keys of a job of this host and the fingerprint of its peer; both become the caller's. No
     * fingerprint: the job waits for a peer that it does not know yet, and `answer` finds out who
     * it is. false: no such job, the connection is dropped. Called on a thread of the server. */
    bool (*find)(const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                 char **ret_peer_fingerprint, void *user);
    /* Answers. An error travels to the asker with code and text. Called on a thread of the server,
     * several at a time; a job's two questions may run at once. */
    bool (*answer)(const vz_ask_visit *visit, GBytes *question, GBytes **ret_answer, void *user,
                   GError **err);
    void *user;
} vz_ask_handlers;

typedef struct vz_ask_server vz_ask_server;

/* Starts VZ_ASK_THREADS threads. */
vz_ask_server *vz_ask_server_new(const vz_ask_handlers *handlers);

/* Drops what waits, lets what runs end (bounded by the timeouts and the handler), joins. */
void vz_ask_server_free(vz_ask_server *server);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_ask_server, vz_ask_server_free)

/* Serves a connection whose prologue was read. Never blocks; take_fd is always consumed. Any
 * thread; called by vz_port. */
void vz_ask_server_take(vz_ask_server *server, const uint8_t job[VZ_UUID_BYTES], int take_fd);
