/* test_sample.c - what is seen of a process's memory from outside. */
#include "migrate/sample.h"

#include "base/units.h"

#include <glib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const char maps[] =
    "55d0c0000000-55d0c1000000 r-xp 00000000 fe:00 1                          /usr/bin/qemu\n"
    "7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n" /* larger than the guest's */
    "7f1000000000-7f100c000000 rw-p 00000000 00:00 0 \n" /* the guest's 192 MiB */
    "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]\n";

static void test_maps(void)
{
    vz_sample_mapping m;
    g_assert_true(vz_sample_find_mapping(maps, 192 * VZ_MIB, &m));
    g_assert_cmphex(m.start, ==, 0x7f1000000000);
    g_assert_cmpuint(m.bytes, ==, 192 * VZ_MIB);
    g_assert_true(vz_sample_find_mapping(maps, 1024 * VZ_MIB, &m));
    g_assert_cmphex(m.start, ==, 0x7f0000000000);
    g_assert_false(vz_sample_find_mapping(maps, 2048 * VZ_MIB, &m));
    g_assert_false(vz_sample_find_mapping("", VZ_MIB, &m));
    g_assert_false(vz_sample_find_mapping("nonsense\n5-4 \n", 0, &m));
}

typedef void (*filler)(uint8_t *memory, size_t bytes);

static void fill_random(uint8_t *memory, size_t bytes)
{
    g_autoptr(GRand) random = g_rand_new_with_seed(7);
    for (size_t i = 0; i + sizeof(guint32) <= bytes; i += sizeof(guint32)) {
        guint32 word = g_rand_int(random);
        memcpy(memory + i, &word, sizeof(word));
    }
}

static void fill_alike(uint8_t *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        memory[i] = (uint8_t)(i % 64 < 8 ? i * 2654435761u >> 8 : 'a');
}

#define BYTES (64 * VZ_MIB)

/* Own memory of which a quarter is written to, a quarter is there but zero, and half is not there.
 */
static vz_sample sample_of(filler fill)
{
    vz_sample s, gone;
    uint8_t *memory = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert_true(memory != MAP_FAILED);
    madvise(memory, BYTES, MADV_NOHUGEPAGE);
    fill(memory, BYTES / 4);
    memset(memory + BYTES / 4, 0, BYTES / 4);
    const vz_sample_mapping m = {.start = (uint64_t)(uintptr_t)memory, .bytes = BYTES};
    g_assert_true(vz_sample_mapping_of(getpid(), &m, &s));
    /* Looking has brought nothing in. */
    size_t pages = BYTES / (size_t)sysconf(_SC_PAGESIZE);
    g_autofree unsigned char *there = g_malloc(pages);
    g_assert_cmpint(mincore(memory, BYTES, there), ==, 0);
    for (size_t i = 0; i < pages; i++)
        g_assert_cmpint(there[i] & 1, ==, i < pages / 2);
    munmap(memory, BYTES);
    g_assert_true(vz_sample_mapping_of(getpid(), &m, &gone));
    g_assert_cmpuint(gone.used_bytes, ==, 0);
    g_assert_cmpuint(gone.tried_bytes, ==, 0);
    g_assert_cmpuint(s.used_bytes, >, BYTES * 15 / 64);
    g_assert_cmpuint(s.used_bytes, <, BYTES * 17 / 64);
    g_assert_cmpuint(s.tried_bytes, >=, VZ_SAMPLE_PACK_MIN);
    g_assert_cmpuint(s.pack_bytes_s, >, 0);
    return s;
}

static void test_random(void)
{
    vz_sample s = sample_of(fill_random);
    g_assert_cmpuint(s.packed_bytes, >, s.tried_bytes * 99 / 100);
}

static void test_alike(void)
{
    vz_sample s = sample_of(fill_alike);
    g_assert_cmpuint(s.packed_bytes, <, s.tried_bytes / 4);
}

/* Of all mappings of a process: the one that is large enough. */
static void test_process(void)
{
    vz_sample s;
    g_assert_false(vz_sample_memory(getpid(), (uint64_t)1 << 50, &s));
    g_assert_false(vz_sample_memory(-1, VZ_MIB, &s));
    const size_t bytes = 3 * VZ_GIB; /* none that anything else has */
    uint8_t *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    g_assert_true(memory != MAP_FAILED);
    madvise(memory, bytes, MADV_NOHUGEPAGE);
    fill_random(memory, bytes / 64);
    g_assert_true(vz_sample_memory(getpid(), bytes, &s));
    g_assert_cmpuint(s.used_bytes, >, bytes / 128);
    g_assert_cmpuint(s.used_bytes, <, bytes / 32);
    munmap(memory, bytes);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/sample/maps", test_maps);
    g_test_add_func("/sample/random", test_random);
    g_test_add_func("/sample/alike", test_alike);
    g_test_add_func("/sample/process", test_process);
    return g_test_run();
}
