/* test_caps.c - capabilities out of replies recorded from QEMU 10.0
 * (golden/qemu-10.0-replies.json), and asking a fake binary: a shell script that speaks QMP. */
#include "driver/qemu/caps.h"

#include "base/fd.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static json_t *recorded(void)
{
    json_t *replies = json_load_file(
        g_test_get_filename(G_TEST_DIST, "golden", "qemu-10.0-replies.json", NULL), 0, NULL);
    g_assert_nonnull(replies);
    return replies;
}

static void test_recorded(void)
{
    json_t *replies = recorded();
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_qemu_caps) caps = vz_qemu_caps_parse("/bin/qemu", replies, &err);
    json_decref(replies);
    g_assert_no_error(err);
    g_assert_cmpuint(vz_qemu_caps_version(caps), ==, 10000013);
    g_assert_cmpstr(vz_qemu_caps_arch(caps), ==, "x86_64");
    const vz_qemu_machine *pc = vz_qemu_caps_machine(caps, "pc");
    g_assert_cmpstr(pc->name, ==, "pc-i440fx-10.0");
    g_assert_true(pc->is_default);
    g_assert_cmpstr(pc->ram_id, ==, "pc.ram");
    g_assert_cmpuint(pc->max_cpus, ==, 255);
    g_assert_cmpstr(vz_qemu_caps_machine(caps, "q35")->name, ==, "pc-q35-10.0");
    g_assert_true(vz_qemu_caps_machine(caps, "pc-q35-5.2")->deprecated);
    g_assert_null(vz_qemu_caps_machine(caps, "virt"));
    g_assert_true(vz_qemu_caps_has_cpu_model(caps, "EPYC"));
    g_assert_false(vz_qemu_caps_has_cpu_model(caps, "6502"));
    g_assert_true(vz_qemu_caps_has_device(caps, "virtio-blk-pci"));
    g_assert_false(vz_qemu_caps_has_device(caps, "qxl-of-tomorrow"));
    g_assert_true(vz_qemu_caps_has_migration_capability(caps, "postcopy-preempt"));
    g_assert_false(vz_qemu_caps_has_migration_capability(caps, "compress"));
    g_assert_true(vz_qemu_caps_has_migration_parameter(caps, "tls-creds"));
    g_assert_true(vz_qemu_caps_has_migration_parameter(caps, "avail-switchover-bandwidth"));
    g_assert_true(vz_qemu_caps_has_command(caps, "migrate-continue"));
}

