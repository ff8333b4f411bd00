/* life.c - suspend, resume, shutdown, reboot, reset, destroy. On the domain's actor; suspend,
 * resume and destroy also inside a wait of a migration job. */
#include "api/api.h"

#include "driver/life.h"

enum { DESTROY_GRACEFUL = 1 };
enum { SHUTDOWN_ACPI = 1, SHUTDOWN_AGENT = 2 };

bool vz_api_domain_suspend(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return vz_life_suspend(vz_api_subject(call), err);
}

bool vz_api_domain_resume(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return vz_life_resume(vz_api_subject(call), err);
}

/* ACPI is the one way to ask a guest; others are refused rather than replaced by it. */
static bool check_mode(uint32_t flags, const char *function, GError **err)
{
    if (!vz_api_check_flags(flags, SHUTDOWN_ACPI | SHUTDOWN_AGENT, function, err))
        return false;
    return !(flags & SHUTDOWN_AGENT) || (flags & SHUTDOWN_ACPI) ||
           vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "virtvz does not talk to the QEMU guest agent; use mode acpi");
}

bool vz_api_domain_shutdown(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return vz_life_shutdown(vz_api_subject(call), err);
}

bool vz_api_domain_shutdown_flags(vz_call *call, const vz_wire_domain_flags_args *args,
                                  GError **err)
{
    return check_mode(args->flags, "virDomainShutdownFlags", err) &&
           vz_life_shutdown(vz_api_subject(call), err);
}

bool vz_api_domain_reboot(vz_call *call, const vz_wire_domain_flags_args *args, GError **err)
{
    return check_mode(args->flags, "virDomainReboot", err) &&
           vz_life_reboot(vz_api_subject(call), err);
}

bool vz_api_domain_reset(vz_call *call, const vz_wire_domain_flags_args *args, GError **err)
{
    return vz_api_check_flags(args->flags, 0, "virDomainReset", err) &&
           vz_life_reset(vz_api_subject(call), err);
}

/* ---- destroy ---- */

typedef struct {
    vz_call *call;
    bool graceful;
} destruction;

static void destruction_free(void *data)
{
    destruction *d = data;
    vz_call_unref(d->call);
    g_free(d);
}

static void destroy_now(vz_domain *domain, void *data)
{
    destruction *d = data;
    GError *err = NULL;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    /* Its job has ended it, or it did so itself; not where it runs on another host now. */
    bool ended = !vz_snapshot_active(s) && s->reason != VZ_SHUTOFF_MIGRATED;
    if (ended || vz_life_destroy(domain, d->graceful, &err))
        vz_call_reply(d->call, NULL);
    else
        vz_call_fail(d->call, err);
}

/* Behind whatever task runs now, above all that of a job which has just been told to abort: killing
 * a guest inside another task's wait would pull it away under that task. */
static bool destroy(vz_call *call, bool graceful, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!vz_snapshot_check_active(s, err) || !vz_life_destroy_during_job(domain, err))
        return false;
    destruction *d = g_new0(destruction, 1);
    *d = (destruction){vz_call_ref(call), graceful};
    vz_call_defer(call);
    vz_domain_post(domain, VZ_TASK_NORMAL, destroy_now, d, destruction_free);
    return true;
}

bool vz_api_domain_destroy(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return destroy(call, false, err);
}

bool vz_api_domain_destroy_flags(vz_call *call, const vz_wire_domain_flags_args *args, GError **err)
{
    return vz_api_check_flags(args->flags, DESTROY_GRACEFUL, "virDomainDestroyFlags", err) &&
           destroy(call, args->flags & DESTROY_GRACEFUL, err);
}
