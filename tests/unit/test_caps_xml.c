/* The documents of capabilities: read as a client reads them. */
#include "domain/caps_xml.h"

#include <glib/gstdio.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <string.h>

static const uint8_t uuid[16] = {0xca, 0xfe, [15] = 1};
static const char *const models[] = {"EPYC", "qemu64", NULL};
static const vz_caps_machine machines[] = {
    {"microvm", NULL, 288, false},      {"pc-q35-10.0", "q35", 4096, false},
    {"pc-i440fx-7.2", NULL, 255, true}, {"pc-i440fx-10.0", "pc", 255, false},
    {"none", NULL, 1, false},
};

static void put(const char *root, const char *path, const char *text)
{
    g_autofree char *whole = g_strconcat(root, path, NULL);
    g_autofree char *dir = g_path_get_dirname(whole);
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(whole, text, -1, NULL));
}

/* Two sockets of two cores of two threads, in two cells. */
static char *make_host(void)
{
    char *root = g_dir_make_tmp("vz-caps-XXXXXX", NULL);
    put(root, "/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n");
    put(root, "/sys/devices/system/node/online", "0-1\n");
    put(root, "/sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
    put(root, "/sys/devices/system/node/node1/cpulist", "2-3,6-7\n");
    put(root, "/sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:  4096 kB\nNode 0 x: 1\n");
    put(root, "/sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:  2048 kB\n");
    for (int cpu = 0; cpu < 8; cpu++) {
        int core = cpu % 4;
        struct {
            const char *name;
            char *text;
        } files[] = {
            {"physical_package_id", g_strdup_printf("%d\n", core / 2)},
            {"die_id", g_strdup("-1\n")},
            {"core_id", g_strdup_printf("%d\n", core % 2)},
            {"thread_siblings_list", g_strdup_printf("%d,%d\n", core, core + 4)},
        };
        for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
            g_autofree char *path =
                g_strdup_printf("/sys/devices/system/cpu/cpu%d/topology/%s", cpu, files[i].name);
            put(root, path, files[i].text);
            g_free(files[i].text);
        }
    }
    return root;
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *below = g_build_filename(path, name, NULL);
        remove_tree(below);
    }
    g_assert_cmpint(g_remove(path), ==, 0);
}

static vz_caps_input input(const vz_caps_host *host, bool kvm)
{
    return (vz_caps_input){.host_uuid = uuid,
                           .host = host,
                           .arch = "x86_64",
                           .emulator = "/usr/bin/qemu-system-x86_64",
                           .machines = machines,
                           .n_machines = G_N_ELEMENTS(machines),
                           .default_machine = "pc",
                           .cpu_models = models,
                           .kvm = kvm};
}

/* The expression's value as a string. */
static void expect(const char *xml, const char *expression, const char *value)
{
    xmlDoc *doc = xmlReadMemory(xml, (int)strlen(xml), NULL, NULL, XML_PARSE_NONET);
    g_assert_nonnull(doc);
    xmlXPathContext *context = xmlXPathNewContext(doc);
    g_autofree char *call = g_strdup_printf("string(%s)", expression);
    xmlXPathObject *result = xmlXPathEvalExpression((const xmlChar *)call, context);
    if (!result || strcmp((const char *)result->stringval, value) != 0)
        g_error("%s is '%s', not '%s' in\n%s", expression,
                result ? (const char *)result->stringval : "", value, xml);
    xmlXPathFreeObject(result);
    xmlXPathFreeContext(context);
    xmlFreeDoc(doc);
}

static void check_host(void)
{
    GError *err = NULL;
    g_autofree char *root = make_host();
    g_autoptr(vz_caps_host) host = vz_caps_host_read(root, &err);
    g_assert_no_error(err);
    remove_tree(root);
    vz_caps_input in = input(host, true);
    g_autofree char *xml = vz_caps_format(&in);
    expect(xml, "/capabilities/host/uuid", "cafe0000-0000-0000-0000-000000000001");
    expect(xml, "/capabilities/host/cpu/arch", "x86_64");
    expect(xml, "/capabilities/host/cpu/vendor", "Intel");
    expect(xml, "/capabilities/host/cpu/topology/@sockets", "1"); /* per cell */
    expect(xml, "/capabilities/host/cpu/topology/@cores", "2");
    expect(xml, "/capabilities/host/cpu/topology/@threads", "2");
    expect(xml, "count(/capabilities/host/migration_features/live)", "1");
    expect(xml, "//uri_transport", "tcp");
    expect(xml, "//cells/@num", "2");
    expect(xml, "//cell[@id=1]/memory[@unit='KiB']", "2048");
    expect(xml, "count(//cell[@id=0]/cpus/cpu)", "4");
    expect(xml, "//cpu[@id=6]/@siblings", "2,6");
    expect(xml, "//cpu[@id=6]/@socket_id", "1");
    expect(xml, "//cpu[@id=6]/@die_id", "0");
}

static void check_guest(void)
{
    GError *err = NULL;
    g_autoptr(vz_caps_host) host = vz_caps_host_read("", &err);
    g_assert_no_error(err);
    g_assert_cmpuint(host->n_cells, >=, 1);
    g_assert_cmpuint(host->cells[0].n_cpus, >=, 1);
    vz_caps_input in = input(host, false);
    g_autofree char *xml = vz_caps_format(&in);
    expect(xml, "/capabilities/guest/os_type", "hvm");
    expect(xml, "/capabilities/guest/arch/@name", "x86_64");
    expect(xml, "/capabilities/guest/arch/emulator", "/usr/bin/qemu-system-x86_64");
    expect(xml, "/capabilities/guest/arch/machine[1]", "pc-i440fx-10.0");
    expect(xml, "//machine[.='pc']/@canonical", "pc-i440fx-10.0");
    expect(xml, "//machine[.='q35']/@maxCpus", "4096");
    expect(xml, "//machine[.='pc-i440fx-7.2']/@deprecated", "yes");
    expect(xml, "count(//machine)", "5");
    expect(xml, "//arch/domain[1]/@type", "vz");
    expect(xml, "count(//arch/domain[@type='kvm'])", "0");
    in.kvm = true;
    g_autofree char *with_kvm = vz_caps_format(&in);
    expect(with_kvm, "count(//arch/domain[@type='kvm'])", "1");
}

