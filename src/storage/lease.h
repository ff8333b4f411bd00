/* lease.h - a file beside each image that says which host runs the guest which writes to it.
 *
 *     DIR/.virtvz-lease-NAME   {version, image, generation, host_uuid, host_name, domain_uuid,
 *                               domain_name, time; while a guest arrives also job, from}
 *
 * A witness, not a lock: it keeps a host that comes back from the dead, and has lost its records,
 * from starting what runs elsewhere. QEMU's own locks of the image, where the file system has them,
 * keep two from writing at once. It only counts for images that one guest alone writes: disks of
 * type file, neither read-only nor shareable, no cdroms.
 *
 * What cannot be read, or is damaged, counts as absent; what cannot be written is done without.
 * Both are said in the log and in the domain's messages.
 *
 * All calls block up to VZ_LEASE_TIMEOUT_US, whatever the number of images, in virtvz-probe; actor
 * thread of the domain, unless said. Without vz_lease_setup none of them does anything. */
#pragma once

#include "domain/def.h"
#include "domain/domain.h"

#include <jansson.h>

/* A path that does not answer for so long counts as unreachable: NFS retries for minutes. */
#define VZ_LEASE_TIMEOUT_US ((int64_t)10 * 1000000)
/* The same while the guest is stopped, and while the daemon starts. */
#define VZ_LEASE_BRIEF_TIMEOUT_US ((int64_t)2 * 1000000)

typedef struct {
    uint8_t uuid[VZ_UUID_BYTES];
    const char *name; /* borrowed */
    bool fencing;     /* a host that does not answer counts as dead */
} vz_lease_host;

/* Who this host is; once, before threads start. */
void vz_lease_setup(const vz_lease_host *host);
/* As it was set up. */
bool vz_lease_fencing(void);

/* Another host that a lease names. */
typedef struct {
    char *image;
    char *file; /* the lease */
    uint8_t host_uuid[VZ_UUID_BYTES];
    char *host_name;
    char *domain_name; /* of the guest there */
    char *since;       /* ISO 8601, by that host's clock */
} vz_lease_holder;

void vz_lease_holder_free(vz_lease_holder *holder);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_lease_holder, vz_lease_holder_free)

/* The first image's of which another host has the lease; NULL: nobody. Caller frees. */
vz_lease_holder *vz_lease_find_holder(vz_domain *domain, const vz_def *def);

/* OPERATION_INVALID naming image, host, since when, and what would help. */
bool vz_lease_refuse(vz_domain *domain, const vz_lease_holder *holder, GError **err);

/* Gives this host the leases of a guest that is about to run here. false, as vz_lease_refuse:
 * another host has one, or was quicker; with `seize` it is taken from it, and that is logged. */
bool vz_lease_take(vz_domain *domain, const vz_def *def, bool seize, GError **err);

/* For an operator who says that the guest runs nowhere else: takes all leases from whoever has
 * them, and logs that. OPERATION_FAILED where one cannot be written. */
bool vz_lease_seize(vz_domain *domain, const vz_def *def, GError **err);

/* The guest has ended here: removes what names this host for this domain. */
void vz_lease_release(vz_domain *domain, const vz_def *def);

/* ---- A guest arrives. ---- */

/* The images that have leases, a JSON array of paths; caller decrefs. What follows takes, and what
 * a job notes for its undo after a restart. */
json_t *vz_lease_images(const vz_def *def);

/* Leases that wait to be put in place: written, and the process that does the rest is there, so
 * that while the guest is stopped only a renaming is waited for. NULL is an arrival without leases.
 */
typedef struct vz_lease_arrival vz_lease_arrival;
vz_lease_arrival *vz_lease_arrival_prepare(vz_domain *domain, const json_t *images,
                                           const char *job);
/* Begins to put them in place; does not wait. */
void vz_lease_arrival_begin(vz_lease_arrival *arrival);
/* Waits until they are, at most VZ_LEASE_BRIEF_TIMEOUT_US. */
void vz_lease_arrival_end(vz_lease_arrival *arrival, vz_domain *domain);
/* Whether or not it came to that; nothing is put in place from now on. */
void vz_lease_arrival_free(vz_lease_arrival *arrival);

/* The guest did not come: leases that the job put in place name the host again that they named
 * before, or nobody. Idempotent; any thread; what fails is logged. VZ_LEASE_BRIEF_TIMEOUT_US. */
void vz_lease_give_back(const json_t *images, const char *job);
