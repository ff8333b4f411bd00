/* process.c - see process.h. */
#include "driver/qemu/process_private.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "config.h"
#include "driver/qemu/handover.h"
#include "driver/qemu/image.h"
#include "net/link.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Long only for a process in uninterruptible sleep (a dead NFS server). */
#define KILL_TIMEOUT_US (10 * (int64_t)1000000)
/* Its monitor is closed a moment before it can be waited for. */
#define LAST_BREATH_US    ((int64_t)1000000)
#define UNBORN_TIMEOUT_US (2 * (int64_t)1000000)
#define UNBORN_POLL_US    ((gulong)10 * 1000)

const vz_qemu_host vz_qemu_host_default = {
    .run_dir = VZ_RUNDIR "/qemu",
    .log_dir = "/var/log/virtvz/qemu",
    .user = VZ_QEMU_USER,
    .vnc_address = "127.0.0.1",
    .image_timeout_us = VZ_IMAGE_TIMEOUT_US,
    .start_timeout_us = 60 * (int64_t)1000000,
    .term_timeout_us = 10 * (int64_t)1000000,
};

static char *rundir_of(const vz_qemu_host *host, const vz_def *def)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(def->uuid, uuid);
    return g_build_filename(host->run_dir, uuid, NULL);
}

static void remove_files(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        return;
    for (const struct dirent *e; (e = readdir(directory));)
        unlinkat(dirfd(directory), e->d_name, 0);
    closedir(directory);
    rmdir(path);
}

/* It holds sockets, copies of boot files, and the places of a migration's sockets. */
static void remove_rundir(const char *rundir)
{
    g_autofree char *migration = g_build_filename(rundir, VZ_QEMU_MIGRATION_DIRECTORY, NULL);
    g_autofree char *disks = g_build_filename(rundir, VZ_QEMU_DISKS_DIRECTORY, NULL);
    remove_files(migration);
    remove_files(disks);
    remove_files(rundir);
}

/* QEMU's user passes through, but lists and creates nothing. */
static bool make_rundir(const vz_qemu_host *host, const char *rundir, GError **err)
{
    if (g_mkdir_with_parents(host->run_dir, 0711) < 0)
        return vz_fail_errno(err, errno, "cannot make the directory '%s'", host->run_dir);
    remove_rundir(rundir);
    if ((mkdir(rundir, 0711) < 0 && errno != EEXIST) || chmod(rundir, 0711) < 0)
        return vz_fail_errno(err, errno, "cannot make the directory '%s'", rundir);
    return true;
}

static vz_qemu *new_qemu(const vz_qemu_host *host, vz_inbox *inbox, const vz_qemu_hooks *hooks)
{
    vz_qemu *qemu = g_new0(vz_qemu, 1);
    qemu->pidfd = -1;
    qemu->term_timeout_us = host->term_timeout_us;
    qemu->inbox = inbox;
    qemu->hooks = *hooks;
    return qemu;
}

void vz_qemu_release(vz_qemu *qemu)
{
    if (!qemu)
        return;
    if (qemu->pidfd >= 0)
        vz_inbox_unwatch(qemu->inbox, qemu->pidfd);
    vz_qmp_close(qemu->qmp);
    vz_qemu_log_free(qemu->log);
    vz_fd_clear(&qemu->pidfd);
    g_strfreev(qemu->taps);
    g_strfreev(qemu->images);
    g_free(qemu->rundir);
    g_free(qemu->accel_note);
    g_free(qemu);
}

/* Collects the exit status where it is the daemon's child; after a restart init does. */
static void reap(vz_qemu *qemu)
{
    siginfo_t info;
    while (waitid(P_PIDFD, (id_t)qemu->pidfd, &info, WEXITED | WNOHANG) < 0 && errno == EINTR)
        ;
    qemu->ended = true;
}

static bool wait_end(vz_qemu *qemu, int64_t timeout_us)
{
    if (!qemu->ended && vz_poll_one(qemu->pidfd, POLLIN, vz_now_us() + timeout_us))
        reap(qemu);
    return qemu->ended;
}

static void on_event(const vz_qmp_event *event, void *user)
{
    vz_qemu *qemu = user;
    if (qemu->hooks.on_event)
        qemu->hooks.on_event(qemu, event, qemu->hooks.user);
}

