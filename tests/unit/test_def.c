/* The definition of a domain: documents in, documents out. Golden files: tests/golden/NAME.xml is
 * what a user writes, NAME.defined.xml what dumpxml then shows. */
#include "domain/def.h"

#include <string.h>

static const char *canonical_machine(const char *name, void *user G_GNUC_UNUSED)
{
    static const char *const machines[] = {"pc-i440fx-10.0", "pc-i440fx-7.2", "pc-q35-10.0",
                                           "microvm"};
    if (strcmp(name, "pc") == 0)
        return "pc-i440fx-10.0";
    if (strcmp(name, "q35") == 0)
        return "pc-q35-10.0";
    for (size_t i = 0; i < G_N_ELEMENTS(machines); i++)
        if (strcmp(name, machines[i]) == 0)
            return machines[i];
    return NULL;
}

static const vz_def_host host = {
    .arch = "x86_64",
    .emulator = "/usr/bin/qemu-system-x86_64",
    .default_machine = "pc",
    .default_cpu = "qemu64",
    .canonical_machine = canonical_machine,
};

static char *golden(const char *name)
{
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "golden", name, NULL);
    g_autoptr(GError) err = NULL;
    char *text;
    g_file_get_contents(path, &text, NULL, &err);
    g_assert_no_error(err);
    return text;
}

static vz_def *parse(const char *xml)
{
    GError *err = NULL;
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    return def;
}

static void check_golden(const void *name)
{
    g_autofree char *in_name = g_strconcat(name, ".xml", NULL);
    g_autofree char *out_name = g_strconcat(name, ".defined.xml", NULL);
    g_autofree char *in = golden(in_name), *expected = golden(out_name);
    g_autoptr(vz_def) def = parse(in);
    g_autofree char *out = vz_def_format(def, VZ_DEF_FORMAT_SECURE);
    g_assert_cmpstr(out, ==, expected);
    g_autoptr(vz_def) again = parse(out);
    g_autofree char *same = vz_def_format(again, VZ_DEF_FORMAT_SECURE);
    g_assert_cmpstr(same, ==, expected);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/def/golden/virt-install", "virt-install", check_golden);
    return g_test_run();
}
