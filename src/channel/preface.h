/* preface.h - what is said on a channel before it carries bytes.
 *
 *     opener                                        acceptor
 *     prologue (clear, 32 bytes) ─────────────────► port: which job? whose socket is it?
 *     ◄────────── TLS 1.3, both sides pinned ─────► the job's carrier, or the ask server
 *     preface (inside TLS) ───────────────────────► job, purpose, index: each once
 *     ◄─────────────────────────────────── answer   accepted, or refused with a reason
 *     ◄═══════════════ the bytes, both ways ══════►
 *
 * The prologue is not authenticated; it only chooses a key. What it claims is claimed again by the
 * preface, and only that counts. Numbers are big-endian.
 *
 * Versions: preface and answer begin with magic, version and their own length. A reader accepts
 * VZ_CHANNEL_VERSION_MIN to VZ_CHANNEL_VERSION; a later version only appends fields, so that it can
 * read the earlier ones. An opener sends the highest version that both sides named in the cookies.
 *
 * Pure functions; any thread. */
#pragma once

#include "base/error.h"
#include "base/text.h"

#include <stddef.h>
#include <stdint.h>

#define VZ_DATA_PORT 16515 /* default of the config */

#define VZ_CHANNEL_VERSION     1
#define VZ_CHANNEL_VERSION_MIN 1
#define VZ_CHANNEL_INDEX_MAX   1023 /* multifd has at most 255 streams, disks are fewer */

#define VZ_PROLOGUE_BYTES     32
#define VZ_PREFACE_HEAD_BYTES 8
#define VZ_PREFACE_BYTES      32  /* of this version */
#define VZ_PREFACE_MAX_BYTES  256 /* of any later one */
#define VZ_ANSWER_HEAD_BYTES  12
#define VZ_ANSWER_TEXT_MAX    256
#define VZ_ANSWER_MAX_BYTES   (VZ_ANSWER_HEAD_BYTES + VZ_ANSWER_TEXT_MAX)

typedef enum {
#define PURPOSE(id, number, name) VZ_PURPOSE_##id = (number),
#include "purposes.def"
#undef PURPOSE
} vz_purpose;

/* Which of the two ends at a host a connection is for. */
typedef enum {
    VZ_DOOR_CARRIER = 1,
    VZ_DOOR_ASK = 2,
} vz_door;

typedef enum {
    VZ_ANSWER_ACCEPTED = 0,
    VZ_ANSWER_NOT_EXPECTED = 1, /* nobody here waits for this purpose and index */
    VZ_ANSWER_USED = 2,         /* it came already: each is accepted once */
    VZ_ANSWER_WRONG_JOB = 3,    /* preface and key belong to different jobs */
    VZ_ANSWER_VERSION = 4,
    VZ_ANSWER_MALFORMED = 5,
    VZ_ANSWER_BUSY = 6,
} vz_answer;

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    vz_door door;
} vz_prologue;

typedef struct {
    uint16_t version;
    uint8_t job[VZ_UUID_BYTES];
    vz_purpose purpose;
    uint16_t index;
} vz_preface;

/* "memory", "disk", ...; "unknown purpose" for a number without a row. Static. */
const char *vz_purpose_name(unsigned purpose);

void vz_prologue_encode(const vz_prologue *prologue, uint8_t ret_bytes[VZ_PROLOGUE_BYTES]);
/* false: not a prologue that this version understands; nothing is written. */
bool vz_prologue_decode(const uint8_t bytes[VZ_PROLOGUE_BYTES], vz_prologue *ret_prologue);

void vz_preface_encode(const vz_preface *preface, uint8_t ret_bytes[VZ_PREFACE_BYTES]);
/* The length of a whole preface, from its head. 0: malformed or out of bounds. */
size_t vz_preface_length(const uint8_t head[VZ_PREFACE_HEAD_BYTES]);
/* VZ_ANSWER_ACCEPTED where it is well-formed and of a version spoken here; else what to answer. */
vz_answer vz_preface_decode(const uint8_t *bytes, size_t n_bytes, vz_preface *ret_preface);

/* What an answer means, as the refused side shows it. Static. */
const char *vz_answer_text(vz_answer answer);
/* Encodes an answer with its text. Returns its length. */
size_t vz_answer_encode(vz_answer answer, uint8_t ret_bytes[VZ_ANSWER_MAX_BYTES]);
/* The length of a whole answer, from its head. 0: malformed or out of bounds. */
size_t vz_answer_length(const uint8_t head[VZ_ANSWER_HEAD_BYTES]);
/* true: accepted. false: OPERATION_FAILED with the peer's reason (bytes that do not print are
 * replaced), or RPC where the answer is malformed. */
bool vz_answer_check(const uint8_t *bytes, size_t n_bytes, GError **err);
