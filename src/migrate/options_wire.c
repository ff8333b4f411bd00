/* options_wire.c - options as they travel: flags and typed parameters, or the arguments of the
 * older calls. See options.h for codes. Used on both ends: by the daemon for its callers, by the
 * peer-to-peer driver and by vz for the daemon they call. */
#include "migrate/options.h"

#include "base/units.h"

#include <string.h>

/* For "unsupported flags ... in function": libvirt's public names of the calls. */
static const char *const functions[VZ_PHASE_COUNT] = {
    [VZ_PHASE_BEGIN] = "virDomainMigrateBegin3Params",
    [VZ_PHASE_PREPARE] = "virDomainMigratePrepare3Params",
    [VZ_PHASE_PERFORM] = "virDomainMigratePerform3Params",
    [VZ_PHASE_FINISH] = "virDomainMigrateFinish3Params",
    [VZ_PHASE_CONFIRM] = "virDomainMigrateConfirm3Params",
};

static const char *type_name(vz_tparam_type type)
{
    static const char *const names[] = {
        [VZ_TPARAM_INT] = "int",       [VZ_TPARAM_UINT] = "uint",
        [VZ_TPARAM_LLONG] = "llong",   [VZ_TPARAM_ULLONG] = "ullong",
        [VZ_TPARAM_DOUBLE] = "double", [VZ_TPARAM_BOOLEAN] = "boolean",
        [VZ_TPARAM_STRING] = "string",
    };
    return type < G_N_ELEMENTS(names) && names[type] ? names[type] : "unknown";
}

static vz_option_id find_param(const char *field)
{
    vz_option_id id = 0;
    while (id < VZ_OPTION_COUNT && (vz_option_info(id)->type != VZ_ROW_PARAM ||
                                    strcmp(vz_option_info(id)->name, field) != 0))
        id++;
    return id;
}

static bool put_flags(vz_options *options, uint64_t flags, vz_phase phase, GError **err)
{
    uint64_t unknown = flags;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        uint64_t bit = row->type == VZ_ROW_FLAG ? (uint64_t)1 << row->bit : 0;
        if (flags & bit)
            vz_options_set_flag(options, id, true);
        unknown &= ~bit;
    }
    if (unknown)
        return vz_fail_flags(err, unknown, functions[phase]);
    return true;
}

static bool put_param(vz_options *options, const vz_tparam *param, GError **err)
{
    vz_option_id id = find_param(param->field);
    if (id == VZ_OPTION_COUNT)
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED, "parameter '%s' not supported",
                       param->field);
    const vz_option_row *row = vz_option_info(id);
    if (param->type != row->wire_type)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "invalid type '%s' for parameter '%s', expected '%s'",
                       type_name(param->type), param->field, type_name(row->wire_type));
    if (param->type == VZ_TPARAM_STRING)
        return vz_options_put_text(options, id, param->value.s, err);
    if (param->type == VZ_TPARAM_INT || param->type == VZ_TPARAM_BOOLEAN)
        return vz_options_put_number(options, id, (uint64_t)(int64_t)param->value.i, err);
    return vz_options_put_number(options, id, param->value.ul, err);
}

/* Rates of 0 leave no trace in the options, so twins are looked for here, before values are. */
static bool check_twins(const vz_tparam *params, size_t count, GError **err)
{
    vz_option_set seen = 0;
    for (size_t i = 0; i < count; i++) {
        vz_option_id id = find_param(params[i].field);
        if (id == VZ_OPTION_COUNT)
            continue; /* put_param refuses it */
        if (seen & VZ_OPTION_BIT(id) && !vz_option_info(id)->multiple)
            return vz_fail(err, VZ_ERR_INVALID_ARG, "parameter '%s' occurs multiple times",
                           params[i].field);
        seen |= VZ_OPTION_BIT(id);
    }
    return true;
}

bool vz_options_from_wire(const vz_tparam *params, size_t count, uint64_t flags, vz_phase phase,
                          vz_options **ret_options, GError **err)
{
    g_autoptr(vz_options) options = vz_options_new();
    if (!put_flags(options, flags, phase, err) || !check_twins(params, count, err))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!put_param(options, &params[i], err))
            return false;
    *ret_options = g_steal_pointer(&options);
    return true;
}

bool vz_options_from_legacy(const vz_legacy_options *legacy, vz_phase phase,
                            vz_options **ret_options, GError **err)
{
    const struct {
        vz_option_id id;
        const char *text;
    } texts[] = {
        {VZ_OPTION_DEST_NAME, legacy->dname},
        {VZ_OPTION_DEST_XML, legacy->xml},
        {VZ_OPTION_URI, legacy->uri},
    };
    g_autoptr(vz_options) options = vz_options_new();
    if (!put_flags(options, legacy->flags, phase, err) ||
        !vz_options_put_number(options, VZ_OPTION_BANDWIDTH, legacy->bandwidth_mib_s, err))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++)
        if (texts[i].text && !vz_options_put_text(options, texts[i].id, texts[i].text, err))
            return false;
    *ret_options = g_steal_pointer(&options);
    return true;
}

static void add_param(GArray *params, const vz_options *options, vz_option_id id, const char *text)
{
    const vz_option_row *row = vz_option_info(id);
    uint64_t number = vz_options_number(options, id, 0);
    vz_tparam param = {.field = row->name, .type = row->wire_type};
    if (row->unit == VZ_UNIT_MIB_S)
        number /= VZ_MIB;
    if (row->wire_type == VZ_TPARAM_STRING)
        param.value.s = text;
    else if (row->wire_type == VZ_TPARAM_INT || row->wire_type == VZ_TPARAM_BOOLEAN)
        param.value.i = (int32_t)number;
    else
        param.value.ul = number;
    g_array_append_val(params, param);
}

uint32_t vz_options_to_wire(const vz_options *options, vz_side side, GArray **ret_params)
{
    g_autoptr(GArray) params = g_array_new(FALSE, TRUE, sizeof(vz_tparam));
    uint32_t flags = 0;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        if (!vz_options_has(options, id) || (row->source_only && side == VZ_SIDE_DESTINATION))
            continue;
        if (row->type == VZ_ROW_FLAG)
            flags |= (uint32_t)1 << row->bit;
        if (row->type != VZ_ROW_PARAM)
            continue;
        const GPtrArray *texts = vz_options_texts(options, id);
        if (!row->multiple)
            add_param(params, options, id, vz_options_text(options, id));
        for (guint i = 0; i < texts->len; i++)
            add_param(params, options, id, g_ptr_array_index(texts, i));
    }
    *ret_params = g_steal_pointer(&params);
    return flags;
}
