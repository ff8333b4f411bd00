/* test_choice.c - what the daemon makes of a sample, a link and two hosts, as a table. */
#include "migrate/choice.h"

#include "base/units.h"

#include <string.h>

#define MB ((uint64_t)1000000)

/* The sample: so many bytes of a thousand are left, and so fast by one processor; 0: none. */
typedef struct {
    unsigned left, pack_mb_s;
    uint64_t link_mb_s; /* 0: not known */
    unsigned cpus;
    const char *words;
    vz_compress compress;
    unsigned channels;
    const char *why;
} row;

static const row rows[] = {
    /* What shrinks well goes packed over a slow link; one processor is enough for that. */
    {250, 400, 25, 4, "", VZ_COMPRESS_ZSTD, 1, "shrinks to 25 %"},
    {250, 400, 25, 4, "live p2p", VZ_COMPRESS_ZSTD, 1, "pays for a link of 24 MiB/s"},
    /* What does not shrink, or too little, does not. */
    {1000, 400, 25, 4, "", VZ_COMPRESS_NONE, 0, "shrinks to 100 %"},
    {680, 400, 25, 4, "", VZ_COMPRESS_NONE, 0, "does not pay"},
    {660, 400, 25, 4, "", VZ_COMPRESS_ZSTD, 1, "pays"},
    /* A gigabit. Two processors pack what it could carry. */
    {250, 400, 125, 4, "", VZ_COMPRESS_ZSTD, 2, "pays for a link of 119 MiB/s"},
    {250, 400, 125, 1, "", VZ_COMPRESS_ZSTD, 1, "pays"},
    {250, 180, 125, 1, "", VZ_COMPRESS_NONE, 0, "does not pay"},
    {250, 180, 125, 2, "", VZ_COMPRESS_ZSTD, 2, "pays"},
    /* Without a known link. */
    {250, 400, 0, 4, "", VZ_COMPRESS_NONE, 0, "whether that pays is not known"},
    {1000, 400, 0, 8, "", VZ_COMPRESS_NONE, 0, "not known"},
    {250, 400, 0, 4, "parallel", VZ_COMPRESS_NONE, 2, "not known"},
    /* A link that is faster than one connection, and than packing. */
    {250, 400, 1250, 2, "", VZ_COMPRESS_NONE, 2, "does not pay"},
    {250, 400, 1250, 8, "", VZ_COMPRESS_ZSTD, 8, "pays"},
    {1000, 400, 1250, 16, "", VZ_COMPRESS_NONE, 3, "does not pay"},
    {1000, 400, 100000, 64, "", VZ_COMPRESS_NONE, VZ_CHOICE_CHANNELS_MAX, "does not pay"},
    {1000, 400, 500, 64, "", VZ_COMPRESS_NONE, 0, "does not pay"},
    /* No sample. */
    {0, 0, 25, 4, "", VZ_COMPRESS_NONE, 0, "no sample"},
    {0, 0, 1250, 4, "", VZ_COMPRESS_NONE, 3, "no sample"},
    /* The caller's words. What they leave open is chosen all the same. */
    {250, 400, 25, 4, "no-compressed", VZ_COMPRESS_NONE, 0, "not compressed, as asked"},
    {250, 400, 1250, 4, "no-compressed", VZ_COMPRESS_NONE, 3, "not compressed, as asked"},
    {1000, 400, 25, 4, "compressed", VZ_COMPRESS_ZSTD, 1, "compressed as asked"},
    {250, 400, 0, 4, "compressed", VZ_COMPRESS_ZSTD, 2, "compressed as asked"},
    {250, 400, 25, 4, "parallel", VZ_COMPRESS_ZSTD, 2, "pays"},
    {250, 400, 25, 1, "parallel parallel-connections=7", VZ_COMPRESS_ZSTD, 7, "pays"},
    {1000, 400, 25, 4, "parallel", VZ_COMPRESS_NONE, 2, "does not pay"},
    {250, 400, 25, 4, "parallel comp-methods=zlib", VZ_COMPRESS_ZLIB, 2, "compressed as asked"},
    {250, 400, 1250, 4, "comp-methods=xbzrle", VZ_COMPRESS_XBZRLE, 0, "compressed as asked"},
    /* What goes by one connection. */
    {250, 400, 25, 4, "postcopy live", VZ_COMPRESS_NONE, 0, "post-copy"},
    {250, 400, 1250, 8, "postcopy live", VZ_COMPRESS_NONE, 0, "post-copy"},
    {250, 400, 25, 4, "postcopy live compressed", VZ_COMPRESS_XBZRLE, 0, "compressed as asked"},
    {250, 400, 1250, 8, "tunnelled p2p", VZ_COMPRESS_NONE, 0, "tunnel"},
    {250, 400, 25, 4, "parallel zerocopy", VZ_COMPRESS_NONE, 2, "cannot be compressed"},
};

