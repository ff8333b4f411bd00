/* test_life.c - the table and the lifecycle over a driver that only remembers: libvirt's rules,
 * words, states and order of events. */
#include "driver/life.h"

#include "domain/def.h"
#include "domain/store.h"
#include "domain/table.h"
#include "storage/lease.h"
#include "storage/probe_call.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define UUID_1 "11111111-1111-4111-8111-111111111111"
#define UUID_2 "22222222-2222-4222-8222-222222222222"

/* ---- a driver without guests ---- */

static struct {
    bool fail_start, fail_resume, fail_kill;
    int started, killed;
    bool incoming;
    bool gone; /* adopt finds nothing */
    vz_alive alive;
} fake;

static int fake_guest; /* what driver_data points to */

static bool fake_start(vz_domain *domain, const vz_driver_start *request, vz_def **ret_live,
                       GError **err)
{
    if (fake.fail_start)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "qemu said no");
    fake.started++;
    fake.incoming = request->incoming;
    *ret_live = vz_def_copy(request->def);
    vz_domain_set_driver_data(domain, &fake_guest);
    return true;
}

static bool fake_adopt(vz_domain *domain, const vz_driver_adopt *request, vz_alive *ret_alive,
                       GError **err)
{
    (void)request;
    if (fake.gone)
        return vz_fail(err, VZ_ERR_NO_DOMAIN, "process gone: last words");
    vz_domain_set_driver_data(domain, &fake_guest);
    *ret_alive = fake.alive;
    return true;
}

static bool fake_kill(vz_domain *domain, bool graceful, GError **err)
{
    (void)graceful;
    if (fake.fail_kill)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "does not die");
    fake.killed++;
    vz_domain_set_driver_data(domain, NULL);
    return true;
}

static void fake_release(void *data)
{
    vz_domain_set_driver_data(data, NULL);
}

static bool fake_resume(vz_domain *domain, GError **err)
{
    (void)domain;
    return !fake.fail_resume || vz_fail(err, VZ_ERR_OPERATION_FAILED, "cont failed");
}

static bool fake_ok(vz_domain *domain, GError **err)
{
    (void)domain;
    (void)err;
    return true;
}

static pid_t fake_pid(vz_domain *domain)
{
    (void)domain;
    return getpid();
}

static char *fake_last_words(vz_domain *domain)
{
    (void)domain;
    return g_strdup("assertion failed");
}

static const vz_driver driver = {.name = "fake",
                                 .start = fake_start,
                                 .adopt = fake_adopt,
                                 .kill = fake_kill,
                                 .suspend = fake_ok,
                                 .resume = fake_resume,
                                 .shutdown = fake_ok,
                                 .reboot = fake_ok,
                                 .reset = fake_ok,
                                 .pid = fake_pid,
                                 .last_words = fake_last_words};

/* ---- the fixture: everything runs on the actor, the test waits for it ---- */

typedef struct {
    char *dir;
    vz_store *store;
    vz_table *table;
    GString *events; /* "started:0 " for each */
} fixture;

static void note_event(void *user, vz_domain *domain, int id, vz_event event, int detail)
{
    static const char *const names[] = {"defined",   "undefined",   "started",
                                        "suspended", "resumed",     "stopped",
                                        "shutdown",  "pmsuspended", "crashed"};
    (void)domain;
    fixture *f = user;
    g_string_append_printf(f->events, "%s:%d:%d ", names[event], detail, id);
}

static const vz_table_listener listener = {.lifecycle = note_event};

static void open_table(fixture *f)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *state = g_build_filename(f->dir, "state", NULL);
    g_autofree char *run = g_build_filename(f->dir, "run", NULL);
    f->store = vz_store_open(state, run, &err);
    g_assert_no_error(err);
    f->table = vz_table_new(f->store, &driver);
    vz_table_set_listener(f->table, &listener, f);
}

static void close_table(fixture *f)
{
    vz_table_stop(f->table, fake_release);
    vz_table_free(f->table);
    vz_store_close(f->store);
}

