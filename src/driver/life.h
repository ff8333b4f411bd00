/* life.h - the lifecycle of a domain: libvirt's rules about what may follow what, with the state,
 * the files and the events in libvirt's order. Above the driver's vtable, below the procedures.
 *
 * All on the domain's actor thread. Errors are libvirt's codes and words. None of these looks at
 * the job guard, unless said: the dispatcher and the job itself do. */
#pragma once

#include "driver/driver.h"

typedef struct {
    const vz_def *def; /* NULL: the domain's config */
    bool paused;       /* leave it paused (reason user) */
    bool incoming;     /* wait for a migration; stays paused (reason migration), STARTED/MIGRATED */
    bool autodestroy;
    bool automatic; /* nobody asked for it just now, so no host was fenced for it */
} vz_life_start_request;

/* Makes an inactive domain run: id, live definition, status file, events RESUMED and STARTED (or
 * STARTED and SUSPENDED when paused). "domain is already running" (55). Marks are obeyed (55,
 * saying where the guest went), and leases (storage/lease.h) of other hosts, unless fencing is on;
 * except by an incoming start. */
bool vz_life_start(vz_domain *domain, const vz_life_start_request *request, GError **err);

/* Ends the guest (kills it if it lives, and proves it dead), releases its leases, makes the domain
 * inactive (state shutoff with the reason, event STOPPED with the detail), forgets its status, and
 * removes a transient domain. An inactive domain is success. false: the process could not be proved
 * dead; the domain stays active. */
bool vz_life_end(vz_domain *domain, vz_shutoff_reason reason, int stopped_detail, GError **err);

/* The operations of users. suspend and resume ask the job's ops first. suspend of a paused domain
 * is success and does nothing; resume of a running one is "domain is already running" (55); one
 * that a migration has paused, with no job left that knows what became of it, is refused too. */
bool vz_life_suspend(vz_domain *domain, GError **err);
bool vz_life_resume(vz_domain *domain, GError **err);
bool vz_life_shutdown(vz_domain *domain, GError **err);
bool vz_life_reboot(vz_domain *domain, GError **err);
bool vz_life_reset(vz_domain *domain, GError **err);
/* What destroy does first while a job holds the domain: asks the job's ops, which begin the abort
 * or refuse. Then the caller posts the destroy itself as VZ_TASK_NORMAL, behind the job's task. */
bool vz_life_destroy_during_job(vz_domain *domain, GError **err);
/* Kills the guest, state shutoff/destroyed. Refused (55) while a job holds the domain. */
bool vz_life_destroy(vz_domain *domain, bool graceful, GError **err);

/* Makes take_config the domain's persistent definition: durable first, then visible, event DEFINED
 * (ADDED or UPDATED). A running transient domain becomes persistent. */
bool vz_life_define(vz_domain *domain, vz_def *take_config, GError **err);
/* Forgets the persistent definition; a running domain becomes transient. Event UNDEFINED.
 * "cannot undefine transient domain" (55). */
bool vz_life_undefine(vz_domain *domain, GError **err);

bool vz_life_set_autostart(vz_domain *domain, bool autostart, GError **err);

/* Changes the state, rewrites the status file (a failure is logged: the guest matters more), and
 * emits the event. What the driver and the migration steps use for everything that happens to a
 * live guest. */
void vz_life_changed(vz_domain *domain, vz_state state, int reason, vz_event event, int detail);
/* The same without an event. */
void vz_life_state(vz_domain *domain, vz_state state, int reason);

/* Asked, on the actor thread, before a start of a domain that has marks (domain/store.h): true lets
 * it start (*ret_given: another host has given the guest up for this); false with the reason. Set
 * once, before threads; without one, marks refuse. */
typedef bool (*vz_life_start_check)(vz_domain *domain, bool automatic, bool *ret_given, void *user,
                                    GError **err);
void vz_life_set_start_check(vz_life_start_check check, void *user);

/* Notes, also on disk, whether the guest's next shutdown is the first half of a reboot. */
void vz_life_expect_reboot(vz_domain *domain, bool reboot);

/* At the daemon's start: takes back a guest that a status file names. One that has died leaves the
 * domain shut off (crashed, as QEMU does not end by itself), with a message that says how it ended;
 * one that lives but does not answer stays active, with a message, and can only be destroyed. Takes
 * live. */
typedef struct {
    vz_def *take_live;
    int id;
    vz_state state;
    int reason;
    bool autodestroy;
    bool reboot;
    pid_t pid;
    uint64_t start_time;
} vz_life_adopt_request;
void vz_life_adopt(vz_domain *domain, const vz_life_adopt_request *request);

/* ---- What drivers report. ---- */

/* The guest has shut itself down (vz_event details of SHUTDOWN); its process is about to end. */
void vz_life_guest_shutdown(vz_domain *domain, int shutdown_detail);
/* Its process has ended, proved. The job's `died` is asked first. */
void vz_life_guest_ended(vz_domain *domain);
/* Its CPUs were stopped or started by something else than vz_life. */
void vz_life_guest_stopped(vz_domain *domain, vz_paused_reason reason, int suspended_detail);
void vz_life_guest_resumed(vz_domain *domain);
