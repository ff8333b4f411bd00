/* choice.c - see choice.h. */
#include "migrate/choice.h"

#include "base/units.h"
#include "driver/qemu/driver.h"
#include "migrate/plan.h"
#include "migrate/uri.h"

#include <stdio.h>

/* Packed has to move so much more memory than plain. */
#define PAYS 1.5
/* One more channel has to be worth it. */
#define ENOUGH  0.9
#define PERCENT 100

static double link_of(const vz_choice_facts *f)
{
    return (double)(f->link_bytes_s ? f->link_bytes_s : VZ_CHOICE_LINK_DEFAULT_BYTES_S);
}

/* Without multifd the main connection carries it. */
static double carries(const vz_choice_facts *f, unsigned channels)
{
    return MIN(link_of(f), (double)VZ_CHOICE_CHANNEL_BYTES_S * MAX(channels, 1));
}

static bool has_sample(const vz_choice_facts *f)
{
    return f->sample.tried_bytes >= VZ_SAMPLE_PACK_MIN && f->sample.packed_bytes > 0;
}

static bool packs(const vz_stream *s)
{
    return s->compress == VZ_COMPRESS_ZSTD || s->compress == VZ_COMPRESS_ZLIB;
}

/* Memory a second. */
static double moves(const vz_choice_facts *f, unsigned channels, bool packed)
{
    double on_wire = carries(f, channels);
    if (!packed || !has_sample(f))
        return on_wire;
    double ratio = (double)f->sample.tried_bytes / (double)f->sample.packed_bytes;
    return MIN(on_wire * ratio, (double)f->sample.pack_bytes_s * channels);
}

/* As few channels as move nearly as much as all that may be. */
static unsigned channels_for(const vz_choice *c, bool packed)
{
    unsigned most = CLAMP(c->facts.here.cpus, 1, VZ_CHOICE_CHANNELS_MAX);
    unsigned n = 1;
    if (!c->stream.free_channels)
        return c->stream.channels;
    while (n < most && moves(&c->facts, n, packed) < ENOUGH * moves(&c->facts, most, packed))
        n++;
    return packed || n > 1 ? n : 0;
}

static void explain_sample(vz_choice *c, bool pays)
{
    const vz_sample *s = &c->facts.sample;
    char verdict[VZ_JOB_MESSAGE_MAX / 2] = "whether that pays is not known, since the speed of the "
                                           "link is not (--bandwidth would say it)";
    if (c->facts.link_bytes_s)
        snprintf(verdict, sizeof(verdict), "that %s for a link of %.0f MiB/s",
                 pays ? "pays" : "does not pay", (double)c->facts.link_bytes_s / (double)VZ_MIB);
    snprintf(c->why, sizeof(c->why),
             "a sample of its memory shrinks to %.0f %%, at %.0f MiB/s a processor; %s",
             PERCENT * (double)s->packed_bytes / (double)s->tried_bytes,
             (double)s->pack_bytes_s / (double)VZ_MIB, verdict);
}

static void decide_compression(vz_choice *c)
{
    if (!c->facts.here.zstd || !c->facts.here.multifd) {
        g_strlcpy(c->why, "QEMU here cannot compress by zstd", sizeof(c->why));
        return;
    }
    if (!has_sample(&c->facts)) {
        g_strlcpy(c->why, "there is no sample of its memory, so it is not compressed",
                  sizeof(c->why));
        return;
    }
    unsigned packed = channels_for(c, true), plain = channels_for(c, false);
    bool pays = c->facts.link_bytes_s > 0 && packed > 0 &&
                moves(&c->facts, packed, true) >= PAYS * moves(&c->facts, plain, false);
    c->stream.compress = pays ? VZ_COMPRESS_ZSTD : VZ_COMPRESS_NONE;
    explain_sample(c, pays);
}

