/* argv.h - a definition as QEMU's command line. Pure: touches no file and starts nothing, so that
 * the golden tests can compare it byte for byte.
 *
 * Everything that the migration stream names is fixed by the definition alone: ids are the devices'
 * aliases, every address is explicit, the machine is versioned, RAM is "pc.ram". So the same
 * definition gives a QEMU that can receive from any other started from it; what differs between
 * hosts (descriptor numbers, the accelerator) is in vz_qemu_resources and not in the stream. */
#pragma once

#include "driver/qemu/caps.h"

/* One image of a disk's chain, from the top (index 0) downwards. */
typedef struct {
    unsigned fdset;     /* opened as /dev/fdset/NUMBER */
    const char *format; /* "raw", "qcow2" */
    bool block_device;  /* host_device instead of file */
    bool read_only;     /* all but the top of a writable disk */
} vz_qemu_layer;

typedef struct {
    const vz_qemu_layer *layers; /* NULL: an empty drive */
    size_t n_layers;
} vz_qemu_disk_images;

typedef struct {
    int fd;       /* number in QEMU; -1: no tap (user networking) */
    int vhost_fd; /* -1: none */
} vz_qemu_tap;

/* What the process opened for QEMU; numbers are those that QEMU sees. */
typedef struct {
    vz_accel accel;
    bool incoming;                    /* -incoming defer */
    int monitor_fd;                   /* listening unix socket */
    const vz_qemu_disk_images *disks; /* one per disk of the definition, same order */
    const vz_qemu_tap *taps;          /* one per interface, same order */
    const int *char_fds;              /* one per character device: a listening socket or log file
                                         where the kind needs one, else -1 */
    const char *kernel;               /* readable by QEMU's user; NULL none */
    const char *initrd;
    const char *rundir;
} vz_qemu_resources;

/* *ret_argv: NULL-terminated strings, the emulator first; caller g_strfreev()s.
 * CONFIG_UNSUPPORTED names what this QEMU or this version of virtvz has no device for. */
bool vz_qemu_argv(const vz_def *live, const vz_qemu_caps *caps, const vz_qemu_resources *resources,
                  char ***ret_argv, GError **err);
