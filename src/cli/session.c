/* session.c - see session.h. */
#include "cli/session.h"

#include "base/text.h"

#include <string.h>

#define REOPEN_EVERY_US ((int64_t)500000)

#define JOB_COMPLETED 3 /* VIR_DOMAIN_JOB_STATS_COMPLETED, and keep it for others to read */

void vz_session_clear(vz_session *session)
{
    g_clear_pointer(&session->client, vz_client_free);
    g_clear_pointer(&session->inbox, vz_inbox_free);
    g_clear_pointer(&session->uri, g_free);
}

bool vz_session_open(const char *uri, vz_session *ret_session, GError **err)
{
    g_auto(vz_session) session = {.inbox = vz_inbox_new(), .uri = g_strdup(uri)};
    session.client = vz_client_open(uri, session.inbox, vz_now_us() + VZ_SESSION_CALL_US, err);
    if (!session.client)
        return false;
    *ret_session = session;
    session = (vz_session){0};
    return true;
}

bool vz_session_reopen(vz_session *session, int64_t deadline_us, GError **err)
{
    g_clear_pointer(&session->client, vz_client_free);
    for (;;) {
        g_autoptr(GError) why = NULL;
        session->client = vz_client_open(session->uri, session->inbox, deadline_us, &why);
        if (session->client)
            return true;
        int64_t again_us = vz_now_us() + REOPEN_EVERY_US;
        if (again_us >= deadline_us ||
            vz_wait(session->inbox, NULL, NULL, again_us) == VZ_WAIT_CANCELLED) {
            g_propagate_error(err, g_steal_pointer(&why));
            return false;
        }
    }
}

void vz_target_clear(vz_target *target)
{
    g_clear_pointer(&target->name, g_free);
}

static void set_target(vz_target *target, const vz_wire_domain *wire)
{
    target->name = g_strdup(wire->name);
    target->wire = *wire;
    target->wire.name = target->name;
}

/* *err stays NULL where the domain is just not known by that word. */
static bool look_up(vz_session *session, const char *text, int by, vz_wire_domain *ret_wire,
                    vz_arena *arena, GError **err)
{
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    vz_wire_domain_lookup_by_id_args id = {0};
    vz_wire_domain_lookup_by_uuid_args uuid = {0};
    const vz_wire_domain_lookup_by_name_args name = {.name = text};
    vz_wire_domain_ret ret = {0};
    g_autoptr(GError) why = NULL;
    uint64_t number = 0;
    bool ok;
    if (by == 0 && !g_ascii_string_to_unsigned(text, 10, 0, INT32_MAX, &number, NULL))
        return false;
    id.id = (int32_t)number;
    if (by == 1 && !vz_uuid_parse(text, uuid.uuid))
        return false;
    if (by == 0)
        ok = vz_remote_domain_lookup_by_id(session->client, &id, &ret, &wait, &why);
    else if (by == 1)
        ok = vz_remote_domain_lookup_by_uuid(session->client, &uuid, &ret, &wait, &why);
    else
        ok = vz_remote_domain_lookup_by_name(session->client, &name, &ret, &wait, &why);
    if (ok)
        *ret_wire = ret.dom;
    else if (by == 2 || vz_error_number(why) != VZ_ERR_NO_DOMAIN)
        g_propagate_error(err, g_steal_pointer(&why));
    return ok;
}

bool vz_session_find(vz_session *session, const char *text, vz_target *ret_target, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    vz_wire_domain wire = {0};
    for (int by = 0; by < 3; by++) {
        if (look_up(session, text, by, &wire, arena, err)) {
            set_target(ret_target, &wire);
            return true;
        }
        if (*err)
            return false;
    }
    return false;
}

bool vz_session_state(vz_session *session, const vz_target *target, int *ret_state, int *ret_reason,
                      GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    const vz_wire_domain_flags_args args = {.dom = target->wire};
    vz_wire_domain_get_state_ret ret = {0};
    if (!vz_remote_domain_get_state(session->client, &args, &ret, &wait, err))
        return false;
    *ret_state = ret.state;
    *ret_reason = ret.reason;
    return true;
}

