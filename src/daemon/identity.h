/* identity.h - who this host is. Called by main before threads start. */
#pragma once

#include "base/text.h"
#include "daemon/config.h"

/* The host's UUID: of the configuration, of /etc/virtvz/host-uuid, of the firmware (unless that is
 * one of the known dummies), else one that is made once and kept in STATE/host-uuid. A UUID that
 * was configured and cannot be read is an error, never replaced. */
bool vz_identity_host_uuid(const vz_config *config, uint8_t ret_uuid[VZ_UUID_BYTES], GError **err);
