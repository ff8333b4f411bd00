/* test_carrier.c - real carrier processes between two ports on loopback: what they carry, how
 * streams end and break, who is refused, and that they outlive their daemon. */
#include "support/channel_pair.h"

#include "base/fd.h"
#include "base/spawn.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef VZ_TEST_SANITIZED /* slower by a factor of ten */
#define BULK_BYTES ((uint64_t)24 << 20)
#define MANY       16
#else
#define MANY       256
#define BULK_BYTES ((uint64_t)256 << 20)
#endif
#define SOON_MS 10000

typedef struct {
    channel_pair *pair;
} fixture;

static void set_up(fixture *f, G_GNUC_UNUSED const void *data)
{
    f->pair = channel_pair_new();
}

static void tear_down(fixture *f, G_GNUC_UNUSED const void *data)
{
    channel_pair_free(f->pair);
}

static uint64_t join(GThread *thread)
{
    return GPOINTER_TO_SIZE(g_thread_join(thread));
}

/* Polls for what the kernel says about a local end. */
static short events_of(int fd, short wanted, int ms)
{
    struct pollfd p = {.fd = fd, .events = wanted};
    return poll(&p, 1, ms) > 0 ? p.revents : 0;
}

static void test_both_ways(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, b;
    channel_pair_open(f->pair, 0, &a, &b);
    GThread *ab_in = channel_reader(b, 1), *ba_in = channel_reader(a, 2);
    GThread *ab = channel_writer(a, 1, BULK_BYTES, true);
    GThread *ba = channel_writer(b, 2, BULK_BYTES + 4321 * 8, true);
    g_assert_cmpuint(join(ab), ==, BULK_BYTES);
    g_assert_cmpuint(join(ba), ==, BULK_BYTES + 4321 * 8);
    g_assert_cmpuint(join(ab_in), ==, BULK_BYTES);
    g_assert_cmpuint(join(ba_in), ==, BULK_BYTES + 4321 * 8);
    vz_channel_info source = channel_await_end(f->pair->source, 0, SOON_MS);
    vz_channel_info target = channel_await_end(f->pair->target, 0, SOON_MS);
    g_assert_cmpint(source.state, ==, VZ_CHANNEL_FINISHED);
    g_assert_cmpint(target.state, ==, VZ_CHANNEL_FINISHED);
    g_assert_cmpuint(source.sent_bytes, ==, BULK_BYTES);
    g_assert_cmpuint(source.received_bytes, ==, BULK_BYTES + 4321 * 8);
    g_assert_cmpuint(target.received_bytes, ==, BULK_BYTES);
    g_assert_cmpuint(source.wire_sent_bytes, >, source.sent_bytes);
    g_assert_cmpuint(source.wire_sent_bytes, ==, target.wire_received_bytes);
    g_assert_true(g_str_has_prefix(source.cipher, "TLS1.3 AES-128-GCM"));
    g_assert_cmpstr(source.cipher, ==, target.cipher);
    g_assert_cmpint(source.connect_us, >, 0);
    vz_channel_info sum;
    vz_carrier_sum(f->pair->source, VZ_PURPOSE_MEMORY, &sum);
    g_assert_cmpuint(sum.sent_bytes, ==, BULK_BYTES);
    close(a);
    close(b);
}

/* Many at once, as multifd has them. */
static void test_many_channels(fixture *f, G_GNUC_UNUSED const void *data)
{
    int ends[MANY][2];
    GThread *readers[MANY];
    size_t n = 0;
    for (uint16_t i = 0; i < MANY; i++) {
        channel_pair_open(f->pair, i, &ends[i][0], &ends[i][1]);
        readers[i] = channel_reader(ends[i][1], i);
    }
    for (uint16_t i = 0; i < MANY; i++)
        g_assert_cmpuint(join(channel_writer(ends[i][0], i, 65536, true)), ==, 65536);
    for (uint16_t i = 0; i < MANY; i++) {
        g_assert_cmpuint(join(readers[i]), ==, 65536);
        close(ends[i][0]);
        close(ends[i][1]);
        g_assert_cmpint(channel_await_end(f->pair->source, i, SOON_MS).state, ==,
                        VZ_CHANNEL_FINISHED);
    }
    vz_carrier_channels(f->pair->source, &n);
    g_assert_cmpuint(n, ==, MANY);
}

