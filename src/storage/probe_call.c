/* probe_call.c - see probe_call.h. */
#include "storage/probe_call.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "base/wait.h"
#include "config.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STOP_PATIENCE_US ((int64_t)2 * 1000000)

static const char *program = VZ_LIBEXECDIR "/virtvz-probe";

struct vz_probe {
    pid_t pid;
    int pidfd;
    int socket;    /* its standard input and output */
    GString *text; /* read, but no whole line yet */
};

void vz_probe_set_program(const char *path)
{
    program = path;
}

/* The program before the words. */
static GPtrArray *argv_of(const char *const *words)
{
    GPtrArray *argv = g_ptr_array_new();
    g_ptr_array_add(argv, (void *)(uintptr_t)program);
    for (; *words; words++)
        g_ptr_array_add(argv, (void *)(uintptr_t)*words);
    g_ptr_array_add(argv, NULL);
    return argv;
}

static json_t *parse(const char *line, GError **err)
{
    json_t *reply = json_loads(line, 0, NULL);
    if (json_is_object(reply))
        return reply;
    json_decref(reply);
    vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' gave no answer", program);
    return NULL;
}

json_t *vz_probe_call(const char *const *words, int64_t timeout_us, GError **err)
{
    g_autofree char *output = NULL;
    g_autoptr(GPtrArray) argv = argv_of(words);
    if (!vz_run((const char *const *)argv->pdata, vz_now_us() + timeout_us, &output, err))
        return NULL;
    return parse(output, err);
}

vz_probe *vz_probe_start(const char *const *words, GError **err)
{
    int pair[2];
    g_autoptr(GPtrArray) argv = argv_of(words);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        vz_fail_errno(err, errno, "cannot make a socket");
        return NULL;
    }
    vz_autofd ours = pair[0];
    vz_autofd theirs = pair[1];
    const vz_spawn_options options = {.argv = (const char *const *)argv->pdata,
                                      .stdin_fd = theirs,
                                      .stdout_fd = theirs,
                                      .stderr_fd = -1};
    vz_probe *probe = g_new0(vz_probe, 1);
    if (!vz_spawn(&options, &probe->pid, &probe->pidfd, err)) {
        g_free(probe);
        return NULL;
    }
    probe->socket = vz_steal_fd(&ours);
    probe->text = g_string_new(NULL);
    return probe;
}

/* false: nothing came in time, or it has ended. */
static bool read_some(vz_probe *probe, int64_t deadline_us)
{
    char chunk[4096];
    if (!vz_poll_one(probe->socket, POLLIN, deadline_us))
        return false;
    ssize_t n = recv(probe->socket, chunk, sizeof(chunk), MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (n <= 0)
        return false;
    g_string_append_len(probe->text, chunk, n);
    return probe->text->len <= VZ_RUN_OUTPUT_MAX;
}

json_t *vz_probe_read(vz_probe *probe, int64_t timeout_us, GError **err)
{
    int64_t deadline_us = vz_now_us() + timeout_us;
    for (;;) {
        const char *end = strchr(probe->text->str, '\n');
        if (end) {
            g_autofree char *line = g_strndup(probe->text->str, (size_t)(end - probe->text->str));
            g_string_erase(probe->text, 0, end + 1 - probe->text->str);
            return parse(line, err);
        }
        if (!read_some(probe, deadline_us)) {
            vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "'%s' does not answer", program);
            return NULL;
        }
    }
}

void vz_probe_go_on(vz_probe *probe)
{
    /* One that has ended is noticed when its answer is read. */
    (void)!send(probe->socket, "\n", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void vz_probe_stop(vz_probe *probe)
{
    if (!probe)
        return;
    siginfo_t info;
    syscall(SYS_pidfd_send_signal, probe->pidfd, SIGKILL, NULL, 0);
    if (vz_poll_one(probe->pidfd, POLLIN, vz_now_us() + STOP_PATIENCE_US))
        waitid(P_PIDFD, (id_t)probe->pidfd, &info, WEXITED);
    close(probe->pidfd);
    close(probe->socket);
    g_string_free(probe->text, TRUE);
    g_free(probe);
}
