/* source_settle.h - how the source's part of a job ends: undone, moved, or in doubt until somebody
 * knows. For the source_*.c files only; the domain's actor. */
#pragma once

#include "migrate/source.h"

/* From outside a phase: an abort between phases, a lost client, a retry, a restart. Nothing happens
 * while a phase runs, which settles by itself. */
void vz_source_settle(vz_migration *m);
/* The same as a task of its own. */
void vz_source_settle_later(vz_migration *m);
/* The same where nobody confirms in time; for vz_migrate_watch_phase. */
void vz_source_no_confirm(vz_migration *m);

/* The guest has moved, or is asked about: what is left is done, however often it takes. false: it
 * has not, or not yet; err says which. */
bool vz_source_go_forward(vz_migration *m, GError **err);
/* All is undone; the job ends. */
void vz_source_close_failed(vz_migration *m, const GError *error);
/* Nobody can know yet: the guest stays paused, and the destination is asked again. */
void vz_source_enter_doubt(vz_migration *m);
