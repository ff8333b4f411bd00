/* argv_build.h - shared by the files that build the command line; for nobody else.
 *
 * A builder collects arguments; the first thing it cannot express stays its error, and what is
 * added after that does not matter. */
#pragma once

#include "driver/qemu/argv.h"

#include <jansson.h>

typedef struct {
    const vz_def *def;
    const vz_qemu_caps *caps;
    const vz_qemu_resources *resources;
    GPtrArray *argv;
    GError *error; /* the first one */
} vz_argv_builder;

/* Keeps the first error. */
void vz_argv_fail(vz_argv_builder *b, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* An option and its value (copied; NULL: none). */
void vz_argv_add(vz_argv_builder *b, const char *option, const char *value);
void vz_argv_add_format(vz_argv_builder *b, const char *option, const char *format, ...)
    G_GNUC_PRINTF(3, 4);
/* The same with a JSON object as its value. */
void vz_argv_add_json(vz_argv_builder *b, const char *option, json_t *take_object);
/* -device; fails where this QEMU has no such driver. */
void vz_argv_add_device(vz_argv_builder *b, json_t *take_device);

/* {"driver": ..., "id": ...} */
json_t *vz_argv_new_device(const char *driver, const char *id);
/* Adds "bus" and "addr" (and "multifunction") from a PCI address. */
void vz_argv_set_pci(vz_argv_builder *b, json_t *device, const vz_def_info *info);
/* The alias, which every device of a live definition must have. */
const char *vz_argv_alias(vz_argv_builder *b, const vz_def_info *info);
/* Commas doubled, as QEMU's option parser wants them. Caller frees. */
char *vz_argv_escape(const char *text);
bool vz_argv_is_q35(const vz_def *def);

/* 0: not booted from. From the device's own boot order, or from <os><boot dev=...>. */
uint32_t vz_argv_boot_index_of_disk(const vz_def *def, const vz_def_disk *disk);
uint32_t vz_argv_boot_index_of_interface(const vz_def *def, const vz_def_interface *interface);

void vz_argv_add_controllers(vz_argv_builder *b);
void vz_argv_add_disks(vz_argv_builder *b);
void vz_argv_add_interfaces(vz_argv_builder *b);
void vz_argv_add_characters(vz_argv_builder *b);
void vz_argv_add_display(vz_argv_builder *b); /* inputs, audio, graphics, videos */
void vz_argv_add_others(vz_argv_builder *b);  /* watchdogs, balloon, rngs */
