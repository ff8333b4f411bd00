/* xdr.c - see xdr.h.
 *
 * A field is decoded by the row of its kind in `codecs`; a list is a count and then the codec of
 * its element's kind. Pointers inside structs are moved by memcpy, since `items` is of another
 * pointer type in each struct. */
#include "wire/xdr.h"

#include "wire/frame.h"

#include <string.h>

typedef struct {
    const uint8_t *at;
    const uint8_t *end;
    vz_arena *arena;
    GError **err;
} reader;

typedef struct {
    GByteArray *out;
    GError **err;
} writer;

/* As the typed lists and vz_wire_bytes are laid out. */
typedef struct {
    const void *items;
    uint32_t count;
} any_list;
G_STATIC_ASSERT(sizeof(any_list) == sizeof(vz_wire_bytes));
G_STATIC_ASSERT(offsetof(any_list, count) == offsetof(vz_wire_bytes, count));

typedef struct {
    bool (*decode)(reader *r, const vz_field *field, void *out);
    bool (*encode)(writer *w, const vz_field *field, const void *in);
    size_t wire_bytes; /* the least it takes; SIZE_MAX: see least_bytes */
} codec;

static const codec *codec_of(const vz_field *field);
static bool decode_struct(reader *r, const vz_schema *schema, void *out);
static bool encode_struct(writer *w, const vz_schema *schema, const void *in);

/* Begins the text of an error; the callers put the path in front of it. */
static bool bad(GError **err, const char *what)
{
    return vz_fail(err, VZ_ERR_RPC, ": %s", what);
}

/* ---- bytes ---- */

static bool get_u32(reader *r, uint32_t *ret_value)
{
    uint32_t big;
    if ((size_t)(r->end - r->at) < sizeof(big))
        return bad(r->err, "truncated");
    memcpy(&big, r->at, sizeof(big));
    r->at += sizeof(big);
    *ret_value = GUINT32_FROM_BE(big);
    return true;
}

static bool get_u64(reader *r, uint64_t *ret_value)
{
    uint64_t big;
    if ((size_t)(r->end - r->at) < sizeof(big))
        return bad(r->err, "truncated");
    memcpy(&big, r->at, sizeof(big));
    r->at += sizeof(big);
    *ret_value = GUINT64_FROM_BE(big);
    return true;
}

/* Opaque bytes and their padding, which must be zero (one value, one encoding). */
static bool get_padded(reader *r, void *out, size_t bytes)
{
    size_t padding = (4 - bytes % 4) % 4;
    if ((size_t)(r->end - r->at) < bytes || (size_t)(r->end - r->at) - bytes < padding)
        return bad(r->err, "truncated");
    if (bytes)
        memcpy(out, r->at, bytes);
    for (size_t i = 0; i < padding; i++)
        if (r->at[bytes + i])
            return bad(r->err, "padding is not zero");
    r->at += bytes + padding;
    return true;
}

static void put_u32(writer *w, uint32_t value)
{
    uint32_t big = GUINT32_TO_BE(value);
    g_byte_array_append(w->out, (const guint8 *)&big, sizeof(big));
}

static void put_u64(writer *w, uint64_t value)
{
    uint64_t big = GUINT64_TO_BE(value);
    g_byte_array_append(w->out, (const guint8 *)&big, sizeof(big));
}

static bool put_padded(writer *w, const void *data, size_t bytes)
{
    static const uint8_t zeroes[4];
    if (bytes > VZ_FRAME_PAYLOAD_MAX || w->out->len > VZ_FRAME_PAYLOAD_MAX)
        return bad(w->err, "the message is too large");
    if (bytes)
        g_byte_array_append(w->out, data, (guint)bytes);
    g_byte_array_append(w->out, zeroes, (guint)((4 - bytes % 4) % 4));
    return true;
}

/* ---- one codec for each kind ---- */

static bool decode_u32(reader *r, const vz_field *field, void *out)
{
    (void)field;
    return get_u32(r, out);
}

static bool encode_u32(writer *w, const vz_field *field, const void *in)
{
    (void)field;
    uint32_t value;
    memcpy(&value, in, sizeof(value));
    put_u32(w, value);
    return true;
}

static bool decode_u64(reader *r, const vz_field *field, void *out)
{
    (void)field;
    return get_u64(r, out);
}

static bool encode_u64(writer *w, const vz_field *field, const void *in)
{
    (void)field;
    uint64_t value;
    memcpy(&value, in, sizeof(value));
    put_u64(w, value);
    return true;
}