static vz_options *options_of(const char *words)
{
    vz_options *options = vz_options_new();
    g_auto(GStrv) list = g_strsplit(words, " ", -1);
    for (char **word = list; *word && **word; word++) {
        g_autoptr(GError) err = NULL;
        g_auto(GStrv) pair = g_strsplit(*word, "=", 2);
        vz_options_apply_word(options, vz_option_word_find(pair[0]), pair[1], &err);
        g_assert_no_error(err);
    }
    return options;
}

static vz_choice facts_of(const row *r)
{
    return (vz_choice){.facts = {.link_bytes_s = r->link_mb_s * MB,
                                 .here = {.multifd = true, .zstd = true, .cpus = r->cpus},
                                 .sample = {.tried_bytes = r->left ? MB : 0,
                                            .packed_bytes = r->left * (MB / 1000),
                                            .pack_bytes_s = r->pack_mb_s * MB}}};
}

static void test_table(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autoptr(vz_options) options = options_of(rows[i].words);
        vz_choice c = facts_of(&rows[i]);
        vz_choice_decide(&c, options);
        g_test_message("row %zu '%s': %s, %u: %s", i, rows[i].words,
                       vz_compress_name(c.stream.compress), c.stream.channels, c.why);
        g_assert_cmpint(c.stream.compress, ==, rows[i].compress);
        g_assert_cmpuint(c.stream.channels, ==, rows[i].channels);
        g_assert_nonnull(strstr(c.why, rows[i].why));
        g_assert_cmpuint(strlen(c.why), <, sizeof(c.why) - 1); /* whole */
    }
}

/* A QEMU that cannot is no error, where nobody asked for it. */
static void test_poor_qemu(void)
{
    const row well = {250, 400, 25, 4, "", VZ_COMPRESS_ZSTD, 1, ""};
    g_autoptr(vz_options) options = options_of("");
    vz_choice c = facts_of(&well);
    c.facts.here.zstd = false;
    vz_choice_decide(&c, options);
    g_assert_cmpint(c.stream.compress, ==, VZ_COMPRESS_NONE);
    g_assert_cmpuint(c.stream.channels, ==, 0);
    c = facts_of(&well);
    c.facts.here.multifd = false;
    c.facts.link_bytes_s = 1250 * MB;
    vz_choice_decide(&c, options);
    g_assert_cmpint(c.stream.compress, ==, VZ_COMPRESS_NONE);
    g_assert_cmpuint(c.stream.channels, ==, 0);
}

/* What a plan is told, before and after the destination has had its say. */
static void test_figures(void)
{
    const row well = {250, 400, 125, 4, "", VZ_COMPRESS_ZSTD, 2, ""};
    g_autoptr(vz_options) options = options_of("");
    g_autoptr(GError) err = NULL;
    vz_choice c = facts_of(&well);
    vz_choice_decide(&c, options);
    g_assert_cmpfloat(vz_choice_shrinks_to(&c), ==, 0.25);
    g_assert_cmpuint(vz_choice_packs_bytes_s(&c), ==, 800 * MB);
    g_autofree char *before = g_strdup(c.why);
    json_t *same = vz_stream_to_json(&c.stream);
    g_assert_true(vz_choice_take_answer(&c.stream, c.why, same, &err));
    g_assert_cmpstr(c.why, ==, before);
    vz_stream less = c.stream;
    less.channels = 0;
    less.compress = VZ_COMPRESS_NONE;
    json_t *answer = vz_stream_to_json(&less);
    g_assert_true(vz_choice_take_answer(&c.stream, c.why, answer, &err));
    g_assert_nonnull(strstr(c.why, "the destination"));
    g_assert_cmpfloat(vz_choice_shrinks_to(&c), ==, 1);
    g_assert_cmpuint(vz_choice_packs_bytes_s(&c), ==, 0);
    json_decref(same);
    json_decref(answer);
}

static void test_shown(void)
{
    const row well = {250, 400, 125, 4, "", VZ_COMPRESS_ZSTD, 2, ""};
    g_autoptr(vz_options) options = options_of("");
    vz_choice c = facts_of(&well);
    vz_job_stats stats = {0};
    vz_choice_decide(&c, options);
    vz_choice_show(&c, &stats);
    g_assert_cmpstr(stats.stream_compress, ==, "zstd");
    g_assert_cmpuint(stats.stream_channels, ==, 2);
    g_assert_cmpstr(stats.stream_why, ==, c.why);
    g_assert_true(stats.has_sample);
    g_assert_cmpuint(stats.sample_packed_bytes, ==, MB / 4);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/choice/table", test_table);
    g_test_add_func("/choice/poor-qemu", test_poor_qemu);
    g_test_add_func("/choice/figures", test_figures);
    g_test_add_func("/choice/shown", test_shown);
    return g_test_run();
}
