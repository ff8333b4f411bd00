/* saga.h - a migration on one host as a list of steps; one way to fail, one way to undo.
 *
 * Each step belongs to a phase of libvirt's protocol and is
 *   UNDOABLE  can be taken back: `undo` is idempotent and copes with a half-done run;
 *   RELEASE   lets go: it decides nothing, but from its begin on only `ask` tells what happened;
 *   PIVOT     decides the outcome; when it did not report success, `ask` tells what happened;
 *   FORWARD   after the pivot: idempotent, retried until it works, never taken back.
 *
 * The runner journals "begin", runs, journals "done". On anything but success it settles by the
 * step's kind. Errors, cancel, dead links, dead clients and restarts all enter the same settle;
 * nothing else in the program knows how to undo. Actor thread of the domain only. */
#pragma once

#include "migrate/journal.h"

typedef struct vz_migration vz_migration;

typedef enum { VZ_STEP_UNDOABLE, VZ_STEP_RELEASE, VZ_STEP_PIVOT, VZ_STEP_FORWARD } vz_step_kind;

typedef enum { VZ_OUTCOME_NOT_MOVED, VZ_OUTCOME_MOVED, VZ_OUTCOME_UNKNOWN } vz_outcome;

typedef struct {
    const char *name;
    vz_phase phase;
    vz_step_kind kind;
    uint64_t when;   /* runs only if one of these facts holds; 0: always */
    uint64_t unless; /* does not run if one of these facts holds */
    bool (*run)(vz_migration *migration, GError **err);
    void (*undo)(vz_migration *migration);      /* NULL: there is nothing to take back */
    vz_outcome (*ask)(vz_migration *migration); /* RELEASE and PIVOT only */
} vz_step;

typedef enum {
    VZ_SAGA_OK,      /* the phase's steps are done */
    VZ_SAGA_UNDONE,  /* failed before the pivot, or the pivot did not happen: all is as before */
    VZ_SAGA_PENDING, /* the outcome is not known, or a FORWARD step is to be retried */
} vz_saga_result;

typedef struct {
    const vz_step *steps; /* ends with a NULL name */
    vz_migration *migration;
    vz_journal *journal; /* NULL once the job is closed; then nothing is journalled */
    uint64_t facts;      /* what `when` and `unless` look at */
    int next;            /* index of the next step to run */
    int floor;           /* steps before this are not taken back when one fails; else 0 */
    bool pivoted;        /* the outcome is decided: only forward from here */
} vz_saga;

/* True where the next step is one of this phase: a caller may leave a phase out, call one twice, or
 * call one of a job that is undone. */
bool vz_saga_expects(const vz_saga *saga, vz_phase phase);

/* No step is left that would run. */
bool vz_saga_is_over(const vz_saga *saga);

/* Runs the steps of one phase, which are the next ones (vz_saga_expects) or done already. err is
 * set unless VZ_SAGA_OK. */
vz_saga_result vz_saga_run(vz_saga *saga, vz_phase phase, GError **err);

/* The release was seen to its end, and the record says so. */
bool vz_saga_released(const vz_saga *saga);

/* Takes everything back, or where a release or pivot was begun, asks first. For an abort from
 * outside a phase, for a job whose outcome was not known, and after a restart. VZ_SAGA_OK: the
 * outcome is that the guest has moved; go on with vz_saga_run. err is set for VZ_SAGA_PENDING. */
vz_saga_result vz_saga_settle(vz_saga *saga, GError **err);

/* For a job that goes on after a restart, or once more, before its pivot: what was begun of this
 * phase is taken back, to be run anew. */
void vz_saga_rewind(vz_saga *saga, vz_phase phase);

/* The pivot was revoked where its decision is kept, since nothing of what follows it has happened:
 * takes everything back, also what is below the floor. */
void vz_saga_revoke(vz_saga *saga);

/* Sets `next` from the journal after a restart; vz_saga_settle then decides. false: the journal
 * names a step that there is not, so nobody knows what would be undone (INTERNAL_ERROR). */
bool vz_saga_recover(vz_saga *saga, GError **err);
