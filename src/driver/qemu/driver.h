/* driver.h - QEMU behind the vtable of driver/driver.h. */
#pragma once

#include "domain/store.h"
#include "driver/driver.h"
#include "driver/qemu/process.h"

extern const vz_driver vz_driver_qemu;

/* Before threads: where things are (borrowed for the program's life). */
void vz_driver_qemu_setup(const vz_qemu_host *host);

/* At the daemon's start, when the guests that have a status were found again: ends what an earlier
 * daemon was about to start when it died. One that has run, of which the status is lost, is left
 * alone and logged. Blocks; main thread. */
void vz_driver_qemu_end_unborn(vz_store *store);

/* Actor thread: the domain's QEMU; NULL while inactive or where it cannot be reached. Valid until
 * the domain is ended. */
vz_qemu *vz_driver_qemu_of(vz_domain *domain);
