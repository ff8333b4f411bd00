/* procs.c - see procs.h. */
#include "rpc/procs.h"

#include "wire/frame.h"

const vz_procedure vz_procedures[] = {
#define PROC(nr, name, args, ret, runs_on, in_job, access)                                         \
    {VZ_PROC_##name,       #name,                                                                  \
     &vz_schema_##args,    &vz_schema_##ret,                                                       \
     VZ_RUNS_ON_##runs_on, VZ_IN_JOB_##in_job,                                                     \
     VZ_ACCESS_##access},
#include "procs.def"
#undef PROC
};
const size_t vz_n_procedures = G_N_ELEMENTS(vz_procedures);

const vz_event_kind vz_event_kinds[] = {
#define EVENT(id, name, callback, legacy, body)                                                    \
    {VZ_EVENT_##name, #name, callback, legacy, &vz_schema_##body},
#include "procs.def"
#undef EVENT
};
const size_t vz_n_event_kinds = G_N_ELEMENTS(vz_event_kinds);

const vz_procedure *vz_procedure_find(int32_t number)
{
    for (size_t i = 0; i < vz_n_procedures; i++)
        if ((int32_t)vz_procedures[i].number == number)
            return &vz_procedures[i];
    return NULL;
}

uint32_t vz_procedure_program(int32_t number)
{
    return number >= VZ_PROC_OWN_FIRST ? VZ_PROGRAM_VIRTVZ : VZ_PROGRAM_REMOTE;
}