static void check_domain(void)
{
    GError *err = NULL;
    g_autoptr(vz_caps_host) host = vz_caps_host_read("", &err);
    g_assert_no_error(err);
    vz_caps_input in = input(host, true);
    g_autofree char *xml = vz_caps_format_domain(&in, &(vz_caps_query){0}, &err);
    g_assert_no_error(err);
    expect(xml, "/domainCapabilities/path", "/usr/bin/qemu-system-x86_64");
    expect(xml, "/domainCapabilities/domain", "vz");
    expect(xml, "/domainCapabilities/machine", "pc-i440fx-10.0");
    expect(xml, "/domainCapabilities/vcpu/@max", "255");
    expect(xml, "//cpu/mode[@name='host-passthrough']/@supported", "yes");
    expect(xml, "count(//cpu/mode[@name='custom']/model)", "2");
    expect(xml, "//disk/enum[@name='bus']/value[1]", "virtio");
    expect(xml, "count(//graphics/enum/value)", "1");
    expect(xml, "//graphics/enum/value", "vnc");
    expect(xml, "//hostdev/@supported", "no");
    g_autofree char *q35 =
        vz_caps_format_domain(&in, &(vz_caps_query){.machine = "q35", .type = "qemu"}, &err);
    g_assert_no_error(err);
    expect(q35, "/domainCapabilities/machine", "pc-q35-10.0");
    expect(q35, "//cpu/mode[@name='host-passthrough']/@supported", "no");
}

static void check_refused(void)
{
    static const struct {
        vz_caps_query query;
        const char *words;
    } cases[] = {
        {{.machine = "microvm"}, "'microvm' is not supported"},
        {{.machine = "nonsense"}, "'nonsense' is not supported"},
        {{.arch = "aarch64"}, "to serve 'aarch64'"},
        {{.emulator = "/bin/true"}, "of emulator '/bin/true'"},
        {{.type = "xen"}, "unknown virttype: xen"},
        {{.type = "kvm"}, "KVM is not supported"},
    };
    GError *none = NULL;
    g_autoptr(vz_caps_host) host = vz_caps_host_read("", &none);
    vz_caps_input in = input(host, false);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        g_assert_null(vz_caps_format_domain(&in, &cases[i].query, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
        g_assert_nonnull(strstr(err->message, cases[i].words));
    }
}

static void check_no_host(void)
{
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_caps_host_read("/nowhere", &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
}

/* What libvirt's own schema of capabilities cannot know is taken out: the domain type 'vz', though
 * libvirt's vz driver writes it; and cluster_id, before libvirt 10.1. */
static void fit_capability(GString *xml, const char *schema)
{
    g_autofree char *rules = NULL;
    g_assert_true(g_file_get_contents(schema, &rules, NULL, NULL));
    g_assert_cmpuint(g_string_replace(xml, "type='vz'", "type='test'", 0), ==, 1);
    if (!strstr(rules, "cluster_id"))
        g_assert_cmpuint(g_string_replace(xml, " cluster_id='0'", "", 0), >, 0);
}

/* libvirt's own schemas, where installed. */
static void check_schema(const void *name)
{
    g_autofree char *schema =
        g_strdup_printf("/usr/share/libvirt/schemas/%s.rng", (const char *)name);
    g_autofree char *xmllint = g_find_program_in_path("xmllint");
    GError *err = NULL;
    if (!xmllint || !g_file_test(schema, G_FILE_TEST_EXISTS)) {
        g_test_skip("needs libvirt's schemas (libvirt-clients, libvirt0) and xmllint");
        return;
    }
    g_autoptr(vz_caps_host) host = vz_caps_host_read("", &err);
    vz_caps_input in = input(host, true);
    bool of_domain = strcmp(name, "domaincaps") == 0;
    g_autoptr(GString) xml = g_string_new(NULL);
    g_autofree char *text =
        of_domain ? vz_caps_format_domain(&in, &(vz_caps_query){0}, &err) : vz_caps_format(&in);
    g_string_assign(xml, text);
    if (!of_domain)
        fit_capability(xml, schema);
    g_autofree char *path = NULL, *said = NULL;
    int fd = g_file_open_tmp("vz-caps-XXXXXX.xml", &path, &err), status;
    g_assert_no_error(err);
    g_close(fd, NULL);
    g_assert_true(g_file_set_contents(path, xml->str, -1, NULL));
    const char *argv[] = {xmllint, "--noout", "--nonet", "--relaxng", schema, path, NULL};
    g_spawn_sync(NULL, (char **)(uintptr_t)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                 &said, &status, &err);
    g_assert_no_error(err);
    if (status != 0)
        g_error("%s\n%s", said, xml->str);
    g_unlink(path);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/caps/host", check_host);
    g_test_add_func("/caps/guest", check_guest);
    g_test_add_func("/caps/domain", check_domain);
    g_test_add_func("/caps/refused", check_refused);
    g_test_add_func("/caps/no-host", check_no_host);
    g_test_add_data_func("/caps/schema/capability", "capability", check_schema);
    g_test_add_data_func("/caps/schema/domaincaps", "domaincaps", check_schema);
    return g_test_run();
}
