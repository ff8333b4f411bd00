/* print.c - see print.h. */
#include "cli/print.h"

#include "cli/format.h"

#include <string.h>
#include <sys/ioctl.h>

#define PHASE_COLUMNS 15
#define COLUMNS_WIDE  100
/* Of the terminal's width only: a bar that changed with what stands behind it would jump. */
#define BAR_COLUMNS      12
#define BAR_COLUMNS_WIDE 24
#define COLUMNS_DEFAULT  80
#define LINE_EVERY_US    (5 * (int64_t)1000000)
#define USEC_PER_MSEC    1000

static const struct {
    int code;
    const char *part;
    const char *advice;
} advices[] = {
#define ADVICE(code, part, advice) {code, part, advice},
#include "cli.def"
};

const char *vz_print_advice(const GError *error)
{
    int code = (int)vz_error_number(error);
    for (size_t i = 0; i < G_N_ELEMENTS(advices); i++)
        if (advices[i].code == code && strstr(error->message, advices[i].part))
            return advices[i].advice;
    return NULL;
}

const char *vz_print_outcome(vz_outcome outcome)
{
    static const char *const names[] = {
        [VZ_OUTCOME_MOVED] = "moved",     [VZ_OUTCOME_FAILED] = "failed",
        [VZ_OUTCOME_USAGE] = "usage",     [VZ_OUTCOME_IN_DOUBT] = "in-doubt",
        [VZ_OUTCOME_ABORTED] = "aborted", [VZ_OUTCOME_WOULD_NOT] = "would-not-move",
    };
    return names[outcome];
}

/* What stands behind the bar, most important first; whole pieces only, as far as there is room. */
static char *tail_of(const vz_progress_view *view, const char *guest, size_t room)
{
    g_autoptr(GString) out = g_string_new(NULL);
    g_autoptr(GPtrArray) pieces = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *rate = vz_format_rate(view->bytes_s);
    g_autofree char *left = view->left_ms >= 0 ? vz_format_duration((uint64_t)view->left_ms) : NULL;
    g_ptr_array_add(pieces, g_strdup_printf("%3u %%", view->percent));
    if (view->bytes_s > 0)
        g_ptr_array_add(pieces, g_strdup_printf(" %s", rate));
    if (left)
        g_ptr_array_add(pieces, g_strdup_printf(" %s left", left));
    if (guest)
        g_ptr_array_add(pieces, g_strdup_printf(" guest %s", guest));
    if (view->iteration > 1)
        g_ptr_array_add(pieces, g_strdup_printf(" round %" G_GUINT64_FORMAT, view->iteration));
    for (guint i = 0; i < pieces->len; i++) {
        const char *piece = g_ptr_array_index(pieces, i);
        if (out->len + 1 + strlen(piece) > room)
            break;
        g_string_append_printf(out, " %s", piece);
    }
    return g_string_free(g_steal_pointer(&out), FALSE);
}

