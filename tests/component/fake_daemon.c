/* fake_daemon.c - what vz is tested against (test_vz.py): the real server side of the protocol with
 * made-up domains behind it, and migrations whose course the destination's name decides.
 *
 *     fake_daemon SOCKET      prints what it is asked to do, a line each; ends at end of file
 *
 *     destination  what happens
 *     quick        a second of progress, then moved
 *     refuse       refused at once
 *     unsafe       fails after a while, the guest runs here
 *     stuck        goes on until it is aborted
 *     deaf         goes on, cannot be aborted
 *     doubt        fails, and the guest stays paused by the migration
 *     limbo        fails, but the job goes on
 *     crash        the daemon is gone in the middle; so is restart, but test_vz.py starts another
 *
 * One thread: everything runs in the main loop. */
#include "base/text.h"
#include "rpc/events.h"
#include "rpc/server.h"

/* Rows that are not faked here have no handler: they answer as rows that do not exist. */
#define PROC(nr, name, args, ret, runs_on, in_job, access)                                         \
    bool vz_api_##name(vz_call *call VZ_ARGS_PARAMETER(args) VZ_RET_PARAMETER(ret), GError **err)  \
        __attribute__((weak));
#include "rpc/optional_parameters.h"
#include "procs.def"
#undef PROC
#include "rpc/handler_table.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TICK_MS   50
#define TICKS_END 20
#define PARAMS    16

enum { RUNNING = 1, PAUSED = 3, SHUTOFF = 5 };
enum { PAUSED_MIGRATION = 2, SHUTOFF_MIGRATED = 4 };
enum { JOB_NONE = 0, JOB_UNBOUNDED = 2, JOB_COMPLETED = 3 };
enum { FLAG_UNDEFINE_SOURCE = 0x10 };

typedef struct {
    const char *name;
    int id;
    int state, reason;
    bool persistent, gone;
} fake;

static fake fakes[] = {
    {"g1", 1, RUNNING, 1, true, false},
    {"sleeper", 2, PAUSED, 1, true, false},
    {"off", -1, SHUTOFF, 1, true, false},
    {"7", 9, RUNNING, 1, false, false}, /* a name like an id, of a transient domain */
};

static vz_events *events;
/* The one migration. */
static struct {
    vz_call *call;
    fake *domain;
    char *destination;
    unsigned flags;
    int ticks;
    bool aborted, goes_on, completed, in_doubt;
} job;

static vz_wire_domain wire_of(const fake *f)
{
    vz_wire_domain dom = {.name = f->name, .id = f->id};
    memset(dom.uuid, (int)(f - fakes) + 1, sizeof(dom.uuid));
    return dom;
}

static fake *find_uuid(const uint8_t *uuid, GError **err)
{
    size_t i = (size_t)uuid[0] - 1;
    if (i < G_N_ELEMENTS(fakes) && !fakes[i].gone)
        return &fakes[i];
    vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching uuid");
    return NULL;
}

bool vz_api_domain_lookup_by_id(vz_call *call, const vz_wire_domain_lookup_by_id_args *args,
                                vz_wire_domain_ret *ret, GError **err)
{
    (void)call;
    for (size_t i = 0; i < G_N_ELEMENTS(fakes); i++)
        if (!fakes[i].gone && fakes[i].id == args->id) {
            ret->dom = wire_of(&fakes[i]);
            return true;
        }
    return vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching id %d", args->id);
}

bool vz_api_domain_lookup_by_name(vz_call *call, const vz_wire_domain_lookup_by_name_args *args,
                                  vz_wire_domain_ret *ret, GError **err)
{
    (void)call;
    for (size_t i = 0; i < G_N_ELEMENTS(fakes); i++)
        if (!fakes[i].gone && strcmp(fakes[i].name, args->name) == 0) {
            ret->dom = wire_of(&fakes[i]);
            return true;
        }
    return vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching name '%s'", args->name);
}

bool vz_api_domain_lookup_by_uuid(vz_call *call, const vz_wire_domain_lookup_by_uuid_args *args,
                                  vz_wire_domain_ret *ret, GError **err)
{
    (void)call;
    const fake *f = find_uuid(args->uuid, err);
    if (f)
        ret->dom = wire_of(f);
    return f != NULL;
}

