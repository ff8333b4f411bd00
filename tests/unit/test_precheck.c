/* test_precheck.c - the checks before a move, as far as they need no second host: what the
 * destination's rows find, on recorded capabilities of QEMU 10.0; how findings become an error; and
 * what a peer may send. */
#include "migrate/precheck.h"
#include "migrate/visit.h"

#include "base/units.h"

#include <string.h>

/* A destination on which all is well. */
typedef struct {
    vz_qemu_caps *caps;
    vz_def *def;
    vz_cookie cookie;
    vz_precheck_subject subject;
} scene;

static json_t *recorded(void)
{
    json_t *replies = json_load_file(
        g_test_get_filename(G_TEST_DIST, "golden", "qemu-10.0-replies.json", NULL), 0, NULL);
    g_assert_nonnull(replies);
    return replies;
}

static vz_def *parse(const char *machine, const char *devices)
{
    const vz_def_host host = {.arch = "x86_64",
                              .emulator = "/bin/qemu",
                              .default_machine = "pc",
                              .default_cpu = "qemu64"};
    g_autofree char *xml =
        g_strdup_printf("<domain type='vz'><name>g</name><memory unit='MiB'>2048</memory><os>"
                        "<type machine='%s'>hvm</type></os><devices>%s</devices></domain>",
                        machine, devices);
    g_autoptr(GError) err = NULL;
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    return def;
}

static GHashTable *set_of(const char *const *names)
{
    GHashTable *set = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (; *names; names++)
        g_hash_table_add(set, g_strdup(*names));
    return set;
}

static void set_up(scene *s)
{
    static const char *const guest[] = {"sse2", "nx", NULL};
    g_autoptr(GError) err = NULL;
    json_t *replies = recorded();
    json_object_set_new(replies, "cpu-features", json_pack("[sss]", "sse2", "nx", "avx2"));
    *s = (scene){.caps = vz_qemu_caps_parse("/bin/qemu", replies, &err),
                 .def = parse("pc-i440fx-10.0", ""),
                 .cookie = {.host_name = g_strdup("hosta")}};
    json_decref(replies);
    g_assert_no_error(err);
    s->subject = (vz_precheck_subject){.def = s->def,
                                       .cookie = &s->cookie,
                                       .there = {.time_us = 1000 * VZ_USEC_PER_SEC,
                                                 .qemu_version = 10000013,
                                                 .accelerator = g_strdup("tcg"),
                                                 .cpu_features = set_of(guest)},
                                       .here = {.host_name = "hostb",
                                                .time_us = 1002 * VZ_USEC_PER_SEC,
                                                .memory_available_bytes = 4096 * VZ_MIB,
                                                .caps = s->caps}};
}

static void tear_down(scene *s)
{
    vz_guest_facts_clear(&s->subject.there);
    vz_cookie_clear(&s->cookie);
    vz_def_unref(s->def);
    vz_qemu_caps_free(s->caps);
}

/* Runs one row; "" where it finds nothing, else "TEXT | REMEDY" of its one finding. */
static char *look(const scene *s, const char *name, bool refuses)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    const vz_precheck *row = vz_prechecks_destination;
    while (row->name && strcmp(row->name, name) != 0)
        row++;
    g_assert_nonnull(row->name);
    row->run(&s->subject, row->name, findings);
    if (findings->len == 0)
        return g_strdup("");
    g_assert_cmpuint(findings->len, ==, 1);
    const vz_finding *found = findings->pdata[0];
    g_assert_cmpstr(found->check, ==, name);
    g_assert_cmpint(found->refuses, ==, refuses);
    return g_strdup_printf("%s | %s", found->text, found->remedy);
}

static void expect(const scene *s, const char *name, bool refuses, const char *const *words)
{
    g_autofree char *text = look(s, name, refuses);
    for (; *words; words++)
        if (!strstr(text, *words))
            g_error("%s: '%s' does not say '%s'", name, text, *words);
}
#define REFUSED(s, name, ...) expect(s, name, true, (const char *const[]){__VA_ARGS__, NULL})
#define WARNED(s, name, ...)  expect(s, name, false, (const char *const[]){__VA_ARGS__, NULL})

static void silent(const scene *s, const char *name)
{
    g_autofree char *text = look(s, name, true);
    g_assert_cmpstr(text, ==, "");
}

/* All rows but those that need the host's register of domains. */
static const char *const rows[] = {"definition",  "emulator", "qemu-version", "machine",
                                   "accelerator", "cpu",      "network",      "memory",
                                   "clock",       "disks"};

