/* main.c - virtvzd: reads the configuration, finds what is there, serves, and lets go.
 *
 * The main thread is the loop thread. Guests outlive the daemon: at its end they are released, and
 * the next virtvzd finds them again. */
#include "api/api.h"
#include "base/fd.h"
#include "base/log.h"
#include "base/units.h"
#include "daemon/config.h"
#include "daemon/identity.h"
#include "daemon/recover.h"
#include "driver/qemu/driver.h"
#include "driver/qemu/userfault.h"
#include "driver/life.h"
#include "migrate/service.h"
#include "migrate/whereabouts.h"
#include "rpc/handler_table.h"
#include "storage/lease.h"

#include <config.h>
#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONFIG_PATH VZ_SYSCONFDIR "/virtvz/virtvzd.conf"

/* Exit statuses of our own, below those that systemd gives a meaning. */
enum { EXIT_OK = 0, EXIT_CANNOT_START = 1, EXIT_USAGE = 2 };

typedef struct {
    const char *config_path;
    bool config_required;
    bool check_only;
} arguments;

static const char usage[] =
    "Usage: virtvzd [-f FILE] [--check]\n"
    "The hypervisor vz:///system of this host.\n"
    "\n"
    "  -f, --config FILE   read FILE instead of " CONFIG_PATH "\n"
    "      --check         read the configuration, say what is wrong with it, and end\n"
    "      --help-config   print every key with its default and meaning\n"
    "      --version       print the version\n"
    "      --help          print this\n";

/* What only prints; true: it was one of these. */
static bool print_and_end(const char *word)
{
    if (g_str_equal(word, "--help") || g_str_equal(word, "-h")) {
        fputs(usage, stdout);
    } else if (g_str_equal(word, "--version")) {
        puts("virtvzd " VZ_VERSION);
    } else if (g_str_equal(word, "--help-config")) {
        g_autofree char *text = vz_config_describe();
        fputs(text, stdout);
    } else {
        return false;
    }
    return true;
}

/* -1: go on; else the status to end with. */
static int parse_arguments(int argc, char **argv, arguments *ret)
{
    *ret = (arguments){.config_path = CONFIG_PATH};
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (print_and_end(word))
            return EXIT_OK;
        if (g_str_equal(word, "--check")) {
            ret->check_only = true;
        } else if ((g_str_equal(word, "-f") || g_str_equal(word, "--config")) && i + 1 < argc) {
            ret->config_path = argv[++i];
            ret->config_required = true;
        } else {
            fprintf(stderr, "virtvzd: unknown or incomplete option '%s'\n%s", word, usage);
            return EXIT_USAGE;
        }
    }
    return -1;
}

/* ---- setting up ---- */

