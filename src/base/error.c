/* error.c - see error.h. Any thread; no state. */
#include "base/error.h"

#include <string.h>

static const struct {
    vz_error_code code;
    const char *prefix;
} codes[] = {
#define ERROR(id, number, prefix) {VZ_ERR_##id, prefix},
#include "errors.def"
#undef ERROR
};

/* Not G_DEFINE_QUARK: its cache is written by whichever threads fail first, a data race. */
GQuark vz_error_quark(void)
{
    static GQuark cached;
    GQuark quark = __atomic_load_n(&cached, __ATOMIC_RELAXED);
    if (quark == 0) {
        quark = g_quark_from_static_string("vz-error-quark");
        __atomic_store_n(&cached, quark, __ATOMIC_RELAXED);
    }
    return quark;
}

static void set(GError **err, vz_error_code code, char *take_message)
{
    g_autofree char *message = take_message;
    g_set_error_literal(err, VZ_ERROR, (int)code, message);
}

/* In brackets: the header's macros of these names are not meant. */
bool(vz_fail)(GError **err, vz_error_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    set(err, code, g_strdup_vprintf(format, args));
    va_end(args);
    return false;
}

bool(vz_fail_errno)(GError **err, int errnum, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *what = g_strdup_vprintf(format, args);
    va_end(args);
    set(err, VZ_ERR_SYSTEM_ERROR, g_strdup_printf("%s: %s", what, g_strerror(errnum)));
    return false;
}

/* Errors whose message is the full text. */
static GQuark bare_quark(void)
{
    return g_quark_from_static_string("vz-error-bare-quark");
}

bool vz_fail_flags(GError **err, uint64_t unknown, const char *function)
{
    g_set_error(err, bare_quark(), VZ_ERR_INVALID_ARG,
                "unsupported flags (0x%" G_GINT64_MODIFIER "x) in function %s", unknown, function);
    return false;
}

vz_error_code vz_error_number(const GError *error)
{
    bool ours = error->domain == VZ_ERROR || error->domain == bare_quark();
    return ours ? (vz_error_code)error->code : VZ_ERR_INTERNAL_ERROR;
}

const char *vz_error_prefix(vz_error_code code)
{
    for (size_t i = 0; i < G_N_ELEMENTS(codes); i++)
        if (codes[i].code == code)
            return codes[i].prefix;
    return "";
}

char *vz_error_text(const GError *error)
{
    const char *prefix =
        error->domain == bare_quark() ? "" : vz_error_prefix(vz_error_number(error));
    return g_strconcat(prefix, error->message, NULL);
}

bool vz_fail_from_peer(GError **err, int code, const char *text)
{
    const char *prefix = vz_error_prefix((vz_error_code)code);
    const char *detail = text ? text : "the peer gave no reason";
    bool bare = text && !g_str_has_prefix(text, prefix);
    if (text && !bare)
        detail += strlen(prefix);
    g_set_error_literal(err, bare ? bare_quark() : VZ_ERROR, code, detail);
    return false;
}
