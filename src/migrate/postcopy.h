/* postcopy.h - moves whose guest is switched before its memory has come.
 *
 *     source                                     destination
 *     copy, until it is to switch
 *     release: the package goes        ──►       load: it has come; commit; start
 *     serve-pages: the rest follows    ──►       receive-pages: after Finish, beside the guest
 *        ╳ connection lost: both pause           ╳
 *        asks "recover"                ──►       listens anew
 *        connects with new channels    ──►
 *
 * From the switch on there is no way back (docs/migration.md). Actor threads, unless said. */
#pragma once

#include "migrate/memory.h"
#include "migrate/migration.h"
#include "migrate/question.h"

/* Both sides: the first number of a memory channel that was never used. */
unsigned vz_postcopy_next_channel(const vz_migration *m);
/* Both sides: those that have begun and are neither broken nor ended. */
unsigned vz_postcopy_living_channels(const vz_migration *m);
/* Both sides, after a restart: what the record says of it. */
void vz_postcopy_reload(vz_migration *m);
/* Both sides, of an active guest: gives its state this reason, with the event that tells of it. */
void vz_postcopy_say(vz_migration *m, vz_state state, int reason, vz_event event, int detail);

/* --- source: src_postcopy.c --- */

/* Of src_qemu.c: one look at the stream, with statistics; false: it has failed. */
bool vz_source_look(vz_migration *m, vz_memory_status *ret_status, const char *phase, GError **err);
/* Of src_qemu.c: gives each connection that QEMU has made a channel of its own. */
bool vz_source_open_channels(vz_migration *m, GError **err);

/* Of src_qemu.c: its downtime begins now, if it has not yet; says so. */
void vz_source_set_paused(vz_migration *m);

/* Of a stream that flows: pauses the guest and lets QEMU switch. Where it fails the guest goes on.
 */
bool vz_source_start_postcopy(vz_migration *m, vz_qemu *qemu, GError **err);
/* QEMU says that it has switched: so notes it. Idempotent. false: this is another status. */
bool vz_source_note_switch(vz_migration *m, vz_memory_status status);
/* Before the destination is asked: waits for a QEMU that may still go either way. false: it still
 * may. */
bool vz_source_is_decided(vz_migration *m);
/* The connections of post-copy are there before the guest stops. Waits shortly. */
bool vz_source_await_postcopy_channels(vz_migration *m, GError **err);
/* The step serve-pages. true: all have come; or they never will (m->pages_lost). */
bool vz_source_serve_pages(vz_migration *m, GError **err);

/* The operator gives up the pages that have not come, as when the destination's host is gone for
 * good: the step ends, and with it the guest. */
void vz_source_drop_pages(vz_migration *m);
/* POSTCOPY_RESUME: connects the domain's post-copy again; true: pages flow. */
bool vz_source_resume_postcopy(vz_migration *m, GError **err);
/* The job of the domain, if it is in post-copy. A reference, or NULL with OPERATION_INVALID. */
vz_migration *vz_source_find_postcopy(vz_domain *domain, GError **err);

/* For vz_job_ops. */
bool vz_source_op_start_postcopy(vz_domain *domain, void *job, GError **err);
bool vz_source_op_pause_postcopy(vz_domain *domain, void *job, GError **err);
bool vz_source_op_set_postcopy_speed(vz_domain *domain, void *job, uint64_t bytes_s, GError **err);

/* --- destination: dst_postcopy.c --- */

/* Of dst_qemu.c, for the carrier. */
void vz_destination_on_channel(vz_carrier *carrier, const vz_channel_info *info, void *user);

/* Lets QEMU have userfaultfd until its guest has come. ARGUMENT_UNSUPPORTED: this host cannot. */
bool vz_destination_allow_userfault(vz_migration *m, GError **err);

/* The package has come: QEMU could run the guest. */
bool vz_destination_has_package(vz_migration *m, vz_memory_status status);
/* A client's word, or a step that fails, must not end what may be the only copy. */
bool vz_destination_may_be_switched(vz_migration *m);
/* The step receive-pages. Does not wait: false with OPERATION_INVALID until all have come. */
bool vz_destination_receive_pages(vz_migration *m, GError **err);
/* Finish is done: the job ends now, or when the pages have come. */
void vz_destination_arrived(vz_migration *m);
/* The stream has changed. */
void vz_destination_stirred(vz_migration *m);

/* The question "recover" {first}: {first}, the number of the first channel to connect; {completed};
 * or {dead}, where the guest has ended. Threads of the ask server. */
json_t *vz_postcopy_reply_recover(const vz_asked *asked, GError **err);
