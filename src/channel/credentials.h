/* credentials.h - a job's keys in the form that GnuTLS wants; for tls.c only, so that no other file
 * includes GnuTLS. */
#pragma once

#include "channel/keys.h"

#include <gnutls/gnutls.h>

/* New credentials of the keys, to be freed by the caller; NULL with INTERNAL_ERROR. */
gnutls_certificate_credentials_t vz_channel_keys_credentials(const vz_channel_keys *keys,
                                                             GError **err);
