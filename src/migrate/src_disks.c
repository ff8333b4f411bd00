/* src_disks.c - see disks.h: the source's part. */
#include "migrate/disks.h"

#include "base/fd.h"
#include "base/json.h"
#include "base/log.h"
#include "base/units.h"
#include "driver/qemu/argv.h"
#include "driver/qemu/blockcopy.h"
#include "driver/qemu/driver.h"
#include "migrate/tunnel.h"
#include "storage/volume.h"

#include <errno.h>
#include <sys/socket.h>

#define POLL_US             ((int64_t)200 * 1000)
#define CONNECT_DEADLINE_US ((int64_t)15 * 1000000)
/* For the rest that both are not alike in, and a flush on the other host; the guest stands still.
 */
#define SETTLE_DEADLINE_US ((int64_t)60 * 1000000)
#define STOP_DEADLINE_US   ((int64_t)30 * 1000000)

static const char *target_of(const json_t *copies, size_t n)
{
    const char *target = vz_json_text(json_array_get(copies, n), "target");
    return target ? target : "";
}

bool vz_source_note_copies(vz_migration *m, GError **err)
{
    size_t i;
    json_t *offer;
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    const vz_def *def = vz_migration_subject(m, snapshot);
    json_auto_t *copies = json_array();
    bool remove = vz_options_has(m->options, VZ_OPTION_REMOVE_SOURCE_DISKS);
    json_array_foreach(m->disks_offered, i, offer) /* as they were confirmed, one answer for each */
    {
        const char *target = vz_json_text(offer, "target");
        const json_t *answer = vz_identify_find(m->disks_answered, target);
        const vz_def_disk *disk = vz_def_disk_find(def, target);
        const json_t *image = json_object_get(offer, "image");
        if (disk && json_is_true(json_object_get(answer, "copy")))
            json_array_append_new(copies, json_pack("{ss ss sb sO*}", "target", target, "path",
                                                    disk->path, "remove", remove, "inode",
                                                    json_object_get(image, "inode")));
    }
    return json_array_size(copies) == 0 || vz_disks_note(m, copies, err);
}

/* --- copying --- */

/* A pair of sockets: one end is the carrier's, the other QEMU's. */
static int open_channel(vz_migration *m, vz_qemu *qemu, unsigned n, GError **err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        vz_fail_errno(err, errno, "cannot make a socket");
        return -1;
    }
    vz_autofd ours = pair[0];
    vz_carrier_connect_request request = {.host = m->peer_host,
                                          .port = m->peer_port,
                                          .way = vz_tunnel_way(m->tunnel),
                                          .purpose = VZ_PURPOSE_DISK,
                                          .index = (uint16_t)n,
                                          .take_local_fd = pair[1],
                                          .owner_pidfd = vz_qemu_pidfd(qemu),
                                          .deadline_us = vz_now_us() + CONNECT_DEADLINE_US};
    return vz_carrier_connect(m->carrier, &request, err) ? vz_steal_fd(&ours) : -1;
}

static bool start_copy(vz_migration *m, const json_t *copies, unsigned n, uint64_t bytes_s,
                       GError **err)
{
    vz_qemu *qemu = vz_migration_qemu(m, err);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    const vz_def_disk *disk = vz_def_disk_find(snapshot->live, target_of(copies, n));
    if (!disk)
        return vz_fail(err, VZ_ERR_OPERATION_FAILED, "migration of disk %s failed: it has gone",
                       target_of(copies, n));
    vz_autofd fd = qemu ? open_channel(m, qemu, n, err) : -1;
    if (fd < 0)
        return false;
    g_autofree char *node = vz_qemu_node_name(disk);
    const vz_blockcopy_request request = {
        .disk = disk->target,
        .node = node,
        .fd = fd,
        .synchronous = vz_options_has(m->options, VZ_OPTION_NON_SHARED_SYNCHRONOUS_WRITES),
        .bytes_s = bytes_s};
    if (vz_blockcopy_start(vz_qemu_qmp(qemu), &request, err))
        return true;
    g_prefix_error(err, "migration of disk %s failed: ", disk->target);
    return false;
}

static bool fail_copy(const char *target, const vz_blockcopy_progress *p, GError **err)
{
    return vz_fail(err, VZ_ERR_OPERATION_FAILED, "migration of disk %s failed: %s", target,
                   *p->reason ? p->reason : "QEMU gave up");
}

/* What libvirt calls processed counts what was copied anew, too. */
static void show_bytes(vz_migration *m, const vz_blockcopy_progress *sum)
{
    m->stats.disk_total_bytes = sum->total_bytes;
    m->stats.disk_processed_bytes = sum->done_bytes;
    m->stats.disk_remaining_bytes = sum->total_bytes - MIN(sum->done_bytes, sum->total_bytes);
}

