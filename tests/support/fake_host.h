/* fake_host.h - a server with a few made-up domains behind it (one at a time in a program).
 *
 *   g1, g2, slow   listed, running; suspend and resume emit the lifecycle event
 *   slow           suspend is answered only when resume comes; paused meanwhile
 *   console        echoes in upper case; "quit" ends it, "flood" makes it say 16 MiB
 *                  with flags the one before is taken over
 *   data           its stream holds back; its far end is what fake_host_take_data gives
 *   version        takes 10 ms on the host's thread
 *   capabilities   4 MiB of text
 *   max vcpus      how many close hooks and ends of streams have run
 *
 * Every other row answers as one that does not exist. */
#pragma once

#include "rpc/server.h"

/* On the thread that will run the context. Listens nowhere yet. */
vz_server *fake_host_new(GMainContext *context);
void fake_host_free(vz_server *server);

/* Any thread: the far end of the last stream of data, the caller's. -1: there is none. */
int fake_host_take_data(void);
