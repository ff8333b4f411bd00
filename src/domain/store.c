/* store.c - see store.h.
 *
 * Lock: marks_lock, for a change of marks, which reads and writes: they are changed by actors and
 * by threads that answer other hosts. The rest has no state but the paths. */
#include "domain/store.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE      0600
#define MARK_VALUE_MAX 1024
#define CONFIG_SUFFIX  ".xml"
#define START_SUFFIX   ".autostart"
#define MARKS_SUFFIX   ".marks"
#define STATUS_SUFFIX  ".status"
#define AUTOSTARTED    "autostarted"
#define STATUS_VERSION 2 /* 2 added reboot */
#define MARKS_VERSION  1

struct vz_store {
    char *configs;  /* STATE/domains */
    char *statuses; /* RUN/domains */
    char *run_dir;
    GMutex marks_lock;
};

/* g_mkdir_with_parents is no use: a directory that exists keeps the mode that its owner gave it. */
static bool make_directory(const char *path, mode_t mode, GError **err)
{
    if (g_mkdir_with_parents(path, (int)mode) < 0)
        return vz_fail_errno(err, errno, "cannot make directory '%s'", path);
    return true;
}

vz_store *vz_store_open(const char *state_dir, const char *run_dir, GError **err)
{
    g_autoptr(vz_store) store = g_new0(vz_store, 1);
    store->configs = g_build_filename(state_dir, "domains", NULL);
    store->statuses = g_build_filename(run_dir, "domains", NULL);
    store->run_dir = g_strdup(run_dir);
    g_mutex_init(&store->marks_lock);
    if (!make_directory(store->configs, 0700, err) || !make_directory(run_dir, 0711, err) ||
        !make_directory(store->statuses, 0700, err))
        return NULL;
    return g_steal_pointer(&store);
}

void vz_store_close(vz_store *store)
{
    if (!store)
        return;
    g_free(store->configs);
    g_free(store->statuses);
    g_free(store->run_dir);
    g_mutex_clear(&store->marks_lock);
    g_free(store);
}

static char *file_of(const char *directory, const char *uuid_text, const char *suffix)
{
    return g_strconcat(directory, "/", uuid_text, suffix, NULL);
}

/* ---- definitions ---- */

bool vz_store_save_config(vz_store *store, const char *uuid_text, const char *xml, GError **err)
{
    g_autofree char *path = file_of(store->configs, uuid_text, CONFIG_SUFFIX);
    return vz_file_write_durable(path, xml, strlen(xml), FILE_MODE, err);
}

bool vz_store_remove_config(vz_store *store, const char *uuid_text, GError **err)
{
    g_autofree char *path = file_of(store->configs, uuid_text, CONFIG_SUFFIX);
    return vz_store_set_autostart(store, uuid_text, false, err) &&
           vz_file_remove_durable(path, err);
}

bool vz_store_set_autostart(vz_store *store, const char *uuid_text, bool autostart, GError **err)
{
    g_autofree char *path = file_of(store->configs, uuid_text, START_SUFFIX);
    if (autostart)
        return vz_file_write_durable(path, "", 0, FILE_MODE, err);
    return vz_file_remove_durable(path, err);
}

bool vz_store_read_config(vz_store *store, const char *uuid_text, char **ret_xml,
                          bool *ret_autostart, GError **err)
{
    g_autofree char *path = file_of(store->configs, uuid_text, CONFIG_SUFFIX);
    g_autofree char *flag = file_of(store->configs, uuid_text, START_SUFFIX);
    size_t bytes = 0;
    g_autofree char *xml = NULL;
    if (!vz_file_read(path, VZ_STORE_FILE_MAX, &xml, &bytes, err))
        return false;
    if (strlen(xml) != bytes)
        return vz_fail(err, VZ_ERR_XML_ERROR, "'%s' contains a NUL byte", path);
    *ret_xml = g_steal_pointer(&xml);
    *ret_autostart = access(flag, F_OK) == 0;
    return true;
}

/* The uuids whose file has the suffix. Files that a crash left half-written (".new") are not ours
 * to read; any other name is said in the log, since somebody put it there for a reason. */
static GPtrArray *list(const char *directory, const char *suffix)
{
    GPtrArray *uuids = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        if (!g_str_has_suffix(name, suffix))
            continue;
        g_autofree char *text = g_strndup(name, strlen(name) - strlen(suffix));
        char canonical[VZ_UUID_TEXT_BYTES] = "";
        uint8_t uuid[VZ_UUID_BYTES];
        if (vz_uuid_parse(text, uuid))
            vz_uuid_format(uuid, canonical);
        if (g_str_equal(text, canonical))
            g_ptr_array_add(uuids, g_steal_pointer(&text));
        else
            vz_warn(NULL, "'%s/%s' is not named after a domain's uuid; it is left alone", directory,
                    name);
    }
    return uuids;
}

