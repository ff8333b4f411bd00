/* image.c - see image.h.
 *
 * The helper is a grandchild, so that init reaps it whenever its file system lets it die. It lives
 * between fork and _exit, so it makes only async-signal-safe calls, and works in memory that was
 * allocated before. */
#include "driver/qemu/image.h"

#include "base/fd.h"
#include "base/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/fs.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Of a qcow2: the header, its extensions and the backing file's name lie in the first cluster,
 * which is 64 KiB unless someone chose otherwise; QEMU puts them all at its beginning. */
#define HEADER_BYTES_MAX 65536

#define QCOW2_MAGIC                  0x514649fbu
#define QCOW2_V2_HEADER_BYTES        72
#define QCOW2_V3_HEADER_BYTES        104
#define QCOW2_EXTENSION_END          0u
#define QCOW2_EXTENSION_FORMAT       0xe2792acau
#define QCOW2_INCOMPATIBLE_DATA_FILE (UINT64_C(1) << 2)
#define QCOW2_BACKING_NAME_MAX       1023

typedef struct {
    int errnum; /* 0: opened */
    uint32_t mode;
    uint64_t bytes;
    uint64_t device;
    uint64_t inode;
    uint32_t header_bytes;
    uint8_t header[HEADER_BYTES_MAX];
} answer;

void vz_image_clear(vz_image *image)
{
    vz_fd_clear(&image->fd);
}

void vz_image_chain_free(vz_image_chain *chain)
{
    if (!chain)
        return;
    for (size_t i = 0; i < chain->n_layers; i++) {
        g_free(chain->layers[i].path);
        g_free(chain->layers[i].format);
        vz_image_clear(&chain->layers[i].image);
    }
    g_free(chain->layers);
    g_free(chain);
}

static bool become(const vz_image_request *r)
{
    return setgroups(0, NULL) == 0 && setresgid(r->gid, r->gid, r->gid) == 0 &&
           setresuid(r->uid, r->uid, r->uid) == 0;
}

/* O_NONBLOCK: a FIFO must not hold the helper up. */
static int helper_open(const vz_image_request *r)
{
    int flags = (r->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    if (r->only_as_user && !become(r))
        return -1;
    int fd = open(r->path, flags);
    if (fd < 0 && (errno == EACCES || errno == EPERM) && r->uid != 0 && !r->only_as_user &&
        become(r))
        fd = open(r->path, flags);
    return fd;
}

static int helper_examine(int fd, const vz_image_request *r, bool want_header, answer *a)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return errno;
    a->mode = st.st_mode;
    a->bytes = (uint64_t)st.st_size;
    a->device = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
    a->inode = S_ISBLK(st.st_mode) ? 0 : st.st_ino;
    if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &a->bytes) < 0)
        return errno;
    ssize_t n = want_header ? pread(fd, a->header, sizeof(a->header), 0) : 0;
    if (n < 0)
        return errno;
    a->header_bytes = (uint32_t)n;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return errno;
    /* Only now: reading the header with O_DIRECT would need an aligned buffer. */
    flags = (flags & ~O_NONBLOCK) | O_DIRECT;
    return r->direct && fcntl(fd, F_SETFL, flags) < 0 ? EOPNOTSUPP : 0;
}

G_NORETURN static void helper(int socket, const vz_image_request *r, bool want_header, answer *a)
{
    /* What the daemon holds must not live on in a helper that hangs: locks, peers' sockets. */
    int kept = dup2(socket, STDIN_FILENO);
    syscall(SYS_close_range, 3, ~0u, 0);
    int fd = helper_open(r);
    a->errnum = fd < 0 ? errno : helper_examine(fd, r, want_header, a);
    GError *err = NULL;
    vz_fd_send(kept, a, offsetof(answer, header) + a->header_bytes, &fd, a->errnum == 0 ? 1 : 0,
               &err);
    _exit(0);
}

