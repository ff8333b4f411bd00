/* blockcopy.c - see blockcopy.h. */
#include "driver/qemu/blockcopy.h"

#include "base/json.h"

#include <string.h>

/* Names of ours in QEMU: the job and the node of a disk, and the descriptor while it is passed. */
#define JOB_OF "copy-%s"
/* The NBD handshake is inside: several round trips. */
#define CONNECT_TIMEOUT_US (2 * VZ_QMP_TIMEOUT_US)

static bool tell(vz_qmp *qmp, const char *name, json_t *take_args, GError **err)
{
    return vz_qmp_do(qmp, name, take_args, VZ_QMP_TIMEOUT_US, err);
}

static char *name_of(const char *disk)
{
    return g_strdup_printf(JOB_OF, disk);
}

bool vz_blockcopy_serve(vz_qmp *qmp, const char *socket_path, GError **err)
{
    return tell(qmp, "nbd-server-start",
                json_pack("{s{ss s{ss}}}", "addr", "type", "unix", "data", "path", socket_path),
                err);
}

bool vz_blockcopy_export(vz_qmp *qmp, const char *disk, const char *node, const char *storage,
                         GError **err)
{
    g_autofree char *name = name_of(disk);
    if (storage && !tell(qmp, "blockdev-add",
                         json_pack("{ss ss ss ss}", "driver", "raw", "node-name", name, "file",
                                   storage, "discard", "unmap"),
                         err))
        return false;
    return tell(qmp, "block-export-add",
                json_pack("{ss ss ss ss sb}", "type", "nbd", "id", disk, "name", disk, "node-name",
                          storage ? name : node, "writable", 1),
                err);
}

/* true: done, or there was nothing to do, which QEMU calls a failure with these words. */
static bool tell_idempotent(vz_qmp *qmp, const char *name, json_t *take_args, const char *words,
                            GError **err)
{
    g_autoptr(GError) refused = NULL;
    if (tell(qmp, name, take_args, &refused) || strstr(refused->message, words))
        return true;
    g_propagate_error(err, g_steal_pointer(&refused));
    return false;
}

bool vz_blockcopy_stop_serving(vz_qmp *qmp, GError **err)
{
    return tell_idempotent(qmp, "nbd-server-stop", NULL, "NBD server not running", err);
}

bool vz_blockcopy_remove_node(vz_qmp *qmp, const char *disk, GError **err)
{
    g_autofree char *name = name_of(disk);
    return tell_idempotent(qmp, "blockdev-del", json_pack("{ss}", "node-name", name),
                           "Failed to find node", err);
}

static bool connect_node(vz_qmp *qmp, const char *name, const vz_blockcopy_request *r, GError **err)
{
    json_t *node = json_pack("{ss ss s{ss ss} ss ss ss}", "driver", "nbd", "node-name", name,
                             "server", "type", "fd", "str", name, "export", r->disk, "discard",
                             "unmap", "detect-zeroes", "unmap");
    if (!vz_qmp_send_fd(qmp, name, r->fd, err)) {
        json_decref(node);
        return false;
    }
    if (vz_qmp_do(qmp, "blockdev-add", node, CONNECT_TIMEOUT_US, err))
        return true;
    g_autoptr(GError) taken = NULL; /* by the node, as far as it came */
    tell(qmp, "closefd", json_pack("{ss}", "fdname", name), &taken);
    return false;
}

bool vz_blockcopy_start(vz_qmp *qmp, const vz_blockcopy_request *r, GError **err)
{
    g_autofree char *name = name_of(r->disk);
    if (strlen(r->disk) > VZ_BLOCKCOPY_NAME_MAX)
        return vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED,
                       "disk '%s' cannot be copied: its target's name is longer than %d bytes",
                       r->disk, VZ_BLOCKCOPY_NAME_MAX);
    if (!connect_node(qmp, name, r, err))
        return false;
    json_t *job =
        json_pack("{ss ss ss ss ss sI sb}", "job-id", name, "device", r->node, "target", name,
                  "sync", "full", "copy-mode", r->synchronous ? "write-blocking" : "background",
                  "speed", (json_int_t)r->bytes_s, "auto-dismiss", 0);
    if (tell(qmp, "blockdev-mirror", job, err))
        return true;
    g_autoptr(GError) stays = NULL;
    vz_blockcopy_remove_node(qmp, r->disk, &stays);
    return false;
}

static uint64_t number(const json_t *job, const char *key)
{
    json_int_t value = json_integer_value(json_object_get(job, key));
    return value > 0 ? (uint64_t)value : 0;
}

static vz_blockcopy_state state_of(const json_t *job)
{
    const char *status = vz_json_text(job, "status");
    if (g_strcmp0(status, "concluded") == 0)
        return json_object_get(job, "error") ? VZ_BLOCKCOPY_FAILED : VZ_BLOCKCOPY_CONCLUDED;
    /* "aborting", too, is RUNNING: until all that it held is let go. */
    return g_strcmp0(status, "ready") == 0 ? VZ_BLOCKCOPY_READY : VZ_BLOCKCOPY_RUNNING;
}

static void read_job(const json_t *job, vz_blockcopy_progress *p)
{
    const char *reason = vz_json_text(job, "error");
    *p = (vz_blockcopy_progress){.state = state_of(job),
                                 .done_bytes = number(job, "current-progress"),
                                 .total_bytes = number(job, "total-progress")};
    g_strlcpy(p->reason, reason ? reason : "", sizeof(p->reason));
}

bool vz_blockcopy_query(vz_qmp *qmp, const char *disk, vz_blockcopy_progress *ret_progress,
                        GError **err)
{
    size_t i;
    json_t *job;
    g_autofree char *name = name_of(disk);
    *ret_progress = (vz_blockcopy_progress){.state = VZ_BLOCKCOPY_NONE};
    json_t *jobs = vz_qmp_command(qmp, "query-jobs", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!jobs)
        return false;
    json_array_foreach(jobs, i, job)
    {
        if (g_strcmp0(vz_json_text(job, "id"), name) == 0)
            read_job(job, ret_progress);
    }
    json_decref(jobs);
    return true;
}

bool vz_blockcopy_set_speed(vz_qmp *qmp, const char *disk, uint64_t bytes_s, GError **err)
{
    g_autofree char *name = name_of(disk);
    return tell(qmp, "block-job-set-speed",
                json_pack("{ss sI}", "device", name, "speed", (json_int_t)bytes_s), err);
}

/* Of a mirror that is ready, "cancel" without force means: end, and leave the guest on its own
 * image (QEMU's qapi/block-core.json). */
bool vz_blockcopy_finish(vz_qmp *qmp, const char *disk, GError **err)
{
    g_autofree char *name = name_of(disk);
    return tell(qmp, "block-job-cancel", json_pack("{ss}", "device", name), err);
}

bool vz_blockcopy_end(vz_qmp *qmp, const char *disk, GError **err)
{
    g_autofree char *name = name_of(disk);
    return tell(qmp, "job-dismiss", json_pack("{ss}", "id", name), err) &&
           vz_blockcopy_remove_node(qmp, disk, err);
}

bool vz_blockcopy_cancel(vz_qmp *qmp, const char *disk, GError **err)
{
    g_autofree char *name = name_of(disk);
    return tell(qmp, "block-job-cancel", json_pack("{ss sb}", "device", name, "force", 1), err);
}
