/* client.c - see client.h. One thread; the inbox calls on_socket and on_tick from whatever wait is
 * going on. A client that lost its connection answers every call with the reason. */
#include "rpc/client.h"

#include "base/fd.h"
#include "base/units.h"
#include "rpc/client_stream.h"
#include "rpc/connect.h"
#include "rpc/keepalive.h"
#include "rpc/packets.h"
#include "wire/xdr.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define AUTH_NONE            0
#define FEATURE_KEEPALIVE    10
#define KEEPALIVE_INTERVAL_S 5
#define KEEPALIVE_COUNT      5
#define TICK_S               1
/* Memory of one event's body, and of an error. */
#define MESSAGE_BYTES ((size_t)1024 * 1024)
#define ERROR_BYTES   ((size_t)8 * 1024 * 1024)

struct vz_pending {
    vz_client *client;
    const vz_procedure *procedure;
    uint32_t serial;
    uint8_t *reply; /* the whole packet; NULL until it came */
    size_t reply_bytes;
};

struct vz_client {
    vz_inbox *inbox;
    vz_packets *packets; /* NULL: lost */
    GError *lost;
    char *peer; /* for messages */
    char *remote_address;
    char *local_address;
    uint32_t next_serial;
    GHashTable *pending; /* serial -> vz_pending, owned until finished */
    int tick_fd;
    bool pings;
    bool becomes_stream; /* what follows the next answer is not ours */
    bool became_stream;
    vz_keepalive keepalive;
    vz_client_event_fn event_fn;
    void *event_data;
};

/* ---- losing the connection ---- */

static void lose(vz_client *client, const char *why)
{
    if (!client->packets)
        return;
    vz_fail(&client->lost, VZ_ERR_SYSTEM_ERROR, "the connection to %s is lost: %s", client->peer,
            why);
    vz_inbox_unwatch(client->inbox, vz_packets_fd(client->packets));
    g_clear_pointer(&client->packets, vz_packets_free);
}

static bool fail_lost(const vz_client *client, GError **err)
{
    return vz_fail(err, VZ_ERR_SYSTEM_ERROR, "%s", client->lost->message);
}

bool vz_client_alive(const vz_client *client, GError **err)
{
    if (client->lost && err)
        fail_lost(client, err);
    return !client->lost;
}

const char *vz_client_remote_address(const vz_client *client)
{
    return client->remote_address;
}

const char *vz_client_local_address(const vz_client *client)
{
    return client->local_address;
}

/* ---- packets in ---- */

static void take_reply(vz_client *client, const vz_frame *frame, const uint8_t *data, size_t bytes)
{
    vz_pending *pending = g_hash_table_lookup(client->pending, GUINT_TO_POINTER(frame->serial));
    /* A reply to a call that timed out or was cancelled comes too late for anybody. */
    if (!pending || pending->reply || frame->procedure != (int32_t)pending->procedure->number)
        return;
    pending->reply = g_memdup2(data, bytes);
    pending->reply_bytes = bytes;
    client->became_stream = client->becomes_stream;
}

static const vz_event_kind *event_kind(int32_t procedure)
{
    for (size_t i = 0; i < vz_n_event_kinds; i++)
        if (vz_event_kinds[i].callback_proc == procedure)
            return &vz_event_kinds[i];
    return NULL;
}

/* Events that we have no row for are of a newer daemon, for somebody else. */
static bool take_event(vz_client *client, const vz_frame *frame, const uint8_t *payload,
                       size_t bytes, GError **err)
{
    const vz_event_kind *kind = event_kind(frame->procedure);
    uint32_t id;
    if (!kind || !client->event_fn)
        return true;
    if (bytes < sizeof(id))
        return vz_fail(err, VZ_ERR_RPC, "an event without callback id came");
    memcpy(&id, payload, sizeof(id));
    g_autoptr(vz_arena) arena = vz_arena_new(MESSAGE_BYTES);
    void *body = vz_arena_alloc(arena, kind->body->size);
    if (!vz_xdr_decode(kind->body, payload + sizeof(id), bytes - sizeof(id), arena, body, err))
        return false;
    client->event_fn(kind->id, (int32_t)GUINT32_FROM_BE(id), body, client->event_data);
    return true;
}

static void send_packet(vz_client *client, GByteArray *take_packet);

