/* arena.c - see arena.h. Chunks in a list, each filled from its start; a request that does not fit
 * the current chunk gets a chunk of its own size or a fresh standard one. */
#include "wire/arena.h"

#include <stdint.h>

#define CHUNK_BYTES ((size_t)4096)

typedef struct chunk {
    struct chunk *next;
    size_t used;
    size_t size;
    _Alignas(max_align_t) uint8_t data[];
} chunk;

struct vz_arena {
    chunk *chunks; /* the head is the one being filled */
    size_t left;
};

vz_arena *vz_arena_new(size_t budget_bytes)
{
    vz_arena *arena = g_new0(vz_arena, 1);
    arena->left = budget_bytes;
    return arena;
}

void vz_arena_free(vz_arena *arena)
{
    if (!arena)
        return;
    for (chunk *c = arena->chunks; c;) {
        chunk *next = c->next;
        g_free(c);
        c = next;
    }
    g_free(arena);
}

static chunk *add_chunk(vz_arena *arena, size_t bytes)
{
    size_t size = MAX(bytes, CHUNK_BYTES);
    chunk *c = g_malloc0(sizeof(chunk) + size);
    c->size = size;
    c->next = arena->chunks;
    arena->chunks = c;
    return c;
}

void *vz_arena_alloc(vz_arena *arena, size_t bytes)
{
    size_t align = _Alignof(max_align_t);
    if (bytes > arena->left || arena->left - bytes < align)
        return NULL;
    size_t rounded = (MAX(bytes, 1) + align - 1) / align * align;
    chunk *c = arena->chunks;
    if (!c || c->size - c->used < rounded)
        c = add_chunk(arena, rounded);
    void *memory = c->data + c->used;
    c->used += rounded;
    arena->left -= rounded;
    return memory;
}

size_t vz_arena_left(const vz_arena *arena)
{
    return arena->left;
}