/* One end says that it is through; the other goes on sending for as long as it likes. */
static void test_half_close(fixture *f, G_GNUC_UNUSED const void *data)
{
    for (uint16_t i = 0; i < 2; i++) {
        int ends[2];
        channel_pair_open(f->pair, i, &ends[0], &ends[1]);
        int first = ends[i], second = ends[1 - i];
        char word[6] = "";
        g_assert_cmpint(write(first, "first", 5), ==, 5);
        shutdown(first, SHUT_WR);
        g_assert_cmpint(recv(second, word, 5, MSG_WAITALL), ==, 5);
        g_assert_cmpint(recv(second, word, 1, 0), ==, 0);
        g_assert_cmpint(events_of(second, POLLOUT, 0), ==, POLLOUT); /* and no POLLHUP */
        vz_channel_info info;
        g_assert_true(vz_carrier_info(f->pair->source, VZ_PURPOSE_MEMORY, i, &info));
        g_assert_cmpint(info.state, ==, VZ_CHANNEL_OPEN);
        GThread *reader = channel_reader(first, 7);
        GThread *writer = channel_writer(second, 7, 1 << 20, true);
        g_assert_cmpuint(join(writer), ==, 1 << 20);
        g_assert_cmpuint(join(reader), ==, 1 << 20);
        g_assert_cmpint(channel_await_end(f->pair->source, i, SOON_MS).state, ==,
                        VZ_CHANNEL_FINISHED);
        g_assert_cmpint(channel_await_end(f->pair->target, i, SOON_MS).state, ==,
                        VZ_CHANNEL_FINISHED);
        close(first);
        close(second);
    }
}

/* A whole close of the sender, as QEMU does it, is a clean end for the receiver. */
static void test_close_is_clean(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, b;
    channel_pair_open(f->pair, 0, &a, &b);
    GThread *reader = channel_reader(b, 3);
    g_assert_cmpuint(join(channel_writer(a, 3, 3 << 20, false)), ==, 3 << 20);
    close(a);
    g_assert_cmpuint(join(reader), ==, 3 << 20);
    close(b);
    g_assert_cmpint(channel_await_end(f->pair->source, 0, SOON_MS).state, ==, VZ_CHANNEL_FINISHED);
    g_assert_cmpint(channel_await_end(f->pair->target, 0, SOON_MS).state, ==, VZ_CHANNEL_FINISHED);
}

/* What a local end sees of a broken channel: not the end of one direction, but of all. */
static void assert_broken(int fd)
{
    char buffer[65536];
    while (recv(fd, buffer, sizeof(buffer), 0) > 0)
        ;
    g_assert_cmpint(events_of(fd, POLLIN, 1000) & POLLHUP, ==, POLLHUP);
    g_assert_cmpint(send(fd, "x", 1, MSG_NOSIGNAL), ==, -1);
}

static void test_carrier_killed(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, b;
    channel_pair_open(f->pair, 0, &a, &b);
    GThread *writer = channel_writer(a, 1, G_MAXUINT64 / 2, false);
    g_usleep(100000);
    int64_t killed_us = vz_now_us();
    kill(vz_carrier_pid(f->pair->target), SIGKILL);
    vz_channel_info source = channel_await_end(f->pair->source, 0, SOON_MS);
    g_assert_cmpint(vz_now_us() - killed_us, <, G_USEC_PER_SEC);
    g_assert_cmpint(source.state, ==, VZ_CHANNEL_FAILED);
    g_assert_nonnull(strstr(source.reason, "cut"));
    join(writer);
    assert_broken(a);
    vz_channel_info target = channel_await_end(f->pair->target, 0, SOON_MS);
    g_assert_cmpint(target.state, ==, VZ_CHANNEL_FAILED);
    g_assert_nonnull(strstr(target.reason, "killed by signal 9"));
    g_assert_nonnull(strstr(f->pair->exit_reason, "killed by signal 9"));
    assert_broken(b);
    close(a);
    close(b);
}

