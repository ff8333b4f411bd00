/* error.h - the one error domain.
 *
 * Codes are libvirt's virErrorNumber values (defs/errors.def), so that one function can turn any
 * GError into the wire's error. A message holds the detail only: what was attempted, on what, why
 * it failed, what would help; the standard prefix of its code is added at the border
 * (vz_error_text), and stripped where a peer's error comes in. */
#pragma once

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
#define ERROR(id, number, prefix) VZ_ERR_##id = (number),
#include "errors.def"
#undef ERROR
} vz_error_code;

#define VZ_ERROR (vz_error_quark())
GQuark vz_error_quark(void);

/* Sets *err (never NULL) and returns false, so that `return vz_fail(...)` reads as one thought. */
bool vz_fail(GError **err, vz_error_code code, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* INVALID_ARG "unsupported flags (0x40) in function virDomainCreate", without the prefix of that
 * code: libvirt has none here either. */
bool vz_fail_flags(GError **err, uint64_t unknown, const char *function);

/* The same with ": " and strerror(errnum) appended; code SYSTEM_ERROR. */
bool vz_fail_errno(GError **err, int errnum, const char *format, ...) G_GNUC_PRINTF(3, 4);

/* The compiler is to know that they return false, so that it can see what they keep from being
 * reached: without that gcc 14 warns of variables that are only set on success. */
#define vz_fail(...)                                                                               \
    ({                                                                                             \
        (vz_fail)(__VA_ARGS__);                                                                    \
        false;                                                                                     \
    })
#define vz_fail_errno(...)                                                                         \
    ({                                                                                             \
        (vz_fail_errno)(__VA_ARGS__);                                                              \
        false;                                                                                     \
    })

/* The libvirt number of an error: its own code if one of the above made it, else INTERNAL_ERROR. */
vz_error_code vz_error_number(const GError *error);

/* The prefix that libvirt prints for a code; "" for a code without one. Static. */
const char *vz_error_prefix(vz_error_code code);

/* The full text as a client shows it: prefix, unless it has none, and message. Caller frees. */
char *vz_error_text(const GError *error);

/* Makes a GError of a peer's complete text, which vz_error_text gives back: the prefix of the code
 * is stripped, and one that was not there is not added. `text` may be NULL. */
bool vz_fail_from_peer(GError **err, int code, const char *text);