static void test_not_a_qemu(void)
{
    json_t *replies = json_pack("{s:{}}", "query-version");
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_qemu_caps_parse("/bin/qemu", replies, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    json_decref(replies);
}

static vz_qemu_caps *parsed(bool kvm, const char *why)
{
    json_t *replies = recorded();
    g_autoptr(GError) err = NULL;
    vz_qemu_caps *caps = vz_qemu_caps_parse("/bin/qemu", replies, &err);
    json_decref(replies);
    vz_qemu_caps_set_kvm(caps, kvm, why);
    return caps;
}

static void test_accel(void)
{
    g_autoptr(vz_qemu_caps) without = parsed(false, "no such luck");
    g_autoptr(vz_qemu_caps) with = parsed(true, "");
    g_autoptr(GError) err = NULL;
    g_autofree char *note = NULL;
    vz_accel accel = VZ_ACCEL_TCG;
    g_assert_false(vz_qemu_caps_accel(without, VZ_DEF_TYPE_KVM, &accel, &note, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
    g_assert_nonnull(strstr(err->message, "no such luck"));
    g_clear_error(&err);

    g_assert_true(vz_qemu_caps_accel(without, VZ_DEF_TYPE_VZ, &accel, &note, &err));
    g_assert_cmpint(accel, ==, VZ_ACCEL_TCG);
    g_assert_nonnull(strstr(note, "no such luck")); /* never silently */
    g_clear_pointer(&note, g_free);
    g_assert_true(vz_qemu_caps_accel(with, VZ_DEF_TYPE_VZ, &accel, &note, &err));
    g_assert_cmpint(accel, ==, VZ_ACCEL_KVM);
    g_clear_pointer(&note, g_free);
    g_assert_true(vz_qemu_caps_accel(with, VZ_DEF_TYPE_QEMU, &accel, &note, &err));
    g_assert_cmpint(accel, ==, VZ_ACCEL_TCG);
}

static void test_settings(void)
{
    g_autoptr(GError) err = NULL;
    vz_qemu_caps_settings settings = {.accel = "xen"};
    g_assert_false(vz_qemu_caps_setup(&settings, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
}

/* Answers one line of QMP per line read, and writes down that it was asked. */
static char *write_fake(const char *dir, const char *golden)
{
    static const char script[] =
        "#!/bin/sh\n"
        "cd '%s'\n"
        "case \"$*\" in *isa-debug-exit*) echo kvm >>asked; exit 99;; esac\n"
        "echo lists >>asked\n"
        "[ ! -e broken ] || { echo 'fake-qemu: no such thing as -S' >&2; exit 1; }\n"
        "exec python3 -c '\n"
        "import json, socket\n"
        "s = socket.socket(fileno=3)\n"
        "f = s.makefile(\"rw\")\n"
        "def say(x):\n"
        "    f.write(json.dumps(x) + \"\\r\\n\"); f.flush()\n"
        "r = json.load(open(\"%s\"))\n"
        "say({\"QMP\": {\"version\": {\"qemu\": {\"major\": 10, \"minor\": 0, \"micro\": 13},"
        " \"package\": \"\"}, \"capabilities\": []}})\n"
        "for line in f:\n"
        "    c = json.loads(line)\n"
        "    say({\"return\": r.get(c[\"execute\"], {}), \"id\": c[\"id\"]})\n"
        "'\n";
    g_autofree char *text = g_strdup_printf(script, dir, golden);
    char *path = g_build_filename(dir, "fake-qemu", NULL);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    g_assert_cmpint(chmod(path, 0755), ==, 0);
    return path;
}

static char *asked(const char *dir)
{
    g_autofree char *path = g_build_filename(dir, "asked", NULL);
    char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return g_strdup("");
    g_remove(path);
    return g_strdelimit(text, "\n", ' ');
}

/* The file named `broken` makes the fake end at once. */
static void set_broken(const char *dir, bool broken)
{
    g_autofree char *path = g_build_filename(dir, "broken", NULL);
    if (broken)
        g_assert_true(g_file_set_contents(path, "", 0, NULL));
    else
        g_remove(path);
}

static void check_asked(const char *dir, const char *what)
{
    g_autofree char *text = asked(dir);
    g_assert_cmpstr(text, ==, what);
}

static void test_asking(void)
{
    g_autofree char *python = g_find_program_in_path("python3");
    if (!python) {
        g_test_skip("the fake QEMU needs python3");
        return;
    }
    g_autofree char *dir = g_dir_make_tmp("vz-caps-XXXXXX", NULL);
    g_autofree char *cache = g_build_filename(dir, "cache", NULL);
    g_autofree char *fake =
        write_fake(dir, g_test_get_filename(G_TEST_DIST, "golden", "qemu-10.0-replies.json", NULL));
    g_autoptr(GError) err = NULL;
    vz_qemu_caps_settings settings = {.cache_dir = cache};
    g_assert_true(vz_qemu_caps_setup(&settings, &err));

    set_broken(dir, true);
    g_assert_null(vz_qemu_caps_get(fake, &err));
    g_assert_nonnull(strstr(err->message, "no such thing as -S")); /* its last words */
    g_clear_error(&err);
    check_asked(dir, "lists ");
    set_broken(dir, false);

    g_assert_null(vz_qemu_caps_peek(fake));
    const vz_qemu_caps *caps = vz_qemu_caps_get(fake, &err);
    g_assert_no_error(err);
    g_assert_true(vz_qemu_caps_kvm(caps, NULL));
    check_asked(dir, "lists kvm lists "); /* the second: what KVM gives its CPU */
    g_assert_true(vz_qemu_caps_get(fake, &err) == caps);
    g_assert_true(vz_qemu_caps_peek(fake) == caps);
    check_asked(dir, "");

    /* Another binary under the name is another binary. */
    g_assert_cmpint(chmod(fake, 0700), ==, 0); /* its ctime */
    const vz_qemu_caps *again = vz_qemu_caps_get(fake, &err);
    g_assert_true(again && again != caps);
    check_asked(dir, "lists kvm lists "); /* the second: what KVM gives its CPU */

    g_assert_null(vz_qemu_caps_get("/nonexistent/qemu", &err));
    g_assert_cmpstr(err->message, ==,
                    "cannot check QEMU binary '/nonexistent/qemu': No such file or directory");
    g_autofree char *remove = g_strdup_printf("rm -r '%s'", dir);
    g_assert_true(g_spawn_command_line_sync(remove, NULL, NULL, NULL, NULL));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/caps/recorded", test_recorded);
    g_test_add_func("/caps/not-a-qemu", test_not_a_qemu);
    g_test_add_func("/caps/accel", test_accel);
    g_test_add_func("/caps/settings", test_settings);
    g_test_add_func("/caps/asking", test_asking);
    return g_test_run();
}
