/* userfault.c - see userfault.h.
 *
 * Lock: the count and the node's access list change together. */
#include "driver/qemu/userfault.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define NODE        "/dev/userfaultfd"
#define ACL_XATTR   "system.posix_acl_access"
#define SYSCTL      "/proc/sys/vm/unprivileged_userfaultfd"
#define SYSCTL_MAX  16
#define RECORD_MAX  16
#define RECORD_MODE 0600
#define MODE_MASK   07777
#define GROUP_SHIFT 3
#define OWNER_SHIFT 6
#define ACL_BITS    7

static GMutex lock;
static unsigned users; /* of our entry */
static bool entered;   /* the entry is there */
static mode_t mode_before;
static char *record; /* of mode_before, for the next daemon, while the entry is there */

/* This thread is QEMU for a moment, as far as files go. */
static bool opens_for(uid_t uid, gid_t gid)
{
    setfsgid(gid);
    setfsuid(uid);
    vz_autofd fd = open(NODE, O_RDWR | O_CLOEXEC);
    setfsuid(geteuid());
    setfsgid(getegid());
    return fd >= 0;
}

static bool is_for_everybody(void)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) ignored = NULL;
    return vz_file_read(SYSCTL, SYSCTL_MAX, &text, NULL, &ignored) && *text == '1';
}

static struct posix_acl_xattr_entry entry(unsigned tag, unsigned bits, uid_t id)
{
    return (struct posix_acl_xattr_entry){.e_tag = GUINT16_TO_LE((uint16_t)tag),
                                          .e_perm = GUINT16_TO_LE((uint16_t)(bits & ACL_BITS)),
                                          .e_id = GUINT32_TO_LE(id)};
}

/* The mode's own rights, and one user more. */
static bool enter(uid_t uid, mode_t mode, GError **err)
{
    struct {
        struct posix_acl_xattr_header header;
        struct posix_acl_xattr_entry entries[5];
    } list = {
        .header = {.a_version = GUINT32_TO_LE(POSIX_ACL_XATTR_VERSION)},
        .entries = {entry(ACL_USER_OBJ, mode >> OWNER_SHIFT, (uid_t)ACL_UNDEFINED_ID),
                    entry(ACL_USER, ACL_READ | ACL_WRITE, uid),
                    entry(ACL_GROUP_OBJ, mode >> GROUP_SHIFT, (uid_t)ACL_UNDEFINED_ID),
                    entry(ACL_MASK, ACL_READ | ACL_WRITE, (uid_t)ACL_UNDEFINED_ID),
                    entry(ACL_OTHER, mode, (uid_t)ACL_UNDEFINED_ID)},
    };
    return setxattr(NODE, ACL_XATTR, &list, sizeof(list), 0) == 0 ||
           vz_fail_errno(err, errno,
                         "post-copy needs userfaultfd, and QEMU's user cannot be given '" NODE
                         "'; a udev rule that gives it to QEMU's group would help");
}

static bool note(GError **err)
{
    g_autofree char *text = g_strdup_printf("%o\n", (unsigned)mode_before);
    return vz_file_write_durable(record, text, strlen(text), RECORD_MODE, err);
}

static bool give(uid_t uid, gid_t gid, GError **err)
{
    struct stat node;
    if (opens_for(uid, gid))
        return true;
    if (stat(NODE, &node) < 0)
        return is_for_everybody() ||
               vz_fail(
                   err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "post-copy needs userfaultfd, and this host has no '" NODE
                   "' for QEMU's user: Linux 6.1 or later has it (vm.unprivileged_userfaultfd=1 "
                   "would do, too, but for every program of the host)");
    if (getxattr(NODE, ACL_XATTR, NULL, 0) > 0 && !entered)
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                       "post-copy needs userfaultfd, and the access list of '" NODE
                       "' does not let QEMU's user in: `setfacl -m u:%u:rw " NODE "` would",
                       (unsigned)uid);
    if (!entered)
        mode_before = node.st_mode & MODE_MASK; /* else its group bits are our list's mask */
    if (!note(err))
        return false;
    entered = true;
    if (!enter(uid, mode_before, err))
        return false;
    return opens_for(uid, gid) ||
           vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "post-copy needs userfaultfd, and QEMU's user cannot open '" NODE "'");
}

static void take_back(void)
{
    g_autoptr(GError) err = NULL;
    if (!entered || users > 0)
        return;
    entered = false;
    if ((removexattr(NODE, ACL_XATTR) < 0 && errno != ENODATA) || chmod(NODE, mode_before) < 0)
        vz_warn(NULL, "QEMU's user keeps its access to '" NODE "': %s", g_strerror(errno));
    else if (!vz_file_remove_durable(record, &err))
        vz_warn(NULL, "%s", err->message);
}

void vz_userfault_setup(const char *run_dir)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) none = NULL;
    char *end;
    record = g_build_filename(run_dir, "userfaultfd", NULL);
    users = 1;
    if (!vz_file_read(record, RECORD_MAX, &text, NULL, &none))
        return;
    mode_before = (mode_t)strtoul(text, &end, 8) & MODE_MASK;
    entered = end != text;
}

bool vz_userfault_keep(void)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&lock);
    users += entered;
    return entered;
}

bool vz_userfault_allow(uid_t uid, gid_t gid, GError **err)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&lock);
    users++;
    if (give(uid, gid, err))
        return true;
    users--;
    take_back();
    return false;
}

void vz_userfault_forbid(void)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&lock);
    users--;
    take_back();
}
