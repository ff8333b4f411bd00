/* test_stream.c - how memory travels, from options, and what of a peer's word is believed. */
#include "migrate/stream.h"

#include <string.h>

static vz_stream chosen(const char *words)
{
    g_autoptr(vz_options) options = vz_options_new();
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) list = g_strsplit(words, " ", -1);
    for (char **word = list; *word && **word; word++) {
        g_auto(GStrv) pair = g_strsplit(*word, "=", 2);
        vz_options_apply_word(options, vz_option_word_find(pair[0]), pair[1], &err);
        g_assert_no_error(err);
    }
    return vz_stream_choose(options);
}

static void test_choice(void)
{
    static const struct {
        const char *words;
        unsigned channels;
        vz_compress compress;
        unsigned level;
        bool postcopy;
    } rows[] = {
        {"live", 0, VZ_COMPRESS_NONE, 1, false},
        {"parallel", 2, VZ_COMPRESS_NONE, 1, false},
        {"parallel parallel-connections=7", 7, VZ_COMPRESS_NONE, 1, false},
        {"compressed", 2, VZ_COMPRESS_ZSTD, 1, false},
        {"compressed parallel parallel-connections=5", 5, VZ_COMPRESS_ZSTD, 1, false},
        {"compressed postcopy live", 0, VZ_COMPRESS_XBZRLE, 1, true},
        {"comp-methods=xbzrle", 0, VZ_COMPRESS_XBZRLE, 1, false},
        {"parallel comp-methods=zlib comp-zlib-level=9", 2, VZ_COMPRESS_ZLIB, 9, false},
        {"parallel comp-methods=zstd comp-zstd-level=12", 2, VZ_COMPRESS_ZSTD, 12, false},
        {"postcopy live", 0, VZ_COMPRESS_NONE, 1, true},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        vz_stream s = chosen(rows[i].words);
        g_test_message("%s", rows[i].words);
        g_assert_cmpuint(s.channels, ==, rows[i].channels);
        g_assert_cmpint(s.compress, ==, rows[i].compress);
        g_assert_cmpuint(s.level, ==, rows[i].level);
        g_assert_cmpint(s.postcopy, ==, rows[i].postcopy);
    }
    vz_stream s = chosen("auto-converge auto-converge-initial=30 auto-converge-increment=5");
    g_assert_true(s.auto_converge);
    g_assert_cmpuint(s.throttle_initial_percent, ==, 30);
    g_assert_cmpuint(s.throttle_increment_percent, ==, 5);
}

/* The other host gets what it has to know, and no more. */
static void test_round_trip(void)
{
    vz_stream there = vz_stream_plain;
    g_autoptr(GError) err = NULL;
    vz_stream here = chosen("parallel comp-methods=zstd comp-zstd-level=3 auto-converge");
    json_t *object = vz_stream_to_json(&here);
    g_assert_true(vz_stream_from_json(object, &there, &err));
    g_assert_cmpuint(there.channels, ==, 2);
    g_assert_cmpint(there.compress, ==, VZ_COMPRESS_ZSTD);
    g_assert_cmpuint(there.level, ==, 3);
    g_assert_false(there.auto_converge);
    json_decref(object);
    g_assert_true(vz_stream_from_json(NULL, &there, &err));
    g_assert_cmpuint(vz_stream_channels(&there), ==, 1);
}

static void test_a_peers_word(void)
{
    static const char *const bad[] = {
        "[]",
        "{}",
        "{\"channels\":256,\"compress\":\"none\",\"level\":1,\"cache-bytes\":1,\"postcopy\":false}",
        "{\"channels\":-1,\"compress\":\"none\",\"level\":1,\"cache-bytes\":1,\"postcopy\":false}",
        "{\"channels\":2,\"compress\":\"lzma\",\"level\":1,\"cache-bytes\":1,\"postcopy\":false}",
        "{\"channels\":2,\"compress\":\"zstd\",\"level\":21,\"cache-bytes\":1,\"postcopy\":false}",
        "{\"channels\":2,\"compress\":\"zstd\",\"level\":1,\"cache-bytes\":0,\"postcopy\":false}",
        "{\"channels\":2,\"compress\":\"xbzrle\",\"level\":1,\"cache-bytes\":1,\"postcopy\":false}",
        "{\"channels\":0,\"compress\":\"zstd\",\"level\":1,\"cache-bytes\":1,\"postcopy\":false}",
        "{\"channels\":2,\"compress\":\"none\",\"level\":1,\"cache-bytes\":1,\"postcopy\":true}",
        "{\"channels\":2,\"compress\":\"none\",\"level\":1,\"cache-bytes\":1,\"postcopy\":1}",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        vz_stream s;
        g_autoptr(GError) err = NULL;
        json_t *object = json_loads(bad[i], 0, NULL);
        g_assert_nonnull(object);
        g_assert_false(vz_stream_from_json(object, &s, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
        json_decref(object);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migrate/stream/choice", test_choice);
    g_test_add_func("/migrate/stream/round-trip", test_round_trip);
    g_test_add_func("/migrate/stream/a-peers-word", test_a_peers_word);
    return g_test_run();
}
