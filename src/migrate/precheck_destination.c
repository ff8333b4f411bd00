/* precheck_destination.c - see precheck.h: what the destination looks at. */
#include "migrate/precheck.h"

#include "base/units.h"
#include "domain/table.h"
#include "migrate/destination.h"
#include "migrate/disks.h"
#include "migrate/service.h"
#include "net/link.h"
#include "storage/identify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Clocks that differ by less are not worth a word. What makes this host's look ahead may be the
 * cookie's journey: at once in a check, but a client of a real move may think in between. */
#define CLOCK_TOLERANCE_US (5 * VZ_USEC_PER_SEC)
#define COOKIE_JOURNEY_US  (60 * VZ_USEC_PER_SEC)

static void check_same_host(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) err = NULL;
    if (!vz_destination_check_host(s->service, s->cookie, &err))
        vz_findings_refuse_error(findings, name, err, "/etc/virtvz/host-uuid sets another");
}

/* Without it the checks that look at it are silent. */
static void check_definition(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    if (s->def_error)
        vz_findings_refuse_error(findings, name, s->def_error,
                                 "take that out of the definition, or install a virtvzd as new as "
                                 "the source's on the destination");
}

static void check_clash(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) err = NULL;
    const vz_migrate_config *settings = vz_migrate_settings(s->service);
    if (s->domain || !s->def ||
        vz_table_check(settings->table, s->def->uuid, s->def->name, VZ_RESERVE_START, &err))
        return;
    vz_findings_refuse_error(findings, name, err,
                             "give the guest another name there (--dname), or rename or undefine "
                             "the domain that is there");
}

static void check_emulator(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    if (s->emulator_error)
        vz_findings_refuse_error(findings, name, s->emulator_error,
                                 "install that QEMU on the destination, at the same path");
}

/* major * 1000000 + minor * 1000 of "pc-i440fx-10.0"; 0: its name has no version. */
static unsigned version_of_machine(const char *machine)
{
    unsigned major = 0, minor = 0;
    const char *dash = machine ? strrchr(machine, '-') : NULL;
    return dash && sscanf(dash, "-%3u.%3u", &major, &minor) == 2 ? major * 1000000 + minor * 1000
                                                                 : 0;
}

/* Older than the guest's machine needs, by QEMU's version; or just older than the source's, which
 * QEMU does not promise to work although the machine is there. */
static void check_qemu_version(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    if (!s->def || !s->here.caps)
        return;
    unsigned here = vz_qemu_caps_version(s->here.caps);
    unsigned needed = version_of_machine(s->def->os.machine);
    g_autofree char *ours = vz_qemu_version_text(here);
    g_autofree char *theirs = vz_qemu_version_text(s->there.qemu_version);
    if (needed / 1000 > here / 1000) {
        g_autofree char *text = g_strdup_printf(
            "Emulator '%s' does not support machine type '%s': QEMU on %s is %s, the guest's "
            "machine came with %u.%u",
            vz_qemu_caps_emulator(s->here.caps), s->def->os.machine, s->here.host_name, ours,
            needed / 1000000, needed / 1000 % 1000);
        g_autofree char *remedy =
            g_strdup_printf("install QEMU %u.%u or later on %s", needed / 1000000,
                            needed / 1000 % 1000, s->here.host_name);
        vz_findings_refuse(findings, name, VZ_ERR_CONFIG_UNSUPPORTED, text, remedy);
    } else if (s->there.qemu_version / 1000 > here / 1000) {
        g_autofree char *text =
            g_strdup_printf("QEMU on %s is older (%s) than the guest's (%s); the guest's machine "
                            "'%s' is there, but "
                            "QEMU promises moves to later versions only",
                            s->here.host_name, ours, theirs, s->def->os.machine);
        vz_findings_warn(findings, name, text, "install the same QEMU on both hosts");
    }
}

