/* options.c - the tables of defs/options.def, the values of one request, and the check.
 *
 * Used by the daemon's migration calls, by its peer-to-peer driver, and by vz. No state but the
 * static tables; a vz_options belongs to one thread at a time. */
#include "migrate/options.h"

#include "base/units.h"
#include "migrate/uri.h"

#include <string.h>

typedef struct {
    uint64_t number;
    char *text;
    GPtrArray *texts;
} value;

struct vz_options {
    vz_option_set set;
    value values[VZ_OPTION_COUNT];
};

#define RATE_MAX       UINT64_MAX /* the limit is that of bytes/s: vz_mib_to_bytes */
#define SIZE_LIMIT     INT64_MAX
#define NAME_BYTES_MAX 255

/* What the words of a row expand to. */
#define ANY               .not_ct = NULL
#define VM_ONLY(why)      .not_ct = (why)
#define BOTH              .source_only = false
#define SOURCE            .source_only = true
#define ONCE              .multiple = false
#define MANY              .multiple = true
#define SUPPORTED         .status = VZ_STATUS_SUPPORTED
#define ALREADY_TRUE(why) .status = VZ_STATUS_ALREADY_TRUE, .reason = (why)
#define NOT_YET(why)      .status = VZ_STATUS_NOT_YET, .reason = (why)
#define REJECTED(why)     .status = VZ_STATUS_REJECTED, .reason = (why)

#define FLAG(i, b, guests, sent, q, w, state, h)                                                   \
    {.id = #i,                                                                                     \
     .type = VZ_ROW_FLAG,                                                                          \
     .bit = (b),                                                                                   \
     .name = "VIR_MIGRATE_" #i,                                                                    \
     guests,                                                                                       \
     sent,                                                                                         \
     .qemu = (q),                                                                                  \
     .word = (w),                                                                                  \
     state,                                                                                        \
     .help = (h)},
#define PARAM(i, n, t, u, lowest, highest, many, guests, sent, q, w, state, h)                     \
    {.id = #i,                                                                                     \
     .type = VZ_ROW_PARAM,                                                                         \
     .name = (n),                                                                                  \
     .wire_type = VZ_TPARAM_##t,                                                                   \
     .unit = VZ_UNIT_##u,                                                                          \
     .min = (lowest),                                                                              \
     .max = (highest),                                                                             \
     many,                                                                                         \
     guests,                                                                                       \
     sent,                                                                                         \
     .qemu = (q),                                                                                  \
     .word = (w),                                                                                  \
     state,                                                                                        \
     .help = (h)},
#define CHOICE(i, p, v, guests, q, state, h)                                                       \
    {.id = #i,                                                                                     \
     .type = VZ_ROW_CHOICE,                                                                        \
     .name = (v),                                                                                  \
     .param = VZ_OPTION_##p,                                                                       \
     guests,                                                                                       \
     .qemu = (q),                                                                                  \
     state,                                                                                        \
     .help = (h)},
static const vz_option_row rows[] = {
#include "options.def"
};
G_STATIC_ASSERT(G_N_ELEMENTS(rows) == VZ_OPTION_COUNT);

#define ONE(a)    VZ_OPTION_BIT(VZ_OPTION_##a)
#define TWO(a, b) (ONE(a) | ONE(b))
#define RULE(o, r, x, c, s)                                                                        \
    {.option = VZ_OPTION_##o,                                                                      \
     .relation = VZ_RULE_##r,                                                                      \
     .others = (x),                                                                                \
     .code = VZ_ERR_##c,                                                                           \
     .sentence = (s)},
static const vz_option_rule rules[] = {
#include "options.def"
};

const vz_option_row *vz_option_info(vz_option_id id)
{
    g_assert(id < VZ_OPTION_COUNT);
    return &rows[id];
}

const vz_option_rule *vz_option_rules(size_t *ret_count)
{
    *ret_count = G_N_ELEMENTS(rules);
    return rules;
}

/* --- values --- */

vz_options *vz_options_new(void)
{
    return g_new0(vz_options, 1);
}

static GPtrArray *texts_of(vz_options *options, vz_option_id id)
{
    value *v = &options->values[id];
    if (!v->texts)
        v->texts = g_ptr_array_new_with_free_func(g_free);
    return v->texts;
}

vz_options *vz_options_copy(const vz_options *options)
{
    vz_options *copy = vz_options_new();
    copy->set = options->set;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const value *from = &options->values[id];
        copy->values[id].number = from->number;
        copy->values[id].text = g_strdup(from->text);
        for (guint i = 0; from->texts && i < from->texts->len; i++)
            g_ptr_array_add(texts_of(copy, id), g_strdup(g_ptr_array_index(from->texts, i)));
    }
    return copy;
}

