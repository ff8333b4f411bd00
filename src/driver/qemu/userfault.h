/* userfault.h - lets an unprivileged QEMU have userfaultfd, by which a post-copy destination waits
 * for pages.
 *
 * QEMU opens /dev/userfaultfd, which is root's, twice: when it is told of post-copy and at the
 * switch. Until then its user gets an entry in the node's access list; where a udev rule or an
 * administrator lets it in already, nothing is changed. Never the sysctl, which would let every
 * program of the host have it. Any thread, unless said. */
#pragma once

#include "base/error.h"

#include <sys/types.h>

/* Before threads: where the entry is noted. One that a killed daemon has left counts as in use
 * until vz_userfault_forbid, by when those who use it still have said so by vz_userfault_keep. */
void vz_userfault_setup(const char *run_dir);
/* Counts, if the entry is there. */
bool vz_userfault_keep(void);
/* Counted. ARGUMENT_UNSUPPORTED, with what would help, where this host cannot. */
bool vz_userfault_allow(uid_t uid, gid_t gid, GError **err);
/* After a vz_userfault_allow or vz_userfault_keep that succeeded. The last takes the entry away. */
void vz_userfault_forbid(void);