static void check_machine(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    if (!s->def || !s->here.caps || vz_qemu_caps_machine(s->here.caps, s->def->os.machine) ||
        version_of_machine(s->def->os.machine) / 1000 > vz_qemu_caps_version(s->here.caps) / 1000)
        return; /* the last: check_qemu_version says so */
    g_autofree char *ours = vz_qemu_version_text(vz_qemu_caps_version(s->here.caps));
    g_autofree char *text = g_strdup_printf(
        "Emulator '%s' does not support machine type '%s' (QEMU %s on %s)",
        vz_qemu_caps_emulator(s->here.caps), s->def->os.machine, ours, s->here.host_name);
    vz_findings_refuse(findings, name, VZ_ERR_CONFIG_UNSUPPORTED, text,
                       "install a QEMU with that machine there, or shut the guest down and start "
                       "it with a machine that both hosts have");
}

/* Nothing is started here, so what only a start needs is not looked at. */
static bool is_offline(const vz_precheck_subject *s)
{
    return s->options && vz_options_has(s->options, VZ_OPTION_OFFLINE);
}

static bool accelerator(const vz_precheck_subject *s, vz_accel *ret_accel, GError **err)
{
    g_autofree char *note = NULL;
    return s->def && s->here.caps && !is_offline(s) &&
           vz_qemu_caps_accel(s->here.caps, s->def->type, ret_accel, &note, err);
}

static void check_accelerator(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) err = NULL;
    vz_accel accel = VZ_ACCEL_TCG;
    bool known = accelerator(s, &accel, &err);
    const char *ours = accel == VZ_ACCEL_KVM ? "kvm" : "tcg";
    const char *theirs = s->there.accelerator;
    if (err) {
        vz_findings_refuse_error(findings, name, err, "make KVM work on the destination");
    } else if (known && theirs && strcmp(ours, theirs) != 0) {
        g_autofree char *text =
            g_strdup_printf("the guest runs by %s, and on %s it would by %s; its state cannot go "
                            "from one to the other",
                            theirs, s->here.host_name, ours);
        vz_findings_refuse(findings, name, VZ_ERR_CONFIG_UNSUPPORTED, text,
                           "make KVM work on both hosts, or start the guest with domain type "
                           "'qemu', which is emulated everywhere");
    }
}

static gint compare_names(gconstpointer a, gconstpointer b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "a, b, c" of what is in `wanted` but not in `had`, sorted; NULL: nothing. Caller frees. */
static char *missing_features(GHashTable *wanted, GHashTable *had)
{
    GHashTableIter iter;
    void *feature;
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    g_hash_table_iter_init(&iter, wanted);
    while (g_hash_table_iter_next(&iter, &feature, NULL))
        if (!g_hash_table_contains(had, feature))
            g_ptr_array_add(names, feature);
    if (names->len == 0)
        return NULL;
    g_ptr_array_sort(names, compare_names);
    g_ptr_array_add(names, NULL);
    return g_strjoinv(", ", (char **)names->pdata);
}

static char *remedy_for_cpu(const vz_precheck_subject *s, vz_accel accel)
{
    GHashTableIter iter;
    void *feature;
    g_autoptr(GHashTable) common = g_hash_table_new(g_str_hash, g_str_equal);
    GHashTable *had = vz_qemu_caps_cpu_features(s->here.caps, accel);
    g_hash_table_iter_init(&iter, s->there.cpu_features);
    while (g_hash_table_iter_next(&iter, &feature, NULL))
        if (g_hash_table_contains(had, feature))
            g_hash_table_add(common, feature);
    g_autofree char *model = vz_qemu_caps_baseline(s->here.caps, accel, common);
    return model ? g_strdup_printf("shut the guest down and start it with a CPU that both hosts "
                                   "have: <cpu mode='custom'><model>%s</model></cpu> would do",
                                   model)
                 : g_strdup("shut the guest down and start it without these features, each with "
                            "<feature policy='disable' name='...'/>");
}

static void check_cpu(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) ignored = NULL; /* check_accelerator says so */
    vz_accel accel;
    if (!accelerator(s, &accel, &ignored) || !s->there.cpu_features)
        return;
    GHashTable *had = vz_qemu_caps_cpu_features(s->here.caps, accel);
    g_autofree char *missing = had ? missing_features(s->there.cpu_features, had) : NULL;
    if (!missing)
        return;
    g_autofree char *remedy = remedy_for_cpu(s, accel);
    g_autofree char *text =
        g_strdup_printf("%s lacks CPU features that the guest has: %s", s->here.host_name, missing);
    vz_findings_refuse(findings, name, VZ_ERR_CPU_INCOMPATIBLE, text, remedy);
}

