/* options_words.c - options as words of a command line. Used by vz, and by what prints help,
 * manual and completion. Static tables; any thread. */
#include "migrate/options.h"

#include "base/text.h"

#include <string.h>

/* First every row's own word, in the order of the table, then the WORD rows. */
static const vz_option_word words[] = {
#define FLAG(id, bit, guests, sent, qemu, word, status, help) {word, VZ_OPTION_##id, true, help},
#define PARAM(id, name, type, unit, min, max, many, guests, sent, qemu, word, status, help)        \
    {word, VZ_OPTION_##id, true, help},
#define ON                         true
#define OFF                        false
#define WORD(word, id, sets, help) {word, VZ_OPTION_##id, sets, help},
#include "options.def"
};

const vz_option_word *vz_option_words(size_t *ret_count)
{
    *ret_count = G_N_ELEMENTS(words);
    return words;
}

const vz_option_word *vz_option_word_find(const char *word)
{
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++)
        if (strcmp(words[i].word, word) == 0)
            return &words[i];
    return NULL;
}

const char *vz_option_value_name(vz_option_id id)
{
    static const char *const names[] = {
        [VZ_UNIT_NONE] = NULL,           [VZ_UNIT_COUNT] = "N",
        [VZ_UNIT_LEVEL] = "LEVEL",       [VZ_UNIT_PORT] = "PORT",
        [VZ_UNIT_PERCENT] = "PERCENT",   [VZ_UNIT_BYTES] = "BYTES",
        [VZ_UNIT_MIB_S] = "MiB/s",       [VZ_UNIT_URI] = "URI",
        [VZ_UNIT_ADDRESS] = "ADDRESS",   [VZ_UNIT_NAME] = "NAME",
        [VZ_UNIT_XML] = "FILE",          [VZ_UNIT_DISK] = "DISK,...",
        [VZ_UNIT_CHOICE] = "METHOD,...",
    };
    const vz_option_row *row = vz_option_info(id);
    return row->type == VZ_ROW_PARAM ? names[row->unit] : NULL;
}

static bool put_list(vz_options *options, vz_option_id id, const char *value, GError **err)
{
    g_auto(GStrv) parts = g_strsplit(value, ",", -1);
    for (char **part = parts; *part; part++)
        if (!vz_options_put_text(options, id, *part, err))
            return false;
    return true;
}

bool vz_options_apply_word(vz_options *options, const vz_option_word *word, const char *value,
                           GError **err)
{
    const vz_option_row *row = vz_option_info(word->option);
    uint64_t number = 0;
    if (!vz_option_value_name(word->option) && value)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "--%s takes no value", word->word);
    if (row->wire_type == VZ_TPARAM_BOOLEAN)
        return vz_options_put_number(options, word->option, 1, err);
    if (row->type == VZ_ROW_FLAG) {
        vz_options_set_flag(options, word->option, word->on);
        return true;
    }
    if (!value)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "--%s needs a value: %s", word->word,
                       vz_option_value_name(word->option));
    if (row->wire_type == VZ_TPARAM_STRING)
        return row->multiple ? put_list(options, word->option, value, err)
                             : vz_options_put_text(options, word->option, value, err);
    return vz_parse_u64(value, word->word, row->min, row->max, &number, err) &&
           vz_options_put_number(options, word->option, number, err);
}
