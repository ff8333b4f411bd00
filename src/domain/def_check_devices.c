/* def_check_devices.c - the rules between the values of devices; see def_check.c. */
#include "domain/def_fill.h"

#include "domain/def_devices.h"

#include <net/if.h>
#include <string.h>

#define XHCI_PORTS_MAX       15
#define VNC_PASSWD_BYTES_MAX 8

static bool check_disk_place(const vz_def *def, const vz_def_disk *disk, GError **err)
{
    if (vz_def_disk_index(disk->target) < 0 || disk->bus == VZ_DISK_BUS_NONE)
        return vz_fail(
            err, VZ_ERR_XML_ERROR,
            "unknown disk name '%s': expected vdX, sdX or hdX, and a bus=", disk->target);
    if (disk->bus == VZ_DISK_BUS_IDE && vz_def_is_q35(def))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "IDE controllers are unsupported for this QEMU binary or machine type; "
                       "disk '%s' can use bus='sata'",
                       disk->target);
    for (const vz_def_disk *other = def->disks; other < disk; other++)
        if (strcmp(other->target, disk->target) == 0)
            return vz_fail(err, VZ_ERR_XML_ERROR,
                           "target '%s' duplicated for disk sources '%s' "
                           "and '%s'",
                           disk->target, other->path ? other->path : "",
                           disk->path ? disk->path : "");
    return true;
}

static bool check_disk(const vz_def_disk *disk, GError **err)
{
    bool cdrom = disk->device == VZ_DISK_DEVICE_CDROM;
    bool narrow = disk->bus == VZ_DISK_BUS_IDE || disk->bus == VZ_DISK_BUS_SATA;
    bool direct = disk->cache == VZ_DISK_CACHE_OFF || disk->cache == VZ_DISK_CACHE_DIRECTSYNC;
    if (!disk->path && !cdrom)
        return vz_fail(err, VZ_ERR_XML_ERROR, "missing source of disk '%s'", disk->target);
    if (disk->path && disk->path[0] != '/')
        return vz_fail(err, VZ_ERR_XML_ERROR, "disk '%s': path '%s' must be absolute", disk->target,
                       disk->path);
    if (cdrom && disk->bus == VZ_DISK_BUS_VIRTIO)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "disk '%s': a cdrom is not supported on bus 'virtio'; use sata or scsi",
                       disk->target);
    if (!cdrom && disk->readonly && narrow)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "readonly %s disks are not supported",
                       vz_disk_bus_word(disk->bus));
    if (disk->io == VZ_DISK_IO_NATIVE && !direct)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "native I/O needs either no disk cache or directsync cache mode (disk '%s')",
                       disk->target);
    if (disk->shareable && disk->format != VZ_DISK_FORMAT_RAW)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "shared access for disk '%s' requires use of supported storage format (raw)",
                       disk->target);
    return true;
}

static bool check_disks(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_disks; i++)
        if (!check_disk_place(def, &def->disks[i], err) || !check_disk(&def->disks[i], err))
            return false;
    return true;
}

static bool is_link_name(const char *name)
{
    return strlen(name) < IFNAMSIZ && !strpbrk(name, "/: \t\n%") && strcmp(name, ".") != 0 &&
           strcmp(name, "..") != 0;
}

static bool check_interfaces(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_interfaces; i++) {
        const vz_def_interface *interface = &def->interfaces[i];
        const char *names[] = {interface->bridge, interface->target};
        for (size_t n = 0; n < G_N_ELEMENTS(names); n++)
            if (names[n] && !is_link_name(names[n]))
                return vz_fail(err, VZ_ERR_XML_ERROR, "'%s' is not the name of a network link",
                               names[n]);
        if (interface->type == VZ_INTERFACE_USER && (interface->target || interface->mtu_bytes))
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "interface %zu: target and mtu are not supported for type 'user'",
                           i + 1);
    }
    return true;
}

static bool check_source(const vz_def_chardev *source, const char *what, bool path_picked,
                         GError **err)
{
    bool on_disk = source->type == VZ_CHARDEV_UNIX || source->type == VZ_CHARDEV_FILE;
    bool waits = source->type == VZ_CHARDEV_UNIX && source->mode != VZ_CHARDEV_MODE_CONNECT;
    if (on_disk && !source->path && !(path_picked && waits))
        return vz_fail(err, VZ_ERR_XML_ERROR, "missing source path of %s", what);
    if (on_disk && source->path && source->path[0] != '/')
        return vz_fail(err, VZ_ERR_XML_ERROR, "%s: path '%s' must be absolute", what, source->path);
    return true;
}

