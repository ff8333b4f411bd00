/* handover.c - see handover.h. */
#include "driver/qemu/handover.h"

#include "base/fd.h"
#include "base/wait.h"
#include "driver/qemu/image.h"
#include "net/link.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

/* vz_spawn's own numbering. */
#define FIRST_FD 3
/* What vz_spawn can pass on. */
#define FDS_MAX 100
/* A kernel or initrd that QEMU's user cannot read is copied, into memory. */
#define BOOT_FILE_BYTES_MAX (UINT64_C(1) << 30)
#define KERNEL_COPY         "kernel"
#define INITRD_COPY         "initrd"

struct vz_handover {
    const vz_handover_request *request; /* while it is opened */
    vz_qemu_resources resources;
    GArray *fds;      /* int, owned */
    GArray *fdsets;   /* vz_qemu_fdset */
    GPtrArray *paths; /* of the sets */
    GPtrArray *owned; /* memory that resources point to */
    int monitor;
};

static void close_all(GArray *fds)
{
    for (guint i = 0; i < fds->len; i++)
        vz_fd_clear(&g_array_index(fds, int, i));
    g_array_unref(fds);
}

void vz_handover_free(vz_handover *h)
{
    if (!h)
        return;
    close_all(h->fds);
    g_array_unref(h->fdsets);
    g_ptr_array_unref(h->paths);
    g_ptr_array_unref(h->owned);
    vz_fd_clear(&h->monitor);
    g_free(h);
}

static void *own(vz_handover *h, void *memory)
{
    g_ptr_array_add(h->owned, memory);
    return memory;
}

/* Returns the number that QEMU will see. */
static int pass(vz_handover *h, int take_fd)
{
    g_array_append_val(h->fds, take_fd);
    return FIRST_FD + (int)h->fds->len - 1;
}

static unsigned pass_as_set(vz_handover *h, int take_fd, const char *path)
{
    g_ptr_array_add(h->paths, g_strdup(path));
    vz_qemu_fdset set = {.set = h->fdsets->len, .fd = pass(h, take_fd)};
    g_array_append_val(h->fdsets, set);
    return set.set;
}

char *vz_handover_monitor_path(const char *rundir)
{
    return g_build_filename(rundir, "monitor.sock", NULL);
}

static bool open_monitor(vz_handover *h, GError **err)
{
    g_autofree char *path = vz_handover_monitor_path(h->request->rundir);
    vz_autofd listener = vz_unix_listen(path, 0600, err);
    if (listener < 0)
        return false;
    h->monitor = vz_unix_connect(path, err);
    if (h->monitor < 0)
        return false;
    h->resources.monitor_fd = pass(h, vz_steal_fd(&listener));
    return true;
}

static bool open_disk(vz_handover *h, const vz_def_disk *disk, vz_qemu_disk_images *images,
                      GError **err)
{
    if (!disk->path)
        return true;
    vz_image_request request = {
        .path = disk->path,
        .format = disk->format == VZ_DISK_FORMAT_QCOW2 ? "qcow2" : "raw",
        .read_only = disk->readonly || disk->device == VZ_DISK_DEVICE_CDROM,
        .direct = disk->cache == VZ_DISK_CACHE_OFF || disk->cache == VZ_DISK_CACHE_DIRECTSYNC,
        .uid = h->request->user->change ? h->request->user->uid : 0,
        .gid = h->request->user->gid,
        .deadline_us = vz_now_us() + h->request->host->image_timeout_us,
    };
    g_autoptr(vz_image_chain) chain = vz_image_chain_open(&request, err);
    if (!chain)
        return false;
    images->layers = own(h, g_new0(vz_qemu_layer, chain->n_layers));
    images->n_layers = chain->n_layers;
    for (size_t i = 0; i < chain->n_layers; i++) {
        vz_image_layer *layer = &chain->layers[i];
        images->layers[i] = (vz_qemu_layer){
            .fdset = pass_as_set(h, vz_steal_fd(&layer->image.fd), layer->path),
            .format = own(h, g_strdup(layer->format)),
            .block_device = layer->image.block_device,
            .read_only = layer->read_only,
        };
    }
    return true;
}

static bool open_disks(vz_handover *h, const vz_def *live, GError **err)
{
    vz_qemu_disk_images *images = own(h, g_new0(vz_qemu_disk_images, live->n_disks + 1));
    h->resources.disks = images;
    for (size_t i = 0; i < live->n_disks; i++)
        if (!open_disk(h, &live->disks[i], &images[i], err))
            return false;
    return true;
}

