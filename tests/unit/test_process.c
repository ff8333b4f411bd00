/* test_process.c - starting, adopting and ending QEMU when it does not do its part: fakes/qemu. The
 * real one is tested by real/test_qemu_process.c. */
#include "driver/qemu/log.h"
#include "driver/qemu/process.h"

#include "base/fd.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECOND_US ((int64_t)1000000)

static char *dir;
static char *emulator;
static vz_qemu_host host;
static vz_inbox *inbox;

static const char *unavailable;

static bool skipped(void)
{
    if (unavailable)
        g_test_skip(unavailable);
    return unavailable != NULL;
}

static vz_def *make_def(const char *name)
{
    vz_def_host def_host = {.arch = "x86_64", .emulator = emulator, .default_machine = "pc"};
    g_autofree char *xml =
        g_strdup_printf("<domain type='qemu'><name>%s</name><memory>65536</memory><os>"
                        "<type arch='x86_64' machine='pc-i440fx-10.0'>hvm</type></os></domain>",
                        name);
    g_autoptr(GError) err = NULL;
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &def_host, &err);
    g_assert_no_error(err);
    return def;
}

typedef struct {
    GString *events;
    int exits;
} seen;

static void on_event(vz_qemu *qemu, const vz_qmp_event *event, void *user)
{
    (void)qemu;
    g_string_append_printf(((seen *)user)->events, "%s ", event->name);
}

static void on_exit_hook(vz_qemu *qemu, void *user)
{
    (void)qemu;
    ((seen *)user)->exits++;
}

static bool exited(void *data)
{
    return ((seen *)data)->exits > 0;
}

static vz_qemu *start(const char *name, seen *s, vz_def **ret_live, GError **err)
{
    g_autoptr(vz_def) def = make_def(name);
    s->events = g_string_new(NULL);
    vz_qemu_start_request request = {
        .host = &host, .def = def, .inbox = inbox, .hooks = {on_event, on_exit_hook, s}};
    return vz_qemu_start(&request, ret_live, err);
}

static vz_qemu *start_ok(const char *name, seen *s, vz_def **ret_live)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = start(name, s, ret_live, &err);
    g_assert_no_error(err);
    return qemu;
}

static void check_start_fails(const char *name, int code, const char *text)
{
    seen s = {0};
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_null(start(name, &s, &live, &err));
    g_assert_null(live);
    g_assert_error(err, VZ_ERROR, code);
    if (!strstr(err->message, text))
        g_error("'%s' is not in: %s", text, err->message);
    g_assert_cmpint(s.exits, ==, 0);
    g_string_free(s.events, TRUE);
    g_autoptr(GDir) left = g_dir_open(host.run_dir, 0, NULL);
    g_assert_nonnull(left);
    g_assert_null(g_dir_read_name(left));
}

static void test_bad_starts(void)
{
    if (skipped())
        return;
    check_start_fails("dies", VZ_ERR_INTERNAL_ERROR,
                      "process exited while connecting to monitor: fake: this is no machine");
    check_start_fails("quits", VZ_ERR_INTERNAL_ERROR, "fake: out of here");
    check_start_fails("garbage", VZ_ERR_OPERATION_FAILED, "not QMP");
    int64_t usual_us = host.start_timeout_us;
    host.start_timeout_us = SECOND_US / 2;
    int64_t before_us = vz_now_us();
    check_start_fails("hangs", VZ_ERR_OPERATION_TIMEOUT, "did not greet");
    g_assert_cmpint(vz_now_us() - before_us, <, 5 * SECOND_US);
    host.start_timeout_us = usual_us;
}

static void test_hooks_and_exit(void)
{
    if (skipped())
        return;
    seen s = {0};
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = start_ok("well", &s, &live);
    g_assert_true(vz_qemu_cont(qemu, &err));
    g_assert_cmpstr(s.events->str, ==, ""); /* not from inside the command */
    kill(vz_qemu_pid(qemu), SIGKILL);
    g_assert_cmpint(vz_wait(inbox, exited, &s, vz_now_us() + 5 * SECOND_US), ==, VZ_WAIT_DONE);
    g_assert_cmpstr(s.events->str, ==, "RESUME ");
    g_assert_false(vz_qemu_alive(qemu));
    g_assert_false(vz_qemu_stop(qemu, &err));
    g_clear_error(&err);
    g_assert_true(vz_qemu_kill(qemu, true, &err));
    g_assert_cmpint(s.exits, ==, 1);
    g_string_free(s.events, TRUE);
}

