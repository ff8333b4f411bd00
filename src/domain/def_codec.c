/* def_codec.c - see def_codec.h and def_rows.h. Pure; any thread. */
#include "domain/def_codec.h"

#include "base/units.h"
#include "domain/def_tree.h"
#include "domain/def_writer.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Domain ids: -1 is not running, and not shown. */

static bool id_parse(const char *text, const char *what, void *member, GError **err)
{
    uint64_t value;
    int32_t id = -1;
    if (strcmp(text, "-1") != 0) {
        if (!vz_parse_u64(text, what, 0, INT32_MAX, &value, err))
            return false;
        id = (int32_t)value;
    }
    memcpy(member, &id, sizeof(id));
    return true;
}

static char *id_format(const void *member)
{
    int32_t id;
    memcpy(&id, member, sizeof(id));
    return id < 0 ? NULL : g_strdup_printf("%d", id);
}

static void id_clear(void *member)
{
    const int32_t none = -1;
    memcpy(member, &none, sizeof(none));
}

const vz_value_codec vz_codec_id = {id_parse, id_format, id_clear};

/* An all-zero UUID is none; the defaults then make one. */

static bool uuid_parse(const char *text, const char *what, void *member, GError **err)
{
    g_autofree char *plain = g_strstrip(g_strdup(text));
    if (!vz_uuid_parse(plain, member))
        return vz_fail(err, VZ_ERR_XML_ERROR, "malformed uuid '%s' in %s", text, what);
    const uint8_t *uuid = member;
    for (int i = 1; i < VZ_UUID_BYTES; i++)
        if (uuid[i] != uuid[0])
            return true;
    return vz_fail(err, VZ_ERR_XML_ERROR, "uuid '%s' in %s: all bytes are the same", text, what);
}

static char *uuid_format(const void *member)
{
    char *text = g_malloc(VZ_UUID_TEXT_BYTES);
    vz_uuid_format(member, text);
    return text;
}

const vz_value_codec vz_codec_uuid = {uuid_parse, uuid_format, NULL};

static const vz_def_interface *interface_of(const void *mac)
{
    return (const void *)((const char *)mac - offsetof(vz_def_interface, mac));
}

static bool mac_parse(const char *text, const char *what, void *member, GError **err)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", 7);
    uint8_t mac[6];
    bool good = g_strv_length(parts) == 6;
    for (int i = 0; good && i < 6; i++) {
        char *end;
        good = g_ascii_isxdigit(parts[i][0]) && strlen(parts[i]) <= 2;
        mac[i] = good ? (uint8_t)g_ascii_strtoull(parts[i], &end, 16) : 0;
        good = good && *end == '\0';
    }
    if (!good)
        return vz_fail(err, VZ_ERR_XML_ERROR, "malformed mac address '%s' in %s", text, what);
    if (mac[0] & 1)
        return vz_fail(err, VZ_ERR_XML_ERROR, "expected unicast mac address, found multicast '%s'",
                       text);
    memcpy(member, mac, sizeof(mac));
    bool *has = (void *)((char *)member - offsetof(vz_def_interface, mac) +
                         offsetof(vz_def_interface, has_mac));
    *has = true;
    return true;
}

static char *mac_format(const void *member)
{
    const vz_def_interface *interface = interface_of(member);
    const uint8_t *m = interface->mac;
    if (!interface->has_mac)
        return NULL;
    return g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]);
}

const vz_value_codec vz_codec_mac = {mac_parse, mac_format, NULL};

/* <vcpu current=...> is shown only where it says something. */

static bool vcpus_parse(const char *text, const char *what, void *member, GError **err)
{
    uint64_t value;
    if (!vz_parse_u64(text, what, 1, 4096, &value, err))
        return false;
    uint32_t vcpus = (uint32_t)value;
    memcpy(member, &vcpus, sizeof(vcpus));
    return true;
}