static bool start_helper(int socket, const vz_image_request *r, bool want_header, answer *a,
                         GError **err)
{
    pid_t child = fork();
    if (child < 0)
        return vz_fail_errno(err, errno, "cannot fork to open '%s'", r->path);
    if (child == 0) {
        pid_t grandchild = fork();
        if (grandchild == 0)
            helper(socket, r, want_header, a);
        _exit(grandchild < 0 ? 1 : 0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0 || vz_fail(err, VZ_ERR_SYSTEM_ERROR, "cannot fork to open '%s'", r->path);
}

/* Opens by a helper; *ret_fd on success. */
static bool open_by_helper(const vz_image_request *r, bool want_header, answer *a, int *ret_fd,
                           GError **err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return vz_fail_errno(err, errno, "cannot make a socket pair");
    vz_autofd mine = pair[0];
    vz_autofd theirs = pair[1];
    if (!start_helper(theirs, r, want_header, a, err))
        return false;
    vz_fd_clear(&theirs);
    if (!vz_poll_one(mine, POLLIN, r->deadline_us))
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
                       "Cannot access storage file '%s': its file system does not answer", r->path);
    int fds[VZ_FD_PASS_MAX];
    size_t n_fds;
    ssize_t n = vz_fd_receive(mine, a, sizeof(*a), fds, &n_fds, err);
    vz_autofd fd = n_fds > 0 ? fds[0] : -1;
    if (n < (ssize_t)offsetof(answer, header))
        return *err ? false
                    : vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                              "Cannot access storage file '%s': its helper died", r->path);
    if (a->errnum == EINVAL || (a->errnum == 0 && fd < 0))
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR,
                       "Cannot access storage file '%s': it is neither a file nor a block device",
                       r->path);
    if (a->errnum == EOPNOTSUPP && r->direct)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "Cannot access storage file '%s' as cache='none' wants it: its file system "
                       "does not support O_DIRECT",
                       r->path);
    if (a->errnum != 0)
        return vz_fail_errno(err, a->errnum, "Cannot access storage file '%s'", r->path);
    *ret_fd = vz_steal_fd(&fd);
    return true;
}

static vz_image image_of(const answer *a, int fd)
{
    return (vz_image){fd, S_ISBLK(a->mode), a->bytes, a->device, a->inode};
}

bool vz_image_open(const vz_image_request *request, vz_image *ret_image, GError **err)
{
    g_autofree answer *a = g_new0(answer, 1);
    int fd;
    if (!open_by_helper(request, false, a, &fd, err))
        return false;
    *ret_image = image_of(a, fd);
    return true;
}

static uint32_t be32(const answer *a, size_t at)
{
    uint32_t value;
    memcpy(&value, a->header + at, sizeof(value));
    return GUINT32_FROM_BE(value);
}

static uint64_t be64(const answer *a, size_t at)
{
    return (uint64_t)be32(a, at) << 32 | be32(a, at + 4);
}

/* The backing file's format, from the header extensions; NULL: it does not say. */
static char *backing_format(const answer *a)
{
    size_t at = be32(a, 4) >= 3 ? be32(a, 100) : QCOW2_V2_HEADER_BYTES;
    while (at <= a->header_bytes - 8) {
        uint32_t type = be32(a, at);
        uint32_t bytes = be32(a, at + 4);
        at += 8;
        if (type == QCOW2_EXTENSION_END || bytes > a->header_bytes - at)
            return NULL;
        if (type == QCOW2_EXTENSION_FORMAT)
            return g_strndup((const char *)a->header + at, bytes);
        at += (bytes + 7) & ~(size_t)7;
    }
    return NULL;
}

static bool check_qcow2(const char *path, const answer *a, GError **err)
{
    if (a->header_bytes < QCOW2_V3_HEADER_BYTES || be32(a, 0) != QCOW2_MAGIC)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "image '%s' is not in qcow2 format, as the definition says", path);
    uint32_t version = be32(a, 4);
    if (version != 2 && version != 3)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "image '%s' has qcow2 version %u", path,
                       version);
    if (be32(a, 32) != 0)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "image '%s' is encrypted inside", path);
    if (version == 3 && (be64(a, 72) & QCOW2_INCOMPATIBLE_DATA_FILE))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "image '%s' has an external data file",
                       path);
    return true;
}

