/* migrate.c - the five phases of a migration, as clients call them, in both sets of procedures.
 *
 *     Begin, Perform, Confirm   on the actor of the domain that moves
 *     Prepare                   on the host actor, then on the actor of the domain that arrives
 *     Finish                    from the loop to the actor of the domain that arrives
 *
 * Each function turns a call into options and a cookie, and calls src/migrate. */
#include "api/api.h"

#include "domain/def.h"
#include "migrate/arrival_address.h"
#include "migrate/destination.h"
#include "migrate/p2p.h"
#include "migrate/precheck.h"
#include "migrate/service.h"
#include "migrate/source.h"
#include "migrate/uri.h"

#include <string.h>

/* --- what both sets have in common --- */

static vz_wire_bytes cookie_out(vz_call *call, const char *text)
{
    const char *copy = vz_call_strdup(call, text);
    return (vz_wire_bytes){(const uint8_t *)copy, (uint32_t)strlen(copy)};
}

/* An absent cookie is no error by itself: *ret_has tells. */
static bool read_cookie(const vz_wire_bytes *bytes, const char *phase, vz_cookie *ret_cookie,
                        bool *ret_has, GError **err)
{
    *ret_has = bytes->count > 0;
    return !*ret_has || vz_cookie_parse(bytes->data, bytes->count, phase, ret_cookie, err);
}

/* The connection that drives a job; when it dies the job is told, on its actor. */
typedef struct {
    vz_domain *domain;
    vz_migration *migration;
    void (*lost)(vz_migration *migration);
} driver_link;

static void link_free(void *data)
{
    driver_link *link = data;
    vz_domain_unref(link->domain);
    vz_migration_unref(link->migration);
    g_free(link);
}

static void link_lost_on_actor(vz_domain *domain, void *data)
{
    (void)domain;
    driver_link *link = data;
    link->lost(link->migration);
}

static void link_lost(void *data)
{
    driver_link *link = data;
    driver_link *copy = g_new(driver_link, 1);
    *copy =
        (driver_link){vz_domain_ref(link->domain), vz_migration_ref(link->migration), link->lost};
    vz_domain_post(link->domain, VZ_TASK_DURING_JOB, link_lost_on_actor, copy, link_free);
}

static void follow_client(vz_call *call, vz_domain *domain, vz_migration *migration,
                          void (*lost)(vz_migration *migration))
{
    driver_link *link = g_new(driver_link, 1);
    *link = (driver_link){vz_domain_ref(domain), vz_migration_ref(migration), lost};
    if (!vz_conn_on_close(vz_call_conn(call), migration, link_lost, link, link_free))
        lost(migration);
}

/* --- Begin --- */

static bool begin(vz_call *call, vz_options *options, vz_wire_migrate_begin3_ret *ret, GError **err)
{
    if (!vz_options_check(options, VZ_GUEST_VM, err))
        return false;
    vz_domain *domain = vz_api_subject(call);
    vz_source_request request = {.options = options};
    g_autoptr(vz_migration) migration = NULL;
    g_autofree char *cookie = NULL;
    g_autofree char *xml = NULL;
    if (vz_options_has(options, VZ_OPTION_POSTCOPY_RESUME)) {
        if (!vz_source_begin_again(domain, &cookie, &xml, err))
            return false;
    } else {
        if (!vz_source_begin(vz_this_host.migrate, domain, &request, &migration, &xml, err))
            return false;
        cookie = vz_source_cookie(migration, vz_conn_local_address(vz_call_conn(call)), NULL);
        follow_client(call, domain, migration, vz_source_client_lost);
    }
    ret->cookie_out = cookie_out(call, cookie);
    ret->xml = vz_call_strdup(call, xml);
    return true;
}

bool vz_api_domain_migrate_begin3_params(vz_call *call,
                                         const vz_wire_migrate_begin3_params_args *args,
                                         vz_wire_migrate_begin3_ret *ret, GError **err)
{
    g_autoptr(vz_options) options = NULL;
    return vz_options_from_wire(args->params.items, args->params.count, args->flags, VZ_PHASE_BEGIN,
                                &options, err) &&
           begin(call, options, ret, err);
}

bool vz_api_domain_migrate_begin3(vz_call *call, const vz_wire_migrate_begin3_args *args,
                                  vz_wire_migrate_begin3_ret *ret, GError **err)
{
    vz_legacy_options legacy = {.flags = args->flags,
                                .dname = args->dname,
                                .bandwidth_mib_s = args->resource,
                                .xml = args->xmlin};
    g_autoptr(vz_options) options = NULL;
    return vz_options_from_legacy(&legacy, VZ_PHASE_BEGIN, &options, err) &&
           begin(call, options, ret, err);
}

