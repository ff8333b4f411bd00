/* test_saga.c - the runner of steps against every fault at every step, with a journal on disk.
 *
 * A small source: three steps that can be undone, a release, a pivot and two forward steps, and a
 * destination that is a flag. Each step is made to fail before or after its effect, or the "daemon"
 * dies there and another one recovers from the journal; with the destination starting the guest or
 * not. Whatever happens, it must end exactly as before or exactly moved. */
#include "migrate/saga.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define N_STEPS   7
#define HAND_OVER 4

typedef enum {
    FAULT_NONE,
    FAIL_BEFORE,
    FAIL_AFTER,
    CRASH_BEFORE,
    CRASH_AFTER,
    N_FAULTS
} fault_kind;

struct vz_migration {
    int effects[N_STEPS]; /* 1: done, 0: not done or undone; anything else is a defect */
    int at;               /* where the fault is */
    fault_kind fault;
    bool destination_starts; /* if it is let */
    bool destination_runs;
    bool tombstone;
    int unknown_answers; /* the destination cannot be reached so many times */
    jmp_buf crash;
};

static bool act(vz_migration *m, int i, GError **err)
{
    fault_kind fault = m->at == i ? m->fault : FAULT_NONE;
    if (fault != FAULT_NONE)
        m->fault = FAULT_NONE; /* once */
    if (fault == CRASH_BEFORE)
        longjmp(m->crash, 1);
    if (fault == FAIL_BEFORE)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "before step %d", i);
    m->effects[i] = 1;
    if (fault == CRASH_AFTER)
        longjmp(m->crash, 1);
    return fault != FAIL_AFTER || vz_fail(err, VZ_ERR_INTERNAL_ERROR, "after step %d", i);
}

#define RUN(i)                                                                                     \
    static bool run_##i(vz_migration *m, GError **err)                                             \
    {                                                                                              \
        return act(m, i, err);                                                                     \
    }
#define UNDO(i)                                                                                    \
    static void undo_##i(vz_migration *m)                                                          \
    {                                                                                              \
        m->effects[i] = 0;                                                                         \
    }
RUN(0)
RUN(1)
RUN(2)
RUN(3)
RUN(5)
RUN(6)
UNDO(0)
UNDO(1)
UNDO(2)
UNDO(3)

static vz_outcome ask(vz_migration *m)
{
    if (m->unknown_answers > 0) {
        m->unknown_answers--;
        return VZ_OUTCOME_UNKNOWN;
    }
    if (m->destination_runs)
        return VZ_OUTCOME_MOVED;
    m->tombstone = true;
    return VZ_OUTCOME_NOT_MOVED;
}

static bool run_4(vz_migration *m, GError **err)
{
    return act(m, 4, err) &&
           (ask(m) == VZ_OUTCOME_MOVED || vz_fail(err, VZ_ERR_OPERATION_FAILED, "not moved"));
}

static const vz_step steps[] = {
    {"zero", VZ_PHASE_BEGIN, VZ_STEP_UNDOABLE, 0, 0, run_0, undo_0, NULL},
    {"one", VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 0, 0, run_1, undo_1, NULL},
    {"two", VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 0, 0, run_2, undo_2, NULL},
    {"never", VZ_PHASE_PERFORM, VZ_STEP_UNDOABLE, 2, 0, NULL, NULL, NULL},
    {"release", VZ_PHASE_PERFORM, VZ_STEP_RELEASE, 0, 0, run_3, undo_3, ask},
    {"hand-over", VZ_PHASE_CONFIRM, VZ_STEP_PIVOT, 0, 0, run_4, NULL, ask},
    {"end", VZ_PHASE_CONFIRM, VZ_STEP_FORWARD, 0, 0, run_5, NULL, NULL},
    {"undefine", VZ_PHASE_CONFIRM, VZ_STEP_FORWARD, 0, 0, run_6, NULL, NULL},
    {NULL, VZ_PHASE_CONFIRM, VZ_STEP_FORWARD, 0, 0, NULL, NULL, NULL},
};

/* The destination's Finish: commits unless the source asked before. */
static void destination_finishes(vz_migration *m)
{
    m->destination_runs = m->destination_starts && !m->tombstone;
}

/* Settles and goes forward until nothing is pending, as source.c does with its timer. */
static void settle(vz_saga *saga)
{
    for (int tries = 0; tries < 10; tries++) {
        g_autoptr(GError) err = NULL;
        vz_saga_result result = vz_saga_settle(saga, &err);
        if (result == VZ_SAGA_OK)
            result = vz_saga_run(saga, VZ_PHASE_CONFIRM, &err);
        if (result != VZ_SAGA_PENDING)
            return;
    }
    g_error("never settled");
}

