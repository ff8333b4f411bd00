/* identify.c - see identify.h. The work on paths is done by virtvz-probe (probe.c). */
#include "storage/identify.h"

#include "base/json.h"
#include "base/log.h"
#include "storage/probe_call.h"
#include "storage/volume.h"

#include <string.h>
#include <time.h>

/* NULL with err: the helper failed; an answer of its own with "error" is turned into MIGRATE_UNSAFE
 * too, since what cannot be looked at is not proved. */
static json_t *probe(const char *command, const char *image, const char *nonce, const char *text,
                     GError **err)
{
    const char *const words[] = {command, image, nonce, text, NULL};
    json_t *reply = vz_probe_call(words, VZ_IDENTIFY_DEADLINE_US, err);
    if (!reply) {
        g_autofree char *why = g_strdup((*err)->message);
        g_clear_error(err);
        vz_fail(err, VZ_ERR_MIGRATE_UNSAFE, "cannot look at '%s': %s", image, why);
        return NULL;
    }
    const char *error = json_string_value(json_object_get(reply, "error"));
    if (!error)
        return reply;
    vz_fail(err, VZ_ERR_MIGRATE_UNSAFE, "%s", error);
    json_decref(reply);
    return NULL;
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static json_int_t number_of(const json_t *object, const char *key)
{
    return json_integer_value(json_object_get(object, key));
}

static char *random_hex(void)
{
    uint8_t bytes[VZ_UUID_BYTES];
    vz_uuid_generate(bytes);
    return vz_hex(bytes, sizeof(bytes));
}

/* A disk that cannot be proved, for this reason. */
static bool allow_unproved(const char *target, const char *path, const char *why, bool unsafe,
                           GError **err)
{
    return unsafe || vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                             "disk '%s' (%s) is unproved: %s; --unsafe would move it on your word "
                             "that both hosts see the same there",
                             target, path, why);
}

static json_t *offer_unproved(const vz_def_disk *disk, const char *nonce, const char *why,
                              GError **err)
{
    json_t *seen = probe("look", disk->path, nonce, NULL, err);
    return seen ? json_pack("{ss ss ss ss so}", "target", disk->target, "path", disk->path, "nonce",
                            nonce, "unproved", why, "image", seen)
                : NULL;
}

/* What a copy would have to be like; NULL: it cannot be copied. */
static json_t *shape_of(const vz_def_disk *disk)
{
    bool exists;
    uint64_t free_bytes;
    vz_volume_shape shape;
    g_autoptr(GError) err = NULL;
    vz_volume_format format =
        disk->format == VZ_DISK_FORMAT_QCOW2 ? VZ_VOLUME_QCOW2 : VZ_VOLUME_RAW;
    if (disk->readonly || disk->shareable || disk->device != VZ_DISK_DEVICE_DISK ||
        !vz_volume_look(disk->path, format, &shape, &exists, &free_bytes, &err) || !exists)
        return NULL;
    return vz_volume_shape_to_json(&shape);
}

static json_t *offer_disk(const vz_def_disk *disk, const char *host, bool unsafe, GError **err)
{
    g_autofree char *nonce = random_hex();
    g_autofree char *secret = random_hex();
    g_autofree char *text =
        g_strdup_printf("virtvz of %s asks: is this storage shared? %s", host, secret);
    g_autoptr(GError) why = NULL;
    json_t *seen = NULL;
    if (disk->type == VZ_DISK_TYPE_FILE)
        seen = probe("offer", disk->path, nonce, text, &why);
    else
        vz_fail(&why, VZ_ERR_MIGRATE_UNSAFE,
                "it is a block device, and this version proves sharing only for files");
    if (seen)
        return json_pack("{ss ss ss ss so so*}", "target", disk->target, "path", disk->path,
                         "nonce", nonce, "text", text, "image", seen, "shape", shape_of(disk));
    if (!allow_unproved(disk->target, disk->path, why->message, unsafe, err))
        return NULL;
    json_t *offer = offer_unproved(disk, nonce, why->message, err);
    if (!offer)
        g_prefix_error(err, "disk '%s': ", disk->target);
    return offer;
}

bool vz_identify_offer(const vz_def *def, const char *host, bool unsafe, json_t **ret_offer,
                       GError **err)
{
    json_t *offers = json_array();
    for (size_t i = 0; i < def->n_disks; i++) {
        if (!def->disks[i].path)
            continue;
        json_t *offer = offer_disk(&def->disks[i], host, unsafe, err);
        if (!offer) {
            vz_identify_remove(NULL, offers);
            json_decref(offers);
            return false;
        }
        json_array_append_new(offers, offer);
    }
    *ret_offer = offers;
    return true;
}

