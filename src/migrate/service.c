/* service.c - see service.h.
 *
 * Lock: service->lock guards the register; it is held for look-ups only. */
#include "migrate/service.h"

#include "base/fd.h"
#include "base/log.h"
#include "migrate/destination.h"
#include "migrate/source.h"
#include "migrate/question.h"
#include "migrate/verdict.h"
#include "migrate/visit.h"
#include "migrate/whereabouts.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RETRY_FIRST_MS 1000
#define RETRY_LAST_MS  60000
#define UNKNOWN_TIMES  3 /* a busy port may hang up, too */

struct vz_migrate {
    vz_migrate_config config; /* strings owned */
    char *records;
    char *incarnation;
    vz_ask_server *ask;
    vz_port *port;
    GMutex lock;
    GPtrArray *migrations; /* referenced */
    GThreadPool *errands;  /* one thread */
    vz_visits *visits;
};

const vz_migrate_config *vz_migrate_settings(const vz_migrate *service)
{
    return &service->config;
}

vz_port *vz_migrate_port(vz_migrate *service)
{
    return service->port;
}

vz_visits *vz_migrate_visits(vz_migrate *service)
{
    return service->visits;
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

vz_migration *vz_migrate_find_arrival(vz_migrate *service, const char *name)
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&service->lock);
    for (guint i = 0; i < service->migrations->len; i++) {
        vz_migration *migration = service->migrations->pdata[i];
        g_autofree char *its = vz_journal_get(migration->journal, VZ_NOTE_NAME);
        if (migration->side == VZ_SIDE_DESTINATION && g_strcmp0(its, name) == 0 &&
            vz_journal_state(migration->journal) == VZ_RECORD_PREPARED)
            return vz_migration_ref(migration);
    }
    return NULL;
}

GPtrArray *vz_migrate_list(vz_migrate *service)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)vz_migration_unref);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&service->lock);
    for (guint i = 0; i < service->migrations->len; i++)
        g_ptr_array_add(all, vz_migration_ref(service->migrations->pdata[i]));
    return all;
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
    service->config.tls_dir = g_strdup(config->tls_dir);
    service->config.carrier_program = g_strdup(config->carrier_program);
    service->config.carrier_user = g_strdup(config->carrier_user);
}

static void free_config(vz_migrate_config *config)
{
    const char *const owned[] = {config->state_dir,    config->run_dir,    config->host_name,
                                 config->data_address, config->advertised, config->carrier_program,
                                 config->carrier_user, config->tls_dir};
    for (size_t i = 0; i < G_N_ELEMENTS(owned); i++)
        g_free((char *)(uintptr_t)owned[i]);
}

static bool open_port(vz_migrate *service, GError **err)
{
    vz_ask_handlers handlers = {vz_question_find_keys, vz_question_answer, service};
    service->ask = vz_ask_server_new(&handlers);
    vz_port_options options = {.context = service->config.context,
                               .address = service->config.data_address,
                               .port = service->config.data_port,
                               .ask = service->ask};
    service->port = vz_port_new(&options, err);
    return service->port != NULL;
}

/* --- trying again --- */

/* Calls due(data) on the loop thread. The source is the caller's to unref. */
static GSource *schedule(vz_migrate *service, unsigned pause_ms, GSourceFunc due, void *data,
                         GDestroyNotify drop)
{
    GSource *source = g_timeout_source_new(pause_ms);
    g_source_set_callback(source, due, data, drop);
    g_source_attach(source, service->config.context);
    return source;
}

/* A pause that grows with each attempt of the job. */
static unsigned next_pause_ms(vz_migration *migration)
{
    unsigned pause_ms = RETRY_FIRST_MS << MIN(migration->retries, 6u);
    migration->retries++;
    return MIN(pause_ms, RETRY_LAST_MS);
}

/* What is to run on a job's actor later. */
typedef struct {
    vz_domain *domain;
    vz_migration *migration;
    void (*run)(vz_migration *migration);
    bool is_retry; /* else: the watch of a phase */
} appointment;