GPtrArray *vz_store_list_configs(vz_store *store)
{
    return list(store->configs, CONFIG_SUFFIX);
}

GPtrArray *vz_store_list_statuses(vz_store *store)
{
    return list(store->statuses, STATUS_SUFFIX);
}

/* ---- status ---- */

void vz_status_clear(vz_status *status)
{
    g_free(status->xml);
    *status = (vz_status){.xml = NULL};
}

const char *vz_boot_id(void)
{
    static char id[VZ_UUID_TEXT_BYTES];
    static gsize once;
    if (g_once_init_enter(&once)) {
        g_autofree char *text = NULL;
        g_autoptr(GError) err = NULL;
        if (vz_file_read("/proc/sys/kernel/random/boot_id", VZ_STORE_MARK_MAX, &text, NULL, &err))
            g_strlcpy(id, g_strstrip(text), sizeof(id));
        g_once_init_leave(&once, 1);
    }
    return id;
}

bool vz_store_save_status(vz_store *store, const char *uuid_text, const vz_status *status,
                          GError **err)
{
    g_autofree char *path = file_of(store->statuses, uuid_text, STATUS_SUFFIX);
    g_autofree char *text = g_strdup_printf(
        "version %d\nid %d\nstate %d\nreason %d\npid %d\nstart-time %" G_GUINT64_FORMAT
        "\nboot-id %s\nautodestroy %d\nreboot %d\n\n%s",
        STATUS_VERSION, status->id, status->state, status->reason, (int)status->pid,
        status->start_time, status->boot_id, status->autodestroy, status->reboot, status->xml);
    return vz_file_write_durable(path, text, strlen(text), FILE_MODE, err);
}

void vz_store_remove_status(vz_store *store, const char *uuid_text)
{
    g_autofree char *path = file_of(store->statuses, uuid_text, STATUS_SUFFIX);
    if (unlink(path) < 0 && errno != ENOENT)
        vz_warn(uuid_text, "cannot remove '%s': %s", path, g_strerror(errno));
}

bool vz_store_has_status(vz_store *store, const char *uuid_text, char **ret_path)
{
    g_autofree char *path = file_of(store->statuses, uuid_text, STATUS_SUFFIX);
    bool exists = access(path, F_OK) == 0 || errno != ENOENT;
    if (ret_path)
        *ret_path = g_steal_pointer(&path);
    return exists;
}

/* One "key number" line of the head, which must come in this order. */
static bool take_number(char **lines, size_t at, const char *key, uint64_t *ret, GError **err)
{
    size_t length = strlen(key);
    const char *line = lines[at];
    if (!line || strncmp(line, key, length) != 0 || line[length] != ' ')
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "line %zu is not '%s NUMBER'", at + 1, key);
    return vz_parse_u64(line + length + 1, key, 0, INT64_MAX, ret, err);
}

static bool parse_status_head(const char *head, vz_status *ret_status, GError **err)
{
    static const char *const keys[] = {"version", "id", "state", "reason", "pid", "start-time"};
    uint64_t n[G_N_ELEMENTS(keys)], autodestroy, reboot = 0;
    g_auto(GStrv) lines = g_strsplit(head, "\n", 0);
    for (size_t i = 0; i < G_N_ELEMENTS(keys); i++)
        if (!take_number(lines, i, keys[i], &n[i], err))
            return false;
    const char *boot = lines[G_N_ELEMENTS(keys)];
    if (!boot || !g_str_has_prefix(boot, "boot-id ") ||
        strlen(boot) != strlen("boot-id ") + VZ_UUID_TEXT_BYTES - 1)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "line %zu is not 'boot-id UUID'",
                       G_N_ELEMENTS(keys) + 1);
    if (!take_number(lines, G_N_ELEMENTS(keys) + 1, "autodestroy", &autodestroy, err) ||
        (n[0] > 1 && !take_number(lines, G_N_ELEMENTS(keys) + 2, "reboot", &reboot, err)))
        return false;
    for (size_t i = 1; i <= 4; i++)
        if (n[i] > INT32_MAX)
            return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "%s is out of range", keys[i]);
    *ret_status = (vz_status){.id = (int)n[1],
                              .state = (int)n[2],
                              .reason = (int)n[3],
                              .pid = (pid_t)n[4],
                              .start_time = n[5],
                              .autodestroy = autodestroy != 0,
                              .reboot = reboot != 0};
    g_strlcpy(ret_status->boot_id, boot + strlen("boot-id "), sizeof(ret_status->boot_id));
    return true;
}

/* First, for what follows is as the version has it. A text without one is damaged, which is found
 * later. */
static bool check_status_version(const char *path, const char *text, GError **err)
{
    int version;
    return sscanf(text, "version %9d\n", &version) != 1 ||
           vz_check_version(path, version, STATUS_VERSION, err);
}

