/* verdict.h - what became of a guest after the source has let go: asked and answered.
 *
 * The destination's record decides (docs/migration.md has the table). A question is one JSON object
 * with "op":
 *   probe    is the way free? answered with the record, changes nothing;
 *   verdict  the source wants to know. A record before `committed` becomes `aborted` at once, so
 *            that no later Finish can commit, and the answer "aborted" is given only when nothing
 * of the guest is left here; forget   the source's end is durable; the record may go. and so is an
 * answer: {"verdict": "running" | "aborted" | "wait" | "unknown", "record": ...}. */
#pragma once

#include "channel/ask.h"
#include "migrate/migration.h"

/* One exchange may take so long; a host that is slower is asked again. */
#define VZ_ASK_DEADLINE_US ((int64_t)8 * 1000000)
/* How long a phase waits for "wait" or silence to turn into an answer, before the guest is left in
 * doubt: longer than a restart of a daemon, shorter than an operator's patience. */
#define VZ_VERDICT_PATIENCE_US ((int64_t)20 * 1000000)

/* The source's actor: does the destination answer at all, within patience_us? Errors name
 * the address. */
bool vz_verdict_probe(vz_migration *migration, int64_t patience_us, GError **err);

/* The source's actor: YES, the guest runs there; NO, nothing of it is left there; UNKNOWN, it
 * cannot be told now. Serves the inbox, deaf to cancel. */
vz_outcome vz_verdict_ask(vz_migration *migration);

/* Tells the destination that it may forget the job. false: it has not heard. For a job without a
 * domain on any one thread; it then just blocks. */
bool vz_verdict_forget(vz_migration *migration);

/* The destination's part, for vz_ask_handlers; user is the vz_migrate. Threads of the ask server.
 */
bool vz_verdict_find_keys(const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                          char **ret_peer_fingerprint, void *user);
bool vz_verdict_answer(const uint8_t job[VZ_UUID_BYTES], GBytes *question, GBytes **ret_answer,
                       void *user, GError **err);
