/* visit.h - those who may knock at the data port without a job: the source of a check is expected
 * once, by keys made for that, and gets a greeting. In memory only, few, and for a minute: a check
 * leaves nothing behind.
 *
 * Any thread; one lock. */
#pragma once

#include "base/text.h"
#include "channel/keys.h"

/* One more forgets the oldest. */
#define VZ_VISITS_MAX    32
#define VZ_VISIT_GOOD_US ((int64_t)60 * 1000000)
#define VZ_VISIT_OP      "hello"

typedef struct vz_visits vz_visits;

vz_visits *vz_visits_new(void);
void vz_visits_free(vz_visits *visits);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_visits, vz_visits_free)

/* Expects somebody with that fingerprint. *ret_fingerprint is the own one; caller frees. */
bool vz_visits_expect(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES],
                      const char *peer_fingerprint, char **ret_fingerprint, GError **err);
/* false: nobody is expected by that name. What is returned is the caller's. */
bool vz_visits_find(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                    char **ret_peer_fingerprint);
/* Whether it was expected; it is not any more. */
bool vz_visits_end(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES]);
