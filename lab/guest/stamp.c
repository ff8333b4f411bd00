/* Stamps: what a page of memory or a block of disk holds so that its content and its age can be
 * checked; and the small mailbox through which the main thread asks a worker for something.
 *
 *   word 0 magic | 1 key | 2 index | 3 count | 4..511 a sequence that follows from those
 *
 * Each of the sequence's words stands there vz.repeat times, usually once. */
#include "beat.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define STAMP_MAGIC  0x31706d6174737a76u /* "vzstamp1" */
#define HEADER_WORDS 4

/* xorshift64: cheap under emulation, and nothing that a compressor finds. */
static inline uint64_t body_next(uint64_t x)
{
    x ^= x << 13;
    x ^= x >> 7;
    return x ^ (x << 17);
}

/* The body's words, one after the other. */
typedef struct {
    uint64_t x;
    uint64_t left; /* how often it still stands there */
} body;

static body body_begin(uint64_t key, uint64_t index, uint64_t count)
{
    /* Zero is the one state that the sequence never leaves. */
    return (body){.x = vz_mix(vz_mix(key, index), count) | 1};
}

static inline uint64_t body_word(body *b)
{
    if (b->left == 0) {
        b->x = body_next(b->x);
        b->left = vz_the_guest.options.repeat;
    }
    b->left--;
    return b->x;
}

void vz_stamp_write(uint64_t *page, uint64_t key, uint64_t index, uint64_t count)
{
    body b = body_begin(key, index, count);
    page[0] = STAMP_MAGIC;
    page[1] = key;
    page[2] = index;
    page[3] = count;
    for (size_t i = HEADER_WORDS; i < VZ_PAGE_WORDS; i++)
        page[i] = body_word(&b);
}

/* The first word of the body that is not what (key, index, count) makes; VZ_PAGE_WORDS if none. */
static size_t first_bad(const uint64_t *page, uint64_t key, uint64_t index, uint64_t count)
{
    body b = body_begin(key, index, count);
    for (size_t i = HEADER_WORDS; i < VZ_PAGE_WORDS; i++)
        if (page[i] != body_word(&b))
            return i;
    return VZ_PAGE_WORDS;
}

static bool is_zero(const uint64_t *page)
{
    return page[0] == 0 && memcmp(page, page + 1, VZ_PAGE_SIZE - sizeof *page) == 0;
}

bool vz_stamp_read(const uint64_t *page, uint64_t key, uint64_t index, uint64_t *ret_count)
{
    if (page[0] != STAMP_MAGIC || page[1] != key || page[2] != index ||
        first_bad(page, key, index, page[3]) != VZ_PAGE_WORDS)
        return false;
    *ret_count = page[3];
    return true;
}

bool vz_stamp_check(const uint64_t *page, uint64_t key, uint64_t index, uint64_t count, char *why,
                    size_t size)
{
    uint64_t found = 0;
    size_t bad = first_bad(page, key, index, count);
    bool header = page[0] == STAMP_MAGIC && page[1] == key && page[2] == index && page[3] == count;
    if (header && bad == VZ_PAGE_WORDS)
        return true;
    if (is_zero(page))
        snprintf(why, size, "lost: %llu is all zero, write %llu expected",
                 (unsigned long long)index, (unsigned long long)count);
    else if (vz_stamp_read(page, key, index, &found))
        snprintf(why, size, "%s: %llu holds write %llu, write %llu expected",
                 found < count ? "stale" : "from the future", (unsigned long long)index,
                 (unsigned long long)found, (unsigned long long)count);
    else if (page[0] == STAMP_MAGIC && (page[1] != key || page[2] != index))
        snprintf(why, size, "misplaced: %llu holds the stamp of %llu%s", (unsigned long long)index,
                 (unsigned long long)page[2], page[1] != key ? " of another guest or boot" : "");
    else
        snprintf(why, size, "damaged: %llu differs from byte %zu, write %llu expected",
                 (unsigned long long)index, header ? bad * sizeof *page : 0,
                 (unsigned long long)count);
    return false;
}

