/* check.c - see check.h. */
#include "migrate/check.h"

#include "driver/qemu/driver.h"
#include "migrate/choice.h"
#include "migrate/memory.h"
#include "migrate/p2p.h"
#include "migrate/plan.h"
#include "migrate/precheck.h"
#include "migrate/service.h"
#include "migrate/source.h"
#include "migrate/uri.h"
#include "migrate/visit.h"
#include "rpc/client.h"
#include "storage/identify.h"
#include "storage/volume.h"

#include <string.h>

#define ANSWER_BYTES_MAX ((size_t)4 * 1024 * 1024)
#define CALL_US          ((int64_t)60 * 1000000)

/* --- the destination --- */

/* What would become of the source's stream here; NULL: it has sent none, or nonsense. */
static json_t *answer_stream(const vz_check_visit *v, const vz_qemu_caps *caps)
{
    vz_stream stream;
    const vz_stream_host here = vz_choice_host(caps);
    g_autoptr(GError) ignored = NULL;
    if (!v->cookie->stream || !vz_stream_from_json(v->cookie->stream, &stream, &ignored))
        return NULL;
    vz_stream_narrow(&stream, &here);
    return vz_stream_to_json(&stream);
}

static char *answer_cookie(const vz_check_visit *v, const json_t *disks, const json_t *stream,
                           char *fingerprint)
{
    const vz_migrate_config *settings = vz_migrate_settings(v->service);
    g_autofree char *host_name = g_strdup(settings->host_name);
    g_autofree char *incarnation = g_strdup(vz_migrate_incarnation(v->service));
    vz_cookie cookie = {.host_name = host_name,
                        .fingerprint = fingerprint,
                        .incarnation = incarnation,
                        .port = vz_port_number(vz_migrate_port(v->service)),
                        .disks = (json_t *)(uintptr_t)disks,
                        .stream = (json_t *)(uintptr_t)stream};
    memcpy(cookie.job, v->cookie->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    return vz_cookie_format(&cookie);
}

json_t *vz_check_answer(const vz_check_visit *v, GError **err)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    g_autoptr(GError) ignored = NULL; /* it is among the findings */
    g_autofree char *fingerprint = NULL;
    json_auto_t *disks = json_array();
    const vz_precheck_arrival arrival = {v->service, v->cookie, v->options, v->arrived_us};
    if (!vz_visits_expect(vz_migrate_visits(v->service), v->cookie->job, v->cookie->fingerprint,
                          &fingerprint, err) ||
        !vz_precheck_arriving(&arrival, disks, findings, err))
        return NULL;
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_qemu_default_emulator(), &ignored);
    json_auto_t *stream = answer_stream(v, caps);
    g_autofree char *cookie = answer_cookie(v, disks, stream, fingerprint);
    json_t *answer = json_pack("{so ss ss}", "findings", vz_findings_to_json(findings, NULL),
                               "cookie", cookie, "uri", v->data_uri);
    g_autofree char *version = caps ? vz_qemu_version_text(vz_qemu_caps_version(caps)) : NULL;
    if (version)
        json_object_set_new(answer, "qemu", json_string(version));
    return answer;
}

/* --- the source --- */

typedef struct {
    const vz_check_request *request;
    vz_snapshot *snapshot;
    const vz_def *def; /* what runs, or would; of the snapshot */
    vz_channel_keys *keys;
    uint8_t job[VZ_UUID_BYTES];
    json_t *offers; /* identify.h */
    vz_guest_facts facts;
    vz_choice choice; /* of one that runs or is paused */
    vz_cookie theirs; /* once it has answered */
    char *xml;        /* as it is to run there */
    char *uri;        /* of its data port */
    char *data_host;
    uint16_t data_port;
    char *qemu_there;
    GPtrArray *findings[3]; /* by vz_check_side */
} checking;

