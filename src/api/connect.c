/* connect.c - what a client asks about the hypervisor and its connection. */
#include "api/api.h"

#include "driver/qemu/caps.h"

/* The release whose protocol and semantics virtvzd serves. Clients (Nova) compare it to decide
 * what they may use, which is a question about the API and not about this program's age. */
#define API_VERSION 11003000

bool vz_api_connect_get_type(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = "vz";
    return true;
}

bool vz_api_connect_get_uri(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = "vz:///system";
    return true;
}

bool vz_api_connect_get_hostname(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = vz_this_host.hostname;
    return true;
}

bool vz_api_connect_get_lib_version(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = API_VERSION;
    return true;
}

bool vz_api_connect_get_version(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_this_host.emulator, err);
    if (!caps)
        return false;
    ret->value = vz_qemu_caps_version(caps);
    return true;
}

bool vz_api_connect_get_max_vcpus(vz_call *call, const vz_wire_connect_get_max_vcpus_args *args,
                                  vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    (void)args;
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_this_host.emulator, err);
    const vz_qemu_machine *machine = caps ? vz_qemu_caps_machine(caps, "pc") : NULL;
    if (!machine)
        return caps && vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU has no machine 'pc'");
    ret->value = (int32_t)machine->max_cpus;
    return true;
}
