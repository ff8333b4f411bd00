/* job_params.h - a job's statistics as libvirt's typed parameters. Any thread. */
#pragma once

#include "domain/job.h"
#include "wire/tparam.h"

#include <stddef.h>

#define VZ_JOB_PARAMS_MAX 64

/* Fills params and returns how many. Fields whose group is not there are left out; `success` and
 * `errmsg` only of jobs that have ended. Texts point into stats. */
size_t vz_job_params(const vz_job_stats *stats, vz_tparam params[VZ_JOB_PARAMS_MAX]);
