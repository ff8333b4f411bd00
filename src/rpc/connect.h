/* connect.h - connecting to a unix socket or a TCP port without blocking: the inbox is served
 * meanwhile, the deadline holds, and vz_inbox_cancel ends it. Owner thread of the inbox. */
#pragma once

#include "base/wait.h"
#include "rpc/uri.h"

/* Names are resolved in a thread of their own, which may outlive the deadline and then ends by
 * itself. A connected, non-blocking descriptor, or -1 with err: SYSTEM_ERROR in libvirt's words,
 * OPERATION_TIMEOUT, OPERATION_ABORTED. */
int vz_connect(const vz_uri *uri, vz_inbox *inbox, int64_t deadline_us, GError **err);
