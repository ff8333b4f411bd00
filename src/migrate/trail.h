/* trail.h - where a guest went, and where it came from, when the job that moved it is forgotten.
 *
 *     STATE/trail/JOB        one JSON object: the domain, the other host, how to reach and know it
 *     STATE/trail/JOB.key    this side's key of the job
 *
 * Both hosts of a job keep one, so that each can ask the other "have you still got it?" and be
 * believed (whereabouts.h). Of each domain there is one a host that it went to or came from: a
 * later move between the same two replaces it. A domain's marks name the job:
 *
 *     moved-to JOB NAME        on the source from before its copy's end until the guest is back
 *     arriving-from JOB NAME   on the destination from Prepare until the source has ended its copy
 *
 * Any thread. */
#pragma once

#include "domain/store.h"
#include "migrate/migration.h"

#define VZ_TRAIL_BYTES_MAX ((size_t)16 * 1024)
#define VZ_MARK_HOST_MAX   200 /* of the name in a mark */

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    uint8_t domain[VZ_UUID_BYTES];
    uint8_t peer_uuid[VZ_UUID_BYTES]; /* of the other host */
    char *peer_name;
    char *peer_host; /* of its data port; NULL: not known */
    uint16_t peer_port;
    char *tunnel; /* as the job's; NULL: by the data port itself */
    char *peer_fingerprint;
    char *peer_incarnation; /* of its records; NULL: not known */
    vz_channel_keys *keys;  /* this side's */
} vz_trail;

void vz_trail_free(vz_trail *trail);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_trail, vz_trail_free)

/* Keeps what the job knows of its peer, durably; again: replaces it. */
bool vz_trail_save(const vz_migration *migration, GError **err);
/* On the destination, which sees only from where it is asked: the source's address, if it was not
 * told one. */
bool vz_trail_learn_address(const vz_migration *migration, const char *address, GError **err);
/* NO_DOMAIN where there is none of the job. */
vz_trail *vz_trail_load(vz_migrate *service, const uint8_t job[VZ_UUID_BYTES], GError **err);
void vz_trail_remove(vz_migrate *service, const char *job);
/* The guest has moved by `migration`: what older moves of it between the same hosts left is gone.
 */
void vz_trail_replace_older(const vz_migration *migration);

/* Sets the domain's mark to this job; durable. */
bool vz_trail_mark(const vz_migration *migration, const char *mark, GError **err);
/* That mark of the job's domain; NULL: there is none. */
bool vz_trail_get_mark(const vz_migration *migration, const char *mark, char **ret_value,
                       GError **err);
/* Removes a mark, if it is of this job. */
bool vz_trail_unmark(vz_migrate *service, const char *domain, const char *mark, const char *job,
                     GError **err);
/* The job will not bring its guest here: its mark goes, and what is known of the other host unless
 * an earlier job's mark needs it. What fails is logged. */
void vz_trail_call_off(const vz_migration *migration);
/* Whether a mark's value (may be NULL) names this job. */
bool vz_trail_mark_is_of(const char *value, const char *job);
/* The job that a mark's value names. false: the value is damaged. */
bool vz_trail_mark_job(const char *value, uint8_t ret_job[VZ_UUID_BYTES]);
/* The host's name in it; borrowed from the value. */
const char *vz_trail_mark_host(const char *value);