static void check_network(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    for (size_t i = 0; s->def && !is_offline(s) && i < s->def->n_interfaces; i++) {
        const char *bridge = s->def->interfaces[i].bridge;
        g_autoptr(GError) err = NULL;
        if (!bridge || !g_hash_table_add(seen, (void *)(uintptr_t)bridge) ||
            vz_link_check_bridge(bridge, &err))
            continue;
        g_autofree char *remedy = g_strdup_printf(
            "make a bridge '%s' on %s that joins the same network", bridge, s->here.host_name);
        vz_findings_refuse_error(findings, name, err, remedy);
    }
}

static void check_memory(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    uint64_t available = s->here.memory_available_bytes;
    if (!s->def || is_offline(s) || available == 0 || s->def->ram_bytes <= available)
        return;
    g_autofree char *text =
        g_strdup_printf("memory is short on %s: the guest may use up to %" G_GUINT64_FORMAT
                        " MiB, and %" G_GUINT64_FORMAT " MiB are available there",
                        s->here.host_name, s->def->ram_bytes / VZ_MIB, available / VZ_MIB);
    vz_findings_refuse(findings, name, VZ_ERR_OPERATION_FAILED, text,
                       "move or shut down other guests there, or move this one elsewhere");
}

/* The guest's hardware clock goes by its host's. Nothing else compares them. */
static void check_clock(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    int64_t ahead_us = s->here.time_us - s->there.time_us;
    int64_t journey_us = s->domain && ahead_us > 0 ? COOKIE_JOURNEY_US : 0;
    if (s->there.time_us == 0 || ABS(ahead_us) <= CLOCK_TOLERANCE_US + journey_us)
        return;
    g_autofree char *text = g_strdup_printf(
        "the clock of %s is %.1f s %s that of %s; the guest's hardware clock jumps by as much",
        s->here.host_name, (double)ABS(ahead_us) / (double)VZ_USEC_PER_SEC,
        ahead_us > 0 ? "ahead of" : "behind", s->cookie->host_name);
    vz_findings_warn(findings, name, text, "set both by NTP (chrony, systemd-timesyncd)");
}

static bool prove_disk(const vz_precheck_subject *s, json_t *offer, GPtrArray *findings,
                       GError **err)
{
    size_t i;
    json_t *answer;
    json_t *answers = NULL;
    json_t *one = json_pack("[O]", offer);
    const vz_identify_policy policy = vz_disks_policy(s->options);
    vz_def def = *s->def; /* borrows all of it, but has one disk */
    const char *target = json_string_value(json_object_get(offer, "target"));
    def.n_disks = 0;
    for (i = 0; target && i < s->def->n_disks && def.n_disks == 0; i++) {
        def.disks = &s->def->disks[i];
        def.n_disks = g_strcmp0(def.disks->target, target) == 0;
    }
    bool proved = vz_identify_answer(&def, one, &policy, &answers, err);
    json_array_foreach(answers, i, answer)
    {
        g_autofree char *warning = vz_identify_warning(answer);
        if (warning)
            vz_findings_warn(findings, "disks", warning, VZ_REMEDY_DISKS);
        if (s->disks_answered)
            json_array_append(s->disks_answered, answer);
    }
    if (proved && !s->disks_answered) /* nobody else takes it away */
        vz_identify_remove(s->def, one);
    json_decref(answers);
    json_decref(one);
    return proved;
}

/* A second Prepare: the notes beside the images are the first one's. */
static bool is_prepared(const vz_precheck_subject *s)
{
    g_autoptr(vz_migration) first =
        s->domain ? NULL : vz_migrate_find(s->service, VZ_SIDE_DESTINATION, s->cookie->job);
    return first != NULL;
}

static void check_disks(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    size_t i;
    json_t *offer;
    g_autoptr(GError) unknown = NULL;
    if (!s->def || (!s->disks_answered && !vz_findings_refuse_move(findings)) || is_prepared(s))
        return;
    if (!vz_disks_check_list(s->def, s->options, &unknown))
        vz_findings_refuse_error(findings, name, unknown, "name disks by their targets ('vda')");
    json_array_foreach((json_t *)(uintptr_t)s->cookie->disks, i, offer)
    {
        g_autoptr(GError) err = NULL;
        if (i < VZ_IDENTIFY_DISKS_MAX && !prove_disk(s, offer, findings, &err))
            vz_findings_refuse_error(findings, name, err, VZ_REMEDY_DISKS);
    }
}

