/* test_lease.c - leases beside images: who may take one, what comes of damaged, hostile and
 * unwritable ones, and the hand-over of an arriving guest. The probe is the real program
 * (VZ_TEST_PROBE); other hosts are vz_lease_setup with another UUID. */
#include "storage/lease.h"

#include "domain/store.h"
#include "domain/table.h"
#include "driver/driver.h"
#include "storage/probe_call.h"

#include <glib/gstdio.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define UUID_G "11111111-1111-4111-8111-111111111111"
#define UUID_H "22222222-2222-4222-8222-222222222222"
#define HOST_A "aaaaaaaa-0000-4000-8000-000000000001"
#define HOST_B "bbbbbbbb-0000-4000-8000-000000000002"
#define JOB    "33333333-3333-4333-8333-333333333333"

static const vz_driver no_driver = {.name = "none"};

typedef struct {
    char *dir, *image, *file;
    vz_store *store;
    vz_table *table;
    vz_domain *guest, *other; /* of UUID_G and UUID_H */
    vz_def *def;
} fixture;

static void be_host(const char *uuid, const char *name, bool fencing)
{
    vz_lease_host host = {.name = name, .fencing = fencing};
    g_assert_true(vz_uuid_parse(uuid, host.uuid));
    vz_lease_setup(&host);
}

static void be_a(void)
{
    be_host(HOST_A, "hosta", false);
}

static void be_b(void)
{
    be_host(HOST_B, "hostb", false);
}

static vz_domain *reserve(fixture *f, const char *name, const char *uuid_text)
{
    g_autoptr(GError) err = NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    g_assert_true(vz_uuid_parse(uuid_text, uuid));
    vz_domain *domain = vz_table_reserve(f->table, uuid, name, VZ_RESERVE_DEFINE, &err);
    g_assert_no_error(err);
    return domain;
}

static vz_def *def_with(const char *disks)
{
    static const vz_def_host host = {
        .arch = "x86_64", .emulator = "/usr/bin/qemu-system-x86_64", .default_machine = "pc"};
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu'><name>g</name><uuid>" UUID_G "</uuid><memory>65536</memory>"
        "<os><type>hvm</type></os><devices>%s</devices></domain>",
        disks);
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    return def;
}

static char *disk(const char *path, const char *target, const char *more)
{
    return g_strdup_printf(
        "<disk type='file'><source file='%s'/><target dev='%s' bus='virtio'/>%s</disk>", path,
        target, more);
}

static void set_up(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    f->dir = g_dir_make_tmp("vz-lease-XXXXXX", &err);
    f->image = g_build_filename(f->dir, "g.img", NULL);
    f->file = g_build_filename(f->dir, ".virtvz-lease-g.img", NULL);
    g_assert_true(g_file_set_contents(f->image, "content", -1, NULL));
    g_autofree char *state = g_build_filename(f->dir, "state", NULL);
    g_autofree char *run = g_build_filename(f->dir, "run", NULL);
    f->store = vz_store_open(state, run, &err);
    g_assert_no_error(err);
    f->table = vz_table_new(f->store, &no_driver);
    f->guest = reserve(f, "g", UUID_G);
    f->other = reserve(f, "h", UUID_H);
    g_autofree char *disks = disk(f->image, "vda", "");
    f->def = def_with(disks);
    be_a();
}

static void forget(void *domain)
{
    (void)domain;
}

static void tear_down(fixture *f, const void *data)
{
    (void)data;
    vz_domain_unref(f->guest);
    vz_domain_unref(f->other);
    vz_def_unref(f->def);
    vz_table_stop(f->table, forget);
    vz_table_free(f->table);
    vz_store_close(f->store);
    g_autofree char *command = g_strdup_printf("rm -r '%s'", f->dir);
    g_assert_cmpint(system(command), ==, 0);
    g_free(f->dir);
    g_free(f->image);
    g_free(f->file);
}

/* ---- what a third party sees ---- */

static json_t *lease_at(const char *file)
{
    json_t *lease = json_load_file(file, 0, NULL);
    g_assert_nonnull(lease);
    return lease;
}

static void expect_lease(fixture *f, const char *host, const char *name, int generation)
{
    json_t *lease = lease_at(f->file);
    g_assert_cmpstr(json_string_value(json_object_get(lease, "host_uuid")), ==, host);
    g_assert_cmpstr(json_string_value(json_object_get(lease, "host_name")), ==, name);
    g_assert_cmpstr(json_string_value(json_object_get(lease, "domain_uuid")), ==, UUID_G);
    g_assert_cmpint((int)json_integer_value(json_object_get(lease, "generation")), ==, generation);
    json_decref(lease);
}

