/* question.h - what two hosts of a job ask each other on the data port: one JSON object with "op",
 * answered by another.
 *
 *     probe, verdict, forget, condemn   of the destination's record: verdict.h
 *     where                             of the domain, by its UUID, by either host: whereabouts.h
 *     let-go                            of the source, by who will be the destination: offline.h
 *
 * Authenticated by the job's keys, which outlive the job in its trail (trail.h). Every question
 * names the incarnation of the records that it means: those of a host that lost its records cannot
 * answer for the lost ones. */
#pragma once

#include "channel/ask.h"
#include "migrate/trail.h"

/* One exchange may take so long; a host that is slower is asked again. */
#define VZ_QUESTION_DEADLINE_US ((int64_t)8 * 1000000)

/* Asks the other host of the job. take_object is {"op": ..., ...}. The answer is the caller's;
 * NULL: none came, err says why. With an inbox (of the calling actor) that is served meanwhile. */
json_t *vz_question_of_job(vz_migration *migration, json_t *take_object, int64_t patience_us,
                           GError **err);
json_t *vz_question_of_trail(const vz_trail *trail, json_t *take_object, vz_inbox *inbox,
                             int64_t patience_us, GError **err);

/* What an answer is made from. */
typedef struct {
    vz_migrate *service;
    uint8_t job[VZ_UUID_BYTES];
    vz_migration *migration; /* NULL: only the trail is left */
    const json_t *object;
    const char *peer_address;     /* the asker's, numeric */
    const char *peer_fingerprint; /* of the key that the asker holds */
} vz_asked;

/* For vz_ask_handlers; user is the vz_migrate. Threads of the ask server. */
bool vz_question_find_keys(const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                           char **ret_peer_fingerprint, void *user);
bool vz_question_answer(const vz_ask_visit *visit, GBytes *question, GBytes **ret_answer,
                        void *user, GError **err);
