/* probe.c - virtvz-probe: touches images' directories, so that the daemon never has to.
 *
 * Started by storage/probe_call.c with a deadline: a path on a dead network file system then costs
 * one process, not a thread. Prints one JSON object. Commands (NONCE is a hex name, TEXT one line):
 *
 *   offer  IMAGE NONCE TEXT          make DIR/.virtvz-NONCE.offer, which must not exist yet
 *   answer IMAGE NONCE TEXT          read the offer; make DIR/.virtvz-NONCE.answer
 *   read   IMAGE NONCE               read the answer
 *   look   IMAGE NONCE               read the offer, if that is possible
 *   remove IMAGE NONCE               remove both
 *   volume COMMAND REQUEST           storage/probe_volume.h
 *   lease COMMAND REQUEST IMAGE...   storage/probe_lease.h; the reply has them as "leases"
 *   lease arrive REQUEST IMAGE...    prepare; a reply; when told by a byte, hand-over; a reply
 *
 * DIR is the real directory of the image, behind links. Where root is squashed, the files are made
 * as the image's owner. */
#include "base/fd.h"
#include "storage/probe_lease.h"
#include "storage/probe_volume.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NOTE_BYTES_MAX 4096
/* QEMU's image locks lie at these bytes (block/file-posix.c: RAW_LOCK_PERM_BASE 100,
 * RAW_LOCK_SHARED_BASE 200, fewer than 64 permission bits each). */
#define LOCK_FIRST_BYTE 100
#define LOCK_BYTES      164

static json_t *reply;

G_NORETURN static void finish(int status)
{
    json_dumpf(reply, stdout, JSON_COMPACT);
    putchar('\n');
    exit(status);
}

G_NORETURN static void fail(const char *what, const char *path, int errnum)
{
    json_object_set_new(reply, "error",
                        json_sprintf("%s '%s': %s", what, path, g_strerror(errnum)));
    finish(0);
}

static char *note_path(const char *image, const char *nonce, const char *kind)
{
    char real[PATH_MAX];
    g_autofree char *directory = NULL;
    if (realpath(image, real)) {
        directory = g_path_get_dirname(real);
    } else {
        /* The image itself may be absent here; its directory decides. */
        g_autofree char *parent = g_path_get_dirname(image);
        if (!realpath(parent, real))
            fail("cannot reach", parent, errno);
        directory = g_strdup(real);
    }
    return g_strdup_printf("%s/.virtvz-%s.%s", directory, nonce, kind);
}

/* As root first; where root may not (root_squash), as the image's owner. */
static int open_as_owner(const char *path, int flags, const struct stat *owner)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd >= 0 || (errno != EACCES && errno != EPERM) || geteuid() != 0 || !owner)
        return fd;
    if (setegid(owner->st_gid) == 0 && seteuid(owner->st_uid) == 0)
        fd = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0644);
    return fd;
}

/* Does somebody hold QEMU's locks on the image, seen through this host's own path? null: cannot be
 * told. */