static unsigned files_of_ours(fixture *f)
{
    g_autoptr(GDir) dir = g_dir_open(f->dir, 0, NULL);
    unsigned count = 0;
    for (const char *name; (name = g_dir_read_name(dir));)
        count += g_str_has_prefix(name, ".virtvz-");
    return count;
}

static bool has_message(vz_domain *domain, const char *words)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    for (char **message = s->messages; *message; message++)
        if (strstr(*message, words))
            return true;
    return false;
}

static void must_take(fixture *f)
{
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_lease_take(f->guest, f->def, false, &err));
    g_assert_no_error(err);
}

static void must_be_refused(fixture *f, const char *words)
{
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_lease_take(f->guest, f->def, false, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_INVALID);
    if (!strstr(err->message, words))
        g_error("'%s' does not say '%s'", err->message, words);
}

/* ---- tests ---- */

static void test_take_and_release(fixture *f, const void *data)
{
    (void)data;
    g_assert_null(vz_lease_find_holder(f->guest, f->def));
    must_take(f);
    expect_lease(f, HOST_A, "hosta", 1);
    must_take(f); /* a start after a crash of the host */
    expect_lease(f, HOST_A, "hosta", 2);
    g_assert_null(vz_lease_find_holder(f->guest, f->def));
    g_assert_cmpuint(files_of_ours(f), ==, 1);
    vz_lease_release(f->other, f->def); /* of another guest of this host */
    expect_lease(f, HOST_A, "hosta", 2);
    be_b();
    vz_lease_release(f->guest, f->def); /* of another host */
    expect_lease(f, HOST_A, "hosta", 2);
    be_a();
    vz_lease_release(f->guest, f->def);
    g_assert_cmpuint(files_of_ours(f), ==, 0);
    vz_lease_release(f->guest, f->def);
    g_assert_false(has_message(f->guest, ""));
}

static void test_another_host_has_it(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    must_take(f);
    be_b();
    g_autoptr(vz_lease_holder) holder = vz_lease_find_holder(f->guest, f->def);
    uint8_t a[VZ_UUID_BYTES];
    g_assert_true(vz_uuid_parse(HOST_A, a));
    g_assert_cmpmem(holder->host_uuid, VZ_UUID_BYTES, a, VZ_UUID_BYTES);
    g_assert_cmpstr(holder->host_name, ==, "hosta");
    g_assert_cmpstr(holder->domain_name, ==, "g");
    g_assert_cmpstr(holder->image, ==, f->image);
    g_assert_cmpstr(holder->file, ==, f->file);
    g_autoptr(GDateTime) since = g_date_time_new_from_iso8601(holder->since, NULL);
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_assert_cmpint(ABS(g_date_time_difference(now, since)), <, 60 * G_TIME_SPAN_SECOND);
    must_be_refused(f, "in use by domain 'g' of host 'hosta' (" HOST_A ") since 20");
    must_be_refused(f, f->file);
    expect_lease(f, HOST_A, "hosta", 1);
    g_assert_true(vz_lease_seize(f->guest, f->def, &err));
    expect_lease(f, HOST_B, "hostb", 2);
    be_a();
    must_be_refused(f, "host 'hostb'");
    g_assert_true(vz_lease_take(f->guest, f->def, true, &err));
    expect_lease(f, HOST_A, "hosta", 3);
}

/* Two that see no lease at the same moment: one gets it. */
static void test_race(fixture *f, const void *data)
{
    (void)data;
    for (int round = 0; round < 30; round++) {
        int written = 0;
        GPid pids[2];
        int fds[2];
        g_unlink(f->file);
        for (int i = 0; i < 2; i++) {
            g_autofree char *request = g_strdup_printf(
                "{\"host_uuid\":\"%s\",\"host_name\":\"h\",\"domain_uuid\":\"" UUID_G
                "\",\"domain_name\":\"g\",\"time\":\"t\"}",
                i ? HOST_B : HOST_A);
            g_autoptr(GStrvBuilder) words = g_strv_builder_new();
            g_strv_builder_add_many(words, g_getenv("VZ_TEST_PROBE"), "lease", "take", request,
                                    f->image, NULL);
            g_auto(GStrv) line = g_strv_builder_end(words);
            g_assert_true(g_spawn_async_with_pipes(NULL, line, NULL, G_SPAWN_DO_NOT_REAP_CHILD,
                                                   NULL, NULL, &pids[i], NULL, &fds[i], NULL,
                                                   NULL));
        }
        for (int i = 0; i < 2; i++) {
            char reply[4096] = "";
            g_assert_cmpint((int)read(fds[i], reply, sizeof(reply) - 1), >, 0);
            written += strstr(reply, "\"written\":true") != NULL;
            close(fds[i]);
            g_spawn_close_pid(pids[i]);
        }
        g_assert_cmpint(written, ==, 1);
        g_assert_cmpuint(files_of_ours(f), ==, 1);
    }
}

