/* argv_character.c - serial ports, consoles and channels: the host's end is a chardev named after
 * the device ("charserial0"), the guest's end the device itself. */
#include "driver/qemu/argv_build.h"

/* The host's end. fd: see vz_qemu_resources. */
static void add_chardev(vz_argv_builder *b, const char *alias, const vz_def_chardev *source, int fd)
{
    switch (source->type) {
    case VZ_CHARDEV_PTY:
        vz_argv_add_format(b, "-chardev", "pty,id=char%s", alias);
        break;
    case VZ_CHARDEV_UNIX:
        vz_argv_add_format(b, "-chardev", "socket,id=char%s,fd=%d%s", alias, fd,
                           source->mode == VZ_CHARDEV_MODE_CONNECT ? "" : ",server=on,wait=off");
        break;
    case VZ_CHARDEV_FILE:
        vz_argv_add_format(b, "-chardev", "file,id=char%s,path=/dev/fdset/%d%s", alias, fd,
                           source->append == VZ_ONOFF_OFF ? "" : ",append=on");
        break;
    case VZ_CHARDEV_NULL:
    case VZ_CHARDEV_NONE:
    default:
        vz_argv_add_format(b, "-chardev", "null,id=char%s", alias);
        break;
    }
}

/* A port of a virtio-serial controller. */
static json_t *new_port(vz_argv_builder *b, const char *driver, const vz_def_info *info)
{
    const char *alias = vz_argv_alias(b, info);
    const vz_def_virtio_serial_address *at = &info->address.virtio_serial;
    json_t *device = vz_argv_new_device(driver, alias);
    const vz_def_controller *controller =
        vz_def_controller_find(b->def, VZ_CONTROLLER_VIRTIO_SERIAL, at->controller);
    if (info->address.type != VZ_ADDRESS_VIRTIO_SERIAL || !controller) {
        vz_argv_fail(b, "device '%s' has no virtio-serial address", alias);
        return device;
    }
    json_object_set_new(device, "bus", json_sprintf("%s.0", vz_argv_alias(b, &controller->info)));
    json_object_set_new(device, "nr", json_integer(at->port));
    json_object_set_new(device, "chardev", json_sprintf("char%s", alias));
    return device;
}

static void add_serial(vz_argv_builder *b, const vz_def_serial *serial, int fd)
{
    const char *alias = vz_argv_alias(b, &serial->info);
    add_chardev(b, alias, &serial->source, fd);
    json_t *device = vz_argv_new_device("isa-serial", alias);
    json_object_set_new(device, "chardev", json_sprintf("char%s", alias));
    json_object_set_new(device, "index", json_integer(serial->port));
    vz_argv_add_device(b, device);
}

static void add_console(vz_argv_builder *b, const vz_def_console *console, int fd)
{
    if (console->target != VZ_CONSOLE_VIRTIO)
        return; /* the first serial port by another name */
    add_chardev(b, vz_argv_alias(b, &console->info), &console->source, fd);
    vz_argv_add_device(b, new_port(b, "virtconsole", &console->info));
}

static void add_channel(vz_argv_builder *b, const vz_def_channel *channel, int fd)
{
    add_chardev(b, vz_argv_alias(b, &channel->info), &channel->source, fd);
    json_t *device = new_port(b, "virtserialport", &channel->info);
    if (channel->name)
        json_object_set_new(device, "name", json_string(channel->name));
    vz_argv_add_device(b, device);
}

void vz_argv_add_characters(vz_argv_builder *b)
{
    const vz_def *def = b->def;
    const vz_qemu_resources *r = b->resources;
    for (size_t i = 0; i < def->n_serials; i++)
        add_serial(b, &def->serials[i], r->serial_fds[i]);
    for (size_t i = 0; i < def->n_consoles; i++)
        add_console(b, &def->consoles[i], r->console_fds[i]);
    for (size_t i = 0; i < def->n_channels; i++)
        add_channel(b, &def->channels[i], r->channel_fds[i]);
}
