/* dst_disks.c - see disks.h: the destination's part. */
#include "migrate/disks.h"

#include "base/json.h"
#include "base/log.h"
#include "driver/qemu/argv.h"
#include "driver/qemu/blockcopy.h"
#include "driver/qemu/driver.h"
#include "migrate/stream_sockets.h"
#include "storage/identify.h"
#include "storage/volume.h"

#include <stdlib.h>

vz_identify_policy vz_disks_policy(const vz_options *options)
{
    return (vz_identify_policy){.unsafe = vz_options_has(options, VZ_OPTION_UNSAFE),
                                .copy = vz_options_has(options, VZ_OPTION_NON_SHARED_DISK),
                                .among = vz_options_texts(options, VZ_OPTION_MIGRATE_DISKS)};
}

bool vz_disks_check_list(const vz_def *def, const vz_options *options, GError **err)
{
    static const vz_option_id lists[] = {VZ_OPTION_MIGRATE_DISKS,
                                         VZ_OPTION_MIGRATE_DISKS_DETECT_ZEROES,
                                         VZ_OPTION_MIGRATE_DISKS_TARGET_ZERO};
    for (size_t i = 0; i < G_N_ELEMENTS(lists); i++) {
        const GPtrArray *targets = vz_options_texts(options, lists[i]);
        for (guint n = 0; n < targets->len; n++)
            if (!vz_def_disk_find(def, targets->pdata[n]))
                return vz_fail(err, VZ_ERR_INVALID_ARG,
                               "parameter '%s' names disk '%s', which the "
                               "domain does not have",
                               vz_option_info(lists[i])->name, (const char *)targets->pdata[n]);
    }
    return true;
}

unsigned vz_disks_copied(const json_t *answers)
{
    size_t i;
    json_t *answer;
    unsigned copied = 0;
    json_array_foreach((json_t *)(uintptr_t)answers, i, answer)
    {
        copied += json_is_true(json_object_get(answer, "copy"));
    }
    return copied;
}

json_t *vz_disks_noted(const vz_migration *m)
{
    g_autofree char *text = vz_journal_get(m->journal, VZ_NOTE_COPIES);
    json_t *copies = text ? json_loads(text, 0, NULL) : NULL;
    return copies ? copies : json_array();
}

bool vz_disks_note(vz_migration *m, const json_t *copies, GError **err)
{
    char *text = json_dumps(copies, JSON_COMPACT);
    bool noted =
        vz_migration_note(m, VZ_NOTE_COPIES, text, err) && vz_journal_sync(m->journal, err);
    free(text);
    return noted;
}

/* --- the images --- */

/* It was there before, and the caller has asked for it to be written over. */
static bool is_over(const json_t *copy)
{
    return json_is_true(json_object_get(copy, "over"));
}

/* Several on one file system have to fit together. */
static bool fit_together(const json_t *copies, GError **err)
{
    size_t i, j;
    json_t *one, *other;
    json_array_foreach((json_t *)(uintptr_t)copies, i, one)
    {
        json_int_t needs = 0;
        json_array_foreach((json_t *)(uintptr_t)copies, j, other)
        {
            if (json_equal(json_object_get(one, "device"), json_object_get(other, "device")))
                needs += json_integer_value(json_object_get(other, "needs"));
        }
        json_int_t room = json_integer_value(json_object_get(one, "free"));
        if (needs > room)
            return vz_volume_fail_no_room(vz_json_text(one, "path"), (uint64_t)needs,
                                          (uint64_t)room, err);
    }
    return true;
}

/* As the record is to know them before any is made. */
static json_t *expected_copies(const vz_migration *m)
{
    size_t i;
    json_t *answer;
    json_t *copies = json_array();
    json_array_foreach(m->disks_answered, i, answer)
    {
        const char *target = vz_json_text(answer, "target");
        const vz_def_disk *disk = vz_def_disk_find(m->def, target);
        if (!disk || !json_is_true(json_object_get(answer, "copy")))
            continue;
        json_t *copy = vz_volume_expected(disk->path, m->id, (unsigned)json_array_size(copies));
        json_object_set_new(copy, "target", json_string(target));
        json_object_set(copy, "over", json_object_get(answer, "over"));
        json_array_append_new(copies, copy);
    }
    return copies;
}

