/* args.c - see args.h. */
#include "cli/args.h"

#include "base/fd.h"
#include "base/units.h"

#include <string.h>

#define XML_BYTES_MAX (4 * VZ_MIB)
#define HELP_COLUMN   32
#define HELP_WIDTH    96

const vz_verb vz_verbs[VZ_VERB_COUNT] = {
#define VERB(name, arguments, lowest, highest, help) {#name, arguments, lowest, highest, help},
#include "cli.def"
};

const vz_cli_option vz_cli_options[VZ_CLI_COUNT] = {
#define CLI_OPTION(id, verb, word, value, help) {verb, word, value, help},
#include "cli.def"
};

/* What is being parsed: a position in argv and what was found so far. */
typedef struct {
    int argc;
    char **argv;
    int next;
    vz_args *args;
} parser;

static bool find_verb(const char *name, vz_verb_id *ret_verb, GError **err)
{
    for (int i = 0; i < VZ_VERB_COUNT; i++)
        if (strcmp(vz_verbs[i].name, name) == 0) {
            *ret_verb = (vz_verb_id)i;
            return true;
        }
    return vz_fail(err, VZ_ERR_INVALID_ARG, "there is no command '%s'; `vz help` lists them", name);
}

bool vz_cli_option_belongs(const vz_cli_option *option, const char *verb)
{
    g_auto(GStrv) verbs = g_strsplit(option->verb ? option->verb : verb, " ", -1);
    return g_strv_contains((const char *const *)verbs, verb);
}

static int find_option(vz_verb_id verb, const char *word)
{
    for (int i = 0; i < VZ_CLI_COUNT; i++) {
        const vz_cli_option *option = &vz_cli_options[i];
        if (strcmp(option->word, word) == 0 && vz_cli_option_belongs(option, vz_verbs[verb].name))
            return i;
    }
    return -1;
}

/* The value after "=" if there is one, else the next argument. */
static bool take_value(parser *p, const char *word, const char *inlined, const char *name,
                       const char **ret_value, GError **err)
{
    *ret_value = inlined;
    if (inlined)
        return true;
    if (p->next >= p->argc)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "--%s needs a value: %s", word, name);
    *ret_value = p->argv[p->next++];
    return true;
}

static bool parse_cli_option(parser *p, int index, const char *inlined, GError **err)
{
    const vz_cli_option *option = &vz_cli_options[index];
    if (!option->value && inlined)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "--%s takes no value", option->word);
    if (option->value &&
        !take_value(p, option->word, inlined, option->value, &p->args->values[index], err))
        return false;
    p->args->given[index] = true;
    return true;
}

static bool parse_migrate_word(parser *p, const char *name, const char *inlined, GError **err)
{
    const vz_option_word *word = vz_option_word_find(name);
    g_autofree char *file = NULL;
    const char *value = inlined;
    if (!word)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "there is no option --%s; `vz migrate --help` lists them", name);
    const char *value_name = vz_option_value_name(word->option);
    if (value_name && !take_value(p, name, inlined, value_name, &value, err))
        return false;
    if (vz_option_info(word->option)->unit == VZ_UNIT_XML) {
        if (!vz_file_read(value, XML_BYTES_MAX, &file, NULL, err))
            return false;
        value = file;
    }
    p->args->explicit |= VZ_OPTION_BIT(word->option);
    return vz_options_apply_word(p->args->options, word, value, err);
}

static bool takes_migration_words(vz_verb_id verb)
{
    return verb == VZ_VERB_migrate || verb == VZ_VERB_check;
}

static bool parse_long(parser *p, const char *text, GError **err)
{
    const char *equals = strchr(text, '=');
    g_autofree char *word = equals ? g_strndup(text, (size_t)(equals - text)) : g_strdup(text);
    const char *inlined = equals ? equals + 1 : NULL;
    int index = find_option(p->args->verb, word);
    if (index >= 0)
        return parse_cli_option(p, index, inlined, err);
    if (takes_migration_words(p->args->verb))
        return parse_migrate_word(p, word, inlined, err);
    return vz_fail(err, VZ_ERR_INVALID_ARG, "`vz %s` has no option --%s",
                   vz_verbs[p->args->verb].name, word);
}

static bool parse_one(parser *p, bool *ended, GError **err)
{
    const char *text = p->argv[p->next++];
    if (!*ended && strcmp(text, "--") == 0)
        *ended = true;
    else if (!*ended && g_str_has_prefix(text, "--"))
        return parse_long(p, text + 2, err);
    else if (!*ended && strcmp(text, "-c") == 0)
        return parse_cli_option(p, VZ_CLI_CONNECT, NULL, err);
    else if (!*ended && strcmp(text, "-h") == 0)
        return parse_cli_option(p, VZ_CLI_HELP, NULL, err);
    else if (!*ended && text[0] == '-' && text[1] != '\0')
        return vz_fail(err, VZ_ERR_INVALID_ARG, "there is no option %s", text);
    else
        g_ptr_array_add(p->args->arguments, p->argv[p->next - 1]);
    return true;
}

/* Global options may stand before the verb: find it first, since it decides what is an option. */
static bool parse_verb(parser *p, GError **err)
{
    p->args->verb = VZ_VERB_help;
    while (p->next < p->argc && p->argv[p->next][0] == '-') {
        bool ended = false;
        if (!parse_one(p, &ended, err))
            return false;
    }
    if (p->next == p->argc)
        return true;
    return find_verb(p->argv[p->next++], &p->args->verb, err);
}

