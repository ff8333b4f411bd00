/* def_writer.h - writes XML as libvirt does: two spaces a level, single quotes, no empty pairs.
 *
 * Elements are lazy: entering one writes nothing until something stands in it, so that a group
 * without content leaves no trace. One thread; caller owns it. */
#pragma once

#include <glib.h>
#include <stddef.h>

typedef struct vz_writer vz_writer;
struct vz_writer {
    GString *out;
    GPtrArray *path; /* owned names of the elements entered, root first */
    size_t n_begun;  /* how many of them are written */
    gboolean in_tag; /* the last one written has no '>' yet */
    gboolean has_text;
};

void vz_writer_init(vz_writer *writer);
/* Leaves everything; the document, caller frees. */
char *vz_writer_finish(vz_writer *writer);

void vz_writer_enter(vz_writer *writer, const char *name, size_t len);
void vz_writer_leave(vz_writer *writer);
/* Writes what has been entered, even if nothing stands in it. */
void vz_writer_begin(vz_writer *writer);
/* Of the element entered last; before any text or element in it. */
void vz_writer_attribute(vz_writer *writer, const char *name, const char *value);
void vz_writer_text(vz_writer *writer, const char *text);
/* A whole element that is XML already, on lines of its own. */
void vz_writer_verbatim(vz_writer *writer, const char *xml);

/* <name>text</name> */
void vz_writer_leaf(vz_writer *writer, const char *name, const char *text);
