/* spawn.c - see spawn.h. Between fork and exec only async-signal-safe calls are made. */
#include "base/spawn.h"

#include "base/fd.h"
#include "base/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FIRST_PASSED_FD   3
#define STDERR_TAIL_BYTES 1024
#define KILL_PATIENCE_US  ((int64_t)2000000)

static const char *const child_environment[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "HOME=/", NULL};

static int open_null(int fd, int flags)
{
    return fd >= 0 ? fd : open("/dev/null", flags);
}

/* Moves the descriptors to their numbers by way of high ones, so that none overwrites another. */
static bool arrange_fds(const vz_spawn_options *o, int *status_fd)
{
    int standard[3] = {open_null(o->stdin_fd, O_RDONLY), open_null(o->stdout_fd, O_WRONLY),
                       open_null(o->stderr_fd, O_WRONLY)};
    int base = FIRST_PASSED_FD + (int)o->n_fds + 1;
    for (int i = 0; i < 3; i++)
        standard[i] = fcntl(standard[i], F_DUPFD_CLOEXEC, base);
    *status_fd = fcntl(*status_fd, F_DUPFD_CLOEXEC, base);
    int high[VZ_FD_PASS_MAX * 16];
    if (o->n_fds > G_N_ELEMENTS(high))
        return false;
    for (size_t i = 0; i < o->n_fds; i++)
        high[i] = fcntl(o->fds[i], F_DUPFD_CLOEXEC, base);
    for (int i = 0; i < 3; i++)
        if (dup2(standard[i], i) < 0)
            return false;
    for (size_t i = 0; i < o->n_fds; i++)
        if (dup2(high[i], FIRST_PASSED_FD + (int)i) < 0)
            return false;
    return true;
}

static bool drop_identity(const vz_spawn_options *o)
{
    if (!o->change_identity)
        return true;
    return setgroups(o->n_groups, o->groups) == 0 && setresgid(o->gid, o->gid, o->gid) == 0 &&
           setresuid(o->uid, o->uid, o->uid) == 0;
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

G_NORETURN static void child(const vz_spawn_options *o, int status_fd)
{
    reset_signals();
    if (o->new_session)
        setsid();
    if (arrange_fds(o, &status_fd) && drop_identity(o))
        execvpe(o->argv[0], (char *const *)(uintptr_t)o->argv,
                (char *const *)(uintptr_t)child_environment);
    int errnum = errno;
    ssize_t n = write(status_fd, &errnum, sizeof(errnum));
    (void)n;
    _exit(127);
}

bool vz_spawn(const vz_spawn_options *options, pid_t *ret_pid, int *ret_pidfd, GError **err)
{
    int status[2];
    if (pipe2(status, O_CLOEXEC) < 0)
        return vz_fail_errno(err, errno, "cannot make a pipe");
    vz_autofd status_read = status[0];
    vz_autofd status_write = status[1];
    pid_t pid = fork();
    if (pid < 0)
        return vz_fail_errno(err, errno, "cannot fork for '%s'", options->argv[0]);
    if (pid == 0)
        child(options, status_write);
    vz_fd_clear(&status_write);
    int errnum;
    ssize_t n;
    do
        n = read(status_read, &errnum, sizeof(errnum));
    while (n < 0 && errno == EINTR);
    if (n == sizeof(errnum)) {
        waitpid(pid, NULL, 0);
        return vz_fail_errno(err, errnum, "cannot start '%s'", options->argv[0]);
    }
    vz_autofd pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0) {
        int saved = errno;
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return vz_fail_errno(err, saved, "cannot watch '%s'", options->argv[0]);
    }
    *ret_pid = pid;
    *ret_pidfd = vz_steal_fd(&pidfd);
    return true;
}

typedef struct {
    int fd;
    GString *text;
    size_t keep_bytes; /* 0: keep all up to VZ_RUN_OUTPUT_MAX, else only the last so many */
} capture;