static const vz_qmp_hooks qmp_hooks = {.on_event = on_event};

static void on_pidfd(int fd, short revents, void *data)
{
    (void)revents;
    vz_qemu *qemu = data;
    vz_inbox_unwatch(qemu->inbox, fd);
    reap(qemu);
    vz_qmp_dispatch(qemu->qmp); /* what it said before it ended comes first */
    if (qemu->hooks.on_exit)
        qemu->hooks.on_exit(qemu, qemu->hooks.user); /* may free it */
}

static void attach(vz_qemu *qemu)
{
    vz_qmp_attach(qemu->qmp, qemu->inbox, &qmp_hooks, qemu);
    vz_inbox_watch(qemu->inbox, qemu->pidfd, POLLIN, on_pidfd, qemu);
    vz_qemu_log_watch(qemu->log, qemu->inbox);
}

static void detach(vz_qemu *qemu)
{
    vz_qmp_detach(qemu->qmp);
    vz_inbox_unwatch(qemu->inbox, qemu->pidfd);
}

static char **tap_names(const vz_def *live)
{
    GPtrArray *names = g_ptr_array_new();
    for (size_t i = 0; i < live->n_interfaces; i++)
        if (live->interfaces[i].target && live->interfaces[i].type != VZ_INTERFACE_USER)
            g_ptr_array_add(names, g_strdup(live->interfaces[i].target));
    g_ptr_array_add(names, NULL);
    return (char **)g_ptr_array_free(names, FALSE);
}

static void remove_taps(char **taps)
{
    for (size_t i = 0; taps && taps[i]; i++) {
        g_autoptr(GError) ignored = NULL; /* they went away with QEMU's descriptors */
        vz_link_remove(taps[i], &ignored);
    }
}

/* Starts the process itself and greets it. `handover` is closed as soon as QEMU has its copies:
 * while the daemon held the listening socket, QEMU's death would not close the monitor. */
static bool spawn(vz_qemu *qemu, vz_handover *handover, char **argv, GError **err)
{
    size_t n_fds;
    const int *fds = vz_handover_fds(handover, &n_fds);
    vz_spawn_options options = {
        .argv = (const char *const *)argv,
        .fds = fds,
        .n_fds = n_fds,
        .stdin_fd = -1,
        .stdout_fd = vz_qemu_log_fd(qemu->log),
        .stderr_fd = vz_qemu_log_fd(qemu->log),
        .change_identity = qemu->user.change,
        .uid = qemu->user.uid,
        .gid = qemu->user.gid,
        .groups = qemu->user.groups,
        .n_groups = qemu->user.n_groups,
        .new_session = true,
    };
    if (!vz_spawn(&options, &qemu->pid, &qemu->pidfd, err))
        return false;
    qemu->start_time = vz_process_start_time(qemu->pid);
    return true;
}

/* Replaces an error of the monitor by the reason: what QEMU said when it died. */
static void explain(vz_qemu *qemu, GError **err)
{
    if (qemu->pidfd < 0 || (qemu->qmp && !vz_qmp_broken(qemu->qmp)) ||
        !wait_end(qemu, LAST_BREATH_US))
        return;
    g_autofree char *words = vz_qemu_last_words(qemu);
    /* QEMU thinks of this host only (block/file-posix.c, raw_check_lock_bytes). */
    bool locked = strstr(words, "lock; Is another process using the image");
    g_clear_error(err);
    vz_fail(err, VZ_ERR_INTERNAL_ERROR, "process exited while connecting to monitor: %s%s",
            *words ? words : "it said nothing",
            locked ? " It may be one of another host, where this guest or another one runs" : "");
}

typedef struct {
    const vz_qemu_start_request *request;
    vz_qemu *qemu;
    vz_def *live;
    vz_accel accel;
} start;

