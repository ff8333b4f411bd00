/* migration.c - see migration.h. */
#include "migrate/migration.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/units.h"
#include "base/spawn.h"
#include "domain/store.h"
#include "domain/table.h"
#include "driver/qemu/driver.h"
#include "driver/qemu/user.h"
#include "driver/qemu/userfault.h"
#include "migrate/direct.h"
#include "migrate/offline.h"
#include "migrate/service.h"
#include "migrate/stream_sockets.h"
#include "storage/lease.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KILL_PATIENCE_US ((int64_t)5 * 1000000)
#define KILL_POLL_US     ((gulong)10 * 1000)

static vz_migration *migration_new(vz_migrate *service, vz_side side,
                                   const uint8_t job[VZ_UUID_BYTES])
{
    vz_migration *migration = g_new0(vz_migration, 1);
    migration->refs = 1;
    migration->service = service;
    migration->side = side;
    memcpy(migration->job, job, VZ_UUID_BYTES);
    vz_uuid_format(job, migration->id);
    migration->began_us = vz_now_us();
    migration->saga.migration = migration;
    migration->stats.type = VZ_JOB_UNBOUNDED;
    migration->stats.operation =
        side == VZ_SIDE_SOURCE ? VZ_JOB_OP_MIGRATION_OUT : VZ_JOB_OP_MIGRATION_IN;
    return migration;
}

vz_migration *vz_migration_ref(vz_migration *migration)
{
    g_atomic_int_inc(&migration->refs);
    return migration;
}

void vz_migration_unref(vz_migration *migration)
{
    if (!migration || !g_atomic_int_dec_and_test(&migration->refs))
        return;
    vz_journal_free(migration->journal);
    vz_channel_keys_free(migration->keys);
    vz_carrier_release(migration->carrier);
    vz_domain_unref(migration->domain);
    vz_options_free(migration->options);
    vz_def_unref(migration->def);
    vz_def_unref(migration->old_config);
    json_decref(migration->disks_offered);
    json_decref(migration->disks_answered);
    json_decref(migration->answer);
    vz_lease_arrival_free(migration->leases);
    g_free(migration->peer_fingerprint);
    g_free(migration->peer_name);
    g_free(migration->release);
    g_free(migration->abort_reason);
    g_free(migration->peer_host);
    g_free(migration->tunnel);
    g_free(migration->incarnation);
    g_free(migration->config_xml);
    g_free(migration->client_address);
    g_free(migration->data_uri);
    g_free(migration->data_host);
    g_free(migration->direct);
    g_free(migration->proof);
    vz_let_go_free(migration->let_go);
    g_free(migration);
}

static char *key_path(const vz_migration *migration)
{
    return g_strconcat(vz_journal_path(migration->journal), ".key", NULL);
}

vz_migration *vz_migration_create(vz_migrate *service, vz_side side,
                                  const uint8_t job[VZ_UUID_BYTES], GError **err)
{
    g_autoptr(vz_migration) migration = migration_new(service, side, job);
    migration->keys = vz_channel_keys_generate(err);
    if (!migration->keys)
        return NULL;
    migration->journal = vz_journal_create(vz_migrate_records(service), side, job, err);
    if (!migration->journal)
        return NULL;
    g_autofree char *path = key_path(migration);
    if (!vz_channel_keys_save(migration->keys, path, err)) {
        g_autoptr(GError) ignored = NULL;
        vz_journal_remove(migration->journal, &ignored);
        return NULL;
    }
    migration->saga.journal = migration->journal;
    vz_migrate_register(service, migration);
    return g_steal_pointer(&migration);
}

static void load_peer(vz_migration *m)
{
    g_autofree char *port = vz_journal_get(m->journal, VZ_NOTE_PEER_PORT);
    g_autofree char *uuid = vz_journal_get(m->journal, VZ_NOTE_PEER_UUID);
    m->peer_fingerprint = vz_journal_get(m->journal, VZ_NOTE_PEER_FINGERPRINT);
    m->peer_name = vz_journal_get(m->journal, VZ_NOTE_PEER_NAME);
    m->peer_host = vz_journal_get(m->journal, VZ_NOTE_PEER_HOST);
    m->incarnation = vz_journal_get(m->journal, VZ_NOTE_INCARNATION);
    m->tunnel = vz_journal_get(m->journal, VZ_NOTE_TUNNEL);
    m->peer_port = port ? (uint16_t)g_ascii_strtoull(port, NULL, 10) : 0;
    if (uuid && !vz_uuid_parse(uuid, m->peer_uuid)) /* none: a record of version 1 */
        memset(m->peer_uuid, 0, VZ_UUID_BYTES);
}

