/* options.h - what a migration was asked to do.
 *
 * Every VIR_MIGRATE_* flag, every VIR_MIGRATE_PARAM_* and every value of a parameter that is a
 * choice has one row in defs/options.def and one bit here, so that "parameter X needs flag Y" is
 * one more rule of the same table. Whatever form a request arrives in (flags and typed parameters,
 * the arguments of the older calls, words of a command line), it becomes one vz_options.
 *
 * Plain data without locks: one thread at a time; strings are owned by the vz_options. */
#pragma once

#include "base/error.h"
#include "wire/tparam.h"

#include <stddef.h>
#include <stdint.h>

typedef enum {
#define FLAG(id, ...)   VZ_OPTION_##id,
#define PARAM(id, ...)  VZ_OPTION_##id,
#define CHOICE(id, ...) VZ_OPTION_##id,
#include "options.def"
    VZ_OPTION_COUNT
} vz_option_id;

typedef uint64_t vz_option_set;
#define VZ_OPTION_BIT(id) ((vz_option_set)1 << (id))
G_STATIC_ASSERT(VZ_OPTION_COUNT <= 64);

typedef enum { VZ_GUEST_VM, VZ_GUEST_CT } vz_guest_kind;

/* Which of the five calls carries the options. The same option may be the caller's wish in one
 * and the client library's envelope in another: a managed client sends Begin's XML as
 * destination_xml with every later call (libvirt facts 3.3). */
typedef enum {
    VZ_PHASE_BEGIN,
    VZ_PHASE_PREPARE,
    VZ_PHASE_PERFORM,
    VZ_PHASE_FINISH,
    VZ_PHASE_CONFIRM,
    VZ_PHASE_COUNT
} vz_phase;

typedef enum { VZ_SIDE_SOURCE, VZ_SIDE_DESTINATION } vz_side;

typedef enum {
    VZ_STATUS_SUPPORTED,
    VZ_STATUS_ALREADY_TRUE, /* accepted: what it asks for is so anyway */
    VZ_STATUS_NOT_YET,      /* refused: not in this version */
    VZ_STATUS_REJECTED,     /* refused for good */
} vz_option_status;

typedef enum { VZ_ROW_FLAG, VZ_ROW_PARAM, VZ_ROW_CHOICE } vz_option_type;

typedef enum {
    VZ_UNIT_NONE,
    VZ_UNIT_COUNT,
    VZ_UNIT_LEVEL,
    VZ_UNIT_PORT,
    VZ_UNIT_PERCENT,
    VZ_UNIT_BYTES,
    VZ_UNIT_MIB_S, /* MiB/s on the wire and command line, bytes/s in a vz_options */
    VZ_UNIT_URI,
    VZ_UNIT_ADDRESS,
    VZ_UNIT_NAME,
    VZ_UNIT_XML,
    VZ_UNIT_DISK,
    VZ_UNIT_CHOICE, /* the values are CHOICE rows */
} vz_option_unit;

/* One row of the table; static. */
typedef struct {
    const char *id; /* "PEER2PEER" */
    vz_option_type type;
    int bit;                  /* FLAG: of the flags word */
    const char *name;         /* FLAG: "VIR_MIGRATE_..."; PARAM: field name; CHOICE: its value */
    vz_option_id param;       /* CHOICE: the parameter it is a value of */
    vz_tparam_type wire_type; /* PARAM */
    vz_option_unit unit;      /* PARAM */
    uint64_t min, max;        /* PARAM: of the number as it is on the wire */
    bool multiple;            /* PARAM: may be given more than once */
    const char *not_ct;       /* why a container cannot have it; NULL: it can */
    bool source_only;         /* never sent to the destination */
    const char *qemu; /* QEMU capability (FLAG) or parameter (PARAM) that it becomes; or NULL */
    vz_option_status status;
    const char *reason; /* for every status but SUPPORTED */
    const char *word;   /* of the command line, without dashes */
    const char *help;
} vz_option_row;

const vz_option_row *vz_option_info(vz_option_id id);

typedef enum { VZ_RULE_NEEDS, VZ_RULE_EXCLUDES } vz_rule_relation;

/* "option needs one of / excludes each of others". Static. */
typedef struct {
    vz_option_id option;
    vz_rule_relation relation;
    vz_option_set others;
    vz_error_code code;
    const char *sentence;
} vz_option_rule;

const vz_option_rule *vz_option_rules(size_t *ret_count);

typedef struct vz_options vz_options;

vz_options *vz_options_new(void);
vz_options *vz_options_copy(const vz_options *options);
void vz_options_free(vz_options *options);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_options, vz_options_free)

