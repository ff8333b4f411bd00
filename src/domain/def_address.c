/* def_address.c - addresses behind a controller: drives, USB ports, virtio-serial ports.
 *
 * Written addresses are kept or refused; missing ones follow libvirt's rules, so that the same
 * document gives the same machine. Builder's thread. */
#include "domain/def_fill.h"

#include "domain/def_devices.h"

#include <string.h>

#define IDE_PER_CONTROLLER   4
#define SATA_PER_CONTROLLER  6
#define SCSI_PER_CONTROLLER  15 /* of 16 units: unit 7 is the controller itself */
#define SCSI_CONTROLLER_UNIT 7
#define DISK_INDEX_MAX       3000
#define SERIAL_PORTS_DEFAULT 31
#define CONTROLLER_INDEXES   256

int vz_def_disk_index(const char *target)
{
    static const char *const prefixes[] = {"vd", "sd", "hd", "xvd"};
    int index = 0;
    const char *letters = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(prefixes) && !letters; i++)
        if (g_str_has_prefix(target, prefixes[i]))
            letters = target + strlen(prefixes[i]);
    if (!letters || !*letters)
        return -1;
    for (const char *p = letters; *p; p++) {
        if (*p < 'a' || *p > 'z' || index > DISK_INDEX_MAX)
            return -1;
        index = (index + (p > letters)) * 26 + (*p - 'a');
    }
    return index <= DISK_INDEX_MAX ? index : -1;
}

static void drive_of_index(vz_disk_bus bus, uint32_t index, vz_def_drive_address *drive)
{
    if (bus == VZ_DISK_BUS_IDE) {
        drive->controller = index / IDE_PER_CONTROLLER;
        drive->bus = index % IDE_PER_CONTROLLER / 2;
        drive->unit = index % 2;
    } else if (bus == VZ_DISK_BUS_SATA) {
        drive->controller = index / SATA_PER_CONTROLLER;
        drive->unit = index % SATA_PER_CONTROLLER;
    } else {
        drive->controller = index / SCSI_PER_CONTROLLER;
        drive->unit = index % SCSI_PER_CONTROLLER;
        drive->unit += drive->unit >= SCSI_CONTROLLER_UNIT;
    }
}

static bool drive_exists(const vz_def_disk *disk, GError **err)
{
    const vz_def_drive_address *drive = &disk->info.address.drive;
    bool good = true;
    if (disk->bus == VZ_DISK_BUS_IDE)
        good = drive->controller == 0 && drive->bus <= 1 && drive->target == 0 && drive->unit <= 1;
    else if (disk->bus == VZ_DISK_BUS_SATA)
        good = drive->bus == 0 && drive->target == 0 && drive->unit < SATA_PER_CONTROLLER;
    else
        good = drive->bus == 0;
    return good || vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "disk '%s': a %s controller has no place at controller='%u' bus='%u' "
                           "target='%u' unit='%u'",
                           disk->target, vz_disk_bus_word(disk->bus), drive->controller, drive->bus,
                           drive->target, drive->unit);
}

static bool drive_is_free(const vz_def *def, const vz_def_disk *disk, GError **err)
{
    for (size_t i = 0; i < def->n_disks; i++) {
        const vz_def_disk *other = &def->disks[i];
        const vz_def_drive_address *drive = &disk->info.address.drive;
        if (other == disk || other->bus != disk->bus ||
            other->info.address.type != VZ_ADDRESS_DRIVE ||
            memcmp(&other->info.address.drive, drive, sizeof(*drive)) != 0)
            continue;
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "found duplicate drive address for disks with target names '%s' and '%s' "
                       "controller='%u' bus='%u' target='%u' unit='%u'",
                       disk->target, other->target, drive->controller, drive->bus, drive->target,
                       drive->unit);
    }
    return true;
}