/* "base.qcow2" beside the image, "/abs/path", "file:/abs/path"; other protocols are refused. */
static char *resolve_backing(const char *image, const char *name, GError **err)
{
    const char *plain = g_str_has_prefix(name, "file:") ? name + strlen("file:") : name;
    size_t head = strcspn(plain, ":/");
    if (plain[head] == ':' || !*plain) {
        vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                "image '%s' has the backing file '%s', which is not a local file", image, name);
        return NULL;
    }
    if (*plain == '/')
        return g_strdup(plain);
    g_autofree char *directory = g_path_get_dirname(image);
    return g_build_filename(directory, plain, NULL);
}

/* Finds what lies below a layer. *ret_path is NULL where nothing does. */
static bool find_backing(const char *path, const answer *a, char **ret_path, char **ret_format,
                         GError **err)
{
    if (!check_qcow2(path, a, err))
        return false;
    uint64_t offset = be64(a, 8);
    uint32_t bytes = be32(a, 16);
    *ret_path = NULL;
    *ret_format = NULL;
    if (offset == 0)
        return true;
    if (bytes == 0 || bytes > QCOW2_BACKING_NAME_MAX || bytes > a->header_bytes ||
        offset > a->header_bytes - bytes)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "image '%s' has a broken name of its backing file", path);
    g_autofree char *name = g_strndup((const char *)a->header + offset, bytes);
    g_autofree char *format = backing_format(a);
    if (!format)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "format of backing image '%s' of image '%s' was not specified in the image "
                       "metadata; `qemu-img rebase -u -F FORMAT -b '%s' '%s'` sets it",
                       name, path, name, path);
    *ret_path = resolve_backing(path, name, err);
    if (!*ret_path)
        return false;
    *ret_format = g_steal_pointer(&format);
    return true;
}

static bool in_chain(const vz_image_chain *chain, const answer *a)
{
    for (size_t i = 0; i < chain->n_layers; i++)
        if (chain->layers[i].image.device == a->device && chain->layers[i].image.inode == a->inode)
            return true;
    return false;
}

/* Opens one layer and appends it. *ret_below_*: what to open next, or NULL. */
static bool append_layer(vz_image_chain *chain, const vz_image_request *r, answer *a,
                         char **ret_below, char **ret_below_format, GError **err)
{
    bool raw = g_str_equal(r->format, "raw");
    if (!raw && !g_str_equal(r->format, "qcow2"))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "image '%s' has the format '%s'; virtvz knows raw and qcow2", r->path,
                       r->format);
    vz_autofd fd = -1;
    memset(a, 0, offsetof(answer, header));
    if (!open_by_helper(r, !raw, a, &fd, err))
        return false;
    if (chain->n_layers >= VZ_IMAGE_CHAIN_MAX || in_chain(chain, a))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "image '%s' is its own backing file, or its chain is longer than %d",
                       chain->layers[0].path, VZ_IMAGE_CHAIN_MAX);
    if (!raw && !find_backing(r->path, a, ret_below, ret_below_format, err))
        return false;
    chain->layers[chain->n_layers++] =
        (vz_image_layer){g_strdup(r->path), g_strdup(r->format), r->read_only, image_of(a, fd)};
    fd = -1;
    return true;
}

vz_image_chain *vz_image_chain_open(const vz_image_request *request, GError **err)
{
    g_autoptr(vz_image_chain) chain = g_new0(vz_image_chain, 1);
    chain->layers = g_new0(vz_image_layer, VZ_IMAGE_CHAIN_MAX);
    g_autofree answer *a = g_new0(answer, 1);
    vz_image_request r = *request;
    g_autofree char *path = g_strdup(request->path);
    g_autofree char *format = g_strdup(request->format ? request->format : "raw");
    while (path) {
        g_autofree char *below = NULL;
        g_autofree char *below_format = NULL;
        r.path = path;
        r.format = format;
        if (!append_layer(chain, &r, a, &below, &below_format, err))
            return NULL;
        g_free(path);
        path = g_steal_pointer(&below);
        g_free(format);
        format = g_steal_pointer(&below_format);
        r.read_only = true;
    }
    return g_steal_pointer(&chain);
}
