/* test_recorded.c - what earlier versions kept and sent is read, and what a later one did is
 * refused with words that help. The sets are in tests/recorded; its README says how they were made.
 *
 * A daemon may die after any line of a journal, so each beginning of a recorded one is a record
 * that the next version may find. */
#include "channel/control.h"
#include "channel/preface.h"
#include "domain/store.h"
#include "domain/table.h"
#include "migrate/cookie.h"
#include "migrate/destination.h"
#include "migrate/journal.h"
#include "migrate/service.h"
#include "migrate/source.h"
#include "migrate/trail.h"
#include "storage/lease.h"
#include "storage/probe_call.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>

#define DOMAIN "9a268302-4a59-54c4-aff2-11ef9c537906"
#define JOB_1  "/57364267-8ca8-449a-bfff-8e7efa4d9556"

static const char *const sets[] = {"1", "2", "3", "4"};

static char *directory; /* of this program's own files */

static char *text_of(const char *set, const char *name)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "recorded", set, name, NULL);
    char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    return text;
}

/* A copy that may be written to; caller frees. */
static char *put(const char *name, const char *text, gssize bytes)
{
    char *path = g_build_filename(directory, name, NULL);
    g_autofree char *parent = g_path_get_dirname(path);
    g_assert_cmpint(g_mkdir_with_parents(parent, 0700), ==, 0);
    g_assert_true(g_file_set_contents(path, text, bytes, NULL));
    g_assert_cmpint(g_chmod(path, 0600), ==, 0);
    return path;
}

/* The error of a file of a later version: which file, which version, and what to do. */
static void assert_from_the_future(const GError *err, const char *path, const char *version)
{
    g_assert_nonnull(err);
    for (const char *const *words = (const char *const[]){path, version, "install", NULL}; *words;
         words++)
        if (!strstr(err->message, *words))
            g_error("'%s' does not say '%s'", err->message, *words);
}

static char *replaced(const char *text, const char *old, const char *new)
{
    g_auto(GStrv) parts = g_strsplit(text, old, 2);
    g_assert_cmpuint(g_strv_length(parts), ==, 2);
    return g_strjoinv(new, parts);
}

/* ---- journals ---- */

static const struct {
    const char *set, *name;
    vz_record states[6]; /* in the order of the file; ends with NONE */
    const char *key, *value;
} journals[] = {
    {"1", "moved.out", {VZ_RECORD_RELEASED, VZ_RECORD_ENDED}, "peer-host", "hostb"},
    {"1", "cancelled.out", {VZ_RECORD_RELEASED, VZ_RECORD_ENDED}, "was-running", "yes"},
    {"1",
     "moved.in",
     {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED, VZ_RECORD_START_ATTEMPTED,
      VZ_RECORD_STARTED},
     "peer-name",
     "hosta"},
    {"1", "cancelled.in", {VZ_RECORD_PREPARED, VZ_RECORD_ABORTED}, "facts", "10"},
    {"2", "moved.out", {VZ_RECORD_RELEASED, VZ_RECORD_ENDED}, "peer-port", "16515"},
    {"2",
     "cancelled.out",
     {VZ_RECORD_RELEASED, VZ_RECORD_TAKEN_BACK, VZ_RECORD_ENDED},
     "facts",
     "14"},
    {"2", "here.out", {VZ_RECORD_RELEASED, VZ_RECORD_RESOLVED_HERE}, "name", "web"},
    {"2",
     "there.out",
     {VZ_RECORD_RELEASED, VZ_RECORD_RESOLVED_THERE, VZ_RECORD_ENDED},
     "resolved",
     "there {\"verdict\":\"unknown\",\"record\":\"start-attempted\",\"guest\":false,"
     "\"defined\":true}"},
    {"2",
     "moved.in",
     {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED, VZ_RECORD_START_ATTEMPTED,
      VZ_RECORD_STARTED},
     "leases",
     "[\"/shared/web.img\"]"},
    {"2", "cancelled.in", {VZ_RECORD_PREPARED, VZ_RECORD_ABORTED}, "probed", "yes"},
    {"2",
     "here.in",
     {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED, VZ_RECORD_ABORTED},
     "run-on-arrival",
     "yes"},
    {"2",
     "there.in",
     {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED, VZ_RECORD_START_ATTEMPTED},
     "peer-name",
     "hosta"},
    {"3", "moved.out", {VZ_RECORD_RELEASED, VZ_RECORD_ENDED}, "facts", "14"},
    {"3", "offline.out", {VZ_RECORD_RELEASED, VZ_RECORD_ENDED}, "facts", "42"},
    {"3",
     "offline.in",
     {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED, VZ_RECORD_STARTED},
     "facts",
     "42"},
};

