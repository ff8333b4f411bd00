/* state.h - libvirt's numbers for a domain's states, their reasons, and lifecycle events.
 *
 * They travel on the wire as they are. Source: libvirt facts 2, "Notes". Only what virtvz can be
 * in or say has a name here. */
#pragma once

typedef enum {
    VZ_STATE_NOSTATE = 0,
    VZ_STATE_RUNNING = 1,
    VZ_STATE_PAUSED = 3,
    VZ_STATE_SHUTDOWN = 4, /* the guest has shut down, its process still exists */
    VZ_STATE_SHUTOFF = 5,
    VZ_STATE_CRASHED = 6,
    VZ_STATE_PMSUSPENDED = 7,
} vz_state;

typedef enum {
    VZ_RUNNING_UNKNOWN = 0,
    VZ_RUNNING_BOOTED = 1,
    VZ_RUNNING_MIGRATED = 2,
    VZ_RUNNING_UNPAUSED = 5,
    VZ_RUNNING_MIGRATION_CANCELED = 6,
    VZ_RUNNING_WAKEUP = 8,
    VZ_RUNNING_POSTCOPY = 10,
    VZ_RUNNING_POSTCOPY_FAILED = 11,
} vz_running_reason;

typedef enum {
    VZ_PAUSED_UNKNOWN = 0,
    VZ_PAUSED_USER = 1,
    VZ_PAUSED_MIGRATION = 2,
    VZ_PAUSED_IOERROR = 5,
    VZ_PAUSED_WATCHDOG = 6,
    VZ_PAUSED_SHUTTING_DOWN = 8,
    VZ_PAUSED_CRASHED = 10,
    VZ_PAUSED_STARTING_UP = 11,
    VZ_PAUSED_POSTCOPY = 12,
    VZ_PAUSED_POSTCOPY_FAILED = 13,
} vz_paused_reason;

typedef enum {
    VZ_SHUTOFF_UNKNOWN = 0,
    VZ_SHUTOFF_SHUTDOWN = 1,
    VZ_SHUTOFF_DESTROYED = 2,
    VZ_SHUTOFF_CRASHED = 3,
    VZ_SHUTOFF_MIGRATED = 4,
    VZ_SHUTOFF_FAILED = 6,
    VZ_SHUTOFF_DAEMON = 8,
} vz_shutoff_reason;

typedef enum {
    VZ_EVENT_DEFINED = 0,
    VZ_EVENT_UNDEFINED = 1,
    VZ_EVENT_STARTED = 2,
    VZ_EVENT_SUSPENDED = 3,
    VZ_EVENT_RESUMED = 4,
    VZ_EVENT_STOPPED = 5,
    VZ_EVENT_SHUTDOWN = 6,
    VZ_EVENT_PMSUSPENDED = 7,
    VZ_EVENT_CRASHED = 8,
} vz_event;

enum { VZ_DEFINED_ADDED = 0, VZ_DEFINED_UPDATED = 1 };
enum { VZ_UNDEFINED_REMOVED = 0 };
enum { VZ_STARTED_BOOTED = 0, VZ_STARTED_MIGRATED = 1, VZ_STARTED_WAKEUP = 4 };
enum {
    VZ_SUSPENDED_PAUSED = 0,
    VZ_SUSPENDED_MIGRATED = 1,
    VZ_SUSPENDED_IOERROR = 2,
    VZ_SUSPENDED_WATCHDOG = 3,
    VZ_SUSPENDED_POSTCOPY = 7,
    VZ_SUSPENDED_POSTCOPY_FAILED = 8
};
enum {
    VZ_RESUMED_UNPAUSED = 0,
    VZ_RESUMED_MIGRATED = 1,
    VZ_RESUMED_POSTCOPY = 3,
    VZ_RESUMED_POSTCOPY_FAILED = 4
};
enum {
    VZ_STOPPED_SHUTDOWN = 0,
    VZ_STOPPED_DESTROYED = 1,
    VZ_STOPPED_CRASHED = 2,
    VZ_STOPPED_MIGRATED = 3,
    VZ_STOPPED_FAILED = 5
};
enum { VZ_SHUTDOWN_FINISHED = 0, VZ_SHUTDOWN_GUEST = 1, VZ_SHUTDOWN_HOST = 2 };
enum { VZ_PMSUSPENDED_MEMORY = 0, VZ_PMSUSPENDED_DISK = 1 };
enum { VZ_CRASHED_PANICKED = 0 };
