/* driver.c - see driver.h: vz_driver over process.h, and QEMU's events as what they mean for the
 * domain.
 *
 * driver_data is a `guest`. One that lives but could not be adopted has no `qemu`; it is tried
 * again when it is to do something. */
#include "driver/qemu/driver.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/spawn.h"
#include "base/units.h"
#include "domain/def.h"
#include "domain/table.h"
#include "driver/life.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KILL_WAIT_US  (30 * VZ_USEC_PER_SEC)
#define STAT_FILE_MAX 4096

typedef struct {
    vz_domain *domain;            /* referenced */
    vz_qemu *qemu;                /* NULL where it could not be reached */
    vz_paused_reason stop_reason; /* of the next STOP, as an earlier event said */
    pid_t pid;
    uint64_t start_time;
} guest;

static const vz_qemu_host *host;

void vz_driver_qemu_setup(const vz_qemu_host *the_host)
{
    host = the_host;
}

static guest *guest_new(vz_domain *domain)
{
    guest *g = g_new0(guest, 1);
    g->domain = vz_domain_ref(domain);
    return g;
}

static void guest_free(guest *g)
{
    vz_domain_unref(g->domain);
    g_free(g);
}

vz_qemu *vz_driver_qemu_of(vz_domain *domain)
{
    guest *g = vz_domain_driver_data(domain);
    return g ? g->qemu : NULL;
}

/* ---- events ---- */

/* QEMU stands still at the guest's shutdown (-no-shutdown): what follows is for us to say. */
static bool start_again(guest *g)
{
    g_autoptr(GError) err = NULL;
    vz_life_expect_reboot(g->domain, false);
    if (vz_qemu_reset(g->qemu, &err) && vz_qemu_cont(g->qemu, &err))
        return true;
    vz_warn(vz_domain_name(g->domain), "cannot reboot: %s", err->message);
    return false;
}

/* A task of its own: a QEMU cannot be killed from inside its own event. */
static void end_after_shutdown(vz_domain *domain, void *data)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    g_autoptr(GError) err = NULL;
    if (s->state != VZ_STATE_SHUTDOWN || s->id != GPOINTER_TO_INT(data) || s->has_job)
        return;
    if (!vz_life_end(domain, VZ_SHUTOFF_SHUTDOWN, VZ_STOPPED_SHUTDOWN, &err))
        vz_error(vz_domain_name(domain), "%s", err->message);
}

static bool wants_restart(const vz_snapshot *s)
{
    return s->reboot || s->live->on_poweroff == VZ_LIFECYCLE_RESTART;
}

static void on_SHUTDOWN(guest *g, const json_t *data)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(g->domain);
    const json_t *by_guest = json_object_get(data, "guest");
    if (wants_restart(s) && json_is_true(by_guest)) {
        start_again(g);
        return;
    }
    int detail = VZ_SHUTDOWN_FINISHED;
    if (by_guest)
        detail = json_is_true(by_guest) ? VZ_SHUTDOWN_GUEST : VZ_SHUTDOWN_HOST;
    vz_life_guest_shutdown(g->domain, detail);
    if (s->live->on_poweroff != VZ_LIFECYCLE_PRESERVE)
        vz_domain_post(g->domain, VZ_TASK_NORMAL, end_after_shutdown, GINT_TO_POINTER(s->id), NULL);
}

/* STOP and RESUME also come late, for what a command of ours did before: only what QEMU is now
 * counts. */
static void on_stop_or_resume(guest *g, bool resumed)
{
    vz_qemu_status status;
    g_autoptr(GError) err = NULL;
    vz_paused_reason reason = g->stop_reason;
    if (!vz_qemu_query_status(g->qemu, &status, &err) || status.running != resumed)
        return;
    g->stop_reason = VZ_PAUSED_UNKNOWN;
    if (resumed)
        vz_life_guest_resumed(g->domain);
    else if (reason == VZ_PAUSED_IOERROR)
        vz_life_guest_stopped(g->domain, reason, VZ_SUSPENDED_IOERROR);
    else if (reason == VZ_PAUSED_WATCHDOG)
        vz_life_guest_stopped(g->domain, reason, VZ_SUSPENDED_WATCHDOG);
    else if (strcmp(status.status, "shutdown") != 0)
        vz_life_guest_stopped(g->domain, reason, VZ_SUSPENDED_PAUSED);
}

