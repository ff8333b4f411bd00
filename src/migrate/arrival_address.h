/* arrival_address.h - where on this host, the destination, data arrives: what callers ask for is
 * held against the one data port, and what the source is told.
 *
 * Actor or host thread, since names are resolved and connections tried, up to
 * VZ_ARRIVAL_ADDRESS_TIMEOUT_US each. */
#pragma once

#include "migrate/service.h"

#define VZ_ARRIVAL_ADDRESS_TIMEOUT_US ((int64_t)5 * 1000000)

/* listen_address, disks_uri and disks_port have to name this host's data port: it is tried. 74
 * says where the port listens. *ret_host is the numeric address that listen_address means; NULL: it
 * names none, or every one. Caller frees. */
bool vz_arrival_address_check(vz_migrate *service, const vz_options *options, char **ret_host,
                              GError **err);

/* The URI for the source's channels: what migrate_uri says, else listen_address's host (of the
 * check), else what the configuration advertises; NULL: nothing of that. Caller frees. */
char *vz_arrival_address_known(vz_migrate *service, const vz_options *options,
                               const char *listen_host);
/* The host alone, also where migrate_uri names none. Caller frees. */
char *vz_arrival_address_host(vz_migrate *service, const vz_options *options,
                              const char *listen_host, const char *client_came_by);
/* That, or the address by which the client came (may be NULL), which is one that works. */
char *vz_arrival_address_uri(vz_migrate *service, const vz_options *options,
                             const char *listen_host, const char *client_came_by);
