/* destination.h - the destination's side of a migration: Prepare and Finish, and being asked.
 *
 *     Prepare ──► (memory arrives) ──► Finish: load, persist, COMMIT, start
 *                                              before the commit anything undoes it
 *
 * All on the arriving domain's actor thread, unless said. The steps are in dst_qemu.c. */
#pragma once

#include "migrate/migration.h"

extern const vz_job_ops vz_destination_ops;
extern const vz_step vz_destination_steps[];

typedef struct {
    const vz_cookie *cookie; /* of Begin */
    const vz_options *options;
    vz_def *def;                /* what is to run here, with its name here; borrowed */
    const char *client_address; /* NULL: not known */
    const char *data_uri;  /* of this host, where it was asked for or is configured; else NULL */
    const char *data_host; /* the same, or the best that is known */
} vz_destination_request;

/* Refuses what comes from this host itself, by the host's UUID in the cookie of Begin. */
bool vz_destination_check_host(const vz_migrate *service, const vz_cookie *cookie, GError **err);

/* Readies a paused guest that waits for its state. The domain was reserved (VZ_RESERVE_START) by
 * the caller; the reservation becomes the job's. *ret_cookie is the caller's. On failure nothing is
 * left, and the reservation is given back. */
bool vz_destination_prepare(vz_migrate *service, vz_domain *domain,
                            const vz_destination_request *request, vz_migration **ret_migration,
                            char **ret_cookie, GError **err);

/* Prepare of POSTCOPY_RESUME, on any thread: the job goes on; its source asks for what it needs.
 * NULL with OPERATION_INVALID: there is none. Caller frees. */
char *vz_destination_prepare_again(vz_migrate *service, const uint8_t job[VZ_UUID_BYTES],
                                   GError **err);

/* Cancelled, or not: with everything arrived and the source's proof of the release, the guest is
 * committed and started here; true. Of an offline move the cookie may be NULL. Otherwise all is
 * undone; MIGRATE_FINISH_OK (93) where that is what was asked. A guest that has come whole is not
 * thrown away by a client's word: the source decides, which has let it go. A job that is committed
 * already only says what is true. */
bool vz_destination_finish(vz_migration *migration, const vz_cookie *cookie,
                           const vz_options *options, bool cancelled, GError **err);
/* The cookie for the reply of a Finish that succeeded; caller frees. */
char *vz_destination_finish_cookie(const vz_migration *migration);

/* The client that drove the migration has gone: given up, unless committed. */
void vz_destination_client_lost(vz_migration *migration);

/* Any thread: the record says aborted; what is left of the guest goes away, soon. The job's
 * `dissolved` then tells. */
void vz_destination_dissolve(vz_migration *migration);

/* Any thread: the record says aborted whatever it said before (vz_journal_condemn); the guest, also
 * one that runs, and its definition go away, soon. The job's `dissolved` then tells. */
void vz_destination_condemn(vz_migration *migration);

/* The source's copy is dead: of an arrival that is whole the guest runs here. Actor. */
bool vz_destination_finish_alone(vz_migration *migration, GError **err);
/* The same, soon, or, switched, the source's copy is let go by post-copy and serves what is
 * missing. One that is not whole is given up. false: nothing of it is here. Any thread. */
bool vz_destination_go_on_alone(vz_migration *migration, bool switched);
/* The source's copy is dead, but may have run on after this one was made: one that is whole is
 * kept, soon, until an operator decides. Else like the above. */
bool vz_destination_keep(vz_migration *migration);
/* The record becomes final, then all is taken back; tried again until both are done. Actor. */
void vz_destination_give_up(vz_migration *migration, const char *reason);

/* The cookie of Prepare; caller frees. */
char *vz_destination_cookie(const vz_migration *migration);

/* For the steps: the definition to be kept here, under the guest's name here; caller's. */
vz_def *vz_destination_config(const vz_migration *migration, GError **err);

/* The undo of what was done for the leases of the guest's images; also without a domain. */
void vz_destination_give_leases_back(vz_migration *migration);

/* After a restart; loop thread. */
void vz_destination_recover(vz_migration *migration);