char *vz_print_bar(const vz_progress_view *view, const char *guest, unsigned columns)
{
    g_autoptr(GString) out = g_string_new(NULL);
    unsigned width = columns >= COLUMNS_WIDE ? BAR_COLUMNS_WIDE : BAR_COLUMNS;
    size_t fixed = PHASE_COLUMNS + strlen(" []") + width;
    g_autofree char *tail = tail_of(view, guest, columns > fixed ? columns - fixed : 0);
    unsigned full = view->percent * width / 100;
    g_string_append_printf(out, "%-*s [", PHASE_COLUMNS, view->phase);
    for (unsigned i = 0; i < width; i++)
        g_string_append_c(out, i < full ? '#' : '-');
    g_string_append_printf(out, "]%s", tail);
    if (out->len > columns)
        g_string_truncate(out, columns);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

static const char *guest_of(const vz_result *result)
{
    if (result->off_there)
        return "shut off";
    return result->paused_there ? "paused" : "running";
}

static void add_row(GString *out, const char *label, char *take_value)
{
    g_autofree char *value = take_value;
    g_string_append_printf(out, "  %-12s %s\n", label, value);
}

/* "zstd by 2 channels: a sample of its memory shrinks to 31 %..." */
static char *stream_of(const vz_reading *reading)
{
    bool plain = strcmp(reading->compression, "none") == 0;
    g_autoptr(GString) out = g_string_new(plain ? "not compressed" : reading->compression);
    if (reading->channels > 0)
        g_string_append_printf(out, " by %" G_GUINT64_FORMAT " channel%s", reading->channels,
                               reading->channels > 1 ? "s" : "");
    if (*reading->choice)
        g_string_append_printf(out, ": %s", reading->choice);
    return g_string_free(g_steal_pointer(&out), FALSE);
}

void vz_print_add_stream(json_t *object, const vz_reading *reading)
{
    if (!*reading->compression)
        return;
    json_object_set_new(object, "compression", json_string(reading->compression));
    json_object_set_new(object, "channels", json_integer((json_int_t)reading->channels));
    json_object_set_new(object, "choice", json_string(reading->choice));
    if (reading->sample_bytes > 0)
        json_object_set_new(object, "sample",
                            json_pack("{sI sI sI}", "bytes", (json_int_t)reading->sample_bytes,
                                      "packed_bytes", (json_int_t)reading->sample_packed_bytes,
                                      "bytes_per_second", (json_int_t)reading->sample_bytes_s));
}

char *vz_print_table(const vz_result *result)
{
    g_autoptr(GString) out = g_string_new(NULL);
    g_autofree char *bytes = vz_format_bytes(result->bytes);
    g_string_append_printf(out, "%s %s on %s now\n", result->domain,
                           result->paused_there || result->off_there ? "is" : "runs",
                           result->destination);
    add_row(out, "total time", vz_format_duration(result->total_ms));
    if (result->has_downtime)
        add_row(out, "downtime", vz_format_duration(result->downtime_ms));
    if (result->bytes > 0 && result->total_ms > 0) {
        double rate = (double)result->bytes * 1000 / (double)result->total_ms;
        g_autofree char *text = vz_format_rate((uint64_t)rate);
        add_row(out, "data", g_strdup_printf("%s, %s", bytes, text));
    }
    if (result->rounds > 0)
        add_row(out, "rounds", g_strdup_printf("%" G_GUINT64_FORMAT, result->rounds));
    if (result->reading && *result->reading->compression)
        add_row(out, "memory", stream_of(result->reading));
    add_row(out, "there",
            g_strdup_printf("%s, %s", guest_of(result),
                            result->defined_there ? "defined" : "transient"));
    add_row(out, "here", g_strdup(result->kept_here ? "definition kept, shut off" : "removed"));
    return g_string_free(g_steal_pointer(&out), FALSE);
}

void vz_print_json(vz_printer *printer, json_t *take_object)
{
    char *text = json_dumps(take_object, JSON_COMPACT);
    fprintf(printer->out, "%s\n", text);
    fflush(printer->out);
    free(text);
    json_decref(take_object);
}

static unsigned columns_of(FILE *file)
{
    struct winsize size = {0};
    if (ioctl(fileno(file), TIOCGWINSZ, &size) == 0 && size.ws_col > 1)
        return size.ws_col - 1u;
    return COLUMNS_DEFAULT - 1;
}

static void clear_bar(vz_printer *printer)
{
    if (printer->bar_is_shown)
        fputs("\r\033[K", printer->out);
    printer->bar_is_shown = false;
}

/* The phase that is over gets its own line, with the time that it took. */
static bool note_phase(vz_printer *printer, const char *phase, int64_t now_us)
{
    if (strcmp(printer->phase, phase) == 0)
        return false;
    if (*printer->phase && printer->mode == VZ_PRINT_TERMINAL) {
        g_autofree char *took =
            vz_format_duration((uint64_t)(now_us - printer->phase_since_us) / USEC_PER_MSEC);
        clear_bar(printer);
        fprintf(printer->out, "%-*s %s\n", PHASE_COLUMNS, printer->phase, took);
    }
    g_strlcpy(printer->phase, phase, sizeof(printer->phase));
    printer->phase_since_us = now_us;
    return true;
}

static void print_progress_json(vz_printer *printer, const vz_progress_view *view,
                                const char *guest)
{
    json_t *object = json_pack("{ss ss? ss si sI sI sI sI ss?}", "event", "progress", "domain",
                               printer->domain, "phase", view->phase, "percent", (int)view->percent,
                               "bytes_per_second", (json_int_t)view->bytes_s, "left_ms",
                               (json_int_t)view->left_ms, "round", (json_int_t)view->iteration,
                               "elapsed_ms", (json_int_t)view->elapsed_ms, "guest", guest);
    vz_print_json(printer, object);
}

void vz_print_progress(vz_printer *printer, const vz_progress_view *view, const char *guest,
                       int64_t now_us)
{
    if (printer->mode == VZ_PRINT_QUIET)
        return;
    if (printer->mode == VZ_PRINT_JSON) {
        print_progress_json(printer, view, guest);
        return;
    }
    bool changed = note_phase(printer, view->phase, now_us);
    g_autofree char *bar = vz_print_bar(
        view, guest, printer->mode == VZ_PRINT_TERMINAL ? columns_of(printer->out) : G_MAXUINT);
    if (printer->mode == VZ_PRINT_TERMINAL) {
        fprintf(printer->out, "\r%s\033[K", bar);
        printer->bar_is_shown = true;
    } else if (changed || printer->every_reading ||
               now_us - printer->last_line_us >= LINE_EVERY_US) {
        fprintf(printer->out, "%s\n", bar);
        printer->last_line_us = now_us;
    }
    fflush(printer->out);
}

void vz_print_note(vz_printer *printer, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    if (printer->mode == VZ_PRINT_JSON) {
        vz_print_json(printer, json_pack("{ss ss? ss}", "event", "note", "domain", printer->domain,
                                         "text", text));
        return;
    }
    clear_bar(printer);
    fflush(printer->out);
    fprintf(printer->errors, "vz: %s\n", text);
}

void vz_print_moved(vz_printer *printer, const vz_result *result)
{
    g_autofree char *table = vz_print_table(result);
    if (printer->mode != VZ_PRINT_JSON) {
        clear_bar(printer);
        fputs(table, printer->out);
        fflush(printer->out);
        return;
    }
    json_t *object = json_pack(
        "{ss ss si ss ss sI sI sI ss sb sb}", "event", "result", "status",
        vz_print_outcome(VZ_OUTCOME_MOVED), "exit", VZ_OUTCOME_MOVED, "domain", result->domain,
        "destination", result->destination, "total_ms", (json_int_t)result->total_ms, "data_bytes",
        (json_int_t)result->bytes, "rounds", (json_int_t)result->rounds, "guest", guest_of(result),
        "defined_there", result->defined_there, "kept_here", result->kept_here);
    if (result->reading)
        vz_print_add_stream(object, result->reading);
    if (result->has_downtime)
        json_object_set_new(object, "downtime_ms", json_integer((json_int_t)result->downtime_ms));
    vz_print_json(printer, object);
}

void vz_print_failed(vz_printer *printer, vz_outcome outcome, const GError *error, const char *what)
{
    g_autofree char *text = vz_error_text(error);
    const char *advice = vz_print_advice(error);
    if (printer->mode == VZ_PRINT_JSON) {
        vz_print_json(printer, json_pack("{ss ss si ss? si ss ss? ss?}", "event", "error", "status",
                                         vz_print_outcome(outcome), "exit", (int)outcome, "domain",
                                         printer->domain, "code", (int)vz_error_number(error),
                                         "message", text, "detail", what, "advice", advice));
        return;
    }
    clear_bar(printer);
    fflush(printer->out);
    fprintf(printer->errors, "vz: %s\n", text);
    if (what)
        fprintf(printer->errors, "    %s\n", what);
    if (advice)
        fprintf(printer->errors, "    %s\n", advice);
}