static void set_up(fixture *f, const void *data)
{
    (void)data;
    memset(&fake, 0, sizeof(fake));
    f->dir = g_dir_make_tmp("vz-life-XXXXXX", NULL);
    f->events = g_string_new(NULL);
    open_table(f);
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

static void tear_down(fixture *f, const void *data)
{
    (void)data;
    close_table(f);
    remove_tree(f->dir);
    g_free(f->dir);
    g_string_free(f->events, TRUE);
}

static vz_def *make_def(const char *name, const char *uuid)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu'><name>%s</name><uuid>%s</uuid><memory unit='MiB'>64</memory>"
        "<vcpu>1</vcpu><os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os></domain>",
        name, uuid);
    const vz_def_host host = {
        .arch = "x86_64", .emulator = "/usr/bin/qemu-system-x86_64", .default_machine = "pc"};
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    return def;
}

static vz_domain *reserve(fixture *f, const char *name, const char *uuid_text, vz_reserve purpose,
                          GError **err)
{
    uint8_t uuid[VZ_UUID_BYTES];
    g_assert_true(vz_uuid_parse(uuid_text, uuid));
    return vz_table_reserve(f->table, uuid, name, purpose, err);
}

typedef struct {
    bool (*run)(vz_domain *domain, void *data, GError **err);
    void *data;
    GError *err;
    bool ok;
    int done; /* atomic */
} call;

static void run_call(vz_domain *domain, void *data)
{
    call *c = data;
    c->ok = c->run(domain, c->data, &c->err);
    g_atomic_int_set(&c->done, 1);
}

/* Runs on the actor and waits; returns the error's full text or NULL. */
static char *on_actor(vz_domain *domain, bool (*run)(vz_domain *, void *, GError **), void *data)
{
    call c = {.run = run, .data = data};
    g_assert_true(vz_domain_post(domain, VZ_TASK_NORMAL, run_call, &c, NULL));
    while (!g_atomic_int_get(&c.done))
        g_usleep(100);
    g_assert_true(c.ok == (c.err == NULL));
    g_autoptr(GError) err = c.err;
    return err ? vz_error_text(err) : NULL;
}

static bool do_define(vz_domain *domain, void *def, GError **err)
{
    return vz_life_define(domain, def, err);
}

static bool do_undefine(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    return vz_life_undefine(domain, err);
}

static bool do_start(vz_domain *domain, void *request, GError **err)
{
    static const vz_life_start_request plain;
    return vz_life_start(domain, request ? request : &plain, err);
}

static bool do_destroy(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    return vz_life_destroy(domain, false, err);
}

static bool do_suspend(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    return vz_life_suspend(domain, err);
}

static bool do_resume(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    return vz_life_resume(domain, err);
}

static bool do_shutdown(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    return vz_life_shutdown(domain, err);
}

static bool do_autostart(vz_domain *domain, void *data, GError **err)
{
    return vz_life_set_autostart(domain, GPOINTER_TO_INT(data), err);
}

static bool do_guest_shutdown(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    (void)err;
    vz_life_guest_shutdown(domain, VZ_SHUTDOWN_GUEST);
    return true;
}

static bool do_guest_ended(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    (void)err;
    vz_life_guest_ended(domain);
    return true;
}

static void must(vz_domain *domain, bool (*run)(vz_domain *, void *, GError **), void *data)
{
    g_autofree char *error = on_actor(domain, run, data);
    g_assert_cmpstr(error, ==, NULL);
}

static void must_fail(vz_domain *domain, bool (*run)(vz_domain *, void *, GError **), void *data,
                      const char *text)
{
    g_autofree char *error = on_actor(domain, run, data);
    g_assert_cmpstr(error, ==, text);
}

static void expect_events(fixture *f, const char *events)
{
    g_assert_cmpstr(f->events->str, ==, events);
    g_string_truncate(f->events, 0);
}

static void expect_state(vz_domain *domain, vz_state state, int reason, int id)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    g_assert_cmpint((int)s->state, ==, (int)state);
    g_assert_cmpint(s->reason, ==, reason);
    g_assert_cmpint(s->id, ==, id);
}

static bool in_table(fixture *f, const char *name)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_domain) domain = vz_table_find_name(f->table, name, &err);
    if (!domain)
        g_assert_error(err, VZ_ERROR, VZ_ERR_NO_DOMAIN);
    return domain != NULL;
}

/* A defined domain; the caller unrefs. */
static vz_domain *defined(fixture *f, const char *name, const char *uuid)
{
    g_autoptr(GError) err = NULL;
    vz_domain *domain = reserve(f, name, uuid, VZ_RESERVE_DEFINE, &err);
    g_assert_no_error(err);
    must(domain, do_define, make_def(name, uuid));
    vz_table_release(domain, VZ_RESERVE_DEFINE);
    return domain;
}