static void run_all(vz_saga *saga, vz_migration *m)
{
    static const vz_phase phases[] = {VZ_PHASE_BEGIN, VZ_PHASE_PERFORM, VZ_PHASE_CONFIRM};
    for (size_t i = 0; i < G_N_ELEMENTS(phases); i++) {
        g_autoptr(GError) err = NULL;
        vz_saga_result result = vz_saga_run(saga, phases[i], &err);
        if (result == VZ_SAGA_UNDONE)
            return;
        if (result == VZ_SAGA_PENDING) {
            settle(saga);
            return;
        }
        if (phases[i] == VZ_PHASE_PERFORM)
            destination_finishes(m);
    }
}

static void check_world(const vz_migration *m, const char *what)
{
    int expected = m->destination_runs ? 1 : 0;
    for (int i = 0; i < N_STEPS; i++)
        if (i != HAND_OVER && m->effects[i] != expected) /* which only asks */
            g_error("%s: the guest %s, but step %d is %sdone", what,
                    m->destination_runs ? "runs there" : "does not run there", i,
                    m->effects[i] ? "" : "not ");
}

static void one_case(const char *dir, vz_migration *m, const char *what)
{
    static uint8_t job[VZ_UUID_BYTES];
    job[0]++;
    g_autoptr(GError) err = NULL;
    vz_journal *journal = vz_journal_create(dir, VZ_SIDE_SOURCE, job, &err);
    g_assert_no_error(err);
    vz_saga saga = {.steps = steps, .migration = m, .journal = journal, .facts = 1};
    if (setjmp(m->crash) == 0) {
        run_all(&saga, m);
    } else {
        g_autofree char *path = g_strdup(vz_journal_path(journal));
        vz_journal_free(journal);
        journal = vz_journal_load(path, &err);
        g_assert_no_error(err);
        saga = (vz_saga){.steps = steps, .migration = m, .journal = journal, .facts = 1};
        g_assert_true(vz_saga_recover(&saga, &err));
        settle(&saga);
    }
    check_world(m, what);
    g_assert_true(vz_journal_remove(journal, &err));
    vz_journal_free(journal);
    job[0] = 0;
}

static void test_fault_matrix(void)
{
    g_autofree char *dir = g_dir_make_tmp("vz-saga-XXXXXX", NULL);
    int cases = 0;
    for (int at = 0; at < N_STEPS; at++) {
        for (int fault = FAULT_NONE; fault < N_FAULTS; fault++) {
            for (int variant = 0; variant < 4; variant++) {
                vz_migration m = {.at = at,
                                  .fault = (fault_kind)fault,
                                  .destination_starts = variant & 1,
                                  .unknown_answers = variant & 2 ? 3 : 0};
                g_autofree char *what = g_strdup_printf("step %d, fault %d, destination %s%s", at,
                                                        fault, variant & 1 ? "starts" : "refuses",
                                                        variant & 2 ? ", silent at first" : "");
                one_case(dir, &m, what);
                cases++;
            }
        }
    }
    g_test_message("%d cases", cases);
    g_rmdir(dir);
}

/* The matrix can fail: with a release that is undone without asking, it must. */
static void test_matrix_catches_undo_without_asking(void)
{
    if (g_test_subprocess()) {
        vz_step bad[G_N_ELEMENTS(steps)];
        memcpy(bad, steps, sizeof(steps));
        bad[4].ask = NULL;
        bad[5].ask = NULL;
        vz_migration m = {.at = 4, .fault = FAIL_AFTER, .destination_starts = true};
        vz_saga saga = {.steps = bad, .migration = &m, .facts = 1};
        run_all(&saga, &m);
        check_world(&m, "mutation");
        return;
    }
    g_test_trap_subprocess(NULL, 0, 0);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr("*runs there*");
}

/* What is below the floor stays when a step fails, and goes when all is revoked. */
static void test_floor(void)
{
    g_autoptr(GError) err = NULL;
    vz_migration m = {.at = 2, .fault = FAIL_AFTER};
    vz_saga saga = {.steps = steps, .migration = &m, .facts = 1};
    g_assert_cmpint(vz_saga_run(&saga, VZ_PHASE_BEGIN, &err), ==, VZ_SAGA_OK);
    saga.floor = saga.next;
    g_assert_cmpint(vz_saga_run(&saga, VZ_PHASE_PERFORM, &err), ==, VZ_SAGA_UNDONE);
    g_assert_error(err, VZ_ERROR, VZ_ERR_INTERNAL_ERROR);
    g_clear_error(&err);
    g_assert_cmpint(saga.next, ==, 1);
    g_assert_true(m.effects[0] && !m.effects[1] && !m.effects[2]);
    g_assert_cmpint(vz_saga_run(&saga, VZ_PHASE_PERFORM, &err), ==, VZ_SAGA_OK);
    vz_saga_revoke(&saga);
    check_world(&m, "revoked");
}