static bool decode_char(reader *r, const vz_field *field, void *out)
{
    (void)field;
    uint32_t value;
    if (!get_u32(r, &value))
        return false;
    int32_t number = (int32_t)value;
    if (number < INT8_MIN || number > INT8_MAX)
        return bad(r->err, "not a character");
    *(uint8_t *)out = (uint8_t)value;
    return true;
}

static bool encode_char(writer *w, const vz_field *field, const void *in)
{
    (void)field;
    int32_t value = *(const signed char *)in;
    put_u32(w, (uint32_t)value);
    return true;
}

/* Length and bytes; a NUL is put behind them. */
static bool get_blob(reader *r, uint32_t max, char **ret_data, uint32_t *ret_bytes)
{
    uint32_t bytes;
    if (!get_u32(r, &bytes))
        return false;
    if (bytes > max)
        return bad(r->err, "longer than allowed");
    if (bytes > (size_t)(r->end - r->at))
        return bad(r->err, "truncated");
    char *data = vz_arena_alloc(r->arena, (size_t)bytes + 1);
    if (!data)
        return bad(r->err, "the message needs too much memory");
    *ret_data = data;
    *ret_bytes = bytes;
    return get_padded(r, data, bytes);
}

static bool get_string(reader *r, uint32_t max, const char **out)
{
    char *text;
    uint32_t bytes;
    if (!get_blob(r, max, &text, &bytes))
        return false;
    if (memchr(text, 0, bytes))
        return bad(r->err, "a NUL inside a string");
    *out = text;
    return true;
}

static bool put_string(writer *w, uint32_t max, const char *text)
{
    if (!text)
        return bad(w->err, "missing");
    size_t bytes = strlen(text);
    if (bytes > max)
        return bad(w->err, "longer than allowed");
    put_u32(w, (uint32_t)bytes);
    return put_padded(w, text, bytes);
}

static bool decode_string(reader *r, const vz_field *field, void *out)
{
    (void)field;
    return get_string(r, VZ_WIRE_MAX_STRING, out);
}

static bool encode_string(writer *w, const vz_field *field, const void *in)
{
    (void)field;
    return put_string(w, VZ_WIRE_MAX_STRING, *(const char *const *)in);
}

static bool get_present(reader *r, bool *ret_present)
{
    uint32_t marker;
    if (!get_u32(r, &marker))
        return false;
    if (marker > 1)
        return bad(r->err, "neither present nor absent");
    *ret_present = marker;
    return true;
}

static bool decode_optional_string(reader *r, const vz_field *field, void *out)
{
    bool present;
    if (!get_present(r, &present))
        return false;
    return !present || decode_string(r, field, out);
}

static bool encode_optional_string(writer *w, const vz_field *field, const void *in)
{
    const char *text = *(const char *const *)in;
    put_u32(w, text != NULL);
    return !text || encode_string(w, field, in);
}

static bool decode_uuid(reader *r, const vz_field *field, void *out)
{
    (void)field;
    return get_padded(r, out, 16);
}

static bool encode_uuid(writer *w, const vz_field *field, const void *in)
{
    (void)field;
    return put_padded(w, in, 16);
}

static bool decode_bytes(reader *r, const vz_field *field, void *out)
{
    vz_wire_bytes *bytes = out;
    char *data;
    if (!get_blob(r, field->max, &data, &bytes->count))
        return false;
    bytes->data = (const uint8_t *)data;
    return true;
}

static bool encode_bytes(writer *w, const vz_field *field, const void *in)
{
    const vz_wire_bytes *bytes = in;
    if (bytes->count > field->max)
        return bad(w->err, "longer than allowed");
    put_u32(w, bytes->count);
    return put_padded(w, bytes->data, bytes->count);
}

static bool decode_sub(reader *r, const vz_field *field, void *out)
{
    return decode_struct(r, field->sub, out);
}

static bool encode_sub(writer *w, const vz_field *field, const void *in)
{
    return encode_struct(w, field->sub, in);
}

static bool decode_optional_sub(reader *r, const vz_field *field, void *out)
{
    bool present;
    if (!get_present(r, &present) || !present)
        return !*r->err;
    void *sub = vz_arena_alloc(r->arena, field->sub->size);
    if (!sub)
        return bad(r->err, "the message needs too much memory");
    memcpy(out, &sub, sizeof(sub));
    return decode_struct(r, field->sub, sub);
}

static bool encode_optional_sub(writer *w, const vz_field *field, const void *in)
{
    const void *sub;
    memcpy(&sub, in, sizeof(sub));
    put_u32(w, sub != NULL);
    return !sub || encode_struct(w, field->sub, sub);
}

/* ---- lists ---- */

typedef struct {
    codec codec;
    size_t size; /* in memory; 0: field->sub->size */
} element;