static bool same_source(const vz_def_chardev *a, const vz_def_chardev *b)
{
    return a->type == b->type &&
           (a->type == VZ_CHARDEV_PTY || (a->mode == b->mode && g_strcmp0(a->path, b->path) == 0));
}

static bool check_console(const vz_def *def, size_t i, GError **err)
{
    const vz_def_console *console = &def->consoles[i];
    if (console->target != VZ_CONSOLE_SERIAL)
        return check_source(&console->source, "a console", false, err);
    if (i > 0)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "only the first console can be a serial port");
    return same_source(&console->source, &def->serials[0].source) ||
           vz_fail(err, VZ_ERR_XML_ERROR,
                   "the first console is the first serial port, but their sources differ");
}

static bool check_chardevs(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_serials; i++) {
        if (!check_source(&def->serials[i].source, "a serial port", false, err))
            return false;
        if (strcmp(def->serials[i].model, "isa-serial") != 0 || def->serials[i].port > 3)
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "serial ports are of model 'isa-serial', and at most 4");
        for (size_t j = 0; j < i; j++)
            if (def->serials[j].port == def->serials[i].port)
                return vz_fail(err, VZ_ERR_XML_ERROR, "serial port %u is there twice",
                               def->serials[i].port);
    }
    for (size_t i = 0; i < def->n_consoles; i++)
        if (!check_console(def, i, err))
            return false;
    for (size_t i = 0; i < def->n_channels; i++)
        if (!check_source(&def->channels[i].source, "a channel", true, err))
            return false;
    return true;
}

static bool check_inputs(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_inputs; i++)
        if (def->inputs[i].type == VZ_INPUT_TABLET && def->inputs[i].bus == VZ_INPUT_BUS_PS2)
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "ps2 bus does not support tablet input device");
    return true;
}

static bool check_graphics(const vz_def *def, GError **err)
{
    if (def->n_graphics > 1)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "only 1 graphics device of each type is supported");
    if (def->n_audios > 1)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "only 1 audio backend is supported");
    const char *passwd = def->n_graphics > 0 ? def->graphics[0].passwd : NULL;
    if (passwd && strlen(passwd) > VNC_PASSWD_BYTES_MAX)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "VNC password is %zu characters long, only %d permitted", strlen(passwd),
                       VNC_PASSWD_BYTES_MAX);
    return true;
}

static bool check_videos(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_videos; i++) {
        const vz_def_video *video = &def->videos[i];
        if (video->model == VZ_VIDEO_ABSENT && def->n_videos > 1)
            return vz_fail(err, VZ_ERR_XML_ERROR,
                           "a 'none' video type must be the only video device");
        if (i > 0 && video->primary == VZ_YESNO_YES)
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "the primary video must come first");
        if (i > 0 && video->model != VZ_VIDEO_VIRTIO)
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "non-primary video device must be type of 'virtio'");
        if (video->model == VZ_VIDEO_VIRTIO && video->vram_kib > 0)
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "video type 'virtio' has no vram to be sized");
    }
    return true;
}

static bool check_small(const vz_def *def, GError **err)
{
    size_t itcos = 0;
    for (size_t i = 0; i < def->n_watchdogs; i++)
        itcos += def->watchdogs[i].model == VZ_WATCHDOG_ITCO;
    if (itcos > 1 || def->n_watchdogs > itcos + 1)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "only one watchdog of a model is supported");
    if (itcos > 0 && !vz_def_is_q35(def))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "watchdog model 'itco' is part of q35 machines only");
    if (def->n_balloons > 1)
        return vz_fail(err, VZ_ERR_XML_ERROR, "only a single memory balloon device is supported");
    for (size_t i = 0; i < def->n_rngs; i++)
        if (def->rngs[i].rate_period_ms > 0 && def->rngs[i].rate_bytes == 0)
            return vz_fail(err, VZ_ERR_XML_ERROR, "missing /domain/devices/rng/rate@bytes");
    return true;
}

static bool has_stray_member(const vz_def_controller *controller)
{
    vz_controller_model model = controller->model;
    bool xhci = model == VZ_MODEL_QEMU_XHCI || model == VZ_MODEL_NEC_XHCI;
    bool serial = controller->type == VZ_CONTROLLER_VIRTIO_SERIAL;
    bool uhci = model >= VZ_MODEL_ICH9_EHCI1 && model <= VZ_MODEL_ICH9_UHCI3;
    bool port = model == VZ_MODEL_PCIE_ROOT_PORT;
    return (controller->has_ports && !xhci && !serial) || (controller->has_vectors && !serial) ||
           (controller->has_start_port && !uhci) ||
           ((controller->has_chassis || controller->has_port) && !port) ||
           (controller->chassis_nr > 0 && model != VZ_MODEL_PCI_BRIDGE);
}

