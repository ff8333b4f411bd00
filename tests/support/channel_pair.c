/* channel_pair.c - see channel_pair.h. */
#include "support/channel_pair.h"

#include "base/fd.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_WORDS        8192
#define LOCAL_BUFFER_BYTES (1024 * 1024) /* as migrate/stream_sockets.c gives QEMU */
#define OPEN_US            (5 * G_USEC_PER_SEC)

static void *run_loop(void *data)
{
    channel_host *host = data;
    g_main_context_push_thread_default(host->context);
    g_main_loop_run(host->loop);
    g_main_context_pop_thread_default(host->context);
    return NULL;
}

channel_host *channel_host_new(const vz_ask_handlers *handlers)
{
    channel_host *host = g_new0(channel_host, 1);
    g_autoptr(GError) err = NULL;
    host->context = g_main_context_new();
    host->loop = g_main_loop_new(host->context, FALSE);
    host->ask = handlers ? vz_ask_server_new(handlers) : NULL;
    vz_port_options options = {.context = host->context, .address = "127.0.0.1", .ask = host->ask};
    host->port = vz_port_new(&options, &err);
    g_assert_no_error(err);
    host->thread = g_thread_new("loop", run_loop, host);
    return host;
}

static gboolean quit(void *data)
{
    g_main_loop_quit(data);
    return G_SOURCE_REMOVE;
}

void channel_host_free(channel_host *host)
{
    if (!host)
        return;
    GSource *source = g_idle_source_new();
    g_source_set_callback(source, quit, host->loop, NULL);
    g_source_attach(source, host->context);
    g_source_unref(source);
    g_thread_join(host->thread);
    vz_port_free(host->port);
    vz_ask_server_free(host->ask);
    g_main_loop_unref(host->loop);
    g_main_context_unref(host->context);
    g_free(host);
}

char *channel_temp_dir(void)
{
    g_autoptr(GError) err = NULL;
    char *path = g_dir_make_tmp("vz-XXXXXX", &err);
    g_assert_no_error(err);
    return path;
}

void channel_remove_dir(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        g_unlink(file);
    }
    g_rmdir(path);
}

static void note_exit(G_GNUC_UNUSED vz_carrier *carrier, const char *reason, void *user)
{
    channel_pair *pair = user;
    g_free(pair->exit_reason);
    pair->exit_reason = g_strdup(reason);
}

static char *program_dir;

static void remove_program(void)
{
    channel_remove_dir(program_dir);
}

/* The carrier that was built; as root a copy that an unprivileged user can reach, too: a checkout
 * may well be in /root. */
static const char *carrier_program(void)
{
    static char *program;
    const char *built = g_getenv("VZ_TEST_CARRIER");
    if (geteuid() != 0)
        return built;
    if (program)
        return program;
    g_autofree char *data = NULL;
    gsize bytes;
    g_assert_true(g_file_get_contents(built, &data, &bytes, NULL));
    program_dir = channel_temp_dir();
    atexit(remove_program);
    program = g_build_filename(program_dir, "virtvz-carrier", NULL);
    g_assert_true(g_file_set_contents(program, data, (gssize)bytes, NULL));
    g_assert_cmpint(g_chmod(program, 0755), ==, 0);
    g_assert_cmpint(g_chmod(program_dir, 0711), ==, 0);
    return program;
}

vz_carrier *channel_carrier_new(channel_pair *pair, const uint8_t job[VZ_UUID_BYTES],
                                const vz_channel_keys *keys, const char *peer, const char *dir)
{
    vz_carrier_start_request request = {
        .keys = keys,
        .peer_fingerprint = peer,
        .rundir = dir,
        .program = carrier_program(),
        .change_identity = geteuid() == 0,
        .uid = 65534,
        .gid = 65534,
        .orphan_ms = 1000,
        .inbox = pair->inbox,
        .hooks = {.on_exit = note_exit, .user = pair},
    };
    memcpy(request.job, job, VZ_UUID_BYTES);
    g_autoptr(GError) err = NULL;
    vz_carrier *carrier = vz_carrier_start(&request, &err);
    g_assert_no_error(err);
    return carrier;
}

channel_pair *channel_pair_new(void)
{
    channel_pair *pair = g_new0(channel_pair, 1);
    g_autoptr(GError) err = NULL;
    vz_uuid_generate(pair->job);
    pair->host = channel_host_new(NULL);
    pair->inbox = vz_inbox_new();
    pair->source_keys = vz_channel_keys_generate(&err);
    g_assert_no_error(err);
    pair->target_keys = vz_channel_keys_generate(&err);
    g_assert_no_error(err);
    pair->source_dir = channel_temp_dir();
    pair->target_dir = channel_temp_dir();
    pair->source =
        channel_carrier_new(pair, pair->job, pair->source_keys,
                            vz_channel_keys_fingerprint(pair->target_keys), pair->source_dir);
    pair->target =
        channel_carrier_new(pair, pair->job, pair->target_keys,
                            vz_channel_keys_fingerprint(pair->source_keys), pair->target_dir);
    g_assert_true(vz_port_admit(pair->host->port, pair->target, &err));
    return pair;
}

