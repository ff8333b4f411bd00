/* carrier.h - the daemon's side of a carrier: the process that pumps a job's channels.
 *
 * One carrier per job and side (libexec/virtvz/virtvz-carrier): unprivileged, behind a seccomp
 * filter, with the job's key. It gets every socket from the daemon, opens none itself, and goes on
 * when the daemon restarts; the new daemon adopts it by its control socket in the job's rundir.
 *
 *     QEMU ◄─local_fd─► carrier ◄── TLS over TCP ──► carrier ◄─local_fd─► QEMU
 *                          ▲ control (seqpacket)
 *                       vz_carrier
 *
 * The carrier replicates the state of its channels to the daemon: what vz_carrier_info says is
 * never older than VZ_CARRIER_REPORT_MS, and final states are exact. Nothing is lost by a restart.
 *
 * How a stream ends. Half-close is carried over in both directions: where the local end shuts down
 * its sending side, the far local end sees the end of the stream and may go on sending. A stream
 * that was cut (a carrier, link or host died, or vz_carrier_abort) never looks like that: the
 * channel is FAILED with a reason at once, and the local end is reset: ECONNRESET where it is a TCP
 * socket; a unix socket has no reset, there both directions end at once (POLLHUP, EPIPE on
 * writing), whereas a clean end closes one direction only.
 *
 * All functions: the thread that owns the inbox, unless said. */
#pragma once

#include "channel/dial.h"
#include "channel/keys.h"
#include "channel/preface.h"

#include "base/wait.h"

#include <sys/types.h>

#define VZ_CARRIER_CHANNELS_MAX 320 /* 255 multifd streams, main, preempt, and disks */
#define VZ_CARRIER_REPORT_MS    200
#define VZ_CARRIER_SOCKET_NAME  "carrier.sock" /* in the job's rundir */
/* Without a daemon and without a living channel a carrier exits after this long: a restart of the
 * daemon is over by then, and a finished job needs it no more. */
#define VZ_CARRIER_ORPHAN_MS 60000
/* From the socket to the answer to the preface. Three round trips; a host that needs longer is not
 * one to move a guest to. */
#define VZ_CHANNEL_HANDSHAKE_TIMEOUT_MS 10000
#define VZ_CHANNEL_REASON_BYTES         256
#define VZ_CHANNEL_CIPHER_BYTES         48

typedef struct vz_carrier vz_carrier;

typedef enum {
    VZ_CHANNEL_EXPECTED,   /* waits for the peer to connect */
    VZ_CHANNEL_CONNECTING, /* TLS and preface are under way */
    VZ_CHANNEL_OPEN,       /* bytes flow */
    VZ_CHANNEL_FINISHED,   /* both directions ended cleanly; all that came was delivered */
    VZ_CHANNEL_FAILED,     /* see reason; never used again */
} vz_channel_state;

typedef struct {
    vz_purpose purpose;
    uint16_t index;
    vz_channel_state state;
    uint64_t sent_bytes;     /* of the local end, given to TLS */
    uint64_t received_bytes; /* delivered to the local end */
    uint64_t wire_sent_bytes;
    uint64_t wire_received_bytes;         /* TLS records, without TCP's own headers */
    int64_t connect_us;                   /* from the socket to the accepted preface */
    char cipher[VZ_CHANNEL_CIPHER_BYTES]; /* as GnuTLS describes it; "" before OPEN */
    char reason[VZ_CHANNEL_REASON_BYTES]; /* FAILED: lower case, what and why; else "" */
    int reason_code;                      /* FAILED: a vz_error_code; else 0 */
} vz_channel_info;

typedef struct {
    /* A channel changed its state (not for mere progress). May call any function of this header but
     * vz_carrier_stop and vz_carrier_release. May be NULL. */
    void (*on_channel)(vz_carrier *carrier, const vz_channel_info *info, void *user);
    /* The process ended without having been told to; its living channels were reported FAILED
     * before. The vz_carrier is still to be stopped, but not from here. May be NULL. */
    void (*on_exit)(vz_carrier *carrier, const char *reason, void *user);
    void *user;
} vz_carrier_hooks;

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    const vz_channel_keys *keys;
    const char *peer_fingerprint; /* hex; from the peer's cookie */
    const char *rundir;           /* the job's own directory, exists, 0700 */
    const char *program;          /* NULL: the installed one */
    bool change_identity;         /* to uid and gid; false in tests that do not run as root */
    uid_t uid;
    gid_t gid;
    int64_t orphan_ms; /* 0: VZ_CARRIER_ORPHAN_MS */
    vz_inbox *inbox;
    vz_carrier_hooks hooks;
} vz_carrier_start_request;

