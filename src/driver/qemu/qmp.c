/* qmp.c - see qmp.h.
 *
 *     socket ─► in (bytes) ─► lines ─► reply of the awaited id
 *                                  └─► events (queue) ─► vz_qmp_dispatch ─► hooks
 *
 * An attached connection has an eventfd besides its socket: events that were read while a command
 * waited leave nothing in the socket that would wake the inbox. */
#include "driver/qemu/qmp.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_CHUNK_BYTES ((size_t)64 * 1024)
/* Read in one go before others get their turn; the socket stays readable. */
#define READ_CHUNKS_AT_ONCE 64
#define ERROR_CLASS_BYTES   64

typedef struct {
    char *name;
    json_t *data;
    int64_t arrived_us;
    int64_t qemu_time_us;
} event;

struct vz_qmp {
    int fd;
    GByteArray *in;
    guint searched; /* bytes of `in` known to hold no newline */
    json_int_t last_id;
    json_int_t awaited_id; /* 0: none */
    unsigned unanswered;   /* commands; also those that were given up */
    json_t *reply;
    json_t *greeting;
    GQueue events;
    char *broken; /* why; NULL while it works */
    char error_class[ERROR_CLASS_BYTES];
    unsigned version;
    char *package;
    bool oob;        /* both sides can */
    vz_inbox *inbox; /* NULL: not attached */
    int wake_fd;
    vz_qmp_hooks hooks;
    void *user;
    bool dispatching;
    bool told_closed;
};

static void event_free(event *e)
{
    g_free(e->name);
    json_decref(e->data);
    g_free(e);
}

/* Keeps the first reason: what follows is only its consequence. */
static void set_broken(vz_qmp *qmp, const char *format, ...) G_GNUC_PRINTF(2, 3);
static void set_broken(vz_qmp *qmp, const char *format, ...)
{
    if (qmp->broken)
        return;
    va_list args;
    va_start(args, format);
    qmp->broken = g_strdup_vprintf(format, args);
    va_end(args);
}

static int64_t stamp_us(const json_t *message)
{
    const json_t *stamp = json_object_get(message, "timestamp");
    json_int_t seconds = json_integer_value(json_object_get(stamp, "seconds"));
    json_int_t micros = json_integer_value(json_object_get(stamp, "microseconds"));
    if (seconds <= 0 || seconds > INT64_MAX / VZ_QMP_TIMEOUT_US || micros < 0 || micros > 999999)
        return 0;
    return seconds * 1000000 + micros;
}

static void queue_event(vz_qmp *qmp, const json_t *message)
{
    const char *name = json_string_value(json_object_get(message, "event"));
    if (!name) {
        set_broken(qmp, "QEMU sent an event without a name");
        return;
    }
    if (g_queue_get_length(&qmp->events) >= VZ_QMP_EVENTS_MAX) {
        set_broken(qmp, "QEMU sent more than %d events at once", VZ_QMP_EVENTS_MAX);
        return;
    }
    event *e = g_new0(event, 1);
    e->name = g_strdup(name);
    e->data = json_incref(json_object_get(message, "data"));
    e->arrived_us = vz_now_us();
    e->qemu_time_us = stamp_us(message);
    g_queue_push_tail(&qmp->events, e);
}

static void take_reply(vz_qmp *qmp, json_t *message)
{
    const json_t *id = json_object_get(message, "id");
    if (!json_is_integer(id)) {
        const char *text =
            json_string_value(json_object_get(json_object_get(message, "error"), "desc"));
        set_broken(qmp, "QEMU sent a reply without an id: %s", text ? text : "no reason given");
        return;
    }
    json_int_t number = json_integer_value(id);
    if (number < 1 || number > qmp->last_id || qmp->unanswered == 0 ||
        (number == qmp->awaited_id && qmp->reply)) {
        set_broken(qmp, "QEMU answered a command that was not sent");
        return;
    }
    qmp->unanswered--;
    if (number == qmp->awaited_id) /* else the late reply of a command that was given up */
        qmp->reply = json_incref(message);
}

static void handle_line(vz_qmp *qmp, const char *line, size_t bytes)
{
    json_error_t error;
    json_t *message = json_loadb(line, bytes, 0, &error);
    if (!json_is_object(message))
        set_broken(qmp, "QEMU sent what is not QMP: %s",
                   message ? "not an object" : (const char *)error.text);
    else if (json_object_get(message, "event"))
        queue_event(qmp, message);
    else if (json_object_get(message, "return") || json_object_get(message, "error"))
        take_reply(qmp, message);
    else if (json_object_get(message, "QMP") && !qmp->greeting)
        qmp->greeting = json_incref(message);
    else
        set_broken(qmp, "QEMU sent a message of no known kind");
    json_decref(message);
}

