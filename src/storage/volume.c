/* volume.c - see volume.h. The work on paths is done by virtvz-probe (probe_volume.c). */
#include "storage/volume.h"

#include "base/json.h"
#include "base/log.h"
#include "base/spawn.h"
#include "base/units.h"
#include "base/wait.h"
#include "storage/probe_call.h"

#include <string.h>

/* The next one means "as it is". */
#define ID_MAX            (UINT32_MAX - 1)
#define CLUSTER_BYTES_MIN 512
#define CLUSTER_BYTES_MAX (2u * 1024 * 1024)

static const char *const format_names[] = {[VZ_VOLUME_RAW] = "raw", [VZ_VOLUME_QCOW2] = "qcow2"};

/* NULL with err: also where the reply holds an "error". */
static json_t *probe(const char *command, json_t *take_request, GError **err)
{
    char *text = json_dumps(take_request, JSON_COMPACT);
    json_decref(take_request);
    const char *const words[] = {"volume", command, text, NULL};
    json_t *reply = vz_probe_call(words, VZ_VOLUME_DEADLINE_US, err);
    free(text);
    const char *error = vz_json_text(reply, "error");
    if (!reply || !error)
        return reply;
    vz_fail(err,
            json_is_true(json_object_get(reply, "taken")) ? VZ_ERR_OPERATION_INVALID
                                                          : VZ_ERR_SYSTEM_ERROR,
            "%s", error);
    json_decref(reply);
    return NULL;
}

/* --- shapes --- */

static uint64_t number(const json_t *object, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(object, key));
    return value > 0 ? (uint64_t)value : 0;
}

static bool truth(const json_t *object, const char *key)
{
    return json_is_true(json_object_get(object, key));
}

static bool read_shape(const json_t *object, vz_volume_format format, vz_volume_shape *s)
{
    *s = (vz_volume_shape){.format = format,
                           .virtual_bytes = number(object, "virtual"),
                           .allocated_bytes = number(object, "allocated"),
                           .uid = (uint32_t)MIN(number(object, "uid"), ID_MAX),
                           .gid = (uint32_t)MIN(number(object, "gid"), ID_MAX),
                           .mode = (uint32_t)number(object, "mode") & 0777};
    if (format == VZ_VOLUME_RAW)
        return s->virtual_bytes <= VZ_VOLUME_BYTES_MAX;
    s->cluster_bytes = (uint32_t)number(object, "cluster");
    s->version = (uint32_t)number(object, "version");
    s->lazy_refcounts = truth(object, "lazy");
    s->extended_l2 = truth(object, "extended");
    s->zstd = truth(object, "zstd");
    s->snapshots = truth(object, "snapshots");
    s->backing = truth(object, "backing");
    return s->virtual_bytes <= VZ_VOLUME_BYTES_MAX && s->cluster_bytes >= CLUSTER_BYTES_MIN &&
           s->cluster_bytes <= CLUSTER_BYTES_MAX &&
           (s->cluster_bytes & (s->cluster_bytes - 1)) == 0 && (s->version == 2 || s->version == 3);
}

json_t *vz_volume_shape_to_json(const vz_volume_shape *s)
{
    json_t *object =
        json_pack("{ss sI sI sI sI si}", "format", format_names[s->format], "virtual",
                  (json_int_t)s->virtual_bytes, "allocated", (json_int_t)s->allocated_bytes, "uid",
                  (json_int_t)s->uid, "gid", (json_int_t)s->gid, "mode", (int)s->mode);
    if (s->format == VZ_VOLUME_RAW)
        return object;
    json_t *more = json_pack("{si si sb sb sb sb sb}", "cluster", (int)s->cluster_bytes, "version",
                             (int)s->version, "lazy", s->lazy_refcounts, "extended", s->extended_l2,
                             "zstd", s->zstd, "snapshots", s->snapshots, "backing", s->backing);
    json_object_update(object, more);
    json_decref(more);
    return object;
}

bool vz_volume_shape_from_json(const json_t *object, vz_volume_shape *ret_shape, GError **err)
{
    const char *name = vz_json_text(object, "format");
    for (size_t i = 0; name && i < G_N_ELEMENTS(format_names); i++)
        if (strcmp(name, format_names[i]) == 0)
            return read_shape(object, (vz_volume_format)i, ret_shape) ||
                   vz_fail(err, VZ_ERR_INVALID_ARG, "there is no %s image of such a shape", name);
    return vz_fail(err, VZ_ERR_INVALID_ARG, "'%s' is no format of an image", name ? name : "");
}

