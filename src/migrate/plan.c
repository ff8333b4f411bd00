/* plan.c - see plan.h. */
#include "migrate/plan.h"

#include "base/units.h"
#include "driver/qemu/driver.h"
#include "net/link.h"

#include <string.h>

#define MS_PER_S ((uint64_t)1000)
/* QEMU samples at least a second; the answer is fetched a little later. */
#define SAMPLE_S           1
#define SAMPLE_POLL_US     ((int64_t)100 * 1000)
#define SAMPLE_DEADLINE_US ((int64_t)10 * 1000000)
/* Pages of a GiB that QEMU looks at for the rate of writes. */
#define SAMPLE_PAGES ((uint64_t)4096)
/* QEMU's own bounds of that. */
#define WRITES_PAGES_MIN ((uint64_t)512)
#define WRITES_PAGES_MAX ((uint64_t)16384)

void vz_plan_costs_clear(vz_plan_costs *costs)
{
    g_clear_pointer(&costs->rate_from, g_free);
}

void vz_plan_predict(const vz_plan_costs *costs, vz_plan_prediction *ret)
{
    double shrinks_to = costs->shrinks_to > 0 ? costs->shrinks_to : 1;
    double rate = (double)costs->rate_bytes_s / shrinks_to; /* of memory */
    if (costs->packs_bytes_s > 0)
        rate = MIN(rate, (double)costs->packs_bytes_s);
    *ret = (vz_plan_prediction){.bytes = (uint64_t)((double)costs->used_bytes * shrinks_to) +
                                         costs->disk_bytes};
    bool writes = costs->live && costs->has_dirty_rate && costs->dirty_bytes_s > 0;
    if (costs->used_bytes == 0)
        ret->why = "it is not known how much memory the guest uses";
    else if (costs->rate_bytes_s == 0)
        ret->why = "the rate of the link is not known";
    else if (writes && (double)costs->dirty_bytes_s >= rate)
        ret->why = "the guest writes faster than the link carries; the allowed downtime rises step "
                   "by step until the rest fits";
    if (ret->why)
        return;
    double part = writes ? (double)costs->dirty_bytes_s / rate : 0;
    double memory = (double)costs->used_bytes / (1 - part);
    double memory_ms = memory * (double)MS_PER_S / rate;
    double disks_ms = (double)costs->disk_bytes * (double)MS_PER_S / (double)costs->rate_bytes_s;
    ret->bytes = (uint64_t)(memory * shrinks_to) + costs->disk_bytes;
    ret->has_times = true;
    ret->total_ms = (uint64_t)(memory_ms + disks_ms);
    ret->downtime_ms =
        costs->live ? MIN(costs->downtime_limit_ms, (uint64_t)memory_ms) : ret->total_ms;
}

/* true: it is known, or never will be. */
static bool fetch_dirty_rate(vz_domain *domain, vz_plan_costs *costs)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    json_t *reply =
        qemu ? vz_qmp_command(vz_qemu_qmp(qemu), "query-dirty-rate", NULL, VZ_QMP_TIMEOUT_US, &err)
             : NULL;
    const char *status = json_string_value(json_object_get(reply, "status"));
    json_int_t mib_s = json_integer_value(json_object_get(reply, "dirty-rate"));
    bool measured = status && strcmp(status, "measured") == 0 && mib_s >= 0;
    bool pending = status && strcmp(status, "measuring") == 0;
    if (measured) {
        costs->has_dirty_rate = true;
        costs->dirty_bytes_s = (uint64_t)mib_s * VZ_MIB;
    }
    json_decref(reply);
    return !pending;
}

void vz_plan_measure_writes(vz_domain *domain, vz_plan_costs *costs)
{
    g_autoptr(GError) ignored = NULL; /* then it is not known */
    int64_t deadline_us = vz_now_us() + SAMPLE_DEADLINE_US;
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    uint64_t pages = CLAMP(SAMPLE_PAGES * VZ_GIB / MAX(costs->ram_bytes, VZ_MIB), WRITES_PAGES_MIN,
                           WRITES_PAGES_MAX);
    json_t *args = json_pack("{si sI}", "calc-time", SAMPLE_S, "sample-pages", (json_int_t)pages);
    if (!qemu ||
        !vz_qmp_do(vz_qemu_qmp(qemu), "calc-dirty-rate", args, VZ_QMP_TIMEOUT_US, &ignored))
        return;
    while (vz_now_us() < deadline_us && vz_wait(vz_domain_inbox(domain), NULL, NULL,
                                                vz_now_us() + SAMPLE_POLL_US) != VZ_WAIT_CANCELLED)
        if (fetch_dirty_rate(domain, costs))
            return;
}

uint64_t vz_plan_rate(const char *peer, uint64_t cap_bytes_s, char **ret_from)
{
    g_autofree char *interface = peer ? vz_link_towards(peer) : NULL;
    uint64_t speed = interface ? vz_link_speed_bytes_s(interface) : 0;
    bool capped = cap_bytes_s && (speed == 0 || cap_bytes_s <= speed);
    if (capped)
        *ret_from = g_strdup("the bandwidth that is allowed");
    else if (!interface)
        *ret_from = g_strdup("unknown: it cannot be told which interface leads there");
    else if (speed == 0)
        *ret_from = g_strdup_printf("unknown: the kernel knows no speed of '%s'", interface);
    else
        *ret_from = g_strdup_printf("the speed of '%s', if nothing else slows it down", interface);
    return capped ? cap_bytes_s : speed;
}
