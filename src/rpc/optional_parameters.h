/* optional_parameters.h - macros that leave a parameter out where a row of procs.def says none.
 * Used by the prototypes that are made from the rows (rpc/handlers.h, rpc/client.h). */
#pragma once

/* VZ_HAS(type): 0 for `none`, else 1. So that a parameter of type none can be left out. */
#define VZ_PROBE_none        ~, 0
#define VZ_SECOND(a, b, ...) b
#define VZ_SECOND_OF(...)    VZ_SECOND(__VA_ARGS__)
#define VZ_HAS(type)         VZ_SECOND_OF(VZ_PROBE_##type, 1, ~)
#define VZ_JOIN_(a, b)       a##b
#define VZ_JOIN(a, b)        VZ_JOIN_(a, b)

#define VZ_ARGS_PARAMETER_0(type)
#define VZ_ARGS_PARAMETER_1(type) , const vz_wire_##type *args
#define VZ_ARGS_PARAMETER(type)   VZ_JOIN(VZ_ARGS_PARAMETER_, VZ_HAS(type))(type)
#define VZ_RET_PARAMETER_0(type)
#define VZ_RET_PARAMETER_1(type) , vz_wire_##type *ret
#define VZ_RET_PARAMETER(type)   VZ_JOIN(VZ_RET_PARAMETER_, VZ_HAS(type))(type)
#define VZ_ARGS_OR_NULL_0        NULL
#define VZ_ARGS_OR_NULL_1        args
#define VZ_ARGS_OR_NULL(type)    VZ_JOIN(VZ_ARGS_OR_NULL_, VZ_HAS(type))
#define VZ_RET_OR_NULL_0         NULL
#define VZ_RET_OR_NULL_1         ret
#define VZ_RET_OR_NULL(type)     VZ_JOIN(VZ_RET_OR_NULL_, VZ_HAS(type))