static const element elements[] = {
    [VZ_FIELD_CHARS] = {{decode_char, encode_char, 4}, 1},
    [VZ_FIELD_CHAR_LIST] = {{decode_char, encode_char, 4}, 1},
    [VZ_FIELD_LIST] = {{decode_sub, encode_sub, SIZE_MAX}, 0},
    [VZ_FIELD_INT_LIST] = {{decode_u32, encode_u32, 4}, 4},
    [VZ_FIELD_UINT_LIST] = {{decode_u32, encode_u32, 4}, 4},
    [VZ_FIELD_UHYPER_LIST] = {{decode_u64, encode_u64, 8}, 8},
    [VZ_FIELD_STRING_LIST] = {{decode_string, encode_string, 4}, sizeof(char *)},
};

static size_t element_size(const vz_field *field)
{
    size_t size = elements[field->kind].size;
    return size ? size : field->sub->size;
}

static bool decode_elements(reader *r, const vz_field *field, void *out, uint32_t count)
{
    size_t size = element_size(field);
    for (uint32_t i = 0; i < count; i++)
        if (!elements[field->kind].codec.decode(r, field, (uint8_t *)out + i * size)) {
            g_prefix_error(r->err, "[%u]", i);
            return false;
        }
    return true;
}

static bool encode_elements(writer *w, const vz_field *field, const void *in, uint32_t count)
{
    size_t size = element_size(field);
    for (uint32_t i = 0; i < count; i++)
        if (!elements[field->kind].codec.encode(w, field, (const uint8_t *)in + i * size)) {
            g_prefix_error(w->err, "[%u]", i);
            return false;
        }
    return true;
}

static size_t least_bytes(const vz_schema *schema)
{
    if (!schema->fields)
        return 4 + 4 + 4; /* of a typed parameter: an empty name, the type, an int */
    size_t bytes = 0;
    for (const vz_field *field = schema->fields(); field->name; field++) {
        const codec *c = codec_of(field);
        bytes += c->wire_bytes == SIZE_MAX ? least_bytes(field->sub) : c->wire_bytes;
        if (field->kind == VZ_FIELD_CHARS)
            bytes += (size_t)4 * field->max;
    }
    return bytes;
}

static bool decode_list(reader *r, const vz_field *field, void *out)
{
    any_list list = {NULL, 0};
    if (!get_u32(r, &list.count))
        return false;
    if (list.count > field->max)
        return bad(r->err, "more elements than allowed");
    size_t least = elements[field->kind].codec.wire_bytes;
    if (least == SIZE_MAX)
        least = least_bytes(field->sub);
    if (list.count > (size_t)(r->end - r->at) / least)
        return bad(r->err, "truncated");
    void *items = vz_arena_alloc(r->arena, list.count * element_size(field));
    if (!items)
        return bad(r->err, "the message needs too much memory");
    list.items = items;
    memcpy(out, &list, sizeof(list));
    return decode_elements(r, field, items, list.count);
}

static bool encode_list(writer *w, const vz_field *field, const void *in)
{
    any_list list;
    memcpy(&list, in, sizeof(list));
    if (list.count > field->max)
        return bad(w->err, "more elements than allowed");
    put_u32(w, list.count);
    return encode_elements(w, field, list.items, list.count);
}

static bool decode_chars(reader *r, const vz_field *field, void *out)
{
    if (!decode_elements(r, field, out, field->max))
        return false;
    return ((const char *)out)[field->max - 1] == 0 || bad(r->err, "does not end");
}

static bool encode_chars(writer *w, const vz_field *field, const void *in)
{
    if (((const char *)in)[field->max - 1] != 0)
        return bad(w->err, "does not end");
    return encode_elements(w, field, in, field->max);
}

/* ---- the typed parameter, the only union ---- */

static bool decode_tparam_value(reader *r, vz_wire_tparam *param)
{
    switch (param->type) {
    case VZ_TPARAM_INT:
    case VZ_TPARAM_UINT:
    case VZ_TPARAM_BOOLEAN:
        return get_u32(r, &param->value.u);
    case VZ_TPARAM_LLONG:
    case VZ_TPARAM_ULLONG:
    case VZ_TPARAM_DOUBLE:
        return get_u64(r, &param->value.ul);
    case VZ_TPARAM_STRING:
        return get_string(r, VZ_WIRE_MAX_STRING, &param->value.s);
    }
    return bad(r->err, "unknown type of parameter");
}

