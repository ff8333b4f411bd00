/* main.c - vz: the command line of virtvz.
 *
 * Words become a vz_args (args.c), a verb becomes a function (cmd_VERB.c). One thread. */
#include "cli/cmd.h"

#include "config.h"

#include <locale.h>
#include <signal.h>
#include <unistd.h>

static int (*const commands[VZ_VERB_COUNT])(vz_command *) = {
#define VERB(name, ...) [VZ_VERB_##name] = vz_cmd_##name,
#include "cli.def"
};

static vz_print_mode mode_of(const vz_args *args)
{
    if (args->given[VZ_CLI_JSON])
        return VZ_PRINT_JSON;
    if (args->given[VZ_CLI_QUIET])
        return VZ_PRINT_QUIET;
    return isatty(STDOUT_FILENO) ? VZ_PRINT_TERMINAL : VZ_PRINT_LINES;
}

static const char *environment(const char *name, const char *otherwise)
{
    const char *value = g_getenv(name);
    return value && *value ? value : otherwise;
}

static int run(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    const vz_args *args = command->args;
    if (args->given[VZ_CLI_HELP]) {
        g_autofree char *text =
            args->verb == VZ_VERB_help ? vz_args_help() : vz_args_verb_help(args->verb);
        fputs(text, stdout);
        return VZ_OUTCOME_DONE;
    }
    if (!vz_settings_load(environment("VZ_CONF", VZ_SYSCONFDIR "/virtvz/vz.conf"),
                          &command->settings, &err)) {
        vz_print_failed(&command->printer, VZ_OUTCOME_USAGE, err, NULL);
        return VZ_OUTCOME_USAGE;
    }
    command->uri = args->given[VZ_CLI_CONNECT] ? args->values[VZ_CLI_CONNECT]
                                               : environment("VZ_URI", command->settings.connect);
    return commands[args->verb](command);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    g_auto(vz_args) args = {0};
    setlocale(LC_CTYPE, ""); /* numbers stay as they are for every reader */
    signal(SIGPIPE, SIG_IGN);
    vz_command command = {.args = &args, .printer = {.out = stdout, .errors = stderr}};
    if (!vz_args_parse(argc, argv, &args, &err)) {
        fprintf(stderr, "vz: %s\n", err->message);
        return VZ_OUTCOME_USAGE;
    }
    command.printer.mode = mode_of(&args);
    command.printer.every_reading = args.given[VZ_CLI_VERBOSE];
    int outcome = run(&command);
    vz_settings_clear(&command.settings);
    return outcome;
}
