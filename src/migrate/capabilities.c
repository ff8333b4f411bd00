/* capabilities.c - see capabilities.h. */
#include "migrate/capabilities.h"

#include "base/json.h"
#include "migrate/facts.h"

#include "config.h"

#include <string.h>

static const char refused[] = "refused";
static const char already_true[] = "already-true";

/* "VERDICT, REASON"; reason NULL: none. The caller's. */
static json_t *verdict(const char *status, const char *reason)
{
    json_t *object = json_pack("{ss}", "status", status);
    if (reason)
        json_object_set_new(object, "reason", json_string(reason));
    return object;
}

bool vz_option_lacks_qemu(vz_option_id id, const vz_qemu_caps *caps)
{
    const char *name = vz_option_info(id)->qemu;
    return name && !vz_qemu_caps_has_migration_capability(caps, name) &&
           !vz_qemu_caps_has_migration_parameter(caps, name);
}

static json_t *judge(vz_option_id id, const char *host, const vz_qemu_caps *caps)
{
    const vz_option_row *row = vz_option_info(id);
    if (row->status == VZ_STATUS_ALREADY_TRUE)
        return verdict(already_true, row->reason);
    if (row->status != VZ_STATUS_SUPPORTED)
        return verdict(refused, row->reason);
    if (!caps || !vz_option_lacks_qemu(id, caps))
        return verdict("supported", NULL);
    g_autofree char *version = vz_qemu_version_text(vz_qemu_caps_version(caps));
    g_autofree char *reason =
        g_strdup_printf("QEMU %s on %s has no '%s'", version, host, row->qemu);
    return verdict(refused, reason);
}

json_t *vz_migration_capabilities(const char *host, const vz_qemu_caps *caps)
{
    static const char *const kinds[] = {
        [VZ_ROW_FLAG] = "flag", [VZ_ROW_PARAM] = "parameter", [VZ_ROW_CHOICE] = "value"};
    json_t *options = json_array();
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        json_t *option = judge(id, host, caps);
        json_object_set_new(option, "id", json_string(row->id));
        json_object_set_new(option, "kind", json_string(kinds[row->type]));
        json_object_set_new(option, "name", json_string(row->name));
        json_object_set_new(option, "help", json_string(row->help));
        if (row->word)
            json_object_set_new(option, "word", json_string(row->word));
        json_array_append_new(options, option);
    }
    json_t *report =
        json_pack("{ss ss so}", "host", host, "version", VZ_VERSION, "options", options);
    g_autofree char *version = caps ? vz_qemu_version_text(vz_qemu_caps_version(caps)) : NULL;
    if (version)
        json_object_set_new(report, "qemu", json_string(version));
    return report;
}

static const json_t *find_option(const json_t *report, const char *id)
{
    size_t i;
    json_t *option;
    json_array_foreach(json_object_get(report, "options"), i, option)
    {
        if (g_strcmp0(vz_json_text(option, "id"), id) == 0)
            return option;
    }
    return NULL;
}

/* What only concerns the source never reaches the destination. */
static bool concerns_destination(const char *id)
{
    for (vz_option_id i = 0; i < VZ_OPTION_COUNT; i++)
        if (strcmp(vz_option_info(i)->id, id) == 0)
            return !vz_option_info(i)->source_only;
    return true;
}

static json_t *judge_pair(const json_t *here, const json_t *there, const char *host)
{
    const char *ours = vz_json_text(here, "status");
    const char *theirs = vz_json_text(there, "status");
    bool both = concerns_destination(vz_json_text(here, "id"));
    if (g_strcmp0(ours, refused) == 0)
        return verdict(refused, vz_json_text(here, "reason"));
    if (both && (!theirs || g_strcmp0(theirs, refused) == 0)) {
        const char *why = vz_json_text(there, "reason");
        g_autofree char *reason = g_strdup_printf(
            "%s: %s", host, why ? why : "its virtvzd is of another version, without this option");
        return verdict(refused, reason);
    }
    return verdict(ours, vz_json_text(here, "reason"));
}

bool vz_migration_capabilities_pair(json_t *here, const json_t *there, GError **err)
{
    size_t i;
    json_t *option;
    const char *host = vz_json_text(there, "host");
    if (!host || !json_is_array(json_object_get(there, "options")))
        return vz_fail(err, VZ_ERR_RPC, "the other host's capabilities make no sense");
    json_array_foreach(json_object_get(here, "options"), i, option)
    {
        const json_t *other = find_option(there, vz_json_text(option, "id"));
        const char *status = vz_json_text(other, "status");
        json_object_set_new(option, "pair", judge_pair(option, other, host));
        json_object_set_new(option, "there",
                            verdict(status ? status : refused,
                                    other ? vz_json_text(other, "reason") : "not known there"));
    }
    json_t *with = json_pack("{ss}", "host", host);
    if (vz_json_text(there, "version"))
        json_object_set_new(with, "version", json_string(vz_json_text(there, "version")));
    if (vz_json_text(there, "qemu"))
        json_object_set_new(with, "qemu", json_string(vz_json_text(there, "qemu")));
    json_object_set_new(here, "with", with);
    return true;
}