static const char *why_not_free(const vz_options *options)
{
    static const struct {
        vz_option_id option;
        const char *why;
    } rows[] = {
        {VZ_OPTION_COMPRESSION, "compressed as asked"},
        {VZ_OPTION_COMPRESSED, "compressed as asked"},
        {VZ_OPTION_NO_COMPRESSED, "not compressed, as asked"},
        {VZ_OPTION_POSTCOPY, "QEMU does post-copy by one connection, uncompressed"},
        {VZ_OPTION_TUNNELLED, "a tunnel is one connection, uncompressed"},
        {VZ_OPTION_URI_UNIX, "a socket of the caller's is one connection, uncompressed"},
        {VZ_OPTION_ZEROCOPY, "what is not copied cannot be compressed"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        if (vz_options_has(options, rows[i].option))
            return rows[i].why;
    return "";
}

void vz_choice_decide(vz_choice *c, const vz_options *options)
{
    vz_stream *s = &c->stream;
    *s = vz_stream_asked(options);
    g_strlcpy(c->why, why_not_free(options), sizeof(c->why));
    if (s->free_compress)
        decide_compression(c);
    if (s->free_channels)
        s->channels = channels_for(c, packs(s));
    vz_stream_narrow(s, &c->facts.here);
}

bool vz_choice_take_answer(vz_stream *stream, char why[VZ_JOB_MESSAGE_MAX], const json_t *answer,
                           GError **err)
{
    const vz_stream chosen = *stream;
    if (!vz_stream_take_answer(stream, answer, err))
        return false;
    if (stream->channels != chosen.channels || stream->compress != chosen.compress)
        g_strlcpy(why, "the destination has not the processors, or the QEMU, for more",
                  VZ_JOB_MESSAGE_MAX);
    return true;
}

double vz_choice_shrinks_to(const vz_choice *c)
{
    const vz_sample *s = &c->facts.sample;
    return packs(&c->stream) && has_sample(&c->facts)
               ? (double)s->packed_bytes / (double)s->tried_bytes
               : 1;
}

uint64_t vz_choice_packs_bytes_s(const vz_choice *c)
{
    return packs(&c->stream) && has_sample(&c->facts)
               ? c->facts.sample.pack_bytes_s * c->stream.channels
               : 0;
}

vz_stream_host vz_choice_host(const vz_qemu_caps *caps)
{
    vz_stream_host host = {.cpus = g_get_num_processors()};
    if (caps) {
        host.multifd = vz_qemu_caps_has_migration_capability(caps, "multifd");
        host.zstd = vz_qemu_caps_has_migration_parameter(caps, VZ_QEMU_PARAMETER_ZSTD);
    }
    return host;
}

typedef struct {
    pid_t pid;
    int64_t taken_us;
    vz_sample sample;
} kept_sample;

static GMutex kept_lock;
static GHashTable *kept; /* kept_sample by the domain's UUID, of the last minute */

static gboolean is_old(void *uuid, void *value, void *now_us)
{
    (void)uuid;
    return ((const kept_sample *)value)->taken_us + VZ_CHOICE_GOOD_US < *(const int64_t *)now_us;
}

static bool find_kept(const vz_domain *domain, pid_t pid, vz_sample *ret)
{
    int64_t now_us = vz_now_us();
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&kept_lock);
    if (!kept)
        kept = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    g_hash_table_foreach_remove(kept, is_old, &now_us);
    const kept_sample *k = g_hash_table_lookup(kept, vz_domain_uuid_text(domain));
    if (k && k->pid == pid)
        *ret = k->sample;
    return k && k->pid == pid;
}

static void take_sample(const vz_domain *domain, pid_t pid, uint64_t ram_bytes, vz_sample *ret)
{
    if (find_kept(domain, pid, ret) || !vz_sample_memory(pid, ram_bytes, ret))
        return;
    kept_sample *k = g_new0(kept_sample, 1);
    *k = (kept_sample){.pid = pid, .taken_us = vz_now_us(), .sample = *ret};
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&kept_lock);
    g_hash_table_insert(kept, g_strdup(vz_domain_uuid_text(domain)), k);
}

/* Where packing is asked for the sample says by how many processors. */
static bool sample_matters(const vz_stream *asked)
{
    return asked->free_compress || (packs(asked) && asked->free_channels);
}

/* Where the caller names another network memory goes by that. */
static char *peer_of(const vz_options *options, const char *connected)
{
    g_autofree char *host = NULL;
    g_autoptr(GError) ignored = NULL; /* it was read before */
    const char *uri = vz_options_text(options, VZ_OPTION_URI);
    bool named = uri && vz_uri_parse_data(uri, &host, NULL, &ignored);
    return named && g_hostname_is_ip_address(host) ? g_steal_pointer(&host) : g_strdup(connected);
}

void vz_choice_make(vz_choice *c, vz_domain *domain, const vz_options *options, const char *peer)
{
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(domain);
    vz_qemu *qemu = vz_driver_qemu_of(domain);
    uint64_t cap = vz_options_number(options, VZ_OPTION_BANDWIDTH, snapshot->max_speed_bytes_s);
    vz_stream asked = vz_stream_asked(options);
    *c = (vz_choice){.facts.here = vz_choice_host(qemu ? vz_qemu_get_caps(qemu) : NULL)};
    g_autofree char *from = NULL;
    g_autofree char *address = peer_of(options, peer);
    c->facts.link_bytes_s = vz_plan_rate(address, cap, &from);
    if (qemu && snapshot->live && sample_matters(&asked))
        take_sample(domain, vz_qemu_pid(qemu), snapshot->live->ram_bytes, &c->facts.sample);
    vz_choice_decide(c, options);
    if (snapshot->cache_bytes && !vz_options_has(options, VZ_OPTION_COMPRESSION_XBZRLE_CACHE))
        c->stream.cache_bytes = snapshot->cache_bytes;
}

void vz_choice_show_stream(const vz_stream *stream, vz_job_stats *stats)
{
    stats->has_stream = true;
    stats->stream_channels = stream->channels;
    g_strlcpy(stats->stream_compress, vz_compress_name(stream->compress),
              sizeof(stats->stream_compress));
}

void vz_choice_show(const vz_choice *c, vz_job_stats *stats)
{
    vz_choice_show_stream(&c->stream, stats);
    g_strlcpy(stats->stream_why, c->why, sizeof(stats->stream_why));
    stats->has_sample = has_sample(&c->facts);
    stats->sample_bytes = c->facts.sample.tried_bytes;
    stats->sample_packed_bytes = c->facts.sample.packed_bytes;
    stats->sample_bytes_s = c->facts.sample.pack_bytes_s;
}
