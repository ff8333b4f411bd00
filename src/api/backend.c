/* backend.c - from a call to the thread that its row names, with the job guard on the way.
 *
 * A row that a job forbids is refused at once, on the loop, and once more on the actor, because a
 * job may have begun in between. */
#include "api/api.h"

static bool post_to_host(void *data, vz_call *call, GError **err)
{
    (void)data;
    return vz_actor_post(vz_this_host.actor, VZ_TASK_NORMAL, vz_call_run, vz_call_ref(call),
                         vz_call_drop) ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID, "virtvzd is ending");
}

static bool check_job(vz_domain *domain, GError **err)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return vz_snapshot_check_no_job(s, err);
}

static void run(vz_domain *domain, void *data)
{
    vz_call *call = data;
    g_autoptr(GError) err = NULL;
    if (vz_call_procedure(call)->in_job == VZ_IN_JOB_NO && !check_job(domain, &err)) {
        vz_call_defer(call);
        vz_call_fail(call, g_steal_pointer(&err));
        return;
    }
    vz_call_run(call);
}

static void unref_domain(void *data)
{
    vz_domain_unref(data);
}

static bool post_to_domain(void *data, vz_call *call, const vz_wire_domain *dom, GError **err)
{
    (void)data;
    vz_in_job in_job = vz_call_procedure(call)->in_job;
    g_autoptr(vz_domain) domain = vz_api_find(dom, err);
    if (!domain || (in_job == VZ_IN_JOB_NO && !check_job(domain, err)))
        return false;
    vz_call_set_subject(call, vz_domain_ref(domain), unref_domain);
    return vz_domain_post(domain, in_job == VZ_IN_JOB_YES ? VZ_TASK_DURING_JOB : VZ_TASK_NORMAL,
                          run, vz_call_ref(call), vz_call_drop) ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID, "virtvzd is ending");
}

const vz_rpc_backend vz_api_backend = {
    .post_to_host = post_to_host,
    .post_to_domain = post_to_domain,
};
