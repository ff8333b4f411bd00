/* format.c - see format.h. */
#include "cli/format.h"

#define KIB        1024
#define MS_PER_S   1000
#define S_PER_MIN  60
#define S_PER_HOUR 3600

char *vz_format_bytes(uint64_t bytes)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    if (bytes < KIB)
        return g_strdup_printf("%" G_GUINT64_FORMAT " B", bytes);
    double value = (double)bytes / KIB;
    size_t unit = 0;
    /* 1023.95 would be printed as 1024.0 of the smaller unit. */
    while (value >= KIB - 0.05 && unit + 1 < G_N_ELEMENTS(units)) {
        value /= KIB;
        unit++;
    }
    return g_strdup_printf("%.1f %s", value, units[unit]);
}

char *vz_format_rate(uint64_t bytes_s)
{
    g_autofree char *text = vz_format_bytes(bytes_s);
    return g_strconcat(text, "/s", NULL);
}

char *vz_format_duration(uint64_t ms)
{
    uint64_t s = ms / MS_PER_S;
    if (ms < MS_PER_S)
        return g_strdup_printf("%" G_GUINT64_FORMAT " ms", ms);
    if (s < S_PER_MIN)
        return g_strdup_printf("%" G_GUINT64_FORMAT ".%u s", s, (unsigned)(ms % MS_PER_S / 100));
    if (s < S_PER_HOUR)
        return g_strdup_printf("%" G_GUINT64_FORMAT ":%02u", s / S_PER_MIN,
                               (unsigned)(s % S_PER_MIN));
    return g_strdup_printf("%" G_GUINT64_FORMAT ":%02u:%02u", s / S_PER_HOUR,
                           (unsigned)(s % S_PER_HOUR / S_PER_MIN), (unsigned)(s % S_PER_MIN));
}
