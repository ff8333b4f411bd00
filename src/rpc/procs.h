/* procs.h - the rows of defs/procs.def as types and descriptions. Constant data; any thread. */
#pragma once

#include "base/error.h"
#include "wire/schema.h"

typedef enum {
#define PROC(nr, name, args, ret, runs_on, in_job, access) VZ_PROC_##name = (nr),
#include "procs.def"
#undef PROC
} vz_proc;

typedef enum { VZ_RUNS_ON_LOOP, VZ_RUNS_ON_HOST, VZ_RUNS_ON_DOMAIN } vz_runs_on;
typedef enum { VZ_IN_JOB_NO, VZ_IN_JOB_YES, VZ_IN_JOB_OWN } vz_in_job;
typedef enum { VZ_ACCESS_READ, VZ_ACCESS_WRITE } vz_access;

typedef struct {
    vz_proc number;
    const char *name;
    const vz_schema *args;
    const vz_schema *ret;
    vz_runs_on runs_on;
    vz_in_job in_job;
    vz_access access;
} vz_procedure;

/* In the order of procs.def. */
extern const vz_procedure vz_procedures[];
extern const size_t vz_n_procedures;

/* NULL: no row. */
const vz_procedure *vz_procedure_find(int32_t number);

/* Rows from this number on are of our own program, the others of libvirt's. */
#define VZ_PROC_OWN_FIRST 0x10000
uint32_t vz_procedure_program(int32_t number);

typedef enum {
#define EVENT(id, name, callback, legacy, body) VZ_EVENT_##name = (id),
#include "procs.def"
#undef EVENT
} vz_event_id;

/* libvirt's event ids below this one can be registered for; those without a row never come. */
#define VZ_EVENT_IDS 28

typedef struct {
    vz_event_id id;
    const char *name;
    int32_t callback_proc;
    int32_t legacy_proc; /* 0: none */
    const vz_schema *body;
} vz_event_kind;

extern const vz_event_kind vz_event_kinds[];
extern const size_t vz_n_event_kinds;
