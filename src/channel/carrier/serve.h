/* serve.h - the threads of a carrier: TLS, preface and answer, then the pump. */
#pragma once

#include "channel/carrier/table.h"

#include <pthread.h>

/* Connections that were given but have not named their channel yet. One more cuts the oldest off:
 * whoever has seen a job's id on the wire can open connections, but cannot finish a handshake. */
#define VZ_SERVE_FRESH_MAX       64
#define VZ_SERVE_REFUSALS_LOGGED 20

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    uint8_t peer_fingerprint[VZ_FINGERPRINT_BYTES];
    const vz_channel_keys *keys;
    vz_table *table;
    pthread_mutex_t lock; /* guards the rest */
    unsigned n_refusals;
    unsigned n_fresh;
    int fresh[VZ_SERVE_FRESH_MAX]; /* sockets whose peer has not named its channel; oldest first */
} vz_serve;

void vz_serve_init(vz_serve *serve);

/* Opens a channel over a connected socket. Takes the descriptor; a failure is the channel's state.
 */
void vz_serve_open(vz_serve *serve, vz_channel *channel, const vz_preface *preface, int take_tcp_fd,
                   int timeout_ms);

/* Serves a connection that came through the port. Takes the descriptor. */
void vz_serve_accept(vz_serve *serve, int take_tcp_fd);