static void test_which_images(fixture *f, const void *data)
{
    (void)f;
    (void)data;
    g_autofree char *mine = disk("/i/mine.img", "vda", "");
    g_autofree char *shared = disk("/i/shared.img", "vdb", "<shareable/>");
    g_autofree char *fixed = disk("/i/fixed.img", "vdc", "<readonly/>");
    g_autofree char *disks = g_strconcat(
        mine, shared, fixed,
        "<disk type='block'><source dev='/dev/x'/><target dev='vdd' bus='virtio'/></disk>"
        "<disk type='file' device='cdrom'><source file='/i/cd.iso'/><target dev='hda'/></disk>",
        NULL);
    g_autoptr(vz_def) def = def_with(disks);
    json_t *images = vz_lease_images(def);
    char *text = json_dumps(images, JSON_COMPACT);
    g_assert_cmpstr(text, ==, "[\"/i/mine.img\"]");
    free(text);
    json_decref(images);
}

/* By whatever name a host reaches the image, the lease lies beside the real file. */
static void test_behind_links(fixture *f, const void *data)
{
    (void)data;
    g_autofree char *way = g_build_filename(f->dir, "way", NULL);
    g_autofree char *path = g_build_filename(f->dir, "way", "alias.img", NULL);
    g_assert_true(g_mkdir(way, 0755) == 0 && symlink("../g.img", path) == 0);
    g_autofree char *disks = disk(path, "vda", "");
    g_autoptr(vz_def) def = def_with(disks);
    must_take(f);
    be_b();
    g_autoptr(vz_lease_holder) holder = vz_lease_find_holder(f->guest, def);
    g_assert_cmpstr(holder->file, ==, f->file);
}

static void test_damaged(fixture *f, const void *data)
{
    (void)data;
    g_autofree char *huge = g_strnfill(100 * 1024, ' ');
    g_autofree char *endless =
        g_strdup_printf("{\"version\":1,\"host_uuid\":\"" HOST_B "\",\"domain_uuid\":\"" UUID_G
                        "\",\"generation\":%" G_GINT64_FORMAT "}",
                        G_MAXINT64);
    const char *const texts[] = {
        "",
        "{",
        "[]",
        "\xff\xfe",
        "{\"version\":0,\"host_uuid\":\"" HOST_B "\",\"domain_uuid\":\"" UUID_G "\"}",
        "{\"host_uuid\":\"" HOST_B "\",\"domain_uuid\":\"" UUID_G "\",\"generation\":1}",
        "{\"version\":1,\"host_uuid\":\"hostb\",\"domain_uuid\":\"" UUID_G "\"}",
        "{\"version\":1,\"host_uuid\":7,\"domain_uuid\":\"" UUID_G "\",\"generation\":1}",
        endless,
        huge};
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_assert_true(g_file_set_contents(f->file, texts[i], -1, NULL));
        g_assert_null(vz_lease_find_holder(f->guest, f->def));
        must_take(f);
        g_assert_true(has_message(f->guest, "was damaged"));
        expect_lease(f, HOST_A, "hosta", 1);
    }
    g_unlink(f->file);
    /* What is no file is not followed, read or waited for. */
    g_autofree char *victim = g_build_filename(f->dir, "victim", NULL);
    g_assert_true(g_file_set_contents(victim, "whole", -1, NULL));
    g_assert_cmpint(symlink(victim, f->file), ==, 0);
    must_take(f);
    g_autofree char *content = NULL;
    g_assert_true(g_file_get_contents(victim, &content, NULL, NULL));
    g_assert_cmpstr(content, ==, "whole");
    expect_lease(f, HOST_A, "hosta", 1);
    g_unlink(f->file);
    g_assert_cmpint(mkfifo(f->file, 0600), ==, 0);
    must_take(f);
    expect_lease(f, HOST_A, "hosta", 1);
}

