/* carrier.c - see carrier.h.
 *
 * The daemon keeps a mirror of the carrier's channels, filled by its messages; a call that waits
 * just serves the inbox until the mirror says so. */
#include "channel/carrier.h"

#include "channel/control.h"
#include "channel/dial.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "base/units.h"

#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CARRIER_PROGRAM  VZ_LIBEXECDIR "/virtvz-carrier"
#define READY_TIMEOUT_US (10 * G_USEC_PER_SEC) /* a loaded host may need some seconds to exec */
#define OBEY_TIMEOUT_US  (2 * G_USEC_PER_SEC)  /* for what takes it microseconds */

struct vz_carrier {
    uint8_t job[VZ_UUID_BYTES];
    char *rundir;
    vz_inbox *inbox;
    vz_carrier_hooks hooks;
    int control; /* -1: the process is gone, or was let go */
    int pidfd;
    pid_t pid;
    bool is_child; /* to be reaped by us */
    bool synced;
    GArray *channels; /* vz_channel_info */
};

static void carrier_free(vz_carrier *carrier)
{
    if (!carrier)
        return;
    if (carrier->control >= 0 && carrier->inbox)
        vz_inbox_unwatch(carrier->inbox, carrier->control);
    vz_fd_clear(&carrier->control);
    vz_fd_clear(&carrier->pidfd);
    g_array_unref(carrier->channels);
    g_free(carrier->rundir);
    g_free(carrier);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_carrier, carrier_free)

static vz_carrier *carrier_new(const char *rundir, vz_inbox *inbox, const vz_carrier_hooks *hooks)
{
    vz_carrier *carrier = g_new0(vz_carrier, 1);
    carrier->rundir = g_strdup(rundir);
    carrier->inbox = inbox;
    carrier->hooks = hooks ? *hooks : (vz_carrier_hooks){NULL, NULL, NULL};
    carrier->control = -1;
    carrier->pidfd = -1;
    carrier->channels = g_array_new(FALSE, FALSE, sizeof(vz_channel_info));
    return carrier;
}

static vz_channel_info *find(const vz_carrier *carrier, vz_purpose purpose, uint16_t index)
{
    for (guint i = 0; i < carrier->channels->len; i++) {
        vz_channel_info *info = &g_array_index(carrier->channels, vz_channel_info, i);
        if (info->purpose == purpose && info->index == index)
            return info;
    }
    return NULL;
}

/* Takes over what is known of a channel; tells the owner when its state changed. */
static void update(vz_carrier *carrier, const vz_channel_info *info)
{
    vz_channel_info *known = find(carrier, info->purpose, info->index);
    bool changed = !known || known->state != info->state;
    if (known)
        *known = *info;
    else
        g_array_append_val(carrier->channels, *info);
    vz_channel_info copy = *info; /* the hook may add channels, and so move the array */
    if (changed && carrier->synced && carrier->hooks.on_channel)
        carrier->hooks.on_channel(carrier, &copy, carrier->hooks.user);
}

/* How the process ended, as far as can be known; reaps it. */
static char *last_words(vz_carrier *carrier)
{
    siginfo_t info = {.si_pid = 0};
    bool ended =
        carrier->pidfd >= 0 && vz_poll_one(carrier->pidfd, POLLIN, vz_now_us() + OBEY_TIMEOUT_US);
    if (!ended || !carrier->is_child ||
        waitid(P_PIDFD, (id_t)carrier->pidfd, &info, WEXITED | WNOHANG) < 0 || info.si_pid == 0)
        return g_strdup_printf("the carrier process %d is gone", (int)carrier->pid);
    carrier->is_child = false;
    if (info.si_code == CLD_EXITED)
        return g_strdup_printf("the carrier process %d exited with status %d", (int)carrier->pid,
                               info.si_status);
    return g_strdup_printf("the carrier process %d was killed by signal %d", (int)carrier->pid,
                           info.si_status);
}