static void handle_lines(vz_qmp *qmp)
{
    guint start = 0;
    while (!qmp->broken && qmp->searched < qmp->in->len) {
        const uint8_t *end =
            memchr(qmp->in->data + qmp->searched, '\n', qmp->in->len - qmp->searched);
        if (!end) {
            qmp->searched = qmp->in->len;
            break;
        }
        guint after = (guint)(end - qmp->in->data) + 1;
        if (after - start > 2) /* more than an empty line's CR LF */
            handle_line(qmp, (const char *)qmp->in->data + start, after - 1 - start);
        start = qmp->searched = after;
    }
    if (start > 0) {
        g_byte_array_remove_range(qmp->in, 0, start);
        qmp->searched -= start;
    }
    if (qmp->in->len > VZ_QMP_LINE_MAX)
        set_broken(qmp, "QEMU sent a line longer than %zu bytes", VZ_QMP_LINE_MAX);
}

/* Reads what is there without waiting. */
static void read_some(vz_qmp *qmp)
{
    for (int i = 0; i < READ_CHUNKS_AT_ONCE && !qmp->broken; i++) {
        guint before = qmp->in->len;
        g_byte_array_set_size(qmp->in, before + (guint)READ_CHUNK_BYTES);
        ssize_t n = recv(qmp->fd, qmp->in->data + before, READ_CHUNK_BYTES, MSG_DONTWAIT);
        int errnum = errno;
        g_byte_array_set_size(qmp->in, before + (n > 0 ? (guint)n : 0));
        if (n > 0) {
            handle_lines(qmp);
        } else if (n == 0) {
            set_broken(qmp, "QEMU closed the monitor");
        } else if (errnum == EAGAIN) {
            return;
        } else if (errnum != EINTR) {
            set_broken(qmp, "cannot read from the monitor: %s", g_strerror(errnum));
        }
    }
}

/* Sends the line whole, with fd (-1: none) beside its first bytes. */
static bool send_line(vz_qmp *qmp, const char *line, int fd, int64_t deadline_us)
{
    size_t bytes = strlen(line);
    while (bytes > 0 && !qmp->broken) {
        g_autoptr(GError) err = NULL;
        struct iovec iov = {.iov_base = (void *)(uintptr_t)line, .iov_len = bytes};
        union {
            struct cmsghdr align;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
        memset(&control, 0, sizeof(control));
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
        if (fd >= 0) {
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof(control.bytes);
            struct cmsghdr *header = CMSG_FIRSTHDR(&message);
            header->cmsg_level = SOL_SOCKET;
            header->cmsg_type = SCM_RIGHTS;
            header->cmsg_len = CMSG_LEN(sizeof(int));
            memcpy(CMSG_DATA(header), &fd, sizeof(int));
        }
        ssize_t n = sendmsg(qmp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            line += n;
            bytes -= (size_t)n;
            fd = -1;
        } else if (n < 0 && errno == EAGAIN) {
            if (!vz_poll_one(qmp->fd, POLLOUT, deadline_us))
                set_broken(qmp, "QEMU did not read its monitor in time");
        } else if (n < 0 && errno != EINTR) {
            read_some(qmp); /* a QEMU that has gone; what it said last may still be there */
            set_broken(qmp, "QEMU closed the monitor");
        }
    }
    return !qmp->broken;
}

static void wake(vz_qmp *qmp)
{
    if (qmp->inbox && (qmp->broken || !g_queue_is_empty(&qmp->events))) {
        ssize_t n = write(qmp->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
        (void)n; /* full means that it is awake already */
    }
}

/* Turns {"error": {"class", "desc"}} into an error; an honest "return" into its value. */
static json_t *unwrap_reply(vz_qmp *qmp, const char *name, json_t *reply, GError **err)
{
    json_t *value = json_object_get(reply, "return");
    if (value)
        return json_incref(value);
    const json_t *error = json_object_get(reply, "error");
    const char *class = json_string_value(json_object_get(error, "class"));
    const char *text = json_string_value(json_object_get(error, "desc"));
    g_strlcpy(qmp->error_class, class ? class : "GenericError", sizeof(qmp->error_class));
    vz_fail(err, VZ_ERR_OPERATION_FAILED, "unable to execute QEMU command '%s': %s", name,
            text ? text : "no reason given");
    return NULL;
}

static void fail_unanswered(const char *name, GError **err)
{
    vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
            "QEMU did not answer the command '%s' in time: it hangs or the host is overloaded",
            name);
}

static json_t *await_reply(vz_qmp *qmp, const char *name, int64_t deadline_us, GError **err)
{
    while (!qmp->reply && !qmp->broken && vz_poll_one(qmp->fd, POLLIN, deadline_us))
        read_some(qmp);
    json_t *reply = g_steal_pointer(&qmp->reply);
    qmp->awaited_id = 0;
    if (reply) {
        json_t *value = unwrap_reply(qmp, name, reply, err);
        json_decref(reply);
        return value;
    }
    if (qmp->broken)
        vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU command '%s' was not answered: %s", name,
                qmp->broken);
    else
        fail_unanswered(name, err);
    return NULL;
}

