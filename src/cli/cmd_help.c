/* cmd_help.c - `vz help`, `vz VERB --help`, `vz version`. */
#include "cli/cmd.h"

#include "config.h"

#include <string.h>

/* libvirt's numbers: 1000000 * major + 1000 * minor + release. */
#define MAJOR(version) ((unsigned)((version) / 1000000))
#define MINOR(version) ((unsigned)((version) / 1000 % 1000))
#define MICRO(version) ((unsigned)((version) % 1000))

int vz_cmd_help(vz_command *command)
{
    if (command->args->arguments->len == 0) {
        g_autofree char *text = vz_args_help();
        fputs(text, command->printer.out);
        return VZ_OUTCOME_DONE;
    }
    for (int i = 0; i < VZ_VERB_COUNT; i++)
        if (strcmp(vz_verbs[i].name, vz_cmd_argument(command, 0)) == 0) {
            g_autofree char *text = vz_args_verb_help((vz_verb_id)i);
            fputs(text, command->printer.out);
            return VZ_OUTCOME_DONE;
        }
    g_autoptr(GError) err = NULL;
    vz_fail(&err, VZ_ERR_INVALID_ARG, "there is no command '%s'", vz_cmd_argument(command, 0));
    vz_print_failed(&command->printer, VZ_OUTCOME_USAGE, err, NULL);
    return VZ_OUTCOME_USAGE;
}

/* What could be learnt; 0 and NULL for what could not. */
typedef struct {
    uint64_t api, hypervisor;
    char *host;
} versions;

static bool ask(const char *uri, versions *v, GError **err)
{
    g_auto(vz_session) session = {0};
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    vz_wire_uhyper_ret number = {0};
    vz_wire_string_ret host = {0};
    if (!vz_session_open(uri, &session, err))
        return false;
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    if (!vz_remote_connect_get_hostname(session.client, &host, &wait, err))
        return false;
    v->host = g_strdup(host.value);
    if (!vz_remote_connect_get_lib_version(session.client, &number, &wait, err))
        return false;
    v->api = number.value;
    if (!vz_remote_connect_get_version(session.client, &number, &wait, err))
        return false;
    v->hypervisor = number.value;
    return true;
}

static void print_versions_json(vz_command *command, const versions *v)
{
    json_t *object = json_pack("{ss ss}", "event", "version", "vz", VZ_VERSION);
    if (v->host)
        json_object_set_new(object, "host", json_string(v->host));
    if (v->api)
        json_object_set_new(object, "api", json_integer((json_int_t)v->api));
    if (v->hypervisor)
        json_object_set_new(object, "hypervisor", json_integer((json_int_t)v->hypervisor));
    vz_print_json(&command->printer, object);
}

static void print_versions(vz_command *command, const versions *v)
{
    FILE *out = command->printer.out;
    fprintf(out, "vz %s\n", VZ_VERSION);
    if (v->host)
        fprintf(out, "%s: libvirt API %u.%u.%u", v->host, MAJOR(v->api), MINOR(v->api),
                MICRO(v->api));
    if (v->hypervisor)
        fprintf(out, ", QEMU %u.%u.%u", MAJOR(v->hypervisor), MINOR(v->hypervisor),
                MICRO(v->hypervisor));
    fputs(v->host ? "\n" : "", out);
    fflush(out);
}

/* vz's own version is known without a daemon, so that is no failure. */
int vz_cmd_version(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    versions v = {0};
    bool all = ask(command->uri, &v, &err);
    if (command->printer.mode == VZ_PRINT_JSON) {
        print_versions_json(command, &v);
    } else {
        print_versions(command, &v);
        if (!all)
            fprintf(command->printer.errors, "vz: %s: %s\n", v.host ? v.host : command->uri,
                    err->message);
    }
    g_free(v.host);
    return VZ_OUTCOME_DONE;
}