/* The control connection ended without our doing: so did the process. */
static void mourn(vz_carrier *carrier)
{
    vz_inbox_unwatch(carrier->inbox, carrier->control);
    vz_fd_clear(&carrier->control);
    g_autofree char *reason = last_words(carrier);
    for (guint i = 0; i < carrier->channels->len; i++) {
        vz_channel_info info = g_array_index(carrier->channels, vz_channel_info, i);
        if (info.state >= VZ_CHANNEL_FINISHED)
            continue;
        info.state = VZ_CHANNEL_FAILED;
        info.reason_code = VZ_ERR_OPERATION_FAILED;
        g_strlcpy(info.reason, reason, sizeof(info.reason));
        update(carrier, &info);
    }
    if (carrier->hooks.on_exit)
        carrier->hooks.on_exit(carrier, reason, carrier->hooks.user);
}

/* Handles what has come. false: the other end is gone. */
static bool receive(vz_carrier *carrier, vz_control_message *ret_last)
{
    for (;;) {
        int fds[VZ_FD_PASS_MAX];
        size_t n_fds = 0;
        vz_control_message message;
        vz_control_result result = vz_control_receive(carrier->control, &message, fds, &n_fds);
        if (result != VZ_CONTROL_GOT)
            return result == VZ_CONTROL_NOTHING;
        for (size_t i = 0; i < n_fds; i++)
            close(fds[i]);
        *ret_last = message;
        if (message.type == VZ_CONTROL_READY || message.type == VZ_CONTROL_BROKEN)
            return true;
        if (message.type == VZ_CONTROL_SYNCED)
            carrier->synced = true;
        vz_channel_info info;
        vz_control_to_info(&message, &info);
        if (message.type == VZ_CONTROL_CHANNEL)
            update(carrier, &info);
        /* A hook of update() cannot free the carrier, but may have found its process gone. */
        if (carrier->control < 0)
            return true;
    }
}

static void on_control(G_GNUC_UNUSED int fd, G_GNUC_UNUSED short revents, void *data)
{
    vz_carrier *carrier = data;
    vz_control_message last;
    if (!receive(carrier, &last))
        mourn(carrier);
}

/* Reads the greeting and the channels. Local and short, so the inbox is not served. */
static bool await_ready(vz_carrier *carrier, GError **err)
{
    int64_t deadline_us = vz_now_us() + READY_TIMEOUT_US;
    while (!carrier->synced) {
        vz_control_message message = {.type = 0};
        if (!vz_poll_one(carrier->control, POLLIN, deadline_us))
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the carrier does not answer");
        if (!receive(carrier, &message))
            return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the carrier ended while starting");
        if (message.type == VZ_CONTROL_BROKEN)
            return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the carrier could not start: %s",
                           message.reason);
        if (message.type == VZ_CONTROL_READY) {
            carrier->pid = message.pid;
            memcpy(carrier->job, message.job, sizeof(carrier->job));
            if (carrier->pidfd < 0)
                carrier->pidfd = (int)syscall(SYS_pidfd_open, message.pid, 0);
            if (message.start_time != vz_process_start_time(message.pid))
                vz_fd_clear(&carrier->pidfd);
        }
    }
    vz_inbox_watch(carrier->inbox, carrier->control, POLLIN, on_control, carrier);
    return true;
}

/* The private key in an anonymous file: neither arguments nor environment nor disk see it. */
static int key_memfd(const vz_channel_keys *keys, GError **err)
{
    vz_autofd fd = memfd_create("virtvz-key", MFD_CLOEXEC);
    if (fd < 0) {
        vz_fail_errno(err, errno, "cannot make an anonymous file");
        return -1;
    }
    char *pem = vz_channel_keys_to_pem(keys);
    bool written = vz_fd_write_all(fd, pem, strlen(pem), err);
    vz_channel_pem_free(pem);
    return written ? vz_steal_fd(&fd) : -1;
}

