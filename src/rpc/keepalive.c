/* keepalive.c - see keepalive.h. */
#include "rpc/keepalive.h"

#include "base/units.h"

void vz_keepalive_init(vz_keepalive *keepalive, unsigned interval_s, unsigned count, int64_t now_us)
{
    *keepalive = (vz_keepalive){.interval_us = interval_s * VZ_USEC_PER_SEC, .count = count};
    vz_keepalive_heard(keepalive, now_us);
}

void vz_keepalive_heard(vz_keepalive *keepalive, int64_t now_us)
{
    keepalive->heard_us = now_us;
    keepalive->pinged_us = now_us;
    keepalive->missed = 0;
}

vz_keepalive_todo vz_keepalive_tick(vz_keepalive *keepalive, int64_t now_us)
{
    if (!keepalive->interval_us || now_us - keepalive->pinged_us < keepalive->interval_us)
        return VZ_KEEPALIVE_NOTHING;
    if (keepalive->missed == keepalive->count)
        return VZ_KEEPALIVE_DEAD;
    keepalive->missed++;
    keepalive->pinged_us = now_us;
    return VZ_KEEPALIVE_SEND_PING;
}

GByteArray *vz_keepalive_packet(int32_t procedure)
{
    const vz_frame frame = {
        .program = VZ_PROGRAM_KEEPALIVE,
        .version = VZ_PROGRAM_VERSION,
        .procedure = procedure,
        .type = VZ_PACKET_MESSAGE,
    };
    GByteArray *packet = g_byte_array_new();
    size_t payload = vz_frame_begin(packet, &frame);
    g_autoptr(GError) err = NULL;
    bool ended = vz_frame_end(packet, payload, &err);
    g_assert(ended);
    return packet;
}
