/* main.c - virtvz-carrier: the process that pumps the channels of one job at one host.
 *
 * Started by virtvzd (src/channel/carrier.c) as `virtvz-carrier JOB-UUID PEER-FINGERPRINT
 * ORPHAN-MS` with the control connection, the listening control socket and the key as descriptors
 * 3, 4, 5. The main thread talks to the daemon and reports; each channel has its own thread
 * (serve.c). A daemon that goes away is no reason to stop: the next one connects to the listening
 * socket. */
#include "channel/carrier/sandbox.h"
#include "channel/carrier/serve.h"
#include "channel/control.h"
#include "channel/tls.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/spawn.h"
#include "base/units.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    vz_serve serve;
    int control; /* -1: no daemon */
    int listener;
    int wake_fd;
    uint64_t start_time;
    bool sync_due;
    bool backlog;      /* the daemon does not read; go on when it does */
    int64_t orphan_us; /* how long it lives without a daemon and a channel */
    int64_t orphan_since_us;
    int64_t marked_us;
} carrier;

static void lose_daemon(carrier *c)
{
    vz_fd_clear(&c->control);
    c->backlog = false;
    c->sync_due = false;
    c->orphan_since_us = vz_now_us();
}

/* A daemon that cannot be told is as good as gone; the next one is told everything. */
static bool tell(carrier *c, const vz_control_message *message)
{
    g_autoptr(GError) err = NULL;
    if (c->control >= 0 && vz_control_send(c->control, message, NULL, 0, &err))
        return true;
    lose_daemon(c);
    return false;
}

static void greet(carrier *c)
{
    vz_control_message ready = {
        .type = VZ_CONTROL_READY, .pid = getpid(), .start_time = c->start_time};
    memcpy(ready.job, c->serve.job, sizeof(ready.job));
    vz_table_mark(c->serve.table, true);
    c->sync_due = true;
    tell(c, &ready);
}

/* Whether the daemon takes another message now. */
static bool can_tell(carrier *c)
{
    c->backlog = c->control >= 0 && !vz_poll_one(c->control, POLLOUT, vz_now_us());
    return c->control >= 0 && !c->backlog;
}

static void report(carrier *c)
{
    vz_channel_info info;
    vz_control_message message;
    int64_t now_us = vz_now_us();
    if (now_us - c->marked_us >= VZ_CARRIER_REPORT_MS * VZ_USEC_PER_MSEC) {
        vz_table_mark(c->serve.table, false);
        c->marked_us = now_us;
    }
    while (can_tell(c)) {
        if (vz_table_take_news(c->serve.table, &info)) {
            vz_control_from_info(&info, &message);
            tell(c, &message);
        } else if (c->sync_due) {
            message = (vz_control_message){.type = VZ_CONTROL_SYNCED};
            c->sync_due = !tell(c, &message);
        } else {
            return;
        }
    }
}

/* A channel that could not even be added: the daemon learns it as that channel's end. */
static void report_refusal(carrier *c, const vz_control_message *about, const GError *why)
{
    vz_channel_info info;
    vz_control_message message;
    vz_control_to_info(about, &info);
    info.state = VZ_CHANNEL_FAILED;
    info.reason_code = (int)vz_error_number(why);
    g_strlcpy(info.reason, why->message, sizeof(info.reason));
    vz_control_from_info(&info, &message);
    tell(c, &message);
}

static void add_channel(carrier *c, const vz_control_message *m, const int *fds, size_t n_fds)
{
    bool opening = m->type == VZ_CONTROL_OPEN;
    size_t local_at = opening ? 1 : 0;
    int taken[2] = {fds[local_at], n_fds > local_at + 1 ? fds[local_at + 1] : -1};
    vz_autofd tcp_fd = opening ? fds[0] : -1;
    g_autoptr(GError) err = NULL;
    vz_channel *channel =
        vz_table_add(c->serve.table, (vz_purpose)m->purpose, m->index,
                     opening ? VZ_CHANNEL_CONNECTING : VZ_CHANNEL_EXPECTED, taken, &err);
    if (!channel) {
        report_refusal(c, m, err);
        return;
    }
    if (!opening)
        return;
    vz_preface preface = {.purpose = (vz_purpose)m->purpose, .index = m->index};
    memcpy(preface.job, c->serve.job, sizeof(preface.job));
    vz_serve_open(&c->serve, channel, &preface, vz_steal_fd(&tcp_fd),
                  CLAMP(m->timeout_ms, 1, VZ_CHANNEL_HANDSHAKE_TIMEOUT_MS));
}

static void obey(carrier *c, const vz_control_message *m, const int *fds, size_t n_fds)
{
    if (m->type == VZ_CONTROL_OPEN && (n_fds == 2 || n_fds == 3)) {
        add_channel(c, m, fds, n_fds);
    } else if (m->type == VZ_CONTROL_EXPECT && (n_fds == 1 || n_fds == 2)) {
        add_channel(c, m, fds, n_fds);
    } else if (m->type == VZ_CONTROL_GIVE && n_fds == 1) {
        vz_serve_accept(&c->serve, fds[0]);
    } else {
        for (size_t i = 0; i < n_fds; i++)
            close(fds[i]);
        if (m->type == VZ_CONTROL_ABORT)
            vz_table_abort(c->serve.table, (vz_purpose)m->purpose, m->index);
        else if (m->type == VZ_CONTROL_STOP)
            _exit(EXIT_SUCCESS);
    }
}

