/* table.c - see table.h.
 *
 * table->lock guards the two indexes, the reservation counts and next_id. Each entry owns one
 * reference of its domain. */
#include "domain/table.h"

#include <string.h>

typedef struct {
    vz_domain *domain;
    unsigned reserved;
    bool starting; /* one of the reservations is VZ_RESERVE_START */
} entry;

struct vz_table {
    GMutex lock;
    GHashTable *by_uuid; /* uuid in the domain -> entry */
    GHashTable *by_name; /* name in the domain -> entry (borrowed) */
    int next_id;
    vz_store *store;
    const vz_driver *driver;
    vz_table_listener listener;
    void *listener_user;
};

static void entry_free(void *data)
{
    entry *e = data;
    vz_domain_unref(e->domain);
    g_free(e);
}

vz_table *vz_table_new(vz_store *store, const vz_driver *driver)
{
    vz_table *table = g_new0(vz_table, 1);
    g_mutex_init(&table->lock);
    table->by_uuid = g_hash_table_new_full(vz_uuid_hash, vz_uuid_equal, NULL, entry_free);
    table->by_name = g_hash_table_new(g_str_hash, g_str_equal);
    table->next_id = 1;
    table->store = store;
    table->driver = driver;
    return table;
}

void vz_table_stop(vz_table *table, vz_task_fn on_end)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new_with_free_func((GDestroyNotify)vz_domain_unref);
    g_mutex_lock(&table->lock);
    GHashTableIter iter;
    void *value;
    g_hash_table_iter_init(&iter, table->by_uuid);
    while (g_hash_table_iter_next(&iter, NULL, &value))
        g_ptr_array_add(all, vz_domain_ref(((entry *)value)->domain));
    g_mutex_unlock(&table->lock);
    for (guint i = 0; i < all->len; i++)
        vz_domain_stop_actor(all->pdata[i], on_end);
}

void vz_table_free(vz_table *table)
{
    if (!table)
        return;
    vz_table_stop(table, NULL);
    g_hash_table_unref(table->by_name);
    g_hash_table_unref(table->by_uuid);
    g_mutex_clear(&table->lock);
    g_free(table);
}

vz_store *vz_table_store(vz_table *table)
{
    return table->store;
}

/* ---- listener ---- */

void vz_table_set_listener(vz_table *table, const vz_table_listener *listener, void *user)
{
    table->listener = *listener;
    table->listener_user = user;
}

static int current_id(vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return s->id;
}

void vz_table_emit(vz_domain *domain, vz_event event, int detail)
{
    vz_table *table = vz_domain_table(domain);
    if (table->listener.lifecycle)
        table->listener.lifecycle(table->listener_user, domain, current_id(domain), event, detail);
}

void vz_table_emit_reboot(vz_domain *domain)
{
    vz_table *table = vz_domain_table(domain);
    if (table->listener.reboot)
        table->listener.reboot(table->listener_user, domain, current_id(domain));
}

void vz_table_emit_iteration(vz_domain *domain, int iteration)
{
    vz_table *table = vz_domain_table(domain);
    if (table->listener.iteration)
        table->listener.iteration(table->listener_user, domain, current_id(domain), iteration);
}

void vz_table_emit_job_completed(vz_domain *domain, const vz_job_stats *stats)
{
    vz_table *table = vz_domain_table(domain);
    if (table->listener.job_completed)
        table->listener.job_completed(table->listener_user, domain, current_id(domain), stats);
}

/* ---- lookup ---- */

vz_domain *vz_table_find_uuid(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES],
                              const char *name_or_null, GError **err)
{
    g_mutex_lock(&table->lock);
    entry *e = g_hash_table_lookup(table->by_uuid, uuid);
    vz_domain *domain = e ? vz_domain_ref(e->domain) : NULL;
    g_mutex_unlock(&table->lock);
    if (domain)
        return domain;
    char text[VZ_UUID_TEXT_BYTES];
    vz_uuid_format(uuid, text);
    if (name_or_null && *name_or_null)
        vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching uuid '%s' (%s)", text,
                name_or_null);
    else
        vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching uuid '%s'", text);
    return NULL;
}

