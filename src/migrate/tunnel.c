/* tunnel.c - see tunnel.h. */
#include "migrate/tunnel.h"

#include "migrate/service.h"
#include "rpc/client.h"

#define ANSWER_BYTES_MAX ((size_t)64 * 1024)

static int dial(const vz_dial_request *request, GError **err)
{
    g_autoptr(vz_inbox) own = request->inbox ? NULL : vz_inbox_new();
    g_autoptr(vz_arena) arena = vz_arena_new(ANSWER_BYTES_MAX);
    const vz_client_wait wait = {request->deadline_us, true, arena};
    vz_client *client = vz_client_open(request->way.uri, request->inbox ? request->inbox : own,
                                       request->deadline_us, err);
    int fd = -1;
    if (client) {
        vz_dial_set_options(vz_client_fd(client));
        fd = vz_client_become_stream(client, VZ_PROC_vz_open_data, NULL, &wait, err);
    }
    if (fd < 0)
        g_prefix_error(err, "no tunnel to '%s': ", request->way.uri);
    return fd;
}

vz_dial_way vz_tunnel_way(const char *uri)
{
    return uri ? (vz_dial_way){dial, uri} : (vz_dial_way){NULL, NULL};
}

void vz_tunnel_end(vz_migrate *service, int take_fd)
{
    vz_port_take(vz_migrate_port(service), take_fd);
}
