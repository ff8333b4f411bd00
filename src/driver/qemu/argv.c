/* argv.c - see argv.h. The machine, its processors, memory and clocks; the devices are in
 * argv_disk.c, argv_device.c and argv_character.c. The order is libvirt's, so that the two command
 * lines can be compared by eye. */
#include "driver/qemu/argv_build.h"

#include <string.h>

/* What QEMU needs of the kernel after its start; spawn=deny also stops a guest that broke out from
 * starting programs. */
#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

void vz_argv_fail(vz_argv_builder *b, const char *format, ...)
{
    if (b->error)
        return;
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    vz_fail(&b->error, VZ_ERR_CONFIG_UNSUPPORTED, "%s", text);
}

void vz_argv_add(vz_argv_builder *b, const char *option, const char *value)
{
    g_ptr_array_add(b->argv, g_strdup(option));
    if (value)
        g_ptr_array_add(b->argv, g_strdup(value));
}

void vz_argv_add_format(vz_argv_builder *b, const char *option, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *value = g_strdup_vprintf(format, args);
    va_end(args);
    vz_argv_add(b, option, value);
}

void vz_argv_add_json(vz_argv_builder *b, const char *option, json_t *take_object)
{
    char *text = json_dumps(take_object, JSON_COMPACT);
    json_decref(take_object);
    g_assert(text);
    vz_argv_add(b, option, text);
    free(text);
}

void vz_argv_add_device(vz_argv_builder *b, json_t *take_device)
{
    const char *driver = json_string_value(json_object_get(take_device, "driver"));
    if (!vz_qemu_caps_has_device(b->caps, driver))
        vz_argv_fail(b, "QEMU '%s' has no device '%s'", vz_qemu_caps_emulator(b->caps), driver);
    vz_argv_add_json(b, "-device", take_device);
}

json_t *vz_argv_new_device(const char *driver, const char *id)
{
    return json_pack("{s:s, s:s}", "driver", driver, "id", id);
}

const char *vz_argv_alias(vz_argv_builder *b, const vz_def_info *info)
{
    if (!info->alias)
        vz_argv_fail(b, "a device has no alias");
    return info->alias ? info->alias : "";
}

char *vz_argv_escape(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);
    return g_strjoinv(",,", parts);
}

static const vz_def_controller *pci_root(const vz_def *def)
{
    return vz_def_controller_find(def, VZ_CONTROLLER_PCI, 0);
}

bool vz_argv_is_q35(const vz_def *def)
{
    const vz_def_controller *root = pci_root(def);
    return root && root->model == VZ_MODEL_PCIE_ROOT;
}

static const char *pci_bus(vz_argv_builder *b, uint32_t index)
{
    const vz_def_controller *controller = vz_def_controller_find(b->def, VZ_CONTROLLER_PCI, index);
    if (!controller) {
        vz_argv_fail(b, "there is no PCI controller with index %u", index);
        return "";
    }
    /* The roots are the machine's own, under its names. */
    if (controller->model == VZ_MODEL_PCI_ROOT)
        return "pci.0";
    if (controller->model == VZ_MODEL_PCIE_ROOT)
        return "pcie.0";
    return vz_argv_alias(b, &controller->info);
}

void vz_argv_set_pci(vz_argv_builder *b, json_t *device, const vz_def_info *info)
{
    const vz_def_pci_address *pci = &info->address.pci;
    if (info->address.type != VZ_ADDRESS_PCI) {
        vz_argv_fail(b, "device '%s' has no PCI address", vz_argv_alias(b, info));
        return;
    }
    json_object_set_new(device, "bus", json_string(pci_bus(b, pci->bus)));
    if (pci->multifunction == VZ_ONOFF_ON)
        json_object_set_new(device, "multifunction", json_true());
    json_object_set_new(device, "addr",
                        pci->function ? json_sprintf("0x%x.0x%x", pci->slot, pci->function)
                                      : json_sprintf("0x%x", pci->slot));
}

