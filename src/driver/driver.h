/* driver.h - the one vtable between domains and what runs them, and the lifecycle above it.
 *
 * Everything here runs on the domain's actor thread and may block, with deadlines, through vz_wait
 * or vz_poll_one. A driver reports what its guest does by calling vz_life_*. */
#pragma once

#include "domain/domain.h"

typedef struct {
    const vz_def *def; /* to run: inactive, complete; borrowed */
    bool incoming;     /* waits for a migration stream; stays paused */
} vz_driver_start;

typedef enum {
    VZ_ALIVE_RUNNING,
    VZ_ALIVE_PAUSED,
    VZ_ALIVE_SHUTDOWN,
    VZ_ALIVE_CRASHED,
    VZ_ALIVE_PMSUSPENDED,
    VZ_ALIVE_INCOMING,    /* an arriving guest that has not arrived */
    VZ_ALIVE_POSTMIGRATE, /* has let its state go: must not run again by itself */
} vz_alive;

/* How an adopted guest is known. */
typedef struct {
    const vz_def *live;
    pid_t pid;
    uint64_t start_time;
} vz_driver_adopt;

struct vz_driver {
    const char *name;
    /* Starts the guest paused (vCPUs stopped). *ret_live: what runs, with ids, ptys and ports. On
     * failure nothing is left, and the error ends with the guest program's last words. */
    bool (*start)(vz_domain *domain, const vz_driver_start *request, vz_def **ret_live,
                  GError **err);
    /* Takes a guest back that an earlier daemon started. NO_DOMAIN: it is gone, and what it left
     * was tidied up. Other errors: it lives but cannot be reached. */
    bool (*adopt)(vz_domain *domain, const vz_driver_adopt *request, vz_alive *ret_alive,
                  GError **err);
    /* Ends the guest's process, proves it dead, and frees driver_data. graceful: its program gets
     * seconds to tidy up. false: it could not be proved dead; may be asked again. */
    bool (*kill)(vz_domain *domain, bool graceful, GError **err);
    /* Lets go of a guest that lives on (the daemon ends). */
    void (*release)(vz_domain *domain);
    bool (*suspend)(vz_domain *domain, GError **err);
    bool (*resume)(vz_domain *domain, GError **err);
    bool (*shutdown)(vz_domain *domain, GError **err); /* asks the guest (ACPI) */
    bool (*reboot)(vz_domain *domain, GError **err);   /* as shutdown, then starts again */
    bool (*reset)(vz_domain *domain, GError **err);
    /* CPU time used by the guest so far, ns. Any thread; 0 when unknown. */
    uint64_t (*cpu_time_ns)(pid_t pid);
    pid_t (*pid)(vz_domain *domain);
    /* The last lines that the guest's program wrote; NULL or "" for none. Caller frees. */
    char *(*last_words)(vz_domain *domain);
};
