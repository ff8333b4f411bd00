/* command.c - what a running QEMU is asked and told; see process.h. */
#include "driver/qemu/process_private.h"

#include <poll.h>
#include <string.h>

vz_qmp *vz_qemu_qmp(vz_qemu *qemu)
{
    return qemu->qmp;
}

pid_t vz_qemu_pid(const vz_qemu *qemu)
{
    return qemu->pid;
}

uint64_t vz_qemu_start_time(const vz_qemu *qemu)
{
    return qemu->start_time;
}

int vz_qemu_pidfd(const vz_qemu *qemu)
{
    return qemu->pidfd;
}

bool vz_qemu_alive(const vz_qemu *qemu)
{
    return !qemu->ended && !vz_poll_one(qemu->pidfd, POLLIN, vz_now_us());
}

const char *vz_qemu_rundir(const vz_qemu *qemu)
{
    return qemu->rundir;
}

void vz_qemu_identity(const vz_qemu *qemu, uid_t *ret_uid, gid_t *ret_gid)
{
    *ret_uid = qemu->user.uid;
    *ret_gid = qemu->user.gid;
}

const vz_qemu_caps *vz_qemu_get_caps(const vz_qemu *qemu)
{
    return qemu->caps;
}

const char *vz_qemu_accel_note(const vz_qemu *qemu)
{
    return qemu->accel_note;
}

char *vz_qemu_last_words(const vz_qemu *qemu)
{
    if (!qemu->log)
        return g_strdup("");
    g_autoptr(GString) words = g_string_new(NULL);
    g_autofree char *tail = vz_qemu_log_tail(qemu->log);
    g_string_assign(words, tail);
    /* Backwards: /dev/fdset/1 is the beginning of /dev/fdset/10, too. */
    for (guint i = qemu->images ? g_strv_length(qemu->images) : 0; i-- > 0;) {
        g_autofree char *set = g_strdup_printf("/dev/fdset/%u", i);
        g_string_replace(words, set, qemu->images[i], 0);
    }
    return g_string_free(g_steal_pointer(&words), FALSE);
}

static bool tell(vz_qemu *qemu, const char *name, json_t *take_args, GError **err)
{
    return vz_qmp_do(qemu->qmp, name, take_args, VZ_QMP_TIMEOUT_US, err);
}

bool vz_qemu_cont(vz_qemu *qemu, GError **err)
{
    return tell(qemu, "cont", NULL, err);
}

bool vz_qemu_stop(vz_qemu *qemu, GError **err)
{
    return tell(qemu, "stop", NULL, err);
}

bool vz_qemu_powerdown(vz_qemu *qemu, GError **err)
{
    return tell(qemu, "system_powerdown", NULL, err);
}

bool vz_qemu_reset(vz_qemu *qemu, GError **err)
{
    return tell(qemu, "system_reset", NULL, err);
}

bool vz_qemu_announce_self(vz_qemu *qemu, GError **err)
{
    /* QEMU's own defaults, which its migration uses: five rounds over some two seconds. */
    return tell(
        qemu, "announce-self",
        json_pack("{s:i, s:i, s:i, s:i}", "initial", 50, "max", 550, "rounds", 5, "step", 100),
        err);
}

bool vz_qemu_set_balloon(vz_qemu *qemu, uint64_t bytes, GError **err)
{
    return tell(qemu, "balloon", json_pack("{s:I}", "value", (json_int_t)bytes), err);
}

bool vz_qemu_query_balloon(vz_qemu *qemu, uint64_t *ret_bytes, GError **err)
{
    json_t *value = vz_qmp_command(qemu->qmp, "query-balloon", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!value)
        return false;
    json_int_t actual = json_integer_value(json_object_get(value, "actual"));
    json_decref(value);
    if (actual <= 0)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU does not tell the size of the balloon");
    *ret_bytes = (uint64_t)actual;
    return true;
}

bool vz_qemu_query_status(vz_qemu *qemu, vz_qemu_status *ret_status, GError **err)
{
    json_t *value = vz_qmp_command(qemu->qmp, "query-status", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!value)
        return false;
    const char *status = json_string_value(json_object_get(value, "status"));
    bool known = status && strlen(status) < sizeof(ret_status->status);
    if (known) {
        g_strlcpy(ret_status->status, status, sizeof(ret_status->status));
        ret_status->running = json_is_true(json_object_get(value, "running"));
    }
    json_decref(value);
    return known || vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU does not tell its status");
}