vz_migration *vz_migration_load(vz_migrate *service, const char *journal_path, GError **err)
{
    g_autoptr(vz_journal) journal = vz_journal_load(journal_path, err);
    if (!journal)
        return NULL;
    g_autoptr(vz_migration) migration =
        migration_new(service, vz_journal_side(journal), vz_journal_job(journal));
    migration->journal = g_steal_pointer(&journal);
    migration->saga.journal = migration->journal;
    load_peer(migration);
    g_autofree char *path = key_path(migration);
    migration->keys = vz_channel_keys_load(path, err);
    if (!migration->keys)
        return NULL;
    vz_migrate_register(service, migration);
    return g_steal_pointer(&migration);
}

bool vz_migration_attach(vz_migration *migration, vz_domain *domain, const vz_job_ops *ops,
                         GError **err)
{
    vz_job job = {.operation = migration->stats.operation, .ops = ops, .data = migration};
    g_snprintf(job.title, sizeof(job.title), "migration %s %s",
               migration->side == VZ_SIDE_SOURCE ? "out to" : "in from",
               migration->peer_name ? migration->peer_name : "another host");
    g_strlcpy(job.token, migration->id, sizeof(job.token));
    if (!vz_domain_job_begin(domain, &job, err))
        return false;
    migration->guarding = true;
    migration->domain = vz_domain_ref(domain);
    vz_migration_ref(migration); /* the guard's: others find the job through it */
    vz_domain_keep_actor(domain);
    return true;
}

static void drop_guards_reference(vz_domain *domain, void *data)
{
    (void)domain;
    vz_migration_unref(data);
}

void vz_migration_detach(vz_migration *migration, vz_job_type outcome, const char *error_text)
{
    if (migration->has_userfault)
        vz_userfault_forbid();
    migration->has_userfault = false;
    vz_migration_stop_carrier(migration);
    vz_migrate_unwatch_phase(migration);
    if (!migration->guarding)
        return;
    migration->guarding = false;
    migration->stats.type = outcome;
    migration->stats.time_elapsed_ms =
        (uint64_t)((vz_now_us() - migration->began_us) / VZ_USEC_PER_MSEC);
    g_strlcpy(migration->stats.error_text, error_text ? error_text : "",
              sizeof(migration->stats.error_text));
    vz_migration_uncancel(migration);
    vz_domain_job_end(migration->domain, &migration->stats);
    /* Later, because whoever ended the job was called through the guard; never, when the program
     * ends just now. */
    vz_domain_post(migration->domain, VZ_TASK_NORMAL, drop_guards_reference, migration, NULL);
    vz_domain_release_actor(migration->domain);
    g_clear_pointer(&migration->domain, vz_domain_unref);
}

void vz_migration_forget(vz_migration *migration)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = key_path(migration);
    /* The record first: keys without a record are rubbish, a record without keys is a riddle. */
    if (vz_journal_remove(migration->journal, &err) && vz_file_remove_durable(path, &err)) {
        vz_migrate_unregister(migration->service, migration);
        return;
    }
    vz_warn(migration->id, "the job's record cannot be removed yet: %s", err->message);
    migration->forgetting = true;
    vz_migrate_errand_later(migration);
}

bool vz_migration_domain_uuid(const vz_migration *migration, uint8_t ret_uuid[VZ_UUID_BYTES])
{
    g_autofree char *text = vz_journal_get(migration->journal, VZ_NOTE_DOMAIN);
    return text && vz_uuid_parse(text, ret_uuid);
}

bool vz_migration_note(vz_migration *migration, const char *key, const char *value, GError **err)
{
    return vz_journal_set(migration->journal, key, value, err);
}

