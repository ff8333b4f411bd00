/* bench_channel.c - what carrying costs: MB/s and processor seconds per GB, of a channel through
 * two real carriers and of plain ways, in turns, on one machine.
 *
 *     bench_channel [MB] [RUNS]      (MB = 1e6 bytes; sender, carriers and sink share the machine)
 *
 * The processor time is that of all together: sender, both carriers (or copying threads), sink. */
#include "support/channel_pair.h"

#include "base/fd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define CHUNK_BYTES ((size_t)256 * 1024)
#define RUNS_MAX    99
#define STREAMS_MAX 16

typedef enum { DIRECT, COPIED, CHANNEL } way;

typedef struct {
    const char *name;
    way way;
    unsigned streams;
} contender;

static const contender contenders[] = {
    {"direct TCP", DIRECT, 1},
    {"read/write through two threads", COPIED, 1},
    {"channel, 1 stream", CHANNEL, 1},
    {"channel, 4 streams", CHANNEL, 4},
};

typedef struct {
    double mb_s, cpu_s_gb, carriers_s_gb;
} result;

typedef struct {
    int from, to;
    uint64_t bytes;
} job;

static void *copy(void *data)
{
    job *j = data;
    g_autofree char *buffer = g_malloc(CHUNK_BYTES);
    for (ssize_t n; (n = read(j->from, buffer, CHUNK_BYTES)) > 0;)
        for (ssize_t done = 0, m; done < n; done += m)
            if ((m = write(j->to, buffer + done, (size_t)(n - done))) <= 0)
                return NULL;
    shutdown(j->to, SHUT_WR);
    return NULL;
}

static void *send_all(void *data)
{
    job *j = data;
    g_autofree char *buffer = g_malloc(CHUNK_BYTES);
    memset(buffer, 7, CHUNK_BYTES);
    for (uint64_t left = j->bytes; left > 0;) {
        ssize_t n = send(j->to, buffer, MIN(left, CHUNK_BYTES), MSG_NOSIGNAL);
        if (n <= 0)
            break;
        left -= (uint64_t)n;
    }
    shutdown(j->to, SHUT_WR);
    return NULL;
}

static void *drain(void *data)
{
    job *j = data;
    g_autofree char *buffer = g_malloc(CHUNK_BYTES);
    j->bytes = 0;
    for (ssize_t n; (n = read(j->from, buffer, CHUNK_BYTES)) > 0;)
        j->bytes += (uint64_t)n;
    return NULL;
}

static double seconds_of(struct timeval t)
{
    return (double)t.tv_sec + (double)t.tv_usec / 1e6;
}

static double own_cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

/* Fields 14 and 15 of /proc/PID/stat, in ticks. */
static double process_cpu_s(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    g_auto(GStrv) fields = g_strsplit(strrchr(text, ')') + 2, " ", 16);
    double ticks = g_ascii_strtod(fields[11], NULL) + g_ascii_strtod(fields[12], NULL);
    return ticks / (double)sysconf(_SC_CLK_TCK);
}

/* The two ends of one stream of that kind; its copying threads, if it has any. */
static void open_stream(way w, channel_pair *pair, uint16_t index, int ends[2], GThread *threads[2],
                        job jobs[2])
{
    g_autoptr(GError) err = NULL;
    if (w == CHANNEL) {
        channel_pair_open(pair, index, &ends[0], &ends[1]);
        return;
    }
    int tcp[2];
    channel_tcp_pair(tcp);
    if (w == DIRECT) {
        memcpy(ends, tcp, sizeof(tcp));
        return;
    }
    int near, far;
    channel_local_pair(&near, &ends[0]);
    channel_local_pair(&far, &ends[1]);
    jobs[0] = (job){near, tcp[0], 0};
    jobs[1] = (job){tcp[1], far, 0};
    for (int i = 0; i < 2; i++)
        threads[i] = g_thread_new("copy", copy, &jobs[i]);
}

static void close_copied(GThread *threads[2], job jobs[2])
{
    for (int i = 0; i < 2 && threads[i]; i++)
        g_thread_join(threads[i]);
    for (int i = 0; i < 2 && threads[i]; i++) {
        close(jobs[i].from);
        close(jobs[i].to);
    }
}

