/* test_options.c - the table of migration options, derived from the table itself: what is accepted
 * or refused with which code, the wire, and libvirt's own header as oracle. */
#include "base/units.h"
#include "migrate/options.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOT_REFUSED 0

static bool refused_status(vz_option_status status)
{
    return status == VZ_STATUS_NOT_YET || status == VZ_STATUS_REJECTED;
}

/* A value that fits the row, as a command line has it. */
static const char *sample(vz_option_id id)
{
    switch (vz_option_info(id)->unit) {
    case VZ_UNIT_URI:
        return "tcp:hostb:16515";
    case VZ_UNIT_CHOICE:
        return "zstd";
    case VZ_UNIT_DISK:
        return "vda,vdb";
    case VZ_UNIT_XML:
        return "<domain/>";
    case VZ_UNIT_NAME:
    case VZ_UNIT_ADDRESS:
        return "name";
    case VZ_UNIT_NONE:
    case VZ_UNIT_COUNT:
    case VZ_UNIT_LEVEL:
    case VZ_UNIT_PORT:
    case VZ_UNIT_PERCENT:
    case VZ_UNIT_BYTES:
    case VZ_UNIT_MIB_S:
    default:
        return "7";
    }
}

static void put(vz_options *options, vz_option_id id)
{
    const vz_option_row *row = vz_option_info(id);
    g_autoptr(GError) err = NULL;
    bool ok;
    if (row->type == VZ_ROW_FLAG) {
        vz_options_set_flag(options, id, true);
        return;
    }
    if (id == VZ_OPTION_URI_UNIX) /* there is one URI, and it may have been put already */
        ok = vz_options_has(options, VZ_OPTION_URI) ||
             vz_options_put_text(options, row->param, "unix:///run/x", &err);
    else if (row->type == VZ_ROW_CHOICE)
        ok = vz_options_put_text(options, row->param, row->name, &err);
    else if (row->unit == VZ_UNIT_CHOICE)
        ok = true; /* there is none without one of its values */
    else if (row->wire_type == VZ_TPARAM_STRING)
        ok = vz_options_put_text(options, id, sample(id), &err);
    else
        ok = vz_options_put_number(options, id, row->wire_type == VZ_TPARAM_BOOLEAN ? 1 : 7, &err);
    g_assert_no_error(err);
    g_assert_true(ok);
}

static vz_options *build(vz_option_set set)
{
    vz_options *options = vz_options_new();
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
        if (set & VZ_OPTION_BIT(id))
            put(options, id);
    return options;
}

/* The set with what its members need: of alternatives, the first. */
static vz_option_set with_needs(vz_option_set set)
{
    size_t count;
    const vz_option_rule *rules = vz_option_rules(&count);
    for (size_t round = 0; round < count; round++)
        for (size_t i = 0; i < count; i++)
            if (rules[i].relation == VZ_RULE_NEEDS && set & VZ_OPTION_BIT(rules[i].option) &&
                !(set & rules[i].others))
                set |= rules[i].others & (~rules[i].others + 1);
    return set;
}

static void expect(const GError *err, bool ok, vz_error_code code, const char *part)
{
    g_assert_false(ok);
    g_assert_nonnull(err);
    if (vz_error_number(err) != code || !strstr(err->message, part))
        g_error("expected %u '%s', got %d '%s'", code, part, err->code, err->message);
}

/* --- the table --- */

static void test_rows(void)
{
    uint64_t bits = 0;
    g_autoptr(GHashTable) names = g_hash_table_new(g_str_hash, g_str_equal);
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        g_assert_true(g_hash_table_insert(names, g_strdup(row->id), NULL));
        g_assert_nonnull(row->help);
        g_assert_true((row->status == VZ_STATUS_SUPPORTED) == (row->reason == NULL));
        if (row->type == VZ_ROW_FLAG) {
            g_assert_false(bits & ((uint64_t)1 << row->bit));
            bits |= (uint64_t)1 << row->bit;
        }
        if (row->type == VZ_ROW_PARAM)
            g_assert_cmpuint(row->min, <=, row->max);
    }
    g_assert_cmphex(bits, ==, (1 << 21) - 1);
    g_autofree void **keys = g_hash_table_get_keys_as_array(names, NULL);
    for (void **key = keys; *key; key++)
        g_free(*key);
}

