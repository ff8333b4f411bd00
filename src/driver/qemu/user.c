/* user.c - see user.h. */
#include "driver/qemu/user.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#define PASSWD_BYTES 16384

bool vz_qemu_user_find(const char *name, vz_qemu_user *ret_user, GError **err)
{
    vz_qemu_user user = {.uid = geteuid(), .gid = getegid()};
    if (!name || !*name || g_str_equal(name, "root") || geteuid() != 0) {
        *ret_user = user;
        return true;
    }
    g_autofree char *buffer = g_malloc(PASSWD_BYTES);
    struct passwd passwd;
    struct passwd *found = NULL;
    int errnum = getpwnam_r(name, &passwd, buffer, PASSWD_BYTES, &found);
    if (!found && errnum != 0)
        return vz_fail_errno(err, errnum, "cannot look up the user '%s'", name);
    if (!found)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "there is no user '%s' to run QEMU as; `useradd --system %s` makes it", name,
                       name);
    int n = VZ_QEMU_GROUPS_MAX;
    if (getgrouplist(name, passwd.pw_gid, user.groups, &n) < 0)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "the user '%s' is in more than %d groups", name,
                       VZ_QEMU_GROUPS_MAX);
    user.change = true;
    user.uid = passwd.pw_uid;
    user.gid = passwd.pw_gid;
    user.n_groups = (size_t)n;
    *ret_user = user;
    return true;
}