static void test_journal_torn_line(void)
{
    g_autofree char *dir = g_dir_make_tmp("vz-journal-XXXXXX", NULL);
    uint8_t job[VZ_UUID_BYTES] = {7};
    g_autoptr(GError) err = NULL;
    vz_journal *journal = vz_journal_create(dir, VZ_SIDE_DESTINATION, job, &err);
    g_assert_no_error(err);
    g_autofree char *path = g_strdup(vz_journal_path(journal));
    g_assert_true(vz_journal_set(journal, "note", "two\nlines \\ and more", &err));
    g_assert_true(vz_journal_advance(journal, VZ_RECORD_PREPARED, &err));
    vz_journal_free(journal);
    FILE *file = fopen(path, "a");
    fputs("state comm", file); /* the power went off here */
    fclose(file);
    journal = vz_journal_load(path, &err);
    g_assert_no_error(err);
    g_assert_cmpint(vz_journal_state(journal), ==, VZ_RECORD_PREPARED);
    g_autofree char *note = vz_journal_get(journal, "note");
    g_assert_cmpstr(note, ==, "two\nlines \\ and more");
    g_assert_true(vz_journal_advance(journal, VZ_RECORD_ABORTED, &err));
    vz_journal_free(journal);
    journal = vz_journal_load(path, &err);
    g_assert_no_error(err);
    g_assert_cmpint(vz_journal_state(journal), ==, VZ_RECORD_ABORTED);
    g_assert_false(vz_journal_advance(journal, VZ_RECORD_COMMITTED, &err));
    g_clear_error(&err);
    g_assert_null(
        vz_journal_create(dir, VZ_SIDE_DESTINATION, job, &err)); /* tokens are used once */
    g_clear_error(&err);
    vz_journal_remove(journal, &err);
    vz_journal_free(journal);
    g_rmdir(dir);
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit limit;
    g_assert_cmpint(getrlimit(RLIMIT_FSIZE, &limit), ==, 0);
    limit.rlim_cur = MIN(bytes, limit.rlim_max);
    g_assert_cmpint(setrlimit(RLIMIT_FSIZE, &limit), ==, 0);
}

/* A disk that takes only half of a line: the line was never written, and the next one is whole. */
static void test_journal_full_disk(void)
{
    g_autofree char *dir = g_dir_make_tmp("vz-journal-XXXXXX", NULL);
    uint8_t job[VZ_UUID_BYTES] = {9};
    g_autoptr(GError) err = NULL;
    GStatBuf before;
    vz_journal *journal = vz_journal_create(dir, VZ_SIDE_DESTINATION, job, &err);
    g_assert_no_error(err);
    g_autofree char *path = g_strdup(vz_journal_path(journal));
    g_assert_cmpint(g_stat(path, &before), ==, 0);
    signal(SIGXFSZ, SIG_IGN);
    limit_file_size((rlim_t)before.st_size + 5);
    g_assert_false(vz_journal_advance(journal, VZ_RECORD_PREPARED, &err));
    limit_file_size(RLIM_INFINITY);
    g_assert_nonnull(strstr(err->message, path));
    g_clear_error(&err);
    g_assert_cmpint(vz_journal_state(journal), ==, VZ_RECORD_NONE);
    g_assert_true(vz_journal_advance(journal, VZ_RECORD_ABORTED, &err));
    vz_journal_free(journal);
    journal = vz_journal_load(path, &err);
    g_assert_no_error(err);
    g_assert_cmpint(vz_journal_state(journal), ==, VZ_RECORD_ABORTED);
    g_assert_true(vz_journal_remove(journal, &err));
    vz_journal_free(journal);
    g_rmdir(dir);
}

