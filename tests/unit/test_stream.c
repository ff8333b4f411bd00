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
    return vz_stream_asked(options);
}

enum { CHANNELS = 1, COMPRESS = 2, BOTH = CHANNELS | COMPRESS };

static void test_asked(void)
{
    static const struct {
        const char *words;
        unsigned channels;
        vz_compress compress;
        unsigned level;
        bool postcopy;
        int free;
    } rows[] = {
        {"live", 0, VZ_COMPRESS_NONE, 1, false, BOTH},
        {"parallel", 2, VZ_COMPRESS_NONE, 1, false, COMPRESS},
        {"parallel parallel-connections=7", 7, VZ_COMPRESS_NONE, 1, false, COMPRESS},
        {"compressed", 2, VZ_COMPRESS_ZSTD, 1, false, CHANNELS},
        {"no-compressed", 0, VZ_COMPRESS_NONE, 1, false, CHANNELS},
        {"no-compressed parallel", 2, VZ_COMPRESS_NONE, 1, false, 0},
        {"compressed parallel parallel-connections=5", 5, VZ_COMPRESS_ZSTD, 1, false, 0},
        {"compressed postcopy live", 0, VZ_COMPRESS_XBZRLE, 1, true, 0},
        {"compressed tunnelled p2p", 0, VZ_COMPRESS_XBZRLE, 1, false, 0},
        {"tunnelled p2p", 0, VZ_COMPRESS_NONE, 1, false, 0},
        {"zerocopy parallel", 2, VZ_COMPRESS_NONE, 1, false, 0},
        {"comp-methods=xbzrle", 0, VZ_COMPRESS_XBZRLE, 1, false, 0},
        {"parallel comp-methods=zlib comp-zlib-level=9", 2, VZ_COMPRESS_ZLIB, 9, false, 0},
        {"parallel comp-methods=zstd comp-zstd-level=12", 2, VZ_COMPRESS_ZSTD, 12, false, 0},
        {"postcopy live", 0, VZ_COMPRESS_NONE, 1, true, 0},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        vz_stream s = chosen(rows[i].words);
        g_test_message("%s", rows[i].words);
        g_assert_cmpuint(s.channels, ==, rows[i].channels);
        g_assert_cmpint(s.compress, ==, rows[i].compress);
        g_assert_cmpuint(s.level, ==, rows[i].level);
        g_assert_cmpint(s.postcopy, ==, rows[i].postcopy);
        g_assert_cmpint((s.free_channels ? CHANNELS : 0) | (s.free_compress ? COMPRESS : 0), ==,
                        rows[i].free);
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

static void test_narrow(void)
{
    static const struct {
        int free;
        unsigned channels;
        vz_compress compress;
        vz_stream_host host;
        unsigned then_channels;
        vz_compress then_compress;
    } rows[] = {
        {BOTH, 4, VZ_COMPRESS_ZSTD, {true, true, 8}, 4, VZ_COMPRESS_ZSTD},
        {BOTH, 4, VZ_COMPRESS_ZSTD, {true, true, 2}, 2, VZ_COMPRESS_ZSTD},
        {BOTH, 4, VZ_COMPRESS_ZSTD, {true, true, 1}, 1, VZ_COMPRESS_ZSTD},
        {BOTH, 4, VZ_COMPRESS_ZSTD, {true, false, 8}, 4, VZ_COMPRESS_NONE},
        {BOTH, 1, VZ_COMPRESS_ZSTD, {true, false, 8}, 0, VZ_COMPRESS_NONE},
        {BOTH, 4, VZ_COMPRESS_ZSTD, {false, true, 8}, 0, VZ_COMPRESS_NONE},
        {BOTH, 4, VZ_COMPRESS_NONE, {true, true, 1}, 0, VZ_COMPRESS_NONE},
        /* What was asked for stays, and is refused where it cannot be. */
        {0, 4, VZ_COMPRESS_ZSTD, {false, false, 1}, 4, VZ_COMPRESS_ZSTD},
        {CHANNELS, 4, VZ_COMPRESS_ZSTD, {true, false, 2}, 2, VZ_COMPRESS_ZSTD},
        {COMPRESS, 4, VZ_COMPRESS_ZSTD, {true, false, 2}, 4, VZ_COMPRESS_NONE},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) err = NULL;
        vz_stream s = vz_stream_plain;
        s.channels = rows[i].channels;
        s.compress = rows[i].compress;
        s.free_channels = rows[i].free & CHANNELS;
        s.free_compress = rows[i].free & COMPRESS;
        vz_stream ours = s, theirs;
        g_test_message("row %zu", i);
        /* As it is done between two hosts. */
        json_t *offer = vz_stream_to_json(&s);
        g_assert_true(vz_stream_from_json(offer, &theirs, &err));
        vz_stream_narrow(&theirs, &rows[i].host);
        json_t *answer = vz_stream_to_json(&theirs);
        g_assert_true(vz_stream_take_answer(&ours, answer, &err));
        g_assert_cmpuint(ours.channels, ==, rows[i].then_channels);
        g_assert_cmpint(ours.compress, ==, rows[i].then_compress);
        json_decref(offer);
        json_decref(answer);
    }
}

static void test_other_answers(void)
{
    static const struct {
        int free;
        const char *answer;
    } rows[] = {
        {BOTH, "{\"channels\":3,\"compress\":\"zstd\",\"level\":1,\"cache-bytes\":1,"
               "\"postcopy\":false}"},
        {CHANNELS, "{\"channels\":2,\"compress\":\"none\",\"level\":1,\"cache-bytes\":1,"
                   "\"postcopy\":false}"},
        {COMPRESS, "{\"channels\":1,\"compress\":\"zstd\",\"level\":1,\"cache-bytes\":1,"
                   "\"postcopy\":false}"},
        {BOTH, "{\"channels\":2,\"compress\":\"zlib\",\"level\":1,\"cache-bytes\":1,"
               "\"postcopy\":false}"},
        {BOTH, "{\"channels\":0,\"compress\":\"none\",\"level\":1,\"cache-bytes\":1,"
               "\"postcopy\":true}"},
        {BOTH, "[]"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(GError) err = NULL;
        vz_stream s = vz_stream_plain;
        s.channels = 2;
        s.compress = VZ_COMPRESS_ZSTD;
        s.free_channels = rows[i].free & CHANNELS;
        s.free_compress = rows[i].free & COMPRESS;
        json_t *answer = json_loads(rows[i].answer, 0, NULL);
        g_assert_nonnull(answer);
        g_assert_false(vz_stream_take_answer(&s, answer, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
        g_assert_cmpuint(s.channels, ==, 2);
        json_decref(answer);
        g_assert_true(vz_stream_take_answer(&s, NULL, NULL)); /* of an earlier version */
    }
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
    g_test_add_func("/migrate/stream/asked", test_asked);
    g_test_add_func("/migrate/stream/narrow", test_narrow);
    g_test_add_func("/migrate/stream/other-answers", test_other_answers);
    g_test_add_func("/migrate/stream/round-trip", test_round_trip);
    g_test_add_func("/migrate/stream/a-peers-word", test_a_peers_word);
    return g_test_run();
}