/* ---- tests ---- */

static void test_whole_life(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    expect_events(f, "defined:0:-1 ");
    expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_UNKNOWN, -1);
    must_fail(d, do_destroy, NULL, "Requested operation is not valid: domain is not running");
    must_fail(d, do_suspend, NULL, "Requested operation is not valid: domain is not running");
    must_fail(d, do_shutdown, NULL, "Requested operation is not valid: domain is not running");
    must(d, do_start, NULL);
    expect_events(f, "resumed:0:1 started:0:1 ");
    expect_state(d, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, 1);
    must_fail(d, do_start, NULL, "Requested operation is not valid: domain is already running");
    must_fail(d, do_resume, NULL, "Requested operation is not valid: domain is already running");
    must(d, do_suspend, NULL);
    must(d, do_suspend, NULL);
    expect_events(f, "suspended:0:1 ");
    expect_state(d, VZ_STATE_PAUSED, VZ_PAUSED_USER, 1);
    must(d, do_resume, NULL);
    expect_events(f, "resumed:0:1 ");
    expect_state(d, VZ_STATE_RUNNING, VZ_RUNNING_UNPAUSED, 1);
    must(d, do_define, make_def("g1", UUID_1));
    expect_events(f, "defined:1:1 ");
    must(d, do_destroy, NULL);
    expect_events(f, "stopped:1:-1 ");
    expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_DESTROYED, -1);
    must(d, do_start, NULL);
    expect_state(d, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, 2); /* ids are never reused */
    must(d, do_guest_shutdown, NULL);
    must(d, do_guest_ended, NULL);
    expect_events(f, "resumed:0:2 started:0:2 shutdown:1:2 stopped:0:-1 ");
    expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_SHUTDOWN, -1);
    must(d, do_undefine, NULL);
    expect_events(f, "undefined:0:-1 ");
    g_assert_false(in_table(f, "g1"));
    g_assert_cmpint(fake.started, ==, fake.killed);
}

static void test_start_paused(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    vz_life_start_request paused = {.paused = true};
    must(d, do_start, &paused);
    expect_events(f, "defined:0:-1 started:0:1 suspended:0:1 ");
    expect_state(d, VZ_STATE_PAUSED, VZ_PAUSED_USER, 1);
}

static void test_failed_starts(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    fake.fail_start = true;
    must_fail(d, do_start, NULL, "internal error: qemu said no");
    expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_FAILED, -1);
    fake.fail_start = false;
    fake.fail_resume = true;
    must_fail(d, do_start, NULL, "operation failed: cont failed");
    expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_FAILED, -1);
    g_assert_cmpint(fake.killed, ==, 1);
    g_assert_false(vz_store_has_status(f->store, UUID_1, NULL));
}

/* A process that cannot be proved dead keeps the domain active: it must not start a second time. */
static void test_unkillable(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    must(d, do_start, NULL);
    fake.fail_kill = true;
    must_fail(d, do_destroy, NULL, "operation failed: does not die");
    expect_state(d, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, 1);
    g_assert_true(vz_store_has_status(f->store, UUID_1, NULL));
    fake.fail_kill = false;
    must(d, do_destroy, NULL);
}

static void test_crash(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    must(d, do_start, NULL);
    must(d, do_guest_ended, NULL);
    expect_events(f, "defined:0:-1 resumed:0:1 started:0:1 stopped:5:-1 ");
    expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_CRASHED, -1);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(d);
    g_assert_cmpstr(s->messages[0], ==, "its process died: assertion failed");
    must(d, do_start, NULL);
    g_autoptr(vz_snapshot) again = vz_domain_snapshot(d);
    g_assert_null(again->messages[0]); /* of another life */
}

