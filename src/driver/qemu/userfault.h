/* userfault.h - lets an unprivileged QEMU have userfaultfd, by which a post-copy destination waits
 * for pages.
 *
 * QEMU opens /dev/userfaultfd, which is root's, twice: when it is told of post-copy and at the
 * switch. Until then its user gets an entry in the node's access list; where a udev rule or an
 * administrator lets it in already, nothing is changed. Never the sysctl, which would let every
 * program of the host have it. A daemon that is killed meanwhile leaves the entry until the host
 * ends. Any thread. */
#pragma once

#include "base/error.h"

#include <sys/types.h>

/* Counted. ARGUMENT_UNSUPPORTED, with what would help, where this host cannot. */
bool vz_userfault_allow(uid_t uid, gid_t gid, GError **err);
/* After a vz_userfault_allow that succeeded. */
void vz_userfault_forbid(void);
