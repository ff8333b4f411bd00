/* finding.h - what stands in the way of a migration, or is to be known before it: one thing a
 * finding, with what would help. Made by the checks of precheck.h; they end up in the error of a
 * refused move and in the plan of `vz check`.
 *
 * Plain data of one thread. */
#pragma once

#include "base/error.h"

#include <jansson.h>

/* More are dropped: what a peer sends is bounded, and nobody reads so many. */
#define VZ_FINDINGS_MAX 64
/* Of each text of a finding that a peer sends. */
#define VZ_FINDING_TEXT_MAX 4096

typedef struct {
    char *check;        /* the row's name in precheck.h's tables */
    bool refuses;       /* false: only a warning */
    vz_error_code code; /* of the error, if it is the first that refuses */
    char *text;         /* what, on what, why */
    char *remedy;       /* what would help */
} vz_finding;

/* Elements are vz_finding *, freed with the array. */
GPtrArray *vz_findings_new(void);

/* Adds one that refuses. Texts are copied. */
void vz_findings_refuse(GPtrArray *findings, const char *check, vz_error_code code,
                        const char *text, const char *remedy);
/* The same of an error, which keeps its code and text. */
void vz_findings_refuse_error(GPtrArray *findings, const char *check, const GError *error,
                              const char *remedy);
void vz_findings_warn(GPtrArray *findings, const char *check, const char *text, const char *remedy);

bool vz_findings_refuse_move(const GPtrArray *findings);

/* true: none refuses. Else one error: the first's code and text, then its remedy, then all others:
 * "TEXT (REMEDY); 2 more: [check] TEXT (REMEDY); [check] TEXT (REMEDY)". */
bool vz_findings_enforce(const GPtrArray *findings, GError **err);
/* Logs the warnings. */
void vz_findings_log(const GPtrArray *findings, const char *subject);

/* [{"check", "refuses", "code", "text", "remedy"}]; `side` ("source", "destination") is added where
 * it is not NULL. The caller's. */
json_t *vz_findings_to_json(const GPtrArray *findings, const char *side);
/* A peer's text as it may be shown, of at most VZ_FINDING_TEXT_MAX bytes, control characters
 * replaced; NULL: it is none. Caller frees. */
char *vz_finding_text(const json_t *object, const char *key);
/* Adds what a peer sent; RPC where it is malformed. Control characters are replaced. */
bool vz_findings_add_json(GPtrArray *findings, const json_t *array, GError **err);
