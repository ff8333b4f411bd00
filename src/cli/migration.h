/* migration.h - what `vz migrate` and `vz check` make of the same words (cmd_migrate.c). */
#pragma once

#include "cli/cmd.h"

typedef struct {
    vz_command *command;
    vz_session session;
    vz_target target;
    vz_options *options;
    char *destination; /* URI for the source's daemon */
    char *host;        /* for people */
    int state;         /* before; virDomainState */
    bool persistent;   /* before */
    uint64_t max_downtime_ms;
    int64_t start_us;
} vz_cmd_migration;

void vz_cmd_migration_clear(vz_cmd_migration *m);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_cmd_migration, vz_cmd_migration_clear)

/* What can be wrong in the words alone. */
bool vz_cmd_migration_read(vz_cmd_migration *m, GError **err);
/* Connects, finds the domain and notes how it is; nothing is changed. */
bool vz_cmd_migration_find(vz_cmd_migration *m, GError **err);
