/* direct.c - see direct.h. */
#include "migrate/direct.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/units.h"
#include "migrate/precheck.h"
#include "migrate/service.h"
#include "migrate/uri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FD_NAME     "vz-direct"
#define CREDENTIALS "vz-direct-tls"
/* libvirt's places for QEMU's certificates, in its order. */
#define TLS_DIR_MIGRATE "/etc/pki/libvirt-migrate"
#define TLS_DIR_QEMU    "/etc/pki/qemu"

#define TCP_WMEM           "/proc/sys/net/ipv4/tcp_wmem"
#define TCP_WMEM_BYTES_MAX ((size_t)256)
#define LIMITS_BYTES_MAX   ((size_t)16 * 1024)
/* QEMU sends 512 KiB of pages at once (10.0, multifd.h: MULTIFD_PACKET_SIZE), with their header. */
#define MULTIFD_WRITE_BYTES ((uint64_t)1024 * 1024)

struct vz_direct {
    vz_direct_way way;
    uint16_t port; /* TCP */
};

vz_direct_way vz_direct_way_of(const vz_options *options)
{
    if (vz_options_has(options, VZ_OPTION_OFFLINE))
        return VZ_DIRECT_NONE;
    if (vz_options_has(options, VZ_OPTION_URI_UNIX))
        return VZ_DIRECT_UNIX;
    return vz_options_has(options, VZ_OPTION_DIRECT_STREAM) ? VZ_DIRECT_TCP : VZ_DIRECT_NONE;
}

static const char *path_of(const vz_migration *m)
{
    return vz_uri_unix_path(vz_options_text(m->options, VZ_OPTION_URI));
}

/* --- TLS --- */

const char *vz_direct_tls_dir(const vz_migrate *service)
{
    const char *configured = vz_migrate_settings(service)->tls_dir;
    if (configured && *configured)
        return configured;
    return g_file_test(TLS_DIR_MIGRATE, G_FILE_TEST_IS_DIR) ? TLS_DIR_MIGRATE : TLS_DIR_QEMU;
}

/* Of a move that failed, or that an earlier daemon began. */
static void remove_credentials(vz_qemu *qemu)
{
    g_autoptr(GError) none = NULL;
    vz_qmp_do(vz_qemu_qmp(qemu), "object-del", json_pack("{ss}", "id", CREDENTIALS),
              VZ_QMP_TIMEOUT_US, &none);
}

static bool add_credentials(vz_migration *m, vz_qemu *qemu, const char *endpoint, GError **err)
{
    if (!vz_options_has(m->options, VZ_OPTION_TLS))
        return true;
    const char *dir = vz_direct_tls_dir(m->service);
    json_t *args = json_pack("{ss ss ss ss sb}", "qom-type", "tls-creds-x509", "id", CREDENTIALS,
                             "dir", dir, "endpoint", endpoint, "verify-peer", 1);
    remove_credentials(qemu);
    if (vz_qmp_do(vz_qemu_qmp(qemu), "object-add", args, VZ_QMP_TIMEOUT_US, err)) {
        m->stream.tls_creds = CREDENTIALS;
        return true;
    }
    g_prefix_error(err,
                   "TLS of a direct stream needs x509 certificates in '%s' on %s, which QEMU's "
                   "user can read: ",
                   dir, vz_migrate_settings(m->service)->host_name);
    return false;
}

/* --- destination --- */

/* QEMU would take the place of whatever is there. */
static bool claim_path(vz_migration *m, const char *path, GError **err)
{
    struct stat there;
    if (lstat(path, &there) == 0)
        return vz_fail_errno(err, EEXIST, "Failed to listen on socket '%s' on %s", path,
                             vz_migrate_settings(m->service)->host_name);
    return vz_migration_note(m, VZ_NOTE_SOCKET, path, err);
}

static bool listen_on(vz_migration *m, vz_qemu *qemu, const char *place, GError **err)
{
    if (vz_memory_receive(qemu, place, &m->stream, err))
        return true;
    g_prefix_error(err, "QEMU cannot listen for a direct stream on %s: ",
                   vz_migrate_settings(m->service)->host_name);
    if (m->direct->way == VZ_DIRECT_UNIX)
        vz_precheck_help(err,
                         "QEMU makes the socket itself, as its own user, so give that user the "
                         "directory");
    return false;
}

