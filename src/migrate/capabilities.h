/* capabilities.h - what becomes of every migration option, here and between two hosts: the rows of
 * defs/options.def, with what the hosts' QEMU lack. Any thread. */
#pragma once

#include "driver/qemu/caps.h"
#include "migrate/options.h"

#include <jansson.h>

/* Whether this QEMU has not got what the option becomes. */
bool vz_option_lacks_qemu(vz_option_id id, const vz_qemu_caps *caps);

/* {"host", "version", "qemu"?, "options": [{"id", "kind": "flag" | "parameter" | "value", "name",
 * "word"?, "help", "status": "supported" | "already-true" | "refused", "reason"?}]}; the caller's.
 * caps NULL: QEMU is not known. */
json_t *vz_migration_capabilities(const char *host, const vz_qemu_caps *caps);

/* Adds what another host says: "with": {"host", "version"?, "qemu"?} to the report, and to each of
 * its options "there" and "pair": {"status", "reason"?}. RPC where `there` is malformed. */
bool vz_migration_capabilities_pair(json_t *here, const json_t *there, GError **err);
