/* session.h - vz's connection to a daemon and the questions it asks.
 *
 * One thread, with an inbox of its own; every call has a deadline and is ended by
 * vz_inbox_cancel. */
#pragma once

#include "cli/progress.h"
#include "rpc/client.h"

#include <jansson.h>

#define VZ_SESSION_CALL_US ((int64_t)10 * 1000000)
/* Of a call that asks another host, which may ask a third one. */
#define VZ_SESSION_ASK_US ((int64_t)60 * 1000000)

typedef struct {
    vz_inbox *inbox;
    vz_client *client;
    char *uri;
} vz_session;

void vz_session_clear(vz_session *session);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_session, vz_session_clear)

bool vz_session_open(const char *uri, vz_session *ret_session, GError **err);
/* After the connection was lost: tries until the deadline. */
bool vz_session_reopen(vz_session *session, int64_t deadline_us, GError **err);

/* A domain as the protocol names it; the name is owned. */
typedef struct {
    char *name;
    vz_wire_domain wire; /* .name is `name` */
} vz_target;

void vz_target_clear(vz_target *target);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_target, vz_target_clear)

/* By id, UUID or name, in this order, as virsh. NO_DOMAIN. */
bool vz_session_find(vz_session *session, const char *text, vz_target *ret_target, GError **err);
/* virDomainState and its reason. */
bool vz_session_state(vz_session *session, const vz_target *target, int *ret_state, int *ret_reason,
                      GError **err);
/* The running job, or with `completed` the last one. */
bool vz_session_job(vz_session *session, const vz_target *target, bool completed,
                    vz_reading *ret_reading, GError **err);
bool vz_session_abort(vz_session *session, const vz_target *target, GError **err);
/* All jobs of the daemon, as src/migrate/resolve.h describes them; the caller's. */
bool vz_session_jobs(vz_session *session, json_t **ret_jobs, GError **err);
/* What is known of a domain in doubt (the same header); the caller's. The other host is asked. */
bool vz_session_evidence(vz_session *session, const vz_target *target, json_t **ret_evidence,
                         GError **err);
/* decision: 1 here, 2 there. *ret_text says what was done; the caller's. */
bool vz_session_resolve(vz_session *session, const vz_target *target, int decision, char **ret_text,
                        GError **err);
/* What a migration with these options would do: src/migrate/check.h. The caller's. */
bool vz_session_check(vz_session *session, const vz_wire_vz_check_args *args, json_t **ret_plan,
                      GError **err);
/* src/migrate/capabilities.h; uri NULL: of this host alone. The caller's. */
bool vz_session_migration_capabilities(vz_session *session, const char *uri, json_t **ret_report,
                                       GError **err);
/* flags of virConnectListAllDomains; vz_target elements, freed with the array. */
bool vz_session_list(vz_session *session, unsigned flags, GPtrArray **ret_targets, GError **err);

/* "running", "paused", "shut off", ... Static. */
const char *vz_session_state_name(int state);

/* A wait of the usual length, its arena made anew; used once. */
#define VZ_SESSION_WAIT(its_arena)                                                                 \
    {                                                                                              \
        .deadline_us = vz_now_us() + VZ_SESSION_CALL_US, .cancellable = true, .arena = (its_arena) \
    }
#define VZ_SESSION_REPLY_BYTES ((size_t)32 << 20)
