/* def_parse.c - from a document to a definition, driven by the rows of defs/domain_xml.def.
 *
 * Every element and attribute that a row reads is marked; what stays unmarked is refused at the
 * end. Then come the steps of def_fill.h. Any thread; what is built belongs to the caller. */
#include "domain/def.h"

#include "domain/def_fill.h"
#include "domain/def_rows.h"
#include "domain/def_tree.h"

#include <errno.h>
#include <string.h>

/* Where a value stands. Its path is made only for a message: that takes time, and a document has
 * many values. */
typedef struct {
    const xmlNode *node;
    const char *attribute; /* "@dev", or NULL: the element's text */
} place;

static bool parse_object(const vz_object *object, xmlNode *node, void *data, GError **err);

/* Not even the element of the row's path is there. */
static bool missing(xmlNode *node, const vz_row *row, GError **err)
{
    g_autofree char *parent = vz_tree_path(node);
    g_autofree char *path = vz_row_path(parent, row);
    return vz_fail(err, VZ_ERR_XML_ERROR, "missing %s", path);
}

/* The element that a path names, up to its attribute: false with err, else *ret_node may be
 * NULL. `skip_last` leaves out the last element (a list's own). */
static bool locate(xmlNode *node, const char *path, bool skip_last, xmlNode **ret_node,
                   GError **err)
{
    g_autoptr(GError) several = NULL;
    while (node && *path && *path != '@') {
        size_t len = strcspn(path, "/@");
        bool last = path[len] != '/';
        if (last && skip_last)
            break;
        node = vz_tree_child(node, path, len, &several);
        path += len + (last ? 0 : 1);
    }
    if (several) {
        g_propagate_error(err, g_steal_pointer(&several));
        return false;
    }
    *ret_node = node;
    return true;
}

static char *place_path(const place *at)
{
    g_autofree char *element = vz_tree_path(at->node);
    return g_strconcat(element, at->attribute, NULL);
}

static char *choices_of(const vz_words *words)
{
    GString *all = g_string_new(NULL);
    for (size_t i = 1; i < words->n_words; i++)
        g_string_append_printf(all, "%s%s", i > 1 ? ", " : "", words->words[i]);
    return g_string_free(all, FALSE);
}

static bool parse_word(const vz_row *row, const char *text, const place *at, void *data,
                       GError **err)
{
    for (unsigned i = 1; i < row->words->n_words; i++) {
        if (strcmp(text, row->words->words[i]) != 0)
            continue;
        memcpy(vz_row_member(row, data), &i, sizeof(i));
        return true;
    }
    g_autofree char *choices = choices_of(row->words), *path = place_path(at);
    return vz_tree_refuse_value(path, text, choices, err);
}

static bool parse_number(const vz_row *row, const char *text, const place *at, void *data,
                         GError **err)
{
    char *end = NULL;
    bool is_signed = row->kind == VZ_ROW_SIGNED;
    int64_t low = (int64_t)row->min, high = (int64_t)row->max, value = -1;
    errno = 0;
    if (g_ascii_isdigit(text[0]) || (is_signed && text[0] == '-'))
        value = g_ascii_strtoll(text, &end, row->style == VZ_ROW_DECIMAL ? 10 : 0);
    bool good = end && !*end && !errno;
    g_autofree char *path = good && value >= low && value <= high ? NULL : place_path(at);
    if (!good)
        return vz_fail(err, VZ_ERR_XML_ERROR, "invalid number '%s' in %s", text, path);
    if (path)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "number %s in %s is not between %" G_GINT64_FORMAT " and %" G_GINT64_FORMAT,
                       text, path, low, high);
    uint32_t bits = (uint32_t)value;
    memcpy(vz_row_member(row, data), &bits, sizeof(bits));
    if (row->kind == VZ_ROW_OPTIONAL)
        memset((char *)data + row->has_offset, true, sizeof(bool));
    return true;
}

static bool parse_text(const vz_row *row, const char *text, const place *at, void *data,
                       GError **err)
{
    char *old;
    memcpy(&old, vz_row_member(row, data), sizeof(old));
    if (old && strcmp(old, text) != 0) {
        g_autofree char *path = place_path(at);
        return vz_fail(err, VZ_ERR_XML_ERROR, "%s is '%s', but elsewhere the same is '%s'", path,
                       text, old);
    }
    char *copy = old ? old : g_strdup(text);
    memcpy(vz_row_member(row, data), &copy, sizeof(copy));
    return true;
}

/* An attribute that may be this and nothing else. */
static bool parse_only(const char *text, const char *only, const place *at, GError **err)
{
    if (strcmp(text, only) == 0)
        return true;
    g_autofree char *path = place_path(at);
    return vz_tree_refuse_value(path, text, only, err);
}

static bool parse_mark(const vz_row *row, const char *text, const place *at, void *data,
                       GError **err)
{
    if (!parse_only(text, "1", at, err))
        return false;
    memset(vz_row_member(row, data), true, sizeof(bool));
    return true;
}

static bool parse_value(const vz_row *row, const char *text, const place *at, void *data,
                        GError **err)
{
    g_autofree char *path = place_path(at);
    return row->value->parse(text, path, vz_row_member(row, data), err);
}

