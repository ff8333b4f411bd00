/* handler_table.h - the handlers of procs.def as an array for vz_server_new. Included by exactly
 * one source file of a program; a row whose vz_api_<name> nobody wrote fails to link. */
#pragma once

#include "rpc/handlers.h"

#define VZ_PASS_ARGS_0
#define VZ_PASS_ARGS_1     , args
#define VZ_PASS_ARGS(type) VZ_JOIN(VZ_PASS_ARGS_, VZ_HAS(type))
#define VZ_PASS_RET_0
#define VZ_PASS_RET_1     , ret
#define VZ_PASS_RET(type) VZ_JOIN(VZ_PASS_RET_, VZ_HAS(type))

#define PROC(nr, name, args_type, ret_type, runs_on, in_job, access)                               \
    static bool run_##name(vz_call *call, const void *args, void *ret, GError **err)               \
    {                                                                                              \
        (void)args;                                                                                \
        (void)ret;                                                                                 \
        return vz_api_##name(call VZ_PASS_ARGS(args_type) VZ_PASS_RET(ret_type), err);             \
    }
#include "procs.def"
#undef PROC

static const vz_handler vz_handlers[] = {
#define PROC(nr, name, args, ret, runs_on, in_job, access) {VZ_PROC_##name, run_##name},
#include "procs.def"
#undef PROC
};
