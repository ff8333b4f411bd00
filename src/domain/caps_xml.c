/* caps_xml.c - see caps_xml.h. Element for element what libvirt's QEMU driver writes, as far as it
 * is true here. */
#include "domain/caps_xml.h"

#include "base/text.h"
#include "base/units.h"
#include "domain/def.h"
#include "domain/def_writer.h"

#include <stdarg.h>
#include <string.h>

static void enter(vz_writer *writer, const char *name)
{
    vz_writer_enter(writer, name, strlen(name));
    vz_writer_begin(writer);
}

static void attribute(vz_writer *writer, const char *name, const char *format, ...)
    G_GNUC_PRINTF(3, 4);

static void attribute(vz_writer *writer, const char *name, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *value = g_strdup_vprintf(format, args);
    va_end(args);
    vz_writer_attribute(writer, name, value);
}

static void empty(vz_writer *writer, const char *name, const char *attribute_name,
                  const char *value)
{
    enter(writer, name);
    if (attribute_name)
        vz_writer_attribute(writer, attribute_name, value);
    vz_writer_leave(writer);
}

static const char *yes_no(bool yes)
{
    return yes ? "yes" : "no";
}

/* The two kinds of machine that a definition may have. */
static bool is_supported(const vz_caps_machine *machine)
{
    return g_str_has_prefix(machine->name, "pc-i440fx-") ||
           g_str_has_prefix(machine->name, "pc-q35-");
}

