/* preface.c - see preface.h. All layouts are here:
 *
 *     prologue  magic 8 | version u16 | door u8 | zero 5 | job 16                          = 32
 *     preface   magic 4 | version u16 | length u16 | job 16 | purpose u16 | index u16 | zero 4 = 32
 *     answer    magic 4 | version u16 | length u16 | answer u16 | zero 2 | reason, UTF-8 */
#include "channel/preface.h"

#include <string.h>

static const uint8_t prologue_magic[8] = {'v', 'z', '-', 'c', 'h', 'a', 'n', '\n'};
static const uint8_t preface_magic[4] = {'v', 'z', 'p', 'f'};
static const uint8_t answer_magic[4] = {'v', 'z', 'a', 'n'};

/* The prologue's own layout; it can stay while the version of the channel goes up. */
#define PROLOGUE_VERSION 1

#define PROLOGUE_VERSION_AT 8
#define PROLOGUE_DOOR_AT    10
#define PROLOGUE_ZERO_AT    11
#define PROLOGUE_JOB_AT     16

/* Common to preface and answer. */
#define VERSION_AT 4
#define LENGTH_AT  6

#define PREFACE_JOB_AT     8
#define PREFACE_PURPOSE_AT 24
#define PREFACE_INDEX_AT   26
#define PREFACE_ZERO_AT    28

#define ANSWER_AT 8

