/* uri.h - addresses that users write: where migration data goes. Pure text; any thread. */
#pragma once

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

#define VZ_URI_BYTES_MAX 1024

/* "tcp:HOST[:PORT]" or "tcp://HOST[:PORT][/]", HOST a name, an IPv4 address or [an IPv6 address].
 * *ret_port is 0 where none is given. INVALID_ARG (8): no scheme, no host, a bad port, anything
 * after the port; ARGUMENT_UNSUPPORTED (74): another scheme (facts 3.5). Either ret may be NULL. */
bool vz_uri_parse_data(const char *uri, char **ret_host, uint16_t *ret_port, GError **err);

/* A migrate_uri: the above, "unix:PATH" or "unix://PATH", PATH absolute and short enough for a
 * socket (INVALID_ARG), or "rdma:HOST...", which is refused later, saying what is missing. */
bool vz_uri_check_migrate(const char *uri, GError **err);
/* Of one that was checked. The path is borrowed from it; NULL: it is no unix one. */
const char *vz_uri_unix_path(const char *uri);
bool vz_uri_is_rdma(const char *uri);

/* Where libvirt's QEMU listens for migrations: tools name these ports without having asked. Nobody
 * knocks there, since another guest's QEMU may wait, and a stray connection would ruin its move. */
bool vz_uri_is_guessed_port(uint16_t port);

/* The form that libvirt's clients and older daemons understand: "tcp:HOST:PORT". Caller frees. */
char *vz_uri_format_data(const char *host, uint16_t port);
