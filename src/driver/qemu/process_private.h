/* process_private.h - a running QEMU as process.c and command.c see it. */
#pragma once

#include "driver/qemu/log.h"
#include "driver/qemu/process.h"
#include "driver/qemu/user.h"

struct vz_qemu {
    vz_qmp *qmp;
    pid_t pid;
    int pidfd;
    uint64_t start_time;
    int64_t term_timeout_us;
    bool ended; /* proved by the pidfd */
    char *rundir;
    char **taps;   /* names, NULL-terminated */
    char **images; /* the files behind /dev/fdset/0, 1...; NULL after an adoption */
    const vz_qemu_caps *caps;
    char *accel_note;
    vz_qemu_user user;
    vz_qemu_log *log;
    vz_inbox *inbox;
    vz_qemu_hooks hooks;
};

/* What only QEMU knows after its start, put into the definition: ptys, ports; and what can only be
 * said to a running one: passwords, links that are down, the balloon. */
bool vz_qemu_settle(vz_qemu *qemu, vz_def *live, bool incoming, GError **err);
