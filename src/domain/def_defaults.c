/* def_defaults.c - what a definition says where its document says nothing.
 *
 * The values are libvirt's (measured: the document that libvirt 11.3 made of virt-install's; where
 * ours differ, docs/decisions/ says why). Runs on the builder's thread. */
#include "domain/def_fill.h"

#include <string.h>
#include <sys/random.h>

#define DEFAULT_VRAM_KIB 16384

#define DEFAULT(member, value)                                                                     \
    do {                                                                                           \
        if (!(member))                                                                             \
            (member) = (value);                                                                    \
    } while (0)

/* Adds a zeroed item to an array member; evaluates to it. */
#define APPEND(array, count)                                                                       \
    (array = g_renew(__typeof__(*(array)), array, (count) + 1),                                    \
     memset(&(array)[count], 0, sizeof(*(array))), &(array)[(count)++])

static void default_text(char **text, const char *value)
{
    if (!*text)
        *text = g_strdup(value);
}

static bool fill_machine(vz_def *def, const vz_def_host *host, GError **err)
{
    default_text(&def->emulator, host->emulator);
    default_text(&def->os.arch, host->arch);
    default_text(&def->os.machine, host->default_machine);
    if (strcmp(def->os.arch, host->arch) != 0)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "guests of arch '%s' cannot run on this host: it has %s", def->os.arch,
                       host->arch);
    if (!host->canonical_machine)
        return true;
    const char *versioned = host->canonical_machine(def->os.machine, host->user);
    if (!versioned)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "Emulator '%s' does not support machine type '%s'", host->emulator,
                       def->os.machine);
    char *machine = g_strdup(versioned);
    g_free(def->os.machine);
    def->os.machine = machine;
    return true;
}

static bool fill_memory(vz_def *def, GError **err)
{
    if (def->ram_bytes == 0)
        return vz_fail(err, VZ_ERR_XML_ERROR, "memory size must be specified: /domain/memory is 0");
    if (def->current_ram_bytes == 0 || def->current_ram_bytes > def->ram_bytes)
        def->current_ram_bytes = def->ram_bytes;
    DEFAULT(def->vcpu_placement, VZ_VCPU_PLACEMENT_STATIC);
    DEFAULT(def->vcpus, def->vcpus_max);
    if (def->vcpus > def->vcpus_max)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "maxvcpus must not be less than current vcpus (%u < %u)", def->vcpus_max,
                       def->vcpus);
    return true;
}

static void fill_default_cpu(vz_def_cpu *cpu, const char *model)
{
    cpu->present = true;
    cpu->mode = VZ_CPU_MODE_CUSTOM;
    cpu->match = VZ_CPU_MATCH_EXACT;
    cpu->check = VZ_CPU_CHECK_UNCHECKED;
    cpu->fallback = VZ_CPU_FALLBACK_FORBID;
    cpu->model = g_strdup(model);
}

static void fill_cpu(vz_def *def, const vz_def_host *host)
{
    vz_def_cpu *cpu = &def->cpu;
    if (cpu->has_topology) {
        DEFAULT(cpu->dies, 1);
        DEFAULT(cpu->sockets, 1);
        DEFAULT(cpu->cores, 1);
        DEFAULT(cpu->threads, 1);
    }
    for (size_t i = 0; i < cpu->n_features; i++)
        DEFAULT(cpu->features[i].policy, VZ_CPU_POLICY_REQUIRE);
    if (cpu->mode <= VZ_CPU_MODE_CUSTOM && !cpu->model) {
        if (host->default_cpu)
            fill_default_cpu(cpu, host->default_cpu);
        return;
    }
    cpu->present = true;
    DEFAULT(cpu->mode, VZ_CPU_MODE_CUSTOM);
    bool as_host = cpu->mode == VZ_CPU_MODE_HOST_PASSTHROUGH || cpu->mode == VZ_CPU_MODE_MAXIMUM;
    DEFAULT(cpu->check, as_host ? VZ_CPU_CHECK_UNCHECKED : VZ_CPU_CHECK_PARTIAL);
    if (as_host)
        DEFAULT(cpu->migratable, VZ_ONOFF_ON);
    if (cpu->mode == VZ_CPU_MODE_CUSTOM) {
        DEFAULT(cpu->match, VZ_CPU_MATCH_EXACT);
        DEFAULT(cpu->fallback, VZ_CPU_FALLBACK_ALLOW);
    }
}

static bool any_device_boots(const vz_def *def)
{
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].info.boot_order > 0)
            return true;
    for (size_t i = 0; i < def->n_interfaces; i++)
        if (def->interfaces[i].info.boot_order > 0)
            return true;
    return false;
}