static bool fill_drive(const vz_def *def, vz_def_disk *disk, GError **err)
{
    vz_def_address *address = &disk->info.address;
    if (address->type == VZ_ADDRESS_NONE) {
        int index = vz_def_disk_index(disk->target);
        address->type = VZ_ADDRESS_DRIVE;
        drive_of_index(disk->bus, (uint32_t)index, &address->drive);
    }
    return address->type != VZ_ADDRESS_DRIVE || /* refused with the other wrong types */
           (drive_exists(disk, err) && drive_is_free(def, disk, err));
}

bool vz_def_fill_drive_addresses(vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].bus != VZ_DISK_BUS_VIRTIO && !fill_drive(def, &def->disks[i], err))
            return false;
    return true;
}

static bool check_types(vz_def *def, GError **err)
{
    g_autoptr(GArray) devices = vz_def_devices(def);
    for (guint i = 0; i < devices->len; i++) {
        const vz_def_device *device = &g_array_index(devices, vz_def_device, i);
        vz_address_type type = device->info->address.type;
        if (type != VZ_ADDRESS_NONE && type != device->wants)
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s cannot have an address of type '%s'",
                           device->what, vz_address_type_word(type));
    }
    return true;
}

/* Behind one USB bus; 0: there is none. Companions share their USB 2 controller's ports. */
static uint32_t usb_ports(const vz_def *def, uint32_t bus)
{
    const vz_def_controller *controller = vz_def_controller_find(def, VZ_CONTROLLER_USB, bus);
    if (!controller)
        return 0;
    if (controller->model == VZ_MODEL_QEMU_XHCI || controller->model == VZ_MODEL_NEC_XHCI)
        return controller->has_ports ? controller->ports : 4;
    if (controller->model == VZ_MODEL_PIIX3_UHCI || controller->model == VZ_MODEL_PIIX4_UHCI)
        return 2;
    return controller->model == VZ_MODEL_USB_NONE ? 0 : 6;
}

static bool usb_taken(const vz_def *def, uint32_t bus, const char *port, const vz_def_input *self)
{
    for (size_t i = 0; i < def->n_inputs; i++) {
        const vz_def_input *input = &def->inputs[i];
        const vz_def_address *address = &input->info.address;
        if (input != self && address->type == VZ_ADDRESS_USB && address->usb.bus == bus &&
            g_strcmp0(address->usb.port, port) == 0)
            return true;
    }
    return false;
}

static bool pick_usb(const vz_def *def, vz_def_address *address, GError **err)
{
    bool any_bus = address->type == VZ_ADDRESS_NONE;
    for (uint32_t bus = 0; bus < CONTROLLER_INDEXES; bus++) {
        if (!any_bus && bus != address->usb.bus)
            continue;
        for (uint32_t n = 1; n <= usb_ports(def, bus); n++) {
            g_autofree char *port = g_strdup_printf("%u", n);
            if (usb_taken(def, bus, port, NULL))
                continue;
            address->type = VZ_ADDRESS_USB;
            address->usb.bus = bus;
            address->usb.port = g_steal_pointer(&port);
            return true;
        }
    }
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "no free USB port: USB hubs are not supported");
}

static bool check_usb(const vz_def *def, const vz_def_input *input, GError **err)
{
    const vz_def_usb_address *usb = &input->info.address.usb;
    uint64_t port;
    if (usb->port && !vz_parse_u64(usb->port, "the USB port", 1, 255, &port, err)) {
        g_clear_error(err);
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "USB port '%s' is not supported by virtvz: it has no hubs", usb->port);
    }
    if (usb->port && port > usb_ports(def, usb->bus))
        return vz_fail(err, VZ_ERR_XML_ERROR, "USB bus %u has no port %s", usb->bus, usb->port);
    if (usb->port && usb_taken(def, usb->bus, usb->port, input))
        return vz_fail(err, VZ_ERR_XML_ERROR, "duplicate USB address bus %u port %s", usb->bus,
                       usb->port);
    return true;
}

