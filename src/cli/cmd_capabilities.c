/* cmd_capabilities.c - `vz capabilities`: libvirt's document; with --migration what becomes of each
 * option of a migration, here and, with --with, towards another host, as text, JSON or XML. */
#include "cli/cmd.h"

#include "base/json.h"

#include <string.h>

/* --- text --- */

static void print_verdict(FILE *out, const char *label, const json_t *verdict)
{
    const char *reason = vz_json_text(verdict, "reason");
    fprintf(out, "      %s%s%s%s\n", label, vz_json_text(verdict, "status"), reason ? ": " : "",
            reason ? reason : "");
}

static void print_text(FILE *out, const json_t *report)
{
    size_t i;
    json_t *option;
    const json_t *with = json_object_get(report, "with");
    const char *qemu = vz_json_text(report, "qemu");
    fprintf(out, "%s: virtvz %s, QEMU %s\n", vz_json_text(report, "host"),
            vz_json_text(report, "version"), qemu ? qemu : "unknown");
    if (with)
        fprintf(out, "%s: virtvz %s, QEMU %s\n", vz_json_text(with, "host"),
                vz_json_text(with, "version") ? vz_json_text(with, "version") : "unknown",
                vz_json_text(with, "qemu") ? vz_json_text(with, "qemu") : "unknown");
    json_array_foreach(json_object_get(report, "options"), i, option)
    {
        const char *word = vz_json_text(option, "word");
        fprintf(out, "%s%s%s  %s\n", vz_json_text(option, "name"), word ? "  --" : "",
                word ? word : "", vz_json_text(option, "help"));
        print_verdict(out, with ? "here: " : "", option);
        if (with) {
            print_verdict(out, "there: ", json_object_get(option, "there"));
            print_verdict(out, "both: ", json_object_get(option, "pair"));
        }
    }
}

/* --- XML --- */

static void attribute(FILE *out, const char *name, const char *value)
{
    g_autofree char *escaped = value ? g_markup_escape_text(value, -1) : NULL;
    if (escaped)
        fprintf(out, " %s=\"%s\"", name, escaped);
}

static void print_xml_host(FILE *out, const char *element, const json_t *host)
{
    fprintf(out, "  <%s", element);
    attribute(out, "host", vz_json_text(host, "host"));
    attribute(out, "version", vz_json_text(host, "version"));
    attribute(out, "qemu", vz_json_text(host, "qemu"));
    fputs("/>\n", out);
}

static void print_xml_verdict(FILE *out, const char *element, const json_t *verdict)
{
    if (!verdict)
        return;
    fprintf(out, "    <%s", element);
    attribute(out, "status", vz_json_text(verdict, "status"));
    attribute(out, "reason", vz_json_text(verdict, "reason"));
    fputs("/>\n", out);
}

static void print_xml(FILE *out, const json_t *report)
{
    size_t i;
    json_t *option;
    const json_t *with = json_object_get(report, "with");
    fputs("<migrationCapabilities>\n", out);
    print_xml_host(out, "here", report);
    if (with)
        print_xml_host(out, "there", with);
    json_array_foreach(json_object_get(report, "options"), i, option)
    {
        fputs("  <option", out);
        attribute(out, "kind", vz_json_text(option, "kind"));
        attribute(out, "name", vz_json_text(option, "name"));
        attribute(out, "word", vz_json_text(option, "word"));
        fputs(">\n", out);
        print_xml_verdict(out, "here", option);
        print_xml_verdict(out, "there", json_object_get(option, "there"));
        print_xml_verdict(out, "pair", json_object_get(option, "pair"));
        fputs("  </option>\n", out);
    }
    fputs("</migrationCapabilities>\n", out);
}

static bool migration_capabilities(vz_command *command, GError **err)
{
    const vz_args *args = command->args;
    g_auto(vz_session) session = {0};
    g_autofree char *uri = NULL;
    json_auto_t *report = NULL;
    const char *transport = args->given[VZ_CLI_TRANSPORT] ? args->values[VZ_CLI_TRANSPORT]
                                                          : command->settings.transport;
    if (args->given[VZ_CLI_WITH] &&
        !(uri = vz_settings_destination(args->values[VZ_CLI_WITH], transport, err)))
        return false;
    if (!vz_session_open(command->uri, &session, err) ||
        !vz_session_migration_capabilities(&session, uri, &report, err))
        return false;
    if (command->printer.mode == VZ_PRINT_JSON) {
        json_object_set_new(report, "event", json_string("migration-capabilities"));
        vz_print_json(&command->printer, json_incref(report));
    } else if (args->given[VZ_CLI_XML]) {
        print_xml(command->printer.out, report);
    } else {
        print_text(command->printer.out, report);
    }
    return true;
}

static bool host_capabilities(vz_command *command, GError **err)
{
    g_auto(vz_session) session = {0};
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    vz_wire_string_ret ret = {0};
    if (!vz_session_open(command->uri, &session, err))
        return false;
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    if (!vz_remote_connect_get_capabilities(session.client, &ret, &wait, err))
        return false;
    fputs(ret.value, command->printer.out);
    return true;
}

int vz_cmd_capabilities(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    const vz_args *args = command->args;
    bool migration = args->given[VZ_CLI_MIGRATION];
    if (!migration && (args->given[VZ_CLI_WITH] || args->given[VZ_CLI_JSON])) {
        vz_fail(&err, VZ_ERR_INVALID_ARG, "--with and --json go with --migration");
        vz_print_failed(&command->printer, VZ_OUTCOME_USAGE, err, NULL);
        return VZ_OUTCOME_USAGE;
    }
    if (migration ? migration_capabilities(command, &err) : host_capabilities(command, &err))
        return VZ_OUTCOME_DONE;
    vz_print_failed(&command->printer, VZ_OUTCOME_FAILED, err, NULL);
    return VZ_OUTCOME_FAILED;
}