static void fill_lifecycle(vz_def *def)
{
    DEFAULT(def->clock, VZ_CLOCK_UTC);
    DEFAULT(def->on_poweroff, VZ_LIFECYCLE_DESTROY);
    DEFAULT(def->on_reboot, VZ_LIFECYCLE_RESTART);
    DEFAULT(def->on_crash, VZ_LIFECYCLE_DESTROY);
    if (def->os.n_boots == 0 && !any_device_boots(def))
        APPEND(def->os.boots, def->os.n_boots)->device = VZ_BOOT_DISK;
}

static vz_disk_bus bus_of_target(const char *target)
{
    if (g_str_has_prefix(target, "hd"))
        return VZ_DISK_BUS_IDE;
    if (g_str_has_prefix(target, "sd"))
        return VZ_DISK_BUS_SCSI;
    return g_str_has_prefix(target, "vd") ? VZ_DISK_BUS_VIRTIO : VZ_DISK_BUS_NONE;
}

static void fill_disks(vz_def *def)
{
    for (size_t i = 0; i < def->n_disks; i++) {
        vz_def_disk *disk = &def->disks[i];
        DEFAULT(disk->type, VZ_DISK_TYPE_FILE);
        DEFAULT(disk->device, VZ_DISK_DEVICE_DISK);
        DEFAULT(disk->driver, VZ_DISK_DRIVER_QEMU);
        DEFAULT(disk->format, VZ_DISK_FORMAT_RAW);
        DEFAULT(disk->bus, bus_of_target(disk->target));
        if (disk->device == VZ_DISK_DEVICE_CDROM)
            disk->readonly = true;
    }
}

static void fill_interfaces(vz_def *def)
{
    static const uint8_t prefix[3] = {0x52, 0x54, 0x00}; /* QEMU's and libvirt's */
    for (size_t i = 0; i < def->n_interfaces; i++) {
        vz_def_interface *interface = &def->interfaces[i];
        DEFAULT(interface->model, VZ_NIC_RTL8139);
        if (interface->has_mac)
            continue;
        memcpy(interface->mac, prefix, sizeof(prefix));
        ssize_t n = getrandom(interface->mac + 3, 3, 0);
        g_assert(n == 3); /* getrandom gives up to 256 bytes whole, once initialised */
        interface->has_mac = true;
    }
}

static void fill_source(vz_def_chardev *source)
{
    if (source->type == VZ_CHARDEV_UNIX && source->path)
        DEFAULT(source->mode, VZ_CHARDEV_MODE_BIND);
    else if (source->mode == VZ_CHARDEV_MODE_BIND)
        source->mode = VZ_CHARDEV_MODE_NONE; /* says nothing without a path */
}

static void copy_source(vz_def_chardev *to, const vz_def_chardev *from)
{
    char *path = g_strdup(from->path);
    g_free(to->path);
    *to = *from;
    to->path = path;
}

static void fill_serials(vz_def *def)
{
    uint32_t next = 0;
    for (size_t i = 0; i < def->n_serials; i++)
        if (def->serials[i].has_port && def->serials[i].port >= next)
            next = def->serials[i].port + 1;
    for (size_t i = 0; i < def->n_serials; i++) {
        vz_def_serial *serial = &def->serials[i];
        fill_source(&serial->source);
        DEFAULT(serial->target, VZ_SERIAL_ISA);
        default_text(&serial->model, "isa-serial");
        if (!serial->has_port)
            serial->port = next++;
        serial->has_port = true;
    }
}

/* x86 guests: the first console is the first serial port, whichever of the two was written. */
static void fill_consoles(vz_def *def)
{
    for (size_t i = 0; i < def->n_consoles; i++) {
        vz_def_console *console = &def->consoles[i];
        fill_source(&console->source);
        DEFAULT(console->target, VZ_CONSOLE_SERIAL);
        if (!console->has_port)
            console->port = (uint32_t)i;
        console->has_port = true;
    }
    if (def->n_serials == 0 && def->n_consoles > 0 && def->consoles[0].target == VZ_CONSOLE_SERIAL)
        copy_source(&APPEND(def->serials, def->n_serials)->source, &def->consoles[0].source);
    if (def->n_consoles == 0 && def->n_serials > 0) {
        vz_def_console *console = APPEND(def->consoles, def->n_consoles);
        copy_source(&console->source, &def->serials[0].source);
        console->target = VZ_CONSOLE_SERIAL;
        console->has_port = true;
    }
    for (size_t i = 0; i < def->n_channels; i++)
        fill_source(&def->channels[i].source);
}