static bool pci_device_fits(const vz_def_controller *controller)
{
    switch (controller->pci_device) {
    case VZ_PCI_DEVICE_NONE:
        return true;
    case VZ_PCI_DEVICE_PCI_BRIDGE:
        return controller->model == VZ_MODEL_PCI_BRIDGE;
    case VZ_PCI_DEVICE_IOH3420:
    case VZ_PCI_DEVICE_PCIE_ROOT_PORT:
        return controller->model == VZ_MODEL_PCIE_ROOT_PORT;
    case VZ_PCI_DEVICE_PCIE_PCI_BRIDGE:
        return controller->model == VZ_MODEL_PCIE_TO_PCI_BRIDGE;
    }
    return false;
}

static bool check_pci_controller(const vz_def *def, const vz_def_controller *controller,
                                 GError **err)
{
    vz_controller_model model = controller->model;
    bool root = model == VZ_MODEL_PCI_ROOT || model == VZ_MODEL_PCIE_ROOT;
    bool express = model >= VZ_MODEL_PCIE_ROOT;
    if (root && controller->index != 0)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "pci-root and pcie-root controllers should have index 0");
    if (express && !vz_def_is_q35(def))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "PCI controller model '%s' needs a q35 machine",
                       vz_controller_model_word(model));
    return pci_device_fits(controller) ||
           vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                   "PCI controller model name '%s' is not supported for model '%s'",
                   vz_pci_device_word(controller->pci_device), vz_controller_model_word(model));
}

static bool check_other_controller(const vz_def *def, const vz_def_controller *controller,
                                   GError **err)
{
    vz_controller_model model = controller->model;
    bool xhci = model == VZ_MODEL_QEMU_XHCI || model == VZ_MODEL_NEC_XHCI;
    if (controller->type == VZ_CONTROLLER_IDE && (vz_def_is_q35(def) || controller->index > 0))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "IDE controllers are unsupported for this QEMU binary or machine type");
    if (xhci && controller->has_ports && controller->ports > XHCI_PORTS_MAX)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "'%s' controller only supports up to '%d' ports",
                       vz_controller_model_word(model), XHCI_PORTS_MAX);
    for (size_t i = 0; model == VZ_MODEL_USB_NONE && i < def->n_controllers; i++)
        if (&def->controllers[i] != controller && def->controllers[i].type == VZ_CONTROLLER_USB)
            return vz_fail(err, VZ_ERR_XML_ERROR,
                           "can't add another USB controller: USB is disabled for this domain");
    return true;
}

static bool check_controllers(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_controllers; i++) {
        const vz_def_controller *controller = &def->controllers[i];
        bool pci = controller->type == VZ_CONTROLLER_PCI;
        if (has_stray_member(controller))
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "controller type='%s' index='%u': ports, vectors, master or target is "
                           "not supported for model '%s'",
                           vz_controller_type_word(controller->type), controller->index,
                           vz_controller_model_word(controller->model));
        if (!(pci ? check_pci_controller(def, controller, err)
                  : check_other_controller(def, controller, err)))
            return false;
    }
    return true;
}

static bool is_qemu_id(const char *alias)
{
    return strlen(alias) < 64 &&
           strspn(alias, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") ==
               strlen(alias);
}

/* Those that the user chose; the others are made so that they differ. */
static bool check_aliases(const vz_def *def, GError **err)
{
    g_autoptr(vz_def) copy = vz_def_copy(def);
    g_autoptr(GArray) devices = vz_def_devices(copy);
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    for (guint i = 0; i < devices->len; i++) {
        const vz_def_device *device = &g_array_index(devices, vz_def_device, i);
        char *alias = device->info->alias;
        if (!alias || !g_str_has_prefix(alias, VZ_DEF_USER_ALIAS_PREFIX))
            continue;
        if (!is_qemu_id(alias))
            return vz_fail(err, VZ_ERR_XML_ERROR, "alias '%s' of %s is malformed", alias,
                           device->what);
        bool mirror = g_str_has_prefix(device->what, "console");
        if (!g_hash_table_add(seen, alias) && !mirror)
            return vz_fail(err, VZ_ERR_XML_ERROR, "non unique alias detected: %s", alias);
    }
    return true;
}

bool vz_def_check_devices(const vz_def *def, GError **err)
{
    return check_disks(def, err) && check_interfaces(def, err) && check_chardevs(def, err) &&
           check_inputs(def, err) && check_graphics(def, err) && check_videos(def, err) &&
           check_small(def, err) && check_controllers(def, err) && check_aliases(def, err);
}
