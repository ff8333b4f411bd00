/* schema.c - the descriptions of the structs of messages.def. Constant data; any thread. */
#include "wire/schema.h"

/* The fields of a struct sit in a function, so that `self` can name the struct and rows need not.
 */
#define STRUCT(name)                                                                               \
    static const vz_field *fields_of_##name(void)                                                  \
    {                                                                                              \
        typedef vz_wire_##name self;                                                               \
        static const vz_field fields[] = {
#define FIELD(name, kind, max, sub) {#name, VZ_FIELD_##kind, offsetof(self, name), max, sub},
#define INT(name)                   FIELD(name, INT, 0, NULL)
#define UINT(name)                  FIELD(name, UINT, 0, NULL)
#define HYPER(name)                 FIELD(name, HYPER, 0, NULL)
#define UHYPER(name)                FIELD(name, UHYPER, 0, NULL)
#define STRING(name)                FIELD(name, STRING, VZ_WIRE_MAX_STRING, NULL)
#define OPTIONAL_STRING(name)       FIELD(name, OPTIONAL_STRING, VZ_WIRE_MAX_STRING, NULL)
#define UUID(name)                  FIELD(name, UUID, 16, NULL)
#define BYTES(name, limit)          FIELD(name, BYTES, VZ_WIRE_MAX_##limit, NULL)
#define CHARS(name, length)         FIELD(name, CHARS, length, NULL)
#define CHAR_LIST(name, limit)      FIELD(name, CHAR_LIST, VZ_WIRE_MAX_##limit, NULL)
#define SUB(type, name)             FIELD(name, SUB, 0, &vz_schema_##type)
#define OPTIONAL_SUB(type, name)    FIELD(name, OPTIONAL_SUB, 0, &vz_schema_##type)
#define LIST(type, name, limit)     FIELD(name, LIST, VZ_WIRE_MAX_##limit, &vz_schema_##type)
#define INT_LIST(name, limit)       FIELD(name, INT_LIST, VZ_WIRE_MAX_##limit, NULL)
#define UINT_LIST(name, limit)      FIELD(name, UINT_LIST, VZ_WIRE_MAX_##limit, NULL)
#define UHYPER_LIST(name, limit)    FIELD(name, UHYPER_LIST, VZ_WIRE_MAX_##limit, NULL)
#define STRING_LIST(name, limit)    FIELD(name, STRING_LIST, VZ_WIRE_MAX_##limit, NULL)
#define END(name)                                                                                  \
    {                                                                                              \
        NULL, VZ_FIELD_INT, sizeof(self), 0, NULL                                                  \
    }                                                                                              \
    }                                                                                              \
    ;                                                                                              \
    return fields;                                                                                 \
    }                                                                                              \
    const vz_schema vz_schema_##name = {#name, sizeof(vz_wire_##name), fields_of_##name};
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"

const vz_schema vz_schema_tparam = {"tparam", sizeof(vz_wire_tparam), NULL};

const vz_schema *const vz_schemas[] = {
#define STRUCT(name) &vz_schema_##name,
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"
    NULL};