static result run(const contender *c, uint64_t bytes)
{
    channel_pair *pair = channel_pair_new();
    pid_t carriers[2] = {vz_carrier_pid(pair->source), vz_carrier_pid(pair->target)};
    int ends[STREAMS_MAX][2];
    GThread *copiers[STREAMS_MAX][2] = {0};
    job copies[STREAMS_MAX][2], senders[STREAMS_MAX], sinks[STREAMS_MAX];
    GThread *threads[STREAMS_MAX][2];
    for (unsigned i = 0; i < c->streams; i++)
        open_stream(c->way, pair, (uint16_t)i, ends[i], copiers[i], copies[i]);
    double own_s = own_cpu_s(),
           carried_s = -process_cpu_s(carriers[0]) - process_cpu_s(carriers[1]);
    int64_t began_us = vz_now_us();
    for (unsigned i = 0; i < c->streams; i++) {
        senders[i] = (job){-1, ends[i][0], bytes / c->streams};
        sinks[i] = (job){ends[i][1], -1, 0};
        threads[i][0] = g_thread_new("sink", drain, &sinks[i]);
        threads[i][1] = g_thread_new("sender", send_all, &senders[i]);
    }
    uint64_t got = 0;
    for (unsigned i = 0; i < c->streams; i++) {
        g_thread_join(threads[i][1]);
        g_thread_join(threads[i][0]);
        got += sinks[i].bytes;
    }
    double seconds = (double)(vz_now_us() - began_us) / 1e6, gb = (double)got / 1e9;
    carried_s += process_cpu_s(carriers[0]) + process_cpu_s(carriers[1]);
    own_s = own_cpu_s() - own_s;
    g_assert_cmpuint(got, ==, bytes / c->streams * c->streams);
    for (unsigned i = 0; i < c->streams; i++) {
        close_copied(copiers[i], copies[i]);
        close(ends[i][0]);
        close(ends[i][1]);
    }
    channel_pair_free(pair);
    return (result){gb * 1e3 / seconds, (own_s + carried_s) / gb, carried_s / gb};
}

static int compare(const void *a, const void *b)
{
    double difference = *(const double *)a - *(const double *)b;
    return difference < 0 ? -1 : difference > 0;
}

/* "min/median/max" of one column of the results. */
static char *spread(const result *results, unsigned n, size_t offset, const char *format)
{
    double values[RUNS_MAX];
    for (unsigned i = 0; i < n; i++)
        memcpy(&values[i], (const char *)&results[i] + offset, sizeof(double));
    qsort(values, n, sizeof(double), compare);
    char text[3][32];
    const double shown[] = {values[0], values[n / 2], values[n - 1]};
    for (int i = 0; i < 3; i++)
        g_ascii_formatd(text[i], sizeof(text[i]), format, shown[i]);
    return g_strjoin("/", text[0], text[1], text[2], NULL);
}

int main(int argc, char **argv)
{
    uint64_t bytes = (argc > 1 ? g_ascii_strtoull(argv[1], NULL, 10) : 1000) * 1000000;
    unsigned runs = argc > 2 ? (unsigned)g_ascii_strtoull(argv[2], NULL, 10) : 5;
    if (bytes == 0 || runs == 0 || runs > RUNS_MAX || !g_getenv("VZ_TEST_CARRIER")) {
        fprintf(stderr, "usage: VZ_TEST_CARRIER=.../virtvz-carrier bench_channel [MB] [RUNS]\n");
        return EXIT_FAILURE;
    }
    result results[G_N_ELEMENTS(contenders)][RUNS_MAX];
    for (unsigned r = 0; r < runs; r++)
        for (unsigned i = 0; i < G_N_ELEMENTS(contenders); i++)
            results[i][r] = run(&contenders[i], bytes);
    printf("%" G_GUINT64_FORMAT " MB a run, n = %u, min/median/max\n", bytes / 1000000, runs);
    printf("%-32s %18s %20s %20s\n", "", "MB/s", "CPU s/GB, all", "CPU s/GB, carriers");
    for (unsigned i = 0; i < G_N_ELEMENTS(contenders); i++) {
        g_autofree char *rate = spread(results[i], runs, G_STRUCT_OFFSET(result, mb_s), "%.0f");
        g_autofree char *cpu = spread(results[i], runs, G_STRUCT_OFFSET(result, cpu_s_gb), "%.2f");
        g_autofree char *carried =
            spread(results[i], runs, G_STRUCT_OFFSET(result, carriers_s_gb), "%.2f");
        printf("%-32s %18s %20s %20s\n", contenders[i].name, rate, cpu, carried);
    }
    return EXIT_SUCCESS;
}
