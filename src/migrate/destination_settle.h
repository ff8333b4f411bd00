/* destination_settle.h - how an arrival ends: started, undone, dead, or kept until the source asks;
 * and what its record's answers ask of it. For the destination_*.c files only; the domain's actor.
 */
#pragma once

#include "migrate/destination.h"

/* The guest runs here, or stands paused as asked: the job ends, its record stays. */
void vz_destination_close_started(vz_migration *m);
/* Nothing of the guest is left here; the record stays, to answer, if there can be a question. */
void vz_destination_close_aborted(vz_migration *m, const char *reason);
/* Nobody drives the job any more. What is not whole goes away; what is whole is kept for the
 * source, which asks for it as soon as it can: then it is taken back, or, where the source's copy
 * has died, it runs here. */
void vz_destination_leave(vz_migration *m, const char *reason);
/* A job whose start failed: tried again until it works or QEMU is dead. */
void vz_destination_go_forward_again(vz_migration *m);
/* Has everything come? Then the source has let go, and this may be the last copy of the guest. */
bool vz_destination_has_everything(vz_migration *m);
/* Gives the domain's place in the table back. */
void vz_destination_give_place_back(vz_migration *m, vz_domain *domain);