static void test_journal_damage_is_named(void)
{
    g_autofree char *dir = g_dir_make_tmp("vz-journal-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "x.in", NULL);
    static const char *const damaged[] = {
        "",
        "virtvz-journal 99 in 07000000-0000-0000-0000-000000000000\n",
        "virtvz-journal 0 in 07000000-0000-0000-0000-000000000000\n",
        "hello\n",
        "virtvz-journal 1 in 07000000-0000-0000-0000-000000000000\nstate dancing\n",
        "virtvz-journal 1 in 07000000-0000-0000-0000-000000000000\nonly\n"};
    for (size_t i = 0; i < G_N_ELEMENTS(damaged); i++) {
        g_autoptr(GError) err = NULL;
        g_assert_true(g_file_set_contents(path, damaged[i], -1, NULL));
        g_assert_null(vz_journal_load(path, &err));
        g_assert_nonnull(strstr(err->message, path));
        g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    }
    g_unlink(path);
    g_rmdir(dir);
}

/* Walks to `state` by the shortest way; the states of both sides, in order. */
static vz_journal *journal_in(const char *dir, vz_side side, vz_record state)
{
    static const vz_record ways[][5] = {
        [VZ_RECORD_RELEASED] = {VZ_RECORD_RELEASED},
        [VZ_RECORD_TAKEN_BACK] = {VZ_RECORD_RELEASED, VZ_RECORD_TAKEN_BACK},
        [VZ_RECORD_RESOLVED_HERE] = {VZ_RECORD_RELEASED, VZ_RECORD_RESOLVED_HERE},
        [VZ_RECORD_RESOLVED_THERE] = {VZ_RECORD_RELEASED, VZ_RECORD_RESOLVED_THERE},
        [VZ_RECORD_PREPARED] = {VZ_RECORD_PREPARED},
        [VZ_RECORD_LOADED] = {VZ_RECORD_PREPARED, VZ_RECORD_LOADED},
        [VZ_RECORD_COMMITTED] = {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED},
        [VZ_RECORD_START_ATTEMPTED] = {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED,
                                       VZ_RECORD_START_ATTEMPTED},
        [VZ_RECORD_STARTED] = {VZ_RECORD_PREPARED, VZ_RECORD_LOADED, VZ_RECORD_COMMITTED,
                               VZ_RECORD_START_ATTEMPTED, VZ_RECORD_STARTED},
        [VZ_RECORD_ABORTED] = {VZ_RECORD_PREPARED, VZ_RECORD_ABORTED},
        [VZ_RECORD_ENDED] = {VZ_RECORD_RELEASED, VZ_RECORD_ENDED},
    };
    g_autoptr(GError) err = NULL;
    uint8_t job[VZ_UUID_BYTES];
    vz_uuid_generate(job);
    vz_journal *journal = vz_journal_create(dir, side, job, &err);
    g_assert_no_error(err);
    for (int i = 0; i < 5 && ways[state][i] != VZ_RECORD_NONE; i++)
        g_assert_true(vz_journal_advance(journal, ways[state][i], &err));
    g_assert_cmpint(vz_journal_state(journal), ==, state);
    return journal;
}

static void drop(vz_journal *journal)
{
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_journal_remove(journal, &err));
    vz_journal_free(journal);
}

/* What no order of calls, replies and restarts may do: what is decided stays decided. */
static void test_journal_decisions_are_final(void)
{
    g_autofree char *dir = g_dir_make_tmp("vz-journal-XXXXXX", NULL);
    static const vz_record final_on_source[] = {VZ_RECORD_TAKEN_BACK, VZ_RECORD_RESOLVED_HERE,
                                                VZ_RECORD_RESOLVED_THERE};
    static const vz_record committed[] = {VZ_RECORD_COMMITTED, VZ_RECORD_START_ATTEMPTED,
                                          VZ_RECORD_STARTED};
    for (size_t i = 0; i < 3; i++) {
        vz_journal *source = journal_in(dir, VZ_SIDE_SOURCE, final_on_source[i]);
        vz_journal *destination = journal_in(dir, VZ_SIDE_DESTINATION, committed[i]);
        for (int to = VZ_RECORD_NONE; to < VZ_RECORD_ENDED; to++) {
            g_autoptr(GError) err = NULL;
            g_assert_false(vz_journal_advance(source, (vz_record)to, &err));
            g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_INVALID);
        }
        g_autoptr(GError) err = NULL;
        g_assert_false(vz_journal_advance(destination, VZ_RECORD_ABORTED, &err));
        g_clear_error(&err);
        g_assert_true(vz_journal_revoke(destination, &err) == (i == 0)); /* no start attempted */
        g_clear_error(&err);
        g_assert_false(vz_journal_condemn(source, &err));
        g_clear_error(&err);
        g_assert_true(vz_journal_condemn(destination, &err));
        g_assert_cmpint(vz_journal_state(destination), ==, VZ_RECORD_ABORTED);
        g_assert_false(vz_journal_advance(destination, VZ_RECORD_COMMITTED, &err));
        drop(source);
        drop(destination);
    }
    g_rmdir(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/migrate/saga/fault-matrix", test_fault_matrix);
    g_test_add_func("/migrate/saga/undo-without-asking", test_matrix_catches_undo_without_asking);
    g_test_add_func("/migrate/saga/floor", test_floor);
    g_test_add_func("/migrate/journal/torn-line", test_journal_torn_line);
    g_test_add_func("/migrate/journal/full-disk", test_journal_full_disk);
    g_test_add_func("/migrate/journal/decisions-are-final", test_journal_decisions_are_final);
    g_test_add_func("/migrate/journal/damage", test_journal_damage_is_named);
    return g_test_run();
}
