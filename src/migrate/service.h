/* service.h - the host's part in migrations: the register of jobs, the data port, the answers to
 * other hosts' questions, and what is done about unfinished jobs after a restart.
 *
 * One per daemon. Any thread, unless said. */
#pragma once

#include "channel/port.h"
#include "domain/table.h"
#include "migrate/migration.h"

typedef struct {
    vz_table *table;
    const char *state_dir; /* STATE/jobs holds the records */
    const char *run_dir;   /* RUN/jobs/ID.side per job */
    const char *host_name;
    uint8_t host_uuid[VZ_UUID_BYTES];
    const char *data_address; /* what the data port listens on; NULL: everything */
    uint16_t data_port;       /* 0: a free one (tests) */
    const char *advertised;   /* address that other hosts reach the port by; NULL: the address that
                                 the client of Prepare came by, else the host's name */
    uint16_t direct_port;     /* direct.h */
    const char *tls_dir;      /* of QEMU's x509 certificates; NULL, "": libvirt's */
    const char *carrier_program; /* NULL: the installed one */
    const char *carrier_user;    /* "": no change of user */
    unsigned phase_timeout_s;    /* a client that lives may take so long between two phases */
    GMainContext *context;       /* of the loop thread */
    /* Reads a definition with what this host knows (machines, emulator). Any thread. */
    vz_def *(*parse)(const char *xml, GError **err);
} vz_migrate_config;

/* Loop thread. Makes the directories, opens the data port. Strings are copied. */
vz_migrate *vz_migrate_new(const vz_migrate_config *config, GError **err);
/* Loop thread, after the actors have ended: jobs are let go of, not undone; their carriers live. */
void vz_migrate_free(vz_migrate *service);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_migrate, vz_migrate_free)

/* Loop thread, at start, when the running guests have been found again: every unfinished job is
 * settled, on its domain's actor. */
void vz_migrate_recover(vz_migrate *service);

const vz_migrate_config *vz_migrate_settings(const vz_migrate *service);
vz_port *vz_migrate_port(vz_migrate *service);
/* The name of this set of records: a record of another incarnation is a lost one (docs). */
const char *vz_migrate_incarnation(const vz_migrate *service);
/* The checks that are expected at the data port. */
struct vz_visits *vz_migrate_visits(vz_migrate *service);
/* STATE/jobs. */
const char *vz_migrate_records(const vz_migrate *service);

void vz_migrate_register(vz_migrate *service, vz_migration *migration);
void vz_migrate_unregister(vz_migrate *service, vz_migration *migration);
/* All of them, referenced; g_ptr_array_unref. */
GPtrArray *vz_migrate_list(vz_migrate *service);
/* A reference, or NULL. */
vz_migration *vz_migrate_find(vz_migrate *service, vz_side side, const uint8_t job[VZ_UUID_BYTES]);

/* The arrival that waits for its Finish under that name; a reference, or NULL. */
vz_migration *vz_migrate_find_arrival(vz_migrate *service, const char *name);

/* The job is over on this side; the other host is told so until it has heard, and then the record
 * is removed, until that works. By a thread of the service, since no actor is left to wait on. Any
 * thread. */
void vz_migrate_errand(vz_migration *migration);
/* The same after a pause that grows from 1 s to 60 s. */
void vz_migrate_errand_later(vz_migration *migration);

/* Runs late(migration) on its actor when the configured time is over, unless the job has ended or a
 * phase runs then. One watch a job: a new one replaces it. Actor thread. */
void vz_migrate_watch_phase(vz_migration *migration, void (*late)(vz_migration *migration));
void vz_migrate_unwatch_phase(vz_migration *migration);

/* Runs settle(migration) on its actor after a pause that grows from 1 s to 60 s. Actor thread.
 * While one is under way another call changes nothing. */
void vz_migrate_retry(vz_migration *migration, void (*settle)(vz_migration *migration));
