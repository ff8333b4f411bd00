/* schema.h - the structs of defs/messages.def, and their descriptions.
 *
 * For each STRUCT(x) there is a struct vz_wire_x and a description vz_schema_x, made from the same
 * rows, so they cannot disagree. A decoded struct points into an arena and dies with it. */
#pragma once

#include "wire/tparam.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bounds: VZ_WIRE_MAX_<limit>. */
enum {
#define LIMIT(name, count) VZ_WIRE_MAX_##name = (count),
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"
};

typedef struct {
    const uint8_t *data;
    uint32_t count;
} vz_wire_bytes;

#define STRUCT(name)             typedef struct vz_wire_##name {
#define INT(name)                int32_t name;
#define UINT(name)               uint32_t name;
#define HYPER(name)              int64_t name;
#define UHYPER(name)             uint64_t name;
#define STRING(name)             const char *name;
#define OPTIONAL_STRING(name)    const char *name;
#define UUID(name)               uint8_t name[16];
#define BYTES(name, limit)       vz_wire_bytes name;
#define CHARS(name, length)      char name[length];
#define CHAR_LIST(name, limit)   VZ_WIRE_LIST(char) name;
#define SUB(type, name)          struct vz_wire_##type name;
#define OPTIONAL_SUB(type, name) const struct vz_wire_##type *name;
#define LIST(type, name, limit)  VZ_WIRE_LIST(struct vz_wire_##type) name;
#define INT_LIST(name, limit)    VZ_WIRE_LIST(int32_t) name;
#define UINT_LIST(name, limit)   VZ_WIRE_LIST(uint32_t) name;
#define UHYPER_LIST(name, limit) VZ_WIRE_LIST(uint64_t) name;
#define STRING_LIST(name, limit) VZ_WIRE_LIST(const char *) name;
#define END(name)                                                                                  \
    }                                                                                              \
    vz_wire_##name;
#define VZ_WIRE_LIST(type)                                                                         \
    struct {                                                                                       \
        type const *items;                                                                         \
        uint32_t count;                                                                            \
    }
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"

typedef enum {
    VZ_FIELD_INT,
    VZ_FIELD_UINT,
    VZ_FIELD_HYPER,
    VZ_FIELD_UHYPER,
    VZ_FIELD_STRING,
    VZ_FIELD_OPTIONAL_STRING,
    VZ_FIELD_UUID,
    VZ_FIELD_BYTES,
    VZ_FIELD_CHARS,
    VZ_FIELD_CHAR_LIST,
    VZ_FIELD_SUB,
    VZ_FIELD_OPTIONAL_SUB,
    VZ_FIELD_LIST,
    VZ_FIELD_INT_LIST,
    VZ_FIELD_UINT_LIST,
    VZ_FIELD_UHYPER_LIST,
    VZ_FIELD_STRING_LIST,
} vz_field_kind;

typedef struct vz_schema vz_schema;

typedef struct {
    const char *name; /* NULL ends a list of fields */
    vz_field_kind kind;
    size_t offset;
    uint32_t max;         /* of lists, bytes and chars */
    const vz_schema *sub; /* of structs and lists of structs */
} vz_field;

struct vz_schema {
    const char *name;
    size_t size;
    const vz_field *(*fields)(void); /* NULL for the typed parameter, which is a union */
};

extern const vz_schema vz_schema_tparam;
#define STRUCT(name) extern const vz_schema vz_schema_##name;
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"

/* Every struct of messages.def in its order, NULL at the end. */
extern const vz_schema *const vz_schemas[];
