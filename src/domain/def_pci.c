/* def_pci.c - which device sits in which PCI slot.
 *
 * Follows libvirt's rules slot by slot, because a guest keeps its addresses for life and the same
 * document must give the same machine on every host. On pc all devices are in pci.0 (slot 1 is the
 * PIIX3, slot 2 the first video), overflowing into pci-bridges; on q35 PCI Express devices get a
 * pcie-root-port each, others sit behind a pcie-to-pci-bridge, and the chipset's own are in fixed
 * places. Two passes: the first only finds out which bridges and ports must be added. Builder's
 * thread. */
#include "domain/def_fill.h"

#include "domain/def_devices.h"

#include <string.h>

#define BUSES_MAX 256
#define SLOTS     32
#define FUNCTIONS 8
#define ANY       UINT32_MAX

/* What a device needs and what a bus takes. */
enum {
    PLUG_PCI = 1u << 0,
    PLUG_EXPRESS = 1u << 1,
    PLUG_ROOT_PORT = 1u << 2,
    PLUG_PCI_BRIDGE = 1u << 3,
    PLUG_PCIE_TO_PCI = 1u << 4,
    PLUG_BY_HAND = 1u << 5, /* of a bus: endpoints only where the document puts them */
};

typedef struct {
    vz_controller_model model; /* VZ_MODEL_NONE: no controller has this index */
    unsigned takes;
    uint32_t first_slot, last_slot;
    uint8_t used[SLOTS]; /* a bit per function */
    bool shared[SLOTS];  /* root ports fill a slot function by function */
} bus;

typedef struct {
    bus buses[BUSES_MAX];
    uint32_t n_buses;
    bool may_grow;
} bus_set;

static bool bus_init(bus *b, vz_controller_model model)
{
    static const struct {
        vz_controller_model model;
        unsigned takes;
        uint32_t first_slot, last_slot;
    } kinds[] = {
        {VZ_MODEL_PCI_ROOT, PLUG_PCI | PLUG_PCI_BRIDGE, 1, 31},
        {VZ_MODEL_PCI_BRIDGE, PLUG_PCI | PLUG_PCI_BRIDGE, 1, 31},
        {VZ_MODEL_PCIE_ROOT, PLUG_EXPRESS | PLUG_ROOT_PORT | PLUG_BY_HAND, 1, 31},
        {VZ_MODEL_PCIE_ROOT_PORT, PLUG_EXPRESS | PLUG_PCIE_TO_PCI, 0, 0},
        {VZ_MODEL_PCIE_TO_PCI_BRIDGE, PLUG_PCI | PLUG_PCI_BRIDGE, 1, 31},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (kinds[i].model != model)
            continue;
        b->model = model;
        b->takes = kinds[i].takes;
        b->first_slot = kinds[i].first_slot;
        b->last_slot = kinds[i].last_slot;
        return true;
    }
    return false;
}

static unsigned plug_of(const vz_def_device *device)
{
    if (device->controller && device->controller->type == VZ_CONTROLLER_PCI) {
        if (device->controller->model == VZ_MODEL_PCIE_ROOT_PORT)
            return PLUG_ROOT_PORT;
        return device->controller->model == VZ_MODEL_PCI_BRIDGE ? PLUG_PCI_BRIDGE
                                                                : PLUG_PCIE_TO_PCI;
    }
    return device->express ? PLUG_EXPRESS : PLUG_PCI;
}

static bool add_bus(bus_set *set, vz_controller_model model, GError **err)
{
    if (set->n_buses == BUSES_MAX)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "more than %d PCI buses", BUSES_MAX);
    memset(&set->buses[set->n_buses], 0, sizeof(bus));
    return bus_init(&set->buses[set->n_buses++], model);
}

static bool any_takes(const bus_set *set, unsigned plug)
{
    for (uint32_t i = 0; i < set->n_buses; i++)
        if (set->buses[i].takes & plug)
            return true;
    return false;
}