static void checking_clear(checking *c)
{
    if (c->offers)
        vz_identify_remove(NULL, c->offers);
    json_decref(c->offers);
    vz_snapshot_unref(c->snapshot);
    vz_channel_keys_free(c->keys);
    vz_guest_facts_clear(&c->facts);
    vz_cookie_clear(&c->theirs);
    g_free(c->xml);
    g_free(c->uri);
    g_free(c->data_host);
    g_free(c->qemu_there);
    for (size_t i = 0; i < G_N_ELEMENTS(c->findings); i++)
        g_ptr_array_unref(c->findings[i]);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(checking, checking_clear)

static void offer_disks(checking *c)
{
    const char *host = vz_migrate_settings(c->request->service)->host_name;
    c->offers = json_array();
    for (size_t i = 0; i < c->def->n_disks; i++) {
        g_autoptr(GError) err = NULL;
        json_t *offer = NULL;
        vz_def one = *c->def; /* borrows all of it, but has one disk */
        one.disks = &c->def->disks[i];
        one.n_disks = 1;
        if (vz_identify_offer(&one, host, vz_options_has(c->request->options, VZ_OPTION_UNSAFE),
                              &offer, &err))
            json_array_extend(c->offers, offer);
        else
            vz_findings_refuse_error(c->findings[VZ_CHECK_SOURCE], "disks", err, VZ_REMEDY_DISKS);
        json_decref(offer);
    }
    if (vz_options_has(c->request->options, VZ_OPTION_OFFLINE))
        vz_identify_withhold_copies(c->offers);
}

static void look_at_guest(checking *c)
{
    const vz_check_request *r = c->request;
    g_autoptr(GError) refused = NULL;
    g_autoptr(GError) changed = NULL;
    g_autofree char *kept = NULL;
    GPtrArray *findings = c->findings[VZ_CHECK_SOURCE];
    if (!vz_options_check(r->options, VZ_GUEST_VM, &refused))
        vz_findings_refuse_error(findings, "options", refused, "leave that out");
    if (!vz_source_definitions(r->service, c->snapshot, r->options, &c->xml, &kept, &changed)) {
        vz_findings_refuse_error(findings, "definition", changed,
                                 "change in it only what may differ, or leave it out");
        c->xml = vz_def_format(c->def, VZ_DEF_FORMAT_TRAVELLING);
    }
    vz_precheck_look_at_guest(r->service, r->domain, r->options, findings);
    vz_guest_facts_gather(r->domain, c->def, &c->facts);
    offer_disks(c);
}

static char *own_cookie(const checking *c)
{
    const vz_migrate_config *settings = vz_migrate_settings(c->request->service);
    g_autofree char *host_name = g_strdup(settings->host_name);
    g_autofree char *fingerprint = g_strdup(vz_channel_keys_fingerprint(c->keys));
    json_auto_t *facts = vz_guest_facts_to_json(&c->facts);
    json_auto_t *stream = vz_stream_to_json(&c->choice.stream);
    vz_cookie cookie = {.host_name = host_name,
                        .fingerprint = fingerprint,
                        .facts = facts,
                        .disks = c->offers,
                        .stream = stream};
    memcpy(cookie.job, c->job, VZ_UUID_BYTES);
    memcpy(cookie.host_uuid, settings->host_uuid, VZ_UUID_BYTES);
    return vz_cookie_format(&cookie);
}

static bool read_answer(checking *c, const char *text, GError **err)
{
    json_auto_t *answer = text ? json_loads(text, 0, NULL) : NULL;
    const char *cookie = json_string_value(json_object_get(answer, "cookie"));
    const char *uri = json_string_value(json_object_get(answer, "uri"));
    if (!cookie || !uri)
        return vz_fail(err, VZ_ERR_RPC, "the destination's answer makes no sense");
    c->uri = g_strdup(uri);
    c->qemu_there = vz_finding_text(answer, "qemu");
    if (!vz_cookie_parse(cookie, strlen(cookie), "check", &c->theirs, err) ||
        !vz_findings_add_json(c->findings[VZ_CHECK_DESTINATION],
                              json_object_get(answer, "findings"), err) ||
        !vz_uri_parse_data(uri, &c->data_host, &c->data_port, err) ||
        !vz_choice_take_answer(&c->choice.stream, c->choice.why, c->theirs.stream, err))
        return false;
    if (c->data_port == 0 || vz_uri_is_guessed_port(c->data_port))
        c->data_port = c->theirs.port;
    return true;
}

static void choose_stream(checking *c, const char *peer)
{
    if (vz_snapshot_active(c->snapshot))
        vz_choice_make(&c->choice, c->request->domain, c->request->options, peer);
    else
        c->choice.stream = vz_stream_plain;
}

static bool ask_destination(checking *c, GError **err)
{
    const vz_check_request *r = c->request;
    g_autoptr(vz_arena) arena = vz_arena_new(ANSWER_BYTES_MAX);
    g_autoptr(GArray) params = NULL;
    g_autoptr(vz_options) theirs =
        vz_p2p_destination_options(r->options, c->xml, c->snapshot->state == VZ_STATE_RUNNING);
    g_autoptr(vz_client) client =
        vz_p2p_connect(r->dconnuri, vz_domain_inbox(r->domain), arena, err);
    choose_stream(c, client ? vz_client_remote_address(client) : NULL);
    if (!client)
        return false;
    c->facts.time_us = g_get_real_time(); /* what came before took its time */
    g_autofree char *cookie = own_cookie(c);
    vz_wire_vz_check_arrival_args args = {
        .cookie_in = {(const uint8_t *)cookie, (uint32_t)strlen(cookie)}};
    args.flags = vz_options_to_wire(theirs, VZ_SIDE_DESTINATION, &params);
    args.params.items = (const vz_wire_tparam *)(void *)params->data;
    args.params.count = params->len;
    vz_wire_string_ret ret = {0};
    const vz_client_wait wait = {
        .deadline_us = vz_now_us() + CALL_US, .cancellable = true, .arena = arena};
    return vz_remote_vz_check_arrival(client, &args, &ret, &wait, err) &&
           read_answer(c, ret.value, err);
}

static bool is_tunnelled(const checking *c)
{
    return vz_options_has(c->request->options, VZ_OPTION_TUNNELLED);
}

static void look_at_way(checking *c)
{
    g_autoptr(GError) err = NULL;
    if (!ask_destination(c, &err)) {
        vz_findings_refuse_error(c->findings[VZ_CHECK_WAY], "connection", err,
                                 "see that virtvzd runs there, listens (listen_tcp in its "
                                 "virtvzd.conf) and is of this version");
        return;
    }
    vz_precheck_way way = {.host = c->data_host,
                           .port = c->data_port,
                           .tunnel = is_tunnelled(c) ? c->request->dconnuri : NULL,
                           .keys = c->keys,
                           .peer_fingerprint = c->theirs.fingerprint,
                           .peer_incarnation = c->theirs.incarnation,
                           .disks_offered = c->offers,
                           .disks_answered = c->theirs.disks};
    memcpy(way.job, c->job, VZ_UUID_BYTES);
    const vz_precheck_subject subject = {.service = c->request->service,
                                         .domain = c->request->domain,
                                         .def = c->def,
                                         .options = c->request->options,
                                         .way = &way};
    vz_precheck_run(vz_prechecks_way, &subject, c->findings[VZ_CHECK_WAY]);
}

/* --- the plan --- */

static json_t *stream_of(const checking *c)
{
    const vz_sample *s = &c->choice.facts.sample;
    json_t *stream =
        json_pack("{ss si ss}", "compression", vz_compress_name(c->choice.stream.compress),
                  "channels", (int)c->choice.stream.channels, "why", c->choice.why);
    if (s->tried_bytes)
        json_object_set_new(stream, "sample",
                            json_pack("{sI sI sI}", "bytes", (json_int_t)s->tried_bytes,
                                      "packed_bytes", (json_int_t)s->packed_bytes, "bytes_s",
                                      (json_int_t)s->pack_bytes_s));
    return stream;
}

/* Of one that runs or is paused. */
static void measure_memory(checking *c, json_t *memory, vz_plan_costs *costs)
{
    vz_sample *sample = &c->choice.facts.sample;
    if (sample->used_bytes == 0 && !vz_sample_memory(c->snapshot->pid, costs->ram_bytes, sample))
        return;
    costs->used_bytes = sample->used_bytes;
    json_object_set_new(memory, "used_bytes", json_integer((json_int_t)costs->used_bytes));
    json_object_set_new(memory, "used_from", json_string("is not zero, by a sample of its pages"));
}

static uint64_t bytes_to_copy(const json_t *answers)
{
    static const json_int_t max = (json_int_t)(VZ_VOLUME_BYTES_MAX / VZ_IDENTIFY_DISKS_MAX);
    size_t i;
    json_t *answer;
    uint64_t bytes = 0;
    json_array_foreach((json_t *)(uintptr_t)answers, i, answer)
    {
        if (json_is_true(json_object_get(answer, "copy")) && i < VZ_IDENTIFY_DISKS_MAX)
            bytes += (uint64_t)CLAMP(json_integer_value(json_object_get(answer, "bytes")), 0, max);
    }
    return bytes;
}

static void add_costs(checking *c, json_t *plan)
{
    const vz_check_request *r = c->request;
    const vz_snapshot *s = c->snapshot;
    bool running = s->state == VZ_STATE_RUNNING;
    bool active = vz_snapshot_active(s);
    g_auto(vz_plan_costs)
        costs = {.ram_bytes = c->def->ram_bytes,
                 .live = running && vz_options_has(r->options, VZ_OPTION_LIVE),
                 .shrinks_to = vz_choice_shrinks_to(&c->choice),
                 .packs_bytes_s = vz_choice_packs_bytes_s(&c->choice),
                 .downtime_limit_ms = r->max_downtime_ms   ? r->max_downtime_ms
                                      : s->max_downtime_ms ? s->max_downtime_ms
                                                           : VZ_DOWNTIME_LIMIT_FIRST_MS};
    uint64_t cap = vz_options_number(r->options, VZ_OPTION_BANDWIDTH, s->max_speed_bytes_s);
    json_t *memory = json_pack("{sI}", "total_bytes", (json_int_t)costs.ram_bytes);
    json_object_set_new(plan, "memory", memory);
    json_object_set_new(plan, "live", json_boolean(costs.live));
    if (active) {
        json_object_set_new(plan, "stream", stream_of(c));
        measure_memory(c, memory, &costs);
    }
    if (costs.live)
        vz_plan_measure_writes(r->domain, &costs);
    costs.disk_bytes = bytes_to_copy(c->theirs.disks);
    costs.rate_bytes_s = vz_plan_rate(c->data_host, cap, &costs.rate_from);
    if (costs.has_dirty_rate)
        json_object_set_new(memory, "dirty_bytes_s", json_integer((json_int_t)costs.dirty_bytes_s));
    json_object_set_new(plan, "rate", json_pack("{ss}", "from", costs.rate_from));
    if (costs.rate_bytes_s)
        json_object_set_new(json_object_get(plan, "rate"), "bytes_s",
                            json_integer((json_int_t)costs.rate_bytes_s));
    vz_plan_prediction p;
    vz_plan_predict(&costs, &p);
    if (p.bytes)
        json_object_set_new(plan, "bytes", json_integer((json_int_t)p.bytes));
    if (p.has_times) {
        json_object_set_new(plan, "total_ms", json_integer((json_int_t)p.total_ms));
        json_object_set_new(plan, "downtime_ms", json_integer((json_int_t)p.downtime_ms));
    } else {
        json_object_set_new(plan, "unpredictable", json_string(p.why));
    }
}

static bool seen_back(const checking *c, const char *target)
{
    const GPtrArray *lost = c->findings[VZ_CHECK_WAY];
    const json_t *answer = vz_identify_find(c->theirs.disks, target);
    for (size_t i = 0; i < lost->len; i++)
        if (strcmp(((const vz_finding *)lost->pdata[i])->check, "disks-seen-back") == 0)
            return false;
    return answer && !json_object_get(answer, "unproved");
}

static json_t *disk_of(const checking *c, const vz_def_disk *disk)
{
    const json_t *answer = vz_identify_find(c->theirs.disks, disk->target);
    bool copy = json_is_true(json_object_get(answer, "copy"));
    json_t *one = json_pack("{ss ss sb sb}", "target", disk->target, "path", disk->path, "shared",
                            !copy && seen_back(c, disk->target), "copy", copy);
    if (copy) {
        json_object_set(one, "bytes", json_object_get(answer, "bytes"));
        json_object_set(one, "over", json_object_get(answer, "over"));
    }
    return one;
}

static json_t *disks_of(const checking *c)
{
    json_t *disks = json_array();
    for (size_t i = 0; i < c->def->n_disks; i++)
        if (c->def->disks[i].path)
            json_array_append_new(disks, disk_of(c, &c->def->disks[i]));
    return disks;
}

static json_t *hosts_of(const checking *c, json_t **ret_to)
{
    json_t *from = json_pack("{ss}", "host", vz_migrate_settings(c->request->service)->host_name);
    *ret_to = json_pack("{ss}", "uri", c->request->dconnuri);
    if (c->facts.qemu_version) {
        g_autofree char *version = vz_qemu_version_text(c->facts.qemu_version);
        json_object_set_new(from, "qemu", json_string(version));
    }
    if (c->theirs.host_name)
        json_object_set_new(*ret_to, "host", json_string(c->theirs.host_name));
    if (c->data_host) {
        g_autofree char *data = is_tunnelled(c) ? g_strdup(c->request->dconnuri)
                                                : vz_uri_format_data(c->data_host, c->data_port);
        json_object_set_new(*ret_to, "data", json_string(data));
    }
    if (c->qemu_there)
        json_object_set_new(*ret_to, "qemu", json_string(c->qemu_there));
    return from;
}

static json_t *plan_of(checking *c)
{
    static const char *const sides[] = {"source", "destination", "way"};
    bool refused = false;
    json_t *to = NULL;
    json_t *from = hosts_of(c, &to);
    json_t *findings = json_array();
    for (size_t i = 0; i < G_N_ELEMENTS(sides); i++) {
        json_auto_t *one = vz_findings_to_json(c->findings[i], sides[i]);
        json_array_extend(findings, one);
        refused |= vz_findings_refuse_move(c->findings[i]);
    }
    json_t *plan = json_pack("{ss ss sb so so so so}", "domain", vz_domain_name(c->request->domain),
                             "uuid", vz_domain_uuid_text(c->request->domain), "move", !refused,
                             "from", from, "to", to, "disks", disks_of(c), "findings", findings);
    add_costs(c, plan);
    return plan;
}

json_t *vz_check_run(const vz_check_request *request)
{
    g_autoptr(GError) no_keys = NULL;
    g_auto(checking) c = {.request = request,
                          .snapshot = vz_domain_snapshot(request->domain),
                          .keys = vz_channel_keys_generate(&no_keys)};
    vz_uuid_generate(c.job);
    for (size_t i = 0; i < G_N_ELEMENTS(c.findings); i++)
        c.findings[i] = vz_findings_new();
    c.def = c.snapshot->live ? c.snapshot->live : c.snapshot->config;
    vz_domain_keep_actor(request->domain);
    look_at_guest(&c);
    if (c.keys)
        look_at_way(&c);
    else
        vz_findings_refuse_error(c.findings[VZ_CHECK_SOURCE], "keys", no_keys, "see the log");
    json_t *plan = plan_of(&c);
    vz_domain_release_actor(request->domain);
    return plan;
}