/* --- Prepare --- */

/* What travels from the host actor to the actor of the arriving domain. */
typedef struct {
    vz_call *call;
    vz_options *options;
    vz_def *def;
    vz_cookie cookie;
} arrival;

static void arrival_free(void *data)
{
    arrival *a = data;
    vz_call_unref(a->call);
    vz_options_free(a->options);
    vz_def_unref(a->def);
    vz_cookie_clear(&a->cookie);
    g_free(a);
}

static void prepare_on_actor(vz_domain *domain, void *data)
{
    arrival *a = data;
    vz_migrate *service = vz_this_host.migrate;
    g_autoptr(vz_migration) migration = NULL;
    g_autofree char *cookie = NULL;
    g_autofree char *host = NULL;
    GError *err = NULL;
    bool fits = vz_arrival_address_check(service, a->options, &host, &err);
    g_autofree char *known_uri = fits ? vz_arrival_address_known(service, a->options, host) : NULL;
    const char *client_came_by = vz_conn_local_address(vz_call_conn(a->call));
    g_autofree char *data_host =
        fits ? vz_arrival_address_host(service, a->options, host, client_came_by) : NULL;
    vz_destination_request request = {
        .cookie = &a->cookie,
        .options = a->options,
        .def = a->def,
        .client_address = vz_conn_remote_address(vz_call_conn(a->call)),
        .data_uri = known_uri,
        .data_host = data_host,
    };
    if (!fits)
        vz_table_release(domain, VZ_RESERVE_START);
    if (!fits || !vz_destination_prepare(service, domain, &request, &migration, &cookie, &err)) {
        vz_call_fail(a->call, err);
        return;
    }
    follow_client(a->call, domain, migration, vz_destination_client_lost);
    /* A client sends what it gets here to Perform, in place of what its caller asked for. */
    g_autofree char *uri = vz_options_has(a->options, VZ_OPTION_URI_UNIX)
                               ? g_strdup(vz_options_text(a->options, VZ_OPTION_URI))
                               : vz_arrival_address_uri(service, a->options, host, client_came_by);
    vz_wire_migrate_prepare3_ret ret = {.cookie_out = cookie_out(a->call, cookie), .uri_out = uri};
    vz_call_reply(a->call, &ret);
}

/* The definition as it will run here: under its new name where one is asked for. */
static vz_def *arriving_def(const vz_options *options, GError **err)
{
    const char *xml = vz_options_text(options, VZ_OPTION_DEST_XML);
    if (xml)
        return vz_def_renamed(vz_api_parse(xml, err),
                              vz_options_text(options, VZ_OPTION_DEST_NAME));
    vz_fail(err, VZ_ERR_INVALID_ARG, "no domain XML passed");
    return NULL;
}

/* It gets no place here: not for that reason alone, perhaps. */
static void explain(const arrival *a, GError **err)
{
    const vz_precheck_arrival looked_at = {vz_this_host.migrate, &a->cookie, a->options,
                                           g_get_real_time()};
    vz_precheck_explain(&looked_at, err);
}

/* Of a job that is here already. */
static bool prepare_again(arrival *take_a, GError **err)
{
    arrival *a = take_a;
    vz_migrate *service = vz_this_host.migrate;
    g_autofree char *host = NULL;
    g_autofree char *cookie = vz_arrival_address_check(service, a->options, &host, err)
                                  ? vz_destination_prepare_again(service, a->cookie.job, err)
                                  : NULL;
    if (cookie) {
        const char *local = vz_conn_local_address(vz_call_conn(a->call));
        g_autofree char *uri = vz_arrival_address_uri(service, a->options, host, local);
        vz_wire_migrate_prepare3_ret ret = {.cookie_out = cookie_out(a->call, cookie),
                                            .uri_out = uri};
        vz_call_defer(a->call);
        vz_call_reply(a->call, &ret);
    }
    arrival_free(a);
    return cookie != NULL;
}

