/* Questions to the guest, over UDP and as lines typed on the serial console. One line asks, one
 * answers:
 *
 *   ask TOKEN COMMAND [NUMBER]      re TOKEN COMMAND ...
 *
 * The words `ask TOKEN` may be left out, as on the console. Who asks over UDP repeats the question
 * until it is answered, so a token that was seen is not obeyed again: it gets the same answer.
 * Everything here runs in the main thread. */
#include "beat.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ASKED_MAX 16
#define TOKEN_MAX 40
#define WORDS_MAX 5
#define NO_TOKEN  "-"

/* One question, its answer once there is one, and whom it goes to (port 0: the console). */
typedef struct {
    struct sockaddr_in from;
    char token[TOKEN_MAX];
    char answer[VZ_LINE_MAX];
    bool waits;
    uint64_t started_us;
    uint64_t pages_ticket;
    uint64_t store_ticket[VZ_DISKS_MAX];
} question;

typedef void (*handler)(question *asked, uint64_t number);

/* The last questions, as a ring. */
static question asked_before[ASKED_MAX];
static unsigned asked_next;

static void send_answer(const question *asked)
{
    if (asked->from.sin_port == 0)
        vz_guest_serial(asked->answer);
    else
        sendto(vz_the_guest.udp_fd, asked->answer, strlen(asked->answer), MSG_DONTWAIT,
               (const struct sockaddr *)&asked->from, sizeof asked->from);
}

static void answer(question *asked, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void answer(question *asked, const char *format, ...)
{
    int start = snprintf(asked->answer, sizeof asked->answer, "re %s ", asked->token);
    va_list args;
    va_start(args, format);
    vsnprintf(asked->answer + start, sizeof asked->answer - (size_t)start, format, args);
    va_end(args);
    asked->waits = false;
    send_answer(asked);
}

static void do_ping(question *asked, uint64_t number)
{
    char fields[VZ_LINE_MAX - TOKEN_MAX - 16];
    (void)number;
    vz_guest_fields(fields, sizeof fields);
    answer(asked, "ping %s", fields);
}

static void do_stat(question *asked, uint64_t number)
{
    char disks[VZ_LINE_MAX / 2] = "";
    (void)number;
    for (unsigned i = 0; i < vz_the_guest.store_count; i++) {
        vz_store *store = &vz_the_guest.stores[i];
        size_t used = strlen(disks);
        snprintf(disks + used, sizeof disks - used,
                 " disk%u=%s ready%u=%d found%u=%" PRIu64 " newest%u=%" PRIu64 " synced%u=%" PRIu64
                 " checked%u=%" PRIu64,
                 i, store->path, i, atomic_load(&store->ready), i, atomic_load(&store->found), i,
                 atomic_load(&store->newest), i, atomic_load(&store->synced), i,
                 atomic_load(&store->verified));
    }
    answer(asked,
           "stat boot=%s counter=%" PRIu64 " pages=%" PRIu64 " written=%" PRIu64
           " verified=%" PRIu64 " errors=%" PRIu64 " dropped=%" PRIu64 " unsent=%" PRIu64 "%s",
           vz_the_guest.boot, vz_the_guest.counter, vz_the_guest.pages.pages,
           atomic_load(&vz_the_guest.pages.written), atomic_load(&vz_the_guest.pages.verified),
           vz_guest_errors(), vz_the_guest.serial_dropped, vz_the_guest.udp_failed, disks);
}

static void do_verify(question *asked, uint64_t number)
{
    (void)number;
    asked->waits = true;
    asked->started_us = vz_now_us();
    asked->pages_ticket = vz_request_verify(&vz_the_guest.pages.request);
    for (unsigned i = 0; i < vz_the_guest.store_count; i++)
        asked->store_ticket[i] = vz_request_verify(&vz_the_guest.stores[i].request);
}

static void damage_page(question *asked, vz_damage how, uint64_t number)
{
    if (vz_request_damage(&vz_the_guest.pages.request, how, number))
        answer(asked, "damaged page %" PRIu64, number);
    else
        answer(asked, "refused: busy");
}

static void damage_block(question *asked, vz_damage how, uint64_t number)
{
    if (vz_the_guest.store_count == 0) {
        answer(asked, "no disk");
        return;
    }
    if (vz_request_damage(&vz_the_guest.stores[0].request, how, number))
        answer(asked, "damaged block %" PRIu64, number);
    else
        answer(asked, "refused: busy");
}

static void do_corrupt(question *asked, uint64_t number)
{
    damage_page(asked, VZ_DAMAGE_FLIP, number);
}

static void do_stale(question *asked, uint64_t number)
{
    damage_page(asked, VZ_DAMAGE_STALE, number);
}

static void do_lose(question *asked, uint64_t number)
{
    damage_page(asked, VZ_DAMAGE_LOSE, number);
}

static void do_corrupt_disk(question *asked, uint64_t number)
{
    damage_block(asked, VZ_DAMAGE_FLIP, number);
}

static void do_stale_disk(question *asked, uint64_t number)
{
    damage_block(asked, VZ_DAMAGE_STALE, number);
}

static void do_dirty(question *asked, uint64_t number)
{
    atomic_store(&vz_the_guest.options.dirty_mib_s, number);
    answer(asked, "dirty %" PRIu64, number);
}

static void do_writes(question *asked, uint64_t number)
{
    atomic_store(&vz_the_guest.options.disk_writes_s, number);
    answer(asked, "writes %" PRIu64, number);
}

static void do_quiet(question *asked, uint64_t number)
{
    atomic_store(&vz_the_guest.options.quiet, number != 0);
    answer(asked, "quiet %d", number != 0);
}

static void do_off(question *asked, uint64_t number)
{
    (void)number;
    answer(asked, "off");
    vz_guest_leave(false);
}

static void do_reboot(question *asked, uint64_t number)
{
    (void)number;
    answer(asked, "reboot");
    vz_guest_leave(true);
}

static const struct {
    const char *name;
    handler run;
    uint64_t max;
} commands[] = {
    {"ping", do_ping, 0},
    {"stat", do_stat, 0},
    {"verify", do_verify, 0},
    {"corrupt", do_corrupt, UINT64_MAX},
    {"stale", do_stale, UINT64_MAX},
    {"lose", do_lose, UINT64_MAX},
    {"corrupt-disk", do_corrupt_disk, UINT64_MAX},
    {"stale-disk", do_stale_disk, UINT64_MAX},
    {"dirty", do_dirty, 4096},
    {"writes", do_writes, 10000},
    {"quiet", do_quiet, 1},
    {"off", do_off, 0},
    {"reboot", do_reboot, 0},
};

static bool same_asker(const struct sockaddr_in *a, const struct sockaddr_in *b)
{
    return a->sin_port == b->sin_port && a->sin_addr.s_addr == b->sin_addr.s_addr;
}

/* True when this token was asked before; it gets its answer again, if it has one. */
static bool answered_before(const struct sockaddr_in *from, const char *token)
{
    if (strcmp(token, NO_TOKEN) == 0)
        return false;
    for (unsigned i = 0; i < ASKED_MAX; i++) {
        question *asked = &asked_before[i];
        if (!same_asker(&asked->from, from) || strcmp(asked->token, token) != 0)
            continue;
        if (!asked->waits)
            send_answer(asked);
        return true;
    }
    return false;
}

static void obey(question *asked, const char *command, const char *argument)
{
    char *end = NULL;
    uint64_t number = argument ? strtoull(argument, &end, 0) : 0;
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, command) != 0)
            continue;
        if ((argument && (end == argument || *end != '\0')) || number > commands[i].max)
            answer(asked, "refused: '%.20s' is no number for %s", argument, command);
        else
            commands[i].run(asked, number);
        return;
    }
    answer(asked, "unknown command '%.20s'", command);
}

