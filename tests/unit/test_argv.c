/* test_argv.c - definitions as command lines, byte for byte: golden/NAME.xml gives golden/NAME.argv
 * (one option with its value per line). VZ_GOLDEN_UPDATE=1 rewrites the .argv files, for a diff. */
#include "driver/qemu/argv.h"

#include <stdlib.h>
#include <string.h>

static vz_qemu_caps *caps;

static const char *canonical(const char *name, void *user G_GNUC_UNUSED)
{
    const vz_qemu_machine *machine = vz_qemu_caps_machine(caps, name);
    return machine ? machine->name : NULL;
}

static vz_def *parse_text(const char *xml)
{
    static const vz_def_host host = {
        .arch = "x86_64",
        .emulator = "/usr/bin/qemu-system-x86_64",
        .default_machine = "pc",
        .default_cpu = "qemu64",
        .canonical_machine = canonical,
    };
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_def) def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    vz_def *live = vz_def_copy(def);
    vz_def_assign_aliases(live);
    return live;
}

static vz_def *parse_golden(const char *name)
{
    g_autofree char *file = g_strconcat(name, ".xml", NULL);
    g_autofree char *xml = NULL;
    g_assert_true(g_file_get_contents(g_test_get_filename(G_TEST_DIST, "golden", file, NULL), &xml,
                                      NULL, NULL));
    return parse_text(xml);
}

/* Made-up descriptors: each disk with a source has one image, a qcow2 one has two. */
typedef struct {
    vz_qemu_resources resources;
    vz_qemu_disk_images images[8];
    vz_qemu_layer layers[16];
    vz_qemu_fdset fdsets[16];
    int numbers[4][8];
} made_up;

static void make_up(made_up *m, const vz_def *def)
{
    unsigned n = 0;
    for (size_t i = 0; i < def->n_disks; i++) {
        const vz_def_disk *disk = &def->disks[i];
        bool qcow2 = disk->format == VZ_DISK_FORMAT_QCOW2;
        m->images[i] = (vz_qemu_disk_images){&m->layers[n], disk->path ? (qcow2 ? 2 : 1) : 0};
        for (size_t k = 0; k < m->images[i].n_layers; k++, n++) {
            m->layers[n] =
                (vz_qemu_layer){n, qcow2 && k == 0 ? "qcow2" : "raw",
                                disk->type == VZ_DISK_TYPE_BLOCK, k > 0 || disk->readonly};
            m->fdsets[n] = (vz_qemu_fdset){n, 40 + (int)n};
        }
    }
    for (int i = 0; i < 32; i++)
        m->numbers[i / 8][i % 8] = 10 + i;
    m->resources = (vz_qemu_resources){
        .monitor_fd = 3,
        .fdsets = m->fdsets,
        .n_fdsets = n,
        .disks = m->images,
        .tap_fds = m->numbers[0],
        .serial_fds = m->numbers[1],
        .console_fds = m->numbers[2],
        .channel_fds = m->numbers[3],
        .kernel = def->os.kernel,
        .initrd = def->os.initrd,
        .vnc_address = "127.0.0.1",
    };
}

static char *as_lines(char **argv)
{
    g_autoptr(GString) text = g_string_new(argv[0]);
    for (size_t i = 1; argv[i]; i++)
        g_string_append_printf(text, "%s%s", argv[i][0] == '-' ? "\n" : " ", argv[i]);
    g_string_append_c(text, '\n');
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static void check_golden(const void *data)
{
    const char *name = data;
    g_autoptr(vz_def) def = parse_golden(name);
    made_up m = {0};
    make_up(&m, def);
    m.resources.incoming = g_str_has_suffix(name, "pc");
    g_auto(GStrv) argv = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_qemu_argv(def, caps, &m.resources, &argv, &err));
    g_autofree char *lines = as_lines(argv);
    g_autofree char *file = g_strconcat(name, ".argv", NULL);
    const char *path = g_test_get_filename(G_TEST_DIST, "golden", file, NULL);
    if (g_getenv("VZ_GOLDEN_UPDATE"))
        g_assert_true(g_file_set_contents(path, lines, -1, NULL));
    g_autofree char *expected = NULL;
    g_assert_true(g_file_get_contents(path, &expected, NULL, NULL));
    g_assert_cmpstr(lines, ==, expected);
}

