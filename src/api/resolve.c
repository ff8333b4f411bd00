/* resolve.c - our own program's calls: jobs, and what an operator decides of one in doubt. Asking
 * the other host takes seconds, so it is done as a task of its own, when the job's has ended. */
#include "api/api.h"

#include "migrate/resolve.h"

bool vz_api_vz_list_jobs(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)err;
    json_t *jobs = vz_resolve_jobs(vz_this_host.migrate);
    char *text = json_dumps(jobs, JSON_COMPACT);
    json_decref(jobs);
    return vz_api_return_text(call, text, ret);
}

typedef struct {
    vz_call *call;
    vz_resolution decision; /* 0: only look */
} question;

static void question_free(void *data)
{
    question *q = data;
    vz_call_unref(q->call);
    g_free(q);
}

static void answer(vz_domain *domain, void *data)
{
    question *q = data;
    GError *err = NULL;
    char *text = NULL;
    vz_wire_string_ret ret = {0};
    if (q->decision == 0) {
        json_t *evidence = vz_resolve_evidence(vz_this_host.migrate, domain);
        text = json_dumps(evidence, JSON_COMPACT);
        json_decref(evidence);
    } else if (!vz_resolve(vz_this_host.migrate, domain, q->decision, &text, &err)) {
        vz_call_fail(q->call, err);
        return;
    }
    vz_api_return_text(q->call, text, &ret);
    vz_call_reply(q->call, &ret);
}

static bool ask(vz_call *call, vz_resolution decision, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    if (!vz_resolve_hurry(domain, err))
        return false;
    question *q = g_new0(question, 1);
    *q = (question){vz_call_ref(call), decision};
    vz_call_defer(call);
    vz_domain_post(domain, VZ_TASK_NORMAL, answer, q, question_free);
    return true;
}

bool vz_api_vz_domain_evidence(vz_call *call, const vz_wire_domain_args *args,
                               vz_wire_string_ret *ret, GError **err)
{
    (void)args;
    (void)ret;
    return ask(call, 0, err);
}

bool vz_api_vz_domain_resolve(vz_call *call, const vz_wire_vz_resolve_args *args,
                              vz_wire_string_ret *ret, GError **err)
{
    (void)ret;
    if (args->decision != VZ_RESOLVE_HERE && args->decision != VZ_RESOLVE_THERE)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "%d is neither here nor there", args->decision);
    return ask(call, (vz_resolution)args->decision, err);
}
