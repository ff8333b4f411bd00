/* random_message.c - see random_message.h. Lists and strings are short, so that each field's odd
 * lengths (padding) and emptiness come up often. */
#include "random_message.h"

#include <string.h>

#define ELEMENTS_MAX 5
#define LENGTH_MAX   9

static uint32_t up_to(GRand *rand, uint32_t max)
{
    return (uint32_t)g_rand_int_range(rand, 0, (gint32)max + 1);
}

static const char *random_string(GRand *rand, vz_arena *arena)
{
    uint32_t bytes = up_to(rand, LENGTH_MAX);
    char *text = vz_arena_alloc(arena, bytes + 1);
    for (uint32_t i = 0; i < bytes; i++)
        text[i] = (char)g_rand_int_range(rand, 1, 256);
    return text;
}

static void random_bytes(GRand *rand, void *out, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        ((uint8_t *)out)[i] = (uint8_t)g_rand_int(rand);
}

static void random_tparam(GRand *rand, vz_arena *arena, vz_wire_tparam *param)
{
    param->field = random_string(rand, arena);
    param->type = (vz_tparam_type)g_rand_int_range(rand, VZ_TPARAM_INT, VZ_TPARAM_STRING + 1);
    if (param->type == VZ_TPARAM_STRING)
        param->value.s = random_string(rand, arena);
    else
        random_bytes(rand, &param->value, sizeof(param->value));
}

static size_t list_element_size(const vz_field *field)
{
    switch ((int)field->kind) {
    case VZ_FIELD_CHAR_LIST:
        return 1;
    case VZ_FIELD_LIST:
        return field->sub->size;
    case VZ_FIELD_STRING_LIST:
        return sizeof(char *);
    case VZ_FIELD_UHYPER_LIST:
        return 8;
    default:
        return 4;
    }
}

static void random_list(const vz_field *field, GRand *rand, vz_arena *arena, void *out)
{
    struct {
        const void *items;
        uint32_t count;
    } list;
    size_t size = list_element_size(field);
    list.count = up_to(rand, ELEMENTS_MAX);
    uint8_t *items = vz_arena_alloc(arena, list.count * size);
    random_bytes(rand, items, list.count * size);
    for (uint32_t i = 0; i < list.count; i++) {
        if (field->kind == VZ_FIELD_LIST)
            random_message(field->sub, rand, arena, items + i * size);
        if (field->kind == VZ_FIELD_STRING_LIST)
            ((const char **)(void *)items)[i] = random_string(rand, arena);
    }
    list.items = items;
    memcpy(out, &list, sizeof(list));
}

static void random_sub(const vz_field *field, GRand *rand, vz_arena *arena, void *out)
{
    void *sub = vz_arena_alloc(arena, field->sub->size);
    random_message(field->sub, rand, arena, sub);
    memcpy(out, &sub, sizeof(sub));
}

static void random_field(const vz_field *field, GRand *rand, vz_arena *arena, void *out)
{
    switch (field->kind) {
    case VZ_FIELD_INT:
    case VZ_FIELD_UINT:
        random_bytes(rand, out, 4);
        break;
    case VZ_FIELD_HYPER:
    case VZ_FIELD_UHYPER:
        random_bytes(rand, out, 8);
        break;
    case VZ_FIELD_STRING:
        *(const char **)out = random_string(rand, arena);
        break;
    case VZ_FIELD_OPTIONAL_STRING:
        *(const char **)out = g_rand_boolean(rand) ? random_string(rand, arena) : NULL;
        break;
    case VZ_FIELD_UUID:
        random_bytes(rand, out, 16);
        break;
    case VZ_FIELD_BYTES: {
        vz_wire_bytes *bytes = out;
        bytes->count = up_to(rand, LENGTH_MAX);
        void *data = vz_arena_alloc(arena, bytes->count);
        random_bytes(rand, data, bytes->count);
        bytes->data = data;
        break;
    }
    case VZ_FIELD_CHARS:
        memset(out, 0, field->max);
        random_bytes(rand, out, up_to(rand, field->max - 1));
        break;
    case VZ_FIELD_SUB:
        random_message(field->sub, rand, arena, out);
        break;
    case VZ_FIELD_OPTIONAL_SUB:
        if (g_rand_boolean(rand))
            random_sub(field, rand, arena, out);
        break;
    case VZ_FIELD_CHAR_LIST:
    case VZ_FIELD_LIST:
    case VZ_FIELD_INT_LIST:
    case VZ_FIELD_UINT_LIST:
    case VZ_FIELD_UHYPER_LIST:
    case VZ_FIELD_STRING_LIST:
        random_list(field, rand, arena, out);
        break;
    }
}

void random_message(const vz_schema *schema, GRand *rand, vz_arena *arena, void *ret_out)
{
    memset(ret_out, 0, schema->size);
    if (!schema->fields) {
        random_tparam(rand, arena, ret_out);
        return;
    }
    for (const vz_field *field = schema->fields(); field->name; field++)
        random_field(field, rand, arena, (uint8_t *)ret_out + field->offset);
}