/* The place of a kind of device in <os><boot dev=...>, from 1; 0: not there. */
static uint32_t boot_place(const vz_def *def, vz_boot_device device)
{
    for (size_t i = 0; i < def->os.n_boots; i++)
        if (def->os.boots[i].device == device)
            return (uint32_t)i + 1;
    return 0;
}

uint32_t vz_argv_boot_index_of_disk(const vz_def *def, const vz_def_disk *disk)
{
    if (disk->info.boot_order)
        return disk->info.boot_order;
    for (const vz_def_disk *d = def->disks; d < disk; d++)
        if (d->device == disk->device)
            return 0; /* firmware tries the first of a kind */
    return boot_place(def, disk->device == VZ_DISK_DEVICE_CDROM ? VZ_BOOT_CDROM : VZ_BOOT_DISK);
}

uint32_t vz_argv_boot_index_of_interface(const vz_def *def, const vz_def_interface *interface)
{
    if (interface->info.boot_order)
        return interface->info.boot_order;
    return interface == def->interfaces ? boot_place(def, VZ_BOOT_NETWORK) : 0;
}

static const vz_def_timer *find_timer(const vz_def *def, vz_timer_name name)
{
    for (size_t i = 0; i < def->n_timers; i++)
        if (def->timers[i].name == name)
            return &def->timers[i];
    return NULL;
}

static void add_machine(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    const vz_qemu_machine *machine = vz_qemu_caps_machine(b->caps, def->os.machine);
    if (!machine) {
        vz_argv_fail(b, "QEMU '%s' does not support machine type '%s'",
                     vz_qemu_caps_emulator(b->caps), def->os.machine);
        return;
    }
    g_autoptr(GString) text = g_string_new(machine->name);
    const char *ram_id = machine->ram_id ? machine->ram_id : "pc.ram";
    g_string_append_printf(text, ",usb=off,dump-guest-core=off,memory-backend=%s", ram_id);
    if (def->features.vmport)
        g_string_append_printf(text, ",vmport=%s", vz_onoff_word(def->features.vmport));
    const vz_def_timer *hpet = find_timer(def, VZ_TIMER_HPET);
    if (hpet && hpet->present)
        g_string_append_printf(text, ",hpet=%s", hpet->present == VZ_YESNO_YES ? "on" : "off");
    g_string_append_printf(text, ",acpi=%s", def->features.acpi ? "on" : "off");
    vz_argv_add(b, "-machine", text->str);
    vz_argv_add(b, "-accel", b->resources->accel == VZ_ACCEL_KVM ? "kvm" : "tcg");
}

/* The model's name, or NULL with the reason noted. */
static const char *cpu_model(vz_argv_builder *b)
{
    const vz_def_cpu *cpu = &b->def->cpu;
    switch (cpu->mode) {
    case VZ_CPU_MODE_HOST_PASSTHROUGH:
        if (b->resources->accel == VZ_ACCEL_KVM)
            return "host";
        /* The type that takes the best there is takes TCG's best, too. */
        if (b->def->type == VZ_DEF_TYPE_VZ)
            return "max";
        vz_argv_fail(b, "CPU mode 'host-passthrough' needs KVM; 'maximum' is its like for TCG");
        return NULL;
    case VZ_CPU_MODE_MAXIMUM:
        return "max";
    case VZ_CPU_MODE_HOST_MODEL:
        vz_argv_fail(b, "CPU mode 'host-model' is not supported by virtvz; 'host-passthrough' or a "
                        "named model is");
        return NULL;
    case VZ_CPU_MODE_CUSTOM:
    case VZ_CPU_MODE_NONE:
    default:
        return cpu->model;
    }
}

static void append_cpu_features(const vz_def_cpu *cpu, GString *text)
{
    for (size_t i = 0; i < cpu->n_features; i++) {
        const vz_def_cpu_feature *f = &cpu->features[i];
        bool off = f->policy == VZ_CPU_POLICY_DISABLE || f->policy == VZ_CPU_POLICY_FORBID;
        g_string_append_printf(text, ",%s=%s", f->name, off ? "off" : "on");
    }
}

