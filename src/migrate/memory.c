/* memory.c - see memory.h. */
#include "migrate/memory.h"

#include <string.h>

#define PASSES_PER_STEP 3
#define ZERO_COPY       "zero-copy-send"

vz_memory_status vz_memory_status_parse(const char *word)
{
    static const struct {
        const char *word;
        vz_memory_status status;
    } words[] = {
        {"setup", VZ_MEMORY_ACTIVE},
        {"active", VZ_MEMORY_ACTIVE},
        {"wait-unplug", VZ_MEMORY_ACTIVE},
        {"cancelling", VZ_MEMORY_ACTIVE},
        {"pre-switchover", VZ_MEMORY_PRE_SWITCHOVER},
        {"device", VZ_MEMORY_DEVICE},
        {"postcopy-device", VZ_MEMORY_DEVICE},
        {"postcopy-active", VZ_MEMORY_POSTCOPY},
        {"postcopy-recover-setup", VZ_MEMORY_POSTCOPY_RECOVERING},
        {"postcopy-recover", VZ_MEMORY_POSTCOPY_RECOVERING},
        {"postcopy-paused", VZ_MEMORY_POSTCOPY_PAUSED},
        {"completed", VZ_MEMORY_COMPLETED},
        {"failed", VZ_MEMORY_FAILED},
        {"cancelled", VZ_MEMORY_CANCELLED},
    };
    for (size_t i = 0; word && i < G_N_ELEMENTS(words); i++)
        if (strcmp(words[i].word, word) == 0)
            return words[i].status;
    return VZ_MEMORY_NONE;
}

/* --- what QEMU is told before --- */

enum {
    ALWAYS = 1u << 0,
    WITH_MULTIFD = 1u << 1,
    WITH_XBZRLE = 1u << 2,
    WITH_POSTCOPY = 1u << 3,
    WITH_AUTO_CONVERGE = 1u << 4,
    LATER = 0, /* when the parameters are set, of which it allows some values only */
};
enum { SENDER = 1u << 0, RECEIVER = 1u << 1, BOTH = SENDER | RECEIVER };

/* All are set at each move, on or off: the QEMU may have been told otherwise for one that failed.
 */
static const struct {
    const char *name;
    unsigned sides;
    unsigned when;
} capabilities[] = {
    {"events", BOTH, ALWAYS},
    {"return-path", BOTH, ALWAYS},
    {"pause-before-switchover", SENDER, ALWAYS},
    {"late-block-activate", RECEIVER, ALWAYS},
    {"multifd", BOTH, WITH_MULTIFD},
    {"xbzrle", BOTH, WITH_XBZRLE},
    {"postcopy-ram", BOTH, WITH_POSTCOPY},
    {"postcopy-preempt", BOTH, WITH_POSTCOPY},
    {"auto-converge", SENDER, WITH_AUTO_CONVERGE},
    {ZERO_COPY, SENDER, LATER},
};

static unsigned wanted_of(const vz_stream *s)
{
    return ALWAYS | (s->channels ? WITH_MULTIFD : 0) |
           (s->compress == VZ_COMPRESS_XBZRLE ? WITH_XBZRLE : 0) |
           (s->postcopy ? WITH_POSTCOPY : 0) | (s->auto_converge ? WITH_AUTO_CONVERGE : 0);
}

static bool refuse(const char *name, const vz_qemu_caps *caps, GError **err)
{
    return vz_fail(err, VZ_ERR_ARGUMENT_UNSUPPORTED,
                   "Migration option '%s' is not supported by QEMU binary '%s' here", name,
                   vz_qemu_caps_emulator(caps));
}

static bool set_capabilities(vz_qemu *qemu, unsigned side, const vz_stream *stream, GError **err)
{
    const vz_qemu_caps *caps = vz_qemu_get_caps(qemu);
    unsigned wanted = wanted_of(stream);
    json_t *list = json_array();
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        bool on = (capabilities[i].when & wanted) && (capabilities[i].sides & side);
        bool known = vz_qemu_caps_has_migration_capability(caps, capabilities[i].name);
        if (on && !known) {
            json_decref(list);
            return refuse(capabilities[i].name, caps, err);
        }
        if (known)
            json_array_append_new(
                list, json_pack("{ss sb}", "capability", capabilities[i].name, "state", (int)on));
    }
    return vz_qmp_do(vz_qemu_qmp(qemu), "migrate-set-capabilities",
                     json_pack("{so}", "capabilities", list), VZ_QMP_TIMEOUT_US, err);
}

static const char *multifd_method(const vz_stream *s)
{
    return vz_compress_name(s->compress == VZ_COMPRESS_XBZRLE ? VZ_COMPRESS_NONE : s->compress);
}

static int level_if(const vz_stream *s, vz_compress compress)
{
    return s->compress == compress ? (int)s->level : VZ_STREAM_LEVEL_DEFAULT;
}

