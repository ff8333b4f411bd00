/* config.h - /etc/virtvz/virtvzd.conf: the rows of defs/config.def as a struct.
 *
 * Read once by main before threads start; constant from then on. */
#pragma once

#include "base/error.h"

#include <stdint.h>

#define VZ_CONFIG_FILE_MAX ((size_t)64 * 1024)

typedef struct {
#define VZ_CONFIG_TEXT                 char *
#define VZ_CONFIG_BOOL                 bool
#define VZ_CONFIG_PORT                 uint16_t
#define VZ_CONFIG_COUNT                unsigned
#define VZ_CONFIG_SECONDS              unsigned
#define KEY(name, type, initial, help) VZ_CONFIG_##type name;
#include "config.def"
#undef KEY
} vz_config;

/* All defaults. */
vz_config *vz_config_new(void);
void vz_config_free(vz_config *config);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(vz_config, vz_config_free)

/* Defaults and then the file. A missing file is an error unless missing_ok. CONFIG_UNSUPPORTED
 * "PATH:LINE: ..." for an unknown or repeated key, a bad value, a line that is neither. */
vz_config *vz_config_load(const char *path, bool missing_ok, GError **err);

/* The same from a text; `path` is for messages. */
vz_config *vz_config_parse(const char *text, const char *path, GError **err);

/* All keys with defaults and help, as a commented file that can be used as it is. Caller frees. */
char *vz_config_describe(void);