bool vz_migration_note_peer(vz_migration *m, GError **err)
{
    char uuid[VZ_UUID_TEXT_BYTES];
    g_autofree char *port = g_strdup_printf("%u", m->peer_port);
    vz_uuid_format(m->peer_uuid, uuid);
    return vz_migration_note(m, VZ_NOTE_PEER_NAME, m->peer_name, err) &&
           vz_migration_note(m, VZ_NOTE_PEER_UUID, uuid, err) &&
           vz_migration_note(m, VZ_NOTE_PEER_FINGERPRINT, m->peer_fingerprint, err) &&
           (!m->peer_host || vz_migration_note(m, VZ_NOTE_PEER_HOST, m->peer_host, err)) &&
           vz_migration_note(m, VZ_NOTE_PEER_PORT, port, err) &&
           (!m->tunnel || vz_migration_note(m, VZ_NOTE_TUNNEL, m->tunnel, err)) &&
           (!m->incarnation || vz_migration_note(m, VZ_NOTE_INCARNATION, m->incarnation, err));
}

bool vz_migration_note_process(vz_migration *m, GError **err)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    g_autofree char *text = g_strdup_printf("%d %" G_GUINT64_FORMAT " %s", (int)snapshot->pid,
                                            vz_process_start_time(snapshot->pid), vz_boot_id());
    return vz_migration_note(m, VZ_NOTE_PROCESS, text, err);
}

static bool noted_process(const vz_migration *m, pid_t *ret_pid, uint64_t *ret_start,
                          bool *ret_boot)
{
    g_autofree char *text = vz_journal_get(m->journal, VZ_NOTE_PROCESS);
    g_auto(GStrv) words = g_strsplit(text ? text : "", " ", 3);
    if (g_strv_length(words) != 3)
        return false;
    *ret_pid = (pid_t)g_ascii_strtoll(words[0], NULL, 10);
    *ret_start = g_ascii_strtoull(words[1], NULL, 10);
    *ret_boot = strcmp(words[2], vz_boot_id()) == 0;
    return *ret_pid > 0;
}

bool vz_migration_process_dead(const vz_migration *m)
{
    pid_t pid;
    uint64_t start;
    bool this_boot;
    return !noted_process(m, &pid, &start, &this_boot) || !this_boot ||
           vz_process_start_time(pid) != start;
}

bool vz_migration_end_process(const vz_migration *m)
{
    pid_t pid;
    uint64_t start;
    bool this_boot;
    if (!noted_process(m, &pid, &start, &this_boot))
        return true;
    vz_autofd pidfd = this_boot ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    /* The number may be another's by now; the descriptor is then that one's. */
    if (pidfd >= 0 && vz_process_start_time(pid) == start)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    int64_t deadline_us = vz_now_us() + KILL_PATIENCE_US;
    while (!vz_migration_process_dead(m) && vz_now_us() < deadline_us)
        g_usleep(KILL_POLL_US);
    return vz_migration_process_dead(m);
}

void vz_migration_abort(vz_migration *migration, const char *reason)
{
    if (!migration->abort_reason)
        migration->abort_reason = g_strdup(reason);
    if (migration->busy && migration->domain)
        vz_inbox_cancel(vz_domain_inbox(migration->domain));
}

bool vz_migration_fail_aborted(vz_migration *migration, GError **err)
{
    return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "%s",
                   migration->abort_reason ? migration->abort_reason : "the daemon is stopping");
}

void vz_migration_uncancel(vz_migration *migration)
{
    if (migration->domain)
        vz_inbox_uncancel(vz_domain_inbox(migration->domain));
}

bool vz_migration_stirred(void *data)
{
    vz_migration *migration = data;
    bool stirred = migration->memory_event || migration->guest_died;
    migration->memory_event = false;
    return stirred;
}

struct vz_qemu *vz_migration_qemu(vz_migration *migration, GError **err)
{
    vz_qemu *qemu = migration->guest_died ? NULL : vz_driver_qemu_of(migration->domain);
    if (!qemu)
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "the QEMU of domain '%s' %s",
                vz_domain_name(migration->domain),
                migration->guest_died ? "ended during the migration" : "cannot be reached");
    return qemu;
}

bool vz_migration_in_doubt(const vz_migration *migration)
{
    return strcmp(migration->stats.phase, VZ_PHASE_IN_DOUBT) == 0;
}

bool vz_migration_offline(const vz_migration *migration)
{
    return (migration->saga.facts & VZ_FACT_OFFLINE) != 0;
}

const vz_def *vz_migration_subject(const vz_migration *migration, const vz_snapshot *snapshot)
{
    return vz_migration_offline(migration) ? snapshot->config : snapshot->live;
}

