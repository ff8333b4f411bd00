/* tparam.h - a typed parameter: the protocol's only union (libvirt facts 1.4). */
#pragma once

#include <stdint.h>

typedef enum {
    VZ_TPARAM_INT = 1,
    VZ_TPARAM_UINT = 2,
    VZ_TPARAM_LLONG = 3,
    VZ_TPARAM_ULLONG = 4,
    VZ_TPARAM_DOUBLE = 5,
    VZ_TPARAM_BOOLEAN = 6,
    VZ_TPARAM_STRING = 7,
} vz_tparam_type;

/* Strings are borrowed from whoever made the parameter (a call's arena, a literal). */
typedef struct vz_wire_tparam {
    const char *field;
    vz_tparam_type type;
    union {
        int32_t i; /* also BOOLEAN: 0 or 1 */
        uint32_t u;
        int64_t l;
        uint64_t ul;
        double d;
        const char *s;
    } value;
} vz_wire_tparam;
typedef vz_wire_tparam vz_tparam;