static bool parse_plain(const vz_row *row, char *text, const place *at, void *data, GError **err)
{
    switch (row->kind) {
    case VZ_ROW_WORD:
        return parse_word(row, g_strstrip(text), at, data, err);
    case VZ_ROW_TEXT:
        return parse_text(row, text, at, data, err);
    case VZ_ROW_NUMBER:
    case VZ_ROW_COUNT:
    case VZ_ROW_OPTIONAL:
    case VZ_ROW_SIGNED:
        return parse_number(row, g_strstrip(text), at, data, err);
    case VZ_ROW_MARK:
        return parse_mark(row, text, at, data, err);
    case VZ_ROW_ONLY:
        return parse_only(text, row->only, at, err);
    case VZ_ROW_VALUE:
        return parse_value(row, text, at, data, err);
    case VZ_ROW_FLAG:
    case VZ_ROW_NODE:
    case VZ_ROW_CHILD:
    case VZ_ROW_INLINE:
    case VZ_ROW_LIST:
    case VZ_ROW_WHEN:
        break;
    }
    g_assert_not_reached();
}

static bool parse_list(const vz_row *row, xmlNode *parent, void *data, GError **err)
{
    const char *slash = strrchr(row->path, '/');
    const char *name = slash ? slash + 1 : row->path;
    for (xmlNode *child = parent->children; child; child = child->next) {
        if (!vz_tree_is(child, name, strlen(name)))
            continue;
        if (vz_row_list_count(row, data) >= VZ_DEF_DEVICES_MAX)
            return vz_fail(err, VZ_ERR_XML_ERROR, "more than %d elements <%s>", VZ_DEF_DEVICES_MAX,
                           name);
        vz_tree_mark(child);
        if (!parse_object(row->object, child, vz_row_list_append(row, data), err))
            return false;
    }
    return true;
}

/* A row whose element is there. */
static bool parse_element(const vz_row *row, xmlNode *node, void *data, GError **err)
{
    g_autofree char *path = NULL;
    switch (row->kind) {
    case VZ_ROW_FLAG:
        memset(vz_row_member(row, data), true, sizeof(bool));
        return true;
    case VZ_ROW_NODE:
        path = vz_tree_path(node);
        return row->node->parse(node, path, vz_row_member(row, data), err);
    case VZ_ROW_CHILD:
        return parse_object(row->object, node, vz_row_member(row, data), err);
    case VZ_ROW_WORD:
    case VZ_ROW_TEXT:
    case VZ_ROW_NUMBER:
    case VZ_ROW_COUNT:
    case VZ_ROW_OPTIONAL:
    case VZ_ROW_SIGNED:
    case VZ_ROW_MARK:
    case VZ_ROW_ONLY:
    case VZ_ROW_VALUE:
    case VZ_ROW_INLINE:
    case VZ_ROW_LIST:
    case VZ_ROW_WHEN:
        break;
    }
    const char *at = strchr(row->path, '@');
    g_autofree char *text = at ? vz_tree_attribute(node, at + 1) : vz_tree_text(node);
    const place where = {node, at};
    if (text)
        return parse_plain(row, text, &where, data, err);
    if (!(row->flags & VZ_ROW_NEEDED))
        return true;
    path = place_path(&where);
    return vz_fail(err, VZ_ERR_XML_ERROR, "missing %s", path);
}

static bool parse_row(const vz_row *row, xmlNode *base, void *data, GError **err)
{
    xmlNode *node;
    if (row->kind == VZ_ROW_INLINE)
        return parse_object(row->object, base, vz_row_member(row, data), err);
    if (!locate(base, row->path, row->kind == VZ_ROW_LIST, &node, err))
        return false;
    if (!node)
        return !(row->flags & VZ_ROW_NEEDED) || missing(base, row, err);
    if (row->kind == VZ_ROW_LIST)
        return parse_list(row, node, data, err);
    return parse_element(row, node, data, err);
}

static bool parse_object(const vz_object *object, xmlNode *node, void *data, GError **err)
{
    for (const vz_row *row = vz_row_first(object, data); row; row = vz_row_next(object, row, data))
        if (!parse_row(row, node, data, err))
            return false;
    return true;
}

static bool fill(vz_def *def, unsigned flags, const vz_def_host *host, GError **err)
{
    if (flags & VZ_DEF_PARSE_INACTIVE)
        vz_def_strip_live(def);
    if (!vz_def_fill_defaults(def, host, err) || !vz_def_fill_root_controllers(def, err) ||
        !vz_def_check(def, err) || !vz_def_fill_drive_addresses(def, err))
        return false;
    vz_def_fill_device_controllers(def);
    return vz_def_fill_addresses(def, err) && vz_def_fill_pci_addresses(def, err);
}

vz_def *vz_def_parse(const char *xml, unsigned flags, const vz_def_host *host, GError **err)
{
    g_assert(err);
    g_autoptr(xmlDoc) doc = vz_tree_read(xml, "domain", err);
    if (!doc)
        return NULL;
    g_autoptr(vz_def) def = g_new0(vz_def, 1);
    def->references = 1;
    def->id = -1;
    def->vcpus_max = 1;
    xmlNode *root = xmlDocGetRootElement(doc);
    vz_tree_mark(root);
    if (!parse_object(&vz_object_domain, root, def, err) || !vz_tree_all_marked(doc, err))
        return NULL;
    return fill(def, flags, host, err) ? g_steal_pointer(&def) : NULL;
}