/* Adds the buses that a device with this plug needs; the last one is for the device. */
static bool grow(bus_set *set, unsigned plug, const char *what, GError **err)
{
    if (!set->may_grow || plug == PLUG_ROOT_PORT || plug == PLUG_PCI_BRIDGE)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "no more available PCI slots for %s", what);
    if (plug != PLUG_PCI)
        return add_bus(set, VZ_MODEL_PCIE_ROOT_PORT, err);
    if (any_takes(set, PLUG_PCI_BRIDGE))
        return add_bus(set, VZ_MODEL_PCI_BRIDGE, err);
    if (!add_bus(set, VZ_MODEL_PCIE_ROOT_PORT, err))
        return false;
    /* for the bridge that comes next, and for nothing else */
    set->buses[set->n_buses - 1].takes = PLUG_PCIE_TO_PCI;
    return add_bus(set, VZ_MODEL_PCIE_TO_PCI_BRIDGE, err);
}

/* An address that the document or the chipset gives. A PCI device may be put by hand into a PCI
 * Express slot and the other way round. */
static bool reserve(bus_set *set, const vz_def_pci_address *at, unsigned plug, const char *what,
                    GError **err)
{
    unsigned endpoint = PLUG_PCI | PLUG_EXPRESS;
    while (set->may_grow && at->bus >= set->n_buses)
        if (!grow(set, plug, what, err))
            return false;
    const bus *b = at->bus < set->n_buses ? &set->buses[at->bus] : NULL;
    unsigned takes = b ? b->takes | (b->takes & endpoint ? endpoint : 0) : 0;
    if (at->domain != 0 || !(takes & plug))
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "invalid PCI address %04x:%02x:%02x.%x: bus %u does not take %s", at->domain,
                       at->bus, at->slot, at->function, at->bus, what);
    if (at->slot < b->first_slot || at->slot > b->last_slot)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "invalid PCI address %04x:%02x:%02x.%x: slot must be %u to %u", at->domain,
                       at->bus, at->slot, at->function, b->first_slot, b->last_slot);
    uint8_t bit = (uint8_t)(1u << at->function);
    if (b->used[at->slot] & bit)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "attempted double use of PCI address "
                       "%04x:%02x:%02x.%x by %s",
                       at->domain, at->bus, at->slot, at->function, what);
    if (!b->used[at->slot] && plug == PLUG_ROOT_PORT)
        set->buses[at->bus].shared[at->slot] = true;
    set->buses[at->bus].used[at->slot] |= bit;
    return true;
}

/* The first free slot of a bus, or a root port's next function. */
static bool find_on_bus(const bus *b, unsigned plug, uint32_t function, vz_def_pci_address *at)
{
    bool by_hand = (b->takes & PLUG_BY_HAND) && plug != PLUG_ROOT_PORT;
    if (!(b->takes & plug) || by_hand)
        return false;
    for (at->slot = b->first_slot; at->slot <= b->last_slot; at->slot++) {
        at->function = function == ANY ? 0 : function;
        if (!b->used[at->slot])
            return true;
        if (plug != PLUG_ROOT_PORT || !b->shared[at->slot])
            continue;
        for (at->function = 0; at->function < FUNCTIONS; at->function++)
            if (!(b->used[at->slot] & (1u << at->function)))
                return true;
    }
    return false;
}

static bool reserve_next(bus_set *set, unsigned plug, uint32_t function, const char *what,
                         vz_def_pci_address *ret_at, GError **err)
{
    vz_def_pci_address at = {0};
    for (at.bus = 0; at.bus < set->n_buses; at.bus++)
        if (find_on_bus(&set->buses[at.bus], plug, function, &at))
            break;
    if (at.bus == set->n_buses) {
        if (!grow(set, plug, what, err))
            return false;
        at.bus = set->n_buses - 1;
        at.slot = set->buses[at.bus].first_slot;
        at.function = function == ANY ? 0 : function;
    }
    if (!reserve(set, &at, plug, what, err))
        return false;
    *ret_at = at;
    return true;
}