void vz_stamp_damage(uint64_t *page, uint64_t key, uint64_t index, uint64_t count, vz_damage how)
{
    if (how == VZ_DAMAGE_FLIP)
        page[VZ_PAGE_WORDS / 2] ^= 1;
    else if (how == VZ_DAMAGE_STALE)
        vz_stamp_write(page, key, index, count - 1);
    else if (how == VZ_DAMAGE_LOSE)
        memset(page, 0, VZ_PAGE_SIZE);
}

static void wait_until(vz_request *request, uint64_t delay_us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t nsec = (uint64_t)until.tv_nsec + delay_us % VZ_US_PER_S * 1000;
    until.tv_sec += (time_t)(delay_us / VZ_US_PER_S + nsec / 1000000000);
    until.tv_nsec = (long)(nsec % 1000000000);
    pthread_cond_timedwait(&request->wake, &request->mutex, &until);
}

void vz_request_init(vz_request *request)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_mutex_init(&request->mutex, NULL);
    pthread_cond_init(&request->wake, &attributes);
}

uint64_t vz_request_verify(vz_request *request)
{
    pthread_mutex_lock(&request->mutex);
    uint64_t ticket = ++request->verify_asked;
    pthread_cond_broadcast(&request->wake);
    pthread_mutex_unlock(&request->mutex);
    return ticket;
}

bool vz_request_damage(vz_request *request, vz_damage how, uint64_t where)
{
    pthread_mutex_lock(&request->mutex);
    bool free = request->damage == VZ_DAMAGE_NONE;
    if (free) {
        request->damage = how;
        request->where = where;
        pthread_cond_broadcast(&request->wake);
    }
    pthread_mutex_unlock(&request->mutex);
    return free;
}

void vz_request_stop(vz_request *request, unsigned timeout_ms)
{
    uint64_t deadline = vz_now_us() + (uint64_t)timeout_ms * VZ_US_PER_MS;
    pthread_mutex_lock(&request->mutex);
    request->stop = true;
    pthread_cond_broadcast(&request->wake);
    for (uint64_t now = vz_now_us(); !request->stopped && now < deadline; now = vz_now_us())
        wait_until(request, deadline - now);
    pthread_mutex_unlock(&request->mutex);
}

bool vz_request_result(vz_request *request, uint64_t ticket, uint64_t *ret_checked,
                       uint64_t *ret_bad)
{
    pthread_mutex_lock(&request->mutex);
    bool done = request->verify_done >= ticket;
    if (done) {
        *ret_checked = request->result_checked;
        *ret_bad = request->result_bad;
    }
    pthread_mutex_unlock(&request->mutex);
    return done;
}

void vz_request_wait(vz_request *request, uint64_t delay_us)
{
    pthread_mutex_lock(&request->mutex);
    if (request->verify_asked == request->verify_done && !request->stop &&
        request->damage == VZ_DAMAGE_NONE)
        wait_until(request, delay_us);
    pthread_mutex_unlock(&request->mutex);
}

vz_damage vz_request_take_damage(vz_request *request, uint64_t *ret_where)
{
    pthread_mutex_lock(&request->mutex);
    vz_damage how = request->damage;
    request->damage = VZ_DAMAGE_NONE;
    *ret_where = request->where;
    pthread_mutex_unlock(&request->mutex);
    return how;
}

bool vz_request_begin(vz_request *request, uint64_t *ret_ticket)
{
    pthread_mutex_lock(&request->mutex);
    *ret_ticket = request->verify_asked;
    bool asked = request->verify_asked > request->verify_done;
    pthread_mutex_unlock(&request->mutex);
    return asked;
}

void vz_request_finish(vz_request *request, uint64_t ticket, uint64_t checked, uint64_t bad)
{
    pthread_mutex_lock(&request->mutex);
    request->result_checked = checked;
    request->result_bad = bad;
    request->verify_done = ticket;
    pthread_mutex_unlock(&request->mutex);
    vz_guest_wake();
}

bool vz_request_stopping(vz_request *request)
{
    pthread_mutex_lock(&request->mutex);
    bool stop = request->stop;
    pthread_mutex_unlock(&request->mutex);
    return stop;
}

void vz_request_stopped(vz_request *request)
{
    pthread_mutex_lock(&request->mutex);
    request->stopped = true;
    pthread_cond_broadcast(&request->wake);
    pthread_mutex_unlock(&request->mutex);
}
