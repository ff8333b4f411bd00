/* test_plan.c - what a move is predicted to cost, and what becomes of every option. */
#include "migrate/plan.h"

#include "base/units.h"
#include "migrate/capabilities.h"

#include <string.h>

static vz_plan_prediction predict(vz_plan_costs costs)
{
    vz_plan_prediction p;
    vz_plan_predict(&costs, &p);
    return p;
}

static void test_known(void)
{
    /* Not live: sent once, and the guest stands still for all of it. */
    vz_plan_prediction p =
        predict((vz_plan_costs){.used_bytes = 100 * VZ_MIB, .rate_bytes_s = 20 * VZ_MIB});
    g_assert_true(p.has_times);
    g_assert_cmpuint(p.bytes, ==, 100 * VZ_MIB);
    g_assert_cmpuint(p.total_ms, ==, 5000);
    g_assert_cmpuint(p.downtime_ms, ==, 5000);
    /* And its disks, before. */
    p = predict((vz_plan_costs){.used_bytes = 100 * VZ_MIB,
                                .disk_bytes = 40 * VZ_MIB,
                                .live = true,
                                .downtime_limit_ms = 50,
                                .rate_bytes_s = 20 * VZ_MIB});
    g_assert_cmpuint(p.bytes, ==, 140 * VZ_MIB);
    g_assert_cmpuint(p.total_ms, ==, 7000);
    g_assert_cmpuint(p.downtime_ms, ==, 50);
    /* Live, and the guest writes a fifth of what the link carries: 100 + 20 + 4 + ... */
    p = predict((vz_plan_costs){.used_bytes = 100 * VZ_MIB,
                                .rate_bytes_s = 20 * VZ_MIB,
                                .live = true,
                                .has_dirty_rate = true,
                                .dirty_bytes_s = 4 * VZ_MIB,
                                .downtime_limit_ms = 20});
    g_assert_cmpuint(p.bytes, ==, 125 * VZ_MIB);
    g_assert_cmpuint(p.total_ms, ==, 6250);
    g_assert_cmpuint(p.downtime_ms, ==, 20);
    /* Less than the limit can hold. */
    p = predict((vz_plan_costs){.used_bytes = VZ_MIB,
                                .rate_bytes_s = 1000 * VZ_MIB,
                                .live = true,
                                .downtime_limit_ms = 20});
    g_assert_cmpuint(p.downtime_ms, ==, 1);
}

/* A quarter of it goes over the wire, as fast as that or packing allows. */
static void test_packed(void)
{
    vz_plan_costs costs = {.used_bytes = 100 * VZ_MIB,
                           .rate_bytes_s = 10 * VZ_MIB,
                           .shrinks_to = 0.25,
                           .packs_bytes_s = 100 * VZ_MIB};
    vz_plan_prediction p = predict(costs);
    g_assert_cmpuint(p.bytes, ==, 25 * VZ_MIB);
    g_assert_cmpuint(p.total_ms, ==, 2500);
    costs.packs_bytes_s = 20 * VZ_MIB;
    p = predict(costs);
    g_assert_cmpuint(p.bytes, ==, 25 * VZ_MIB);
    g_assert_cmpuint(p.total_ms, ==, 5000);
    /* It writes more than the link carries, but not more than goes over packed. */
    costs.live = costs.has_dirty_rate = true;
    costs.dirty_bytes_s = 10 * VZ_MIB;
    g_assert_true(predict(costs).has_times);
    g_assert_cmpuint(predict(costs).bytes, ==, 50 * VZ_MIB);
    costs.shrinks_to = 0;
    costs.packs_bytes_s = 0;
    g_assert_false(predict(costs).has_times);
}

static void unknown(vz_plan_costs costs, uint64_t bytes, const char *why)
{
    vz_plan_prediction p = predict(costs);
    g_assert_false(p.has_times);
    g_assert_cmpuint(p.bytes, ==, bytes);
    g_assert_nonnull(strstr(p.why, why));
}

