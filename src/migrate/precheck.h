/* precheck.h - everything that is looked at before a guest moves, as one table of named functions a
 * side. All of a side are run, and all that they find is told at once.
 *
 *     side         when a guest moves                      `vz check`
 *     SOURCE       Begin, step check-guest                 first
 *     DESTINATION  Prepare, step check-host; or before     asked by the private procedure
 *                  it, where there is no place for it
 *     WAY          steps prove-disks and prove-ask         last, with keys made for the check
 *
 * A check changes nothing. It adds findings (finding.h), none where all is well, and is silent
 * about what it cannot know. */
#pragma once

#include "migrate/facts.h"
#include "migrate/finding.h"
#include "migrate/migration.h"

typedef enum { VZ_CHECK_SOURCE, VZ_CHECK_DESTINATION, VZ_CHECK_WAY } vz_check_side;

/* From the source to the data port of the destination. */
typedef struct {
    const char *host;
    uint16_t port;
    uint8_t job[VZ_UUID_BYTES];
    const vz_channel_keys *keys;
    const char *peer_fingerprint;
    const char *peer_incarnation;
    const char *tunnel; /* the daemon that it is reached through; NULL: none */
    const json_t *disks_offered;
    json_t *disks_answered; /* by all that were proved there */
} vz_precheck_way;

/* What the checks look at. Borrowed; what a side does not have is NULL. */
typedef struct {
    vz_migrate *service;
    vz_domain *domain; /* source: the guest. Destination: its place here, once it has one */
    const vz_def *def; /* source: the live one. Destination: what is to run here */
    const vz_options *options;
    vz_host_facts here; /* source: name, and caps of the guest's QEMU */
    /* destination */
    const vz_cookie *cookie;      /* of Begin */
    const GError *def_error;      /* why `def` is NULL */
    const GError *emulator_error; /* why `here.caps` is NULL */
    vz_guest_facts there;         /* the source's; owned by whoever filled this in */
    json_t *disks_answered; /* an array to be filled by the proof of disks; NULL: a step proves
                               them, unless something else refuses already */
    /* way */
    const vz_precheck_way *way;
} vz_precheck_subject;

typedef struct {
    const char *name;
    void (*run)(const vz_precheck_subject *subject, const char *name, GPtrArray *findings);
} vz_precheck;

/* Each ends with a row without a name. */
extern const vz_precheck vz_prechecks_source[];
extern const vz_precheck vz_prechecks_destination[];
extern const vz_precheck vz_prechecks_way[];

/* Runs all rows of a table. */
void vz_precheck_run(const vz_precheck *table, const vz_precheck_subject *subject,
                     GPtrArray *findings);

/* A row of both sides: whether the host's QEMU has what an option becomes. */
void vz_precheck_options(const vz_precheck_subject *subject, const char *name, GPtrArray *findings);

/* Likewise: what a direct stream lacks, and all that RDMA lacks here (direct.h). */
void vz_precheck_direct(const vz_precheck_subject *subject, const char *name, GPtrArray *findings);
/* Likewise: the certificates of one with TLS: there, of this host's CA, not expired, and the
 * destination's for the name that is expected. Whether each side's CA knows the other's, the
 * handshake tells. */
void vz_precheck_certificates(const vz_precheck_subject *subject, const char *name,
                              GPtrArray *findings);

/* All of the source's side. Actor. */
void vz_precheck_look_at_guest(vz_migrate *service, vz_domain *domain, const vz_options *options,
                               GPtrArray *findings);
/* Step check-guest: the same, enforced. Actor. */
bool vz_precheck_guest(vz_migration *migration, GError **err);
/* Step check-host. Actor. */
bool vz_precheck_host(vz_migration *migration, GError **err);

typedef struct {
    vz_migrate *service;
    const vz_cookie *cookie;   /* of Begin */
    const vz_options *options; /* of Prepare: with the definition */
    int64_t arrived_us;        /* by this host's wall clock */
} vz_precheck_arrival;

/* On a destination without a place for the guest yet: all that its side finds. disks_answered may
 * be NULL. false: nothing could be looked at. Blocks; not the loop. */
bool vz_precheck_arriving(const vz_precheck_arrival *arrival, json_t *disks_answered,
                          GPtrArray *findings, GError **err);
/* Makes of the one reason for which the guest got no place an error with all of them. */
void vz_precheck_explain(const vz_precheck_arrival *arrival, GError **err);

/* What would help where the way is not free; also for the steps that prove it. */
#define VZ_REMEDY_DISKS                                                                            \
    "put the image on storage that both hosts mount, with a directory that both daemons can "      \
    "read and write"
#define VZ_REMEDY_PORT                                                                             \
    "let TCP through to that port, data_port in the destination's virtvzd.conf; if it is "         \
    "reached by another address or port, name that: migrate_address there, or --migrateuri "       \
    "tcp:HOST:PORT"
#define VZ_REMEDY_TUNNEL                                                                           \
    "see that virtvzd there is of this version, and answers at that address again and again"
/* Each disk that is only taken for shared: in the log, and in the domain's messages. Actor. */
void vz_precheck_tell_unproved(vz_migration *migration);
/* "TEXT" becomes "TEXT (REMEDY)". */
void vz_precheck_help(GError **err, const char *remedy);
