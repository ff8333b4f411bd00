/* verdict.h - what became of a guest after the source has let go: asked and answered.
 *
 * The destination's record decides (docs/migration.md has the table). The questions:
 *   probe    is the way free? answered with the record, changes nothing;
 *   verdict  the source wants to know. A record before `committed` becomes `aborted` at once, so
 *            that no later Finish can commit, and the answer "aborted" is given only when nothing
 *            of the guest is left here;
 *   forget   the source's end is durable; the record may go;
 *   condemn  the source's operator has taken the guest back: whatever is left here dies first.
 * A verdict is "running", "aborted", "wait" or "unknown". */
#pragma once

#include "migrate/question.h"

/* How long a phase waits for "wait" or silence to turn into an answer, before the guest is left in
 * doubt: longer than a restart of a daemon, shorter than an operator's patience. */
#define VZ_VERDICT_PATIENCE_US ((int64_t)20 * 1000000)

/* The source's actor: does the destination answer at all, within patience_us? Errors name
 * the address. */
bool vz_verdict_probe(vz_migration *migration, int64_t patience_us, GError **err);

/* The source's actor: YES, the guest runs there; NO, nothing of it is left there; UNKNOWN, it
 * cannot be told now. Serves the inbox, deaf to cancel. */
vz_outcome vz_verdict_ask(vz_migration *migration);

/* The source's part is over: its record says so, durably, unless it is resolved-here, which the
 * destination has to hear first. false: not yet, for the disk is sick, which is logged. */
bool vz_verdict_end(vz_migration *migration);

/* Tells the destination that it may forget the job, or must (resolved-here), once that is durable
 * here. false: it has not heard. For a job without a domain on any one thread; it then just blocks.
 */
bool vz_verdict_forget(vz_migration *migration);

/* The destination's part: see question.h. */
json_t *vz_verdict_reply_probe(const vz_asked *asked, GError **err);
json_t *vz_verdict_reply_verdict(const vz_asked *asked, GError **err);
json_t *vz_verdict_reply_forget(const vz_asked *asked, GError **err);
json_t *vz_verdict_reply_condemn(const vz_asked *asked, GError **err);