static void format_cpu(vz_writer *writer, const vz_caps_input *input)
{
    const vz_caps_host *host = input->host;
    enter(writer, "cpu");
    vz_writer_leaf(writer, "arch", input->arch);
    if (host->vendor)
        vz_writer_leaf(writer, "vendor", host->vendor);
    enter(writer, "topology");
    attribute(writer, "sockets", "%u", host->sockets);
    attribute(writer, "dies", "%u", host->dies);
    attribute(writer, "cores", "%u", host->cores);
    attribute(writer, "threads", "%u", host->threads);
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

static void format_migration(vz_writer *writer)
{
    enter(writer, "migration_features");
    empty(writer, "live", NULL, NULL);
    enter(writer, "uri_transports");
    vz_writer_leaf(writer, "uri_transport", "tcp");
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

static void format_cell(vz_writer *writer, const vz_caps_cell *cell)
{
    g_autofree char *ram = g_strdup_printf("%" G_GUINT64_FORMAT, cell->ram_bytes / VZ_KIB);
    enter(writer, "cell");
    attribute(writer, "id", "%u", cell->id);
    enter(writer, "memory");
    vz_writer_attribute(writer, "unit", "KiB");
    vz_writer_text(writer, ram);
    vz_writer_leave(writer);
    enter(writer, "cpus");
    attribute(writer, "num", "%zu", cell->n_cpus);
    for (size_t i = 0; i < cell->n_cpus; i++) {
        const vz_caps_cpu *cpu = &cell->cpus[i];
        enter(writer, "cpu");
        attribute(writer, "id", "%u", cpu->id);
        attribute(writer, "socket_id", "%u", cpu->socket);
        attribute(writer, "die_id", "%u", cpu->die);
        /* libvirt writes it since 10.1, always 0 on x86. */
        vz_writer_attribute(writer, "cluster_id", "0");
        attribute(writer, "core_id", "%u", cpu->core);
        vz_writer_attribute(writer, "siblings", cpu->siblings);
        vz_writer_leave(writer);
    }
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

static void format_host(vz_writer *writer, const vz_caps_input *input)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(input->host_uuid, uuid);
    enter(writer, "host");
    vz_writer_leaf(writer, "uuid", uuid);
    format_cpu(writer, input);
    format_migration(writer);
    enter(writer, "topology");
    enter(writer, "cells");
    attribute(writer, "num", "%zu", input->host->n_cells);
    for (size_t i = 0; i < input->host->n_cells; i++)
        format_cell(writer, &input->host->cells[i]);
    vz_writer_leave(writer);
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

static void format_machine(vz_writer *writer, const vz_caps_machine *machine, const char *name)
{
    enter(writer, "machine");
    if (name != machine->name)
        vz_writer_attribute(writer, "canonical", machine->name);
    attribute(writer, "maxCpus", "%u", machine->max_cpus);
    if (machine->deprecated)
        vz_writer_attribute(writer, "deprecated", "yes");
    vz_writer_text(writer, name);
    vz_writer_leave(writer);
}

static bool is_alias(const vz_caps_machine *machine, const char *name)
{
    return g_strcmp0(machine->alias, name) == 0;
}

/* The default first: clients take the first one for it. */
static void format_machines(vz_writer *writer, const vz_caps_input *input)
{
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < input->n_machines; i++) {
            const vz_caps_machine *machine = &input->machines[i];
            bool is_default = is_alias(machine, input->default_machine);
            if (!is_supported(machine) || is_default != (pass == 0))
                continue;
            format_machine(writer, machine, machine->name);
            if (machine->alias)
                format_machine(writer, machine, machine->alias);
        }
    }
}

static void format_toggle(vz_writer *writer, const char *name, const char *toggle)
{
    enter(writer, name);
    vz_writer_attribute(writer, "default", "on");
    vz_writer_attribute(writer, "toggle", toggle);
    vz_writer_leave(writer);
}

static void format_guest(vz_writer *writer, const vz_caps_input *input)
{
    enter(writer, "guest");
    vz_writer_leaf(writer, "os_type", vz_os_type_word(VZ_OS_HVM));
    enter(writer, "arch");
    vz_writer_attribute(writer, "name", input->arch);
    vz_writer_leaf(writer, "wordsize", "64");
    vz_writer_leaf(writer, "emulator", input->emulator);
    format_machines(writer, input);
    empty(writer, "domain", "type", vz_def_type_word(VZ_DEF_TYPE_VZ));
    empty(writer, "domain", "type", vz_def_type_word(VZ_DEF_TYPE_QEMU));
    if (input->kvm)
        empty(writer, "domain", "type", vz_def_type_word(VZ_DEF_TYPE_KVM));
    vz_writer_leave(writer);
    enter(writer, "features");
    format_toggle(writer, "acpi", "yes");
    format_toggle(writer, "apic", "no");
    empty(writer, "cpuselection", NULL, NULL);
    empty(writer, "deviceboot", NULL, NULL);
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

char *vz_caps_format(const vz_caps_input *input)
{
    vz_writer writer;
    vz_writer_init(&writer);
    enter(&writer, "capabilities");
    format_host(&writer, input);
    format_guest(&writer, input);
    return vz_writer_finish(&writer);
}

static void begin_enum(vz_writer *writer, const char *name)
{
    enter(writer, "enum");
    vz_writer_attribute(writer, "name", name);
}

/* All words of a type of domain_enums.def. The casts are to and from the same enum. */
#define WORDS(writer, name, type)                                                                  \
    do {                                                                                           \
        begin_enum(writer, name);                                                                  \
        for (unsigned word = 1; *vz_##type##_word((vz_##type)word); word++)                        \
            vz_writer_leaf(writer, "value", vz_##type##_word((vz_##type)word));                    \
        vz_writer_leave(writer);                                                                   \
    } while (0)

static void begin_supported(vz_writer *writer, const char *name)
{
    enter(writer, name);
    vz_writer_attribute(writer, "supported", "yes");
}

static void format_mode(vz_writer *writer, vz_cpu_mode mode, bool supported)
{
    enter(writer, "mode");
    vz_writer_attribute(writer, "name", vz_cpu_mode_word(mode));
    vz_writer_attribute(writer, "supported", yes_no(supported));
    if (!supported)
        return;
    begin_enum(writer,
               mode == VZ_CPU_MODE_MAXIMUM ? "maximumMigratable" : "hostPassthroughMigratable");
    vz_writer_leaf(writer, "value", "on");
    vz_writer_leaf(writer, "value", "off");
    vz_writer_leave(writer);
}

static void format_cpu_modes(vz_writer *writer, const vz_caps_input *input, bool hardware)
{
    enter(writer, "cpu");
    format_mode(writer, VZ_CPU_MODE_HOST_PASSTHROUGH, hardware);
    vz_writer_leave(writer);
    format_mode(writer, VZ_CPU_MODE_MAXIMUM, true);
    vz_writer_leave(writer);
    format_mode(writer, VZ_CPU_MODE_HOST_MODEL, false);
    vz_writer_leave(writer);
    enter(writer, "mode");
    vz_writer_attribute(writer, "name", vz_cpu_mode_word(VZ_CPU_MODE_CUSTOM));
    vz_writer_attribute(writer, "supported", "yes");
    for (const char *const *model = input->cpu_models; model && *model; model++) {
        enter(writer, "model");
        vz_writer_attribute(writer, "usable", "unknown");
        vz_writer_attribute(writer, "vendor", "unknown");
        vz_writer_text(writer, *model);
        vz_writer_leave(writer);
    }
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

static void format_devices(vz_writer *writer)
{
    enter(writer, "devices");
    begin_supported(writer, "disk");
    WORDS(writer, "diskDevice", disk_device);
    WORDS(writer, "bus", disk_bus);
    vz_writer_leave(writer);
    begin_supported(writer, "graphics");
    WORDS(writer, "type", graphics_type);
    vz_writer_leave(writer);
    begin_supported(writer, "video");
    WORDS(writer, "modelType", video_model);
    vz_writer_leave(writer);
    empty(writer, "hostdev", "supported", "no");
    begin_supported(writer, "rng");
    WORDS(writer, "model", rng_model);
    WORDS(writer, "backendModel", rng_backend);
    vz_writer_leave(writer);
    empty(writer, "filesystem", "supported", "no");
    empty(writer, "tpm", "supported", "no");
    empty(writer, "redirdev", "supported", "no");
    begin_supported(writer, "channel");
    WORDS(writer, "type", chardev_type);
    vz_writer_leave(writer);
    vz_writer_leave(writer);
}

static void format_features(vz_writer *writer)
{
    static const char *const absent[] = {"gic",    "vmcoreinfo", "genid", "backingStoreInput",
                                         "backup", "sev",        "sgx",   "hyperv"};
    enter(writer, "features");
    for (size_t i = 0; i < G_N_ELEMENTS(absent); i++)
        empty(writer, absent[i], "supported", "no");
    vz_writer_leave(writer);
}

static const vz_caps_machine *find_machine(const vz_caps_input *input, const char *name)
{
    for (size_t i = 0; i < input->n_machines; i++) {
        const vz_caps_machine *machine = &input->machines[i];
        if (is_supported(machine) && (strcmp(machine->name, name) == 0 || is_alias(machine, name)))
            return machine;
    }
    return NULL;
}

/* false: the query is about something that this host has not. */
static bool check_query(const vz_caps_input *input, const vz_caps_query *query, GError **err)
{
    const char *type = query->type;
    if (query->emulator && strcmp(query->emulator, input->emulator) != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "no capabilities known of emulator '%s', only of "
                       "'%s'",
                       query->emulator, input->emulator);
    if (query->arch && strcmp(query->arch, input->arch) != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "unable to find any emulator to serve '%s' "
                       "architecture",
                       query->arch);
    if (type && strcmp(type, "kvm") == 0 && !input->kvm)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "KVM is not supported by '%s' on this host",
                       input->emulator);
    if (type && strcmp(type, "vz") != 0 && strcmp(type, "qemu") != 0 && strcmp(type, "kvm") != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "unknown virttype: %s", type);
    return true;
}

char *vz_caps_format_domain(const vz_caps_input *input, const vz_caps_query *query, GError **err)
{
    const char *type = query->type ? query->type : vz_def_type_word(VZ_DEF_TYPE_VZ);
    const char *name = query->machine ? query->machine : input->default_machine;
    const vz_caps_machine *machine = find_machine(input, name);
    if (!check_query(input, query, err))
        return NULL;
    if (!machine) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the machine '%s' is not supported by emulator '%s'", name,
                input->emulator);
        return NULL;
    }
    vz_writer writer;
    vz_writer_init(&writer);
    enter(&writer, "domainCapabilities");
    vz_writer_leaf(&writer, "path", input->emulator);
    vz_writer_leaf(&writer, "domain", type);
    vz_writer_leaf(&writer, "machine", machine->name);
    vz_writer_leaf(&writer, "arch", input->arch);
    enter(&writer, "vcpu");
    attribute(&writer, "max", "%u", machine->max_cpus);
    vz_writer_leave(&writer);
    empty(&writer, "iothreads", "supported", "no");
    begin_supported(&writer, "os");
    begin_enum(&writer, "firmware");
    vz_writer_leave(&writer);
    empty(&writer, "loader", "supported", "no");
    vz_writer_leave(&writer);
    format_cpu_modes(&writer, input, input->kvm && strcmp(type, "qemu") != 0);
    empty(&writer, "memoryBacking", "supported", "no");
    format_devices(&writer);
    format_features(&writer);
    return vz_writer_finish(&writer);
}
