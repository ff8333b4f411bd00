/* def_tree.h - a document from a stranger as a tree, bounded, and the account of what was read.
 *
 * For the def_*.c files only. A reader marks every element, attribute and text that it has
 * understood; whatever is left unmarked is then refused by name, so that nothing can be dropped
 * silently. Any thread. */
#pragma once

#include "base/error.h"

#include <libxml/tree.h>

G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlDoc, xmlFreeDoc)

/* Parses a document of at most VZ_DEF_XML_BYTES_MAX bytes whose root is <root>. XML_ERROR with the
 * line; a document type declaration is refused (so there are no entities). */
xmlDoc *vz_tree_read(const char *xml, const char *root, GError **err);

/* The one child element of that name (len bytes), marked as read; NULL without err: there is none;
 * NULL with err: there are several. */
xmlNode *vz_tree_child(xmlNode *parent, const char *name, size_t len, GError **err);

/* Is it an element of that name, in no namespace? */
bool vz_tree_is(const xmlNode *node, const char *name, size_t len);

/* An attribute's or an element's text, marked as read; NULL where it is absent or empty. */
char *vz_tree_attribute(xmlNode *node, const char *name);
char *vz_tree_text(xmlNode *node);

/* Marks one element (not what is in it), or a whole subtree. */
void vz_tree_mark(xmlNode *node);
void vz_tree_mark_all(xmlNode *node);

/* false: CONFIG_UNSUPPORTED naming the first thing that was not marked. */
bool vz_tree_all_marked(const xmlDoc *doc, GError **err);

/* "/domain/devices/disk[2]/driver"; indexes only where needed. */
char *vz_tree_path(const xmlNode *node);

/* Fails with CONFIG_UNSUPPORTED: "value 'x' of /path is not supported by virtvz", with the reason
 * of defs/domain_refused.def, or else with `choices` where not NULL. */
bool vz_tree_refuse_value(const char *path, const char *value, const char *choices, GError **err);
