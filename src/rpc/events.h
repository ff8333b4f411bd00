/* events.h - events to the clients that registered for them.
 *
 * One function per EVENT row of procs.def. Any thread; never blocks; the body is encoded before it
 * returns. A client gets the events of one thread in their order, and those that were emitted
 * before a call was answered before that answer. */
#pragma once

#include "rpc/procs.h"

typedef struct vz_events vz_events;

/* The typed functions below are the way in. */
void vz_events_emit(vz_events *events, vz_event_id id, const void *body);

#define EVENT(id, name, callback, legacy, body_type)                                               \
    static inline void vz_events_emit_##name(vz_events *events, const vz_wire_##body_type *body)   \
    {                                                                                              \
        vz_events_emit(events, VZ_EVENT_##name, body);                                             \
    }
#include "procs.def"
#undef EVENT