static json_t *parameters(const vz_stream *s)
{
    return json_pack("{si ss si si sI si si sI sI ss ss}", "multifd-channels",
                     s->channels ? (int)s->channels : VZ_STREAM_CHANNELS_DEFAULT,
                     "multifd-compression", multifd_method(s), "multifd-zlib-level",
                     level_if(s, VZ_COMPRESS_ZLIB), "multifd-zstd-level",
                     level_if(s, VZ_COMPRESS_ZSTD), "xbzrle-cache-size", (json_int_t)s->cache_bytes,
                     "cpu-throttle-initial", (int)s->throttle_initial_percent,
                     "cpu-throttle-increment", (int)s->throttle_increment_percent,
                     "max-postcopy-bandwidth", (json_int_t)s->postcopy_bytes_s,
                     "avail-switchover-bandwidth", (json_int_t)s->switchover_bytes_s, "tls-creds",
                     s->tls_creds, "tls-hostname", s->tls_hostname);
}

/* One that this QEMU has not is left out where it would say nothing new. */
static bool set_parameters(vz_qemu *qemu, const vz_stream *stream, GError **err)
{
    const vz_qemu_caps *caps = vz_qemu_get_caps(qemu);
    json_t *wanted = parameters(stream);
    json_t *plain = parameters(&vz_stream_plain);
    const char *name;
    const char *unknown = NULL;
    void *next;
    json_t *value;
    json_object_foreach_safe(wanted, next, name, value)
    {
        if (vz_qemu_caps_has_migration_parameter(caps, name))
            continue;
        if (!json_equal(value, json_object_get(plain, name)))
            unknown = name;
        else
            json_object_del(wanted, name);
    }
    bool ok = !unknown || refuse(unknown, caps, err);
    json_decref(plain);
    if (ok)
        return vz_qmp_do(vz_qemu_qmp(qemu), "migrate-set-parameters", wanted, VZ_QMP_TIMEOUT_US,
                         err);
    json_decref(wanted);
    return false;
}

static bool set_zero_copy(vz_qemu *qemu, GError **err)
{
    json_t *args = json_pack("{s[{ss sb}]}", "capabilities", "capability", ZERO_COPY, "state", 1);
    return vz_qmp_do(vz_qemu_qmp(qemu), "migrate-set-capabilities", args, VZ_QMP_TIMEOUT_US, err);
}

static bool set_up(vz_qemu *qemu, unsigned side, const vz_stream *stream, GError **err)
{
    return set_capabilities(qemu, side, stream, err) && set_parameters(qemu, stream, err) &&
           (side != SENDER || !stream->zerocopy || set_zero_copy(qemu, err));
}