static bool take_packet(vz_client *client, const uint8_t *data, size_t bytes, GError **err)
{
    vz_frame frame;
    vz_frame_parse(data, &frame);
    if (frame.program == VZ_PROGRAM_KEEPALIVE) {
        if (frame.procedure == VZ_KEEPALIVE_PING)
            send_packet(client, vz_keepalive_packet(VZ_KEEPALIVE_PONG));
        return true;
    }
    if (frame.program != VZ_PROGRAM_REMOTE && frame.program != VZ_PROGRAM_VIRTVZ)
        return vz_fail(err, VZ_ERR_RPC, "a packet of program 0x%x came", frame.program);
    if (frame.type == VZ_PACKET_REPLY)
        take_reply(client, &frame, data, bytes);
    else if (frame.type == VZ_PACKET_MESSAGE)
        return take_event(client, &frame, data + VZ_FRAME_HEADER_BYTES,
                          bytes - VZ_FRAME_HEADER_BYTES, err);
    return true;
}

/* false: the connection is lost, *err says why. */
static bool take_packets(vz_client *client, GError **err)
{
    const uint8_t *data;
    size_t bytes;
    if (!vz_packets_fill(client->packets, err))
        return false;
    vz_keepalive_heard(&client->keepalive, vz_now_us());
    do {
        if (!vz_packets_next(client->packets, VZ_FRAME_MESSAGE_MAX, &data, &bytes, err))
            return false;
        if (data && !take_packet(client, data, bytes, err))
            return false;
    } while (data && client->packets && !client->became_stream);
    return true;
}

/* ---- packets out ---- */

static void on_socket(int fd, short revents, void *data);

static void flush(vz_client *client)
{
    g_autoptr(GError) err = NULL;
    if (!client->packets)
        return;
    if (!vz_packets_flush(client->packets, &err)) {
        lose(client, err->message);
        return;
    }
    short events = vz_packets_queued(client->packets) ? POLLIN | POLLOUT : POLLIN;
    vz_inbox_watch(client->inbox, vz_packets_fd(client->packets), events, on_socket, client);
}

static void send_packet(vz_client *client, GByteArray *take_packet)
{
    if (!client->packets) {
        g_byte_array_unref(take_packet);
        return;
    }
    vz_packets_queue(client->packets, take_packet);
    flush(client);
}

static void on_socket(int fd, short revents, void *data)
{
    (void)fd;
    vz_client *client = data;
    g_autoptr(GError) err = NULL;
    if (client->became_stream)
        return;
    if ((revents & (POLLIN | POLLHUP | POLLERR)) && !take_packets(client, &err))
        lose(client, err->message);
    else if (revents & POLLOUT)
        flush(client);
}

static void on_tick(int fd, short revents, void *data)
{
    (void)revents;
    vz_client *client = data;
    uint64_t times;
    if (read(fd, &times, sizeof(times)) < 0 || !client->pings || !client->packets)
        return;
    switch (vz_keepalive_tick(&client->keepalive, vz_now_us())) {
    case VZ_KEEPALIVE_NOTHING:
        break;
    case VZ_KEEPALIVE_SEND_PING:
        send_packet(client, vz_keepalive_packet(VZ_KEEPALIVE_PING));
        break;
    case VZ_KEEPALIVE_DEAD:
        lose(client, "no answer to keepalive pings");
        break;
    }
}

/* ---- calls ---- */

static void pending_free(void *data)
{
    vz_pending *pending = data;
    g_free(pending->reply);
    g_free(pending);
}

static vz_frame frame_of(uint32_t serial, const vz_procedure *procedure, vz_packet_type type)
{
    return (vz_frame){
        .program = vz_procedure_program((int32_t)procedure->number),
        .version = VZ_PROGRAM_VERSION,
        .procedure = (int32_t)procedure->number,
        .type = type,
        .serial = serial,
    };
}

static GByteArray *encode_call(uint32_t serial, const vz_procedure *procedure, const void *args,
                               GError **err)
{
    const vz_frame frame = frame_of(serial, procedure, VZ_PACKET_CALL);
    g_autoptr(GByteArray) packet = g_byte_array_new();
    size_t payload = vz_frame_begin(packet, &frame);
    if (!vz_xdr_encode(procedure->args, args, packet, err) || !vz_frame_end(packet, payload, err))
        return NULL;
    return g_steal_pointer(&packet);
}

