/* def_tree.c - see def_tree.h. libxml2's tree with two uses of its _private pointer: NULL is
 * unread, the address of `marked` is read. */
#include "domain/def_tree.h"

#include "domain/def.h"

#include <libxml/parser.h>
#include <string.h>

static char marked;

static const struct {
    const char *path, *value, *sentence;
} refusals[] = {
#define REFUSED(path, value, sentence) {path, value, sentence},
#include "domain_refused.def"
#undef REFUSED
};

/* Called before anything inside a document type declaration is looked at. */
static void refuse_doctype(void *ctxt, const xmlChar *name G_GNUC_UNUSED,
                           const xmlChar *external_id G_GNUC_UNUSED,
                           const xmlChar *system_id G_GNUC_UNUSED)
{
    xmlParserCtxt *parser = ctxt;
    parser->_private = &marked;
    xmlStopParser(parser);
}

static bool malformed(xmlParserCtxt *parser, GError **err)
{
    if (parser->_private)
        return vz_fail(err, VZ_ERR_XML_ERROR,
                       "(domain_definition): a document type declaration is not allowed");
    const xmlError *last = xmlCtxtGetLastError(parser);
    g_autofree char *message = g_strdup(last && last->message ? last->message : "not a document");
    return vz_fail(err, VZ_ERR_XML_DETAIL, "(domain_definition):%d: %s", last ? last->line : 0,
                   g_strchomp(message));
}

/* The bounds that libxml2 does not know. Its own depth limit (256) bounds this recursion. */
static bool within_bounds(const xmlNode *node, unsigned depth, unsigned *nodes, GError **err)
{
    if (depth > VZ_DEF_XML_DEPTH_MAX)
        return vz_fail(err, VZ_ERR_XML_ERROR, "elements are nested deeper than %d",
                       VZ_DEF_XML_DEPTH_MAX);
    for (const xmlAttr *attr = node->properties; attr; attr = attr->next)
        ++*nodes;
    for (const xmlNode *child = node->children; child; child = child->next) {
        if (++*nodes > VZ_DEF_XML_NODES_MAX)
            return vz_fail(err, VZ_ERR_XML_ERROR, "more than %d elements, attributes and texts",
                           VZ_DEF_XML_NODES_MAX);
        if (child->type == XML_ELEMENT_NODE && !within_bounds(child, depth + 1, nodes, err))
            return false;
    }
    return true;
}

static bool check_root(const xmlDoc *doc, const char *root, GError **err)
{
    unsigned nodes = 0;
    const xmlNode *node = xmlDocGetRootElement(doc);
    if (!node)
        return vz_fail(err, VZ_ERR_XML_ERROR, "missing root element");
    if (!vz_tree_is(node, root, strlen(root)))
        return vz_fail(err, VZ_ERR_XML_ERROR, "unexpected root element <%s>, expecting <%s>",
                       (const char *)node->name, root);
    return within_bounds(node, 1, &nodes, err);
}

static void free_parser(xmlParserCtxt *parser)
{
    xmlFreeParserCtxt(parser);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(xmlParserCtxt, free_parser)

xmlDoc *vz_tree_read(const char *xml, const char *root, GError **err)
{
    static gsize once;
    if (g_once_init_enter(&once)) {
        xmlInitParser();
        g_once_init_leave(&once, 1);
    }
    size_t bytes = strnlen(xml, VZ_DEF_XML_BYTES_MAX + 1);
    if (bytes > VZ_DEF_XML_BYTES_MAX) {
        vz_fail(err, VZ_ERR_XML_ERROR, "the document is larger than %zu bytes",
                VZ_DEF_XML_BYTES_MAX);
        return NULL;
    }
    g_autoptr(xmlParserCtxt) parser = xmlNewParserCtxt();
    g_assert(parser);
    parser->sax->internalSubset = refuse_doctype;
    g_autoptr(xmlDoc) doc =
        xmlCtxtReadMemory(parser, xml, (int)bytes, NULL, NULL,
                          XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING);
    if (!doc || !parser->wellFormed || parser->_private) {
        malformed(parser, err);
        return NULL;
    }
    return check_root(doc, root, err) ? g_steal_pointer(&doc) : NULL;
}

bool vz_tree_is(const xmlNode *node, const char *name, size_t len)
{
    return node->type == XML_ELEMENT_NODE && !node->ns && strlen((const char *)node->name) == len &&
           memcmp(node->name, name, len) == 0;
}

void vz_tree_mark(xmlNode *node)
{
    node->_private = &marked;
}

void vz_tree_mark_all(xmlNode *node)
{
    vz_tree_mark(node);
    for (xmlAttr *attr = node->properties; attr; attr = attr->next)
        attr->_private = &marked;
    for (xmlNode *child = node->children; child; child = child->next) {
        child->_private = &marked;
        if (child->type == XML_ELEMENT_NODE)
            vz_tree_mark_all(child);
    }
}

xmlNode *vz_tree_child(xmlNode *parent, const char *name, size_t len, GError **err)
{
    xmlNode *found = NULL;
    for (xmlNode *child = parent->children; child; child = child->next) {
        if (!vz_tree_is(child, name, len))
            continue;
        if (found) {
            g_autofree char *path = vz_tree_path(parent);
            vz_fail(err, VZ_ERR_XML_ERROR, "element <%.*s> is there more than once in %s", (int)len,
                    name, path);
            return NULL;
        }
        found = child;
    }
    if (found)
        vz_tree_mark(found);
    return found;
}

static char *not_empty(xmlChar *take_text)
{
    char *text = take_text && *take_text ? g_strdup((const char *)take_text) : NULL;
    xmlFree(take_text);
    return text;
}

char *vz_tree_attribute(xmlNode *node, const char *name)
{
    xmlAttr *attr = xmlHasNsProp(node, (const xmlChar *)name, NULL);
    if (!attr)
        return NULL;
    attr->_private = &marked;
    return not_empty(xmlNodeListGetString(node->doc, attr->children, 1));
}

static bool is_text(const xmlNode *node)
{
    return node->type == XML_TEXT_NODE || node->type == XML_CDATA_SECTION_NODE;
}

char *vz_tree_text(xmlNode *node)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (xmlNode *child = node->children; child; child = child->next) {
        if (!is_text(child))
            continue;
        child->_private = &marked;
        g_string_append(text, (const char *)child->content);
    }
    return text->len > 0 ? g_string_free(g_steal_pointer(&text), FALSE) : NULL;
}

