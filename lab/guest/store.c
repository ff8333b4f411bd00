/* The thread of one disk: writes stamped blocks at the asked rate, each with the next sequence
 * number, and reads others back. All reads and writes are O_DIRECT: what is checked comes from
 * the device and not from the guest's page cache.
 *
 * Which block a sequence number goes to follows from the number alone: 1 to N fill the N blocks in
 * order, later ones go where block_of() says. So the highest number found after a boot tells what
 * every block must hold, and a block that an interrupted copy left old is found even then. */
#include "beat.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCKS_PER_MIB (VZ_MIB / VZ_PAGE_SIZE)
#define CHUNK_BLOCKS   16
#define SYNC_EVERY     16
#define OPEN_TRIES     100
#define OPEN_DELAY_US  50000
#define IDLE_US        200000
#define WHY_MAX        160

static uint64_t *block_in(const vz_store *store, uint64_t offset)
{
    return (uint64_t *)(void *)(store->buffer + offset * VZ_PAGE_SIZE);
}

static void fail(vz_store *store, const char *what, uint64_t block)
{
    atomic_fetch_add(&store->errors, 1);
    vz_guest_say("error disk %s %s block %" PRIu64 ": %s", store->path, what, block,
                 errno ? strerror(errno) : "short transfer");
}

/* Reads or writes count blocks from block through the buffer. */
static bool transfer(vz_store *store, bool write, uint64_t block, uint64_t count)
{
    size_t size = count * VZ_PAGE_SIZE;
    off_t at = (off_t)(block * VZ_PAGE_SIZE);
    errno = 0;
    ssize_t done = write ? pwrite(store->fd, store->buffer, size, at)
                         : pread(store->fd, store->buffer, size, at);
    if (done == (ssize_t)size)
        return true;
    fail(store, write ? "write" : "read", block);
    return false;
}

static void sync_now(vz_store *store)
{
    errno = 0;
    if (fdatasync(store->fd) == 0)
        atomic_store(&store->synced, store->seq);
    else
        fail(store, "sync", 0);
}

/* Where sequence number seq is written. */
static uint64_t block_of(const vz_store *store, uint64_t seq)
{
    return (seq <= store->blocks ? seq - 1 : vz_mix(store->key, seq)) % store->blocks;
}

static void write_next(vz_store *store)
{
    uint64_t seq = store->seq + 1, block = block_of(store, seq);
    vz_stamp_write(block_in(store, 0), store->key, block, seq);
    store->expected[block] = 0;
    if (!transfer(store, true, block, 1))
        return;
    store->expected[block] = seq;
    store->seq = seq;
    atomic_store(&store->newest, seq);
    if (seq % SYNC_EVERY == 0)
        sync_now(store);
}

/* Checks a block that is in the buffer at offset. One whose last write failed is not known and
 * not checked. A bad one is told, and forgotten until it is written again. */
static bool check(vz_store *store, uint64_t block, uint64_t offset)
{
    char why[WHY_MAX];
    if (store->expected[block] == 0)
        return true;
    atomic_fetch_add(&store->verified, 1);
    if (vz_stamp_check(block_in(store, offset), store->key, block, store->expected[block], why,
                       sizeof why))
        return true;
    atomic_fetch_add(&store->errors, 1);
    vz_guest_say("error disk %s block %s", store->path, why);
    store->expected[block] = 0;
    return false;
}

/* Reads everything; returns how many blocks are bad or cannot be read. */
static uint64_t verify_all(vz_store *store, uint64_t *ret_checked)
{
    uint64_t bad = 0, checked = 0;
    for (uint64_t at = 0; at < store->blocks; at += CHUNK_BLOCKS) {
        if (!transfer(store, false, at, CHUNK_BLOCKS)) {
            bad++;
            continue;
        }
        for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
            checked += store->expected[at + i] != 0;
            bad += !check(store, at + i, i);
        }
    }
    *ret_checked = checked;
    return bad;
}

/* Damages a block behind the table's back, to prove that the check can fail. */
static void damage(vz_store *store, vz_damage how, uint64_t block)
{
    block %= store->blocks;
    if (!transfer(store, false, block, 1))
        return;
    vz_stamp_damage(block_in(store, 0), store->key, block, store->expected[block], how);
    transfer(store, true, block, 1);
}