vz_pending *vz_client_start(vz_client *client, vz_proc proc, const void *args, GError **err)
{
    const vz_procedure *procedure = vz_procedure_find((int32_t)proc);
    if (client->lost) {
        fail_lost(client, err);
        return NULL;
    }
    GByteArray *packet = encode_call(client->next_serial, procedure, args, err);
    if (!packet)
        return NULL;
    vz_pending *pending = g_new0(vz_pending, 1);
    pending->client = client;
    pending->procedure = procedure;
    pending->serial = client->next_serial++;
    g_hash_table_insert(client->pending, GUINT_TO_POINTER(pending->serial), pending);
    send_packet(client, packet);
    return pending;
}

bool vz_pending_done(const vz_pending *pending)
{
    return pending->reply || pending->client->lost;
}

static bool pending_done(void *pending)
{
    return vz_pending_done(pending);
}

static bool decode_error(const uint8_t *payload, size_t bytes, GError **err)
{
    vz_wire_error error;
    g_autoptr(vz_arena) arena = vz_arena_new(ERROR_BYTES);
    if (!vz_xdr_decode(&vz_schema_error, payload, bytes, arena, &error, err))
        return false;
    return vz_fail_from_peer(err, error.code, error.message);
}

static bool decode_reply(const vz_pending *pending, void *ret, vz_arena *arena, GError **err)
{
    vz_frame frame;
    const uint8_t *payload = pending->reply + VZ_FRAME_HEADER_BYTES;
    size_t bytes = pending->reply_bytes - VZ_FRAME_HEADER_BYTES;
    vz_wire_none none;
    vz_frame_parse(pending->reply, &frame);
    if (frame.status != VZ_STATUS_OK)
        return decode_error(payload, bytes, err);
    return vz_xdr_decode(pending->procedure->ret, payload, bytes, arena, ret ? ret : &none, err);
}

/* What the wait ended with; an answer that has come counts, whatever ended the wait. */
static bool outcome(const vz_pending *pending, vz_wait_result result, void *ret, vz_arena *arena,
                    GError **err)
{
    const vz_client *client = pending->client;
    if (pending->reply)
        return decode_reply(pending, ret, arena, err);
    if (client->lost)
        return fail_lost(client, err);
    if (result == VZ_WAIT_CANCELLED)
        return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "%s at %s: cancelled",
                       pending->procedure->name, client->peer);
    return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "%s at %s: no answer in time",
                   pending->procedure->name, client->peer);
}

bool vz_client_finish(vz_client *client, vz_pending *take_pending, void *ret,
                      const vz_client_wait *wait, GError **err)
{
    vz_wait_result result =
        wait->cancellable
            ? vz_wait(client->inbox, pending_done, take_pending, wait->deadline_us)
            : vz_wait_uncancellable(client->inbox, pending_done, take_pending, wait->deadline_us);
    bool ok = outcome(take_pending, result, ret, wait->arena, err);
    g_hash_table_remove(client->pending, GUINT_TO_POINTER(take_pending->serial));
    return ok;
}

bool vz_client_call(vz_client *client, vz_proc proc, const void *args, void *ret,
                    const vz_client_wait *wait, GError **err)
{
    vz_pending *pending = vz_client_start(client, proc, args, err);
    return pending && vz_client_finish(client, pending, ret, wait, err);
}

bool vz_client_supports(vz_client *client, int32_t feature, const vz_client_wait *wait,
                        bool *ret_supported, GError **err)
{
    const vz_wire_connect_supports_feature_args args = {feature};
    vz_wire_int_ret ret;
    if (!vz_remote_connect_supports_feature(client, &args, &ret, wait, err))
        return false;
    *ret_supported = ret.value != 0;
    return true;
}

int vz_client_fd(const vz_client *client)
{
    return client->packets ? vz_packets_fd(client->packets) : -1;
}

int vz_client_become_stream(vz_client *take_client, vz_proc proc, const void *args,
                            const vz_client_wait *wait, GError **err)
{
    g_autoptr(vz_client) client = take_client;
    client->becomes_stream = true;
    vz_pending *pending = vz_client_start(client, proc, args, err);
    if (!pending)
        return -1;
    const vz_frame frame = frame_of(pending->serial, pending->procedure, VZ_PACKET_STREAM);
    if (!vz_client_finish(client, pending, NULL, wait, err) || !vz_client_alive(client, err))
        return -1;
    vz_inbox_unwatch(client->inbox, vz_packets_fd(client->packets));
    return vz_client_stream_start(g_steal_pointer(&client->packets), &frame, err);
}

