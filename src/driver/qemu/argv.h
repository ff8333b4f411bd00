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
    vz_qemu_layer *layers; /* NULL: an empty drive */
    size_t n_layers;
} vz_qemu_disk_images;

/* A descriptor that joins a set at QEMU's start (-add-fd). */
typedef struct {
    unsigned set;
    int fd;
} vz_qemu_fdset;

/* What the process opened for QEMU, under the numbers that QEMU sees. The arrays run parallel to
 * those of the definition. */
typedef struct {
    vz_accel accel;
    bool incoming;  /* -incoming defer */
    int monitor_fd; /* listening unix socket */
    const vz_qemu_fdset *fdsets;
    size_t n_fdsets;
    const vz_qemu_disk_images *disks; /* per disk */
    const int *tap_fds;               /* per interface; -1: user networking */
    /* Per character device: of type unix a socket (listening for mode bind, connected for mode
     * connect), of type file the number of an fdset, else -1. */
    const int *serial_fds;
    const int *console_fds;
    const int *channel_fds;
    const char *kernel; /* paths that QEMU's user can open; NULL: none */
    const char *initrd;
    const char *vnc_address; /* where the definition names none */
} vz_qemu_resources;

/* The node of a disk's top image, for block jobs and exports; NULL-terminated, caller frees. */
char *vz_qemu_node_name(const vz_def_disk *disk);
/* The node below it. */
char *vz_qemu_storage_name(const vz_def_disk *disk);

/* *ret_argv: NULL-terminated strings, the emulator first; caller g_strfreev()s.
 * CONFIG_UNSUPPORTED names what this QEMU or this version of virtvz has no device for. */
bool vz_qemu_argv(const vz_def *live, const vz_qemu_caps *caps, const vz_qemu_resources *resources,
                  char ***ret_argv, GError **err);
