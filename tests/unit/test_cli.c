/* test_cli.c - vz without a daemon: words, numbers for people, progress that never runs backwards,
 * what is printed, settings. */
#include "cli/args.h"
#include "cli/format.h"
#include "cli/print.h"
#include "cli/progress.h"
#include "cli/settings.h"

#include <glib/gstdio.h>
#include <string.h>

/* --- words --- */

static bool parse(const char *line, vz_args *ret_args, GError **err)
{
    static char **argv; /* vz_args borrows from it */
    g_autofree char *whole = g_strconcat("vz ", line, NULL);
    int argc = 0;
    g_strfreev(argv);
    g_assert_true(g_shell_parse_argv(whole, &argc, &argv, NULL));
    return vz_args_parse(argc, argv, ret_args, err);
}

static void test_words(void)
{
    const struct {
        const char *line, *options;
    } cases[] = {
        {"migrate g1 hostb", "live p2p persistent undefinesource"},
        {"migrate --no-live g1 hostb", "p2p persistent undefinesource"},
        {"migrate g1 hostb --coma", "p2p persistent undefinesource"},
        {"migrate g1 hostb --keep-source --transient", "live p2p"},
        {"migrate g1 hostb --live --persistent --undefinesource --p2p --suspend --verbose",
         "live p2p persistent undefinesource paused"},
        {"migrate g1 hostb --no-live --live", "live p2p persistent undefinesource"},
        {"migrate --bandwidth=3 g1 hostb --name g2",
         "live p2p persistent undefinesource destination_name=g2 bandwidth=3145728"},
        {"-c vz+tcp://hosta/system migrate g1 hostb --dname g2 --migrateuri tcp:10.1.1.2",
         "live p2p persistent undefinesource migrate_uri=tcp:10.1.1.2 destination_name=g2"},
        {"migrate g1 hostb --postcopy", "live p2p persistent undefinesource postcopy"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(vz_args) args = {0};
        g_autoptr(GError) err = NULL;
        parse(cases[i].line, &args, &err);
        g_assert_no_error(err);
        g_autofree char *options = vz_options_describe(args.options);
        g_assert_cmpstr(options, ==, cases[i].options);
        g_assert_cmpint(args.verb, ==, VZ_VERB_migrate);
        g_assert_cmpstr(g_ptr_array_index(args.arguments, 0), ==, "g1");
        g_assert_cmpstr(g_ptr_array_index(args.arguments, 1), ==, "hostb");
    }
}

static void test_word_errors(void)
{
    const struct {
        const char *line, *text;
    } cases[] = {
        {"frobnicate", "no command 'frobnicate'"},
        {"migrate g1", "usage: vz migrate DOMAIN HOST|URI"},
        {"migrate g1 hostb hostc", "usage: vz migrate"},
        {"migrate g1 hostb --frobnicate", "no option --frobnicate"},
        {"migrate g1 hostb --bandwidth", "--bandwidth needs a value: MiB/s"},
        {"migrate g1 hostb --bandwidth fast", "bandwidth is 'fast'"},
        {"migrate g1 hostb --live=yes", "--live takes no value"},
        {"migrate g1 hostb --bandwidth 1 --bandwidth 2", "occurs multiple times"},
        {"migrate g1 hostb --json=1", "--json takes no value"},
        {"migrate g1 hostb --xml /nonexistent", "cannot open '/nonexistent'"},
        {"list --live", "`vz list` has no option --live"},
        {"list g1", "usage: vz list"},
        {"list -x", "no option -x"},
        {"abort --all g1", "no option --all"},
        {"-c", "--connect needs a value"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(vz_args) args = {0};
        g_autoptr(GError) err = NULL;
        g_assert_false(parse(cases[i].line, &args, &err));
        if (!strstr(err->message, cases[i].text))
            g_error("vz %s: %s", cases[i].line, err->message);
    }
}

static void test_words_elsewhere(void)
{
    g_auto(vz_args) none = {0}, dashes = {0}, help = {0};
    g_autoptr(GError) err = NULL;
    g_assert_true(parse("", &none, &err));
    g_assert_cmpint(none.verb, ==, VZ_VERB_help);
    g_assert_true(parse("abort --json -- --odd-name", &dashes, &err));
    g_assert_cmpstr(g_ptr_array_index(dashes.arguments, 0), ==, "--odd-name");
    g_assert_true(dashes.given[VZ_CLI_JSON]);
    g_assert_true(parse("migrate --help", &help, &err));
    g_assert_true(help.given[VZ_CLI_HELP]);
}

/* Every word that works is in the help, and none that is refused is shown as if it worked. */
static void test_help(void)
{
    size_t count;
    const vz_option_word *words = vz_option_words(&count);
    g_autofree char *help = vz_args_verb_help(VZ_VERB_migrate);
    g_auto(GStrv) halves = g_strsplit(help, "Known, but refused", 2);
    for (size_t i = 0; i < count; i++) {
        g_autofree char *word = g_strdup_printf(" --%s", words[i].word);
        bool works = vz_option_info(words[i].option)->status <= VZ_STATUS_ALREADY_TRUE;
        if (words[i].help)
            g_assert_nonnull(strstr(halves[works ? 0 : 1], word));
    }
    g_auto(GStrv) lines = g_strsplit(help, "\n", -1);
    for (char **line = lines; *line; line++)
        g_assert_cmpuint(strlen(*line), <=, 100);
}

/* --- numbers --- */

static void test_format(void)
{
    const struct {
        uint64_t value;
        const char *bytes, *duration;
    } cases[] = {
        {0, "0 B", "0 ms"},
        {999, "999 B", "999 ms"},
        {1000, "1000 B", "1.0 s"},
        {1024, "1.0 KiB", "1.0 s"},
        {59999, "58.6 KiB", "59.9 s"},
        {60000, "58.6 KiB", "1:00"},
        {1048575, "1.0 MiB", "17:28"},
        {3600000, "3.4 MiB", "1:00:00"},
        {G_MAXUINT64, "16.0 EiB", "5124095576030:25:51"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *bytes = vz_format_bytes(cases[i].value);
        g_autofree char *duration = vz_format_duration(cases[i].value);
        g_assert_cmpstr(bytes, ==, cases[i].bytes);
        g_assert_cmpstr(duration, ==, cases[i].duration);
    }
}

/* --- progress --- */

typedef struct {
    uint64_t processed, remaining;
} sample;

static void run_samples(const sample *samples, size_t count)
{
    vz_progress progress = {0};
    unsigned last = 0;
    for (size_t i = 0; i < count; i++) {
        const vz_reading reading = {.type = VZ_JOB_TYPE_RUNNING,
                                    .total_bytes = 512,
                                    .processed_bytes = samples[i].processed,
                                    .remaining_bytes = samples[i].remaining};
        vz_progress_view view =
            vz_progress_update(&progress, &reading, false, (int64_t)(i + 1) * 250000);
        g_assert_cmpuint(view.percent, >=, last);
        g_assert_cmpuint(view.percent, <=, 99);
        last = view.percent;
    }
}

static void test_progress_saw_tooth(void)
{
    /* Three rounds of a guest that writes: what remains jumps up at the start of each. */
    const sample rounds[] = {{0, 512},   {128, 384}, {256, 256}, {500, 12},  {512, 256},
                             {640, 128}, {760, 8},   {768, 128}, {880, 16},  {896, 64},
                             {950, 10},  {960, 0},   {0, 0},     {100, 900}, {1000, 1}};
    run_samples(rounds, G_N_ELEMENTS(rounds));
    g_autoptr(GRand) random = g_rand_new_with_seed(20150717);
    sample made[200];
    for (int round = 0; round < 200; round++) {
        for (size_t i = 0; i < G_N_ELEMENTS(made); i++)
            made[i] = (sample){.processed = g_rand_int(random), .remaining = g_rand_int(random)};
        run_samples(made, G_N_ELEMENTS(made));
    }
}

static void test_progress_moves(void)
{
    vz_progress progress = {0};
    const vz_reading first = {.total_bytes = 1000, .processed_bytes = 0, .remaining_bytes = 1000};
    const vz_reading half = {.total_bytes = 1000, .processed_bytes = 500, .remaining_bytes = 500};
    const vz_reading told = {.total_bytes = 1000,
                             .processed_bytes = 600,
                             .remaining_bytes = 400,
                             .memory_bytes_s = 500,
                             .remaining_ms = 77,
                             .iteration = 2};
    vz_progress_view view = vz_progress_update(&progress, &first, false, 1000000);
    g_assert_cmpuint(view.percent, ==, 0);
    g_assert_cmpint(view.left_ms, ==, -1);
    g_assert_cmpstr(view.phase, ==, "copying memory");
    view = vz_progress_update(&progress, &half, false, 2000000);
    g_assert_cmpuint(view.percent, ==, 50);
    g_assert_cmpuint(view.bytes_s, ==, 500);
    g_assert_cmpint(view.left_ms, ==, 1000);
    view = vz_progress_update(&progress, &told, true, 3000000);
    g_assert_cmpint(view.left_ms, ==, 77);
    g_assert_cmpuint(view.iteration, ==, 2);
    g_assert_cmpstr(view.phase, ==, "switching over");
}

static void test_reading(void)
{
    const vz_tparam params[] = {
        {.field = "operation", .type = VZ_TPARAM_INT, .value.i = 4},
        {.field = "time_elapsed", .type = VZ_TPARAM_ULLONG, .value.ul = 1234},
        {.field = "data_total", .type = VZ_TPARAM_ULLONG, .value.ul = 7},
        {.field = "data_remaining", .type = VZ_TPARAM_STRING, .value.s = "lies"},
        {.field = "downtime", .type = VZ_TPARAM_ULLONG, .value.ul = 63},
        {.field = "from.the.future", .type = VZ_TPARAM_ULLONG, .value.ul = 9},
        {.field = "vz.phase",
         .type = VZ_TPARAM_STRING,
         .value.s = "a phase whose name is longer than anybody has room for"},
    };
    vz_reading reading;
    vz_reading_from_params(2, params, G_N_ELEMENTS(params), &reading);
    g_assert_cmpint(reading.operation, ==, VZ_JOB_OPERATION_IN);
    g_assert_cmpuint(reading.elapsed_ms, ==, 1234);
    g_assert_cmpuint(reading.total_bytes, ==, 7);
    g_assert_cmpuint(reading.remaining_bytes, ==, 0);
    g_assert_true(reading.has_downtime);
    g_assert_cmpstr(reading.phase, ==, "a phase whose name is longer th");
}

/* --- what is printed --- */

static const vz_progress_view a_view = {.phase = "copying memory",
                                        .percent = 40,
                                        .bytes_s = 102400000,
                                        .left_ms = 7200,
                                        .iteration = 2,
                                        .elapsed_ms = 5000};

static void test_bar(void)
{
    g_autofree char *bar = vz_print_bar(&a_view, "running", 200);
    g_assert_cmpstr(bar, ==,
                    "copying memory  [#########---------------]  40 %  97.7 MiB/s  7.2 s left  "
                    "guest running  round 2");
    g_autofree char *usual = vz_print_bar(&a_view, "running", 79);
    g_assert_cmpstr(usual, ==,
                    "copying memory  [####--------]  40 %  97.7 MiB/s  7.2 s left  guest running");
    g_autofree char *narrow = vz_print_bar(&a_view, "running", 20);
    g_assert_cmpstr(narrow, ==, "copying memory  [###");
    const vz_progress_view start = {.phase = "preparing", .left_ms = -1};
    g_autofree char *empty = vz_print_bar(&start, NULL, 200);
    g_assert_cmpstr(empty, ==, "preparing       [------------------------]   0 %");
}

static const vz_result a_result = {.domain = "g1",
                                   .destination = "hostb",
                                   .total_ms = 4200,
                                   .downtime_ms = 63,
                                   .has_downtime = true,
                                   .bytes = 432013312,
                                   .rounds = 3,
                                   .defined_there = true};

static void test_table(void)
{
    g_autofree char *text = vz_print_table(&a_result);
    g_assert_cmpstr(text, ==,
                    "g1 runs on hostb now\n"
                    "  total time   4.2 s\n"
                    "  downtime     63 ms\n"
                    "  data         412.0 MiB, 98.1 MiB/s\n"
                    "  rounds       3\n"
                    "  there        running, defined\n"
                    "  here         removed\n");
    const vz_reading reading = {
        .compression = "zstd", .channels = 2, .choice = "it pays", .sample_bytes = 5};
    vz_result packed = a_result;
    packed.reading = &reading;
    g_autofree char *with_stream = vz_print_table(&packed);
    g_assert_nonnull(strstr(with_stream, "\n  memory       zstd by 2 channels: it pays\n"));
    const vz_result other = {.domain = "g1",
                             .destination = "hostb",
                             .total_ms = 10,
                             .paused_there = true,
                             .kept_here = true};
    g_autofree char *paused = vz_print_table(&other);
    g_assert_cmpstr(paused, ==,
                    "g1 is on hostb now\n"
                    "  total time   10 ms\n"
                    "  there        paused, transient\n"
                    "  here         definition kept, shut off\n");
}

/* Runs `say` with a printer of the mode and returns what it wrote. */
static char *printed(vz_print_mode mode, void (*say)(vz_printer *printer))
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);
    vz_printer printer = {.mode = mode, .out = file, .errors = file, .domain = "g1"};
    say(&printer);
    fclose(file);
    return text;
}

static void say_much(vz_printer *printer)
{
    vz_progress_view next = a_view;
    g_autoptr(GError) err = NULL;
    vz_print_progress(printer, &a_view, "running", 1000000);
    vz_print_progress(printer, &a_view, "running", 2000000);
    next.phase = "switching over";
    vz_print_progress(printer, &next, "paused", 3500000);
    vz_print_note(printer, "aborting");
    vz_print_moved(printer, &a_result);
    vz_fail(&err, VZ_ERR_MIGRATE_UNSAFE, "disk vda");
    vz_print_failed(printer, VZ_OUTCOME_FAILED, err, "the guest is running here");
}

#define TABLE                                                                                      \
    "g1 runs on hostb now\n  total time   4.2 s\n  downtime     63 ms\n"                           \
    "  data         412.0 MiB, 98.1 MiB/s\n  rounds       3\n"                                     \
    "  there        running, defined\n  here         removed\n"
#define FAILURE                                                                                    \
    "vz: Unsafe migration: disk vda\n    the guest is running here\n"                              \
    "    put the guest's disks on storage that both hosts share\n"
#define BAR "[#########---------------]  40 %  97.7 MiB/s  7.2 s left  guest "

static void test_printer_text(void)
{
    g_autofree char *lines = printed(VZ_PRINT_LINES, say_much);
    g_assert_cmpstr(lines, ==,
                    "copying memory  " BAR "running  round 2\nswitching over  " BAR
                    "paused  round 2\nvz: aborting\n" TABLE FAILURE);
    g_autofree char *quiet = printed(VZ_PRINT_QUIET, say_much);
    g_assert_cmpstr(quiet, ==, "vz: aborting\n" TABLE FAILURE);
    g_autofree char *terminal = printed(VZ_PRINT_TERMINAL, say_much);
    g_assert_nonnull(strstr(terminal, "\r\033[Kcopying memory  2.5 s\n"));
    g_assert_nonnull(strstr(terminal, "\r\033[Kvz: aborting\n"));
    g_assert_true(g_str_has_suffix(terminal, TABLE FAILURE));
}

static void test_printer_json(void)
{
    g_autofree char *text = printed(VZ_PRINT_JSON, say_much);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    static const char *const events[] = {"progress", "progress", "progress",
                                         "note",     "result",   "error"};
    g_assert_cmpuint(g_strv_length(lines), ==, G_N_ELEMENTS(events) + 1);
    for (size_t i = 0; i < G_N_ELEMENTS(events); i++) {
        json_t *object = json_loads(lines[i], 0, NULL);
        g_assert_nonnull(object);
        g_assert_cmpstr(json_string_value(json_object_get(object, "event")), ==, events[i]);
        g_assert_cmpstr(json_string_value(json_object_get(object, "domain")), ==, "g1");
        json_decref(object);
    }
    json_t *error = json_loads(lines[5], 0, NULL);
    g_assert_cmpint(json_integer_value(json_object_get(error, "code")), ==, 81);
    g_assert_cmpint(json_integer_value(json_object_get(error, "exit")), ==, 1);
    g_assert_nonnull(json_object_get(error, "advice"));
    json_decref(error);
}

/* --- settings --- */

static void test_destination(void)
{
    const struct {
        const char *host, *uri, *label;
    } cases[] = {
        {"hostb", "vz+tcp://hostb/system", "hostb"},
        {"hostb:16510", "vz+tcp://hostb:16510/system", "hostb"},
        {"10.1.1.2", "vz+tcp://10.1.1.2/system", "10.1.1.2"},
        {"fe80::1", "vz+tcp://[fe80::1]/system", "fe80::1"},
        {"[fe80::1]:16510", "vz+tcp://[fe80::1]:16510/system", "fe80::1"},
        {"vz+unix:///system?socket=/x", "vz+unix:///system?socket=/x",
         "vz+unix:///system?socket=/x"},
        {"vz+tcp://hostc/system", "vz+tcp://hostc/system", "hostc"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) err = NULL;
        g_autofree char *uri = vz_settings_destination(cases[i].host, "tcp", &err);
        g_autofree char *label = vz_settings_host_of(cases[i].uri);
        g_assert_cmpstr(uri, ==, cases[i].uri);
        g_assert_cmpstr(label, ==, cases[i].label);
    }
    const char *const bad[] = {"", "a b", "host/path", "user@host"};
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;
        g_assert_null(vz_settings_destination(bad[i], "tcp", &err));
        g_assert_cmpint(err->code, ==, VZ_ERR_INVALID_ARG);
    }
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_settings_destination("hostb", "pigeon", &err));
}

