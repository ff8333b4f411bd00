/* postcopy.c - see postcopy.h: what both sides need. */
#include "migrate/postcopy.h"

#include "driver/life.h"

#include <string.h>

unsigned vz_postcopy_next_channel(const vz_migration *m)
{
    size_t n = 0;
    unsigned next = 0;
    const vz_channel_info *all = m->carrier ? vz_carrier_channels(m->carrier, &n) : NULL;
    for (size_t i = 0; i < n; i++)
        if (all[i].purpose == VZ_PURPOSE_MEMORY)
            next = MAX(next, all[i].index + 1u);
    return next;
}

unsigned vz_postcopy_living_channels(const vz_migration *m)
{
    size_t n = 0;
    unsigned living = 0;
    const vz_channel_info *all = m->carrier ? vz_carrier_channels(m->carrier, &n) : NULL;
    for (size_t i = 0; i < n; i++)
        living += all[i].purpose == VZ_PURPOSE_MEMORY && all[i].state > VZ_CHANNEL_EXPECTED &&
                  all[i].state < VZ_CHANNEL_FINISHED;
    return living;
}

static bool noted(vz_migration *m, const char *key)
{
    g_autofree char *value = vz_journal_get(m->journal, key);
    return value && strcmp(value, "yes") == 0;
}

void vz_postcopy_reload(vz_migration *m)
{
    m->stream = vz_stream_plain;
    m->stream.postcopy = (m->saga.facts & VZ_FACT_POSTCOPY) != 0;
    m->switched = noted(m, VZ_NOTE_SWITCHED);
    m->postcopy_held = noted(m, VZ_NOTE_HELD);
}

void vz_postcopy_say(vz_migration *m, vz_state state, int reason, vz_event event, int detail)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(m->domain);
    if (vz_snapshot_active(s) && (s->state != state || s->reason != reason))
        vz_life_changed(m->domain, state, reason, event, detail);
}