/* The receiver of a stream, silent itself: the sender's carrier dies, and that is no end of file.
 */
static void test_sender_killed_tcp(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, local[2];
    char word[4];
    g_autoptr(GError) err = NULL;
    channel_tcp_pair(local);
    g_assert_true(vz_carrier_expect(f->pair->target, VZ_PURPOSE_MEMORY, 0, local[0], -1, &err));
    g_assert_true(channel_pair_connect(f->pair, f->pair->source, VZ_PURPOSE_MEMORY, 0, &a, &err));
    g_assert_cmpint(write(a, "abc", 3), ==, 3);
    g_assert_cmpint(recv(local[1], word, 3, MSG_WAITALL), ==, 3);
    int64_t killed_us = vz_now_us();
    kill(vz_carrier_pid(f->pair->source), SIGKILL);
    g_assert_cmpint(recv(local[1], word, 1, 0), ==, -1);
    g_assert_cmpint(errno, ==, ECONNRESET);
    g_assert_cmpint(vz_now_us() - killed_us, <, G_USEC_PER_SEC);
    vz_channel_info target = channel_await_end(f->pair->target, 0, SOON_MS);
    g_assert_cmpint(target.state, ==, VZ_CHANNEL_FAILED);
    g_assert_nonnull(strstr(target.reason, "without the peer's end mark"));
    close(a);
    close(local[1]);
}

static void test_abort(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, b, unused = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 1);
    channel_pair_open(f->pair, 0, &a, &b);
    vz_carrier_abort(f->pair->source, VZ_PURPOSE_MEMORY, 0);
    g_assert_cmpint(channel_await_end(f->pair->source, 0, SOON_MS).reason_code, ==,
                    VZ_ERR_OPERATION_ABORTED);
    g_assert_cmpint(channel_await_end(f->pair->target, 0, 1000).state, ==, VZ_CHANNEL_FAILED);
    assert_broken(a);
    assert_broken(b);
    vz_carrier_abort(f->pair->target, VZ_PURPOSE_MEMORY, 1);
    g_assert_cmpint(channel_await_end(f->pair->target, 1, 1000).state, ==, VZ_CHANNEL_FAILED);
    assert_broken(unused);
    close(a);
    close(b);
    close(unused);
}

