/* sandbox.h - what a carrier gives up before it serves: it holds a key and reads what peers send.
 */
#pragma once

#include "base/error.h"

/* Before anything else: no core dumps, not traceable, no new privileges, enough descriptors for
 * `channels_max` channels. Programs that lack the right to one of these fail, except for the number
 * of descriptors, which is raised as far as is allowed. */
bool vz_sandbox_enter(unsigned channels_max, GError **err);

/* From now on: sockets that are there already, threads, memory, clocks. No new sockets or files, no
 * programs, no signals to others. Builds with a sanitizer (VZ_CARRIER_SECCOMP undefined) have no
 * filter, since the sanitizers' own runtimes open files and processes. */
bool vz_sandbox_seal(GError **err);
