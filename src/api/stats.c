/* stats.c - what guests use, from snapshots and the kernel. Loop thread: nothing here asks a guest
 * or its QEMU, so what only these know (block counters, memory inside the guest) is left out. */
#include "api/api.h"

#include "base/fd.h"
#include "base/units.h"
#include "domain/def.h"
#include "driver/driver.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SYS_FILE_MAX 4096

enum {
    GROUP_STATE = 1,
    GROUP_CPU = 2,
    GROUP_BALLOON = 4,
    GROUP_VCPU = 8,
    GROUP_INTERFACE = 16,
    GROUP_BLOCK = 32,
};
#define GROUPS                                                                                     \
    (GROUP_STATE | GROUP_CPU | GROUP_BALLOON | GROUP_VCPU | GROUP_INTERFACE | GROUP_BLOCK)

#define FLAG_LIST    0xffffu
#define FLAG_NOWAIT  (1u << 29) /* nothing here waits */
#define FLAG_BACKING (1u << 30)
#define FLAG_ENFORCE (1u << 31)

/* ---- interfaces ---- */

static const char *const counters[] = {"rx_bytes", "rx_packets", "rx_errors", "rx_dropped",
                                       "tx_bytes", "tx_packets", "tx_errors", "tx_dropped"};
enum { N_COUNTERS = G_N_ELEMENTS(counters) };

static int64_t read_counter(const char *device, const char *counter)
{
    g_autofree char *path = g_strdup_printf("/sys/class/net/%s/statistics/%s", device, counter);
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;
    if (!vz_file_read(path, SYS_FILE_MAX, &text, NULL, &err))
        return -1;
    return (int64_t)g_ascii_strtoull(text, NULL, 10);
}

/* As the guest sees it: what its tap sends, it receives. */
static void read_counters(const char *device, int64_t ret[N_COUNTERS])
{
    for (size_t i = 0; i < N_COUNTERS; i++)
        ret[(i + N_COUNTERS / 2) % N_COUNTERS] = read_counter(device, counters[i]);
}

static bool has_interface(const vz_def *live, const char *device)
{
    for (size_t i = 0; i < live->n_interfaces; i++)
        if (g_strcmp0(live->interfaces[i].target, device) == 0)
            return true;
    return false;
}

bool vz_api_domain_interface_stats(vz_call *call, const vz_wire_domain_interface_stats_args *args,
                                   vz_wire_domain_interface_stats_ret *ret, GError **err)
{
    (void)call;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s || !vz_snapshot_check_active(s, err))
        return false;
    if (!has_interface(s->live, args->device))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is not a known interface", args->device);
    int64_t n[N_COUNTERS];
    read_counters(args->device, n);
    *ret = (vz_wire_domain_interface_stats_ret){n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
    return true;
}

/* ---- memory ---- */

/* Resident memory of the guest's process, KiB; 0 unknown. */
static uint64_t rss_kib(pid_t pid)
{
    char path[64];
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;
    unsigned long long pages;
    snprintf(path, sizeof(path), "/proc/%d/statm", (int)pid);
    if (!vz_file_read(path, SYS_FILE_MAX, &text, NULL, &err) ||
        sscanf(text, "%*u %llu", &pages) != 1)
        return 0;
    return pages * (uint64_t)sysconf(_SC_PAGESIZE) / VZ_KIB;
}

