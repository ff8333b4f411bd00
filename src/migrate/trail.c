/* trail.c - see trail.h. */
#include "migrate/trail.h"

#include "base/fd.h"
#include "base/log.h"
#include "domain/table.h"
#include "migrate/service.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define TRAIL_VERSION 1
#define FILE_MODE     0600

static vz_store *store_of(const vz_migrate *service)
{
    return vz_table_store(vz_migrate_settings(service)->table);
}

static char *directory_of(const vz_migrate *service)
{
    return g_build_filename(vz_migrate_settings(service)->state_dir, "trail", NULL);
}

static char *path_of(const vz_migrate *service, const char *job, const char *suffix)
{
    g_autofree char *directory = directory_of(service);
    return g_strconcat(directory, "/", job, suffix, NULL);
}

void vz_trail_free(vz_trail *trail)
{
    if (!trail)
        return;
    g_free(trail->peer_name);
    g_free(trail->peer_host);
    g_free(trail->tunnel);
    g_free(trail->peer_fingerprint);
    g_free(trail->peer_incarnation);
    vz_channel_keys_free(trail->keys);
    g_free(trail);
}

static char *format(const vz_trail *trail)
{
    char peer[VZ_UUID_TEXT_BYTES], domain[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(trail->peer_uuid, peer);
    vz_uuid_format(trail->domain, domain);
    json_t *object =
        json_pack("{si ss ss ss ss* si ss* ss ss*}", "version", TRAIL_VERSION, "domain", domain,
                  "peer-uuid", peer, "peer-name", trail->peer_name, "peer-host", trail->peer_host,
                  "peer-port", (int)trail->peer_port, "tunnel", trail->tunnel, "fingerprint",
                  trail->peer_fingerprint, "incarnation", trail->peer_incarnation);
    char *text = json_dumps(object, JSON_INDENT(1));
    json_decref(object);
    return text;
}

static bool write_trail(vz_migrate *service, const vz_trail *trail, GError **err)
{
    char id[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(trail->job, id);
    g_autofree char *path = path_of(service, id, "");
    g_autofree char *text = format(trail);
    return vz_file_write_durable(path, text, strlen(text), FILE_MODE, err);
}

bool vz_trail_save(const vz_migration *m, GError **err)
{
    g_autofree char *directory = directory_of(m->service);
    g_autofree char *key = path_of(m->service, m->id, ".key");
    if (g_mkdir_with_parents(directory, 0700) < 0)
        return vz_fail_errno(err, errno, "cannot make '%s'", directory);
    vz_trail trail = {.peer_name = m->peer_name,
                      .peer_host = m->peer_host,
                      .peer_port = m->peer_port,
                      .tunnel = m->tunnel,
                      .peer_fingerprint = m->peer_fingerprint,
                      .peer_incarnation = m->incarnation};
    memcpy(trail.job, m->job, VZ_UUID_BYTES);
    memcpy(trail.peer_uuid, m->peer_uuid, VZ_UUID_BYTES);
    return vz_migration_domain_uuid(m, trail.domain) && vz_channel_keys_save(m->keys, key, err) &&
           write_trail(m->service, &trail, err);
}

bool vz_trail_learn_address(const vz_migration *m, const char *address, GError **err)
{
    g_autoptr(GError) none = NULL;
    g_autoptr(vz_trail) trail = vz_trail_load(m->service, m->job, &none);
    if (!trail || trail->peer_host || !*address)
        return true; /* told, or a job of a version that keeps none */
    trail->peer_host = g_strdup(address);
    return write_trail(m->service, trail, err);
}

static char *text_of(const json_t *object, const char *key)
{
    return g_strdup(json_string_value(json_object_get(object, key)));
}

static bool parse(const json_t *object, vz_trail *trail)
{
    const char *domain = json_string_value(json_object_get(object, "domain"));
    const char *peer = json_string_value(json_object_get(object, "peer-uuid"));
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    trail->peer_name = text_of(object, "peer-name");
    trail->peer_host = text_of(object, "peer-host");
    trail->peer_port = (uint16_t)json_integer_value(json_object_get(object, "peer-port"));
    trail->tunnel = text_of(object, "tunnel");
    trail->peer_fingerprint = text_of(object, "fingerprint");
    trail->peer_incarnation = text_of(object, "incarnation");
    return domain && vz_uuid_parse(domain, trail->domain) && peer &&
           vz_uuid_parse(peer, trail->peer_uuid) && trail->peer_name && trail->peer_fingerprint &&
           vz_fingerprint_parse(trail->peer_fingerprint, fingerprint);
}

static bool fail_damaged(const char *path, GError **err)
{
    return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' is damaged", path);
}

vz_trail *vz_trail_load(vz_migrate *service, const uint8_t job[VZ_UUID_BYTES], GError **err)
{
    char id[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(job, id);
    g_autofree char *path = path_of(service, id, "");
    g_autofree char *key = path_of(service, id, ".key");
    g_autofree char *text = NULL;
    g_autoptr(vz_trail) trail = g_new0(vz_trail, 1);
    if (!g_file_test(path, G_FILE_TEST_EXISTS)) {
        vz_fail(err, VZ_ERR_NO_DOMAIN, "nothing is known of migration job %s any more", id);
        return NULL;
    }
    if (!vz_file_read(path, VZ_TRAIL_BYTES_MAX, &text, NULL, err))
        return NULL;
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    json_t *version = json_object_get(object, "version");
    bool ok = json_is_integer(version)
                  ? vz_check_version(path, json_integer_value(version), TRAIL_VERSION, err) &&
                        (parse(object, trail) || fail_damaged(path, err))
                  : fail_damaged(path, err);
    json_decref(object);
    memcpy(trail->job, job, VZ_UUID_BYTES);
    if (!ok)
        return NULL;
    trail->keys = vz_channel_keys_load(key, err);
    return trail->keys ? g_steal_pointer(&trail) : NULL;
}

void vz_trail_remove(vz_migrate *service, const char *job)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = path_of(service, job, "");
    g_autofree char *key = path_of(service, job, ".key");
    if (!vz_file_remove_durable(path, &err) || !vz_file_remove_durable(key, &err))
        vz_warn(job, "what is known of its hosts stays: %s", err->message);
}

void vz_trail_replace_older(const vz_migration *m)
{
    uint8_t domain[VZ_UUID_BYTES];
    g_autofree char *directory = directory_of(m->service);
    g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
    if (!vz_migration_domain_uuid(m, domain))
        return;
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        uint8_t job[VZ_UUID_BYTES];
        g_autoptr(GError) ignored = NULL;
        if (strcmp(name, m->id) == 0 || !vz_uuid_parse(name, job))
            continue;
        g_autoptr(vz_trail) trail = vz_trail_load(m->service, job, &ignored);
        if (trail && memcmp(trail->domain, domain, VZ_UUID_BYTES) == 0 &&
            memcmp(trail->peer_uuid, m->peer_uuid, VZ_UUID_BYTES) == 0)
            vz_trail_remove(m->service, name);
    }
}

bool vz_trail_mark(const vz_migration *m, const char *mark, GError **err)
{
    g_autofree char *value = g_strdup_printf("%s %.*s", m->id, VZ_MARK_HOST_MAX, m->peer_name);
    g_autofree char *domain = vz_journal_get(m->journal, VZ_NOTE_DOMAIN);
    g_strdelimit(value, "\n", ' '); /* the peer chose its name */
    return vz_store_set_mark(store_of(m->service), domain, mark, value, err);
}

bool vz_trail_get_mark(const vz_migration *m, const char *mark, char **ret_value, GError **err)
{
    g_autofree char *domain = vz_journal_get(m->journal, VZ_NOTE_DOMAIN);
    return vz_store_get_mark(store_of(m->service), domain, mark, ret_value, err);
}

bool vz_trail_mark_is_of(const char *value, const char *job)
{
    return value && g_str_has_prefix(value, job);
}

bool vz_trail_unmark(vz_migrate *service, const char *domain, const char *mark, const char *job,
                     GError **err)
{
    g_autofree char *value = NULL;
    if (!vz_store_get_mark(store_of(service), domain, mark, &value, err))
        return false;
    return !vz_trail_mark_is_of(value, job) ||
           vz_store_clear_mark(store_of(service), domain, mark, err);
}

void vz_trail_call_off(const vz_migration *m)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *moved = NULL;
    g_autofree char *domain = vz_journal_get(m->journal, VZ_NOTE_DOMAIN);
    if (!domain)
        return;
    if (!vz_trail_unmark(m->service, domain, VZ_MARK_ARRIVING, m->id, &err) ||
        !vz_trail_get_mark(m, VZ_MARK_MOVED, &moved, &err))
        vz_error(m->id, "domain %s stays marked as arriving: %s", domain, err->message);
    else if (!vz_trail_mark_is_of(moved, m->id)) /* if taken back, the source is asked by it */
        vz_trail_remove(m->service, m->id);
}

bool vz_trail_mark_job(const char *value, uint8_t ret_job[VZ_UUID_BYTES])
{
    char id[VZ_UUID_TEXT_BYTES];
    return g_strlcpy(id, value, sizeof(id)) >= sizeof(id) && vz_uuid_parse(id, ret_job);
}

const char *vz_trail_mark_host(const char *value)
{
    const char *gap = strchr(value, ' ');
    return gap ? gap + 1 : "another host";
}