static const char *header_path(void)
{
    const char *path = g_getenv("VZ_LIBVIRT_HEADER");
    return path ? path : "/usr/include/libvirt/libvirt-domain.h";
}

/* The row of a word such as VIR_MIGRATE_PARAM_URI, of that kind. */
static vz_option_id row_of_word(bool is_param, const char *id)
{
    for (vz_option_id row = 0; row < VZ_OPTION_COUNT; row++)
        if (vz_option_info(row)->type == (is_param ? VZ_ROW_PARAM : VZ_ROW_FLAG) &&
            strcmp(vz_option_info(row)->id, id) == 0)
            return row;
    g_error("%s has VIR_MIGRATE_%s%s, options.def has not", header_path(), is_param ? "PARAM_" : "",
            id);
}

/* Calls each for every match of a pattern whose groups begin with ("PARAM_" or nothing)(id). */
static void each_match(const char *text, const char *pattern,
                       void (*each)(const GMatchInfo *match, vz_option_id row, void *data),
                       void *data)
{
    g_autoptr(GRegex) regex = g_regex_new(pattern, 0, 0, NULL);
    g_autoptr(GMatchInfo) match = NULL;
    for (g_regex_match(regex, text, 0, &match); g_match_info_matches(match);
         g_match_info_next(match, NULL)) {
        g_autofree char *param = g_match_info_fetch(match, 1);
        g_autofree char *id = g_match_info_fetch(match, 2);
        each(match, row_of_word(*param != '\0', id), data);
    }
}

static void note_word(const GMatchInfo *match, vz_option_id row, void *seen)
{
    (void)match;
    *(vz_option_set *)seen |= VZ_OPTION_BIT(row);
}

static void check_value(const GMatchInfo *match, vz_option_id row, void *valued)
{
    const vz_option_row *info = vz_option_info(row);
    g_autofree char *bit = g_match_info_fetch(match, 3);
    g_autofree char *name = g_match_info_fetch(match, 4);
    if (info->type == VZ_ROW_PARAM)
        g_assert_cmpstr(info->name, ==, name);
    else
        g_assert_cmpint(info->bit, ==, atoi(bit));
    *(vz_option_set *)valued |= VZ_OPTION_BIT(row);
}

/* Every VIR_MIGRATE_* of a libvirt has a row of the same name and value; of the newest libvirt
 * (with VZ_LIBVIRT_NEWEST), every row has its word there, too. */
static void test_libvirt_header(void)
{
    g_autofree char *text = NULL;
    vz_option_set words = 0, valued = 0;
    if (!g_file_get_contents(header_path(), &text, NULL, NULL)) {
        g_assert_null(g_getenv("VZ_LIBVIRT_NEWEST"));
        g_test_skip("libvirt-dev is not installed");
        return;
    }
    each_match(text, "(?m)^(?:# *define)?\\s+VIR_MIGRATE_(PARAM_)?([A-Z0-9_]+)\\s", note_word,
               &words);
    each_match(text,
               "\\bVIR_MIGRATE_(PARAM_)?([A-Z0-9_]+)\\s+(?:= \\(1U? << (\\d+)\\)|\"([^\"]+)\")",
               check_value, &valued);
    g_assert_cmphex(words, ==, valued); /* no value is written in another way */
    int flags = 0, params = 0;
    for (vz_option_id row = 0; row < VZ_OPTION_COUNT; row++) {
        const vz_option_row *info = vz_option_info(row);
        bool there = (words & VZ_OPTION_BIT(row)) != 0;
        flags += there && info->type == VZ_ROW_FLAG;
        params += there && info->type == VZ_ROW_PARAM;
        bool ours = g_str_has_prefix(info->name, "vz.");
        if (!there && !ours && info->type != VZ_ROW_CHOICE && g_getenv("VZ_LIBVIRT_NEWEST"))
            g_error("options.def has %s, %s has not", info->name, header_path());
    }
    g_assert_cmpint(flags, ==, 21);
    g_assert_cmpint(params, >=, 20); /* libvirt 9.0 */
}

/* --- the check --- */

