/* caps_host.h - the host's processors and their NUMA cells, as the kernel tells them in /proc and
 * /sys. For the capabilities document; called on the host actor. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define VZ_CAPS_CPUS_MAX  8192
#define VZ_CAPS_CELLS_MAX 1024

typedef struct {
    unsigned id, socket, die, core;
    char *siblings; /* "0-1": the threads of its core */
} vz_caps_cpu;

typedef struct {
    unsigned id;
    uint64_t ram_bytes;
    vz_caps_cpu *cpus;
    size_t n_cpus;
} vz_caps_cell;

typedef struct {
    char *vendor; /* "Intel", "AMD", as libvirt calls them; NULL unknown */
    unsigned sockets, dies, cores, threads; /* of one cell, socket, die, core; all >= 1 */
    vz_caps_cell *cells;
    size_t n_cells; /* >= 1 */
} vz_caps_host;

/* Reads below `root` ("" on a host, a directory in tests). SYSTEM_ERROR without /proc/cpuinfo;
 * what else is missing is taken as one of each. Caller frees. */
vz_caps_host *vz_caps_host_read(const char *root, GError **err);
void vz_caps_host_free(vz_caps_host *host);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_caps_host, vz_caps_host_free)
