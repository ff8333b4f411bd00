/* def_writer.c - see def_writer.h. */
#include "domain/def_writer.h"

#include <string.h>

void vz_writer_init(vz_writer *writer)
{
    memset(writer, 0, sizeof(*writer));
    writer->out = g_string_new(NULL);
    writer->path = g_ptr_array_new_with_free_func(g_free);
}

char *vz_writer_finish(vz_writer *writer)
{
    while (writer->path->len > 0)
        vz_writer_leave(writer);
    g_ptr_array_free(writer->path, TRUE);
    return g_string_free(writer->out, FALSE);
}

static void indent(vz_writer *writer, size_t level)
{
    for (size_t i = 0; i < level; i++)
        g_string_append(writer->out, "  ");
}

/* Line ends and tabs in an attribute would come back as blanks, so they are written as numbers;
 * a carriage return would not come back even from a text. */
static void append_escaped(GString *out, const char *text, gboolean in_attribute)
{
    for (; *text; text++) {
        switch (*text) {
        case '&':
            g_string_append(out, "&amp;");
            break;
        case '<':
            g_string_append(out, "&lt;");
            break;
        case '>':
            g_string_append(out, "&gt;");
            break;
        case '"':
            g_string_append(out, "&quot;");
            break;
        case '\'':
            g_string_append(out, "&apos;");
            break;
        default:
            if (*text == '\r' || (in_attribute && (*text == '\n' || *text == '\t')))
                g_string_append_printf(out, "&#%d;", *text);
            else
                g_string_append_c(out, *text);
        }
    }
}

static void end_tag(vz_writer *writer, const char *with)
{
    if (writer->in_tag)
        g_string_append(writer->out, with);
    writer->in_tag = FALSE;
}

void vz_writer_enter(vz_writer *writer, const char *name, size_t len)
{
    g_ptr_array_add(writer->path, g_strndup(name, len));
}

void vz_writer_begin(vz_writer *writer)
{
    for (; writer->n_begun < writer->path->len; writer->n_begun++) {
        end_tag(writer, ">\n");
        indent(writer, writer->n_begun);
        g_string_append_c(writer->out, '<');
        g_string_append(writer->out, g_ptr_array_index(writer->path, writer->n_begun));
        writer->in_tag = TRUE;
        writer->has_text = FALSE;
    }
}

void vz_writer_leave(vz_writer *writer)
{
    size_t level = writer->path->len - 1;
    if (writer->n_begun == writer->path->len) {
        if (writer->in_tag) {
            end_tag(writer, "/>\n");
        } else {
            if (!writer->has_text)
                indent(writer, level);
            g_string_append_printf(writer->out, "</%s>\n",
                                   (const char *)g_ptr_array_index(writer->path, level));
        }
        writer->n_begun--;
        writer->has_text = FALSE;
    }
    g_ptr_array_remove_index(writer->path, (guint)level);
}

void vz_writer_attribute(vz_writer *writer, const char *name, const char *value)
{
    vz_writer_begin(writer);
    g_assert(writer->in_tag);
    g_string_append_printf(writer->out, " %s='", name);
    append_escaped(writer->out, value, TRUE);
    g_string_append_c(writer->out, '\'');
}

void vz_writer_text(vz_writer *writer, const char *text)
{
    vz_writer_begin(writer);
    end_tag(writer, ">");
    append_escaped(writer->out, text, FALSE);
    writer->has_text = TRUE;
}

void vz_writer_verbatim(vz_writer *writer, const char *xml)
{
    vz_writer_begin(writer);
    end_tag(writer, ">\n");
    indent(writer, writer->path->len);
    g_string_append(writer->out, xml);
    g_string_append_c(writer->out, '\n');
}

void vz_writer_leaf(vz_writer *writer, const char *name, const char *text)
{
    vz_writer_enter(writer, name, strlen(name));
    vz_writer_text(writer, text);
    vz_writer_leave(writer);
}
