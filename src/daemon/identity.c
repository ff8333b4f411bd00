/* identity.c - see identity.h. */
#include "daemon/identity.h"

#include "base/fd.h"
#include <config.h>

#include <string.h>
#include <unistd.h>

#define UUID_FILE_MAX 256
#define CONFIGURED    VZ_SYSCONFDIR "/virtvz/host-uuid"
#define FIRMWARE      "/sys/class/dmi/id/product_uuid"

static bool take(const char *text, const char *where, uint8_t ret_uuid[VZ_UUID_BYTES], GError **err)
{
    return vz_uuid_parse(text, ret_uuid) ||
           vz_fail(err, VZ_ERR_CONFIG_UNSUPPORTED, "%s: '%s' is not a UUID", where, text);
}

static bool read_uuid(const char *path, uint8_t ret_uuid[VZ_UUID_BYTES], GError **err)
{
    g_autofree char *text = NULL;
    return vz_file_read(path, UUID_FILE_MAX, &text, NULL, err) &&
           take(g_strstrip(text), path, ret_uuid, err);
}

/* Firmware of many boards carries a constant: all digits the same, or the well-known
 * 03000200-0400-0500-0006-000700080009. */
static bool is_dummy(const uint8_t uuid[VZ_UUID_BYTES])
{
    static const uint8_t known[VZ_UUID_BYTES] = {3, 0, 2, 0, 4, 0, 5, 0, 0, 6, 0, 7, 0, 8, 0, 9};
    bool same = true;
    for (size_t i = 0; i < VZ_UUID_BYTES; i++)
        same = same && uuid[i] == uuid[0] && uuid[i] >> 4 == (uuid[i] & 0xf);
    return same || memcmp(uuid, known, VZ_UUID_BYTES) == 0;
}

bool vz_identity_host_uuid(const vz_config *config, uint8_t ret_uuid[VZ_UUID_BYTES], GError **err)
{
    if (*config->host_uuid)
        return take(config->host_uuid, "host_uuid", ret_uuid, err);
    if (access(CONFIGURED, F_OK) == 0)
        return read_uuid(CONFIGURED, ret_uuid, err);
    g_autofree char *own = g_build_filename(config->state_dir, "host-uuid", NULL);
    if (access(own, F_OK) == 0)
        return read_uuid(own, ret_uuid, err);
    g_autoptr(GError) no_firmware = NULL;
    if (read_uuid(FIRMWARE, ret_uuid, &no_firmware) && !is_dummy(ret_uuid))
        return true;
    char text[VZ_UUID_TEXT_BYTES];
    vz_uuid_generate(ret_uuid);
    vz_uuid_format(ret_uuid, text);
    return vz_file_write_durable(own, text, strlen(text), 0644, err);
}
