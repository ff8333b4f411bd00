/* link.h - network interfaces of the host by rtnetlink: taps for guests, and the bridge they join.
 *
 * All calls act in the network namespace of the calling thread, are short, and may run on any
 * thread. Texts of errors are libvirt's where clients match them. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define VZ_MAC_BYTES 6

/* SYSTEM_ERROR "Cannot get interface MTU on 'brA': No such device". */
bool vz_link_mtu(const char *name, unsigned *ret_mtu, GError **err);
bool vz_link_exists(const char *name);
/* SYSTEM_ERROR as vz_link_mtu where there is none; CONFIG_UNSUPPORTED "'eth0' is not a bridge". */
bool vz_link_check_bridge(const char *name, GError **err);

typedef struct {
    const char *name;         /* NULL: vnetN, the first free N */
    const char *bridge;       /* NULL: joins none */
    const uint8_t *guest_mac; /* VZ_MAC_BYTES: the tap's is the same with fe first, so
                                 that the bridge never takes it for its own */
    unsigned mtu;             /* 0: the bridge's */
    bool existing;            /* it must be there already, and outlives QEMU */
} vz_link_tap_request;

/* Makes (or opens) a tap of one queue with virtio headers, joins it to the bridge, sets it up. The
 * descriptor is close-on-exec; a tap that was made here goes away with its last descriptor. On
 * failure nothing is left. */
bool vz_link_tap_open(const vz_link_tap_request *request, char **ret_name, int *ret_fd,
                      GError **err);

/* Removes an interface. One that is not there is success. */
bool vz_link_remove(const char *name, GError **err);
bool vz_link_set_up(const char *name, bool up, GError **err);

/* The interface by which packets to a numeric address leave; NULL: it cannot be told. Caller frees.
 */
char *vz_link_towards(const char *address);
/* What its network card runs at; 0: the kernel does not know, or there is no card: the figure that
 * virtual interfaces show is made up. */
uint64_t vz_link_speed_bytes_s(const char *name);
