/* precheck_source.c - see precheck.h: what the source looks at, alone and once it knows where the
 * destination's data port is. */
#include "migrate/precheck.h"

#include "driver/qemu/driver.h"
#include "migrate/question.h"
#include "migrate/service.h"
#include "migrate/whereabouts.h"
#include "migrate/tunnel.h"
#include "storage/identify.h"

#include <string.h>

#define REMEDY_QEMU "see its log below /var/log/virtvz/qemu on this host"

static void check_state(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) inactive = NULL;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(s->domain);
    bool offline = s->options && vz_options_has(s->options, VZ_OPTION_OFFLINE);
    if (offline && !vz_snapshot_active(snapshot)) {
        if (!vz_whereabouts_may_start(s->service, s->domain, &inactive))
            vz_findings_refuse_error(findings, name, inactive, "move it from the host that has it");
        return;
    }
    if (!vz_snapshot_check_active(snapshot, &inactive)) {
        vz_findings_refuse_error(findings, name, inactive, "start it first");
        return;
    }
    if (snapshot->state != VZ_STATE_RUNNING && snapshot->state != VZ_STATE_PAUSED) {
        g_autofree char *text = g_strdup_printf(
            "domain '%s' is neither running nor paused: it has shut down or crashed",
            vz_domain_name(s->domain));
        vz_findings_refuse(findings, name, VZ_ERR_OPERATION_INVALID, text,
                           "end it, and start it where it is to run");
    } else if (!vz_driver_qemu_of(s->domain)) {
        g_autofree char *text =
            g_strdup_printf("the QEMU of domain '%s' cannot be reached", vz_domain_name(s->domain));
        vz_findings_refuse(findings, name, VZ_ERR_OPERATION_FAILED, text, REMEDY_QEMU);
    }
}

/* A question to the guest's QEMU; NULL: there is none, which check_state says, or it does not
 * answer, which is found. */
static json_t *ask_qemu(const vz_precheck_subject *s, const char *name, const char *command,
                        GPtrArray *findings)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_driver_qemu_of(s->domain);
    json_t *reply =
        qemu ? vz_qmp_command(vz_qemu_qmp(qemu), command, NULL, VZ_QMP_TIMEOUT_US, &err) : NULL;
    if (err)
        vz_findings_refuse_error(findings, name, err, REMEDY_QEMU);
    return reply;
}

static void check_devices(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    size_t i;
    json_t *reason;
    json_t *reply = ask_qemu(s, name, "query-migrate", findings);
    json_array_foreach(json_object_get(reply, "blocked-reasons"), i, reason)
    {
        const char *why = json_string_value(reason);
        g_autofree char *text =
            g_strdup_printf("cannot migrate domain: QEMU says: %s", why ? why : "no reason");
        vz_findings_refuse(findings, name, VZ_ERR_OPERATION_INVALID, text,
                           "take the device that this is about out of the guest, or end what it "
                           "is used for");
    }
    json_decref(reply);
}

static void check_block_jobs(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    size_t i;
    json_t *job;
    json_t *reply = ask_qemu(s, name, "query-block-jobs", findings);
    json_array_foreach(reply, i, job)
    {
        const char *device = json_string_value(json_object_get(job, "device"));
        const char *type = json_string_value(json_object_get(job, "type"));
        g_autofree char *text = g_strdup_printf(
            "domain has active block job: %s '%s' of domain '%s', done so far %" JSON_INTEGER_FORMAT
            " of %" JSON_INTEGER_FORMAT " bytes",
            type ? type : "job", device ? device : "?", vz_domain_name(s->domain),
            json_integer_value(json_object_get(job, "offset")),
            json_integer_value(json_object_get(job, "len")));
        vz_findings_refuse(findings, name, VZ_ERR_OPERATION_INVALID, text,
                           "wait until it has ended, or cancel it");
    }
    json_decref(reply);
}

const vz_precheck vz_prechecks_source[] = {
    {"state", check_state},
    {"options", vz_precheck_options},
    {"direct-stream", vz_precheck_direct},
    {"certificates", vz_precheck_certificates},
    {"devices", check_devices},
    {"block-jobs", check_block_jobs},
    {NULL, NULL},
};

void vz_precheck_look_at_guest(vz_migrate *service, vz_domain *domain, const vz_options *options,
                               GPtrArray *findings)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    const vz_precheck_subject subject = {
        .service = service,
        .domain = domain,
        .options = options,
        .def = snapshot->live,
        .here = {.host_name = vz_migrate_settings(service)->host_name,
                 .caps = qemu ? vz_qemu_get_caps(qemu) : NULL}};
    vz_precheck_run(vz_prechecks_source, &subject, findings);
}

bool vz_precheck_guest(vz_migration *m, GError **err)
{
    g_autoptr(GPtrArray) findings = vz_findings_new();
    vz_precheck_look_at_guest(m->service, m->domain, m->options, findings);
    vz_findings_log(findings, m->id);
    return vz_findings_enforce(findings, err);
}

/* --- the way --- */

/* Those that were not proved there are found there. */
static void check_disks_seen_back(const vz_precheck_subject *s, const char *name,
                                  GPtrArray *findings)
{
    size_t i;
    json_t *offer;
    json_array_foreach((json_t *)(uintptr_t)s->way->disks_offered, i, offer)
    {
        const char *target = json_string_value(json_object_get(offer, "target"));
        if (!vz_identify_find(s->way->disks_answered, target))
            continue;
        g_autoptr(GError) err = NULL;
        json_t *one = json_pack("[O]", offer);
        if (!vz_identify_confirm(one, s->way->disks_answered,
                                 vz_options_has(s->options, VZ_OPTION_UNSAFE), &err))
            vz_findings_refuse_error(findings, name, err, VZ_REMEDY_DISKS);
        json_decref(one);
    }
}

static void check_data_port(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    g_autoptr(GError) err = NULL;
    const vz_precheck_way *way = s->way;
    vz_ask_request request = {.host = way->host,
                              .port = way->port,
                              .way = vz_tunnel_way(way->tunnel),
                              .keys = way->keys,
                              .peer_fingerprint = way->peer_fingerprint,
                              .inbox = vz_domain_inbox(s->domain),
                              .deadline_us = vz_now_us() + VZ_QUESTION_DEADLINE_US};
    memcpy(request.job, way->job, VZ_UUID_BYTES);
    if (!vz_question_hello(&request, way->peer_incarnation, &err))
        vz_findings_refuse_error(findings, name, err,
                                 way->tunnel ? VZ_REMEDY_TUNNEL : VZ_REMEDY_PORT);
}

const vz_precheck vz_prechecks_way[] = {
    {"disks-seen-back", check_disks_seen_back},
    {"data-port", check_data_port},
    {NULL, NULL},
};