static void test_transient(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_def) def = make_def("t1", UUID_1);
    vz_life_start_request request = {.def = def};
    g_autoptr(vz_domain) d = reserve(f, "t1", UUID_1, VZ_RESERVE_START, &err);
    g_assert_false(in_table(f, "t1")); /* a reservation is not a domain yet */
    must(d, do_start, &request);
    vz_table_release(d, VZ_RESERVE_START);
    g_assert_true(in_table(f, "t1"));
    must_fail(d, do_undefine, NULL,
              "Requested operation is not valid: cannot undefine transient domain");
    must_fail(d, do_autostart, GINT_TO_POINTER(1),
              "Requested operation is not valid: cannot set autostart for transient domain");
    /* Defined while it runs: persistent; undefined: transient again; ended: gone. */
    must(d, do_define, make_def("t1", UUID_1));
    must(d, do_autostart, GINT_TO_POINTER(1));
    must(d, do_undefine, NULL);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(d);
    g_assert_false(vz_snapshot_persistent(s));
    g_assert_false(s->autostart);
    g_assert_true(in_table(f, "t1"));
    must(d, do_destroy, NULL);
    g_assert_false(in_table(f, "t1"));
    expect_events(f, "resumed:0:1 started:0:1 defined:0:1 undefined:0:1 stopped:1:-1 ");
}

static void test_clashes(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    static const struct {
        const char *name, *uuid;
        vz_reserve purpose;
        const char *error; /* NULL: none */
    } cases[] = {
        {"g1", UUID_2, VZ_RESERVE_DEFINE,
         "operation failed: domain 'g1' already exists with uuid " UUID_1},
        {"g1", UUID_2, VZ_RESERVE_START,
         "operation failed: domain 'g1' already exists with uuid " UUID_1},
        {"g2", UUID_1, VZ_RESERVE_DEFINE,
         "operation failed: domain 'g1' is already defined with uuid " UUID_1},
        {"g1", UUID_1, VZ_RESERVE_DEFINE, NULL},
        {"g1", UUID_1, VZ_RESERVE_START,
         "Requested operation is not valid: domain 'g1' is already active"},
    };
    must(d, do_start, NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        g_autoptr(vz_domain) got = reserve(f, cases[i].name, cases[i].uuid, cases[i].purpose, &err);
        g_autofree char *text = err ? vz_error_text(err) : NULL;
        g_assert_cmpstr(text, ==, cases[i].error);
        if (got)
            vz_table_release(got, cases[i].purpose);
    }
    must(d, do_destroy, NULL);
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_domain) first = reserve(f, "g1", UUID_1, VZ_RESERVE_START, &err);
    g_assert_no_error(err);
    g_assert_null(reserve(f, "g1", UUID_1, VZ_RESERVE_START, &err));
    g_assert_cmpstr(err->message, ==, "domain 'g1' is already being started");
    vz_table_release(first, VZ_RESERVE_START);
    g_assert_true(in_table(f, "g1"));
}

/* A place that nobody used is free again. */
static void test_unused_reservation(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_domain) d = reserve(f, "g1", UUID_1, VZ_RESERVE_START, &err);
    g_assert_null(reserve(f, "g1", UUID_2, VZ_RESERVE_START, &err));
    g_clear_error(&err);
    vz_table_release(d, VZ_RESERVE_START);
    g_autoptr(vz_domain) other = reserve(f, "g1", UUID_2, VZ_RESERVE_START, &err);
    g_assert_no_error(err);
    vz_table_release(other, VZ_RESERVE_START);
}

/* ---- leases ---- */

/* A definition with one image in the fixture's directory. */
static vz_def *make_def_with_image(fixture *f)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = g_build_filename(f->dir, "g1.img", NULL);
    g_assert_true(g_file_set_contents(path, "content", -1, NULL));
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu'><name>g1</name><uuid>" UUID_1 "</uuid><memory unit='MiB'>64</memory>"
        "<vcpu>1</vcpu><os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type></os><devices>"
        "<disk type='file'><source file='%s'/><target dev='vda' bus='virtio'/></disk></devices>"
        "</domain>",
        path);
    const vz_def_host host = {
        .arch = "x86_64", .emulator = "/usr/bin/qemu-system-x86_64", .default_machine = "pc"};
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    return def;
}

/* As another daemon of the host that this digit stands for. */
static void be_host(char digit, bool fencing)
{
    vz_lease_host host = {.name = digit == 'a' ? "hosta" : "hostb", .fencing = fencing};
    memset(host.uuid, digit, sizeof(host.uuid));
    vz_lease_setup(&host);
}

/* Whom the lease names; "" nobody. Caller frees. */
static char *leaseholder(fixture *f)
{
    g_autofree char *path = g_build_filename(f->dir, ".virtvz-lease-g1.img", NULL);
    json_t *lease = json_load_file(path, 0, NULL);
    const char *name = json_string_value(json_object_get(lease, "host_name"));
    char *copy = g_strdup(name ? name : "");
    json_decref(lease);
    return copy;
}