void vz_migration_publish(vz_migration *migration, const char *phase)
{
    vz_job_stats *stats = &migration->stats;
    stats->time_elapsed_ms = (uint64_t)((vz_now_us() - migration->began_us) / VZ_USEC_PER_MSEC);
    g_strlcpy(stats->phase, phase, sizeof(stats->phase));
    vz_domain_set_job_stats(migration->domain, stats);
}

char *vz_migration_run_dir(const vz_migration *migration)
{
    return g_strdup_printf("%s/jobs/%s.%s", vz_migrate_settings(migration->service)->run_dir,
                           migration->id, migration->side == VZ_SIDE_SOURCE ? "out" : "in");
}

bool vz_migration_start_carrier(vz_migration *migration,
                                void (*on_channel)(vz_carrier *carrier, const vz_channel_info *info,
                                                   void *user),
                                GError **err)
{
    const vz_migrate_config *settings = vz_migrate_settings(migration->service);
    g_autofree char *run_dir = vz_migration_run_dir(migration);
    if (g_mkdir_with_parents(run_dir, 0700) < 0)
        return vz_fail_errno(err, errno, "cannot make '%s'", run_dir);
    vz_carrier_start_request request = {
        .keys = migration->keys,
        .peer_fingerprint = migration->peer_fingerprint,
        .rundir = run_dir,
        .program = settings->carrier_program,
        .inbox = vz_domain_inbox(migration->domain),
        .hooks = {.on_channel = on_channel, .user = migration},
    };
    memcpy(request.job, migration->job, VZ_UUID_BYTES);
    vz_qemu_user user;
    if (!vz_qemu_user_find(settings->carrier_user, &user, err))
        return false;
    request.change_identity = user.change;
    request.uid = user.uid;
    request.gid = user.gid;
    migration->carrier = vz_carrier_start(&request, err);
    return migration->carrier &&
           vz_port_admit(vz_migrate_port(migration->service), migration->carrier, err);
}

static bool is_alive(const vz_carrier *carrier)
{
    g_autoptr(GError) dead = NULL;
    vz_autofd control = vz_carrier_control_dup(carrier, &dead);
    return control >= 0;
}

bool vz_migration_keep_carrier(vz_migration *migration,
                               void (*on_channel)(vz_carrier *carrier, const vz_channel_info *info,
                                                  void *user),
                               GError **err)
{
    if (migration->carrier && is_alive(migration->carrier))
        return true;
    if (migration->carrier)
        vz_migration_stop_carrier(migration);
    g_autoptr(GError) none = NULL;
    g_autofree char *run_dir = vz_migration_run_dir(migration);
    vz_carrier_hooks hooks = {.on_channel = on_channel, .user = migration};
    migration->carrier =
        vz_carrier_adopt(run_dir, vz_domain_inbox(migration->domain), &hooks, &none);
    if (!migration->carrier) {
        vz_migration_stop_carrier(migration); /* of one that died: its directory */
        return vz_migration_start_carrier(migration, on_channel, err);
    }
    return vz_port_admit(vz_migrate_port(migration->service), migration->carrier, err);
}

void vz_migration_stop_carrier(vz_migration *migration)
{
    vz_port_dismiss(vz_migrate_port(migration->service), migration->job);
    vz_stream_close(g_steal_pointer(&migration->sockets));
    vz_stream_close(g_steal_pointer(&migration->disk_sockets));
    vz_direct_close(migration);
    g_autofree char *run_dir = vz_migration_run_dir(migration);
    g_autoptr(vz_inbox) own = NULL;
    if (!migration->carrier && g_file_test(run_dir, G_FILE_TEST_IS_DIR)) {
        /* One that an earlier daemon started, perhaps for a domain that is gone. */
        g_autoptr(GError) err = NULL;
        vz_carrier_hooks hooks = {0};
        own = vz_inbox_new();
        migration->carrier = vz_carrier_adopt(run_dir, own, &hooks, &err);
        if (!migration->carrier)
            vz_debug(migration->id, "%s", err->message);
    }
    vz_carrier_stop(g_steal_pointer(&migration->carrier));
    g_autofree char *socket = g_build_filename(run_dir, VZ_CARRIER_SOCKET_NAME, NULL);
    unlink(socket); /* of a carrier that was killed */
    rmdir(run_dir);
}