static void test_each_alone(void)
{
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        g_autoptr(vz_options) options = build(with_needs(VZ_OPTION_BIT(id)));
        g_autoptr(GError) err = NULL;
        if (row->type == VZ_ROW_PARAM && row->unit == VZ_UNIT_CHOICE)
            continue; /* its values are rows of their own */
        bool ok = vz_options_check(options, VZ_GUEST_VM, &err);
        if (row->status == VZ_STATUS_SUPPORTED || row->status == VZ_STATUS_ALREADY_TRUE) {
            g_assert_no_error(err);
            g_assert_true(ok);
        } else {
            expect(err, ok, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   row->status == VZ_STATUS_REJECTED ? "is not supported: "
                                                     : "is not in this version: ");
        }
    }
}

/* What is refused says why, in its own words. */
static void test_each_refused(void)
{
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        if (!refused_status(row->status) || row->unit == VZ_UNIT_CHOICE)
            continue;
        g_autoptr(vz_options) options = build(VZ_OPTION_BIT(id));
        g_autoptr(GError) err = NULL;
        bool ok = vz_options_check(options, VZ_GUEST_VM, &err);
        expect(err, ok, VZ_ERR_ARGUMENT_UNSUPPORTED, row->reason);
    }
}

static void test_containers(void)
{
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        g_autoptr(vz_options) options = build(VZ_OPTION_BIT(id));
        g_autoptr(GError) err = NULL;
        bool ok = vz_options_check(options, VZ_GUEST_CT, &err);
        if (row->not_ct && row->type != VZ_ROW_CHOICE)
            expect(err, ok, VZ_ERR_ARGUMENT_UNSUPPORTED, row->not_ct);
        else if (ok)
            g_assert_true(row->status == VZ_STATUS_SUPPORTED ||
                          row->status == VZ_STATUS_ALREADY_TRUE || row->unit == VZ_UNIT_CHOICE);
    }
}

/* A rule that cannot be the answer to any request is a dead row. */
static void test_each_rule_fires(void)
{
    size_t count;
    const vz_option_rule *rules = vz_option_rules(&count);
    for (size_t i = 0; i < count; i++) {
        vz_option_set start = VZ_OPTION_BIT(rules[i].option);
        if (rules[i].relation == VZ_RULE_EXCLUDES)
            start |= rules[i].others & (~rules[i].others + 1);
        vz_option_set extra = with_needs(start) & ~start;
        if (rules[i].relation == VZ_RULE_NEEDS)
            extra &= ~rules[i].others;
        bool fired = false;
        /* Every subset of what the two need: another rule may come first in some of them. */
        for (vz_option_set sub = extra;; sub = (sub - 1) & extra) {
            g_autoptr(GError) err = NULL;
            g_assert_false(vz_options_check_rules(start | sub, &err));
            fired = fired || (vz_error_number(err) == rules[i].code &&
                              strcmp(err->message, rules[i].sentence) == 0);
            if (sub == 0)
                break;
        }
        if (!fired)
            g_error("never the answer: %s", rules[i].sentence);
    }
}

/* Said independently of the checker: which codes may a set be refused with? */
static bool code_is_justified(vz_option_set set, vz_error_code code)
{
    size_t count;
    const vz_option_rule *rules = vz_option_rules(&count);
    bool any = false;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        vz_option_status status = vz_option_info(id)->status;
        if (set & VZ_OPTION_BIT(id) && refused_status(status))
            any = any || code == VZ_ERR_ARGUMENT_UNSUPPORTED;
    }
    for (size_t i = 0; i < count; i++) {
        bool met = false;
        for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
            met = met || (set & rules[i].others & VZ_OPTION_BIT(id));
        bool broken = rules[i].relation == VZ_RULE_NEEDS ? !met : met;
        if (set & VZ_OPTION_BIT(rules[i].option) && broken)
            any = any || code == rules[i].code;
    }
    return any;
}

static void verdict(vz_option_set set)
{
    g_autoptr(vz_options) options = build(set);
    g_autoptr(GError) err = NULL;
    set = vz_options_set(options);
    bool ok = vz_options_check(options, VZ_GUEST_VM, &err);
    g_assert_true(ok == (err == NULL));
    if (!ok) {
        g_assert_true(code_is_justified(set, vz_error_number(err)));
        g_assert_cmpuint(strlen(err->message), >, 20);
        return;
    }
    for (vz_error_code code = 0; code < 128; code++)
        g_assert_false(code_is_justified(set, code));
}