static vz_journal *load(const char *name, const char *text, gssize bytes)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = put(name, text, bytes);
    vz_journal *journal = vz_journal_load(path, &err);
    g_assert_no_error(err);
    return journal;
}

static void assert_value(vz_journal *journal, const char *key, const char *expected)
{
    g_autofree char *value = vz_journal_get(journal, key);
    g_assert_cmpstr(value, ==, expected);
}

/* Today's steps go on where the journal was left. */
static void assert_recoverable(vz_journal *journal)
{
    g_autoptr(GError) err = NULL;
    bool done = false;
    g_autofree char *last = vz_journal_last_step(journal, &done);
    bool out = vz_journal_side(journal) == VZ_SIDE_SOURCE;
    vz_saga saga = {.steps = out ? vz_source_steps : vz_destination_steps, .journal = journal};
    g_assert_true(vz_saga_recover(&saga, &err));
    if (!last) {
        g_assert_cmpint(saga.next, ==, 0);
        return;
    }
    int at = saga.pivoted && !done ? saga.next : saga.next - 1;
    g_assert_cmpstr(saga.steps[at].name, ==, last);
    vz_record record = vz_journal_state(journal);
    if (!out && record != VZ_RECORD_ABORTED)
        g_assert_true(!saga.pivoted || record >= VZ_RECORD_COMMITTED);
}

static void test_journals(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(journals); i++) {
        g_autofree char *text = text_of(journals[i].set, journals[i].name);
        const vz_record *next = journals[i].states;
        vz_record expected = VZ_RECORD_NONE;
        g_test_message("%s/%s", journals[i].set, journals[i].name);
        for (const char *line = text, *end; (end = strchr(line, '\n')); line = end + 1) {
            if (g_str_has_prefix(line, "state "))
                expected = *next++;
            g_autoptr(vz_journal) journal = load(journals[i].name, text, end + 1 - text);
            g_assert_cmpstr(vz_record_name(vz_journal_state(journal)), ==,
                            vz_record_name(expected));
            assert_recoverable(journal);
        }
        g_assert_cmpint(*next, ==, VZ_RECORD_NONE);
        g_autoptr(vz_journal) whole = load(journals[i].name, text, -1);
        bool out = g_str_has_suffix(journals[i].name, ".out");
        g_assert_cmpint(vz_journal_side(whole), ==, out ? VZ_SIDE_SOURCE : VZ_SIDE_DESTINATION);
        assert_value(whole, VZ_NOTE_DOMAIN, DOMAIN);
        assert_value(whole, journals[i].key, journals[i].value);
    }
}

/* What recovery looks at and version 1 did not note. */
static void test_journal_of_version_1(void)
{
    g_autofree char *text = text_of("1", "moved.in");
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_journal) journal = load("a.in", text, -1);
    assert_value(journal, VZ_NOTE_PROCESS, NULL);
    assert_value(journal, VZ_NOTE_PEER_UUID, NULL);
    assert_value(journal, VZ_NOTE_LEASES, NULL);
    g_assert_true(g_str_has_prefix(text, "virtvz-journal 1 in "));
    /* It can be gone on with. */
    g_assert_true(vz_journal_set(journal, "probed", "yes", &err));
    g_autofree char *again_path = g_strdup(vz_journal_path(journal));
    g_autoptr(vz_journal) again = vz_journal_load(again_path, &err);
    g_assert_no_error(err);
    assert_value(again, "probed", "yes");
}