static void on_STOP(guest *g, const json_t *data)
{
    (void)data;
    on_stop_or_resume(g, false);
}

static void on_RESUME(guest *g, const json_t *data)
{
    (void)data;
    on_stop_or_resume(g, true);
}

static void on_RESET(guest *g, const json_t *data)
{
    (void)data;
    vz_table_emit_reboot(g->domain);
}

static bool action_is(const json_t *data, const char *action)
{
    const char *said = json_string_value(json_object_get(data, "action"));
    return said && strcmp(said, action) == 0;
}

static void on_BLOCK_IO_ERROR(guest *g, const json_t *data)
{
    const char *device = json_string_value(json_object_get(data, "node-name"));
    const char *why = json_string_value(json_object_get(data, "reason"));
    vz_warn(vz_domain_name(g->domain), "I/O error on '%s': %s", device ? device : "?",
            why ? why : "no reason given");
    if (action_is(data, "stop"))
        g->stop_reason = VZ_PAUSED_IOERROR;
}

static void on_WATCHDOG(guest *g, const json_t *data)
{
    if (action_is(data, "pause"))
        g->stop_reason = VZ_PAUSED_WATCHDOG;
}

static void on_SUSPEND(guest *g, const json_t *data)
{
    (void)data;
    vz_life_changed(g->domain, VZ_STATE_PMSUSPENDED, 0, VZ_EVENT_PMSUSPENDED,
                    VZ_PMSUSPENDED_MEMORY);
}

static void on_WAKEUP(guest *g, const json_t *data)
{
    (void)data;
    vz_life_changed(g->domain, VZ_STATE_RUNNING, VZ_RUNNING_WAKEUP, VZ_EVENT_STARTED,
                    VZ_STARTED_WAKEUP);
}

static const struct {
    const char *name;
    void (*handle)(guest *g, const json_t *data);
} handlers[] = {
    {"STOP", on_STOP},
    {"RESUME", on_RESUME},
    {"SHUTDOWN", on_SHUTDOWN},
    {"RESET", on_RESET},
    {"BLOCK_IO_ERROR", on_BLOCK_IO_ERROR},
    {"WATCHDOG", on_WATCHDOG},
    {"SUSPEND", on_SUSPEND},
    {"WAKEUP", on_WAKEUP},
};

static void on_event(vz_qemu *qemu, const vz_qmp_event *event, void *user)
{
    (void)qemu;
    guest *g = user;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(g->domain);
    if (!g->qemu || !s->live)
        return;
    if (s->has_job && s->job.ops && s->job.ops->event &&
        s->job.ops->event(g->domain, s->job.data, event->name, event->data, event->arrived_us))
        return;
    for (size_t i = 0; i < G_N_ELEMENTS(handlers); i++)
        if (strcmp(event->name, handlers[i].name) == 0)
            handlers[i].handle(g, event->data);
}

static void on_exit_(vz_qemu *qemu, void *user)
{
    (void)qemu;
    guest *g = user;
    vz_life_guest_ended(g->domain);
}

static vz_qemu_hooks hooks_of(guest *g)
{
    return (vz_qemu_hooks){.on_event = on_event, .on_exit = on_exit_, .user = g};
}

/* ---- start, adopt, end ---- */

static bool start(vz_domain *domain, const vz_driver_start *request, vz_def **ret_live,
                  GError **err)
{
    guest *g = guest_new(domain);
    const vz_qemu_start_request start_request = {.host = host,
                                                 .def = request->def,
                                                 .incoming = request->incoming,
                                                 .inbox = vz_domain_inbox(domain),
                                                 .hooks = hooks_of(g)};
    g->qemu = vz_qemu_start(&start_request, ret_live, err);
    if (!g->qemu) {
        guest_free(g);
        return false;
    }
    g->pid = vz_qemu_pid(g->qemu);
    g->start_time = vz_qemu_start_time(g->qemu);
    vz_domain_set_driver_data(domain, g);
    const char *note = vz_qemu_accel_note(g->qemu);
    vz_info(vz_domain_name(domain), "QEMU %d started: %s", (int)g->pid, note);
    if (request->def->type == VZ_DEF_TYPE_VZ && g_str_has_prefix(note, "runs on TCG"))
        vz_domain_add_message(domain, "%s", note);
    return true;
}