const vz_precheck vz_prechecks_destination[] = {
    {"same-host", check_same_host},
    {"definition", check_definition},
    {"clash", check_clash},
    {"emulator", check_emulator},
    {"options", vz_precheck_options},
    {"direct-stream", vz_precheck_direct},
    {"certificates", vz_precheck_certificates},
    {"qemu-version", check_qemu_version},
    {"machine", check_machine},
    {"accelerator", check_accelerator},
    {"cpu", check_cpu},
    {"network", check_network},
    {"memory", check_memory},
    {"clock", check_clock},
    {"disks", check_disks},
    {NULL, NULL},
};

/* --- who looks --- */

/* Fills in what is known here; `there` is to be cleared, the emulator's error is the caller's. */
static bool fill(vz_precheck_subject *s, GError **emulator_error, GError **err)
{
    const char *emulator =
        s->def && s->def->emulator ? s->def->emulator : vz_qemu_default_emulator();
    s->here = (vz_host_facts){.host_name = vz_migrate_settings(s->service)->host_name,
                              .time_us = g_get_real_time(),
                              .memory_available_bytes = vz_host_memory_available()};
    if (!*emulator_error)
        s->here.caps = vz_qemu_caps_get(emulator, emulator_error);
    s->emulator_error = *emulator_error;
    return vz_guest_facts_from_json(s->cookie->facts, &s->there, err);
}

bool vz_precheck_host(vz_migration *m, GError **err)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    g_autoptr(GError) emulator_error = NULL;
    vz_precheck_subject subject = {.service = m->service,
                                   .domain = m->domain,
                                   .def = m->def,
                                   .options = m->options,
                                   .cookie = m->cookie_in};
    if (!fill(&subject, &emulator_error, err))
        return false;
    vz_precheck_run(vz_prechecks_destination, &subject, findings);
    vz_guest_facts_clear(&subject.there);
    vz_findings_log(findings, m->id);
    return vz_findings_enforce(findings, err);
}

/* As it would be read here, but whatever its machine; that is a check of its own. */
static vz_def *parse(const vz_precheck_arrival *arrival, const vz_qemu_caps *caps, GError **err)
{
    vz_def_host host = {.arch = vz_qemu_caps_arch(caps),
                        .emulator = vz_qemu_caps_emulator(caps),
                        .default_machine = "pc",
                        .default_cpu = "qemu64"};
    const char *xml = vz_options_text(arrival->options, VZ_OPTION_DEST_XML);
    if (xml)
        return vz_def_renamed(vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, err),
                              vz_options_text(arrival->options, VZ_OPTION_DEST_NAME));
    vz_fail(err, VZ_ERR_INVALID_ARG, "no domain XML passed");
    return NULL;
}

bool vz_precheck_arriving(const vz_precheck_arrival *arrival, json_t *disks_answered,
                          GPtrArray *findings, GError **err)
{
    g_autoptr(GError) def_error = NULL;
    g_autoptr(GError) emulator_error = NULL;
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_qemu_default_emulator(), &emulator_error);
    g_autoptr(vz_def) def = caps ? parse(arrival, caps, &def_error) : NULL;
    vz_precheck_subject subject = {.service = arrival->service,
                                   .def = def,
                                   .options = arrival->options,
                                   .def_error = def_error,
                                   .cookie = arrival->cookie,
                                   .disks_answered = disks_answered};
    if (!fill(&subject, &emulator_error, err))
        return false;
    subject.here.time_us = arrival->arrived_us; /* a QEMU may have been asked since */
    vz_precheck_run(vz_prechecks_destination, &subject, findings);
    vz_guest_facts_clear(&subject.there);
    return true;
}

void vz_precheck_explain(const vz_precheck_arrival *arrival, GError **err)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    g_autoptr(GError) all = NULL;
    if (!vz_precheck_arriving(arrival, NULL, findings, &all) || vz_findings_enforce(findings, &all))
        return; /* it is about something else */
    g_clear_error(err);
    g_propagate_error(err, g_steal_pointer(&all));
}