static void check_settings(const char *text, const char *connect, const char *error)
{
    g_autofree char *path = NULL;
    g_autoptr(GError) err = NULL;
    g_auto(vz_settings) settings = {0};
    int fd = g_file_open_tmp("vz-conf-XXXXXX", &path, NULL);
    g_assert_cmpint(fd, >=, 0);
    close(fd);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
    bool ok = vz_settings_load(path, &settings, &err);
    g_unlink(path);
    g_assert_true(ok == (error == NULL));
    if (ok)
        g_assert_cmpstr(settings.connect, ==, connect);
    else
        g_assert_nonnull(strstr(err->message, error));
}

static void test_settings(void)
{
    g_auto(vz_settings) settings = {0};
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_settings_load("/nonexistent/vz.conf", &settings, &err));
    g_assert_cmpstr(settings.connect, ==, "vz:///system");
    g_assert_cmpstr(settings.transport, ==, "tcp");
    check_settings("# none\n\n", "vz:///system", NULL);
    check_settings("connect = vz+tcp://a/system\ntransport=tcp", "vz+tcp://a/system", NULL);
    check_settings("\nconect = x\n", NULL, ", line 2: there is no setting 'conect'");
    check_settings("nonsense\n", NULL, "line 1: 'key = value' is expected");
    check_settings("transport = pigeon\n", NULL, "transport 'pigeon' is not in this version");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/cli/words", test_words);
    g_test_add_func("/cli/word-errors", test_word_errors);
    g_test_add_func("/cli/words-elsewhere", test_words_elsewhere);
    g_test_add_func("/cli/help", test_help);
    g_test_add_func("/cli/format", test_format);
    g_test_add_func("/cli/progress/saw-tooth", test_progress_saw_tooth);
    g_test_add_func("/cli/progress/moves", test_progress_moves);
    g_test_add_func("/cli/reading", test_reading);
    g_test_add_func("/cli/bar", test_bar);
    g_test_add_func("/cli/table", test_table);
    g_test_add_func("/cli/printer/text", test_printer_text);
    g_test_add_func("/cli/printer/json", test_printer_json);
    g_test_add_func("/cli/destination", test_destination);
    g_test_add_func("/cli/settings", test_settings);
    return g_test_run();
}