static void add_cpu(vz_argv_builder *b)
{
    const vz_def_cpu *cpu = &b->def->cpu;
    const char *model = cpu_model(b);
    if (!model)
        return;
    if (!vz_qemu_caps_has_cpu_model(b->caps, model))
        vz_argv_fail(b, "QEMU '%s' has no CPU model '%s'", vz_qemu_caps_emulator(b->caps), model);
    g_autoptr(GString) text = g_string_new(model);
    if (cpu->migratable)
        g_string_append_printf(text, ",migratable=%s", vz_onoff_word(cpu->migratable));
    append_cpu_features(cpu, text);
    const vz_def_timer *kvmclock = find_timer(b->def, VZ_TIMER_KVMCLOCK);
    if (kvmclock && kvmclock->present)
        g_string_append_printf(text, ",kvmclock=%s",
                               kvmclock->present == VZ_YESNO_YES ? "on" : "off");
    const vz_def_timer *hyperv = find_timer(b->def, VZ_TIMER_HYPERVCLOCK);
    bool hv_time = hyperv && hyperv->present == VZ_YESNO_YES;
    bool enforce = cpu->check == VZ_CPU_CHECK_FULL;
    /* Not g_string_append: it is inline since GLib 2.76, where gcc 14 sees a NULL dereference. */
    g_string_append_printf(text, "%s%s", hv_time ? ",hv-time=on" : "",
                           enforce ? ",enforce=on" : "");
    vz_argv_add(b, "-cpu", text->str);
}

static void add_memory(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    const vz_qemu_machine *machine = vz_qemu_caps_machine(b->caps, def->os.machine);
    const char *ram_id = machine && machine->ram_id ? machine->ram_id : "pc.ram";
    vz_argv_add_format(b, "-m", "size=%" G_GUINT64_FORMAT "k", def->ram_bytes / 1024);
    vz_argv_add_json(b, "-object",
                     json_pack("{s:s, s:s, s:I}", "qom-type", "memory-backend-ram", "id", ram_id,
                               "size", (json_int_t)def->ram_bytes));
    vz_argv_add(b, "-overcommit", "mem-lock=off");
}

static void add_smp(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    const vz_def_cpu *cpu = &def->cpu;
    g_autoptr(GString) text = g_string_new(NULL);
    g_string_append_printf(text, "%u", def->vcpus ? def->vcpus : def->vcpus_max);
    if (def->vcpus && def->vcpus != def->vcpus_max)
        g_string_append_printf(text, ",maxcpus=%u", def->vcpus_max);
    if (cpu->has_topology)
        g_string_append_printf(text, ",sockets=%u,dies=%u,cores=%u,threads=%u", cpu->sockets,
                               MAX(cpu->dies, 1), cpu->cores, cpu->threads);
    else
        g_string_append_printf(text, ",sockets=%u,cores=1,threads=1", def->vcpus_max);
    vz_argv_add(b, "-smp", text->str);
}

static void add_monitor(vz_argv_builder *b)
{
    vz_argv_add(b, "-no-user-config", NULL);
    vz_argv_add(b, "-nodefaults", NULL);
    vz_argv_add_format(b, "-chardev", "socket,id=charmonitor,fd=%d,server=on,wait=off",
                       b->resources->monitor_fd);
    vz_argv_add(b, "-mon", "chardev=charmonitor,id=monitor,mode=control");
    for (size_t i = 0; i < b->resources->n_fdsets; i++)
        vz_argv_add_format(b, "-add-fd", "set=%u,fd=%d", b->resources->fdsets[i].set,
                           b->resources->fdsets[i].fd);
}

