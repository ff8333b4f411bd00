/* stats.h - a job's statistics on their way to the other host's record of it. Pure functions. */
#pragma once

#include "domain/job.h"

#include <jansson.h>

/* A new object with the numbers that both sides report; caller decrefs. */
json_t *vz_stats_to_json(const vz_job_stats *stats);
/* Reads what the peer sent; members that are missing or no numbers stay as they are. */
void vz_stats_from_json(const json_t *object, vz_job_stats *stats);