bool vz_api_domain_memory_stats(vz_call *call, const vz_wire_domain_memory_stats_args *args,
                                vz_wire_domain_memory_stats_ret *ret, GError **err)
{
    enum { ACTUAL_BALLOON = 6, RSS = 7, N_STATS = 2 };
    if (!vz_api_check_flags(args->flags, 0, "virDomainMemoryStats", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_api_find_snapshot(&args->dom, err);
    if (!s || !vz_snapshot_check_active(s, err))
        return false;
    vz_wire_domain_memory_stat *items = vz_call_alloc(call, N_STATS * sizeof(*items));
    items[0] = (vz_wire_domain_memory_stat){ACTUAL_BALLOON, s->live->current_ram_bytes / VZ_KIB};
    items[1] = (vz_wire_domain_memory_stat){RSS, rss_kib(s->pid)};
    ret->stats.items = items;
    ret->stats.count = MIN(args->max_stats, N_STATS);
    return true;
}

/* ---- all at once ---- */

/* Parameters on their way into a call's arena. */
typedef struct {
    vz_call *call;
    GArray *params;
} collector;

G_GNUC_PRINTF(3, 4)
static void add(collector *c, vz_tparam param, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *field = g_strdup_vprintf(format, args);
    va_end(args);
    param.field = vz_call_strdup(c->call, field);
    g_array_append_val(c->params, param);
}

static vz_tparam of_int(int32_t i)
{
    return (vz_tparam){.type = VZ_TPARAM_INT, .value.i = i};
}

static vz_tparam of_uint(uint32_t u)
{
    return (vz_tparam){.type = VZ_TPARAM_UINT, .value.u = u};
}

static vz_tparam of_ullong(uint64_t ul)
{
    return (vz_tparam){.type = VZ_TPARAM_ULLONG, .value.ul = ul};
}

static vz_tparam of_text(collector *c, const char *text)
{
    return (vz_tparam){.type = VZ_TPARAM_STRING, .value.s = vz_call_strdup(c->call, text)};
}

typedef struct {
    vz_domain *domain;
    const vz_snapshot *s;
    const vz_def *def;
} subject;

static void add_state(collector *c, const subject *of)
{
    add(c, of_int((int32_t)of->s->state), "state.state");
    add(c, of_int(of->s->reason), "state.reason");
}

static void add_cpu(collector *c, const subject *of)
{
    if (of->s->pid)
        add(c, of_ullong(vz_domain_driver(of->domain)->cpu_time_ns(of->s->pid)), "cpu.time");
}

static void add_balloon(collector *c, const subject *of)
{
    add(c, of_ullong(of->def->current_ram_bytes / VZ_KIB), "balloon.current");
    add(c, of_ullong(of->def->ram_bytes / VZ_KIB), "balloon.maximum");
    if (of->s->pid)
        add(c, of_ullong(rss_kib(of->s->pid)), "balloon.rss");
}

static void add_vcpu(collector *c, const subject *of)
{
    enum { VCPU_RUNNING = 1 };
    add(c, of_uint(of->def->vcpus), "vcpu.current");
    add(c, of_uint(of->def->vcpus_max), "vcpu.maximum");
    for (uint32_t i = 0; of->s->live && i < of->def->vcpus; i++)
        add(c, of_int(VCPU_RUNNING), "vcpu.%u.state", i);
}

static void add_interfaces(collector *c, const subject *of)
{
    static const char *const names[N_COUNTERS] = {"rx.bytes", "rx.pkts", "rx.errs", "rx.drop",
                                                  "tx.bytes", "tx.pkts", "tx.errs", "tx.drop"};
    if (!of->s->live)
        return;
    add(c, of_uint((uint32_t)of->def->n_interfaces), "net.count");
    for (size_t i = 0; i < of->def->n_interfaces; i++) {
        const char *device = of->def->interfaces[i].target;
        int64_t values[N_COUNTERS];
        if (!device)
            continue;
        add(c, of_text(c, device), "net.%zu.name", i);
        read_counters(device, values);
        for (size_t k = 0; k < N_COUNTERS; k++)
            if (values[k] >= 0)
                add(c, of_ullong((uint64_t)values[k]), "net.%zu.%s", i, names[k]);
    }
}

static void add_blocks(collector *c, const subject *of)
{
    add(c, of_uint((uint32_t)of->def->n_disks), "block.count");
    for (size_t i = 0; i < of->def->n_disks; i++) {
        const vz_def_disk *disk = &of->def->disks[i];
        add(c, of_text(c, disk->target), "block.%zu.name", i);
        if (disk->path)
            add(c, of_text(c, disk->path), "block.%zu.path", i);
    }
}

static const struct {
    uint32_t group;
    void (*add)(collector *c, const subject *of);
} groups[] = {
    {GROUP_STATE, add_state},          {GROUP_CPU, add_cpu},
    {GROUP_BALLOON, add_balloon},      {GROUP_VCPU, add_vcpu},
    {GROUP_INTERFACE, add_interfaces}, {GROUP_BLOCK, add_blocks},
};

/* false: not a domain (any more). */
static bool record(vz_call *call, vz_domain *domain, uint32_t wanted, uint32_t list_flags,
                   vz_wire_domain_stats_record *ret)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    const subject of = {domain, s, s->live ? s->live : s->config};
    if (!of.def || !vz_snapshot_matches(s, list_flags))
        return false;
    g_autoptr(GArray) params = g_array_new(FALSE, TRUE, sizeof(vz_tparam));
    collector c = {call, params};
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++)
        if (wanted & groups[i].group)
            groups[i].add(&c, &of);
    size_t bytes = params->len * sizeof(vz_tparam);
    vz_tparam *items = vz_call_alloc(call, MAX(1, bytes));
    if (bytes)
        memcpy(items, params->data, bytes);
    ret->dom = vz_api_domain(call, domain);
    ret->params.items = items;
    ret->params.count = params->len;
    return true;
}

/* The domains that were named, or all. NULL: one of them does not exist. */
static GPtrArray *chosen(const vz_wire_connect_get_all_domain_stats_args *args, GError **err)
{
    if (args->doms.count == 0)
        return vz_table_list(vz_this_host.table);
    g_autoptr(GPtrArray) some = g_ptr_array_new_with_free_func((GDestroyNotify)vz_domain_unref);
    for (uint32_t i = 0; i < args->doms.count; i++) {
        vz_domain *domain = vz_api_find(&args->doms.items[i], err);
        if (!domain)
            return NULL;
        g_ptr_array_add(some, domain);
    }
    return g_steal_pointer(&some);
}

bool vz_api_connect_get_all_domain_stats(vz_call *call,
                                         const vz_wire_connect_get_all_domain_stats_args *args,
                                         vz_wire_connect_get_all_domain_stats_ret *ret,
                                         GError **err)
{
    if (!vz_api_check_flags(args->flags, FLAG_LIST | FLAG_NOWAIT | FLAG_BACKING | FLAG_ENFORCE,
                            "virConnectGetAllDomainStats", err))
        return false;
    if ((args->flags & FLAG_ENFORCE) && (args->stats & ~(uint32_t)GROUPS))
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                       "Stats types bits 0x%x are not supported by this daemon or hypervisor",
                       args->stats & ~(uint32_t)GROUPS);
    g_autoptr(GPtrArray) domains = chosen(args, err);
    if (!domains)
        return false;
    uint32_t wanted = args->stats ? args->stats : GROUPS;
    vz_wire_domain_stats_record *items = vz_call_alloc(call, MAX(1, domains->len) * sizeof(*items));
    uint32_t n = 0;
    for (guint i = 0; i < domains->len && n < VZ_WIRE_MAX_DOMAINS; i++)
        n += record(call, domains->pdata[i], wanted, args->flags & FLAG_LIST, &items[n]);
    ret->records.items = items;
    ret->records.count = n;
    return true;
}
