/* test_base.c - errors, text, waiting, spawning, durable files. */
#include "base/error.h"
#include "base/fd.h"
#include "base/spawn.h"
#include "base/text.h"
#include "base/wait.h"

#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static void test_error_prefix(void)
{
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_fail(&err, VZ_ERR_OPERATION_INVALID, "domain is not running"));
    g_autofree char *text = vz_error_text(err);
    g_assert_cmpstr(text, ==, "Requested operation is not valid: domain is not running");
    g_autoptr(GError) again = NULL;
    vz_fail_from_peer(&again, 55, text);
    g_assert_cmpstr(again->message, ==, "domain is not running");
}

/* One that has no prefix, though its code has one, gets none, here and when a peer passes it on. */
static void test_error_bare(void)
{
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_fail_flags(&err, 0x40, "virDomainCreate"));
    g_assert_cmpint(vz_error_number(err), ==, VZ_ERR_INVALID_ARG);
    g_autofree char *text = vz_error_text(err);
    g_assert_cmpstr(text, ==, "unsupported flags (0x40) in function virDomainCreate");
    g_autoptr(GError) again = NULL;
    vz_fail_from_peer(&again, VZ_ERR_INVALID_ARG, text);
    g_autofree char *passed_on = vz_error_text(again);
    g_assert_cmpstr(passed_on, ==, text);
    g_assert_cmpint(vz_error_number(again), ==, VZ_ERR_INVALID_ARG);
}

static void test_uuid(void)
{
    uint8_t uuid[VZ_UUID_BYTES];
    char text[VZ_UUID_TEXT_BYTES];
    g_assert_true(vz_uuid_parse("90D73E52-dfc9-4059-afcd-88fc67d4bffb", uuid));
    vz_uuid_format(uuid, text);
    g_assert_cmpstr(text, ==, "90d73e52-dfc9-4059-afcd-88fc67d4bffb");
    g_assert_false(vz_uuid_parse("90d73e52", uuid));
    g_assert_false(vz_uuid_parse("90d73e52-dfc9-4059-afcd-88fc67d4bffb0", uuid));
    g_assert_false(vz_uuid_parse("90d73e52-dfc9-4059-afcd-88fc67d4bff\n", uuid));
}

static void note(void *data)
{
    g_ptr_array_add(((GPtrArray **)data)[0], ((void **)data)[1]);
}

static bool has_two(void *data)
{
    return ((GPtrArray *)data)->len == 2;
}

/* Inside a wait only DURING_JOB tasks run; the others keep their order behind it. */
static void test_wait_serves_job_tasks_only(void)
{
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autoptr(GPtrArray) seen = g_ptr_array_new();
    char normal_name[] = "normal", abort_name[] = "abort", suspend_name[] = "suspend";
    void *normal[2] = {seen, normal_name};
    void *abort_[2] = {seen, abort_name};
    void *suspend[2] = {seen, suspend_name};
    vz_inbox_post(inbox, VZ_TASK_NORMAL, note, normal, NULL);
    vz_inbox_post(inbox, VZ_TASK_DURING_JOB, note, abort_, NULL);
    vz_inbox_post(inbox, VZ_TASK_DURING_JOB, note, suspend, NULL);
    g_assert_cmpint(vz_wait(inbox, has_two, seen, vz_now_us() + 5000000), ==, VZ_WAIT_DONE);
    g_assert_cmpstr(seen->pdata[0], ==, "abort");
    g_assert_cmpstr(seen->pdata[1], ==, "suspend");
    vz_inbox_cancel(inbox);
    g_assert_cmpint(vz_wait(inbox, NULL, NULL, vz_now_us() + 5000000), ==, VZ_WAIT_CANCELLED);
    g_assert_cmpint(vz_wait_uncancellable(inbox, NULL, NULL, vz_now_us()), ==, VZ_WAIT_TIMEOUT);
}

static void read_byte(int fd, short revents, void *data)
{
    g_assert_true(revents & POLLIN);
    g_assert_cmpint(read(fd, data, 1), ==, 1);
}