static bool spawn(vz_carrier *carrier, const vz_carrier_start_request *request, int control,
                  GError **err)
{
    vz_autofd listener = vz_control_listen(request->rundir, err);
    if (listener < 0)
        return false;
    vz_autofd key = key_memfd(request->keys, err);
    if (key < 0)
        return false;
    char job[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(request->job, job);
    char orphan_ms[24];
    g_snprintf(orphan_ms, sizeof(orphan_ms), "%" G_GINT64_FORMAT,
               request->orphan_ms > 0 ? request->orphan_ms : (int64_t)VZ_CARRIER_ORPHAN_MS);
    const char *const argv[] = {request->program ? request->program : CARRIER_PROGRAM, job,
                                request->peer_fingerprint, orphan_ms, NULL};
    int fds[] = {control, listener, key};
    vz_spawn_options options = {
        .argv = argv,
        .fds = fds,
        .n_fds = G_N_ELEMENTS(fds),
        .stdin_fd = -1,
        .stdout_fd = -1,
        .stderr_fd = STDERR_FILENO,
        .change_identity = request->change_identity,
        .uid = request->uid,
        .gid = request->gid,
        .new_session = true,
    };
    if (!vz_spawn(&options, &carrier->pid, &carrier->pidfd, err))
        return false;
    carrier->is_child = true;
    return true;
}

vz_carrier *vz_carrier_start(const vz_carrier_start_request *request, GError **err)
{
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    if (!vz_fingerprint_parse(request->peer_fingerprint, fingerprint)) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the peer's key fingerprint is malformed");
        return NULL;
    }
    g_autoptr(vz_carrier) carrier = carrier_new(request->rundir, request->inbox, &request->hooks);
    int pair[2];
    if (!vz_control_pair(pair, err))
        return NULL;
    carrier->control = pair[0];
    vz_autofd theirs = pair[1];
    bool ready = spawn(carrier, request, theirs, err);
    vz_fd_clear(&theirs);
    if (ready && await_ready(carrier, err))
        return g_steal_pointer(&carrier);
    g_prefix_error(err,
                   "cannot start '%s': ", request->program ? request->program : CARRIER_PROGRAM);
    vz_carrier_stop(g_steal_pointer(&carrier));
    return NULL;
}

vz_carrier *vz_carrier_adopt(const char *rundir, vz_inbox *inbox, const vz_carrier_hooks *hooks,
                             GError **err)
{
    g_autoptr(vz_carrier) carrier = carrier_new(rundir, inbox, hooks);
    carrier->control = vz_control_connect(rundir, err);
    if (carrier->control < 0 || !await_ready(carrier, err))
        return NULL;
    return g_steal_pointer(&carrier);
}

void vz_carrier_stop(vz_carrier *carrier)
{
    if (!carrier)
        return;
    vz_control_message stop = {.type = VZ_CONTROL_STOP};
    g_autoptr(GError) ignored = NULL;
    bool told =
        carrier->control >= 0 && vz_control_send(carrier->control, &stop, NULL, 0, &ignored);
    int64_t deadline_us = vz_now_us() + (told ? OBEY_TIMEOUT_US : 0);
    if (carrier->pidfd >= 0 && !vz_poll_one(carrier->pidfd, POLLIN, deadline_us)) {
        syscall(SYS_pidfd_send_signal, carrier->pidfd, SIGKILL, NULL, 0);
        vz_poll_one(carrier->pidfd, POLLIN, vz_now_us() + OBEY_TIMEOUT_US);
    }
    siginfo_t info;
    if (carrier->is_child && carrier->pidfd >= 0)
        waitid(P_PIDFD, (id_t)carrier->pidfd, &info, WEXITED | WNOHANG);
    vz_control_remove(carrier->rundir);
    carrier_free(carrier);
}

void vz_carrier_release(vz_carrier *carrier)
{
    carrier_free(carrier);
}

