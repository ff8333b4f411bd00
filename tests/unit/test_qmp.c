/* test_qmp.c - the QMP client against a fake QEMU: a thread at the other end of a socketpair that
 * follows a script of what to await and what to say, byte for byte. */
#include "driver/qemu/qmp.h"

#include "base/fd.h"

#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SECOND_US ((int64_t)1000000)
#define GREETING                                                                                   \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 13, \"minor\": 0, \"major\": 10}, "            \
    "\"package\": \"Debian\"}, \"capabilities\": [\"oob\"]}}\r\n"
#define NEGOTIATED "{\"return\": {}, \"id\": 1}\r\n"

typedef enum {
    SAY,       /* writes the text */
    AWAIT,     /* reads until a line contains the text */
    AWAIT_FD,  /* the same, and a descriptor came along: writes "x" to it */
    SAY_MANY,  /* writes the text `count` times */
    SAY_NOISE, /* `count` bytes without a newline */
    PAUSE,     /* count milliseconds */
    END,       /* closes */
} act;

typedef struct {
    act act;
    const char *text;
    int count;
} line;

typedef struct {
    int fd;
    const line *script;
    GThread *thread;
} fake;

static void fake_say(int fd, const char *text, size_t bytes)
{
    g_autoptr(GError) err = NULL;
    vz_fd_write_all(fd, text, bytes, &err); /* a client that has gone is not the fake's concern */
}

static void fake_await(int fd, const char *text, bool with_fd)
{
    char buffer[65536];
    size_t have = 0;
    int fds[VZ_FD_PASS_MAX];
    size_t n_fds = 0;
    while (have == 0 || buffer[have - 1] != '\n') {
        g_autoptr(GError) err = NULL;
        size_t n_new = 0;
        int new_fds[VZ_FD_PASS_MAX];
        ssize_t n =
            vz_fd_receive(fd, buffer + have, sizeof(buffer) - 1 - have, new_fds, &n_new, &err);
        g_assert_cmpint(n, >, 0);
        for (size_t i = 0; i < n_new; i++)
            fds[n_fds++] = new_fds[i];
        have += (size_t)n;
    }
    buffer[have] = '\0';
    g_assert_nonnull(strstr(buffer, text));
    g_assert_cmpuint(n_fds, ==, with_fd ? 1 : 0);
    if (with_fd) {
        fake_say(fds[0], "x", 1);
        close(fds[0]);
    }
}

static void fake_noise(int fd, int bytes)
{
    g_autofree char *noise = g_malloc((size_t)bytes);
    memset(noise, 'a', (size_t)bytes);
    fake_say(fd, noise, (size_t)bytes);
}

static void *fake_run(void *data)
{
    fake *f = data;
    for (const line *l = f->script; l->act != END; l++) {
        switch (l->act) {
        case SAY_MANY:
            for (int i = 0; i < l->count; i++)
                fake_say(f->fd, l->text, strlen(l->text));
            break;
        case SAY_NOISE:
            fake_noise(f->fd, l->count);
            break;
        case PAUSE:
            g_usleep((gulong)l->count * 1000);
            break;
        case AWAIT:
        case AWAIT_FD:
            fake_await(f->fd, l->text, l->act == AWAIT_FD);
            break;
        case SAY:
        case END:
            fake_say(f->fd, l->text, strlen(l->text));
            break;
        }
    }
    close(f->fd);
    return NULL;
}

/* The client's end; the script's text must stay while it runs. */
static int fake_start(fake *f, const line *script)
{
    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    f->fd = pair[1];
    f->script = script;
    f->thread = g_thread_new("fake-qemu", fake_run, f);
    return pair[0];
}

static vz_qmp *open_fake(fake *f, const line *script)
{
    g_autoptr(GError) err = NULL;
    vz_qmp *qmp = vz_qmp_open(fake_start(f, script), vz_now_us() + 5 * SECOND_US, &err);
    g_assert_no_error(err);
    g_assert_nonnull(qmp);
    return qmp;
}

typedef struct {
    GString *names;
    int closed;
    vz_qmp *qmp; /* not NULL: sends a command from inside the event */
    int64_t last_us;
} seen;

static void on_event(const vz_qmp_event *event, void *user)
{
    seen *s = user;
    g_string_append_printf(s->names, "%s ", event->name);
    s->last_us = event->qemu_time_us;
    if (s->qmp && strcmp(event->name, "STOP") == 0) {
        g_autoptr(GError) err = NULL;
        g_assert_true(vz_qmp_do(s->qmp, "inner", NULL, SECOND_US, &err));
        g_string_append(s->names, "(inner done) ");
    }
}

static void on_closed(void *user)
{
    ((seen *)user)->closed++;
}

static bool is_closed(void *user)
{
    return ((seen *)user)->closed > 0;
}

