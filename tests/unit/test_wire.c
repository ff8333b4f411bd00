/* test_wire.c - frames and the codec: round trips, truncation, bounds, and errors that name fields.
 */
#include "../support/random_message.h"
#include "wire/frame.h"
#include "wire/xdr.h"

#include <string.h>

#define MESSAGES_PER_STRUCT 50
#define BUDGET              ((size_t)1024 * 1024)
/* Larger than any struct of messages.def; asserted. */
#define STRUCT_MAX 512

typedef struct {
    _Alignas(max_align_t) uint8_t bytes[STRUCT_MAX];
} any_struct;

static GByteArray *encode(const vz_schema *schema, const void *in)
{
    GByteArray *out = g_byte_array_new();
    g_autoptr(GError) err = NULL;
    vz_xdr_encode(schema, in, out, &err);
    g_assert_no_error(err);
    return out;
}

/* Decodes and gives the error text, which the caller frees; NULL: it was accepted. */
static char *refusal(const vz_schema *schema, const GByteArray *bytes, size_t n)
{
    g_autoptr(vz_arena) arena = vz_arena_new(BUDGET);
    g_autoptr(GError) err = NULL;
    any_struct out;
    g_assert_cmpuint(schema->size, <=, sizeof(out));
    if (vz_xdr_decode(schema, bytes->data, n, arena, &out, &err))
        return NULL;
    g_assert_error(err, VZ_ERROR, VZ_ERR_RPC);
    g_assert_true(g_str_has_prefix(err->message, schema->name));
    return g_strdup(err->message);
}

static void check_one_message(const vz_schema *schema, GRand *rand)
{
    g_autoptr(vz_arena) arena = vz_arena_new(BUDGET);
    g_autoptr(GError) err = NULL;
    any_struct in, out;
    random_message(schema, rand, arena, &in);
    g_autoptr(GByteArray) bytes = encode(schema, &in);
    g_assert_cmpuint(bytes->len % 4, ==, 0);
    g_assert_true(vz_xdr_decode(schema, bytes->data, bytes->len, arena, &out, &err));
    g_autoptr(GByteArray) again = encode(schema, &out);
    g_assert_cmpmem(bytes->data, bytes->len, again->data, again->len);
    for (guint cut = 0; cut < bytes->len; cut++) {
        g_autofree char *why = refusal(schema, bytes, cut);
        g_assert_nonnull(why);
    }
    g_byte_array_append(again, (const guint8 *)"\0\0\0\0", 4);
    g_autofree char *why = refusal(schema, again, again->len);
    g_assert_nonnull(strstr(why, "left over"));
}

static void test_every_struct(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)g_test_rand_int());
    for (const vz_schema *const *schema = vz_schemas; *schema; schema++)
        for (int i = 0; i < MESSAGES_PER_STRUCT; i++)
            check_one_message(*schema, rand);
}

static void test_values_arrive(void)
{
    g_autoptr(vz_arena) arena = vz_arena_new(BUDGET);
    g_autoptr(GError) err = NULL;
    const vz_wire_tparam params[] = {
        {"bandwidth", VZ_TPARAM_ULLONG, {.ul = UINT64_MAX}},
        {"migrate_disks", VZ_TPARAM_STRING, {.s = "vda"}},
        {"ratio", VZ_TPARAM_DOUBLE, {.d = 0.5}},
    };
    vz_wire_migrate_begin3_params_args in = {.dom = {.name = "g1", .id = -1}, .flags = 0x80000001};
    memset(in.dom.uuid, 0xab, sizeof(in.dom.uuid));
    in.params.items = params;
    in.params.count = G_N_ELEMENTS(params);
    g_autoptr(GByteArray) bytes = encode(&vz_schema_migrate_begin3_params_args, &in);
    vz_wire_migrate_begin3_params_args out;
    g_assert_true(vz_xdr_decode(&vz_schema_migrate_begin3_params_args, bytes->data, bytes->len,
                                arena, &out, &err));
    g_assert_cmpstr(out.dom.name, ==, "g1");
    g_assert_cmpint(out.dom.id, ==, -1);
    g_assert_cmpmem(out.dom.uuid, 16, in.dom.uuid, 16);
    g_assert_cmpuint(out.flags, ==, 0x80000001);
    g_assert_cmpuint(out.params.count, ==, 3);
    g_assert_cmpstr(out.params.items[0].field, ==, "bandwidth");
    g_assert_cmpuint(out.params.items[0].value.ul, ==, UINT64_MAX);
    g_assert_cmpstr(out.params.items[1].value.s, ==, "vda");
    g_assert_cmpfloat(out.params.items[2].value.d, ==, 0.5);
}

