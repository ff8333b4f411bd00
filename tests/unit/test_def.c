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

/* Equal, or the first line that differs. */
static void same_document(const char *got, const char *expected)
{
    size_t start = 0;
    for (size_t i = 0; got[i] || expected[i]; i++) {
        if (got[i] != expected[i])
            g_error("got      '%.*s'\nexpected '%.*s'", (int)strcspn(got + start, "\n"),
                    got + start, (int)strcspn(expected + start, "\n"), expected + start);
        if (got[i] == '\n')
            start = i + 1;
    }
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
    same_document(out, expected);
    g_autoptr(vz_def) again = parse(out);
    g_autofree char *same = vz_def_format(again, VZ_DEF_FORMAT_SECURE);
    same_document(same, expected);
}

/* A live definition, as the driver fills it in: what is shown, what is kept, what is forgotten. */
static void check_live(void)
{
    g_autofree char *in = golden("virt-install.xml"), *expected = golden("virt-install.live.xml");
    g_autofree char *inactive = golden("virt-install.defined.xml");
    g_autoptr(vz_def) config = parse(in);
    g_autoptr(vz_def) live = vz_def_copy(config);
    live->id = 7;
    vz_def_assign_aliases(live);
    live->serials[0].source.path = g_strdup("/dev/pts/3");
    live->interfaces[0].target = g_strdup(VZ_DEF_TAP_PREFIX "0");
    live->graphics[0].port = 5900;
    live->graphics[0].listen = g_strdup("127.0.0.1");
    live->graphics[0].listen_filled = true;
    live->channels[0].source.path = g_strdup("/run/virtvz/7/agent");
    live->channels[0].source.mode = VZ_CHARDEV_MODE_BIND;
    live->channels[0].source.path_filled = true;
    live->channels[0].state = VZ_CHANNEL_STATE_DISCONNECTED;
    vz_def_sync_consoles(live);
    g_autofree char *shown = vz_def_format(live, 0);
    same_document(shown, expected);
    g_autofree char *kept = vz_def_format(live, VZ_DEF_FORMAT_INACTIVE);
    same_document(kept, inactive);
    g_autofree char *sent = vz_def_format(live, VZ_DEF_FORMAT_MIGRATABLE);
    same_document(sent, inactive);
    g_autofree char *of_config = vz_def_format(config, 0);
    same_document(of_config, inactive);
}

static void check_status(void)
{
    GError *err = NULL;
    g_autofree char *in = golden("virt-install.xml");
    g_autoptr(vz_def) live = parse(in);
    live->id = 3;
    vz_def_assign_aliases(live);
    live->graphics[0].port = 5907;
    live->graphics[0].listen = g_strdup("10.0.0.1");
    live->graphics[0].listen_filled = true;
    live->graphics[0].passwd = g_strdup("secret");
    live->channels[0].source.path = g_strdup("/run/c");
    live->channels[0].source.mode = VZ_CHARDEV_MODE_BIND;
    live->channels[0].source.path_filled = true;
    g_autofree char *status = vz_def_format(live, VZ_DEF_FORMAT_STATUS);
    g_autoptr(vz_def) back = vz_def_parse(status, 0, &host, &err);
    g_assert_no_error(err);
    g_assert_cmpint(back->id, ==, 3);
    g_assert_cmpint(back->graphics[0].port, ==, 5907);
    g_assert_true(back->graphics[0].listen_filled && back->channels[0].source.path_filled);
    g_assert_cmpstr(back->graphics[0].passwd, ==, "secret");
    g_assert_cmpstr(back->disks[0].info.alias, ==, "virtio-disk0");
    g_autofree char *again = vz_def_format(back, VZ_DEF_FORMAT_STATUS);
    same_document(again, status);
}

static void check_secret(void)
{
    g_autofree char *in = golden("pc-full.xml");
    g_autoptr(vz_def) def = parse(in);
    g_autofree char *plain = vz_def_format(def, VZ_DEF_FORMAT_INACTIVE);
    g_autofree char *sent = vz_def_format(def, VZ_DEF_FORMAT_MIGRATABLE);
    g_assert_null(strstr(plain, "passwd"));
    g_assert_nonnull(strstr(sent, " passwd='s3cr&amp;t'"));
}

/* A copy owns all it shows: the original may change and go. */
static void check_copy(void)
{
    g_autofree char *in = golden("pc-full.xml");
    vz_def *def = parse(in);
    g_autofree char *before = vz_def_format(def, VZ_DEF_FORMAT_SECURE);
    vz_def *copy = vz_def_copy(vz_def_ref(def));
    memset(def->disks[0].path, 'x', strlen(def->disks[0].path));
    vz_def_unref(def);
    vz_def_unref(def);
    g_autofree char *after = vz_def_format(copy, VZ_DEF_FORMAT_SECURE);
    same_document(after, before);
    vz_def_unref(copy);
    vz_def_unref(NULL);
}