static const vz_qmp_hooks hooks = {on_event, on_closed};

static void test_greeting_and_command(void)
{
    static const line script[] = {
        {SAY, "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 13, \"mi", 0}, /* half a line */
        {PAUSE, "", 20},
        {SAY, "nor\": 0, \"major\": 10}, \"package\": \"Debian\"}, \"capabilities\": []}}\r\n", 0},
        {AWAIT, "qmp_capabilities", 0},
        {SAY, NEGOTIATED, 0},
        {AWAIT, "{\"execute\":\"query-x\",\"arguments\":{\"a\":1},\"id\":2}\n", 0},
        {SAY, "{\"return\": {\"b\": 7}, \"id\": 2}\r\n", 0},
        {AWAIT, "{\"execute\":\"no-args\",\"id\":3}\n", 0},
        {SAY, "{\"return\": [], \"id\": 3}\r\n", 0},
        {AWAIT, "{\"execute\":\"in-its-turn\",\"id\":4}\n", 0},
        {SAY, "{\"return\": {}, \"id\": 4}\r\n", 0},
        {END, "", 0},
    };
    fake f;
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    g_assert_cmpuint(vz_qmp_version(qmp), ==, 10000013);
    g_assert_cmpstr(vz_qmp_package(qmp), ==, "Debian");
    g_autoptr(GError) err = NULL;
    json_t *value = vz_qmp_command(qmp, "query-x", json_pack("{s:i}", "a", 1), SECOND_US, &err);
    g_assert_cmpint(json_integer_value(json_object_get(value, "b")), ==, 7);
    json_decref(value);
    g_assert_true(vz_qmp_do(qmp, "no-args", NULL, SECOND_US, &err));
    g_assert_true(vz_qmp_do_out_of_band(qmp, "in-its-turn", NULL, SECOND_US, &err));
    g_thread_join(f.thread);
}

static void test_error_text(void)
{
    static const line script[] = {
        {SAY, GREETING, 0},
        {AWAIT, "qmp_capabilities", 0},
        {SAY, NEGOTIATED, 0},
        {AWAIT, "cont", 0},
        {SAY, "{\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"No way\"}}\r\n", 0},
        {AWAIT, "stop", 0},
        {SAY, "{\"return\": {}, \"id\": 3}\r\n", 0},
        {END, "", 0},
    };
    fake f;
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_qmp_do(qmp, "cont", NULL, SECOND_US, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_assert_cmpstr(err->message, ==, "unable to execute QEMU command 'cont': No way");
    g_assert_cmpstr(vz_qmp_error_class(qmp), ==, "GenericError");
    g_clear_error(&err);
    g_assert_true(vz_qmp_do(qmp, "stop", NULL, SECOND_US, &err));
    g_assert_cmpstr(vz_qmp_error_class(qmp), ==, "");
    g_thread_join(f.thread);
}

/* Events that come in the middle of a command are delivered by the next wait, and in order; a
 * command from inside an event works, and its own events come later. */
static void test_events(void)
{
    static const line script[] = {
        {SAY, GREETING, 0},
        {AWAIT, "qmp_capabilities", 0},
        {SAY, NEGOTIATED, 0},
        {AWAIT, "outer", 0},
        {SAY,
         "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 5}, \"event\": \"STOP\"}\r\n"
         "{\"event\": \"RESUME\"}\r\n{\"return\": {}, \"id\": 2}\r\n",
         0},
        {AWAIT, "inner", 0},
        {SAY, "{\"event\": \"LATER\", \"data\": {}}\r\n{\"return\": {}, \"id\": 3}\r\n", 0},
        {END, "", 0},
    };
    fake f;
    seen s = {.names = g_string_new(NULL)};
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    s.qmp = qmp;
    vz_qmp_attach(qmp, inbox, &hooks, &s);
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_qmp_do(qmp, "outer", NULL, SECOND_US, &err));
    g_assert_cmpstr(s.names->str, ==, "");
    g_assert_cmpint(vz_wait(inbox, is_closed, &s, vz_now_us() + 5 * SECOND_US), ==, VZ_WAIT_DONE);
    g_assert_cmpstr(s.names->str, ==, "STOP (inner done) RESUME LATER ");
    g_assert_cmpint(s.closed, ==, 1);
    g_thread_join(f.thread);
    g_string_free(s.names, TRUE);
}

static void test_event_stamp(void)
{
    static const line script[] = {
        {SAY, GREETING, 0},
        {AWAIT, "qmp_capabilities", 0},
        {SAY, NEGOTIATED, 0},
        {SAY,
         "{\"timestamp\": {\"seconds\": 1700000000, \"microseconds\": 5}, \"event\": \"A\"}\r\n",
         0},
        {END, "", 0},
    };
    fake f;
    seen s = {.names = g_string_new(NULL)};
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    vz_qmp_attach(qmp, inbox, &hooks, &s);
    vz_wait(inbox, is_closed, &s, vz_now_us() + 5 * SECOND_US);
    g_assert_cmpint(s.last_us, ==, 1700000000000005);
    g_thread_join(f.thread);
    g_string_free(s.names, TRUE);
}