static bool open_tap(vz_handover *h, vz_def_interface *interface, int *ret_number, GError **err)
{
    if (interface->type == VZ_INTERFACE_USER)
        return true;
    vz_link_tap_request request = {
        .name = interface->target,
        .bridge = interface->type == VZ_INTERFACE_BRIDGE ? interface->bridge : NULL,
        .guest_mac = interface->mac,
        .mtu = interface->mtu_bytes,
    };
    char *name;
    int fd;
    if (!vz_link_tap_open(&request, &name, &fd, err))
        return false;
    g_free(interface->target);
    interface->target = name;
    *ret_number = pass(h, fd);
    return true;
}

/* An array of n times -1, owned by the handover. */
static int *new_numbers(vz_handover *h, size_t n)
{
    int *numbers = own(h, g_new(int, n + 1));
    for (size_t i = 0; i <= n; i++)
        numbers[i] = -1;
    return numbers;
}

static bool open_taps(vz_handover *h, vz_def *live, GError **err)
{
    int *numbers = new_numbers(h, live->n_interfaces);
    h->resources.tap_fds = numbers;
    for (size_t i = 0; i < live->n_interfaces; i++)
        if (!open_tap(h, &live->interfaces[i], &numbers[i], err))
            return false;
    return true;
}

/* Listens for those who want to talk to the guest. Only a socket may be replaced. */
static int listen_at(const vz_handover *h, const char *path, GError **err)
{
    struct stat st;
    if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "cannot listen on '%s': it is there, and no socket",
                path);
        return -1;
    }
    vz_autofd fd = vz_unix_listen(path, 0660, err);
    const vz_qemu_user *user = h->request->user;
    if (fd >= 0 && user->change && chown(path, user->uid, user->gid) < 0) {
        vz_fail_errno(err, errno, "cannot give '%s' to QEMU's user", path);
        return -1;
    }
    return vz_steal_fd(&fd);
}

static int open_log_file(const vz_def_chardev *source, GError **err)
{
    int flags = O_WRONLY | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
                (source->append == VZ_ONOFF_OFF ? O_TRUNC : O_APPEND);
    int fd = open(source->path, flags, 0600);
    if (fd < 0)
        vz_fail_errno(err, errno, "cannot open '%s' for a guest's output", source->path);
    return fd;
}

/* alias names the socket of a channel without a path. */
static bool open_character(vz_handover *h, vz_def_chardev *source, const char *alias,
                           int *ret_number, GError **err)
{
    if (source->type == VZ_CHARDEV_FILE) {
        int fd = open_log_file(source, err);
        if (fd >= 0)
            *ret_number = (int)pass_as_set(h, fd, source->path);
        return fd >= 0;
    }
    if (source->type != VZ_CHARDEV_UNIX)
        return true;
    if (!source->path)
        source->path = g_strdup_printf("%s/%s.sock", h->request->rundir, alias);
    int fd = source->mode == VZ_CHARDEV_MODE_CONNECT ? vz_unix_connect(source->path, err)
                                                     : listen_at(h, source->path, err);
    if (fd >= 0)
        *ret_number = pass(h, fd);
    return fd >= 0;
}

static bool open_characters(vz_handover *h, vz_def *live, GError **err)
{
    int *serials = new_numbers(h, live->n_serials);
    int *consoles = new_numbers(h, live->n_consoles);
    int *channels = new_numbers(h, live->n_channels);
    h->resources.serial_fds = serials;
    h->resources.console_fds = consoles;
    h->resources.channel_fds = channels;
    for (size_t i = 0; i < live->n_serials; i++)
        if (!open_character(h, &live->serials[i].source, live->serials[i].info.alias, &serials[i],
                            err))
            return false;
    for (size_t i = 0; i < live->n_consoles; i++)
        if (live->consoles[i].target == VZ_CONSOLE_VIRTIO &&
            !open_character(h, &live->consoles[i].source, live->consoles[i].info.alias,
                            &consoles[i], err))
            return false;
    for (size_t i = 0; i < live->n_channels; i++)
        if (!open_character(h, &live->channels[i].source, live->channels[i].info.alias,
                            &channels[i], err))
            return false;
    return true;
}

