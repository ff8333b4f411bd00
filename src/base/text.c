/* text.c - see text.h. Pure functions; any thread. */
#include "base/text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

void vz_uuid_format(const uint8_t uuid[VZ_UUID_BYTES], char ret_text[VZ_UUID_TEXT_BYTES])
{
    char *p = ret_text;
    for (int i = 0; i < VZ_UUID_BYTES; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *p++ = '-';
        p += snprintf(p, 3, "%02x", uuid[i]);
    }
}

bool vz_uuid_parse(const char *text, uint8_t ret_uuid[VZ_UUID_BYTES])
{
    uint8_t uuid[VZ_UUID_BYTES];
    for (int i = 0; i < VZ_UUID_BYTES; i++) {
        while (i > 0 && *text == '-')
            text++;
        int high = g_ascii_xdigit_value(text[0]);
        int low = high < 0 ? -1 : g_ascii_xdigit_value(text[1]);
        if (low < 0)
            return false;
        uuid[i] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (*text != '\0')
        return false;
    memcpy(ret_uuid, uuid, sizeof(uuid));
    return true;
}

void vz_uuid_generate(uint8_t ret_uuid[VZ_UUID_BYTES])
{
    ssize_t n = getrandom(ret_uuid, VZ_UUID_BYTES, 0);
    g_assert(n == VZ_UUID_BYTES); /* getrandom gives up to 256 bytes whole, once initialised */
    ret_uuid[6] = (uint8_t)((ret_uuid[6] & 0x0f) | 0x40);
    ret_uuid[8] = (uint8_t)((ret_uuid[8] & 0x3f) | 0x80);
}

guint vz_uuid_hash(const void *uuid)
{
    guint32 word;
    memcpy(&word, uuid, sizeof(word));
    return word;
}

gboolean vz_uuid_equal(const void *a, const void *b)
{
    return memcmp(a, b, VZ_UUID_BYTES) == 0;
}

char *vz_hex(const uint8_t *data, size_t bytes)
{
    GString *text = g_string_sized_new(bytes * 2 + 1);
    for (size_t i = 0; i < bytes; i++)
        g_string_append_printf(text, "%02x", data[i]);
    return g_string_free(text, FALSE);
}

bool vz_unhex(const char *text, uint8_t *ret_data, size_t bytes)
{
    if (strlen(text) != bytes * 2)
        return false;
    for (size_t i = 0; i < bytes * 2; i++)
        if (!g_ascii_isxdigit(text[i]))
            return false;
    for (size_t i = 0; i < bytes; i++)
        ret_data[i] = (uint8_t)(g_ascii_xdigit_value(text[2 * i]) << 4 |
                                g_ascii_xdigit_value(text[2 * i + 1]));
    return true;
}

bool vz_parse_u64(const char *text, const char *what, uint64_t min, uint64_t max,
                  uint64_t *ret_value, GError **err)
{
    guint64 value;
    if (!g_ascii_string_to_unsigned(text, 10, min, max, &value, NULL))
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "%s is '%s', but must be a number from %" G_GUINT64_FORMAT
                       " to %" G_GUINT64_FORMAT,
                       what, text, min, max);
    *ret_value = value;
    return true;
}

bool vz_check_version(const char *path, int64_t version, int64_t max, GError **err)
{
    if (version >= 1 && version <= max)
        return true;
    return vz_fail(err, VZ_ERR_INTERNAL_ERROR,
                   "'%s' has version %" G_GINT64_FORMAT
                   ", and this virtvzd reads 1 to %" G_GINT64_FORMAT
                   ": it is left as it is; install a virtvzd as new as the one that wrote it, and "
                   "restart that",
                   path, version, max);
}