static bool is_empty(vz_domain *domain)
{
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    return vz_snapshot_empty(s);
}

vz_domain *vz_table_find_name(vz_table *table, const char *name, GError **err)
{
    g_mutex_lock(&table->lock);
    entry *e = g_hash_table_lookup(table->by_name, name);
    vz_domain *domain = e && !is_empty(e->domain) ? vz_domain_ref(e->domain) : NULL;
    g_mutex_unlock(&table->lock);
    if (!domain)
        vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching name '%s'", name);
    return domain;
}

vz_domain *vz_table_find_id(vz_table *table, int id, GError **err)
{
    vz_domain *found = NULL;
    g_mutex_lock(&table->lock);
    GHashTableIter iter;
    void *value;
    g_hash_table_iter_init(&iter, table->by_uuid);
    while (!found && id >= 0 && g_hash_table_iter_next(&iter, NULL, &value)) {
        vz_domain *domain = ((entry *)value)->domain;
        if (current_id(domain) == id)
            found = vz_domain_ref(domain);
    }
    g_mutex_unlock(&table->lock);
    if (!found)
        vz_fail(err, VZ_ERR_NO_DOMAIN, "no domain with matching id %d", id);
    return found;
}

/* ---- reservation ---- */

static bool check_existing(const entry *e, const char *name, vz_reserve purpose, GError **err)
{
    vz_domain *domain = e->domain;
    if (!g_str_equal(vz_domain_name(domain), name))
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "domain '%s' is already defined with uuid %s",
                       vz_domain_name(domain), vz_domain_uuid_text(domain));
    if (purpose != VZ_RESERVE_START)
        return true;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (vz_snapshot_active(s))
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain '%s' is already active", name);
    if (e->starting)
        return vz_fail(err, VZ_ERR_OPERATION_INVALID, "domain '%s' is already being started", name);
    return vz_snapshot_check_no_job(s, err);
}

/* *ret_entry: the one to use, NULL if it has to be made. false with err at a clash. With the lock
 * held. */
static bool find_place(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES], const char *name,
                       vz_reserve purpose, entry **ret_entry, GError **err)
{
    *ret_entry = g_hash_table_lookup(table->by_uuid, uuid);
    if (*ret_entry)
        return check_existing(*ret_entry, name, purpose, err);
    const entry *other = g_hash_table_lookup(table->by_name, name);
    return !other ||
           vz_fail(err, VZ_ERR_OPERATION_FAILED, "domain '%s' already exists with uuid %s", name,
                   vz_domain_uuid_text(other->domain));
}

bool vz_table_check(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES], const char *name,
                    vz_reserve purpose, GError **err)
{
    entry *e;
    g_autoptr(GMutexLocker) locker = g_mutex_locker_new(&table->lock);
    return find_place(table, uuid, name, purpose, &e, err);
}

static entry *add_entry(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES], const char *name)
{
    entry *e = g_new0(entry, 1);
    e->domain = vz_domain_new(uuid, name, table, table->driver);
    g_hash_table_insert(table->by_uuid, (void *)(uintptr_t)vz_domain_uuid(e->domain), e);
    g_hash_table_insert(table->by_name, (void *)(uintptr_t)vz_domain_name(e->domain), e);
    return e;
}

vz_domain *vz_table_reserve(vz_table *table, const uint8_t uuid[VZ_UUID_BYTES], const char *name,
                            vz_reserve purpose, GError **err)
{
    vz_domain *domain = NULL;
    g_mutex_lock(&table->lock);
    entry *e;
    if (find_place(table, uuid, name, purpose, &e, err)) {
        if (!e)
            e = add_entry(table, uuid, name);
        e->reserved++;
        e->starting |= purpose == VZ_RESERVE_START;
        domain = vz_domain_ref(e->domain);
    }
    g_mutex_unlock(&table->lock);
    return domain;
}