bool vz_direct_listen(vz_migration *m, vz_qemu *qemu, GError **err)
{
    const vz_migrate_config *settings = vz_migrate_settings(m->service);
    m->direct = g_new0(struct vz_direct, 1);
    m->direct->way = vz_direct_way_of(m->options);
    if (!add_credentials(m, qemu, "server", err))
        return false;
    if (m->direct->way == VZ_DIRECT_UNIX)
        return claim_path(m, path_of(m), err) && listen_on(m, qemu, path_of(m), err);
    const char *asked = vz_options_text(m->options, VZ_OPTION_LISTEN_ADDRESS);
    const char *address = asked ? asked : settings->data_address ? settings->data_address : "";
    g_autofree char *first = vz_uri_format_data(address, settings->direct_port);
    g_autofree char *place = g_strdup_printf(
        "%s,to=%d", first, MIN(settings->direct_port + VZ_DIRECT_PORTS - 1, UINT16_MAX));
    return listen_on(m, qemu, place, err) &&
           (m->direct->port = vz_memory_port(vz_qemu_qmp(qemu), err)) != 0;
}

uint16_t vz_direct_port(const vz_migration *m)
{
    return m->direct ? m->direct->port : 0;
}

bool vz_direct_source_lives(vz_migration *m)
{
    int64_t silence_s = vz_now_us() / VZ_USEC_PER_SEC - g_atomic_int_get(&m->probed_s);
    return m->direct && silence_s <= vz_migrate_settings(m->service)->phase_timeout_s;
}

/* --- source --- */

bool vz_direct_agree(vz_migration *m, const vz_cookie *cookie, const char *uri, GError **err)
{
    vz_direct_way way = vz_direct_way_of(m->options);
    if ((vz_uri_unix_path(uri) != NULL) != (way == VZ_DIRECT_UNIX))
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "the migration URI '%s' is not the one that Begin was called with", uri);
    if (way == VZ_DIRECT_TCP && cookie->direct_port == 0)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                       "the destination names no port for a direct stream");
    if (way == VZ_DIRECT_NONE)
        return true;
    m->direct = g_new0(struct vz_direct, 1);
    m->direct->way = way;
    m->direct->port = cookie->direct_port;
    return true;
}

/* What the connections may hold unacknowledged, and with that pinned: as much as TCP lets each have
 * in its buffer (tcp_wmem: least, first, most), and the write that comes on top. 0: not known. */
static uint64_t pinned_at_most(const vz_migration *m)
{
    g_autoptr(GError) ignored = NULL;
    g_autofree char *text = NULL;
    unsigned long long most = 0;
    if (!vz_file_read(TCP_WMEM, TCP_WMEM_BYTES_MAX, &text, NULL, &ignored) ||
        sscanf(text, "%*u %*u %llu", &most) != 1)
        return 0;
    return m->stream.channels * (most + MULTIFD_WRITE_BYTES);
}

/* Bytes that a process may lock; of another user only its own file tells that to everybody. */
static uint64_t lockable_by(pid_t pid)
{
    static const char key[] = "Max locked memory";
    g_autoptr(GError) ignored = NULL;
    g_autofree char *path = g_strdup_printf("/proc/%d/limits", (int)pid);
    g_autofree char *text = NULL;
    const char *line =
        vz_file_read(path, LIMITS_BYTES_MAX, &text, NULL, &ignored) ? strstr(text, key) : NULL;
    line = line ? line + strlen(key) + strspn(line + strlen(key), " ") : "0";
    return g_str_has_prefix(line, "unlimited") ? UINT64_MAX : g_ascii_strtoull(line, NULL, 10);
}

/* First, so that the next daemon takes it back where this one dies. */
static bool note_memlock(vz_migration *m, pid_t pid, GError **err)
{
    struct rlimit before;
    if (prlimit(pid, RLIMIT_MEMLOCK, NULL, &before) < 0)
        return true; /* then it cannot be raised, either */
    g_autofree char *text = g_strdup_printf("%llu %llu", (unsigned long long)before.rlim_cur,
                                            (unsigned long long)before.rlim_max);
    return vz_migration_note(m, VZ_NOTE_MEMLOCK, text, err);
}

static void lock_memory_again(vz_migration *m, pid_t pid)
{
    unsigned long long soft, hard;
    g_autoptr(GError) err = NULL;
    g_autofree char *text = vz_journal_get(m->journal, VZ_NOTE_MEMLOCK);
    if (!text || sscanf(text, "%llu %llu", &soft, &hard) != 2)
        return;
    const struct rlimit before = {.rlim_cur = soft, .rlim_max = hard};
    if (prlimit(pid, RLIMIT_MEMLOCK, &before, NULL) < 0 && errno != EPERM)
        vz_warn(m->id, "QEMU's limit of locked memory stays raised: %s", g_strerror(errno));
    if (!vz_migration_note(m, VZ_NOTE_MEMLOCK, "", &err))
        vz_warn(m->id, "%s", err->message);
}