static void add_input(vz_def *def, vz_input_type type)
{
    for (size_t i = 0; i < def->n_inputs; i++)
        if (def->inputs[i].type == type && def->inputs[i].bus == VZ_INPUT_BUS_PS2)
            return;
    vz_def_input *input = APPEND(def->inputs, def->n_inputs);
    input->type = type;
    input->bus = VZ_INPUT_BUS_PS2;
}

static void fill_inputs(vz_def *def)
{
    for (size_t i = 0; i < def->n_inputs; i++) {
        vz_def_input *input = &def->inputs[i];
        DEFAULT(input->bus, input->type == VZ_INPUT_TABLET ? VZ_INPUT_BUS_USB : VZ_INPUT_BUS_PS2);
    }
    add_input(def, VZ_INPUT_MOUSE);
    add_input(def, VZ_INPUT_KEYBOARD);
}

static void fill_videos(vz_def *def)
{
    if (def->n_graphics > 0 && def->n_videos == 0)
        APPEND(def->videos, def->n_videos);
    bool primary = false;
    for (size_t i = 0; i < def->n_videos; i++)
        primary = primary || def->videos[i].primary == VZ_YESNO_YES;
    for (size_t i = 0; i < def->n_videos; i++) {
        vz_def_video *video = &def->videos[i];
        DEFAULT(video->model, VZ_VIDEO_CIRRUS);
        if (video->model == VZ_VIDEO_ABSENT)
            continue;
        if (video->model != VZ_VIDEO_VIRTIO)
            DEFAULT(video->vram_kib, DEFAULT_VRAM_KIB);
        DEFAULT(video->heads, 1);
        if (!primary && i == 0)
            video->primary = VZ_YESNO_YES;
    }
}

static void fill_graphics(vz_def *def)
{
    for (size_t i = 0; i < def->n_graphics; i++) {
        vz_def_graphics *graphics = &def->graphics[i];
        bool picked = graphics->port <= 0;
        DEFAULT(graphics->port, -1);
        DEFAULT(graphics->autoport, picked ? VZ_YESNO_YES : VZ_YESNO_NO);
        DEFAULT(graphics->listen_type, VZ_LISTEN_ADDRESS);
    }
    if (def->n_audios == 0) {
        vz_def_audio *audio = APPEND(def->audios, def->n_audios);
        audio->id = 1;
        audio->type = VZ_AUDIO_SILENT;
    }
}

/* A q35 machine always has the iTCO watchdog, whether it is written or not. */
static void fill_watchdogs(vz_def *def)
{
    bool itco = false;
    for (size_t i = 0; i < def->n_watchdogs; i++) {
        itco = itco || def->watchdogs[i].model == VZ_WATCHDOG_ITCO;
        DEFAULT(def->watchdogs[i].action, VZ_WATCHDOG_ACTION_RESET);
    }
    if (itco || !vz_def_is_q35(def))
        return;
    vz_watchdog_action action =
        def->n_watchdogs > 0 ? def->watchdogs[0].action : VZ_WATCHDOG_ACTION_RESET;
    vz_def_watchdog *watchdog = APPEND(def->watchdogs, def->n_watchdogs);
    watchdog->model = VZ_WATCHDOG_ITCO;
    watchdog->action = action;
}

static void fill_rest(vz_def *def)
{
    for (size_t i = 0; i < def->n_rngs; i++) {
        default_text(&def->rngs[i].path, "/dev/urandom");
        if (def->rngs[i].rate_bytes > 0)
            DEFAULT(def->rngs[i].rate_period_ms, 1000);
    }
    if (def->n_balloons == 0)
        APPEND(def->balloons, def->n_balloons)->model = VZ_BALLOON_VIRTIO;
}

bool vz_def_fill_defaults(vz_def *def, const vz_def_host *host, GError **err)
{
    static const uint8_t no_uuid[VZ_UUID_BYTES];
    if (memcmp(def->uuid, no_uuid, sizeof(no_uuid)) == 0)
        vz_uuid_generate(def->uuid);
    if (!fill_machine(def, host, err) || !fill_memory(def, err))
        return false;
    fill_cpu(def, host);
    fill_lifecycle(def);
    fill_disks(def);
    fill_interfaces(def);
    fill_consoles(def);
    fill_serials(def);
    fill_inputs(def);
    fill_videos(def);
    fill_graphics(def);
    fill_watchdogs(def);
    fill_rest(def);
    return true;
}