void vz_client_set_event_fn(vz_client *client, vz_client_event_fn fn, void *data)
{
    client->event_fn = fn;
    client->event_data = data;
}

/* ---- opening ---- */

static char *numeric_address(int fd,
                             int (*get)(int, struct sockaddr *restrict, socklen_t *restrict))
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    char host[NI_MAXHOST];
    if (get(fd, (struct sockaddr *)&address, &bytes) ||
        getnameinfo((struct sockaddr *)&address, bytes, host, sizeof(host), NULL, 0,
                    NI_NUMERICHOST))
        return NULL;
    return g_strdup(host);
}

static void start_ticking(vz_client *client)
{
    const struct itimerspec every = {{TICK_S, 0}, {TICK_S, 0}};
    client->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    g_assert(client->tick_fd >= 0);
    timerfd_settime(client->tick_fd, 0, &every, NULL);
    vz_keepalive_init(&client->keepalive, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT, vz_now_us());
    vz_inbox_watch(client->inbox, client->tick_fd, POLLIN, on_tick, client);
}

static vz_client *client_new(const vz_uri *uri, int take_fd, vz_inbox *inbox)
{
    vz_client *client = g_new0(vz_client, 1);
    client->inbox = inbox;
    client->pending = g_hash_table_new_full(NULL, NULL, NULL, pending_free);
    if (uri->host) {
        client->peer = vz_uri_authority(uri);
        client->remote_address = numeric_address(take_fd, getpeername);
        client->local_address = numeric_address(take_fd, getsockname);
    } else {
        client->peer = g_strdup(uri->path);
    }
    client->packets = vz_packets_new(take_fd);
    vz_inbox_watch(inbox, take_fd, POLLIN, on_socket, client);
    start_ticking(client);
    return client;
}

static bool authenticate(vz_client *client, const vz_client_wait *wait, GError **err)
{
    vz_wire_auth_list_ret list;
    if (!vz_remote_auth_list(client, &list, wait, err))
        return false;
    for (uint32_t i = 0; i < list.types.count; i++)
        if (list.types.items[i] == AUTH_NONE)
            return true;
    return list.types.count == 0 ||
           vz_fail(err, VZ_ERR_AUTH_UNAVAILABLE,
                   "%s wants a login, which this version does not speak; connect as root to the "
                   "unix socket, or to a port without login",
                   client->peer);
}

static bool handshake(vz_client *client, const vz_client_wait *wait, GError **err)
{
    const vz_wire_connect_open_args args = {.name = "vz:///system"};
    return authenticate(client, wait, err) &&
           vz_client_supports(client, FEATURE_KEEPALIVE, wait, &client->pings, err) &&
           vz_remote_connect_open(client, &args, wait, err);
}

vz_client *vz_client_open(const char *uri, vz_inbox *inbox, int64_t deadline_us, GError **err)
{
    g_auto(vz_uri) parsed = {0};
    if (!vz_uri_parse(uri, &parsed, err))
        return NULL;
    int fd = vz_connect(&parsed, inbox, deadline_us, err);
    if (fd < 0)
        return NULL;
    g_autoptr(vz_client) client = client_new(&parsed, fd, inbox);
    g_autoptr(vz_arena) arena = vz_arena_new(MESSAGE_BYTES);
    const vz_client_wait wait = {deadline_us, true, arena};
    return handshake(client, &wait, err) ? g_steal_pointer(&client) : NULL;
}

/* The goodbye is written if the socket takes it at once; the peer copes without. */
static void say_goodbye(vz_client *client)
{
    g_autoptr(GError) err = NULL;
    if (client->packets)
        vz_client_start(client, VZ_PROC_connect_close, NULL, &err);
}

void vz_client_free(vz_client *client)
{
    if (!client)
        return;
    say_goodbye(client);
    lose(client, "closed");
    vz_inbox_unwatch(client->inbox, client->tick_fd);
    vz_fd_clear(&client->tick_fd);
    g_hash_table_unref(client->pending);
    g_clear_error(&client->lost);
    g_free(client->peer);
    g_free(client->remote_address);
    g_free(client->local_address);
    g_free(client);
}
