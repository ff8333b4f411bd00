/* caps_xml.h - the documents of `virsh capabilities` and `virsh domcapabilities`.
 *
 * virt-install, virt-manager and Nova read from them what a new domain may have. They say what
 * defs/domain_enums.def implements and what this host's QEMU has, nothing more. No driver header is
 * needed here: whoever wires it fills in vz_caps_input. Any thread. */
#pragma once

#include "domain/caps_host.h"

#include <stdbool.h>

typedef struct {
    const char *name;  /* "pc-i440fx-10.0" */
    const char *alias; /* "pc"; NULL none */
    unsigned max_cpus;
    bool deprecated;
} vz_caps_machine;

typedef struct {
    const uint8_t *host_uuid; /* 16 bytes */
    const vz_caps_host *host;
    const char *arch;                /* "x86_64" */
    const char *emulator;            /* path */
    const vz_caps_machine *machines; /* all of QEMU's: those that are not supported are left out */
    size_t n_machines;
    const char *default_machine;   /* "pc" */
    const char *const *cpu_models; /* NULL-terminated; may be NULL */
    bool kvm;                      /* works here */
} vz_caps_input;

/* <capabilities>. Caller frees. */
char *vz_caps_format(const vz_caps_input *input);

/* What is asked about; NULL members: the default. */
typedef struct {
    const char *emulator, *arch, *machine, *type;
} vz_caps_query;

/* <domainCapabilities>. Caller frees; NULL with INVALID_ARG: there is no such thing here. */
char *vz_caps_format_domain(const vz_caps_input *input, const vz_caps_query *query, GError **err);
