/* channel_pair.h - two hosts on loopback for tests: a data port in a loop thread, and the carriers
 * of one job's two sides. Everything is real: TLS, processes, sockets. */
#pragma once

#include "channel/port.h"

typedef struct {
    GMainContext *context;
    GMainLoop *loop;
    GThread *thread;
    vz_ask_server *ask;
    vz_port *port;
} channel_host;

/* A host with a data port on 127.0.0.1; `handlers` may be NULL. */
channel_host *channel_host_new(const vz_ask_handlers *handlers);
void channel_host_free(channel_host *host);

/* One job: keys of both sides, a carrier `source` that connects, and `target` behind the host's
 * port.
 */
typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    channel_host *host;
    vz_inbox *inbox;
    vz_channel_keys *source_keys, *target_keys;
    char *source_dir, *target_dir;
    vz_carrier *source, *target;
    char *exit_reason; /* of the carrier that ended unasked */
} channel_pair;

channel_pair *channel_pair_new(void);
void channel_pair_free(channel_pair *pair);

/* One more carrier, with its own directory; `peer` is the fingerprint it pins. */
vz_carrier *channel_carrier_new(channel_pair *pair, const uint8_t job[VZ_UUID_BYTES],
                                const vz_channel_keys *keys, const char *peer, const char *dir);

/* Two connected local sockets with buffers that suit a pump: one for a carrier, one for the test.
 */
void channel_local_pair(int *ret_ours, int *ret_theirs);

/* Connects without asserting; the target must expect it. *ret_end is this side's local end. */
bool channel_pair_connect(channel_pair *pair, vz_carrier *from, vz_purpose purpose, uint16_t index,
                          int *ret_end, GError **err);
/* Expects at the target; returns the local end. */
int channel_pair_expect(channel_pair *pair, vz_purpose purpose, uint16_t index);
/* Both of them, asserted. */
void channel_pair_open(channel_pair *pair, uint16_t index, int *ret_source_end,
                       int *ret_target_end);

/* Serves the inbox until the channel of that carrier has ended, at most `ms`; returns its info. */
vz_channel_info channel_await_end(vz_carrier *carrier, uint16_t index, int ms);

/* A thread that writes `bytes` of a stream that `seed` determines, word by word; ends with
 * half-close where `shut` is set. And one that reads to the end of the stream and checks every word
 * of it. Both are joined with g_thread_join, which gives the number of bytes that were fine. */
GThread *channel_writer(int fd, uint64_t seed, uint64_t bytes, bool shut);
GThread *channel_reader(int fd, uint64_t seed);

/* A connected pair of TCP sockets on loopback. */
void channel_tcp_pair(int ret[2]);
/* A temporary directory, 0700. */
char *channel_temp_dir(void);
void channel_remove_dir(const char *path);