static vz_alive alive_of(const vz_qemu_status *status)
{
    static const struct {
        const char *status;
        vz_alive alive;
    } words[] = {
        {"inmigrate", VZ_ALIVE_INCOMING},     {"postmigrate", VZ_ALIVE_POSTMIGRATE},
        {"shutdown", VZ_ALIVE_SHUTDOWN},      {"finish-migrate", VZ_ALIVE_POSTMIGRATE},
        {"suspended", VZ_ALIVE_PMSUSPENDED},  {"guest-panicked", VZ_ALIVE_CRASHED},
        {"internal-error", VZ_ALIVE_CRASHED},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (strcmp(status->status, words[i].status) == 0)
            return words[i].alive;
    return status->running ? VZ_ALIVE_RUNNING : VZ_ALIVE_PAUSED;
}

/* Connects to a QEMU that runs already. */
static bool connect_again(guest *g, const vz_def *live, GError **err)
{
    const vz_qemu_adopt_request request = {.host = host,
                                           .live = live,
                                           .pid = g->pid,
                                           .start_time = g->start_time,
                                           .inbox = vz_domain_inbox(g->domain),
                                           .hooks = hooks_of(g)};
    g->qemu = vz_qemu_adopt(&request, NULL, err);
    return g->qemu != NULL;
}

static bool adopt(vz_domain *domain, const vz_driver_adopt *request, vz_alive *ret_alive,
                  GError **err)
{
    guest *g = guest_new(domain);
    g->pid = request->pid;
    g->start_time = request->start_time;
    bool connected = connect_again(g, request->live, err);
    if (!connected && g_error_matches(*err, VZ_ERROR, VZ_ERR_NO_DOMAIN)) {
        guest_free(g);
        return false;
    }
    vz_domain_set_driver_data(domain, g);
    vz_qemu_status status;
    if (!connected || !vz_qemu_query_status(g->qemu, &status, err))
        return false;
    vz_info(vz_domain_name(domain), "QEMU %d found again: %s", (int)g->pid, status.status);
    *ret_alive = alive_of(&status);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (*ret_alive == VZ_ALIVE_SHUTDOWN && wants_restart(s) && start_again(g))
        *ret_alive = VZ_ALIVE_RUNNING;
    return true;
}

/* The QEMU to command; NULL with an error. One that did not answer when virtvzd started may have
 * come to its senses. */
static vz_qemu *reachable(vz_domain *domain, GError **err)
{
    guest *g = vz_domain_driver_data(domain);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (g && g->qemu)
        return g->qemu;
    if (!g || !s->live) {
        vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain '%s' is not running",
                vz_domain_name(domain));
        return NULL;
    }
    if (!connect_again(g, s->live, err)) {
        g_prefix_error(err, "domain '%s' does not answer: ", vz_domain_name(domain));
        return NULL;
    }
    vz_info(vz_domain_name(domain), "QEMU %d answers again", (int)g->pid);
    return g->qemu;
}

/* Ends a process that is known by pid and start time only. */
static bool kill_by_pid(const guest *g, GError **err)
{
    vz_autofd pidfd = (int)syscall(SYS_pidfd_open, g->pid, 0);
    if (pidfd < 0 && errno == ESRCH)
        return true;
    if (pidfd < 0)
        return vz_fail_errno(err, errno, "cannot reach process %d", (int)g->pid);
    if (vz_process_start_time(g->pid) != g->start_time)
        return true;
    if (syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0) < 0 && errno != ESRCH)
        return vz_fail_errno(err, errno, "cannot kill process %d", (int)g->pid);
    return vz_poll_one(pidfd, POLLIN, vz_now_us() + KILL_WAIT_US) ||
           vz_fail(err, VZ_ERR_OPERATION_FAILED, "process %d does not die", (int)g->pid);
}

