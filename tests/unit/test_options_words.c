/* test_options_words.c - the words of `vz migrate`: those of virsh, and what is wrong with others.
 */
#include "migrate/options.h"

#include <string.h>

/* Every word of virsh 11.3's migrate that is an option of the API is a word of vz. */
static void test_virsh_words(void)
{
    static const char *const virsh[] = {
        "live",
        "offline",
        "p2p",
        "tunneled",
        "tunnelled",
        "persistent",
        "undefinesource",
        "suspend",
        "copy-storage-all",
        "copy-storage-inc",
        "copy-storage-synchronous-writes",
        "change-protection",
        "unsafe",
        "compressed",
        "auto-converge",
        "rdma-pin-all",
        "abort-on-error",
        "postcopy",
        "postcopy-resume",
        "zerocopy",
        "migrateuri",
        "graphicsuri",
        "listen-address",
        "dname",
        "xml",
        "migrate-disks",
        "migrate-disks-detect-zeroes",
        "disks-port",
        "disks-uri",
        "comp-methods",
        "comp-mt-level",
        "comp-mt-threads",
        "comp-mt-dthreads",
        "comp-xbzrle-cache",
        "auto-converge-initial",
        "auto-converge-increment",
        "persistent-xml",
        "tls",
        "postcopy-bandwidth",
        "parallel",
        "parallel-connections",
        "bandwidth",
        "tls-destination",
        "comp-zlib-level",
        "comp-zstd-level",
        "available-switchover-bandwidth",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(virsh); i++)
        if (!vz_option_word_find(virsh[i]))
            g_error("--%s of virsh is not known", virsh[i]);

    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    for (size_t i = 0; i < count; i++)
        g_assert_true(vz_option_word_find(words[i].word) == &words[i]); /* none twice */
    g_assert_null(vz_option_word_find("no-such-word"));
}

static void test_word_errors(void)
{
    const struct {
        const char *word, *value, *text;
    } cases[] = {
        {"live", "yes", "takes no value"},        {"bandwidth", NULL, "--bandwidth needs a value"},
        {"bandwidth", "fast", "bandwidth is"},    {"comp-zstd-level", "21", "from 0 to 20"},
        {"comp-methods", "zstd,x", "method 'x'"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(vz_options) options = vz_options_new();
        g_autoptr(GError) err = NULL;
        bool ok = vz_options_apply_word(options, vz_option_word_find(cases[i].word), cases[i].value,
                                        &err);
        g_assert_false(ok);
        g_assert_cmpint(vz_error_number(err), ==, VZ_ERR_INVALID_ARG);
        g_assert_nonnull(strstr(err->message, cases[i].text));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options-words/virsh", test_virsh_words);
    g_test_add_func("/options-words/errors", test_word_errors);
    return g_test_run();
}
