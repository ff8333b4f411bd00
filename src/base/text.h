/* text.h - UUIDs, host names, and strings that go into files and logs. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define VZ_UUID_BYTES      16
#define VZ_UUID_TEXT_BYTES 37 /* with the NUL */

/* Lower case, with dashes. */
void vz_uuid_format(const uint8_t uuid[VZ_UUID_BYTES], char ret_text[VZ_UUID_TEXT_BYTES]);
/* Accepts libvirt's forms: 32 hex digits, dashes anywhere between bytes. false: not a UUID. */
bool vz_uuid_parse(const char *text, uint8_t ret_uuid[VZ_UUID_BYTES]);
/* A random version 4 UUID. */
void vz_uuid_generate(uint8_t ret_uuid[VZ_UUID_BYTES]);

/* Hash and equality of 16-byte keys for GHashTable. */
guint vz_uuid_hash(const void *uuid);
gboolean vz_uuid_equal(const void *a, const void *b);

/* bytes as lower-case hex. Caller frees. */
char *vz_hex(const uint8_t *data, size_t bytes);
/* false: not exactly `bytes` bytes of hex. */
bool vz_unhex(const char *text, uint8_t *ret_data, size_t bytes);

/* A decimal number of the whole string within [min, max]; INVALID_ARG naming `what`. */
bool vz_parse_u64(const char *text, const char *what, uint64_t min, uint64_t max,
                  uint64_t *ret_value, GError **err);

/* Is `version`, which the file at `path` says of itself, one from 1 to max? Else INTERNAL_ERROR,
 * naming both and what to do. */
bool vz_check_version(const char *path, int64_t version, int64_t max, GError **err);
