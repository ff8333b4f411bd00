/* migration.h - one migration job on one host, and the host's register of them.
 *
 * A job is a domain, a list of steps (saga.h), a record on disk (journal.h) and keys. Everything in
 * it belongs to the domain's actor thread but what is marked "any thread": `ask` is answered on
 * threads of its own, from the journal, which has its own lock.
 *
 * A job of the destination outlives its work: its record answers `ask` until the source's `forget`,
 * also after restarts. Then `domain` is NULL and only journal and keys are left. */
#pragma once

#include "channel/carrier.h"
#include "channel/keys.h"
#include "domain/def.h"
#include "domain/domain.h"
#include "migrate/cookie.h"
#include "migrate/journal.h"
#include "migrate/memory.h"
#include "migrate/options.h"
#include "migrate/saga.h"

typedef struct vz_migrate vz_migrate; /* service.h: the host's part */

/* Facts of a job that its steps' `when` and `unless` look at. */
enum {
    VZ_FACT_COMA = 1u << 0, /* without LIVE: paused while it is copied */
    VZ_FACT_PERSIST_DEST = 1u << 1,
    VZ_FACT_UNDEFINE_SOURCE = 1u << 2,
    VZ_FACT_DISKS = 1u << 3,    /* there are images whose sharing is to be proved */
    VZ_FACT_PAUSED = 1u << 4,   /* to be left paused at the destination */
    VZ_FACT_OFFLINE = 1u << 5,  /* a domain that is shut off: its definition moves */
    VZ_FACT_POSTCOPY = 1u << 8, /* may be switched before its memory has come */
};

/* Keys of a record. PROBED: the source has seen that its questions are answered, so it may have
 * released. */
#define VZ_NOTE_PROBED           "probed"
#define VZ_NOTE_DOMAIN           "domain" /* its UUID */
#define VZ_NOTE_NAME             "name"
#define VZ_NOTE_OLD_CONFIG       "old-config"   /* destination: what persist overwrites */
#define VZ_NOTE_MOVED_BEFORE     "moved-before" /* destination: the mark that it finds */
#define VZ_NOTE_PROCESS          "process"      /* PID START BOOT of what runs the guest */
#define VZ_NOTE_RELEASE          "release"
#define VZ_NOTE_RESOLVED         "resolved" /* the operator's decision, and what was known then */
#define VZ_NOTE_FACTS            "facts"
#define VZ_NOTE_LEASES           "leases"       /* images, a JSON array */
#define VZ_NOTE_MAY_HAVE_RUN     "may-have-run" /* destination, before it is tried */
#define VZ_NOTE_COPIES           "copies"       /* disks.h; of each side its own */
#define VZ_NOTE_PEER_NAME        "peer-name"
#define VZ_NOTE_PEER_FINGERPRINT "peer-fingerprint"
#define VZ_NOTE_PEER_UUID        "peer-uuid"
#define VZ_NOTE_PEER_HOST        "peer-host"
#define VZ_NOTE_PEER_PORT        "peer-port"
#define VZ_NOTE_TUNNEL           "tunnel"      /* source: the URI of the destination's daemon */
#define VZ_NOTE_SWITCHED         "switched"    /* to post-copy: there is no way back */
#define VZ_NOTE_HELD             "held"        /* post-copy is paused until a user resumes it */
#define VZ_NOTE_SOCKET           "socket"      /* destination: direct.h, to be removed */
#define VZ_NOTE_MEMLOCK          "memlock"     /* source: QEMU's limit before, SOFT HARD */
#define VZ_NOTE_INCARNATION      "incarnation" /* of the peer's records */
#define VZ_NOTE_INVITATION       "invitation"  /* source: by which it knows the destination */

/* The phase of a job that nobody can decide now, in its statistics. */
#define VZ_PHASE_IN_DOUBT "in doubt"

struct vz_migration {
    gint refs;
    vz_migrate *service;
    vz_side side;
    uint8_t job[VZ_UUID_BYTES];  /* any thread */
    char id[VZ_UUID_TEXT_BYTES]; /* any thread */
    vz_journal *journal;         /* any thread */
    vz_channel_keys *keys;       /* any thread */