/* What is generated differs from run to run, is well-formed, and is then kept. */
static void check_generated(void)
{
    static const char *const xml =
        "<domain type='qemu'><name>g</name><memory>65536</memory><os><type>hvm</type></os>"
        "<devices><interface type='user'/></devices></domain>";
    g_autoptr(vz_def) a = parse(xml);
    g_autoptr(vz_def) b = parse(xml);
    g_assert_cmpmem(a->interfaces[0].mac, 3, "\x52\x54\x00", 3);
    g_assert_true(memcmp(a->uuid, b->uuid, sizeof(a->uuid)) != 0);
    g_autofree char *shown = vz_def_format(a, 0);
    g_autoptr(vz_def) again = parse(shown);
    g_assert_cmpmem(again->uuid, VZ_UUID_BYTES, a->uuid, VZ_UUID_BYTES);
    g_assert_cmpmem(again->interfaces[0].mac, 6, a->interfaces[0].mac, 6);
}

/* More devices than pci.0 has slots: bridges are added, and no two devices meet. */
static void check_many_devices(const void *machine)
{
    g_autoptr(GString) xml = g_string_new(NULL);
    g_string_append_printf(xml,
                           "<domain type='qemu'><name>n</name><memory>65536</memory><os><type "
                           "machine='%s'>hvm</type></os><devices>",
                           (const char *)machine);
    for (int i = 0; i < 60; i++)
        g_string_append_printf(xml, "<interface type='user'><model type='%s'/></interface>",
                               i % 2 ? "virtio" : "e1000");
    g_string_append(xml, "</devices></domain>");
    g_autoptr(vz_def) def = parse(xml->str);
    g_autoptr(GHashTable) seen = g_hash_table_new(NULL, NULL);
    for (size_t i = 0; i < def->n_interfaces; i++) {
        const vz_def_address *address = &def->interfaces[i].info.address;
        g_assert_cmpint(address->type, ==, VZ_ADDRESS_PCI);
        uint32_t key = address->pci.bus << 8 | address->pci.slot << 3 | address->pci.function;
        g_assert_true(g_hash_table_add(seen, GUINT_TO_POINTER(key + 1)));
        g_assert_nonnull(vz_def_controller_find(def, VZ_CONTROLLER_PCI, address->pci.bus));
    }
    g_autofree char *shown = vz_def_format(def, 0);
    g_autoptr(vz_def) again = parse(shown);
    g_autofree char *same = vz_def_format(again, 0);
    same_document(same, shown);
}

static void refused(const char *xml, int code, const char *words)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_def) def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    if (def)
        g_error("not refused (%s): %s", words, xml);
    if (!strstr(err->message, words))
        g_error("'%s' lacks '%s'", err->message, words);
    g_assert_error(err, VZ_ERROR, code);
}

/* One snippet each, put into <domain> or <devices> of a small domain. */
static void check_refusals(void)
{
    static const struct {
        bool device;
        const char *snippet;
        int code;
        const char *words;
    } cases[] = {
#define REFUSAL(where, snippet, code, words) {where, snippet, VZ_ERR_##code, words},
#define DOMAIN                               false
#define DEVICE                               true
#include "refusals.def"
#undef REFUSAL
#undef DOMAIN
#undef DEVICE
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *xml = g_strdup_printf(
            "<domain type='qemu'><name>r</name><memory>65536</memory>%s<os><type>hvm</type></os>"
            "<devices>%s</devices></domain>",
            cases[i].device ? "" : cases[i].snippet, cases[i].device ? cases[i].snippet : "");
        refused(xml, cases[i].code, cases[i].words);
    }
}

