/* def_fill.h - what happens to a definition between its XML and its use: defaults, addresses,
 * checks. For the def_*.c files only; each step expects those above it to have run. */
#pragma once

#include "domain/def.h"

/* Puts in what libvirt puts in where the document says nothing, except controllers, addresses. */
bool vz_def_fill_defaults(vz_def *def, const vz_def_host *host, GError **err);
/* Indexes and models of the written controllers, and those that every such machine has. */
bool vz_def_fill_root_controllers(vz_def *def, GError **err);
/* What no single row can say: which things go together. */
bool vz_def_check(const vz_def *def, GError **err);
bool vz_def_check_devices(const vz_def *def, GError **err); /* part of the above */
/* Disks behind a controller: where the target's name puts them. */
bool vz_def_fill_drive_addresses(vz_def *def, GError **err);
/* The controllers that devices need. */
void vz_def_fill_device_controllers(vz_def *def);
/* USB ports and virtio-serial ports; checks that every device has an address of its kind. */
bool vz_def_fill_addresses(vz_def *def, GError **err);
/* PCI slots, and the bridges and root ports that they need. */
bool vz_def_fill_pci_addresses(vz_def *def, GError **err);

/* Clears what belongs to one run: LIVE rows, and what the daemon filled in. */
void vz_def_strip_live(vz_def *def);

bool vz_def_is_q35(const vz_def *def);
bool vz_def_is_i440fx(const vz_def *def);

/* "sda" is 0, "sdz" 25, "sdaa" 26; -1: not such a name. */
int vz_def_disk_index(const char *target);

/* A new zeroed controller at its sorted place. */
vz_def_controller *vz_def_controller_add(vz_def *def, vz_controller_type type, uint32_t index,
                                         vz_controller_model model);
