/* cmd_migrate.c - `vz migrate`: one call to the source's daemon, which drives the migration, and at
 * the end a clear word about where the guest is.
 *
 *     prepare  connect, find the domain, note how it is
 *     run      watch.c
 *     judge    moved, or what the source's domain looks like now: as before, or in doubt */
#include "cli/migration.h"

#include "base/text.h"
#include "cli/watch.h"

#define REOPEN_US ((int64_t)10 * 1000000) /* a restarted daemon is back in a few seconds */

#define STATE_RUNNING    1
#define STATE_BLOCKED    2
#define STATE_PAUSED     3
#define STATE_SHUTOFF    5
#define PAUSED_MIGRATION 2
#define PAUSED_POSTCOPY  12 /* and above: post-copy, API errors; never a state to go back to */
#define SHUTOFF_MIGRATED 4

#define MS_MAX_DOWNTIME 86400000

#define JOB_TYPE_COMPLETED 3

typedef vz_cmd_migration migration;

void vz_cmd_migration_clear(migration *m)
{
    vz_session_clear(&m->session);
    vz_target_clear(&m->target);
    g_clear_pointer(&m->options, vz_options_free);
    g_clear_pointer(&m->destination, g_free);
    g_clear_pointer(&m->host, g_free);
}

bool vz_cmd_migration_read(migration *m, GError **err)
{
    const vz_args *args = m->command->args;
    const char *transport = args->given[VZ_CLI_TRANSPORT] ? args->values[VZ_CLI_TRANSPORT]
                                                          : m->command->settings.transport;
    m->options = vz_options_copy(args->options);
    if (args->given[VZ_CLI_MAX_DOWNTIME] &&
        !vz_parse_u64(args->values[VZ_CLI_MAX_DOWNTIME], "--max-downtime", 1, MS_MAX_DOWNTIME,
                      &m->max_downtime_ms, err))
        return false;
    m->destination = vz_settings_destination(vz_cmd_argument(m->command, 1), transport, err);
    if (!m->destination)
        return false;
    m->host = vz_settings_host_of(m->destination);
    return true;
}

static bool is_persistent(migration *m, GError **err)
{
    g_autoptr(vz_arena) arena = vz_arena_new(VZ_SESSION_REPLY_BYTES);
    const vz_client_wait wait = VZ_SESSION_WAIT(arena);
    const vz_wire_domain_args args = {.dom = m->target.wire};
    vz_wire_int_ret ret = {0};
    if (!vz_remote_domain_is_persistent(m->session.client, &args, &ret, &wait, err))
        return false;
    m->persistent = ret.value != 0;
    return true;
}

static bool set_max_downtime(migration *m, GError **err)
{
    const vz_client_wait wait = VZ_SESSION_WAIT(NULL);
    const vz_wire_domain_migrate_set_max_downtime_args args = {.dom = m->target.wire,
                                                               .downtime = m->max_downtime_ms};
    return m->max_downtime_ms == 0 ||
           vz_remote_domain_migrate_set_max_downtime(m->session.client, &args, &wait, err);
}

/* A stopped domain is moved offline, and another is not, whatever the caller's words say. */
static bool choose_offline(migration *m, GError **err)
{
    bool off = m->state == STATE_SHUTOFF;
    bool asked = vz_options_has(m->options, VZ_OPTION_OFFLINE);
    if (!off && asked)
        vz_print_note(&m->command->printer, "'%s' is running, so --offline is ignored",
                      m->target.name);
    vz_options_set_flag(m->options, VZ_OPTION_OFFLINE, off);
    if (!off)
        return true;
    if (m->command->args->explicit & VZ_OPTION_BIT(VZ_OPTION_LIVE) &&
        vz_options_has(m->options, VZ_OPTION_LIVE))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "'%s' is shut off, so it cannot be moved live; leave --live out to move its "
                       "definition",
                       m->target.name);
    vz_options_set_flag(m->options, VZ_OPTION_LIVE, false);
    if (m->max_downtime_ms > 0)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "'%s' is shut off, so there is no downtime to limit; leave --max-downtime "
                       "out",
                       m->target.name);
    if (!asked)
        vz_print_note(&m->command->printer, "'%s' is shut off: it is moved offline",
                      m->target.name);
    return true;
}

bool vz_cmd_migration_find(migration *m, GError **err)
{
    int reason = 0;
    if (!vz_session_open(m->command->uri, &m->session, err) ||
        !vz_session_find(&m->session, vz_cmd_argument(m->command, 0), &m->target, err) ||
        !vz_session_state(&m->session, &m->target, &m->state, &reason, err) ||
        !is_persistent(m, err))
        return false;
    m->command->printer.domain = m->target.name;
    return choose_offline(m, err);
}

/* --- the end --- */

/* The best that is known about the job that ended well. */
static vz_reading final_reading(migration *m, const vz_watch *watch)
{
    g_autoptr(GError) ignored = NULL;
    vz_reading reading = {0};
    if (watch->final.type != VZ_JOB_TYPE_NONE)
        return watch->final;
    if (m->session.client && vz_session_job(&m->session, &m->target, true, &reading, &ignored) &&
        reading.type == JOB_TYPE_COMPLETED)
        return reading;
    reading = watch->last;
    reading.has_downtime = false; /* while it runs, this is only what is expected */
    return reading;
}