static void test_subsets(void)
{
    const vz_option_set one = 1;
    for (vz_option_id a = 0; a < VZ_OPTION_COUNT; a++)
        for (vz_option_id b = a; b < VZ_OPTION_COUNT; b++)
            for (vz_option_id c = b; c < VZ_OPTION_COUNT; c++)
                for (vz_option_id d = c; d < (g_test_slow() ? VZ_OPTION_COUNT : c + 1); d++)
                    verdict(one << a | one << b | one << c | one << d);
    g_autoptr(GRand) random = g_rand_new_with_seed(2015);
    for (int i = 0; i < 20000; i++) {
        vz_option_set set = (vz_option_set)g_rand_int(random) << 32 | g_rand_int(random);
        for (int thin = g_rand_int_range(random, 0, 4); thin > 0; thin--)
            set &= (vz_option_set)g_rand_int(random) << 32 | g_rand_int(random);
        verdict(set & (VZ_OPTION_BIT(VZ_OPTION_COUNT) - 1));
    }
    /* Of what works in this version, so that "accepted" is met often, too. */
    vz_option_set works = 0;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
        if (vz_option_info(id)->status <= VZ_STATUS_ALREADY_TRUE)
            works |= VZ_OPTION_BIT(id);
    for (int i = 0; i < 20000; i++)
        verdict(works & ((vz_option_set)g_rand_int(random) << 32 | g_rand_int(random)));
}

/* --- the wire --- */

typedef struct {
    uint64_t flags;
    vz_tparam params[3];
    size_t count;
    int code; /* NOT_REFUSED, or the error's */
    const char *text;
} wire_case;

#define S(f, x)                                                                                    \
    {                                                                                              \
        .field = f, .type = VZ_TPARAM_STRING, .value.s = x                                         \
    }
#define U(f, x)                                                                                    \
    {                                                                                              \
        .field = f, .type = VZ_TPARAM_ULLONG, .value.ul = x                                        \
    }
#define I(f, x)                                                                                    \
    {                                                                                              \
        .field = f, .type = VZ_TPARAM_INT, .value.i = x                                            \
    }
#define B(f, x)                                                                                    \
    {                                                                                              \
        .field = f, .type = VZ_TPARAM_BOOLEAN, .value.i = x                                        \
    }
static const wire_case wire_cases[] = {
    {0x1f, {{0}}, 0, NOT_REFUSED, NULL},
    {0x200001,
     {{0}},
     0,
     8,
     "unsupported flags (0x200000) in function virDomainMigrateBegin3Params"},
    {0x100000000, {{0}}, 0, 8, "unsupported flags (0x100000000)"},
    {0, {S("frobnicate", "x")}, 1, 74, "parameter 'frobnicate' not supported"},
    {0,
     {S("bandwidth", "7")},
     1,
     8,
     "invalid type 'string' for parameter 'bandwidth', expected 'ullong'"},
    {0, {I("bandwidth", 7)}, 1, 8, "invalid type 'int'"},
    {0,
     {U("bandwidth", 7), U("bandwidth", 7)},
     2,
     8,
     "parameter 'bandwidth' occurs multiple times"},
    {0, {U("bandwidth", 0), U("bandwidth", 0)}, 2, 8, "occurs multiple times"},
    {0, {U("bandwidth", G_MAXUINT64)}, 1, 82, "bandwidth"},
    {0, {U("bandwidth", 8796093022208)}, 1, 82, "bandwidth"},
    {0, {U("bandwidth", 8796093022207)}, 1, NOT_REFUSED, NULL},
    {0, {I("compression.zstd.level", 21)}, 1, 8, "is 21; it has to be from 0 to 20"},
    {0, {I("disks_port", -1)}, 1, 8, "is -1; it has to be from 0 to 65535"},
    {0, {S("migrate_disks", "vda"), S("migrate_disks", "vdb")}, 2, NOT_REFUSED, NULL},
    {0,
     {S("compression", "zstd"), S("compression", "zstd")},
     2,
     8,
     "compression method 'zstd' is specified twice"},
    {0, {B("vz.no_compressed", 1)}, 1, NOT_REFUSED, NULL},
    {0, {B("vz.no_compressed", 2)}, 1, 8, "is 2; it has to be from 0 to 1"},
    {0, {I("vz.no_compressed", 1)}, 1, 8, "invalid type 'int'"},
    {0, {B("vz.no_such", 1)}, 1, 74, "parameter 'vz.no_such' not supported"},
    {0, {S("compression", "rar")}, 1, 8, "unsupported compression method 'rar'"},
    {0, {S("destination_name", "")}, 1, 8, "empty name"},
    {0, {S("destination_name", "../x")}, 1, 8, "'/'"},
    {0, {S("destination_name", "a\nb")}, 1, 8, "control characters"},
    {0, {S("migrate_uri", "hostb")}, 1, 8, "missing scheme"},
    {0, {S("migrate_uri", "http://hostb")}, 1, 74, "unsupported scheme http"},
    {0, {S("migrate_uri", "unix:run/x")}, 1, 8, "no absolute path"},
    {0, {S("migrate_uri", "unix:///run/x")}, 1, NOT_REFUSED, NULL},
    {0, {I("vz.direct_stream", 1)}, 1, 8, "expected 'boolean'"},
    {0, {S("disks_uri", "unix:///run/disks")}, 1, 74, "unsupported scheme unix"},
    {0, {S("disks_uri", "tcp://[::]:16515")}, 1, NOT_REFUSED, NULL},
};