static void test_journal_of_the_future(void)
{
    g_autofree char *text = text_of("2", "moved.out");
    g_autofree char *later = replaced(text, "journal 2 ", "journal 7 ");
    g_autofree char *path = put("later.out", later, -1);
    g_autofree char *left = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_journal_load(path, &err));
    assert_from_the_future(err, path, "version 7");
    g_assert_true(g_file_get_contents(path, &left, NULL, NULL));
    g_assert_cmpstr(left, ==, later);
    g_clear_error(&err);
    /* Of this version, but at a step that there is not: nothing is undone as if it were the first.
     */
    g_autofree char *strange = g_strconcat(text, "begin teleport\n", NULL);
    g_autoptr(vz_journal) journal = load("strange.out", strange, -1);
    vz_saga saga = {.steps = vz_source_steps, .journal = journal};
    g_assert_false(vz_saga_recover(&saga, &err));
    assert_from_the_future(err, vz_journal_path(journal), "'teleport'");
}

/* ---- cookies ---- */

static void read_cookie(const char *set, const char *phase, vz_cookie *ret_cookie)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *name = g_strconcat(phase, ".cookie", NULL);
    g_autofree char *text = text_of(set, name);
    g_assert_true(vz_cookie_parse(text, strlen(text), phase, ret_cookie, &err));
    g_assert_no_error(err);
}

static void test_cookies(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sets); i++) {
        g_auto(vz_cookie) begin = {0};
        g_auto(vz_cookie) prepare = {0};
        g_auto(vz_cookie) perform = {0};
        g_auto(vz_cookie) finish = {0};
        read_cookie(sets[i], "begin", &begin);
        read_cookie(sets[i], "prepare", &prepare);
        read_cookie(sets[i], "perform", &perform);
        read_cookie(sets[i], "finish", &finish);
        g_assert_cmpmem(begin.job, VZ_UUID_BYTES, finish.job, VZ_UUID_BYTES);
        g_assert_cmpstr(begin.host_name, ==, "hosta");
        g_assert_cmpstr(prepare.host_name, ==, "hostb");
        g_assert_cmpmem(begin.host_uuid, VZ_UUID_BYTES, perform.host_uuid, VZ_UUID_BYTES);
        g_assert_cmpint(prepare.port, ==, 16515);
        g_assert_cmpuint(strlen(prepare.fingerprint), ==, VZ_FINGERPRINT_TEXT_BYTES - 1);
        g_assert_cmpuint(strlen(prepare.incarnation), ==, VZ_UUID_TEXT_BYTES - 1);
        g_assert_cmpuint(json_array_size(begin.disks), ==, 1);
        g_assert_cmpuint(json_array_size(prepare.disks), ==, 1);
        g_autofree char *hash = vz_release_hash(perform.release);
        g_assert_cmpstr(hash, ==, begin.release_hash);
        g_assert_true(perform.running);
        g_assert_nonnull(strstr(perform.config_xml, "<name>web</name>"));
        g_assert_cmpuint(finish.reply_us, >, 0);
        /* What set 1 did not say yet. */
        g_assert_true((begin.incarnation != NULL) == (strcmp(sets[i], "1") != 0));
    }
}

static void test_cookie_of_the_future(void)
{
    g_autofree char *text = text_of("2", "begin.cookie");
    g_autofree char *version = g_strdup_printf("\"virtvz-migration\":%d", VZ_COOKIE_VERSION);
    g_autofree char *later = replaced(text, version, "\"virtvz-migration\":9");
    g_auto(vz_cookie) cookie = {0};
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_cookie_parse(later, strlen(later), "begin", &cookie, &err));
    assert_from_the_future(err, "begin cookie", "version 9");
    g_clear_error(&err);
    /* Members that are new in the same version do no harm. */
    g_autofree char *more = replaced(text, "{", "{\"colour\":\"green\",");
    g_assert_true(vz_cookie_parse(more, strlen(more), "begin", &cookie, &err));
}

/* ---- what goes over sockets ---- */

static size_t wire(const char *set, const char *name, uint8_t *ret_bytes, size_t max)
{
    g_autofree char *text = text_of(set, "wire.hex");
    g_autofree char *key = g_strconcat(name, " ", NULL);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (char **line = lines; *line; line++) {
        if (!g_str_has_prefix(*line, key))
            continue;
        size_t bytes = (strlen(*line) - strlen(key)) / 2;
        g_assert_cmpuint(bytes, <=, max);
        g_assert_true(vz_unhex(*line + strlen(key), ret_bytes, bytes));
        return bytes;
    }
    g_error("%s/wire.hex has no %s", set, name);
}

