/* query.c - questions about one domain, answered from its snapshot. Loop thread. */
#include "api/api.h"

#include "base/units.h"
#include "domain/def.h"
#include "driver/driver.h"

#include <string.h>

/* The definition that counts now: the running one, else the persistent one. NULL for a domain that
 * is only reserved (NO_DOMAIN in *err). */
static const vz_def *current_def(const vz_snapshot *s, GError **err)
{
    const vz_def *def = s->live ? s->live : s->config;
    if (!def)
        vz_fail(err, VZ_ERR_NO_DOMAIN, "the domain is only being made");
    return def;
}

bool vz_api_domain_is_active(vz_call *call, const vz_wire_domain_args *args, vz_wire_int_ret *ret,
                             GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s)
        return false;
    ret->value = vz_snapshot_active(s);
    return true;
}

bool vz_api_domain_is_persistent(vz_call *call, const vz_wire_domain_args *args,
                                 vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s)
        return false;
    ret->value = vz_snapshot_persistent(s);
    return true;
}

bool vz_api_domain_is_updated(vz_call *call, const vz_wire_domain_args *args, vz_wire_int_ret *ret,
                              GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s)
        return false;
    /* "Updated" is a live change that the definition on disk does not have: there are none. */
    ret->value = 0;
    return true;
}

bool vz_api_domain_get_autostart(vz_call *call, const vz_wire_domain_args *args,
                                 vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s)
        return false;
    ret->value = s->autostart;
    return true;
}

bool vz_api_domain_get_state(vz_call *call, const vz_wire_domain_flags_args *args,
                             vz_wire_domain_get_state_ret *ret, GError **err)
{
    (void)call;
    if (!vz_api_check_flags(args->flags, 0, "virDomainGetState", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s)
        return false;
    ret->state = (int32_t)s->state;
    ret->reason = s->reason;
    return true;
}

bool vz_api_domain_get_info(vz_call *call, const vz_wire_domain_args *args,
                            vz_wire_domain_get_info_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_domain) domain = vz_api_find(&args->dom, err);
    g_autoptr(vz_snapshot) s = domain ? vz_domain_snapshot(domain) : NULL;
    const vz_def *def = s ? current_def(s, err) : NULL;
    if (!def)
        return false;
    ret->state = (int32_t)s->state;
    ret->max_memory = def->ram_bytes / VZ_KIB;
    ret->memory = def->current_ram_bytes / VZ_KIB;
    ret->n_vcpus = (int32_t)def->vcpus;
    ret->cpu_time = s->pid ? vz_domain_driver(domain)->cpu_time_ns(s->pid) : 0;
    return true;
}

bool vz_api_domain_get_os_type(vz_call *call, const vz_wire_domain_args *args,
                               vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    const vz_def *def = s ? current_def(s, err) : NULL;
    if (!def)
        return false;
    ret->value = vz_os_type_word(def->os.type);
    return true;
}

bool vz_api_domain_get_xml_desc(vz_call *call, const vz_wire_domain_flags_args *args,
                                vz_wire_string_ret *ret, GError **err)
{
    const uint32_t secret = VZ_DEF_FORMAT_SECURE | VZ_DEF_FORMAT_MIGRATABLE;
    if (!vz_api_check_flags(args->flags, secret | VZ_DEF_FORMAT_INACTIVE | VZ_DEF_FORMAT_UPDATE_CPU,
                            "virDomainGetXMLDesc", err))
        return false;
    if ((args->flags & secret) && vz_conn_readonly(vz_call_conn(call)))
        return vz_fail(err, VZ_ERR_OPERATION_DENIED, "virDomainGetXMLDesc with secure flag");
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    const vz_def *def = s ? current_def(s, err) : NULL;
    if (!def)
        return false;
    if ((args->flags & VZ_DEF_FORMAT_INACTIVE) && s->config)
        def = s->config;
    uint32_t inactive = def == s->config ? VZ_DEF_FORMAT_INACTIVE : 0;
    return vz_api_return_text(call, vz_def_format(def, args->flags | inactive), ret);
}

bool vz_api_domain_get_messages(vz_call *call, const vz_wire_domain_flags_args *args,
                                vz_wire_domain_get_messages_ret *ret, GError **err)
{
    enum { DEPRECATION = 1, TAINTING = 2, IOERRORS = 4 };
    if (!vz_api_check_flags(args->flags, DEPRECATION | TAINTING | IOERRORS, "virDomainGetMessages",
                            err))
        return false;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s)
        return false;
    /* Ours are of none of the kinds that a client can ask for one by one. */
    uint32_t n = args->flags ? 0 : g_strv_length(s->messages);
    const char **items = vz_call_alloc(call, MAX(1, n) * sizeof(*items));
    for (uint32_t i = 0; i < n; i++)
        items[i] = vz_call_strdup(call, s->messages[i]);
    ret->messages.items = items;
    ret->messages.count = n;
    return true;
}

