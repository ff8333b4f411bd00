/* dial.h - a TCP connection to another host, with a deadline and with errors that say what to do.
 *
 * Numeric addresses are used as they are; a name is resolved by a helper process, so that a hung
 * resolver can hold up the caller only until the deadline. A peer whose port cannot be reached may
 * be reached by another way, which its caller names. */
#pragma once

#include "base/error.h"
#include "base/wait.h"

#include <stdint.h>

/* A link that is cut must be noticed, or a guest waits for ever for a post-copy page, but one that
 * comes back after 3 s must be survived: after 3 s of silence the kernel's next retransmission
 * comes at about 6.2 s (0.2 s doubled five times), so 10 s leaves room for it and for one loss
 * more. */
#define VZ_CHANNEL_USER_TIMEOUT_MS 10000
/* The same for a connection that is silent: first probe after 4 s, then every 2 s; the user timeout
 * above decides when unanswered ones end it. */
#define VZ_CHANNEL_KEEPALIVE_IDLE_S     4
#define VZ_CHANNEL_KEEPALIVE_INTERVAL_S 2
#define VZ_CHANNEL_KEEPALIVE_COUNT      3

#define VZ_ADDRESS_TEXT_BYTES 64 /* a numeric address with its scope */

typedef struct vz_dial_request vz_dial_request;

/* Another way to the peer's port than a TCP connection to it. All zero: there is none. */
typedef struct {
    /* As vz_dial; what it returns is a stream socket, of whatever family. */
    int (*dial)(const vz_dial_request *request, GError **err);
    const char *uri; /* for dial */
} vz_dial_way;

struct vz_dial_request {
    const char *host; /* a name, or a numeric IPv4 or IPv6 address (scope allowed) */
    uint16_t port;
    const char *bind_address; /* NULL, or the numeric local address to connect from */
    vz_inbox *inbox;          /* of the calling thread: what it serves goes on; NULL: just blocks */
    int64_t deadline_us;
    vz_dial_way way;
};

/* Connects; tries each address of a name in turn. Returns a non-blocking socket with the options
 * above set, or -1 with: SYSTEM_ERROR (refused, unreachable, no such name), OPERATION_TIMEOUT,
 * OPERATION_ABORTED (the inbox was cancelled); the text names host, address and port. */
int vz_dial(const vz_dial_request *request, GError **err);

/* TCP_NODELAY, keepalive and TCP_USER_TIMEOUT on a connected TCP socket; errors are ignored, the
 * connection works without. */
void vz_dial_set_options(int fd);

/* The numeric address of a connected socket's peer, IPv4 as such; "" where it is not known, or has
 * none. */
void vz_dial_peer_address(int fd, char ret_text[VZ_ADDRESS_TEXT_BYTES]);
