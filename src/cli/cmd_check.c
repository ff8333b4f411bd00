/* cmd_check.c - `vz check`: what `vz migrate` with the same words would do, and what is in its way.
 * The daemon finds that out (src/migrate/check.h); here it is printed. */
#include "cli/migration.h"

#include "base/json.h"
#include "cli/format.h"

#include <string.h>

#define STATE_RUNNING 1

static uint64_t number_of(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}

/* --- options: which are on, and why --- */

static bool is_direct(const vz_cmd_migration *m)
{
    return vz_options_has(m->options, VZ_OPTION_DIRECT_STREAM) ||
           vz_options_has(m->options, VZ_OPTION_URI_UNIX);
}

static const char *why_on(const vz_cmd_migration *m, vz_option_id id)
{
    if (vz_option_info(id)->status == VZ_STATUS_ALREADY_TRUE &&
        !(id == VZ_OPTION_TLS && is_direct(m)))
        return "always";
    if (!vz_options_has(m->options, id))
        return NULL;
    return m->command->args->explicit & VZ_OPTION_BIT(id) ? "asked for" : "default";
}

static json_t *options_of(const vz_cmd_migration *m)
{
    json_t *options = json_array();
    for (vz_option_id id = 0; id < VZ_OPTION_COUNT; id++) {
        const char *why = why_on(m, id);
        if (why && vz_option_info(id)->word)
            json_array_append_new(options, json_pack("{ss ss ss}", "id", vz_option_info(id)->id,
                                                     "word", vz_option_info(id)->word, "why", why));
    }
    return options;
}

/* --- for people --- */

static void row(FILE *out, const char *label, char *take_text)
{
    fprintf(out, "  %-11s %s\n", label, take_text);
    g_free(take_text);
}

static void show_options(FILE *out, const json_t *options)
{
    size_t i;
    json_t *option;
    g_autoptr(GString) text = g_string_new(NULL);
    json_array_foreach((json_t *)(uintptr_t)options, i, option)
    {
        g_string_append_printf(text, "%s%s (%s)", i ? ", " : "", vz_json_text(option, "word"),
                               vz_json_text(option, "why"));
    }
    row(out, "options", g_strdup(text->str));
}

static void show_disks(FILE *out, const json_t *disks)
{
    size_t i;
    json_t *disk;
    json_array_foreach((json_t *)(uintptr_t)disks, i, disk)
    {
        g_autofree char *bytes = vz_format_bytes(number_of(disk, "bytes"));
        g_autofree char *copied = g_strdup_printf("proved not to be shared; %s, and %s are copied",
                                                  json_is_true(json_object_get(disk, "over"))
                                                      ? "the image there is written over"
                                                      : "a new image there",
                                                  bytes);
        const char *how = json_is_true(json_object_get(disk, "copy")) ? copied
                          : json_is_true(json_object_get(disk, "shared"))
                              ? "shared, proved by notes that each host wrote and the other read; "
                                "not copied"
                              : "not proved to be shared";
        row(out, i ? "" : "disks",
            g_strdup_printf("%s %s: %s", vz_json_text(disk, "target"), vz_json_text(disk, "path"),
                            how));
    }
}

static void show_memory(FILE *out, const json_t *plan)
{
    const json_t *memory = json_object_get(plan, "memory");
    g_autofree char *total = vz_format_bytes(number_of(memory, "total_bytes"));
    if (!json_object_get(memory, "used_bytes")) {
        row(out, "memory", g_strdup_printf("%s; how much is in use is unknown", total));
        return;
    }
    g_autofree char *used = vz_format_bytes(number_of(memory, "used_bytes"));
    row(out, "memory",
        g_strdup_printf("%s of %s %s", used, total, vz_json_text(memory, "used_from")));
    if (json_object_get(memory, "dirty_bytes_s")) {
        g_autofree char *rate = vz_format_rate(number_of(memory, "dirty_bytes_s"));
        row(out, "writes", g_strdup_printf("%s, by a sample of a second", rate));
    }
}

/* How it would travel: of one that runs or is paused. */
static void show_stream(FILE *out, const json_t *stream)
{
    const char *compression = vz_json_text(stream, "compression");
    uint64_t channels = number_of(stream, "channels");
    if (!compression)
        return;
    g_autofree char *by = channels ? g_strdup_printf(" by %" G_GUINT64_FORMAT " channel%s",
                                                     channels, channels > 1 ? "s" : "")
                                   : g_strdup(" by one connection");
    row(out, "compression",
        g_strdup_printf("%s%s: %s", compression, by, vz_json_text(stream, "why")));
}

static void show_prediction(FILE *out, const json_t *plan)
{
    const json_t *rate = json_object_get(plan, "rate");
    if (json_object_get(rate, "bytes_s")) {
        g_autofree char *text = vz_format_rate(number_of(rate, "bytes_s"));
        row(out, "link", g_strdup_printf("%s: %s", text, vz_json_text(rate, "from")));
    } else {
        row(out, "link", g_strdup(vz_json_text(rate, "from")));
    }
    g_autofree char *bytes = vz_format_bytes(number_of(plan, "bytes"));
    bool known = json_object_get(plan, "total_ms") != NULL;
    row(out, "data",
        json_object_get(plan, "bytes")
            ? g_strdup_printf("%s %s", known ? "about" : "at least about", bytes)
            : g_strdup("unknown"));
    if (!known) {
        row(out, "total time", g_strdup_printf("unknown: %s", vz_json_text(plan, "unpredictable")));
        return;
    }
    g_autofree char *total = vz_format_duration(number_of(plan, "total_ms"));
    g_autofree char *downtime = vz_format_duration(number_of(plan, "downtime_ms"));
    row(out, "total time", g_strdup_printf("about %s of copying, at that rate", total));
    row(out, "downtime",
        g_strdup_printf("about %s for memory; devices and the network come on top", downtime));
}

