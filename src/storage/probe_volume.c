/* probe_volume.c - see probe_volume.h. */
#include "storage/probe_volume.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define QCOW2_MAGIC             0x514649fbu
#define QCOW2_V3_HEADER_BYTES   112 /* up to and with the compression type */
#define QCOW2_V2_HEADER_BYTES   72
#define QCOW2_INCOMPATIBLE_ZSTD (UINT64_C(1) << 3)
#define QCOW2_INCOMPATIBLE_L2   (UINT64_C(1) << 4)
#define QCOW2_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW2_COMPATIBLE_LAZY   (UINT64_C(1) << 0)
#define QCOW2_CLUSTER_BITS_MAX  21

static bool fail(json_t *reply, const char *what, const char *path, int errnum)
{
    json_object_set_new(reply, "error",
                        json_sprintf("%s '%s': %s", what, path, g_strerror(errnum)));
    return true;
}

static const char *text_of(const json_t *request, const char *key)
{
    const char *text = json_string_value(json_object_get(request, key));
    return text ? text : "";
}

static json_int_t number_of(const json_t *request, const char *key)
{
    return json_integer_value(json_object_get(request, key));
}

/* The real directory of a path, behind links. -1: errno says why. *ret_name is in `path`. */
static int open_directory(const char *path, const char **ret_name)
{
    char real[PATH_MAX];
    g_autofree char *parent = g_path_get_dirname(path);
    *ret_name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (!realpath(parent, real))
        return -1;
    return open(real, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static uint32_t be32(const uint8_t *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof(value));
    return GUINT32_FROM_BE(value);
}

static uint64_t be64(const uint8_t *at)
{
    return (uint64_t)be32(at) << 32 | be32(at + 4);
}

static bool read_qcow2(int fd, const char *path, json_t *reply)
{
    uint8_t h[QCOW2_V3_HEADER_BYTES] = {0};
    ssize_t n = pread(fd, h, sizeof(h), 0);
    if (n < 0)
        return fail(reply, "cannot read", path, errno);
    uint32_t version = be32(h + 4);
    uint32_t bits = be32(h + 20);
    if (n < QCOW2_V2_HEADER_BYTES || be32(h) != QCOW2_MAGIC || version < 2 || version > 3 ||
        bits < 9 || bits > QCOW2_CLUSTER_BITS_MAX) {
        json_object_set_new(reply, "error", json_sprintf("'%s' is no qcow2 image", path));
        return true;
    }
    uint64_t incompatible = version == 3 ? be64(h + 72) : 0;
    uint64_t compatible = version == 3 ? be64(h + 80) : 0;
    json_object_set_new(reply, "virtual", json_integer((json_int_t)be64(h + 24)));
    json_object_set_new(reply, "cluster", json_integer((json_int_t)1 << bits));
    json_object_set_new(reply, "version", json_integer(version));
    bool bitmaps = version == 3 && (be64(h + 88) & QCOW2_AUTOCLEAR_BITMAPS);
    json_object_set_new(reply, "snapshots", json_boolean(be32(h + 60) != 0 || bitmaps));
    json_object_set_new(reply, "backing", json_boolean(be64(h + 8) != 0));
    json_object_set_new(reply, "lazy", json_boolean(compatible & QCOW2_COMPATIBLE_LAZY));
    json_object_set_new(reply, "extended", json_boolean(incompatible & QCOW2_INCOMPATIBLE_L2));
    json_object_set_new(reply, "zstd", json_boolean(incompatible & QCOW2_INCOMPATIBLE_ZSTD));
    return true;
}

static bool look_at_room(int directory, const char *path, json_t *reply)
{
    struct statvfs room;
    if (fstatvfs(directory, &room) < 0)
        return fail(reply, "cannot look at the file system of", path, errno);
    json_object_set_new(reply, "free", json_integer((json_int_t)(room.f_bavail * room.f_frsize)));
    return true;
}

static bool look(const json_t *request, json_t *reply)
{
    struct stat st;
    const char *name;
    const char *path = text_of(request, "path");
    vz_autofd directory = open_directory(path, &name);
    if (directory < 0)
        return fail(reply, "cannot reach the directory of", path, errno);
    look_at_room(directory, path, reply);
    /* By the path, whose last part may be a link. O_NONBLOCK: a FIFO must not hold this up. */
    vz_autofd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    json_object_set_new(reply, "exists", json_boolean(fd >= 0 || errno != ENOENT));
    if (fd < 0)
        return errno == ENOENT || fail(reply, "cannot open", path, errno);
    if (fstat(fd, &st) < 0)
        return fail(reply, "cannot look at", path, errno);
    if (!S_ISREG(st.st_mode)) {
        json_object_set_new(reply, "error", json_sprintf("'%s' is not a regular file", path));
        return true;
    }
    json_object_set_new(reply, "virtual", json_integer((json_int_t)st.st_size));
    json_object_set_new(reply, "allocated", json_integer((json_int_t)st.st_blocks * 512));
    json_object_set_new(reply, "uid", json_integer((json_int_t)st.st_uid));
    json_object_set_new(reply, "gid", json_integer((json_int_t)st.st_gid));
    json_object_set_new(reply, "mode", json_integer((json_int_t)(st.st_mode & 07777)));
    return strcmp(text_of(request, "format"), "qcow2") != 0 || read_qcow2(fd, path, reply);
}

static bool fill(int fd, const json_t *request)
{
    return fchown(fd, (uid_t)number_of(request, "uid"), (gid_t)number_of(request, "gid")) == 0 &&
           fchmod(fd, (mode_t)number_of(request, "mode") & 0777) == 0 &&
           ftruncate(fd, (off_t)number_of(request, "bytes")) == 0 && fsync(fd) == 0;
}

/* With the moment of its birth, where the file system keeps that: a number is used again. */
static bool tell_identity(int directory, const char *name, json_t *reply)
{
    struct statx st;
    if (statx(directory, name, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &st) < 0)
        return false;
    json_object_set_new(reply, "device",
                        json_integer((json_int_t)makedev(st.stx_dev_major, st.stx_dev_minor)));
    json_object_set_new(reply, "inode", json_integer((json_int_t)st.stx_ino));
    json_object_set_new(reply, "born_ns",
                        json_integer(st.stx_mask & STATX_BTIME
                                         ? st.stx_btime.tv_sec * 1000000000 + st.stx_btime.tv_nsec
                                         : 0));
    return true;
}

/* The number of its device may be another one after a start of the host, so it only counts where
 * the birth is not known. */
static bool is_it(int directory, const char *name, const json_t *request)
{
    json_t *found = json_object();
    bool same = tell_identity(directory, name, found);
    bool born = number_of(request, "born_ns") != 0;
    same = same && number_of(found, "inode") == number_of(request, "inode") &&
           number_of(found, "born_ns") == number_of(request, "born_ns") &&
           (born || number_of(found, "device") == number_of(request, "device"));
    json_decref(found);
    return same;
}

static bool create(const json_t *request, json_t *reply)
{
    struct statvfs room;
    const char *unused;
    const char *path = text_of(request, "path");
    const char *name = text_of(request, "name");
    vz_autofd directory = open_directory(path, &unused);
    if (directory < 0 || fstatvfs(directory, &room) < 0)
        return fail(reply, "cannot reach the directory of", path, errno);
    uint64_t free_bytes = (uint64_t)room.f_bavail * room.f_frsize;
    bool fits = (uint64_t)number_of(request, "needs") <= free_bytes;
    json_object_set_new(reply, "free", json_integer((json_int_t)free_bytes));
    json_object_set_new(reply, "fits", json_boolean(fits));
    if (!fits)
        return true;
    vz_autofd fd =
        openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail(reply, "cannot create an image for", path, errno);
    if (fill(fd, request) && tell_identity(directory, name, reply))
        return true;
    int errnum = errno;
    unlinkat(directory, name, 0);
    return fail(reply, "cannot create an image for", path, errnum);
}

static bool same_file(int directory, const char *one, const char *other)
{
    struct stat a, b;
    return fstatat(directory, one, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
           fstatat(directory, other, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

/* Not every file system can rename without replacing; a second link cannot replace either, and may
 * have been made before a crash. */
static bool rename_to_free(int directory, const char *from, const char *to)
{
    if (renameat2(directory, from, directory, to, RENAME_NOREPLACE) == 0)
        return true;
    if (errno == EEXIST)
        return (same_file(directory, from, to) && unlinkat(directory, from, 0) == 0) ||
               (errno = EEXIST, false);
    return (errno == EINVAL || errno == ENOSYS) && linkat(directory, from, directory, to, 0) == 0 &&
           unlinkat(directory, from, 0) == 0;
}

static bool settle(const json_t *request, json_t *reply)
{
    const char *name;
    const char *path = text_of(request, "path");
    vz_autofd directory = open_directory(path, &name);
    if (directory < 0)
        return fail(reply, "cannot reach the directory of", path, errno);
    const char *first = text_of(request, "name");
    errno = ESTALE;
    if (!is_it(directory, name, request) &&
        (!is_it(directory, first, request) || !rename_to_free(directory, first, name))) {
        json_object_set_new(reply, "taken", json_boolean(errno == EEXIST));
        return fail(reply, "cannot name the new image", path, errno);
    }
    return fsync(directory) == 0 || fail(reply, "cannot write the directory of", path, errno);
}

static bool remove_either(const json_t *request, json_t *reply)
{
    const char *name;
    const char *path = text_of(request, "path");
    vz_autofd directory = open_directory(path, &name);
    if (directory < 0)
        return errno == ENOENT || fail(reply, "cannot reach the directory of", path, errno);
    /* Nobody else makes that name; its inode may not have been noted yet. */
    if (unlinkat(directory, text_of(request, "name"), 0) < 0 && errno != ENOENT)
        return fail(reply, "cannot remove the new image of", path, errno);
    if (is_it(directory, name, request) && unlinkat(directory, name, 0) < 0)
        return fail(reply, "cannot remove the new image", path, errno);
    return true;
}

/* Where the path is a link, what it leads to: the link may lie in a directory that others share. */
static bool put_aside(const json_t *request, json_t *reply)
{
    struct stat st;
    char real[PATH_MAX];
    const char *name;
    const char *path = text_of(request, "path");
    json_int_t inode = number_of(request, "inode");
    if (!realpath(path, real) || stat(real, &st) < 0)
        return errno == ENOENT || fail(reply, "cannot reach", path, errno);
    if (inode != 0 && (json_int_t)st.st_ino != inode)
        return true; /* another one by now */
    vz_autofd directory = open_directory(real, &name);
    g_autofree char *aside = g_strdup_printf("%s.%s", name, text_of(request, "suffix"));
    if (directory < 0 || !rename_to_free(directory, name, aside) || fsync(directory) < 0)
        return fail(reply, "cannot rename", real, errno);
    json_object_set_new(reply, "aside", json_sprintf("%.*s%s", (int)(name - real), real, aside));
    return true;
}

bool vz_probe_volume(const char *command, const json_t *request, json_t *reply)
{
    static const struct {
        const char *name;
        bool (*run)(const json_t *request, json_t *reply);
    } commands[] = {{"look", look},
                    {"create", create},
                    {"settle", settle},
                    {"remove", remove_either},
                    {"put-aside", put_aside}};
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++)
        if (strcmp(command, commands[i].name) == 0)
            return commands[i].run(request, reply);
    return false;
}
