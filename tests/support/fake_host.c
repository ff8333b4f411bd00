/* fake_host.c - see fake_host.h. */
#include "fake_host.h"

#include "base/text.h"
#include "base/units.h"
#include "base/wait.h"
#include "rpc/events.h"
#include "rpc/stream.h"

/* Rows that are not faked here have no handler: they answer as rows that do not exist. */
#define PROC(nr, name, args, ret, runs_on, in_job, access)                                         \
    bool vz_api_##name(vz_call *call VZ_ARGS_PARAMETER(args) VZ_RET_PARAMETER(ret), GError **err)  \
        __attribute__((weak));
#include "rpc/optional_parameters.h"
#include "procs.def"
#undef PROC
#include "rpc/handler_table.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *const names[] = {"g1", "g2", "slow"};
#define N_DOMAINS 3

static vz_events *events;
static vz_inbox *inbox;
static GThread *actor;
static vz_call *suspended;     /* the inbox's thread only */
static vz_stream *last_stream; /* the inbox's thread only */
static gint is_suspended;
static gint closed_hooks;
static gint far_end; /* atomic: of the last stream of data, + 1 */

static vz_wire_domain domain_at(uint8_t i)
{
    vz_wire_domain dom = {.name = names[i], .id = i + 1};
    memset(dom.uuid, i + 1, sizeof(dom.uuid));
    return dom;
}

static bool find(const char *name, vz_wire_domain *ret_dom, GError **err)
{
    for (uint8_t i = 0; i < N_DOMAINS; i++)
        if (!strcmp(names[i], name)) {
            *ret_dom = domain_at(i);
            return true;
        }
    return vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching name '%s'", name);
}

bool vz_api_connect_get_type(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = "vz";
    return true;
}

bool vz_api_connect_get_hostname(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)err;
    g_autofree char *text =
        g_strdup_printf("host-of-%s", vz_conn_readonly(vz_call_conn(call)) ? "reader" : "writer");
    ret->value = vz_call_strdup(call, text);
    return true;
}

bool vz_api_connect_get_lib_version(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    ret->value = 1002003;
    return true;
}

/* Takes a while, on the host's thread. */
bool vz_api_connect_get_version(vz_call *call, vz_wire_uhyper_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    vz_wait(inbox, NULL, NULL, vz_now_us() + 10 * VZ_USEC_PER_MSEC);
    ret->value = 1;
    return true;
}

/* 4 MiB, so that whoever does not read it fills every buffer there is. */
bool vz_api_connect_get_capabilities(vz_call *call, vz_wire_string_ret *ret, GError **err)
{
    (void)err;
    char *text = vz_call_alloc(call, VZ_WIRE_MAX_STRING + 1);
    memset(text, 'c', VZ_WIRE_MAX_STRING);
    ret->value = text;
    return true;
}

bool vz_api_connect_list_all_domains(vz_call *call,
                                     const vz_wire_connect_list_all_domains_args *args,
                                     vz_wire_connect_list_all_domains_ret *ret, GError **err)
{
    (void)args;
    (void)err;
    vz_wire_domain *domains = vz_call_alloc(call, N_DOMAINS * sizeof(*domains));
    for (uint8_t i = 0; i < N_DOMAINS; i++)
        domains[i] = domain_at(i);
    ret->domains.items = domains;
    ret->domains.count = N_DOMAINS;
    ret->ret = N_DOMAINS;
    return true;
}

bool vz_api_domain_lookup_by_name(vz_call *call, const vz_wire_domain_lookup_by_name_args *args,
                                  vz_wire_domain_ret *ret, GError **err)
{
    (void)call;
    return find(args->name, &ret->dom, err);
}

bool vz_api_domain_get_state(vz_call *call, const vz_wire_domain_flags_args *args,
                             vz_wire_domain_get_state_ret *ret, GError **err)
{
    (void)call;
    (void)err;
    bool paused = !strcmp(args->dom.name, "slow") && g_atomic_int_get(&is_suspended);
    ret->state = paused ? 3 : 1;
    ret->reason = 1;
    return true;
}

static void note_closed(void *data)
{
    (void)data;
    g_atomic_int_inc(&closed_hooks);
}

/* On "slow" it is answered only by domain_resume. */
bool vz_api_domain_suspend(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    if (strcmp(args->dom.name, "slow")) {
        vz_wire_event_lifecycle event = {.dom = args->dom, .event = 3, .detail = 0};
        vz_events_emit_lifecycle(events, &event);
        return true;
    }
    if (suspended)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "it is being suspended");
    vz_conn_on_close(vz_call_conn(call), call, note_closed, NULL, NULL);
    vz_call_defer(call);
    suspended = vz_call_ref(call);
    g_atomic_int_set(&is_suspended, 1);
    return true;
}

