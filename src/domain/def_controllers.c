/* def_controllers.c - which controllers a machine has: the written ones, those that are in every
 * machine of its kind, and those that its devices need. See def_fill.h. */
#include "domain/def_fill.h"

#include <string.h>

static bool is_ich9(vz_controller_model model)
{
    return model >= VZ_MODEL_ICH9_EHCI1 && model <= VZ_MODEL_ICH9_UHCI3;
}

vz_def_controller *vz_def_controller_add(vz_def *def, vz_controller_type type, uint32_t index,
                                         vz_controller_model model)
{
    size_t at = def->n_controllers;
    bool seen = false;
    for (size_t i = 0; i < def->n_controllers; i++) {
        const vz_def_controller *other = &def->controllers[i];
        if (other->type != type)
            continue;
        if (other->index <= index || !seen)
            at = other->index <= index ? i + 1 : i;
        seen = true;
        if (other->index > index)
            break;
    }
    def->controllers = g_renew(vz_def_controller, def->controllers, def->n_controllers + 1);
    vz_def_controller *controller = &def->controllers[at];
    memmove(controller + 1, controller, (def->n_controllers - at) * sizeof(*controller));
    memset(controller, 0, sizeof(*controller));
    def->n_controllers++;
    controller->type = type;
    controller->has_index = true;
    controller->index = index;
    controller->model = model;
    return controller;
}

static void add_if_missing(vz_def *def, vz_controller_type type, uint32_t index,
                           vz_controller_model model)
{
    if (!vz_def_controller_find(def, type, index))
        vz_def_controller_add(def, type, index, model);
}

static uint32_t free_index(const vz_def *def, vz_controller_type type)
{
    for (uint32_t index = 0;; index++) {
        bool taken = false;
        for (size_t i = 0; i < def->n_controllers; i++)
            taken = taken || (def->controllers[i].has_index && def->controllers[i].type == type &&
                              def->controllers[i].index == index);
        if (!taken)
            return index;
    }
}

/* A companion belongs to the USB 2 controller written before it. */
static uint32_t index_for(const vz_def *def, size_t at)
{
    const vz_def_controller *controller = &def->controllers[at];
    if (is_ich9(controller->model))
        for (size_t i = at; i-- > 0;)
            if (is_ich9(def->controllers[i].model))
                return def->controllers[i].index;
    return free_index(def, controller->type);
}

static vz_controller_model default_model(const vz_def *def, vz_controller_type type)
{
    switch (type) {
    case VZ_CONTROLLER_USB:
        return vz_def_is_q35(def) ? VZ_MODEL_QEMU_XHCI : VZ_MODEL_PIIX3_UHCI;
    case VZ_CONTROLLER_SCSI:
        return VZ_MODEL_VIRTIO_SCSI;
    case VZ_CONTROLLER_PCI:
    case VZ_CONTROLLER_SATA:
    case VZ_CONTROLLER_IDE:
    case VZ_CONTROLLER_VIRTIO_SERIAL:
    case VZ_CONTROLLER_NONE:
        break;
    }
    return VZ_MODEL_NONE;
}

static bool model_fits(vz_controller_type type, vz_controller_model model)
{
    switch (type) {
    case VZ_CONTROLLER_PCI:
        return model >= VZ_MODEL_PCI_ROOT && model <= VZ_MODEL_PCIE_TO_PCI_BRIDGE;
    case VZ_CONTROLLER_USB:
        return model >= VZ_MODEL_PIIX3_UHCI && model <= VZ_MODEL_USB_NONE;
    case VZ_CONTROLLER_SCSI:
        return model == VZ_MODEL_VIRTIO_SCSI;
    case VZ_CONTROLLER_IDE:
        return model == VZ_MODEL_NONE || model == VZ_MODEL_PIIX3_IDE;
    case VZ_CONTROLLER_SATA:
    case VZ_CONTROLLER_VIRTIO_SERIAL:
        return model == VZ_MODEL_NONE;
    case VZ_CONTROLLER_NONE:
        break;
    }
    return false;
}

