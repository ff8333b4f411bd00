/* The memory thread: stamps a region, then rewrites pages of its hot part at the asked rate and
 * reads others back, for ever. Before a page is rewritten it is checked, so at any dirty rate
 * every write is verified at least once; the slow walk covers what is not rewritten.
 *
 * What a page must hold is kept apart from it, in counts. A page that went back together with
 * its counts would still show: the counts must add up to the number of writes. */
#include "beat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGES_PER_MIB (VZ_MIB / VZ_PAGE_SIZE)
#define TICK_US       10000
#define IDLE_TICK_US  100000

/* After a stall the thread does not make up for more than this much lost time, so that it never
 * keeps a slow host busy for ever. */
#define CATCH_UP_US 50000

#define WHY_MAX 160

static uint64_t *page_at(const vz_pages *pages, uint64_t index)
{
    return (uint64_t *)(void *)(pages->base + index * VZ_PAGE_SIZE);
}

static void stamp(vz_pages *pages, uint64_t index)
{
    pages->counts[index]++;
    vz_stamp_write(page_at(pages, index), pages->key, index, pages->counts[index]);
    atomic_fetch_add(&pages->written, 1);
}

/* Checks one page. A bad one is counted, told, and stamped anew so that it counts once. */
static bool check(vz_pages *pages, uint64_t index)
{
    char why[WHY_MAX];
    atomic_fetch_add(&pages->verified, 1);
    if (vz_stamp_check(page_at(pages, index), pages->key, index, pages->counts[index], why,
                       sizeof why))
        return true;
    atomic_fetch_add(&pages->errors, 1);
    vz_guest_say("error memory page %s", why);
    stamp(pages, index);
    return false;
}

static void verify_all(vz_pages *pages, uint64_t ticket)
{
    uint64_t bad = 0, writes = 0;
    for (uint64_t i = 0; i < pages->pages; i++)
        writes += pages->counts[i];
    if (writes != atomic_load(&pages->written)) {
        bad++;
        atomic_fetch_add(&pages->errors, 1);
        vz_guest_say("error memory counts add up to %" PRIu64 ", %" PRIu64 " pages were written",
                     writes, atomic_load(&pages->written));
        atomic_store(&pages->written, writes);
    }
    for (uint64_t i = 0; i < pages->pages; i++)
        bad += !check(pages, i);
    vz_request_finish(&pages->request, ticket, pages->pages, bad);
}

static void serve(vz_pages *pages)
{
    uint64_t ticket = 0, where = 0;
    vz_damage how = vz_request_take_damage(&pages->request, &where);
    if (how != VZ_DAMAGE_NONE && pages->pages > 0) {
        where %= pages->pages;
        vz_stamp_damage(page_at(pages, where), pages->key, where, pages->counts[where], how);
    }
    if (vz_request_begin(&pages->request, &ticket))
        verify_all(pages, ticket);
}

/* How many pages a rate is worth in an interval; the rest of the division goes to the next. */
static uint64_t quota(uint64_t mib_s, uint64_t interval_us, uint64_t *rest)
{
    uint64_t parts = mib_s * PAGES_PER_MIB * interval_us + *rest;
    *rest = parts % VZ_US_PER_S;
    return parts / VZ_US_PER_S;
}

static void *run(void *data)
{
    vz_pages *pages = data;
    vz_options *options = &vz_the_guest.options;
    uint64_t write_rest = 0, check_rest = 0;

    for (uint64_t i = 0; i < pages->pages; i++)
        stamp(pages, i);
    atomic_store(&pages->ready, true);
    uint64_t last_us = vz_now_us();
    for (;;) {
        bool busy = atomic_load(&options->dirty_mib_s) > 0;
        vz_request_wait(&pages->request, busy ? TICK_US : IDLE_TICK_US);
        serve(pages);
        uint64_t now_us = vz_now_us();
        uint64_t interval_us = now_us - last_us, most_us = (busy ? 0 : IDLE_TICK_US) + CATCH_UP_US;
        last_us = now_us;
        if (interval_us > most_us)
            interval_us = most_us;
        uint64_t writes = quota(atomic_load(&options->dirty_mib_s), interval_us, &write_rest);
        uint64_t checks = quota(atomic_load(&options->verify_mib_s), interval_us, &check_rest);
        for (uint64_t i = 0; i < writes && pages->hot > 0; i++) {
            check(pages, pages->next_write);
            stamp(pages, pages->next_write);
            pages->next_write = (pages->next_write + 1) % pages->hot;
        }
        for (uint64_t i = 0; i < checks && pages->pages > 0; i++) {
            check(pages, pages->next_check);
            pages->next_check = (pages->next_check + 1) % pages->pages;
        }
    }
    return NULL;
}

static void *map(uint64_t size)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

bool vz_pages_start(vz_pages *pages)
{
    const vz_options *options = &vz_the_guest.options;
    pthread_t thread;

    vz_request_init(&pages->request);
    pages->pages = options->mem_mib * PAGES_PER_MIB;
    pages->hot = options->hot_mib * PAGES_PER_MIB;
    pages->key = vz_mix(options->seed, strtoull(vz_the_guest.boot, NULL, 16));
    if (pages->pages > 0) {
        pages->base = map(pages->pages * VZ_PAGE_SIZE);
        pages->counts = map(pages->pages * sizeof *pages->counts);
        if (!pages->base || !pages->counts)
            return false;
    }
    return pthread_create(&thread, NULL, run, pages) == 0;
}
