/* stream.h - how a guest's memory travels: what the QEMUs of both sides have to agree on.
 *
 * The source decides, from what the caller asked for and by a choice of its own (choice.h); the
 * destination is told in Begin's cookie, takes away what it cannot of what nobody asked for, sets
 * its QEMU up alike, and says so in Prepare's. What only the source's QEMU needs is not sent.
 *
 * Plain data, pure functions; any thread. */
#pragma once

#include "domain/job.h"
#include "migrate/options.h"

#include <jansson.h>

/* As QEMU and libvirt, where PARALLEL names no number. */
#define VZ_STREAM_CHANNELS_DEFAULT 2
#define VZ_STREAM_CHANNELS_MAX     255
/* QEMU's own values, to which a QEMU goes back that was tuned for a move that failed. */
#define VZ_STREAM_LEVEL_DEFAULT              1
#define VZ_STREAM_LEVEL_MAX                  20
#define VZ_STREAM_THROTTLE_INITIAL_DEFAULT   20
#define VZ_STREAM_THROTTLE_INCREMENT_DEFAULT 10

typedef enum {
    VZ_COMPRESS_NONE,
    VZ_COMPRESS_XBZRLE, /* without multifd only */
    VZ_COMPRESS_ZLIB,   /* with multifd only */
    VZ_COMPRESS_ZSTD,   /* with multifd only */
    VZ_COMPRESS_COUNT
} vz_compress;

typedef struct {
    unsigned channels; /* of multifd, beside the main one; 0: without multifd */
    vz_compress compress;
    unsigned level;       /* of zlib, zstd */
    uint64_t cache_bytes; /* of xbzrle */
    bool postcopy;
    /* Nobody asked for just this: the destination may take fewer, or uncompressed ones. */
    bool free_channels;
    bool free_compress;
    /* the source's own */
    bool auto_converge;
    unsigned throttle_initial_percent;
    unsigned throttle_increment_percent;
    uint64_t switchover_bytes_s; /* to reckon with at the end; 0: what was measured */
    uint64_t postcopy_bytes_s;   /* after the switch to post-copy; 0: no limit */
    bool zerocopy;
    /* each side's own, of a direct stream */
    const char *tls_creds;    /* id of QEMU's credentials; "": not encrypted. Static */
    const char *tls_hostname; /* source: to expect in the certificate, while the stream is begun */
} vz_stream;

/* One connection, nothing compressed, nothing tuned. */
extern const vz_stream vz_stream_plain;

/* What the options ask for. What they leave open is free, and plain until choice.h fills it in. */
vz_stream vz_stream_asked(const vz_options *options);

/* What a host has for it: its QEMU and its processors. */
typedef struct {
    bool multifd, zstd;
    unsigned cpus;
} vz_stream_host;

/* Takes away from what is free what that host cannot, or has not the processors for. */
void vz_stream_narrow(vz_stream *stream, const vz_stream_host *host);

/* Of the destination's answer, narrowed from `stream`, what is free. INVALID_ARG: it is something
 * else. */
bool vz_stream_take_answer(vz_stream *stream, const json_t *answer, GError **err);

/* How many connections there will be: the main one, those of multifd, and that for the pages that a
 * guest waits for in post-copy. */
unsigned vz_stream_channels(const vz_stream *stream);

/* "none", "xbzrle"...: QEMU's and libvirt's words. Static. */
const char *vz_compress_name(vz_compress compress);

/* For the cookies of Begin and Prepare; caller decrefs. */
json_t *vz_stream_to_json(const vz_stream *stream);
/* A peer's; NULL (of an earlier version) is the plain one. INVALID_ARG: no such stream exists. */
bool vz_stream_from_json(const json_t *object, vz_stream *ret_stream, GError **err);
