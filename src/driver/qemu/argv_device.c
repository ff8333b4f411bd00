/* argv_device.c - controllers, network cards, input, graphics, video, watchdog, balloon, rng. */
#include "driver/qemu/argv_build.h"

#include <string.h>

#define VNC_PORT_BASE 5900
/* QEMU takes the first free port itself, so no two of them can be given the same. */
#define VNC_AUTO_PORTS 1000

static void set_integer(json_t *device, const char *key, bool present, uint32_t value)
{
    if (present)
        json_object_set_new(device, key, json_integer(value));
}

static void add_pci_controller(vz_argv_builder *b, const vz_def_controller *c)
{
    if (c->model == VZ_MODEL_PCI_ROOT || c->model == VZ_MODEL_PCIE_ROOT)
        return; /* the machine's own */
    const char *driver = c->model == VZ_MODEL_PCIE_ROOT_PORT       ? "pcie-root-port"
                         : c->model == VZ_MODEL_PCIE_TO_PCI_BRIDGE ? "pcie-pci-bridge"
                                                                   : "pci-bridge";
    if (c->pci_device)
        driver = vz_pci_device_word(c->pci_device);
    json_t *device = json_pack("{s:s}", "driver", driver);
    set_integer(device, "port", c->has_port, c->port);
    set_integer(device, "chassis", c->has_chassis, c->chassis);
    set_integer(device, "chassis_nr", c->model == VZ_MODEL_PCI_BRIDGE,
                c->chassis_nr ? c->chassis_nr : c->index);
    json_object_set_new(device, "id", json_string(vz_argv_alias(b, &c->info)));
    vz_argv_set_pci(b, device, &c->info);
    vz_argv_add_device(b, device);
}

static const struct {
    vz_controller_model model;
    const char *driver;
} usb_drivers[] = {
    {VZ_MODEL_PIIX3_UHCI, "piix3-usb-uhci"}, {VZ_MODEL_PIIX4_UHCI, "piix4-usb-uhci"},
    {VZ_MODEL_ICH9_EHCI1, "ich9-usb-ehci1"}, {VZ_MODEL_ICH9_UHCI1, "ich9-usb-uhci1"},
    {VZ_MODEL_ICH9_UHCI2, "ich9-usb-uhci2"}, {VZ_MODEL_ICH9_UHCI3, "ich9-usb-uhci3"},
    {VZ_MODEL_NEC_XHCI, "nec-usb-xhci"},     {VZ_MODEL_QEMU_XHCI, "qemu-xhci"},
};

static const char *usb_driver(vz_controller_model model)
{
    for (size_t i = 0; i < G_N_ELEMENTS(usb_drivers); i++)
        if (usb_drivers[i].model == model)
            return usb_drivers[i].driver;
    return NULL;
}

static void add_usb_controller(vz_argv_builder *b, const vz_def_controller *c)
{
    const char *driver = usb_driver(c->model);
    if (c->model == VZ_MODEL_USB_NONE)
        return;
    if (!driver) {
        vz_argv_fail(b, "USB controller %u has no model that virtvz knows", c->index);
        return;
    }
    const char *alias = vz_argv_alias(b, &c->info);
    json_t *device = json_pack("{s:s}", "driver", driver);
    if (c->has_ports) {
        json_object_set_new(device, "p2", json_integer(c->ports));
        json_object_set_new(device, "p3", json_integer(c->ports));
    }
    if (c->has_start_port) {
        /* A companion has no bus of its own, but ports of the EHCI controller's. */
        json_object_set_new(device, "masterbus", json_sprintf("%s.0", alias));
        json_object_set_new(device, "firstport", json_integer(c->start_port));
    } else {
        json_object_set_new(device, "id", json_string(alias));
    }
    vz_argv_set_pci(b, device, &c->info);
    vz_argv_add_device(b, device);
}

static void add_other_controller(vz_argv_builder *b, const vz_def_controller *c, const char *driver)
{
    json_t *device = vz_argv_new_device(driver, vz_argv_alias(b, &c->info));
    set_integer(device, "max_ports", c->type == VZ_CONTROLLER_VIRTIO_SERIAL && c->has_ports,
                c->ports);
    set_integer(device, "vectors", c->has_vectors, c->vectors);
    vz_argv_set_pci(b, device, &c->info);
    vz_argv_add_device(b, device);
}

static void add_controller(vz_argv_builder *b, const vz_def_controller *c)
{
    switch (c->type) {
    case VZ_CONTROLLER_PCI:
        add_pci_controller(b, c);
        break;
    case VZ_CONTROLLER_USB:
        add_usb_controller(b, c);
        break;
    case VZ_CONTROLLER_SATA:
        if (c->index != 0 || !vz_argv_is_q35(b->def)) /* else the machine's own */
            add_other_controller(b, c, "ich9-ahci");
        break;
    case VZ_CONTROLLER_IDE:
        if (c->index != 0 || vz_argv_is_q35(b->def))
            vz_argv_fail(b, "there can be no IDE controller %u in this machine", c->index);
        break;
    case VZ_CONTROLLER_SCSI:
        add_other_controller(b, c, "virtio-scsi-pci");
        break;
    case VZ_CONTROLLER_VIRTIO_SERIAL:
        add_other_controller(b, c, "virtio-serial-pci");
        break;
    case VZ_CONTROLLER_NONE:
    default:
        vz_argv_fail(b, "controller %u has no type", c->index);
        break;
    }
}