/* A lease whose texts are missing or strange still names another host; so does one of a later
 * version. */
static void test_half_a_lease_counts(fixture *f, const void *data)
{
    (void)data;
    g_assert_true(g_file_set_contents(f->file,
                                      "{\"version\":2,\"host_uuid\":\"" HOST_B
                                      "\",\"domain_uuid\":\"" UUID_H "\",\"generation\":5}",
                                      -1, NULL));
    must_be_refused(f, HOST_B);
    g_assert_true(g_file_set_contents(f->file,
                                      "{\"version\":1,\"host_uuid\":\"" HOST_B
                                      "\",\"domain_uuid\":\"" UUID_H "\",\"generation\":0,"
                                      "\"host_name\":[\"x\"],\"extra\":{}}",
                                      -1, NULL));
    must_be_refused(f, HOST_B);
}

/* Over the fixture's directory, in this process's mounts only; false: we may not. */
static bool mount_over(fixture *f, const char *options)
{
    if (unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
        mount("none", f->dir, "tmpfs", 0, options) == 0)
        return true;
    g_test_skip("mounting needs root");
    return false;
}

static void test_full(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    if (!mount_over(f, "size=64k"))
        return;
    g_autofree char *filler = g_build_filename(f->dir, "filler", NULL);
    g_autofree char *much = g_strnfill(256 * 1024, 'x');
    g_assert_true(g_file_set_contents(f->image, "c", -1, NULL));
    FILE *file = fopen(filler, "w");
    fwrite(much, 1, strlen(much), file);
    fclose(file);
    must_take(f);
    g_assert_true(has_message(f->guest, "no lease for image"));
    g_assert_true(has_message(f->guest, "No space left"));
    g_assert_cmpuint(files_of_ours(f), ==, 0); /* no draft either */
    g_assert_false(vz_lease_seize(f->guest, f->def, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    umount2(f->dir, MNT_DETACH);
}

static void test_read_only(fixture *f, const void *data)
{
    (void)data;
    if (!mount_over(f, NULL))
        return;
    g_assert_true(g_file_set_contents(f->image, "c", -1, NULL));
    g_assert_cmpint(mount("none", f->dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), ==, 0);
    must_take(f);
    g_assert_true(has_message(f->guest, "Read-only file system"));
    vz_lease_release(f->guest, f->def);
    /* What another host wrote there counts all the same. */
    g_assert_cmpint(mount("none", f->dir, NULL, MS_REMOUNT, NULL), ==, 0);
    be_b();
    must_take(f);
    g_assert_cmpint(mount("none", f->dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), ==, 0);
    be_a();
    must_be_refused(f, "host 'hostb'");
    umount2(f->dir, MNT_DETACH);
}

/* A probe that hangs, as on a file server that is gone, is not waited for without end. */
static void test_hang(fixture *f, const void *data)
{
    (void)data;
    g_autofree char *script = g_build_filename(f->dir, "hang", NULL);
    g_assert_true(g_file_set_contents(script, "#!/bin/sh\nexec sleep 60\n", -1, NULL));
    g_assert_cmpint(g_chmod(script, 0755), ==, 0);
    vz_probe_set_program(script);
    gint64 began = g_get_monotonic_time();
    must_take(f);
    g_assert_cmpint(g_get_monotonic_time() - began, <, 2 * VZ_LEASE_TIMEOUT_US);
    g_assert_true(has_message(f->guest, "did not end in time"));
    vz_probe_set_program(g_getenv("VZ_TEST_PROBE"));
}

/* What goes wrong when the guest is stopped already is waited for less long. */
static void test_arrival_hangs(fixture *f, const void *data)
{
    (void)data;
    g_autofree char *script = g_build_filename(f->dir, "hang", NULL);
    g_autofree char *text =
        g_strdup_printf("#!/bin/sh\necho '{\"leases\":[{\"image\":\"%s\",\"written\":true}]}'\n"
                        "exec sleep 60\n",
                        f->image);
    g_assert_true(g_file_set_contents(script, text, -1, NULL));
    g_assert_cmpint(g_chmod(script, 0755), ==, 0);
    vz_probe_set_program(script);
    json_t *images = vz_lease_images(f->def);
    vz_lease_arrival *arrival = vz_lease_arrival_prepare(f->guest, images, JOB);
    gint64 began = g_get_monotonic_time();
    vz_lease_arrival_begin(arrival);
    vz_lease_arrival_end(arrival, f->guest);
    g_assert_cmpint(g_get_monotonic_time() - began, <, 2 * VZ_LEASE_BRIEF_TIMEOUT_US);
    g_assert_true(has_message(f->guest, "does not answer"));
    vz_lease_arrival_free(arrival);
    json_decref(images);
    vz_probe_set_program(g_getenv("VZ_TEST_PROBE"));
}

static vz_lease_arrival *prepare(fixture *f, json_t **ret_images)
{
    *ret_images = vz_lease_images(f->def);
    vz_lease_arrival *arrival = vz_lease_arrival_prepare(f->guest, *ret_images, JOB);
    g_assert_nonnull(arrival);
    return arrival;
}

static void put_in_place(fixture *f, vz_lease_arrival *arrival)
{
    vz_lease_arrival_begin(arrival);
    vz_lease_arrival_end(arrival, f->guest);
}

static void test_arrival(fixture *f, const void *data)
{
    (void)data;
    json_t *images;
    must_take(f);
    be_b();
    vz_lease_arrival *arrival = prepare(f, &images);
    expect_lease(f, HOST_A, "hosta", 1);
    put_in_place(f, arrival);
    expect_lease(f, HOST_B, "hostb", 2);
    g_assert_cmpuint(files_of_ours(f), ==, 1);
    vz_lease_arrival_free(arrival);
    be_a();
    vz_lease_release(f->guest, f->def); /* the source ends its copy */
    expect_lease(f, HOST_B, "hostb", 2);
    must_be_refused(f, "host 'hostb'");
    g_assert_false(has_message(f->guest, ""));
    json_decref(images);
}

/* With and without a lease of the source, before and after it was put in place. */
static void test_arrival_undone(fixture *f, const void *data)
{
    (void)data;
    for (int held = 0; held <= 1; held++)
        for (int done = 0; done <= 1; done++) {
            json_t *images;
            be_a();
            if (held)
                must_take(f);
            be_b();
            vz_lease_arrival *arrival = prepare(f, &images);
            if (done)
                put_in_place(f, arrival);
            vz_lease_arrival_free(arrival);
            vz_lease_give_back(images, "44444444-4444-4444-8444-444444444444");
            if (done)
                expect_lease(f, HOST_B, "hostb", held + 1);
            for (int again = 0; again < 2; again++)
                vz_lease_give_back(images, JOB);
            json_decref(images);
            g_assert_cmpint((int)files_of_ours(f), ==, held);
            if (held)
                expect_lease(f, HOST_A, "hosta", done ? 3 : 1);
            be_a();
            vz_lease_release(f->guest, f->def);
        }
}

/* A later start of a guest that once arrived is not the job's any more. */
static void test_give_back_after_a_start(fixture *f, const void *data)
{
    (void)data;
    json_t *images;
    be_b();
    vz_lease_arrival *arrival = prepare(f, &images);
    put_in_place(f, arrival);
    vz_lease_arrival_free(arrival);
    must_take(f);
    vz_lease_give_back(images, JOB);
    expect_lease(f, HOST_B, "hostb", 2);
    json_decref(images);
}

static void test_not_set_up(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    must_take(f);
    vz_lease_setup(&(vz_lease_host){.name = NULL});
    g_assert_null(vz_lease_find_holder(f->guest, f->def));
    vz_lease_release(f->guest, f->def);
    g_assert_cmpuint(files_of_ours(f), ==, 1);
}

#define ADD(name, function)                                                                        \
    g_test_add("/storage/lease/" name, fixture, NULL, set_up, function, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    vz_probe_set_program(g_getenv("VZ_TEST_PROBE"));
    ADD("take-and-release", test_take_and_release);
    ADD("another-host", test_another_host_has_it);
    ADD("race", test_race);
    ADD("which-images", test_which_images);
    ADD("behind-links", test_behind_links);
    ADD("damaged", test_damaged);
    ADD("half-a-lease", test_half_a_lease_counts);
    ADD("full", test_full);
    ADD("read-only", test_read_only);
    ADD("hang", test_hang);
    ADD("arrival", test_arrival);
    ADD("arrival-hangs", test_arrival_hangs);
    ADD("arrival-undone", test_arrival_undone);
    ADD("give-back-after-a-start", test_give_back_after_a_start);
    ADD("not-set-up", test_not_set_up);
    return g_test_run();
}
