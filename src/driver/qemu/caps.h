/* caps.h - what a QEMU binary on this host can do, asked of itself by QMP, never by its version.
 *
 * The first question about a binary starts it twice for some 100 ms: once as `-machine none` for
 * the lists, once to see whether KVM really runs a guest (docs/decisions/0011-kvm-probe.md). The
 * answers are kept in memory, and in a JSON file keyed by path, size, mtime and ctime of the
 * binary; the KVM part is good for one boot of the host. Any thread; concurrent questions about
 * the same binary are asked once. Blocks: not for the loop thread, which uses _peek. */
#pragma once

#include "domain/def.h"

#include <jansson.h>
#include <stdint.h>

typedef struct vz_qemu_caps vz_qemu_caps; /* immutable; lives until the program ends */

typedef struct {
    const char *name;        /* "pc-i440fx-10.0" */
    const char *alias;       /* "pc"; NULL none */
    const char *default_cpu; /* "qemu64-x86_64-cpu"; NULL unknown */
    const char *ram_id;      /* id of its RAM block, "pc.ram"; NULL unknown */
    unsigned max_cpus;
    bool is_default;
    bool deprecated;
} vz_qemu_machine;

typedef enum {
    VZ_ACCEL_TCG,
    VZ_ACCEL_KVM,
} vz_accel;

typedef struct {
    const char *cache_dir; /* of the JSON files, created when needed; NULL: none */
    const char *accel;     /* "auto"; "kvm": believe that it works; "tcg": do not use KVM */
    const char *user;      /* that QEMU runs as, who must be able to use KVM; NULL: no change */
} vz_qemu_caps_settings;

/* Once, before threads start; strings are copied. INVALID_ARG for another word in accel. */
bool vz_qemu_caps_setup(const vz_qemu_caps_settings *settings, GError **err);

/* Probes when needed. OPERATION_FAILED with QEMU's words; SYSTEM_ERROR where there is no binary:
 * "cannot check QEMU binary '/usr/bin/x': No such file or directory". */
const vz_qemu_caps *vz_qemu_caps_get(const char *emulator, GError **err);
/* What is known already, or NULL; never blocks on QEMU. */
const vz_qemu_caps *vz_qemu_caps_peek(const char *emulator);

/* The emulator that a definition without <emulator> gets on this host. Static. */
const char *vz_qemu_default_emulator(void);

/* major * 1000000 + minor * 1000 + micro, for display and `virsh version` only. */
unsigned vz_qemu_caps_version(const vz_qemu_caps *caps);
const char *vz_qemu_caps_package(const vz_qemu_caps *caps);
const char *vz_qemu_caps_arch(const vz_qemu_caps *caps); /* "x86_64" */
const char *vz_qemu_caps_emulator(const vz_qemu_caps *caps);

/* Machines in QEMU's order. */
const vz_qemu_machine *vz_qemu_caps_machines(const vz_qemu_caps *caps, size_t *ret_n);
/* By name or alias; NULL: none. ->name is the versioned one, which is what a definition keeps. */
const vz_qemu_machine *vz_qemu_caps_machine(const vz_qemu_caps *caps, const char *name);

/* Names of CPU models ("EPYC", "max", "host"...), sorted, NULL-terminated. */
const char *const *vz_qemu_caps_cpu_models(const vz_qemu_caps *caps);
bool vz_qemu_caps_has_cpu_model(const vz_qemu_caps *caps, const char *name);

/* Is there a device (QOM type) of that name: "virtio-blk-pci". */
bool vz_qemu_caps_has_device(const vz_qemu_caps *caps, const char *name);
/* A value that QEMU may have been built without. */
#define VZ_QEMU_PARAMETER_ZSTD "multifd-compression=zstd"
/* Names as in query-migrate-capabilities ("multifd") and query-migrate-parameters ("max-bandwidth";
 * also those without a default, such as "tls-creds"; and VZ_QEMU_PARAMETER_ZSTD). */
bool vz_qemu_caps_has_migration_capability(const vz_qemu_caps *caps, const char *name);
bool vz_qemu_caps_has_migration_parameter(const vz_qemu_caps *caps, const char *name);
bool vz_qemu_caps_has_command(const vz_qemu_caps *caps, const char *name);

/* Does KVM run guests here; *ret_why (may be NULL; static or of the caps) says why not, or how this
 * is known. */
bool vz_qemu_caps_kvm(const vz_qemu_caps *caps, const char **ret_why);

/* The accelerator for a domain type. *ret_note is a sentence for the domain's messages and the log
 * ("KVM", or "TCG, much slower: KVM does not work here: ..."); caller frees. CONFIG_UNSUPPORTED for
 * VZ_DEF_TYPE_KVM where KVM does not work, with the reason: it never falls back silently. */
bool vz_qemu_caps_accel(const vz_qemu_caps *caps, vz_def_type type, vz_accel *ret_accel,
                        char **ret_note, GError **err);

/* The names of all CPU features that a guest can have here; borrowed. NULL: QEMU does not tell. */
GHashTable *vz_qemu_caps_cpu_features(const vz_qemu_caps *caps, vz_accel accel);
/* The CPU model with the most features that runs here and has none that is not in `allowed`; asks a
 * QEMU, for some 100 ms. NULL: none, or it does not tell. Caller frees. */
char *vz_qemu_caps_baseline(const vz_qemu_caps *caps, vz_accel accel, GHashTable *allowed);

/* Capabilities out of QEMU's replies, {"query-machines": [...], ...}: of the cache, or recorded
 * ones for tests. Caller frees it (those of vz_qemu_caps_get are never freed). */
vz_qemu_caps *vz_qemu_caps_parse(const char *emulator, const json_t *replies, GError **err);
void vz_qemu_caps_set_kvm(vz_qemu_caps *caps, bool works, const char *why);
void vz_qemu_caps_free(vz_qemu_caps *caps);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_qemu_caps, vz_qemu_caps_free)
