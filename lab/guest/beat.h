/* What the parts of the test guest's program share. It runs as process 1 of a guest whose kernel
 * and initramfs lab/guest/build.sh makes, and nowhere else: no GLib, static, three threads.
 *
 *   main thread (real time)   beats, answers questions, the power button     beat.c ask.c
 *   memory thread             dirties and verifies stamped pages             pages.c
 *   one thread per disk       writes and verifies stamped blocks             store.c
 *
 * The main thread never waits for the others: they share counters by atomics, and each has a
 * mutex and a condition for what is asked of it. */
#pragma once

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VZ_PAGE_SIZE  4096
#define VZ_PAGE_WORDS (VZ_PAGE_SIZE / sizeof(uint64_t))
#define VZ_MIB        (1024u * 1024u)
#define VZ_NAME_MAX   32
#define VZ_LINE_MAX   512
#define VZ_DISKS_MAX  4
#define VZ_US_PER_S   1000000u
#define VZ_US_PER_MS  1000u

/* What the kernel command line asked for; docs/test-guest.md lists the words. Read-only after
 * vz_options_read(), except the atomics, which a question may change. */
typedef struct {
    char id[VZ_NAME_MAX];
    char to[VZ_NAME_MAX];
    char boot[VZ_NAME_MAX];
    char ip[VZ_NAME_MAX];
    char gw[VZ_NAME_MAX];
    char disk[VZ_DISKS_MAX * VZ_NAME_MAX];
    uint64_t seed;
    uint64_t mem_mib;
    uint64_t hot_mib;
    uint64_t disk_mib;
    uint64_t repeat;
    uint64_t port;
    uint64_t beat_ms;
    uint64_t serial_ms;
    _Atomic uint64_t dirty_mib_s;
    _Atomic uint64_t verify_mib_s;
    _Atomic uint64_t disk_writes_s;
    _Atomic uint64_t quiet;
} vz_options;

/* Where a page or block can be damaged on purpose, to prove that the check can fail. */
typedef enum {
    VZ_DAMAGE_NONE,
    VZ_DAMAGE_FLIP,
    VZ_DAMAGE_STALE,
    VZ_DAMAGE_LOSE,
} vz_damage;

/* What a worker is asked for, and what came of it. Guarded by mutex. */
typedef struct {
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    uint64_t verify_asked;
    uint64_t verify_done;
    bool stop;
    bool stopped;
    vz_damage damage;
    uint64_t where;
    uint64_t result_checked;
    uint64_t result_bad;
} vz_request;

/* Stamped memory. The mapping and counts belong to the memory thread. */
typedef struct {
    vz_request request;
    unsigned char *base;
    uint32_t *counts;
    uint64_t pages;
    uint64_t hot;
    uint64_t key;
    uint64_t next_write;
    uint64_t next_check;
    _Atomic bool ready;
    _Atomic uint64_t written;
    _Atomic uint64_t verified;
    _Atomic uint64_t errors;
} vz_pages;

/* Stamped disk. The descriptor, buffer and table belong to its thread. */
typedef struct {
    vz_request request;
    char path[VZ_NAME_MAX];
    int fd;
    unsigned char *buffer;
    uint64_t *expected;
    uint64_t blocks;
    uint64_t key;
    uint64_t seq;
    uint64_t next_check;
    _Atomic uint64_t newest;
    _Atomic uint64_t synced;
    _Atomic uint64_t found;
    _Atomic uint64_t verified;
    _Atomic uint64_t errors;
    _Atomic bool ready;
} vz_store;

/* Everything, in one place: there is one guest per program. */
typedef struct {
    vz_options options;
    char boot[VZ_NAME_MAX];
    vz_pages pages;
    vz_store stores[VZ_DISKS_MAX];
    unsigned store_count;
    int serial_fd;
    int udp_fd;
    int wake_fd;
    _Atomic uint64_t errors;
    uint64_t counter;
    uint64_t last_us;
    uint64_t delta_us;
    uint64_t serial_dropped;
    uint64_t udp_failed;
} vz_guest;

extern vz_guest vz_the_guest;

/* beat.c */

/* Says one line on the serial console and, unless the guest is quiet, to the observer. Any
 * thread: a worker's line is passed to the main thread and may be dropped when many come at
 * once (the counters never are). */
