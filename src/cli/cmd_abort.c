/* cmd_abort.c - `vz abort`: stop a migration and wait until the guest is itself again. */
#include "cli/cmd.h"

#define WAIT_US  ((int64_t)60 * 1000000)
#define EVERY_US ((int64_t)100000)

/* Until no job holds the domain. *ret_gone: the domain has left, so the abort came too late. */
static bool wait_for_end(vz_session *session, const vz_target *target, bool *ret_gone, GError **err)
{
    int64_t deadline_us = vz_now_us() + WAIT_US;
    while (vz_now_us() < deadline_us) {
        g_autoptr(GError) why = NULL;
        vz_reading reading = {0};
        bool known = vz_session_job(session, target, false, &reading, &why);
        *ret_gone = !known && (vz_error_number(why) == VZ_ERR_NO_DOMAIN ||
                               vz_error_number(why) == VZ_ERR_OPERATION_INVALID);
        if (*ret_gone || (known && reading.type == VZ_JOB_TYPE_NONE))
            return true;
        if (!known) {
            g_propagate_error(err, g_steal_pointer(&why));
            return false;
        }
        vz_wait(session->inbox, NULL, NULL, vz_now_us() + EVERY_US);
    }
    return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the migration of '%s' has not ended yet",
                   target->name);
}

static void say(vz_command *command, const vz_target *target, const char *guest)
{
    if (command->printer.mode == VZ_PRINT_JSON)
        vz_print_json(&command->printer,
                      json_pack("{ss ss si ss ss}", "event", "result", "status", "aborted", "exit",
                                VZ_OUTCOME_DONE, "domain", target->name, "guest", guest));
    else
        fprintf(command->printer.out, "%s is not migrating any more; it is %s here\n", target->name,
                guest);
}

static int abort_job(vz_command *command, GError **err)
{
    g_auto(vz_session) session = {0};
    g_auto(vz_target) target = {0};
    bool gone = false;
    int state = 0, reason = 0;
    if (!vz_session_open(command->uri, &session, err) ||
        !vz_session_find(&session, vz_cmd_argument(command, 0), &target, err) ||
        !vz_session_abort(&session, &target, err))
        return VZ_OUTCOME_FAILED;
    if (!wait_for_end(&session, &target, &gone, err))
        return VZ_OUTCOME_IN_DOUBT;
    if (gone) {
        vz_fail(err, VZ_ERR_OPERATION_FAILED,
                "'%s' is not on this host any more: it had moved before "
                "the abort came",
                target.name);
        return VZ_OUTCOME_FAILED;
    }
    if (!vz_session_state(&session, &target, &state, &reason, err))
        return VZ_OUTCOME_IN_DOUBT;
    say(command, &target, vz_session_state_name(state));
    return VZ_OUTCOME_DONE;
}

int vz_cmd_abort(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    int outcome = abort_job(command, &err);
    if (outcome != VZ_OUTCOME_DONE)
        vz_print_failed(&command->printer, (vz_outcome)outcome, err, NULL);
    return outcome;
}