/* A QEMU that hangs costs the deadline, no more; its late reply is not taken for another's. */
static void test_late_reply(void)
{
    static const line script[] = {
        {SAY, GREETING, 0},
        {AWAIT, "qmp_capabilities", 0},
        {SAY, NEGOTIATED, 0},
        {AWAIT, "slow", 0},
        {AWAIT, "quick", 0},
        {SAY, "{\"return\": {\"of\": \"slow\"}, \"id\": 2}\r\n", 0},
        {SAY, "{\"return\": {\"of\": \"quick\"}, \"id\": 3}\r\n", 0},
        {END, "", 0},
    };
    fake f;
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    g_autoptr(GError) err = NULL;
    int64_t before_us = vz_now_us();
    g_assert_false(vz_qmp_do(qmp, "slow", NULL, SECOND_US / 10, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
    g_assert_cmpint(vz_now_us() - before_us, <, 2 * SECOND_US);
    g_clear_error(&err);
    json_t *value = vz_qmp_command(qmp, "quick", NULL, SECOND_US, &err);
    g_assert_cmpstr(json_string_value(json_object_get(value, "of")), ==, "quick");
    json_decref(value);
    g_thread_join(f.thread);
}

/* What goes out of band goes also while QEMU's main loop hangs; and nothing else is sent to it
 * without end, since it would stop reading. */
static void test_out_of_band(void)
{
    static const line script[] = {
        {SAY, GREETING, 0},
        {AWAIT, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]},\"id\":1}",
         0},
        {SAY, NEGOTIATED, 0},
        {AWAIT, "hung", 0},
        {AWAIT, "hung", 0},
        {AWAIT, "hung", 0},
        {AWAIT, "{\"execute\":\"hung\",\"id\":5}", 0},
        {AWAIT, "{\"exec-oob\":\"urgent\",\"id\":6}", 0},
        {SAY, "{\"return\": {}, \"id\": 6}\r\n", 0},
        {PAUSE, "", 300},
        {SAY, "{\"return\": {}, \"id\": 2}\r\n{\"return\": {}, \"id\": 3}\r\n", 0},
        {AWAIT, "{\"execute\":\"again\",\"id\":7}", 0},
        {SAY, "{\"return\": {}, \"id\": 7}\r\n", 0},
        {END, "", 0},
    };
    fake f;
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    for (int i = 0; i < VZ_QMP_UNANSWERED_MAX + 1; i++) {
        g_assert_false(vz_qmp_do(qmp, "hung", NULL, SECOND_US / 20, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
        g_clear_error(&err);
    }
    g_assert_true(vz_qmp_do_out_of_band(qmp, "urgent", NULL, SECOND_US, &err));
    g_assert_true(vz_qmp_do(qmp, "again", NULL, 5 * SECOND_US, &err));
    g_thread_join(f.thread);
}

static void check_open_fails(const line *script, int code, const char *text)
{
    fake f;
    g_autoptr(GError) err = NULL;
    int fd = fake_start(&f, script);
    g_assert_null(vz_qmp_open(fd, vz_now_us() + SECOND_US / 2, &err));
    g_assert_error(err, VZ_ERROR, code);
    g_assert_nonnull(strstr(err->message, text));
    g_thread_join(f.thread);
}

static void test_bad_greetings(void)
{
    static const line closes[] = {{SAY, "{\"QMP\": {\"ver", 0}, {END, "", 0}};
    check_open_fails(closes, VZ_ERR_OPERATION_FAILED, "QEMU closed the monitor");
    static const line silent[] = {{PAUSE, "", 700}, {END, "", 0}};
    check_open_fails(silent, VZ_ERR_OPERATION_TIMEOUT, "did not greet");
    static const line garbage[] = {{SAY, "HTTP/1.0 200 OK\r\n", 0}, {PAUSE, "", 50}, {END, "", 0}};
    check_open_fails(garbage, VZ_ERR_OPERATION_FAILED, "not QMP");
    static const line unversioned[] = {{SAY, "{\"QMP\": 3}\r\n", 0}, {PAUSE, "", 50}, {END, "", 0}};
    check_open_fails(unversioned, VZ_ERR_INTERNAL_ERROR, "names no version");
}

/* Sends one command to a QEMU that answers `answer`, and expects the connection to be broken. */
static void check_breaks(const line *script, const char *text)
{
    fake f;
    seen s = {.names = g_string_new(NULL)};
    g_autoptr(vz_inbox) inbox = vz_inbox_new();
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    vz_qmp_attach(qmp, inbox, &hooks, &s);
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_qmp_do(qmp, "cont", NULL, 10 * SECOND_US, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_INTERNAL_ERROR);
    g_assert_nonnull(strstr(err->message, text));
    g_assert_true(vz_qmp_broken(qmp));
    g_clear_error(&err);
    g_assert_false(vz_qmp_do(qmp, "cont", NULL, SECOND_US, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_INTERNAL_ERROR);
    g_assert_cmpint(s.closed, ==, 0); /* told by a wait, not from inside a command */
    g_assert_cmpint(vz_wait(inbox, is_closed, &s, vz_now_us() + SECOND_US), ==, VZ_WAIT_DONE);
    g_assert_cmpint(vz_wait(inbox, NULL, NULL, vz_now_us() + SECOND_US / 20), ==, VZ_WAIT_TIMEOUT);
    g_assert_cmpint(s.closed, ==, 1);
    vz_qmp_close(g_steal_pointer(&qmp));
    g_thread_join(f.thread);
    g_string_free(s.names, TRUE);
}

#define UP_TO_CONT                                                                                 \
    {SAY, GREETING, 0}, {AWAIT, "qmp_capab", 0}, {SAY, NEGOTIATED, 0},                             \
    {                                                                                              \
        AWAIT, "cont", 0                                                                           \
    }

static void test_breakage(void)
{
    static const line dies[] = {UP_TO_CONT, {SAY, "{\"retu", 0}, {END, "", 0}};
    check_breaks(dies, "QEMU closed the monitor");
    static const line garbage[] = {UP_TO_CONT, {SAY, "}{\r\n", 0}, {PAUSE, "", 50}, {END, "", 0}};
    check_breaks(garbage, "not QMP");
    static const line array[] = {UP_TO_CONT, {SAY, "[1]\r\n", 0}, {PAUSE, "", 50}, {END, "", 0}};
    check_breaks(array, "not an object");
    static const line unsent[] = {
        UP_TO_CONT, {SAY, "{\"return\": {}, \"id\": 9}\r\n", 0}, {PAUSE, "", 50}, {END, "", 0}};
    check_breaks(unsent, "was not sent");
    static const line unnamed[] = {
        UP_TO_CONT, {SAY, "{\"event\": 5}\r\n", 0}, {PAUSE, "", 50}, {END, "", 0}};
    check_breaks(unnamed, "without a name");
    static const line flood[] = {
        UP_TO_CONT, {SAY_MANY, "{\"event\": \"E\"}\r\n", VZ_QMP_EVENTS_MAX + 1}, {END, "", 0}};
    check_breaks(flood, "events at once");
    static const line endless[] = {
        UP_TO_CONT, {SAY_NOISE, "", (int)VZ_QMP_LINE_MAX + 65536}, {END, "", 0}};
    check_breaks(endless, "longer than");
    static const line deep[] = {
        UP_TO_CONT, {SAY_MANY, "[", 100000}, {SAY, "\r\n", 0}, {END, "", 0}};
    check_breaks(deep, "not QMP");
}

static void test_passing(void)
{
    static const line script[] = {
        {SAY, GREETING, 0},
        {AWAIT, "qmp_capabilities", 0},
        {SAY, NEGOTIATED, 0},
        {AWAIT_FD, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"mig\"},\"id\":2}", 0},
        {SAY, "{\"return\": {}, \"id\": 2}\r\n", 0},
        {AWAIT_FD, "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":4},\"id\":3}", 0},
        {SAY, "{\"return\": {\"fdset-id\": 4, \"fd\": 9}, \"id\": 3}\r\n", 0},
        {END, "", 0},
    };
    fake f;
    g_autoptr(vz_qmp) qmp = open_fake(&f, script);
    int pipes[2];
    g_assert_cmpint(pipe(pipes), ==, 0);
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_qmp_send_fd(qmp, "mig", pipes[1], &err));
    g_assert_true(vz_qmp_add_fd(qmp, 4, pipes[1], &err));
    close(pipes[1]);
    char got[4];
    g_assert_cmpint(read(pipes[0], got, sizeof(got)), ==, 2);
    close(pipes[0]);
    g_thread_join(f.thread);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qmp/greeting-and-command", test_greeting_and_command);
    g_test_add_func("/qmp/error-text", test_error_text);
    g_test_add_func("/qmp/events", test_events);
    g_test_add_func("/qmp/event-stamp", test_event_stamp);
    g_test_add_func("/qmp/late-reply", test_late_reply);
    g_test_add_func("/qmp/out-of-band", test_out_of_band);
    g_test_add_func("/qmp/bad-greetings", test_bad_greetings);
    g_test_add_func("/qmp/breakage", test_breakage);
    g_test_add_func("/qmp/passing", test_passing);
    return g_test_run();
}