static void test_unknown(void)
{
    unknown((vz_plan_costs){.rate_bytes_s = 1}, 0, "how much memory");
    unknown((vz_plan_costs){.used_bytes = 5}, 5, "rate of the link");
    vz_plan_costs costs = {.used_bytes = 5,
                           .rate_bytes_s = 7,
                           .live = true,
                           .has_dirty_rate = true,
                           .dirty_bytes_s = 7};
    unknown(costs, 5, "writes faster");
    costs.live = false; /* then it does not write */
    g_assert_true(predict(costs).has_times);
}

/* --- capabilities --- */

static const json_t *option(const json_t *report, const char *id)
{
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(report, "options"), i, one)
    {
        if (g_strcmp0(json_string_value(json_object_get(one, "id")), id) == 0)
            return one;
    }
    g_error("no option %s", id);
}

static const char *status(const json_t *verdict)
{
    return json_string_value(json_object_get(verdict, "status"));
}

static vz_qemu_caps *caps_without(const char *parameter)
{
    g_autoptr(GError) err = NULL;
    json_t *replies = json_load_file(
        g_test_get_filename(G_TEST_DIST, "golden", "qemu-10.0-replies.json", NULL), 0, NULL);
    if (parameter) {
        json_object_del(json_object_get(replies, "query-migrate-parameters"), parameter);
        json_object_set_new(replies, "device-list-properties", json_array());
    }
    vz_qemu_caps *caps = vz_qemu_caps_parse("/bin/qemu", replies, &err);
    json_decref(replies);
    g_assert_no_error(err);
    return caps;
}

static void test_report(void)
{
    g_autoptr(vz_qemu_caps) caps = caps_without(NULL);
    json_auto_t *report = vz_migration_capabilities("hosta", caps);
    g_assert_cmpuint(json_array_size(json_object_get(report, "options")), ==, VZ_OPTION_COUNT);
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        const json_t *one = option(report, row->id);
        const char *wanted = row->status == VZ_STATUS_SUPPORTED      ? "supported"
                             : row->status == VZ_STATUS_ALREADY_TRUE ? "already-true"
                                                                     : "refused";
        g_assert_cmpstr(status(one), ==, wanted);
        g_assert_cmpstr(json_string_value(json_object_get(one, "reason")), ==, row->reason);
    }
}

static void test_pair(void)
{
    g_autoptr(vz_qemu_caps) caps = caps_without(NULL);
    g_autoptr(vz_qemu_caps) poor = caps_without("max-bandwidth");
    g_autoptr(GError) err = NULL;
    json_auto_t *here = vz_migration_capabilities("hosta", caps);
    json_auto_t *there = vz_migration_capabilities("hostb", poor);
    json_t *options = json_object_get(there, "options");
    g_assert_cmpstr(status(option(there, "BANDWIDTH")), ==, "refused");
    /* A version that did not know LIVE yet, which is the first row. */
    g_assert_true(json_array_get(options, 0) == option(there, "LIVE"));
    json_array_remove(options, 0);
    g_assert_true(vz_migration_capabilities_pair(here, there, &err));
    const json_t *pair = json_object_get(option(here, "BANDWIDTH"), "pair");
    g_assert_cmpstr(status(option(here, "BANDWIDTH")), ==, "supported");
    g_assert_cmpstr(status(pair), ==, "refused");
    g_assert_cmpstr(json_string_value(json_object_get(pair, "reason")), ==,
                    "hostb: QEMU 10.0.13 on hostb has no 'max-bandwidth'");
    g_assert_cmpstr(status(json_object_get(option(here, "LIVE"), "pair")), ==, "refused");
    g_assert_cmpstr(status(json_object_get(option(here, "TLS"), "pair")), ==, "already-true");
    g_assert_cmpstr(status(json_object_get(option(here, "DEST_NAME"), "pair")), ==, "supported");
    json_auto_t *nonsense = json_pack("{ss}", "host", "hostc");
    g_assert_false(vz_migration_capabilities_pair(here, nonsense, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_RPC);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/plan/known", test_known);
    g_test_add_func("/plan/unknown", test_unknown);
    g_test_add_func("/plan/packed", test_packed);
    g_test_add_func("/capabilities/report", test_report);
    g_test_add_func("/capabilities/pair", test_pair);
    return g_test_run();
}
