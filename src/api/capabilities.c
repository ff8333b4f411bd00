/* capabilities.c - what this host can run, as documents. Host actor: the first question about a
 * QEMU binary starts it. */
#include "api/api.h"

#include "domain/caps_xml.h"
#include "driver/qemu/caps.h"

typedef struct {
    vz_caps_host *host;
    vz_caps_machine *machines;
    vz_caps_input input;
} facts;

static void facts_clear(facts *f)
{
    vz_caps_host_free(f->host);
    g_free(f->machines);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(facts, facts_clear)

static bool gather(facts *ret, GError **err)
{
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_this_host.emulator, err);
    if (!caps)
        return false;
    ret->host = vz_caps_host_read("", err);
    if (!ret->host)
        return false;
    size_t n;
    const vz_qemu_machine *machines = vz_qemu_caps_machines(caps, &n);
    ret->machines = g_new0(vz_caps_machine, n);
    for (size_t i = 0; i < n; i++) {
        ret->machines[i].name = machines[i].name;
        ret->machines[i].alias = machines[i].alias;
        ret->machines[i].max_cpus = machines[i].max_cpus;
        ret->machines[i].deprecated = machines[i].deprecated;
    }
    ret->input = (vz_caps_input){.host_uuid = vz_this_host.uuid,
                                 .host = ret->host,
                                 .arch = vz_qemu_caps_arch(caps),
                                 .emulator = vz_this_host.emulator,
                                 .machines = ret->machines,
                                 .n_machines = n,
                                 .default_machine = "pc",
                                 .cpu_models = vz_qemu_caps_cpu_models(caps),
                                 .kvm = vz_qemu_caps_kvm(caps, NULL)};
    return true;
}

bool vz_api_connect_get_capabilities(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    g_auto(facts) f = {0};
    return gather(&f, err) && vz_api_return_text(call, vz_caps_format(&f.input), ret);
}

bool vz_api_connect_get_domain_capabilities(
    vz_call *call, const vz_wire_connect_get_domain_capabilities_args *args,
    vz_wire_string_ret *ret, GError **err)
{
    g_auto(facts) f = {0};
    const vz_caps_query query = {.emulator = args->emulatorbin,
                                 .arch = args->arch,
                                 .machine = args->machine,
                                 .type = args->virttype};
    if (!vz_api_check_flags(args->flags, 0, "virConnectGetDomainCapabilities", err) ||
        !gather(&f, err))
        return false;
    char *xml = vz_caps_format_domain(&f.input, &query, err);
    return xml && vz_api_return_text(call, xml, ret);
}
