/* sample.c - see sample.h. */
#include "migrate/sample.h"

#include "base/fd.h"
#include "base/wait.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

/* A guest's QEMU has hundreds of mappings, each a line. */
#define MAPS_BYTES_MAX ((size_t)4 * 1024 * 1024)
#define MAPS_CHUNK     ((size_t)64 * 1024)
/* Of guest memory: an error of some 1 %. */
#define LOOKED_AT_PAGES ((uint64_t)4096)
#define PAGE_BYTES_MAX  ((size_t)64 * 1024)
#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_SWAPPED ((uint64_t)1 << 62)
#define LOOK_US         ((int64_t)25 * 1000)
#define KEPT_BYTES      ((size_t)2 * 1024 * 1024)
/* QEMU's multifd packs 128 pages of 4 KiB at a time. */
#define PORTION_BYTES ((size_t)512 * 1024)
#define PACK_US       ((int64_t)15 * 1000)
#define PACK_LEVEL    1
#define NS_PER_S      ((uint64_t)1000000000)
/* Multiples of it, modulo 1, fill the unit interval evenly, however many there are. */
#define GOLDEN 0.6180339887498949

bool vz_sample_find_mapping(const char *maps, uint64_t ram_bytes, vz_sample_mapping *ret)
{
    *ret = (vz_sample_mapping){.bytes = UINT64_MAX};
    for (const char *line = maps; line && *line;) {
        char *end;
        uint64_t from = g_ascii_strtoull(line, &end, 16);
        uint64_t to = *end == '-' ? g_ascii_strtoull(end + 1, NULL, 16) : from;
        if (to > from && to - from >= ram_bytes && to - from < ret->bytes)
            *ret = (vz_sample_mapping){.start = from, .bytes = to - from};
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return ret->bytes != UINT64_MAX;
}

/* A process's memory, and what of it was looked at. */
typedef struct {
    int pagemap, memory;
    size_t page_bytes;
    uint64_t first_page;
    uint8_t *kept; /* KEPT_BYTES */
    size_t kept_bytes;
} look;

/* One page: 1 it counts, 0 it does not, -1 it cannot be looked at. */
static int look_at_page(look *l, uint64_t page)
{
    uint64_t entry;
    uint8_t bytes[PAGE_BYTES_MAX];
    page += l->first_page;
    if (pread(l->pagemap, &entry, sizeof(entry), (off_t)(page * sizeof(entry))) != sizeof(entry))
        return -1;
    if (!(entry & PAGEMAP_PRESENT)) /* asking for it would bring it in */
        return entry & PAGEMAP_SWAPPED ? 1 : 0;
    if (pread(l->memory, bytes, l->page_bytes, (off_t)(page * l->page_bytes)) !=
        (ssize_t)l->page_bytes)
        return -1;
    if (bytes[0] == 0 && memcmp(bytes, bytes + 1, l->page_bytes - 1) == 0)
        return 0;
    if (l->kept_bytes + l->page_bytes <= KEPT_BYTES) {
        memcpy(l->kept + l->kept_bytes, bytes, l->page_bytes);
        l->kept_bytes += l->page_bytes;
    }
    return 1;
}

/* Pages all over the mapping, however soon it has to end. */
static bool look_around(look *l, uint64_t bytes, vz_sample *sample)
{
    uint64_t pages = bytes / l->page_bytes;
    uint64_t wanted = MIN(pages, LOOKED_AT_PAGES);
    uint64_t seen = 0, counted = 0;
    int64_t deadline_us = vz_now_us() + LOOK_US;
    for (double at = g_random_double(); seen < wanted && vz_now_us() < deadline_us; seen++) {
        int counts = look_at_page(l, (uint64_t)((double)pages * at));
        if (counts < 0)
            return false;
        counted += (uint64_t)counts;
        at += GOLDEN;
        at -= at >= 1 ? 1 : 0;
    }
    if (seen > 0)
        sample->used_bytes = (uint64_t)((double)bytes * (double)counted / (double)seen);
    return seen > 0;
}

static uint64_t own_time_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Packs a portion; false: zstd cannot. The speed is that of the fastest one: what disturbs a
 * measurement only makes it slower. */
static bool pack_portion(ZSTD_CCtx *context, const look *l, uint8_t *out, vz_sample *sample)
{
    size_t portion = MIN(l->kept_bytes - sample->tried_bytes, PORTION_BYTES);
    uint64_t began_ns = own_time_ns();
    size_t packed = ZSTD_compressCCtx(context, out, ZSTD_compressBound(PORTION_BYTES),
                                      l->kept + sample->tried_bytes, portion, PACK_LEVEL);
    if (ZSTD_isError(packed))
        return false;
    uint64_t bytes_s = portion * NS_PER_S / MAX(own_time_ns() - began_ns, 1);
    sample->pack_bytes_s = MAX(sample->pack_bytes_s, bytes_s);
    sample->tried_bytes += portion;
    sample->packed_bytes += packed;
    return true;
}

static void pack(const look *l, vz_sample *sample)
{
    ZSTD_CCtx *context = ZSTD_createCCtx();
    g_autofree uint8_t *out = g_malloc(ZSTD_compressBound(PORTION_BYTES));
    int64_t deadline_us = vz_now_us() + PACK_US;
    while (context && sample->tried_bytes < l->kept_bytes && vz_now_us() < deadline_us &&
           pack_portion(context, l, out, sample)) {
    }
    ZSTD_freeCCtx(context);
}

static int open_of(pid_t pid, const char *name)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

bool vz_sample_mapping_of(pid_t pid, const vz_sample_mapping *mapping, vz_sample *ret)
{
    *ret = (vz_sample){0};
    vz_autofd pagemap = open_of(pid, "pagemap");
    vz_autofd memory = open_of(pid, "mem");
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    if (pagemap < 0 || memory < 0 || page_bytes > PAGE_BYTES_MAX)
        return false;
    g_autofree uint8_t *kept = g_malloc(KEPT_BYTES);
    look l = {.pagemap = pagemap,
              .memory = memory,
              .page_bytes = page_bytes,
              .first_page = mapping->start / page_bytes,
              .kept = kept};
    if (!look_around(&l, mapping->bytes, ret))
        return false;
    pack(&l, ret);
    return true;
}

/* Its size nobody tells before; "" where it cannot be read. Caller frees. */
static char *read_maps(pid_t pid)
{
    vz_autofd fd = open_of(pid, "maps");
    g_autofree char *chunk = g_malloc(MAPS_CHUNK);
    GString *text = g_string_new(NULL);
    ssize_t n = 0;
    while (fd >= 0 && text->len < MAPS_BYTES_MAX && (n = read(fd, chunk, MAPS_CHUNK)) > 0)
        g_string_append_len(text, chunk, n);
    return g_string_free(text, FALSE);
}

bool vz_sample_memory(pid_t pid, uint64_t ram_bytes, vz_sample *ret)
{
    vz_sample_mapping mapping;
    g_autofree char *maps = read_maps(pid);
    *ret = (vz_sample){0};
    if (!vz_sample_find_mapping(maps, ram_bytes, &mapping) ||
        !vz_sample_mapping_of(pid, &mapping, ret))
        return false;
    ret->used_bytes = MIN(ret->used_bytes, ram_bytes);
    return true;
}
