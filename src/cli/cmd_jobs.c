/* cmd_jobs.c - `vz jobs`: the migrations that are going on, out of this host and into it. */
#include "cli/cmd.h"

#include "cli/format.h"

#include <string.h>

static void print_job(vz_command *command, const vz_target *target, const vz_reading *reading)
{
    vz_progress progress = {0};
    vz_progress_view view = vz_progress_update(&progress, reading, false, vz_now_us());
    const char *direction = reading->operation == VZ_JOB_OPERATION_IN ? "in" : "out";
    if (command->printer.mode == VZ_PRINT_JSON) {
        json_t *job =
            json_pack("{ss ss ss ss si sI sI sI}", "event", "job", "domain", target->name,
                      "direction", direction, "phase", view.phase, "percent", (int)view.percent,
                      "bytes_per_second", (json_int_t)view.bytes_s, "left_ms",
                      (json_int_t)view.left_ms, "elapsed_ms", (json_int_t)view.elapsed_ms);
        vz_print_add_stream(job, reading);
        vz_print_json(&command->printer, job);
        return;
    }
    g_autofree char *bar = vz_print_bar(&view, NULL, G_MAXUINT);
    g_autofree char *elapsed = vz_format_duration(view.elapsed_ms);
    fprintf(command->printer.out, "%-20s %-3s  since %s  %s\n", target->name, direction, elapsed,
            bar);
}

/* Of jobs that do not run: in doubt, or over while the other host has not heard so. */
static void print_standing(vz_command *command, const char *name, const char *direction,
                           const char *phase, const char *peer)
{
    bool in_doubt = strcmp(phase, "in doubt") == 0;
    if (command->printer.mode == VZ_PRINT_JSON)
        vz_print_json(&command->printer,
                      json_pack("{ss ss ss ss ss}", "event", "job", "domain", name, "direction",
                                direction, "phase", phase, "peer", peer));
    else if (in_doubt)
        fprintf(command->printer.out,
                "%-20s %-3s  in doubt: %s does not say what became of it; `vz resolve %s` shows "
                "more\n",
                name, direction, peer, name);
    else
        fprintf(command->printer.out, "%-20s %-3s  %s (%s)\n", name, direction, phase, peer);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "?";
}

/* false: it stopped, or left, since it was listed. */
static bool read_running(vz_session *session, const json_t *job, vz_target *ret_target,
                         vz_reading *ret_reading)
{
    g_autoptr(GError) gone = NULL;
    return vz_session_find(session, text_of(job, "uuid"), ret_target, &gone) &&
           vz_session_job(session, ret_target, false, ret_reading, &gone) &&
           ret_reading->type != VZ_JOB_TYPE_NONE;
}

static bool jobs(vz_command *command, GError **err)
{
    g_auto(vz_session) session = {0};
    json_auto_t *all = NULL;
    size_t i;
    json_t *job;
    if (!vz_session_open(command->uri, &session, err) || !vz_session_jobs(&session, &all, err))
        return false;
    json_array_foreach(all, i, job)
    {
        g_auto(vz_target) target = {0};
        vz_reading reading = {0};
        const char *phase = text_of(job, "phase");
        if (json_is_true(json_object_get(job, "running")) && strcmp(phase, "in doubt") != 0) {
            if (read_running(&session, job, &target, &reading))
                print_job(command, &target, &reading);
            continue;
        }
        print_standing(command, text_of(job, "domain"), text_of(job, "direction"), phase,
                       text_of(job, "peer"));
    }
    if (json_array_size(all) == 0 && command->printer.mode != VZ_PRINT_JSON)
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