static bool slot_used(const bus_set *set, uint32_t slot)
{
    return set->buses[0].used[slot] != 0;
}

/* The chipset's own functions that have no element of their own. */
static bool reserve_chipset(bus_set *set, bool q35, GError **err)
{
    static const vz_def_pci_address pc[] = {{.slot = 1, .function = 0}, {.slot = 1, .function = 3}};
    static const vz_def_pci_address q35s[] = {{.slot = 0x1f, .function = 0},
                                              {.slot = 0x1f, .function = 3}};
    for (size_t i = 0; i < 2; i++)
        if (!reserve(set, q35 ? &q35s[i] : &pc[i], q35 ? PLUG_EXPRESS : PLUG_PCI, "the chipset",
                     err))
            return false;
    return true;
}

/* Controllers that are part of the chipset have their place; NULL: not such a one. */
static const vz_def_pci_address *chipset_place(const vz_def_controller *controller, bool q35)
{
    static const vz_def_pci_address ide = {.slot = 1, .function = 1};
    static const vz_def_pci_address usb = {.slot = 1, .function = 2};
    static const vz_def_pci_address sata = {.slot = 0x1f, .function = 2};
    if (!controller || controller->index != 0)
        return NULL;
    if (q35)
        return controller->type == VZ_CONTROLLER_SATA ? &sata : NULL;
    if (controller->type == VZ_CONTROLLER_IDE)
        return &ide;
    return controller->model == VZ_MODEL_PIIX3_UHCI ? &usb : NULL;
}

static bool same_place(const vz_def_pci_address *a, const vz_def_pci_address *b)
{
    return a->domain == b->domain && a->bus == b->bus && a->slot == b->slot &&
           a->function == b->function;
}

static bool reserve_written(bus_set *set, GArray *devices, bool q35, GError **err)
{
    for (guint i = 0; i < devices->len; i++) {
        const vz_def_device *device = &g_array_index(devices, vz_def_device, i);
        const vz_def_pci_address *place = chipset_place(device->controller, q35);
        vz_def_address *address = &device->info->address;
        if (device->wants != VZ_ADDRESS_PCI || (address->type == VZ_ADDRESS_NONE && !place))
            continue;
        if (place && address->type == VZ_ADDRESS_NONE)
            address->pci = *place;
        address->type = VZ_ADDRESS_PCI;
        if (place && !same_place(&address->pci, place))
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s must have PCI address 0:0:%x.%x",
                           device->what, place->slot, place->function);
        if (!reserve(set, &address->pci, plug_of(device), device->what, err))
            return false;
    }
    return true;
}

/* QEMU puts the first video into the first slot after the chipset's. */
static bool reserve_video(bus_set *set, vz_def *def, bool q35, GError **err)
{
    vz_def_address *address = def->n_videos > 0 ? &def->videos[0].info.address : NULL;
    uint32_t slot = q35 ? 1 : 2;
    if (!address || def->videos[0].model == VZ_VIDEO_ABSENT || address->type != VZ_ADDRESS_NONE ||
        slot_used(set, slot))
        return true;
    vz_def_pci_address at = {.slot = slot};
    if (!reserve(set, &at, q35 ? PLUG_EXPRESS : PLUG_PCI, "the first video", err))
        return false;
    address->type = VZ_ADDRESS_PCI;
    address->pci = at;
    return true;
}

/* ICH9's USB 2 controllers have their standard places on q35 when those are free. */
static bool reserve_ich9(bus_set *set, vz_def *def, GError **err)
{
    static const uint32_t slots[] = {0x1d, 0x1a};
    for (size_t i = 0; i < def->n_controllers; i++) {
        vz_def_address *address = &def->controllers[i].info.address;
        if (def->controllers[i].model != VZ_MODEL_ICH9_UHCI1 || address->type != VZ_ADDRESS_NONE)
            continue;
        for (size_t s = 0; s < G_N_ELEMENTS(slots) && address->type == VZ_ADDRESS_NONE; s++) {
            vz_def_pci_address at = {.slot = slots[s], .multifunction = VZ_ONOFF_ON};
            if (slot_used(set, slots[s]))
                continue;
            if (!reserve(set, &at, PLUG_EXPRESS, "a USB controller", err))
                return false;
            address->type = VZ_ADDRESS_PCI;
            address->pci = at;
        }
    }
    return true;
}

