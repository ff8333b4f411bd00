/* define.c - definitions: define, create, undefine, autostart.
 *
 * define and create parse on the host actor, reserve the place in the table, and go on in the
 * domain's own actor, which answers the call. */
#include "api/api.h"

#include "base/log.h"
#include "domain/def.h"
#include "driver/life.h"

#include <string.h>

enum { DEFINE_VALIDATE = 1 };
enum {
    CREATE_PAUSED = 1,
    CREATE_AUTODESTROY = 2,
    CREATE_BYPASS_CACHE = 4, /* of a managed save image: there is none */
    CREATE_FORCE_BOOT = 8,   /* not from a managed save image: there is none */
    CREATE_VALIDATE = 16,    /* the parser always refuses what it does not know */
};
#define CREATE_FLAGS (CREATE_PAUSED | CREATE_AUTODESTROY | CREATE_BYPASS_CACHE | CREATE_FORCE_BOOT)

/* A call on its way from the host actor to the domain's. */
typedef struct {
    vz_call *call;
    vz_def *def;
    uint32_t flags;
    vz_reserve purpose;
    vz_domain *domain; /* its reservation is ours */
} passage;

static void passage_free(void *data)
{
    passage *p = data;
    vz_table_release(p->domain, p->purpose);
    vz_domain_unref(p->domain);
    vz_def_unref(p->def);
    vz_call_unref(p->call);
    g_free(p);
}

static void answer(passage *p, bool ok, GError *take_error)
{
    if (!ok) {
        vz_call_fail(p->call, take_error);
        return;
    }
    const vz_wire_domain_ret ret = {.dom = vz_api_domain(p->call, p->domain)};
    vz_call_reply(p->call, &ret);
}

static bool start_passage(vz_call *call, vz_def *take_def, uint32_t flags, vz_reserve purpose,
                          vz_domain_fn run, GError **err)
{
    g_autoptr(vz_def) def = take_def;
    vz_domain *domain = vz_table_reserve(vz_this_host.table, def->uuid, def->name, purpose, err);
    if (!domain)
        return false;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (!vz_snapshot_check_no_job(s, err)) {
        vz_table_release(domain, purpose);
        vz_domain_unref(domain);
        return false;
    }
    passage *p = g_new0(passage, 1);
    *p = (passage){vz_call_ref(call), g_steal_pointer(&def), flags, purpose, domain};
    vz_call_defer(call);
    vz_domain_post(domain, VZ_TASK_NORMAL, run, p, passage_free);
    return true;
}

/* ---- define ---- */

static void define_on_actor(vz_domain *domain, void *data)
{
    passage *p = data;
    GError *err = NULL;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    bool ok =
        vz_snapshot_check_no_job(s, &err) && vz_life_define(domain, g_steal_pointer(&p->def), &err);
    answer(p, ok, err);
}

static bool define(vz_call *call, const char *xml, uint32_t flags, GError **err)
{
    if (!vz_api_check_flags(flags, DEFINE_VALIDATE, "virDomainDefineXMLFlags", err))
        return false;
    vz_def *def = vz_api_parse(xml, err);
    return def && start_passage(call, def, flags, VZ_RESERVE_DEFINE, define_on_actor, err);
}

bool vz_api_domain_define_xml(vz_call *call, const vz_wire_xml_args *args, vz_wire_domain_ret *ret,
                              GError **err)
{
    (void)ret;
    return define(call, args->xml, 0, err);
}

bool vz_api_domain_define_xml_flags(vz_call *call, const vz_wire_xml_flags_args *args,
                                    vz_wire_domain_ret *ret, GError **err)
{
    (void)ret;
    return define(call, args->xml, args->flags, err);
}

/* ---- create and start ---- */

/* A guest that dies with its connection. Its id tells it from a later run of the same domain. */
typedef struct {
    vz_domain *domain;
    int id;
} bond;

static bond *bond_new(vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    bond *b = g_new0(bond, 1);
    *b = (bond){vz_domain_ref(domain), s->id};
    return b;
}

static void bond_free(void *data)
{
    bond *b = data;
    vz_domain_unref(b->domain);
    g_free(b);
}

