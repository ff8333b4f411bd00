/* finding.c - see finding.h. */
#include "migrate/finding.h"

#include "base/log.h"

#include <stdint.h>
#include <string.h>

static void finding_free(void *data)
{
    vz_finding *finding = data;
    g_free(finding->check);
    g_free(finding->text);
    g_free(finding->remedy);
    g_free(finding);
}

GPtrArray *vz_findings_new(void)
{
    return g_ptr_array_new_with_free_func(finding_free);
}

/* Copies the texts. */
static void add(GPtrArray *findings, const char *check, bool refuses, int code, const char *text,
                const char *remedy)
{
    if (findings->len >= VZ_FINDINGS_MAX)
        return;
    vz_finding *finding = g_new(vz_finding, 1);
    *finding = (vz_finding){.check = g_strdup(check),
                            .refuses = refuses,
                            .code = (vz_error_code)code,
                            .text = g_strdup(text),
                            .remedy = g_strdup(remedy)};
    g_ptr_array_add(findings, finding);
}

void vz_findings_refuse(GPtrArray *findings, const char *check, vz_error_code code,
                        const char *text, const char *remedy)
{
    add(findings, check, true, (int)code, text, remedy);
}

void vz_findings_refuse_error(GPtrArray *findings, const char *check, const GError *error,
                              const char *remedy)
{
    add(findings, check, true, (int)vz_error_number(error), error->message, remedy);
}

void vz_findings_warn(GPtrArray *findings, const char *check, const char *text, const char *remedy)
{
    add(findings, check, false, 0, text, remedy);
}

static const vz_finding *at(const GPtrArray *findings, guint i)
{
    return g_ptr_array_index(findings, i);
}

static guint count_refusals(const GPtrArray *findings)
{
    guint n = 0;
    for (guint i = 0; i < findings->len; i++)
        n += at(findings, i)->refuses;
    return n;
}

bool vz_findings_refuse_move(const GPtrArray *findings)
{
    return count_refusals(findings) > 0;
}

bool vz_findings_enforce(const GPtrArray *findings, GError **err)
{
    const vz_finding *first = NULL;
    g_autoptr(GString) text = g_string_new(NULL);
    guint refusals = count_refusals(findings);
    guint said = 0;
    for (guint i = 0; i < findings->len; i++) {
        const vz_finding *finding = at(findings, i);
        if (!finding->refuses)
            continue;
        if (!first)
            first = finding;
        else
            g_string_append(text, "; ");
        if (said == 1)
            g_string_append_printf(text, "%u more: ", refusals - 1);
        if (said++ > 0)
            g_string_append_printf(text, "[%s] ", finding->check);
        g_string_append_printf(text, "%s (%s)", finding->text, finding->remedy);
    }
    return !first || vz_fail(err, first->code, "%s", text->str);
}

void vz_findings_log(const GPtrArray *findings, const char *subject)
{
    for (guint i = 0; i < findings->len; i++) {
        const vz_finding *finding = at(findings, i);
        if (!finding->refuses)
            vz_warn(subject, "%s: %s (%s)", finding->check, finding->text, finding->remedy);
    }
}

json_t *vz_findings_to_json(const GPtrArray *findings, const char *side)
{
    json_t *array = json_array();
    for (guint i = 0; i < findings->len; i++) {
        const vz_finding *f = at(findings, i);
        json_t *object = json_pack("{ss sb si ss ss}", "check", f->check, "refuses", f->refuses,
                                   "code", (int)f->code, "text", f->text, "remedy", f->remedy);
        if (object && side)
            json_object_set_new(object, "side", json_string(side));
        if (object)
            json_array_append_new(array, object);
    }
    return array;
}

char *vz_finding_text(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text || strlen(text) > VZ_FINDING_TEXT_MAX)
        return NULL;
    char *copy = g_strdup(text);
    for (char *c = copy; *c; c++)
        if (g_ascii_iscntrl(*c))
            *c = '?';
    return copy;
}

bool vz_findings_add_json(GPtrArray *findings, const json_t *array, GError **err)
{
    size_t i;
    json_t *object;
    if (!json_is_array(array))
        return vz_fail(err, VZ_ERR_RPC, "the other host's list of findings is missing");
    json_array_foreach((json_t *)(uintptr_t)array, i, object)
    {
        g_autofree char *check = vz_finding_text(object, "check");
        g_autofree char *text = vz_finding_text(object, "text");
        g_autofree char *remedy = vz_finding_text(object, "remedy");
        if (!check || !text || !remedy)
            return vz_fail(err, VZ_ERR_RPC, "finding %zu of the other host is malformed", i);
        add(findings, check, json_is_true(json_object_get(object, "refuses")),
            (int)json_integer_value(json_object_get(object, "code")), text, remedy);
    }
    return true;
}