static bool prepare(vz_call *call, vz_options *take_options, const vz_wire_bytes *cookie_in,
                    GError **err)
{
    arrival *a = g_new0(arrival, 1);
    a->call = vz_call_ref(call);
    a->options = take_options;
    bool has_cookie = false;
    g_autoptr(vz_domain) domain = NULL;
    bool known = vz_options_check(a->options, VZ_GUEST_VM, err) &&
                 read_cookie(cookie_in, "begin", &a->cookie, &has_cookie, err) &&
                 (has_cookie ||
                  vz_fail(err, VZ_ERR_INVALID_ARG, "the source sent no cookie; is it a virtvzd?"));
    if (known && vz_options_has(a->options, VZ_OPTION_POSTCOPY_RESUME))
        return prepare_again(a, err);
    bool ok = known && (a->def = arriving_def(a->options, err)) != NULL &&
              (domain = vz_table_reserve(vz_this_host.table, a->def->uuid, a->def->name,
                                         VZ_RESERVE_START, err)) != NULL;
    if (known && !ok)
        explain(a, err);
    if (!ok) {
        arrival_free(a);
        return false;
    }
    vz_call_defer(call);
    if (!vz_domain_post(domain, VZ_TASK_NORMAL, prepare_on_actor, a, arrival_free))
        vz_table_release(domain, VZ_RESERVE_START);
    return true;
}

bool vz_api_domain_migrate_prepare3_params(vz_call *call,
                                           const vz_wire_migrate_prepare3_params_args *args,
                                           vz_wire_migrate_prepare3_ret *ret, GError **err)
{
    (void)ret;
    vz_options *options = NULL;
    return vz_options_from_wire(args->params.items, args->params.count, args->flags,
                                VZ_PHASE_PREPARE, &options, err) &&
           prepare(call, options, &args->cookie_in, err);
}

bool vz_api_domain_migrate_prepare3(vz_call *call, const vz_wire_migrate_prepare3_args *args,
                                    vz_wire_migrate_prepare3_ret *ret, GError **err)
{
    (void)ret;
    vz_legacy_options legacy = {.flags = args->flags,
                                .dname = args->dname,
                                .bandwidth_mib_s = args->resource,
                                .xml = args->dom_xml,
                                .uri = args->uri_in};
    vz_options *options = NULL;
    return vz_options_from_legacy(&legacy, VZ_PHASE_PREPARE, &options, err) &&
           prepare(call, options, &args->cookie_in, err);
}

/* --- Perform --- */

typedef struct {
    vz_options *options;
    const char *dconnuri;
    const vz_wire_bytes *cookie_in;
} performance;

static bool perform_for_client(vz_call *call, const performance *p, char **ret_cookie, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_auto(vz_cookie) cookie = {0};
    bool has_cookie = false;
    if (vz_options_has(p->options, VZ_OPTION_POSTCOPY_RESUME))
        return vz_source_perform_again(domain, ret_cookie, err);
    if (!read_cookie(p->cookie_in, "prepare", &cookie, &has_cookie, err))
        return false;
    if (!has_cookie)
        return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                       "direct migration is not supported: it would have no authentication; leave "
                       "it to the client (virsh migrate) or to the daemon (--p2p)");
    g_autoptr(vz_migration) migration = vz_source_find(domain, &cookie, err);
    vz_source_destination to = {.cookie = &cookie,
                                .uri = vz_options_text(p->options, VZ_OPTION_URI)};
    if (!migration)
        return false;
    if (vz_source_perform(migration, &to, ret_cookie, err))
        return true;
    if (!migration->domain) /* over: clients do not confirm a Perform that failed */
        vz_conn_forget_close(vz_call_conn(call), migration);
    return false;
}

static bool perform(vz_call *call, const performance *p, vz_wire_migrate_perform3_ret *ret,
                    GError **err)
{
    g_autofree char *cookie = NULL;
    if (!vz_options_check(p->options, VZ_GUEST_VM, err))
        return false;
    if (!vz_options_has(p->options, VZ_OPTION_PEER2PEER)) {
        if (!perform_for_client(call, p, &cookie, err))
            return false;
        ret->cookie_out = cookie_out(call, cookie);
        return true;
    }
    if (p->cookie_in->count > 0)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID,
                       "received unexpected cookie with P2P migration");
    if (!p->dconnuri)
        return vz_fail(err, VZ_ERR_INVALID_ARG, "no URI of the destination's daemon");
    if (vz_options_has(p->options, VZ_OPTION_POSTCOPY_RESUME))
        return vz_source_migrate_again(vz_api_subject(call), err);
    return vz_p2p_migrate(vz_this_host.migrate, vz_api_subject(call), p->dconnuri, p->options, err);
}