void vz_identify_withhold_copies(json_t *offer)
{
    size_t i;
    json_t *one;
    json_array_foreach(offer, i, one)
    {
        json_object_del(one, "shape");
    }
}

static char *describe(const json_t *image)
{
    if (!json_is_true(json_object_get(image, "exists")))
        return g_strdup("nothing");
    time_t seconds = (time_t)(number_of(image, "mtime_ns") / 1000000000);
    g_autoptr(GDateTime) when = g_date_time_new_from_unix_utc(seconds);
    g_autofree char *text = g_date_time_format(when, "%Y-%m-%d %H:%M:%SZ");
    return g_strdup_printf("a file of %" JSON_INTEGER_FORMAT " bytes, changed %s",
                           number_of(image, "size"), text);
}

/* Numbers of device nodes are each host's own. */
static bool same_image(const json_t *theirs, const json_t *ours)
{
    bool regular = json_is_true(json_object_get(ours, "regular"));
    json_int_t grown = number_of(ours, "size") - number_of(theirs, "size");
    if (!json_is_true(json_object_get(ours, "exists")) ||
        regular != json_is_true(json_object_get(theirs, "regular")))
        return false;
    if (!regular)
        return grown == 0;
    /* A guest that writes to it changes its times, and lets it grow, between the two looks. */
    bool locked = json_is_true(json_object_get(ours, "locked"));
    return number_of(theirs, "inode") == number_of(ours, "inode") &&
           (locked ? grown >= 0
                   : grown == 0 && number_of(theirs, "mtime_ns") == number_of(ours, "mtime_ns"));
}

static bool is_among(const GPtrArray *targets, const char *target)
{
    for (guint i = 0; targets && i < targets->len; i++)
        if (strcmp(targets->pdata[i], target) == 0)
            return true;
    return !targets || targets->len == 0;
}

/* Why what is there cannot be written over; NULL: it can. Its directory is another one, but a file
 * may have two: a mount of the file alone, a second link. Then it has the source's number or is in
 * use, by this host's guests or by the source's. */
static const char *obstacle_to_overwriting(const vz_def_disk *disk, const vz_volume_shape *theirs,
                                           const json_t *offer, const json_t *seen)
{
    bool exists;
    uint64_t free_bytes;
    vz_volume_shape ours;
    g_autoptr(GError) none = NULL;
    const json_t *image = json_object_get(offer, "image");
    if (!json_is_false(json_object_get(seen, "locked")))
        return json_is_true(json_object_get(seen, "locked"))
                   ? "what is there is in use"
                   : "whether what is there is in use cannot be told";
    /* An image of qcow2 grows between the two looks. */
    if (number_of(image, "inode") == number_of(seen, "inode") &&
        number_of(image, "size") <= number_of(seen, "size"))
        return "what is there may be the source's own file, by another way";
    if (!vz_volume_look(disk->path, theirs->format, &ours, &exists, &free_bytes, &none) || !exists)
        return "what is there is no image of that format";
    if (ours.virtual_bytes != theirs->virtual_bytes)
        return "what is there is an image of another size";
    return ours.backing ? "what is there has a backing file" : NULL;
}

/* Why a disk that is not shared is not copied either; NULL: it can be. */
static const char *obstacle_to_copy(const vz_def_disk *disk, const json_t *offer,
                                    const json_t *seen, const vz_identify_policy *policy)
{
    vz_volume_shape shape;
    g_autoptr(GError) none = NULL;
    const json_t *told = json_object_get(offer, "shape");
    if (!is_among(policy->among, disk->target))
        return "it is not among the disks that are to be copied";
    if (!told || !vz_volume_shape_from_json(told, &shape, &none))
        return "this version copies only disks of type file of a guest that runs, none that is "
               "read-only or shareable";
    if (shape.snapshots)
        return "it has snapshots or bitmaps inside, which a copy would lose";
    if (shape.backing)
        return "it has a backing file, and this version copies only images without one";
    if (disk->type != VZ_DISK_TYPE_FILE || disk->readonly || disk->shareable ||
        (shape.format == VZ_VOLUME_QCOW2) != (disk->format == VZ_DISK_FORMAT_QCOW2))
        return "the definition for this host says that it is of another kind";
    if (!json_is_true(json_object_get(seen, "exists")))
        return NULL;
    return policy->copy ? obstacle_to_overwriting(disk, &shape, offer, seen)
                        : "what is there is another one, and is not overwritten (without "
                          "--copy-storage-all)";
}

