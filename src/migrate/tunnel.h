/* tunnel.h - a way to the other host's data port that needs only its daemon's own port: TUNNELLED.
 *
 *     carrier, or who asks ◄─► stream of a libvirt connection ◄─► what serves the data port there
 *
 * Each dialling opens a connection of its own with nothing but one stream on it, so neither memory
 * nor questions hold up each other or anybody's calls. What is on it is what would go to the data
 * port: with the job's keys, encrypted. It ends with this daemon, which the other end takes for a
 * cut. */
#pragma once

#include "channel/dial.h"

typedef struct vz_migrate vz_migrate;

/* The way through the daemon at `uri` (borrowed); NULL: the data port itself. Dialled on any
 * thread; its errors are those of vz_client_open and vz_client_call. */
vz_dial_way vz_tunnel_way(const char *uri);

/* The far end, loop thread: what comes by this socket is for the data port; always consumed. */
void vz_tunnel_end(vz_migrate *service, int take_fd);
