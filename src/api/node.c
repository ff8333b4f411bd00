/* node.c - the host's processors and memory, as the kernel tells them. Host actor, and the loop for
 * what is read from memory alone. */
#include "api/api.h"

#include "base/fd.h"
#include "base/units.h"

#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PROC_FILE_MAX ((size_t)4 * 1024 * 1024)

/* How many different "key : value" pairs of physical id and core id /proc/cpuinfo has; one where it
 * says nothing (virtual machines, other architectures). */
typedef struct {
    unsigned sockets;
    unsigned cores; /* per socket */
    unsigned mhz;
} topology;

static void count_cpuinfo(char **lines, topology *ret)
{
    g_autoptr(GHashTable) sockets = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autoptr(GHashTable) cores = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    g_autofree char *socket = g_strdup("0");
    for (char **line = lines; *line; line++) {
        const char *colon = strchr(*line, ':');
        if (!colon)
            continue;
        const char *value = colon[1] ? colon + 2 : colon + 1;
        if (g_str_has_prefix(*line, "physical id")) {
            g_free(socket);
            socket = g_strdup(value);
            g_hash_table_add(sockets, g_strdup(value));
        } else if (g_str_has_prefix(*line, "core id")) {
            g_hash_table_add(cores, g_strconcat(socket, "/", value, NULL));
        } else if (g_str_has_prefix(*line, "cpu MHz") && ret->mhz == 0) {
            ret->mhz = (unsigned)g_ascii_strtod(value, NULL);
        }
    }
    ret->sockets = MAX(1, g_hash_table_size(sockets));
    ret->cores = MAX(1, g_hash_table_size(cores) / ret->sockets);
}

bool vz_api_node_get_info(vz_call *call, vz_wire_node_get_info_ret *ret, GError **err)
{
    (void)call;
    g_autofree char *text = NULL;
    struct utsname name;
    struct sysinfo memory;
    topology t = {.sockets = 1};
    if (!vz_file_read("/proc/cpuinfo", PROC_FILE_MAX, &text, NULL, err))
        return false;
    g_auto(GStrv) lines = g_strsplit(text, "\n", 0);
    count_cpuinfo(lines, &t);
    if (uname(&name) < 0 || sysinfo(&memory) < 0)
        return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "cannot ask the kernel about this host");
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    g_strlcpy(ret->model, name.machine, sizeof(ret->model));
    ret->memory = (uint64_t)memory.totalram * memory.mem_unit / VZ_KIB;
    ret->cpus = (int32_t)MAX(1, cpus);
    ret->mhz = (int32_t)t.mhz;
    ret->nodes = 1;
    ret->sockets = (int32_t)t.sockets;
    ret->cores = (int32_t)t.cores;
    /* Clients compute nodes * sockets * cores * threads and expect at least `cpus`. */
    int32_t physical = ret->sockets * ret->cores;
    ret->threads = MAX(1, (ret->cpus + physical - 1) / physical);
    return true;
}

bool vz_api_node_get_security_model(vz_call *call, vz_wire_node_get_security_model_ret *ret,
                                    GError **err)
{
    (void)call;
    (void)ret; /* both lists empty: no security model confines guests here */
    (void)err;
    return true;
}

/* ---- memory ---- */

/* KiB of a line of /proc/meminfo; 0 where there is none. */
static uint64_t meminfo(const char *text, const char *key)
{
    g_autofree char *start = g_strconcat("\n", key, ":", NULL);
    const char *line = strstr(text, start);
    return line ? g_ascii_strtoull(line + strlen(start), NULL, 10) : 0;
}

static bool read_meminfo(char **ret_text, GError **err)
{
    g_autofree char *text = NULL;
    if (!vz_file_read("/proc/meminfo", PROC_FILE_MAX, &text, NULL, err))
        return false;
    *ret_text = g_strconcat("\n", text, NULL);
    return true;
}

bool vz_api_node_get_free_memory(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    g_autofree char *text = NULL;
    if (!read_meminfo(&text, err))
        return false;
    ret->value = meminfo(text, "MemFree") * VZ_KIB;
    return true;
}

bool vz_api_node_get_memory_stats(vz_call *call, const vz_wire_node_get_memory_stats_args *args,
                                  vz_wire_node_get_memory_stats_ret *ret, GError **err)
{
    enum { ALL_CELLS = -1 };
    static const struct {
        const char *field, *key;
    } rows[] = {
        {"total", "MemTotal"}, {"free", "MemFree"}, {"buffers", "Buffers"}, {"cached", "Cached"}};
    g_autofree char *text = NULL;
    if (!vz_api_check_flags(args->flags, 0, "virNodeGetMemoryStats", err) ||
        !read_meminfo(&text, err))
        return false;
    if (args->cell != ALL_CELLS && args->cell != 0)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "cellNum in node get memory stats must be %d or 0",
                       ALL_CELLS);
    ret->n_params = G_N_ELEMENTS(rows);
    if (args->n_params == 0)
        return true;
    vz_wire_node_memory_stat *items = vz_call_alloc(call, sizeof(*items) * G_N_ELEMENTS(rows));
    uint32_t n = (uint32_t)CLAMP(args->n_params, 0, (int32_t)G_N_ELEMENTS(rows));
    for (uint32_t i = 0; i < n; i++)
        items[i] = (vz_wire_node_memory_stat){rows[i].field, meminfo(text, rows[i].key)};
    ret->params.items = items;
    ret->params.count = n;
    return true;
}
