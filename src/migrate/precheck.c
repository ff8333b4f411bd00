/* precheck.c - see precheck.h: what both sides have in common. */
#include "migrate/precheck.h"

#include "base/log.h"
#include "migrate/capabilities.h"
#include "migrate/uri.h"
#include "storage/identify.h"

#define RDMA_DEVICES "/sys/class/infiniband"

void vz_precheck_run(const vz_precheck *table, const vz_precheck_subject *subject,
                     GPtrArray *findings)
{
    for (const vz_precheck *row = table; row->name; row++)
        row->run(subject, row->name, findings);
}

void vz_precheck_options(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    for (vz_option_id id = 0; s->options && s->here.caps && id < VZ_OPTION_COUNT; id++) {
        const vz_option_row *row = vz_option_info(id);
        if (!vz_options_has(s->options, id) || !vz_option_lacks_qemu(id, s->here.caps))
            continue;
        g_autofree char *version = vz_qemu_version_text(vz_qemu_caps_version(s->here.caps));
        g_autofree char *text = g_strdup_printf(
            "Migration option '%s' is not supported by QEMU binary: '%s' (%s) on %s has no '%s'",
            row->name, vz_qemu_caps_emulator(s->here.caps), version, s->here.host_name, row->qemu);
        vz_findings_refuse(findings, name, VZ_ERR_ARGUMENT_UNSUPPORTED, text,
                           "leave that option out, or install a later QEMU there");
    }
}

static bool has_rdma_device(void)
{
    g_autoptr(GDir) devices = g_dir_open(RDMA_DEVICES, 0, NULL);
    return devices && g_dir_read_name(devices);
}

/* The first is what libvirt looks at first, too, and what makes each such move impossible. Whether
 * QEMU was built with RDMA it does not tell by QMP. */
static void check_rdma(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    static const char remedy[] = "use a URI that begins with tcp: or unix:";
    vz_findings_refuse(findings, name, VZ_ERR_OPERATION_INVALID,
                       "cannot start RDMA migration with no memory hard limit set, and in this "
                       "version a domain cannot have one",
                       remedy);
    if (has_rdma_device())
        return;
    g_autofree char *text =
        g_strdup_printf("%s has no RDMA device: there is none in " RDMA_DEVICES, s->here.host_name);
    vz_findings_refuse(findings, name, VZ_ERR_OPERATION_UNSUPPORTED, text, remedy);
}

void vz_precheck_direct(const vz_precheck_subject *s, const char *name, GPtrArray *findings)
{
    const char *uri = s->options ? vz_options_text(s->options, VZ_OPTION_URI) : NULL;
    if (uri && vz_uri_is_rdma(uri))
        check_rdma(s, name, findings);
    if (uri && vz_uri_unix_path(uri) && vz_options_has(s->options, VZ_OPTION_TLS) &&
        !vz_options_has(s->options, VZ_OPTION_TLS_DESTINATION))
        vz_findings_refuse(findings, name, VZ_ERR_OPERATION_UNSUPPORTED,
                           "Explicit destination hostname is required for TLS migration over UNIX "
                           "socket",
                           "name it with --tls-destination, or leave --tls out");
}

void vz_precheck_tell_unproved(vz_migration *m)
{
    size_t i;
    json_t *answer;
    json_array_foreach(m->disks_answered, i, answer)
    {
        g_autofree char *warning = vz_identify_warning(answer);
        if (!warning)
            continue;
        vz_warn(m->id, "%s", warning);
        vz_domain_add_message(m->domain, "%s", warning);
    }
}

void vz_precheck_help(GError **err, const char *remedy)
{
    g_autofree char *text = g_strdup_printf("%s (%s)", (*err)->message, remedy);
    vz_error_code code = vz_error_number(*err);
    g_clear_error(err);
    vz_fail(err, code, "%s", text);
}