/* Makes the n-th, and notes what it is before it gets its name. */
static bool create_nth(vz_migration *m, unsigned n, json_t *copies, GError **err)
{
    json_t *copy = json_array_get(copies, n);
    const json_t *offer = vz_identify_find(m->disks_offered, vz_json_text(copy, "target"));
    json_t *created = NULL;
    vz_volume_shape shape;
    if (!vz_volume_shape_from_json(json_object_get(offer, "shape"), &shape, err) ||
        !vz_volume_create(vz_json_text(copy, "path"), m->id, n, &shape, &created, err))
        return false;
    json_object_update(copy, created);
    json_decref(created);
    json_object_set_new(copy, "needs", json_integer((json_int_t)shape.allocated_bytes));
    return fit_together(copies, err) && vz_disks_note(m, copies, err) &&
           vz_volume_settle(copy, err);
}

bool vz_destination_create_disks(vz_migration *m, GError **err)
{
    json_auto_t *copies = expected_copies(m);
    unsigned n_copies = (unsigned)json_array_size(copies);
    if (n_copies > 0 && !vz_disks_note(m, copies, err))
        return false;
    for (unsigned n = 0; n < n_copies; n++)
        if (!is_over(json_array_get(copies, n)) && !create_nth(m, n, copies, err))
            return false;
    return true;
}

static void put_aside(vz_migration *m, const json_t *copy)
{
    g_autofree char *aside = NULL;
    g_autoptr(GError) err = NULL;
    const char *path = vz_json_text(copy, "path");
    if (!vz_volume_put_aside(path, m->id, json_object_get(copy, "inode"), &aside, &err))
        vz_warn(m->id, "'%s' keeps its name: %s", path, err->message);
    else if (aside)
        vz_warn(m->id, "what the guest may have written here is in '%s'", aside);
}

void vz_destination_remove_disks(vz_migration *m)
{
    size_t n;
    json_t *copy;
    json_auto_t *copies = vz_disks_noted(m);
    g_autofree char *ran = vz_journal_get(m->journal, VZ_NOTE_MAY_HAVE_RUN);
    json_array_foreach(copies, n, copy)
    {
        if (ran)
            put_aside(m, copy);
        else if (!is_over(copy))
            vz_volume_remove(copy);
    }
}

/* --- their content --- */

static bool export(vz_qmp *qmp, const vz_def_disk *disk, GError **err)
{
    g_autofree char *node = vz_qemu_node_name(disk);
    g_autofree char *storage =
        disk->format == VZ_DISK_FORMAT_QCOW2 ? NULL : vz_qemu_storage_name(disk);
    return vz_blockcopy_export(qmp, disk->target, node, storage, err);
}

bool vz_destination_serve_disks(vz_migration *m, GError **err)
{
    size_t n;
    json_t *copy;
    json_auto_t *copies = vz_disks_noted(m);
    if (json_array_size(copies) == 0)
        return true;
    vz_qemu *qemu = vz_migration_qemu(m, err);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain); /* its disks have aliases */
    m->disk_sockets = qemu ? vz_stream_prepare(qemu, VZ_PURPOSE_DISK, err) : NULL;
    if (!m->disk_sockets ||
        !vz_blockcopy_serve(vz_qemu_qmp(qemu), vz_stream_path(m->disk_sockets), err))
        return false;
    json_array_foreach(copies, n, copy)
    {
        const vz_def_disk *disk = vz_def_disk_find(snapshot->live, vz_json_text(copy, "target"));
        if (disk && !export(vz_qemu_qmp(qemu), disk, err))
            return false;
    }
    return vz_stream_expect(m->disk_sockets, m->carrier, (unsigned)json_array_size(copies), err);
}

bool vz_destination_close_disks(vz_migration *m, GError **err)
{
    size_t n;
    json_t *copy;
    json_auto_t *copies = vz_disks_noted(m);
    if (json_array_size(copies) == 0)
        return true;
    vz_qemu *qemu = vz_migration_qemu(m, err);
    if (!qemu || !vz_blockcopy_stop_serving(vz_qemu_qmp(qemu), err))
        return false;
    json_array_foreach(copies, n, copy)
    {
        const char *target = vz_json_text(copy, "target");
        if (!vz_blockcopy_remove_node(vz_qemu_qmp(qemu), target, err))
            return false;
    }
    return true;
}
