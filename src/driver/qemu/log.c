/* log.c - see log.h. QEMU appends (O_APPEND), so after a cut it goes on at the new end. */
#include "driver/qemu/log.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL_BYTES ((size_t)2048)
#define SEARCH_BYTES                                                                               \
    ((size_t)256 * 1024) /* for a banner, from the end: far more than two of them */

/* Ends a banner, so that a later daemon finds where QEMU's own lines begin. */
static const char banner_end[] = "-- what QEMU says:\n";

struct vz_qemu_log {
    char *path;
    int fd;
    off_t run_start; /* where this run's lines begin */
    vz_inbox *inbox; /* NULL: not watched */
    int notify_fd;
};

static void rotate(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && st.st_size > VZ_QEMU_LOG_ROTATE_BYTES) {
        g_autofree char *old = g_strconcat(path, ".1", NULL);
        rename(path, old); /* failing that the log only grows on */
    }
}

static vz_qemu_log *open_log(const char *log_dir, const char *name, bool new_run, GError **err)
{
    if (g_mkdir_with_parents(log_dir, 0755) < 0) {
        vz_fail_errno(err, errno, "cannot make the directory '%s'", log_dir);
        return NULL;
    }
    g_autoptr(vz_qemu_log) log = g_new0(vz_qemu_log, 1);
    g_autofree char *file = g_strconcat(name, ".log", NULL);
    log->notify_fd = -1;
    log->path = g_build_filename(log_dir, g_strdelimit(file, "/", '_'), NULL);
    if (new_run)
        rotate(log->path);
    log->fd = open(log->path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->fd < 0) {
        vz_fail_errno(err, errno, "cannot open the log '%s'", log->path);
        return NULL;
    }
    return g_steal_pointer(&log);
}

vz_qemu_log *vz_qemu_log_open(const char *log_dir, const char *name, GError **err)
{
    return open_log(log_dir, name, true, err);
}

/* Behind the last banner; the whole file where none is near its end. */
static off_t find_run_start(int fd)
{
    off_t end = lseek(fd, 0, SEEK_END);
    off_t from = end > (off_t)SEARCH_BYTES ? end - (off_t)SEARCH_BYTES : 0;
    g_autofree char *text = g_malloc(SEARCH_BYTES + 1);
    ssize_t n = pread(fd, text, SEARCH_BYTES, from);
    text[n > 0 ? n : 0] = '\0';
    const char *found = g_strrstr_len(text, n, banner_end);
    return found ? from + (off_t)(found - text) + (off_t)strlen(banner_end) : 0;
}

vz_qemu_log *vz_qemu_log_reopen(const char *log_dir, const char *name, GError **err)
{
    vz_qemu_log *log = open_log(log_dir, name, false, err);
    if (log)
        log->run_start = find_run_start(log->fd);
    return log;
}

void vz_qemu_log_free(vz_qemu_log *log)
{
    if (!log)
        return;
    if (log->inbox)
        vz_inbox_unwatch(log->inbox, log->notify_fd);
    vz_fd_clear(&log->notify_fd);
    vz_fd_clear(&log->fd);
    g_free(log->path);
    g_free(log);
}

void vz_qemu_log_begin(vz_qemu_log *log, const char *text, const char *const *argv)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *stamp = g_date_time_format(now, "%Y-%m-%d %H:%M:%S.%f+0000");
    g_autoptr(GString) banner = g_string_new(NULL);
    g_string_append_printf(banner, "%s: %s\n", stamp, text);
    for (size_t i = 0; argv[i]; i++) {
        g_autofree char *quoted = g_shell_quote(argv[i]);
        bool plain = !strpbrk(argv[i], " \t\n\"'\\$`*?[]#~&;()|<>{}") && *argv[i];
        g_string_append_printf(banner, "%s%s",
                               i == 0              ? ""
                               : argv[i][0] == '-' ? " \\\n"
                                                   : " ",
                               plain ? argv[i] : quoted);
    }
    g_string_append_printf(banner, "\n%s", banner_end);
    g_autoptr(GError) ignored = NULL; /* a full disk must not keep a guest from starting */
    vz_fd_write_all(log->fd, banner->str, banner->len, &ignored);
    log->run_start = lseek(log->fd, 0, SEEK_END);
}

int vz_qemu_log_fd(const vz_qemu_log *log)
{
    return log->fd;
}

/* "2025-11-21T22:10:11.123456Z qemu-system-x86_64: text": only the text says something new. */
static const char *without_stamp(const char *line)
{
    const char *z = strchr(line, 'Z');
    bool stamped = z && z - line < 32 && g_ascii_isdigit(line[0]) && z[1] == ' ';
    return stamped ? z + 2 : line;
}

char *vz_qemu_log_tail(const vz_qemu_log *log)
{
    struct stat st;
    if (fstat(log->fd, &st) < 0)
        return g_strdup("");
    off_t start = log->run_start <= st.st_size ? log->run_start : 0;
    bool whole = st.st_size - start <= (off_t)TAIL_BYTES;
    if (!whole)
        start = st.st_size - (off_t)TAIL_BYTES;
    char text[TAIL_BYTES + 1];
    ssize_t n = pread(log->fd, text, TAIL_BYTES, start);
    text[n > 0 ? n : 0] = '\0';
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autoptr(GString) tail = g_string_new(NULL);
    for (size_t i = whole || !lines[0] ? 0 : 1; lines[i]; i++) { /* not half a line */
        const char *line = without_stamp(g_strstrip(lines[i]));
        /* QEMU says this of every pty, for people who start it by hand. */
        if (*line && !g_str_has_prefix(line, "char device redirected to "))
            g_string_append_printf(tail, "%s%s", tail->len > 0 ? "; " : "", line);
    }
    return g_utf8_make_valid(tail->str, (gssize)tail->len);
}

static void on_grown(int fd, short revents, void *data)
{
    (void)revents;
    vz_qemu_log *log = data;
    char events[4096];
    ssize_t n = read(fd, events, sizeof(events));
    (void)n;
    struct stat st;
    if (fstat(log->fd, &st) < 0 || st.st_size <= VZ_QEMU_LOG_CUT_BYTES || ftruncate(log->fd, 0) < 0)
        return;
    static const char note[] = "(what was here grew too large, and was cut)\n";
    g_autoptr(GError) ignored = NULL;
    vz_fd_write_all(log->fd, note, sizeof(note) - 1, &ignored);
    log->run_start = 0;
}

void vz_qemu_log_watch(vz_qemu_log *log, vz_inbox *inbox)
{
    if (log->inbox)
        return;
    log->notify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (log->notify_fd < 0 || inotify_add_watch(log->notify_fd, log->path, IN_MODIFY) < 0)
        return; /* out of watches: it is only not bounded */
    log->inbox = inbox;
    vz_inbox_watch(inbox, log->notify_fd, POLLIN, on_grown, log);
}