/* Sends a command; a daemon that cannot talk to its carrier has lost it. */
static bool command(vz_carrier *carrier, const vz_control_message *message, const int *fds,
                    size_t n_fds, GError **err)
{
    if (carrier->control < 0)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the carrier process is gone");
    /* Its main thread never waits for anything, so a full buffer empties in no time. */
    vz_poll_one(carrier->control, POLLOUT, vz_now_us() + OBEY_TIMEOUT_US);
    if (vz_control_send(carrier->control, message, fds, n_fds, err))
        return true;
    return *err != NULL || vz_fail(err, VZ_ERR_OPERATION_FAILED, "the carrier does not respond");
}

/* Whether (purpose, index) may be made. */
static bool check_unused(const vz_carrier *carrier, vz_purpose purpose, uint16_t index,
                         GError **err)
{
    const vz_channel_info *known = find(carrier, purpose, index);
    if (purpose == VZ_PURPOSE_ASK || index > VZ_CHANNEL_INDEX_MAX)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "a carrier has no channel %s %u",
                       vz_purpose_name(purpose), index);
    return !known || (known->state == VZ_CHANNEL_FAILED && known->connect_us == 0) ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID, "channel %s %u was used before",
                   vz_purpose_name(purpose), index);
}

static void note_new(vz_carrier *carrier, vz_purpose purpose, uint16_t index,
                     vz_channel_state state)
{
    vz_channel_info info = {.purpose = purpose, .index = index, .state = state};
    vz_channel_info *known = find(carrier, purpose, index);
    if (known)
        *known = info;
    else
        g_array_append_val(carrier->channels, info);
}

static bool send_prologue(int fd, const uint8_t job[VZ_UUID_BYTES], GError **err)
{
    vz_prologue prologue = {.door = VZ_DOOR_CARRIER};
    memcpy(prologue.job, job, VZ_UUID_BYTES);
    uint8_t bytes[VZ_PROLOGUE_BYTES];
    vz_prologue_encode(&prologue, bytes);
    return vz_fd_write_all(fd, bytes, sizeof(bytes), err);
}

typedef struct {
    const vz_carrier *carrier;
    vz_purpose purpose;
    uint16_t index;
    vz_channel_state state;
} awaited;

static bool has_come(void *data)
{
    const awaited *a = data;
    const vz_channel_info *info = find(a->carrier, a->purpose, a->index);
    return !info || info->state >= a->state;
}

/* Hands the connected socket over and waits for the peer's answer. */
static bool open_over(vz_carrier *carrier, const vz_carrier_connect_request *r, int tcp_fd,
                      GError **err)
{
    int64_t left_us = r->deadline_us - vz_now_us();
    vz_control_message open = {.type = VZ_CONTROL_OPEN,
                               .purpose = (uint16_t)r->purpose,
                               .index = r->index,
                               .timeout_ms = (int32_t)CLAMP(left_us / VZ_USEC_PER_MSEC, 1,
                                                            VZ_CHANNEL_HANDSHAKE_TIMEOUT_MS)};
    int fds[] = {tcp_fd, r->take_local_fd, r->owner_pidfd};
    if (!command(carrier, &open, fds, r->owner_pidfd >= 0 ? 3 : 2, err))
        return false;
    note_new(carrier, r->purpose, r->index, VZ_CHANNEL_CONNECTING);
    if (vz_carrier_wait(carrier, r->purpose, r->index, VZ_CHANNEL_OPEN, r->deadline_us, err))
        return true;
    /* The channel may be tried again, so its end must not come in the middle of that. */
    vz_carrier_abort(carrier, r->purpose, r->index);
    awaited ended = {carrier, r->purpose, r->index, VZ_CHANNEL_FINISHED};
    vz_wait_uncancellable(carrier->inbox, has_come, &ended, vz_now_us() + OBEY_TIMEOUT_US);
    return false;
}

bool vz_carrier_connect(vz_carrier *carrier, const vz_carrier_connect_request *request,
                        GError **err)
{
    G_GNUC_UNUSED vz_autofd local_fd = request->take_local_fd;
    if (!check_unused(carrier, request->purpose, request->index, err))
        return false;
    vz_dial_request dial = {request->host,  request->port,        request->bind_address,
                            carrier->inbox, request->deadline_us, request->way};
    vz_autofd tcp_fd = vz_dial(&dial, err);
    if (tcp_fd < 0)
        return false;
    if (!send_prologue(tcp_fd, carrier->job, err) || !open_over(carrier, request, tcp_fd, err)) {
        g_prefix_error(err, "channel %s %u to %s port %u: ", vz_purpose_name(request->purpose),
                       request->index, request->host, request->port);
        return false;
    }
    return true;
}

