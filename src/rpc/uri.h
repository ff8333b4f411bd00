/* uri.h - the connection URIs that our client speaks. Any thread. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define VZ_SOCKET_READWRITE "/run/libvirt/virtvzd-sock"
#define VZ_SOCKET_READONLY  "/run/libvirt/virtvzd-sock-ro"
#define VZ_TCP_PORT         16509

typedef struct {
    char *path; /* of the unix socket; NULL: TCP */
    char *host; /* name or numeric address, without brackets */
    uint16_t port;
} vz_uri;

/* vz:///system, vz+unix:///system[?socket=PATH], vz+tcp://HOST[:PORT]/system. INVALID_ARG for
 * everything else, saying what would work. */
bool vz_uri_parse(const char *text, vz_uri *ret_uri, GError **err);
/* Frees what it points to; accepts a zeroed one. */
void vz_uri_clear(vz_uri *uri);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_uri, vz_uri_clear)

/* "host:port" for messages, "[address]:port" where the address has colons; of a TCP URI. Caller
 * frees. */
char *vz_uri_authority(const vz_uri *uri);