static void assert_job(const uint8_t job[VZ_UUID_BYTES])
{
    char text[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(job, text);
    g_assert_cmpstr(text, ==, JOB_1 + 1);
}

static void check_channel(const char *set)
{
    g_autoptr(GError) err = NULL;
    uint8_t bytes[VZ_ANSWER_MAX_BYTES];
    vz_prologue prologue;
    g_assert_cmpuint(wire(set, "prologue-ask", bytes, sizeof(bytes)), ==, VZ_PROLOGUE_BYTES);
    g_assert_true(vz_prologue_decode(bytes, &prologue));
    g_assert_cmpint(prologue.door, ==, VZ_DOOR_ASK);
    assert_job(prologue.job);
    wire(set, "prologue-carrier", bytes, sizeof(bytes));
    g_assert_true(vz_prologue_decode(bytes, &prologue));
    g_assert_cmpint(prologue.door, ==, VZ_DOOR_CARRIER);
#define PURPOSE(id, number, name)                                                                  \
    {                                                                                              \
        vz_preface preface;                                                                        \
        size_t n = wire(set, "preface-" name, bytes, sizeof(bytes));                               \
        g_assert_cmpuint(vz_preface_length(bytes), ==, n);                                         \
        g_assert_cmpint(vz_preface_decode(bytes, n, &preface), ==, VZ_ANSWER_ACCEPTED);            \
        g_assert_cmpint(preface.purpose, ==, VZ_PURPOSE_##id);                                     \
        g_assert_cmpuint(preface.index, ==, 3);                                                    \
        assert_job(preface.job);                                                                   \
    }
#include "purposes.def"
#undef PURPOSE
    size_t n = wire(set, "answer-accepted", bytes, sizeof(bytes));
    g_assert_true(vz_answer_check(bytes, n, &err));
    n = wire(set, "answer-used", bytes, sizeof(bytes));
    g_assert_false(vz_answer_check(bytes, n, &err));
    g_assert_nonnull(strstr(err->message, "opened before"));
    g_clear_error(&err);
    n = wire(set, "answer-version", bytes, sizeof(bytes));
    g_assert_false(vz_answer_check(bytes, n, &err));
    g_assert_nonnull(strstr(err->message, "this version of the channel protocol is not spoken"));
}

static void test_channel(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sets); i++)
        check_channel(sets[i]);
    /* The opener is told which versions the other host speaks. */
    uint8_t bytes[VZ_PREFACE_MAX_BYTES];
    vz_preface preface;
    size_t n = wire("1", "preface-memory", bytes, sizeof(bytes));
    bytes[5] = VZ_CHANNEL_VERSION + 1;
    g_assert_cmpint(vz_preface_decode(bytes, n, &preface), ==, VZ_ANSWER_VERSION);
    g_assert_nonnull(
        strstr(vz_answer_text(VZ_ANSWER_VERSION), "(" G_STRINGIFY(VZ_CHANNEL_VERSION_MIN) " to "));
    g_assert_nonnull(strstr(vz_answer_text(VZ_ANSWER_VERSION), "install"));
}

static void take_control(const char *set, const char *name, vz_control_message *ret_message)
{
    g_autoptr(GError) err = NULL;
    uint8_t bytes[2 * sizeof(vz_control_message)];
    int pair[2], fds[VZ_FD_PASS_MAX];
    size_t n_fds, n = wire(set, name, bytes, sizeof(bytes));
    g_assert_true(vz_control_pair(pair, &err));
    g_assert_cmpint(send(pair[0], bytes, n, 0), ==, (ssize_t)n);
    g_assert_cmpint(vz_control_receive(pair[1], ret_message, fds, &n_fds), ==, VZ_CONTROL_GOT);
    vz_fd_clear(&pair[0]);
    vz_fd_clear(&pair[1]);
}

