/* argv_disk.c - disks: for each image of the chain a storage node below a format node, from the
 * bottom up, and the drive on its bus.
 *
 *     virtio-disk0 (device) ─► virtio-disk0-format ─► virtio-disk0-storage ─► /dev/fdset/0
 *                                   └ backing ─► virtio-disk0-1-format ─► ...
 */
#include "driver/qemu/argv_build.h"

#include <string.h>

/* QEMU's limit on a node's name, without the NUL. */
#define NODE_NAME_MAX 31

static char *node_name(const char *alias, size_t layer, const char *kind)
{
    return layer == 0 ? g_strdup_printf("%s-%s", alias, kind)
                      : g_strdup_printf("%s-%zu-%s", alias, layer, kind);
}

char *vz_qemu_node_name(const vz_def_disk *disk)
{
    return node_name(disk->info.alias, 0, "format");
}

char *vz_qemu_storage_name(const vz_def_disk *disk)
{
    return node_name(disk->info.alias, 0, "storage");
}

typedef struct {
    bool set;
    bool direct;
    bool no_flush;
    bool write_cache;
} cache_mode;

static cache_mode cache_of(vz_disk_cache cache)
{
    switch (cache) {
    case VZ_DISK_CACHE_OFF:
        return (cache_mode){true, true, false, true};
    case VZ_DISK_CACHE_WRITETHROUGH:
        return (cache_mode){true, false, false, false};
    case VZ_DISK_CACHE_WRITEBACK:
        return (cache_mode){true, false, false, true};
    case VZ_DISK_CACHE_DIRECTSYNC:
        return (cache_mode){true, true, false, false};
    case VZ_DISK_CACHE_UNSAFE:
        return (cache_mode){true, false, true, true};
    case VZ_DISK_CACHE_DEFAULT:
    case VZ_DISK_CACHE_NONE:
    default:
        return (cache_mode){0};
    }
}

static void set_cache(json_t *node, const vz_def_disk *disk)
{
    cache_mode cache = cache_of(disk->cache);
    if (cache.set)
        json_object_set_new(
            node, "cache",
            json_pack("{s:b, s:b}", "direct", cache.direct, "no-flush", cache.no_flush));
}

static void add_storage_node(vz_argv_builder *b, const vz_def_disk *disk,
                             const vz_qemu_layer *layer, const char *name)
{
    json_t *node = json_pack("{s:s, s:o, s:s, s:b, s:s}", "driver",
                             layer->block_device ? "host_device" : "file", "filename",
                             json_sprintf("/dev/fdset/%u", layer->fdset), "node-name", name,
                             "read-only", layer->read_only, "discard", "unmap");
    if (disk->io)
        json_object_set_new(node, "aio", json_string(vz_disk_io_word(disk->io)));
    set_cache(node, disk);
    vz_argv_add_json(b, "-blockdev", node);
}

static void add_format_node(vz_argv_builder *b, const vz_def_disk *disk,
                            const vz_qemu_disk_images *images, size_t at)
{
    const char *alias = vz_argv_alias(b, &disk->info);
    const vz_qemu_layer *layer = &images->layers[at];
    g_autofree char *name = node_name(alias, at, "format");
    g_autofree char *storage = node_name(alias, at, "storage");
    if (strlen(storage) > NODE_NAME_MAX)
        vz_argv_fail(b, "the alias '%s' is too long for a disk", alias);
    add_storage_node(b, disk, layer, storage);
    json_t *node = json_pack("{s:s, s:b}", "node-name", name, "read-only", layer->read_only);
    if (at == 0 && disk->discard)
        json_object_set_new(node, "discard", json_string(vz_disk_discard_word(disk->discard)));
    if (at == 0 && disk->detect_zeroes)
        json_object_set_new(node, "detect-zeroes",
                            json_string(vz_disk_detect_zeroes_word(disk->detect_zeroes)));
    set_cache(node, disk);
    json_object_set_new(node, "driver", json_string(layer->format));
    json_object_set_new(node, "file", json_string(storage));
    /* Said even where there is none, or QEMU would follow the name in the header. */
    g_autofree char *below = node_name(alias, at + 1, "format");
    if (!g_str_equal(layer->format, "raw"))
        json_object_set_new(node, "backing",
                            at + 1 < images->n_layers ? json_string(below) : json_null());
    vz_argv_add_json(b, "-blockdev", node);
}

static const char *device_driver(vz_argv_builder *b, const vz_def_disk *disk)
{
    bool cdrom = disk->device == VZ_DISK_DEVICE_CDROM;
    switch (disk->bus) {
    case VZ_DISK_BUS_VIRTIO:
        if (cdrom)
            vz_argv_fail(b, "disk '%s': a cdrom cannot be on the virtio bus", disk->target);
        return "virtio-blk-pci";
    case VZ_DISK_BUS_SCSI:
        return cdrom ? "scsi-cd" : "scsi-hd";
    case VZ_DISK_BUS_SATA:
    case VZ_DISK_BUS_IDE:
        return cdrom ? "ide-cd" : "ide-hd";
    case VZ_DISK_BUS_NONE:
    default:
        vz_argv_fail(b, "disk '%s' has no bus", disk->target);
        return "virtio-blk-pci";
    }
}

