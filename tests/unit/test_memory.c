/* test_memory.c - the ladder of downtime limits, and QEMU's words for the state of a stream. */
#include "migrate/memory.h"

static void test_ladder(void)
{
    uint64_t before_ms = 0;
    for (uint64_t pass = 0; pass < 100; pass++) {
        uint64_t limit_ms = vz_memory_downtime_step_ms(pass);
        g_assert_cmpuint(limit_ms, >=, before_ms);
        g_assert_cmpuint(limit_ms, >=, VZ_DOWNTIME_LIMIT_FIRST_MS);
        g_assert_cmpuint(limit_ms, <=, VZ_DOWNTIME_LIMIT_LAST_MS);
        before_ms = limit_ms;
    }
    g_assert_cmpuint(vz_memory_downtime_step_ms(1), ==, VZ_DOWNTIME_LIMIT_FIRST_MS);
    g_assert_cmpuint(before_ms, ==, VZ_DOWNTIME_LIMIT_LAST_MS);
}

static void test_words(void)
{
    g_assert_cmpint(vz_memory_status_parse("pre-switchover"), ==, VZ_MEMORY_PRE_SWITCHOVER);
    g_assert_cmpint(vz_memory_status_parse("completed"), ==, VZ_MEMORY_COMPLETED);
    /* Still running in QEMU, so the source may not be resumed yet. */
    g_assert_cmpint(vz_memory_status_parse("cancelling"), ==, VZ_MEMORY_ACTIVE);
    g_assert_cmpint(vz_memory_status_parse("what-is-this"), ==, VZ_MEMORY_NONE);
    g_assert_cmpint(vz_memory_status_parse(NULL), ==, VZ_MEMORY_NONE);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migrate/memory/ladder", test_ladder);
    g_test_add_func("/migrate/memory/words", test_words);
    return g_test_run();
}