static bool kill_guest(vz_domain *domain, bool graceful, GError **err)
{
    guest *g = vz_domain_driver_data(domain);
    vz_qemu *qemu = g_steal_pointer(&g->qemu);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (qemu ? !vz_qemu_kill(qemu, graceful, err) : !kill_by_pid(g, err)) {
        g->qemu = qemu; /* it lives on, and can still be told to go */
        return false;
    }
    if (!qemu && snapshot->live)
        vz_qemu_tidy(host, snapshot->live);
    vz_domain_set_driver_data(domain, NULL);
    guest_free(g);
    return true;
}

static void release(vz_domain *domain)
{
    guest *g = vz_domain_driver_data(domain);
    if (!g)
        return;
    if (g->qemu)
        vz_qemu_release(g->qemu);
    vz_domain_set_driver_data(domain, NULL);
    guest_free(g);
}

void vz_driver_qemu_end_unborn(vz_store *store)
{
    g_autoptr(GDir) dir = g_dir_open(host->run_dir, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        uint8_t uuid[VZ_UUID_BYTES];
        g_autoptr(GError) err = NULL;
        if (!vz_uuid_parse(name, uuid) || vz_store_has_status(store, name, NULL))
            continue;
        if (!vz_qemu_end_unborn(host, name, &err))
            vz_error(
                name,
                "a QEMU of it runs of which there is no status; it is left alone, and must end "
                "before the domain is started: %s",
                err->message);
    }
}

/* ---- commands ---- */

static bool suspend(vz_domain *domain, GError **err)
{
    vz_qemu *qemu = reachable(domain, err);
    return qemu && vz_qemu_stop(qemu, err);
}

static bool resume(vz_domain *domain, GError **err)
{
    vz_qemu *qemu = reachable(domain, err);
    return qemu && vz_qemu_cont(qemu, err);
}

/* Presses the ACPI button, and remembers what shall follow the guest's shutdown. */
static bool press_button(vz_domain *domain, bool reboot, GError **err)
{
    vz_qemu *qemu = reachable(domain, err);
    if (!qemu)
        return false;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    vz_life_expect_reboot(domain, reboot && s->live->on_reboot != VZ_LIFECYCLE_DESTROY);
    return vz_qemu_powerdown(qemu, err);
}

static bool shut_down(vz_domain *domain, GError **err)
{
    return press_button(domain, false, err);
}

static bool reboot(vz_domain *domain, GError **err)
{
    return press_button(domain, true, err);
}

static bool reset(vz_domain *domain, GError **err)
{
    vz_qemu *qemu = reachable(domain, err);
    return qemu && vz_qemu_reset(qemu, err);
}

static pid_t pid(vz_domain *domain)
{
    const guest *g = vz_domain_driver_data(domain);
    return g ? g->pid : 0;
}

static char *last_words(vz_domain *domain)
{
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    return qemu ? vz_qemu_last_words(qemu) : NULL;
}

/* utime and stime, fields 14 and 15 of /proc/PID/stat, after the name, which may hold anything. */
static uint64_t cpu_time_ns(pid_t of_pid)
{
    char path[64];
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;
    unsigned long long user, system;
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)of_pid);
    if (!vz_file_read(path, STAT_FILE_MAX, &text, NULL, &err))
        return 0;
    const char *after_name = strrchr(text, ')');
    if (!after_name || sscanf(after_name, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu",
                              &user, &system) != 2)
        return 0;
    return (user + system) * (1000000000ull / (unsigned long long)sysconf(_SC_CLK_TCK));
}

const vz_driver vz_driver_qemu = {
    .name = "qemu",
    .start = start,
    .adopt = adopt,
    .kill = kill_guest,
    .release = release,
    .suspend = suspend,
    .resume = resume,
    .shutdown = shut_down,
    .reboot = reboot,
    .reset = reset,
    .cpu_time_ns = cpu_time_ns,
    .pid = pid,
    .last_words = last_words,
};
