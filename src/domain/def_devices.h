/* def_devices.h - every device of a definition in one list, so that addresses and aliases need not
 * know each kind. For the def_*.c files only. */
#pragma once

#include "domain/def.h"

typedef struct {
    vz_def_info *info;             /* within the definition: not across a change of its arrays */
    vz_def_controller *controller; /* NULL: it is none */
    vz_address_type wants;         /* the one type of address that it can have */
    bool express;                  /* a PCI Express device (on q35) */
    char what[64];                 /* "disk 'vda'", for messages */
} vz_def_device;

/* The list, in the order in which libvirt hands out PCI slots. Array of vz_def_device; the caller
 * unrefs. Only q35 has Express devices. */
GArray *vz_def_devices(vz_def *def);