static void listen_to_daemon(carrier *c)
{
    for (;;) {
        vz_control_message message;
        int fds[VZ_FD_PASS_MAX];
        size_t n_fds = 0;
        vz_control_result result = vz_control_receive(c->control, &message, fds, &n_fds);
        if (result == VZ_CONTROL_ENDED)
            lose_daemon(c);
        if (result != VZ_CONTROL_GOT)
            return;
        obey(c, &message, fds, n_fds);
        if (c->control < 0)
            return;
    }
}

static void accept_daemon(carrier *c)
{
    int fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    lose_daemon(c);
    c->control = fd;
    greet(c);
}

/* How long to sleep: to the next report while there is someone to tell, or to the end of an orphan.
 */
static int sleep_ms(const carrier *c, bool living)
{
    if (c->control >= 0)
        return living ? VZ_CARRIER_REPORT_MS : -1;
    if (living)
        return -1;
    int64_t left_us = c->orphan_since_us + c->orphan_us - vz_now_us();
    return left_us <= 0 ? 0 : (int)(left_us / VZ_USEC_PER_MSEC) + 1;
}

static bool orphaned(const carrier *c, bool living)
{
    return c->control < 0 && !living && vz_now_us() >= c->orphan_since_us + c->orphan_us;
}

static void run(carrier *c)
{
    bool was_living = false;
    for (;;) {
        bool living = vz_table_living(c->serve.table);
        /* The time of an orphan counts from the end of its last channel. */
        if (was_living && !living)
            c->orphan_since_us = vz_now_us();
        was_living = living;
        if (orphaned(c, living))
            return;
        struct pollfd fds[] = {
            {.fd = c->control, .events = (short)(POLLIN | (c->backlog ? POLLOUT : 0))},
            {.fd = c->listener, .events = POLLIN},
            {.fd = c->wake_fd, .events = POLLIN},
        };
        poll(fds, G_N_ELEMENTS(fds), sleep_ms(c, living));
        uint64_t count;
        if (fds[2].revents && read(c->wake_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
            return;
        if (fds[0].revents & ~POLLOUT)
            listen_to_daemon(c);
        if (fds[1].revents)
            accept_daemon(c);
        report(c);
    }
}

static vz_channel_keys *read_key(GError **err)
{
    char pem[VZ_KEY_FILE_MAX_BYTES];
    ssize_t n = pread(VZ_CARRIER_FD_KEY, pem, sizeof(pem), 0);
    close(VZ_CARRIER_FD_KEY);
    if (n < 0) {
        vz_fail_errno(err, errno, "cannot read the key");
        return NULL;
    }
    vz_channel_keys *keys = vz_channel_keys_from_pem(pem, (size_t)n, err);
    explicit_bzero(pem, sizeof(pem));
    return keys;
}

/* Everything that may need a file or a privilege, and a trial of TLS, before the filter is on. */
static bool set_up(carrier *c, char **argv, GError **err)
{
    if (!vz_sandbox_enter(VZ_CARRIER_CHANNELS_MAX, err))
        return false;
    uint64_t orphan_ms;
    if (!vz_parse_u64(argv[3], "the time of an orphan", 1, G_MAXINT, &orphan_ms, err))
        return false;
    c->orphan_us = (int64_t)orphan_ms * VZ_USEC_PER_MSEC;
    if (!vz_uuid_parse(argv[1], c->serve.job) ||
        !vz_fingerprint_parse(argv[2], c->serve.peer_fingerprint))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' '%s' are not a job and a fingerprint",
                       argv[1], argv[2]);
    c->serve.keys = read_key(err);
    if (!c->serve.keys)
        return false;
    g_autoptr(vz_tls) trial =
        vz_tls_new(-1, VZ_TLS_ACCEPTOR, c->serve.keys, c->serve.peer_fingerprint, err);
    if (!trial)
        return false;
    c->start_time = vz_process_start_time(getpid());
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0)
        return vz_fail_errno(err, errno, "cannot make an event descriptor");
    vz_serve_init(&c->serve);
    c->serve.table = vz_table_new(c->wake_fd);
    return vz_sandbox_seal(err);
}

static bool started_by_daemon(int argc)
{
    struct stat status;
    return argc == 4 && fstat(VZ_CARRIER_FD_CONTROL, &status) == 0 && S_ISSOCK(status.st_mode) &&
           fstat(VZ_CARRIER_FD_LISTENER, &status) == 0 && S_ISSOCK(status.st_mode);
}

int main(int argc, char **argv)
{
    if (!started_by_daemon(argc)) {
        vz_error(NULL, "virtvz-carrier is started by virtvzd, not by hand");
        return EXIT_FAILURE;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGINT, SIG_IGN);
    static carrier c;
    c.control = VZ_CARRIER_FD_CONTROL;
    c.listener = VZ_CARRIER_FD_LISTENER;
    g_autoptr(GError) err = NULL;
    if (!set_up(&c, argv, &err)) {
        vz_control_message broken = {.type = VZ_CONTROL_BROKEN,
                                     .reason_code = (int)vz_error_number(err)};
        g_strlcpy(broken.reason, err->message, sizeof(broken.reason));
        tell(&c, &broken);
        return EXIT_FAILURE;
    }
    greet(&c);
    report(&c);
    run(&c);
    _exit(EXIT_SUCCESS);
}
