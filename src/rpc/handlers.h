/* handlers.h - one prototype for each row of procs.def.
 *
 *     bool vz_api_<name>(vz_call *call, const vz_wire_<args> *args, vz_wire_<ret> *ret, GError
 * **err);
 *
 * without `args` or `ret` where the row says none. A handler runs on the thread that its row names.
 * It returns true with *ret (zeroed before) filled, or false with *err; or it calls vz_call_defer,
 * returns true, and the call is answered later (rpc/call.h). What *ret points to must live until
 * the handler has returned: constants or the call's arena (vz_call_alloc). *args dies with the
 * call. */
#pragma once

#include "rpc/call.h"
#include "rpc/optional_parameters.h"

#define PROC(nr, name, args, ret, runs_on, in_job, access)                                         \
    bool vz_api_##name(vz_call *call VZ_ARGS_PARAMETER(args) VZ_RET_PARAMETER(ret), GError **err);
#include "procs.def"
#undef PROC