static void test_deaf(void)
{
    if (skipped())
        return;
    seen s = {0};
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = start_ok("deaf", &s, &live);
    pid_t pid = vz_qemu_pid(qemu);
    g_assert_false(vz_qemu_kill(qemu, true, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_clear_error(&err);
    g_assert_true(vz_qemu_alive(qemu));
    g_assert_true(vz_qemu_cont(qemu, &err)); /* still of use */
    g_assert_true(vz_qemu_kill(qemu, false, &err));
    g_assert_cmpint(kill(pid, 0), ==, -1);
    g_assert_cmpint(s.exits, ==, 0);
    g_string_free(s.events, TRUE);
}

static void test_adopt(void)
{
    if (skipped())
        return;
    seen s = {0};
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = start_ok("well", &s, &live);
    vz_qemu_adopt_request request = {
        .host = &host,
        .live = live,
        .pid = vz_qemu_pid(qemu),
        .start_time = vz_qemu_start_time(qemu),
        .inbox = inbox,
        .hooks = {on_event, on_exit_hook, &s},
    };
    vz_qemu_release(qemu);
    for (int i = 0; i < 3; i++) {
        bool ended = true;
        qemu = vz_qemu_adopt(&request, &ended, &err);
        g_assert_no_error(err);
        g_assert_false(ended);
        g_assert_true(vz_qemu_cont(qemu, &err));
        if (i < 2)
            vz_qemu_release(qemu);
    }
    g_assert_true(vz_qemu_kill(qemu, false, &err));
    g_string_free(s.events, TRUE);
}

static char *log_path(void)
{
    return g_build_filename(host.log_dir, "one_two.log", NULL);
}

static void test_log(void)
{
    g_autofree char *path = log_path();
    g_autofree char *old = g_strconcat(path, ".1", NULL);
    g_autoptr(GError) err = NULL;
    g_assert_cmpint(g_mkdir_with_parents(host.log_dir, 0755), ==, 0);
    g_autofree char *big = g_strnfill((gsize)VZ_QEMU_LOG_ROTATE_BYTES + 1, 'x');
    g_assert_true(g_file_set_contents(path, big, -1, NULL));

    g_autoptr(vz_qemu_log) log = vz_qemu_log_open(host.log_dir, "one/two", &err);
    g_assert_no_error(err);
    struct stat st;
    g_assert_cmpint(stat(old, &st), ==, 0);
    g_assert_cmpint(st.st_size, >, VZ_QEMU_LOG_ROTATE_BYTES);
    static const char *const argv[] = {"/bin/qemu", "-append", "a b", NULL};
    vz_qemu_log_begin(log, "starts", argv);
    g_autofree char *nothing = vz_qemu_log_tail(log);
    g_assert_cmpstr(nothing, ==, "");

    static const char said[] = "2025-11-21T22:10:11.123456Z qemu: one\n\nchar device redirected to "
                               "/dev/pts/3 (label c)\nZ two\n";
    g_assert_true(vz_fd_write_all(vz_qemu_log_fd(log), said, strlen(said), &err));
    g_autofree char *tail = vz_qemu_log_tail(log);
    g_assert_cmpstr(tail, ==, "qemu: one; Z two");
    /* The next daemon finds the same, and leaves the file where QEMU writes. */
    g_autoptr(vz_qemu_log) again = vz_qemu_log_reopen(host.log_dir, "one/two", &err);
    g_assert_no_error(err);
    g_autofree char *same = vz_qemu_log_tail(again);
    g_assert_cmpstr(same, ==, "qemu: one; Z two");

    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_assert_nonnull(strstr(text, "/bin/qemu \\\n-append 'a b'\n"));
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_mode & 0777, ==, 0600);
}

/* A guest that makes QEMU write without end fills no disk. */
static void test_log_is_cut(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_qemu_log) log = vz_qemu_log_open(host.log_dir, "flood", &err);
    g_assert_no_error(err);
    vz_qemu_log_watch(log, inbox);
    g_autofree char *lines = g_strnfill(65536, 'y');
    lines[65535] = '\n';
    for (int i = 0; i < 200; i++) {
        g_assert_true(vz_fd_write_all(vz_qemu_log_fd(log), lines, 65536, &err));
        vz_wait(inbox, NULL, NULL, vz_now_us());
        vz_wait(inbox, NULL, NULL, vz_now_us() + 1000);
    }
    struct stat st;
    g_assert_cmpint(fstat(vz_qemu_log_fd(log), &st), ==, 0);
    g_assert_cmpint(st.st_size, <=, VZ_QEMU_LOG_CUT_BYTES + 65536);
    g_autofree char *tail = vz_qemu_log_tail(log);
    g_assert_cmpuint(strlen(tail), <=, 2048);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autofree char *python = g_find_program_in_path("python3");
    unavailable = python ? NULL : "the fake QEMU needs python3";
    g_autofree char *relative = g_test_build_filename(G_TEST_DIST, "fakes", "qemu", NULL);
    emulator = g_canonicalize_filename(relative, NULL);
    dir = g_dir_make_tmp("vz-process-XXXXXX", NULL);
    g_autofree char *run_dir = g_build_filename(dir, "run", NULL);
    g_autofree char *log_dir = g_build_filename(dir, "log", NULL);
    host = vz_qemu_host_default;
    host.run_dir = run_dir;
    host.log_dir = log_dir;
    host.user = ""; /* the test's own */
    host.term_timeout_us = SECOND_US / 2;
    inbox = vz_inbox_new();
    g_autoptr(GError) err = NULL;
    vz_qemu_caps_settings settings = {.accel = "tcg"};
    g_assert_true(vz_qemu_caps_setup(&settings, &err));
    g_test_add_func("/process/bad-starts", test_bad_starts);
    g_test_add_func("/process/hooks-and-exit", test_hooks_and_exit);
    g_test_add_func("/process/deaf", test_deaf);
    g_test_add_func("/process/adopt", test_adopt);
    g_test_add_func("/process/log", test_log);
    g_test_add_func("/process/log-is-cut", test_log_is_cut);
    int rc = g_test_run();
    vz_inbox_free(inbox);
    g_autofree char *remove = g_strdup_printf("rm -r '%s'", dir);
    g_spawn_command_line_sync(remove, NULL, NULL, NULL, NULL);
    g_free(dir);
    g_free(emulator);
    return rc;
}
