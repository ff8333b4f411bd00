/* cmd.h - the commands of vz, one file each. Each returns vz's exit code (vz_outcome) and has said
 * what there is to say. */
#pragma once

#include "cli/args.h"
#include "cli/print.h"
#include "cli/session.h"
#include "cli/settings.h"

typedef struct {
    const vz_args *args;
    vz_settings settings;
    vz_printer printer;
    const char *uri; /* of the daemon to talk to */
} vz_command;

#define VERB(name, ...) int vz_cmd_##name(vz_command *command);
#include "cli.def"

/* The command's n-th argument. */
static inline const char *vz_cmd_argument(const vz_command *command, guint n)
{
    return g_ptr_array_index(command->args->arguments, n);
}