/* No limit, since the kernel counts what all processes of a user have pinned. */
static bool unlock_memory(vz_migration *m, vz_qemu *qemu, GError **err)
{
    const struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};
    pid_t pid = vz_qemu_pid(qemu);
    if (!m->stream.zerocopy)
        return true;
    if (!note_memlock(m, pid, err))
        return false;
    bool unlocked = prlimit(pid, RLIMIT_MEMLOCK, &all, NULL) == 0;
    uint64_t needed = pinned_at_most(m);
    uint64_t limit = lockable_by(pid);
    return unlocked || (needed != 0 && limit >= needed) ||
           vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "zero-copy over %u connections may have %" G_GUINT64_FORMAT
                   " KiB of the guest's "
                   "memory locked at a time, QEMU's limit (RLIMIT_MEMLOCK) is %" G_GUINT64_FORMAT
                   " KiB, and virtvzd has no right to raise it (CAP_SYS_RESOURCE); ask for fewer "
                   "connections, or start virtvzd and the guest with a higher limit",
                   m->stream.channels, needed / VZ_KIB, limit / VZ_KIB);
}

/* As root, like libvirt, so that the socket need not be QEMU's user's; but several connections QEMU
 * only makes by itself (QEMU 10.0, migration.c: transport_supports_multi_channels). */
static char *unix_place(vz_migration *m, vz_qemu *qemu, GError **err)
{
    const char *path = path_of(m);
    g_autoptr(GError) why = NULL;
    if (vz_stream_channels(&m->stream) > 1)
        return g_strdup(path);
    vz_autofd fd = vz_unix_connect(path, &why);
    if (fd < 0) {
        vz_fail(err, VZ_ERR_SYSTEM_ERROR, "Failed to connect socket to '%s': %s", path,
                strrchr(why->message, ':') + 2);
        return NULL;
    }
    return vz_qmp_send_fd(vz_qemu_qmp(qemu), FD_NAME, fd, err) ? g_strdup("fd:" FD_NAME) : NULL;
}

char *vz_direct_expected_name(const vz_options *options, const char *peer_name)
{
    g_autoptr(GError) none = NULL;
    const char *asked = vz_options_text(options, VZ_OPTION_TLS_DESTINATION);
    const char *uri = vz_options_text(options, VZ_OPTION_URI);
    char *host = NULL;
    if (!asked && uri && vz_uri_parse_data(uri, &host, NULL, &none))
        return host;
    return g_strdup(asked ? asked : peer_name);
}

bool vz_direct_send(vz_migration *m, vz_qemu *qemu, const vz_memory_limits *limits, GError **err)
{
    g_autofree char *name = vz_direct_expected_name(m->options, m->peer_name);
    if (!add_credentials(m, qemu, "client", err) || !unlock_memory(m, qemu, err))
        return false;
    m->stream.tls_hostname = *m->stream.tls_creds ? name : "";
    g_autofree char *place = m->direct->way == VZ_DIRECT_UNIX
                                 ? unix_place(m, qemu, err)
                                 : vz_uri_format_data(m->peer_host, m->direct->port);
    bool sent = place && vz_memory_send(qemu, place, &m->stream, limits, err);
    m->stream.tls_hostname = "";
    return sent;
}

void vz_direct_undo(vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = m->guest_died ? NULL : vz_migration_qemu(m, &err);
    if (!qemu)
        return;
    lock_memory_again(m, vz_qemu_pid(qemu));
    if (!m->direct)
        return;
    if (*m->stream.tls_creds)
        remove_credentials(qemu);
    if (m->direct->way == VZ_DIRECT_UNIX) { /* QEMU has taken it, if the stream began */
        g_autoptr(GError) taken = NULL;
        vz_qmp_do(vz_qemu_qmp(qemu), "closefd", json_pack("{ss}", "fdname", FD_NAME),
                  VZ_QMP_TIMEOUT_US, &taken);
    }
    m->stream.tls_creds = "";
}

void vz_direct_close(vz_migration *m)
{
    struct stat there;
    g_autoptr(GError) err = NULL;
    g_autofree char *path = vz_journal_get(m->journal, VZ_NOTE_SOCKET);
    /* QEMU removes it, unless it was killed. */
    if (path && *path && lstat(path, &there) == 0 && S_ISSOCK(there.st_mode))
        unlink(path);
    /* Once: the caller may use the path again, for the way back. */
    if (path && *path && !vz_migration_note(m, VZ_NOTE_SOCKET, "", &err))
        vz_warn(m->id, "%s", err->message);
    g_clear_pointer(&m->direct, g_free);
}