static bool start_process(start *s, GError **err)
{
    vz_qemu *qemu = s->qemu;
    const vz_qemu_host *host = s->request->host;
    vz_handover_request wanted = {
        .host = host,
        .user = &qemu->user,
        .rundir = qemu->rundir,
        .accel = s->accel,
        .incoming = s->request->incoming,
    };
    g_autoptr(vz_handover) handover = vz_handover_open(&wanted, s->live, err);
    if (!handover)
        return false;
    qemu->images = vz_handover_paths(handover);
    g_auto(GStrv) argv = NULL;
    if (!vz_qemu_argv(s->live, qemu->caps, vz_handover_resources(handover), &argv, err))
        return false;
    vz_qemu_log_begin(qemu->log, qemu->accel_note, (const char *const *)argv);
    if (!spawn(qemu, handover, argv, err))
        return false;
    int monitor = vz_handover_take_monitor(handover);
    vz_handover_free(g_steal_pointer(&handover));
    qemu->qmp = vz_qmp_open(monitor, vz_now_us() + host->start_timeout_us, err);
    vz_handover_started(qemu->rundir);
    return qemu->qmp && vz_qemu_settle(qemu, s->live, s->request->incoming, err);
}

/* Makes what the process needs around it. */
static bool prepare(start *s, GError **err)
{
    const vz_qemu_host *host = s->request->host;
    vz_qemu *qemu = s->qemu;
    qemu->caps = vz_qemu_caps_get(s->live->emulator, err);
    if (!qemu->caps ||
        !vz_qemu_caps_accel(qemu->caps, s->live->type, &s->accel, &qemu->accel_note, err) ||
        !vz_qemu_user_find(host->user, &qemu->user, err))
        return false;
    qemu->log = vz_qemu_log_open(host->log_dir, s->live->name, err);
    if (!qemu->log || !make_rundir(host, qemu->rundir, err))
        return false;
    return true;
}

/* After a failed start: nothing stays. */
static void abandon(vz_qemu *qemu)
{
    if (qemu->pidfd >= 0 && !qemu->ended) {
        syscall(SYS_pidfd_send_signal, qemu->pidfd, SIGKILL, NULL, 0);
        wait_end(qemu, KILL_TIMEOUT_US);
    }
    remove_rundir(qemu->rundir);
    vz_qemu_release(qemu);
}

vz_qemu *vz_qemu_start(const vz_qemu_start_request *request, vz_def **ret_live, GError **err)
{
    g_autoptr(vz_def) live = vz_def_copy(request->def);
    vz_def_assign_aliases(live);
    vz_qemu *qemu = new_qemu(request->host, request->inbox, &request->hooks);
    qemu->rundir = rundir_of(request->host, live);
    start s = {request, qemu, live, VZ_ACCEL_TCG};
    if (!prepare(&s, err) || !start_process(&s, err)) {
        explain(qemu, err);
        abandon(qemu);
        return NULL;
    }
    qemu->taps = tap_names(live);
    attach(qemu);
    *ret_live = g_steal_pointer(&live);
    return qemu;
}

/* A descriptor of the process that had this number then; -1 when it is gone. */
static int open_process(pid_t pid, uint64_t start_time)
{
    vz_autofd pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    /* Looked at after the descriptor is there: so both are of the same process. */
    if (pidfd < 0 || vz_process_start_time(pid) != start_time ||
        vz_poll_one(pidfd, POLLIN, vz_now_us()))
        return -1;
    return vz_steal_fd(&pidfd);
}

static bool adopt(vz_qemu *qemu, const vz_qemu_adopt_request *request, GError **err)
{
    const vz_qemu_host *host = request->host;
    qemu->caps = vz_qemu_caps_get(request->live->emulator, err);
    if (!qemu->caps || !vz_qemu_user_find(host->user, &qemu->user, err))
        return false;
    qemu->log = vz_qemu_log_reopen(host->log_dir, request->live->name, err);
    if (!qemu->log)
        return false;
    g_autofree char *path = vz_handover_monitor_path(qemu->rundir);
    vz_autofd monitor = vz_unix_connect(path, err);
    if (monitor < 0)
        return false;
    qemu->qmp = vz_qmp_open(vz_steal_fd(&monitor), vz_now_us() + host->start_timeout_us, err);
    return qemu->qmp != NULL;
}

/* How a QEMU ended that nobody watched. */
static void fail_ended(const vz_qemu_adopt_request *request, GError **err)
{
    g_autoptr(GError) ignored = NULL;
    g_autoptr(vz_qemu_log) log =
        vz_qemu_log_reopen(request->host->log_dir, request->live->name, &ignored);
    g_autofree char *words = log ? vz_qemu_log_tail(log) : g_strdup("");
    vz_fail(err, VZ_ERR_NO_DOMAIN, "QEMU process %d of domain '%s' has ended%s%s",
            (int)request->pid, request->live->name, *words ? ": " : "", words);
}