void channel_pair_free(channel_pair *pair)
{
    vz_carrier_stop(pair->source);
    vz_carrier_stop(pair->target);
    channel_host_free(pair->host);
    vz_channel_keys_free(pair->source_keys);
    vz_channel_keys_free(pair->target_keys);
    vz_inbox_free(pair->inbox);
    channel_remove_dir(pair->source_dir);
    channel_remove_dir(pair->target_dir);
    g_free(pair->source_dir);
    g_free(pair->target_dir);
    g_free(pair->exit_reason);
    g_free(pair);
}

void channel_local_pair(int *ret_ours, int *ret_theirs)
{
    int pair[2];
    int bytes = LOCAL_BUFFER_BYTES;
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    for (int i = 0; i < 2; i++)
        /* Without the right to more than the system's limit it gets that. */
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
            setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    *ret_ours = pair[0];
    *ret_theirs = pair[1];
}

bool channel_pair_connect(channel_pair *pair, vz_carrier *from, vz_purpose purpose, uint16_t index,
                          int *ret_end, GError **err)
{
    int ours, theirs;
    channel_local_pair(&ours, &theirs);
    vz_carrier_connect_request request = {
        .host = "127.0.0.1",
        .port = vz_port_number(pair->host->port),
        .purpose = purpose,
        .index = index,
        .take_local_fd = ours,
        .owner_pidfd = -1,
        .deadline_us = vz_now_us() + OPEN_US,
    };
    bool connected = vz_carrier_connect(from, &request, err);
    if (!connected)
        close(theirs);
    else
        *ret_end = theirs;
    return connected;
}

int channel_pair_expect(channel_pair *pair, vz_purpose purpose, uint16_t index)
{
    int ours, theirs;
    g_autoptr(GError) err = NULL;
    channel_local_pair(&ours, &theirs);
    vz_carrier_expect(pair->target, purpose, index, ours, -1, &err);
    g_assert_no_error(err);
    return theirs;
}

void channel_pair_open(channel_pair *pair, uint16_t index, int *ret_source_end, int *ret_target_end)
{
    g_autoptr(GError) err = NULL;
    *ret_target_end = channel_pair_expect(pair, VZ_PURPOSE_MEMORY, index);
    channel_pair_connect(pair, pair->source, VZ_PURPOSE_MEMORY, index, ret_source_end, &err);
    g_assert_no_error(err);
}

vz_channel_info channel_await_end(vz_carrier *carrier, uint16_t index, int ms)
{
    g_autoptr(GError) err = NULL;
    vz_channel_info info;
    vz_carrier_wait(carrier, VZ_PURPOSE_MEMORY, index, VZ_CHANNEL_FINISHED,
                    vz_now_us() + ms * (int64_t)1000, &err);
    g_assert_true(vz_carrier_info(carrier, VZ_PURPOSE_MEMORY, index, &info));
    return info;
}

typedef struct {
    int fd;
    uint64_t seed, bytes;
    bool shut;
} stream;

/* splitmix64 of the position: any lost, doubled, moved or changed byte shows. */
static uint64_t word_at(uint64_t seed, uint64_t position)
{
    uint64_t z = seed + (position + 1) * 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void *write_stream(void *data)
{
    g_autofree stream *s = data;
    uint64_t words[CHUNK_WORDS];
    uint64_t done = 0;
    while (done < s->bytes) {
        for (unsigned i = 0; i < CHUNK_WORDS; i++)
            words[i] = word_at(s->seed, done / 8 + i);
        size_t n = MIN(sizeof(words), s->bytes - done);
        size_t sent = 0;
        while (sent < n) {
            ssize_t r = send(s->fd, (char *)words + sent, n - sent, MSG_NOSIGNAL);
            if (r < 0)
                return GSIZE_TO_POINTER(done + sent);
            sent += (size_t)r;
        }
        done += n;
    }
    if (s->shut)
        shutdown(s->fd, SHUT_WR);
    return GSIZE_TO_POINTER(done);
}

static void *read_stream(void *data)
{
    g_autofree stream *s = data;
    uint64_t words[CHUNK_WORDS];
    uint64_t done = 0;
    for (;;) {
        size_t n = 0;
        while (n < sizeof(words)) {
            ssize_t r = recv(s->fd, (char *)words + n, sizeof(words) - n, 0);
            if (r <= 0)
                break;
            n += (size_t)r;
        }
        for (size_t i = 0; i < n / 8; i++)
            if (words[i] != word_at(s->seed, done / 8 + i))
                return GSIZE_TO_POINTER(done + i * 8);
        done += n;
        if (n < sizeof(words))
            return GSIZE_TO_POINTER(done);
    }
}

GThread *channel_writer(int fd, uint64_t seed, uint64_t bytes, bool shut)
{
    stream *s = g_new0(stream, 1);
    *s = (stream){fd, seed, bytes, shut};
    return g_thread_new("writer", write_stream, s);
}

GThread *channel_reader(int fd, uint64_t seed)
{
    stream *s = g_new0(stream, 1);
    *s = (stream){fd, seed, 0, false};
    return g_thread_new("reader", read_stream, s);
}

void channel_tcp_pair(int ret[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    vz_autofd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, bytes), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    getsockname(listener, (struct sockaddr *)&address, &bytes);
    ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(ret[0], (struct sockaddr *)&address, bytes), ==, 0);
    ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    g_assert_cmpint(ret[1], >=, 0);
}