static void check_whole_documents(void)
{
    refused("", VZ_ERR_XML_DETAIL, "(domain_definition):");
    refused("<domain", VZ_ERR_XML_DETAIL, "(domain_definition):1:");
    refused("<domain>\n\n<oops></domain>", VZ_ERR_XML_DETAIL, "(domain_definition):3:");
    refused("<network/>", VZ_ERR_XML_ERROR, "unexpected root element <network>");
    refused("<domain><name>x</name></domain>", VZ_ERR_XML_ERROR, "missing /domain@type");
    refused("<domain type='xen'/>", VZ_ERR_CONFIG_UNSUPPORTED, "it has: vz, kvm, qemu");
    refused("<domain type='vz'/>", VZ_ERR_XML_ERROR, "missing /domain/name");
    refused("<domain type='vz'><name>a</name></domain>", VZ_ERR_XML_ERROR,
            "missing /domain/memory");
    refused("<domain type='vz'><name>a</name><memory>0</memory><os><type>hvm</type></os></domain>",
            VZ_ERR_XML_ERROR, "memory size must be specified");
    refused("<domain type='vz'><name>a</name><memory>1</memory><os><type>exe</type></os></domain>",
            VZ_ERR_CONFIG_UNSUPPORTED, "containers are not in this version");
    refused("<domain type='vz'><name>a</name><memory>1</memory><os><type arch='ppc64'>hvm</type>"
            "</os></domain>",
            VZ_ERR_CONFIG_UNSUPPORTED, "'ppc64' cannot run on this host");
    refused("<domain type='vz'><name>a</name><memory>1</memory><os><type machine='pc-99'>hvm</type>"
            "</os></domain>",
            VZ_ERR_CONFIG_UNSUPPORTED, "does not support machine type 'pc-99'");
    refused("<domain type='vz'><name>a</name><memory>1</memory><os><type machine='microvm'>hvm"
            "</type></os></domain>",
            VZ_ERR_CONFIG_UNSUPPORTED, "machine type 'microvm' is not supported by virtvz");
}

static void check_bombs(void)
{
    refused("<!DOCTYPE d [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]><domain>&b;</domain>",
            VZ_ERR_XML_ERROR, "document type declaration");
    refused("<!DOCTYPE d SYSTEM 'file:///etc/passwd'><domain/>", VZ_ERR_XML_ERROR,
            "document type declaration");
    refused("<domain type='vz'><name>&xxe;</name></domain>", VZ_ERR_XML_DETAIL, "xxe");

    g_autoptr(GString) deep = g_string_new("<domain>");
    for (int i = 0; i < 200; i++)
        g_string_append(deep, "<a>");
    for (int i = 0; i < 200; i++)
        g_string_append(deep, "</a>");
    g_string_append(deep, "</domain>");
    refused(deep->str, VZ_ERR_XML_ERROR, "nested deeper than");

    g_autoptr(GString) deeper = g_string_new(NULL);
    for (int i = 0; i < 100000; i++)
        g_string_append(deeper, "<domain>");
    refused(deeper->str, VZ_ERR_XML_DETAIL, "(domain_definition)");

    g_autoptr(GString) wide = g_string_new("<domain>");
    for (int i = 0; i < 150000; i++)
        g_string_append(wide, "<a/>");
    g_string_append(wide, "</domain>");
    refused(wide->str, VZ_ERR_XML_ERROR, "elements, attributes and texts");

    g_autofree char *huge = g_strnfill(VZ_DEF_XML_BYTES_MAX + 1, ' ');
    refused(huge, VZ_ERR_XML_ERROR, "larger than");
}

/* One random change: of a byte, or of a piece that is copied over or cut out. */
static void mutate(GRand *random, GString *xml)
{
    static const char bytes[] = "<>/='\"& 0129-azAZ[]!\n\t\x01\x80\xff:";
    guint32 at = g_rand_int_range(random, 0, (gint32)xml->len);
    gsize wanted = (gsize)g_rand_int_range(random, 1, 60);
    guint32 len = (guint32)MIN(xml->len - at, wanted);
    g_autofree char *piece = g_strndup(xml->str + at, len);
    switch (g_rand_int_range(random, 0, 4)) {
    case 0:
        xml->str[at] = bytes[g_rand_int_range(random, 0, sizeof(bytes) - 1)];
        break;
    case 1:
        g_string_erase(xml, at, len);
        break;
    case 2:
        g_string_insert(xml, g_rand_int_range(random, 0, (gint32)xml->len), piece);
        break;
    default: /* a digit, so that the document stays well-formed and the value changes */
        for (guint32 i = at; i < xml->len; i++) {
            if (!g_ascii_isdigit(xml->str[i]))
                continue;
            xml->str[i] = (char)('0' + g_rand_int_range(random, 0, 10));
            break;
        }
    }
}

/* Lines swapped between two places: often well-formed, rarely sensible. */
static void shuffle_lines(GRand *random, GString *xml)
{
    g_auto(GStrv) lines = g_strsplit(xml->str, "\n", -1);
    gint32 n = (gint32)g_strv_length(lines);
    gint32 a = g_rand_int_range(random, 1, n), b = g_rand_int_range(random, 1, n);
    char *line = lines[a];
    lines[a] = lines[b];
    lines[b] = line;
    g_autofree char *joined = g_strjoinv("\n", lines);
    g_string_assign(xml, joined);
}

/* Whatever comes in: it is refused with a reason, or what dumpxml then shows parses back to the
 * same. VZ_TEST_SEED repeats a run. */
