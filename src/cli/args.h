/* args.h - the command line of vz as data: verbs, options, and the parser over both tables.
 *
 * Tables: defs/cli.def and, for `migrate`, the words of defs/options.def. Pure; no I/O but for
 * options whose value is a file. */
#pragma once

#include "migrate/options.h"

typedef enum {
#define VERB(name, ...) VZ_VERB_##name,
#include "cli.def"
    VZ_VERB_COUNT
} vz_verb_id;

typedef struct {
    const char *name;
    const char *arguments; /* for the usage line */
    int min, max;          /* number of arguments */
    const char *help;
} vz_verb;

typedef enum {
#define CLI_OPTION(id, ...) VZ_CLI_##id,
#include "cli.def"
    VZ_CLI_COUNT
} vz_cli_id;

typedef struct {
    const char *verb; /* one, or several with spaces between; NULL: of all */
    const char *word;
    const char *value; /* its name in help; NULL: takes none */
    const char *help;
} vz_cli_option;

extern const vz_verb vz_verbs[VZ_VERB_COUNT];
extern const vz_cli_option vz_cli_options[VZ_CLI_COUNT];

bool vz_cli_option_belongs(const vz_cli_option *option, const char *verb);

/* What followed `vz`. Strings borrowed from argv, but for options. */
typedef struct {
    vz_verb_id verb;
    bool given[VZ_CLI_COUNT];
    const char *values[VZ_CLI_COUNT];
    GPtrArray *arguments;   /* const char *, without the verb */
    vz_options *options;    /* migrate: defaults and words */
    vz_option_set explicit; /* migrate: what a word was given for */
} vz_args;

/* INVALID_ARG saying what is wrong. Options may stand anywhere; "--" ends them; "--word=value" and
 * "--word value" are the same. With --help, missing arguments are no error. */
bool vz_args_parse(int argc, char **argv, vz_args *ret_args, GError **err);
void vz_args_clear(vz_args *args);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_args, vz_args_clear)

/* The text of `vz help`, and of `vz VERB --help`. Caller frees. */
char *vz_args_help(void);
char *vz_args_verb_help(vz_verb_id verb);