static bool check_count(const vz_args *args, GError **err)
{
    const vz_verb *verb = &vz_verbs[args->verb];
    if (args->given[VZ_CLI_HELP] ||
        ((int)args->arguments->len >= verb->min && (int)args->arguments->len <= verb->max))
        return true;
    return vz_fail(err, VZ_ERR_INVALID_ARG, "usage: vz %s %s", verb->name, verb->arguments);
}

bool vz_args_parse(int argc, char **argv, vz_args *ret_args, GError **err)
{
    g_auto(vz_args) args = {.arguments = g_ptr_array_new(), .options = vz_options_new()};
    parser p = {.argc = argc, .argv = argv, .next = 1, .args = &args};
    bool ended = false;
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
        if (VZ_OPTIONS_CLI_DEFAULT & VZ_OPTION_BIT(id))
            vz_options_set_flag(args.options, id, true);
    if (!parse_verb(&p, err))
        return false;
    while (p.next < argc)
        if (!parse_one(&p, &ended, err))
            return false;
    if (!check_count(&args, err))
        return false;
    *ret_args = args;
    args = (vz_args){0};
    return true;
}

void vz_args_clear(vz_args *args)
{
    g_clear_pointer(&args->arguments, g_ptr_array_unref);
    g_clear_pointer(&args->options, vz_options_free);
}

/* --- help --- */

/* "  --word VALUE      help", the help wrapped in its column. */
static void add_line(GString *out, const char *word, const char *value, const char *help)
{
    g_autofree char *left =
        g_strdup_printf("  --%s%s%s", word, value ? " " : "", value ? value : "");
    size_t column = strlen(left);
    g_auto(GStrv) parts = g_strsplit(help, " ", -1);
    g_string_append(out, left);
    if (column >= HELP_COLUMN) {
        g_string_append_c(out, '\n');
        column = 0;
    }
    for (char **part = parts; *part; part++) {
        if (column >= HELP_COLUMN && column + 1 + strlen(*part) > HELP_WIDTH) {
            g_string_append_c(out, '\n');
            column = 0;
        }
        int pad = column < HELP_COLUMN ? (int)(HELP_COLUMN - column) : 1;
        g_string_append_printf(out, "%*s%s", pad, "", *part);
        column += (size_t)pad + strlen(*part);
    }
    g_string_append_c(out, '\n');
}

static void add_cli_options(GString *out, const char *verb)
{
    for (int i = 0; i < VZ_CLI_COUNT; i++)
        if (verb ? vz_cli_options[i].verb && vz_cli_option_belongs(&vz_cli_options[i], verb)
                 : !vz_cli_options[i].verb)
            add_line(out, vz_cli_options[i].word, vz_cli_options[i].value, vz_cli_options[i].help);
}

static bool is_default(const vz_option_word *word)
{
    return word->on && VZ_OPTIONS_CLI_DEFAULT & VZ_OPTION_BIT(word->option);
}

static void add_migrate_words(GString *out)
{
    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    g_autoptr(GString) refused = g_string_new(NULL);
    g_string_append(out, "\nThe migration:\n");
    for (size_t i = 0; i < count; i++) {
        const vz_option_row *row = vz_option_info(words[i].option);
        if (row->status > VZ_STATUS_ALREADY_TRUE) {
            if (words[i].help)
                g_string_append_printf(refused, " --%s", words[i].word);
            continue;
        }
        if (!words[i].help)
            continue;
        g_autofree char *help =
            g_strconcat(words[i].help, is_default(&words[i]) ? " (default)" : "",
                        row->reason ? "; always so: " : "", row->reason ? row->reason : "", NULL);
        add_line(out, words[i].word, vz_option_value_name(words[i].option), help);
    }
    g_string_append(out, "\nKnown, but refused with the reason in this version:\n ");
    g_auto(GStrv) names = g_strsplit(refused->str + 1, " ", -1);
    size_t column = 1;
    for (char **name = names; *name; name++) {
        if (column + 1 + strlen(*name) > HELP_WIDTH) {
            g_string_append(out, "\n ");
            column = 1;
        }
        g_string_append_printf(out, " %s", *name);
        column += 1 + strlen(*name);
    }
    g_string_append(out, "\n\n");
}

char *vz_args_help(void)
{
    g_autoptr(GString) out = g_string_new("Usage: vz [OPTION...] COMMAND [ARGUMENT...]\n\n");
    for (int i = 0; i < VZ_VERB_COUNT; i++) {
        g_autofree char *left = g_strdup_printf("%s %s", vz_verbs[i].name, vz_verbs[i].arguments);
        g_string_append_printf(out, "  %-*s%s\n", HELP_COLUMN - 2, left, vz_verbs[i].help);
    }
    g_string_append(out, "\n");
    add_cli_options(out, NULL);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

char *vz_args_verb_help(vz_verb_id verb)
{
    const vz_verb *v = &vz_verbs[verb];
    g_autoptr(GString) out = g_string_new(NULL);
    g_string_append_printf(out, "Usage: vz %s [OPTION...]%s%s\n%c%s.\n\n", v->name,
                           *v->arguments ? " " : "", v->arguments, g_ascii_toupper(v->help[0]),
                           v->help + 1);
    add_cli_options(out, v->name);
    add_cli_options(out, NULL);
    if (takes_migration_words(verb))
        add_migrate_words(out);
    if (verb == VZ_VERB_migrate)
        g_string_append(out,
                        "Exit status: 0 moved; 1 not moved, the guest is as before; 2 usage; "
                        "3 in doubt;\n4 aborted, the guest is as before. See vz-migrate(1).\n");
    if (verb == VZ_VERB_check)
        g_string_append(out,
                        "Exit status: 0 it would move; 5 it would not; 1 nobody knows; 2 usage. "
                        "See vz-migrate(1).\n");
    return g_string_free(g_steal_pointer(&out), FALSE);
}
