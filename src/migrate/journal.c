/* journal.c - see journal.h.
 *
 * Lock: journal->lock guards everything but path, job and side, which never change. */
#include "migrate/journal.h"

#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Enough for every record of a job, so that a disk that fills up later cannot stop a verdict. */
#define RESERVED_BYTES ((size_t)64 * 1024)
#define HEADER_FORMAT  "virtvz-journal %d %s %s\n"

static const char *const record_names[VZ_RECORD_COUNT] = {
    [VZ_RECORD_NONE] = "none",
    [VZ_RECORD_RELEASED] = "released",
    [VZ_RECORD_TAKEN_BACK] = "taken-back",
    [VZ_RECORD_RESOLVED_HERE] = "resolved-here",
    [VZ_RECORD_RESOLVED_THERE] = "resolved-there",
    [VZ_RECORD_PREPARED] = "prepared",
    [VZ_RECORD_LOADED] = "loaded",
    [VZ_RECORD_COMMITTED] = "committed",
    [VZ_RECORD_START_ATTEMPTED] = "start-attempted",
    [VZ_RECORD_STARTED] = "started",
    [VZ_RECORD_ABORTED] = "aborted",
    [VZ_RECORD_ENDED] = "ended",
};

/* From which states one may be reached. */
#define FROM(state) (1u << VZ_RECORD_##state)
static const unsigned reached_from[VZ_RECORD_COUNT] = {
    [VZ_RECORD_RELEASED] = FROM(NONE),
    [VZ_RECORD_TAKEN_BACK] = FROM(RELEASED),
    [VZ_RECORD_RESOLVED_HERE] = FROM(RELEASED),
    [VZ_RECORD_RESOLVED_THERE] = FROM(RELEASED),
    [VZ_RECORD_ENDED] =
        FROM(NONE) | FROM(RELEASED) | FROM(TAKEN_BACK) | FROM(RESOLVED_HERE) | FROM(RESOLVED_THERE),
    [VZ_RECORD_PREPARED] = FROM(NONE),
    [VZ_RECORD_LOADED] = FROM(PREPARED),
    [VZ_RECORD_COMMITTED] = FROM(LOADED),
    [VZ_RECORD_START_ATTEMPTED] = FROM(COMMITTED),
    [VZ_RECORD_STARTED] = FROM(COMMITTED) | FROM(START_ATTEMPTED), /* the former: offline */
    [VZ_RECORD_ABORTED] = FROM(NONE) | FROM(PREPARED) | FROM(LOADED),
};
#undef FROM

static const char *const side_names[] = {[VZ_SIDE_SOURCE] = "out", [VZ_SIDE_DESTINATION] = "in"};

typedef struct {
    char *step;
    bool done;
} step_record;

struct vz_journal {
    char *path;
    uint8_t job[VZ_UUID_BYTES];
    vz_side side;
    GMutex lock;
    int fd;
    off_t bytes; /* of whole lines */
    bool torn;   /* half a line follows them and could not be cut off yet */
    vz_record state;
    GHashTable *values;
    GPtrArray *steps; /* of step_record, those that were not undone */
};

const char *vz_record_name(vz_record state)
{
    return record_names[state];
}

static void step_record_free(void *data)
{
    step_record *record = data;
    g_free(record->step);
    g_free(record);
}

static vz_journal *journal_new(const char *path)
{
    vz_journal *journal = g_new0(vz_journal, 1);
    journal->path = g_strdup(path);
    journal->fd = -1;
    g_mutex_init(&journal->lock);
    journal->values = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    journal->steps = g_ptr_array_new_with_free_func(step_record_free);
    return journal;
}

void vz_journal_free(vz_journal *journal)
{
    if (!journal)
        return;
    vz_fd_clear(&journal->fd);
    g_hash_table_unref(journal->values);
    g_ptr_array_unref(journal->steps);
    g_mutex_clear(&journal->lock);
    g_free(journal->path);
    g_free(journal);
}

static bool reserve_space(vz_journal *journal, GError **err)
{
    return fallocate(journal->fd, FALLOC_FL_KEEP_SIZE, 0, RESERVED_BYTES) == 0 ||
           errno == EOPNOTSUPP ||
           vz_fail_errno(err, errno, "cannot reserve space for the journal '%s'", journal->path);
}

/* A line is in the file whole or not at all: the next one would join half of one, and a line that
 * could not be synced must not be read back, since its writer was told that it failed. */