/* Held as long as the process lives; the kernel drops it with the process, however that ends. */
static bool take_lock(const vz_config *config, int *ret_fd, GError **err)
{
    g_autofree char *path = g_build_filename(config->run_dir, "virtvzd.lock", NULL);
    vz_autofd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return vz_fail_errno(err, errno, "cannot open '%s'", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK
                   ? vz_fail(err, VZ_ERR_OPERATION_INVALID, "another virtvzd holds '%s'", path)
                   : vz_fail_errno(err, errno, "cannot lock '%s'", path);
    *ret_fd = vz_steal_fd(&fd);
    return true;
}

/* Where QEMUs live; static because the driver borrows it for the program's life. */
static const vz_qemu_host *qemu_host_of(const vz_config *config)
{
    static vz_qemu_host host;
    host = vz_qemu_host_default;
    host.run_dir = g_build_filename(config->run_dir, "qemu", NULL);
    host.log_dir = g_build_filename(config->log_dir, "qemu", NULL);
    host.user = config->qemu_user;
    host.vnc_address = config->vnc_address;
    host.start_timeout_us = config->start_timeout * VZ_USEC_PER_SEC;
    return &host;
}

static bool set_up_host(vz_host *host, const vz_config *config, GError **err)
{
    char name[HOST_NAME_MAX + 1] = "";
    host->store = vz_store_open(config->state_dir, config->run_dir, err);
    const vz_qemu_caps_settings caps = {
        .cache_dir = config->cache_dir, .accel = config->accel, .user = config->qemu_user};
    if (!host->store || !vz_identity_host_uuid(config, host->uuid, err) ||
        !vz_qemu_caps_setup(&caps, err))
        return false;
    vz_uuid_format(host->uuid, host->uuid_text);
    gethostname(name, sizeof(name) - 1);
    host->hostname = g_strdup(name);
    host->emulator = *config->emulator ? config->emulator : vz_qemu_default_emulator();
    vz_driver_qemu_setup(qemu_host_of(config));
    vz_userfault_setup(config->run_dir);
    vz_lease_host lease = {.name = host->hostname, .fencing = config->fencing};
    memcpy(lease.uuid, host->uuid, VZ_UUID_BYTES);
    vz_lease_setup(&lease);
    host->table = vz_table_new(host->store, &vz_driver_qemu);
    vz_table_set_listener(host->table, &vz_api_listener, NULL);
    host->actor = vz_actor_new("host");
    host->asker = vz_actor_new("asker");
    return true;
}

/* The data port, and what is left of migrations that an earlier daemon did not end. */
static bool set_up_migration(vz_host *host, const vz_config *config, GError **err)
{
    vz_migrate_config settings = {.table = host->table,
                                  .state_dir = config->state_dir,
                                  .run_dir = config->run_dir,
                                  .host_name = host->hostname,
                                  .data_address =
                                      *config->data_address ? config->data_address : NULL,
                                  .data_port = config->data_port,
                                  .advertised = config->migrate_address,
                                  .carrier_user = config->qemu_user,
                                  .phase_timeout_s = (unsigned)config->phase_timeout,
                                  .parse = vz_api_parse};
    memcpy(settings.host_uuid, host->uuid, VZ_UUID_BYTES);
    host->migrate = vz_migrate_new(&settings, err);
    if (!host->migrate)
        return false;
    vz_life_set_start_check(vz_whereabouts_check_start, host->migrate);
    vz_migrate_recover(host->migrate);
    return true;
}

static bool listen_unix(vz_server *server, const vz_config *config, GError **err)
{
    g_autofree char *rw = g_build_filename(config->socket_dir, "virtvzd-sock", NULL);
    g_autofree char *ro = g_build_filename(config->socket_dir, "virtvzd-sock-ro", NULL);
    if (!vz_server_listen_readwrite(server, rw, err) || !vz_server_listen_readonly(server, ro, err))
        return false;
    vz_info(NULL, "listening on %s and %s", rw, ro);
    return true;
}

static bool listen_tcp(vz_server *server, const vz_config *config, GError **err)
{
    uint16_t port;
    if (!config->listen_tcp)
        return true;
    if (!vz_server_listen_tcp(server, config->tcp_address, config->tcp_port, &port, err))
        return false;
    vz_info(NULL, "listening on %s port %u, without authentication", config->tcp_address, port);
    return true;
}

static vz_server *make_server(const vz_config *config)
{
    const vz_server_limits limits = {.max_clients = config->max_clients,
                                     .max_readonly_clients = config->max_readonly_clients,
                                     .max_calls_per_client = config->max_client_calls,
                                     .keepalive_interval_s = config->keepalive_interval,
                                     .keepalive_count = config->keepalive_count};
    return vz_server_new(g_main_context_default(), &vz_api_backend, vz_handlers,
                         G_N_ELEMENTS(vz_handlers), &limits);
}

/* ---- running ---- */

/* systemd's readiness protocol is one datagram; a library for it would be larger than this. */
static void notify(const char *state)
{
    const char *path = g_getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof(address.sun_path))
        return;
    memcpy(address.sun_path, path, strlen(path));
    if (address.sun_path[0] == '@')
        address.sun_path[0] = '\0';
    vz_autofd fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (fd < 0 ||
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, length) < 0)
        vz_warn(NULL, "cannot tell the service manager: %s", g_strerror(errno));
}

