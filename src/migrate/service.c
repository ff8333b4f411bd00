/* service.c - see service.h.
 *
 * Lock: service->lock guards the register; it is held for look-ups only. */
#include "migrate/service.h"

#include "base/fd.h"
#include "base/log.h"
#include "migrate/destination.h"
#include "migrate/source.h"
#include "migrate/verdict.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_FIRST_MS 1000
#define RETRY_LAST_MS  60000

struct vz_migrate {
    vz_migrate_config config; /* strings owned */
    char *records;
    char *incarnation;
    vz_ask_server *ask;
    vz_port *port;
    GMutex lock;
    GPtrArray *migrations; /* referenced */
    GThreadPool *errands;  /* one thread */
};

const vz_migrate_config *vz_migrate_settings(const vz_migrate *service)
{
    return &service->config;
}

vz_port *vz_migrate_port(vz_migrate *service)
{
    return service->port;
}

const char *vz_migrate_incarnation(const vz_migrate *service)
{
    return service->incarnation;
}

const char *vz_migrate_records(const vz_migrate *service)
{
    return service->records;
}

void vz_migrate_register(vz_migrate *service, vz_migration *migration)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&service->lock);
    g_ptr_array_add(service->migrations, vz_migration_ref(migration));
}

void vz_migrate_unregister(vz_migrate *service, vz_migration *migration)
{
    g_mutex_lock(&service->lock);
    bool found = g_ptr_array_remove_fast(service->migrations, migration);
    g_mutex_unlock(&service->lock);
    if (found)
        vz_migration_unref(migration);
}

vz_migration *vz_migrate_find(vz_migrate *service, vz_side side, const uint8_t job[VZ_UUID_BYTES])
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&service->lock);
    for (guint i = 0; i < service->migrations->len; i++) {
        vz_migration *migration = service->migrations->pdata[i];
        if (migration->side == side && memcmp(migration->job, job, VZ_UUID_BYTES) == 0)
            return vz_migration_ref(migration);
    }
    return NULL;
}

/* A directory of records that was lost and made anew must not pass for the old one. */
static char *load_incarnation(const char *records, GError **err)
{
    g_autofree char *path = g_strconcat(records, "/incarnation", NULL);
    char *text = NULL;
    if (access(path, F_OK) == 0)
        return vz_file_read(path, VZ_UUID_TEXT_BYTES, &text, NULL, err) ? g_strchomp(text) : NULL;
    uint8_t uuid[VZ_UUID_BYTES];
    text = g_malloc(VZ_UUID_TEXT_BYTES);
    vz_uuid_generate(uuid);
    vz_uuid_format(uuid, text);
    if (vz_file_write_durable(path, text, strlen(text), 0600, err))
        return text;
    g_free(text);
    return NULL;
}

static void copy_config(vz_migrate *service, const vz_migrate_config *config)
{
    service->config = *config;
    service->config.state_dir = g_strdup(config->state_dir);
    service->config.run_dir = g_strdup(config->run_dir);
    service->config.host_name = g_strdup(config->host_name);
    service->config.data_address = g_strdup(config->data_address);
    service->config.advertised = g_strdup(config->advertised);
    service->config.carrier_program = g_strdup(config->carrier_program);
    service->config.carrier_user = g_strdup(config->carrier_user);
}

static void free_config(vz_migrate_config *config)
{
    const char *const owned[] = {config->state_dir,    config->run_dir,    config->host_name,
                                 config->data_address, config->advertised, config->carrier_program,
                                 config->carrier_user};
    for (size_t i = 0; i < G_N_ELEMENTS(owned); i++)
        g_free((char *)(uintptr_t)owned[i]);
}

static bool open_port(vz_migrate *service, GError **err)
{
    vz_ask_handlers handlers = {vz_verdict_find_keys, vz_verdict_answer, service};
    service->ask = vz_ask_server_new(&handlers);
    vz_port_options options = {.context = service->config.context,
                               .address = service->config.data_address,
                               .port = service->config.data_port,
                               .ask = service->ask};
    service->port = vz_port_new(&options, err);
    return service->port != NULL;
}

/* --- trying again --- */

/* Calls due(data) on the loop thread after a pause that grows with each attempt of the job. */
static void schedule_with(vz_migration *migration, GSourceFunc due, void *data, GDestroyNotify drop)
{
    unsigned pause_ms = RETRY_FIRST_MS << MIN(migration->retries, 6u);
    migration->retries++;
    GSource *source = g_timeout_source_new(MIN(pause_ms, RETRY_LAST_MS));
    g_source_set_callback(source, due, data, drop);
    g_source_attach(source, migration->service->config.context);
    g_source_unref(source);
}