bool vz_api_connect_list_all_domains(vz_call *call,
                                     const vz_wire_connect_list_all_domains_args *args,
                                     vz_wire_connect_list_all_domains_ret *ret, GError **err)
{
    (void)err;
    vz_wire_domain *list = vz_call_alloc(call, sizeof(*list) * G_N_ELEMENTS(fakes));
    for (size_t i = 0; i < G_N_ELEMENTS(fakes); i++)
        if (!fakes[i].gone && args->flags & (fakes[i].id >= 0 ? 1u : 2u))
            list[ret->domains.count++] = wire_of(&fakes[i]);
    ret->domains.items = list;
    ret->ret = ret->domains.count;
    return true;
}

bool vz_api_domain_get_state(vz_call *call, const vz_wire_domain_flags_args *args,
                             vz_wire_domain_get_state_ret *ret, GError **err)
{
    (void)call;
    const fake *f = find_uuid(args->dom.uuid, err);
    if (!f)
        return false;
    ret->state = f->state;
    ret->reason = f->reason;
    return true;
}

bool vz_api_domain_is_persistent(vz_call *call, const vz_wire_domain_args *args,
                                 vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    const fake *f = find_uuid(args->dom.uuid, err);
    if (f)
        ret->value = f->persistent;
    return f != NULL;
}

bool vz_api_connect_get_lib_version(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = 11003000;
    return true;
}

bool vz_api_connect_get_version(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = 10000013;
    return true;
}

bool vz_api_connect_get_hostname(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = "hosta";
    return true;
}

/* --- the job --- */

static void add(vz_tparam *params, uint32_t *count, const char *field, uint64_t value)
{
    params[(*count)++] = (vz_tparam){.field = field, .type = VZ_TPARAM_ULLONG, .value.ul = value};
}

/* 64 MiB in three rounds: what remains is a saw-tooth. */
static uint32_t job_params(vz_tparam params[PARAMS], bool ended)
{
    const uint64_t mib = 1048576;
    uint64_t ticks = (uint64_t)MIN(job.ticks, TICKS_END);
    uint64_t left = ended ? 0 : (7 - ticks % 7) * 9 * mib / (1 + ticks / 7);
    uint32_t count = 0;
    params[count++] = (vz_tparam){.field = "operation", .type = VZ_TPARAM_INT, .value.i = 5};
    add(params, &count, "time_elapsed", ticks * TICK_MS);
    add(params, &count, "data_total", 64 * mib);
    add(params, &count, "data_processed", ticks * 5 * mib);
    add(params, &count, "data_remaining", left);
    add(params, &count, "memory_bps", 100 * mib);
    add(params, &count, "memory_iteration", 1 + ticks / 7);
    add(params, &count, "downtime", ended ? 63 : 50);
    if (!ended)
        params[count++] = (vz_tparam){.field = "vz.phase",
                                      .type = VZ_TPARAM_STRING,
                                      .value.s = ticks < 18 ? "copying memory" : "switching over"};
    return count;
}

bool vz_api_domain_get_job_stats(vz_call *call, const vz_wire_domain_flags_args *args,
                                 vz_wire_domain_get_job_stats_ret *ret, GError **err)
{
    const fake *f = find_uuid(args->dom.uuid, err);
    if (!f)
        return false;
    bool completed = args->flags & 1;
    if (!completed && f->id < 0)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is not running");
    if (f != job.domain || (completed ? !job.completed : !job.call && !job.goes_on))
        return true;
    vz_tparam *params = vz_call_alloc(call, sizeof(*params) * PARAMS);
    ret->type = completed ? JOB_COMPLETED : JOB_UNBOUNDED;
    ret->params.count = job_params(params, completed);
    ret->params.items = params;
    return true;
}

static void end_moved(void)
{
    vz_tparam params[PARAMS];
    vz_wire_event_job_completed event = {.dom = wire_of(job.domain)};
    event.params.items = params;
    event.params.count = job_params(params, true);
    vz_events_emit_job_completed(events, &event);
    job.completed = true;
    job.domain->id = -1;
    job.domain->state = SHUTOFF;
    job.domain->reason = SHUTOFF_MIGRATED;
    job.domain->gone = job.flags & FLAG_UNDEFINE_SOURCE || !job.domain->persistent;
    const vz_wire_migrate_perform3_ret ret = {0};
    vz_call_reply(job.call, &ret);
    g_clear_pointer(&job.call, vz_call_unref);
}

