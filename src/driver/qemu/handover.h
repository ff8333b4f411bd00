/* handover.h - opening all that a QEMU gets from the daemon: images, taps, sockets, log files,
 * kernel. QEMU's user need not be able to open any of them. For process.c only. */
#pragma once

#include "driver/qemu/argv.h"
#include "driver/qemu/process.h"
#include "driver/qemu/user.h"

typedef struct vz_handover vz_handover;

typedef struct {
    const vz_qemu_host *host;
    const vz_qemu_user *user;
    const char *rundir;
    vz_accel accel;
    bool incoming;
} vz_handover_request;

/* Opens everything that the definition names, and writes tap names and socket paths into it. The
 * monitor's socket is listening in the run directory. Nothing is left on failure but files in the
 * run directory. */
vz_handover *vz_handover_open(const vz_handover_request *request, vz_def *live, GError **err);

/* Closes the daemon's copies: once QEMU runs, or when it will not. Taps that nobody else holds go
 * away with them. */
void vz_handover_free(vz_handover *handover);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_handover, vz_handover_free)

const vz_qemu_resources *vz_handover_resources(const vz_handover *handover);
/* What becomes 3, 4, 5... in QEMU. */
const int *vz_handover_fds(const vz_handover *handover, size_t *ret_n);
/* The files behind /dev/fdset/0, 1, 2...; NULL-terminated, caller g_strfreev()s. */
char **vz_handover_paths(const vz_handover *handover);
/* The daemon's end of the monitor: connected before QEMU exists, so that it need not be waited
 * for. Taken once. */
int vz_handover_take_monitor(vz_handover *handover);

/* RUNDIR/monitor.sock; caller frees. */
char *vz_handover_monitor_path(const char *rundir);
/* Removes what only QEMU's start needed (copies of kernel and initrd). */
void vz_handover_started(const char *rundir);