static bool twice(const vz_def *def, size_t at)
{
    const vz_def_controller *controller = &def->controllers[at];
    for (size_t i = 0; i < at; i++) {
        const vz_def_controller *other = &def->controllers[i];
        bool companions = is_ich9(controller->model) && is_ich9(other->model) &&
                          controller->model != other->model;
        if (other->type == controller->type && other->index == controller->index && !companions)
            return true;
    }
    return false;
}

static bool settle_written(vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_controllers; i++) {
        vz_def_controller *controller = &def->controllers[i];
        if (!controller->has_index)
            controller->index = index_for(def, i);
        controller->has_index = true;
        if (controller->model == VZ_MODEL_NONE)
            controller->model = default_model(def, controller->type);
        const char *type = vz_controller_type_word(controller->type);
        if (!model_fits(controller->type, controller->model))
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                           "model '%s' of controller type '%s' is not supported by virtvz",
                           vz_controller_model_word(controller->model), type);
        if (twice(def, i))
            return vz_fail(err, VZ_ERR_XML_ERROR, "multiple '%s' controllers with index '%u'", type,
                           controller->index);
    }
    return true;
}

static bool add_pci_root(vz_def *def, vz_controller_model model, GError **err)
{
    const vz_def_controller *root = vz_def_controller_find(def, VZ_CONTROLLER_PCI, 0);
    if (!root) {
        vz_def_controller_add(def, VZ_CONTROLLER_PCI, 0, model);
        return true;
    }
    return root->model == model ||
           vz_fail(err, VZ_ERR_XML_ERROR,
                   "the PCI controller with index='0' must be model='%s' for this machine type, "
                   "but model='%s' was found instead",
                   vz_controller_model_word(model), vz_controller_model_word(root->model));
}

bool vz_def_fill_root_controllers(vz_def *def, GError **err)
{
    bool q35 = vz_def_is_q35(def);
    if (!q35 && !vz_def_is_i440fx(def))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "machine type '%s' is not supported by virtvz (it has: pc, q35)",
                       def->os.machine);
    if (!settle_written(def, err))
        return false;
    add_if_missing(def, VZ_CONTROLLER_USB, 0, default_model(def, VZ_CONTROLLER_USB));
    if (q35)
        add_if_missing(def, VZ_CONTROLLER_SATA, 0, VZ_MODEL_NONE);
    return add_pci_root(def, q35 ? VZ_MODEL_PCIE_ROOT : VZ_MODEL_PCI_ROOT, err);
}

static void add_for_disks(vz_def *def, vz_disk_bus bus, vz_controller_type type)
{
    for (size_t i = 0; i < def->n_disks; i++) {
        if (def->disks[i].bus != bus)
            continue;
        for (uint32_t index = 0; index <= def->disks[i].info.address.drive.controller; index++)
            add_if_missing(def, type, index, default_model(def, type));
    }
}

static void add_virtio_serial(vz_def *def, const vz_def_info *info)
{
    uint32_t index =
        info->address.type == VZ_ADDRESS_VIRTIO_SERIAL ? info->address.virtio_serial.controller : 0;
    add_if_missing(def, VZ_CONTROLLER_VIRTIO_SERIAL, index, VZ_MODEL_NONE);
}

void vz_def_fill_device_controllers(vz_def *def)
{
    add_for_disks(def, VZ_DISK_BUS_SCSI, VZ_CONTROLLER_SCSI);
    add_for_disks(def, VZ_DISK_BUS_IDE, VZ_CONTROLLER_IDE);
    add_for_disks(def, VZ_DISK_BUS_SATA, VZ_CONTROLLER_SATA);
    for (size_t i = 0; i < def->n_consoles; i++)
        if (def->consoles[i].target == VZ_CONSOLE_VIRTIO)
            add_virtio_serial(def, &def->consoles[i].info);
    for (size_t i = 0; i < def->n_channels; i++)
        add_virtio_serial(def, &def->channels[i].info);
}
