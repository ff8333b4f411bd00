/* test_store.c - what is on disk: whole or not at all, and never thrown away when damaged. */
#include "domain/store.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define UUID_A "11111111-2222-3333-4444-555555555555"
#define UUID_B "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"

typedef struct {
    char *dir;
    char *state;
    char *run;
    vz_store *store;
} fixture;

static void set_up(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    f->dir = g_dir_make_tmp("vz-store-XXXXXX", &err);
    g_assert_no_error(err);
    f->state = g_build_filename(f->dir, "state", NULL);
    f->run = g_build_filename(f->dir, "run", NULL);
    f->store = vz_store_open(f->state, f->run, &err);
    g_assert_no_error(err);
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
    vz_store_close(f->store);
    remove_tree(f->dir);
    g_free(f->dir);
    g_free(f->state);
    g_free(f->run);
}

static void put(const char *directory, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(directory, "domains", name, NULL);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

static bool exists(const char *directory, const char *name)
{
    g_autofree char *path = g_build_filename(directory, "domains", name, NULL);
    return access(path, F_OK) == 0;
}

static void test_config(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = NULL;
    g_autofree char *changed = NULL;
    bool autostart = true;
    g_assert_true(vz_store_save_config(f->store, UUID_A, "<domain>old</domain>", &err));
    g_assert_true(vz_store_read_config(f->store, UUID_A, &xml, &autostart, &err));
    g_assert_cmpstr(xml, ==, "<domain>old</domain>");
    g_assert_false(autostart);
    g_assert_true(vz_store_set_autostart(f->store, UUID_A, true, &err));
    g_assert_true(vz_store_save_config(f->store, UUID_A, "<domain/>", &err));
    g_assert_true(vz_store_read_config(f->store, UUID_A, &changed, &autostart, &err));
    g_assert_cmpstr(changed, ==, "<domain/>");
    g_assert_true(autostart);
    g_assert_true(vz_store_remove_config(f->store, UUID_A, &err));
    g_assert_true(vz_store_remove_config(f->store, UUID_A, &err)); /* again: nothing to do */
    g_assert_false(exists(f->state, UUID_A ".autostart"));
    g_assert_false(vz_store_read_config(f->store, UUID_A, &xml, &autostart, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
}

/* A write that a crash cut short leaves UUID.xml.new beside the old file. */
static void test_crash_leaves_the_old(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = NULL;
    bool autostart;
    g_assert_true(vz_store_save_config(f->store, UUID_A, "<domain>whole</domain>", &err));
    put(f->state, UUID_A ".xml.new", "<doma");
    put(f->state, UUID_B ".xml.new", "<doma");
    g_autoptr(GPtrArray) uuids = vz_store_list_configs(f->store);
    g_assert_cmpuint(uuids->len, ==, 1);
    g_assert_true(vz_store_read_config(f->store, uuids->pdata[0], &xml, &autostart, &err));
    g_assert_cmpstr(xml, ==, "<domain>whole</domain>");
    g_assert_true(vz_store_save_config(f->store, UUID_A, "<domain>next</domain>", &err));
    g_assert_false(exists(f->state, UUID_A ".xml.new"));
}

/* No room for the new file: the old one stays, the error names the path. */
static void test_failed_write_keeps_the_old(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autofree char *xml = NULL;
    g_autofree char *block = g_build_filename(f->state, "domains", UUID_A ".xml.new", NULL);
    bool autostart;
    g_assert_true(vz_store_save_config(f->store, UUID_A, "<domain>old</domain>", &err));
    g_assert_cmpint(g_mkdir(block, 0700), ==, 0);
    g_assert_false(vz_store_save_config(f->store, UUID_A, "<domain>new</domain>", &err));
    g_assert_nonnull(strstr(err->message, UUID_A ".xml.new"));
    g_clear_error(&err);
    g_assert_true(vz_store_read_config(f->store, UUID_A, &xml, &autostart, &err));
    g_assert_cmpstr(xml, ==, "<domain>old</domain>");
}

static void test_strange_files_are_left_alone(fixture *f, const void *data)
{
    (void)data;
    put(f->state, "backup.xml", "mine");
    put(f->state, "11111111222233334444555555555555.xml", "not the canonical name");
    put(f->state, UUID_B ".xml~", "an editor's");
    g_autoptr(GPtrArray) uuids = vz_store_list_configs(f->store);
    g_assert_cmpuint(uuids->len, ==, 0);
    g_assert_true(exists(f->state, "backup.xml"));
}

static const vz_status example = {.id = 7,
                                  .state = 1,
                                  .reason = 2,
                                  .pid = 4242,
                                  .start_time = 123456789012,
                                  .boot_id = UUID_B,
                                  .autodestroy = true,
                                  .reboot = true};

static void test_status(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    char xml[] = "<domain>\n\n  text with an empty line\n</domain>\n";
    vz_status saved = example, loaded = {.xml = NULL};
    saved.xml = xml;
    g_assert_true(vz_store_save_status(f->store, UUID_A, &saved, &err));
    g_assert_true(vz_store_has_status(f->store, UUID_A, NULL));
    g_assert_true(vz_store_read_status(f->store, UUID_A, &loaded, &err));
    g_assert_cmpint(loaded.id, ==, 7);
    g_assert_cmpint(loaded.state, ==, 1);
    g_assert_cmpint(loaded.reason, ==, 2);
    g_assert_cmpint(loaded.pid, ==, 4242);
    g_assert_cmpuint(loaded.start_time, ==, 123456789012);
    g_assert_cmpstr(loaded.boot_id, ==, UUID_B);
    g_assert_true(loaded.autodestroy);
    g_assert_true(loaded.reboot);
    g_assert_cmpstr(loaded.xml, ==, xml);
    vz_status_clear(&loaded);
    vz_store_remove_status(f->store, UUID_A);
    g_assert_false(vz_store_has_status(f->store, UUID_A, NULL));
}

/* Every way to shorten the file, and every damaged line, is an error; the file stays. */
static void test_damaged_status(fixture *f, const void *data)
{
    (void)data;
    g_autofree char *path = g_build_filename(f->run, "domains", UUID_A ".status", NULL);
    g_autoptr(GError) err = NULL;
    g_autofree char *whole = NULL;
    char xml[] = "<domain/>";
    vz_status saved = example, loaded = {.xml = NULL};
    saved.xml = xml;
    g_assert_true(vz_store_save_status(f->store, UUID_A, &saved, &err));
    g_assert_true(g_file_get_contents(path, &whole, NULL, NULL));
    size_t head = (size_t)(strstr(whole, "\n\n") - whole);
    for (size_t n = 0; n < head; n++) {
        g_assert_true(g_file_set_contents(path, whole, (gssize)n, NULL));
        g_assert_false(vz_store_read_status(f->store, UUID_A, &loaded, &err));
        g_assert_nonnull(strstr(err->message, "damaged"));
        g_clear_error(&err);
    }
    for (size_t n = 0; n < head; n++) {
        g_autofree char *broken = g_strdup(whole);
        broken[n] = broken[n] == '\n' ? ' ' : '\n';
        g_assert_true(g_file_set_contents(path, broken, -1, NULL));
        g_assert_false(vz_store_read_status(f->store, UUID_A, &loaded, &err));
        g_clear_error(&err);
    }
    g_assert_true(vz_store_has_status(f->store, UUID_A, NULL));
}

static char *mark(fixture *f, const char *key)
{
    g_autoptr(GError) err = NULL;
    char *value = NULL;
    g_assert_true(vz_store_get_mark(f->store, UUID_A, key, &value, &err));
    return value;
}

static void test_marks(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_assert_null(mark(f, VZ_MARK_MOVED));
    g_assert_true(vz_store_set_mark(f->store, UUID_A, VZ_MARK_MOVED, "hostb 10.1.1.2", &err));
    g_assert_true(vz_store_set_mark(f->store, UUID_A, VZ_MARK_ARRIVING, "hostc", &err));
    g_assert_true(vz_store_set_mark(f->store, UUID_A, VZ_MARK_MOVED, "hostd", &err));
    g_autofree char *moved = mark(f, VZ_MARK_MOVED);
    g_autofree char *arriving = mark(f, VZ_MARK_ARRIVING);
    g_assert_cmpstr(moved, ==, "hostd");
    g_assert_cmpstr(arriving, ==, "hostc");
    g_assert_null(mark(f, "moved")); /* a key is not found by its beginning */
    /* They outlive the definition. */
    g_assert_true(vz_store_save_config(f->store, UUID_A, "<domain/>", &err));
    g_assert_true(vz_store_remove_config(f->store, UUID_A, &err));
    g_assert_true(exists(f->state, UUID_A ".marks"));
    g_assert_true(vz_store_clear_mark(f->store, UUID_A, VZ_MARK_MOVED, &err));
    g_assert_null(mark(f, VZ_MARK_MOVED));
    g_assert_true(vz_store_clear_mark(f->store, UUID_A, VZ_MARK_ARRIVING, &err));
    g_assert_false(exists(f->state, UUID_A ".marks"));
    g_assert_false(vz_store_set_mark(f->store, UUID_A, "two words", "x", &err));
    g_clear_error(&err);
    g_assert_false(vz_store_set_mark(f->store, UUID_A, "key", "two\nlines", &err));
}

static void test_damaged_marks_are_not_overwritten(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    char *value = NULL;
    put(f->state, UUID_A ".marks", "moved-to hostb\ngarbage\n");
    g_assert_false(vz_store_get_mark(f->store, UUID_A, VZ_MARK_MOVED, &value, &err));
    g_clear_error(&err);
    g_assert_false(vz_store_clear_mark(f->store, UUID_A, VZ_MARK_MOVED, &err));
    g_assert_true(exists(f->state, UUID_A ".marks"));
}

static void test_autostarted(fixture *f, const void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_assert_cmpuint(strlen(vz_boot_id()), ==, 36);
    g_assert_false(vz_store_autostarted(f->store));
    g_assert_true(vz_store_note_autostarted(f->store, &err));
    g_assert_true(vz_store_autostarted(f->store));
    /* Left over from another boot. */
    g_autofree char *path = g_build_filename(f->run, "autostarted", NULL);
    g_assert_true(g_file_set_contents(path, UUID_A, -1, NULL));
    g_assert_false(vz_store_autostarted(f->store));
}

#define ADD(name, function) g_test_add("/store/" name, fixture, NULL, set_up, function, tear_down)

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    ADD("config", test_config);
    ADD("crash-leaves-the-old", test_crash_leaves_the_old);
    ADD("failed-write-keeps-the-old", test_failed_write_keeps_the_old);
    ADD("strange-files-are-left-alone", test_strange_files_are_left_alone);
    ADD("status", test_status);
    ADD("damaged-status", test_damaged_status);
    ADD("marks", test_marks);
    ADD("damaged-marks-are-not-overwritten", test_damaged_marks_are_not_overwritten);
    ADD("autostarted", test_autostarted);
    return g_test_run();
}
