/* journal.h - the durable record of one migration job on one host.
 *
 * A text file, one line an event, appended before what it announces happens; `cat` shows what a
 * failed night did. A restart reads it back and enters the same settle as any failure. Every line
 * outlives the daemon at once; it outlives the host when it or a later one was synced, as every
 * state is that others are told of (docs/decisions/0040-journal-syncs.md).
 *
 *     virtvz-journal 3 in 7d0f...            version, side, job
 *     set domain 90d7...                     values, escaped as C strings
 *     begin start-guest                      steps: begin, done, undone
 *     state committed                        what `ask` is answered from (docs/migration.md)
 *
 * An unfinished last line (a crash in the middle of a write) counts as never written, and what a
 * failed write leaves is cut off, so that a function here either failed or wrote. States only
 * move forward by vz_journal_advance, under the journal's lock, so that an `ask` and a running
 * Finish cannot both win. Any thread. */
#pragma once

#include "base/text.h"
#include "migrate/options.h"

/* The largest definition, whatever it is made of, and what else is noted. */
#define VZ_JOURNAL_BYTES_MAX ((size_t)6 * 1024 * 1024)
/* Every version from 1 on is read: a daemon may be replaced in the middle of a job. A new state, a
 * new step, or a value that recovery cannot do without make a new version. 2 added the states
 * taken-back and resolved-*, the steps of marks and leases, and what is noted of processes; 3 those
 * of offline moves; 4 those of post-copy; 5 those of disks that are copied. */
#define VZ_JOURNAL_VERSION 5

/* The words of the journal, of `ask` and of the model in docs/model. */
typedef enum {
    VZ_RECORD_NONE,       /* nothing durable yet */
    VZ_RECORD_RELEASED,   /* source: the last state may be on its way; only the destination knows */
    VZ_RECORD_TAKEN_BACK, /* source: the destination has answered aborted; the guest goes on here */
    VZ_RECORD_RESOLVED_HERE,   /* source: the operator says that the destination's copy is dead */
    VZ_RECORD_RESOLVED_THERE,  /* source: the operator says that the guest is the destination's */
    VZ_RECORD_PREPARED,        /* destination: a record exists, the guest cannot run */
    VZ_RECORD_LOADED,          /* destination: everything has arrived */
    VZ_RECORD_COMMITTED,       /* destination: will run here */
    VZ_RECORD_START_ATTEMPTED, /* destination: may have run */
    VZ_RECORD_STARTED,         /* destination: has run here, or stands paused as asked; offline: is
                                  defined here, and stays */
    VZ_RECORD_ABORTED,         /* destination: a tombstone; it can never commit */
    VZ_RECORD_ENDED, /* source: its part is over for good; only the destination has to hear */
    VZ_RECORD_COUNT
} vz_record;

const char *vz_record_name(vz_record state);

typedef struct vz_journal vz_journal;

/* Creates DIRECTORY/JOB.out or JOB.in, reserves its space on disk, writes the header. A job whose
 * record exists already is OPERATION_INVALID: tokens are used once. */
vz_journal *vz_journal_create(const char *directory, vz_side side, const uint8_t job[VZ_UUID_BYTES],
                              GError **err);

/* Reads a journal back. A file that is no journal, or of a later version, is an error that names
 * it; it is never removed. */
vz_journal *vz_journal_load(const char *path, GError **err);

/* Closes; the file stays. */
void vz_journal_free(vz_journal *journal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_journal, vz_journal_free)

/* Removes the file, durably. */
bool vz_journal_remove(vz_journal *journal, GError **err);

const char *vz_journal_path(const vz_journal *journal);
const uint8_t *vz_journal_job(const vz_journal *journal);
vz_side vz_journal_side(const vz_journal *journal);

/* Makes what was written so far outlive the host. */
bool vz_journal_sync(vz_journal *journal, GError **err);

/* Values, written but not synced; one that would make the record larger than can be read back is
 * OPERATION_INVALID. get: a copy, or NULL; caller frees. */
bool vz_journal_set(vz_journal *journal, const char *key, const char *value, GError **err);
char *vz_journal_get(vz_journal *journal, const char *key);

/* Steps, written but not synced. `verb` is "begin", "done" or "undone". */
bool vz_journal_step(vz_journal *journal, const char *verb, const char *step, GError **err);

/* What recovery needs: the name of the last step that was begun or done and not undone, and whether
 * it was done. NULL: none. Caller frees. */
char *vz_journal_last_step(vz_journal *journal, bool *ret_done);

/* Whether a step was done and not undone. */
bool vz_journal_step_done(vz_journal *journal, const char *step);

vz_record vz_journal_state(vz_journal *journal);

/* From COMMITTED to ABORTED, for a guest that is proved dead and of which no start was attempted.
 */
bool vz_journal_revoke(vz_journal *journal, GError **err);

/* The destination's, from anywhere to ABORTED: the source's operator has taken the guest back, so
 * whatever is here must never run again. */
bool vz_journal_condemn(vz_journal *journal, GError **err);

/* Moves to a state, durably (LOADED, which nobody is told, with the next sync), if the present one
 * allows it (journal.c has the table): ABORTED is final and is reached only from before COMMITTED;
 * nothing moves backwards. OPERATION_INVALID names both states. */
bool vz_journal_advance(vz_journal *journal, vz_record to, GError **err);
