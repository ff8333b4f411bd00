/* p2p.h - a peer-to-peer migration: the source's daemon makes the five calls itself.
 *
 * It shares every step with a client-driven one; only who calls is different. The connection to
 * the destination is the daemon's own, with its credentials. */
#pragma once

#include "migrate/source.h"
#include "wire/arena.h"

struct vz_client;

/* Opening a connection and each call but Finish: a destination that is slower is given up. */
#define VZ_P2P_OPEN_DEADLINE_US ((int64_t)20 * 1000000)
#define VZ_P2P_CALL_DEADLINE_US ((int64_t)120 * 1000000)

/* The whole migration, on the domain's actor thread, which goes on serving what a job allows
 * (abort, suspend, speed). dconnuri is the destination's daemon. Errors are the source's or, with
 * their code and text, the destination's. */
bool vz_p2p_migrate(vz_migrate *service, vz_domain *domain, const char *dconnuri,
                    const vz_options *options, GError **err);

/* The parts that a check (check.h) shares: opens the destination's daemon, which must take
 * migrations with parameters; and the options as the destination gets them, the caller's: the
 * source's definition in place of the caller's, and PAUSED for a guest that is not running. */
struct vz_client *vz_p2p_connect(const char *dconnuri, vz_inbox *inbox, vz_arena *arena,
                                 GError **err);
vz_options *vz_p2p_destination_options(const vz_options *options, const char *xml, bool running);
