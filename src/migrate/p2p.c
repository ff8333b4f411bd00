/* p2p.c - see p2p.h. */
#include "migrate/p2p.h"

#include "base/log.h"
#include "driver/life.h"
#include "migrate/verdict.h"
#include "rpc/client.h"

#include <string.h>

#define ANSWER_BYTES_MAX         ((size_t)8 * 1024 * 1024)
#define FEATURE_MIGRATION_PARAMS 13 /* libvirt's VIR_DRV_FEATURE_MIGRATION_PARAMS */

typedef struct {
    vz_client *client;
    vz_arena *arena;
    vz_domain *domain;
    vz_migration *migration;
    char *begin_cookie;
    char *xml;
} journey;

static vz_client_wait wait_of(journey *j, bool cancellable)
{
    return (vz_client_wait){.deadline_us = vz_now_us() + VZ_P2P_CALL_DEADLINE_US,
                            .cancellable = cancellable,
                            .arena = j->arena};
}

static vz_wire_bytes bytes_of(const char *text)
{
    return (vz_wire_bytes){(const uint8_t *)text, text ? (uint32_t)strlen(text) : 0};
}

vz_options *vz_p2p_destination_options(const vz_options *options, const char *xml, bool running)
{
    vz_options *theirs = vz_options_copy(options);
    vz_options_set_text(theirs, VZ_OPTION_DEST_XML, xml);
    if (!running && !vz_options_has(options, VZ_OPTION_OFFLINE))
        vz_options_set_flag(theirs, VZ_OPTION_PAUSED, true);
    return theirs;
}

vz_client *vz_p2p_connect(const char *dconnuri, vz_inbox *inbox, vz_arena *arena, GError **err)
{
    bool supported = false;
    g_autoptr(vz_client) client =
        vz_client_open(dconnuri, inbox, vz_now_us() + VZ_P2P_OPEN_DEADLINE_US, err);
    const vz_client_wait wait = {
        .deadline_us = vz_now_us() + VZ_P2P_CALL_DEADLINE_US, .cancellable = true, .arena = arena};
    if (!client || !vz_client_supports(client, FEATURE_MIGRATION_PARAMS, &wait, &supported, err))
        return NULL;
    if (supported)
        return g_steal_pointer(&client);
    vz_fail(err, VZ_ERR_OPERATION_UNSUPPORTED,
            "the daemon at '%s' does not take migrations with parameters", dconnuri);
    return NULL;
}

static bool prepare(journey *j, const vz_options *theirs, vz_wire_migrate_prepare3_ret *ret,
                    GError **err)
{
    g_autoptr(GArray) params = NULL;
    vz_wire_migrate_prepare3_params_args args = {.cookie_in = bytes_of(j->begin_cookie)};
    args.flags = vz_options_to_wire(theirs, VZ_SIDE_DESTINATION, &params);
    args.params.items = (const vz_wire_tparam *)(void *)params->data;
    args.params.count = params->len;
    vz_client_wait wait = wait_of(j, true);
    return vz_remote_domain_migrate_prepare3_params(j->client, &args, ret, &wait, err);
}

/* cancelled: perform_cookie is NULL. The destination's own words are kept for the caller. */
static bool finish(journey *j, const vz_options *theirs, char *perform_cookie,
                   vz_wire_migrate_finish3_ret *ret, GError **err)
{
    g_autoptr(vz_options) named = vz_options_copy(theirs);
    g_autoptr(GArray) params = NULL;
    if (!vz_options_text(named, VZ_OPTION_DEST_NAME))
        vz_options_set_text(named, VZ_OPTION_DEST_NAME, vz_domain_name(j->domain));
    vz_wire_migrate_finish3_params_args args = {.cookie_in = bytes_of(perform_cookie),
                                                .cancelled = perform_cookie == NULL};
    args.flags = vz_options_to_wire(named, VZ_SIDE_DESTINATION, &params);
    args.params.items = (const vz_wire_tparam *)(void *)params->data;
    args.params.count = params->len;
    vz_client_wait wait = wait_of(j, false);
    return vz_remote_domain_migrate_finish3_params(j->client, &args, ret, &wait, err);
}

/* After a failed Perform: the destination is told; what it says does not matter, since it would ask
 * for nothing that the source has not decided already. */
static void cancel_there(journey *j, const vz_options *theirs)
{
    g_autoptr(GError) ignored = NULL;
    vz_wire_migrate_finish3_ret ret;
    finish(j, theirs, NULL, &ret, &ignored);
}

/* After Perform: Finish, and Confirm with whatever came of it. A Finish whose reply was lost or
 * that failed is settled by asking, in Confirm. */
