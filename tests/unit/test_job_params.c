/* test_job_params.c - a job's statistics under libvirt's names. */
#include "api/job_params.h"

#include <glib.h>
#include <string.h>

static const vz_tparam *find(const vz_tparam *params, size_t n, const char *field)
{
    const vz_tparam *found = NULL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(params[i].field, field) != 0)
            continue;
        g_assert_null(found); /* each name once: libvirt refuses a list with a name twice */
        found = &params[i];
    }
    return found;
}

static void assert_ullong(const vz_tparam *params, size_t n, const char *field, uint64_t value)
{
    const vz_tparam *param = find(params, n, field);
    g_assert_nonnull(param);
    g_assert_cmpint((int)param->type, ==, (int)VZ_TPARAM_ULLONG);
    g_assert_cmpuint(param->value.ul, ==, value);
}

static void test_running(void)
{
    vz_tparam params[VZ_JOB_PARAMS_MAX];
    const vz_job_stats stats = {.type = VZ_JOB_UNBOUNDED,
                                .operation = VZ_JOB_OP_MIGRATION_OUT,
                                .time_elapsed_ms = 1500,
                                .memory_total_bytes = 100,
                                .memory_processed_bytes = 70,
                                .memory_remaining_bytes = 30,
                                .disk_total_bytes = 11,
                                .disk_processed_bytes = 7,
                                .disk_remaining_bytes = 4,
                                .has_downtime = true,
                                .downtime_ms = 50};
    size_t n = vz_job_params(&stats, params);
    g_assert_cmpint(find(params, n, "operation")->value.i, ==, 5);
    assert_ullong(params, n, "time_elapsed", 1500);
    assert_ullong(params, n, "data_total", 111);
    assert_ullong(params, n, "data_processed", 77);
    assert_ullong(params, n, "data_remaining", 34);
    assert_ullong(params, n, "downtime", 50);
    /* What is not known is not said. */
    static const char *const absent[] = {
        "time_remaining",         "time_elapsed_net", "downtime_net",      "setup_time",
        "memory_constant",        "success",          "compression_cache", "errmsg",
        "auto_converge_throttle", "vz.compression",   "vz.channels",       "vz.choice",
        "vz.sample.bytes"};
    for (size_t i = 0; i < G_N_ELEMENTS(absent); i++)
        g_assert_null(find(params, n, absent[i]));
}

static void test_ended(void)
{
    vz_tparam params[VZ_JOB_PARAMS_MAX];
    vz_job_stats stats = {.type = VZ_JOB_COMPLETED};
    size_t n = vz_job_params(&stats, params);
    g_assert_cmpint((int)find(params, n, "success")->type, ==, (int)VZ_TPARAM_BOOLEAN);
    g_assert_cmpint(find(params, n, "success")->value.i, ==, 1);
    g_assert_null(find(params, n, "errmsg"));
    stats.type = VZ_JOB_FAILED;
    g_strlcpy(stats.error_text, "operation failed: no", sizeof(stats.error_text));
    n = vz_job_params(&stats, params);
    g_assert_cmpint(find(params, n, "success")->value.i, ==, 0);
    g_assert_cmpstr(find(params, n, "errmsg")->value.s, ==, "operation failed: no");
}

/* With everything there is, the list still fits, on the wire too. */
static void test_all(void)
{
    vz_tparam params[VZ_JOB_PARAMS_MAX];
    const vz_job_stats stats = {.type = VZ_JOB_FAILED,
                                .has_time_elapsed_net = true,
                                .has_downtime = true,
                                .has_downtime_net = true,
                                .has_setup_time = true,
                                .has_memory_pages = true,
                                .has_compression = true,
                                .has_auto_converge = true,
                                .has_stream = true,
                                .stream_channels = 2,
                                .stream_compress = "zstd",
                                .stream_why = "it pays",
                                .has_sample = true,
                                .sample_packed_bytes = 5,
                                .auto_converge_throttle_percent = 20,
                                .memory_normal_pages = 3,
                                .error_text = "why"};
    size_t n = vz_job_params(&stats, params);
    g_assert_cmpuint(n, <=, VZ_JOB_PARAMS_MAX);
    g_assert_cmpint((int)find(params, n, "auto_converge_throttle")->type, ==, (int)VZ_TPARAM_INT);
    assert_ullong(params, n, "memory_normal", 3);
    assert_ullong(params, n, "vz.channels", 2);
    assert_ullong(params, n, "vz.sample.packed", 5);
    g_assert_cmpstr(find(params, n, "vz.compression")->value.s, ==, "zstd");
    g_assert_cmpstr(find(params, n, "vz.choice")->value.s, ==, "it pays");
    for (size_t i = 0; i < n; i++)
        find(params, n, params[i].field);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/job-params/running", test_running);
    g_test_add_func("/job-params/ended", test_ended);
    g_test_add_func("/job-params/all", test_all);
    return g_test_run();
}