bool vz_api_domain_resume(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)call;
    if (!strcmp(args->dom.name, "slow")) {
        if (!suspended)
            return vz_fail(err, VZ_ERR_OPERATION_INVALID, "nobody suspends it");
        vz_conn_forget_close(vz_call_conn(suspended), suspended);
        vz_call_reply(suspended, NULL);
        g_clear_pointer(&suspended, vz_call_unref);
        g_atomic_int_set(&is_suspended, 0);
    }
    vz_wire_event_lifecycle event = {.dom = args->dom, .event = 4, .detail = 0};
    vz_events_emit_lifecycle(events, &event);
    return true;
}

/* For the test to see what hooks have run. */
bool vz_api_connect_get_max_vcpus(vz_call *call, const vz_wire_connect_get_max_vcpus_args *args,
                                  vz_wire_int_ret *ret, GError **err)
{
    (void)call;
    (void)args;
    (void)err;
    ret->value = g_atomic_int_get(&closed_hooks);
    return true;
}

/* ---- the console: echoes in upper case, ends at "quit", says as much as it can at "flood" ---- */

static void *console(void *data)
{
    int fd = GPOINTER_TO_INT(data);
    char byte, line[64];
    size_t length = 0;
    while (read(fd, &byte, 1) == 1) {
        char upper = g_ascii_toupper(byte);
        if (write(fd, &upper, 1) != 1)
            break;
        line[length++ % sizeof(line)] = byte;
        if (byte != '\r' && byte != '\n')
            continue;
        if (!strncmp(line, "quit", 4))
            break;
        if (!strncmp(line, "flood", 5)) {
            static const char flood[64 * 1024];
            for (int i = 0; i < 256 && write(fd, flood, sizeof(flood)) > 0; i++)
                ;
        }
        length = 0;
    }
    close(fd);
    return NULL;
}

bool vz_api_domain_open_console(vz_call *call, const vz_wire_domain_open_console_args *args,
                                GError **err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return vz_fail_errno(err, errno, "socketpair");
    g_thread_unref(g_thread_new("console", console, GINT_TO_POINTER(ends[1])));
    const vz_stream_request request = {.take_fd = ends[0], .on_end = note_closed};
    vz_stream *stream;
    if (!vz_stream_open(call, &request, &stream, err))
        return false;
    if (last_stream && args->flags) {
        GError *taken = NULL;
        vz_fail(&taken, VZ_ERR_OPERATION_FAILED, "taken over");
        vz_stream_abort(last_stream, taken);
    }
    g_clear_pointer(&last_stream, vz_stream_unref);
    last_stream = stream;
    return true;
}

bool vz_api_vz_open_data(vz_call *call, GError **err)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
        return vz_fail_errno(err, errno, "socketpair");
    g_atomic_int_set(&far_end, ends[1] + 1);
    const vz_stream_request request = {
        .take_fd = ends[0], .holds_back = true, .on_end = note_closed};
    return vz_stream_open(call, &request, NULL, err);
}

int fake_host_take_data(void)
{
    int end = g_atomic_int_get(&far_end) - 1;
    g_atomic_int_set(&far_end, 0);
    return end;
}

/* ---- the rest ---- */

static bool post_to_host(void *data, vz_call *call, GError **err)
{
    (void)data;
    return vz_inbox_post(inbox, VZ_TASK_NORMAL, vz_call_run, vz_call_ref(call), vz_call_drop) ||
           vz_fail(err, VZ_ERR_OPERATION_FAILED, "stopping");
}

static bool post_to_domain(void *data, vz_call *call, const vz_wire_domain *dom, GError **err)
{
    char text[VZ_UUID_TEXT_BYTES];
    if (dom->uuid[0] >= 1 && dom->uuid[0] <= N_DOMAINS)
        return post_to_host(data, call, err);
    vz_uuid_format(dom->uuid, text);
    return vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", text,
                   dom->name);
}

static void *run_inbox(void *data)
{
    (void)data;
    vz_inbox_run(inbox);
    g_clear_pointer(&suspended, vz_call_unref);
    g_clear_pointer(&last_stream, vz_stream_unref);
    return NULL;
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

vz_server *fake_host_new(GMainContext *context)
{
    const vz_rpc_backend backend = {post_to_host, post_to_domain, NULL};
    vz_server_limits limits = vz_server_default_limits;
    limits.max_clients = 64;
    limits.keepalive_interval_s = 1;
    limits.keepalive_count = 2;
    vz_handler handlers[G_N_ELEMENTS(vz_handlers)];
    size_t n = faked(handlers);
    inbox = vz_inbox_new();
    actor = g_thread_new("actor", run_inbox, NULL);
    vz_server *server = vz_server_new(context, &backend, handlers, n, &limits);
    events = vz_server_events(server);
    return server;
}

void fake_host_free(vz_server *server)
{
    vz_inbox_close(inbox);
    g_thread_join(actor);
    g_clear_pointer(&inbox, vz_inbox_free); /* calls that were not run are answered now */
    vz_server_free(server);
}
