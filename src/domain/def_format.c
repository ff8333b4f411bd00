/* def_format.c - from a definition to its document, driven by the rows of defs/domain_xml.def.
 *
 * INACTIVE and MIGRATABLE are shown from a copy without what belongs to one run. Any thread. */
#include "domain/def.h"

#include "domain/def_fill.h"
#include "domain/def_rows.h"
#include "domain/def_writer.h"

#include <string.h>

typedef struct {
    vz_writer writer;
    unsigned hidden; /* VZ_ROW_* flags of rows that are not shown */
} formatter;

static void format_object(formatter *f, const vz_object *object, const void *data);

/* Leaves and enters elements until those above `base` are the path's, up to its attribute. Rows of
 * one element stand together, so it is entered once. */
static void go_to(formatter *f, size_t base, const char *path, bool skip_last)
{
    vz_writer *writer = &f->writer;
    size_t level = base;
    while (*path && *path != '@') {
        size_t len = strcspn(path, "/@");
        bool last = path[len] != '/';
        if (last && skip_last)
            break;
        const char *open =
            level < writer->path->len ? g_ptr_array_index(writer->path, level) : NULL;
        if (!open || strlen(open) != len || memcmp(open, path, len) != 0) {
            while (writer->path->len > level)
                vz_writer_leave(writer);
            vz_writer_enter(writer, path, len);
        }
        level++;
        path += len + (last ? 0 : 1);
    }
    while (writer->path->len > level)
        vz_writer_leave(writer);
}

static void format_list(formatter *f, const vz_row *row, const void *data)
{
    const char *slash = strrchr(row->path, '/');
    const char *name = slash ? slash + 1 : row->path;
    for (size_t i = 0; i < vz_row_list_count(row, data); i++) {
        vz_writer_enter(&f->writer, name, strlen(name));
        vz_writer_begin(&f->writer);
        format_object(f, row->object, vz_row_list_item(row, data, i));
        vz_writer_leave(&f->writer);
    }
}

static void format_plain(formatter *f, const vz_row *row, const void *data)
{
    const char *at = strchr(row->path, '@');
    g_autofree char *text = vz_row_text(row, data);
    if (text && at)
        vz_writer_attribute(&f->writer, at + 1, text);
    else if (text)
        vz_writer_text(&f->writer, text);
}

static void format_row(formatter *f, size_t base, const vz_row *row, const void *data)
{
    bool own_element = row->kind == VZ_ROW_LIST || row->kind == VZ_ROW_NODE;
    go_to(f, base, row->path, own_element);
    if (row->kind == VZ_ROW_CHILD)
        format_object(f, row->object, vz_row_value(row, data));
    else if (row->kind == VZ_ROW_LIST)
        format_list(f, row, data);
    else if (row->kind == VZ_ROW_NODE)
        row->node->format(&f->writer, row->path, vz_row_value(row, data));
    else if (row->kind != VZ_ROW_FLAG)
        format_plain(f, row, data);
    else if (*(const bool *)vz_row_value(row, data))
        vz_writer_begin(&f->writer);
}

/* Of the element entered last. */
static void format_object(formatter *f, const vz_object *object, const void *data)
{
    size_t base = f->writer.path->len;
    for (const vz_row *row = vz_row_first(object, data); row;
         row = vz_row_next(object, row, data)) {
        if (row->kind == VZ_ROW_INLINE) {
            while (f->writer.path->len > base)
                vz_writer_leave(&f->writer);
            format_object(f, row->object, vz_row_value(row, data));
        } else if (!(row->flags & f->hidden)) {
            format_row(f, base, row, data);
        }
    }
    while (f->writer.path->len > base)
        vz_writer_leave(&f->writer);
}

static char *format(const vz_def *def, unsigned hidden)
{
    formatter f = {.hidden = hidden};
    vz_writer_init(&f.writer);
    vz_writer_enter(&f.writer, "domain", strlen("domain"));
    format_object(&f, &vz_object_domain, def);
    return vz_writer_finish(&f.writer);
}

char *vz_def_format(const vz_def *def, unsigned flags)
{
    unsigned hidden = 0;
    if (!(flags & (VZ_DEF_FORMAT_SECURE | VZ_DEF_FORMAT_MIGRATABLE | VZ_DEF_FORMAT_STATUS)))
        hidden |= VZ_ROW_SECRET;
    if (!(flags & VZ_DEF_FORMAT_STATUS))
        hidden |= VZ_ROW_STATUS;
    if (!(flags & (VZ_DEF_FORMAT_INACTIVE | VZ_DEF_FORMAT_MIGRATABLE)))
        return format(def, hidden);
    g_autoptr(vz_def) copy = vz_def_copy(def);
    vz_def_strip_live(copy);
    return format(copy, hidden);
}
