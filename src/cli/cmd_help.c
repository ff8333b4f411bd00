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

static bool ask(const char *uri, uint64_t *ret_api, uint64_t *ret_hypervisor, char **ret_host,
                GError **err)
{
    g_auto(vz_session) session = {0};
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    vz_wire_uhyper_ret api = {0}, hypervisor = {0};
    vz_wire_string_ret host = {0};
    if (!vz_session_open(uri, &session, err))
        return false;
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    if (!vz_remote_connect_get_lib_version(session.client, &api, &wait, err) ||
        !vz_remote_connect_get_version(session.client, &hypervisor, &wait, err) ||
        !vz_remote_connect_get_hostname(session.client, &host, &wait, err))
        return false;
    *ret_api = api.value;
    *ret_hypervisor = hypervisor.value;
    *ret_host = g_strdup(host.value);
    return true;
}

/* vz's own version is known without a daemon, so that is no failure. */
int vz_cmd_version(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *host = NULL;
    uint64_t api = 0, hypervisor = 0;
    bool answered = ask(command->uri, &api, &hypervisor, &host, &err);
    if (command->printer.mode == VZ_PRINT_JSON) {
        json_t *object = json_pack("{ss ss}", "event", "version", "vz", VZ_VERSION);
        if (answered) {
            json_object_set_new(object, "host", json_string(host));
            json_object_set_new(object, "api", json_integer((json_int_t)api));
            json_object_set_new(object, "hypervisor", json_integer((json_int_t)hypervisor));
        }
        vz_print_json(&command->printer, object);
        return VZ_OUTCOME_DONE;
    }
    fprintf(command->printer.out, "vz %s\n", VZ_VERSION);
    if (answered)
        fprintf(command->printer.out, "%s: libvirt API %u.%u.%u, QEMU %u.%u.%u\n", host, MAJOR(api),
                MINOR(api), MICRO(api), MAJOR(hypervisor), MINOR(hypervisor), MICRO(hypervisor));
    else {
        fflush(command->printer.out);
        fprintf(command->printer.errors, "vz: no daemon answers at %s: %s\n", command->uri,
                err->message);
    }
    return VZ_OUTCOME_DONE;
}