static unsigned ordinal(const xmlNode *node, unsigned *ret_of)
{
    unsigned before = 1, all = 0;
    const char *name = (const char *)node->name;
    for (const xmlNode *other = node->parent->children; other; other = other->next) {
        if (!vz_tree_is(other, name, strlen(name)))
            continue;
        all++;
        if (other == node)
            before = all;
    }
    *ret_of = all;
    return before;
}

static char *path_of(const xmlNode *node, bool indexes)
{
    if (!node || node->type != XML_ELEMENT_NODE)
        return g_strdup("");
    g_autofree char *parent = path_of(node->parent, indexes);
    const char *prefix = node->ns && node->ns->prefix ? (const char *)node->ns->prefix : "";
    unsigned of, at = ordinal(node, &of);
    g_autofree char *index = indexes && of > 1 ? g_strdup_printf("[%u]", at) : g_strdup("");
    return g_strconcat(parent, "/", prefix, *prefix ? ":" : "", (const char *)node->name, index,
                       NULL);
}

char *vz_tree_path(const xmlNode *node)
{
    return path_of(node, true);
}

static const char *sentence_for(const char *path, const char *value)
{
    for (size_t i = 0; i < G_N_ELEMENTS(refusals); i++)
        if (strcmp(refusals[i].path, path) == 0 && g_strcmp0(refusals[i].value, value) == 0)
            return refusals[i].sentence;
    return NULL;
}

/* Paths in messages have indexes, those of the table have none. */
static char *without_indexes(const char *path)
{
    GString *plain = g_string_new(NULL);
    bool inside = false;
    for (; *path; path++) {
        inside = *path == '[' || (inside && path[-1] != ']');
        if (!inside)
            g_string_append_c(plain, *path);
    }
    return g_string_free(plain, FALSE);
}

bool vz_tree_refuse_value(const char *path, const char *value, const char *choices, GError **err)
{
    g_autofree char *plain = without_indexes(path);
    const char *sentence = sentence_for(plain, value);
    g_autofree char *more = sentence  ? g_strdup_printf(": %s", sentence)
                            : choices ? g_strdup_printf(" (it has: %s)", choices)
                                      : g_strdup("");
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "value '%s' of %s is not supported by virtvz%s",
                   value, path, more);
}

static bool refuse(const char *kind, const char *name, const xmlNode *in, const char *plain,
                   GError **err)
{
    const char *sentence = sentence_for(plain, NULL);
    g_autofree char *path = vz_tree_path(in);
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s '%s' in %s is not supported by virtvz%s%s",
                   kind, name, path, sentence ? ": " : "", sentence ? sentence : "");
}

static bool attributes_marked(const xmlNode *node, GError **err)
{
    for (const xmlAttr *attr = node->properties; attr; attr = attr->next) {
        if (attr->_private)
            continue;
        g_autofree char *path = path_of(node, false);
        g_autofree char *plain = g_strconcat(path, "@", (const char *)attr->name, NULL);
        return refuse("attribute", (const char *)attr->name, node, plain, err);
    }
    return true;
}

static bool child_marked(const xmlNode *child, GError **err)
{
    if (child->type == XML_COMMENT_NODE || child->type == XML_PI_NODE || child->_private)
        return true;
    if (child->type == XML_ELEMENT_NODE) {
        g_autofree char *path = path_of(child, false);
        return refuse("element", strrchr(path, '/') + 1, child->parent, path, err);
    }
    if (is_text(child) && xmlIsBlankNode(child))
        return true;
    g_autofree char *text = g_strndup(child->content ? (const char *)child->content : "", 40);
    return refuse("text", g_strstrip(text), child->parent, "", err);
}

static bool all_marked(const xmlNode *node, GError **err)
{
    if (!attributes_marked(node, err))
        return false;
    for (const xmlNode *child = node->children; child; child = child->next) {
        if (!child_marked(child, err))
            return false;
        if (child->type == XML_ELEMENT_NODE && !all_marked(child, err))
            return false;
    }
    return true;
}

bool vz_tree_all_marked(const xmlDoc *doc, GError **err)
{
    return all_marked(xmlDocGetRootElement(doc), err);
}
