/* print.h - what vz says: progress, result and errors, for a terminal, for a log, or as JSON.
 *
 *     terminal  one line that is redrawn, a line for every phase that is over, a table at the end
 *     lines     a line when the phase changes and every few seconds, the same table
 *     json      one object a line: {"event": "progress" | "result" | "error" | "note" | ...}
 *     quiet     the table
 *
 * One thread. Errors go to standard error, but as JSON to where everything else goes. */
#pragma once

#include "base/error.h"
#include "cli/progress.h"

#include <jansson.h>
#include <stdio.h>

typedef enum {
    VZ_PRINT_TERMINAL,
    VZ_PRINT_LINES,
    VZ_PRINT_JSON,
    VZ_PRINT_QUIET,
} vz_print_mode;

typedef struct {
    vz_print_mode mode;
    bool every_reading; /* lines: one for each */
    FILE *out;
    FILE *errors;
    const char *domain; /* borrowed; may be NULL */
    bool bar_is_shown;
    char phase[VZ_PHASE_TEXT_MAX];
    int64_t phase_since_us;
    int64_t last_line_us;
} vz_printer;

/* How a migration ended. The numbers are vz's exit codes; keep vz(1) and `vz help` in step. */
typedef enum {
    VZ_OUTCOME_DONE = 0,
    VZ_OUTCOME_MOVED = VZ_OUTCOME_DONE,
    VZ_OUTCOME_FAILED = 1, /* the guest is on the source, as before */
    VZ_OUTCOME_USAGE = 2,
    VZ_OUTCOME_IN_DOUBT = 3,
    VZ_OUTCOME_ABORTED = 4,   /* as FAILED, by the user's will */
    VZ_OUTCOME_WOULD_NOT = 5, /* a check found what would refuse the move */
} vz_outcome;

/* What is said at the end of a move. */
typedef struct {
    const char *domain;
    const char *destination; /* host */
    uint64_t total_ms;
    uint64_t downtime_ms;
    bool has_downtime;
    uint64_t bytes;
    uint64_t rounds;
    const vz_reading *reading; /* how its memory travelled; NULL: not known */
    bool off_there;            /* it was and is shut off */
    bool paused_there;
    bool defined_there;
    bool kept_here;
} vz_result;

/* "copying memory  [########------------]  40 %  97.7 MiB/s  7.2 s left  guest running  round 2",
 * cut to `columns`. Caller frees. */
char *vz_print_bar(const vz_progress_view *view, const char *guest, unsigned columns);
/* The table at the end of a move. Caller frees. */
char *vz_print_table(const vz_result *result);

void vz_print_progress(vz_printer *printer, const vz_progress_view *view, const char *guest,
                       int64_t now_us);
/* A sentence in between; ends the line that is redrawn. */
void vz_print_note(vz_printer *printer, const char *format, ...) G_GNUC_PRINTF(2, 3);
void vz_print_moved(vz_printer *printer, const vz_result *result);
/* `what`: where the guest is now, or NULL. Adds advice from cli.def. */
void vz_print_failed(vz_printer *printer, vz_outcome outcome, const GError *error,
                     const char *what);
/* How memory travels, as members of an object; none where the daemon does not say. */
void vz_print_add_stream(json_t *object, const vz_reading *reading);
/* One JSON line. */
void vz_print_json(vz_printer *printer, json_t *take_object);

/* What would help with this error; NULL: nothing known. Static. */
const char *vz_print_advice(const GError *error);
/* "moved", "failed", "usage", "in-doubt", "aborted", "would-not-move". Static. */
const char *vz_print_outcome(vz_outcome outcome);