/* Written down by hand from RFC 4506 and facts 1.4, so that the codec is not its only witness. */
static void test_known_bytes(void)
{
    static const uint8_t wanted[] = {0, 0, 0, 2,  'g', '1', 0,  0,  1,  2,  3,    4,    5,    6,
                                     7, 8, 9, 10, 11,  12,  13, 14, 15, 16, 0xff, 0xff, 0xff, 0xff};
    const vz_wire_domain_ret in = {
        .dom = {"g1", {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, -1}};
    g_autoptr(GByteArray) bytes = encode(&vz_schema_domain_ret, &in);
    g_assert_cmpmem(bytes->data, bytes->len, wanted, sizeof(wanted));
    vz_wire_node_get_info_ret info = {.model = "x86_64"};
    g_autoptr(GByteArray) chars = encode(&vz_schema_node_get_info_ret, &info);
    g_assert_cmpuint(chars->len, ==, 32 * 4 + 8 + 6 * 4);
    g_assert_cmpmem(chars->data, 8,
                    "\0\0\0x\0\0\0"
                    "8",
                    8);
}

static void test_errors_name_the_field(void)
{
    const vz_wire_tparam params[4] = {{"a", VZ_TPARAM_INT, {0}},
                                      {"b", VZ_TPARAM_INT, {0}},
                                      {"c", VZ_TPARAM_INT, {0}},
                                      {"d", VZ_TPARAM_INT, {0}}};
    vz_wire_migrate_begin3_params_args in = {.dom = {.name = "g1"}};
    in.params.items = params;
    in.params.count = 4;
    g_autoptr(GByteArray) bytes = encode(&vz_schema_migrate_begin3_params_args, &in);
    bytes->data[bytes->len - 4 - 16 + 3] = 2; /* the length of "d" */
    bytes->data[bytes->len - 4 - 12 + 1] = 0;
    bytes->data[bytes->len - 4 - 8 + 3] = 9;
    g_autofree char *type = refusal(&vz_schema_migrate_begin3_params_args, bytes, bytes->len);
    g_assert_cmpstr(type, ==, "migrate_begin3_params_args.params[3].field: a NUL inside a string");
    g_autofree char *cut =
        refusal(&vz_schema_migrate_begin3_params_args, bytes, bytes->len - 4 - 12);
    g_assert_cmpstr(cut, ==, "migrate_begin3_params_args.params[3].field: truncated");
}

static void check_count(const vz_schema *schema, uint32_t count, const char *wanted)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    uint32_t big = GUINT32_TO_BE(count);
    g_byte_array_append(bytes, (const guint8 *)&big, sizeof(big));
    g_byte_array_set_size(bytes, 64 * 1024);
    memset(bytes->data + 4, 0, bytes->len - 4);
    g_autofree char *why = refusal(schema, bytes, bytes->len);
    g_assert_nonnull(why);
    g_assert_nonnull(strstr(why, wanted));
}

