/* console.c - a guest's serial console, pumped between its pty and one client at a time.
 *
 * `sessions` maps the path of a pty to the stream that has it; sessions_lock guards it. The handler
 * runs on the domain's actor, the end of a stream on the loop. */
#include "api/api.h"

#include "base/fd.h"
#include "domain/def.h"
#include "rpc/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* SAFE asks that two sessions never share a console, which is always so here. */
enum { CONSOLE_FORCE = 1, CONSOLE_SAFE = 2 };

typedef struct {
    int refs; /* atomic: of the table, and of the stream's on_end */
    char *path;
    vz_stream *stream; /* under the lock; NULL until it is open */
} session;

static GMutex sessions_lock;
static GHashTable *sessions;

static void session_unref(void *data)
{
    session *s = data;
    if (!g_atomic_int_dec_and_test(&s->refs))
        return;
    vz_stream_unref(s->stream);
    g_free(s->path);
    g_free(s);
}

static void session_ended(void *data)
{
    session *s = data;
    g_mutex_lock(&sessions_lock);
    if (g_hash_table_lookup(sessions, s->path) == s)
        g_hash_table_remove(sessions, s->path);
    g_mutex_unlock(&sessions_lock);
}

/* Takes the console for us; with force from whoever has it. NULL: it is in use. */
static session *take(const char *path, bool force, GError **err)
{
    session *mine = NULL;
    vz_stream *theirs = NULL;
    g_mutex_lock(&sessions_lock);
    if (!sessions)
        sessions = g_hash_table_new_full(g_str_hash, g_str_equal, NULL, session_unref);
    session *other = g_hash_table_lookup(sessions, path);
    if (!other || force) {
        if (other)
            theirs = g_steal_pointer(&other->stream);
        mine = g_new0(session, 1);
        mine->refs = 2;
        mine->path = g_strdup(path);
        g_hash_table_replace(sessions, mine->path, mine);
    }
    g_mutex_unlock(&sessions_lock);
    if (theirs) {
        GError *why = NULL;
        vz_fail(&why, VZ_ERR_OPERATION_ABORTED, "the console was taken over by another client");
        vz_stream_abort(theirs, why);
        vz_stream_unref(theirs);
    }
    if (!mine)
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "Active console session exists for this domain");
    return mine;
}

static bool matches(const vz_def_info *info, const char *wanted)
{
    return !wanted || (info->alias && strcmp(info->alias, wanted) == 0);
}

/* The device that a client means: by alias, or the first console, or the first serial port. */
static const vz_def_chardev *find(const vz_def *live, const char *wanted)
{
    for (size_t i = 0; i < live->n_consoles; i++)
        if (matches(&live->consoles[i].info, wanted))
            return &live->consoles[i].source;
    for (size_t i = 0; i < live->n_serials; i++)
        if (matches(&live->serials[i].info, wanted))
            return &live->serials[i].source;
    return NULL;
}

static bool find_pty(const vz_snapshot *s, const char *wanted, const char **ret_path, GError **err)
{
    const vz_def_chardev *device = find(s->live, wanted);
    const char *name = wanted ? wanted : "default";
    if (!device)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "cannot find console device '%s'", name);
    if (device->type != VZ_CHARDEV_PTY || !device->path)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "character device %s is not using a PTY", name);
    *ret_path = device->path;
    return true;
}

bool vz_api_domain_open_console(vz_call *call, const vz_wire_domain_open_console_args *args,
                                GError **err)
{
    const char *path;
    if (!vz_api_check_flags(args->flags, CONSOLE_FORCE | CONSOLE_SAFE, "virDomainOpenConsole", err))
        return false;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(vz_api_subject(call));
    if (!vz_snapshot_check_active(s, err) || !find_pty(s, args->device, &path, err))
        return false;
    vz_autofd fd = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return vz_fail_errno(err, errno, "cannot open console '%s'", path);
    session *mine = take(path, args->flags & CONSOLE_FORCE, err);
    if (!mine)
        return false;
    const vz_stream_request request = {
        .take_fd = vz_steal_fd(&fd), .on_end = session_ended, .data = mine, .drop = session_unref};
    vz_stream *stream;
    if (!vz_stream_open(call, &request, &stream, err)) {
        g_mutex_lock(&sessions_lock);
        if (g_hash_table_lookup(sessions, path) == mine)
            g_hash_table_remove(sessions, path);
        g_mutex_unlock(&sessions_lock);
        return false;
    }
    /* It may have ended already; who ended it has then forgotten us. */
    g_mutex_lock(&sessions_lock);
    bool still_ours = g_hash_table_lookup(sessions, path) == mine;
    if (still_ours)
        mine->stream = stream;
    g_mutex_unlock(&sessions_lock);
    if (!still_ours)
        vz_stream_unref(stream);
    return true;
}