/* Of a carrier that an earlier daemon started. */
static void test_carrier_control(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sets); i++) {
        vz_control_message message;
        vz_channel_info info;
        take_control(sets[i], "control-ready", &message);
        g_assert_cmpint(message.type, ==, VZ_CONTROL_READY);
        g_assert_cmpint(message.pid, ==, 4242);
        g_assert_cmpuint(message.start_time, ==, 123456789);
        assert_job(message.job);
        take_control(sets[i], "control-channel", &message);
        g_assert_cmpint(message.type, ==, VZ_CONTROL_CHANNEL);
        vz_control_to_info(&message, &info);
        g_assert_cmpint(info.purpose, ==, VZ_PURPOSE_MEMORY);
        g_assert_cmpint(info.state, ==, VZ_CHANNEL_FAILED);
        g_assert_cmpuint(info.wire_received_bytes, ==, 4000);
        g_assert_cmpstr(info.reason, ==, "a reason");
    }
}

/* ---- domains ---- */

static vz_store *open_store(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *state = g_build_filename(directory, "state", NULL);
    g_autofree char *run = g_build_filename(directory, "run", NULL);
    vz_store *store = vz_store_open(state, run, &err);
    g_assert_no_error(err);
    return store;
}

static void test_status(void)
{
    g_autoptr(vz_store) store = open_store();
    g_autoptr(GError) err = NULL;
    vz_status status = {0};
    g_autofree char *path = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(sets); i++) {
        g_autofree char *text = text_of(sets[i], "running.status");
        g_free(path);
        path = put("run/domains/" DOMAIN ".status", text, -1);
        g_assert_true(vz_store_read_status(store, DOMAIN, &status, &err));
        g_assert_no_error(err);
        g_assert_cmpint(status.state, ==, VZ_STATE_RUNNING);
        g_assert_cmpint(status.reason, ==, VZ_RUNNING_MIGRATED);
        g_assert_cmpint(status.pid, >, 1);
        g_assert_cmpuint(status.start_time, >, 1000);
        g_assert_cmpuint(strlen(status.boot_id), ==, VZ_UUID_TEXT_BYTES - 1);
        g_assert_false(status.autodestroy);
        g_assert_false(status.reboot);
        const vz_def_host host = {
            .arch = "x86_64", .emulator = "/usr/bin/qemu-system-x86_64", .default_machine = "pc"};
        g_autoptr(vz_def) live = vz_def_parse(status.xml, 0, &host, &err);
        g_assert_no_error(err);
        g_assert_cmpstr(live->name, ==, "web");
        g_assert_cmpuint(live->n_serials, ==, 1);
        g_assert_cmpstr(live->serials[0].source.path, ==, "/dev/pts/0");
        vz_status_clear(&status);
    }
    g_autofree char *later = put("run/domains/" DOMAIN ".status", "version 8\nall is new\n", -1);
    g_assert_false(vz_store_read_status(store, DOMAIN, &status, &err));
    assert_from_the_future(err, later, "version 8");
}

static void test_marks(void)
{
    g_autoptr(vz_store) store = open_store();
    g_autoptr(GError) err = NULL;
    static const struct {
        const char *name, *key, *host;
    } marks[] = {{"moved.marks", VZ_MARK_MOVED, "hostb"},
                 {"arriving.marks", VZ_MARK_ARRIVING, "hosta"}};
    for (size_t i = 0; i < G_N_ELEMENTS(marks); i++) {
        g_autofree char *text = text_of("2", marks[i].name);
        g_autofree char *path = put("state/domains/" DOMAIN ".marks", text, -1);
        g_autofree char *value = NULL;
        uint8_t job[VZ_UUID_BYTES];
        g_assert_true(vz_store_get_mark(store, DOMAIN, marks[i].key, &value, &err));
        g_assert_true(vz_trail_mark_job(value, job));
        g_assert_cmpstr(vz_trail_mark_host(value), ==, marks[i].host);
    }
    g_autofree char *value = NULL;
    g_autofree char *later = put("state/domains/" DOMAIN ".marks", "version 3\nwent-to x y\n", -1);
    g_assert_false(vz_store_get_mark(store, DOMAIN, VZ_MARK_MOVED, &value, &err));
    assert_from_the_future(err, later, "version 3");
    g_clear_error(&err);
    /* Nor is it changed. */
    g_assert_false(vz_store_set_mark(store, DOMAIN, VZ_MARK_MOVED, "x", &err));
    assert_from_the_future(err, later, "version 3");
}

