/* pump.h - carries bytes between a local socket and TLS, both ways, in one thread.
 *
 * See carrier.h for how a stream ends. Runs on the channel's own thread. */
#pragma once

#include "channel/carrier/table.h"
#include "channel/tls.h"

typedef struct {
    vz_tls *tls;  /* after its handshake */
    int tcp_fd;   /* the socket of `tls` */
    int local_fd; /* all three are borrowed, and not closed here */
    int owner_fd; /* -1, or a pidfd: see vz_carrier_connect_request */
    vz_counters *counters;
} vz_pump_request;

/* Returns true when both directions have ended cleanly; false as soon as either broke. */
bool vz_pump_run(const vz_pump_request *request, GError **err);