/* false: as many commands as may be wait for QEMU still. */
static bool await_turn(vz_qmp *qmp, int64_t deadline_us)
{
    while (qmp->unanswered >= VZ_QMP_UNANSWERED_MAX && !qmp->broken &&
           vz_poll_one(qmp->fd, POLLIN, deadline_us))
        read_some(qmp);
    return qmp->unanswered < VZ_QMP_UNANSWERED_MAX || qmp->broken;
}

typedef struct {
    const char *name;
    bool out_of_band;
    int fd; /* to go with it; -1: none */
    int64_t timeout_us;
} order;

static json_t *command(vz_qmp *qmp, const order *o, json_t *take_args, GError **err)
{
    int64_t deadline_us = vz_now_us() + o->timeout_us;
    qmp->error_class[0] = '\0';
    if (!o->out_of_band && !await_turn(qmp, deadline_us)) {
        json_decref(take_args);
        fail_unanswered(o->name, err);
        return NULL;
    }
    qmp->awaited_id = ++qmp->last_id;
    qmp->unanswered++;
    json_t *message =
        json_pack("{s:s, s:o*, s:I}", o->out_of_band && qmp->oob ? "exec-oob" : "execute", o->name,
                  "arguments", take_args, "id", qmp->awaited_id);
    g_assert(message);
    char *dump = json_dumps(message, JSON_COMPACT);
    json_decref(message);
    g_autofree char *line = g_strconcat(dump, "\n", NULL);
    free(dump);
    send_line(qmp, line, o->fd, deadline_us);
    json_t *value = await_reply(qmp, o->name, deadline_us, err);
    wake(qmp);
    return value;
}

static bool done(json_t *take_value)
{
    json_decref(take_value);
    return take_value != NULL;
}

json_t *vz_qmp_command(vz_qmp *qmp, const char *name, json_t *take_args, int64_t timeout_us,
                       GError **err)
{
    const order o = {.name = name, .fd = -1, .timeout_us = timeout_us};
    return command(qmp, &o, take_args, err);
}

bool vz_qmp_do(vz_qmp *qmp, const char *name, json_t *take_args, int64_t timeout_us, GError **err)
{
    return done(vz_qmp_command(qmp, name, take_args, timeout_us, err));
}

bool vz_qmp_do_out_of_band(vz_qmp *qmp, const char *name, json_t *take_args, int64_t timeout_us,
                           GError **err)
{
    const order o = {.name = name, .out_of_band = true, .fd = -1, .timeout_us = timeout_us};
    return done(command(qmp, &o, take_args, err));
}

const char *vz_qmp_error_class(const vz_qmp *qmp)
{
    return qmp->error_class;
}

bool vz_qmp_send_fd(vz_qmp *qmp, const char *fd_name, int fd, GError **err)
{
    const order o = {.name = "getfd", .fd = fd, .timeout_us = VZ_QMP_TIMEOUT_US};
    return done(command(qmp, &o, json_pack("{s:s}", "fdname", fd_name), err));
}

bool vz_qmp_add_fd(vz_qmp *qmp, unsigned fdset, int fd, GError **err)
{
    const order o = {.name = "add-fd", .fd = fd, .timeout_us = VZ_QMP_TIMEOUT_US};
    return done(command(qmp, &o, json_pack("{s:I}", "fdset-id", (json_int_t)fdset), err));
}

static bool read_greeting(vz_qmp *qmp, GError **err)
{
    const json_t *version = json_object_get(json_object_get(qmp->greeting, "QMP"), "version");
    const json_t *numbers = json_object_get(version, "qemu");
    int major;
    int minor;
    int micro;
    if (json_unpack((json_t *)(uintptr_t)numbers, "{s:i, s:i, s:i}", "major", &major, "minor",
                    &minor, "micro", &micro) < 0 ||
        major < 0 || major > 999 || minor < 0 || minor > 999 || micro < 0 || micro > 999)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU's greeting names no version");
    qmp->version = (unsigned)major * 1000000 + (unsigned)minor * 1000 + (unsigned)micro;
    const char *package = json_string_value(json_object_get(version, "package"));
    qmp->package = g_strdup(package ? package : "");
    return true;
}