static void test_all_well(void)
{
    scene s;
    set_up(&s);
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        silent(&s, rows[i]);
    tear_down(&s);
}

/* Every row is silent about what it cannot know. */
static void test_nothing_known(void)
{
    scene s;
    set_up(&s);
    vz_guest_facts_clear(&s.subject.there);
    s.subject.there = (vz_guest_facts){0};
    s.subject.here = (vz_host_facts){.host_name = "hostb"};
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        silent(&s, rows[i]);
    s.subject.def = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        silent(&s, rows[i]);
    tear_down(&s);
}

static void use_machine(scene *s, const char *machine)
{
    vz_def_unref(s->def);
    s->def = parse(machine, "");
    s->subject.def = s->def;
}

static void test_machine(void)
{
    scene s;
    set_up(&s);
    use_machine(&s, "pc-q35-10.1"); /* what QEMU 10.1 brings is missing because of the version */
    REFUSED(&s, "qemu-version", "does not support machine type 'pc-q35-10.1'", "10.0.13",
            "install QEMU 10.1 or later on hostb");
    silent(&s, "machine");
    use_machine(&s, "pc-i440fx-1.4"); /* given up long ago */
    silent(&s, "qemu-version");
    REFUSED(&s, "machine", "Emulator '/bin/qemu' does not support machine type 'pc-i440fx-1.4'");
    use_machine(&s, "pc-q35-vendor"); /* no version in its name */
    REFUSED(&s, "machine", "'pc-q35-vendor'");
    use_machine(&s, "pc-i440fx-9.1"); /* there, but the source's QEMU is a later one */
    s.subject.there.qemu_version = 10001000;
    silent(&s, "machine");
    WARNED(&s, "qemu-version", "QEMU on hostb is older (10.0.13)", "10.1.0");
    s.subject.there.qemu_version = 9002005; /* the common way */
    silent(&s, "qemu-version");
    tear_down(&s);
}

static void test_cpu(void)
{
    static const char *const guest[] = {"sse2", "hle", "avx512f", NULL};
    scene s;
    set_up(&s);
    g_hash_table_unref(s.subject.there.cpu_features);
    s.subject.there.cpu_features = set_of(guest);
    /* There is no /bin/qemu to ask for a model that would do. */
    REFUSED(&s, "cpu", "hostb lacks CPU features that the guest has: avx512f, hle |",
            "policy='disable'");
    tear_down(&s);
}

static void test_accelerator(void)
{
    scene s;
    set_up(&s);
    vz_qemu_caps_set_kvm(s.caps, true, "a test says so");
    REFUSED(&s, "accelerator", "runs by tcg", "by kvm", "make KVM work");
    tear_down(&s);
}

static void test_network(void)
{
    scene s;
    set_up(&s);
    vz_def_unref(s.def);
    s.def = parse("pc", "<interface type='bridge'><source bridge='no-such-br'/></interface>"
                        "<interface type='bridge'><source bridge='no-such-br'/></interface>");
    s.subject.def = s.def;
    REFUSED(&s, "network", "Cannot get interface MTU on 'no-such-br'",
            "make a bridge 'no-such-br' on hostb");
    tear_down(&s);
}

static void test_memory(void)
{
    scene s;
    set_up(&s);
    s.subject.here.memory_available_bytes = 2048 * VZ_MIB;
    silent(&s, "memory");
    s.subject.here.memory_available_bytes -= 1;
    REFUSED(&s, "memory", "up to 2048 MiB", "2047 MiB are available");
    tear_down(&s);
}

static void test_options(void)
{
    scene s;
    set_up(&s);
    g_autoptr(vz_options) options = vz_options_new();
    s.subject.options = options;
    silent(&s, "options");
    vz_options_set_number(options, VZ_OPTION_BANDWIDTH, VZ_MIB);
    silent(&s, "options");
    json_t *replies = recorded(); /* of a QEMU without a limit of bandwidth */
    json_object_del(json_object_get(replies, "query-migrate-parameters"), "max-bandwidth");
    json_object_set_new(replies, "device-list-properties", json_array());
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_qemu_caps) poor = vz_qemu_caps_parse("/bin/qemu", replies, &err);
    json_decref(replies);
    s.subject.here.caps = poor;
    REFUSED(&s, "options", "Migration option 'bandwidth' is not supported by QEMU binary",
            "on hostb has no 'max-bandwidth'");
    tear_down(&s);
}

