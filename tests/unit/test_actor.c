/* test_actor.c - the thread that exists only while there is work. */
#include "domain/actor.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_US (10 * (int64_t)1000000)

/* Threads of this process whose name is `name`. */
static unsigned threads_named(const char *name)
{
    unsigned n = 0;
    g_autoptr(GDir) dir = g_dir_open("/proc/self/task", 0, NULL);
    for (const char *id; (id = g_dir_read_name(dir));) {
        g_autofree char *path = g_strdup_printf("/proc/self/task/%s/comm", id);
        g_autofree char *comm = NULL;
        if (g_file_get_contents(path, &comm, NULL, NULL) && g_str_equal(g_strchomp(comm), name))
            n++;
    }
    return n;
}

static bool becomes(const char *name, unsigned count)
{
    for (int64_t end = vz_now_us() + PATIENCE_US; vz_now_us() < end; g_usleep(1000))
        if (threads_named(name) == count)
            return true;
    return false;
}

static void count_up(void *data)
{
    g_atomic_int_inc((int *)data);
}

static bool reaches(int *counter, int value)
{
    for (int64_t end = vz_now_us() + PATIENCE_US; vz_now_us() < end; g_usleep(1000))
        if (g_atomic_int_get(counter) == value)
            return true;
    return false;
}

static void test_thread_comes_and_goes(void)
{
    g_autoptr(vz_actor) actor = vz_actor_new("t-idle");
    int ran = 0, dropped = 0;
    g_assert_cmpuint(threads_named("t-idle"), ==, 0);
    for (int round = 1; round <= 3; round++) {
        g_assert_true(vz_actor_post(actor, VZ_TASK_NORMAL, count_up, &ran, NULL));
        g_assert_true(reaches(&ran, round));
        g_assert_true(becomes("t-idle", 0));
    }
    vz_actor_keep(actor);
    vz_actor_post(actor, VZ_TASK_NORMAL, count_up, &dropped, count_up);
    g_assert_true(reaches(&dropped, 2)); /* it ran, and its data was dropped */
    g_usleep(20000);
    g_assert_cmpuint(threads_named("t-idle"), ==, 1);
    vz_actor_release(actor);
    g_assert_true(becomes("t-idle", 0));
}

typedef struct {
    vz_actor *actor;
    int wrong;
    int order[3];
    int n; /* atomic */
} notes;

static bool two_came(void *data)
{
    return g_atomic_int_get(&((notes *)data)->n) >= 2;
}

static void note_normal(void *data)
{
    notes *n = data;
    n->order[n->n] = 1;
    g_atomic_int_inc(&n->n);
}

static void note_during(void *data)
{
    notes *n = data;
    n->order[n->n] = 2;
    g_atomic_int_inc(&n->n);
}

/* A task that waits serves the tasks of a job, on the same thread, and leaves the others. */
static void wait_inside(void *data)
{
    notes *n = data;
    vz_inbox *inbox = vz_actor_inbox(n->actor);
    if (!inbox)
        n->wrong++;
    vz_actor_post(n->actor, VZ_TASK_NORMAL, note_normal, n, NULL);
    vz_actor_post(n->actor, VZ_TASK_DURING_JOB, note_during, n, NULL);
    if (vz_wait(inbox, two_came, n, vz_now_us() + 50000) != VZ_WAIT_TIMEOUT)
        n->wrong++;
}

static void test_wait_inside_a_task(void)
{
    g_autoptr(vz_actor) actor = vz_actor_new("t-wait");
    notes n = {.actor = actor};
    vz_actor_post(actor, VZ_TASK_NORMAL, wait_inside, &n, NULL);
    g_assert_true(reaches(&n.n, 2));
    g_assert_true(becomes("t-wait", 0));
    g_assert_cmpint(n.wrong, ==, 0);
    g_assert_cmpint(n.n, ==, 2);
    g_assert_cmpint(n.order[0], ==, 2);
    g_assert_cmpint(n.order[1], ==, 1);
    g_assert_null(vz_actor_inbox(actor)); /* not on its thread */
}

static void wait_for_cancel(void *data)
{
    notes *n = data;
    g_atomic_int_set(&n->n, 1);
    if (vz_wait(vz_actor_inbox(n->actor), NULL, NULL, vz_now_us() + PATIENCE_US) !=
        VZ_WAIT_CANCELLED)
        n->wrong++;
    if (!vz_actor_inbox(n->actor)) /* a task that is being stopped still has its inbox */
        n->wrong++;
}

static void test_stop_ends_waits_and_drops(void)
{
    g_autoptr(vz_actor) actor = vz_actor_new("t-stop");
    notes n = {.actor = actor};
    int ran = 0, ended = 0;
    vz_actor_keep(actor);
    vz_actor_post(actor, VZ_TASK_NORMAL, wait_for_cancel, &n, NULL);
    g_assert_true(reaches(&n.n, 1));
    vz_actor_post(actor, VZ_TASK_NORMAL, count_up, &ran, NULL);
    g_assert_true(vz_actor_post(actor, VZ_TASK_NORMAL, count_up, &ran, NULL));
    vz_actor_stop(actor, count_up, &ended);
    g_assert_cmpint(n.wrong, ==, 0);
    g_assert_cmpint(ran, ==, 0);
    g_assert_cmpint(ended, ==, 1);
    g_assert_true(becomes("t-stop", 0));
    g_assert_false(vz_actor_post(actor, VZ_TASK_NORMAL, count_up, &ran, count_up));
    g_assert_cmpint(ran, ==, 1); /* by the drop alone */
}

/* Posts from several threads race with the ending of the thread: none may be lost. */
#define POSTERS 4
#define POSTS   2000

typedef struct {
    vz_actor *actor;
    int *ran;
} poster;

static void *post_many(void *data)
{
    poster *p = data;
    for (int i = 0; i < POSTS; i++)
        g_assert_true(vz_actor_post(p->actor, i % 2 ? VZ_TASK_NORMAL : VZ_TASK_DURING_JOB, count_up,
                                    p->ran, NULL));
    return NULL;
}

static void test_no_post_is_lost(void)
{
    g_autoptr(vz_actor) actor = vz_actor_new("t-race");
    int ran = 0;
    poster p = {actor, &ran};
    GThread *threads[POSTERS];
    for (int i = 0; i < POSTERS; i++)
        threads[i] = g_thread_new("poster", post_many, &p);
    for (int i = 0; i < POSTERS; i++)
        g_thread_join(threads[i]);
    g_assert_true(reaches(&ran, POSTERS * POSTS));
    g_assert_true(becomes("t-race", 0));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/actor/thread-comes-and-goes", test_thread_comes_and_goes);
    g_test_add_func("/actor/wait-inside-a-task", test_wait_inside_a_task);
    g_test_add_func("/actor/stop-ends-waits-and-drops", test_stop_ends_waits_and_drops);
    g_test_add_func("/actor/no-post-is-lost", test_no_post_is_lost);
    return g_test_run();
}
