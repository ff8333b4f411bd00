/* def_abi.c - would a guest notice that one definition was exchanged for the other? Every row
 * counts, except those of the host and of one run; domain_abi.def has the sentences. See def.h. */
#include "domain/def.h"

#include "base/units.h"
#include "domain/def_codec.h"
#include "domain/def_rows.h"

#include <string.h>

static const struct {
    const char *object, *path, *sentence;
} sentences[] = {
#define SAYS(o, where, text) {#o, where, text},
#include "domain_abi.def"
#undef SAYS
};

static bool same_object(const vz_object *object, const void *a, const void *b, const char *path,
                        GError **err);

/* The sentence with the values in place of %t and %s, and where in the document that is: a guest
 * may have many disks. */
static bool fail(const char *sentence, const char *path, const char *source, const char *target,
                 GError **err)
{
    g_autoptr(GString) text = g_string_new(NULL);
    for (const char *c = sentence; *c; c++) {
        if (c[0] != '%') {
            g_string_append_c(text, *c);
            continue;
        }
        const char *value = *++c == 's' ? source : target;
        g_string_append(text, value ? value : "none");
    }
    return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s (%s)", text->str, path);
}

static bool differs(const vz_object *object, const vz_row *row, const char *path,
                    const char *source, const char *target, GError **err)
{
    for (size_t i = 0; i < G_N_ELEMENTS(sentences); i++)
        if (strcmp(sentences[i].object, object->name) == 0 &&
            strcmp(sentences[i].path, row->path) == 0)
            return fail(sentences[i].sentence, path, source, target, err);
    g_autofree char *sentence = g_strdup_printf("Target %s %s '%%t' does not match source '%%s'",
                                                object->name, row->path + (row->path[0] == '@'));
    return fail(sentence, path, source, target, err);
}

/* Of a thing that only the host sees (a display, an audio backend) there may be more or fewer. */
static bool guest_sees(const vz_object *object)
{
    for (const vz_row *row = object->rows; row < object->rows + object->n_rows; row++)
        if (row->kind != VZ_ROW_WHEN && !(row->flags & (VZ_ROW_LIVE | VZ_ROW_HOST)))
            return true;
    return false;
}

static bool same_list(const vz_object *object, const vz_row *row, const void *a, const void *b,
                      const char *path, GError **err)
{
    size_t n = vz_row_list_count(row, a), m = vz_row_list_count(row, b);
    if (!guest_sees(row->object))
        return true;
    if (n != m) {
        g_autofree char *source = g_strdup_printf("%zu", n);
        g_autofree char *target = g_strdup_printf("%zu", m);
        return differs(object, row, path, source, target, err);
    }
    for (size_t i = 0; i < n; i++) {
        g_autofree char *item = g_strdup_printf("%s[%zu]", path, i + 1);
        if (!same_object(row->object, vz_row_list_item(row, a, i), vz_row_list_item(row, b, i),
                         item, err))
            return false;
    }
    return true;
}

/* "PCI address 0000:00:04.0", as libvirt says it; caller frees. */
static char *address_text(const vz_def_address *at)
{
    switch (at->type) {
    case VZ_ADDRESS_PCI:
        return g_strdup_printf("PCI address %04x:%02x:%02x.%u%s", at->pci.domain, at->pci.bus,
                               at->pci.slot, at->pci.function,
                               at->pci.multifunction == VZ_ONOFF_ON ? " multifunction" : "");
    case VZ_ADDRESS_DRIVE:
        return g_strdup_printf("drive address %u:%u:%u:%u", at->drive.controller, at->drive.bus,
                               at->drive.target, at->drive.unit);
    case VZ_ADDRESS_USB:
        return g_strdup_printf("USB address %u:%s", at->usb.bus, at->usb.port ? at->usb.port : "");
    case VZ_ADDRESS_VIRTIO_SERIAL:
        return g_strdup_printf("virtio serial address %u:%u:%u", at->virtio_serial.controller,
                               at->virtio_serial.bus, at->virtio_serial.port);
    case VZ_ADDRESS_NONE:
        break;
    }
    return g_strdup("address none");
}

