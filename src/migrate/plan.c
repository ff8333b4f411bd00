/* plan.c - see plan.h. */
#include "migrate/plan.h"

#include "base/fd.h"
#include "base/units.h"
#include "driver/qemu/driver.h"
#include "net/link.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MS_PER_S ((uint64_t)1000)
/* QEMU samples at least a second; the answer is fetched a little later. */
#define SAMPLE_S           1
#define SAMPLE_POLL_US     ((int64_t)100 * 1000)
#define SAMPLE_DEADLINE_US ((int64_t)10 * 1000000)
/* A guest's QEMU has hundreds of mappings, each some 25 lines. */
#define SMAPS_BYTES_MAX ((size_t)32 * 1024 * 1024)
#define SMAPS_CHUNK     ((size_t)64 * 1024)
/* Of guest memory: an error of some 1 %. */
#define SAMPLE_PAGES    ((uint64_t)4096)
#define PAGE_BYTES_MAX  ((size_t)64 * 1024)
#define PAGEMAP_PRESENT ((uint64_t)1 << 63)
#define PAGEMAP_SWAPPED ((uint64_t)1 << 62)
/* QEMU's own bounds and default of what it samples a GiB for the rate of writes. */
#define WRITES_PAGES_MIN ((uint64_t)512)
#define WRITES_PAGES_MAX ((uint64_t)16384)

void vz_plan_costs_clear(vz_plan_costs *costs)
{
    g_clear_pointer(&costs->rate_from, g_free);
}

void vz_plan_predict(const vz_plan_costs *costs, vz_plan_prediction *ret)
{
    *ret = (vz_plan_prediction){.bytes = costs->used_bytes};
    bool writes = costs->live && costs->has_dirty_rate && costs->dirty_bytes_s > 0;
    if (costs->used_bytes == 0)
        ret->why = "it is not known how much memory the guest uses";
    else if (costs->rate_bytes_s == 0)
        ret->why = "the rate of the link is not known";
    else if (writes && costs->dirty_bytes_s >= costs->rate_bytes_s)
        ret->why = "the guest writes faster than the link carries; the allowed downtime rises step "
                   "by step until the rest fits";
    if (ret->why)
        return;
    double part = writes ? (double)costs->dirty_bytes_s / (double)costs->rate_bytes_s : 0;
    ret->bytes = (uint64_t)((double)costs->used_bytes / (1 - part));
    ret->has_times = true;
    ret->total_ms = (uint64_t)((double)ret->bytes * (double)MS_PER_S / (double)costs->rate_bytes_s);
    ret->downtime_ms = costs->live ? MIN(costs->downtime_limit_ms, ret->total_ms) : ret->total_ms;
}

/* KiB behind "KEY:" in the lines of one mapping, which end at `end`; 0: there is none. */
static uint64_t kib_of(const char *lines, const char *end, const char *key)
{
    const char *found = g_strstr_len(lines, end - lines, key);
    return found ? g_ascii_strtoull(found + strlen(key), NULL, 10) : 0;
}

/* Where the next mapping's header is: a line that begins with an address. */
static const char *next_mapping(const char *text)
{
    const char *line = strchr(text, '\n');
    while (line && line[1] && !g_ascii_isdigit(line[1]) && !(line[1] >= 'a' && line[1] <= 'f'))
        line = strchr(line + 1, '\n');
    return line && line[1] ? line + 1 : NULL;
}

bool vz_plan_find_mapping(const char *smaps, uint64_t ram_bytes, vz_plan_mapping *ret)
{
    *ret = (vz_plan_mapping){.bytes = UINT64_MAX};
    for (const char *mapping = *smaps ? smaps : NULL; mapping;) {
        const char *next = next_mapping(mapping);
        const char *end = next ? next : mapping + strlen(mapping);
        uint64_t bytes = kib_of(mapping, end, "\nSize:") * VZ_KIB;
        if (bytes >= ram_bytes && bytes < ret->bytes)
            *ret = (vz_plan_mapping){.start = g_ascii_strtoull(mapping, NULL, 16),
                                     .bytes = bytes,
                                     .used_bytes = VZ_KIB * (kib_of(mapping, end, "\nRss:") +
                                                             kib_of(mapping, end, "\nSwap:"))};
        mapping = next;
    }
    return ret->bytes != UINT64_MAX;
}

/* One page: 1 it counts, 0 it does not, -1 it cannot be looked at. */
static int look_at_page(int pagemap, int memory, uint64_t page, uint64_t page_bytes)
{
    uint64_t entry;
    uint8_t bytes[PAGE_BYTES_MAX];
    if (pread(pagemap, &entry, sizeof(entry), (off_t)(page * sizeof(entry))) != sizeof(entry))
        return -1;
    if (!(entry & PAGEMAP_PRESENT)) /* asking for it would bring it in */
        return entry & PAGEMAP_SWAPPED ? 1 : 0;
    if (pread(memory, bytes, page_bytes, (off_t)(page * page_bytes)) != (ssize_t)page_bytes)
        return -1;
    return bytes[0] != 0 || memcmp(bytes, bytes + 1, page_bytes - 1) != 0;
}

