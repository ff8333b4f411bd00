/* cmd_list.c - `vz list`: the domains of a host. */
#include "cli/cmd.h"

#include "base/text.h"

#include <string.h>

#define ACTIVE   1u /* VIR_CONNECT_LIST_DOMAINS_ACTIVE */
#define INACTIVE 2u

static unsigned flags_of(const vz_args *args)
{
    if (args->given[VZ_CLI_ALL])
        return ACTIVE | INACTIVE;
    return args->given[VZ_CLI_INACTIVE] ? INACTIVE : ACTIVE;
}

/* "in doubt", "moving to hostb"; NULL: no job holds it. Caller frees. */
static char *describe_job(const vz_target *target, const json_t *jobs)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    size_t i;
    json_t *job;
    vz_uuid_format(target->wire.uuid, uuid);
    json_array_foreach((json_t *)(uintptr_t)jobs, i, job)
    {
        const char *of = "", *phase = "", *peer = "", *direction = "";
        int running = 0;
        if (json_unpack(job, "{ss ss ss ss sb}", "uuid", &of, "phase", &phase, "peer", &peer,
                        "direction", &direction, "running", &running) < 0 ||
            !running || strcmp(of, uuid) != 0)
            continue;
        if (strcmp(phase, "in doubt") == 0)
            return g_strdup("in doubt");
        return g_strdup_printf("moving %s %s", strcmp(direction, "out") == 0 ? "to" : "from", peer);
    }
    return NULL;
}

static void print_domain(vz_command *command, const vz_target *target, const char *state,
                         const char *job)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    g_autofree char *id = g_strdup_printf("%d", target->wire.id);
    vz_uuid_format(target->wire.uuid, uuid);
    if (command->printer.mode != VZ_PRINT_JSON) {
        fprintf(command->printer.out, " %-5s %-30s %s%s%s\n", target->wire.id < 0 ? "-" : id,
                target->name, state, job ? ", " : "", job ? job : "");
        return;
    }
    json_t *object = json_pack("{ss ss ss ss ss*}", "event", "domain", "name", target->name, "uuid",
                               uuid, "state", state, "job", job);
    if (target->wire.id >= 0)
        json_object_set_new(object, "id", json_integer(target->wire.id));
    vz_print_json(&command->printer, object);
}

static bool list(vz_command *command, GError **err)
{
    g_auto(vz_session) session = {0};
    g_autoptr(GPtrArray) targets = NULL;
    json_auto_t *jobs = NULL;
    if (!vz_session_open(command->uri, &session, err) ||
        !vz_session_list(&session, flags_of(command->args), &targets, err) ||
        !vz_session_jobs(&session, &jobs, err))
        return false;
    if (command->printer.mode != VZ_PRINT_JSON)
        fprintf(command->printer.out, " %-5s %-30s %s\n", "Id", "Name", "State");
    for (guint i = 0; i < targets->len; i++) {
        const vz_target *target = g_ptr_array_index(targets, i);
        g_autoptr(GError) gone = NULL;
        g_autofree char *job = describe_job(target, jobs);
        int state = 0, reason = 0;
        if (vz_session_state(&session, target, &state, &reason, &gone)) {
            print_domain(command, target, vz_session_state_name(state), job);
        } else if (vz_error_number(gone) != VZ_ERR_NO_DOMAIN) {
            g_propagate_error(err, g_steal_pointer(&gone));
            return false;
        }
    }
    return true;
}

int vz_cmd_list(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    if (list(command, &err))
        return VZ_OUTCOME_DONE;
    vz_print_failed(&command->printer, VZ_OUTCOME_FAILED, err, NULL);
    return VZ_OUTCOME_FAILED;
}