/* Neither managed save images nor snapshots exist in virtvz. */
static bool none_of(const vz_wire_domain *dom, vz_wire_int_ret *ret, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(dom, err);
    if (!s)
        return false;
    ret->value = 0;
    return true;
}

bool vz_api_domain_has_managed_save_image(vz_call *call, const vz_wire_domain_flags_args *args,
                                          vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    return vz_api_check_flags(args->flags, 0, "virDomainHasManagedSaveImage", err) &&
           none_of(&args->dom, ret, err);
}

bool vz_api_domain_snapshot_num(vz_call *call, const vz_wire_domain_flags_args *args,
                                vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    return none_of(&args->dom, ret, err);
}

/* ---- size ---- */

bool vz_api_domain_get_max_memory(vz_call *call, const vz_wire_domain_args *args,
                                  vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    const vz_def *def = s ? current_def(s, err) : NULL;
    if (!def)
        return false;
    ret->value = def->ram_bytes / VZ_KIB;
    return true;
}

bool vz_api_domain_get_max_vcpus(vz_call *call, const vz_wire_domain_args *args,
                                 vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    const vz_def *def = s ? current_def(s, err) : NULL;
    if (!def)
        return false;
    ret->value = (int32_t)def->vcpus_max;
    return true;
}

/* The definition that VIR_DOMAIN_AFFECT_LIVE or _CONFIG (neither: the current one) names. */
static const vz_def *affected_def(const vz_snapshot *s, uint32_t flags, GError **err)
{
    enum { LIVE = 1, CONFIG = 2 };
    if ((flags & (LIVE | CONFIG)) == (LIVE | CONFIG)) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "cannot ask for live and persistent state at once");
        return NULL;
    }
    if ((flags & LIVE) && !vz_snapshot_check_active(s, err))
        return NULL;
    if ((flags & CONFIG) && !s->config) {
        vz_fail(err, VZ_ERR_OPERATION_INVALID,
                "transient domains do not have any persistent config");
        return NULL;
    }
    return (flags & CONFIG) ? s->config : current_def(s, err);
}

bool vz_api_domain_get_vcpus_flags(vz_call *call, const vz_wire_domain_flags_args *args,
                                   vz_wire_int_ret *ret, GError **err)
{
    enum { LIVE_OR_CONFIG = 3, MAXIMUM = 4 };
    (void)call;
    if (!vz_api_check_flags(args->flags, LIVE_OR_CONFIG | MAXIMUM, "virDomainGetVcpusFlags", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    const vz_def *def = s ? affected_def(s, args->flags, err) : NULL;
    if (!def)
        return false;
    ret->value = (int32_t)((args->flags & MAXIMUM) ? def->vcpus_max : def->vcpus);
    return true;
}

/* ---- the rest ---- */

bool vz_api_domain_get_control_info(vz_call *call, const vz_wire_domain_flags_args *args,
                                    vz_wire_domain_get_control_info_ret *ret, GError **err)
{
    enum { CONTROL_OK = 0, CONTROL_JOB = 1 };
    (void)call;
    if (!vz_api_check_flags(args->flags, 0, "virDomainGetControlInfo", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s || !vz_snapshot_check_active(s, err))
        return false;
    ret->state = s->has_job ? CONTROL_JOB : CONTROL_OK;
    ret->state_time = s->has_job ? s->job_stats.time_elapsed_ms : 0;
    return true;
}

bool vz_api_domain_get_metadata(vz_call *call, const vz_wire_domain_get_metadata_args *args,
                                vz_wire_string_ret *ret, GError **err)
{
    enum { DESCRIPTION = 0, TITLE = 1 };
    enum { LIVE_OR_CONFIG = 3 };
    if (!vz_api_check_flags(args->flags, LIVE_OR_CONFIG, "virDomainGetMetadata", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    const vz_def *def = s ? affected_def(s, args->flags, err) : NULL;
    if (!def)
        return false;
    if (args->type != DESCRIPTION && args->type != TITLE)
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                       "metadata elements cannot be asked for one by one in this version; dumpxml "
                       "shows them");
    const char *text = args->type == TITLE ? def->title : def->description;
    if (!text)
        return vz_fail(err, VZ_ERR_NO_DOMAIN_METADATA, "Requested metadata element is not present");
    ret->value = vz_call_strdup(call, text);
    return true;
}