/* What the note says that the source put beside its image. One that cannot be looked at says
 * nothing: the proof has failed for that already. */
static bool judge_note(const vz_def_disk *disk, const json_t *offer, const json_t *seen,
                       const char *why_not_copied, GError **err)
{
    const char *text = json_string_value(json_object_get(offer, "text"));
    const json_t *note = json_object_get(seen, "note");
    g_autofree char *here = describe(seen);
    g_autofree char *there = describe(json_object_get(offer, "image"));
    if (!text || !note)
        return true;
    if (json_is_null(note))
        return vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                       "disk '%s' is not on shared storage: a note that the source put beside '%s' "
                       "does not show up beside '%s' on this host (there: %s; here: %s); %s",
                       disk->target, text_of(offer, "path"), disk->path, there, here,
                       why_not_copied ? why_not_copied : "that proves nothing");
    return strcmp(json_string_value(note), text) == 0 ||
           vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                   "disk '%s': the note beside '%s' on this host is not the source's", disk->target,
                   disk->path);
}

static bool judge_image(const vz_def_disk *disk, const json_t *offer, const json_t *seen,
                        GError **err)
{
    const json_t *theirs = json_object_get(offer, "image");
    g_autofree char *here = describe(seen);
    g_autofree char *there = describe(theirs);
    bool shared = json_object_get(seen, "note") && json_object_get(offer, "text");
    return same_image(theirs, seen) ||
           vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                   "disk '%s': %s '%s' %s a different one (source: %s; here: %s)", disk->target,
                   shared ? "the directory of" : "what is at", disk->path,
                   shared ? "is shared, but the file there is" : "on this host is", there, here);
}

static json_t *answer_copy(const vz_def_disk *disk, const json_t *offer, bool over, GError **err)
{
    bool exists;
    uint64_t free_bytes;
    vz_volume_shape theirs, before;
    if (!vz_volume_shape_from_json(json_object_get(offer, "shape"), &theirs, err) ||
        !vz_volume_look(disk->path, theirs.format, &before, &exists, &free_bytes, err) ||
        (theirs.allocated_bytes > free_bytes + before.allocated_bytes &&
         !vz_volume_fail_no_room(disk->path, theirs.allocated_bytes, free_bytes, err))) {
        g_prefix_error(err, "disk '%s': ", disk->target);
        return NULL;
    }
    return json_pack("{ss sb sb sI}", "target", disk->target, "copy", 1, "over", over, "bytes",
                     (json_int_t)theirs.allocated_bytes);
}

static json_t *answer_disk(const vz_def *def, const json_t *offer, const vz_identify_policy *policy,
                           GError **err)
{
    const vz_def_disk *disk = vz_def_disk_find(def, text_of(offer, "target"));
    if (!disk || !disk->path) {
        vz_fail(err, VZ_ERR_MIGRATE_UNSAFE, "disk '%s' of the source has no counterpart here",
                text_of(offer, "target"));
        return NULL;
    }
    const char *nonce = text_of(offer, "nonce");
    uint8_t check[VZ_UUID_BYTES];
    if (!vz_unhex(nonce, check, sizeof(check))) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie has a malformed note name");
        return NULL;
    }
    g_autofree char *secret = random_hex();
    g_autofree char *text = g_strdup_printf("virtvz answers: it is shared. %s", secret);
    g_autoptr(GError) why = NULL;
    const char *unproved = json_string_value(json_object_get(offer, "unproved"));
    if (!unproved && !*text_of(offer, "text")) {
        vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie offers no proof of a disk");
        return NULL;
    }
    json_t *seen = unproved ? NULL : probe("answer", disk->path, nonce, text, &why);
    if (why)
        unproved = why->message;
    if (!seen && !(seen = probe("look", disk->path, nonce, NULL, err))) {
        g_prefix_error(err, "disk '%s': ", disk->target);
        return NULL;
    }
    /* Only what a note has proved not to be shared. */
    bool absent = json_is_null(json_object_get(seen, "note"));
    const char *keeps = absent ? obstacle_to_copy(disk, offer, seen, policy) : NULL;
    if (!unproved && absent && !keeps && json_object_get(offer, "text")) {
        bool over = json_is_true(json_object_get(seen, "exists"));
        json_decref(seen);
        return answer_copy(disk, offer, over, err);
    }
    bool taken =
        judge_note(disk, offer, seen, keeps, err) && judge_image(disk, offer, seen, err) &&
        (!unproved || allow_unproved(disk->target, disk->path, unproved, policy->unsafe, err));
    json_decref(seen);
    return taken ? json_pack("{ss ss*}", "target", disk->target, unproved ? "unproved" : "text",
                             unproved ? unproved : text)
                 : NULL;
}