void vz_options_free(vz_options *options)
{
    if (!options)
        return;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        g_free(options->values[id].text);
        if (options->values[id].texts)
            g_ptr_array_unref(options->values[id].texts);
    }
    g_free(options);
}

vz_option_set vz_options_set(const vz_options *options)
{
    return options->set;
}

bool vz_options_has(const vz_options *options, vz_option_id id)
{
    return (options->set & VZ_OPTION_BIT(id)) != 0;
}

const char *vz_options_text(const vz_options *options, vz_option_id id)
{
    return vz_options_has(options, id) ? options->values[id].text : NULL;
}

uint64_t vz_options_number(const vz_options *options, vz_option_id id, uint64_t absent)
{
    return vz_options_has(options, id) ? options->values[id].number : absent;
}

const GPtrArray *vz_options_texts(const vz_options *options, vz_option_id id)
{
    static const GPtrArray none = {.pdata = NULL, .len = 0};
    const GPtrArray *texts = options->values[id].texts;
    return vz_options_has(options, id) && texts ? texts : &none;
}

void vz_options_set_flag(vz_options *options, vz_option_id id, bool on)
{
    g_assert(rows[id].type == VZ_ROW_FLAG);
    if (on)
        options->set |= VZ_OPTION_BIT(id);
    else
        options->set &= ~VZ_OPTION_BIT(id);
}

void vz_options_set_text(vz_options *options, vz_option_id id, const char *text)
{
    g_assert(rows[id].wire_type == VZ_TPARAM_STRING && !rows[id].multiple);
    char *copy = g_strdup(text); /* text may be the one that is freed */
    g_free(options->values[id].text);
    options->values[id].text = copy;
    options->set |= VZ_OPTION_BIT(id);
}

void vz_options_set_number(vz_options *options, vz_option_id id, uint64_t number)
{
    g_assert(rows[id].type == VZ_ROW_PARAM && rows[id].wire_type != VZ_TPARAM_STRING);
    options->values[id].number = number;
    options->set |= VZ_OPTION_BIT(id);
}

static bool once(const vz_options *options, vz_option_id id, GError **err)
{
    if (vz_options_has(options, id) && !rows[id].multiple)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "parameter '%s' occurs multiple times",
                       rows[id].name);
    return true;
}

bool vz_options_put_number(vz_options *options, vz_option_id id, uint64_t number, GError **err)
{
    const vz_option_row *row = &rows[id];
    uint64_t ours = number;
    if (!once(options, id, err))
        return false;
    if (number < row->min || number > row->max) {
        /* A negative INT arrives as a huge number; show it as it was written. */
        g_autofree char *shown = row->wire_type == VZ_TPARAM_INT
                                     ? g_strdup_printf("%" G_GINT64_FORMAT, (int64_t)number)
                                     : g_strdup_printf("%" G_GUINT64_FORMAT, number);
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "parameter '%s' is %s; it has to be from %" G_GUINT64_FORMAT
                       " to %" G_GUINT64_FORMAT,
                       row->name, shown, row->min, row->max);
    }
    if (row->unit == VZ_UNIT_MIB_S && !vz_mib_to_bytes(number, row->name, &ours, err))
        return false;
    bool zero_says_nothing = row->unit == VZ_UNIT_MIB_S || row->wire_type == VZ_TPARAM_BOOLEAN;
    if (!zero_says_nothing || number != 0)
        vz_options_set_number(options, id, ours);
    return true;
}

static bool check_name(const char *field, const char *text, GError **err)
{
    if (*text == '\0')
        return vz_fail(err, VZ_ERR_INVALID_ARG, "parameter '%s' is an empty name", field);
    if (strlen(text) > NAME_BYTES_MAX)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "parameter '%s': a name has at most %d bytes",
                       field, NAME_BYTES_MAX);
    for (const char *c = text; *c; c++)
        if (*c == '/' || g_ascii_iscntrl(*c))
            return vz_fail(err, VZ_ERR_INVALID_ARG,
                           "parameter '%s': a name cannot contain '/' or control characters",
                           field);
    return true;
}

static bool put_choice(vz_options *options, vz_option_id param, const char *text, GError **err)
{
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        if (rows[id].type != VZ_ROW_CHOICE || rows[id].param != param ||
            strcmp(rows[id].name, text) != 0)
            continue;
        if (vz_options_has(options, id))
            return vz_fail(err, VZ_ERR_INVALID_ARG, "%s method '%s' is specified twice",
                           rows[param].name, text);
        options->set |= VZ_OPTION_BIT(id);
        return true;
    }
    return vz_fail(err, VZ_ERR_INVALID_ARG, "unsupported %s method '%s'", rows[param].name, text);
}

