/* mutate_wire.c - the fuzz target without libFuzzer: random messages of every row, damaged at
 * random, in every test run. */
#include "../support/random_message.h"
#include "rpc/procs.h"
#include "wire/frame.h"
#include "wire/xdr.h"

#define DAMAGED_PER_ROW 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static GByteArray *random_packet(const vz_procedure *row, vz_packet_type type, GRand *rand)
{
    g_autoptr(vz_arena) arena = vz_arena_new((size_t)1024 * 1024);
    g_autoptr(GError) err = NULL;
    const vz_schema *schema = type == VZ_PACKET_CALL ? row->args : row->ret;
    void *value = vz_arena_alloc(arena, schema->size);
    random_message(schema, rand, arena, value);
    const vz_frame frame = {VZ_PROGRAM_REMOTE, 1, (int32_t)row->number, type, 0, VZ_STATUS_OK};
    GByteArray *packet = g_byte_array_new();
    size_t payload = vz_frame_begin(packet, &frame);
    bool ok = vz_xdr_encode(schema, value, packet, &err) && vz_frame_end(packet, payload, &err);
    g_assert(ok);
    return packet;
}

/* Changes some bytes behind the length word; values at the edges come up more often. */
static void damage(GByteArray *packet, GRand *rand)
{
    static const uint8_t edges[] = {0, 1, 4, 0x7f, 0x80, 0xff};
    for (gint32 n = g_rand_int_range(rand, 1, 5); n > 0; n--) {
        gint32 at = g_rand_int_range(rand, VZ_FRAME_LENGTH_BYTES, (gint32)packet->len);
        packet->data[at] = g_rand_boolean(rand)
                               ? edges[g_rand_int_range(rand, 0, G_N_ELEMENTS(edges))]
                               : (uint8_t)g_rand_int(rand);
    }
}

static void test_damaged(void)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed((guint32)g_test_rand_int());
    for (size_t i = 0; i < vz_n_procedures; i++)
        for (int n = 0; n < DAMAGED_PER_ROW; n++) {
            vz_packet_type type = n % 2 ? VZ_PACKET_CALL : VZ_PACKET_REPLY;
            g_autoptr(GByteArray) packet = random_packet(&vz_procedures[i], type, rand);
            LLVMFuzzerTestOneInput(packet->data, packet->len);
            damage(packet, rand);
            LLVMFuzzerTestOneInput(packet->data, packet->len);
        }
}

/* A corpus for libFuzzer to start from: a call and a reply of every row. */
static int write_corpus(const char *directory)
{
    g_autoptr(GRand) rand = g_rand_new_with_seed(1);
    for (size_t i = 0; i < 2 * vz_n_procedures; i++) {
        vz_packet_type type = i % 2 ? VZ_PACKET_CALL : VZ_PACKET_REPLY;
        g_autoptr(GByteArray) packet = random_packet(&vz_procedures[i / 2], type, rand);
        g_autofree char *path = g_strdup_printf("%s/%zu", directory, i);
        if (!g_file_set_contents(path, (const char *)packet->data, packet->len, NULL))
            return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    if (argc == 2)
        return write_corpus(argv[1]);
    g_test_add_func("/wire/damaged", test_damaged);
    return g_test_run();
}
