/* table.h - the channels of a carrier and their states, shared by its threads.
 *
 * The main thread adds, aborts and reports; each channel's own thread moves its state on. The
 * table's one lock guards everything but the counters, which are atomic. A channel lives as long as
 * the process, so a pointer to one is always good. */
#pragma once

#include "channel/carrier.h"

typedef struct vz_table vz_table;
typedef struct vz_channel vz_channel;

/* Written by the channel's thread, read by any; with vz_counter_set and vz_counter_get. */
typedef struct {
    uint64_t sent, received, wire_sent, wire_received;
} vz_counters;

static inline void vz_counter_set(uint64_t *counter, uint64_t value)
{
    __atomic_store_n(counter, value, __ATOMIC_RELAXED);
}

static inline uint64_t vz_counter_get(const uint64_t *counter)
{
    return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* wake_fd is an eventfd (borrowed), written to whenever a channel has something to report. */
vz_table *vz_table_new(int wake_fd);

/* A new channel, EXPECTED or CONNECTING. The descriptors become the table's, also on failure;
 * owner_fd may be -1. A channel that failed before it was ever open may be made anew. NULL with
 * OPERATION_INVALID (used before) or OPERATION_FAILED (too many). */
vz_channel *vz_table_add(vz_table *table, vz_purpose purpose, uint16_t index,
                         vz_channel_state state, const int take_fds[2], GError **err);

/* Turns an EXPECTED channel into a CONNECTING one: once. NULL: *ret_answer says why. */
vz_channel *vz_table_claim(vz_table *table, vz_purpose purpose, uint16_t index,
                           vz_answer *ret_answer);

/* The channel's thread. From vz_table_attach on an abort shuts the TCP socket down to wake the
 * thread; vz_table_end closes all of the channel's descriptors, resetting them where `why` is not
 * NULL. false from attach: aborted meanwhile. */
bool vz_table_attach(vz_table *table, vz_channel *channel, int take_tcp_fd);
void vz_table_open(vz_table *table, vz_channel *channel, const char *cipher, int64_t connect_us);
void vz_table_end(vz_table *table, vz_channel *channel, const GError *why);

/* Main thread. */
void vz_table_abort(vz_table *table, vz_purpose purpose, uint16_t index);
/* Whether a channel is CONNECTING or OPEN. */
bool vz_table_living(vz_table *table);
/* Takes one channel that has something to report. */
bool vz_table_take_news(vz_table *table, vz_channel_info *ret_info);
/* Makes every channel, or each whose counters moved since it was last taken, have news. */
void vz_table_mark(vz_table *table, bool all);

vz_counters *vz_channel_counters(vz_channel *channel);
int vz_channel_local_fd(const vz_channel *channel);
int vz_channel_owner_fd(const vz_channel *channel);
