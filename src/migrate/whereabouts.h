/* whereabouts.h - has another host still got this guest? Asked before a domain starts that has
 * moved or has not quite arrived (its marks, trail.h), by the domain's UUID.
 *
 *     start of `web` here            the host that the mark names
 *     ───────────────────            ────────────────────────────
 *     mark moved-to JOB B   ──where──►  a guest or a job of it there?   guest
 *                                       defined there?                  defined
 *                                       gone on to C: asks C, relays    ...
 *                           ◄─────────  none: notes "moved to you"      gone
 *     mark is cleared, starts
 *
 * What the asked host notes makes the right to start go over: from then on it has to ask, too. */
#pragma once

#include "migrate/question.h"

/* For vz_life_set_start_check; user is the vz_migrate. The domain's actor; serves its inbox. */
bool vz_whereabouts_check_start(vz_domain *domain, bool automatic, bool *ret_given, void *user,
                                GError **err);

/* The same without consequences: nothing is noted here or there. OPERATION_INVALID: it would not be
 * let start, nor moved offline. Actor. */
bool vz_whereabouts_may_start(vz_migrate *service, vz_domain *domain, GError **err);

/* On a destination, before the mark of this arrival replaces that of an earlier one, whose source
 * may not have ended its copy: it is asked. OPERATION_INVALID names it. The domain's actor. */
bool vz_whereabouts_check_arrival(const vz_migration *migration, GError **err);

/* What the other hosts say of a domain that has marks, as evidence for an operator: members of an
 * object that is the caller's; and who has the lease of its images; empty without either. Nothing
 * is noted there. Actor. */
json_t *vz_whereabouts_evidence(vz_migrate *service, vz_domain *domain);
/* On the destination of a job: does the source still have its copy? The answer is the caller's. */
json_t *vz_whereabouts_ask_peer(const vz_migration *migration, GError **err);
/* The operator's word: the domain's marks are cleared, and its images' leases are this host's. */
bool vz_whereabouts_override(vz_domain *domain, GError **err);

/* Adds to a reply what there is of a job's guest on this host. Any thread. */
void vz_whereabouts_describe(const vz_migration *migration, json_t *reply);

/* See question.h. */
json_t *vz_whereabouts_reply_where(const vz_asked *asked, GError **err);
