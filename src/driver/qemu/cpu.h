/* cpu.h - CPU features by QEMU's names ("avx2"), asked of QEMU itself: which a running guest has,
 * and which of them a model brings. Sets of names; the thread that owns the connection. */
#pragma once

#include "domain/def.h"
#include "driver/qemu/qmp.h"

/* Of a guest or of a host; QEMU 10 knows some 390. */
#define VZ_QEMU_CPU_FEATURES_MAX     2048
#define VZ_QEMU_CPU_FEATURE_NAME_MAX 64

/* The features of a model with properties on top ({"avx2": true}, taken; NULL none), before the
 * accelerator takes any away. The caller's (g_hash_table_unref), or NULL with QEMU's words. */
GHashTable *vz_qemu_cpu_model_features(vz_qmp *qmp, const char *model, json_t *take_properties,
                                       GError **err);

/* What the guest of this QEMU really has: those of its model and definition, less what the
 * accelerator could not give. */
GHashTable *vz_qemu_cpu_guest_features(vz_qmp *qmp, const vz_def *def, GError **err);

/* The model ("Nehalem") that runs with this QEMU's accelerator and has as many features as possible
 * but none that is not in `allowed`. NULL: there is none, or QEMU does not tell. Caller frees. */
char *vz_qemu_cpu_baseline(vz_qmp *qmp, GHashTable *allowed);