/* Starts the process and waits until its filter is on (at most some seconds). NULL with an error
 * that names the program and carries its last words. */
vz_carrier *vz_carrier_start(const vz_carrier_start_request *request, GError **err);

/* Takes over the carrier that serves `rundir`, after a restart of the daemon; every channel's state
 * is known when this returns (hooks are not called for it). NULL: SYSTEM_ERROR, nobody listens
 * there (it has ended); OPERATION_TIMEOUT, it does not answer. */
vz_carrier *vz_carrier_adopt(const char *rundir, vz_inbox *inbox, const vz_carrier_hooks *hooks,
                             GError **err);

/* Ends the process, with every channel that is left (the peer sees those cut), waits until it is
 * dead (kills it where it does not obey), removes its socket, frees. NULL is fine. */
void vz_carrier_stop(vz_carrier *carrier);

/* Forgets the carrier without ending it: for the daemon's own shutdown. */
void vz_carrier_release(vz_carrier *carrier);

typedef struct {
    const char *host;
    uint16_t port;
    const char *bind_address; /* NULL, or the numeric local address to connect from */
    vz_purpose purpose;       /* not ASK */
    uint16_t index;
    int take_local_fd; /* a stream socket; always consumed, also on failure */
    int owner_pidfd; /* -1, or (borrowed) the process at the other end of a unix local socket: when
                        it is found dead as its end closes, the channel fails instead of ending
                        cleanly */
    int64_t deadline_us;
    vz_dial_way way;
} vz_carrier_connect_request;

/* Connects to the data port of the other host and returns when the peer has accepted the channel;
 * bytes flow from then on. Serves the inbox meanwhile. Errors: those of vz_dial; AUTH_FAILED (the
 * peer's key is not the pinned one, or it refused ours); OPERATION_FAILED (refused, with the peer's
 * reason; or closed before TLS, which is what an unknown job gets); OPERATION_TIMEOUT;
 * OPERATION_ABORTED (the inbox was cancelled). */
bool vz_carrier_connect(vz_carrier *carrier, const vz_carrier_connect_request *request,
                        GError **err);

/* Accepts (purpose, index) once, and pumps it to and from the local socket. Bytes that the local
 * end writes before are sent when the channel opens. A local socket that is not connected yet is to
 * be connected, through a copy of it, when the channel is OPEN: within the handshake's timeout.
 * take_local_fd is always consumed; owner_pidfd as above. OPERATION_INVALID where the pair was used
 * before. */
bool vz_carrier_expect(vz_carrier *carrier, vz_purpose purpose, uint16_t index, int take_local_fd,
                       int owner_pidfd, GError **err);

/* Cuts a channel; the peer sees it FAILED, not ended. An expected one is withdrawn. Unknown or
 * ended ones: nothing happens. */
void vz_carrier_abort(vz_carrier *carrier, vz_purpose purpose, uint16_t index);

/* Serves the inbox until the channel is in `state` or a later one. false: it FAILED (its reason and
 * code), OPERATION_TIMEOUT, OPERATION_ABORTED (cancelled), OPERATION_INVALID (no such channel). */
bool vz_carrier_wait(vz_carrier *carrier, vz_purpose purpose, uint16_t index,
                     vz_channel_state state, int64_t deadline_us, GError **err);

/* What is known of a channel. false: no such channel. */
bool vz_carrier_info(const vz_carrier *carrier, vz_purpose purpose, uint16_t index,
                     vz_channel_info *ret_info);

/* All channels, in the order in which they were made; valid until the inbox is served again. */
const vz_channel_info *vz_carrier_channels(const vz_carrier *carrier, size_t *ret_n);

/* The sum of the byte counters of all channels, or of those of one purpose (0: all); the other
 * fields of *ret_sum are zero. */
void vz_carrier_sum(const vz_carrier *carrier, unsigned purpose, vz_channel_info *ret_sum);

/* The job; the process id (for logs and tests). */
const uint8_t *vz_carrier_job(const vz_carrier *carrier);
pid_t vz_carrier_pid(const vz_carrier *carrier);

/* A new descriptor of the control connection, through which vz_port gives sockets away. -1 with err
 * where the process is gone. For vz_port. */
int vz_carrier_control_dup(const vz_carrier *carrier, GError **err);
