/* test_wire_oracle.c - the codec against an independent one: rpcgen compiles what
 * tools/print-protocol prints, and each random message must pass through both unchanged. */
#include "../support/random_message.h"

#if HAVE_RPCGEN

#include "protocol.h"
#include "wire/xdr.h"

#include <string.h>

#define MESSAGES_PER_STRUCT 200
#define BUDGET              ((size_t)1024 * 1024)
#define STRUCT_MAX          512

typedef struct {
    _Alignas(max_align_t) uint8_t bytes[STRUCT_MAX];
} any_struct;

/* `none` has no bytes, and RFC 4506 no such struct. */
static bool_t xdr_none(XDR *xdr, void *value)
{
    (void)xdr;
    (void)value;
    return TRUE;
}

#define STRUCT(name)                                                                               \
    static bool_t oracle_##name(XDR *xdr, void *value)                                             \
    {                                                                                              \
        return xdr_##name(xdr, value);                                                             \
    }
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"

static const struct {
    const vz_schema *schema;
    bool_t (*oracle)(XDR *xdr, void *value);
} structs[] = {
#define STRUCT(name) {&vz_schema_##name, oracle_##name},
#include "wire/messages_begin.h"
#include "messages.def"
#include "wire/messages_end.h"
};

/* rpcgen's decoder must take exactly our bytes, its encoder give them back, and so must ours. */
static void check(guint i, GRand *rand)
{
    g_autoptr(vz_arena) arena = vz_arena_new(BUDGET);
    g_autoptr(GByteArray) ours = g_byte_array_new();
    g_autoptr(GError) err = NULL;
    any_struct in, decoded, theirs = {0};
    random_message(structs[i].schema, rand, arena, &in);
    g_assert_true(vz_xdr_encode(structs[i].schema, &in, ours, &err));

    XDR xdr;
    xdrmem_create(&xdr, (char *)ours->data, ours->len, XDR_DECODE);
    g_assert_true(structs[i].oracle(&xdr, &theirs));
    g_assert_cmpuint(xdr_getpos(&xdr), ==, ours->len);

    g_autofree char *bytes = g_malloc0(ours->len + 1);
    xdrmem_create(&xdr, bytes, ours->len, XDR_ENCODE);
    g_assert_true(structs[i].oracle(&xdr, &theirs));
    g_assert_cmpmem(bytes, xdr_getpos(&xdr), ours->data, ours->len);
    g_assert_true(
        vz_xdr_decode(structs[i].schema, (const uint8_t *)bytes, ours->len, arena, &decoded, &err));
    xdr.x_op = XDR_FREE;
    structs[i].oracle(&xdr, &theirs);
}

static void test_oracle(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)g_test_rand_int());
    for (guint i = 0; i < G_N_ELEMENTS(structs); i++)
        for (int n = 0; n < MESSAGES_PER_STRUCT; n++)
            check(i, rand);
}

#else

static void test_oracle(void)
{
    g_test_skip("rpcgen (rpcsvc-proto) or libtirpc-dev is not installed");
}

#endif

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/wire/oracle", test_oracle);
    return g_test_run();
}
