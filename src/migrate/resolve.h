/* resolve.h - a guest in doubt: what an operator is shown, and what he decides.
 *
 * `here` and `there` are seen from this host. On the source of a job, `here` takes the guest back
 * (the destination's copy is dead), `there` leaves it to the destination. On its destination `here`
 * starts what has come (the source's copy is dead). Without a job, `here` makes this host forget
 * that the domain moved away, or is not known to have arrived. */
#pragma once

#include "domain/domain.h"
#include "migrate/migration.h"

typedef enum { VZ_RESOLVE_HERE = 1, VZ_RESOLVE_THERE = 2 } vz_resolution;

/* The domain's actor, as a task of its own: asks the other host once more, which may settle the
 * job, and returns one JSON object:
 *   domain, host       names
 *   state              "in doubt", "migrating", "marked", "settled"
 *   job, peer, record  of the job, if there is one
 *   here, there        what is known of the guest on either side
 *   choices            {"here": true or why not, "there": true or why not}
 * Caller decrefs. */
json_t *vz_resolve_evidence(vz_migrate *service, vz_domain *domain);

/* The same first; then does it if the evidence allows it, and writes both down. *ret_text says what
 * was done. OPERATION_INVALID with the reason; "nothing is in doubt" is one. */
bool vz_resolve(vz_migrate *service, vz_domain *domain, vz_resolution decision, char **ret_text,
                GError **err);

/* Before such a task is posted, on the actor, also inside a wait of the job: one that waits for an
 * answer stops waiting. OPERATION_INVALID where the job has a phase to end first. */
bool vz_resolve_hurry(vz_domain *domain, GError **err);

/* Any thread: every job of this host that is not over, as an array of objects with domain, uuid,
 * job, direction ("out", "in"), peer, record, phase, running (it holds its domain). */
json_t *vz_resolve_jobs(vz_migrate *service);