static void expect_leaseholder(fixture *f, const char *name)
{
    g_autofree char *holder = leaseholder(f);
    g_assert_cmpstr(holder, ==, name);
}

static void test_leases(fixture *f, const void *data)
{
    (void)data;
    vz_life_start_request incoming = {.incoming = true};
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    must(d, do_define, make_def_with_image(f));
    be_host('a', false);
    fake.fail_start = true;
    g_free(on_actor(d, do_start, NULL));
    expect_leaseholder(f, ""); /* of a QEMU that did not start, nothing is said */
    fake.fail_start = false;
    fake.fail_resume = true;
    g_free(on_actor(d, do_start, NULL));
    expect_leaseholder(f, "");
    fake.fail_resume = false;
    must(d, do_start, NULL);
    expect_leaseholder(f, "hosta");
    fake.fail_kill = true;
    g_free(on_actor(d, do_destroy, NULL));
    expect_leaseholder(f, "hosta"); /* it may run */
    fake.fail_kill = false;
    must(d, do_guest_shutdown, NULL);
    must(d, do_guest_ended, NULL);
    expect_leaseholder(f, "");
    must(d, do_start, NULL);
    must(d, do_guest_ended, NULL); /* its process died */
    expect_leaseholder(f, "");
    must(d, do_start, NULL);
    must(d, do_destroy, NULL);
    expect_leaseholder(f, "");
    must(d, do_start, &incoming);
    expect_leaseholder(f, ""); /* the migration's steps give it one */
    must(d, do_destroy, NULL);
    vz_lease_setup(&(vz_lease_host){.name = NULL});
}

static void test_leases_of_another_host(fixture *f, const void *data)
{
    (void)data;
    vz_life_start_request automatic = {.automatic = true};
    vz_life_start_request incoming = {.incoming = true};
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    must(d, do_define, make_def_with_image(f));
    be_host('b', false);
    must(d, do_start, NULL);
    be_host('a', false);
    fake.started = 0;
    must(d, do_destroy, NULL); /* by a host whose lease it is not */
    expect_leaseholder(f, "hostb");
    for (int i = 0; i < 2; i++) {
        g_autofree char *error = on_actor(d, do_start, i ? &automatic : NULL);
        g_assert_nonnull(strstr(error, "Requested operation is not valid: image '"));
        g_assert_nonnull(strstr(error, "of host 'hostb'"));
        expect_state(d, VZ_STATE_SHUTOFF, VZ_SHUTOFF_DESTROYED, -1);
    }
    must(d, do_start, &incoming);
    must(d, do_destroy, NULL);
    g_assert_cmpint(fake.started, ==, 1);
    be_host('a', true);
    g_autofree char *error = on_actor(d, do_start, &automatic);
    g_assert_nonnull(strstr(error, "of host 'hostb'"));
    expect_leaseholder(f, "hostb");
    must(d, do_start, NULL);
    expect_leaseholder(f, "hosta");
    must(d, do_destroy, NULL);
    vz_lease_setup(&(vz_lease_host){.name = NULL});
}

static void test_marks_refuse_a_start(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    g_assert_true(vz_store_set_mark(f->store, UUID_1, VZ_MARK_MOVED, "hostb", &err));
    must_fail(d, do_start, NULL,
              "Requested operation is not valid: domain 'g1' has been moved to hostb, so it may be "
              "running there");
    vz_life_start_request incoming = {.incoming = true};
    must(d, do_start, &incoming); /* coming back */
    g_assert_true(fake.incoming);
    expect_events(f, "defined:0:-1 started:1:1 ");
    expect_state(d, VZ_STATE_PAUSED, VZ_PAUSED_MIGRATION, 1);
    must(d, do_destroy, NULL);
    g_assert_true(vz_store_clear_mark(f->store, UUID_1, VZ_MARK_MOVED, &err));
    must(d, do_start, NULL);
}

/* ---- jobs ---- */

static struct {
    int suspended, destroyed;
    bool handle;
} job_calls;

static bool job_suspend(vz_domain *domain, void *job, bool *ret_handled, GError **err)
{
    (void)domain;
    (void)err;
    g_assert_true(job == &job_calls);
    job_calls.suspended++;
    *ret_handled = job_calls.handle;
    return true;
}

