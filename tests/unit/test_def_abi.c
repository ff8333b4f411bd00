/* Which changes of a definition a guest would notice, and how they are named: the table abi.def. */
#include "domain/def.h"

#include <string.h>

static const struct {
    const char *old[2], *new[2], *words; /* words NULL: a guest does not see it */
} changes[] = {
#define CHANGE(old, new, words)                 {{old}, {new}, words},
#define CHANGE_TWO(old, new, old2, new2, words) {{old, old2}, {new, new2}, words},
#include "abi.def"
#undef CHANGE
#undef CHANGE_TWO
};

static const char *const sentences[] = {
#define SAYS(object, path, sentence) sentence,
#include "domain_abi.def"
#undef SAYS
};

static const char *any_machine(const char *name, void *user G_GNUC_UNUSED)
{
    return name;
}

static const vz_def_host host = {.arch = "x86_64",
                                 .emulator = "/usr/bin/qemu-system-x86_64",
                                 .default_machine = "pc-i440fx-7.2",
                                 .canonical_machine = any_machine};

static char *document(void)
{
    g_autofree char *path =
        g_test_build_filename(G_TEST_DIST, "golden", "pc-full.defined.xml", NULL);
    g_autoptr(GError) err = NULL;
    char *text = NULL;
    g_file_get_contents(path, &text, NULL, &err);
    g_assert_no_error(err);
    return text;
}

static char *replaced(const char *xml, const char *old, const char *new)
{
    g_auto(GStrv) parts = g_strsplit(xml, old, -1);
    if (g_strv_length(parts) != 2)
        g_error("'%s' stands %u times in the document", old, g_strv_length(parts) - 1);
    return g_strjoinv(new, parts);
}

static vz_def *parse(const char *xml, const char *what)
{
    g_autoptr(GError) err = NULL;
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    if (!def)
        g_error("'%s': %s", what, err->message);
    return def;
}

/* The refusal's text, or NULL; caller frees. */
static char *verdict(size_t i)
{
    g_autofree char *xml = document();
    g_autofree char *once = replaced(xml, changes[i].old[0], changes[i].new[0]);
    g_autofree char *twice =
        changes[i].old[1] ? replaced(once, changes[i].old[1], changes[i].new[1]) : g_strdup(once);
    g_autoptr(vz_def) def = parse(xml, "the document");
    g_autoptr(vz_def) other = parse(twice, changes[i].new[0]);
    g_autoptr(GError) err = NULL;
    bool same = vz_def_same_abi(def, other, &err);
    g_assert_true(same == (err == NULL));
    if (!same)
        g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
    return err ? g_strdup(err->message) : NULL;
}

static void check_changes(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(changes); i++) {
        g_autofree char *said = verdict(i);
        if (!said != !changes[i].words || (said && !strstr(said, changes[i].words)))
            g_error("'%s' for '%s': expected '%s', got '%s'", changes[i].new[0], changes[i].old[0],
                    changes[i].words ? changes[i].words : "no objection",
                    said ? said : "no objection");
    }
}

/* The words before the first value. */
static bool begins_like(const char *said, const char *sentence)
{
    return strncmp(said, sentence, strcspn(sentence, "%")) == 0;
}

static void check_each_sentence(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sentences); i++) {
        bool met = false;
        for (size_t k = 0; k < G_N_ELEMENTS(changes); k++)
            met = met || (changes[k].words && begins_like(changes[k].words, sentences[i]));
        if (!met)
            g_error("no change of abi.def is answered by '%s'", sentences[i]);
    }
}

static void check_same_domain(void)
{
    static const struct {
        const char *old, *new, *words;
    } cases[] = {
        {"<title>", "<title>New ", NULL},
        {"'KiB'>976563<", "'KiB'>976564<", NULL},
        {"<name>full<", "<name>other<",
         "Target domain name 'other' does not match source 'full' (/domain/name)"},
        {"00000000f011", "00000000f012",
         "Target domain uuid 0a0b0c0d-0000-4000-8000-00000000f012 does not match source "
         "0a0b0c0d-0000-4000-8000-00000000f011 (/domain/uuid)"},
    };
    g_autofree char *xml = document();
    g_autoptr(vz_def) def = parse(xml, "the document");
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        g_autofree char *text = replaced(xml, cases[i].old, cases[i].new);
        g_autoptr(vz_def) other = parse(text, cases[i].new);
        g_assert_true(vz_def_same_domain(def, other, &err) == !cases[i].words);
        if (!cases[i].words)
            continue;
        g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED);
        g_assert_cmpstr(err->message, ==, cases[i].words);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/abi/changes", check_changes);
    g_test_add_func("/abi/each-sentence", check_each_sentence);
    g_test_add_func("/abi/same-domain", check_same_domain);
    return g_test_run();
}