static gboolean errand_due(void *migration)
{
    vz_migrate_errand(migration);
    return G_SOURCE_REMOVE;
}

typedef struct {
    vz_domain *domain;
    vz_migration *migration;
    void (*settle)(vz_migration *migration);
} retry;

static void retry_free(void *data)
{
    retry *r = data;
    vz_domain_unref(r->domain);
    vz_migration_unref(r->migration);
    g_free(r);
}

static void retry_run(vz_domain *domain, void *data)
{
    (void)domain;
    retry *r = data;
    r->migration->retry_waits = false;
    r->settle(r->migration);
}

static gboolean retry_due(void *data)
{
    retry *r = data;
    retry *copy = g_new(retry, 1);
    *copy = (retry){vz_domain_ref(r->domain), vz_migration_ref(r->migration), r->settle};
    vz_domain_post(r->domain, VZ_TASK_NORMAL, retry_run, copy, retry_free);
    return G_SOURCE_REMOVE;
}

void vz_migrate_retry(vz_migration *migration, void (*settle)(vz_migration *migration))
{
    if (migration->retry_waits)
        return;
    migration->retry_waits = true;
    retry *r = g_new(retry, 1);
    *r = (retry){vz_domain_ref(migration->domain), vz_migration_ref(migration), settle};
    schedule_with(migration, retry_due, r, retry_free);
}

/* Thread of the errands. Takes the reference. */
static void run_errand(void *data, void *user)
{
    vz_migration *migration = data;
    g_autofree char *probed = vz_journal_get(migration->journal, VZ_NOTE_PROBED);
    /* A destination that was never probed drops an undone job by itself, perhaps before it is told.
     */
    if (vz_verdict_forget(migration) || !probed)
        vz_migration_forget(migration);
    else
        schedule_with(migration, errand_due, vz_migration_ref(migration),
                      (GDestroyNotify)vz_migration_unref);
    (void)user;
    vz_migration_unref(migration);
}

void vz_migrate_errand(vz_migration *migration)
{
    g_thread_pool_push(migration->service->errands, vz_migration_ref(migration), NULL);
}

vz_migrate *vz_migrate_new(const vz_migrate_config *config, GError **err)
{
    g_autoptr(vz_migrate) service = g_new0(vz_migrate, 1);
    g_mutex_init(&service->lock);
    service->migrations = g_ptr_array_new();
    service->errands = g_thread_pool_new(run_errand, NULL, 1, TRUE, NULL);
    copy_config(service, config);
    service->records = g_strconcat(config->state_dir, "/jobs", NULL);
    if (g_mkdir_with_parents(service->records, 0700) < 0) {
        vz_fail_errno(err, errno, "cannot make '%s'", service->records);
        return NULL;
    }
    service->incarnation = load_incarnation(service->records, err);
    if (!service->incarnation || !open_port(service, err))
        return NULL;
    return g_steal_pointer(&service);
}

void vz_migrate_free(vz_migrate *service)
{
    if (!service)
        return;
    /* What was not run is found again by the next daemon. */
    g_thread_pool_free(service->errands, TRUE, TRUE);
    vz_port_free(service->port);
    vz_ask_server_free(service->ask);
    for (guint i = 0; i < service->migrations->len; i++)
        vz_migration_unref(service->migrations->pdata[i]);
    g_ptr_array_unref(service->migrations);
    g_mutex_clear(&service->lock);
    free_config(&service->config);
    g_free(service->records);
    g_free(service->incarnation);
    g_free(service);
}

static void recover_one(vz_migrate *service, const char *path)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_migration) migration = vz_migration_load(service, path, &err);
    if (!migration) {
        vz_error(NULL, "an unfinished migration cannot be recovered: %s", err->message);
        return;
    }
    if (migration->side == VZ_SIDE_SOURCE)
        vz_source_recover(migration);
    else
        vz_destination_recover(migration);
}

void vz_migrate_recover(vz_migrate *service)
{
    g_autoptr(GDir) dir = g_dir_open(service->records, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        if (!g_str_has_suffix(name, ".out") && !g_str_has_suffix(name, ".in"))
            continue;
        g_autofree char *path = g_build_filename(service->records, name, NULL);
        recover_one(service, path);
    }
}