/* The local end comes when the channel has opened; what was sent by then is not lost. */
static void test_local_end_comes_late(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    char text[8] = "";
    g_autofree char *directory = g_dir_make_tmp("vz-late-XXXXXX", NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_snprintf(address.sun_path, sizeof(address.sun_path), "%s/s", directory);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    int late = socket(AF_UNIX, SOCK_STREAM, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    g_assert_true(vz_carrier_expect(f->pair->target, VZ_PURPOSE_MEMORY, 0, dup(late), -1, &err));
    int a = -1;
    channel_pair_connect(f->pair, f->pair->source, VZ_PURPOSE_MEMORY, 0, &a, &err);
    g_assert_no_error(err);
    g_assert_cmpint(write(a, "early", 5), ==, 5);
    g_assert_cmpint(connect(late, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    close(late);
    int b = accept(listener, NULL, NULL);
    g_assert_cmpint(recv(b, text, 5, MSG_WAITALL), ==, 5);
    g_assert_cmpstr(text, ==, "early");
    close(a);
    close(b);
    close(listener);
    unlink(address.sun_path);
    rmdir(directory);
}

/* A process that dies closes its end like one that is through; its pidfd tells them apart. */
static void test_owner_died(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    int ours, theirs;
    channel_local_pair(&ours, &theirs);
    const char *const argv[] = {"sleep", "60", NULL};
    vz_spawn_options options = {
        .argv = argv, .fds = &theirs, .n_fds = 1, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = 2};
    pid_t pid;
    int pidfd;
    g_assert_true(vz_spawn(&options, &pid, &pidfd, &err));
    close(theirs);
    int b = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 0);
    vz_carrier_connect_request request = {
        .host = "127.0.0.1",
        .port = vz_port_number(f->pair->host->port),
        .purpose = VZ_PURPOSE_MEMORY,
        .take_local_fd = ours,
        .owner_pidfd = pidfd,
        .deadline_us = vz_now_us() + 5 * G_USEC_PER_SEC,
    };
    vz_carrier_connect(f->pair->source, &request, &err);
    g_assert_no_error(err);
    kill(pid, SIGKILL);
    vz_channel_info info = channel_await_end(f->pair->source, 0, 1000);
    g_assert_cmpint(info.state, ==, VZ_CHANNEL_FAILED);
    g_assert_cmpstr(info.reason, ==, "the process at the local end died");
    g_assert_cmpint(channel_await_end(f->pair->target, 0, 1000).state, ==, VZ_CHANNEL_FAILED);
    waitpid(pid, NULL, 0);
    close(pidfd);
    close(b);
}

/* The daemon goes away in the middle; bytes go on; the next one finds all that it must know. */
static void test_adopt(fixture *f, G_GNUC_UNUSED const void *data)
{
    int a, b, c, d;
    g_autoptr(GError) err = NULL;
    channel_pair_open(f->pair, 0, &a, &b);
    channel_pair_open(f->pair, 5, &c, &d);
    close(c);
    close(d);
    GThread *reader = channel_reader(b, 4);
    GThread *writer = channel_writer(a, 4, BULK_BYTES / 2, false);
    pid_t pid = vz_carrier_pid(f->pair->target);
    vz_port_dismiss(f->pair->host->port, f->pair->job);
    vz_carrier_release(f->pair->target);
    f->pair->target = NULL;
    g_assert_cmpuint(join(writer), ==, BULK_BYTES / 2);
    g_usleep(1500000); /* longer than an orphan without channels lives */
    f->pair->target = vz_carrier_adopt(f->pair->target_dir, f->pair->inbox, NULL, &err);
    g_assert_no_error(err);
    g_assert_cmpint(vz_carrier_pid(f->pair->target), ==, pid);
    g_assert_cmpmem(vz_carrier_job(f->pair->target), 16, f->pair->job, 16);
    vz_channel_info info;
    g_assert_true(vz_carrier_info(f->pair->target, VZ_PURPOSE_MEMORY, 0, &info));
    g_assert_cmpint(info.state, ==, VZ_CHANNEL_OPEN);
    g_assert_cmpuint(info.received_bytes, ==, BULK_BYTES / 2);
    g_assert_true(g_str_has_prefix(info.cipher, "TLS1.3"));
    g_assert_true(vz_carrier_info(f->pair->target, VZ_PURPOSE_MEMORY, 5, &info));
    g_assert_cmpint(info.state, ==, VZ_CHANNEL_FINISHED);
    g_assert_true(vz_port_admit(f->pair->host->port, f->pair->target, &err));
    channel_pair_open(f->pair, 6, &c, &d); /* it still takes commands and connections */
    close(a);
    g_assert_cmpuint(join(reader), ==, BULK_BYTES / 2);
    close(b);
    g_assert_cmpint(channel_await_end(f->pair->target, 0, SOON_MS).state, ==, VZ_CHANNEL_FINISHED);
    close(c);
    close(d);
}

static void test_orphan_exits(fixture *f, G_GNUC_UNUSED const void *data)
{
    vz_autofd pidfd = (int)syscall(SYS_pidfd_open, vz_carrier_pid(f->pair->source), 0);
    int ended = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 0);
    vz_carrier_release(f->pair->source);
    f->pair->source = NULL;
    g_assert_false(vz_poll_one(pidfd, POLLIN, vz_now_us() + 500000));
    g_assert_true(vz_poll_one(pidfd, POLLIN, vz_now_us() + 3000000));
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_carrier_adopt(f->pair->source_dir, f->pair->inbox, NULL, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    close(ended);
}

static bool try_connect(fixture *f, vz_carrier *from, uint16_t index, GError **err)
{
    int end;
    bool connected = channel_pair_connect(f->pair, from, VZ_PURPOSE_MEMORY, index, &end, err);
    if (connected)
        close(end);
    return connected;
}

static void test_wrong_keys(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_channel_keys) stranger = vz_channel_keys_generate(&err);
    g_autofree char *dir = channel_temp_dir();
    int b = channel_pair_expect(f->pair, VZ_PURPOSE_MEMORY, 0);
    /* The opener finds another key than it was told. */
    vz_carrier *misled = channel_carrier_new(f->pair, f->pair->job, f->pair->source_keys,
                                             vz_channel_keys_fingerprint(stranger), dir);
    g_assert_false(try_connect(f, misled, 0, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_AUTH_FAILED);
    g_assert_nonnull(strstr(err->message, "not the one whose fingerprint its cookie carried"));
    g_clear_error(&err);
    vz_carrier_stop(misled);
    /* The acceptor does. */
    vz_carrier *intruder = channel_carrier_new(
        f->pair, f->pair->job, stranger, vz_channel_keys_fingerprint(f->pair->target_keys), dir);
    g_assert_false(try_connect(f, intruder, 0, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_AUTH_FAILED);
    g_assert_nonnull(strstr(err->message, "refused our key"));
    g_clear_error(&err);
    vz_carrier_stop(intruder);
    /* Neither used the channel up. */
    g_assert_true(try_connect(f, f->pair->source, 0, &err));
    close(b);
    channel_remove_dir(dir);
}

static void test_accepted_once(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *dir = channel_temp_dir();
    int a, b;
    g_assert_false(try_connect(f, f->pair->source, 0, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(err->message, "the peer refused: nobody waits for this channel"));
    g_clear_error(&err);
    channel_pair_open(f->pair, 0, &a, &b); /* a refused attempt may be repeated */
    /* The same key, the same words again: what a replay would be. */
    vz_carrier *again = channel_carrier_new(f->pair, f->pair->job, f->pair->source_keys,
                                            vz_channel_keys_fingerprint(f->pair->target_keys), dir);
    g_assert_false(try_connect(f, again, 0, &err));
    g_assert_nonnull(strstr(err->message, "each is accepted once"));
    g_clear_error(&err);
    vz_carrier_stop(again);
    g_assert_false(try_connect(f, f->pair->source, 0, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_INVALID);
    g_clear_error(&err);
    g_assert_false(vz_carrier_expect(f->pair->target, VZ_PURPOSE_MEMORY, 0, dup(a), -1, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_INVALID);
    close(a);
    close(b);
    channel_remove_dir(dir);
}

static void test_unreachable(fixture *f, G_GNUC_UNUSED const void *data)
{
    g_autoptr(GError) err = NULL;
    uint16_t port = vz_port_number(f->pair->host->port);
    /* No such job there. */
    vz_port_dismiss(f->pair->host->port, f->pair->job);
    g_assert_false(try_connect(f, f->pair->source, 0, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(err->message, "it does not know this job"));
    g_clear_error(&err);
    /* No daemon there. */
    channel_host_free(f->pair->host);
    f->pair->host = NULL;
    int fds[2];
    channel_local_pair(&fds[0], &fds[1]);
    vz_carrier_connect_request request = {
        .host = "127.0.0.1",
        .port = port,
        .purpose = VZ_PURPOSE_MEMORY,
        .take_local_fd = fds[0],
        .owner_pidfd = -1,
        .deadline_us = vz_now_us() + 5 * G_USEC_PER_SEC,
    };
    g_assert_false(vz_carrier_connect(f->pair->source, &request, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_autofree char *text =
        g_strdup_printf("unable to connect to 127.0.0.1 port %u: connection refused (is virtvzd "
                        "running on 127.0.0.1, and is port %u its data port?)",
                        port, port);
    g_assert_cmpstr(err->message, ==, text);
    assert_broken(fds[1]); /* the local end was taken even so */
    close(fds[1]);
}

static void cancel(void *data)
{
    vz_inbox_cancel(data);
}

/* Someone takes the connection and says nothing, ever. */
static void test_black_hole(fixture *f, G_GNUC_UNUSED const void *data)
{
    for (int cancelled = 0; cancelled < 2; cancelled++) {
        g_autoptr(GError) err = NULL;
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t bytes = sizeof(address);
        vz_autofd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        g_assert_cmpint(bind(listener, (struct sockaddr *)&address, bytes), ==, 0);
        g_assert_cmpint(listen(listener, 1), ==, 0);
        getsockname(listener, (struct sockaddr *)&address, &bytes);
        int fds[2];
        channel_local_pair(&fds[0], &fds[1]);
        if (cancelled)
            vz_inbox_post(f->pair->inbox, VZ_TASK_DURING_JOB, cancel, f->pair->inbox, NULL);
        int64_t began_us = vz_now_us();
        vz_carrier_connect_request request = {
            .host = "127.0.0.1",
            .port = ntohs(address.sin_port),
            .purpose = VZ_PURPOSE_MEMORY,
            .take_local_fd = fds[0],
            .owner_pidfd = -1,
            .deadline_us = began_us + G_USEC_PER_SEC / 2,
        };
        g_assert_false(vz_carrier_connect(f->pair->source, &request, &err));
        int code = cancelled ? VZ_ERR_OPERATION_ABORTED : VZ_ERR_OPERATION_TIMEOUT;
        g_assert_cmpint((int)vz_error_number(err), ==, code);
        g_assert_cmpint(vz_now_us() - began_us, <, 2 * G_USEC_PER_SEC);
        close(fds[1]);
    }
    vz_inbox_uncancel(f->pair->inbox);
}

#ifndef VZ_TEST_SANITIZED
static char *proc_line(pid_t pid, const char *file, const char *start)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, file);
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++)
        if (g_str_has_prefix(*line, start)) {
            char *squeezed = g_strdup(*line);
            g_strdelimit(squeezed, "\t", ' ');
            return squeezed;
        }
    return g_strdup("");
}

static void test_confined(fixture *f, G_GNUC_UNUSED const void *data)
{
    pid_t pid = vz_carrier_pid(f->pair->source);
    g_autofree char *seccomp = proc_line(pid, "status", "Seccomp:");
    g_autofree char *privileges = proc_line(pid, "status", "NoNewPrivs:");
    g_autofree char *core = proc_line(pid, "limits", "Max core file size");
    g_assert_cmpstr(seccomp, ==, "Seccomp: 2");
    g_assert_cmpstr(privileges, ==, "NoNewPrivs: 1");
    g_assert_nonnull(strstr(core, " 0 "));
    if (geteuid() == 0) {
        g_autofree char *uid = proc_line(pid, "status", "Uid:");
        g_autofree char *capabilities = proc_line(pid, "status", "CapEff:");
        g_assert_cmpstr(uid, ==, "Uid: 65534 65534 65534 65534");
        g_assert_cmpstr(capabilities, ==, "CapEff: 0000000000000000");
    }
    g_autofree char *path = g_strdup_printf("/proc/%d/cmdline", (int)pid);
    g_autofree char *command = NULL;
    gsize n;
    g_assert_true(g_file_get_contents(path, &command, &n, NULL));
    g_assert_null(memmem(command, n, "PRIVATE", 7));
}
#endif

#define ADD(name, fn) g_test_add("/carrier/" name, fixture, NULL, set_up, fn, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_assert_nonnull(g_getenv("VZ_TEST_CARRIER"));
    ADD("both-ways", test_both_ways);
    ADD("many-channels", test_many_channels);
    ADD("half-close", test_half_close);
    ADD("close-is-clean", test_close_is_clean);
    ADD("carrier-killed", test_carrier_killed);
    ADD("sender-killed-tcp", test_sender_killed_tcp);
    ADD("abort", test_abort);
    ADD("local-end-comes-late", test_local_end_comes_late);
    ADD("owner-died", test_owner_died);
    ADD("adopt", test_adopt);
    ADD("orphan-exits", test_orphan_exits);
    ADD("wrong-keys", test_wrong_keys);
    ADD("accepted-once", test_accepted_once);
    ADD("unreachable", test_unreachable);
    ADD("black-hole", test_black_hole);
#ifndef VZ_TEST_SANITIZED
    ADD("confined", test_confined);
#endif
    return g_test_run();
}
