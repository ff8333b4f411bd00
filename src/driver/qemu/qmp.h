/* qmp.h - one QMP connection: commands with deadlines, events in order.
 *
 * QEMU is not trusted: lines, nesting and the number of waiting events are bounded, ids are
 * checked, and whatever breaks the protocol breaks the connection (vz_qmp_broken) but never the
 * program.
 *
 * Events that arrive while a command waits for its reply are queued. They are delivered only from
 * vz_qmp_dispatch, which runs by itself once the connection is attached to an inbox: so a function
 * that sends commands never finds the world changed under it by its own call.
 *
 * One thread: the one that owns the inbox (the domain's actor). */
#pragma once

#include "base/error.h"
#include "base/wait.h"

#include <jansson.h>
#include <stdint.h>

typedef struct vz_qmp vz_qmp;

/* A line of QEMU's: the longest honest one is qom-list-types or query-qmp-schema, under 1 MiB. */
#define VZ_QMP_LINE_MAX ((size_t)16 * 1024 * 1024)
/* Events waiting to be delivered; a QEMU that sends more while one command runs is broken. */
#define VZ_QMP_EVENTS_MAX 4096
/* QEMU stops reading its monitor at eight commands that wait (QMP_REQ_QUEUE_LEN_MAX, 10.0), and
 * then hears none that is out of band either. */
#define VZ_QMP_UNANSWERED_MAX 4
/* For a command that QEMU answers from its main loop at once. Long, since that loop may be in the
 * middle of something (a large device reset, the last round of a migration) without being ill. */
#define VZ_QMP_TIMEOUT_US (30 * (int64_t)1000000)

typedef struct {
    const char *name;     /* "STOP", "MIGRATION"... */
    json_t *data;         /* borrowed; NULL where the event has none */
    int64_t arrived_us;   /* monotonic, when the line was read */
    int64_t qemu_time_us; /* QEMU's stamp: wall clock, microseconds since 1970; 0 unknown */
} vz_qmp_event;

typedef struct {
    /* May send commands; must not wait (vz_wait) for another event, nor close the connection. */
    void (*on_event)(const vz_qmp_event *event, void *user);
    /* Once, when QEMU closed or broke the connection, after the last event; may close it. */
    void (*on_closed)(void *user);
} vz_qmp_hooks;

/* Reads the greeting and negotiates. Takes the socket, also on failure. OPERATION_TIMEOUT when the
 * greeting does not come; OPERATION_FAILED when QEMU closes ("QEMU closed the monitor"). */
vz_qmp *vz_qmp_open(int take_fd, int64_t deadline_us, GError **err);
void vz_qmp_close(vz_qmp *qmp);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_qmp, vz_qmp_close)

/* Sends a command and waits for its reply (which nothing interrupts; events are queued). args may
 * be NULL and is always taken. Returns QEMU's "return" value, caller json_decref()s, or NULL:
 *   OPERATION_FAILED  with QEMU's own description, prefixed by the command;
 *   OPERATION_TIMEOUT no reply in time; the late reply will be dropped, the connection lives on; or
 *                     VZ_QMP_UNANSWERED_MAX earlier ones have none yet, so it was not sent;
 *   INTERNAL_ERROR    protocol broken or connection closed; so is every later command. */
json_t *vz_qmp_command(vz_qmp *qmp, const char *name, json_t *take_args, int64_t timeout_us,
                       GError **err);

/* The same for commands whose reply says nothing but "done". */
bool vz_qmp_do(vz_qmp *qmp, const char *name, json_t *take_args, int64_t timeout_us, GError **err);

/* The same, answered also while QEMU's main loop hangs; only for commands that may ("allow-oob" in
 * QEMU's schema). A QEMU that does not offer it executes them in their turn. */
bool vz_qmp_do_out_of_band(vz_qmp *qmp, const char *name, json_t *take_args, int64_t timeout_us,
                           GError **err);

/* The class of the last error that QEMU itself answered with ("GenericError", "CommandNotFound",
 * "DeviceNotFound"...); "" if the last command did not fail by QEMU's answer. */
const char *vz_qmp_error_class(const vz_qmp *qmp);

/* getfd: QEMU keeps a copy of fd (borrowed) under a name, for "fd:NAME" in migration URIs. */
bool vz_qmp_send_fd(vz_qmp *qmp, const char *fd_name, int fd, GError **err);
/* add-fd: a copy of fd (borrowed) joins the set of that number, as /dev/fdset/NUMBER. */
bool vz_qmp_add_fd(vz_qmp *qmp, unsigned fdset, int fd, GError **err);

/* Delivers events to the hooks from any wait of the inbox, from now until detach or close. What was
 * queued before is delivered at the next wait. */
void vz_qmp_attach(vz_qmp *qmp, vz_inbox *inbox, const vz_qmp_hooks *hooks, void *user);
void vz_qmp_detach(vz_qmp *qmp);

/* Reads what is there and delivers all queued events; for owners without an inbox. Nested calls
 * (from inside on_event) only read. false: QEMU closed or broke the connection. */
bool vz_qmp_dispatch(vz_qmp *qmp);
int vz_qmp_fd(const vz_qmp *qmp);

/* true: no command will succeed any more. */
bool vz_qmp_broken(const vz_qmp *qmp);

/* QEMU's version from the greeting: major * 1000000 + minor * 1000 + micro. */
unsigned vz_qmp_version(const vz_qmp *qmp);
/* The text of its package ("Debian 1:10.0.2+ds-2"); may be "". */
const char *vz_qmp_package(const vz_qmp *qmp);