static bool same_address(const vz_def_address *a, const vz_def_address *b, const char *path,
                         GError **err)
{
    if (a->type != b->type)
        return fail("Target device address type %t does not match source %s", path,
                    vz_address_type_word(a->type), vz_address_type_word(b->type), err);
    g_autofree char *source = address_text(a), *target = address_text(b);
    const char *bare = strstr(source, "address ") + strlen("address ");
    return strcmp(source, target) == 0 ||
           fail("Target device %t does not match source %s", path, bare, target, err);
}

/* The text of a row that is a value, as the sentences want it; caller frees. */
static char *value_text(const vz_row *row, const void *data)
{
    if (row->kind == VZ_ROW_FLAG)
        return g_strdup(*(const bool *)vz_row_value(row, data) ? "on" : "default");
    if (row->kind != VZ_ROW_NODE)
        return vz_row_text(row, data);
    uint64_t bytes;
    memcpy(&bytes, vz_row_value(row, data), sizeof(bytes));
    return g_strdup_printf("%" G_GUINT64_FORMAT, bytes / VZ_KIB);
}

/* The row's text is none where all vCPUs are online, so it cannot be compared. */
static bool same_vcpus(const vz_def *a, const vz_def *b, const char *path, GError **err)
{
    if (a->vcpus == b->vcpus || a->vcpus_max != b->vcpus_max) /* the maximum's row tells */
        return true;
    g_autofree char *source = g_strdup_printf("%u", a->vcpus);
    g_autofree char *target = g_strdup_printf("%u", b->vcpus);
    return fail("Target domain vCPU count %t does not match source %s", path, source, target, err);
}

static bool same_row(const vz_object *object, const vz_row *row, const void *a, const void *b,
                     const char *parent, GError **err)
{
    const void *member_a = vz_row_value(row, a), *member_b = vz_row_value(row, b);
    if (row->kind == VZ_ROW_INLINE)
        return same_object(row->object, member_a, member_b, parent, err);
    g_autofree char *path = vz_row_path(parent, row);
    if (row->object == &vz_object_address)
        return same_address(member_a, member_b, path, err);
    if (row->kind == VZ_ROW_CHILD)
        return same_object(row->object, member_a, member_b, path, err);
    if (row->kind == VZ_ROW_LIST)
        return same_list(object, row, a, b, path, err);
    g_autofree char *source = value_text(row, a), *target = value_text(row, b);
    if (g_strcmp0(source, target) == 0)
        return true;
    if (row->value == &vz_codec_vcpus)
        return same_vcpus(a, b, path, err);
    return differs(object, row, path, source, target, err);
}

static bool same_object(const vz_object *object, const void *a, const void *b, const char *path,
                        GError **err)
{
    for (const vz_row *row = vz_row_first(object, a); row; row = vz_row_next(object, row, a)) {
        if (row->flags & (VZ_ROW_LIVE | VZ_ROW_HOST))
            continue;
        if (!same_row(object, row, a, b, path, err))
            return false;
    }
    return true;
}

/* Which file it is may differ, but not whether there is one. */
static bool same_media(const vz_def *a, const vz_def *b, GError **err)
{
    for (size_t i = 0; i < a->n_disks; i++) {
        g_autofree char *path = g_strdup_printf("/domain/devices/disk[%zu]/source", i + 1);
        if (!a->disks[i].path != !b->disks[i].path)
            return fail("Target disk source %t does not match source %s", path, a->disks[i].path,
                        b->disks[i].path, err);
    }
    return true;
}

bool vz_def_same_abi(const vz_def *source, const vz_def *target, GError **err)
{
    return same_object(&vz_object_domain, source, target, "/domain", err) &&
           same_media(source, target, err);
}

bool vz_def_same_domain(const vz_def *source, const vz_def *target, GError **err)
{
    char a[VZ_UUID_TEXT_BYTES], b[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(source->uuid, a);
    vz_uuid_format(target->uuid, b);
    if (strcmp(a, b) != 0)
        return fail("Target domain uuid %t does not match source %s", "/domain/uuid", a, b, err);
    return strcmp(source->name, target->name) == 0 ||
           fail("Target domain name '%t' does not match source '%s'", "/domain/name", source->name,
                target->name, err);
}