bool vz_memory_set_limits(vz_qmp *qmp, const vz_memory_limits *limits, GError **err)
{
    uint64_t bandwidth =
        limits->bandwidth_bytes_s ? limits->bandwidth_bytes_s : VZ_BANDWIDTH_UNLIMITED_BYTES_S;
    json_t *args = json_pack("{sI sI}", "max-bandwidth", (json_int_t)bandwidth, "downtime-limit",
                             (json_int_t)limits->downtime_limit_ms);
    return vz_qmp_do(qmp, "migrate-set-parameters", args, VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_set_cache(vz_qmp *qmp, uint64_t bytes, GError **err)
{
    return vz_qmp_do(qmp, "migrate-set-parameters",
                     json_pack("{sI}", "xbzrle-cache-size", (json_int_t)bytes), VZ_QMP_TIMEOUT_US,
                     err);
}

static json_t *uri_of(const char *path)
{
    g_autofree char *uri = g_strconcat(*path == '/' ? "unix:" : "", path, NULL);
    return json_pack("{ss}", "uri", uri);
}

bool vz_memory_send(vz_qemu *qemu, const char *path, const vz_stream *stream,
                    const vz_memory_limits *limits, GError **err)
{
    return set_up(qemu, SENDER, stream, err) &&
           vz_memory_set_limits(vz_qemu_qmp(qemu), limits, err) &&
           vz_qmp_do(vz_qemu_qmp(qemu), "migrate", uri_of(path), VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_receive(vz_qemu *qemu, const char *path, const vz_stream *stream, GError **err)
{
    return set_up(qemu, RECEIVER, stream, err) &&
           vz_qmp_do(vz_qemu_qmp(qemu), "migrate-incoming", uri_of(path), VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_release(vz_qmp *qmp, GError **err)
{
    return vz_qmp_do(qmp, "migrate-continue", json_pack("{ss}", "state", "pre-switchover"),
                     VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_cancel(vz_qmp *qmp, GError **err)
{
    return vz_qmp_do(qmp, "migrate_cancel", NULL, VZ_QMP_TIMEOUT_US, err);
}

/* --- post-copy --- */

bool vz_memory_is_postcopy(vz_memory_status status)
{
    return status == VZ_MEMORY_POSTCOPY || status == VZ_MEMORY_POSTCOPY_PAUSED ||
           status == VZ_MEMORY_POSTCOPY_RECOVERING;
}

bool vz_memory_start_postcopy(vz_qmp *qmp, GError **err)
{
    return vz_qmp_do(qmp, "migrate-start-postcopy", NULL, VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_set_postcopy_rate(vz_qmp *qmp, uint64_t bytes_s, GError **err)
{
    return vz_qmp_do(qmp, "migrate-set-parameters",
                     json_pack("{sI}", "max-postcopy-bandwidth", (json_int_t)bytes_s),
                     VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_pause_postcopy(vz_qmp *qmp, GError **err)
{
    return vz_qmp_do_out_of_band(qmp, "migrate-pause", NULL, VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_recover(vz_qmp *qmp, const char *path, GError **err)
{
    return vz_qmp_do_out_of_band(qmp, "migrate-recover", uri_of(path), VZ_QMP_TIMEOUT_US, err);
}

bool vz_memory_resume(vz_qmp *qmp, const char *path, GError **err)
{
    json_t *args = uri_of(path);
    json_object_set_new(args, "resume", json_true());
    return vz_qmp_do(qmp, "migrate", args, VZ_QMP_TIMEOUT_US, err);
}

/* --- statistics --- */

static uint64_t number(const json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    double real = json_number_value(value);
    return real > 0
               ? (json_is_integer(value) ? (uint64_t)json_integer_value(value) : (uint64_t)real)
               : 0;
}

static void read_stats(const json_t *info, vz_job_stats *stats)
{
    const json_t *ram = json_object_get(info, "ram");
    const json_t *xbzrle = json_object_get(info, "xbzrle-cache");
    const json_t *throttle = json_object_get(info, "cpu-throttle-percentage");
    stats->time_elapsed_ms = number(info, "total-time");
    stats->has_downtime = true;
    stats->downtime_ms = json_object_get(info, "downtime") ? number(info, "downtime")
                                                           : number(info, "expected-downtime");
    stats->has_setup_time = true;
    stats->setup_time_ms = number(info, "setup-time");
    stats->has_auto_converge = throttle != NULL;
    stats->auto_converge_throttle_percent = (int32_t)json_integer_value(throttle);
    stats->has_compression = xbzrle != NULL;
    stats->compression_cache_bytes = number(xbzrle, "cache-size");
    stats->compression_bytes = number(xbzrle, "bytes");
    stats->compression_pages = number(xbzrle, "pages");
    stats->compression_cache_misses = number(xbzrle, "cache-miss");
    stats->compression_overflow = number(xbzrle, "overflow");
    if (!ram)
        return;
    stats->memory_total_bytes = number(ram, "total");
    stats->memory_processed_bytes = number(ram, "transferred");
    stats->memory_remaining_bytes = number(ram, "remaining");
    /* QEMU reports megabits of 10^6 a second. */
    stats->memory_bytes_s = (uint64_t)(json_number_value(json_object_get(ram, "mbps")) * 125000.0);
    stats->has_memory_pages = true;
    stats->memory_constant_pages = number(ram, "duplicate");
    stats->memory_normal_pages = number(ram, "normal");
    stats->memory_normal_bytes = number(ram, "normal-bytes");
    stats->memory_dirty_pages_s = number(ram, "dirty-pages-rate");
    stats->memory_page_bytes = number(ram, "page-size");
    stats->memory_iteration = number(ram, "dirty-sync-count");
    stats->memory_postcopy_requests = number(ram, "postcopy-requests");
}

bool vz_memory_query(vz_qmp *qmp, vz_memory_status *ret_status, vz_job_stats *stats,
                     char **ret_reason, GError **err)
{
    json_t *info = vz_qmp_command(qmp, "query-migrate", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!info)
        return false;
    const char *reason = json_string_value(json_object_get(info, "error-desc"));
    *ret_status = vz_memory_status_parse(json_string_value(json_object_get(info, "status")));
    if (stats)
        read_stats(info, stats);
    if (ret_reason)
        *ret_reason = g_strdup(reason ? reason : "");
    json_decref(info);
    return true;
}

uint16_t vz_memory_port(vz_qmp *qmp, GError **err)
{
    json_t *info = vz_qmp_command(qmp, "query-migrate", NULL, VZ_QMP_TIMEOUT_US, err);
    const json_t *address = json_array_get(json_object_get(info, "socket-address"), 0);
    const char *text = json_string_value(json_object_get(address, "port"));
    guint64 port = 0;
    if (info && !(text && g_ascii_string_to_unsigned(text, 10, 1, UINT16_MAX, &port, NULL)))
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "QEMU does not say on which port it listens");
    json_decref(info);
    return (uint16_t)port;
}

uint64_t vz_memory_downtime_step_ms(uint64_t pass)
{
    uint64_t limit_ms = VZ_DOWNTIME_LIMIT_FIRST_MS;
    for (uint64_t p = PASSES_PER_STEP; p < pass && limit_ms < VZ_DOWNTIME_LIMIT_LAST_MS;
         p += PASSES_PER_STEP)
        limit_ms = MIN(limit_ms * 2, VZ_DOWNTIME_LIMIT_LAST_MS);
    return limit_ms;
}
