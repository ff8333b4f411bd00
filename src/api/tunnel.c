/* tunnel.c - the far end of a tunnelled migration's connection (migrate/tunnel.h): its stream ends
 * in what serves the data port, as if it had come by that. Whoever is at its other end has to have
 * a job's keys, like anybody there. */
#include "api/api.h"

#include "base/fd.h"
#include "channel/dial.h"
#include "migrate/tunnel.h"
#include "rpc/stream.h"

#include <errno.h>
#include <sys/socket.h>

bool vz_api_vz_open_data(vz_call *call, GError **err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return vz_fail_errno(err, errno, "cannot make a socket");
    vz_autofd ours = pair[1];
    const vz_stream_request request = {
        .take_fd = pair[0], .holds_back = true, .tune = vz_dial_set_options};
    if (!vz_stream_open(call, &request, NULL, err))
        return false;
    vz_tunnel_end(vz_this_host.migrate, vz_steal_fd(&ours));
    return true;
}
