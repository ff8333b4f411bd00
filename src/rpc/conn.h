/* conn.h - one client's connection, as handlers see it. Reference counted; everything here may be
 * called on any thread. A connection that died stays readable until its last reference is gone. */
#pragma once

#include "base/error.h"

#include <stdint.h>
#include <sys/types.h>

typedef struct vz_conn vz_conn;

vz_conn *vz_conn_ref(vz_conn *conn);
void vz_conn_unref(vz_conn *conn);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_conn, vz_conn_unref)

/* Unique in this daemon's life. */
uint64_t vz_conn_id(const vz_conn *conn);
/* Came by the read-only socket, or opened read-only. WRITE rows are refused before their handler; a
 * handler asks this where only an argument makes a call privileged (secrets in XML). */
bool vz_conn_readonly(const vz_conn *conn);
bool vz_conn_alive(vz_conn *conn);
/* Of a unix socket's peer; -1 and 0 for TCP. */
uid_t vz_conn_uid(const vz_conn *conn);
pid_t vz_conn_pid(const vz_conn *conn);
/* Numeric addresses of a TCP connection, without port; NULL for unix sockets. The local one is an
 * address of this host that the client can reach. */
const char *vz_conn_local_address(const vz_conn *conn);
const char *vz_conn_remote_address(const vz_conn *conn);
/* For logs: "client 7 (uid 0, pid 1234)" or "client 7 (192.0.2.1)". Static for the conn's life. */
const char *vz_conn_name(const vz_conn *conn);

/* Calls fn(data) on the loop thread once when the connection dies (autodestroy); fn must not block:
 * it posts to an actor. `drop` (may be NULL) frees data afterwards, or when the hook is forgotten.
 * `key` names the hook; a hook with the same key is replaced. false: dead already, fn will not be
 * called, data was dropped. */
bool vz_conn_on_close(vz_conn *conn, const void *key, void (*fn)(void *data), void *data,
                      GDestroyNotify drop);
/* Forgets the hook. true: it was there and will not be called. */
bool vz_conn_forget_close(vz_conn *conn, const void *key);
