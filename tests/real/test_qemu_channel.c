/* test_qemu_channel.c - a real QEMU 10 moves its memory through two carriers. Runs in the lab's
 * root (tests/real/in-root). The guests are never started: what is proved is how QEMU's stream,
 * return path and end go through a channel, and what QEMU makes of one that breaks. */
#include "driver/qemu/qmp.h"
#include "support/channel_pair.h"

#include "base/fd.h"
#include "base/spawn.h"

#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND_US ((int64_t)1000000)

typedef struct {
    pid_t pid;
    int pidfd;
    vz_qmp *qmp;
} machine;

typedef struct {
    channel_pair *pair;
    machine source, target;
} fixture;

static machine start(const char *incoming)
{
    g_autoptr(GError) err = NULL;
    int monitor[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor), ==, 0);
    const char *const argv[] = {"qemu-system-x86_64",
                                "-nodefaults",
                                "-display",
                                "none",
                                "-S",
                                "-M",
                                "pc-i440fx-10.0,accel=tcg",
                                "-m",
                                "256",
                                "-chardev",
                                "socket,id=monitor,fd=3",
                                "-mon",
                                "chardev=monitor,mode=control",
                                incoming ? "-incoming" : NULL,
                                incoming,
                                NULL};
    vz_spawn_options options = {.argv = argv,
                                .fds = &monitor[1],
                                .n_fds = 1,
                                .stdin_fd = -1,
                                .stdout_fd = -1,
                                .stderr_fd = STDERR_FILENO};
    machine m;
    g_assert_true(vz_spawn(&options, &m.pid, &m.pidfd, &err));
    close(monitor[1]);
    m.qmp = vz_qmp_open(monitor[0], vz_now_us() + 30 * SECOND_US, &err);
    g_assert_no_error(err);
    return m;
}

static void end(machine *m)
{
    vz_qmp_close(m->qmp);
    kill(m->pid, SIGKILL);
    waitpid(m->pid, NULL, 0);
    close(m->pidfd);
}

static void set_up(fixture *f, G_GNUC_UNUSED const void *data)
{
    f->pair = channel_pair_new();
    f->source = start(NULL);
    f->target = start("defer");
}

static void tear_down(fixture *f, G_GNUC_UNUSED const void *data)
{
    end(&f->source);
    end(&f->target);
    channel_pair_free(f->pair);
}

static void command(machine *m, const char *name, json_t *take_args)
{
    g_autoptr(GError) err = NULL;
    vz_qmp_do(m->qmp, name, take_args, VZ_QMP_TIMEOUT_US, &err);
    g_assert_no_error(err);
}

/* Gives both their ends of an open channel and lets the source go; 0: as fast as it can. */
static void migrate(fixture *f, bool return_path, json_int_t bytes_s)
{
    g_autoptr(GError) err = NULL;
    int a, b = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 0);
    int ours, theirs;
    machine *both[] = {&f->source, &f->target};
    for (int i = 0; i < 2; i++)
        command(both[i], "migrate-set-capabilities",
                json_pack("{s:[{s:s,s:b}]}", "capabilities", "capability", "return-path", "state",
                          return_path));
    channel_local_pair(&ours, &theirs);
    vz_carrier_connect_request request = {
        .host = "127.0.0.1",
        .port = vz_port_number(f->pair->host->port),
        .purpose = VZ_PURPOSE_MEMORY,
        .take_local_fd = ours,
        .owner_pidfd = f->source.pidfd,
        .deadline_us = vz_now_us() + 10 * SECOND_US,
    };
    vz_carrier_connect(f->pair->source, &request, &err);
    g_assert_no_error(err);
    a = theirs;
    g_assert_true(vz_qmp_send_fd(f->source.qmp, "channel", a, &err));
    g_assert_true(vz_qmp_send_fd(f->target.qmp, "channel", b, &err));
    close(a);
    close(b);
    command(&f->source, "migrate-set-parameters",
            json_pack("{s:I}", "max-bandwidth", bytes_s ? bytes_s : (json_int_t)1 << 40));
    command(&f->target, "migrate-incoming",
            json_pack("{s:s,s:b}", "uri", "fd:channel", "exit-on-error", 0));
    command(&f->source, "migrate", json_pack("{s:s}", "uri", "fd:channel"));
}

