/* visit.c - see visit.h. */
#include "migrate/visit.h"

#include "base/wait.h"

#include <string.h>

typedef struct {
    uint8_t job[VZ_UUID_BYTES];
    vz_channel_keys *keys;
    char *peer_fingerprint;
    int64_t until_us;
} visit;

struct vz_visits {
    GMutex lock;
    GPtrArray *all; /* visit, the oldest first */
};

static void visit_free(void *data)
{
    visit *v = data;
    vz_channel_keys_free(v->keys);
    g_free(v->peer_fingerprint);
    g_free(v);
}

vz_visits *vz_visits_new(void)
{
    vz_visits *visits = g_new0(vz_visits, 1);
    g_mutex_init(&visits->lock);
    visits->all = g_ptr_array_new_with_free_func(visit_free);
    return visits;
}

void vz_visits_free(vz_visits *visits)
{
    if (!visits)
        return;
    g_ptr_array_unref(visits->all);
    g_mutex_clear(&visits->lock);
    g_free(visits);
}

/* With the lock held. Those whose time is over are removed; the index, or -1. */
static int find(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES])
{
    while (visits->all->len > 0 && ((const visit *)visits->all->pdata[0])->until_us < vz_now_us())
        g_ptr_array_remove_index(visits->all, 0);
    for (guint i = 0; i < visits->all->len; i++)
        if (memcmp(((const visit *)visits->all->pdata[i])->job, job, VZ_UUID_BYTES) == 0)
            return (int)i;
    return -1;
}

bool vz_visits_expect(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES],
                      const char *peer_fingerprint, char **ret_fingerprint, GError **err)
{
    uint8_t fingerprint[VZ_FINGERPRINT_BYTES];
    if (!peer_fingerprint || !vz_fingerprint_parse(peer_fingerprint, fingerprint))
        return vz_fail(err, VZ_ERR_INVALID_ARG, "the cookie of the check names no valid key");
    g_autoptr(vz_channel_keys) keys = vz_channel_keys_generate(err);
    if (!keys)
        return false;
    *ret_fingerprint = g_strdup(vz_channel_keys_fingerprint(keys));
    visit *v = g_new(visit, 1);
    *v = (visit){.keys = g_steal_pointer(&keys),
                 .peer_fingerprint = g_strdup(peer_fingerprint),
                 .until_us = vz_now_us() + VZ_VISIT_GOOD_US};
    memcpy(v->job, job, VZ_UUID_BYTES);
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&visits->lock);
    int before = find(visits, job);
    if (before >= 0)
        g_ptr_array_remove_index(visits->all, (guint)before);
    if (visits->all->len >= VZ_VISITS_MAX)
        g_ptr_array_remove_index(visits->all, 0);
    g_ptr_array_add(visits->all, v);
    return true;
}

bool vz_visits_find(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES], vz_channel_keys **ret_keys,
                    char **ret_peer_fingerprint)
{
    g_autoptr(GError) ignored = NULL; /* the own PEM is well-formed */
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&visits->lock);
    int i = find(visits, job);
    if (i < 0)
        return false;
    const visit *v = visits->all->pdata[i];
    char *pem = vz_channel_keys_to_pem(v->keys);
    *ret_keys = vz_channel_keys_from_pem(pem, strlen(pem), &ignored);
    *ret_peer_fingerprint = g_strdup(v->peer_fingerprint);
    vz_channel_pem_free(pem);
    return *ret_keys != NULL;
}

bool vz_visits_end(vz_visits *visits, const uint8_t job[VZ_UUID_BYTES])
{
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&visits->lock);
    int i = find(visits, job);
    if (i >= 0)
        g_ptr_array_remove_index(visits->all, (guint)i);
    return i >= 0;
}
