/* def_rows.h - the rows of defs/domain_xml.def as data, and how to walk them.
 *
 * For the def_*.c files only. A row says where in the document a value stands and at which offset
 * of which struct it is kept. Pure; any thread. */
#pragma once

#include "domain/def.h"

typedef enum {
    VZ_ROW_WORD,
    VZ_ROW_TEXT,
    VZ_ROW_NUMBER,
    VZ_ROW_COUNT,
    VZ_ROW_OPTIONAL,
    VZ_ROW_SIGNED,
    VZ_ROW_FLAG,
    VZ_ROW_MARK,
    VZ_ROW_ONLY,
    VZ_ROW_VALUE,
    VZ_ROW_NODE,
    VZ_ROW_CHILD,
    VZ_ROW_INLINE,
    VZ_ROW_LIST,
    VZ_ROW_WHEN,
} vz_row_kind;

enum {
    VZ_ROW_LIVE = 1u << 0,
    VZ_ROW_HOST = 1u << 1,
    VZ_ROW_SECRET = 1u << 2,
    VZ_ROW_STATUS = 1u << 3,
    VZ_ROW_NEEDED = 1u << 4,
    VZ_ROW_ALIAS_OF = 1u << 5,
    VZ_ROW_KEEP_UA = 1u << 6,
};

/* How a number is written: decimal, or hex with at least so many digits. */
typedef enum {
    VZ_ROW_DECIMAL = 0,
    VZ_ROW_HEX1 = 1,
    VZ_ROW_HEX2 = 2,
    VZ_ROW_HEX4 = 4,
} vz_row_style;

typedef struct {
    const char *const *words; /* [0] is NULL: not said */
    size_t n_words;
} vz_words;

/* A value whose text needs code. Both work on the member, not on its struct. */
typedef struct {
    /* `what` is the value's path, for the error. */
    bool (*parse)(const char *text, const char *what, void *member, GError **err);
    char *(*format)(const void *member); /* NULL: nothing to show */
    void (*clear)(void *member);         /* of LIVE rows */
} vz_value_codec;

struct _xmlNode;
struct vz_writer;

/* An element whose content needs code. */
typedef struct {
    bool (*parse)(struct _xmlNode *node, const char *what, void *member, GError **err);
    void (*format)(struct vz_writer *writer, const char *element, const void *member);
    bool is_string; /* the member is a char *, to be copied and freed; else a uint64_t */
} vz_node_codec;

typedef struct vz_row vz_row;

typedef struct {
    const char *name; /* of OBJECT() */
    size_t bytes;
    const vz_row *rows;
    size_t n_rows;
} vz_object;

struct vz_row {
    vz_row_kind kind;
    const char *path;
    unsigned flags;
    size_t offset, has_offset; /* has_offset: of the bool, or of a list's count */
    const vz_words *words;
    uint64_t min, max;
    vz_row_style style;
    const vz_value_codec *value;
    const vz_node_codec *node;
    const vz_object *object;
    bool (*when)(const void *data);
    const char *only;
};

/* The root: struct vz_def. */
extern const vz_object vz_object_domain;
extern const vz_object vz_object_address;

/* The first row at or after `row` that counts for `data`, or NULL at the end:
 * for (row = vz_row_first(o, data); row; row = vz_row_next(o, row, data)). WHEN rows are judged
 * when they are passed, so a discriminator that an earlier row has just parsed counts. */
const vz_row *vz_row_first(const vz_object *object, const void *data);
const vz_row *vz_row_next(const vz_object *object, const vz_row *row, const void *data);

static inline void *vz_row_member(const vz_row *row, void *data)
{
    return (void *)((char *)data + row->offset);
}

static inline const void *vz_row_value(const vz_row *row, const void *data)
{
    return (const void *)((const char *)data + row->offset);
}

size_t vz_row_list_count(const vz_row *row, const void *data);
const void *vz_row_list_item(const vz_row *row, const void *data, size_t i);
/* A new zeroed item at the end. */
void *vz_row_list_append(const vz_row *row, void *data);
/* The has_ member of an OPTIONAL. */
bool vz_row_has(const vz_row *row, const void *data);

/* The text that a row of a plain value shows for `data`, NULL for none. Caller frees. Not for
 * FLAG, NODE, CHILD, INLINE, LIST. */
char *vz_row_text(const vz_row *row, const void *data);

/* "domain/devices" + "disk": where one object of a list stands, for messages. */
char *vz_row_path(const char *parent, const vz_row *row);

/* Frees what the object owns and clears it; the memory of `data` itself stays. */
void vz_object_clear(const vz_object *object, void *data);
/* `copy` is a bitwise copy of what it is to become independent of. */
void vz_object_own(const vz_object *object, void *copy);
/* Clears what belongs to one run. */
void vz_object_strip_live(const vz_object *object, void *data);