/* With the lock held. */
static void prune(vz_table *table, entry *e)
{
    if (e->reserved > 0 || !is_empty(e->domain))
        return;
    g_hash_table_remove(table->by_name, vz_domain_name(e->domain));
    g_hash_table_remove(table->by_uuid, vz_domain_uuid(e->domain));
}

void vz_table_release(vz_domain *domain, vz_reserve purpose)
{
    vz_table *table = vz_domain_table(domain);
    g_mutex_lock(&table->lock);
    entry *e = g_hash_table_lookup(table->by_uuid, vz_domain_uuid(domain));
    g_assert(e && e->domain == domain && e->reserved > 0);
    e->reserved--;
    if (purpose == VZ_RESERVE_START)
        e->starting = false;
    prune(table, e);
    g_mutex_unlock(&table->lock);
}

void vz_table_prune(vz_domain *domain)
{
    vz_table *table = vz_domain_table(domain);
    g_mutex_lock(&table->lock);
    entry *e = g_hash_table_lookup(table->by_uuid, vz_domain_uuid(domain));
    if (e && e->domain == domain)
        prune(table, e);
    g_mutex_unlock(&table->lock);
}

/* ---- ids ---- */

int vz_table_next_id(vz_table *table)
{
    g_mutex_lock(&table->lock);
    int id = table->next_id++;
    g_mutex_unlock(&table->lock);
    return id;
}

void vz_table_note_id(vz_table *table, int id)
{
    g_mutex_lock(&table->lock);
    table->next_id = MAX(table->next_id, id + 1);
    g_mutex_unlock(&table->lock);
}

/* ---- lists ---- */

static int compare_names(const void *a, const void *b)
{
    const vz_domain *x = *(vz_domain *const *)a;
    const vz_domain *y = *(vz_domain *const *)b;
    return strcmp(vz_domain_name(x), vz_domain_name(y));
}

GPtrArray *vz_table_list(vz_table *table)
{
    GPtrArray *all = g_ptr_array_new_with_free_func((GDestroyNotify)vz_domain_unref);
    g_mutex_lock(&table->lock);
    GHashTableIter iter;
    void *value;
    g_hash_table_iter_init(&iter, table->by_uuid);
    while (g_hash_table_iter_next(&iter, NULL, &value)) {
        vz_domain *domain = ((entry *)value)->domain;
        if (!is_empty(domain))
            g_ptr_array_add(all, vz_domain_ref(domain));
    }
    g_mutex_unlock(&table->lock);
    g_ptr_array_sort(all, compare_names);
    return all;
}

static uint32_t state_flag(vz_state state)
{
    enum { RUNNING = 16, PAUSED = 32, SHUTOFF = 64, OTHER = 128 };
    if (state == VZ_STATE_RUNNING)
        return RUNNING;
    if (state == VZ_STATE_PAUSED)
        return PAUSED;
    return state == VZ_STATE_SHUTOFF ? SHUTOFF : OTHER;
}

bool vz_snapshot_matches(const vz_snapshot *snapshot, uint32_t list_flags)
{
    /* Bits of virConnectListAllDomains, by group: a group without a bit filters nothing. */
    const struct {
        uint32_t group;
        uint32_t own; /* the bit of the group that the domain has */
    } groups[] = {
        {1 | 2, vz_snapshot_active(snapshot) ? 1 : 2},
        {4 | 8, vz_snapshot_persistent(snapshot) ? 4 : 8},
        {16 | 32 | 64 | 128, state_flag(snapshot->state)},
        {256 | 512, 512}, /* managed save: none has */
        {1024 | 2048, snapshot->autostart ? 1024 : 2048},
        {4096 | 8192, 8192},    /* snapshots: none has */
        {16384 | 32768, 32768}, /* checkpoints: none has */
    };
    for (size_t i = 0; i < G_N_ELEMENTS(groups); i++)
        if ((list_flags & groups[i].group) && !(list_flags & groups[i].own))
            return false;
    return true;
}
