/* uri.h - addresses that users write: where migration data goes. Pure text; any thread. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define VZ_URI_BYTES_MAX 1024

/* "tcp:HOST[:PORT]" or "tcp://HOST[:PORT][/]", HOST a name, an IPv4 address or [an IPv6 address].
 * *ret_port is 0 where none is given. INVALID_ARG (8): no scheme, no host, a bad port, anything
 * after the port; ARGUMENT_UNSUPPORTED (74): another scheme (facts 3.5). Either ret may be NULL. */
bool vz_uri_parse_data(const char *uri, char **ret_host, uint16_t *ret_port, GError **err);

/* The form that libvirt's clients and older daemons understand: "tcp:HOST:PORT". Caller frees. */
char *vz_uri_format_data(const char *host, uint16_t port);