bool vz_volume_look(const char *path, vz_volume_format format, vz_volume_shape *ret_shape,
                    bool *ret_exists, uint64_t *ret_free_bytes, GError **err)
{
    json_t *reply =
        probe("look", json_pack("{ss ss}", "path", path, "format", format_names[format]), err);
    if (!reply)
        return false;
    *ret_exists = truth(reply, "exists");
    *ret_free_bytes = number(reply, "free");
    bool sane = read_shape(reply, format, ret_shape) || !*ret_exists;
    json_decref(reply);
    return sane ||
           vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "the header of '%s' makes no sense", path);
}

/* --- making one --- */

json_t *vz_volume_expected(const char *path, const char *job, unsigned number)
{
    return json_pack("{ss so}", "path", path, "name", json_sprintf(".virtvz-%s-%u", job, number));
}

static bool format_qcow2(const char *file, const vz_volume_shape *s, GError **err)
{
    g_autofree char *size = g_strdup_printf("%" G_GUINT64_FORMAT, s->virtual_bytes);
    g_autofree char *options = g_strdup_printf(
        "cluster_size=%u,compat=%s%s%s%s", s->cluster_bytes, s->version == 2 ? "0.10" : "1.1",
        s->lazy_refcounts ? ",lazy_refcounts=on" : "", s->extended_l2 ? ",extended_l2=on" : "",
        s->zstd ? ",compression_type=zstd" : "");
    const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2",
                                "-o",       options,  file, size, NULL};
    return vz_run(argv, vz_now_us() + VZ_VOLUME_DEADLINE_US, NULL, err);
}

bool vz_volume_fail_no_room(const char *path, uint64_t needed_bytes, uint64_t free_bytes,
                            GError **err)
{
    return vz_fail(err, VZ_ERR_OPERATION_FAILED,
                   "no room for '%s': %" G_GUINT64_FORMAT " MiB are needed, and %" G_GUINT64_FORMAT
                   " MiB are free there",
                   path, needed_bytes / VZ_MIB, free_bytes / VZ_MIB);
}

bool vz_volume_create(const char *path, const char *job, unsigned number_of_it,
                      const vz_volume_shape *s, json_t **ret_created, GError **err)
{
    json_t *created = vz_volume_expected(path, job, number_of_it);
    json_t *request = json_pack("{sI sI sI sI si}", "bytes",
                                (json_int_t)(s->format == VZ_VOLUME_RAW ? s->virtual_bytes : 0),
                                "needs", (json_int_t)s->allocated_bytes, "uid", (json_int_t)s->uid,
                                "gid", (json_int_t)s->gid, "mode", (int)s->mode);
    json_object_update(request, created);
    json_t *reply = probe("create", request, err);
    bool fits = reply && truth(reply, "fits");
    if (reply && !fits)
        vz_volume_fail_no_room(path, s->allocated_bytes, number(reply, "free"), err);
    if (fits)
        json_object_update(created, reply);
    json_decref(reply);
    g_autofree char *directory = g_path_get_dirname(path);
    g_autofree char *file = g_build_filename(directory, vz_json_text(created, "name"), NULL);
    if (fits && (s->format == VZ_VOLUME_RAW || format_qcow2(file, s, err))) {
        *ret_created = created;
        return true;
    }
    if (fits)
        vz_volume_remove(created);
    json_decref(created);
    return false;
}

bool vz_volume_settle(const json_t *created, GError **err)
{
    json_t *reply = probe("settle", json_deep_copy(created), err);
    json_decref(reply);
    return reply != NULL;
}

bool vz_volume_put_aside(const char *path, const char *job, const json_t *inode, char **ret_aside,
                         GError **err)
{
    json_t *reply = probe("put-aside",
                          json_pack("{ss so sO*}", "path", path, "suffix",
                                    json_sprintf("migrated-%s", job), "inode", inode),
                          err);
    if (!reply)
        return false;
    *ret_aside = g_strdup(vz_json_text(reply, "aside"));
    json_decref(reply);
    return true;
}

void vz_volume_remove(const json_t *created)
{
    g_autoptr(GError) err = NULL;
    json_t *reply = probe("remove", json_deep_copy(created), &err);
    if (!reply)
        vz_warn(NULL, "an image is left behind: %s", err->message);
    json_decref(reply);
}

void vz_volume_remove_aside(const char *aside)
{
    g_autofree char *name = g_path_get_basename(aside);
    json_t *one = json_pack("{ss ss}", "path", aside, "name", name);
    vz_volume_remove(one);
    json_decref(one);
}
