/* store.h - what outlives the daemon, or the boot: plain files, written so that a crash leaves
 * the old or the new content.
 *
 *     STATE/domains/UUID.xml         the definition (config) of a persistent domain
 *     STATE/domains/UUID.autostart   exists: started once per boot
 *     STATE/domains/UUID.marks       "key value" lines: what start and autostart must obey
 *     RUN/domains/UUID.status        a running guest: identity, state, live definition
 *     RUN/autostarted                this boot's autostart has been done
 *
 * The store knows texts, not definitions. A damaged file is reported and left where it is, and so
 * is one of a later version: a status says its version in its first line; marks in a line "version
 * N", without which they are of version 1, the only one so far. Definitions are libvirt's XML, in
 * which what is not known is refused by name. Any thread; calls about one domain come from its
 * actor. */
#pragma once

#include "base/text.h"

#include <sys/types.h>

#define VZ_STORE_FILE_MAX ((size_t)4 * 1024 * 1024)
#define VZ_STORE_MARK_MAX 4096

typedef struct vz_store vz_store;

/* Makes the directories: 0700 for state, 0711 for run, which QEMU's user must pass through. */
vz_store *vz_store_open(const char *state_dir, const char *run_dir, GError **err);
void vz_store_close(vz_store *store);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_store, vz_store_close)

/* Durable when true is returned. */
bool vz_store_save_config(vz_store *store, const char *uuid_text, const char *xml, GError **err);
/* Removes the definition, its autostart flag, but not its marks. */
bool vz_store_remove_config(vz_store *store, const char *uuid_text, GError **err);
bool vz_store_set_autostart(vz_store *store, const char *uuid_text, bool autostart, GError **err);

/* A running guest as it is written down. Strings are owned by whoever has the struct. */
typedef struct {
    int id;
    int state; /* vz_state */
    int reason;
    pid_t pid;
    uint64_t start_time; /* vz_process_start_time */
    char boot_id[VZ_UUID_TEXT_BYTES];
    bool autodestroy;
    bool reboot; /* the guest's next shutdown is the first half of a reboot; since version 2 */
    char *xml;   /* live definition, VZ_DEF_FORMAT_STATUS */
} vz_status;

void vz_status_clear(vz_status *status);

bool vz_store_save_status(vz_store *store, const char *uuid_text, const vz_status *status,
                          GError **err);
/* A failure is logged: a guest is proved dead by its process, not by this file. */
void vz_store_remove_status(vz_store *store, const char *uuid_text);
/* Does a status file exist, whatever is in it? Then a guest may be running. *ret_path (may be NULL)
 * is its name; caller frees. */
bool vz_store_has_status(vz_store *store, const char *uuid_text, char **ret_path);
bool vz_store_read_status(vz_store *store, const char *uuid_text, vz_status *ret_status,
                          GError **err);

/* This boot's id as /proc gives it; "" where it cannot be read. Static. */
const char *vz_boot_id(void);

/* The uuids (texts) that have a definition, or a status; unreadable names are logged, not
 * returned. Free with g_ptr_array_unref. */
GPtrArray *vz_store_list_configs(vz_store *store);
GPtrArray *vz_store_list_statuses(vz_store *store);
bool vz_store_read_config(vz_store *store, const char *uuid_text, char **ret_xml,
                          bool *ret_autostart, GError **err);

/* Marks: few short keys ([a-z-]) with one-line values, per domain uuid, durable, independent of
 * whether the domain is defined. Known keys: VZ_MARK_MOVED, VZ_MARK_ARRIVING. */
#define VZ_MARK_MOVED    "moved-to"
#define VZ_MARK_ARRIVING "arriving-from"
/* *ret_value is NULL where there is no such mark. */
bool vz_store_get_mark(vz_store *store, const char *uuid_text, const char *key, char **ret_value,
                       GError **err);
bool vz_store_set_mark(vz_store *store, const char *uuid_text, const char *key, const char *value,
                       GError **err);
bool vz_store_clear_mark(vz_store *store, const char *uuid_text, const char *key, GError **err);

/* Has autostart been done since boot? note makes it so. */
bool vz_store_autostarted(vz_store *store);
bool vz_store_note_autostarted(vz_store *store, GError **err);
