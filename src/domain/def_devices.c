/* def_devices.c - see def_devices.h. */
#include "domain/def_devices.h"

#include "domain/def_fill.h"

#include <stdarg.h>
#include <stdio.h>

static vz_def_device *add(GArray *devices, vz_def_info *info, vz_address_type wants,
                          const char *format, ...) G_GNUC_PRINTF(4, 5);

static vz_def_device *add(GArray *devices, vz_def_info *info, vz_address_type wants,
                          const char *format, ...)
{
    vz_def_device device = {.info = info, .wants = wants};
    va_list args;
    va_start(args, format);
    vsnprintf(device.what, sizeof(device.what), format, args);
    va_end(args);
    g_array_append_val(devices, device);
    return &g_array_index(devices, vz_def_device, devices->len - 1);
}

static bool controller_is_express(const vz_def_controller *controller)
{
    return controller->type == VZ_CONTROLLER_SCSI ||
           controller->type == VZ_CONTROLLER_VIRTIO_SERIAL ||
           controller->model == VZ_MODEL_QEMU_XHCI || controller->model == VZ_MODEL_NEC_XHCI;
}

static void add_controllers(vz_def *def, GArray *devices, bool pci)
{
    for (size_t i = 0; i < def->n_controllers; i++) {
        vz_def_controller *controller = &def->controllers[i];
        vz_controller_model model = controller->model;
        bool no_address =
            model == VZ_MODEL_PCI_ROOT || model == VZ_MODEL_PCIE_ROOT || model == VZ_MODEL_USB_NONE;
        if ((controller->type == VZ_CONTROLLER_PCI) != pci)
            continue;
        vz_def_device *device =
            add(devices, &controller->info, no_address ? VZ_ADDRESS_NONE : VZ_ADDRESS_PCI,
                "controller type='%s' index='%u'", vz_controller_type_word(controller->type),
                controller->index);
        device->controller = controller;
        device->express = controller_is_express(controller);
    }
}

static void add_interfaces(vz_def *def, GArray *devices)
{
    for (size_t i = 0; i < def->n_interfaces; i++) {
        vz_def_interface *interface = &def->interfaces[i];
        add(devices, &interface->info, VZ_ADDRESS_PCI, "interface %zu", i + 1)->express =
            interface->model == VZ_NIC_VIRTIO || interface->model == VZ_NIC_E1000E;
    }
}

static void add_disks(vz_def *def, GArray *devices)
{
    for (size_t i = 0; i < def->n_disks; i++) {
        vz_def_disk *disk = &def->disks[i];
        bool pci = disk->bus == VZ_DISK_BUS_VIRTIO;
        add(devices, &disk->info, pci ? VZ_ADDRESS_PCI : VZ_ADDRESS_DRIVE, "disk '%.40s'",
            disk->target)
            ->express = true;
    }
}

static void add_videos(vz_def *def, GArray *devices)
{
    for (size_t i = 0; i < def->n_videos; i++) {
        vz_def_video *video = &def->videos[i];
        bool pci = video->model != VZ_VIDEO_ABSENT;
        add(devices, &video->info, pci ? VZ_ADDRESS_PCI : VZ_ADDRESS_NONE, "video %zu", i + 1)
            ->express = video->model == VZ_VIDEO_VIRTIO || video->model == VZ_VIDEO_BOCHS;
    }
}

static void add_inputs(vz_def *def, GArray *devices)
{
    static const vz_address_type wants[] = {
        [VZ_INPUT_BUS_USB] = VZ_ADDRESS_USB,
        [VZ_INPUT_BUS_PS2] = VZ_ADDRESS_NONE,
        [VZ_INPUT_BUS_VIRTIO] = VZ_ADDRESS_PCI,
    };
    for (size_t i = 0; i < def->n_inputs; i++)
        add(devices, &def->inputs[i].info, wants[def->inputs[i].bus], "input %zu", i + 1)->express =
            true;
}

static void add_chardevs(vz_def *def, GArray *devices)
{
    for (size_t i = 0; i < def->n_serials; i++)
        add(devices, &def->serials[i].info, VZ_ADDRESS_NONE, "serial %zu", i + 1);
    for (size_t i = 0; i < def->n_consoles; i++) {
        bool is_virtio = def->consoles[i].target == VZ_CONSOLE_VIRTIO;
        add(devices, &def->consoles[i].info, is_virtio ? VZ_ADDRESS_VIRTIO_SERIAL : VZ_ADDRESS_NONE,
            "console %zu", i + 1);
    }
    for (size_t i = 0; i < def->n_channels; i++)
        add(devices, &def->channels[i].info, VZ_ADDRESS_VIRTIO_SERIAL, "channel %zu", i + 1);
}

static void add_small(vz_def *def, GArray *devices)
{
    for (size_t i = 0; i < def->n_balloons; i++) {
        bool pci = def->balloons[i].model == VZ_BALLOON_VIRTIO;
        add(devices, &def->balloons[i].info, pci ? VZ_ADDRESS_PCI : VZ_ADDRESS_NONE, "memballoon")
            ->express = true;
    }
    for (size_t i = 0; i < def->n_rngs; i++)
        add(devices, &def->rngs[i].info, VZ_ADDRESS_PCI, "rng %zu", i + 1)->express = true;
    for (size_t i = 0; i < def->n_watchdogs; i++) {
        bool pci = def->watchdogs[i].model == VZ_WATCHDOG_I6300ESB;
        add(devices, &def->watchdogs[i].info, pci ? VZ_ADDRESS_PCI : VZ_ADDRESS_NONE,
            "watchdog %zu", i + 1);
    }
}

GArray *vz_def_devices(vz_def *def)
{
    GArray *devices = g_array_new(FALSE, FALSE, sizeof(vz_def_device));
    add_controllers(def, devices, true);
    add_interfaces(def, devices);
    add_controllers(def, devices, false);
    add_disks(def, devices);
    add_small(def, devices);
    add_videos(def, devices);
    add_inputs(def, devices);
    add_chardevs(def, devices);
    for (guint i = 0; i < devices->len; i++)
        g_array_index(devices, vz_def_device, i).express &= vz_def_is_q35(def);
    return devices;
}