static void end_failed(int code, const char *text)
{
    GError *error = NULL;
    vz_fail(&error, (vz_error_code)code, "%s", text);
    vz_call_fail(job.call, error);
    g_clear_pointer(&job.call, vz_call_unref);
}

static bool to(const char *destination)
{
    return strcmp(job.destination, destination) == 0;
}

static gboolean tick(void *data)
{
    (void)data;
    job.ticks++;
    if (job.aborted)
        end_failed(78, "migration out job: canceled by client");
    else if (to("unsafe") && job.ticks == 8)
        end_failed(81, "disk vda is not on shared storage");
    else if (to("quick") && job.ticks == TICKS_END)
        end_moved();
    else if ((to("crash") || to("restart")) && job.ticks == 8)
        _exit(9);
    else if (to("doubt") && job.ticks == 8) {
        job.domain->state = PAUSED;
        job.domain->reason = PAUSED_MIGRATION;
        job.in_doubt = true;
        end_failed(38, "the destination does not answer");
    } else if (to("limbo") && job.ticks == 8) {
        job.goes_on = true;
        end_failed(1, "something odd");
    }
    return job.call != NULL;
}

bool vz_api_domain_migrate_perform3_params(vz_call *call,
                                           const vz_wire_migrate_perform3_params_args *args,
                                           vz_wire_migrate_perform3_ret *ret, GError **err)
{
    (void)ret;
    fake *f = find_uuid(args->dom.uuid, err);
    if (!f)
        return false;
    printf("perform %s flags=0x%x", args->dconnuri, args->flags);
    for (uint32_t i = 0; i < args->params.count; i++) {
        const vz_tparam *p = &args->params.items[i];
        if (p->type == VZ_TPARAM_STRING)
            printf(" %s=%s", p->field, p->value.s);
        else
            printf(" %s=%" G_GUINT64_FORMAT, p->field, p->value.ul);
    }
    printf("\n");
    fflush(stdout);
    g_auto(GStrv) parts = g_strsplit(args->dconnuri, "/", 4);
    g_free(job.destination);
    job.destination = g_strdup(g_strv_length(parts) > 2 ? parts[2] : "");
    if (to("refuse"))
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED, "something is not in this version");
    if (f->id < 0)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain is not running");
    job.domain = f;
    job.flags = args->flags;
    job.ticks = 0;
    job.aborted = job.goes_on = job.completed = false;
    vz_call_defer(call);
    job.call = vz_call_ref(call);
    g_timeout_add(TICK_MS, tick, NULL);
    return true;
}

bool vz_api_domain_abort_job(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)call;
    printf("abort %s\n", args->dom.name);
    fflush(stdout);
    if (!job.call)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "no job is active on the domain");
    if (to("deaf"))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "it is too late");
    job.aborted = true;
    return true;
}

bool vz_api_vz_list_jobs(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    static char text[256];
    char uuid[VZ_UUID_TEXT_BYTES];
    bool running = job.call || job.goes_on || job.in_doubt;
    if (running) {
        vz_uuid_format(wire_of(job.domain).uuid, uuid);
        g_snprintf(text, sizeof(text),
                   "[{\"domain\":\"%s\",\"uuid\":\"%s\",\"direction\":\"out\",\"phase\":\"%s\","
                   "\"peer\":\"%s\",\"running\":true}]",
                   job.domain->name, uuid, job.in_doubt ? "in doubt" : "copying memory",
                   job.destination);
    }
    ret->value = running ? text : "[]";
    return true;
}

