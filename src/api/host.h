/* host.h - what every handler works on: this host. Filled by main before the server listens,
 * constant afterwards; what it points to has its own rules about threads. */
#pragma once

#include "base/text.h"
#include "domain/actor.h"
#include "domain/store.h"
#include "domain/table.h"

typedef struct vz_events vz_events;
typedef struct vz_migrate vz_migrate; /* migrate/service.h */

typedef struct {
    uint8_t uuid[VZ_UUID_BYTES];
    char uuid_text[VZ_UUID_TEXT_BYTES];
    char *hostname;
    const char *emulator; /* of definitions that name none */
    vz_store *store;
    vz_table *table;
    vz_actor *actor; /* the host actor */
    vz_actor *asker; /* for what takes another host, or slow directories; nobody waits for it */
    vz_events *events;
    vz_migrate *migrate;
} vz_host;

/* The one host of this program. */
extern vz_host vz_this_host;
