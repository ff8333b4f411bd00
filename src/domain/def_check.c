/* def_check.c - what goes together in a definition, and what does not.
 *
 * Rows know values one by one; here are the rules between them, with libvirt's code and sentence
 * where libvirt has the same rule. Devices are in def_check_devices.c. Builder's thread. */
#include "domain/def_fill.h"

#include <string.h>

static bool unsupported(GError **err, const char *what)
{
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s", what);
}

static bool check_identity(const vz_def *def, GError **err)
{
    if (strlen(def->name) > VZ_DEF_NAME_BYTES_MAX)
        return vz_fail(err, VZ_ERR_XML_ERROR, "name of the domain is longer than %d bytes",
                       VZ_DEF_NAME_BYTES_MAX);
    if (strchr(def->name, '/') || strcmp(def->name, ".") == 0 || strcmp(def->name, "..") == 0)
        return vz_fail(err, VZ_ERR_XML_ERROR, "name %s cannot contain '/'", def->name);
    for (const char *p = def->name; *p; p++)
        if (g_ascii_iscntrl(*p))
            return vz_fail(err, VZ_ERR_XML_ERROR,
                           "name of the domain cannot contain control characters");
    if (def->title && strchr(def->title, '\n'))
        return vz_fail(err, VZ_ERR_XML_ERROR, "domain title can't contain newlines");
    return true;
}

static bool check_os(const vz_def *def, GError **err)
{
    const vz_def_os *os = &def->os;
    const char *paths[] = {def->emulator, os->kernel, os->initrd};
    for (size_t i = 0; i < G_N_ELEMENTS(paths); i++)
        if (paths[i] && paths[i][0] != '/')
            return vz_fail(err, VZ_ERR_XML_ERROR, "path '%s' must be absolute", paths[i]);
    if (!os->kernel && (os->initrd || os->cmdline))
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "/domain/os: initrd and cmdline need a kernel to be given to");
    if (os->has_boot_menu_timeout && os->boot_menu != VZ_YESNO_YES)
        return vz_fail(err, VZ_ERR_XML_ERROR, "boot menu timeout needs bootmenu enable='yes'");
    for (size_t i = 0; i < os->n_boots; i++)
        for (size_t j = 0; j < i; j++)
            if (os->boots[i].device == os->boots[j].device)
                return vz_fail(err, VZ_ERR_XML_ERROR, "boot device '%s' is there twice",
                               vz_boot_device_word(os->boots[i].device));
    return true;
}

static bool check_topology(const vz_def *def, GError **err)
{
    const vz_def_cpu *cpu = &def->cpu;
    uint64_t all = (uint64_t)cpu->sockets * cpu->dies;
    if (!cpu->has_topology)
        return true;
    all = all > UINT32_MAX ? UINT32_MAX : all * cpu->cores;
    all = all > UINT32_MAX ? UINT32_MAX : all * cpu->threads;
    return all == def->vcpus_max ||
           unsupported(err, "CPU topology doesn't match maximum vcpu count");
}

static bool check_cpu(const vz_def *def, GError **err)
{
    const vz_def_cpu *cpu = &def->cpu;
    if (cpu->mode == VZ_CPU_MODE_HOST_PASSTHROUGH && def->type == VZ_DEF_TYPE_QEMU)
        return unsupported(err, "CPU mode 'host-passthrough' needs hardware acceleration; it is "
                                "not supported for domain type 'qemu'");
    bool as_host = cpu->mode == VZ_CPU_MODE_HOST_PASSTHROUGH || cpu->mode == VZ_CPU_MODE_MAXIMUM;
    if (as_host && cpu->model)
        return unsupported(err, "/domain/cpu/model: a model needs mode 'custom'");
    if (cpu->mode == VZ_CPU_MODE_HOST_MODEL && cpu->model)
        return unsupported(err, "/domain/cpu/model: mode 'host-model' picks its own model");
    if (!as_host && cpu->migratable != VZ_ONOFF_NONE)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "attribute 'migratable' is only for CPU mode 'host-passthrough' and "
                       "'maximum'");
    for (size_t i = 0; i < cpu->n_features; i++)
        for (size_t j = 0; j < i; j++)
            if (strcmp(cpu->features[i].name, cpu->features[j].name) == 0)
                return vz_fail(err, VZ_ERR_XML_ERROR, "CPU feature '%s' specified more than once",
                               cpu->features[i].name);
    return check_topology(def, err);
}

static bool timer_policy_fits(const vz_def_timer *timer)
{
    if (timer->policy == VZ_TIMER_POLICY_NONE || timer->policy == VZ_TIMER_POLICY_DELAY)
        return timer->policy == VZ_TIMER_POLICY_NONE || timer->name == VZ_TIMER_RTC ||
               timer->name == VZ_TIMER_PIT;
    return (timer->name == VZ_TIMER_RTC && timer->policy == VZ_TIMER_POLICY_CATCHUP) ||
           (timer->name == VZ_TIMER_PIT && timer->policy == VZ_TIMER_POLICY_DISCARD);
}

/* Which timers QEMU can leave out. */
static bool timer_may_be_absent(vz_timer_name name)
{
    return name == VZ_TIMER_HPET || name == VZ_TIMER_KVMCLOCK || name == VZ_TIMER_HYPERVCLOCK;
}

static bool check_timers(const vz_def *def, GError **err)
{
    for (size_t i = 0; i < def->n_timers; i++) {
        const vz_def_timer *timer = &def->timers[i];
        const char *name = vz_timer_name_word(timer->name);
        if (!timer_policy_fits(timer))
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "unsupported %s timer tickpolicy '%s'",
                           name, vz_timer_policy_word(timer->policy));
        if (timer->present == VZ_YESNO_NO && !timer_may_be_absent(timer->name))
            return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "timer '%s' cannot be left out", name);
        for (size_t j = 0; j < i; j++)
            if (def->timers[j].name == timer->name)
                return vz_fail(err, VZ_ERR_XML_ERROR, "timer '%s' is there twice", name);
    }
    return true;
}

static bool note_boot_order(const vz_def *def, GHashTable *seen, uint32_t order, GError **err)
{
    if (order == 0)
        return true;
    if (def->os.n_boots > 0)
        return unsupported(err, "per-device boot elements cannot be used together with os/boot "
                                "elements");
    return g_hash_table_add(seen, GUINT_TO_POINTER(order)) ||
           vz_fail(err, VZ_ERR_XML_ERROR, "boot order '%u' used for more than one device", order);
}

static bool check_boot_order(const vz_def *def, GError **err)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    for (size_t i = 0; i < def->n_disks; i++)
        if (!note_boot_order(def, seen, def->disks[i].info.boot_order, err))
            return false;
    for (size_t i = 0; i < def->n_interfaces; i++)
        if (!note_boot_order(def, seen, def->interfaces[i].info.boot_order, err))
            return false;
    return true;
}

bool vz_def_check(const vz_def *def, GError **err)
{
    return check_identity(def, err) && check_os(def, err) && check_cpu(def, err) &&
           check_timers(def, err) && check_boot_order(def, err) && vz_def_check_devices(def, err);
}
