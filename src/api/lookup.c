/* lookup.c - finding and listing domains. Loop thread. */
#include "api/api.h"

#include <string.h>

/* Bits of virConnectListAllDomains that have a meaning (libvirt facts 2, "Notes"). */
#define LIST_FLAGS 0xffffu

/* Gives the domain and drops the reference. NULL: *err is set. */
static bool give(vz_call *call, vz_domain *take_domain, vz_wire_domain_ret *ret)
{
    g_autoptr(vz_domain) domain = take_domain;
    if (!domain)
        return false;
    ret->dom = vz_api_domain(call, domain);
    return true;
}

bool vz_api_domain_lookup_by_id(vz_call *call, const vz_wire_domain_lookup_by_id_args *args,
                                vz_wire_domain_ret *ret, GError **err)
{
    return give(call, vz_table_find_id(vz_this_host.table, args->id, err), ret);
}

bool vz_api_domain_lookup_by_name(vz_call *call, const vz_wire_domain_lookup_by_name_args *args,
                                  vz_wire_domain_ret *ret, GError **err)
{
    return give(call, vz_table_find_name(vz_this_host.table, args->name, err), ret);
}

bool vz_api_domain_lookup_by_uuid(vz_call *call, const vz_wire_domain_lookup_by_uuid_args *args,
                                  vz_wire_domain_ret *ret, GError **err)
{
    return give(call, vz_table_find_uuid(vz_this_host.table, args->uuid, NULL, err), ret);
}

bool vz_api_connect_list_all_domains(vz_call *call,
                                     const vz_wire_connect_list_all_domains_args *args,
                                     vz_wire_connect_list_all_domains_ret *ret, GError **err)
{
    if (!vz_api_check_flags(args->flags, LIST_FLAGS, "virConnectListAllDomains", err))
        return false;
    g_autoptr(GPtrArray) all = vz_table_list(vz_this_host.table);
    vz_wire_domain *items = vz_call_alloc(call, MAX(1, all->len) * sizeof(*items));
    uint32_t n = 0;
    for (guint i = 0; i < all->len; i++) {
        g_autoptr(vz_snapshot) s = vz_domain_snapshot(all->pdata[i]);
        if (!vz_snapshot_matches(s, args->flags))
            continue;
        if (n == VZ_WIRE_MAX_DOMAINS)
            return vz_fail(err, VZ_ERR_RPC, "more than %d domains in one list",
                           VZ_WIRE_MAX_DOMAINS);
        if (args->need_results)
            items[n] = vz_api_domain(call, all->pdata[i]);
        n++;
    }
    ret->ret = n;
    if (args->need_results) {
        ret->domains.items = items;
        ret->domains.count = n;
    }
    return true;
}

/* ---- the lists of clients from before connect_list_all_domains ---- */

/* Domains that are active, or that are not. */
static GPtrArray *list(bool active)
{
    GPtrArray *all = vz_table_list(vz_this_host.table);
    for (guint i = all->len; i > 0; i--) {
        g_autoptr(vz_snapshot) s = vz_domain_snapshot(all->pdata[i - 1]);
        if (vz_snapshot_active(s) != active)
            g_ptr_array_remove_index(all, i - 1);
    }
    return all;
}

static bool count(bool active, vz_wire_int_ret *ret)
{
    g_autoptr(GPtrArray) found = list(active);
    ret->value = (int32_t)found->len;
    return true;
}

bool vz_api_connect_num_of_domains(vz_call *call, vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    return count(true, ret);
}

bool vz_api_connect_num_of_defined_domains(vz_call *call, vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    return count(false, ret);
}

static uint32_t bound(const GPtrArray *found, int32_t max)
{
    return max < 0 ? 0 : MIN(found->len, MIN((uint32_t)max, VZ_WIRE_MAX_DOMAINS));
}

bool vz_api_connect_list_domains(vz_call *call, const vz_wire_max_ids_args *args,
                                 vz_wire_ids_ret *ret, GError **err)
{
    (void)err;
    g_autoptr(GPtrArray) found = list(true);
    uint32_t n = bound(found, args->max);
    int32_t *ids = vz_call_alloc(call, MAX(1, n) * sizeof(*ids));
    for (uint32_t i = 0; i < n; i++) {
        g_autoptr(vz_snapshot) s = vz_domain_snapshot(found->pdata[i]);
        ids[i] = s->id;
    }
    ret->ids.items = ids;
    ret->ids.count = n;
    return true;
}

bool vz_api_connect_list_defined_domains(vz_call *call, const vz_wire_max_ids_args *args,
                                         vz_wire_names_ret *ret, GError **err)
{
    (void)err;
    g_autoptr(GPtrArray) found = list(false);
    uint32_t n = bound(found, args->max);
    const char **names = vz_call_alloc(call, MAX(1, n) * sizeof(*names));
    for (uint32_t i = 0; i < n; i++)
        names[i] = vz_call_strdup(call, vz_domain_name(found->pdata[i]));
    ret->names.items = names;
    ret->names.count = n;
    return true;
}
