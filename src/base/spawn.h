/* spawn.h - starting programs: descriptors handed over by number, identity dropped, failure to
 * exec reported with its reason. Any thread. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct {
    const char *const *argv; /* NULL-terminated; argv[0] is an absolute path or looked up in PATH */
    const int *fds;          /* become 3, 4, 5, ... in the child; borrowed */
    size_t n_fds;
    int stdin_fd; /* -1: /dev/null */
    int stdout_fd;
    int stderr_fd;
    bool change_identity; /* to uid and gid, with no supplementary groups but these */
    uid_t uid;
    gid_t gid;
    const gid_t *groups; /* borrowed; NULL: none */
    size_t n_groups;
    bool new_session; /* survives its parent's terminal and signals */
} vz_spawn_options;

/* Starts the program with an empty environment but PATH, LANG=C and HOME=/. Returns true when
 * exec succeeded. *ret_pid must be reaped by the caller (waitid on the pidfd); *ret_pidfd is the
 * caller's to close. */
bool vz_spawn(const vz_spawn_options *options, pid_t *ret_pid, int *ret_pidfd, GError **err);

#define VZ_RUN_OUTPUT_MAX ((size_t)4 * 1024 * 1024)

/* Runs a program to its end, at most until the deadline (then kills it: OPERATION_TIMEOUT). Its
 * standard output (at most VZ_RUN_OUTPUT_MAX) goes to *ret_output where that is not NULL; a status
 * other than 0 is OPERATION_FAILED with the last line it wrote to standard error. Blocks: for host
 * threads and helpers, never the loop. */
bool vz_run(const char *const *argv, int64_t deadline_us, char **ret_output, GError **err);

/* The start time of a process in clock ticks since boot (field 22 of /proc/PID/stat), which with
 * the pid and the boot id names a process for ever. 0: no such process. */
uint64_t vz_process_start_time(pid_t pid);