bool vz_store_read_status(vz_store *store, const char *uuid_text, vz_status *ret_status,
                          GError **err)
{
    g_autofree char *path = file_of(store->statuses, uuid_text, STATUS_SUFFIX);
    g_autofree char *text = NULL;
    if (!vz_file_read(path, VZ_STORE_FILE_MAX, &text, NULL, err) ||
        !check_status_version(path, text, err))
        return false;
    char *gap = strstr(text, "\n\n");
    if (!gap)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' is damaged: it has no definition", path);
    *gap = '\0';
    if (!parse_status_head(text, ret_status, err)) {
        g_prefix_error(err, "'%s' is damaged: ", path);
        return false;
    }
    ret_status->xml = g_strdup(gap + 2);
    return true;
}

/* ---- marks: "key value" lines, the whole file rewritten at each change ---- */

static bool read_marks(const char *path, GPtrArray *lines, GError **err)
{
    g_autofree char *text = NULL;
    if (access(path, F_OK) < 0 && errno == ENOENT)
        return true;
    if (!vz_file_read(path, VZ_STORE_MARK_MAX, &text, NULL, err))
        return false;
    g_auto(GStrv) all = g_strsplit(text, "\n", 0);
    for (char **line = all; *line; line++) {
        if (!**line)
            continue;
        if (!strchr(*line, ' '))
            return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' is damaged: line '%s'", path, *line);
        int version;
        if (sscanf(*line, "version %9d", &version) == 1 &&
            !vz_check_version(path, version, MARKS_VERSION, err))
            return false;
        g_ptr_array_add(lines, g_strdup(*line));
    }
    return true;
}

static bool is_key(const char *line, const char *key)
{
    size_t length = strlen(key);
    return strncmp(line, key, length) == 0 && line[length] == ' ';
}

bool vz_store_get_mark(vz_store *store, const char *uuid_text, const char *key, char **ret_value,
                       GError **err)
{
    g_autofree char *path = file_of(store->configs, uuid_text, MARKS_SUFFIX);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    if (!read_marks(path, lines, err))
        return false;
    char *value = NULL;
    for (guint i = 0; i < lines->len && !value; i++)
        if (is_key(lines->pdata[i], key))
            value = g_strdup((const char *)lines->pdata[i] + strlen(key) + 1);
    *ret_value = value;
    return true;
}

/* Writes the marks with that key replaced, or, without a value, left out. */
static bool change_mark(vz_store *store, const char *uuid_text, const char *key, const char *value,
                        GError **err)
{
    g_autofree char *path = file_of(store->configs, uuid_text, MARKS_SUFFIX);
    g_autoptr(GPtrArray) lines = g_ptr_array_new_with_free_func(g_free);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&store->marks_lock);
    if (!read_marks(path, lines, err))
        return false;
    g_autoptr(GString) text = g_string_new(NULL);
    for (guint i = 0; i < lines->len; i++)
        if (!is_key(lines->pdata[i], key))
            g_string_append_printf(text, "%s\n", (const char *)lines->pdata[i]);
    if (value)
        g_string_append_printf(text, "%s %s\n", key, value);
    if (text->len > VZ_STORE_MARK_MAX)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "the marks of domain %s are too long",
                       uuid_text);
    if (text->len == 0)
        return vz_file_remove_durable(path, err);
    return vz_file_write_durable(path, text->str, text->len, FILE_MODE, err);
}

bool vz_store_set_mark(vz_store *store, const char *uuid_text, const char *key, const char *value,
                       GError **err)
{
    if (!*key || strspn(key, "abcdefghijklmnopqrstuvwxyz-") != strlen(key) || strchr(value, '\n') ||
        strlen(value) > MARK_VALUE_MAX)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' with value '%s' cannot be a mark", key,
                       value);
    return change_mark(store, uuid_text, key, value, err);
}

bool vz_store_clear_mark(vz_store *store, const char *uuid_text, const char *key, GError **err)
{
    return change_mark(store, uuid_text, key, NULL, err);
}

/* ---- autostart once per boot ---- */

static char *autostarted_path(vz_store *store)
{
    return g_build_filename(store->run_dir, AUTOSTARTED, NULL);
}

bool vz_store_autostarted(vz_store *store)
{
    g_autofree char *path = autostarted_path(store);
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;
    return vz_file_read(path, VZ_STORE_MARK_MAX, &text, NULL, &err) &&
           g_str_equal(text, vz_boot_id());
}

bool vz_store_note_autostarted(vz_store *store, GError **err)
{
    g_autofree char *path = autostarted_path(store);
    return vz_file_write_durable(path, vz_boot_id(), strlen(vz_boot_id()), FILE_MODE, err);
}
