/* saga.c - see saga.h. */
#include "migrate/saga.h"

#include "base/log.h"
#include "base/wait.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef VZ_FAULTS
#define FAULT_HOLD_US ((int64_t)120 * 1000000)
#define FAULT_POLL_US ((gulong)5 * 1000)

/* Test builds: VZ_FAULT=STEP:{fail|crash|hold}:{before|after}, which comes each time; or the file
 * VZ_FAULT_FILE says the same, which comes once: the file is then FILE.fired. hold waits, until
 * that is removed where there is one, so that anything can be done to the host at this very point.
 */
static bool fault(const vz_step *step, const char *when, GError **err)
{
    const char *path = g_getenv("VZ_FAULT_FILE");
    g_autofree char *text = path ? NULL : g_strdup(g_getenv("VZ_FAULT"));
    if (path)
        g_file_get_contents(path, &text, NULL, NULL);
    if (!text)
        return false;
    g_auto(GStrv) words = g_strsplit(g_strstrip(text), ":", 3);
    g_autofree char *fired = path ? g_strconcat(path, ".fired", NULL) : NULL;
    if (g_strv_length(words) != 3 || strcmp(words[0], step->name) != 0 ||
        strcmp(words[2], when) != 0 || (path && rename(path, fired) < 0))
        return false;
    if (strcmp(words[1], "crash") == 0)
        _exit(42);
    if (strcmp(words[1], "fail") == 0)
        return !vz_fail(err, VZ_ERR_INTERNAL_ERROR, "injected fault %s %s", when, step->name);
    int64_t deadline_us = vz_now_us() + FAULT_HOLD_US;
    while ((!fired || access(fired, F_OK) == 0) && vz_now_us() < deadline_us)
        g_usleep(FAULT_POLL_US);
    return false;
}
#else
static bool fault(const vz_step *step, const char *when, GError **err)
{
    (void)step;
    (void)when;
    (void)err;
    return false;
}
#endif

/* A record of progress that cannot be written does not stop an undo: undoing twice is harmless,
 * and the journal then still says "begin", which leads a restart to the same undo. */
static void note(vz_saga *saga, const char *verb, const vz_step *step)
{
    g_autoptr(GError) err = NULL;
    if (saga->journal && !vz_journal_step(saga->journal, verb, step->name, &err))
        vz_warn(NULL, "%s %s: %s", verb, step->name, err->message);
}

/* What may have to be undone after the host itself went down must be known then. Of other steps
 * nothing outlives a host, or their own state tells (docs/decisions/0040-journal-syncs.md). */
static bool note_begin(vz_saga *saga, const vz_step *step, GError **err)
{
    return !saga->journal || (vz_journal_step(saga->journal, "begin", step->name, err) &&
                              (!step->undo || vz_journal_sync(saga->journal, err)));
}

static void note_undone(vz_saga *saga, const vz_step *step)
{
    g_autoptr(GError) err = NULL;
    note(saga, "undone", step);
    if (saga->journal && step->undo && !vz_journal_sync(saga->journal, &err))
        vz_warn(NULL, "undone %s: %s", step->name, err->message);
}

static bool applies(const vz_saga *saga, const vz_step *step)
{
    return (step->when == 0 || (saga->facts & step->when)) && !(saga->facts & step->unless);
}

static void unwind(vz_saga *saga)
{
    while (saga->next > saga->floor) {
        const vz_step *step = &saga->steps[--saga->next];
        if (!applies(saga, step))
            continue;
        if (step->undo)
            step->undo(saga->migration);
        note_undone(saga, step);
    }
}

/* The question that decides step i: its own, or that of the release it comes after. */
static vz_outcome ask(const vz_saga *saga, int i)
{
    for (; i >= 0; i--)
        if (saga->steps[i].ask && applies(saga, &saga->steps[i]))
            return saga->steps[i].ask(saga->migration);
    return VZ_OUTCOME_NOT_MOVED;
}