/* Polls the migration's status until it is `expected`. */
static void await_status(machine *m, const char *expected)
{
    int64_t deadline_us = vz_now_us() + 30 * SECOND_US;
    for (;;) {
        g_autoptr(GError) err = NULL;
        json_t *reply = vz_qmp_command(m->qmp, "query-migrate", NULL, VZ_QMP_TIMEOUT_US, &err);
        g_assert_no_error(err);
        const char *status = json_string_value(json_object_get(reply, "status"));
        bool reached = g_strcmp0(status, expected) == 0;
        if (!reached && vz_now_us() >= deadline_us)
            g_error("migration is '%s', not '%s'", status ? status : "", expected);
        json_decref(reply);
        if (reached)
            return;
        vz_qmp_dispatch(m->qmp);
        g_usleep(10000);
    }
}

static void test_move(fixture *f, const void *data)
{
    migrate(f, *(const bool *)data, 0);
    await_status(&f->source, "completed");
    await_status(&f->target, "completed");
    vz_channel_info source = channel_await_end(f->pair->source, 0, 5000);
    vz_channel_info target = channel_await_end(f->pair->target, 0, 5000);
    g_assert_cmpstr(source.reason, ==, "");
    g_assert_cmpint(source.state, ==, VZ_CHANNEL_FINISHED);
    g_assert_cmpint(target.state, ==, VZ_CHANNEL_FINISHED);
    g_assert_cmpuint(source.sent_bytes, ==, target.received_bytes);
    g_assert_cmpint(target.sent_bytes > 0, ==, *(const bool *)data);
}

/* In mid-stream one thing dies; both QEMUs that are left learn it at once, and the source can go
 * on. */
static void test_carrier_dies(fixture *f, G_GNUC_UNUSED const void *data)
{
    migrate(f, true, 20000);
    await_status(&f->target, "active");
    kill(vz_carrier_pid(f->pair->target), SIGKILL);
    int64_t killed_us = vz_now_us();
    await_status(&f->source, "failed");
    await_status(&f->target, "failed");
    g_assert_cmpint(vz_now_us() - killed_us, <, SECOND_US);
    g_assert_cmpint(channel_await_end(f->pair->source, 0, 1000).state, ==, VZ_CHANNEL_FAILED);
    command(&f->source, "cont", NULL);
}

static void test_target_dies(fixture *f, G_GNUC_UNUSED const void *data)
{
    migrate(f, true, 20000);
    await_status(&f->target, "active");
    kill(f->target.pid, SIGKILL);
    int64_t killed_us = vz_now_us();
    await_status(&f->source, "failed");
    g_assert_cmpint(vz_now_us() - killed_us, <, SECOND_US);
    command(&f->source, "cont", NULL);
}

static void test_source_dies(fixture *f, G_GNUC_UNUSED const void *data)
{
    migrate(f, true, 20000);
    await_status(&f->target, "active");
    kill(f->source.pid, SIGKILL);
    int64_t killed_us = vz_now_us();
    await_status(&f->target, "failed");
    g_assert_cmpint(vz_now_us() - killed_us, <, SECOND_US);
    /* Its close is told from a clean one by its pidfd. */
    g_assert_cmpint(channel_await_end(f->pair->source, 0, 1000).state, ==, VZ_CHANNEL_FAILED);
    g_assert_cmpint(channel_await_end(f->pair->target, 0, 1000).state, ==, VZ_CHANNEL_FAILED);
}

static void test_cancel(fixture *f, G_GNUC_UNUSED const void *data)
{
    migrate(f, true, 20000);
    await_status(&f->target, "active");
    command(&f->source, "migrate_cancel", NULL);
    await_status(&f->source, "cancelled");
    await_status(&f->target, "failed");
    g_assert_cmpint(channel_await_end(f->pair->source, 0, 1000).state, >=, VZ_CHANNEL_FINISHED);
    command(&f->source, "cont", NULL);
}

int main(int argc, char **argv)
{
    static const bool yes = true, no = false;
    g_test_init(&argc, &argv, NULL);
    g_test_add("/qemu-channel/move", fixture, &no, set_up, test_move, tear_down);
    g_test_add("/qemu-channel/return-path", fixture, &yes, set_up, test_move, tear_down);
    g_test_add("/qemu-channel/carrier-dies", fixture, NULL, set_up, test_carrier_dies, tear_down);
    g_test_add("/qemu-channel/target-dies", fixture, NULL, set_up, test_target_dies, tear_down);
    g_test_add("/qemu-channel/source-dies", fixture, NULL, set_up, test_source_dies, tear_down);
    g_test_add("/qemu-channel/cancel", fixture, NULL, set_up, test_cancel, tear_down);
    return g_test_run();
}
