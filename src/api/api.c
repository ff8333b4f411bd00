/* api.c - see api.h. */
#include "api/api.h"

#include "domain/def.h"
#include "driver/qemu/caps.h"

#include <string.h>

vz_host vz_this_host;

vz_domain *vz_api_subject(vz_call *call)
{
    return vz_call_subject(call);
}

vz_domain *vz_api_find(const vz_wire_domain *dom, GError **err)
{
    return vz_table_find_uuid(vz_this_host.table, dom->uuid, dom->name, err);
}

vz_snapshot *vz_api_find_snapshot(const vz_wire_domain *dom, GError **err)
{
    g_autoptr(vz_domain) domain = vz_api_find(dom, err);
    return domain ? vz_domain_snapshot(domain) : NULL;
}

vz_wire_domain vz_api_domain_with_id(vz_domain *domain, int id)
{
    vz_wire_domain dom = {.name = vz_domain_name(domain), .id = id};
    memcpy(dom.uuid, vz_domain_uuid(domain), sizeof(dom.uuid));
    return dom;
}

vz_wire_domain vz_api_domain(vz_call *call, vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    vz_wire_domain dom = vz_api_domain_with_id(domain, s->id);
    dom.name = vz_call_strdup(call, dom.name);
    return dom;
}

bool vz_api_check_flags(uint32_t flags, uint32_t known, const char *function, GError **err)
{
    uint32_t unknown = flags & ~known;
    return unknown == 0 || vz_fail_flags(err, unknown, function);
}

bool vz_api_return_text(vz_call *call, char *take_text, vz_wire_string_ret *ret)
{
    ret->value = vz_call_strdup(call, take_text);
    g_free(take_text);
    return true;
}

static const char *canonical_machine(const char *name, void *user)
{
    const vz_qemu_caps *caps = user;
    const vz_qemu_machine *machine = vz_qemu_caps_machine(caps, name);
    return machine ? machine->name : NULL;
}

vz_def *vz_api_parse(const char *xml, GError **err)
{
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_this_host.emulator, err);
    if (!caps)
        return NULL;
    vz_def_host host = {.arch = vz_qemu_caps_arch(caps),
                        .emulator = vz_this_host.emulator,
                        .default_machine = "pc",
                        .default_cpu = "qemu64", /* QEMU's own default for pc and q35 */
                        .canonical_machine = canonical_machine,
                        .user = (void *)(uintptr_t)caps};
    return vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, err);
}
