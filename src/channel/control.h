/* control.h - what a daemon and its carriers say to each other, over a SOCK_SEQPACKET unix socket.
 *
 * One message, one struct, one datagram; the same struct both ways. Both ends are on one host, but
 * the daemon may be a later version than the carrier that it adopts: so the layout only grows at
 * its end, and a receiver takes messages that are shorter than its own struct (the rest is zero).
 *
 *     daemon → carrier   OPEN, EXPECT, GIVE, ABORT, STOP
 *     carrier → daemon   READY or BROKEN, then CHANNEL for each channel, SYNCED, and CHANNEL
 * whenever one changed
 *
 * A carrier serves one daemon at a time; the latest to connect is the one. Any thread. */
#pragma once

#include "channel/carrier.h"

#include "base/fd.h"

#define VZ_CONTROL_VERSION 1

typedef enum {
    VZ_CONTROL_READY = 1, /* job, pid, start_time: the filter is on, it serves */
    VZ_CONTROL_BROKEN,    /* reason: it could not start, and exits */
    VZ_CONTROL_CHANNEL,   /* one channel, whole */
    VZ_CONTROL_SYNCED,    /* every channel has been told since READY */
    VZ_CONTROL_OPEN,      /* connect the TLS side: fds are TCP socket, local socket[, owner] */
    VZ_CONTROL_EXPECT,    /* fds are local socket[, owner] */
    VZ_CONTROL_GIVE,      /* a connection whose prologue was read: fds are TCP socket */
    VZ_CONTROL_ABORT,
    VZ_CONTROL_STOP,
} vz_control_type;

typedef struct {
    uint16_t version;
    uint16_t type;
    uint16_t purpose;
    uint16_t index;
    uint32_t state;      /* vz_channel_state */
    int32_t reason_code; /* vz_error_code */
    int32_t timeout_ms;  /* OPEN: for handshake and preface */
    int32_t pid;         /* READY */
    uint64_t start_time; /* READY: as vz_process_start_time */
    uint64_t sent_bytes;
    uint64_t received_bytes;
    uint64_t wire_sent_bytes;
    uint64_t wire_received_bytes;
    int64_t connect_us;
    uint8_t job[VZ_UUID_BYTES];
    char cipher[VZ_CHANNEL_CIPHER_BYTES];
    char reason[VZ_CHANNEL_REASON_BYTES];
} vz_control_message;

/* The descriptors that a carrier is started with. */
#define VZ_CARRIER_FD_CONTROL  3
#define VZ_CARRIER_FD_LISTENER 4
#define VZ_CARRIER_FD_KEY      5 /* a memfd with the PEM of the private key */

/* Sends one message; fills in the version. Never blocks. SYSTEM_ERROR; false with *err left NULL
 * where the socket's buffer is full. */
bool vz_control_send(int fd, const vz_control_message *message, const int *fds, size_t n_fds,
                     GError **err);

typedef enum { VZ_CONTROL_GOT, VZ_CONTROL_NOTHING, VZ_CONTROL_ENDED } vz_control_result;

/* Receives one message, without blocking, with the descriptors (the caller's). ENDED: the other
 * side is gone, or sent what is no message. Texts are NUL-terminated in any case. */
vz_control_result vz_control_receive(int fd, vz_control_message *ret_message,
                                     int ret_fds[VZ_FD_PASS_MAX], size_t *ret_n_fds);

/* The control socket of a carrier in its rundir: listening (mode 0600), connected (non-blocking),
 * removed. */
int vz_control_listen(const char *rundir, GError **err);
int vz_control_connect(const char *rundir, GError **err);
void vz_control_remove(const char *rundir);
/* A connected pair of the same kind. */
bool vz_control_pair(int ret_fds[2], GError **err);

void vz_control_from_info(const vz_channel_info *info, vz_control_message *ret_message);
void vz_control_to_info(const vz_control_message *message, vz_channel_info *ret_info);