static bool append(vz_journal *journal, const char *line, bool durable, GError **err)
{
    size_t bytes = strlen(line);
    if (journal->torn && ftruncate(journal->fd, journal->bytes) < 0)
        return vz_fail_errno(err, errno,
                             "what a failed write left in journal '%s' cannot be cut off",
                             journal->path);
    if (durable ? vz_fd_append_durable(journal->fd, line, bytes, err)
                : vz_fd_write_all(journal->fd, line, bytes, err)) {
        journal->torn = false;
        journal->bytes += (off_t)bytes;
        return true;
    }
    journal->torn = ftruncate(journal->fd, journal->bytes) < 0;
    g_prefix_error(err, "journal '%s': ", journal->path);
    return false;
}

vz_journal *vz_journal_create(const char *directory, vz_side side, const uint8_t job[VZ_UUID_BYTES],
                              GError **err)
{
    char id[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(job, id);
    g_autofree char *path = g_strdup_printf("%s/%s.%s", directory, id, side_names[side]);
    g_autoptr(vz_journal) journal = journal_new(path);
    memcpy(journal->job, job, VZ_UUID_BYTES);
    journal->side = side;
    journal->fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (journal->fd < 0 && errno == EEXIST) {
        vz_fail(err, VZ_ERR_OPERATION_INVALID, "migration job %s exists already on this host", id);
        return NULL;
    }
    if (journal->fd < 0) {
        vz_fail_errno(err, errno, "cannot create the journal '%s'", path);
        return NULL;
    }
    g_autofree char *header =
        g_strdup_printf(HEADER_FORMAT, VZ_JOURNAL_VERSION, side_names[side], id);
    if (!reserve_space(journal, err) || !append(journal, header, true, err) ||
        !vz_file_sync_name(path, err)) {
        unlink(path);
        return NULL;
    }
    return g_steal_pointer(&journal);
}

static void note_step(vz_journal *journal, const char *verb, const char *step)
{
    GPtrArray *steps = journal->steps;
    step_record *last = steps->len ? steps->pdata[steps->len - 1] : NULL;
    bool is_last = last && strcmp(last->step, step) == 0;
    if (strcmp(verb, "begin") == 0 && !is_last) {
        step_record *record = g_new0(step_record, 1);
        record->step = g_strdup(step);
        g_ptr_array_add(steps, record);
    } else if (strcmp(verb, "done") == 0 && is_last) {
        last->done = true;
    } else if (strcmp(verb, "undone") == 0 && is_last) {
        g_ptr_array_remove_index(steps, steps->len - 1);
    }
}

static void note_value(vz_journal *journal, const char *key, const char *escaped)
{
    g_hash_table_replace(journal->values, g_strdup(key), g_strcompress(escaped));
}

static bool note_state(vz_journal *journal, const char *name)
{
    for (int i = 0; i < VZ_RECORD_COUNT; i++) {
        if (strcmp(record_names[i], name) == 0) {
            journal->state = (vz_record)i;
            return true;
        }
    }
    return false;
}

/* Of any version; what follows the job's id is a later one's. */
static bool parse_header(vz_journal *journal, const char *line, GError **err)
{
    g_auto(GStrv) words = g_strsplit(line, " ", 5);
    guint64 version;
    if (g_strv_length(words) < 4 || strcmp(words[0], "virtvz-journal") != 0 ||
        !g_ascii_string_to_unsigned(words[1], 10, 1, INT32_MAX, &version, NULL))
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' is not a journal", journal->path);
    if (!vz_check_version(journal->path, (int64_t)version, VZ_JOURNAL_VERSION, err))
        return false;
    for (size_t i = 0; i < G_N_ELEMENTS(side_names); i++) {
        journal->side = (vz_side)i;
        if (strcmp(words[2], side_names[i]) == 0 && vz_uuid_parse(words[3], journal->job))
            return true;
    }
    return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' has a damaged header", journal->path);
}

static bool parse_line(vz_journal *journal, const char *line)
{
    g_auto(GStrv) words = g_strsplit(line, " ", 3);
    guint n = g_strv_length(words);
    if (n == 3 && strcmp(words[0], "set") == 0)
        note_value(journal, words[1], words[2]);
    else if (n == 2 && strcmp(words[0], "state") == 0)
        return note_state(journal, words[1]);
    else if (n == 2)
        note_step(journal, words[0], words[1]);
    else
        return false;
    return true;
}

vz_journal *vz_journal_load(const char *path, GError **err)
{
    g_autofree char *text = NULL;
    size_t bytes;
    if (!vz_file_read(path, VZ_JOURNAL_BYTES_MAX, &text, &bytes, err))
        return NULL;
    g_autoptr(vz_journal) journal = journal_new(path);
    /* What follows the last newline was never finished; a later append must not join it. */
    char *end = strrchr(text, '\n');
    size_t whole_bytes = end ? (size_t)(end - text) + 1 : 0;
    text[whole_bytes] = '\0';
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    if (!parse_header(journal, lines[0] ? lines[0] : "", err))
        return NULL;
    for (guint i = 1; lines[i] && *lines[i]; i++) {
        if (!parse_line(journal, lines[i])) {
            vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' line %u is damaged: '%s'", path, i + 1,
                    lines[i]);
            return NULL;
        }
    }
    journal->fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    journal->bytes = (off_t)whole_bytes;
    if (journal->fd < 0 || (bytes > whole_bytes && ftruncate(journal->fd, journal->bytes) < 0)) {
        vz_fail_errno(err, errno, "cannot open the journal '%s'", path);
        return NULL;
    }
    /* Cutting gave up the space behind the end. A disk that is full now says so at the next line.
     */
    g_autoptr(GError) ignored = NULL;
    reserve_space(journal, &ignored);
    return g_steal_pointer(&journal);
}