static void test_from_wire(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(wire_cases); i++) {
        const wire_case *c = &wire_cases[i];
        g_autoptr(vz_options) options = NULL;
        g_autoptr(GError) err = NULL;
        bool ok =
            vz_options_from_wire(c->params, c->count, c->flags, VZ_PHASE_BEGIN, &options, &err);
        if (c->code != NOT_REFUSED) {
            expect(err, ok, (vz_error_code)c->code, c->text);
            g_assert_null(options);
        } else {
            g_assert_no_error(err);
            g_assert_true(ok);
        }
    }
}

/* Nova sends bandwidth 0: it means no limit of the caller's. */
static void test_values(void)
{
    const vz_tparam params[] = {U("bandwidth", 10), S("destination_name", "g2"),
                                S("migrate_disks", "vda"), S("migrate_disks", "vdb")};
    const vz_tparam zero[] = {U("bandwidth", 0), B("vz.no_compressed", 0)};
    g_autoptr(vz_options) options = NULL;
    g_autoptr(vz_options) none = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_options_from_wire(params, 4, 1, VZ_PHASE_PREPARE, &options, &err));
    g_assert_cmpuint(vz_options_number(options, VZ_OPTION_BANDWIDTH, 3), ==, 10 * VZ_MIB);
    g_assert_cmpstr(vz_options_text(options, VZ_OPTION_DEST_NAME), ==, "g2");
    g_assert_null(vz_options_text(options, VZ_OPTION_URI));
    g_assert_cmpuint(vz_options_texts(options, VZ_OPTION_MIGRATE_DISKS)->len, ==, 2);
    g_assert_cmpuint(vz_options_texts(options, VZ_OPTION_COMPRESSION)->len, ==, 0);
    g_autoptr(vz_options) copy = vz_options_copy(options);
    g_autofree char *text = vz_options_describe(copy);
    g_assert_cmpstr(text, ==, "live destination_name=g2 bandwidth=10485760 migrate_disks=vda,vdb");

    g_assert_true(vz_options_from_wire(zero, 2, 0, VZ_PHASE_BEGIN, &none, &err));
    g_assert_false(vz_options_has(none, VZ_OPTION_BANDWIDTH));
    g_assert_false(vz_options_has(none, VZ_OPTION_NO_COMPRESSED));
    g_assert_cmpuint(vz_options_number(none, VZ_OPTION_BANDWIDTH, 3), ==, 3);
}

static vz_options *through_wire(const vz_options *options, vz_side side)
{
    g_autoptr(GArray) params = NULL;
    g_autoptr(GError) err = NULL;
    vz_options *back = NULL;
    uint32_t flags = vz_options_to_wire(options, side, &params);
    vz_options_from_wire((const vz_tparam *)(void *)params->data, params->len, flags,
                         VZ_PHASE_PREPARE, &back, &err);
    g_assert_no_error(err);
    return back;
}