static void serve(vz_store *store)
{
    uint64_t ticket = 0, where = 0, checked = 0, bad = 0;
    vz_damage how = vz_request_take_damage(&store->request, &where);
    if (how != VZ_DAMAGE_NONE && store->blocks > 0)
        damage(store, how, where);
    if (!vz_request_begin(&store->request, &ticket))
        return;
    /* A disk that could not be used is one bad block, not none. */
    if (store->blocks == 0)
        bad = 1;
    else
        bad = verify_all(store, &checked);
    vz_request_finish(&store->request, ticket, checked, bad);
}

/* Finds the newest whole stamp of ours. */
static void find(vz_store *store, uint64_t at)
{
    if (!transfer(store, false, at, CHUNK_BLOCKS))
        return;
    for (uint64_t i = 0; i < CHUNK_BLOCKS; i++) {
        uint64_t seq = 0;
        if (!vz_stamp_read(block_in(store, i), store->key, at + i, &seq))
            continue;
        store->seq = seq > store->seq ? seq : store->seq;
        atomic_fetch_add(&store->found, 1);
    }
}

static void fill(vz_store *store, uint64_t at)
{
    for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
        vz_stamp_write(block_in(store, i), store->key, at + i, at + i + 1);
    bool good = transfer(store, true, at, CHUNK_BLOCKS);
    for (uint64_t i = 0; i < CHUNK_BLOCKS; i++)
        store->expected[at + i] = good ? at + i + 1 : 0;
}

/* Fills a new disk; checks one that an earlier boot filled. */
static void adopt(vz_store *store)
{
    uint64_t checked = 0;
    for (uint64_t at = 0; at < store->blocks; at += CHUNK_BLOCKS)
        find(store, at);
    vz_guest_say("disk %s blocks=%" PRIu64 " found=%" PRIu64 " newest=%" PRIu64, store->path,
                 store->blocks, atomic_load(&store->found), store->seq);
    if (store->seq < store->blocks) {
        for (uint64_t at = 0; at < store->blocks; at += CHUNK_BLOCKS)
            fill(store, at);
        store->seq = store->blocks;
    } else {
        for (uint64_t seq = 1; seq <= store->seq; seq++)
            store->expected[block_of(store, seq)] = seq;
        verify_all(store, &checked);
    }
    sync_now(store);
    atomic_store(&store->newest, store->seq);
}

static bool open_disk(vz_store *store)
{
    uint64_t bytes = 0;
    for (int i = 0; i < OPEN_TRIES && store->fd < 0; i++) {
        store->fd = open(store->path, O_RDWR | O_DIRECT | O_CLOEXEC);
        if (store->fd < 0)
            vz_request_wait(&store->request, OPEN_DELAY_US);
    }
    if (store->fd < 0 || ioctl(store->fd, BLKGETSIZE64, &bytes) != 0) {
        fail(store, "open", 0);
        return false;
    }
    uint64_t most = bytes / VZ_PAGE_SIZE / CHUNK_BLOCKS * CHUNK_BLOCKS;
    uint64_t wanted = vz_the_guest.options.disk_mib * BLOCKS_PER_MIB;
    store->blocks = wanted < most ? wanted : most;
    store->expected = calloc(store->blocks + 1, sizeof *store->expected);
    store->buffer = aligned_alloc(VZ_PAGE_SIZE, (size_t)CHUNK_BLOCKS * VZ_PAGE_SIZE);
    return store->expected && store->buffer && store->blocks > 0;
}

static void *run(void *data)
{
    vz_store *store = data;
    if (!open_disk(store))
        vz_guest_say("disk %s is not used", store->path);
    else
        adopt(store);
    atomic_store(&store->ready, store->blocks > 0);
    while (!vz_request_stopping(&store->request)) {
        uint64_t rate = atomic_load(&vz_the_guest.options.disk_writes_s);
        vz_request_wait(&store->request, rate > 0 ? VZ_US_PER_S / rate : IDLE_US);
        serve(store);
        if (rate == 0 || store->blocks == 0)
            continue;
        write_next(store);
        uint64_t block = store->next_check++ % store->blocks;
        if (transfer(store, false, block, 1))
            check(store, block, 0);
    }
    if (store->blocks > 0)
        sync_now(store);
    vz_request_stopped(&store->request);
    return NULL;
}

bool vz_store_start(vz_store *store, const char *path)
{
    pthread_t thread;
    const char *id = vz_the_guest.options.id;

    vz_request_init(&store->request);
    snprintf(store->path, sizeof store->path, "%s", path);
    store->fd = -1;
    store->key = vz_the_guest.options.seed;
    for (size_t i = 0; id[i] != '\0'; i++)
        store->key = vz_mix(store->key, (unsigned char)id[i]);
    return pthread_create(&thread, NULL, run, store) == 0;
}