static bool fill_usb(vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_inputs; i++)
        if (def->inputs[i].info.address.type == VZ_ADDRESS_USB &&
            !check_usb(def, &def->inputs[i], err))
            return false;
    for (size_t i = 0; i < def->n_inputs; i++) {
        vz_def_input *input = &def->inputs[i];
        if (input->bus == VZ_INPUT_BUS_USB && !input->info.address.usb.port &&
            !pick_usb(def, &input->info.address, err))
            return false;
    }
    return true;
}

static bool serial_taken(GArray *devices, uint32_t controller, uint32_t port,
                         const vz_def_info *self)
{
    for (guint i = 0; i < devices->len; i++) {
        const vz_def_info *info = g_array_index(devices, vz_def_device, i).info;
        if (info != self && info->address.type == VZ_ADDRESS_VIRTIO_SERIAL &&
            info->address.virtio_serial.controller == controller &&
            info->address.virtio_serial.port == port)
            return true;
    }
    return false;
}

static uint32_t serial_ports(const vz_def *def, uint32_t index)
{
    const vz_def_controller *controller =
        vz_def_controller_find(def, VZ_CONTROLLER_VIRTIO_SERIAL, index);
    if (!controller)
        return 0;
    return controller->has_ports ? controller->ports : SERIAL_PORTS_DEFAULT;
}

/* Port 0 is for a console; a channel there would become one. */
static bool pick_serial(const vz_def *def, GArray *devices, vz_def_address *address, uint32_t first,
                        GError **err)
{
    bool any = address->type == VZ_ADDRESS_NONE;
    for (uint32_t index = 0; index < CONTROLLER_INDEXES; index++) {
        if (!any && index != address->virtio_serial.controller)
            continue;
        for (uint32_t port = first; port < serial_ports(def, index); port++) {
            if (serial_taken(devices, index, port, NULL))
                continue;
            address->type = VZ_ADDRESS_VIRTIO_SERIAL;
            address->virtio_serial.controller = index;
            address->virtio_serial.port = port;
            return true;
        }
    }
    return vz_fail(err, VZ_ERR_XML_ERROR, "no free virtio-serial port");
}

static bool check_serial(const vz_def *def, GArray *devices, const vz_def_device *device,
                         GError **err)
{
    const vz_def_virtio_serial_address *at = &device->info->address.virtio_serial;
    if (at->bus != 0 || at->port >= serial_ports(def, at->controller))
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "%s: virtio-serial controller %u has no port %u on bus %u", device->what,
                       at->controller, at->port, at->bus);
    if (serial_taken(devices, at->controller, at->port, device->info))
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "%s: virtio-serial controller %u port %u is already occupied", device->what,
                       at->controller, at->port);
    return true;
}

static bool is_console(const vz_def *def, const vz_def_info *info)
{
    for (size_t i = 0; i < def->n_consoles; i++)
        if (&def->consoles[i].info == info)
            return true;
    return false;
}

static bool fill_serial(vz_def *def, GError **err)
{
    g_autoptr(GArray) devices = vz_def_devices(def);
    g_autoptr(GPtrArray) open_ones = g_ptr_array_new();
    for (guint i = 0; i < devices->len; i++) {
        vz_def_device *device = &g_array_index(devices, vz_def_device, i);
        const vz_def_address *address = &device->info->address;
        if (device->wants != VZ_ADDRESS_VIRTIO_SERIAL)
            continue;
        if (address->type == VZ_ADDRESS_NONE ||
            (address->virtio_serial.port == 0 && !is_console(def, device->info)))
            g_ptr_array_add(open_ones, device);
        else if (!check_serial(def, devices, device, err))
            return false;
    }
    for (guint i = 0; i < open_ones->len; i++) {
        vz_def_device *device = g_ptr_array_index(open_ones, i);
        uint32_t first = is_console(def, device->info) ? 0 : 1;
        if (!pick_serial(def, devices, &device->info->address, first, err))
            return false;
    }
    return true;
}

bool vz_def_fill_addresses(vz_def *def, GError **err)
{
    return check_types(def, err) && fill_usb(def, err) && fill_serial(def, err);
}
