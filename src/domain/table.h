/* table.h - all domains of the host.
 *
 * One lock guards the indexes. A domain is in the table from its reservation until it is neither
 * active, nor persistent, nor reserved. Any thread, unless said. */
#pragma once

#include "domain/domain.h"

typedef struct vz_store vz_store; /* domain/store.h */

/* Who hears what happens to domains; called on the domain's actor thread, must not block. */
typedef struct {
    void (*lifecycle)(void *user, vz_domain *domain, int id, vz_event event, int detail);
    void (*reboot)(void *user, vz_domain *domain, int id);
    void (*iteration)(void *user, vz_domain *domain, int id, int iteration);
    void (*job_completed)(void *user, vz_domain *domain, int id, const vz_job_stats *stats);
} vz_table_listener;

/* store and driver are borrowed and outlive the table. */
vz_table *vz_table_new(vz_store *store, const vz_driver *driver);
/* Ends all actors: queued tasks are dropped, running ones cancelled and waited for, then
 * on_end(domain) runs on each actor that has a thread (to let go of its guest). */
void vz_table_stop(vz_table *table, vz_task_fn on_end);
void vz_table_free(vz_table *table);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_table, vz_table_free)

vz_store *vz_table_store(vz_table *table);

/* Before threads start. */
void vz_table_set_listener(vz_table *table, const vz_table_listener *listener, void *user);

/* Tells the listener, with the id that the domain has at this moment (-1 in STOPPED, as libvirt
 * sends it). Actor thread of the domain. */
void vz_table_emit(vz_domain *domain, vz_event event, int detail);
void vz_table_emit_reboot(vz_domain *domain);
void vz_table_emit_iteration(vz_domain *domain, int iteration);
void vz_table_emit_job_completed(vz_domain *domain, const vz_job_stats *stats);

/* A referenced domain, or NULL with NO_DOMAIN in libvirt's words. Reserved ones that are not
 * domains yet are found by uuid, as Finish needs, not by name or id. */
vz_domain *vz_table_find_uuid(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES],
                              const char *name_or_null, GError **err);
vz_domain *vz_table_find_name(vz_table *table, const char *name, GError **err);
vz_domain *vz_table_find_id(vz_table *table, int id, GError **err);

typedef enum {
    VZ_RESERVE_DEFINE, /* an existing domain may be active */
    VZ_RESERVE_START,  /* it must not be: create, an arriving migration */
} vz_reserve;

/* Finds the domain of this name and uuid, or makes it, and holds its place until
 * vz_table_release: nobody else can take the name or the uuid meanwhile, and it is not removed.
 * A clash is refused as libvirt does: OPERATION_FAILED "domain 'g1' already exists with uuid U",
 * "domain 'g1' is already defined with uuid U"; with START, OPERATION_INVALID "domain 'g1' is
 * already active" or "... already being started". The caller owns a reference. */
vz_domain *vz_table_reserve(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES], const char *name,
                            vz_reserve purpose, GError **err);
/* Whether vz_table_reserve would find a place now; nothing is changed. Its errors. */
bool vz_table_check(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES], const char *name,
                    vz_reserve purpose, GError **err);
/* Gives the reservation back (not the reference), and removes the domain if nothing is left. */
void vz_table_release(vz_domain *domain, vz_reserve purpose);

/* Removes the domain from the table if it is neither active, nor persistent, nor reserved. To be
 * called whenever one of the first two has ended. */
void vz_table_prune(vz_domain *domain);

/* The next domain id, counting up from 1 and never given twice. */
int vz_table_next_id(vz_table *table);
/* At start: ids from here on are larger. */
void vz_table_note_id(vz_table *table, int id);

/* All domains but mere reservations, referenced, sorted by name. Free with g_ptr_array_unref. */
GPtrArray *vz_table_list(vz_table *table);

/* Does the snapshot pass the flags of virConnectListAllDomains (libvirt facts 2, "Notes")? */
bool vz_snapshot_matches(const vz_snapshot *snapshot, uint32_t list_flags);