/* "refuse" would refuse; of the others all is known, and nothing is in the way. */
bool vz_api_vz_domain_check(vz_call *call, const vz_wire_vz_check_args *args,
                            vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    bool refuses = strstr(args->dconnuri, "refuse") != NULL;
    printf("check %s flags=0x%x max-downtime %" G_GUINT64_FORMAT "\n", args->dconnuri, args->flags,
           args->max_downtime);
    fflush(stdout);
    ret->value =
        refuses
            ? "{\"domain\":\"g1\",\"move\":false,\"from\":{\"host\":\"hosta\"},\"to\":{},"
              "\"memory\":{\"total_bytes\":1048576},\"live\":true,\"rate\":{\"from\":\"unknown: "
              "no card\"},\"unpredictable\":\"who knows\",\"disks\":[],\"findings\":["
              "{\"check\":\"network\",\"side\":\"destination\",\"refuses\":true,\"code\":38,"
              "\"text\":\"no bridge\",\"remedy\":\"make one\"},"
              "{\"check\":\"clock\",\"side\":\"destination\",\"refuses\":false,\"code\":0,"
              "\"text\":\"it is late\",\"remedy\":\"hurry\"}]}"
            : "{\"domain\":\"g1\",\"move\":true,\"from\":{\"host\":\"hosta\"},\"to\":{\"host\":"
              "\"hostb\",\"data\":\"tcp:hostb:16515\"},\"memory\":{\"total_bytes\":2097152,"
              "\"used_bytes\":1048576,\"used_from\":\"counted\",\"dirty_bytes_s\":1024},\"live\":"
              "true,\"rate\":{\"bytes_s\":1048576,\"from\":\"a cap\"},\"bytes\":1048576,"
              "\"total_ms\":1000,\"downtime_ms\":20,\"disks\":[{\"target\":\"vda\",\"path\":"
              "\"/d\",\"shared\":true}],\"findings\":[]}";
    return true;
}

bool vz_api_vz_migration_capabilities(vz_call *call, const vz_wire_vz_peer_args *args,
                                      vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    printf("capabilities %s\n", args->dconnuri ? args->dconnuri : "-");
    fflush(stdout);
    ret->value = "{\"host\":\"hosta\",\"version\":\"1\",\"options\":[{\"name\":\"A<B\",\"kind\":"
                 "\"flag\",\"word\":\"a\",\"help\":\"does a\",\"status\":\"refused\",\"reason\":"
                 "\"no \\\"a\\\" & no b\"}]}";
    return true;
}

bool vz_api_domain_migrate_set_max_downtime(
    vz_call *call, const vz_wire_domain_migrate_set_max_downtime_args *args, GError **err)
{
    (void)call;
    (void)err;
    printf("max-downtime %" G_GUINT64_FORMAT "\n", args->downtime);
    fflush(stdout);
    return true;
}

/* --- the rest --- */

static gboolean run_call(void *call)
{
    vz_call_run(call);
    return FALSE;
}

static bool post_to_host(void *data, vz_call *call, GError **err)
{
    (void)data;
    (void)err;
    g_idle_add_full(G_PRIORITY_DEFAULT, run_call, vz_call_ref(call), vz_call_drop);
    return true;
}

static bool post_to_domain(void *data, vz_call *call, const vz_wire_domain *dom, GError **err)
{
    return find_uuid(dom->uuid, err) && post_to_host(data, call, err);
}

static gboolean on_stdin(int fd, GIOCondition condition, void *data)
{
    (void)fd;
    (void)condition;
    g_main_loop_quit(data);
    return FALSE;
}

static size_t faked(vz_handler *ret_handlers)
{
    size_t n = 0;
#define PROC(nr, name, args, ret, runs_on, in_job, access)                                         \
    if (vz_api_##name)                                                                             \
        ret_handlers[n++] = (vz_handler){VZ_PROC_##name, run_##name};
#include "procs.def"
#undef PROC
    return n;
}

int main(int argc, char **argv)
{
    g_assert(argc == 2);
    signal(SIGPIPE, SIG_IGN);
    g_autoptr(GError) err = NULL;
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    const vz_rpc_backend backend = {post_to_host, post_to_domain, NULL};
    vz_handler handlers[G_N_ELEMENTS(vz_handlers)];
    size_t n = faked(handlers);
    vz_server *server = vz_server_new(NULL, &backend, handlers, n, &vz_server_default_limits);
    events = vz_server_events(server);
    if (!vz_server_listen_readwrite(server, argv[1], &err)) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    printf("ready\n");
    fflush(stdout);
    g_unix_fd_add(0, G_IO_IN | G_IO_HUP, on_stdin, loop);
    g_main_loop_run(loop);
    vz_server_free(server);
    g_clear_pointer(&job.call, vz_call_unref);
    g_free(job.destination);
    return 0;
}