static void show_progress(vz_migration *m, const vz_blockcopy_progress *sum, int64_t since_us)
{
    int64_t elapsed_us = MAX(vz_now_us() - since_us, 1);
    show_bytes(m, sum);
    m->stats.disk_bytes_s =
        (uint64_t)((double)sum->done_bytes * VZ_USEC_PER_SEC / (double)elapsed_us);
}

/* One look at all. *ret_least: the state of the one that is the least far. */
static bool look(vz_migration *m, const json_t *copies, vz_blockcopy_progress *ret_sum,
                 vz_blockcopy_state *ret_least, GError **err)
{
    *ret_sum = (vz_blockcopy_progress){0};
    *ret_least = VZ_BLOCKCOPY_CONCLUDED;
    for (size_t n = 0; n < json_array_size(copies); n++) {
        vz_blockcopy_progress p;
        vz_qemu *qemu = vz_migration_qemu(m, err);
        if (!qemu || !vz_blockcopy_query(vz_qemu_qmp(qemu), target_of(copies, n), &p, err))
            return false;
        if (p.state == VZ_BLOCKCOPY_FAILED || p.state == VZ_BLOCKCOPY_NONE)
            return fail_copy(target_of(copies, n), &p, err);
        ret_sum->done_bytes += p.done_bytes;
        ret_sum->total_bytes += p.total_bytes;
        *ret_least = MIN(*ret_least, p.state);
    }
    return true;
}

