/* api.h - helpers that the handlers of src/api share.
 *
 * A handler of a DOMAIN row finds its domain with vz_api_subject; one of a LOOP row looks its
 * argument up with vz_api_find. Threads as the rows of procs.def say. */
#pragma once

#include "api/host.h"
#include "rpc/handlers.h"
#include "rpc/server.h"

typedef struct vz_def vz_def;

/* How calls reach the actors; for vz_server_new. */
extern const vz_rpc_backend vz_api_backend;

/* What the table tells of domains becomes events to clients; for vz_table_set_listener. */
extern const vz_table_listener vz_api_listener;

/* The domain of a DOMAIN row. Borrowed from the call. */
vz_domain *vz_api_subject(vz_call *call);

/* Finds a domain by what a client sent (the uuid decides). NO_DOMAIN in libvirt's words. The caller
 * unrefs. */
vz_domain *vz_api_find(const vz_wire_domain *dom, GError **err);
/* The same, and its snapshot only. */
vz_snapshot *vz_api_find_snapshot(const vz_wire_domain *dom, GError **err);

/* How a domain is named on the wire; the name is copied into the call's arena. */
vz_wire_domain vz_api_domain(vz_call *call, vz_domain *domain);
/* Of one that is being told about: strings are borrowed from the domain. */
vz_wire_domain vz_api_domain_with_id(vz_domain *domain, int id);

/* INVALID_ARG "unsupported flags (0x40) in function virDomainCreate" unless all bits are known. */
bool vz_api_check_flags(uint32_t flags, uint32_t known, const char *function, GError **err);

/* A string result: copies into the call's arena and frees. */
bool vz_api_return_text(vz_call *call, char *take_text, vz_wire_string_ret *ret);

/* HOST thread: a definition from a client's XML, with this host's defaults (VZ_DEF_PARSE_INACTIVE).
 * May start a QEMU to ask for its machines. */
vz_def *vz_api_parse(const char *xml, GError **err);