static void test_clock(void)
{
    scene s;
    set_up(&s);
    s.subject.here.time_us = s.subject.there.time_us + 90 * VZ_USEC_PER_SEC;
    WARNED(&s, "clock", "the clock of hostb is 90.0 s ahead of that of hosta", "NTP");
    s.subject.here.time_us = s.subject.there.time_us - 3600 * VZ_USEC_PER_SEC;
    WARNED(&s, "clock", "3600.0 s behind");
    s.subject.here.time_us = s.subject.there.time_us - 5 * VZ_USEC_PER_SEC;
    silent(&s, "clock");
    tear_down(&s);
}

/* --- findings --- */

static void test_error(void)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    g_autoptr(GError) err = NULL;
    vz_findings_warn(findings, "clock", "it is late", "hurry");
    g_assert_true(vz_findings_enforce(findings, &err));
    g_assert_false(vz_findings_refuse_move(findings));
    vz_findings_refuse(findings, "network", VZ_ERR_SYSTEM_ERROR, "no bridge", "make one");
    g_assert_false(vz_findings_enforce(findings, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_assert_cmpstr(err->message, ==, "no bridge (make one)");
    g_clear_error(&err);
    vz_findings_refuse(findings, "memory", VZ_ERR_OPERATION_FAILED, "no memory", "buy some");
    vz_findings_refuse(findings, "cpu", VZ_ERR_CPU_INCOMPATIBLE, "no avx", "do without");
    g_assert_false(vz_findings_enforce(findings, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_assert_cmpstr(err->message, ==,
                    "no bridge (make one); 2 more: [memory] no memory (buy some); [cpu] no avx (do "
                    "without)");
}

static void test_findings_json(void)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    g_autoptr(GPtrArray) read = vz_findings_new();
    g_autoptr(GError) err = NULL;
    vz_findings_refuse(findings, "network", VZ_ERR_SYSTEM_ERROR, "no\nbridge", "make one");
    vz_findings_warn(findings, "clock", "it is late", "hurry");
    json_t *json = vz_findings_to_json(findings, "destination");
    g_assert_true(vz_findings_add_json(read, json, &err));
    json_decref(json);
    g_assert_cmpuint(read->len, ==, 2);
    const vz_finding *first = read->pdata[0];
    g_assert_cmpstr(first->text, ==, "no?bridge"); /* a terminal shows what a peer says */
    g_assert_cmpint(first->code, ==, VZ_ERR_SYSTEM_ERROR);
    g_assert_true(first->refuses);
    g_assert_false(((const vz_finding *)read->pdata[1])->refuses);
    /* A peer that says too much, or nonsense. */
    json = json_array();
    for (int i = 0; i < 3 * VZ_FINDINGS_MAX; i++)
        json_array_append_new(json,
                              json_pack("{ss ss ss}", "check", "x", "text", "y", "remedy", "z"));
    g_assert_true(vz_findings_add_json(read, json, &err));
    g_assert_cmpuint(read->len, ==, VZ_FINDINGS_MAX);
    g_autofree char *large = g_strnfill(VZ_FINDING_TEXT_MAX + 1, 'x');
    json_array_append_new(json, json_pack("{ss ss ss}", "check", "x", "text", large, "remedy", ""));
    g_assert_false(vz_findings_add_json(read, json, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_RPC);
    json_decref(json);
    g_clear_error(&err);
    g_assert_false(vz_findings_add_json(read, NULL, &err));
}

/* --- facts --- */

static void test_facts_json(void)
{
    static const char *const names[] = {"sse4.2", "avx2", NULL};
    g_autoptr(GError) err = NULL;
    g_auto(vz_guest_facts) facts = {.time_us = 12345678901234,
                                    .qemu_version = 10000013,
                                    .accelerator = g_strdup("kvm"),
                                    .cpu_features = set_of(names)};
    g_auto(vz_guest_facts) read = {0};
    json_t *json = vz_guest_facts_to_json(&facts);
    g_assert_true(vz_guest_facts_from_json(json, &read, &err));
    json_decref(json);
    g_assert_cmpint(read.time_us, ==, facts.time_us);
    g_assert_cmpuint(read.qemu_version, ==, 10000013);
    g_assert_cmpstr(read.accelerator, ==, "kvm");
    g_assert_cmpuint(g_hash_table_size(read.cpu_features), ==, 2);
    g_assert_true(g_hash_table_contains(read.cpu_features, "sse4.2"));
}

static void test_facts_unknown(void)
{
    g_autoptr(GError) err = NULL;
    g_auto(vz_guest_facts) read = {0};
    g_assert_true(vz_guest_facts_from_json(NULL, &read, &err)); /* an earlier version */
    g_assert_cmpint(read.time_us, ==, 0);
    g_assert_null(read.cpu_features);
}

static void test_facts_malformed(void)
{
    g_autofree char *long_name = g_strnfill(65, 'x');
    g_autofree char *long_text = g_strdup_printf("{\"cpu_features\":[\"%s\"]}", long_name);
    const char *const malformed[] = {"[]",
                                     "{\"time_us\":-1}",
                                     "{\"time_us\":\"now\"}",
                                     "{\"qemu\":10000000000}",
                                     "{\"accelerator\":\"a-very-long-accelerator\"}",
                                     "{\"cpu_features\":{}}",
                                     "{\"cpu_features\":[7]}",
                                     "{\"cpu_features\":[\"\"]}",
                                     "{\"cpu_features\":[\"av\\nx\"]}",
                                     long_text};
    for (size_t i = 0; i < G_N_ELEMENTS(malformed); i++) {
        g_autoptr(GError) err = NULL;
        vz_guest_facts read;
        json_t *json = json_loads(malformed[i], 0, NULL);
        g_assert_nonnull(json);
        g_assert_false(vz_guest_facts_from_json(json, &read, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
        json_decref(json);
    }
}

/* --- visits --- */

static void test_visits(void)
{
    g_autoptr(vz_visits) visits = vz_visits_new();
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_channel_keys) theirs = vz_channel_keys_generate(&err);
    g_autoptr(vz_channel_keys) found = NULL;
    g_autofree char *own = NULL;
    g_autofree char *peer = NULL;
    uint8_t job[VZ_UUID_BYTES] = {7};
    g_assert_false(vz_visits_expect(visits, job, "no fingerprint", &own, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
    g_clear_error(&err);
    g_assert_false(vz_visits_find(visits, job, &found, &peer));
    g_assert_true(vz_visits_expect(visits, job, vz_channel_keys_fingerprint(theirs), &own, &err));
    g_assert_true(vz_visits_find(visits, job, &found, &peer));
    g_assert_cmpstr(vz_channel_keys_fingerprint(found), ==, own);
    g_assert_cmpstr(peer, ==, vz_channel_keys_fingerprint(theirs));
    g_assert_true(vz_visits_end(visits, job));
    g_assert_false(vz_visits_end(visits, job)); /* once */
}

static void test_visits_are_few(void)
{
    g_autoptr(vz_visits) visits = vz_visits_new();
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_channel_keys) theirs = vz_channel_keys_generate(&err);
    uint8_t job[VZ_UUID_BYTES] = {0};
    for (uint8_t i = 0; i <= VZ_VISITS_MAX; i++) {
        g_autofree char *own = NULL;
        job[0] = i;
        g_assert_true(
            vz_visits_expect(visits, job, vz_channel_keys_fingerprint(theirs), &own, &err));
    }
    g_assert_true(vz_visits_end(visits, job));
    job[0] = 0;
    g_assert_false(vz_visits_end(visits, job)); /* the oldest has gone */
    job[0] = 1;
    g_assert_true(vz_visits_end(visits, job));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/precheck/all-well", test_all_well);
    g_test_add_func("/precheck/nothing-known", test_nothing_known);
    g_test_add_func("/precheck/machine", test_machine);
    g_test_add_func("/precheck/cpu", test_cpu);
    g_test_add_func("/precheck/accelerator", test_accelerator);
    g_test_add_func("/precheck/network", test_network);
    g_test_add_func("/precheck/memory", test_memory);
    g_test_add_func("/precheck/options", test_options);
    g_test_add_func("/precheck/clock", test_clock);
    g_test_add_func("/precheck/error", test_error);
    g_test_add_func("/precheck/findings-json", test_findings_json);
    g_test_add_func("/precheck/facts-json", test_facts_json);
    g_test_add_func("/precheck/facts-unknown", test_facts_unknown);
    g_test_add_func("/precheck/facts-malformed", test_facts_malformed);
    g_test_add_func("/precheck/visits", test_visits);
    g_test_add_func("/precheck/visits-are-few", test_visits_are_few);
    return g_test_run();
}