static bool await_ready(vz_migration *m, const json_t *copies, GError **err)
{
    int64_t began_us = vz_now_us();
    int64_t next_probe_us = began_us;
    for (;;) {
        vz_blockcopy_progress sum;
        vz_blockcopy_state least;
        if (!look(m, copies, &sum, &least, err))
            return false;
        show_progress(m, &sum, began_us);
        if (least >= VZ_BLOCKCOPY_READY)
            m->stats.disk_bytes_s = 0; /* what follows is memory's */
        vz_migration_publish(m, "disks");
        if (least >= VZ_BLOCKCOPY_READY)
            return true;
        if (!vz_source_probe_again(m, &next_probe_us, err))
            return false;
        if (vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
}

bool vz_source_copy_disks(vz_migration *m, GError **err)
{
    json_auto_t *copies = vz_disks_noted(m);
    unsigned n_copies = (unsigned)json_array_size(copies);
    g_autoptr(vz_snapshot) snapshot = vz_domain_snapshot(m->domain);
    uint64_t cap = vz_options_number(m->options, VZ_OPTION_BANDWIDTH, snapshot->max_speed_bytes_s);
    for (unsigned n = 0; n < n_copies; n++)
        if (!start_copy(m, copies, n, cap / n_copies, err))
            return false;
    m->copying_disks = n_copies > 0;
    if (n_copies > 0) /* all of it is to follow, or a bar would be full when the disks are there */
        m->stats.memory_total_bytes = m->stats.memory_remaining_bytes = snapshot->live->ram_bytes;
    return n_copies == 0 || await_ready(m, copies, err);
}

bool vz_source_check_disks(vz_migration *m, GError **err)
{
    vz_blockcopy_progress sum;
    vz_blockcopy_state least;
    if (!m->copying_disks)
        return true;
    json_auto_t *copies = vz_disks_noted(m);
    if (!look(m, copies, &sum, &least, err))
        return false;
    show_bytes(m, &sum);
    return true;
}

bool vz_source_set_disks_speed(vz_migration *m, uint64_t bytes_s, GError **err)
{
    json_auto_t *copies = vz_disks_noted(m);
    size_t n_copies = json_array_size(copies);
    vz_qemu *qemu = vz_driver_qemu_of(m->domain);
    for (size_t n = 0; m->copying_disks && qemu && n < n_copies; n++)
        if (!vz_blockcopy_set_speed(vz_qemu_qmp(qemu), target_of(copies, n), bytes_s / n_copies,
                                    err))
            return false;
    return true;
}

/* --- the end --- */

static bool end_all(vz_migration *m, const json_t *copies, GError **err)
{
    for (size_t n = 0; n < json_array_size(copies); n++) {
        vz_qemu *qemu = vz_migration_qemu(m, err);
        if (!qemu || !vz_blockcopy_end(vz_qemu_qmp(qemu), target_of(copies, n), err))
            return false;
    }
    return true;
}

bool vz_source_settle_disks(vz_migration *m, GError **err)
{
    vz_blockcopy_progress sum;
    vz_blockcopy_state least;
    json_auto_t *copies = vz_disks_noted(m);
    int64_t deadline_us = vz_now_us() + SETTLE_DEADLINE_US;
    m->copying_disks = false;
    if (!look(m, copies, &sum, &least, err))
        return false;
    for (size_t n = 0; n < json_array_size(copies); n++) {
        vz_qemu *qemu = vz_migration_qemu(m, err);
        /* The guest stands still for what is left. */
        if (!qemu || !vz_blockcopy_set_speed(vz_qemu_qmp(qemu), target_of(copies, n), 0, err) ||
            !vz_blockcopy_finish(vz_qemu_qmp(qemu), target_of(copies, n), err))
            return false;
    }
    while (json_array_size(copies) > 0) {
        if (!look(m, copies, &sum, &least, err))
            return false;
        m->stats.disk_remaining_bytes = 0;
        if (least == VZ_BLOCKCOPY_CONCLUDED)
            return end_all(m, copies, err);
        if (vz_now_us() >= deadline_us)
            return vz_fail(err, VZ_ERR_OPERATION_TIMEOUT,
                           "the disks on %s did not become like those here in time", m->peer_name);
        if (vz_wait(vz_domain_inbox(m->domain), vz_migration_stirred, m, vz_now_us() + POLL_US) ==
            VZ_WAIT_CANCELLED)
            return vz_migration_fail_aborted(m, err);
    }
    return true;
}

/* true: there is no such job in QEMU any more. */
static bool stop_one(vz_qmp *qmp, const char *target, bool *cancelled)
{
    vz_blockcopy_progress p;
    g_autoptr(GError) err = NULL;
    bool asked = vz_blockcopy_query(qmp, target, &p, &err);
    if (asked && p.state == VZ_BLOCKCOPY_NONE && vz_blockcopy_remove_node(qmp, target, &err))
        return true;
    if (asked && (p.state == VZ_BLOCKCOPY_CONCLUDED || p.state == VZ_BLOCKCOPY_FAILED) &&
        vz_blockcopy_end(qmp, target, &err))
        return true;
    if (asked && p.state < VZ_BLOCKCOPY_CONCLUDED && !*cancelled)
        *cancelled = vz_blockcopy_cancel(qmp, target, &err);
    if (err)
        vz_warn(target, "ending its copy: %s", err->message);
    return false;
}

void vz_source_cut_disks(vz_migration *m)
{
    json_auto_t *copies = vz_disks_noted(m);
    for (size_t n = 0; m->carrier && n < json_array_size(copies); n++)
        vz_carrier_abort(m->carrier, VZ_PURPOSE_DISK, (uint16_t)n);
}

void vz_source_stop_disks(vz_migration *m)
{
    json_auto_t *copies = vz_disks_noted(m);
    vz_source_cut_disks(m);
    int64_t deadline_us = vz_now_us() + STOP_DEADLINE_US;
    m->copying_disks = false;
    for (size_t n = 0; n < json_array_size(copies); n++) {
        bool cancelled = false;
        g_autoptr(GError) none = NULL;
        vz_qemu *qemu = vz_migration_qemu(m, &none);
        while (qemu && !stop_one(vz_qemu_qmp(qemu), target_of(copies, n), &cancelled) &&
               vz_now_us() < deadline_us && !m->guest_died)
            vz_wait_uncancellable(vz_domain_inbox(m->domain), vz_migration_stirred, m,
                                  vz_now_us() + POLL_US);
    }
}

static void put_aside(vz_migration *m, const json_t *copy)
{
    const char *target = vz_json_text(copy, "target");
    const char *path = vz_json_text(copy, "path");
    g_autofree char *aside = NULL;
    g_autoptr(GError) err = NULL;
    if (!vz_volume_put_aside(path, m->id, json_object_get(copy, "inode"), &aside, &err)) {
        vz_warn(m->id, "disk %s has moved to %s, but what is left of it here keeps its name: %s",
                target, m->peer_name, err->message);
        return;
    }
    /* Never by the operator's word alone, nor what may be the last of a guest that was lost. */
    g_autofree char *resolved = vz_journal_get(m->journal, VZ_NOTE_RESOLVED);
    bool remove = json_is_true(json_object_get(copy, "remove")) && !resolved && !m->pages_lost;
    if (aside)
        vz_info(m->id, "disk %s has moved to %s; what is left of it here is '%s'%s", target,
                m->peer_name, aside, remove ? ", and is removed" : "");
    if (aside && remove)
        vz_volume_remove_aside(aside);
}

bool vz_source_put_disks_aside(vz_migration *m, GError **err)
{
    (void)err; /* a mount of the file alone, a disk that became read-only: the guest is there */
    json_auto_t *copies = vz_disks_noted(m);
    for (size_t n = 0; n < json_array_size(copies); n++)
        put_aside(m, json_array_get(copies, n));
    return true;
}
