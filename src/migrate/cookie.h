/* cookie.h - what the two daemons tell each other through the client, phase by phase.
 *
 * One JSON object, versioned; a member that a phase does not carry is absent. No secret travels in
 * it but `invitation` (offline.h) and `release`: the proof that the source's last state has been
 * let go and has arrived, without which the destination never commits (a Finish that comes too
 * early is refused). The source shows its SHA-256 in Begin and the proof itself only when Perform
 * succeeds.
 *
 *     begin    source      who, key fingerprint, hash of the proof, disks offered; and how to ask
 * it later: incarnation, data port, address if it is configured; facts prepare  destination who,
 * key fingerprint, incarnation, data port, disks answered perform  source      the proof, the
 * persistent definition, how long the guest has been paused finish   destination the state, what
 * the switch took there
 *
 * Pure functions; any thread. */
#pragma once

#include "base/text.h"

#include <jansson.h>

/* Every version from 1 on is read. A member that a reader may ignore makes no new one. */
#define VZ_COOKIE_VERSION   1
#define VZ_COOKIE_BYTES_MAX ((size_t)1024 * 1024) /* libvirt allows 4 MiB; ours need kilobytes */
#define VZ_RELEASE_BYTES    32

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    char *host_name;
    uint8_t host_uuid[VZ_UUID_BYTES];
    char *fingerprint;    /* begin, prepare: of the job's key on that side */
    char *release_hash;   /* begin: hex */
    char *release;        /* perform: hex */
    char *incarnation;    /* begin, prepare: of that side's records */
    char *address;        /* begin, prepare: of that side's data port, if it says one */
    char *invitation;     /* begin, offline: by which the source will know the destination; hex */
    uint16_t port;        /* begin, prepare: data port */
    uint16_t direct_port; /* prepare: on which QEMU listens for a direct TCP stream; 0: none */
    json_t *disks;        /* begin, prepare: identify.h */
    json_t *facts;        /* begin: of the source and its guest, facts.h */
    json_t *stream;       /* begin, prepare: stream.h; NULL: plain, as offered */
    char *config_xml;     /* perform: the persistent definition, where one is to be kept */
    bool running;         /* perform: the guest is to run when it has arrived */
    uint64_t paused_us; /* perform: between the guest's stop and the end of Perform; finish: between
                           the arrival of Finish and the guest's resumption */
    uint64_t reply_us;  /* finish: between the guest's resumption and the reply */
    json_t *stats;      /* perform: the job's statistics, for the destination's own record */
} vz_cookie;

void vz_cookie_clear(vz_cookie *cookie);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC(vz_cookie, vz_cookie_clear)

/* A new text; caller frees. */
char *vz_cookie_format(const vz_cookie *cookie);

/* Reads what a peer or client sent. INVALID_ARG says what is wrong with it and of which phase it
 * should have been; members of the wrong type count as wrong, unknown ones are ignored (a later
 * version may add some). */
bool vz_cookie_parse(const void *data, size_t bytes, const char *phase, vz_cookie *ret_cookie,
                     GError **err);

/* A fresh proof and its hash, as hex. Callers free. */
char *vz_release_generate(void);
char *vz_release_hash(const char *release);
