/* cmd_jobs.c - `vz jobs`: the migrations that are going on, out of this host and into it. */
#include "cli/cmd.h"

#include "cli/format.h"

#define ACTIVE 1u

static void print_job(vz_command *command, const vz_target *target, const vz_reading *reading)
{
    vz_progress progress = {0};
    vz_progress_view view = vz_progress_update(&progress, reading, false, vz_now_us());
    const char *direction = reading->operation == VZ_JOB_OPERATION_IN ? "in" : "out";
    if (command->printer.mode == VZ_PRINT_JSON) {
        vz_print_json(&command->printer,
                      json_pack("{ss ss ss ss si sI sI sI}", "event", "job", "domain", target->name,
                                "direction", direction, "phase", view.phase, "percent",
                                (int)view.percent, "bytes_per_second", (json_int_t)view.bytes_s,
                                "left_ms", (json_int_t)view.left_ms, "elapsed_ms",
                                (json_int_t)view.elapsed_ms));
        return;
    }
    g_autofree char *bar = vz_print_bar(&view, NULL, G_MAXUINT);
    g_autofree char *elapsed = vz_format_duration(view.elapsed_ms);
    fprintf(command->printer.out, "%-20s %-3s  since %s  %s\n", target->name, direction, elapsed,
            bar);
}

static bool jobs(vz_command *command, GError **err)
{
    g_auto(vz_session) session = {0};
    g_autoptr(GPtrArray) targets = NULL;
    guint found = 0;
    if (!vz_session_open(command->uri, &session, err) ||
        !vz_session_list(&session, ACTIVE, &targets, err))
        return false;
    for (guint i = 0; i < targets->len; i++) {
        const vz_target *target = g_ptr_array_index(targets, i);
        g_autoptr(GError) why = NULL;
        vz_reading reading;
        if (!vz_session_job(&session, target, false, &reading, &why)) {
            /* It stopped, or left, since it was listed. */
            if (vz_error_number(why) == VZ_ERR_NO_DOMAIN ||
                vz_error_number(why) == VZ_ERR_OPERATION_INVALID)
                continue;
            g_propagate_error(err, g_steal_pointer(&why));
            return false;
        }
        if (reading.type == VZ_JOB_TYPE_NONE)
            continue;
        print_job(command, target, &reading);
        found++;
    }
    if (found == 0 && command->printer.mode != VZ_PRINT_JSON)
        fputs("no migration is going on\n", command->printer.out);
    return true;
}

int vz_cmd_jobs(vz_command *command)
{
    g_autoptr(GError) err = NULL;
    if (jobs(command, &err))
        return VZ_OUTCOME_DONE;
    vz_print_failed(&command->printer, VZ_OUTCOME_FAILED, err, NULL);
    return VZ_OUTCOME_FAILED;
}
