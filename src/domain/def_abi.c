/* def_abi.c - would a guest notice that one definition was exchanged for the other? Every row
 * counts, except those of the host and of one run. See vz_def_same_abi in def.h. */
#include "domain/def.h"

#include "domain/def_rows.h"

#include <string.h>

static bool same_object(const vz_object *object, const void *a, const void *b, const char *path,
                        GError **err);

static bool differs(const char *path, const char *a, const char *b, GError **err)
{
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "target %s '%s' does not match source '%s'",
                   path, b ? b : "", a ? a : "");
}

static bool same_list(const vz_row *row, const void *a, const void *b, const char *path,
                      GError **err)
{
    size_t n = vz_row_list_count(row, a), m = vz_row_list_count(row, b);
    if (n != m)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "target has %zu of %s, which does not match the source's %zu", m, path, n);
    for (size_t i = 0; i < n; i++) {
        g_autofree char *item = g_strdup_printf("%s[%zu]", path, i + 1);
        if (!same_object(row->object, vz_row_list_item(row, a, i), vz_row_list_item(row, b, i),
                         item, err))
            return false;
    }
    return true;
}

static bool same_number(const vz_row *row, const void *a, const void *b, const char *path,
                        GError **err)
{
    uint64_t number_a, number_b;
    memcpy(&number_a, vz_row_value(row, a), sizeof(number_a));
    memcpy(&number_b, vz_row_value(row, b), sizeof(number_b));
    if (number_a == number_b)
        return true;
    g_autofree char *text_a = g_strdup_printf("%" G_GUINT64_FORMAT " bytes", number_a);
    g_autofree char *text_b = g_strdup_printf("%" G_GUINT64_FORMAT " bytes", number_b);
    return differs(path, text_a, text_b, err);
}

static bool same_flag(const vz_row *row, const void *a, const void *b, const char *path,
                      GError **err)
{
    bool flag_a = *(const bool *)vz_row_value(row, a), flag_b = *(const bool *)vz_row_value(row, b);
    return flag_a == flag_b ||
           differs(path, flag_a ? "present" : "absent", flag_b ? "present" : "absent", err);
}

static bool same_row(const vz_row *row, const void *a, const void *b, const char *parent,
                     GError **err)
{
    const void *member_a = vz_row_value(row, a), *member_b = vz_row_value(row, b);
    if (row->kind == VZ_ROW_INLINE)
        return same_object(row->object, member_a, member_b, parent, err);
    g_autofree char *path = vz_row_path(parent, row);
    if (row->kind == VZ_ROW_CHILD)
        return same_object(row->object, member_a, member_b, path, err);
    if (row->kind == VZ_ROW_LIST)
        return same_list(row, a, b, path, err);
    if (row->kind == VZ_ROW_FLAG)
        return same_flag(row, a, b, path, err);
    if (row->kind == VZ_ROW_NODE)
        return same_number(row, a, b, path, err);
    g_autofree char *text_a = vz_row_text(row, a), *text_b = vz_row_text(row, b);
    return g_strcmp0(text_a, text_b) == 0 || differs(path, text_a, text_b, err);
}

static bool same_object(const vz_object *object, const void *a, const void *b, const char *path,
                        GError **err)
{
    for (const vz_row *row = vz_row_first(object, a); row; row = vz_row_next(object, row, a)) {
        if (row->flags & (VZ_ROW_LIVE | VZ_ROW_HOST))
            continue;
        if (!same_row(row, a, b, path, err))
            return false;
    }
    return true;
}

bool vz_def_same_abi(const vz_def *a, const vz_def *b, GError **err)
{
    return same_object(&vz_object_domain, a, b, "/domain", err);
}
