/* The vz.* words of the kernel command line, as a table; and the clock and the mixing function
 * that every part uses. Runs once, before the threads start. */
#include "beat.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CMDLINE_MAX 4096

/* One word. Text goes to text (size bytes); a number between min and max goes to number or, when
 * a question may change it later, to shared. */
typedef struct {
    const char *word;
    char *text;
    size_t size;
    uint64_t *number;
    _Atomic uint64_t *shared;
    uint64_t min;
    uint64_t max;
} option_row;

uint64_t vz_now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * VZ_US_PER_S + (uint64_t)now.tv_nsec / 1000;
}

/* The finalizer of splitmix64: every bit of the input changes half of the output. */
uint64_t vz_mix(uint64_t a, uint64_t b)
{
    uint64_t x = a + 0x9e3779b97f4a7c15u * (b + 1);
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static void set_number(const option_row *row, const char *value)
{
    char *end = NULL;
    uint64_t number = strtoull(value, &end, 0);
    if (end == value || *end != '\0' || number < row->min || number > row->max) {
        vz_guest_fail("vz.%s: '%s' is not a number from %llu to %llu", row->word, value,
                      (unsigned long long)row->min, (unsigned long long)row->max);
        return;
    }
    if (row->shared)
        atomic_store(row->shared, number);
    else
        *row->number = number;
}

static void set_word(const option_row *rows, const char *word)
{
    for (const option_row *row = rows; row->word; row++) {
        size_t length = strlen(row->word);
        if (strncmp(word, row->word, length) != 0 || word[length] != '=')
            continue;
        const char *value = word + length + 1;
        if (!row->text)
            set_number(row, value);
        else if (strlen(value) >= row->size)
            vz_guest_fail("vz.%s: '%s' is too long", row->word, value);
        else
            memcpy(row->text, value, strlen(value) + 1);
        return;
    }
    vz_guest_fail("unknown word 'vz.%s'", word);
}

static void read_cmdline(char *line, size_t size)
{
    FILE *file = fopen("/proc/cmdline", "re");
    line[0] = '\0';
    if (file) {
        if (!fgets(line, (int)size, file))
            line[0] = '\0';
        fclose(file);
    }
}

void vz_options_read(vz_options *o)
{
    const option_row rows[] = {
        {"id", o->id, sizeof o->id, NULL, NULL, 0, 0},
        {"to", o->to, sizeof o->to, NULL, NULL, 0, 0},
        {"boot", o->boot, sizeof o->boot, NULL, NULL, 0, 0},
        {"ip", o->ip, sizeof o->ip, NULL, NULL, 0, 0},
        {"gw", o->gw, sizeof o->gw, NULL, NULL, 0, 0},
        {"disk", o->disk, sizeof o->disk, NULL, NULL, 0, 0},
        {"seed", NULL, 0, &o->seed, NULL, 0, UINT64_MAX},
        {"mem", NULL, 0, &o->mem_mib, NULL, 0, 65536},
        {"hot", NULL, 0, &o->hot_mib, NULL, 1, 65536},
        {"disksize", NULL, 0, &o->disk_mib, NULL, 1, 4096},
        {"repeat", NULL, 0, &o->repeat, NULL, 1, VZ_PAGE_WORDS},
        {"port", NULL, 0, &o->port, NULL, 1, 65535},
        {"beat", NULL, 0, &o->beat_ms, NULL, 1, 60000},
        {"serial", NULL, 0, &o->serial_ms, NULL, 0, 60000},
        {"dirty", NULL, 0, NULL, &o->dirty_mib_s, 0, 4096},
        {"verify", NULL, 0, NULL, &o->verify_mib_s, 0, 4096},
        {"writes", NULL, 0, NULL, &o->disk_writes_s, 0, 10000},
        {"quiet", NULL, 0, NULL, &o->quiet, 0, 1},
        {NULL, NULL, 0, NULL, NULL, 0, 0},
    };
    strcpy(o->id, "guest");
    o->seed = 1;
    o->mem_mib = 32;
    o->disk_mib = 8;
    o->repeat = 1;
    o->port = 7707;
    o->beat_ms = 10;
    o->serial_ms = 10;
    atomic_store(&o->verify_mib_s, 1);
    atomic_store(&o->disk_writes_s, 20);

    char line[CMDLINE_MAX];
    char *rest = NULL;
    read_cmdline(line, sizeof line);
    for (char *word = strtok_r(line, " \n", &rest); word; word = strtok_r(NULL, " \n", &rest))
        if (strncmp(word, "vz.", 3) == 0)
            set_word(rows, word + 3);
    if (o->hot_mib == 0 || o->hot_mib > o->mem_mib)
        o->hot_mib = o->mem_mib;
}
