/* port.h - the one data port of a host.
 *
 * Listens in the loop thread (GLib main context), reads the clear prologue of each connection
 * (VZ_PROLOGUE_BYTES, bounded in number and time), and hands the socket on: to the carrier of the
 * job, or to the ask server. It reads nothing beyond the prologue and answers nothing: a connection
 * for an unknown job is closed without a word (logged at debug). */
#pragma once

#include "channel/ask.h"
#include "channel/carrier.h"
#include "channel/preface.h"

#include <glib.h>

/* Connections whose prologue has not come yet. One more drops the oldest, so that a peer that opens
 * many and says nothing cannot keep others out. */
#define VZ_PORT_HALF_OPEN_MAX       64
#define VZ_PORT_PROLOGUE_TIMEOUT_MS 5000

typedef struct vz_port vz_port;

typedef struct {
    GMainContext *context; /* NULL: the default one */
    const char *address;   /* NULL: all addresses, IPv6 and IPv4; else a numeric one */
    uint16_t port;         /* 0: one that is free (tests) */
    vz_ask_server *ask;    /* borrowed, must outlive the port; NULL: no questions are answered */
} vz_port_options;

/* Loop thread. NULL with SYSTEM_ERROR naming address and port. */
vz_port *vz_port_new(const vz_port_options *options, GError **err);

/* Loop thread. Closes the listener and every half-open connection. */
void vz_port_free(vz_port *port);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_port, vz_port_free)

/* Loop thread. A connection that came by another way than the listener; always consumed. */
void vz_port_take(vz_port *port, int take_fd);

/* The port number it listens on. Any thread. */
uint16_t vz_port_number(const vz_port *port);

/* From now on connections for the carrier's job go to it. Replaces an earlier carrier of the job
 * (after vz_carrier_adopt). Any thread that may use the carrier; the port keeps no pointer to it,
 * so it may be stopped at any time. SYSTEM_ERROR where the carrier's process is gone. */
bool vz_port_admit(vz_port *port, vz_carrier *carrier, GError **err);

/* Connections for this job's carrier are dropped from now on. Any thread; unknown jobs are fine. */
void vz_port_dismiss(vz_port *port, const uint8_t job[VZ_UUID_BYTES]);