static int say_moved(migration *m, const vz_watch *watch)
{
    uint64_t wall_ms = (uint64_t)(vz_now_us() - m->start_us) / 1000;
    vz_reading reading = final_reading(m, watch);
    const vz_result result = {
        .domain = m->target.name,
        .destination = m->host,
        .total_ms = wall_ms,
        .downtime_ms = reading.downtime_ms,
        .has_downtime = reading.has_downtime,
        .bytes = reading.processed_bytes,
        .rounds = reading.iteration,
        .reading = &reading,
        .paused_there = vz_options_has(m->options, VZ_OPTION_PAUSED) || m->state == STATE_PAUSED,
        .defined_there = vz_options_has(m->options, VZ_OPTION_PERSIST_DEST),
        .off_there = vz_options_has(m->options, VZ_OPTION_OFFLINE),
        .kept_here = m->persistent && !vz_options_has(m->options, VZ_OPTION_UNDEFINE_SOURCE),
    };
    vz_print_moved(&m->command->printer, &result);
    return VZ_OUTCOME_MOVED;
}

static bool as_before(const migration *m, int state, int reason)
{
    switch (state) {
    case STATE_RUNNING:
    case STATE_BLOCKED:
        return true;
    case STATE_PAUSED:
        return m->state == STATE_PAUSED && reason != PAUSED_MIGRATION && reason < PAUSED_POSTCOPY;
    default:
        return state == m->state;
    }
}

static int say_in_doubt(migration *m, const GError *error, const char *why)
{
    g_autofree char *what = g_strdup_printf(
        "%s; look with `vz list --all` and `vz jobs` here, and on %s, before you start it anywhere",
        why, m->host);
    vz_print_failed(&m->command->printer, VZ_OUTCOME_IN_DOUBT, error, what);
    return VZ_OUTCOME_IN_DOUBT;
}

/* The call failed: what has become of the guest on this side? */
static int judge(migration *m, const vz_watch *watch, const GError *error)
{
    g_autoptr(GError) why = NULL;
    vz_reading job = {0};
    int state = 0, reason = 0;
    if (!vz_session_state(&m->session, &m->target, &state, &reason, &why))
        return say_in_doubt(m, error,
                            vz_error_number(why) == VZ_ERR_NO_DOMAIN
                                ? "the guest is not known here any more"
                                : "the daemon does not say how the guest is");
    if (state == STATE_SHUTOFF && reason == SHUTOFF_MIGRATED && m->state != STATE_SHUTOFF) {
        vz_print_note(&m->command->printer, "%s", error->message);
        return say_moved(m, watch);
    }
    if (vz_session_job(&m->session, &m->target, false, &job, &why) && job.type != VZ_JOB_TYPE_NONE)
        return say_in_doubt(m, error, "the migration is still going on");
    g_autofree char *text = g_strdup_printf("the guest is %s here", vz_session_state_name(state));
    if (!as_before(m, state, reason))
        return say_in_doubt(m, error, text);
    vz_outcome outcome = watch->signals > 0 || vz_error_number(error) == VZ_ERR_OPERATION_ABORTED
                             ? VZ_OUTCOME_ABORTED
                             : VZ_OUTCOME_FAILED;
    vz_print_failed(&m->command->printer, outcome, error, text);
    return (int)outcome;
}

static int run(migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(GError) lost = NULL;
    g_autoptr(GArray) params = NULL;
    g_auto(vz_watch) watch = {0};
    bool left = false;
    m->start_us = vz_now_us();
    if (!vz_watch_start(&watch, &m->session, &m->target, &m->command->printer, &err)) {
        vz_print_failed(&m->command->printer, VZ_OUTCOME_FAILED, err, NULL);
        return VZ_OUTCOME_FAILED;
    }
    watch.postcopy = vz_options_has(m->options, VZ_OPTION_POSTCOPY) &&
                     !vz_options_has(m->options, VZ_OPTION_POSTCOPY_RESUME);
    uint32_t flags = vz_options_to_wire(m->options, VZ_SIDE_SOURCE, &params);
    const vz_wire_migrate_perform3_params_args args = {
        .dom = m->target.wire,
        .dconnuri = m->destination,
        .params = {.items = (const vz_tparam *)(void *)params->data, .count = params->len},
        .flags = flags,
    };
    if (vz_watch_run(&watch, &args, &left, &err))
        return say_moved(m, &watch);
    if (left)
        return say_in_doubt(m, err, "the migration goes on without this command");
    if (!vz_client_alive(m->session.client, NULL) &&
        !vz_session_reopen(&m->session, vz_now_us() + REOPEN_US, &lost))
        return say_in_doubt(m, err, "the daemon cannot be reached");
    return judge(m, &watch, err);
}

int vz_cmd_migrate(vz_command *command)
{
    g_auto(vz_cmd_migration) m = {.command = command};
    g_autoptr(GError) err = NULL;
    if (!vz_cmd_migration_read(&m, &err)) {
        vz_print_failed(&command->printer, VZ_OUTCOME_USAGE, err, NULL);
        return VZ_OUTCOME_USAGE;
    }
    int outcome = VZ_OUTCOME_FAILED;
    if (vz_cmd_migration_find(&m, &err) && set_max_downtime(&m, &err))
        outcome = run(&m);
    else
        vz_print_failed(&command->printer, VZ_OUTCOME_FAILED, err, NULL);
    command->printer.domain = NULL;
    return outcome;
}