static bool put_migrate_uri(vz_options *options, const char *text, GError **err)
{
    if (!vz_uri_check_migrate(text, err))
        return false;
    if (vz_uri_unix_path(text))
        options->set |= VZ_OPTION_BIT(VZ_OPTION_URI_UNIX);
    return true;
}

bool vz_options_put_text(vz_options *options, vz_option_id id, const char *text, GError **err)
{
    const vz_option_row *row = &rows[id];
    g_assert(row->type == VZ_ROW_PARAM && row->wire_type == VZ_TPARAM_STRING);
    if (!once(options, id, err))
        return false;
    if (id == VZ_OPTION_DISKS_URI && !vz_uri_parse_data(text, NULL, NULL, err))
        return false;
    if (id == VZ_OPTION_URI && !put_migrate_uri(options, text, err))
        return false;
    if ((row->unit == VZ_UNIT_NAME || row->unit == VZ_UNIT_DISK) &&
        !check_name(row->name, text, err))
        return false;
    if (row->unit == VZ_UNIT_CHOICE && !put_choice(options, id, text, err))
        return false;
    if (!row->multiple) {
        vz_options_set_text(options, id, text);
        return true;
    }
    g_ptr_array_add(texts_of(options, id), g_strdup(text));
    options->set |= VZ_OPTION_BIT(id);
    return true;
}

/* --- the check --- */

/* "VIR_MIGRATE_POSTCOPY (--postcopy)": both worlds' words, so that either kind of user knows it. */
static char *title(const vz_option_row *row)
{
    switch (row->type) {
    case VZ_ROW_FLAG:
        return g_strdup_printf("%s (--%s)", row->name, row->word);
    case VZ_ROW_PARAM:
        return g_strdup_printf("parameter '%s' (--%s)", row->name, row->word);
    case VZ_ROW_CHOICE:
        return g_strdup_printf("%s %s '%s'", rows[row->param].name,
                               rows[row->param].unit == VZ_UNIT_CHOICE ? "method" : "scheme",
                               row->name);
    default:
        g_assert_not_reached();
    }
}

static bool check_status(const vz_option_row *row, GError **err)
{
    bool refuse = row->status == VZ_STATUS_NOT_YET || row->status == VZ_STATUS_REJECTED;
    bool values_decide = row->type == VZ_ROW_PARAM && row->unit == VZ_UNIT_CHOICE;
    if (!refuse || values_decide)
        return true;
    g_autofree char *what = title(row);
    return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED, "%s is not %s: %s", what,
                   row->status == VZ_STATUS_REJECTED ? "supported" : "in this version",
                   row->reason);
}

bool vz_options_check_rules(vz_option_set set, GError **err)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        const vz_option_rule *rule = &rules[i];
        bool others = (set & rule->others) != 0;
        if (set & VZ_OPTION_BIT(rule->option) && others == (rule->relation == VZ_RULE_EXCLUDES))
            return vz_fail(err, rule->code, "%s", rule->sentence);
    }
    return true;
}

bool vz_options_check(const vz_options *options, vz_guest_kind kind, GError **err)
{
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        if (!vz_options_has(options, id))
            continue;
        if (kind == VZ_GUEST_CT && rows[id].not_ct) {
            g_autofree char *what = title(&rows[id]);
            return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED, "%s is not for containers: %s", what,
                           rows[id].not_ct);
        }
        if (!check_status(&rows[id], err))
            return false;
    }
    return vz_options_check_rules(options->set, err);
}

char *vz_options_describe(const vz_options *options)
{
    g_autoptr(GString) out = g_string_new(NULL);
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = &rows[id];
        if (!vz_options_has(options, id) || row->type == VZ_ROW_CHOICE)
            continue;
        if (out->len > 0)
            g_string_append_c(out, ' ');
        g_string_append(out, row->type == VZ_ROW_FLAG ? row->word : row->name);
        if (row->type == VZ_ROW_FLAG || row->unit == VZ_UNIT_XML)
            continue;
        const GPtrArray *texts = vz_options_texts(options, id);
        if (row->wire_type == VZ_TPARAM_BOOLEAN)
            continue;
        if (row->wire_type != VZ_TPARAM_STRING)
            g_string_append_printf(out, "=%" G_GUINT64_FORMAT, options->values[id].number);
        else if (!row->multiple)
            g_string_append_printf(out, "=%s", options->values[id].text);
        for (guint i = 0; i < texts->len; i++)
            g_string_append_printf(out, "%c%s", i == 0 ? '=' : ',',
                                   (const char *)g_ptr_array_index(texts, i));
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}
