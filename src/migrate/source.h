/* source.h - the source's side of a migration: Begin, Perform, Confirm, and what happens between
 * and instead of them.
 *
 *     Begin ──► Perform ──► Confirm          any failure before the release: undone at once
 *                  └─ release ─ ─ ─ ─►       after it: only the destination's answer decides
 *
 * All on the domain's actor thread. The steps are in src_qemu.c. */
#pragma once

#include "migrate/migration.h"

extern const vz_job_ops vz_source_ops;
extern const vz_step vz_source_steps[];

typedef struct {
    const vz_options *options;
    bool peer_to_peer;
} vz_source_request;

/* Starts a job: OPERATION_INVALID (55) while another holds the domain, or where the domain is not
 * running (with OFFLINE, where it is); CONFIG_UNSUPPORTED (67) where a definition that came with
 * the options is another guest's, or (the one to run) not the same machine. *ret_migration is a
 * reference; *ret_xml (the guest's definition for the other host) is the caller's. On failure
 * nothing is left. */
bool vz_source_begin(vz_migrate *service, vz_domain *domain, const vz_source_request *request,
                     vz_migration **ret_migration, char **ret_xml, GError **err);

/* The definitions that go with the guest: the one to run there and, with PERSIST_DEST, the one to
 * keep; the caller's. Errors as of vz_source_begin. Any thread. */
bool vz_source_definitions(vz_migrate *service, const vz_snapshot *snapshot,
                           const vz_options *options, char **ret_running, char **ret_kept,
                           GError **err);

/* The cookie of Begin, the caller's, once it is known who the other host is; how memory is to
 * travel is chosen for it (choice.h). local_address: by which the client reached this host; peer:
 * the destination's numeric address; either may be NULL: not known. Once a job. */
char *vz_source_cookie(vz_migration *migration, const char *local_address, const char *peer);

/* The job of Begin for a later phase: by the domain's guard, and by the cookie where there is one.
 * A reference, or NULL with OPERATION_INVALID. */
vz_migration *vz_source_find(vz_domain *domain, const vz_cookie *cookie, GError **err);

typedef struct {
    const vz_cookie *cookie; /* of Prepare */
    const char *uri;         /* of Prepare or the caller: tcp:HOST[:PORT] */
} vz_source_destination;

/* Begin and Perform of POSTCOPY_RESUME: of the domain's post-copy that stands still. The first
 * changes nothing; the second returns when pages flow again, or all have come. OPERATION_INVALID
 * where there is none. Outputs as above. */
bool vz_source_begin_again(vz_domain *domain, char **ret_cookie, char **ret_xml, GError **err);
bool vz_source_perform_again(vz_domain *domain, char **ret_cookie, GError **err);
/* Both, and Confirm: what a peer to peer move does. */
bool vz_source_migrate_again(vz_domain *domain, GError **err);

/* Copies the guest and lets it go. On success it is paused here, everything has arrived there, and
 * *ret_cookie (caller frees) carries the proof of that. On failure the job is over and the guest is
 * as before; or, where the destination cannot be asked, in doubt, and the error says so. A second
 * Perform is OPERATION_INVALID and changes nothing. */
bool vz_source_perform(vz_migration *migration, const vz_source_destination *destination,
                       char **ret_cookie, GError **err);

/* Ends the job. What happens is decided by the destination's answer, not by `cancelled`: true means
 * the guest has moved and is gone here, or, for cancelled before the release, that all is undone.
 */
bool vz_source_confirm(vz_migration *migration, const vz_cookie *cookie, bool cancelled,
                       GError **err);

/* Between phases: the job is not to go on. Undone, or where the guest was released, settled by the
 * destination's answer. The reason goes to the log and the statistics. */
void vz_source_give_up(vz_migration *migration, const char *reason);

/* The client of a managed migration has gone: settles, unless a phase is running, which then
 * settles itself, at its end or as the next task. */
void vz_source_client_lost(vz_migration *migration);

/* After a restart; loop thread: posts to the actor. Takes the register's view of the job. */
void vz_source_recover(vz_migration *migration);

/* For the steps: resumes the guest where the job has paused it. */
void vz_source_resume_guest(vz_migration *migration);