static void add_clock(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    const vz_def_timer *rtc = find_timer(def, VZ_TIMER_RTC);
    vz_argv_add_format(b, "-rtc", "base=%s%s",
                       def->clock == VZ_CLOCK_LOCALTIME ? "localtime" : "utc",
                       rtc && rtc->policy == VZ_TIMER_POLICY_CATCHUP ? ",driftfix=slew" : "");
    const vz_def_timer *pit = find_timer(def, VZ_TIMER_PIT);
    if (!pit || pit->policy == VZ_TIMER_POLICY_NONE)
        return;
    if (pit->policy == VZ_TIMER_POLICY_CATCHUP)
        vz_argv_fail(b, "timer 'pit' cannot have the tickpolicy 'catchup'");
    else
        vz_argv_add_format(b, "-global", "kvm-pit.lost_tick_policy=%s",
                           vz_timer_policy_word(pit->policy));
}

static void add_power(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    /* The daemon decides what follows a shutdown; till then QEMU stays, stopped. */
    vz_argv_add(b, "-no-shutdown", NULL);
    if (def->on_reboot == VZ_LIFECYCLE_DESTROY)
        vz_argv_add(b, "-no-reboot", NULL);
    const char *chip = vz_argv_is_q35(def) ? "ICH9-LPC" : "PIIX4_PM";
    if (def->pm_suspend_to_mem)
        vz_argv_add_format(b, "-global", "%s.disable_s3=%d", chip,
                           def->pm_suspend_to_mem == VZ_YESNO_NO);
    if (def->pm_suspend_to_disk)
        vz_argv_add_format(b, "-global", "%s.disable_s4=%d", chip,
                           def->pm_suspend_to_disk == VZ_YESNO_NO);
}

static void add_boot(vz_argv_builder *b)
{
    const vz_def_os *os = &b->def->os;
    g_autoptr(GString) text = g_string_new(NULL);
    if (os->boot_menu)
        g_string_append_printf(text, "menu=%s,", os->boot_menu == VZ_YESNO_YES ? "on" : "off");
    if (os->has_boot_menu_timeout)
        g_string_append_printf(text, "splash-time=%u,", os->boot_menu_timeout_ms);
    g_string_append(text, "strict=on");
    vz_argv_add(b, "-boot", text->str);
    if (b->resources->kernel)
        vz_argv_add(b, "-kernel", b->resources->kernel);
    if (b->resources->initrd)
        vz_argv_add(b, "-initrd", b->resources->initrd);
    if (os->cmdline && b->resources->kernel)
        vz_argv_add(b, "-append", os->cmdline);
}

static void add_all(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    g_autofree char *name = vz_argv_escape(def->name);
    char uuid[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(def->uuid, uuid);
    vz_argv_add(b, vz_qemu_caps_emulator(b->caps), NULL);
    vz_argv_add_format(b, "-name", "guest=%s,debug-threads=on", name);
    vz_argv_add(b, "-S", NULL);
    add_machine(b);
    add_cpu(b);
    add_memory(b);
    add_smp(b);
    vz_argv_add(b, "-uuid", uuid);
    add_monitor(b);
    add_clock(b);
    add_power(b);
    add_boot(b);
    vz_argv_add_controllers(b);
    vz_argv_add_disks(b);
    vz_argv_add_interfaces(b);
    vz_argv_add_characters(b);
    vz_argv_add_display(b);
    vz_argv_add_others(b);
    if (b->resources->incoming)
        vz_argv_add(b, "-incoming", "defer");
    vz_argv_add(b, "-sandbox", SANDBOX);
    vz_argv_add(b, "-msg", "timestamp=on");
}

bool vz_qemu_argv(const vz_def *live, const vz_qemu_caps *caps, const vz_qemu_resources *resources,
                  char ***ret_argv, GError **err)
{
    vz_argv_builder b = {
        .def = live,
        .caps = caps,
        .resources = resources,
        .argv = g_ptr_array_new_with_free_func(g_free),
    };
    add_all(&b);
    if (b.error) {
        g_ptr_array_unref(b.argv);
        g_propagate_error(err, b.error);
        return false;
    }
    g_ptr_array_add(b.argv, NULL);
    *ret_argv = (char **)g_ptr_array_free(b.argv, FALSE);
    return true;
}
