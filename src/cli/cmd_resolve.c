/* cmd_resolve.c - `vz resolve`: what is known of a guest in doubt, on this host and on the other;
 * and, with --here or --there, the operator's decision, after a yes. */
#include "cli/cmd.h"

#include "base/json.h"

#include <ctype.h>
#include <string.h>

/* virtvzd's numbers (src/migrate/resolve.h). */
enum { LOOK = 0, HERE = 1, THERE = 2 };

/* "guest there, defined; record: committed", or its silence. Caller frees. */
static char *describe_other(const json_t *there)
{
    const char *silence = vz_json_text(there, "silence");
    if (silence)
        return g_strdup_printf("no answer: %s", silence);
    g_autoptr(GString) text = g_string_new(NULL);
    const char *const keys[] = {"verdict", "record", "where", "detail"};
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++) {
        const char *value = vz_json_text(there, keys[i]);
        if (value)
            g_string_append_printf(text, "%s%s: %s", text->len ? "; " : "", keys[i], value);
    }
    if (json_object_get(there, "guest"))
        g_string_append_printf(text, "; %s; %s",
                               json_is_true(json_object_get(there, "guest")) ? "a guest of it there"
                                                                             : "no guest there",
                               json_is_true(json_object_get(there, "defined"))
                                   ? "defined there"
                                   : "not defined there");
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void show_choice(FILE *out, const char *word, const json_t *choice)
{
    const char *why_not = json_string_value(choice);
    fprintf(out, "  --%-6s %s%s\n", word, why_not ? "not possible: " : "possible",
            why_not ? why_not : "");
}

static void show(FILE *out, const json_t *e)
{
    const json_t *here = json_object_get(e, "here");
    const json_t *there = json_object_get(e, "there");
    const json_t *choices = json_object_get(e, "choices");
    const char *peer = vz_json_text(e, "peer");
    const char *mark;
    json_t *answer;
    fprintf(out, "%s is %s\n", vz_json_text(e, "domain"), vz_json_text(e, "state"));
    if (peer)
        fprintf(out, "  job       %s, %s %s; record here: %s\n", vz_json_text(e, "job"),
                g_strcmp0(vz_json_text(e, "direction"), "out") == 0 ? "out to" : "in from", peer,
                vz_json_text(e, "record"));
    fprintf(out, "  %-9s %s%s\n", vz_json_text(e, "host"), vz_json_text(here, "state"),
            json_is_true(json_object_get(here, "defined")) ? ", defined" : "");
    if (peer) {
        g_autofree char *other = describe_other(there);
        fprintf(out, "  %-9s %s\n", peer, other);
    } else {
        json_object_foreach((json_t *)(uintptr_t)there, mark, answer)
        {
            g_autofree char *other = describe_other(answer);
            fprintf(out, "  %-9s (mark %s) %s\n", vz_json_text(answer, "host"), mark, other);
        }
    }
    show_choice(out, "here", json_object_get(choices, "here"));
    show_choice(out, "there", json_object_get(choices, "there"));
}

static const char risk[] =
    "If this is wrong, two copies of the guest run, or none, and its disks are damaged.";

/* What the operator asserts. */
static char *assertion(const json_t *e, int decision)
{
    const char *peer = vz_json_text(e, "peer");
    const char *domain = vz_json_text(e, "domain");
    if (!peer)
        return g_strdup_printf("no other host runs '%s', or will", domain);
    return decision == HERE ? g_strdup_printf("the copy of '%s' on %s is dead", domain, peer)
                            : g_strdup_printf("'%s' runs on %s, or is to", domain, peer);
}

static bool agrees(vz_command *command, const json_t *e, int decision, GError **err)
{
    char line[16] = "";
    if (command->args->given[VZ_CLI_YES])
        return true;
    if (command->printer.mode != VZ_PRINT_TERMINAL)
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "nobody can be asked here: --yes says that it is "
                       "meant");
    g_autofree char *claim = assertion(e, decision);
    fprintf(command->printer.out, "You say that %s.\n%s\nType yes: ", claim, risk);
    fflush(command->printer.out);
    if (fgets(line, sizeof(line), stdin) && strcmp(g_strchomp(line), "yes") == 0)
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "nothing was decided");
}

static int decision_of(const vz_args *args)
{
    return args->given[VZ_CLI_HERE] ? HERE : args->given[VZ_CLI_THERE] ? THERE : LOOK;
}

static bool resolve(vz_command *command, GError **err)
{
    g_auto(vz_session) session = {0};
    g_auto(vz_target) target = {0};
    json_auto_t *evidence = NULL;
    g_autofree char *done = NULL;
    int decision = decision_of(command->args);
    bool json = command->printer.mode == VZ_PRINT_JSON;
    if (!vz_session_open(command->uri, &session, err) ||
        !vz_session_find(&session, vz_cmd_argument(command, 0), &target, err) ||
        !vz_session_evidence(&session, &target, &evidence, err))
        return false;
    if (json) {
        json_object_set_new(evidence, "event", json_string("evidence"));
        vz_print_json(&command->printer, json_incref(evidence));
    } else {
        show(command->printer.out, evidence);
    }
    if (decision == LOOK)
        return true;
    if (!agrees(command, evidence, decision, err) ||
        !vz_session_resolve(&session, &target, decision, &done, err))
        return false;
    if (json)
        vz_print_json(&command->printer,
                      json_pack("{ss ss si ss}", "event", "result", "status", "resolved", "exit",
                                VZ_OUTCOME_DONE, "text", done));
    else
        fprintf(command->printer.out, "%s\n", done);
    return true;
}

int vz_cmd_resolve(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    const vz_args *args = command->args;
    if (args->given[VZ_CLI_HERE] && args->given[VZ_CLI_THERE]) {
        vz_fail(&err, VZ_ERR_INVALID_ARG, "--here and --there exclude each other");
        vz_print_failed(&command->printer, VZ_OUTCOME_USAGE, err, NULL);
        return VZ_OUTCOME_USAGE;
    }
    if (resolve(command, &err))
        return VZ_OUTCOME_DONE;
    vz_print_failed(&command->printer, VZ_OUTCOME_FAILED, err, NULL);
    return VZ_OUTCOME_FAILED;
}
