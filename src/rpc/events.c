/* events.c - see events.h. A table of registrations under one lock; an event is encoded once for
 * each of them that wants it and handed to its connection. */
#include "rpc/events.h"
#include "rpc/internal.h"

#include "wire/xdr.h"

#include <string.h>

typedef struct {
    vz_conn *conn; /* borrowed: the connection takes its registrations out when it dies */
    int32_t callback_id;
    int32_t event_id;
    bool legacy;
    bool filtered;
    uint8_t uuid[16];
} registration;

struct vz_events {
    GMutex lock;
    GArray *registrations;
    int32_t next_id;
};

vz_events *vz_events_new(void)
{
    vz_events *events = g_new0(vz_events, 1);
    g_mutex_init(&events->lock);
    events->registrations = g_array_new(FALSE, FALSE, sizeof(registration));
    return events;
}

void vz_events_free(vz_events *events)
{
    if (!events)
        return;
    g_array_unref(events->registrations);
    g_mutex_clear(&events->lock);
    g_free(events);
}

static registration *at(vz_events *events, guint i)
{
    return &g_array_index(events->registrations, registration, i);
}

static guint count_of(vz_events *events, const vz_conn *conn)
{
    guint n = 0;
    for (guint i = 0; i < events->registrations->len; i++)
        n += at(events, i)->conn == conn;
    return n;
}

bool vz_events_register(vz_events *events, vz_conn *conn, const vz_event_request *request,
                        int32_t *ret_id, GError **err)
{
    registration r = {.conn = conn,
                      .event_id = request->event_id,
                      .legacy = request->legacy,
                      .filtered = request->uuid != NULL};
    if (request->uuid)
        memcpy(r.uuid, request->uuid, sizeof(r.uuid));
    g_mutex_lock(&events->lock);
    bool room = count_of(events, conn) < VZ_EVENTS_PER_CONN;
    if (room) {
        /* After 2^31 registrations numbers come again; a client that old has long deregistered. */
        r.callback_id = events->next_id;
        events->next_id = events->next_id == G_MAXINT32 ? 0 : events->next_id + 1;
        g_array_append_val(events->registrations, r);
    }
    g_mutex_unlock(&events->lock);
    if (!room)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "a client may register for at most %d events at once", VZ_EVENTS_PER_CONN);
    if (ret_id)
        *ret_id = r.callback_id;
    return true;
}

/* Takes the first registration of the connection that matches: by callback id, or legacy by event.
 */
static bool take_out(vz_events *events, const vz_conn *conn, bool legacy, int32_t number)
{
    bool found = false;
    g_mutex_lock(&events->lock);
    for (guint i = 0; i < events->registrations->len && !found; i++) {
        const registration *r = at(events, i);
        int32_t mine = legacy ? r->event_id : r->callback_id;
        found = r->conn == conn && r->legacy == legacy && mine == number;
        if (found)
            g_array_remove_index(events->registrations, i);
    }
    g_mutex_unlock(&events->lock);
    return found;
}

bool vz_events_deregister(vz_events *events, vz_conn *conn, int32_t callback_id, GError **err)
{
    return take_out(events, conn, false, callback_id) ||
           vz_fail(err, VZ_ERR_INTERNAL_ERROR, "domain event callback %d not registered",
                   callback_id);
}

bool vz_events_deregister_legacy(vz_events *events, vz_conn *conn, int32_t event_id, GError **err)
{
    return take_out(events, conn, true, event_id) ||
           vz_fail(err, VZ_ERR_INTERNAL_ERROR, "domain event %d not registered", event_id);
}

void vz_events_forget(vz_events *events, vz_conn *conn)
{
    g_mutex_lock(&events->lock);
    for (guint i = events->registrations->len; i > 0; i--)
        if (at(events, i - 1)->conn == conn)
            g_array_remove_index(events->registrations, i - 1);
    g_mutex_unlock(&events->lock);
}

static const vz_event_kind *kind_of(vz_event_id id)
{
    for (size_t i = 0; i < vz_n_event_kinds; i++)
        if (vz_event_kinds[i].id == id)
            return &vz_event_kinds[i];
    g_assert_not_reached();
}

static void send_to(const registration *r, const vz_event_kind *kind, const GByteArray *body)
{
    const vz_frame frame = {
        .program = VZ_PROGRAM_REMOTE,
        .version = VZ_PROGRAM_VERSION,
        .procedure = r->legacy ? kind->legacy_proc : kind->callback_proc,
        .type = VZ_PACKET_MESSAGE,
    };
    g_autoptr(GByteArray) packet = g_byte_array_new();
    g_autoptr(GError) err = NULL;
    size_t payload = vz_frame_begin(packet, &frame);
    if (!r->legacy) {
        uint32_t id = GUINT32_TO_BE((uint32_t)r->callback_id);
        g_byte_array_append(packet, (const guint8 *)&id, sizeof(id));
    }
    g_byte_array_append(packet, body->data, body->len);
    /* Only a body beyond the message limit can fail here, and rows bound theirs far below it. */
    if (vz_frame_end(packet, payload, &err))
        vz_conn_send_event(r->conn, g_steal_pointer(&packet));
}

static bool wants(const registration *r, const vz_event_kind *kind, const vz_wire_domain *dom)
{
    if (r->event_id != (int32_t)kind->id || (r->legacy && !kind->legacy_proc))
        return false;
    return !r->filtered || !memcmp(r->uuid, dom->uuid, sizeof(r->uuid));
}

void vz_events_emit(vz_events *events, vz_event_id id, const void *body)
{
    const vz_event_kind *kind = kind_of(id);
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    g_autoptr(GError) err = NULL;
    bool encoded = vz_xdr_encode(kind->body, body, bytes, &err);
    g_assert(encoded);
    g_mutex_lock(&events->lock);
    for (guint i = 0; i < events->registrations->len; i++)
        if (wants(at(events, i), kind, body))
            send_to(at(events, i), kind, bytes);
    g_mutex_unlock(&events->lock);
}
