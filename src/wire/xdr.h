/* xdr.h - one codec for every struct of messages.def (RFC 4506). Any thread; no state.
 *
 * Nothing that a peer says is trusted: a count is compared with its limit and with the bytes that
 * are there before memory is taken, memory comes from an arena with a budget, and errors (RPC) name
 * the field: "migrate_begin3_params_args.params[3].field: truncated". */
#pragma once

#include "base/error.h"
#include "wire/arena.h"
#include "wire/schema.h"

/* Appends the bytes of *in to out. An error (a string that is too long, a NULL that must not be)
 * leaves out as it was. */
bool vz_xdr_encode(const vz_schema *schema, const void *in, GByteArray *out, GError **err);

/* Fills *ret_out (schema->size bytes) from exactly `bytes` bytes; bytes left over are an error.
 * What it points to is in the arena. On failure *ret_out is unspecified. */
bool vz_xdr_decode(const vz_schema *schema, const uint8_t *data, size_t bytes, vz_arena *arena,
                   void *ret_out, GError **err);