static appointment *appointment_new(vz_migration *migration, vz_domain *domain,
                                    void (*run)(vz_migration *migration), bool is_retry)
{
    appointment *a = g_new(appointment, 1);
    *a = (appointment){vz_domain_ref(domain), vz_migration_ref(migration), run, is_retry};
    return a;
}

static void appointment_free(void *data)
{
    appointment *a = data;
    vz_domain_unref(a->domain);
    vz_migration_unref(a->migration);
    g_free(a);
}

static void keep_appointment(vz_domain *domain, void *data)
{
    (void)domain;
    appointment *a = data;
    if (a->is_retry)
        a->migration->retry_waits = false;
    if (a->is_retry || (a->migration->domain && !a->migration->busy))
        a->run(a->migration);
}

static gboolean appointment_due(void *data)
{
    appointment *a = data;
    vz_domain_post(a->domain, VZ_TASK_NORMAL, keep_appointment,
                   appointment_new(a->migration, a->domain, a->run, a->is_retry), appointment_free);
    return G_SOURCE_REMOVE;
}

void vz_migrate_retry(vz_migration *migration, void (*settle)(vz_migration *migration))
{
    if (migration->retry_waits)
        return;
    migration->retry_waits = true;
    appointment *a = appointment_new(migration, migration->domain, settle, true);
    g_source_unref(schedule(migration->service, next_pause_ms(migration), appointment_due, a,
                            appointment_free));
}

void vz_migrate_watch_phase(vz_migration *migration, void (*late)(vz_migration *migration))
{
    vz_migrate *service = migration->service;
    vz_migrate_unwatch_phase(migration);
    appointment *a = appointment_new(migration, migration->domain, late, false);
    migration->phase_watch = schedule(service, service->config.phase_timeout_s * 1000,
                                      appointment_due, a, appointment_free);
}

void vz_migrate_unwatch_phase(vz_migration *migration)
{
    GSource *watch = g_steal_pointer(&migration->phase_watch);
    if (!watch)
        return;
    g_source_destroy(watch);
    g_source_unref(watch);
}

/* Has the other host heard that the job is over, or can it do without? One that was never probed
 * drops an undone job by itself, perhaps before it is told. One that has no such job has heard, and
 * its answer was lost, or it gave the job up while it was probed. Nobody has proved who says so,
 * but all that hangs on it is a record there; a copy that is to be given up is another matter. */
static bool other_host_is_done(vz_migration *migration)
{
    vz_journal *journal = migration->journal;
    g_autofree char *probed = vz_journal_get(journal, VZ_NOTE_PROBED);
    return vz_verdict_forget(migration) || !probed ||
           (vz_journal_state(journal) == VZ_RECORD_ENDED &&
            migration->unknown_there >= UNKNOWN_TIMES);
}

/* Thread of the errands. Takes the reference. */
static void run_errand(void *data, void *user)
{
    (void)user;
    vz_migration *migration = data;
    if (migration->forgetting || other_host_is_done(migration))
        vz_migration_forget(migration);
    else
        vz_migrate_errand_later(migration);
    vz_migration_unref(migration);
}

void vz_migrate_errand(vz_migration *migration)
{
    g_thread_pool_push(migration->service->errands, vz_migration_ref(migration), NULL);
}

static gboolean errand_due(void *migration)
{
    vz_migrate_errand(migration);
    return G_SOURCE_REMOVE;
}

void vz_migrate_errand_later(vz_migration *migration)
{
    g_source_unref(schedule(migration->service, next_pause_ms(migration), errand_due,
                            vz_migration_ref(migration), (GDestroyNotify)vz_migration_unref));
}

vz_migrate *vz_migrate_new(const vz_migrate_config *config, GError **err)
{
    g_autoptr(vz_migrate) service = g_new0(vz_migrate, 1);
    g_mutex_init(&service->lock);
    service->migrations = g_ptr_array_new();
    service->visits = vz_visits_new();
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
    vz_visits_free(service->visits);
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