static bool job_destroy(vz_domain *domain, void *job, GError **err)
{
    (void)domain;
    (void)err;
    g_assert_true(job == &job_calls);
    job_calls.destroyed++;
    return true;
}

static const vz_job_ops ops = {.suspend = job_suspend, .destroy = job_destroy};

static bool do_job_begin(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    const vz_job job = {.operation = VZ_JOB_OP_MIGRATION_OUT,
                        .title = "migration out to hostb",
                        .ops = &ops,
                        .data = &job_calls};
    return vz_domain_job_begin(domain, &job, err);
}

static bool do_job_end(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    (void)err;
    const vz_job_stats stats = {.type = VZ_JOB_COMPLETED, .time_elapsed_ms = 42};
    vz_domain_job_end(domain, &stats);
    return true;
}

static bool do_destroy_during_job(vz_domain *domain, void *data, GError **err)
{
    (void)data;
    return vz_life_destroy_during_job(domain, err);
}

static void test_job_guard(fixture *f, const void *data)
{
    (void)data;
    memset(&job_calls, 0, sizeof(job_calls));
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    must(d, do_start, NULL);
    must(d, do_job_begin, NULL);
    must_fail(d, do_job_begin, NULL,
              "Requested operation is not valid: another migration job is already running for the "
              "domain: migration out to hostb");
    job_calls.handle = true;
    must(d, do_suspend, NULL); /* by the job, which did it its own way */
    expect_state(d, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, 1);
    job_calls.handle = false;
    must(d, do_suspend, NULL); /* the job lets the driver do it */
    expect_state(d, VZ_STATE_PAUSED, VZ_PAUSED_USER, 1);
    g_assert_cmpint(job_calls.suspended, ==, 2);
    must_fail(d, do_destroy, NULL,
              "Requested operation is not valid: another job of the domain is running: migration "
              "out to hostb; wait for it or abort it");
    must(d, do_destroy_during_job, NULL);
    g_assert_cmpint(job_calls.destroyed, ==, 1);
    g_autoptr(vz_snapshot) during = vz_domain_snapshot(d);
    g_assert_cmpint((int)during->job_stats.type, ==, (int)VZ_JOB_UNBOUNDED);
    must(d, do_job_end, NULL);
    must(d, do_destroy, NULL);
    g_autoptr(vz_snapshot) after = vz_domain_snapshot(d);
    g_assert_cmpint((int)after->job_stats.type, ==, (int)VZ_JOB_NONE);
    g_assert_cmpuint(after->completed.time_elapsed_ms, ==, 42);
    g_assert_cmpint((int)during->job_stats.type, ==, (int)VZ_JOB_UNBOUNDED); /* immutable */
}

/* ---- after a restart ---- */

static bool do_adopt(vz_domain *domain, void *request, GError **err)
{
    (void)err;
    vz_life_adopt(domain, request);
    return true;
}

static const struct {
    vz_alive alive;
    bool gone;
    vz_state was;
    int was_reason;
    vz_state becomes;
    int reason;
    bool active;
} adoptions[] = {
    {VZ_ALIVE_RUNNING, false, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, VZ_STATE_RUNNING,
     VZ_RUNNING_BOOTED, true},
    {VZ_ALIVE_RUNNING, false, VZ_STATE_PAUSED, VZ_PAUSED_USER, VZ_STATE_RUNNING, 0, true},
    {VZ_ALIVE_PAUSED, false, VZ_STATE_PAUSED, VZ_PAUSED_USER, VZ_STATE_PAUSED, VZ_PAUSED_USER,
     true},
    {VZ_ALIVE_PAUSED, false, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, VZ_STATE_PAUSED, 0, true},
    {VZ_ALIVE_INCOMING, false, VZ_STATE_PAUSED, VZ_PAUSED_MIGRATION, VZ_STATE_PAUSED,
     VZ_PAUSED_MIGRATION, true},
    {VZ_ALIVE_POSTMIGRATE, false, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, VZ_STATE_PAUSED,
     VZ_PAUSED_MIGRATION, true},
    {VZ_ALIVE_SHUTDOWN, false, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, VZ_STATE_SHUTOFF,
     VZ_SHUTOFF_SHUTDOWN, false},
    {VZ_ALIVE_RUNNING, true, VZ_STATE_RUNNING, VZ_RUNNING_BOOTED, VZ_STATE_SHUTOFF,
     VZ_SHUTOFF_CRASHED, false},
    {VZ_ALIVE_RUNNING, true, VZ_STATE_SHUTDOWN, 0, VZ_STATE_SHUTOFF, VZ_SHUTOFF_SHUTDOWN, false},
};