static void test_trail(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *state = g_build_filename(directory, "state", NULL);
    g_autofree char *text = text_of("2", "job.trail");
    g_autofree char *key_text = text_of("2", "job.key");
    g_autofree char *path = put("state/trail" JOB_1, text, -1);
    g_autofree char *key = put("state/trail" JOB_1 ".key", key_text, -1);
    vz_migrate_config config = {.state_dir = state, .run_dir = directory, .host_name = "hosta"};
    g_autoptr(vz_migrate) service = vz_migrate_new(&config, &err);
    uint8_t job[VZ_UUID_BYTES];
    g_assert_no_error(err);
    g_assert_true(vz_uuid_parse(JOB_1 + 1, job));
    g_autoptr(vz_trail) trail = vz_trail_load(service, job, &err);
    g_assert_no_error(err);
    g_assert_cmpstr(trail->peer_name, ==, "hostb");
    g_assert_cmpstr(trail->peer_host, ==, "hostb");
    g_assert_cmpint(trail->peer_port, ==, 16515);
    g_assert_nonnull(trail->keys);
    g_autofree char *later = replaced(text, "\"version\": 1", "\"version\": 6");
    g_autofree char *later_path = put("state/trail" JOB_1, later, -1);
    g_assert_null(vz_trail_load(service, job, &err));
    assert_from_the_future(err, later_path, "version 6");
}

static void test_keys(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sets); i++) {
        g_autoptr(GError) err = NULL;
        g_autofree char *text = text_of(sets[i], "job.key");
        g_autofree char *path = put("job.key", text, -1);
        g_autoptr(vz_channel_keys) keys = vz_channel_keys_load(path, &err);
        g_assert_no_error(err);
        /* The other side was told of it. */
        g_autofree char *record = text_of(sets[i], i == 0 ? "cancelled.out" : "there.out");
        g_assert_nonnull(strstr(record, vz_channel_keys_fingerprint(keys)));
    }
}

/* ---- leases ---- */

/* By the real virtvz-probe, which is another process. */
static void test_lease(void)
{
    g_autofree char *image = put("web.img", "", 0);
    g_autofree char *text = text_of("2", "web.lease");
    g_autofree char *lease = put(".virtvz-lease-web.img", text, -1);
    const char *const words[] = {"lease", "read", "{\"host_uuid\":\"" DOMAIN "\"}", image, NULL};
    g_autoptr(GError) err = NULL;
    vz_probe_set_program(g_getenv("VZ_TEST_PROBE"));
    json_t *reply = vz_probe_call(words, VZ_LEASE_TIMEOUT_US, &err);
    g_assert_no_error(err);
    json_t *found = json_object_get(json_array_get(json_object_get(reply, "leases"), 0), "lease");
    g_assert_cmpstr(json_string_value(json_object_get(found, "host_name")), ==, "hostb");
    g_assert_cmpint(json_integer_value(json_object_get(found, "generation")), ==, 2);
    g_assert_cmpstr(json_string_value(json_object_get(found, "domain_uuid")), ==, DOMAIN);
    json_decref(reply);
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *inside = g_build_filename(path, name, NULL);
        remove_tree(inside);
    }
    g_remove(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    directory = g_dir_make_tmp("vz-recorded-XXXXXX", NULL);
    g_test_add_func("/recorded/journals", test_journals);
    g_test_add_func("/recorded/journal-of-version-1", test_journal_of_version_1);
    g_test_add_func("/recorded/journal-of-the-future", test_journal_of_the_future);
    g_test_add_func("/recorded/cookies", test_cookies);
    g_test_add_func("/recorded/cookie-of-the-future", test_cookie_of_the_future);
    g_test_add_func("/recorded/channel", test_channel);
    g_test_add_func("/recorded/carrier-control", test_carrier_control);
    g_test_add_func("/recorded/status", test_status);
    g_test_add_func("/recorded/marks", test_marks);
    g_test_add_func("/recorded/trail", test_trail);
    g_test_add_func("/recorded/keys", test_keys);
    g_test_add_func("/recorded/lease", test_lease);
    int result = g_test_run();
    remove_tree(directory);
    g_free(directory);
    return result;
}
