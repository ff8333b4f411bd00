/* process.h - one running QEMU of one domain: start, adopt after a restart of the daemon, kill.
 *
 *     definition ─► images, taps, sockets opened ─► argv ─► QEMU as an unprivileged user
 *                                                              │ -S: never runs before vz_qemu_cont
 *                   live definition ◄── ptys, ports ◄── QMP ◄──┘
 *
 * QEMU has a session of its own and survives the daemon; its monitor is a listening socket in its
 * run directory, so the next daemon connects again. All calls on the domain's actor thread; they
 * block with deadlines, and hooks are called on it from within its waits. */
#pragma once

#include "base/wait.h"
#include "driver/qemu/caps.h"
#include "driver/qemu/qmp.h"

#include <sys/types.h>

typedef struct vz_qemu vz_qemu;

/* Where things are on this host; one for the program, outlives every vz_qemu. */
typedef struct {
    const char *run_dir;      /* "/run/virtvz/qemu": RUN_DIR/UUID per domain */
    const char *log_dir;      /* "/var/log/virtvz/qemu": LOG_DIR/NAME.log */
    const char *user;         /* QEMU's; "" or "root": no change of user */
    const char *vnc_address;  /* where a definition names none: "127.0.0.1" */
    int64_t image_timeout_us; /* for each image to be opened */
    int64_t start_timeout_us; /* from the start of the process to its greeting */
    int64_t term_timeout_us;  /* after SIGTERM: QEMU flushes its images, seconds on a slow disk */
} vz_qemu_host;

/* The built-in values: VZ_RUNDIR "/qemu", VZ_QEMU_USER... */
extern const vz_qemu_host vz_qemu_host_default;

typedef struct {
    /* As in qmp.h: may send commands, must not wait. Every event of QEMU, in order. */
    void (*on_event)(vz_qemu *qemu, const vz_qmp_event *event, void *user);
    /* Once: the process has ended (all its events were delivered before). The owner calls
     * vz_qemu_kill next, here or later, to tidy up. Not called for an end by vz_qemu_kill. */
    void (*on_exit)(vz_qemu *qemu, void *user);
    void *user;
} vz_qemu_hooks;

typedef struct {
    const vz_qemu_host *host;
    const vz_def *def; /* complete, versioned, with addresses; its id is used as it is */
    bool incoming;     /* wait for a migration (-incoming defer); images may be in use elsewhere */
    vz_inbox *inbox;
    vz_qemu_hooks hooks;
} vz_qemu_start_request;

/* Starts QEMU with its CPUs stopped, also when not incoming. On success *ret_live is a copy of the
 * definition with aliases, pty paths, tap names, socket paths and ports filled in; caller owns it.
 * On failure nothing is left: no process, tap or run directory; the error holds QEMU's last words
 * where it died:
 *   INTERNAL_ERROR "QEMU ended before it could be reached: <last lines of its log>" */
vz_qemu *vz_qemu_start(const vz_qemu_start_request *request, vz_def **ret_live, GError **err);

typedef struct {
    const vz_qemu_host *host;
    const vz_def *live; /* as saved; borrowed for the call */
    pid_t pid;
    uint64_t start_time; /* vz_qemu_start_time of then, same boot */
    vz_inbox *inbox;
    vz_qemu_hooks hooks;
} vz_qemu_adopt_request;

/* Finds a QEMU again that an earlier daemon started. NO_DOMAIN, with its last words: that process
 * is gone (another may have its number); *ret_ended (may be NULL) is then true and what it left was
 * tidied up. Other errors: it lives but cannot be reached; nothing was changed. */
vz_qemu *vz_qemu_adopt(const vz_qemu_adopt_request *request, bool *ret_ended, GError **err);

/* Ends QEMU and waits until its pidfd proves it dead; then removes its taps and its run directory,
 * and frees. Also for one that has ended already. SIGTERM makes QEMU flush its images; graceful
 * leaves it at that, else SIGKILL follows after a few seconds. false: it lives on
 * (OPERATION_FAILED; after SIGKILL only in uninterruptible sleep), nothing was removed or freed,
 * call again. */
bool vz_qemu_kill(vz_qemu *qemu, bool graceful, GError **err);

/* Removes the taps and the run directory that a QEMU left which is proved dead and was never
 * adopted. */
void vz_qemu_tidy(const vz_qemu_host *host, const vz_def *live);

/* Ends a QEMU of which only the run directory RUN_DIR/UUID is left, since its virtvzd died while it
 * started it; blocks for seconds, needs no actor. true: it has ended, or had already. false
 * (OPERATION_INVALID and others): it has run, or does not answer, and was left as it is. */
bool vz_qemu_end_unborn(const vz_qemu_host *host, const char *uuid_text, GError **err);

/* Forgets it without touching it: the daemon ends, QEMU goes on. */
void vz_qemu_release(vz_qemu *take_qemu);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_qemu, vz_qemu_release)

vz_qmp *vz_qemu_qmp(vz_qemu *qemu);
pid_t vz_qemu_pid(const vz_qemu *qemu);
/* Clock ticks since boot: with pid and boot id it names the process for ever. */
uint64_t vz_qemu_start_time(const vz_qemu *qemu);
/* Borrowed; readable once it has ended. */
int vz_qemu_pidfd(const vz_qemu *qemu);
bool vz_qemu_alive(const vz_qemu *qemu);
/* RUN_DIR/UUID, 0711 of root: the place for sockets that QEMU is told to connect to (give those to
 * its uid); it cannot make or replace any there itself. */
const char *vz_qemu_rundir(const vz_qemu *qemu);
/* In it, where a migration keeps its sockets: QEMU's own, removed with the run directory. */
#define VZ_QEMU_MIGRATION_DIRECTORY "migration"
#define VZ_QEMU_DISKS_DIRECTORY     "disks"
/* QEMU's uid and gid. */
void vz_qemu_identity(const vz_qemu *qemu, uid_t *ret_uid, gid_t *ret_gid);
const vz_qemu_caps *vz_qemu_get_caps(const vz_qemu *qemu);
/* The sentence of vz_qemu_caps_accel at the start; "" for an adopted one. */
const char *vz_qemu_accel_note(const vz_qemu *qemu);
/* The last lines it wrote, for an error; caller frees; "" none. */
char *vz_qemu_last_words(const vz_qemu *qemu);

/* Commands. OPERATION_TIMEOUT, OPERATION_FAILED as vz_qmp_command. */
bool vz_qemu_cont(vz_qemu *qemu, GError **err);
bool vz_qemu_stop(vz_qemu *qemu, GError **err);
bool vz_qemu_powerdown(vz_qemu *qemu, GError **err); /* the ACPI button; the guest may not listen */
bool vz_qemu_reset(vz_qemu *qemu, GError **err);

typedef struct {
    char
        status[32]; /* "running", "paused", "inmigrate", "postmigrate", "shutdown", "io-error"... */
    bool running;
} vz_qemu_status;
bool vz_qemu_query_status(vz_qemu *qemu, vz_qemu_status *ret_status, GError **err);

/* Asks the guest to shrink or grow to so many bytes; it may take its time. */
bool vz_qemu_set_balloon(vz_qemu *qemu, uint64_t bytes, GError **err);
/* What the guest has now. OPERATION_FAILED without a balloon device. */
bool vz_qemu_query_balloon(vz_qemu *qemu, uint64_t *ret_bytes, GError **err);
/* Sends gratuitous ARPs (RARP) and their like for every card, n times with growing pauses, in the
 * background: after an arrival, so that switches learn where the guest is. */
bool vz_qemu_announce_self(vz_qemu *qemu, GError **err);