/* A definition gives the same command line at both ends of a migration, but for what belongs to
 * the host: descriptors, the accelerator, -incoming. */
static void test_stable(void)
{
    g_autoptr(vz_def) def = parse_golden("virt-install");
    made_up m = {0};
    make_up(&m, def);
    g_auto(GStrv) source = NULL;
    g_auto(GStrv) destination = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_qemu_argv(def, caps, &m.resources, &source, &err));
    m.resources.accel = VZ_ACCEL_KVM;
    m.resources.incoming = true;
    g_assert_true(vz_qemu_argv(def, caps, &m.resources, &destination, &err));
    guint n = g_strv_length(source);
    g_assert_cmpuint(g_strv_length(destination), ==, n + 2);
    for (guint i = 0, k = 0; i < n; i++, k++) {
        if (g_str_equal(destination[k], "-incoming")) {
            g_assert_cmpstr(destination[k + 1], ==, "defer");
            k += 2;
        }
        if (!g_str_equal(source[i], "tcg"))
            g_assert_cmpstr(source[i], ==, destination[k]);
    }
}

static void check_refused(const char *xml, const char *text)
{
    g_autoptr(vz_def) def = parse_text(xml);
    made_up m = {0};
    make_up(&m, def);
    char **argv = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_qemu_argv(def, caps, &m.resources, &argv, &err));
    g_assert_null(argv);
    g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
    if (!strstr(err->message, text))
        g_error("'%s' is not in: %s", text, err->message);
}

#define DOMAIN(type, inside)                                                                       \
    "<domain type='" type "'><name>g</name><memory>65536</memory>"                                 \
    "<os><type arch='x86_64' machine='pc'>hvm</type></os>" inside "</domain>"

static void test_refusals(void)
{
    check_refused(DOMAIN("qemu", "<cpu mode='host-model'/>"), "'host-model'");
    check_refused(DOMAIN("qemu", "<cpu mode='custom'><model>Zilog-Z80</model></cpu>"),
                  "no CPU model 'Zilog-Z80'");
    check_refused(
        DOMAIN("qemu", "<devices><graphics type='vnc' port='80' autoport='no'/></devices>"),
        "vnc port must be in range");
}

/* The value of -cpu. */
static const char *cpu_of(char **argv)
{
    for (size_t i = 0; argv[i]; i++)
        if (g_str_equal(argv[i], "-cpu"))
            return argv[i + 1];
    return "";
}

/* What a domain of type vz asks of the host's processor, TCG gives as well as it can. */
static void test_best(void)
{
    g_autoptr(vz_def) def = parse_text(DOMAIN("vz", "<cpu mode='host-passthrough'/>"));
    made_up m = {0};
    make_up(&m, def);
    g_auto(GStrv) tcg = NULL;
    g_auto(GStrv) kvm = NULL;
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_qemu_argv(def, caps, &m.resources, &tcg, &err));
    m.resources.accel = VZ_ACCEL_KVM;
    g_assert_true(vz_qemu_argv(def, caps, &m.resources, &kvm, &err));
    g_assert_true(g_str_has_prefix(cpu_of(tcg), "max,"));
    g_assert_true(g_str_has_prefix(cpu_of(kvm), "host,"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autofree char *recorded =
        g_test_build_filename(G_TEST_DIST, "golden", "qemu-10.0-replies.json", NULL);
    json_t *replies = json_load_file(recorded, 0, NULL);
    g_autoptr(GError) err = NULL;
    caps = vz_qemu_caps_parse("/usr/bin/qemu-system-x86_64", replies, &err);
    g_assert_no_error(err);
    json_decref(replies);
    g_test_add_data_func("/argv/virt-install", "virt-install", check_golden);
    g_test_add_data_func("/argv/qemu-pc", "qemu-pc", check_golden);
    g_test_add_func("/argv/stable", test_stable);
    g_test_add_func("/argv/refusals", test_refusals);
    g_test_add_func("/argv/best", test_best);
    int rc = g_test_run();
    vz_qemu_caps_free(caps);
    return rc;
}