vz_option_set vz_options_set(const vz_options *options);
bool vz_options_has(const vz_options *options, vz_option_id id);
/* A text parameter; NULL where it is absent. Borrowed. */
const char *vz_options_text(const vz_options *options, vz_option_id id);
/* A number, in our unit (bytes, bytes/s); `absent` where it is absent. */
uint64_t vz_options_number(const vz_options *options, vz_option_id id, uint64_t absent);
/* The values of a parameter that may be given several times; never NULL, maybe empty. Borrowed. */
const GPtrArray *vz_options_texts(const vz_options *options, vz_option_id id);

/* For the daemon's own use; no checks. A number is in our unit. */
void vz_options_set_flag(vz_options *options, vz_option_id id, bool on);
void vz_options_set_text(vz_options *options, vz_option_id id, const char *text);
void vz_options_set_number(vz_options *options, vz_option_id id, uint64_t number);

/* From outside, checked: a number as it is on the wire, a text. INVALID_ARG (8) for a value out of
 * range or malformed and for a second one where one is allowed, OVERFLOW (82) for a rate that does
 * not fit, ARGUMENT_UNSUPPORTED (74) for a migrate_uri of a scheme that is not supported. A rate of
 * 0 means "the default" and is as good as absent. */
bool vz_options_put_number(vz_options *options, vz_option_id id, uint64_t number, GError **err);
bool vz_options_put_text(vz_options *options, vz_option_id id, const char *text, GError **err);

/* One call of the *3_PARAMS family (302-307) -> options. Form only: unknown flag bits and wrong
 * types, duplicates and values out of range are INVALID_ARG (8), an unknown parameter is
 * ARGUMENT_UNSUPPORTED (74), a rate that does not fit is OVERFLOW (82): libvirt's codes and texts
 * (facts 3.5). */
bool vz_options_from_wire(const vz_tparam *params, size_t count, uint64_t flags, vz_phase phase,
                          vz_options **ret_options, GError **err);

/* The arguments of the older calls (213-218); NULL and 0 where the call has none. */
typedef struct {
    uint64_t flags;
    const char *dname;
    uint64_t bandwidth_mib_s;
    const char *xml; /* xmlin of Begin and Perform, dom_xml of Prepare */
    const char *uri; /* uri_in, uri */
} vz_legacy_options;

bool vz_options_from_legacy(const vz_legacy_options *legacy, vz_phase phase,
                            vz_options **ret_options, GError **err);

/* Whether this program does what is asked: first each option by itself (74 with its reason),
 * then the rules, each with its own code and sentence. */
bool vz_options_check(const vz_options *options, vz_guest_kind kind, GError **err);
/* The second half alone: the rules, whatever the status of the options. */
bool vz_options_check_rules(vz_option_set set, GError **err);

/* What goes to one side: flags, and parameters whose strings stay owned by `options`. The
 * destination never gets what only concerns the source (ABORT_ON_ERROR, AUTO_CONVERGE,
 * CHANGE_PROTECTION), as libvirt's client masks them. The array holds vz_tparam; caller frees
 * it (g_array_unref). */
uint32_t vz_options_to_wire(const vz_options *options, vz_side side, GArray **ret_params);

/* "live persistent bandwidth=1048576 destination_name=x", for logs and journals; texts of XML are
 * only named. Caller frees. */
char *vz_options_describe(const vz_options *options);

/* --- words of a command line (options_words.c) --- */

/* A word that sets or clears an option; several may mean the same. Static. */
typedef struct {
    const char *word; /* without dashes */
    vz_option_id option;
    bool on;
    const char *help; /* NULL: a synonym, not shown in help */
} vz_option_word;

const vz_option_word *vz_option_words(size_t *ret_count);
const vz_option_word *vz_option_word_find(const char *word);

/* Whether the word takes a value, and how to call it in help ("MiB/s"); NULL: takes none. */
const char *vz_option_value_name(vz_option_id id);

/* What `vz migrate` asks for when it is given no words. */
#define VZ_OPTIONS_CLI_DEFAULT                                                                     \
    (VZ_OPTION_BIT(VZ_OPTION_LIVE) | VZ_OPTION_BIT(VZ_OPTION_PEER2PEER) |                          \
     VZ_OPTION_BIT(VZ_OPTION_PERSIST_DEST) | VZ_OPTION_BIT(VZ_OPTION_UNDEFINE_SOURCE))

/* Applies one word. `value` is NULL for a word that takes none. Lists are split at commas; a word
 * whose value is a file (XML) is given the file's contents by the caller. INVALID_ARG as above. */
bool vz_options_apply_word(vz_options *options, const vz_option_word *word, const char *value,
                           GError **err);
