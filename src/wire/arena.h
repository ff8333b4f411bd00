/* arena.h - memory with one owner, one end and a hard budget: that of one message. Not locked. */
#pragma once

#include <glib.h>
#include <stddef.h>

typedef struct vz_arena vz_arena;

/* budget_bytes bounds all that is ever allocated from it. */
vz_arena *vz_arena_new(size_t budget_bytes);
/* Frees everything that was allocated from it. */
void vz_arena_free(vz_arena *arena);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_arena, vz_arena_free)

/* Zeroed memory, aligned for any type; NULL when it would exceed the budget. */
void *vz_arena_alloc(vz_arena *arena, size_t bytes);

/* What is left of the budget. */
size_t vz_arena_left(const vz_arena *arena);