/* Where on its controller. The first IDE or SATA controller is the machine's own, named "ide". */
static void set_drive_address(vz_argv_builder *b, json_t *device, const vz_def_disk *disk)
{
    const vz_def_drive_address *drive = &disk->info.address.drive;
    if (disk->info.address.type != VZ_ADDRESS_DRIVE) {
        vz_argv_fail(b, "disk '%s' has no drive address", disk->target);
        return;
    }
    vz_controller_type type = disk->bus == VZ_DISK_BUS_SCSI   ? VZ_CONTROLLER_SCSI
                              : disk->bus == VZ_DISK_BUS_SATA ? VZ_CONTROLLER_SATA
                                                              : VZ_CONTROLLER_IDE;
    const vz_def_controller *controller = vz_def_controller_find(b->def, type, drive->controller);
    if (!controller) {
        vz_argv_fail(b, "disk '%s' is on a controller that does not exist", disk->target);
        return;
    }
    bool own = drive->controller == 0 && (type == VZ_CONTROLLER_IDE ||
                                          (type == VZ_CONTROLLER_SATA && vz_argv_is_q35(b->def)));
    const char *name = own ? "ide" : vz_argv_alias(b, &controller->info);
    if (type == VZ_CONTROLLER_SCSI) {
        json_object_set_new(device, "bus", json_sprintf("%s.0", name));
        json_object_set_new(device, "channel", json_integer(drive->bus));
        json_object_set_new(device, "scsi-id", json_integer(drive->target));
        json_object_set_new(device, "lun", json_integer(drive->unit));
    } else if (type == VZ_CONTROLLER_SATA) {
        json_object_set_new(device, "bus", json_sprintf("%s.%u", name, drive->unit));
    } else {
        json_object_set_new(device, "bus", json_sprintf("%s.%u", name, drive->bus));
        json_object_set_new(device, "unit", json_integer(drive->unit));
    }
}

/* libvirt's policies in QEMU's words; reading has no "enospace". */
static void set_error_policy(json_t *device, const vz_def_disk *disk)
{
    vz_disk_error_policy on_write = disk->error_policy;
    vz_disk_error_policy on_read = disk->read_error_policy;
    if (!on_read && on_write != VZ_ERROR_POLICY_ENOSPACE)
        on_read = on_write;
    if (on_write)
        json_object_set_new(device, "werror",
                            json_string(on_write == VZ_ERROR_POLICY_ENOSPACE
                                            ? "enospc"
                                            : vz_disk_error_policy_word(on_write)));
    if (on_read)
        json_object_set_new(device, "rerror", json_string(vz_disk_error_policy_word(on_read)));
}

static void add_device(vz_argv_builder *b, const vz_def_disk *disk, bool has_image)
{
    const char *alias = vz_argv_alias(b, &disk->info);
    json_t *device = vz_argv_new_device(device_driver(b, disk), alias);
    if (disk->bus == VZ_DISK_BUS_VIRTIO)
        vz_argv_set_pci(b, device, &disk->info);
    else
        set_drive_address(b, device, disk);
    if (disk->bus == VZ_DISK_BUS_SCSI && !disk->serial)
        json_object_set_new(device, "device_id", json_string(alias));
    if (disk->shareable)
        json_object_set_new(device, "share-rw", json_true());
    if (has_image) {
        g_autofree char *node = vz_qemu_node_name(disk);
        json_object_set_new(device, "drive", json_string(node));
    }
    uint32_t boot_index = vz_argv_boot_index_of_disk(b->def, disk);
    if (boot_index)
        json_object_set_new(device, "bootindex", json_integer(boot_index));
    cache_mode cache = cache_of(disk->cache);
    if (cache.set && disk->device != VZ_DISK_DEVICE_CDROM)
        json_object_set_new(device, "write-cache", json_string(cache.write_cache ? "on" : "off"));
    if (disk->serial)
        json_object_set_new(device, "serial", json_string(disk->serial));
    set_error_policy(device, disk);
    vz_argv_add_device(b, device);
}

void vz_argv_add_disks(vz_argv_builder *b)
{
    for (size_t i = 0; i < b->def->n_disks; i++) {
        const vz_def_disk *disk = &b->def->disks[i];
        const vz_qemu_disk_images *images = &b->resources->disks[i];
        for (size_t at = images->n_layers; at-- > 0;)
            add_format_node(b, disk, images, at);
        add_device(b, disk, images->n_layers > 0);
    }
}
