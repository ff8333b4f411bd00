/* caps_probe.h - asking a QEMU binary; for caps.c only. */
#pragma once

#include "driver/qemu/user.h"

#include <jansson.h>

/* Starts the binary without a machine and returns what it answers: {"COMMAND": return, ...} for all
 * that vz_qemu_caps_parse reads. Caller decrefs. */
json_t *vz_caps_probe_lists(const char *emulator, const vz_qemu_user *user, GError **err);

/* The names of the CPU features that the binary can give a guest on an accelerator, an array; null:
 * it does not tell. Caller decrefs. */
json_t *vz_caps_probe_cpu(const char *emulator, const char *accel, const vz_qemu_user *user);
/* vz_qemu_cpu_baseline of a QEMU that is started for it. */
char *vz_caps_probe_baseline(const char *emulator, const char *accel, const vz_qemu_user *user,
                             GHashTable *allowed);

/* Lets a few instructions of a guest run on an accelerator ("kvm", "tcg") with a CPU model.
 * *ret_why: why that does not work; caller frees. */
bool vz_caps_probe_guest(const char *emulator, const char *accel, const char *cpu_model,
                         const vz_qemu_user *user, char **ret_why);