static void destroy_on_actor(vz_domain *domain, void *data)
{
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (s->autodestroy && s->id == GPOINTER_TO_INT(data) && !vz_life_destroy(domain, false, &err))
        vz_warn(vz_domain_name(domain), "should die with its connection: %s", err->message);
}

static void on_conn_closed(void *data)
{
    bond *b = data;
    vz_domain_post(b->domain, VZ_TASK_NORMAL, destroy_on_actor, GINT_TO_POINTER(b->id), NULL);
}

static bool start(vz_call *call, vz_domain *domain, const vz_def *def, uint32_t flags, GError **err)
{
    const vz_life_start_request request = {
        .def = def, .paused = flags & CREATE_PAUSED, .autodestroy = flags & CREATE_AUTODESTROY};
    if (!vz_life_start(domain, &request, err))
        return false;
    if (!request.autodestroy)
        return true;
    bond *b = bond_new(domain);
    int id = b->id;
    if (!vz_conn_on_close(vz_call_conn(call), domain, on_conn_closed, b, bond_free))
        destroy_on_actor(domain, GINT_TO_POINTER(id));
    return true;
}

static void create_on_actor(vz_domain *domain, void *data)
{
    passage *p = data;
    GError *err = NULL;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    bool ok = vz_snapshot_check_no_job(s, &err) && start(p->call, domain, p->def, p->flags, &err);
    answer(p, ok, err);
}

bool vz_api_domain_create_xml(vz_call *call, const vz_wire_xml_flags_args *args,
                              vz_wire_domain_ret *ret, GError **err)
{
    (void)ret;
    if (!vz_api_check_flags(args->flags, CREATE_FLAGS | CREATE_VALIDATE, "virDomainCreateXML", err))
        return false;
    vz_def *def = vz_api_parse(args->xml, err);
    return def && start_passage(call, def, args->flags, VZ_RESERVE_START, create_on_actor, err);
}

bool vz_api_domain_create(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return start(call, vz_api_subject(call), NULL, 0, err);
}

bool vz_api_domain_create_with_flags(vz_call *call, const vz_wire_domain_flags_args *args,
                                     vz_wire_domain_ret *ret, GError **err)
{
    vz_domain *domain = vz_api_subject(call);
    if (!vz_api_check_flags(args->flags, CREATE_FLAGS, "virDomainCreateWithFlags", err) ||
        !start(call, domain, NULL, args->flags, err))
        return false;
    ret->dom = vz_api_domain(call, domain);
    return true;
}

/* ---- undefine, autostart ---- */

bool vz_api_domain_undefine(vz_call *call, const vz_wire_domain_args *args, GError **err)
{
    (void)args;
    return vz_life_undefine(vz_api_subject(call), err);
}

bool vz_api_domain_undefine_flags(vz_call *call, const vz_wire_domain_flags_args *args,
                                  GError **err)
{
    /* They say what else shall go or stay (managed save, metadata, NVRAM, TPM): no domain of
     * virtvz has any of these, so each is true already. */
    enum {
        MANAGED_SAVE = 1,
        SNAPSHOTS_METADATA = 2,
        NVRAM = 4,
        KEEP_NVRAM = 8,
        CHECKPOINTS_METADATA = 16,
        TPM = 32,
        KEEP_TPM = 64
    };
    const uint32_t known = MANAGED_SAVE | SNAPSHOTS_METADATA | NVRAM | KEEP_NVRAM |
                           CHECKPOINTS_METADATA | TPM | KEEP_TPM;
    if (!vz_api_check_flags(args->flags, known, "virDomainUndefineFlags", err))
        return false;
    if ((args->flags & (NVRAM | KEEP_NVRAM)) == (NVRAM | KEEP_NVRAM) ||
        (args->flags & (TPM | KEEP_TPM)) == (TPM | KEEP_TPM))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "cannot both keep and delete %s",
                       (args->flags & NVRAM) ? "nvram" : "TPM");
    return vz_life_undefine(vz_api_subject(call), err);
}

bool vz_api_domain_set_autostart(vz_call *call, const vz_wire_domain_set_autostart_args *args,
                                 GError **err)
{
    return vz_life_set_autostart(vz_api_subject(call), args->autostart != 0, err);
}
