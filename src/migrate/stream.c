/* stream.c - see stream.h. */
#include "migrate/stream.h"

#include <string.h>

static const char *const compress_names[VZ_COMPRESS_COUNT] = {
    [VZ_COMPRESS_NONE] = "none",
    [VZ_COMPRESS_XBZRLE] = "xbzrle",
    [VZ_COMPRESS_ZLIB] = "zlib",
    [VZ_COMPRESS_ZSTD] = "zstd",
};

const vz_stream vz_stream_plain = {
    .level = VZ_STREAM_LEVEL_DEFAULT,
    .cache_bytes = VZ_CACHE_DEFAULT_BYTES,
    .throttle_initial_percent = VZ_STREAM_THROTTLE_INITIAL_DEFAULT,
    .throttle_increment_percent = VZ_STREAM_THROTTLE_INCREMENT_DEFAULT,
};

static void choose_compression(vz_stream *s, const vz_options *options)
{
    bool named = vz_options_has(options, VZ_OPTION_COMPRESSION);
    if (!named && !vz_options_has(options, VZ_OPTION_COMPRESSED))
        return;
    /* QEMU does no post-copy with multifd, and a tunnel is one connection for memory. */
    bool single = s->postcopy || vz_options_has(options, VZ_OPTION_TUNNELLED);
    if (vz_options_has(options, VZ_OPTION_COMPRESSION_XBZRLE) || (!named && single)) {
        s->compress = VZ_COMPRESS_XBZRLE;
        s->cache_bytes =
            vz_options_number(options, VZ_OPTION_COMPRESSION_XBZRLE_CACHE, s->cache_bytes);
        return;
    }
    bool zlib = vz_options_has(options, VZ_OPTION_COMPRESSION_ZLIB);
    s->compress = zlib ? VZ_COMPRESS_ZLIB : VZ_COMPRESS_ZSTD;
    s->level = (unsigned)vz_options_number(
        options, zlib ? VZ_OPTION_COMPRESSION_ZLIB_LEVEL : VZ_OPTION_COMPRESSION_ZSTD_LEVEL,
        s->level);
    if (s->channels == 0)
        s->channels = VZ_STREAM_CHANNELS_DEFAULT;
}

vz_stream vz_stream_choose(const vz_options *options)
{
    vz_stream s = vz_stream_plain;
    s.postcopy = vz_options_has(options, VZ_OPTION_POSTCOPY);
    s.postcopy_bytes_s = vz_options_number(options, VZ_OPTION_BANDWIDTH_POSTCOPY, 0);
    if (vz_options_has(options, VZ_OPTION_PARALLEL))
        s.channels = (unsigned)vz_options_number(options, VZ_OPTION_PARALLEL_CONNECTIONS,
                                                 VZ_STREAM_CHANNELS_DEFAULT);
    choose_compression(&s, options);
    s.auto_converge = vz_options_has(options, VZ_OPTION_AUTO_CONVERGE);
    s.throttle_initial_percent = (unsigned)vz_options_number(
        options, VZ_OPTION_AUTO_CONVERGE_INITIAL, s.throttle_initial_percent);
    s.throttle_increment_percent = (unsigned)vz_options_number(
        options, VZ_OPTION_AUTO_CONVERGE_INCREMENT, s.throttle_increment_percent);
    s.switchover_bytes_s = vz_options_number(options, VZ_OPTION_BANDWIDTH_AVAIL_SWITCHOVER, 0);
    return s;
}

unsigned vz_stream_channels(const vz_stream *stream)
{
    return 1 + stream->channels + (stream->postcopy ? 1 : 0);
}

const char *vz_compress_name(vz_compress compress)
{
    return compress_names[compress];
}

json_t *vz_stream_to_json(const vz_stream *s)
{
    return json_pack("{si ss si sI sb}", "channels", (int)s->channels, "compress",
                     compress_names[s->compress], "level", (int)s->level, "cache-bytes",
                     (json_int_t)s->cache_bytes, "postcopy", (int)s->postcopy);
}

static bool compress_parse(const char *name, vz_compress *ret_compress)
{
    for (vz_compress i = 0; i < VZ_COMPRESS_COUNT; i++)
        if (strcmp(compress_names[i], name) == 0) {
            *ret_compress = i;
            return true;
        }
    return false;
}

/* Whether QEMU can be set up so. */
static bool is_possible(const vz_stream *s)
{
    bool by_multifd = s->compress == VZ_COMPRESS_ZLIB || s->compress == VZ_COMPRESS_ZSTD;
    return (s->channels > 0 ? s->compress != VZ_COMPRESS_XBZRLE && !s->postcopy : !by_multifd);
}

bool vz_stream_from_json(const json_t *object, vz_stream *ret_stream, GError **err)
{
    json_int_t channels = 0;
    json_int_t level = 0;
    json_int_t cache = 0;
    int postcopy = 0;
    const char *compress = NULL;
    vz_stream s = vz_stream_plain;
    bool ok = !object ||
              (json_unpack((json_t *)(uintptr_t)object, "{sI ss sI sI sb}", "channels", &channels,
                           "compress", &compress, "level", &level, "cache-bytes", &cache,
                           "postcopy", &postcopy) == 0 &&
               channels >= 0 && channels <= VZ_STREAM_CHANNELS_MAX && level >= 0 &&
               level <= VZ_STREAM_LEVEL_MAX && cache > 0 && compress_parse(compress, &s.compress));
    if (ok && object) {
        s.channels = (unsigned)channels;
        s.level = (unsigned)level;
        s.cache_bytes = (uint64_t)cache;
        s.postcopy = postcopy != 0;
    }
    if (!ok || !is_possible(&s))
        return vz_fail(err, VZ_ERR_INVALID_ARG,
                       "the source's cookie describes a stream of memory that there is not");
    *ret_stream = s;
    return true;
}
