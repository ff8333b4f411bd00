/* print-steps.c - prints the steps of a migration, from which the fault matrix is made
 * (tests/lab/matrix.py). One a line, in order: SIDE NAME PHASE KIND, then the facts of a job by
 * which it runs and those by which it does not; '-': none. */
#include "migrate/destination.h"
#include "migrate/source.h"

#include <stdio.h>

/* Facts by name; one without a row here is told by its number. */
static char *fact_words(uint64_t facts)
{
    static const struct {
        uint64_t fact;
        const char *word;
    } words[] = {
        {VZ_FACT_COMA, "coma"},
        {VZ_FACT_PERSIST_DEST, "persist-dest"},
        {VZ_FACT_UNDEFINE_SOURCE, "undefine-source"},
        {VZ_FACT_DISKS, "disks"},
        {VZ_FACT_OFFLINE, "offline"},
        {VZ_FACT_POSTCOPY, "postcopy"},
    };
    g_autoptr(GString) out = g_string_new(NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (facts & words[i].fact)
            g_string_append_printf(out, "%s%s", out->len ? "," : "", words[i].word);
        facts &= ~words[i].fact;
    }
    if (facts)
        g_string_append_printf(out, "%sfact-%" G_GINT64_MODIFIER "x", out->len ? "," : "", facts);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static void print_steps_of(const char *side, const vz_step *steps)
{
    static const char *const phases[] = {
        [VZ_PHASE_BEGIN] = "begin",     [VZ_PHASE_PREPARE] = "prepare",
        [VZ_PHASE_PERFORM] = "perform", [VZ_PHASE_FINISH] = "finish",
        [VZ_PHASE_CONFIRM] = "confirm",
    };
    static const char *const kinds[] = {
        [VZ_STEP_UNDOABLE] = "undoable",
        [VZ_STEP_RELEASE] = "release",
        [VZ_STEP_PIVOT] = "pivot",
        [VZ_STEP_FORWARD] = "forward",
    };
    for (const vz_step *step = steps; step->name; step++) {
        g_autofree char *when = fact_words(step->when);
        g_autofree char *unless = fact_words(step->unless);
        printf("%s %s %s %s %s %s\n", side, step->name, phases[step->phase], kinds[step->kind],
               *when ? when : "-", *unless ? unless : "-");
    }
}

int main(void)
{
    print_steps_of("source", vz_source_steps);
    print_steps_of("destination", vz_destination_steps);
    return 0;
}