static void test_adopt(fixture *f, const void *data)
{
    (void)data;
    for (size_t i = 0; i < G_N_ELEMENTS(adoptions); i++) {
        g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
        fake.gone = adoptions[i].gone;
        fake.alive = adoptions[i].alive;
        vz_life_adopt_request request = {.take_live = make_def("g1", UUID_1),
                                         .id = 9,
                                         .state = adoptions[i].was,
                                         .reason = adoptions[i].was_reason,
                                         .pid = getpid()};
        must(d, do_adopt, &request);
        expect_state(d, adoptions[i].becomes, adoptions[i].reason, adoptions[i].active ? 9 : -1);
        g_assert_true(vz_store_has_status(f->store, UUID_1, NULL) == adoptions[i].active);
        g_autoptr(vz_snapshot) s = vz_domain_snapshot(d);
        if (adoptions[i].gone)
            g_assert_cmpstr(s->messages[0], ==,
                            "ended while virtvzd was not running: process gone: last words");
        if (adoptions[i].reason == VZ_PAUSED_MIGRATION && adoptions[i].becomes == VZ_STATE_PAUSED)
            must_fail(d, do_resume, NULL,
                      "Requested operation is not valid: domain 'g1' is paused by a migration of "
                      "which this host has no usable record, so it may be running on the other "
                      "host; once it surely is not, destroy it here and start it");
        if (adoptions[i].active)
            must(d, do_destroy, NULL);
        must(d, do_undefine, NULL);
    }
}

/* A status file that cannot be read means that a guest may run: no start. */
static void test_unreadable_status_refuses_a_start(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    g_autofree char *path = g_build_filename(f->dir, "run", "domains", UUID_1 ".status", NULL);
    g_assert_true(g_file_set_contents(path, "damaged", -1, NULL));
    g_autofree char *error = on_actor(d, do_start, NULL);
    g_assert_nonnull(strstr(error, "may be running already"));
    g_assert_nonnull(strstr(error, path));
    g_remove(path);
    must(d, do_start, NULL);
}

static void test_list_filters(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(vz_domain) d = defined(f, "g1", UUID_1);
    static const struct {
        uint32_t flags;
        bool inactive, running;
    } cases[] = {
        {0, true, true},      {1, false, true},      {2, true, false},       {1 | 2, true, true},
        {4, true, true},      {8, false, false},     {16, false, true},      {32, false, false},
        {64, true, false},    {16 | 64, true, true}, {1 | 64, false, false}, {128, false, false},
        {256, false, false},  {512, true, true},     {1024, false, false},   {2048, true, true},
        {4096, false, false}, {8192, true, true},    {16384, false, false},  {32768, true, true},
    };
    for (int running = 0; running <= 1; running++) {
        g_autoptr(vz_snapshot) s = vz_domain_snapshot(d);
        for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
            g_assert_cmpint(vz_snapshot_matches(s, cases[i].flags), ==,
                            running ? cases[i].running : cases[i].inactive);
        if (!running)
            must(d, do_start, NULL);
    }
}

#define ADD(name, function) g_test_add("/life/" name, fixture, NULL, set_up, function, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    vz_probe_set_program(g_getenv("VZ_TEST_PROBE"));
    ADD("whole-life", test_whole_life);
    ADD("start-paused", test_start_paused);
    ADD("failed-starts", test_failed_starts);
    ADD("unkillable", test_unkillable);
    ADD("crash", test_crash);
    ADD("transient", test_transient);
    ADD("clashes", test_clashes);
    ADD("unused-reservation", test_unused_reservation);
    ADD("marks-refuse-a-start", test_marks_refuse_a_start);
    ADD("leases", test_leases);
    ADD("leases-of-another-host", test_leases_of_another_host);
    ADD("job-guard", test_job_guard);
    ADD("adopt", test_adopt);
    ADD("unreadable-status-refuses-a-start", test_unreadable_status_refuses_a_start);
    ADD("list-filters", test_list_filters);
    return g_test_run();
}