void vz_guest_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same with `error` before it, and counted. For what is wrong at the start. */
void vz_guest_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Sum of all errors since boot. */
uint64_t vz_guest_errors(void);

/* Wakes the main thread: a verification has ended. Any thread. */
void vz_guest_wake(void);

/* Writes the fields that a beat carries, without the leading word. Main thread. */
void vz_guest_fields(char *line, size_t size);

/* Writes a line to the serial console now or drops it. Main thread. */
void vz_guest_serial(const char *line);

/* Stops the disks, syncs, and powers off or reboots. Does not return. Main thread. */
void vz_guest_leave(bool reboot) __attribute__((noreturn));

/* setup.c, in this order and before the threads start. What fails is said and survived: a guest
 * that beats is more use than one that died. */
void vz_setup_mounts(void);
void vz_setup_modules(void);
void vz_setup_network(void);

/* options.c */

/* Fills options with defaults, then with the vz.* words of /proc/cmdline. What is wrong is said
 * with vz_guest_fail() and otherwise ignored. */
void vz_options_read(vz_options *options);

/* time and numbers, options.c */
uint64_t vz_now_us(void);
uint64_t vz_mix(uint64_t a, uint64_t b);

/* stamp.c */

/* Fills one page with the stamp of (key, index, count): four words that say so, then words that
 * follow from them and do not compress. */
void vz_stamp_write(uint64_t *page, uint64_t key, uint64_t index, uint64_t count);

/* Checks that page holds exactly the stamp of (key, index, count). On failure says in why what
 * it holds instead: an older or newer write, zeros, another page, or damage at an offset. */
bool vz_stamp_check(const uint64_t *page, uint64_t key, uint64_t index, uint64_t count, char *why,
                    size_t size);

/* The count of a stamp that is whole and belongs to (key, index); false if it is not. */
bool vz_stamp_read(const uint64_t *page, uint64_t key, uint64_t index, uint64_t *ret_count);

/* Damages a page on purpose. count is the one that it should hold. */
void vz_stamp_damage(uint64_t *page, uint64_t key, uint64_t index, uint64_t count, vz_damage how);

/* request, stamp.c: how the main thread asks a worker, and how that waits for it. */
void vz_request_init(vz_request *request);

/* Asks for a verification of everything, begun after this call; returns its ticket. */
uint64_t vz_request_verify(vz_request *request);

/* False when the worker has not yet done the damage that it was asked for before. */
bool vz_request_damage(vz_request *request, vz_damage how, uint64_t where);

/* Asks the worker to finish; waits up to timeout_ms until it has. */
void vz_request_stop(vz_request *request, unsigned timeout_ms);

/* True when the verification with this ticket has ended, with the result of the last one. */
bool vz_request_result(vz_request *request, uint64_t ticket, uint64_t *ret_checked,
                       uint64_t *ret_bad);

/* Worker: sleeps up to delay_us or until something is asked. */
void vz_request_wait(vz_request *request, uint64_t delay_us);

/* Worker: takes the damage that was asked for, VZ_DAMAGE_NONE if none. */
vz_damage vz_request_take_damage(vz_request *request, uint64_t *ret_where);

/* Worker: true when a verification is asked for; hand the ticket to vz_request_finish(). */
bool vz_request_begin(vz_request *request, uint64_t *ret_ticket);

/* Worker: a verification has ended. Wakes the main thread. */
void vz_request_finish(vz_request *request, uint64_t ticket, uint64_t checked, uint64_t bad);

/* Worker: true when it was asked to finish; vz_request_stopped() says that it has. */
bool vz_request_stopping(vz_request *request);
void vz_request_stopped(vz_request *request);

/* pages.c */

/* Maps mem_mib and starts the memory thread, which stamps it. With mem_mib 0 it only answers. */
bool vz_pages_start(vz_pages *pages);

/* store.c */

/* Starts the thread of one disk, which waits for the device and fills it, or checks what an
 * earlier boot of the guest with this id left on it. */
bool vz_store_start(vz_store *store, const char *path);

/* ask.c */

/* Opens the UDP port for questions, which is also the one that beats leave from. */
bool vz_ask_open(void);

/* Answers what has come on the UDP port. Main thread. */
void vz_ask_udp(void);

/* Answers what was typed on the serial console. Main thread. */
void vz_ask_serial(void);

/* Sends the answers to verifications that have ended. Main thread. */
void vz_ask_finish(void);
