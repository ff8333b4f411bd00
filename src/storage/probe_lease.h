/* probe_lease.h - virtvz-probe's part in leases (lease.h). */
#pragma once

#include <jansson.h>
#include <stdbool.h>

/* Does `command` to the lease of each image (NULL-terminated) and returns one object per image, in
 * their order; the caller decrefs. `request` says for whom: host_uuid, host_name, domain_uuid,
 * domain_name, time, job, force, as far as the command writes them. Commands:
 *
 *   read       tells what is there
 *   take       replaces a lease of nobody, of this host or, with force, of anyone
 *   prepare    writes the lease that `hand-over` will put in place, with the job's name in it
 *   hand-over  puts it in place
 *   give-back  removes what prepare wrote; a lease that is the job's names its last holder again
 *   release    removes a lease of this host for this domain
 *
 * An object has "image", "file", and where they apply "lease" (what was there), "damaged" (why what
 * was there counts as nothing), "written": true, and "error". NULL: no such command. */
json_t *vz_probe_leases(const char *command, const json_t *request, char *const *images);
