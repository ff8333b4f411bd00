/* user.h - the user that QEMU runs as. Reads the user database: not for the loop thread. */
#pragma once

#include "base/error.h"

#include <sys/types.h>

#define VZ_QEMU_GROUPS_MAX 32

typedef struct {
    bool change; /* false: the daemon's own identity */
    uid_t uid;
    gid_t gid;
    gid_t groups[VZ_QEMU_GROUPS_MAX]; /* supplementary, such as "kvm" */
    size_t n_groups;
} vz_qemu_user;

/* NULL, "" and "root" mean no change; so does any name when the daemon itself is not root (a test).
 * SYSTEM_ERROR "there is no user 'x' to run QEMU as; ...". */
bool vz_qemu_user_find(const char *name, vz_qemu_user *ret_user, GError **err);