json_t *vz_identify_find(const json_t *array, const char *target)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)array, i, one)
    {
        if (g_strcmp0(json_string_value(json_object_get(one, "target")), target) == 0)
            return one;
    }
    return NULL;
}

bool vz_identify_answer(const vz_def *def, const json_t *offer, const vz_identify_policy *policy,
                        json_t **ret_answer, GError **err)
{
    if (!json_is_array(offer) || json_array_size(offer) > VZ_IDENTIFY_DISKS_MAX)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the source's cookie has no list of disks");
    for (size_t i = 0; i < def->n_disks; i++)
        if (def->disks[i].path && !vz_identify_find(offer, def->disks[i].target))
            return vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                           "disk '%s' (%s) is unproved: the source did not offer a proof for it",
                           def->disks[i].target, def->disks[i].path);
    json_t *answers = json_array();
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)offer, i, one)
    {
        json_t *answer = answer_disk(def, one, policy, err);
        if (!answer) {
            json_decref(answers);
            vz_identify_remove(def, offer);
            return false;
        }
        json_array_append_new(answers, answer);
    }
    *ret_answer = answers;
    return true;
}

/* That its note was not seen there says something only if it is here. */
static bool confirm_copy(const json_t *offer, GError **err)
{
    const char *target = text_of(offer, "target");
    if (!json_object_get(offer, "shape"))
        return vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                       "disk '%s': the destination wants a copy of what cannot be copied", target);
    json_t *seen = probe("look", text_of(offer, "path"), text_of(offer, "nonce"), NULL, err);
    if (!seen)
        return false;
    bool there = g_strcmp0(vz_json_text(seen, "note"), vz_json_text(offer, "text")) == 0;
    json_decref(seen);
    return there ||
           vz_fail(
               err, VZ_ERR_MIGRATE_UNSAFE,
               "disk '%s': the note beside '%s' is gone, so that the destination has not seen it "
               "proves nothing",
               target, text_of(offer, "path"));
}

static bool confirm_disk(const json_t *offer, json_t *answers, bool unsafe, GError **err)
{
    g_autoptr(GError) why = NULL;
    const char *target = text_of(offer, "target");
    const char *path = text_of(offer, "path");
    json_t *answer = vz_identify_find(answers, target);
    if (!answer)
        return vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                       "disk '%s': the destination did not answer the proof", target);
    if (json_is_true(json_object_get(answer, "copy")))
        return confirm_copy(offer, err);
    if (json_object_get(answer, "unproved"))
        return allow_unproved(target, path, text_of(answer, "unproved"), unsafe, err);
    json_t *seen = probe("read", path, text_of(offer, "nonce"), NULL, &why);
    if (!seen) {
        json_object_set_new(answer, "unproved", json_string(why->message));
        return allow_unproved(target, path, why->message, unsafe, err);
    }
    const char *note = json_string_value(json_object_get(seen, "note"));
    bool same = note && strcmp(note, text_of(answer, "text")) == 0;
    json_decref(seen);
    return same || vz_fail(err, VZ_ERR_MIGRATE_UNSAFE,
                           "disk '%s': the destination's note does not show up beside '%s' here, "
                           "so the two hosts do not share that directory",
                           target, path);
}

bool vz_identify_confirm(const json_t *offer, json_t *answer, bool unsafe, GError **err)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)offer, i,
                       one) if (!confirm_disk(one, answer, unsafe, err)) return false;
    return true;
}

char *vz_identify_warning(const json_t *answer)
{
    const char *why = json_string_value(json_object_get(answer, "unproved"));
    return why ? g_strdup_printf("disk '%s' is not proved to be the same on both hosts, and was "
                                 "taken for shared as asked for (--unsafe): %s",
                                 text_of(answer, "target"), why)
               : NULL;
}

void vz_identify_remove(const vz_def *def, const json_t *offer)
{
    size_t i;
    json_t *one;
    json_array_foreach((json_t *)(uintptr_t)offer, i, one)
    {
        const vz_def_disk *disk = def ? vz_def_disk_find(def, text_of(one, "target")) : NULL;
        const char *path = disk && disk->path ? disk->path : text_of(one, "path");
        if (def && !disk)
            continue;
        g_autoptr(GError) err = NULL;
        json_t *reply = probe("remove", path, text_of(one, "nonce"), NULL, &err);
        if (!reply)
            vz_warn(NULL, "a note of the storage proof is left behind: %s", err->message);
        json_decref(reply);
    }
}