static void ask(const struct sockaddr_in *from, char *line)
{
    char *words[WORDS_MAX] = {NULL}, *rest = NULL;
    unsigned count = 0;
    for (char *word = strtok_r(line, " \r\n", &rest); word && count < WORDS_MAX - 1;
         word = strtok_r(NULL, " \r\n", &rest))
        words[count++] = word;
    bool has_token = count >= 3 && strcmp(words[0], "ask") == 0;
    char *const *command = has_token ? words + 2 : words;
    const char *token = has_token ? words[1] : NO_TOKEN;
    if (!command[0] || strlen(token) >= TOKEN_MAX || answered_before(from, token))
        return;
    /* The oldest makes room, answered or not: who still waits for it asks again. */
    question *asked = &asked_before[asked_next++ % ASKED_MAX];
    *asked = (question){.from = *from};
    snprintf(asked->token, sizeof asked->token, "%s", token);
    obey(asked, command[0], command[1]);
}

bool vz_ask_open(void)
{
    struct sockaddr_in own = {.sin_family = AF_INET,
                              .sin_port = htons((uint16_t)vz_the_guest.options.port)};
    vz_the_guest.udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return vz_the_guest.udp_fd >= 0 &&
           bind(vz_the_guest.udp_fd, (struct sockaddr *)&own, sizeof own) == 0;
}

void vz_ask_udp(void)
{
    char line[VZ_LINE_MAX];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    ssize_t length =
        recvfrom(vz_the_guest.udp_fd, line, sizeof line - 1, 0, (struct sockaddr *)&from, &size);
    if (length <= 0)
        return;
    line[length] = '\0';
    ask(&from, line);
}

void vz_ask_serial(void)
{
    static char line[VZ_LINE_MAX];
    static size_t length;
    const struct sockaddr_in console = {.sin_family = AF_INET};
    char input[64];
    ssize_t count = read(vz_the_guest.serial_fd, input, sizeof input);
    for (ssize_t i = 0; i < count; i++) {
        if (input[i] != '\r' && input[i] != '\n') {
            if (length < sizeof line - 1)
                line[length++] = input[i];
            continue;
        }
        line[length] = '\0';
        length = 0;
        ask(&console, line);
    }
}

static void finish(question *asked)
{
    uint64_t pages = 0, bad = 0, blocks = 0, bad_blocks = 0;
    if (!vz_request_result(&vz_the_guest.pages.request, asked->pages_ticket, &pages, &bad))
        return;
    for (unsigned i = 0; i < vz_the_guest.store_count; i++) {
        uint64_t checked = 0, damaged = 0;
        if (!vz_request_result(&vz_the_guest.stores[i].request, asked->store_ticket[i], &checked,
                               &damaged))
            return;
        blocks += checked;
        bad_blocks += damaged;
    }
    answer(asked,
           "verify %s pages=%" PRIu64 " bad_pages=%" PRIu64 " blocks=%" PRIu64
           " bad_blocks=%" PRIu64 " errors=%" PRIu64 " ms=%" PRIu64,
           vz_guest_errors() == 0 && bad == 0 && bad_blocks == 0 ? "ok" : "bad", pages, bad, blocks,
           bad_blocks, vz_guest_errors(), (vz_now_us() - asked->started_us) / VZ_US_PER_MS);
}

void vz_ask_finish(void)
{
    for (unsigned i = 0; i < ASKED_MAX; i++)
        if (asked_before[i].waits)
            finish(&asked_before[i]);
}
