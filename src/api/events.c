/* events.c - what the table tells of domains, as libvirt's events. On actor threads. */
#include "rpc/events.h"

#include "api/api.h"
#include "api/job_params.h"

static void lifecycle(void *user, vz_domain *domain, int id, vz_event event, int detail)
{
    (void)user;
    const vz_wire_event_lifecycle body = {
        .dom = vz_api_domain_with_id(domain, id), .event = (int32_t)event, .detail = detail};
    if (vz_this_host.events)
        vz_events_emit_lifecycle(vz_this_host.events, &body);
}

static void reboot(void *user, vz_domain *domain, int id)
{
    (void)user;
    const vz_wire_event_reboot body = {.dom = vz_api_domain_with_id(domain, id)};
    if (vz_this_host.events)
        vz_events_emit_reboot(vz_this_host.events, &body);
}

static void iteration(void *user, vz_domain *domain, int id, int number)
{
    (void)user;
    const vz_wire_event_migration_iteration body = {.dom = vz_api_domain_with_id(domain, id),
                                                    .iteration = number};
    if (vz_this_host.events)
        vz_events_emit_migration_iteration(vz_this_host.events, &body);
}

static void job_completed(void *user, vz_domain *domain, int id, const vz_job_stats *stats)
{
    (void)user;
    vz_tparam params[VZ_JOB_PARAMS_MAX];
    const vz_wire_event_job_completed body = {
        .dom = vz_api_domain_with_id(domain, id),
        .params = {.items = params, .count = (uint32_t)vz_job_params(stats, params)}};
    if (vz_this_host.events)
        vz_events_emit_job_completed(vz_this_host.events, &body);
}

const vz_table_listener vz_api_listener = {
    .lifecycle = lifecycle,
    .reboot = reboot,
    .iteration = iteration,
    .job_completed = job_completed,
};