static json_t *is_locked(const char *image)
{
    vz_autofd fd = open(image, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    struct flock lock = {
        .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_FIRST_BYTE, .l_len = LOCK_BYTES};
    return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 ? json_boolean(lock.l_type != F_UNLCK)
                                                         : json_null();
}

/* Of a block device stat knows no size. */
static json_int_t size_of(const char *image, const struct stat *known)
{
    vz_autofd fd = S_ISBLK(known->st_mode) ? open(image, O_RDONLY | O_CLOEXEC | O_NONBLOCK) : -1;
    return fd >= 0 ? lseek(fd, 0, SEEK_END) : known->st_size;
}

/* What tells one file from another, as far as a second host can compare it. */
static bool describe_image(const char *image, struct stat *ret_owner)
{
    if (stat(image, ret_owner) < 0) {
        json_object_set_new(reply, "exists", json_false());
        return false;
    }
    json_object_set_new(reply, "exists", json_true());
    json_object_set_new(reply, "regular", json_boolean(S_ISREG(ret_owner->st_mode)));
    json_object_set_new(reply, "inode", json_integer((json_int_t)ret_owner->st_ino));
    json_object_set_new(reply, "size", json_integer(size_of(image, ret_owner)));
    json_object_set_new(reply, "mtime_ns",
                        json_integer((json_int_t)ret_owner->st_mtim.tv_sec * 1000000000 +
                                     ret_owner->st_mtim.tv_nsec));
    json_object_set_new(reply, "locked", is_locked(image));
    return true;
}

static void write_note(const char *path, const char *text, const struct stat *owner)
{
    vz_autofd fd = open_as_owner(path, O_WRONLY | O_CREAT | O_EXCL, owner);
    if (fd < 0)
        fail("cannot create", path, errno);
    g_autofree char *content = g_strdup_printf("%s\n", text);
    if (write(fd, content, strlen(content)) != (ssize_t)strlen(content) || fsync(fd) < 0) {
        int errnum = errno;
        unlink(path);
        fail("cannot write", path, errnum);
    }
}

static void read_note(const char *path, const struct stat *owner)
{
    vz_autofd fd = open_as_owner(path, O_RDONLY | O_NONBLOCK, owner);
    if (fd < 0 && errno == ENOENT) {
        json_object_set_new(reply, "note", json_null());
        return;
    }
    char text[NOTE_BYTES_MAX];
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (n < 0)
        fail("cannot read", path, errno);
    text[n] = '\0';
    json_object_set_new(reply, "note", json_string(g_strchomp(text)));
}

/* Where nothing can be written an unlink fails whether there is something or not. */
static void remove_note(const char *path)
{
    int errnum = unlink(path) < 0 ? errno : 0;
    if (errnum != 0 && errnum != ENOENT && access(path, F_OK) == 0)
        fail("cannot remove", path, errnum);
}

/* A note that is there but cannot be read proves nothing, so it is not told of. */
static void glance_at_note(const char *path, const struct stat *owner)
{
    vz_autofd fd = open_as_owner(path, O_RDONLY | O_NONBLOCK, owner);
    int errnum = fd < 0 ? errno : 0;
    vz_fd_clear(&fd);
    if (errnum == 0 || errnum == ENOENT)
        read_note(path, owner);
}

static int work_on_leases(const char *command, const char *text, char *const *images)
{
    json_t *request = json_loads(text, 0, NULL);
    json_t *leases = vz_probe_leases(command, request, images);
    json_decref(request);
    if (!leases) {
        fprintf(stderr, "virtvz-probe: '%s' is no command for leases, or its request is none\n",
                command);
        return 2;
    }
    json_object_set_new(reply, "leases", leases);
    finish(0);
}

static int work_on_volume(const char *command, const char *text)
{
    json_t *request = json_loads(text, 0, NULL);
    bool known = vz_probe_volume(command, request, reply);
    json_decref(request);
    if (known)
        finish(0);
    fprintf(stderr, "virtvz-probe: '%s' is no command for volumes\n", command);
    return 2;
}

/* The images that a first command did not fail for; NULL-terminated, borrowed. */
static char **succeeded(const json_t *leases)
{
    size_t i;
    json_t *one;
    char **images = g_new0(char *, json_array_size(leases) + 1);
    char **next = images;
    json_array_foreach((json_t *)(uintptr_t)leases, i, one)
    {
        const char *image = json_string_value(json_object_get(one, "image"));
        if (json_is_true(json_object_get(one, "written")))
            *next++ = (char *)(uintptr_t)image;
    }
    return images;
}

/* The first half, and after a byte on standard input the second: what comes then costs no start of
 * a program. */
static int work_in_two_halves(const char *request_text, char *const *images)
{
    json_t *request = json_loads(request_text, 0, NULL);
    json_t *prepared = vz_probe_leases("prepare", request, images);
    if (!prepared)
        return 2;
    json_object_set(reply, "leases", prepared);
    json_dumpf(reply, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    if (getchar() == EOF)
        return 0;
    g_autofree char **ready = succeeded(prepared);
    json_object_set_new(reply, "leases", vz_probe_leases("hand-over", request, ready));
    finish(0);
}

int main(int argc, char **argv)
{
    reply = json_object();
    if (argc > 4 && strcmp(argv[1], "lease") == 0)
        return strcmp(argv[2], "arrive") == 0 ? work_in_two_halves(argv[3], argv + 4)
                                              : work_on_leases(argv[2], argv[3], argv + 4);
    if (argc == 4 && strcmp(argv[1], "volume") == 0)
        return work_on_volume(argv[2], argv[3]);
    /* The nonce becomes part of a path, and may have come from another host. */
    if (argc < 4 || argv[3][strspn(argv[3], "0123456789abcdef")] != '\0') {
        fputs("usage: virtvz-probe offer|answer|read|look|remove IMAGE NONCE [TEXT]\n", stderr);
        return 2;
    }
    const char *command = argv[1];
    const char *image = argv[2];
    g_autofree char *offer = note_path(image, argv[3], "offer");
    g_autofree char *answer = note_path(image, argv[3], "answer");
    struct stat image_stat;
    const struct stat *owner = describe_image(image, &image_stat) ? &image_stat : NULL;
    if (strcmp(command, "offer") == 0 && argc == 5) {
        write_note(offer, argv[4], owner);
    } else if (strcmp(command, "answer") == 0 && argc == 5) {
        read_note(offer, owner);
        if (json_is_string(json_object_get(reply, "note")))
            write_note(answer, argv[4], owner);
    } else if (strcmp(command, "read") == 0) {
        read_note(answer, owner);
    } else if (strcmp(command, "look") == 0) {
        glance_at_note(offer, owner);
    } else if (strcmp(command, "remove") == 0) {
        remove_note(offer);
        remove_note(answer);
    } else {
        fprintf(stderr, "virtvz-probe: unknown command '%s'\n", command);
        return 2;
    }
    finish(0);
}