static bool offers_oob(const json_t *greeting)
{
    size_t i;
    json_t *capability;
    json_t *all = json_object_get(json_object_get(greeting, "QMP"), "capabilities");
    json_array_foreach(all, i, capability)
    {
        if (g_strcmp0(json_string_value(capability), "oob") == 0)
            return true;
    }
    return false;
}

static bool greet(vz_qmp *qmp, int64_t deadline_us, GError **err)
{
    while (!qmp->greeting && !qmp->broken && vz_poll_one(qmp->fd, POLLIN, deadline_us))
        read_some(qmp);
    if (!qmp->greeting && qmp->broken)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s", qmp->broken);
    if (!qmp->greeting)
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "QEMU did not greet on its monitor in time");
    if (!read_greeting(qmp, err))
        return false;
    qmp->oob = offers_oob(qmp->greeting);
    return vz_qmp_do(qmp, "qmp_capabilities",
                     qmp->oob ? json_pack("{s:[s]}", "enable", "oob") : NULL,
                     MAX(deadline_us - vz_now_us(), 0), err);
}

vz_qmp *vz_qmp_open(int take_fd, int64_t deadline_us, GError **err)
{
    g_autoptr(vz_qmp) qmp = g_new0(vz_qmp, 1);
    qmp->fd = take_fd;
    qmp->wake_fd = -1;
    qmp->in = g_byte_array_new();
    g_queue_init(&qmp->events);
    return greet(qmp, deadline_us, err) ? g_steal_pointer(&qmp) : NULL;
}

void vz_qmp_close(vz_qmp *qmp)
{
    if (!qmp)
        return;
    vz_qmp_detach(qmp);
    vz_fd_clear(&qmp->fd);
    g_byte_array_unref(qmp->in);
    for (event *e; (e = g_queue_pop_head(&qmp->events));)
        event_free(e);
    json_decref(qmp->reply);
    json_decref(qmp->greeting);
    g_free(qmp->broken);
    g_free(qmp->package);
    g_free(qmp);
}

static void on_readable(int fd, short revents, void *data)
{
    (void)fd;
    (void)revents;
    vz_qmp_dispatch(data);
}

static void on_wake(int fd, short revents, void *data)
{
    (void)revents;
    uint64_t count;
    ssize_t n = read(fd, &count, sizeof(count));
    (void)n;
    vz_qmp_dispatch(data);
}

void vz_qmp_attach(vz_qmp *qmp, vz_inbox *inbox, const vz_qmp_hooks *hooks, void *user)
{
    vz_qmp_detach(qmp);
    qmp->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g_assert(qmp->wake_fd >= 0);
    qmp->inbox = inbox;
    qmp->hooks = *hooks;
    qmp->user = user;
    vz_inbox_watch(inbox, qmp->wake_fd, POLLIN, on_wake, qmp);
    if (!qmp->broken)
        vz_inbox_watch(inbox, qmp->fd, POLLIN, on_readable, qmp);
    wake(qmp);
}

void vz_qmp_detach(vz_qmp *qmp)
{
    if (!qmp->inbox)
        return;
    vz_inbox_unwatch(qmp->inbox, qmp->fd);
    vz_inbox_unwatch(qmp->inbox, qmp->wake_fd);
    vz_fd_clear(&qmp->wake_fd);
    qmp->inbox = NULL;
    qmp->hooks = (vz_qmp_hooks){0};
}

static void deliver(vz_qmp *qmp)
{
    for (event *e; (e = g_queue_pop_head(&qmp->events));) {
        vz_qmp_event public = {e->name, e->data, e->arrived_us, e->qemu_time_us};
        if (qmp->hooks.on_event)
            qmp->hooks.on_event(&public, qmp->user);
        event_free(e);
    }
}

bool vz_qmp_dispatch(vz_qmp *qmp)
{
    if (!qmp->broken)
        read_some(qmp);
    if (qmp->dispatching)
        return !qmp->broken;
    qmp->dispatching = true;
    deliver(qmp);
    qmp->dispatching = false;
    bool works = !qmp->broken;
    if (!works && qmp->inbox)
        vz_inbox_unwatch(qmp->inbox, qmp->fd);
    if (!works && !qmp->told_closed && qmp->hooks.on_closed) {
        qmp->told_closed = true;
        qmp->hooks.on_closed(qmp->user); /* may have freed qmp */
    }
    return works;
}

int vz_qmp_fd(const vz_qmp *qmp)
{
    return qmp->fd;
}

bool vz_qmp_broken(const vz_qmp *qmp)
{
    return qmp->broken != NULL;
}

unsigned vz_qmp_version(const vz_qmp *qmp)
{
    return qmp->version;
}

const char *vz_qmp_package(const vz_qmp *qmp)
{
    return qmp->package;
}