void vz_argv_add_controllers(vz_argv_builder *b)
{
    /* Buses first, whatever the order in the definition: devices go onto them. */
    for (size_t i = 0; i < b->def->n_controllers; i++)
        if (b->def->controllers[i].type == VZ_CONTROLLER_PCI)
            add_controller(b, &b->def->controllers[i]);
    for (size_t i = 0; i < b->def->n_controllers; i++)
        if (b->def->controllers[i].type != VZ_CONTROLLER_PCI)
            add_controller(b, &b->def->controllers[i]);
}

static const char *nic_driver(vz_interface_model model)
{
    return model == VZ_NIC_VIRTIO || model == VZ_NIC_NONE ? "virtio-net-pci"
                                                          : vz_interface_model_word(model);
}

static void add_interface(vz_argv_builder *b, const vz_def_interface *interface, int tap_fd)
{
    const char *alias = vz_argv_alias(b, &interface->info);
    json_t *netdev = interface->type == VZ_INTERFACE_USER
                         ? json_pack("{s:s}", "type", "user")
                         : json_pack("{s:s, s:o}", "type", "tap", "fd", json_sprintf("%d", tap_fd));
    json_object_set_new(netdev, "id", json_sprintf("host%s", alias));
    vz_argv_add_json(b, "-netdev", netdev);

    const uint8_t *mac = interface->mac;
    json_t *device = vz_argv_new_device(nic_driver(interface->model), alias);
    json_object_set_new(device, "netdev", json_sprintf("host%s", alias));
    json_object_set_new(device, "mac",
                        json_sprintf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2],
                                     mac[3], mac[4], mac[5]));
    set_integer(device, "host_mtu",
                interface->mtu_bytes && g_str_equal(nic_driver(interface->model), "virtio-net-pci"),
                interface->mtu_bytes);
    vz_argv_set_pci(b, device, &interface->info);
    uint32_t boot_index = vz_argv_boot_index_of_interface(b->def, interface);
    set_integer(device, "bootindex", boot_index > 0, boot_index);
    vz_argv_add_device(b, device);
}

void vz_argv_add_interfaces(vz_argv_builder *b)
{
    for (size_t i = 0; i < b->def->n_interfaces; i++)
        add_interface(b, &b->def->interfaces[i], b->resources->tap_fds[i]);
}

static const char *input_name(vz_input_type type)
{
    return type == VZ_INPUT_KEYBOARD ? "keyboard" : vz_input_type_word(type);
}

static void add_input(vz_argv_builder *b, const vz_def_input *input)
{
    const vz_def_usb_address *usb = &input->info.address.usb;
    if (input->bus == VZ_INPUT_BUS_PS2)
        return; /* the machine's own */
    const char *alias = vz_argv_alias(b, &input->info);
    g_autofree char *driver =
        input->bus == VZ_INPUT_BUS_VIRTIO
            ? g_strdup_printf("virtio-%s-pci", input_name(input->type))
            : g_strdup_printf("usb-%s",
                              input->type == VZ_INPUT_KEYBOARD ? "kbd" : input_name(input->type));
    json_t *device = vz_argv_new_device(driver, alias);
    if (input->bus == VZ_INPUT_BUS_VIRTIO) {
        vz_argv_set_pci(b, device, &input->info);
    } else if (input->info.address.type == VZ_ADDRESS_USB) {
        const vz_def_controller *c = vz_def_controller_find(b->def, VZ_CONTROLLER_USB, usb->bus);
        json_object_set_new(device, "bus",
                            json_sprintf("%s.0", c ? vz_argv_alias(b, &c->info) : "usb"));
        if (usb->port)
            json_object_set_new(device, "port", json_string(usb->port));
    }
    vz_argv_add_device(b, device);
}

static void add_graphics(vz_argv_builder *b, const vz_def_graphics *graphics)
{
    const char *address = graphics->listen ? graphics->listen : b->resources->vnc_address;
    bool v6 = strchr(address, ':') != NULL;
    bool picked = graphics->autoport == VZ_YESNO_YES || graphics->port < 0;
    if (!picked && (graphics->port < VNC_PORT_BASE || graphics->port > G_MAXUINT16)) {
        vz_argv_fail(b, "vnc port must be in range [%d,%d]", VNC_PORT_BASE, G_MAXUINT16);
        return;
    }
    g_autoptr(GString) text = g_string_new(NULL);
    g_string_append_printf(text, "%s%s%s:%d", v6 ? "[" : "", address, v6 ? "]" : "",
                           picked ? 0 : graphics->port - VNC_PORT_BASE);
    if (picked)
        g_string_append_printf(text, ",to=%d", VNC_AUTO_PORTS - 1);
    if (graphics->passwd)
        g_string_append(text, ",password=on");
    if (b->def->n_audios > 0)
        g_string_append_printf(text, ",audiodev=audio%u", b->def->audios[0].id);
    vz_argv_add(b, "-vnc", text->str);
    if (graphics->keymap)
        vz_argv_add(b, "-k", graphics->keymap);
}

