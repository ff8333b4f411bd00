/* log.h - one line per event on standard error, as journald wants it.
 *
 * The subject names what the line is about: a domain, a job, a connection; NULL for the program
 * itself. Any thread. Only `api`, the saga and programs' mains log; a function that returns an
 * error does not log it too. No secrets; no XML above debug. */
#pragma once

#include <glib.h>

typedef enum { VZ_LOG_ERROR = 3, VZ_LOG_WARN = 4, VZ_LOG_INFO = 6, VZ_LOG_DEBUG = 7 } vz_log_level;

/* Lines above the level are dropped. Default: INFO. Call before threads start. */
void vz_log_set_level(vz_log_level level);
/* Parses "error", "warn", "info" or "debug". false: unknown word, nothing changed. */
gboolean vz_log_level_parse(const char *word, vz_log_level *ret_level);

void vz_log(vz_log_level level, const char *subject, const char *format, ...) G_GNUC_PRINTF(3, 4);

#define vz_error(subject, ...) vz_log(VZ_LOG_ERROR, subject, __VA_ARGS__)
#define vz_warn(subject, ...)  vz_log(VZ_LOG_WARN, subject, __VA_ARGS__)
#define vz_info(subject, ...)  vz_log(VZ_LOG_INFO, subject, __VA_ARGS__)
#define vz_debug(subject, ...) vz_log(VZ_LOG_DEBUG, subject, __VA_ARGS__)