uint64_t vz_plan_sample(pid_t pid, const vz_plan_mapping *mapping)
{
    g_autofree char *pagemap_path = g_strdup_printf("/proc/%d/pagemap", (int)pid);
    g_autofree char *memory_path = g_strdup_printf("/proc/%d/mem", (int)pid);
    vz_autofd pagemap = open(pagemap_path, O_RDONLY | O_CLOEXEC);
    vz_autofd memory = open(memory_path, O_RDONLY | O_CLOEXEC);
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    if (pagemap < 0 || memory < 0 || page_bytes > PAGE_BYTES_MAX)
        return 0;
    uint64_t pages = mapping->bytes / page_bytes;
    uint64_t samples = MIN(pages, SAMPLE_PAGES);
    uint64_t counted = 0;
    for (uint64_t i = 0; i < samples; i++) {
        /* One of each part, so that all parts are seen. */
        uint64_t from = pages * i / samples, to = pages * (i + 1) / samples;
        uint64_t page = from + (uint64_t)g_random_double_range(0, (double)(to - from));
        int counts = look_at_page(pagemap, memory, mapping->start / page_bytes + page, page_bytes);
        if (counts < 0)
            return 0;
        counted += (uint64_t)counts;
    }
    return samples ? (uint64_t)((double)mapping->bytes * (double)counted / (double)samples) : 0;
}

/* A file of /proc, whose size nobody tells before; NULL where it cannot be read. Caller frees. */
static char *read_proc(pid_t pid, const char *name, size_t bytes_max)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/%s", (int)pid, name);
    FILE *file = fopen(path, "re");
    if (!file)
        return NULL;
    GString *text = g_string_new(NULL);
    g_autofree char *chunk = g_malloc(SMAPS_CHUNK);
    size_t n;
    while (text->len < bytes_max && (n = fread(chunk, 1, SMAPS_CHUNK, file)) > 0)
        g_string_append_len(text, chunk, (gssize)n);
    fclose(file);
    return g_string_free(text, FALSE);
}

void vz_plan_measure_memory(pid_t qemu_pid, vz_plan_costs *costs)
{
    vz_plan_mapping mapping;
    g_autofree char *smaps = read_proc(qemu_pid, "smaps", SMAPS_BYTES_MAX);
    if (!smaps || !vz_plan_find_mapping(smaps, costs->ram_bytes, &mapping))
        return;
    costs->used_bytes = vz_plan_sample(qemu_pid, &mapping);
    costs->used_from = "is not zero, by a sample of its pages";
    if (costs->used_bytes == 0) {
        costs->used_bytes = mapping.used_bytes;
        costs->used_from = "is resident or swapped out";
    }
    costs->used_bytes = MIN(costs->used_bytes, costs->ram_bytes);
}

/* true: it is known, or never will be. */
static bool fetch_dirty_rate(vz_domain *domain, vz_plan_costs *costs)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    json_t *reply =
        qemu ? vz_qmp_command(vz_qemu_qmp(qemu), "query-dirty-rate", NULL, VZ_QMP_TIMEOUT_US, &err)
             : NULL;
    const char *status = json_string_value(json_object_get(reply, "status"));
    json_int_t mib_s = json_integer_value(json_object_get(reply, "dirty-rate"));
    bool measured = status && strcmp(status, "measured") == 0 && mib_s >= 0;
    bool pending = status && strcmp(status, "measuring") == 0;
    if (measured) {
        costs->has_dirty_rate = true;
        costs->dirty_bytes_s = (uint64_t)mib_s * VZ_MIB;
    }
    json_decref(reply);
    return !pending;
}

void vz_plan_measure_writes(vz_domain *domain, vz_plan_costs *costs)
{
    g_autoptr(GError) ignored = NULL; /* then it is not known */
    int64_t deadline_us = vz_now_us() + SAMPLE_DEADLINE_US;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    uint64_t pages = CLAMP(SAMPLE_PAGES * VZ_GIB / MAX(costs->ram_bytes, VZ_MIB), WRITES_PAGES_MIN,
                           WRITES_PAGES_MAX);
    json_t *args = json_pack("{si sI}", "calc-time", SAMPLE_S, "sample-pages", (json_int_t)pages);
    if (!qemu ||
        !vz_qmp_do(vz_qemu_qmp(qemu), "calc-dirty-rate", args, VZ_QMP_TIMEOUT_US, &ignored))
        return;
    while (vz_now_us() < deadline_us && vz_wait(vz_domain_inbox(domain), NULL, NULL,
                                                vz_now_us() + SAMPLE_POLL_US) != VZ_WAIT_CANCELLED)
        if (fetch_dirty_rate(domain, costs))
            return;
}

void vz_plan_find_rate(const char *peer, uint64_t cap_bytes_s, vz_plan_costs *costs)
{
    g_autofree char *interface = NULL;
    uint64_t speed = 0;
    if (cap_bytes_s) {
        costs->rate_bytes_s = cap_bytes_s;
        costs->rate_from = g_strdup("the bandwidth that is allowed");
    } else if (!peer || !(interface = vz_link_towards(peer))) {
        costs->rate_from = g_strdup("unknown: it cannot be told which interface leads there");
    } else if ((speed = vz_link_speed_bytes_s(interface)) == 0) {
        costs->rate_from = g_strdup_printf("unknown: the kernel knows no speed of '%s'", interface);
    } else {
        costs->rate_bytes_s = speed;
        costs->rate_from =
            g_strdup_printf("the speed of '%s', if nothing else slows it down", interface);
    }
}
