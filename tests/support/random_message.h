/* random_message.h - random values for any struct of messages.def. */
#pragma once

#include "wire/arena.h"
#include "wire/schema.h"

#include <glib.h>

/* Fills *ret_out with a value that vz_xdr_encode accepts; what it points to is in the arena. */
void random_message(const vz_schema *schema, GRand *rand, vz_arena *arena, void *ret_out);
