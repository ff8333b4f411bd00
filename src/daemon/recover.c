/* recover.c - see recover.h. */
#include "daemon/recover.h"

#include "base/log.h"
#include "domain/def.h"
#include "driver/life.h"
#include "driver/qemu/caps.h"

#include <string.h>

#define ADOPT_WAIT_US (5 * (int64_t)1000000)

/* No QEMU is asked for its machines here: what was stored is versioned already. */
static vz_def *parse(const vz_host *host, const char *uuid_text, const char *xml, unsigned flags,
                     GError **err)
{
    const vz_def_host def_host = {
        .arch = "x86_64", .emulator = host->emulator, .default_machine = "pc"};
    g_autoptr(vz_def) def = vz_def_parse(xml, flags, &def_host, err);
    char own[VZ_UUID_TEXT_BYTES];
    if (!def)
        return NULL;
    vz_uuid_format(def->uuid, own);
    if (strcmp(own, uuid_text) != 0) {
        vz_fail(err, VZ_ERR_XML_ERROR, "the file of %s holds the domain %s", uuid_text, own);
        return NULL;
    }
    return g_steal_pointer(&def);
}

/* ---- definitions ---- */

static bool load_config(vz_host *host, const char *uuid_text, GError **err)
{
    g_autofree char *xml = NULL;
    bool autostart = false;
    if (!vz_store_read_config(host->store, uuid_text, &xml, &autostart, err))
        return false;
    g_autoptr(vz_def) def = parse(host, uuid_text, xml, VZ_DEF_PARSE_INACTIVE, err);
    if (!def)
        return false;
    g_autoptr(vz_domain) domain =
        vz_table_reserve(host->table, def->uuid, def->name, VZ_RESERVE_DEFINE, err);
    if (!domain)
        return false;
    /* On main's thread: no actor exists yet. */
    vz_domain_set_config(domain, g_steal_pointer(&def));
    vz_domain_set_autostart(domain, autostart);
    vz_table_release(domain, VZ_RESERVE_DEFINE);
    return true;
}

void vz_recover_configs(vz_host *host)
{
    g_autoptr(GPtrArray) uuids = vz_store_list_configs(host->store);
    for (guint i = 0; i < uuids->len; i++) {
        g_autoptr(GError) err = NULL;
        if (!load_config(host, uuids->pdata[i], &err))
            vz_error(uuids->pdata[i], "its definition cannot be used and is left as it is: %s",
                     err->message);
    }
}

/* ---- guests ---- */

typedef struct {
    GMutex lock;
    GCond changed;
    unsigned left;
    int refs; /* atomic: of main, and of each adoption */
} countdown;

static void countdown_unref(countdown *c)
{
    if (!g_atomic_int_dec_and_test(&c->refs))
        return;
    g_mutex_clear(&c->lock);
    g_cond_clear(&c->changed);
    g_free(c);
}

typedef struct {
    vz_life_adopt_request request;
    countdown *countdown;
} adoption;

static void adoption_free(void *data)
{
    adoption *a = data;
    g_mutex_lock(&a->countdown->lock);
    a->countdown->left--;
    g_cond_signal(&a->countdown->changed);
    g_mutex_unlock(&a->countdown->lock);
    countdown_unref(a->countdown);
    vz_def_unref(a->request.take_live);
    g_free(a);
}

static void adopt(vz_domain *domain, void *data)
{
    adoption *a = data;
    g_autoptr(GError) err = NULL;
    vz_life_adopt(domain, &a->request);
    a->request.take_live = NULL;
    vz_table_release(domain, VZ_RESERVE_DEFINE);
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    if (s->autodestroy && !vz_life_destroy(domain, false, &err))
        vz_error(vz_domain_name(domain), "should have died with a connection that is gone: %s",
                 err->message);
}

/* false without an error: it belongs to a boot that is over. */
static bool load_guest(vz_host *host, const char *uuid_text, countdown *c, GError **err)
{
    vz_status status;
    if (!vz_store_read_status(host->store, uuid_text, &status, err))
        return false;
    g_autofree char *xml = status.xml;
    if (strcmp(status.boot_id, vz_boot_id()) != 0) {
        vz_store_remove_status(host->store, uuid_text);
        return true;
    }
    g_autoptr(vz_def) live = parse(host, uuid_text, xml, 0, err);
    if (!live)
        return false;
    g_autoptr(vz_domain) domain =
        vz_table_reserve(host->table, live->uuid, live->name, VZ_RESERVE_DEFINE, err);
    if (!domain)
        return false;
    vz_table_note_id(host->table, status.id);
    adoption *a = g_new0(adoption, 1);
    a->request = (vz_life_adopt_request){.take_live = g_steal_pointer(&live),
                                         .id = status.id,
                                         .state = (vz_state)status.state,
                                         .reason = status.reason,
                                         .autodestroy = status.autodestroy,
                                         .reboot = status.reboot,
                                         .pid = status.pid,
                                         .start_time = status.start_time};
    a->countdown = c;
    g_atomic_int_inc(&c->refs);
    c->left++;
    return vz_domain_post(domain, VZ_TASK_NORMAL, adopt, a, adoption_free);
}

void vz_recover_guests(vz_host *host)
{
    countdown *c = g_new0(countdown, 1);
    g_mutex_init(&c->lock);
    g_cond_init(&c->changed);
    c->refs = 1;
    g_autoptr(GPtrArray) uuids = vz_store_list_statuses(host->store);
    int64_t deadline_us = vz_now_us() + ADOPT_WAIT_US;
    g_mutex_lock(&c->lock);
    for (guint i = 0; i < uuids->len; i++) {
        g_autoptr(GError) err = NULL;
        if (!load_guest(host, uuids->pdata[i], c, &err))
            vz_error(uuids->pdata[i],
                     "may be running, but its status cannot be used and is left as it is: %s",
                     err->message);
    }
    while (c->left > 0 && g_cond_wait_until(&c->changed, &c->lock, deadline_us))
        ;
    if (c->left > 0)
        vz_warn(NULL, "%u guests do not answer yet", c->left);
    g_mutex_unlock(&c->lock);
    countdown_unref(c);
}

/* ---- autostart ---- */

static void autostart(vz_domain *domain, void *data)
{
    (void)data;
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_snapshot) s = vz_domain_snapshot(domain);
    const vz_life_start_request request = {.automatic = true};
    if (vz_snapshot_active(s) || s->has_job || vz_life_start(domain, &request, &err))
        return;
    g_autofree char *text = vz_error_text(err);
    vz_error(vz_domain_name(domain), "cannot be started automatically: %s", text);
    vz_domain_add_message(domain, "could not be started automatically: %s", text);
}

void vz_recover_autostart(vz_host *host)
{
    g_autoptr(GError) err = NULL;
    if (vz_store_autostarted(host->store))
        return;
    /* First, so that a daemon that dies in between does not start them twice. */
    if (!vz_store_note_autostarted(host->store, &err)) {
        vz_error(NULL, "no domain is started automatically: %s", err->message);
        return;
    }
    g_autoptr(GPtrArray) all = vz_table_list(host->table);
    for (guint i = 0; i < all->len; i++) {
        g_autoptr(vz_snapshot) s = vz_domain_snapshot(all->pdata[i]);
        if (s->autostart && !vz_snapshot_active(s))
            vz_domain_post(all->pdata[i], VZ_TASK_NORMAL, autostart, NULL, NULL);
    }
}