void vz_qemu_tidy(const vz_qemu_host *host, const vz_def *live)
{
    g_autofree char *rundir = rundir_of(host, live);
    g_auto(GStrv) taps = tap_names(live);
    remove_taps(taps);
    remove_rundir(rundir);
}

vz_qemu *vz_qemu_adopt(const vz_qemu_adopt_request *request, bool *ret_ended, GError **err)
{
    g_autoptr(vz_qemu) qemu = new_qemu(request->host, request->inbox, &request->hooks);
    qemu->rundir = rundir_of(request->host, request->live);
    qemu->taps = tap_names(request->live);
    qemu->accel_note = g_strdup("");
    qemu->pid = request->pid;
    qemu->start_time = request->start_time;
    qemu->pidfd = open_process(request->pid, request->start_time);
    bool ended = qemu->pidfd < 0;
    if (ended) {
        vz_qemu_tidy(request->host, request->live);
        fail_ended(request, err);
    }
    if (ret_ended)
        *ret_ended = ended;
    if (ended || !adopt(qemu, request, err))
        return NULL;
    attach(qemu);
    return g_steal_pointer(&qemu);
}

bool vz_qemu_kill(vz_qemu *qemu, bool graceful, GError **err)
{
    detach(qemu);
    if (!qemu->ended)
        syscall(SYS_pidfd_send_signal, qemu->pidfd, SIGTERM, NULL, 0);
    if (!wait_end(qemu, qemu->term_timeout_us) && !graceful) {
        syscall(SYS_pidfd_send_signal, qemu->pidfd, SIGKILL, NULL, 0);
        wait_end(qemu, KILL_TIMEOUT_US);
    }
    if (!qemu->ended) {
        attach(qemu);
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "failed to kill process %d with %s: it lives on", (int)qemu->pid,
                       graceful ? "SIGTERM" : "SIGKILL");
    }
    remove_taps(qemu->taps);
    remove_rundir(qemu->rundir);
    vz_qemu_release(qemu);
    return true;
}

/* ---- one that was never told to run ---- */

static bool never_ran(vz_qmp *qmp, GError **err)
{
    json_t *value = vz_qmp_command(qmp, "query-status", NULL, UNBORN_TIMEOUT_US, err);
    if (!value)
        return false;
    const char *status = json_string_value(json_object_get(value, "status"));
    bool unborn = status && (strcmp(status, "prelaunch") == 0 || strcmp(status, "inmigrate") == 0);
    if (!unborn)
        vz_fail(err, VZ_ERR_OPERATION_INVALID, "its state is '%s'", status ? status : "unknown");
    json_decref(value);
    return unborn;
}

/* Its monitor closes when it has let go of everything else. */
static bool quit(vz_qmp *qmp, GError **err)
{
    g_autoptr(GError) closed = NULL;
    int64_t deadline_us = vz_now_us() + UNBORN_TIMEOUT_US;
    if (!vz_qmp_do(qmp, "quit", NULL, UNBORN_TIMEOUT_US, err))
        return false;
    while (vz_qmp_do(qmp, "query-status", NULL, UNBORN_TIMEOUT_US, &closed) &&
           vz_now_us() < deadline_us)
        g_usleep(UNBORN_POLL_US);
    return closed || vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "it does not quit");
}

bool vz_qemu_end_unborn(const vz_qemu_host *host, const char *uuid_text, GError **err)
{
    g_autoptr(GError) nobody = NULL;
    g_autofree char *rundir = g_build_filename(host->run_dir, uuid_text, NULL);
    g_autofree char *path = vz_handover_monitor_path(rundir);
    vz_autofd monitor = vz_unix_connect(path, &nobody);
    if (monitor < 0)
        return true;
    g_autoptr(vz_qmp) qmp =
        vz_qmp_open(vz_steal_fd(&monitor), vz_now_us() + UNBORN_TIMEOUT_US, err);
    if (!qmp || !never_ran(qmp, err) || !quit(qmp, err))
        return false;
    remove_rundir(rundir);
    return true;
}
