/* fd.h - file descriptors and files: ownership, durable writes, passing over unix sockets.
 *
 * Every descriptor is close-on-exec from birth. Any thread. */
#pragma once

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Closes *fd if it is >= 0 and sets it to -1. */
void vz_fd_clear(int *fd);
#define vz_autofd __attribute__((cleanup(vz_fd_clear))) int

/* Takes the descriptor out of *fd, leaving -1. */
static inline int vz_steal_fd(int *fd)
{
    int taken = *fd;
    *fd = -1;
    return taken;
}

/* Reads a whole regular file of at most max_bytes; *ret_data is NUL-terminated, caller frees.
 * SYSTEM_ERROR with the path; a larger file is an error, never cut. */
bool vz_file_read(const char *path, size_t max_bytes, char **ret_data, size_t *ret_bytes,
                  GError **err);

/* Replaces a file so that a crash leaves the old or the new content, whole: writes PATH.new,
 * fsyncs, renames, fsyncs the directory. */
bool vz_file_write_durable(const char *path, const char *data, size_t bytes, mode_t mode,
                           GError **err);

/* Appends and fdatasyncs; what returns true is on disk. */
bool vz_fd_append_durable(int fd, const char *data, size_t bytes, GError **err);

/* Makes the name durable that a file was given or lost: syncs the directory it is in. */
bool vz_file_sync_name(const char *path, GError **err);

/* Unlinks a file and fsyncs its directory. A missing file is success. */
bool vz_file_remove_durable(const char *path, GError **err);

/* Writes all bytes to a blocking descriptor. */
bool vz_fd_write_all(int fd, const void *data, size_t bytes, GError **err);

#define VZ_FD_PASS_MAX 8

/* Sends one message with up to VZ_FD_PASS_MAX descriptors over a unix socket (borrowed). */
bool vz_fd_send(int socket, const void *data, size_t bytes, const int *fds, size_t n_fds,
                GError **err);

/* Receives one message (SOCK_SEQPACKET) or some bytes (SOCK_STREAM) with its descriptors
 * (close-on-exec; the caller owns them). Returns the number of bytes, 0 at the end of the stream,
 * -1 with err set; EAGAIN is -1 with *err left NULL. */
ssize_t vz_fd_receive(int socket, void *data, size_t max_bytes, int ret_fds[VZ_FD_PASS_MAX],
                      size_t *ret_n_fds, GError **err);

/* A listening unix stream socket at a path that fits sun_path; an old socket there is replaced.
 * Non-blocking; -1 with err. The mode is set before anyone can connect. */
int vz_unix_listen(const char *path, mode_t mode, GError **err);

/* A connected unix stream socket (blocking, but connect fails at once where nobody listens). */
int vz_unix_connect(const char *path, GError **err);
