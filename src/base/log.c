/* log.c - see log.h. A line is one write(2), so that threads and processes do not mix within it. */
#include "base/log.h"

#include <string.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096

static vz_log_level threshold = VZ_LOG_INFO;

static const struct {
    const char *word;
    vz_log_level level;
} levels[] = {
    {"error", VZ_LOG_ERROR},
    {"warn", VZ_LOG_WARN},
    {"info", VZ_LOG_INFO},
    {"debug", VZ_LOG_DEBUG},
};

void vz_log_set_level(vz_log_level level)
{
    threshold = level;
}

gboolean vz_log_level_parse(const char *word, vz_log_level *ret_level)
{
    for (size_t i = 0; i < G_N_ELEMENTS(levels); i++) {
        if (strcmp(levels[i].word, word) == 0) {
            *ret_level = levels[i].level;
            return TRUE;
        }
    }
    return FALSE;
}

static const char *level_word(vz_log_level level)
{
    for (size_t i = 0; i < G_N_ELEMENTS(levels); i++)
        if (levels[i].level == level)
            return levels[i].word;
    return "?";
}

void vz_log(vz_log_level level, const char *subject, const char *format, ...)
{
    if (level > threshold)
        return;
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    /* A guest's or peer's words must not forge a second line. */
    g_strdelimit(text, "\n\r", ' ');
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    g_autofree char *when = g_date_time_format(now, "%Y-%m-%dT%H:%M:%S");
    g_autofree char *line =
        g_strdup_printf("%s.%03dZ %-5s %s%s%s\n", when, g_date_time_get_microsecond(now) / 1000,
                        level_word(level), subject ? subject : "", subject ? ": " : "", text);
    size_t length = strlen(line);
    if (length > LINE_MAX_BYTES) {
        length = LINE_MAX_BYTES;
        line[length - 1] = '\n';
    }
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written; /* there is nowhere left to report it */
}
