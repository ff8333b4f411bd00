/* test_cookie.c - what a peer may put into a cookie. */
#include "migrate/cookie.h"

#include <string.h>

static char *sample(void)
{
    vz_cookie cookie = {.port = 16515, .running = true, .paused_us = 12345};
    cookie.host_name = g_strdup("hosta");
    cookie.fingerprint = g_strdup("ab");
    cookie.disks = json_pack("[{ss}]", "target", "vda");
    cookie.job[0] = 1;
    char *text = vz_cookie_format(&cookie);
    vz_cookie_clear(&cookie);
    return text;
}

static void test_round_trip(void)
{
    g_autofree char *text = sample();
    g_auto(vz_cookie) cookie = {0};
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_cookie_parse(text, strlen(text), "begin", &cookie, &err));
    g_assert_cmpstr(cookie.host_name, ==, "hosta");
    g_assert_cmpint(cookie.port, ==, 16515);
    g_assert_true(cookie.running);
    g_assert_cmpuint(cookie.paused_us, ==, 12345);
    g_assert_null(cookie.config_xml);
    g_assert_cmpuint(json_array_size(cookie.disks), ==, 1);
    g_autofree char *again = vz_cookie_format(&cookie);
    g_assert_cmpstr(again, ==, text);
}

static void refuse(const char *data, size_t bytes, const char *words)
{
    vz_cookie cookie;
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_cookie_parse(data, bytes, "begin", &cookie, &err));
    g_assert_cmpint(err->code, ==, VZ_ERR_INVALID_ARG);
    if (!strstr(err->message, words))
        g_error("'%s' does not say '%s'", err->message, words);
}

static void test_refusals(void)
{
    refuse("", 0, "0 bytes");
    refuse("<qemu-migration/>", 17, "not virtvz's");
    refuse("{}", 2, "version");
    refuse("{\"virtvz-migration\":1}", 22, "'job'");
    static const char wrong_port[] =
        "{\"virtvz-migration\":1,\"job\":\"01000000-0000-0000-0000-000000000000\",\"host_name\":"
        "\"a\","
        "\"host_uuid\":\"01000000-0000-0000-0000-000000000000\",\"port\":70000}";
    refuse(wrong_port, strlen(wrong_port), "'port'");
    g_autofree char *large = g_strnfill(VZ_COOKIE_BYTES_MAX + 1, ' ');
    refuse(large, VZ_COOKIE_BYTES_MAX + 1, "bytes");
}

/* Every truncation and many damaged bytes: refused or read, never worse. */
static void test_damage(void)
{
    g_autofree char *text = sample();
    size_t bytes = strlen(text);
    g_autoptr(GRand) random = g_rand_new_with_seed(20);
    for (size_t n = 0; n < bytes; n++)
        refuse(text, n, "cookie");
    for (int i = 0; i < 3000; i++) {
        g_autofree char *copy = g_strdup(text);
        copy[g_rand_int_range(random, 0, (gint32)bytes)] = (char)g_rand_int_range(random, 0, 256);
        vz_cookie cookie = {0};
        g_autoptr(GError) err = NULL;
        if (vz_cookie_parse(copy, bytes, "begin", &cookie, &err))
            vz_cookie_clear(&cookie);
        else
            g_assert_nonnull(err);
    }
}

static void test_release(void)
{
    g_autofree char *release = vz_release_generate();
    g_autofree char *other = vz_release_generate();
    g_autofree char *hash = vz_release_hash(release);
    g_assert_cmpuint(strlen(release), ==, 2 * VZ_RELEASE_BYTES);
    g_assert_cmpstr(release, !=, other);
    g_assert_cmpuint(strlen(hash), ==, 64);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migrate/cookie/round-trip", test_round_trip);
    g_test_add_func("/migrate/cookie/refusals", test_refusals);
    g_test_add_func("/migrate/cookie/damage", test_damage);
    g_test_add_func("/migrate/cookie/release", test_release);
    return g_test_run();
}