static bool copy_file(int from, uint64_t bytes, const char *to, const vz_qemu_user *user,
                      GError **err)
{
    if (bytes > BOOT_FILE_BYTES_MAX)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "it is too large to be copied for QEMU's user, who may not read it");
    unlink(to);
    vz_autofd fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0 || (user->change && fchown(fd, user->uid, user->gid) < 0))
        return vz_fail_errno(err, errno, "cannot make '%s'", to);
    for (uint64_t done = 0; done < bytes;) {
        ssize_t n = sendfile(fd, from, NULL, bytes - done);
        if (n <= 0)
            return vz_fail_errno(err, n < 0 ? errno : EIO, "cannot copy to '%s'", to);
        done += (uint64_t)n;
    }
    return true;
}

/* The path as it is where QEMU's user may read it, else that of a copy. */
static const char *open_boot_file(vz_handover *h, const char *path, const char *copy_name,
                                  GError **err)
{
    const vz_qemu_user *user = h->request->user;
    vz_image_request request = {
        .path = path,
        .read_only = true,
        .uid = user->uid,
        .gid = user->gid,
        .only_as_user = user->change,
        .deadline_us = vz_now_us() + h->request->host->image_timeout_us,
    };
    vz_image image;
    g_autoptr(GError) as_user = NULL;
    if (vz_image_open(&request, &image, &as_user)) {
        vz_image_clear(&image);
        return own(h, g_strdup(path));
    }
    request.only_as_user = false;
    if (!vz_image_open(&request, &image, err))
        return NULL;
    char *copy = own(h, g_build_filename(h->request->rundir, copy_name, NULL));
    bool copied = copy_file(image.fd, image.bytes, copy, user, err);
    vz_image_clear(&image);
    if (!copied)
        g_prefix_error(err, "boot file '%s': ", path);
    return copied ? copy : NULL;
}

static bool open_boot_files(vz_handover *h, const vz_def_os *os, GError **err)
{
    if (os->kernel)
        h->resources.kernel = open_boot_file(h, os->kernel, KERNEL_COPY, err);
    if (os->kernel && !h->resources.kernel)
        return false;
    if (os->initrd)
        h->resources.initrd = open_boot_file(h, os->initrd, INITRD_COPY, err);
    return !os->initrd || h->resources.initrd;
}

void vz_handover_started(const char *rundir)
{
    static const char *const names[] = {KERNEL_COPY, INITRD_COPY};
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(rundir, names[i], NULL);
        unlink(path);
    }
}

vz_handover *vz_handover_open(const vz_handover_request *request, vz_def *live, GError **err)
{
    g_autoptr(vz_handover) h = g_new0(vz_handover, 1);
    h->request = request;
    h->fds = g_array_new(FALSE, FALSE, sizeof(int));
    h->fdsets = g_array_new(FALSE, FALSE, sizeof(vz_qemu_fdset));
    h->paths = g_ptr_array_new_with_free_func(g_free);
    h->owned = g_ptr_array_new_with_free_func(g_free);
    h->monitor = -1;
    h->resources.accel = request->accel;
    h->resources.incoming = request->incoming;
    h->resources.vnc_address = request->host->vnc_address;
    if (!open_boot_files(h, &live->os, err) || !open_disks(h, live, err) ||
        !open_taps(h, live, err) || !open_characters(h, live, err) || !open_monitor(h, err))
        return NULL;
    if (h->fds->len > FDS_MAX)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "more than %d images, interfaces and sockets together", FDS_MAX),
               NULL;
    h->resources.fdsets = (const vz_qemu_fdset *)(const void *)h->fdsets->data;
    h->resources.n_fdsets = h->fdsets->len;
    h->request = NULL;
    return g_steal_pointer(&h);
}

const vz_qemu_resources *vz_handover_resources(const vz_handover *handover)
{
    return &handover->resources;
}

const int *vz_handover_fds(const vz_handover *handover, size_t *ret_n)
{
    *ret_n = handover->fds->len;
    return (const int *)(const void *)handover->fds->data;
}

char **vz_handover_paths(const vz_handover *handover)
{
    char **paths = g_new0(char *, handover->paths->len + 1);
    for (guint i = 0; i < handover->paths->len; i++)
        paths[i] = g_strdup(g_ptr_array_index(handover->paths, i));
    return paths;
}

int vz_handover_take_monitor(vz_handover *handover)
{
    return vz_steal_fd(&handover->monitor);
}
