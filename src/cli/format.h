/* format.h - numbers for people. Pure; any thread; callers free. */
#pragma once

#include <glib.h>
#include <stdint.h>

/* "0 B", "1023 B", "1.0 KiB", "97.7 MiB", "1.5 GiB". */
char *vz_format_bytes(uint64_t bytes);
/* The same with "/s". */
char *vz_format_rate(uint64_t bytes_s);
/* "63 ms", "4.2 s", "2:05", "1:00:00". */
char *vz_format_duration(uint64_t ms);
