/* keepalive.h - when to ping a silent peer, and when to give it up. Pure: time is an argument. */
#pragma once

#include "wire/frame.h"

typedef struct {
    int64_t interval_us; /* 0: never ping */
    unsigned count;
    int64_t heard_us;  /* the last packet of any kind */
    int64_t pinged_us; /* the last ping since then */
    unsigned missed;
} vz_keepalive;

typedef enum { VZ_KEEPALIVE_NOTHING, VZ_KEEPALIVE_SEND_PING, VZ_KEEPALIVE_DEAD } vz_keepalive_todo;

/* A peer is dead after interval * (count + 1) of silence. */
void vz_keepalive_init(vz_keepalive *keepalive, unsigned interval_s, unsigned count,
                       int64_t now_us);
/* Something came. */
void vz_keepalive_heard(vz_keepalive *keepalive, int64_t now_us);
/* To be called about every second. */
vz_keepalive_todo vz_keepalive_tick(vz_keepalive *keepalive, int64_t now_us);

/* The packet (VZ_KEEPALIVE_PING or _PONG), to be queued. Caller owns it. */
GByteArray *vz_keepalive_packet(int32_t procedure);