/* A count is refused before memory is taken for it. */
static void test_bounds(void)
{
    check_count(&vz_schema_connect_list_all_domains_ret, UINT32_MAX, "more elements than allowed");
    check_count(&vz_schema_connect_list_all_domains_ret, VZ_WIRE_MAX_DOMAINS, "truncated");
    check_count(&vz_schema_string_ret, UINT32_MAX, "longer than allowed");
    check_count(&vz_schema_string_ret, VZ_WIRE_MAX_STRING, "truncated");
    check_count(&vz_schema_migrate_perform3_ret, UINT32_MAX, "longer than allowed");
    g_autoptr(vz_arena) small = vz_arena_new(32);
    g_autoptr(GError) err = NULL;
    vz_wire_string_ret out, in = {"longer than the thirty-two bytes that are left"};
    g_autoptr(GByteArray) bytes = encode(&vz_schema_string_ret, &in);
    g_assert_false(
        vz_xdr_decode(&vz_schema_string_ret, bytes->data, bytes->len, small, &out, &err));
    g_assert_nonnull(strstr(err->message, "too much memory"));
}

static void test_encoder_refuses(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autoptr(GError) err = NULL;
    vz_wire_domain_ret nameless = {.dom = {.name = NULL}};
    g_byte_array_append(out, (const guint8 *)"kept", 4);
    g_assert_false(vz_xdr_encode(&vz_schema_domain_ret, &nameless, out, &err));
    g_assert_cmpstr(err->message, ==, "domain_ret.dom.name: missing");
    g_assert_cmpuint(out->len, ==, 4);
    g_clear_error(&err);
    vz_wire_auth_list_ret many = {0};
    many.types.count = VZ_WIRE_MAX_AUTH_TYPES + 1;
    g_assert_false(vz_xdr_encode(&vz_schema_auth_list_ret, &many, out, &err));
    g_assert_cmpstr(err->message, ==, "auth_list_ret.types: more elements than allowed");
}

static void test_frame(void)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    g_autoptr(GError) err = NULL;
    const vz_frame frame = {VZ_PROGRAM_REMOTE, 1, 302, VZ_PACKET_REPLY, 7, VZ_STATUS_ERROR};
    size_t payload = vz_frame_begin(out, &frame);
    g_byte_array_append(out, (const guint8 *)"abcd", 4);
    g_assert_true(vz_frame_end(out, payload, &err));
    size_t bytes;
    g_assert_true(vz_frame_size(out->data, VZ_FRAME_MESSAGE_MAX, &bytes, &err));
    g_assert_cmpuint(bytes, ==, 32);
    vz_frame parsed;
    vz_frame_parse(out->data, &parsed);
    g_assert_cmpuint(parsed.program, ==, VZ_PROGRAM_REMOTE);
    g_assert_cmpint(parsed.procedure, ==, 302);
    g_assert_cmpuint(parsed.type, ==, VZ_PACKET_REPLY);
    g_assert_cmpuint(parsed.serial, ==, 7);
    g_assert_cmpuint(parsed.status, ==, VZ_STATUS_ERROR);
    g_assert_false(vz_frame_size((const uint8_t *)"\0\0\0\33", 100, &bytes, &err));
    g_clear_error(&err);
    g_assert_true(vz_frame_size((const uint8_t *)"\0\0\0\150", 100, &bytes, &err));
    g_assert_false(vz_frame_size((const uint8_t *)"\0\0\0\151", 100, &bytes, &err));
    g_clear_error(&err);
    g_assert_false(
        vz_frame_size((const uint8_t *)"\377\377\377\377", VZ_FRAME_MESSAGE_MAX, &bytes, &err));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wire/every-struct", test_every_struct);
    g_test_add_func("/wire/values", test_values_arrive);
    g_test_add_func("/wire/known-bytes", test_known_bytes);
    g_test_add_func("/wire/errors-name-the-field", test_errors_name_the_field);
    g_test_add_func("/wire/bounds", test_bounds);
    g_test_add_func("/wire/encoder-refuses", test_encoder_refuses);
    g_test_add_func("/wire/frame", test_frame);
    return g_test_run();
}