bool vz_api_domain_migrate_perform3_params(vz_call *call,
                                           const vz_wire_migrate_perform3_params_args *args,
                                           vz_wire_migrate_perform3_ret *ret, GError **err)
{
    g_autoptr(vz_options) options = NULL;
    if (!vz_options_from_wire(args->params.items, args->params.count, args->flags, VZ_PHASE_PERFORM,
                              &options, err))
        return false;
    performance p = {options, args->dconnuri, &args->cookie_in};
    return perform(call, &p, ret, err);
}

bool vz_api_domain_migrate_perform3(vz_call *call, const vz_wire_migrate_perform3_args *args,
                                    vz_wire_migrate_perform3_ret *ret, GError **err)
{
    vz_legacy_options legacy = {.flags = args->flags,
                                .dname = args->dname,
                                .bandwidth_mib_s = args->resource,
                                .xml = args->xmlin,
                                .uri = args->uri};
    g_autoptr(vz_options) options = NULL;
    if (!vz_options_from_legacy(&legacy, VZ_PHASE_PERFORM, &options, err))
        return false;
    performance p = {options, args->dconnuri, &args->cookie_in};
    return perform(call, &p, ret, err);
}

/* --- Finish --- */

typedef struct {
    vz_call *call;
    vz_migration *migration;
    vz_options *options;
    vz_cookie cookie;
    bool has_cookie;
    bool cancelled;
} finishing;

static void finishing_free(void *data)
{
    finishing *f = data;
    vz_call_unref(f->call);
    vz_migration_unref(f->migration);
    vz_options_free(f->options);
    vz_cookie_clear(&f->cookie);
    g_free(f);
}

static bool fail_not_arriving(vz_domain *domain, const finishing *f, GError **err)
{
    return vz_fail(err, f->cancelled ? VZ_ERR_MIGRATE_FINISH_OK : VZ_ERR_OPERATION_INVALID,
                   "domain '%s' is not arriving here by that job", vz_domain_name(domain));
}

/* A client may name one domain and send the cookie of another, but a job is touched on the actor of
 * its own only. By the record, which any thread may read. */
static bool belongs_to(const vz_migration *m, vz_domain *domain)
{
    uint8_t uuid[VZ_UUID_BYTES];
    return vz_migration_domain_uuid(m, uuid) &&
           memcmp(uuid, vz_domain_uuid(domain), VZ_UUID_BYTES) == 0;
}

static void finish_on_actor(vz_domain *domain, void *data)
{
    finishing *f = data;
    GError *err = NULL;
    if (!belongs_to(f->migration, domain)) {
        fail_not_arriving(domain, f, &err);
        vz_call_fail(f->call, err);
        return;
    }
    bool finished = vz_destination_finish(f->migration, f->has_cookie ? &f->cookie : NULL,
                                          f->options, f->cancelled, &err);
    if (!f->migration->domain) /* over, in either way */
        vz_conn_forget_close(vz_call_conn(f->call), f->migration);
    if (!finished) {
        vz_call_fail(f->call, err);
        return;
    }
    g_autofree char *cookie = vz_destination_finish_cookie(f->migration);
    vz_wire_migrate_finish3_ret ret = {.dom = vz_api_domain(f->call, domain),
                                       .cookie_out = cookie_out(f->call, cookie)};
    vz_call_reply(f->call, &ret);
}

/* One that arrives offline is no domain yet, and has no name in the table. */
static vz_domain *find_finishing(const char *name, GError **err)
{
    uint8_t uuid[VZ_UUID_BYTES];
    vz_domain *domain = vz_table_find_name(vz_this_host.table, name, err);
    if (domain)
        return domain;
    g_autoptr(vz_migration) m = vz_migrate_find_arrival(vz_this_host.migrate, name);
    if (!m || !vz_migration_domain_uuid(m, uuid))
        return NULL;
    g_clear_error(err);
    return vz_table_find_uuid(vz_this_host.table, uuid, name, err);
}

/* By the cookie, which names the job; a cancelled Finish has none, and is found by the name. On the
 * loop, so the job may end meanwhile: it is looked up by its token, never by the guard's pointer.
 */