static bool byte_came(void *data)
{
    return *(char *)data != 0;
}

static void test_wait_serves_watches(void)
{
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    int ends[2];
    char byte = 0;
    g_assert_cmpint(pipe(ends), ==, 0);
    vz_inbox_watch(inbox, ends[0], POLLIN, read_byte, &byte);
    g_assert_cmpint(write(ends[1], "x", 1), ==, 1);
    g_assert_cmpint(vz_wait(inbox, byte_came, &byte, vz_now_us() + 5000000), ==, VZ_WAIT_DONE);
    g_assert_cmpint(byte, ==, 'x');
    close(ends[0]);
    close(ends[1]);
}

static void test_spawn_reports_exec_failure(void)
{
    const char *const argv[] = {"/no/such/program", NULL};
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_run(argv, vz_now_us() + 5000000, NULL, &err));
    g_assert_nonnull(strstr(err->message, "/no/such/program"));
}

static void test_run(void)
{
    const char *const ok[] = {"sh", "-c", "echo out; echo oops >&2", NULL};
    const char *const bad[] = {"sh", "-c", "echo first >&2; echo why >&2; exit 3", NULL};
    const char *const slow[] = {"sleep", "60", NULL};
    g_autoptr(GError) err = NULL;
    g_autofree char *out = NULL;
    g_assert_true(vz_run(ok, vz_now_us() + 5000000, &out, &err));
    g_assert_cmpstr(out, ==, "out\n");
    g_assert_false(vz_run(bad, vz_now_us() + 5000000, NULL, &err));
    g_assert_nonnull(strstr(err->message, "status 3: why"));
    g_clear_error(&err);
    g_assert_false(vz_run(slow, vz_now_us() + 100000, NULL, &err));
    g_assert_cmpint(err->code, ==, VZ_ERR_OPERATION_TIMEOUT);
}

static void test_spawn_passes_fds(void)
{
    int ends[2];
    g_assert_cmpint(pipe(ends), ==, 0);
    const char *const argv[] = {"sh", "-c", "echo four >&4", NULL};
    int fds[2] = {ends[1], ends[1]};
    vz_spawn_options options = {
        .argv = argv, .fds = fds, .n_fds = 2, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    pid_t pid;
    vz_autofd pidfd = -1;
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_spawn(&options, &pid, &pidfd, &err));
    close(ends[1]);
    char text[16] = "";
    g_assert_cmpint(read(ends[0], text, sizeof(text) - 1), ==, 5);
    g_assert_cmpstr(text, ==, "four\n");
    close(ends[0]);
    g_assert_cmpuint(vz_process_start_time(getpid()), >, 0);
}

static void test_durable_file(void)
{
    g_autofree char *dir = g_dir_make_tmp("vz-base-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "file", NULL);
    g_autoptr(GError) err = NULL;
    g_autofree char *text = NULL;
    g_assert_true(vz_file_write_durable(path, "one", 3, 0600, &err));
    g_assert_true(vz_file_write_durable(path, "two", 3, 0600, &err));
    g_assert_true(vz_file_read(path, 3, &text, NULL, &err));
    g_assert_cmpstr(text, ==, "two");
    g_assert_false(vz_file_read(path, 2, &text, NULL, &err));
    g_clear_error(&err);
    g_assert_true(vz_file_remove_durable(path, &err));
    g_assert_true(vz_file_remove_durable(path, &err));
    g_rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/base/error/prefix", test_error_prefix);
    g_test_add_func("/base/error/bare", test_error_bare);
    g_test_add_func("/base/text/uuid", test_uuid);
    g_test_add_func("/base/wait/job-tasks", test_wait_serves_job_tasks_only);
    g_test_add_func("/base/wait/watches", test_wait_serves_watches);
    g_test_add_func("/base/spawn/exec-failure", test_spawn_reports_exec_failure);
    g_test_add_func("/base/spawn/run", test_run);
    g_test_add_func("/base/spawn/fds", test_spawn_passes_fds);
    g_test_add_func("/base/fd/durable", test_durable_file);
    return g_test_run();
}