static uint32_t ich9_function(vz_controller_model model)
{
    switch ((unsigned)model) {
    case VZ_MODEL_ICH9_UHCI1:
        return 0;
    case VZ_MODEL_ICH9_UHCI2:
        return 1;
    case VZ_MODEL_ICH9_UHCI3:
        return 2;
    case VZ_MODEL_ICH9_EHCI1:
        return 7;
    default:
        return ANY;
    }
}

/* The companions of one USB 2 controller share a slot; true: `ret_at` has it. */
static bool ich9_slot(const vz_def *def, const vz_def_controller *controller,
                      vz_def_pci_address *ret_at)
{
    for (size_t i = 0; i < def->n_controllers; i++) {
        const vz_def_controller *other = &def->controllers[i];
        if (ich9_function(other->model) == ANY || other->index != controller->index ||
            other->info.address.type != VZ_ADDRESS_PCI)
            continue;
        *ret_at = other->info.address.pci;
        ret_at->function = ich9_function(controller->model);
        ret_at->multifunction = VZ_ONOFF_NONE;
        return true;
    }
    return false;
}

static bool assign_one(bus_set *set, vz_def *def, const vz_def_device *device, GError **err)
{
    vz_def_pci_address at = {0};
    const vz_def_controller *controller = device->controller;
    uint32_t function = controller ? ich9_function(controller->model) : ANY;
    unsigned plug = plug_of(device);
    bool companion = function != ANY && ich9_slot(def, controller, &at);
    bool good = companion ? reserve(set, &at, plug, device->what, err)
                          : reserve_next(set, plug, function, device->what, &at, err);
    if (!good)
        return false;
    device->info->address.type = VZ_ADDRESS_PCI;
    device->info->address.pci = at;
    return true;
}

static bool assign_rest(bus_set *set, vz_def *def, GArray *devices, GError **err)
{
    for (guint i = 0; i < devices->len; i++) {
        const vz_def_device *device = &g_array_index(devices, vz_def_device, i);
        if (device->wants == VZ_ADDRESS_PCI && device->info->address.type == VZ_ADDRESS_NONE &&
            !assign_one(set, def, device, err))
            return false;
    }
    return true;
}

static bool set_init(bus_set *set, const vz_def *def, bool may_grow, GError **err)
{
    memset(set, 0, sizeof(*set));
    set->may_grow = may_grow;
    for (size_t i = 0; i < def->n_controllers; i++) {
        const vz_def_controller *controller = &def->controllers[i];
        if (controller->type != VZ_CONTROLLER_PCI)
            continue;
        bus_init(&set->buses[controller->index], controller->model);
        set->n_buses = MAX(set->n_buses, controller->index + 1);
    }
    vz_controller_model between =
        vz_def_is_q35(def) ? VZ_MODEL_PCIE_ROOT_PORT : VZ_MODEL_PCI_BRIDGE;
    for (uint32_t i = 0; i < set->n_buses; i++)
        if (set->buses[i].model == VZ_MODEL_NONE && !bus_init(&set->buses[i], between))
            return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "PCI bus %u has no kind", i);
    return true;
}

static bool all_full(const bus_set *set)
{
    for (uint32_t i = 0; i < set->n_buses; i++)
        for (uint32_t s = set->buses[i].first_slot; s <= set->buses[i].last_slot; s++)
            if (!set->buses[i].used[s])
                return false;
    return true;
}