bool vz_session_job(vz_session *session, const vz_target *target, bool completed,
                    vz_reading *ret_reading, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    const vz_wire_domain_flags_args args = {.dom = target->wire,
                                            .flags = completed ? JOB_COMPLETED : 0};
    vz_wire_domain_get_job_stats_ret ret = {0};
    if (!vz_remote_domain_get_job_stats(session->client, &args, &ret, &wait, err))
        return false;
    vz_reading_from_params(ret.type, ret.params.items, ret.params.count, ret_reading);
    return true;
}

bool vz_session_abort(vz_session *session, const vz_target *target, GError **err)
{
    const vz_client_wait wait = VZ_SESSION_WAIT(NULL);
    const vz_wire_domain_args args = {.dom = target->wire};
    return vz_remote_domain_abort_job(session->client, &args, &wait, err);
}

static void free_target(void *data)
{
    vz_target_clear(data);
    g_free(data);
}

bool vz_session_list(vz_session *session, unsigned flags, GPtrArray **ret_targets, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    g_autoptr(GPtrArray) targets = g_ptr_array_new_with_free_func(free_target);
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    const vz_wire_connect_list_all_domains_args args = {.need_results = 1, .flags = flags};
    vz_wire_connect_list_all_domains_ret ret = {0};
    if (!vz_remote_connect_list_all_domains(session->client, &args, &ret, &wait, err))
        return false;
    for (uint32_t i = 0; i < ret.domains.count; i++) {
        vz_target *target = g_new0(vz_target, 1);
        set_target(target, &ret.domains.items[i]);
        g_ptr_array_add(targets, target);
    }
    *ret_targets = g_steal_pointer(&targets);
    return true;
}

const char *vz_session_state_name(int state)
{
    static const char *const names[] = {"no state",    "running",  "blocked", "paused",
                                        "in shutdown", "shut off", "crashed", "pmsuspended"};
    return state >= 0 && state < (int)G_N_ELEMENTS(names) ? names[state] : "no state";
}

static bool parse_text(const char *text, json_t **ret, GError **err)
{
    *ret = json_loads(text, 0, NULL);
    return *ret || vz_fail(err, VZ_ERR_RPC, "the daemon's answer makes no sense");
}

bool vz_session_jobs(vz_session *session, json_t **ret_jobs, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    vz_wire_string_ret ret = {0};
    return vz_remote_vz_list_jobs(session->client, &ret, &wait, err) &&
           parse_text(ret.value, ret_jobs, err);
}

static vz_client_wait long_wait(vz_arena *arena)
{
    return (vz_client_wait){
        .deadline_us = vz_now_us() + VZ_SESSION_ASK_US, .cancellable = true, .arena = arena};
}

bool vz_session_evidence(vz_session *session, const vz_target *target, json_t **ret_evidence,
                         GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = long_wait(arena);
    const vz_wire_domain_args args = {.dom = target->wire};
    vz_wire_string_ret ret = {0};
    return vz_remote_vz_domain_evidence(session->client, &args, &ret, &wait, err) &&
           parse_text(ret.value, ret_evidence, err);
}

bool vz_session_resolve(vz_session *session, const vz_target *target, int decision, char **ret_text,
                        GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = long_wait(arena);
    const vz_wire_vz_resolve_args args = {.dom = target->wire, .decision = decision};
    vz_wire_string_ret ret = {0};
    if (!vz_remote_vz_domain_resolve(session->client, &args, &ret, &wait, err))
        return false;
    *ret_text = g_strdup(ret.value);
    return true;
}

bool vz_session_check(vz_session *session, const vz_wire_vz_check_args *args, json_t **ret_plan,
                      GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = long_wait(arena);
    vz_wire_string_ret ret = {0};
    return vz_remote_vz_domain_check(session->client, args, &ret, &wait, err) &&
           parse_text(ret.value, ret_plan, err);
}

bool vz_session_migration_capabilities(vz_session *session, const char *uri, json_t **ret_report,
                                       GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = long_wait(arena);
    const vz_wire_vz_peer_args args = {.dconnuri = uri};
    vz_wire_string_ret ret = {0};
    return vz_remote_vz_migration_capabilities(session->client, &args, &ret, &wait, err) &&
           parse_text(ret.value, ret_report, err);
}
