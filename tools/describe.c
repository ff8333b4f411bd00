/* describe.c - prints what is generated from the tables of options and of the command line:
 *
 *     describe options-md     docs/generated/options.md (checked in; a test compares)
 *     describe options-scd    the same for vz-migrate(1), in scdoc
 *     describe verbs-scd      commands and their options, for vz(1)
 *     describe config-scd     keys of virtvzd.conf, for virtvzd(8)
 *     describe completion     bash completion of vz
 *
 * A build-time tool; it reads tables and writes text to standard output. */
#include "cli/args.h"

#include "config.h"

#include <stdio.h>
#include <string.h>

static const char *status_word(vz_option_status status)
{
    static const char *const words[] = {
        [VZ_STATUS_SUPPORTED] = "supported",
        [VZ_STATUS_ALREADY_TRUE] = "always so",
        [VZ_STATUS_NOT_YET] = "not yet",
        [VZ_STATUS_REJECTED] = "not supported",
    };
    return words[status];
}

/* A pipe would end the cell. */
static char *cell(const char *text)
{
    g_auto(GStrv) parts = g_strsplit(text, "|", -1);
    return g_strjoinv("\\|", parts);
}

static char *words_of(vz_option_id id)
{
    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    g_autoptr(GString) out = g_string_new(NULL);
    for (size_t i = 0; i < count; i++)
        if (words[i].option == id)
            g_string_append_printf(out, "%s`--%s`", out->len ? ", " : "", words[i].word);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static void print_row_md(vz_option_id id)
{
    const vz_option_row *row = vz_option_info(id);
    g_autofree char *words = words_of(id);
    g_autofree char *help = cell(row->help);
    g_autofree char *status = row->reason
                                  ? g_strdup_printf("%s: %s", status_word(row->status), row->reason)
                                  : g_strdup(status_word(row->status));
    g_autofree char *guests =
        row->not_ct ? g_strdup_printf("VM only: %s", row->not_ct) : g_strdup("VM, container");
    printf("| `%s` | %s | %s | %s | %s | %s%s%s | %s |\n", row->name, words, help, guests,
           row->source_only ? "source" : "both", row->qemu ? "`" : "", row->qemu ? row->qemu : "",
           row->qemu ? "`" : "", status);
}

static void print_rows_md(vz_option_type type)
{
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
        if (vz_option_info(id)->type == type)
            print_row_md(id);
}

static char *names_of(vz_option_set set)
{
    g_autoptr(GString) out = g_string_new(NULL);
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++)
        if (set & VZ_OPTION_BIT(id))
            g_string_append_printf(out, "%s%s", out->len ? " or " : "", vz_option_info(id)->id);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static void print_rules_md(void)
{
    size_t count;
    const vz_option_rule *rules = vz_option_rules(&count);
    printf("\n## Rules\n\n| option | relation | others | code | sentence |\n|--|--|--|--|--|\n");
    for (size_t i = 0; i < count; i++) {
        g_autofree char *others = names_of(rules[i].others);
        printf("| %s | %s | %s | %u | %s |\n", vz_option_info(rules[i].option)->id,
               rules[i].relation == VZ_RULE_NEEDS ? "needs" : "excludes", others, rules[i].code,
               rules[i].sentence);
    }
}

static void print_options_md(void)
{
    static const char head[] = "|  | `vz migrate` | meaning | guests | sent to | QEMU | status |\n"
                               "|--|--|--|--|--|--|--|\n";
    printf(
        "# Migration options\n\nPrinted from `defs/options.def` by `tools/describe`; do not edit. "
        "What is \"not yet\" or \"not supported\" is refused with code 74 and the reason.\n\n");
    printf("## Flags (`VIR_MIGRATE_*`)\n\n%s", head);
    print_rows_md(VZ_ROW_FLAG);
    printf("\n## Typed parameters (`VIR_MIGRATE_PARAM_*`)\n\n%s", head);
    print_rows_md(VZ_ROW_PARAM);
    printf("\n## Values of `compression`, schemes of `migrate_uri`\n\n%s", head);
    print_rows_md(VZ_ROW_CHOICE);
    print_rules_md();
}

/* scdoc's own characters. */
static char *scd(const char *text)
{
    g_autoptr(GString) out = g_string_new(NULL);
    for (const char *c = text; *c; c++) {
        if (strchr("*_\\#[]<>", *c))
            g_string_append_c(out, '\\');
        g_string_append_c(out, *c);
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static void print_word_scd(const char *word, const char *value, const char *help, const char *more)
{
    g_autofree char *help_text = scd(help);
    g_autofree char *more_text = scd(more);
    g_autofree char *value_text = value ? scd(value) : NULL;
    printf("*--%s*%s%s%s\n\t%c%s.%s%s\n\n", word, value ? " _" : "", value ? value_text : "",
           value ? "_" : "", g_ascii_toupper(help_text[0]), help_text + 1, *more ? " " : "",
           more_text);
}

/* What the manual adds to a word's help. */
static char *remark_on(const vz_option_word *word, const vz_option_row *row)
{
    bool works = row->status <= VZ_STATUS_ALREADY_TRUE;
    if (!word->help)
        return g_strdup("");
    if (row->reason)
        return g_strdup_printf("%s: %s.", works ? "Always so" : "Refused", row->reason);
    bool is_default = word->on && VZ_OPTIONS_CLI_DEFAULT & VZ_OPTION_BIT(word->option);
    return g_strdup(is_default ? "This is the default." : "");
}

/* The word that a synonym stands for: the first one of the same effect. */
static const char *meant_by(const vz_option_word *synonym)
{
    const vz_option_word *word = vz_option_words(&(size_t){0});
    while (word->option != synonym->option || word->on != synonym->on)
        word++;
    return word->word;
}

static void print_words_scd(bool works)
{
    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    for (size_t i = 0; i < count; i++) {
        const vz_option_row *row = vz_option_info(words[i].option);
        if (works != (row->status <= VZ_STATUS_ALREADY_TRUE))
            continue;
        g_autofree char *remark = remark_on(&words[i], row);
        g_autofree char *same = g_strdup_printf("the same as --%s", meant_by(&words[i]));
        print_word_scd(words[i].word, vz_option_value_name(words[i].option),
                       words[i].help ? words[i].help : same, remark);
    }
}

static void print_cli_scd(const char *verb)
{
    for (int i = 0; i < VZ_CLI_COUNT; i++)
        if (verb ? vz_cli_options[i].verb && vz_cli_option_belongs(&vz_cli_options[i], verb)
                 : !vz_cli_options[i].verb)
            print_word_scd(vz_cli_options[i].word, vz_cli_options[i].value, vz_cli_options[i].help,
                           "");
}

static void print_options_scd(void)
{
    printf("# OPTIONS\n\n");
    print_words_scd(true);
    print_cli_scd("migrate");
    print_cli_scd(NULL);
    printf("# NOT IN THIS VERSION\n\nThese are known, and refused with the reason (error 74); "
           "nothing is ignored.\n\n");
    print_words_scd(false);
}

static void print_verbs_scd(void)
{
    printf("# COMMANDS\n\n");
    for (int i = 0; i < VZ_VERB_COUNT; i++) {
        g_autofree char *arguments = scd(vz_verbs[i].arguments);
        g_autofree char *help = scd(vz_verbs[i].help);
        printf("*%s*%s%s\n\t%c%s.\n\n", vz_verbs[i].name, *arguments ? " " : "", arguments,
               g_ascii_toupper(help[0]), help + 1);
        for (int k = 0; k < VZ_CLI_COUNT; k++)
            if (vz_cli_options[k].verb && i != VZ_VERB_migrate && i != VZ_VERB_check &&
                vz_cli_option_belongs(&vz_cli_options[k], vz_verbs[i].name))
                printf("\t*--%s*: %s.\n\n", vz_cli_options[k].word, vz_cli_options[k].help);
    }
    printf("# OPTIONS\n\n");
    print_cli_scd(NULL);
}

static void print_completion_words(int verb)
{
    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    for (int i = 0; i < VZ_CLI_COUNT; i++)
        if (vz_cli_option_belongs(&vz_cli_options[i], vz_verbs[verb].name))
            printf(" --%s", vz_cli_options[i].word);
    for (size_t i = 0; (verb == VZ_VERB_migrate || verb == VZ_VERB_check) && i < count; i++)
        if (vz_option_info(words[i].option)->status <= VZ_STATUS_ALREADY_TRUE)
            printf(" --%s", words[i].word);
}

static void print_verb_names(void)
{
    for (int i = 0; i < VZ_VERB_COUNT; i++)
        printf(" %s", vz_verbs[i].name);
}

static void print_completion_cases(void)
{
    printf("    case $verb in\n    '') words=(");
    print_verb_names();
    for (int i = 0; i < VZ_CLI_COUNT; i++)
        if (!vz_cli_options[i].verb)
            printf(" --%s", vz_cli_options[i].word);
    printf(" ) ;;\n");
    for (int i = 0; i < VZ_VERB_COUNT; i++) {
        printf("    %s) words=(", vz_verbs[i].name);
        if (i == VZ_VERB_help)
            print_verb_names();
        print_completion_words(i);
        printf(" ) ;;\n");
    }
    printf("    esac\n");
}

/* Names of domains are anybody's text: they go into an array and are compared, never expanded. */
static void print_completion(void)
{
    printf("# bash completion for vz; printed by tools/describe\n"
           "_vz()\n{\n"
           "    local word=${COMP_WORDS[COMP_CWORD]} verb= candidate i\n"
           "    local -a words=() names=()\n"
           "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
           "        case ${COMP_WORDS[i]} in\n"
           "        -c | --connect) ((i++)) ;;\n"
           "        -*) ;;\n"
           "        *) verb=${COMP_WORDS[i]}; break ;;\n"
           "        esac\n"
           "    done\n");
    print_completion_cases();
    printf("    if [[ $word != -* && ( $verb == migrate || $verb == check || $verb == abort ) ]]; "
           "then\n"
           "        mapfile -t names < <(vz list --json 2>/dev/null |\n"
           "            sed -n 's/.*\"name\":\"\\([^\"\\\\]*\\)\".*/\\1/p')\n"
           "        words=(\"${names[@]}\")\n"
           "    fi\n"
           "    COMPREPLY=()\n"
           "    for candidate in \"${words[@]}\"; do\n"
           "        if [[ $candidate == \"$word\"* ]]; then\n"
           "            COMPREPLY+=(\"$(printf '%%q' \"$candidate\")\")\n"
           "        fi\n"
           "    done\n"
           "}\n"
           "complete -F _vz vz\n");
}

/* The keys of virtvzd.conf. */
static void print_config_scd(void)
{
    static const struct {
        const char *name, *type, *initial, *help;
    } keys[] = {
#define KEY(name, type, initial, help) {#name, #type, initial, help},
#include "config.def"
#undef KEY
    };
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        g_autofree char *name = scd(keys[i].name);
        g_autofree char *type = g_ascii_strdown(keys[i].type, -1);
        g_autofree char *initial = scd(*keys[i].initial ? keys[i].initial : "empty");
        g_autofree char *help = scd(keys[i].help);
        printf("*%s* (%s; default %s)\n\t%c%s.\n\n", name, type, initial, g_ascii_toupper(help[0]),
               help + 1);
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*print)(void);
    } outputs[] = {
        {"options-md", print_options_md}, {"options-scd", print_options_scd},
        {"verbs-scd", print_verbs_scd},   {"config-scd", print_config_scd},
        {"completion", print_completion},
    };
    for (size_t i = 0; argc == 2 && i < G_N_ELEMENTS(outputs); i++)
        if (strcmp(argv[1], outputs[i].name) == 0) {
            outputs[i].print();
            return 0;
        }
    fprintf(stderr, "usage: describe options-md|options-scd|verbs-scd|config-scd|completion\n");
    return 2;
}
