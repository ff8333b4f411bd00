/* session.c - the procedures about the connection itself. All run on the loop thread. */
#include "rpc/handlers.h"
#include "rpc/internal.h"

#include <string.h>
#include <unistd.h>

#define AUTH_NONE 0
/* connect_open's flags: VIR_CONNECT_RO; VIR_CONNECT_NO_ALIASES means something to clients only. */
#define OPEN_READONLY   1u
#define OPEN_NO_ALIASES 2u
/* Legacy registrations know libvirt's first 17 events (libvirt facts 2). */
#define LEGACY_EVENT_IDS 17

/* VIR_DRV_FEATURE numbers that are answered yes (libvirt facts 3.1). Everything else is no: 5
 * (direct migration), 1 and 2 and 3 (protocols before v3), 8 (passing descriptors). */
static const int32_t features[] = {
    4,  /* MIGRATION_P2P */
    6,  /* MIGRATION_V3 */
    7,  /* MIGRATE_CHANGE_PROTECTION */
    9,  /* TYPED_PARAM_STRING */
    10, /* PROGRAM_KEEPALIVE */
    11, /* XML_MIGRATABLE */
    12, /* MIGRATION_OFFLINE */
    13, /* MIGRATION_PARAMS */
    14, /* REMOTE_EVENT_CALLBACK */
    15, /* REMOTE_CLOSE_CALLBACK */
    16, /* NETWORK_UPDATE_HAS_CORRECT_ORDER */
};
#define FEATURE_KEEPALIVE 10

/* Whoever reaches the TCP port is root here, that is what enabling it means. On the read-write
 * socket root, and the user that virtvzd itself runs as. */
bool vz_api_auth_list(vz_call *call, vz_wire_auth_list_ret *ret, GError **err)
{
    static const int32_t none[] = {AUTH_NONE};
    vz_conn *conn = vz_call_conn(call);
    if (conn->kind == VZ_LISTEN_READWRITE && conn->uid != 0 && conn->uid != geteuid())
        return vz_fail(err, VZ_ERR_AUTH_FAILED,
                       "user %d may not manage virtual machines here; run the client as root, or "
                       "read-only (virsh --readonly)",
                       (int)conn->uid);
    conn->authenticated = true;
    ret->types.items = none;
    ret->types.count = G_N_ELEMENTS(none);
    return true;
}

/* A client that asks whether there is keepalive answers pings itself. */
bool vz_api_connect_supports_feature(vz_call *call,
                                     const vz_wire_connect_supports_feature_args *args,
                                     vz_wire_int_ret *ret, GError **err)
{
    vz_conn *conn = vz_call_conn(call);
    if (!conn->opened && args->feature != FEATURE_KEEPALIVE)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "connection not open");
    if (args->feature == FEATURE_KEEPALIVE)
        conn->pings = true;
    for (size_t i = 0; i < G_N_ELEMENTS(features); i++)
        if (features[i] == args->feature)
            ret->value = 1;
    return true;
}

static bool check_name(const char *name, GError **err)
{
    if (!name || !strcmp(name, ""))
        return true;
    g_autoptr(GUri) uri = g_uri_parse(name, G_URI_FLAGS_NONE, NULL);
    if (!uri || strcmp(g_uri_get_scheme(uri), "vz"))
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "unexpected URI '%s', try vz:///system", name);
    if (strcmp(g_uri_get_path(uri), "/system"))
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR,
                       "unexpected Virtuozzo URI path '%s', try vz:///system", g_uri_get_path(uri));
    return true;
}

bool vz_api_connect_open(vz_call *call, const vz_wire_connect_open_args *args, GError **err)
{
    vz_conn *conn = vz_call_conn(call);
    if (conn->opened)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "connection already open");
    if (args->flags & ~(OPEN_READONLY | OPEN_NO_ALIASES))
        return vz_fail_flags(err, args->flags & ~(OPEN_READONLY | OPEN_NO_ALIASES),
                             "virConnectOpen");
    if (!check_name(args->name, err))
        return false;
    if (args->flags & OPEN_READONLY)
        __atomic_store_n(&conn->readonly, true, __ATOMIC_RELEASE);
    conn->opened = true;
    return true;
}

bool vz_api_connect_close(vz_call *call, GError **err)
{
    (void)err;
    vz_call_conn(call)->closing = true;
    return true;
}

/* To libvirt this says whether the driver's own link is secure; the transport is the client's to
 * judge. The driver is in this process. */
bool vz_api_connect_is_secure(vz_call *call, vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = 1;
    return true;
}

/* The hypervisor cannot go away under a connection, since it is this daemon: nothing is ever to be
 * reported, so there is nothing to remember. */
bool vz_api_connect_register_close_callback(vz_call *call, GError **err)
{
    (void)call;
    (void)err;
    return true;
}

bool vz_api_connect_unregister_close_callback(vz_call *call, GError **err)
{
    (void)call;
    (void)err;
    return true;
}

/* ---- events ---- */

static vz_events *events_of(vz_call *call)
{
    return vz_server_events(vz_call_conn(call)->server);
}

static bool register_event(vz_call *call, vz_event_request request, int32_t *ret_id, GError **err)
{
    return vz_events_register(events_of(call), vz_call_conn(call), &request, ret_id, err);
}

bool vz_api_connect_domain_event_register(vz_call *call, vz_wire_int_ret *ret, GError **err)
{
    (void)ret; /* clients do not look at it */
    return register_event(call, (vz_event_request){VZ_EVENT_lifecycle, NULL, true}, NULL, err);
}

bool vz_api_connect_domain_event_deregister(vz_call *call, vz_wire_int_ret *ret, GError **err)
{
    (void)ret;
    return vz_events_deregister_legacy(events_of(call), vz_call_conn(call), VZ_EVENT_lifecycle,
                                       err);
}

static bool check_event_id(int32_t id, int32_t end, GError **err)
{
    if (id >= 0 && id < end)
        return true;
    return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "unsupported event ID %d", id);
}

bool vz_api_connect_domain_event_register_any(vz_call *call,
                                              const vz_wire_event_register_any_args *args,
                                              GError **err)
{
    return check_event_id(args->event_id, LEGACY_EVENT_IDS, err) &&
           register_event(call, (vz_event_request){args->event_id, NULL, true}, NULL, err);
}

bool vz_api_connect_domain_event_deregister_any(vz_call *call,
                                                const vz_wire_event_register_any_args *args,
                                                GError **err)
{
    return check_event_id(args->event_id, LEGACY_EVENT_IDS, err) &&
           vz_events_deregister_legacy(events_of(call), vz_call_conn(call), args->event_id, err);
}

bool vz_api_connect_domain_event_callback_register_any(
    vz_call *call, const vz_wire_event_callback_register_any_args *args, vz_wire_int_ret *ret,
    GError **err)
{
    const uint8_t *uuid = args->dom ? args->dom->uuid : NULL;
    return check_event_id(args->event_id, VZ_EVENT_IDS, err) &&
           register_event(call, (vz_event_request){args->event_id, uuid, false}, &ret->value, err);
}

bool vz_api_connect_domain_event_callback_deregister_any(
    vz_call *call, const vz_wire_event_callback_deregister_any_args *args, GError **err)
{
    return vz_events_deregister(events_of(call), vz_call_conn(call), args->callback_id, err);
}
