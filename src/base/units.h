/* units.h - the units of the program and the few places where they change.
 *
 * Inside: bytes, microseconds of the monotonic clock, 64-bit. libvirt's API speaks MiB/s, KiB and
 * ms; the conversion happens once, at the border. Header only. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define VZ_KIB ((uint64_t)1024)
#define VZ_MIB (1024 * VZ_KIB)
#define VZ_GIB (1024 * VZ_MIB)

#define VZ_USEC_PER_MSEC ((int64_t)1000)
#define VZ_USEC_PER_SEC  ((int64_t)1000000)

/* MiB to bytes; OVERFLOW with `what` named where the product does not fit an int64 (QEMU's and
 * libvirt's rates are signed 64-bit). */
static inline bool vz_mib_to_bytes(uint64_t mib, const char *what, uint64_t *ret_bytes,
                                   GError **err)
{
    if (mib > INT64_MAX / VZ_MIB)
        return vz_fail(err, VZ_ERR_OVERFLOW, "%s of %" G_GUINT64_FORMAT " MiB is too large", what,
                       mib);
    *ret_bytes = mib * VZ_MIB;
    return true;
}
