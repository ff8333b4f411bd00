/* libFuzzer: any bytes as a domain's document. What parses must show and parse back to the same.
 *
 *   CC=clang meson setup build-fuzz -Db_sanitize=address,undefined -Db_lundef=false
 *   ninja -C build-fuzz tests/fuzz_def
 *   build-fuzz/tests/fuzz_def -max_len=20000 CORPUS tests/golden */
#include "domain/def.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static const vz_def_host host = {.arch = "x86_64",
                                     .emulator = "/usr/bin/qemu-system-x86_64",
                                     .default_machine = "pc",
                                     .default_cpu = "qemu64"};
    g_autofree char *xml = g_strndup((const char *)data, bytes);
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_def) def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    if (!def)
        return 0;
    g_autofree char *shown = vz_def_format(def, VZ_DEF_FORMAT_SECURE);
    g_autoptr(vz_def) again = vz_def_parse(shown, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    g_autofree char *same = vz_def_format(again, VZ_DEF_FORMAT_SECURE);
    g_assert_cmpstr(same, ==, shown);
    g_assert_true(vz_def_same_abi(def, again, &err));
    vz_def_assign_aliases(again);
    g_autofree char *status = vz_def_format(again, VZ_DEF_FORMAT_STATUS);
    g_autoptr(vz_def) restored = vz_def_parse(status, 0, &host, &err);
    g_assert_no_error(err);
    g_autofree char *still = vz_def_format(restored, VZ_DEF_FORMAT_STATUS);
    g_assert_cmpstr(still, ==, status);
    return 0;
}