/* Words -> options -> wire -> options: nothing is lost, nothing is added. */
static void test_words_and_wire(void)
{
    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    g_autoptr(GRand) random = g_rand_new_with_seed(715);
    for (int round = 0; round < 2000; round++) {
        g_autoptr(vz_options) options = vz_options_new();
        for (size_t i = 0; i < count; i++) {
            g_autoptr(GError) err = NULL;
            const char *value =
                vz_option_value_name(words[i].option) ? sample(words[i].option) : NULL;
            bool again = value && vz_options_has(options, words[i].option);
            if (again || g_rand_int_range(random, 0, 4) != 0)
                continue;
            g_assert_true(vz_options_apply_word(options, &words[i], value, &err));
            if (words[i].on)
                g_assert_true(vz_options_has(options, words[i].option));
            else
                g_assert_false(vz_options_has(options, words[i].option));
        }
        g_autofree char *sent = vz_options_describe(options);
        g_autoptr(vz_options) source = through_wire(options, VZ_SIDE_SOURCE);
        g_autofree char *arrived = vz_options_describe(source);
        g_assert_cmpstr(sent, ==, arrived);
        g_assert_cmphex(vz_options_set(options), ==, vz_options_set(source));
        g_autoptr(vz_options) destination = through_wire(options, VZ_SIDE_DESTINATION);
        for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
            g_assert_true(vz_options_has(destination, id) ==
                          (vz_options_has(options, id) && !vz_option_info(id)->source_only));
    }
}

static void test_destination_masks(void)
{
    g_autoptr(vz_options) options = vz_options_new();
    g_autoptr(GArray) source = NULL;
    g_autoptr(GArray) destination = NULL;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
        if (vz_option_info(id)->type == VZ_ROW_FLAG)
            vz_options_set_flag(options, id, true);
    g_assert_cmphex(vz_options_to_wire(options, VZ_SIDE_SOURCE, &source), ==, 0x1fffff);
    /* as measured with virsh: without CHANGE_PROTECTION, ABORT_ON_ERROR, AUTO_CONVERGE */
    g_assert_cmphex(vz_options_to_wire(options, VZ_SIDE_DESTINATION, &destination), ==,
                    0x1fffff & ~0x3100);
}

static void test_legacy(void)
{
    const vz_legacy_options call = {.flags = 0x19,
                                    .dname = "g2",
                                    .bandwidth_mib_s = 3,
                                    .xml = "<domain/>",
                                    .uri = "tcp:hostb:16515"};
    const vz_legacy_options bare = {.flags = 0};
    const vz_legacy_options wrong = {.flags = (uint64_t)1 << 40};
    const vz_legacy_options fast = {.bandwidth_mib_s = G_MAXUINT64};
    g_autoptr(vz_options) options = NULL;
    g_autoptr(vz_options) none = NULL;
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) overflow = NULL;
    g_assert_true(vz_options_from_legacy(&call, VZ_PHASE_PREPARE, &options, &err));
    g_autofree char *text = vz_options_describe(options);
    g_assert_cmpstr(text, ==,
                    "live persistent undefinesource migrate_uri=tcp:hostb:16515 "
                    "destination_name=g2 destination_xml bandwidth=3145728");
    g_assert_cmpstr(vz_options_text(options, VZ_OPTION_DEST_XML), ==, "<domain/>");
    g_assert_true(vz_options_from_legacy(&bare, VZ_PHASE_BEGIN, &none, &err));
    g_assert_cmphex(vz_options_set(none), ==, 0);
    bool ok = vz_options_from_legacy(&wrong, VZ_PHASE_BEGIN, &none, &err);
    expect(err, ok, VZ_ERR_INVALID_ARG, "unsupported flags (0x10000000000)");
    ok = vz_options_from_legacy(&fast, VZ_PHASE_BEGIN, &none, &overflow);
    expect(overflow, ok, VZ_ERR_OVERFLOW, "bandwidth");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/rows", test_rows);
    g_test_add_func("/options/libvirt-header", test_libvirt_header);
    g_test_add_func("/options/each-alone", test_each_alone);
    g_test_add_func("/options/each-refused", test_each_refused);
    g_test_add_func("/options/containers", test_containers);
    g_test_add_func("/options/each-rule-fires", test_each_rule_fires);
    g_test_add_func("/options/subsets", test_subsets);
    g_test_add_func("/options/from-wire", test_from_wire);
    g_test_add_func("/options/values", test_values);
    g_test_add_func("/options/words-and-wire", test_words_and_wire);
    g_test_add_func("/options/destination-masks", test_destination_masks);
    g_test_add_func("/options/legacy", test_legacy);
    return g_test_run();
}