/* The pty behind a chardev, out of query-chardev's list; NULL: none. Caller frees. */
static char *pty_of(const json_t *chardevs, const char *alias)
{
    g_autofree char *label = g_strconcat("char", alias, NULL);
    size_t i;
    json_t *item;
    json_array_foreach(chardevs, i, item)
    {
        const char *file = json_string_value(json_object_get(item, "filename"));
        if (g_strcmp0(json_string_value(json_object_get(item, "label")), label) == 0 && file &&
            g_str_has_prefix(file, "pty:/dev/"))
            return g_strdup(file + strlen("pty:"));
    }
    return NULL;
}

static bool fill_pty(const json_t *chardevs, vz_def_chardev *source, const char *alias,
                     GError **err)
{
    if (source->type != VZ_CHARDEV_PTY)
        return true;
    g_free(source->path);
    source->path = pty_of(chardevs, alias);
    return source->path || vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU names no pty for '%s'", alias);
}

static bool fill_characters(const json_t *chardevs, vz_def *live, GError **err)
{
    for (size_t i = 0; i < live->n_serials; i++)
        if (!fill_pty(chardevs, &live->serials[i].source, live->serials[i].info.alias, err))
            return false;
    for (size_t i = 0; i < live->n_channels; i++)
        if (!fill_pty(chardevs, &live->channels[i].source, live->channels[i].info.alias, err))
            return false;
    for (size_t i = 0; i < live->n_consoles; i++) {
        vz_def_console *console = &live->consoles[i];
        if (console->target == VZ_CONSOLE_SERIAL && live->n_serials > 0) {
            g_free(console->source.path);
            console->source.path = g_strdup(live->serials[0].source.path);
        } else if (!fill_pty(chardevs, &console->source, console->info.alias, err)) {
            return false;
        }
        g_free(console->tty);
        console->tty =
            console->source.type == VZ_CHARDEV_PTY ? g_strdup(console->source.path) : NULL;
    }
    return true;
}

static bool settle_characters(vz_qemu *qemu, vz_def *live, GError **err)
{
    json_t *chardevs = vz_qmp_command(qemu->qmp, "query-chardev", NULL, VZ_QMP_TIMEOUT_US, err);
    bool filled = chardevs && fill_characters(chardevs, live, err);
    json_decref(chardevs);
    return filled;
}

static bool settle_graphics(vz_qemu *qemu, vz_def *live, GError **err)
{
    if (live->n_graphics == 0)
        return true;
    vz_def_graphics *graphics = &live->graphics[0];
    json_t *vnc = vz_qmp_command(qemu->qmp, "query-vnc", NULL, VZ_QMP_TIMEOUT_US, err);
    if (!vnc)
        return false;
    const char *host = json_string_value(json_object_get(vnc, "host"));
    const char *service = json_string_value(json_object_get(vnc, "service"));
    uint64_t port = 0;
    bool known = host && service && vz_parse_u64(service, "VNC port", 1, G_MAXUINT16, &port, err);
    if (known) {
        graphics->port = (int32_t)port;
        if (!graphics->listen) {
            graphics->listen = g_strdup(host);
            graphics->listen_filled = true;
        }
    }
    json_decref(vnc);
    if (!known)
        return *err ? false
                    : vz_fail(err, VZ_ERR_INTERNAL_ERROR, "QEMU does not tell its VNC port");
    return !graphics->passwd ||
           tell(qemu, "set_password",
                json_pack("{s:s, s:s}", "protocol", "vnc", "password", graphics->passwd), err);
}

static bool settle_links(vz_qemu *qemu, const vz_def *live, GError **err)
{
    for (size_t i = 0; i < live->n_interfaces; i++) {
        const vz_def_interface *interface = &live->interfaces[i];
        if (interface->link == VZ_LINK_DOWN &&
            !tell(qemu, "set_link", json_pack("{s:s, s:b}", "name", interface->info.alias, "up", 0),
                  err))
            return false;
    }
    return true;
}

/* An arriving guest brings its balloon's size along. */
static bool settle_balloon(vz_qemu *qemu, const vz_def *live, GError **err)
{
    bool has = live->n_balloons > 0 && live->balloons[0].model == VZ_BALLOON_VIRTIO;
    return !has || live->current_ram_bytes == 0 || live->current_ram_bytes >= live->ram_bytes ||
           vz_qemu_set_balloon(qemu, live->current_ram_bytes, err);
}

bool vz_qemu_settle(vz_qemu *qemu, vz_def *live, bool incoming, GError **err)
{
    return settle_characters(qemu, live, err) && settle_graphics(qemu, live, err) &&
           settle_links(qemu, live, err) && (incoming || settle_balloon(qemu, live, err));
}