static vz_migration *find_arrival(vz_domain *domain, const finishing *f, GError **err)
{
    uint8_t job[VZ_UUID_BYTES];
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    if (f->has_cookie)
        memcpy(job, f->cookie.job, VZ_UUID_BYTES);
    else if (!snapshot->has_job || !vz_uuid_parse(snapshot->job.token, job))
        memset(job, 0, VZ_UUID_BYTES);
    vz_migration *m = vz_migrate_find(vz_this_host.migrate, VZ_SIDE_DESTINATION, job);
    if (!m)
        fail_not_arriving(domain, f, err);
    return m;
}

static bool finish(finishing *take_f, const char *name, const vz_wire_bytes *cookie_in,
                   GError **err)
{
    finishing *f = take_f;
    g_autoptr(vz_domain) domain = NULL;
    bool ok = (name || vz_fail(err, VZ_ERR_INVALID_ARG, "no name of the domain")) &&
              (domain = find_finishing(name, err)) != NULL &&
              read_cookie(cookie_in, "perform", &f->cookie, &f->has_cookie, err) &&
              (f->migration = find_arrival(domain, f, err)) != NULL;
    if (!ok) {
        if (f->cancelled && vz_error_number(*err) == VZ_ERR_NO_DOMAIN) {
            g_clear_error(err); /* as asked: there is nothing */
            vz_fail(err, VZ_ERR_MIGRATE_FINISH_OK, "domain '%s' is not here", name);
        }
        finishing_free(f);
        return false;
    }
    vz_call_defer(f->call);
    vz_domain_post(domain, VZ_TASK_NORMAL, finish_on_actor, f, finishing_free);
    return true;
}

bool vz_api_domain_migrate_finish3_params(vz_call *call,
                                          const vz_wire_migrate_finish3_params_args *args,
                                          vz_wire_migrate_finish3_ret *ret, GError **err)
{
    (void)ret;
    vz_options *options = NULL;
    if (!vz_options_from_wire(args->params.items, args->params.count, args->flags, VZ_PHASE_FINISH,
                              &options, err))
        return false;
    finishing *f = g_new0(finishing, 1);
    *f = (finishing){
        .call = vz_call_ref(call), .options = options, .cancelled = args->cancelled != 0};
    return finish(f, vz_options_text(options, VZ_OPTION_DEST_NAME), &args->cookie_in, err);
}

bool vz_api_domain_migrate_finish3(vz_call *call, const vz_wire_migrate_finish3_args *args,
                                   vz_wire_migrate_finish3_ret *ret, GError **err)
{
    (void)ret;
    vz_legacy_options legacy = {.flags = args->flags, .dname = args->dname, .uri = args->uri};
    vz_options *options = NULL;
    if (!vz_options_from_legacy(&legacy, VZ_PHASE_FINISH, &options, err))
        return false;
    finishing *f = g_new0(finishing, 1);
    *f = (finishing){
        .call = vz_call_ref(call), .options = options, .cancelled = args->cancelled != 0};
    return finish(f, args->dname, &args->cookie_in, err);
}

/* --- Confirm --- */

static bool confirm(vz_call *call, const vz_wire_bytes *cookie_in, bool cancelled, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    g_auto(vz_cookie) cookie = {0};
    bool has_cookie = false;
    if (!read_cookie(cookie_in, "finish", &cookie, &has_cookie, err))
        return false;
    g_autoptr(vz_migration) migration = vz_source_find(domain, has_cookie ? &cookie : NULL, err);
    if (!migration && cancelled && !has_cookie) {
        g_clear_error(err); /* as asked: undone, which a Finish that failed has seen already */
        return true;
    }
    if (!migration)
        return false;
    vz_conn_forget_close(vz_call_conn(call), migration);
    return vz_source_confirm(migration, has_cookie ? &cookie : NULL, cancelled, err);
}

bool vz_api_domain_migrate_confirm3_params(vz_call *call,
                                           const vz_wire_migrate_confirm3_params_args *args,
                                           GError **err)
{
    g_autoptr(vz_options) options = NULL;
    return vz_options_from_wire(args->params.items, args->params.count, args->flags,
                                VZ_PHASE_CONFIRM, &options, err) &&
           confirm(call, &args->cookie_in, args->cancelled != 0, err);
}

bool vz_api_domain_migrate_confirm3(vz_call *call, const vz_wire_migrate_confirm3_args *args,
                                    GError **err)
{
    vz_legacy_options legacy = {.flags = args->flags};
    g_autoptr(vz_options) options = NULL;
    return vz_options_from_legacy(&legacy, VZ_PHASE_CONFIRM, &options, err) &&
           confirm(call, &args->cookie_in, args->cancelled != 0, err);
}
