/* test_uri.c - addresses that users write for migrations. */
#include "migrate/uri.h"

static void test_data(void)
{
    const struct {
        const char *uri, *host;
        unsigned port;
        int code;
    } cases[] = {
        {"tcp:hostb", "hostb", 0, 0},
        {"tcp:hostb:16515", "hostb", 16515, 0},
        {"tcp://10.1.1.2:1/", "10.1.1.2", 1, 0},
        {"TCP://hostb/", "hostb", 0, 0},
        {"tcp://[fe80::1]:65535", "fe80::1", 65535, 0},
        {"tcp:[::1]", "::1", 0, 0},
        {"", NULL, 0, 8},
        {"hostb", NULL, 0, 8},
        {":hostb", NULL, 0, 8},
        {"tcp:", NULL, 0, 8},
        {"tcp://:1", NULL, 0, 8},
        {"tcp:[::1", NULL, 0, 8},
        {"tcp:hostb:", NULL, 0, 8},
        {"tcp:hostb:0", NULL, 0, 8},
        {"tcp:hostb:65536", NULL, 0, 8},
        {"tcp:hostb:1x", NULL, 0, 8},
        {"tcp:hostb/x", NULL, 0, 8},
        {"tcp:a b", NULL, 0, 8},
        {"tcp:user@hostb", NULL, 0, 8},
        {"unix:/run/x", NULL, 0, 74},
        {"rdma:hostb", NULL, 0, 74},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *host = NULL;
        g_autoptr(GError) err = NULL;
        uint16_t port = 0;
        bool ok = vz_uri_parse_data(cases[i].uri, &host, &port, &err);
        g_assert_true(ok == (cases[i].code == 0));
        g_assert_cmpstr(host, ==, cases[i].host);
        g_assert_cmpuint(port, ==, cases[i].port);
        if (!ok)
            g_assert_cmpint(err->code, ==, cases[i].code);
    }
    g_autofree char *v4 = vz_uri_format_data("hostb", 1);
    g_autofree char *v6 = vz_uri_format_data("::1", 2);
    g_assert_cmpstr(v4, ==, "tcp:hostb:1");
    g_assert_cmpstr(v6, ==, "tcp:[::1]:2");
}

static void test_migrate(void)
{
    g_autofree char *long_path = g_strnfill(108, 'x');
    *long_path = '/';
    g_autofree char *too_long = g_strconcat("unix://", long_path, NULL);
    long_path[107] = '\0';
    g_autofree char *longest = g_strconcat("unix:", long_path, NULL);
    const struct {
        const char *uri, *path;
        int code;
    } migrate_uris[] = {
        {"tcp:hostb:1", NULL, 0}, {"unix:/run/x", "/run/x", 0}, {"UNIX:///run/x", "/run/x", 0},
        {"rdma:hostb", NULL, 0},  {"unix:", NULL, 8},           {"unix://hostb/x", NULL, 8},
        {"unix:run/x", NULL, 8},  {too_long, NULL, 8},          {longest, long_path, 0},
        {"http:hostb", NULL, 74}, {"hostb", NULL, 8},           {"tcp:", NULL, 8},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(migrate_uris); i++) {
        g_autoptr(GError) err = NULL;
        bool ok = vz_uri_check_migrate(migrate_uris[i].uri, &err);
        g_assert_cmpint(ok ? 0 : err->code, ==, migrate_uris[i].code);
        if (ok)
            g_assert_cmpstr(vz_uri_unix_path(migrate_uris[i].uri), ==, migrate_uris[i].path);
    }
    g_assert_true(vz_uri_is_rdma("rdma://hostb"));
    g_assert_false(vz_uri_is_rdma("tcp:rdma"));
}

/* Those of libvirt's QEMU, and no others. */
static void test_guessed_port(void)
{
    static const struct {
        uint16_t port;
        bool guessed;
    } ports[] = {{16515, false}, {49151, false}, {49152, true}, {49215, true}, {49216, false}};
    for (size_t i = 0; i < G_N_ELEMENTS(ports); i++)
        g_assert_true(vz_uri_is_guessed_port(ports[i].port) == ports[i].guessed);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/uri/data", test_data);
    g_test_add_func("/uri/migrate", test_migrate);
    g_test_add_func("/uri/guessed-port", test_guessed_port);
    return g_test_run();
}