/* The addresses of one pass. `def` is a copy in the first. */
static bool assign(bus_set *set, vz_def *def, GError **err)
{
    bool q35 = vz_def_is_q35(def);
    g_autoptr(GArray) devices = vz_def_devices(def);
    vz_def_pci_address spare;
    if (!reserve_written(set, devices, q35, err) || !reserve_chipset(set, q35, err) ||
        (q35 && !reserve_ich9(set, def, err)) || !reserve_video(set, def, q35, err))
        return false;
    /* One slot more than is needed now, so that a bridge can still be added later. */
    if (set->may_grow && !q35 && !all_full(set) &&
        !reserve_next(set, PLUG_PCI, ANY, "a later bridge", &spare, err))
        return false;
    return assign_rest(set, def, devices, err);
}

/* The first pass: adds to `def` the controllers whose need it finds on a copy. */
static bool add_needed_buses(vz_def *def, GError **err)
{
    g_autofree bus_set *set = g_new(bus_set, 1);
    g_autoptr(vz_def) trial = vz_def_copy(def);
    vz_def_pci_address spare;
    if (!set_init(set, trial, true, err))
        return false;
    uint32_t written = set->n_buses;
    if (!assign(set, trial, err))
        return false;
    /* Whoever leaves the buses to us finds one root port free for later. */
    if (vz_def_is_q35(def) && written <= 1 && set->n_buses > written &&
        !reserve_next(set, PLUG_EXPRESS, ANY, "a later device", &spare, err))
        return false;
    for (uint32_t i = 1; i < set->n_buses; i++) {
        if (vz_def_controller_find(def, VZ_CONTROLLER_PCI, i))
            continue;
        vz_def_device device = {
            .controller = vz_def_controller_add(def, VZ_CONTROLLER_PCI, i, set->buses[i].model)};
        if (!reserve_next(set, plug_of(&device), ANY, "a PCI controller", &spare, err))
            return false;
    }
    return true;
}

static void finish_controller(vz_def_controller *controller)
{
    const vz_def_pci_address *at = &controller->info.address.pci;
    if (controller->model == VZ_MODEL_PCI_BRIDGE) {
        controller->pci_device = VZ_PCI_DEVICE_PCI_BRIDGE;
        controller->chassis_nr =
            controller->chassis_nr ? controller->chassis_nr : controller->index;
    } else if (controller->model == VZ_MODEL_PCIE_TO_PCI_BRIDGE) {
        controller->pci_device = VZ_PCI_DEVICE_PCIE_PCI_BRIDGE;
    } else if (controller->model == VZ_MODEL_PCIE_ROOT_PORT) {
        if (controller->pci_device == VZ_PCI_DEVICE_NONE)
            controller->pci_device = VZ_PCI_DEVICE_PCIE_ROOT_PORT;
        if (!controller->has_chassis)
            controller->chassis = controller->index;
        if (!controller->has_port)
            controller->port = (at->slot << 3) + at->function;
        controller->has_chassis = controller->has_port = true;
    }
}

/* Function 0 must announce that its slot has others. */
static void set_multifunction(const bus_set *set, GArray *devices)
{
    for (guint i = 0; i < devices->len; i++) {
        vz_def_address *address = &g_array_index(devices, vz_def_device, i).info->address;
        vz_def_pci_address *at = &address->pci;
        if (address->type == VZ_ADDRESS_PCI && at->function == 0 &&
            at->multifunction == VZ_ONOFF_NONE && set->buses[at->bus].used[at->slot] > 1)
            at->multifunction = VZ_ONOFF_ON;
    }
}

bool vz_def_fill_pci_addresses(vz_def *def, GError **err)
{
    if (!add_needed_buses(def, err))
        return false;
    g_autofree bus_set *set = g_new(bus_set, 1);
    if (!set_init(set, def, false, err) || !assign(set, def, err))
        return false;
    g_autoptr(GArray) devices = vz_def_devices(def);
    set_multifunction(set, devices);
    for (size_t i = 0; i < def->n_controllers; i++)
        if (def->controllers[i].type == VZ_CONTROLLER_PCI)
            finish_controller(&def->controllers[i]);
    return true;
}
