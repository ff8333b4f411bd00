/* disks.h - disks that are copied with their guest, since the destination's host does not share
 * them.
 *
 *     source                                        destination
 *     offer-disks: what each image is like      ──► answer-disks: "copy", where nothing is there
 *                                                   create-disks: noted, made, given their names
 *                                                   open-door: QEMU exports them, one channel each
 *     copy-disks: until both are alike; then    ──►
 *     copy-memory, while the guest's writes go
 *     to both; its CPUs stop
 *     settle-disks: alike, flushed, ended
 *     release                                   ──► close-disks, load, ... commit
 *     end-source, put-aside
 *
 * The n-th answer that says "copy" has channel n (both sides count). Actor threads. */
#pragma once

#include "migrate/migration.h"
#include "storage/identify.h"

/* What these options say of disks; borrows from them. */
vz_identify_policy vz_disks_policy(const vz_options *options);
/* INVALID_ARG: a list of disks names one that the domain has not. */
bool vz_disks_check_list(const vz_def *def, const vz_options *options, GError **err);

/* How many of these answers (identify.h) say that a disk is to be copied. */
unsigned vz_disks_copied(const json_t *answers);
/* What the record says of them, also after a restart: an array, empty where none is copied, with
 * "target" and "path" and what the side adds; the caller decrefs. */
json_t *vz_disks_noted(const vz_migration *m);
/* Writes it, durably. */
bool vz_disks_note(vz_migration *m, const json_t *copies, GError **err);

/* --- source: src_disks.c; steps --- */

/* Notes which are to be copied, for what has to know that after a restart. */
bool vz_source_note_copies(vz_migration *m, GError **err);
bool vz_source_copy_disks(vz_migration *m, GError **err);
/* While memory is copied: none of them has failed. */
bool vz_source_check_disks(vz_migration *m, GError **err);
/* Before QEMU is told to go on with its guest: what waits for the other host waits no more. */
void vz_source_cut_disks(vz_migration *m);
/* Of copies that are going on; from within a wait. */
bool vz_source_set_disks_speed(vz_migration *m, uint64_t bytes_s, GError **err);
/* Its undo: no job is left in QEMU. */
void vz_source_stop_disks(vz_migration *m);
/* The guest stands still. */
bool vz_source_settle_disks(vz_migration *m, GError **err);
/* The images that were copied get other names, so that nothing takes them for the guest's. One that
 * cannot is logged; never fails. The domain may be gone. */
bool vz_source_put_disks_aside(vz_migration *m, GError **err);

/* Of src_qemu.c: asks the destination's daemon whether it is there, at most once a second. */
bool vz_source_probe_again(vz_migration *m, int64_t *next_probe_us, GError **err);

/* --- destination: dst_disks.c; steps, and parts of them --- */

bool vz_destination_create_disks(vz_migration *m, GError **err);
/* Its undo: what this job made, and nothing else; where the guest may have run here, it gets
 * another name, for there is no other copy of what it wrote. The domain may be gone; blocks. */
void vz_destination_remove_disks(vz_migration *m);
/* Of the step open-door; the carrier is there. */
bool vz_destination_serve_disks(vz_migration *m, GError **err);
/* Before the guest is loaded: nothing comes any more. Idempotent. */
bool vz_destination_close_disks(vz_migration *m, GError **err);