static void show_findings(FILE *out, const json_t *plan, bool refusing)
{
    size_t i;
    json_t *finding;
    bool first = true;
    json_array_foreach(json_object_get(plan, "findings"), i, finding)
    {
        if (json_is_true(json_object_get(finding, "refuses")) != refusing)
            continue;
        if (first)
            fputs(refusing ? "In the way:\n" : "To be known:\n", out);
        first = false;
        fprintf(out, "  %s (%s): %s\n      what would help: %s\n", vz_json_text(finding, "check"),
                vz_json_text(finding, "side"), vz_json_text(finding, "text"),
                vz_json_text(finding, "remedy"));
    }
}

static const char *protection(const vz_cmd_migration *m)
{
    if (!is_direct(m))
        return "encrypted (TLS 1.3), with keys made for this move alone";
    return vz_options_has(m->options, VZ_OPTION_TLS)
               ? "memory encrypted by QEMU, with x509 certificates; all else with keys made for "
                 "this move alone"
               : "memory NOT encrypted, it goes from QEMU to QEMU; all else with keys made for "
                 "this move alone";
}

static const char *state_there(const vz_cmd_migration *m)
{
    if (vz_options_has(m->options, VZ_OPTION_OFFLINE))
        return "shut off";
    return vz_options_has(m->options, VZ_OPTION_PAUSED) || m->state != STATE_RUNNING ? "paused"
                                                                                     : "running";
}

static void show(const vz_cmd_migration *m, const json_t *plan)
{
    FILE *out = m->command->printer.out;
    const json_t *to = json_object_get(plan, "to");
    const char *host = vz_json_text(to, "host");
    fprintf(out, "%s %s from %s to %s\n", vz_json_text(plan, "domain"),
            json_is_true(json_object_get(plan, "move")) ? "would move" : "would not move",
            vz_json_text(json_object_get(plan, "from"), "host"), host ? host : m->host);
    row(out, "how",
        g_strdup(json_is_true(json_object_get(plan, "live"))
                     ? "live: its memory is copied while it runs"
                 : vz_options_has(m->options, VZ_OPTION_OFFLINE)
                     ? "offline: it is shut off, and its definition moves"
                     : "not live: it is paused while its memory is copied"));
    row(out, "protection", g_strdup(protection(m)));
    if (vz_json_text(to, "data"))
        row(out, "data port", g_strdup(vz_json_text(to, "data")));
    show_options(out, json_object_get(plan, "options"));
    show_disks(out, json_object_get(plan, "disks"));
    show_memory(out, plan);
    show_stream(out, json_object_get(plan, "stream"));
    show_prediction(out, plan);
    row(out, "there",
        g_strdup_printf("%s, %s", state_there(m),
                        vz_options_has(m->options, VZ_OPTION_PERSIST_DEST) ? "defined"
                                                                           : "transient"));
    row(out, "here",
        g_strdup(m->persistent && !vz_options_has(m->options, VZ_OPTION_UNDEFINE_SOURCE)
                     ? "definition kept, shut off"
                     : "removed"));
    show_findings(out, plan, true);
    show_findings(out, plan, false);
}

static bool ask(vz_cmd_migration *m, json_t **ret_plan, GError **err)
{
    g_autoptr(GArray) params = NULL;
    if (!vz_cmd_migration_find(m, err))
        return false;
    uint32_t flags = vz_options_to_wire(m->options, VZ_SIDE_SOURCE, &params);
    const vz_wire_vz_check_args args = {
        .dom = m->target.wire,
        .dconnuri = m->destination,
        .params = {.items = (const vz_tparam *)(void *)params->data, .count = params->len},
        .flags = flags,
        .max_downtime = m->max_downtime_ms,
    };
    return vz_session_check(&m->session, &args, ret_plan, err);
}

int vz_cmd_check(vz_command *command)
{
    g_auto(vz_cmd_migration) m = {.command = command};
    g_autoptr(GError) err = NULL;
    json_auto_t *plan = NULL;
    bool understood = vz_cmd_migration_read(&m, &err);
    if (!understood || !ask(&m, &plan, &err)) {
        vz_outcome outcome = understood ? VZ_OUTCOME_FAILED : VZ_OUTCOME_USAGE;
        vz_print_failed(&command->printer, outcome, err, NULL);
        command->printer.domain = NULL;
        return (int)outcome;
    }
    bool move = json_is_true(json_object_get(plan, "move"));
    vz_outcome outcome = move ? VZ_OUTCOME_DONE : VZ_OUTCOME_WOULD_NOT;
    json_object_set_new(plan, "options", options_of(&m));
    if (command->printer.mode == VZ_PRINT_JSON) {
        json_object_set_new(plan, "event", json_string("plan"));
        json_object_set_new(plan, "exit", json_integer((json_int_t)outcome));
        vz_print_json(&command->printer, json_incref(plan));
    } else {
        show(&m, plan);
    }
    command->printer.domain = NULL;
    return (int)outcome;
}