/* false: nothing more to come from this descriptor. */
static bool capture_some(capture *c)
{
    char chunk[8192];
    ssize_t n = read(c->fd, chunk, sizeof(chunk));
    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0)
        return false;
    g_string_append_len(c->text, chunk, n);
    if (c->keep_bytes && c->text->len > c->keep_bytes)
        g_string_erase(c->text, 0, (gssize)(c->text->len - c->keep_bytes));
    return c->text->len <= VZ_RUN_OUTPUT_MAX;
}

/* Reads both until both end; false at the deadline or when there is too much. */
static bool capture_all(capture captures[2], int64_t deadline_us)
{
    bool open[2] = {true, true};
    while (open[0] || open[1]) {
        struct pollfd fds[2];
        for (int i = 0; i < 2; i++)
            fds[i] = (struct pollfd){.fd = open[i] ? captures[i].fd : -1, .events = POLLIN};
        int64_t left_ms = (deadline_us - vz_now_us() + 999) / 1000;
        if (left_ms <= 0)
            return false;
        if (poll(fds, 2, (int)MIN(left_ms, G_MAXINT)) < 0 && errno != EINTR)
            return false;
        for (int i = 0; i < 2; i++)
            if (open[i] && fds[i].revents)
                open[i] = capture_some(&captures[i]);
    }
    return captures[0].text->len <= VZ_RUN_OUTPUT_MAX;
}

static const char *last_line(GString *text)
{
    g_strchomp(text->str);
    const char *newline = strrchr(text->str, '\n');
    return newline ? newline + 1 : text->str;
}

static bool judge(const char *program, int pidfd, bool in_time, capture *stderr_tail, GError **err)
{
    siginfo_t info = {0};
    /* In uninterruptible sleep (a dead file server) it outlives its killing: left to whoever reaps
     * children later, a zombie at worst. */
    if (!in_time && !vz_poll_one(pidfd, POLLIN, vz_now_us() + KILL_PATIENCE_US))
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
                       "'%s' did not end in time, and cannot be stopped", program);
    int r;
    do
        r = waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED);
    while (r < 0 && errno == EINTR);
    if (!in_time)
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
                       "'%s' did not end in time or wrote too much, and was stopped", program);
    if (info.si_code == CLD_EXITED && info.si_status == 0)
        return true;
    return vz_fail(err, VZ_ERR_OPERATION_FAILED, "'%s' ended with %s %d: %s", program,
                   info.si_code == CLD_EXITED ? "status" : "signal", info.si_status,
                   last_line(stderr_tail->text));
}

bool vz_run(const char *const *argv, int64_t deadline_us, char **ret_output, GError **err)
{
    int out[2];
    int errors[2];
    if (pipe2(out, O_CLOEXEC) < 0)
        return vz_fail_errno(err, errno, "cannot make a pipe");
    vz_autofd out_read = out[0];
    vz_autofd out_write = out[1];
    if (pipe2(errors, O_CLOEXEC) < 0)
        return vz_fail_errno(err, errno, "cannot make a pipe");
    vz_autofd errors_read = errors[0];
    vz_autofd errors_write = errors[1];
    vz_spawn_options options = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = out_write, .stderr_fd = errors_write};
    pid_t pid;
    vz_autofd pidfd = -1;
    if (!vz_spawn(&options, &pid, &pidfd, err))
        return false;
    vz_fd_clear(&out_write);
    vz_fd_clear(&errors_write);
    g_autoptr(GString) output = g_string_new(NULL);
    g_autoptr(GString) tail = g_string_new(NULL);
    capture captures[2] = {{out_read, output, 0}, {errors_read, tail, STDERR_TAIL_BYTES}};
    bool in_time = capture_all(captures, deadline_us);
    if (!in_time)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    if (!judge(argv[0], pidfd, in_time, &captures[1], err))
        return false;
    if (ret_output)
        *ret_output = g_string_free(g_steal_pointer(&output), FALSE);
    return true;
}

uint64_t vz_process_start_time(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    /* The command may hold blanks and brackets; the fields start after the last one. Field 3 is the
     * state, field 22 the start time. */
    const char *p = strrchr(text, ')');
    if (!p)
        return 0;
    g_auto(GStrv) fields = g_strsplit(p + 2, " ", 21);
    return g_strv_length(fields) > 19 ? g_ascii_strtoull(fields[19], NULL, 10) : 0;
}