static char *vcpus_format(const void *member)
{
    const vz_def *def = (const void *)((const char *)member - offsetof(vz_def, vcpus));
    return def->vcpus == def->vcpus_max ? NULL : g_strdup_printf("%u", def->vcpus);
}

const vz_value_codec vz_codec_vcpus = {vcpus_parse, vcpus_format, NULL};

static const struct {
    const char *name;
    uint64_t bytes;
} memory_units[] = {
    {"b", 1},
    {"bytes", 1},
    {"KB", 1000},
    {"k", VZ_KIB},
    {"KiB", VZ_KIB},
    {"MB", 1000000},
    {"M", VZ_MIB},
    {"MiB", VZ_MIB},
    {"GB", 1000000000},
    {"G", VZ_GIB},
    {"GiB", VZ_GIB},
    {"TB", 1000000000000},
    {"T", 1024 * VZ_GIB},
    {"TiB", 1024 * VZ_GIB},
};

static uint64_t memory_unit_bytes(const char *name)
{
    for (size_t i = 0; i < G_N_ELEMENTS(memory_units); i++)
        if (g_ascii_strcasecmp(memory_units[i].name, name) == 0)
            return memory_units[i].bytes;
    return 0;
}

static bool memory_parse(xmlNode *node, const char *what, void *member, GError **err)
{
    g_autofree char *unit = vz_tree_attribute(node, "unit");
    g_autofree char *text = vz_tree_text(node);
    uint64_t unit_bytes = memory_unit_bytes(unit ? unit : "KiB"), number;
    if (unit_bytes == 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "unknown suffix '%s' in %s", unit, what);
    char *plain = text ? g_strstrip(text) : NULL;
    g_autoptr(GError) why = NULL;
    if (!plain || !vz_parse_u64(plain, what, 0, UINT64_MAX, &number, &why))
        return vz_fail(err, VZ_ERR_XML_ERROR, "invalid number '%s' in %s", plain ? plain : "",
                       what);
    if (number > (uint64_t)INT64_MAX / unit_bytes)
        return vz_fail(err, VZ_ERR_OVERFLOW, "the size in %s is too large", what);
    uint64_t bytes = (number * unit_bytes + VZ_KIB - 1) / VZ_KIB * VZ_KIB;
    memcpy(member, &bytes, sizeof(bytes));
    return true;
}

static void memory_format(vz_writer *writer, const char *element, const void *member)
{
    uint64_t bytes;
    char text[24];
    memcpy(&bytes, member, sizeof(bytes));
    snprintf(text, sizeof(text), "%" G_GUINT64_FORMAT, bytes / VZ_KIB);
    vz_writer_enter(writer, element, strlen(element));
    vz_writer_attribute(writer, "unit", "KiB");
    vz_writer_text(writer, text);
    vz_writer_leave(writer);
}

const vz_node_codec vz_codec_memory = {memory_parse, memory_format, false};

/* Whatever a management program keeps there, with the namespaces it needs, byte for byte. */
static bool metadata_parse(xmlNode *node, const char *what G_GNUC_UNUSED, void *member,
                           GError **err G_GNUC_UNUSED)
{
    vz_tree_mark_all(node);
    xmlBuffer *buffer = xmlBufferCreate();
    xmlNode *copy = xmlDocCopyNode(node, node->doc, 1);
    g_assert(buffer && copy);
    xmlNodeDump(buffer, node->doc, copy, 0, 0);
    char *text = g_strdup((const char *)xmlBufferContent(buffer));
    memcpy(member, &text, sizeof(text));
    xmlFreeNode(copy);
    xmlBufferFree(buffer);
    return true;
}

static void metadata_format(vz_writer *writer, const char *element G_GNUC_UNUSED,
                            const void *member)
{
    char *text;
    memcpy(&text, member, sizeof(text));
    if (text)
        vz_writer_verbatim(writer, text);
}

const vz_node_codec vz_codec_metadata = {metadata_parse, metadata_format, true};
