/* caps_host.c - see caps_host.h. */
#include "domain/caps_host.h"

#include "base/fd.h"
#include "base/text.h"
#include "base/units.h"

#include <string.h>

#define CPUINFO_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define SYSFS_BYTES_MAX   ((size_t)64 * 1024)

/* A file's first line below root; NULL: not there. */
static char *read_line(const char *root, const char *format, ...) G_GNUC_PRINTF(2, 3);

static char *read_line(const char *root, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *below = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *path = g_strconcat(root, below, NULL);
    g_autoptr(GError) unread = NULL;
    char *text = NULL;
    if (!vz_file_read(path, SYSFS_BYTES_MAX, &text, NULL, &unread))
        return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text;
}

/* Without hardware's word, as for a die on old kernels (-1), it is 0. */
static unsigned topology_id(const char *root, unsigned cpu, const char *what)
{
    g_autofree char *text = read_line(root, "/sys/devices/system/cpu/cpu%u/topology/%s", cpu, what);
    g_autoptr(GError) unread = NULL;
    uint64_t id = 0;
    if (text && !vz_parse_u64(text, what, 0, UINT32_MAX, &id, &unread))
        id = 0;
    return (unsigned)id;
}

static void read_cpu(const char *root, unsigned id, vz_caps_cpu *ret)
{
    ret->id = id;
    ret->socket = topology_id(root, id, "physical_package_id");
    ret->die = topology_id(root, id, "die_id");
    ret->core = topology_id(root, id, "core_id");
    ret->siblings =
        read_line(root, "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", id);
    if (!ret->siblings)
        ret->siblings = g_strdup_printf("%u", id);
}

/* "0-3,8" -> 0 1 2 3 8, at most VZ_CAPS_CPUS_MAX of them. */
static GArray *parse_list(const char *text)
{
    GArray *ids = g_array_new(FALSE, FALSE, sizeof(unsigned));
    g_auto(GStrv) ranges = g_strsplit(text, ",", -1);
    for (char **range = ranges; *range; range++) {
        char *end;
        guint64 first = g_ascii_strtoull(*range, &end, 10);
        guint64 last = *end == '-' ? g_ascii_strtoull(end + 1, NULL, 10) : first;
        if (end == *range)
            continue;
        for (guint64 id = first; id <= last && ids->len < VZ_CAPS_CPUS_MAX; id++) {
            unsigned value = (unsigned)id;
            g_array_append_val(ids, value);
        }
    }
    return ids;
}

static uint64_t cell_ram(const char *root, unsigned cell)
{
    g_autofree char *path =
        g_strdup_printf("%s/sys/devices/system/node/node%u/meminfo", root, cell);
    g_autofree char *text = NULL;
    g_autoptr(GError) unread = NULL;
    if (!vz_file_read(path, SYSFS_BYTES_MAX, &text, NULL, &unread))
        return 0;
    const char *total = strstr(text, "MemTotal:");
    return total ? g_ascii_strtoull(total + strlen("MemTotal:"), NULL, 10) * VZ_KIB : 0;
}

static void add_cell(vz_caps_host *host, const char *root, unsigned id, const char *cpus)
{
    g_autoptr(GArray) ids = parse_list(cpus);
    host->cells = g_renew(vz_caps_cell, host->cells, host->n_cells + 1);
    vz_caps_cell *cell = &host->cells[host->n_cells++];
    cell->id = id;
    cell->ram_bytes = cell_ram(root, id);
    cell->cpus = g_new0(vz_caps_cpu, ids->len);
    cell->n_cpus = ids->len;
    for (guint i = 0; i < ids->len; i++)
        read_cpu(root, g_array_index(ids, unsigned, i), &cell->cpus[i]);
}

static void read_cells(vz_caps_host *host, const char *root)
{
    g_autofree char *online = read_line(root, "/sys/devices/system/node/online");
    g_autoptr(GArray) nodes = parse_list(online ? online : "");
    for (guint i = 0; i < MIN(nodes->len, VZ_CAPS_CELLS_MAX); i++) {
        unsigned id = g_array_index(nodes, unsigned, i);
        g_autofree char *cpus = read_line(root, "/sys/devices/system/node/node%u/cpulist", id);
        add_cell(host, root, id, cpus ? cpus : "");
    }
    if (host->n_cells > 0)
        return;
    g_autofree char *cpus = read_line(root, "/sys/devices/system/cpu/online");
    add_cell(host, root, 0, cpus ? cpus : "0");
}

/* Counts one cell's different sockets, dies, cores: guests are told of homogeneous hosts only. */
static void count_topology(vz_caps_host *host)
{
    const vz_caps_cell *cell = &host->cells[0];
    g_autoptr(GHashTable) sockets = g_hash_table_new(NULL, NULL);
    g_autoptr(GHashTable) dies = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) cores = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    for (size_t i = 0; i < cell->n_cpus; i++) {
        const vz_caps_cpu *cpu = &cell->cpus[i];
        g_hash_table_add(sockets, GUINT_TO_POINTER(cpu->socket + 1));
        g_hash_table_add(dies, g_strdup_printf("%u/%u", cpu->socket, cpu->die));
        g_hash_table_add(cores, g_strdup_printf("%u/%u/%u", cpu->socket, cpu->die, cpu->core));
    }
    host->sockets = MAX(1, g_hash_table_size(sockets));
    host->dies = MAX(1, g_hash_table_size(dies) / host->sockets);
    host->cores = MAX(1, g_hash_table_size(cores) / (host->sockets * host->dies));
    unsigned all = host->sockets * host->dies * host->cores;
    host->threads = MAX(1, (unsigned)cell->n_cpus / all);
}

static char *vendor_of(const char *cpuinfo)
{
    static const struct {
        const char *id, *name;
    } vendors[] = {{"GenuineIntel", "Intel"}, {"AuthenticAMD", "AMD"}, {"HygonGenuine", "Hygon"}};
    for (size_t i = 0; i < G_N_ELEMENTS(vendors); i++)
        if (strstr(cpuinfo, vendors[i].id))
            return g_strdup(vendors[i].name);
    return NULL;
}

vz_caps_host *vz_caps_host_read(const char *root, GError **err)
{
    g_autofree char *path = g_strconcat(root, "/proc/cpuinfo", NULL);
    g_autofree char *cpuinfo = NULL;
    if (!vz_file_read(path, CPUINFO_BYTES_MAX, &cpuinfo, NULL, err))
        return NULL;
    vz_caps_host *host = g_new0(vz_caps_host, 1);
    host->vendor = vendor_of(cpuinfo);
    read_cells(host, root);
    count_topology(host);
    return host;
}

void vz_caps_host_free(vz_caps_host *host)
{
    if (!host)
        return;
    for (size_t i = 0; i < host->n_cells; i++) {
        for (size_t c = 0; c < host->cells[i].n_cpus; c++)
            g_free(host->cells[i].cpus[c].siblings);
        g_free(host->cells[i].cpus);
    }
    g_free(host->cells);
    g_free(host->vendor);
    g_free(host);
}
