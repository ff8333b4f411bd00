/* def_rows.c - see def_rows.h. The tables of defs/domain_xml.def and what can be done with any
 * row without knowing XML. No state. */
#include "domain/def_rows.h"

#include "domain/def_codec.h"

#include <string.h>

#define ENUM(type, PREFIX)      static const char *const words_##type[] = {NULL,
#define VALUE(PREFIX, ID, text) text,
#define END(type)                                                                                  \
    }                                                                                              \
    ;
#include "domain_enums.def"
#undef ENUM
#undef VALUE
#undef END

#define ENUM(type, PREFIX)                                                                         \
    const char *vz_##type##_word(vz_##type value)                                                  \
    {                                                                                              \
        const char *word = NULL;                                                                   \
        if ((size_t)value < G_N_ELEMENTS(words_##type))                                            \
            word = words_##type[value];                                                            \
        return word ? word : "";                                                                   \
    }                                                                                              \
    static const vz_words list_##type = {words_##type, G_N_ELEMENTS(words_##type)};                \
    _Static_assert(sizeof(vz_##type) == sizeof(unsigned), "rows keep words as unsigned");
#define VALUE(PREFIX, ID, text)
#define END(type)
#include "domain_enums.def"
#undef ENUM
#undef VALUE
#undef END

static bool always(const void *data G_GNUC_UNUSED)
{
    return true;
}

static bool is_pci(const void *data)
{
    return ((const vz_def_address *)data)->type == VZ_ADDRESS_PCI;
}

static bool is_drive(const void *data)
{
    return ((const vz_def_address *)data)->type == VZ_ADDRESS_DRIVE;
}

static bool is_usb(const void *data)
{
    return ((const vz_def_address *)data)->type == VZ_ADDRESS_USB;
}

static bool is_virtio_serial(const void *data)
{
    return ((const vz_def_address *)data)->type == VZ_ADDRESS_VIRTIO_SERIAL;
}

static bool is_file(const void *data)
{
    return ((const vz_def_disk *)data)->type != VZ_DISK_TYPE_BLOCK;
}

static bool is_block(const void *data)
{
    return ((const vz_def_disk *)data)->type == VZ_DISK_TYPE_BLOCK;
}

static bool is_bridge(const void *data)
{
    return ((const vz_def_interface *)data)->type == VZ_INTERFACE_BRIDGE;
}

static bool is_pty(const void *data)
{
    return ((const vz_def_chardev *)data)->type == VZ_CHARDEV_PTY;
}

static bool is_unix(const void *data)
{
    return ((const vz_def_chardev *)data)->type == VZ_CHARDEV_UNIX;
}

static bool is_plain_file(const void *data)
{
    return ((const vz_def_chardev *)data)->type == VZ_CHARDEV_FILE;
}

/* For the columns of the .def only. */
enum {
    LIVE = VZ_ROW_LIVE,
    HOST = VZ_ROW_HOST,
    SECRET = VZ_ROW_SECRET,
    STATUS = VZ_ROW_STATUS,
    NEEDED = VZ_ROW_NEEDED,
    ALIAS_OF = VZ_ROW_ALIAS_OF,
    KEEP_UA = VZ_ROW_KEEP_UA,
    DECIMAL = VZ_ROW_DECIMAL,
    HEX1 = VZ_ROW_HEX1,
    HEX2 = VZ_ROW_HEX2,
    HEX4 = VZ_ROW_HEX4,
};
typedef vz_def vz_def_domain;

/* The offset of a member, refused by the compiler where its type is not the row's. */
#define AT(o, member, ctype)                                                                       \
    (offsetof(vz_def_##o, member) + 0 * sizeof(&((vz_def_##o *)0)->member == (ctype *)0))
#define PLAIN(row_kind, where, ...) {.kind = VZ_ROW_##row_kind, .path = (where), __VA_ARGS__},

#define OBJECT(o) static const vz_row rows_##o[] = {
#define END(o)                                                                                     \
    }                                                                                              \
    ;                                                                                              \
    const vz_object vz_object_##o = {#o, sizeof(vz_def_##o), rows_##o, G_N_ELEMENTS(rows_##o)};
#define WORD(o, where, member, type, flag)                                                         \
    PLAIN(WORD, where, .offset = AT(o, member, vz_##type), .words = &list_##type, .flags = (flag))
#define TEXT(o, where, member, flag)                                                               \
    PLAIN(TEXT, where, .offset = AT(o, member, char *), .flags = (flag))
#define NUMBER(o, where, member, low, high, look, flag)                                            \
    PLAIN(NUMBER, where, .offset = AT(o, member, uint32_t), .min = (low), .max = (high),           \
          .style = (vz_row_style)(look), .flags = (flag))
#define COUNT(o, where, member, low, high, flag)                                                   \
    PLAIN(COUNT, where, .offset = AT(o, member, uint32_t), .min = (low), .max = (high),            \
          .flags = (flag))
#define OPTIONAL(o, where, member, has, low, high, look, flag)                                     \
    PLAIN(OPTIONAL, where, .offset = AT(o, member, uint32_t), .has_offset = AT(o, has, bool),      \
          .min = (low), .max = (high), .style = (vz_row_style)(look), .flags = (flag))
#define SIGNED(o, where, member, low, high, flag)                                                  \
    PLAIN(SIGNED, where, .offset = AT(o, member, int32_t), .min = (uint64_t)(int64_t)(low),        \
          .max = (high), .flags = (flag))
#define FLAG(o, where, member, flag)                                                               \
    PLAIN(FLAG, where, .offset = AT(o, member, bool), .flags = (flag))
#define MARK(o, where, member, flag)                                                               \
    PLAIN(MARK, where, .offset = AT(o, member, bool), .flags = (flag))
#define ONLY(o, where, text) PLAIN(ONLY, where, .only = (text))
#define VALUE(o, where, member, codec, flag)                                                       \
    PLAIN(VALUE, where, .offset = offsetof(vz_def_##o, member), .value = &vz_codec_##codec,        \
          .flags = (flag))
#define NODE(o, where, member, codec, flag)                                                        \
    PLAIN(NODE, where, .offset = offsetof(vz_def_##o, member), .node = &vz_codec_##codec,          \
          .flags = (flag))
#define CHILD(o, where, member, inner, flag)                                                       \
    PLAIN(CHILD, where, .offset = AT(o, member, vz_def_##inner), .object = &vz_object_##inner,     \
          .flags = (flag))
#define INLINE(o, member, inner, flag)                                                             \
    PLAIN(INLINE, "", .offset = AT(o, member, vz_def_##inner), .object = &vz_object_##inner,       \
          .flags = (flag))
#define LIST(o, where, member, count, inner)                                                       \
    PLAIN(LIST, where, .offset = AT(o, member, vz_def_##inner *),                                  \
          .has_offset = AT(o, count, size_t), .object = &vz_object_##inner)
#define WHEN(o, function) PLAIN(WHEN, "", .when = (function))
#include "domain_xml.def"
#undef OBJECT
#undef END
#undef WORD
#undef TEXT
#undef NUMBER
#undef COUNT
#undef OPTIONAL
#undef SIGNED
#undef FLAG
#undef MARK
#undef ONLY
#undef VALUE
#undef NODE
#undef CHILD
#undef INLINE
#undef LIST
#undef WHEN

static const vz_row *settle(const vz_object *object, const vz_row *row, const void *data)
{
    const vz_row *end = object->rows + object->n_rows;
    while (row < end && row->kind == VZ_ROW_WHEN) {
        bool counts = row->when(data);
        row++;
        while (!counts && row < end && row->kind != VZ_ROW_WHEN)
            row++;
    }
    return row < end ? row : NULL;
}

const vz_row *vz_row_first(const vz_object *object, const void *data)
{
    return settle(object, object->rows, data);
}

const vz_row *vz_row_next(const vz_object *object, const vz_row *row, const void *data)
{
    return settle(object, row + 1, data);
}

size_t vz_row_list_count(const vz_row *row, const void *data)
{
    size_t n;
    memcpy(&n, (const char *)data + row->has_offset, sizeof(n));
    return n;
}

const void *vz_row_list_item(const vz_row *row, const void *data, size_t i)
{
    const void *items;
    memcpy(&items, vz_row_value(row, data), sizeof(items));
    return (const void *)((const char *)items + i * row->object->bytes);
}

void *vz_row_list_append(const vz_row *row, void *data)
{
    size_t n = vz_row_list_count(row, data), size = row->object->bytes;
    void *items;
    memcpy(&items, vz_row_member(row, data), sizeof(items));
    items = g_realloc_n(items, n + 1, size);
    void *item = (void *)((char *)items + n * size);
    memset(item, 0, size);
    n++;
    memcpy(vz_row_member(row, data), &items, sizeof(items));
    memcpy((char *)data + row->has_offset, &n, sizeof(n));
    return item;
}

bool vz_row_has(const vz_row *row, const void *data)
{
    bool has;
    memcpy(&has, (const char *)data + row->has_offset, sizeof(has));
    return has;
}

static char *number_text(const vz_row *row, uint32_t value)
{
    if (row->style == VZ_ROW_DECIMAL)
        return g_strdup_printf("%u", value);
    return g_strdup_printf("0x%0*x", (int)row->style, value);
}

static char *scalar_text(const vz_row *row, const void *data)
{
    uint32_t value;
    memcpy(&value, vz_row_value(row, data), sizeof(value));
    if (row->kind == VZ_ROW_SIGNED)
        return g_strdup_printf("%d", (int32_t)value);
    if (row->kind == VZ_ROW_WORD)
        return value > 0 && value < row->words->n_words ? g_strdup(row->words->words[value]) : NULL;
    bool absent = (row->kind == VZ_ROW_COUNT && value == 0) ||
                  (row->kind == VZ_ROW_OPTIONAL && !vz_row_has(row, data));
    return absent ? NULL : number_text(row, value);
}

char *vz_row_text(const vz_row *row, const void *data)
{
    const void *member = vz_row_value(row, data);
    if (row->kind == VZ_ROW_ONLY)
        return NULL;
    if (row->kind == VZ_ROW_TEXT) {
        char *text;
        memcpy(&text, member, sizeof(text));
        return g_strdup(text);
    }
    if (row->kind == VZ_ROW_MARK)
        return *(const bool *)member ? g_strdup("1") : NULL;
    if (row->kind == VZ_ROW_VALUE)
        return row->value->format(member);
    return scalar_text(row, data);
}

char *vz_row_path(const char *parent, const vz_row *row)
{
    return row->path[0] == '@' ? g_strconcat(parent, row->path, NULL)
                               : g_strconcat(parent, "/", row->path, NULL);
}

static bool is_string(const vz_row *row)
{
    return row->kind == VZ_ROW_TEXT || (row->kind == VZ_ROW_NODE && row->node->is_string);
}

/* Two rows may share a string (ALIAS_OF): the first one frees it, the second finds NULL. */
static void string_clear(const vz_row *row, void *data)
{
    char *text;
    memcpy(&text, vz_row_member(row, data), sizeof(text));
    g_free(text);
    memset(vz_row_member(row, data), 0, sizeof(text));
}

static void list_clear(const vz_row *row, void *data)
{
    char *items;
    memcpy(&items, vz_row_member(row, data), sizeof(items));
    for (size_t i = 0; i < vz_row_list_count(row, data); i++)
        vz_object_clear(row->object, items + i * row->object->bytes);
    g_free(items);
    memset(vz_row_member(row, data), 0, sizeof(items));
    memset((char *)data + row->has_offset, 0, sizeof(size_t));
}

void vz_object_clear(const vz_object *object, void *data)
{
    for (const vz_row *row = object->rows; row < object->rows + object->n_rows; row++) {
        if (is_string(row))
            string_clear(row, data);
        else if (row->kind == VZ_ROW_LIST)
            list_clear(row, data);
        else if (row->kind == VZ_ROW_CHILD || row->kind == VZ_ROW_INLINE)
            vz_object_clear(row->object, vz_row_member(row, data));
    }
    memset(data, 0, object->bytes);
}

static void string_own(const vz_row *row, void *copy)
{
    char *text;
    if (row->flags & VZ_ROW_ALIAS_OF)
        return;
    memcpy(&text, vz_row_member(row, copy), sizeof(text));
    text = g_strdup(text);
    memcpy(vz_row_member(row, copy), &text, sizeof(text));
}

static void list_own(const vz_row *row, void *copy)
{
    const char *theirs;
    size_t n = vz_row_list_count(row, copy), size = row->object->bytes;
    memcpy(&theirs, vz_row_member(row, copy), sizeof(theirs));
    char *items = n ? g_memdup2(theirs, n * size) : NULL;
    for (size_t i = 0; i < n; i++)
        vz_object_own(row->object, items + i * size);
    memcpy(vz_row_member(row, copy), &items, sizeof(items));
}

void vz_object_own(const vz_object *object, void *copy)
{
    for (const vz_row *row = object->rows; row < object->rows + object->n_rows; row++) {
        if (is_string(row))
            string_own(row, copy);
        else if (row->kind == VZ_ROW_LIST)
            list_own(row, copy);
        else if (row->kind == VZ_ROW_CHILD || row->kind == VZ_ROW_INLINE)
            vz_object_own(row->object, vz_row_member(row, copy));
    }
}

static void live_clear(const vz_row *row, void *data)
{
    g_autofree char *text = row->flags & VZ_ROW_KEEP_UA ? vz_row_text(row, data) : NULL;
    if (text && g_str_has_prefix(text, VZ_DEF_USER_ALIAS_PREFIX))
        return;
    if (is_string(row))
        string_clear(row, data);
    else if (row->kind == VZ_ROW_WORD)
        memset(vz_row_member(row, data), 0, sizeof(unsigned));
    else if (row->kind == VZ_ROW_VALUE)
        row->value->clear(vz_row_member(row, data));
}

void vz_object_strip_live(const vz_object *object, void *data)
{
    for (const vz_row *row = vz_row_first(object, data); row;
         row = vz_row_next(object, row, data)) {
        if (row->flags & VZ_ROW_LIVE)
            live_clear(row, data);
        else if (row->kind == VZ_ROW_CHILD || row->kind == VZ_ROW_INLINE)
            vz_object_strip_live(row->object, vz_row_member(row, data));
        for (size_t i = 0; row->kind == VZ_ROW_LIST && i < vz_row_list_count(row, data); i++) {
            char *items;
            memcpy(&items, vz_row_member(row, data), sizeof(items));
            vz_object_strip_live(row->object, items + i * row->object->bytes);
        }
    }
}
