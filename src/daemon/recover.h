/* recover.h - what a starting virtvzd finds: definitions on disk, guests that kept running, domains
 * to start. Called by main, before the server listens unless said. */
#pragma once

#include "api/host.h"

/* Loads every definition. One that is damaged is reported in the log, left on disk, and skipped. */
void vz_recover_configs(vz_host *host);

/* Takes every running guest back, each on its own actor, and waits for that, but not for ever: one
 * whose QEMU does not answer goes on in the background. Guests that were to die with a connection
 * are destroyed, since that connection is gone. */
void vz_recover_guests(vz_host *host);

/* Starts the domains that are marked so, once per boot; returns at once. */
void vz_recover_autostart(vz_host *host);