bool vz_carrier_expect(vz_carrier *carrier, vz_purpose purpose, uint16_t index, int take_local_fd,
                       int owner_pidfd, GError **err)
{
    vz_autofd local_fd = take_local_fd;
    if (!check_unused(carrier, purpose, index, err))
        return false;
    vz_control_message expect = {
        .type = VZ_CONTROL_EXPECT, .purpose = (uint16_t)purpose, .index = index};
    int fds[] = {local_fd, owner_pidfd};
    if (!command(carrier, &expect, fds, owner_pidfd >= 0 ? 2 : 1, err))
        return false;
    note_new(carrier, purpose, index, VZ_CHANNEL_EXPECTED);
    return true;
}

void vz_carrier_abort(vz_carrier *carrier, vz_purpose purpose, uint16_t index)
{
    vz_control_message message = {
        .type = VZ_CONTROL_ABORT, .purpose = (uint16_t)purpose, .index = index};
    g_autoptr(GError) ignored = NULL;
    const vz_channel_info *known = find(carrier, purpose, index);
    if (known && known->state < VZ_CHANNEL_FINISHED)
        command(carrier, &message, NULL, 0, &ignored);
}

bool vz_carrier_wait(vz_carrier *carrier, vz_purpose purpose, uint16_t index,
                     vz_channel_state state, int64_t deadline_us, GError **err)
{
    awaited a = {carrier, purpose, index, state};
    vz_wait_result result = vz_wait(carrier->inbox, has_come, &a, deadline_us);
    if (result == VZ_WAIT_CANCELLED)
        return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "cancelled");
    if (result == VZ_WAIT_TIMEOUT)
        return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "the peer did not answer in time");
    const vz_channel_info *info = find(carrier, purpose, index);
    if (!info)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "no such channel");
    return info->state != VZ_CHANNEL_FAILED ||
           vz_fail(err, (vz_error_code)info->reason_code, "%s", info->reason);
}

bool vz_carrier_info(const vz_carrier *carrier, vz_purpose purpose, uint16_t index,
                     vz_channel_info *ret_info)
{
    const vz_channel_info *info = find(carrier, purpose, index);
    if (info)
        *ret_info = *info;
    return info != NULL;
}

const vz_channel_info *vz_carrier_channels(const vz_carrier *carrier, size_t *ret_n)
{
    *ret_n = carrier->channels->len;
    return (const vz_channel_info *)(void *)carrier->channels->data;
}

void vz_carrier_sum(const vz_carrier *carrier, unsigned purpose, vz_channel_info *ret_sum)
{
    memset(ret_sum, 0, sizeof(*ret_sum));
    for (guint i = 0; i < carrier->channels->len; i++) {
        const vz_channel_info *info = &g_array_index(carrier->channels, vz_channel_info, i);
        if (purpose != 0 && info->purpose != purpose)
            continue;
        ret_sum->sent_bytes += info->sent_bytes;
        ret_sum->received_bytes += info->received_bytes;
        ret_sum->wire_sent_bytes += info->wire_sent_bytes;
        ret_sum->wire_received_bytes += info->wire_received_bytes;
    }
}

const uint8_t *vz_carrier_job(const vz_carrier *carrier)
{
    return carrier->job;
}

pid_t vz_carrier_pid(const vz_carrier *carrier)
{
    return carrier->pid;
}

int vz_carrier_control_dup(const vz_carrier *carrier, GError **err)
{
    int fd = carrier->control < 0 ? -1 : fcntl(carrier->control, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        vz_fail(err, VZ_ERR_SYSTEM_ERROR, "the carrier process is gone");
    return fd;
}