static void put_u16(uint8_t *at, unsigned value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint16_t get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static bool all_zero(const uint8_t *at, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (at[i] != 0)
            return false;
    return true;
}

const char *vz_purpose_name(unsigned purpose)
{
    switch (purpose) {
#define PURPOSE(id, number, name)                                                                  \
    case number:                                                                                   \
        return name;
#include "purposes.def"
#undef PURPOSE
    default:
        return "unknown purpose";
    }
}

static bool purpose_known(unsigned purpose)
{
    switch (purpose) {
#define PURPOSE(id, number, name) case number:
#include "purposes.def"
#undef PURPOSE
        return true;
    default:
        return false;
    }
}

void vz_prologue_encode(const vz_prologue *prologue, uint8_t ret_bytes[VZ_PROLOGUE_BYTES])
{
    memset(ret_bytes, 0, VZ_PROLOGUE_BYTES);
    memcpy(ret_bytes, prologue_magic, sizeof(prologue_magic));
    put_u16(ret_bytes + PROLOGUE_VERSION_AT, PROLOGUE_VERSION);
    ret_bytes[PROLOGUE_DOOR_AT] = (uint8_t)prologue->door;
    memcpy(ret_bytes + PROLOGUE_JOB_AT, prologue->job, VZ_UUID_BYTES);
}

bool vz_prologue_decode(const uint8_t bytes[VZ_PROLOGUE_BYTES], vz_prologue *ret_prologue)
{
    uint8_t door = bytes[PROLOGUE_DOOR_AT];
    if (memcmp(bytes, prologue_magic, sizeof(prologue_magic)) != 0 ||
        get_u16(bytes + PROLOGUE_VERSION_AT) != PROLOGUE_VERSION ||
        (door != VZ_DOOR_CARRIER && door != VZ_DOOR_ASK) ||
        !all_zero(bytes + PROLOGUE_ZERO_AT, PROLOGUE_JOB_AT - PROLOGUE_ZERO_AT))
        return false;
    ret_prologue->door = (vz_door)door;
    memcpy(ret_prologue->job, bytes + PROLOGUE_JOB_AT, VZ_UUID_BYTES);
    return true;
}

void vz_preface_encode(const vz_preface *preface, uint8_t ret_bytes[VZ_PREFACE_BYTES])
{
    memset(ret_bytes, 0, VZ_PREFACE_BYTES);
    memcpy(ret_bytes, preface_magic, sizeof(preface_magic));
    put_u16(ret_bytes + VERSION_AT, preface->version);
    put_u16(ret_bytes + LENGTH_AT, VZ_PREFACE_BYTES);
    memcpy(ret_bytes + PREFACE_JOB_AT, preface->job, VZ_UUID_BYTES);
    put_u16(ret_bytes + PREFACE_PURPOSE_AT, preface->purpose);
    put_u16(ret_bytes + PREFACE_INDEX_AT, preface->index);
}

size_t vz_preface_length(const uint8_t head[VZ_PREFACE_HEAD_BYTES])
{
    size_t length = get_u16(head + LENGTH_AT);
    if (memcmp(head, preface_magic, sizeof(preface_magic)) != 0 || length < VZ_PREFACE_BYTES ||
        length > VZ_PREFACE_MAX_BYTES)
        return 0;
    return length;
}

vz_answer vz_preface_decode(const uint8_t *bytes, size_t n_bytes, vz_preface *ret_preface)
{
    if (n_bytes < VZ_PREFACE_BYTES || vz_preface_length(bytes) != n_bytes)
        return VZ_ANSWER_MALFORMED;
    vz_preface preface = {.version = get_u16(bytes + VERSION_AT),
                          .index = get_u16(bytes + PREFACE_INDEX_AT)};
    /* MIN is 1 now; the comparison is what must stay when it rises. */
    if (preface.version < VZ_CHANNEL_VERSION_MIN || preface.version > VZ_CHANNEL_VERSION)
        return VZ_ANSWER_VERSION;
    unsigned purpose = get_u16(bytes + PREFACE_PURPOSE_AT);
    if (n_bytes != VZ_PREFACE_BYTES || !all_zero(bytes + PREFACE_ZERO_AT, 4) ||
        !purpose_known(purpose) || preface.index > VZ_CHANNEL_INDEX_MAX)
        return VZ_ANSWER_MALFORMED;
    preface.purpose = (vz_purpose)purpose;
    memcpy(preface.job, bytes + PREFACE_JOB_AT, VZ_UUID_BYTES);
    *ret_preface = preface;
    return VZ_ANSWER_ACCEPTED;
}

const char *vz_answer_text(vz_answer answer)
{
    switch (answer) {
    case VZ_ANSWER_ACCEPTED:
        return "accepted";
    case VZ_ANSWER_NOT_EXPECTED:
        return "nobody waits for this channel";
    case VZ_ANSWER_USED:
        return "this channel was opened before, and each is accepted once";
    case VZ_ANSWER_WRONG_JOB:
        return "the channel names another job than its key belongs to";
    case VZ_ANSWER_VERSION:
        return "this version of the channel protocol is not spoken here (" G_STRINGIFY(
            VZ_CHANNEL_VERSION_MIN) " to " G_STRINGIFY(VZ_CHANNEL_VERSION) " are); install the "
                                                                           "newer host's virtvz "
                                                                           "here";
    case VZ_ANSWER_MALFORMED:
        return "the preface is malformed";
    case VZ_ANSWER_BUSY:
        return "too many channels";
    }
    return "refused";
}

size_t vz_answer_encode(vz_answer answer, uint8_t ret_bytes[VZ_ANSWER_MAX_BYTES])
{
    const char *text = answer == VZ_ANSWER_ACCEPTED ? "" : vz_answer_text(answer);
    size_t text_bytes = MIN(strlen(text), VZ_ANSWER_TEXT_MAX);
    memset(ret_bytes, 0, VZ_ANSWER_HEAD_BYTES);
    memcpy(ret_bytes, answer_magic, sizeof(answer_magic));
    put_u16(ret_bytes + VERSION_AT, VZ_CHANNEL_VERSION);
    put_u16(ret_bytes + LENGTH_AT, (unsigned)(VZ_ANSWER_HEAD_BYTES + text_bytes));
    put_u16(ret_bytes + ANSWER_AT, answer);
    memcpy(ret_bytes + VZ_ANSWER_HEAD_BYTES, text, text_bytes);
    return VZ_ANSWER_HEAD_BYTES + text_bytes;
}

size_t vz_answer_length(const uint8_t head[VZ_ANSWER_HEAD_BYTES])
{
    size_t length = get_u16(head + LENGTH_AT);
    if (memcmp(head, answer_magic, sizeof(answer_magic)) != 0 || length < VZ_ANSWER_HEAD_BYTES ||
        length > VZ_ANSWER_MAX_BYTES)
        return 0;
    return length;
}

bool vz_answer_check(const uint8_t *bytes, size_t n_bytes, GError **err)
{
    if (n_bytes < VZ_ANSWER_HEAD_BYTES || vz_answer_length(bytes) != n_bytes)
        return vz_fail(err, VZ_ERR_RPC, "the answer to the preface is malformed");
    if (get_u16(bytes + ANSWER_AT) == VZ_ANSWER_ACCEPTED)
        return true;
    size_t text_bytes = n_bytes - VZ_ANSWER_HEAD_BYTES;
    g_autofree char *text = g_strndup((const char *)bytes + VZ_ANSWER_HEAD_BYTES, text_bytes);
    /* It goes to logs and terminals, and a peer wrote it. */
    for (char *p = text; *p; p++)
        if (!g_ascii_isprint(*p))
            *p = '?';
    return vz_fail(err, VZ_ERR_OPERATION_FAILED, "the peer refused: %s",
                   *text ? text : "without a reason");
}
