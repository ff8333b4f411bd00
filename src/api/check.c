/* check.c - our own program's calls about migrations that are not made: `vz check` on the actor of
 * the guest, its other half and what needs another host on an actor of their own, which never waits
 * for another host's half of a check. */
#include "api/api.h"

#include "migrate/arrival_address.h"
#include "migrate/capabilities.h"
#include "migrate/check.h"
#include "migrate/p2p.h"
#include "migrate/service.h"
#include "rpc/client.h"

#include <string.h>

#define ANSWER_BYTES_MAX ((size_t)4 * 1024 * 1024)

static void reply_json(vz_call *call, json_t *take_object)
{
    vz_wire_string_ret ret = {0};
    char *text = json_dumps(take_object, JSON_COMPACT);
    json_decref(take_object);
    vz_api_return_text(call, text, &ret);
    vz_call_reply(call, &ret);
}

/* --- the source's half --- */

bool vz_api_vz_domain_check(vz_call *call, const vz_wire_vz_check_args *args,
                            vz_wire_string_ret *ret, GError **err)
{
    g_autoptr(vz_options) options = NULL;
    vz_domain *domain = vz_api_subject(call);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (!vz_options_from_wire(args->params.items, args->params.count, args->flags, VZ_PHASE_PERFORM,
                              &options, err))
        return false;
    if (!snapshot->live && !snapshot->config)
        return vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching name '%s'",
                       vz_domain_name(domain));
    const vz_check_request request = {.service = vz_this_host.migrate,
                                      .domain = domain,
                                      .dconnuri = args->dconnuri,
                                      .options = options,
                                      .max_downtime_ms = args->max_downtime};
    json_t *plan = vz_check_run(&request);
    char *text = json_dumps(plan, JSON_COMPACT);
    json_decref(plan);
    return vz_api_return_text(call, text, ret);
}

/* --- the destination's half --- */

typedef struct {
    vz_call *call;
    vz_options *options;
    vz_cookie cookie;
    int64_t arrived_us;
} arrival;

static void arrival_free(void *data)
{
    arrival *a = data;
    vz_call_unref(a->call);
    vz_options_free(a->options);
    vz_cookie_clear(&a->cookie);
    g_free(a);
}

static void answer_arrival(void *data)
{
    arrival *a = data;
    GError *err = NULL;
    vz_migrate *service = vz_this_host.migrate;
    g_autofree char *host = NULL;
    bool fits = vz_arrival_address_check(service, a->options, &host, &err);
    g_autofree char *uri = vz_arrival_address_uri(service, a->options, host,
                                                  vz_conn_local_address(vz_call_conn(a->call)));
    const vz_check_visit visit = {.service = service,
                                  .cookie = &a->cookie,
                                  .options = a->options,
                                  .data_uri = uri,
                                  .arrived_us = a->arrived_us};
    json_t *answer = fits ? vz_check_answer(&visit, &err) : NULL;
    if (answer)
        reply_json(a->call, answer);
    else
        vz_call_fail(a->call, err);
}

static bool post(vz_call *call, vz_actor *actor, vz_task_fn run, void *data, GDestroyNotify drop)
{
    vz_call_defer(call);
    vz_actor_post(actor, VZ_TASK_NORMAL, run, data, drop); /* dropped: the call says so */
    return true;
}

bool vz_api_vz_check_arrival(vz_call *call, const vz_wire_vz_check_arrival_args *args,
                             vz_wire_string_ret *ret, GError **err)
{
    (void)ret;
    g_autoptr(vz_options) options = NULL;
    g_auto(vz_cookie) cookie = {0};
    if (!vz_options_from_wire(args->params.items, args->params.count, args->flags, VZ_PHASE_PREPARE,
                              &options, err) ||
        !vz_cookie_parse(args->cookie_in.data, args->cookie_in.count, "check", &cookie, err))
        return false;
    arrival *a = g_new0(arrival, 1);
    a->arrived_us = g_get_real_time();
    a->call = vz_call_ref(call);
    a->options = g_steal_pointer(&options);
    a->cookie = cookie;
    cookie = (vz_cookie){0};
    return post(call, vz_this_host.asker, answer_arrival, a, arrival_free);
}

/* --- capabilities --- */

static json_t *own_capabilities(GError **err)
{
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_this_host.emulator, err);
    return caps ? vz_migration_capabilities(vz_this_host.hostname, caps) : NULL;
}

static void answer_own(void *data)
{
    vz_call *call = data;
    GError *err = NULL;
    json_t *report = own_capabilities(&err);
    if (report)
        reply_json(call, report);
    else
        vz_call_fail(call, err);
}

static json_t *capabilities_of(const char *dconnuri, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(ANSWER_BYTES_MAX);
    vz_inbox *inbox = vz_actor_inbox(vz_this_host.asker);
    g_autoptr(vz_client) client = vz_p2p_connect(dconnuri, inbox, arena, err);
    const vz_wire_vz_peer_args args = {.dconnuri = NULL};
    vz_wire_string_ret ret = {0};
    const vz_client_wait wait = {
        .deadline_us = vz_now_us() + VZ_P2P_OPEN_DEADLINE_US, .cancellable = true, .arena = arena};
    if (!client || !vz_remote_vz_migration_capabilities(client, &args, &ret, &wait, err))
        return NULL;
    json_t *report = ret.value ? json_loads(ret.value, 0, NULL) : NULL;
    if (!report)
        vz_fail(err, VZ_ERR_RPC, "the other host's capabilities make no sense");
    return report;
}

static void answer_pair(void *data)
{
    vz_call *call = data;
    const vz_wire_vz_peer_args *args = vz_call_args(call);
    GError *err = NULL;
    json_t *here = own_capabilities(&err);
    json_auto_t *there = here ? capabilities_of(args->dconnuri, &err) : NULL;
    if (there && vz_migration_capabilities_pair(here, there, &err)) {
        reply_json(call, here);
        return;
    }
    json_decref(here);
    vz_call_fail(call, err);
}

bool vz_api_vz_migration_capabilities(vz_call *call, const vz_wire_vz_peer_args *args,
                                      vz_wire_string_ret *ret, GError **err)
{
    (void)ret;
    (void)err;
    return post(call, args->dconnuri ? vz_this_host.asker : vz_this_host.actor,
                args->dconnuri ? answer_pair : answer_own, vz_call_ref(call), vz_call_drop);
}