    vz_domain *domain; /* referenced; NULL: only the record is left */
    vz_options *options;
    char *config_xml; /* to be kept at the destination; NULL: nothing, or it has not come yet */
    vz_saga saga;
    vz_carrier *carrier;
    vz_stream stream;                       /* how memory travels */
    bool switched;                          /* to post-copy: the guest cannot go back */
    bool pages_lost;                        /* with a QEMU of post-copy; err_text says which */
    struct vz_stream_sockets *sockets;      /* stream_sockets.h; NULL: no stream yet */
    struct vz_stream_sockets *disk_sockets; /* destination, of disks that are copied; NULL: none */
    struct vz_direct *direct;               /* direct.h; NULL: memory goes by the carrier */
    char *peer_fingerprint;                 /* NULL: the other host is not known yet */
    char *peer_name;                        /* the other host, for messages */
    uint8_t peer_uuid[VZ_UUID_BYTES];
    char *peer_host; /* of its data port; NULL on a destination that was not told */
    uint16_t peer_port;
    char *tunnel;          /* source: the daemon that its data port is reached through; or NULL */
    uint16_t asked_port;   /* source: another one, that the caller wants data to go by; 0: none */
    char *incarnation;     /* of its records; NULL: not known */
    json_t *disks_offered; /* identify.h */
    json_t *disks_answered;
    char *release;              /* the proof on the source, its hash on the destination */
    const vz_cookie *cookie_in; /* of the phase that runs; borrowed */
    vz_job_stats stats;
    int64_t began_us;
    int busy;           /* phases and settlings that are running on the actor */
    bool forgetting;    /* nobody needs the record any more, but it could not be removed yet */
    bool guarding;      /* holds the domain's job guard */
    bool memory_event;  /* QEMU reported a change of the stream */
    bool guest_died;    /* its QEMU is proved dead */
    bool guest_left;    /* it shut itself down during the job */
    char *abort_reason; /* somebody wants the job to end; NULL: nobody */
    unsigned retries;
    bool retry_waits;     /* a vz_migrate_retry is under way */
    GSource *phase_watch; /* NULL: none */

    /* source */
    bool peer_to_peer;
    bool copying_disks;               /* their jobs are in QEMU, all of them */
    unsigned n_channels;              /* of memory, that were opened */
    bool was_running;                 /* the guest ran when Perform began */
    bool user_suspended;              /* a user paused it during the job */
    bool io_error;                    /* it stopped by an I/O error of a disk during the job */
    int64_t paused_at_us;             /* when it stopped; 0: not yet */
    uint64_t downtime_limit_ms;       /* of the stream; 0: it has not started */
    uint64_t bandwidth_bytes_s;       /* of the stream; 0: no limit */
    uint64_t postcopy_before_bytes_s; /* what the domain had set before the move */
    bool fixed_downtime;              /* set by the caller: the ladder leaves it alone */
    bool end_announced;               /* JOB_COMPLETED was sent */
    bool postcopy_wanted;             /* somebody has asked for the switch */
    bool postcopy_held;               /* a user has paused it: not connected again by itself */
    bool verdict_known;               /* `verdict` was just asked for */
    vz_outcome verdict;
    json_t *answer;           /* the destination's last, or its silence; NULL: it was not asked */
    int64_t answered_at_us;   /* when that was */
    bool resolving;           /* the operator decides: do not wait for answers */
    unsigned unknown_there;   /* so many times in a row the other host had no such job */
    struct vz_let_go *let_go; /* atomic; offline.h; NULL: nobody has asked for it */

    /* destination */
    vz_def *def;
    vz_def *old_config;        /* what was defined before; NULL: nothing */
    vz_memory_status reported; /* by QEMU's last event; VZ_MEMORY_NONE: by none yet */
    bool persisted;
    struct vz_lease_arrival *leases; /* storage/lease.h; NULL: there are none */
    bool reserved;                   /* holds its place in the table */
    bool run_on_arrival;
    bool source_is_dead;  /* proved, or by the operator's word: no Finish is waited for */
    int64_t whole_at_us;  /* when all pages had come; 0: not yet */
    bool no_way_back;     /* the source says so of a post-copy: likewise */
    bool has_userfault;   /* QEMU's user has the right to it (driver/qemu/userfault.h) */
    char *client_address; /* of who called Prepare; NULL: not known */
    char *data_uri;       /* of this host's data port, as asked for or configured; NULL: neither */
    char *data_host;      /* the same, or the best that is known; NULL after a restart */
    char *proof;          /* of the release, as the source answered; NULL: it was not asked */
    int64_t finish_at_us;
    int64_t resumed_at_us;
    gint probed_s;  /* atomic, any thread: when the source last probed; monotonic, 0: never */
    gint dissolved; /* atomic, any thread: nothing of the guest is left here */
};