static bool encode_tparam_value(writer *w, const vz_wire_tparam *param)
{
    switch (param->type) {
    case VZ_TPARAM_INT:
    case VZ_TPARAM_UINT:
    case VZ_TPARAM_BOOLEAN:
        put_u32(w, param->value.u);
        return true;
    case VZ_TPARAM_LLONG:
    case VZ_TPARAM_ULLONG:
    case VZ_TPARAM_DOUBLE:
        put_u64(w, param->value.ul);
        return true;
    case VZ_TPARAM_STRING:
        return put_string(w, VZ_WIRE_MAX_STRING, param->value.s);
    }
    return bad(w->err, "unknown type of parameter");
}

static bool decode_tparam(reader *r, vz_wire_tparam *param)
{
    uint32_t type;
    if (!get_string(r, VZ_WIRE_MAX_STRING, &param->field)) {
        g_prefix_error(r->err, ".field");
        return false;
    }
    if (!get_u32(r, &type)) {
        g_prefix_error(r->err, ".type");
        return false;
    }
    param->type = type;
    if (!decode_tparam_value(r, param)) {
        g_prefix_error(r->err, ".value");
        return false;
    }
    return true;
}

static bool encode_tparam(writer *w, const vz_wire_tparam *param)
{
    if (!put_string(w, VZ_WIRE_MAX_STRING, param->field)) {
        g_prefix_error(w->err, ".field");
        return false;
    }
    put_u32(w, param->type);
    if (!encode_tparam_value(w, param)) {
        g_prefix_error(w->err, ".value");
        return false;
    }
    return true;
}

/* ---- structs ---- */

static const codec codecs[] = {
    [VZ_FIELD_INT] = {decode_u32, encode_u32, 4},
    [VZ_FIELD_UINT] = {decode_u32, encode_u32, 4},
    [VZ_FIELD_HYPER] = {decode_u64, encode_u64, 8},
    [VZ_FIELD_UHYPER] = {decode_u64, encode_u64, 8},
    [VZ_FIELD_STRING] = {decode_string, encode_string, 4},
    [VZ_FIELD_OPTIONAL_STRING] = {decode_optional_string, encode_optional_string, 4},
    [VZ_FIELD_UUID] = {decode_uuid, encode_uuid, 16},
    [VZ_FIELD_BYTES] = {decode_bytes, encode_bytes, 4},
    [VZ_FIELD_CHARS] = {decode_chars, encode_chars, 0},
    [VZ_FIELD_CHAR_LIST] = {decode_list, encode_list, 4},
    [VZ_FIELD_SUB] = {decode_sub, encode_sub, SIZE_MAX},
    [VZ_FIELD_OPTIONAL_SUB] = {decode_optional_sub, encode_optional_sub, 4},
    [VZ_FIELD_LIST] = {decode_list, encode_list, 4},
    [VZ_FIELD_INT_LIST] = {decode_list, encode_list, 4},
    [VZ_FIELD_UINT_LIST] = {decode_list, encode_list, 4},
    [VZ_FIELD_UHYPER_LIST] = {decode_list, encode_list, 4},
    [VZ_FIELD_STRING_LIST] = {decode_list, encode_list, 4},
};

static const codec *codec_of(const vz_field *field)
{
    return &codecs[field->kind];
}

static bool decode_struct(reader *r, const vz_schema *schema, void *out)
{
    if (!schema->fields)
        return decode_tparam(r, out);
    for (const vz_field *field = schema->fields(); field->name; field++)
        if (!codec_of(field)->decode(r, field, (uint8_t *)out + field->offset)) {
            g_prefix_error(r->err, ".%s", field->name);
            return false;
        }
    return true;
}

static bool encode_struct(writer *w, const vz_schema *schema, const void *in)
{
    if (!schema->fields)
        return encode_tparam(w, in);
    for (const vz_field *field = schema->fields(); field->name; field++)
        if (!codec_of(field)->encode(w, field, (const uint8_t *)in + field->offset)) {
            g_prefix_error(w->err, ".%s", field->name);
            return false;
        }
    return true;
}

bool vz_xdr_encode(const vz_schema *schema, const void *in, GByteArray *out, GError **err)
{
    guint before = out->len;
    writer w = {out, err};
    if (encode_struct(&w, schema, in))
        return true;
    g_byte_array_set_size(out, before);
    g_prefix_error(err, "%s", schema->name);
    return false;
}

bool vz_xdr_decode(const vz_schema *schema, const uint8_t *data, size_t bytes, vz_arena *arena,
                   void *ret_out, GError **err)
{
    reader r = {data, data + bytes, arena, err};
    memset(ret_out, 0, schema->size);
    if (decode_struct(&r, schema, ret_out) &&
        (r.at == r.end || bad(err, "bytes left over at the end")))
        return true;
    g_prefix_error(err, "%s", schema->name);
    return false;
}
