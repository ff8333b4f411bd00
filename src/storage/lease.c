/* lease.c - see lease.h. The work on files is done by virtvz-probe (probe_lease.c). */
#include "storage/lease.h"

#include "base/log.h"
#include "storage/probe_call.h"

#include <string.h>

static vz_lease_host this_host; /* without a name: not set up */

void vz_lease_setup(const vz_lease_host *host)
{
    this_host = *host;
}

bool vz_lease_fencing(void)
{
    return this_host.fencing;
}

void vz_lease_holder_free(vz_lease_holder *holder)
{
    if (!holder)
        return;
    g_free(holder->image);
    g_free(holder->file);
    g_free(holder->host_name);
    g_free(holder->domain_name);
    g_free(holder->since);
    g_free(holder);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

json_t *vz_lease_images(const vz_def *def)
{
    json_t *images = json_array();
    for (size_t i = 0; i < def->n_disks; i++) {
        const vz_def_disk *disk = &def->disks[i];
        if (disk->path && disk->type == VZ_DISK_TYPE_FILE && !disk->readonly && !disk->shareable &&
            disk->device != VZ_DISK_DEVICE_CDROM)
            json_array_append_new(images, json_string(disk->path));
    }
    return images;
}

/* ---- asking the probe ---- */

static char *now_text(void)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    return g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
}

/* Who asks; `domain` may be NULL. */
static json_t *compose(vz_domain *domain)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    g_autofree char *now = now_text();
    vz_uuid_format(this_host.uuid, uuid);
    json_t *request =
        json_pack("{ss ss ss}", "host_uuid", uuid, "host_name", this_host.name, "time", now);
    if (domain) {
        json_object_set_new(request, "domain_uuid", json_string(vz_domain_uuid_text(domain)));
        json_object_set_new(request, "domain_name", json_string(vz_domain_name(domain)));
    }
    return request;
}

/* "lease", the command, the request and the images; free with g_strfreev. */
static char **words_of(const char *command, json_t *take_request, const json_t *images)
{
    size_t i;
    json_t *image;
    g_autoptr(GStrvBuilder) words = g_strv_builder_new();
    char *text = json_dumps(take_request, JSON_COMPACT);
    g_strv_builder_add_many(words, "lease", command, text ? text : "", NULL);
    json_array_foreach((json_t *)(uintptr_t)images, i, image)
        g_strv_builder_add(words, json_string_value(image));
    free(text);
    json_decref(take_request);
    return g_strv_builder_end(words);
}

/* What became of each image, an array that the caller decrefs. Where the probe itself has failed,
 * every image has that as its error. */
static json_t *leases_of(json_t *take_reply, const json_t *images, const GError *err)
{
    size_t i;
    json_t *image;
    json_t *leases = json_incref(json_object_get(take_reply, "leases"));
    json_decref(take_reply);
    if (json_is_array(leases))
        return leases;
    json_decref(leases);
    leases = json_array();
    json_array_foreach((json_t *)(uintptr_t)images, i, image) json_array_append_new(
        leases, json_pack("{sO ss}", "image", image, "error", err ? err->message : "no answer"));
    return leases;
}

static json_t *ask(const char *command, json_t *take_request, const json_t *images,
                   int64_t timeout_us)
{
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) words = words_of(command, take_request, images);
    json_t *reply = vz_probe_call((const char *const *)words, timeout_us, &err);
    return leases_of(reply, images, err);
}

/* What keeps an image from having a lease. */
static void complain(vz_domain *domain, const json_t *one)
{
    const char *error = text_of(one, "error");
    const char *damage = text_of(one, "damaged");
    g_autofree char *text = NULL;
    if (*error)
        text = g_strdup_printf("no lease for image '%s': %s; only the hosts' own records say "
                               "where its guest runs",
                               text_of(one, "image"), error);
    else if (*damage)
        text = g_strdup_printf("the lease '%s' was damaged (%s) and counted as none",
                               text_of(one, "file"), damage);
    if (!text)
        return;
    vz_warn(vz_domain_name(domain), "%s", text);
    vz_domain_add_message(domain, "%s", text);
}

/* ---- who has it ---- */

/* NULL: nobody, or this host. */
static vz_lease_holder *other_holder(const json_t *one)
{
    const json_t *lease = json_object_get(one, "lease");
    vz_lease_holder *holder;
    uint8_t host_uuid[VZ_UUID_BYTES];
    if (!vz_uuid_parse(text_of(lease, "host_uuid"), host_uuid) ||
        memcmp(host_uuid, this_host.uuid, VZ_UUID_BYTES) == 0)
        return NULL;
    holder = g_new0(vz_lease_holder, 1);
    memcpy(holder->host_uuid, host_uuid, VZ_UUID_BYTES);
    holder->image = g_strdup(text_of(one, "image"));
    holder->file = g_strdup(text_of(one, "file"));
    holder->host_name = g_strdup(text_of(lease, "host_name"));
    holder->domain_name = g_strdup(text_of(lease, "domain_name"));
    holder->since = g_strdup(text_of(lease, "time"));
    return holder;
}

/* The images, or NULL where there is nothing to do. */
static json_t *images_to_lease(const vz_def *def)
{
    json_t *images = this_host.name ? vz_lease_images(def) : NULL;
    if (json_array_size(images) > 0)
        return images;
    json_decref(images);
    return NULL;
}

vz_lease_holder *vz_lease_find_holder(vz_domain *domain, const vz_def *def)
{
    size_t i;
    json_t *one;
    vz_lease_holder *holder = NULL;
    json_t *images = images_to_lease(def);
    if (!images)
        return NULL;
    json_t *leases = ask("read", compose(domain), images, VZ_LEASE_TIMEOUT_US);
    json_array_foreach(leases, i, one) if (!holder) holder = other_holder(one);
    json_decref(leases);
    json_decref(images);
    return holder;
}