/* Makes a job with its record and keys on disk and registers it. On failure nothing is left. */
vz_migration *vz_migration_create(vz_migrate *service, vz_side side,
                                  const uint8_t job[VZ_UUID_BYTES], GError **err);
/* The same from a record of an earlier daemon. */
vz_migration *vz_migration_load(vz_migrate *service, const char *journal_path, GError **err);

vz_migration *vz_migration_ref(vz_migration *migration);
void vz_migration_unref(vz_migration *migration);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_migration, vz_migration_unref)

/* Gives the job its domain (referenced) and takes the domain's job guard with these ops. */
bool vz_migration_attach(vz_migration *migration, vz_domain *domain, const vz_job_ops *ops,
                         GError **err);
/* Ends the carrier, the guard (with `stats.type` as the outcome) and the hold on the domain; the
 * record stays. Idempotent. */
void vz_migration_detach(vz_migration *migration, vz_job_type outcome, const char *error_text);
/* Removes the record and the keys, durably, and unregisters; tried again until it works. */
void vz_migration_forget(vz_migration *migration);

/* Any thread: the domain of which the record is, also where the job is not attached to it any more.
 * false: the record does not say. */
bool vz_migration_domain_uuid(const vz_migration *migration, uint8_t ret_uuid[VZ_UUID_BYTES]);

/* Keeps a value in the record (durable with the record's next sync); a failure is an error of the
 * job. */
bool vz_migration_note(vz_migration *migration, const char *key, const char *value, GError **err);

/* Notes what the job knows of its peer. */
bool vz_migration_note_peer(vz_migration *migration, GError **err);

/* Notes which process runs the guest, so that a later daemon can tell whether it is dead: by its
 * pid, its start and the boot. */
bool vz_migration_note_process(vz_migration *migration, GError **err);
/* Is it proved dead? A record without a note (of version 1) cannot deny it. */
bool vz_migration_process_dead(const vz_migration *migration);
/* Kills it first, if it lives. */
bool vz_migration_end_process(const vz_migration *migration);

/* Asks the running phase to end: its waits return, its step fails with OPERATION_ABORTED and this
 * reason. The first reason counts. */
void vz_migration_abort(vz_migration *migration, const char *reason);
/* Sets err for a wait that was cancelled. */
bool vz_migration_fail_aborted(vz_migration *migration, GError **err);
/* Before undoing or asking: waits are no longer cancelled. */
void vz_migration_uncancel(vz_migration *migration);

/* A vz_done_fn (vz_migration *): QEMU reported a change of the stream since it was last called, or
 * has died. */
bool vz_migration_stirred(void *migration);

/* The QEMU of the job's domain; NULL with OPERATION_FAILED when it has ended or cannot be reached.
 */
struct vz_qemu *vz_migration_qemu(vz_migration *migration, GError **err);

bool vz_migration_in_doubt(const vz_migration *migration);
bool vz_migration_offline(const vz_migration *migration);
/* The definition that moves: of the running guest, or of a domain that is shut off. Borrowed. */
const vz_def *vz_migration_subject(const vz_migration *migration, const vz_snapshot *snapshot);

/* Publishes `stats` as the running job's. */
void vz_migration_publish(vz_migration *migration, const char *phase);

/* RUN/jobs/ID.side, the carrier's; caller frees. */
char *vz_migration_run_dir(const vz_migration *migration);
/* Starts the job's carrier and lets the data port hand connections to it. on_channel as in
 * vz_carrier_hooks, with the migration as `user`; may be NULL. */
bool vz_migration_start_carrier(vz_migration *migration,
                                void (*on_channel)(vz_carrier *carrier, const vz_channel_info *info,
                                                   void *user),
                                GError **err);
/* The same for a job that goes on after a restart, or after its carrier has died: the living one is
 * taken over, else there is a new one, with channels from 0. */
bool vz_migration_keep_carrier(vz_migration *migration,
                               void (*on_channel)(vz_carrier *carrier, const vz_channel_info *info,
                                                  void *user),
                               GError **err);
/* And closes what joined it to QEMU. */
void vz_migration_stop_carrier(vz_migration *migration);