/* Step i was begun and did not report success: decide by its kind, never by guessing. */
static vz_saga_result settle_at(vz_saga *saga, int i)
{
    if (saga->pivoted || saga->steps[i].kind == VZ_STEP_FORWARD) {
        saga->next = i; /* to be run again */
        return VZ_SAGA_PENDING;
    }
    saga->next = i + 1;
    vz_outcome answer = ask(saga, i);
    if (answer == VZ_OUTCOME_UNKNOWN)
        return VZ_SAGA_PENDING;
    if (answer == VZ_OUTCOME_MOVED) {
        saga->pivoted = true;
        return VZ_SAGA_OK;
    }
    unwind(saga);
    return VZ_SAGA_UNDONE;
}

static bool run_step(vz_saga *saga, const vz_step *step, GError **err)
{
    int64_t began_us = vz_now_us();
    bool done = note_begin(saga, step, err) && !fault(step, "before", err) &&
                step->run(saga->migration, err) && !fault(step, "after", err);
    vz_debug(NULL, "step %s: %s after %" G_GINT64_FORMAT " us", step->name,
             done ? "done" : "failed", vz_now_us() - began_us);
    return done;
}

bool vz_saga_expects(const vz_saga *saga, vz_phase phase)
{
    const vz_step *next = &saga->steps[saga->next];
    return next->name && next->phase == phase;
}

bool vz_saga_is_over(const vz_saga *saga)
{
    const vz_step *step = &saga->steps[saga->next];
    while (step->name && !applies(saga, step))
        step++;
    return !step->name;
}

vz_saga_result vz_saga_run(vz_saga *saga, vz_phase phase, GError **err)
{
    while (vz_saga_expects(saga, phase)) {
        int i = saga->next++;
        const vz_step *step = &saga->steps[i];
        if (!applies(saga, step))
            continue;
        if (!run_step(saga, step, err)) {
            vz_saga_result result = settle_at(saga, i);
            if (result != VZ_SAGA_OK)
                return result;
            g_clear_error(err); /* the pivot happened although it could not say so */
        }
        if (step->kind == VZ_STEP_PIVOT)
            saga->pivoted = true;
        note(saga, "done", step);
    }
    return VZ_SAGA_OK;
}

bool vz_saga_released(const vz_saga *saga)
{
    for (const vz_step *step = saga->steps; step->name; step++)
        if (step->kind == VZ_STEP_RELEASE)
            return vz_journal_step_done(saga->journal, step->name);
    return false;
}

vz_saga_result vz_saga_settle(vz_saga *saga, GError **err)
{
    if (saga->pivoted)
        return VZ_SAGA_OK;
    /* The last applicable step before `next` is the one in question. */
    int i = saga->next - 1;
    while (i >= 0 && !applies(saga, &saga->steps[i]))
        i--;
    if (i < 0)
        return VZ_SAGA_UNDONE;
    vz_saga_result result = settle_at(saga, i);
    if (result == VZ_SAGA_PENDING)
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "the outcome of '%s' is not known yet",
                saga->steps[i].name);
    return result;
}

void vz_saga_rewind(vz_saga *saga, vz_phase phase)
{
    int floor = saga->floor;
    int first = 0;
    while (saga->steps[first].phase != phase)
        first++;
    if (saga->pivoted)
        return;
    saga->floor = MAX(floor, first);
    unwind(saga);
    saga->floor = floor;
}

void vz_saga_revoke(vz_saga *saga)
{
    saga->pivoted = false;
    saga->floor = 0;
    unwind(saga);
}

bool vz_saga_recover(vz_saga *saga, GError **err)
{
    bool done = false;
    g_autofree char *last = vz_journal_last_step(saga->journal, &done);
    saga->next = 0;
    if (!last)
        return true;
    for (int i = 0; saga->steps[i].name; i++) {
        if (strcmp(saga->steps[i].name, last) != 0)
            continue;
        /* Steps after a pivot exist only if it was decided. */
        for (int k = 0; k < i || (k == i && done); k++)
            if (saga->steps[k].kind == VZ_STEP_PIVOT && applies(saga, &saga->steps[k]))
                saga->pivoted = true;
        saga->next = saga->pivoted && !done ? i : i + 1;
        return true;
    }
    return vz_fail(
        err, VZ_ERR_INTERNAL_ERROR,
        "'%s' was left at the step '%s', which this virtvzd has not; install one as new as "
        "the one that wrote it, and restart that",
        vz_journal_path(saga->journal), last);
}