static gboolean on_end_signal(void *loop)
{
    g_main_loop_quit(loop);
    return G_SOURCE_CONTINUE;
}

static void run_loop(void)
{
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    guint term = g_unix_signal_add(SIGTERM, on_end_signal, loop);
    guint interrupt = g_unix_signal_add(SIGINT, on_end_signal, loop);
    vz_info(NULL, "ready");
    notify("READY=1");
    g_main_loop_run(loop);
    vz_info(NULL, "ending; guests go on");
    notify("STOPPING=1");
    g_source_remove(term);
    g_source_remove(interrupt);
}

/* All connections end now, and with theirs the guests that were to end with one. */
static void release_guest(void *domain)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (vz_snapshot_active(s) && s->autodestroy && vz_life_destroy(domain, false, &err))
        return;
    if (err)
        vz_warn(vz_domain_name(domain), "should die with its connection: %s", err->message);
    vz_driver_qemu.release(domain);
}

/* Actors first: they still tell the server's clients what they did. */
static void tear_down(vz_host *host, vz_server *server)
{
    if (host->table)
        vz_table_stop(host->table, release_guest);
    if (host->actor)
        vz_actor_stop(host->actor, NULL, NULL);
    if (host->asker)
        vz_actor_stop(host->asker, NULL, NULL);
    vz_migrate_free(host->migrate);
    host->migrate = NULL;
    vz_server_free(server);
    host->events = NULL;
    vz_actor_free(host->actor);
    vz_actor_free(host->asker);
    vz_table_free(host->table);
    vz_store_close(host->store);
    g_free(host->hostname);
}

/* Everything between the configuration and the end, in the order that matters: guests are known
 * before anybody can ask, and the sockets exist before anybody is told. */
static bool run(const vz_config *config, GError **err)
{
    vz_host *host = &vz_this_host;
    g_autoptr(vz_server) server = make_server(config);
    host->events = vz_server_events(server);
    bool ok = set_up_host(host, config, err);
    if (ok) {
        vz_recover_configs(host);
        vz_recover_guests(host);
        vz_driver_qemu_end_unborn(host->store);
        ok = set_up_migration(host, config, err) && listen_unix(server, config, err) &&
             listen_tcp(server, config, err);
        vz_userfault_forbid(); /* whoever needs it was found again */
    }
    if (ok) {
        if (config->autostart)
            vz_recover_autostart(host);
        run_loop();
    }
    tear_down(host, g_steal_pointer(&server));
    return ok;
}

static bool start(const arguments *given, GError **err)
{
    g_autoptr(vz_config) config = vz_config_load(given->config_path, !given->config_required, err);
    vz_log_level level;
    vz_autofd lock = -1;
    if (!config)
        return false;
    if (!vz_log_level_parse(config->log_level, &level))
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s: log_level: '%s' is not a level",
                       given->config_path, config->log_level);
    if (given->check_only)
        return true;
    vz_log_set_level(level);
    if (g_mkdir_with_parents(config->run_dir, 0711) < 0)
        return vz_fail_errno(err, errno, "cannot make directory '%s'", config->run_dir);
    return take_lock(config, &lock, err) && run(config, err);
}

int main(int argc, char **argv)
{
    arguments given;
    int status = parse_arguments(argc, argv, &given);
    if (status >= 0)
        return status;
    umask(0022);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    g_autoptr(GError) err = NULL;
    if (start(&given, &err))
        return EXIT_OK;
    g_autofree char *text = vz_error_text(err);
    fprintf(stderr, "virtvzd: %s\n", text);
    return EXIT_CANNOT_START;
}
