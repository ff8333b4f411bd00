/* def.c - the life of a definition: references, copies, what belongs to one run. See def.h. */
#include "domain/def.h"

#include "domain/def_fill.h"
#include "domain/def_rows.h"

#include <string.h>

vz_def *vz_def_ref(vz_def *def)
{
    g_atomic_int_inc(&def->references);
    return def;
}

void vz_def_unref(vz_def *def)
{
    if (!def || !g_atomic_int_dec_and_test(&def->references))
        return;
    vz_object_clear(&vz_object_domain, def);
    g_free(def);
}

vz_def *vz_def_copy(const vz_def *def)
{
    vz_def *copy = g_memdup2(def, sizeof(*def));
    copy->references = 1;
    vz_object_own(&vz_object_domain, copy);
    return copy;
}

vz_def *vz_def_renamed(vz_def *take_def, const char *name)
{
    g_autoptr(vz_def) def = take_def;
    if (!def || !name)
        return g_steal_pointer(&def);
    vz_def *renamed = vz_def_copy(def);
    g_free(renamed->name);
    renamed->name = g_strdup(name);
    return renamed;
}

static void strip_source(vz_def_chardev *source)
{
    if (!source->path_filled)
        return;
    g_clear_pointer(&source->path, g_free);
    source->mode = VZ_CHARDEV_MODE_NONE;
    source->path_filled = false;
}

static void strip_graphics(vz_def_graphics *graphics)
{
    if (graphics->autoport == VZ_YESNO_YES)
        graphics->port = -1;
    if (graphics->listen_filled)
        g_clear_pointer(&graphics->listen, g_free);
    graphics->listen_filled = false;
}

void vz_def_strip_live(vz_def *def)
{
    vz_object_strip_live(&vz_object_domain, def);
    for (size_t i = 0; i < def->n_interfaces; i++) {
        char **target = &def->interfaces[i].target;
        if (*target && g_str_has_prefix(*target, VZ_DEF_TAP_PREFIX))
            g_clear_pointer(target, g_free);
    }
    for (size_t i = 0; i < def->n_graphics; i++)
        strip_graphics(&def->graphics[i]);
    for (size_t i = 0; i < def->n_serials; i++)
        strip_source(&def->serials[i].source);
    for (size_t i = 0; i < def->n_consoles; i++)
        strip_source(&def->consoles[i].source);
    for (size_t i = 0; i < def->n_channels; i++)
        strip_source(&def->channels[i].source);
}

static void replace(char **text, const char *with)
{
    char *copy = g_strdup(with);
    g_free(*text);
    *text = copy;
}

void vz_def_sync_consoles(vz_def *def)
{
    for (size_t i = 0; i < def->n_consoles; i++) {
        vz_def_console *console = &def->consoles[i];
        if (console->target == VZ_CONSOLE_SERIAL && def->n_serials > 0) {
            char *path = console->source.path;
            console->source = def->serials[0].source;
            console->source.path = path;
            replace(&console->source.path, def->serials[0].source.path);
            replace(&console->info.alias, def->serials[0].info.alias);
        }
        if (console->source.type == VZ_CHARDEV_PTY)
            replace(&console->tty, console->source.path);
    }
}

const vz_def_disk *vz_def_disk_find(const vz_def *def, const char *target)
{
    for (size_t i = 0; target && i < def->n_disks; i++)
        if (strcmp(def->disks[i].target, target) == 0)
            return &def->disks[i];
    return NULL;
}

const vz_def_controller *vz_def_controller_find(const vz_def *def, vz_controller_type type,
                                                uint32_t index)
{
    for (size_t i = 0; i < def->n_controllers; i++)
        if (def->controllers[i].type == type && def->controllers[i].index == index)
            return &def->controllers[i];
    return NULL;
}

bool vz_def_is_q35(const vz_def *def)
{
    const char *machine = def->os.machine;
    return strcmp(machine, "q35") == 0 || g_str_has_prefix(machine, "pc-q35-");
}

bool vz_def_is_i440fx(const vz_def *def)
{
    const char *machine = def->os.machine;
    return strcmp(machine, "pc") == 0 || g_str_has_prefix(machine, "pc-i440fx-");
}
