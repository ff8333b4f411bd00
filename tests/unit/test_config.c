/* test_config.c - virtvzd.conf: what is taken, and what is refused with its line. */
#include "daemon/config.h"

#include <string.h>

static void test_defaults(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_config) config = vz_config_parse("", "f", &err);
    g_assert_no_error(err);
    g_assert_cmpstr(config->socket_dir, ==, "/run/libvirt");
    g_assert_cmpuint(config->tcp_port, ==, 16509);
    g_assert_false(config->listen_tcp);
    g_assert_true(config->autostart);
    g_assert_cmpstr(config->migrate_address, ==, "");
}

static void test_values(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_config) config = vz_config_parse("# comment\n"
                                                  "\n"
                                                  "  listen_tcp=yes  \n"
                                                  "tcp_port =\t1\n"
                                                  "vnc_address = a = b\n"
                                                  "emulator =\n"
                                                  "max_clients = 1000000",
                                                  "f", &err);
    g_assert_no_error(err);
    g_assert_true(config->listen_tcp);
    g_assert_cmpuint(config->tcp_port, ==, 1);
    g_assert_cmpstr(config->vnc_address, ==, "a = b");
    g_assert_cmpstr(config->emulator, ==, "");
    g_assert_cmpuint(config->max_clients, ==, 1000000);
}

static void test_refused(void)
{
    static const struct {
        const char *text;
        const char *says;
    } cases[] = {
        {"autostart = yes\n\nport = 1\n", "f:3: unknown key 'port'"},
        {"autostart\n", "f:1: 'autostart' is not 'key = value'"},
        {"autostart = true", "f:1: autostart: 'true' is neither yes nor no"},
        {"tcp_port = 0", "f:1: tcp_port: "},
        {"tcp_port = 65536", "f:1: tcp_port: "},
        {"tcp_port = 16509 # the default", "f:1: tcp_port: "},
        {"tcp_port = -1", "f:1: tcp_port: "},
        {"tcp_port =", "f:1: tcp_port: "},
        {"max_clients = 0", "f:1: max_clients: "},
        {"max_clients = 1000001", "f:1: max_clients: "},
        {"start_timeout = 86401", "f:1: start_timeout: "},
        {"autostart = no\nautostart = no", "f:2: autostart is set a second time"},
        {"= 1", "f:1: unknown key ''"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        g_assert_null(vz_config_parse(cases[i].text, "f", &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
        g_assert_true(g_str_has_prefix(err->message, cases[i].says));
    }
}

static void test_missing_file(void)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_config) config = vz_config_load("/nonexistent/virtvzd.conf", true, &err);
    g_assert_nonnull(config);
    g_assert_null(vz_config_load("/nonexistent/virtvzd.conf", false, &err));
    g_assert_nonnull(strstr(err->message, "/nonexistent/virtvzd.conf"));
}

/* The printed file, with its comment signs taken away, is a valid configuration that says the
 * defaults. */
static void test_description_is_a_configuration(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *text = vz_config_describe();
    g_autoptr(GString) active = g_string_new(NULL);
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    unsigned keys = 0;
    for (char **line = lines; *line; line++) {
        if (**line == '#' && (*line)[1] != ' ') {
            g_string_append_printf(active, "%s\n", *line + 1);
            keys++;
        }
    }
    g_autoptr(vz_config) said = vz_config_parse(active->str, "f", &err);
    g_assert_no_error(err);
    g_autoptr(vz_config) initial = vz_config_new();
    unsigned known = 0;
#define SAME_TEXT(name)    g_assert_cmpstr(said->name, ==, initial->name)
#define SAME_BOOL(name)    g_assert_true(said->name == initial->name)
#define SAME_PORT(name)    g_assert_cmpuint(said->name, ==, initial->name)
#define SAME_COUNT(name)   g_assert_cmpuint(said->name, ==, initial->name)
#define SAME_SECONDS(name) g_assert_cmpuint(said->name, ==, initial->name)
#define KEY(name, type, first, help)                                                               \
    SAME_##type(name);                                                                             \
    known++;
#include "config.def"
#undef KEY
    g_assert_cmpuint(keys, ==, known);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/config/defaults", test_defaults);
    g_test_add_func("/config/values", test_values);
    g_test_add_func("/config/refused", test_refused);
    g_test_add_func("/config/missing-file", test_missing_file);
    g_test_add_func("/config/description", test_description_is_a_configuration);
    return g_test_run();
}
