/* def_alias.c - the names by which QEMU, events and clients know the devices of a live definition;
 * libvirt's, so that tools which know them find them. See vz_def_assign_aliases in def.h. */
#include "domain/def.h"

#include "domain/def_fill.h"

#include <stdarg.h>

static void name(vz_def_info *info, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void name(vz_def_info *info, const char *format, ...)
{
    va_list args;
    if (info->alias)
        return;
    va_start(args, format);
    info->alias = g_strdup_vprintf(format, args);
    va_end(args);
}

static void name_disk(vz_def_disk *disk)
{
    const vz_def_drive_address *at = &disk->info.address.drive;
    const char *bus = vz_disk_bus_word(disk->bus);
    if (disk->bus == VZ_DISK_BUS_VIRTIO)
        name(&disk->info, "virtio-disk%d", vz_def_disk_index(disk->target));
    else if (disk->bus == VZ_DISK_BUS_SCSI)
        name(&disk->info, "%s%u-%u-%u-%u", bus, at->controller, at->bus, at->target, at->unit);
    else
        name(&disk->info, "%s%u-%u-%u", bus, at->controller, at->bus, at->unit);
}

static void name_usb(vz_def_controller *controller)
{
    g_autofree char *usb =
        controller->index > 0 ? g_strdup_printf("usb%u", controller->index) : g_strdup("usb");
    if (controller->model >= VZ_MODEL_ICH9_UHCI1 && controller->model <= VZ_MODEL_ICH9_UHCI3)
        name(&controller->info, "%s-uhci%u", usb,
             (unsigned)controller->model - VZ_MODEL_ICH9_UHCI1 + 1);
    else
        name(&controller->info, "%s", usb);
}

/* QEMU's own names for what is in the chipset: pci.0, pcie.0, ide. */
static void name_controller(const vz_def *def, vz_def_controller *controller)
{
    bool first = controller->index == 0;
    if (controller->type == VZ_CONTROLLER_USB)
        name_usb(controller);
    else if (controller->model == VZ_MODEL_PCIE_ROOT)
        name(&controller->info, "pcie.0");
    else if (controller->type == VZ_CONTROLLER_PCI)
        name(&controller->info, "pci.%u", controller->index);
    else if (first && (controller->type == VZ_CONTROLLER_IDE ||
                       (controller->type == VZ_CONTROLLER_SATA && vz_def_is_q35(def))))
        name(&controller->info, "ide");
    else
        name(&controller->info, "%s%u", vz_controller_type_word(controller->type),
             controller->index);
}

#define NAME_ALL(array, word)                                                                      \
    for (size_t i = 0; i < def->n_##array; i++)                                                    \
    name(&def->array[i].info, word "%zu", i)

void vz_def_assign_aliases(vz_def *def)
{
    for (size_t i = 0; i < def->n_disks; i++)
        name_disk(&def->disks[i]);
    for (size_t i = 0; i < def->n_controllers; i++)
        name_controller(def, &def->controllers[i]);
    NAME_ALL(interfaces, "net");
    NAME_ALL(serials, "serial");
    NAME_ALL(channels, "channel");
    NAME_ALL(inputs, "input");
    NAME_ALL(videos, "video");
    NAME_ALL(watchdogs, "watchdog");
    NAME_ALL(balloons, "balloon");
    NAME_ALL(rngs, "rng");
    for (size_t i = 0; i < def->n_consoles; i++)
        if (def->consoles[i].target == VZ_CONSOLE_VIRTIO)
            name(&def->consoles[i].info, "console%zu", i);
    vz_def_sync_consoles(def);
}
