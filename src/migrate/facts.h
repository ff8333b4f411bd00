/* facts.h - what the two hosts of a move must know of each other before anything is prepared: the
 * source's travel in Begin's cookie, the destination's stay there.
 *
 * Gathering runs on the domain's actor (it asks the guest's QEMU); the rest is for any thread. */
#pragma once

#include "domain/domain.h"
#include "driver/qemu/caps.h"

/* Of the source and its guest. A source of an earlier version tells nothing: all is unknown. */
typedef struct {
    int64_t time_us;          /* its wall clock, microseconds since 1970; 0: not known */
    unsigned qemu_version;    /* of the guest's QEMU, as vz_qemu_caps_version; 0: not known */
    char *accelerator;        /* "kvm", "tcg"; NULL: not known */
    GHashTable *cpu_features; /* a set: what the guest has; NULL: not known */
} vz_guest_facts;

void vz_guest_facts_clear(vz_guest_facts *facts);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_guest_facts, vz_guest_facts_clear)

/* What cannot be learnt stays unknown, and is logged. Actor thread; live is the running one. */
void vz_guest_facts_gather(vz_domain *domain, const vz_def *live, vz_guest_facts *ret_facts);

json_t *vz_guest_facts_to_json(const vz_guest_facts *facts);
/* Members of the wrong type and beyond their bounds are INVALID_ARG; json NULL: nothing is known.
 */
bool vz_guest_facts_from_json(const json_t *json, vz_guest_facts *ret_facts, GError **err);

/* Of the host that would take the guest. */
typedef struct {
    const char *host_name; /* borrowed */
    int64_t time_us;
    uint64_t memory_available_bytes; /* the kernel's MemAvailable; 0: not known */
    const vz_qemu_caps *caps;        /* of the emulator of the definition; NULL: there is none */
} vz_host_facts;

/* This host's, now. */
uint64_t vz_host_memory_available(void);

/* "10.0.2" of major * 1000000 + minor * 1000 + micro. Caller frees. */
char *vz_qemu_version_text(unsigned version);