static bool complete(journey *j, const vz_options *theirs, char *perform_cookie, GError **err)
{
    g_autoptr(GError) finish_error = NULL;
    vz_wire_migrate_finish3_ret ret = {0};
    g_auto(vz_cookie) cookie = {0};
    bool finished = finish(j, theirs, perform_cookie, &ret, &finish_error);
    bool has_cookie = finished && vz_cookie_parse(ret.cookie_out.data, ret.cookie_out.count,
                                                  "finish", &cookie, &finish_error);
    g_autoptr(GError) confirm_error = NULL;
    if (vz_source_confirm(j->migration, has_cookie ? &cookie : NULL, !finished, &confirm_error)) {
        if (finished || j->migration->saga.pivoted)
            return true;
        /* Undone, as the failed Finish asked for. */
        g_propagate_error(err, g_steal_pointer(&finish_error));
        return false;
    }
    g_propagate_error(err, finish_error ? g_steal_pointer(&finish_error)
                                        : g_steal_pointer(&confirm_error));
    return false;
}

static bool travel(journey *j, const char *dconnuri, const vz_options *options, GError **err)
{
    j->client = vz_p2p_connect(dconnuri, vz_domain_inbox(j->domain), j->arena, err);
    if (!j->client)
        return false;
    j->begin_cookie = vz_source_cookie(j->migration, NULL, vz_client_remote_address(j->client));
    g_autoptr(vz_options) theirs =
        vz_p2p_destination_options(options, j->xml, j->migration->was_running);
    vz_wire_migrate_prepare3_ret prepared = {0};
    if (!prepare(j, theirs, &prepared, err))
        return false;
    g_auto(vz_cookie) cookie = {0};
    if (!vz_cookie_parse(prepared.cookie_out.data, prepared.cookie_out.count, "prepare", &cookie,
                         err)) {
        cancel_there(j, theirs);
        return false;
    }
    const char *asked = vz_options_text(options, VZ_OPTION_URI);
    if (vz_options_has(options, VZ_OPTION_TUNNELLED))
        j->migration->tunnel = g_strdup(dconnuri);
    vz_source_destination to = {.cookie = &cookie,
                                .uri = prepared.uri_out ? prepared.uri_out : asked};
    g_autofree char *perform_cookie = NULL;
    if (!vz_source_perform(j->migration, &to, &perform_cookie, err)) {
        cancel_there(j, theirs);
        return false;
    }
    return complete(j, theirs, perform_cookie, err);
}

/* What does not fit the domain as it is: a running one moves as it runs. */
static vz_options *fitting_options(vz_domain *domain, const vz_options *asked)
{
    vz_options *options = vz_options_copy(asked);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (!vz_snapshot_active(snapshot) || !vz_options_has(asked, VZ_OPTION_OFFLINE))
        return options;
    vz_options_set_flag(options, VZ_OPTION_OFFLINE, false);
    vz_warn(vz_domain_name(domain), "it is running, so --offline is ignored: it moves as it runs");
    vz_domain_add_message(domain, "running when it was to be moved offline, so --offline was "
                                  "ignored");
    return options;
}

bool vz_p2p_migrate(vz_migrate *service, vz_domain *domain, const char *dconnuri,
                    const vz_options *asked, GError **err)
{
    journey j = {0};
    g_autoptr(vz_options) options = fitting_options(domain, asked);
    vz_source_request request = {.options = options, .peer_to_peer = true};
    g_autoptr(vz_migration) migration = NULL;
    if (!vz_source_begin(service, domain, &request, &migration, &j.xml, err))
        return false;
    vz_domain_keep_actor(domain);
    j.domain = domain;
    j.migration = migration;
    j.arena = vz_arena_new(ANSWER_BYTES_MAX);
    migration->busy++; /* an abort during a call to the destination ends that call */
    bool moved = travel(&j, dconnuri, options, err);
    migration->busy--;
    if (!moved && migration->domain && vz_journal_state(migration->journal) != VZ_RECORD_RELEASED)
        vz_source_give_up(migration, (*err)->message);
    if (!moved && migration->abort_reason &&
        g_error_matches(*err, VZ_ERROR, VZ_ERR_OPERATION_ABORTED)) {
        g_clear_error(err); /* whatever wait noticed it, the reason is the one that was given */
        vz_migration_fail_aborted(migration, err);
    }
    vz_client_free(j.client);
    vz_arena_free(j.arena);
    g_free(j.begin_cookie);
    g_free(j.xml);
    vz_domain_release_actor(domain);
    return moved;
}