static void check_mutations(const void *name)
{
    enum { ROUNDS = 2500 };
    const char *seed_text = g_getenv("VZ_TEST_SEED");
    guint32 seed = seed_text ? (guint32)g_ascii_strtoull(seed_text, NULL, 10) : 20261121;
    g_autoptr(GRand) random = g_rand_new_with_seed(seed);
    g_autofree char *valid = golden(name);
    unsigned accepted = 0;
    for (int round = 0; round < ROUNDS; round++) {
        g_autoptr(GString) xml = g_string_new(valid);
        for (int changes = g_rand_int_range(random, 1, 4); changes > 0; changes--) {
            if (g_rand_int_range(random, 0, 3) == 0)
                shuffle_lines(random, xml);
            else
                mutate(random, xml);
        }
        g_autoptr(GError) err = NULL;
        g_autoptr(vz_def) def = vz_def_parse(xml->str, VZ_DEF_PARSE_INACTIVE, &host, &err);
        g_assert_true(!def == !!err);
        if (!def) {
            g_assert_true(err->domain == VZ_ERROR && err->message[0]);
            continue;
        }
        accepted++;
        g_autofree char *shown = vz_def_format(def, VZ_DEF_FORMAT_SECURE);
        g_autoptr(vz_def) again = vz_def_parse(shown, VZ_DEF_PARSE_INACTIVE, &host, &err);
        if (!again)
            g_error("round %d of seed %u: %s\n%s", round, seed, err->message, shown);
        g_autofree char *same = vz_def_format(again, VZ_DEF_FORMAT_SECURE);
        same_document(same, shown);
    }
    g_test_message("seed %u: %u of %d accepted", seed, accepted, ROUNDS);
    g_assert_cmpuint(accepted, >, ROUNDS / 50); /* else this tests nothing */
    g_assert_cmpuint(accepted, <, ROUNDS * 9 / 10);
}

/* libvirt's own schema accepts what we show. */
static void check_schema(const void *name)
{
    static const char *const schema = "/usr/share/libvirt/schemas/domain.rng";
    static const char *const common = "/usr/share/libvirt/schemas/domaincommon.rng";
    g_autofree char *path = g_test_build_filename(G_TEST_DIST, "golden", name, NULL);
    g_autofree char *xmllint = g_find_program_in_path("xmllint");
    g_autofree char *xml = golden(name), *words = NULL, *said = NULL;
    int status;
    if (!xmllint || !g_file_get_contents(common, &words, NULL, NULL)) {
        g_test_skip("needs libvirt's schemas (libvirt-clients, libvirt0) and xmllint");
        return;
    }
    if (strstr(xml, "'itco'") && !strstr(words, "<value>itco</value>")) {
        g_test_skip("this libvirt's schema is older than the itco watchdog (9.1)");
        return;
    }
    const char *argv[] = {xmllint, "--noout", "--nonet", "--relaxng", schema, path, NULL};
    GError *err = NULL;
    g_spawn_sync(NULL, (char **)(uintptr_t)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL, NULL,
                 &said, &status, &err);
    g_assert_no_error(err);
    if (status != 0)
        g_error("%s: %s", path, said);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_data_func("/def/golden/virt-install", "virt-install", check_golden);
    g_test_add_data_func("/def/golden/minimal", "minimal", check_golden);
    g_test_add_data_func("/def/golden/q35-minimal", "q35-minimal", check_golden);
    g_test_add_data_func("/def/golden/pc-full", "pc-full", check_golden);
    g_test_add_func("/def/live", check_live);
    g_test_add_func("/def/status", check_status);
    g_test_add_func("/def/secret", check_secret);
    g_test_add_func("/def/copy", check_copy);
    g_test_add_func("/def/generated", check_generated);
    g_test_add_data_func("/def/many-devices/pc", "pc", check_many_devices);
    g_test_add_data_func("/def/many-devices/q35", "q35", check_many_devices);
    g_test_add_func("/def/refusals", check_refusals);
    g_test_add_func("/def/whole-documents", check_whole_documents);
    g_test_add_func("/def/bombs", check_bombs);
    g_test_add_data_func("/def/mutations/pc-full", "pc-full.defined.xml", check_mutations);
    g_test_add_data_func("/def/mutations/virt-install", "virt-install.xml", check_mutations);
    g_test_add_data_func("/def/schema/minimal", "minimal.defined.xml", check_schema);
    g_test_add_data_func("/def/schema/pc-full", "pc-full.defined.xml", check_schema);
    g_test_add_data_func("/def/schema/q35-minimal", "q35-minimal.defined.xml", check_schema);
    return g_test_run();
}
