/* tparam.h - the protocol's typed parameter; stands here until the wire part brings its own. */
#pragma once

#include <glib.h>
#include <stdint.h>

enum {
    VZ_TPARAM_INT = 1,
    VZ_TPARAM_UINT,
    VZ_TPARAM_LLONG,
    VZ_TPARAM_ULLONG,
    VZ_TPARAM_DOUBLE,
    VZ_TPARAM_BOOLEAN,
    VZ_TPARAM_STRING,
};

typedef struct {
    char *field;
    int32_t type;
    union {
        int32_t i;
        uint32_t ui;
        int64_t l;
        uint64_t ul;
        double d;
        int32_t b;
        char *s;
    };
} vz_tparam;