static void add_video(vz_argv_builder *b, const vz_def_video *video, bool first)
{
    bool primary = video->primary == VZ_YESNO_YES || (!video->primary && first);
    const char *driver;
    switch (video->model) {
    case VZ_VIDEO_VIRTIO:
        driver = primary ? "virtio-vga" : "virtio-gpu-pci";
        break;
    case VZ_VIDEO_VGA:
        driver = primary ? "VGA" : "secondary-vga";
        break;
    case VZ_VIDEO_CIRRUS:
        driver = "cirrus-vga";
        break;
    case VZ_VIDEO_BOCHS:
        driver = "bochs-display";
        break;
    case VZ_VIDEO_ABSENT:
    case VZ_VIDEO_NONE:
    default:
        return;
    }
    json_t *device = vz_argv_new_device(driver, vz_argv_alias(b, &video->info));
    set_integer(device, "max_outputs", video->model == VZ_VIDEO_VIRTIO && video->heads > 0,
                video->heads);
    set_integer(device, "vgamem_mb",
                (video->model == VZ_VIDEO_VGA || video->model == VZ_VIDEO_CIRRUS) &&
                    video->vram_kib >= 1024,
                video->vram_kib / 1024);
    if (video->model == VZ_VIDEO_BOCHS && video->vram_kib > 0)
        json_object_set_new(device, "vgamem", json_sprintf("%uk", video->vram_kib));
    vz_argv_set_pci(b, device, &video->info);
    vz_argv_add_device(b, device);
}

void vz_argv_add_display(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    for (size_t i = 0; i < def->n_inputs; i++)
        add_input(b, &def->inputs[i]);
    for (size_t i = 0; i < def->n_audios; i++)
        vz_argv_add_json(b, "-audiodev",
                         json_pack("{s:o, s:s}", "id", json_sprintf("audio%u", def->audios[i].id),
                                   "driver", "none"));
    for (size_t i = 0; i < def->n_graphics; i++)
        add_graphics(b, &def->graphics[i]);
    if (def->n_graphics == 0)
        vz_argv_add(b, "-display", "none");
    for (size_t i = 0; i < def->n_videos; i++)
        add_video(b, &def->videos[i], i == 0);
}

static void add_watchdog(vz_argv_builder *b, const vz_def_watchdog *watchdog)
{
    if (watchdog->model == VZ_WATCHDOG_ITCO) {
        vz_argv_add(b, "-global", "ICH9-LPC.noreboot=off"); /* it is the machine's own */
    } else {
        json_t *device = vz_argv_new_device("i6300esb", vz_argv_alias(b, &watchdog->info));
        vz_argv_set_pci(b, device, &watchdog->info);
        vz_argv_add_device(b, device);
    }
    vz_argv_add(b, "-watchdog-action",
                watchdog->action ? vz_watchdog_action_word(watchdog->action) : "reset");
}

static void add_rng(vz_argv_builder *b, const vz_def_rng *rng)
{
    const char *alias = vz_argv_alias(b, &rng->info);
    vz_argv_add_json(b, "-object",
                     json_pack("{s:s, s:o, s:s}", "qom-type", "rng-random", "id",
                               json_sprintf("obj%s", alias), "filename",
                               rng->path ? rng->path : "/dev/urandom"));
    json_t *device = vz_argv_new_device("virtio-rng-pci", alias);
    json_object_set_new(device, "rng", json_sprintf("obj%s", alias));
    set_integer(device, "max-bytes", rng->rate_bytes > 0, rng->rate_bytes);
    set_integer(device, "period", rng->rate_bytes > 0,
                rng->rate_period_ms ? rng->rate_period_ms : 1000);
    vz_argv_set_pci(b, device, &rng->info);
    vz_argv_add_device(b, device);
}

void vz_argv_add_others(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    for (size_t i = 0; i < def->n_watchdogs; i++)
        add_watchdog(b, &def->watchdogs[i]);
    for (size_t i = 0; i < def->n_balloons; i++) {
        const vz_def_balloon *balloon = &def->balloons[i];
        if (balloon->model != VZ_BALLOON_VIRTIO)
            continue;
        json_t *device = vz_argv_new_device("virtio-balloon-pci", vz_argv_alias(b, &balloon->info));
        vz_argv_set_pci(b, device, &balloon->info);
        vz_argv_add_device(b, device);
    }
    for (size_t i = 0; i < def->n_rngs; i++)
        add_rng(b, &def->rngs[i]);
}
