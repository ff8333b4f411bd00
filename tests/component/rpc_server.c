/* rpc_server.c - the server side alone: what real virsh, and clients worse than it, are let loose
 * on (test_rpc.py).
 *
 *     rpc_server RW-SOCKET RO-SOCKET     prints "ready PORT"; ends at end of file on stdin */
#include "../support/fake_host.h"

#include <glib-unix.h>
#include <signal.h>
#include <stdio.h>

static gboolean on_stdin(int fd, GIOCondition condition, void *data)
{
    (void)fd;
    (void)condition;
    g_main_loop_quit(data);
    return FALSE;
}

int main(int argc, char **argv)
{
    g_assert(argc == 3);
    signal(SIGPIPE, SIG_IGN);
    g_autoptr(GError) err = NULL;
    g_autoptr(GMainLoop) loop = g_main_loop_new(NULL, FALSE);
    uint16_t port = 0;
    vz_server *server = fake_host_new(NULL);
    if (!vz_server_listen_readwrite(server, argv[1], &err) ||
        !vz_server_listen_readonly(server, argv[2], &err) ||
        !vz_server_listen_tcp(server, "127.0.0.1", 0, &port, &err)) {
        fprintf(stderr, "%s\n", err->message);
        return 1;
    }
    printf("ready %u\n", port);
    fflush(stdout);
    g_unix_fd_add(0, G_IO_IN | G_IO_HUP, on_stdin, loop);
    g_main_loop_run(loop);
    fake_host_free(server);
    return 0;
}
