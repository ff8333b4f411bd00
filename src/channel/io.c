/* io.c - see io.h. */
#include "channel/io.h"

static void note_ready(G_GNUC_UNUSED int fd, G_GNUC_UNUSED short revents, void *data)
{
    *(bool *)data = true;
}

static bool is_ready(void *data)
{
    return *(bool *)data;
}

bool vz_io_wait(const vz_io *io, int fd, short events, GError **err)
{
    vz_wait_result result = VZ_WAIT_TIMEOUT;
    if (io->inbox) {
        bool ready = false;
        vz_inbox_watch(io->inbox, fd, events, note_ready, &ready);
        result = vz_wait(io->inbox, is_ready, &ready, io->deadline_us);
        vz_inbox_unwatch(io->inbox, fd);
    } else if (vz_poll_one(fd, events, io->deadline_us)) {
        result = VZ_WAIT_DONE;
    }
    if (result == VZ_WAIT_CANCELLED)
        return vz_fail(err, VZ_ERR_OPERATION_ABORTED, "cancelled");
    return result == VZ_WAIT_DONE || vz_fail(err, VZ_ERR_OPERATION_TIMEOUT, "timed out");
}