bool vz_journal_remove(vz_journal *journal, GError **err)
{
    return vz_file_remove_durable(journal->path, err);
}

const char *vz_journal_path(const vz_journal *journal)
{
    return journal->path;
}

const uint8_t *vz_journal_job(const vz_journal *journal)
{
    return journal->job;
}

vz_side vz_journal_side(const vz_journal *journal)
{
    return journal->side;
}

bool vz_journal_sync(vz_journal *journal, GError **err)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    return append(journal, "", true, err);
}

bool vz_journal_set(vz_journal *journal, const char *key, const char *value, GError **err)
{
    g_autofree char *escaped = g_strescape(value, NULL);
    g_autofree char *line = g_strdup_printf("set %s %s\n", key, escaped);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    /* The reserved part is kept for steps and states. */
    if ((size_t)journal->bytes + strlen(line) > VZ_JOURNAL_BYTES_MAX - RESERVED_BYTES)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "'%s' of %zu bytes does not fit the journal '%s'", key, strlen(line),
                       journal->path);
    if (!append(journal, line, false, err))
        return false;
    note_value(journal, key, escaped);
    return true;
}

char *vz_journal_get(vz_journal *journal, const char *key)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    return g_strdup(g_hash_table_lookup(journal->values, key));
}

bool vz_journal_step(vz_journal *journal, const char *verb, const char *step, GError **err)
{
    g_autofree char *line = g_strdup_printf("%s %s\n", verb, step);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    if (!append(journal, line, false, err))
        return false;
    note_step(journal, verb, step);
    return true;
}

char *vz_journal_last_step(vz_journal *journal, bool *ret_done)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    if (journal->steps->len == 0)
        return NULL;
    const step_record *last = journal->steps->pdata[journal->steps->len - 1];
    *ret_done = last->done;
    return g_strdup(last->step);
}

bool vz_journal_step_done(vz_journal *journal, const char *step)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    for (guint i = 0; i < journal->steps->len; i++) {
        const step_record *record = journal->steps->pdata[i];
        if (strcmp(record->step, step) == 0)
            return record->done;
    }
    return false;
}

vz_record vz_journal_state(vz_journal *journal)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    return journal->state;
}

static bool may_advance(vz_record from, vz_record to)
{
    return (reached_from[to] & (1u << from)) != 0;
}

static bool move_to(vz_journal *journal, vz_record to, bool allowed, GError **err)
{
    g_autofree char *line = g_strdup_printf("state %s\n", record_names[to]);
    if (!allowed)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "the job's record says '%s', so it cannot become '%s'",
                       record_names[journal->state], record_names[to]);
    /* To those who ask, "loaded" is no more than "prepared". */
    if (!append(journal, line, to != VZ_RECORD_LOADED, err))
        return false;
    journal->state = to;
    return true;
}

bool vz_journal_advance(vz_journal *journal, vz_record to, GError **err)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    return move_to(journal, to, may_advance(journal->state, to), err);
}

bool vz_journal_revoke(vz_journal *journal, GError **err)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    return move_to(journal, VZ_RECORD_ABORTED, journal->state == VZ_RECORD_COMMITTED, err);
}

bool vz_journal_condemn(vz_journal *journal, GError **err)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&journal->lock);
    return journal->state == VZ_RECORD_ABORTED ||
           move_to(journal, VZ_RECORD_ABORTED, journal->side == VZ_SIDE_DESTINATION, err);
}
