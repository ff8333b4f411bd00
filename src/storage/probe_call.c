/* probe_call.c - see probe_call.h. */
#include "storage/probe_call.h"

#include "base/spawn.h"
#include "base/wait.h"
#include "config.h"

static const char *program = VZ_LIBEXECDIR "/virtvz-probe";

void vz_probe_set_program(const char *path)
{
    program = path;
}

json_t *vz_probe_call(const char *const *words, int64_t timeout_us, GError **err)
{
    g_autofree char *output = NULL;
    g_autoptr(GPtrArray) argv = g_ptr_array_new();
    g_ptr_array_add(argv, (void *)(uintptr_t)program);
    for (; *words; words++)
        g_ptr_array_add(argv, (void *)(uintptr_t)*words);
    g_ptr_array_add(argv, NULL);
    if (!vz_run((const char *const *)argv->pdata, vz_now_us() + timeout_us, &output, err))
        return NULL;
    json_t *reply = json_loads(output, 0, NULL);
    if (json_is_object(reply))
        return reply;
    json_decref(reply);
    vz_fail(err, VZ_ERR_INTERNAL_ERROR, "'%s' gave no answer", program);
    return NULL;
}