bool vz_lease_refuse(vz_domain *domain, const vz_lease_holder *holder, GError **err)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(holder->host_uuid, uuid);
    return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                   "image '%s' of domain '%s' is in use by domain '%s' of host '%s' (%s) since %s, "
                   "says '%s'; end it there, or move it here; once it surely does not run there, "
                   "'vz resolve %s --here' says so, or remove that file",
                   holder->image, vz_domain_name(domain), holder->domain_name, holder->host_name,
                   uuid, holder->since, holder->file, vz_domain_name(domain));
}

/* ---- taking and releasing ---- */

typedef struct {
    bool seize;  /* from whoever has it */
    bool strict; /* what cannot be written is an error */
} taking;

static bool judge(vz_domain *domain, const json_t *one, const taking *how, GError **err)
{
    g_autoptr(vz_lease_holder) other = other_holder(one);
    const char *error = text_of(one, "error");
    if (other && !how->seize)
        return vz_lease_refuse(domain, other, err);
    if (how->strict && *error)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s", error);
    if (other && !*error)
        vz_warn(vz_domain_name(domain),
                "the lease of image '%s' was taken from host '%s', which had it for domain '%s' "
                "since %s",
                other->image, other->host_name, other->domain_name, other->since);
    complain(domain, one);
    return true;
}

static bool take(vz_domain *domain, const vz_def *def, const taking *how, GError **err)
{
    size_t i;
    json_t *one;
    bool taken = true;
    json_t *images = images_to_lease(def);
    if (!images)
        return true;
    json_t *request = compose(domain);
    json_object_set_new(request, "force", json_boolean(how->seize));
    json_t *leases = ask("take", request, images, VZ_LEASE_TIMEOUT_US);
    json_array_foreach(leases, i, one) taken = taken && judge(domain, one, how, err);
    json_decref(leases);
    json_decref(images);
    return taken;
}

bool vz_lease_take(vz_domain *domain, const vz_def *def, bool seize, GError **err)
{
    return take(domain, def, &(taking){.seize = seize}, err);
}

bool vz_lease_seize(vz_domain *domain, const vz_def *def, GError **err)
{
    return take(domain, def, &(taking){.seize = true, .strict = true}, err);
}

/* Of a command after which nobody looks at the domain's messages any more. */
static void log_errors(const char *subject, const char *what, json_t *take_leases)
{
    size_t i;
    json_t *one;
    json_array_foreach(take_leases, i, one)
    {
        const char *error = text_of(one, "error");
        if (*error)
            vz_warn(subject, "the lease of image '%s' was not %s: %s", text_of(one, "image"), what,
                    error);
    }
    json_decref(take_leases);
}

void vz_lease_release(vz_domain *domain, const vz_def *def)
{
    json_t *images = images_to_lease(def);
    if (!images)
        return;
    log_errors(vz_domain_name(domain), "removed",
               ask("release", compose(domain), images, VZ_LEASE_TIMEOUT_US));
    json_decref(images);
}

/* ---- a guest arrives ---- */

static bool nothing_to_do(const json_t *images)
{
    return !this_host.name || json_array_size(images) == 0;
}

struct vz_lease_arrival {
    vz_probe *probe;
    json_t *images; /* that have a lease to be put in place */
};

/* Complains about those without; returns the others. */
static json_t *prepared_of(vz_domain *domain, json_t *take_leases)
{
    size_t i;
    json_t *one;
    json_t *prepared = json_array();
    json_array_foreach(take_leases, i, one)
    {
        complain(domain, one);
        if (json_is_true(json_object_get(one, "written")))
            json_array_append(prepared, json_object_get(one, "image"));
    }
    json_decref(take_leases);
    return prepared;
}

vz_lease_arrival *vz_lease_arrival_prepare(vz_domain *domain, const json_t *images, const char *job)
{
    if (nothing_to_do(images))
        return NULL;
    g_autoptr(GError) err = NULL;
    json_t *request = compose(domain);
    json_object_set_new(request, "job", json_string(job));
    g_auto(GStrv) words = words_of("arrive", request, images);
    vz_probe *probe = vz_probe_start((const char *const *)words, &err);
    json_t *reply = probe ? vz_probe_read(probe, VZ_LEASE_TIMEOUT_US, &err) : NULL;
    vz_lease_arrival *arrival = g_new0(vz_lease_arrival, 1);
    arrival->probe = probe;
    arrival->images = prepared_of(domain, leases_of(reply, images, err));
    if (json_array_size(arrival->images) > 0)
        return arrival;
    vz_lease_arrival_free(arrival);
    return NULL;
}

void vz_lease_arrival_begin(vz_lease_arrival *arrival)
{
    if (arrival)
        vz_probe_go_on(arrival->probe);
}

void vz_lease_arrival_end(vz_lease_arrival *arrival, vz_domain *domain)
{
    g_autoptr(GError) err = NULL;
    if (!arrival)
        return;
    json_t *reply = vz_probe_read(arrival->probe, VZ_LEASE_BRIEF_TIMEOUT_US, &err);
    json_decref(prepared_of(domain, leases_of(reply, arrival->images, err)));
}

void vz_lease_arrival_free(vz_lease_arrival *arrival)
{
    if (!arrival)
        return;
    vz_probe_stop(arrival->probe);
    json_decref(arrival->images);
    g_free(arrival);
}

void vz_lease_give_back(const json_t *images, const char *job)
{
    if (nothing_to_do(images))
        return;
    json_t *request = compose(NULL);
    json_object_set_new(request, "job", json_string(job));
    log_errors(job, "given back", ask("give-back", request, images, VZ_LEASE_BRIEF_TIMEOUT_US));
}
