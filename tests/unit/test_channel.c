/* test_channel.c - keys on disk, and the words before the bytes: prologue, preface, answer. */
#include "channel/keys.h"
#include "channel/preface.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FUZZ_ROUNDS 20000

static void test_keys(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *dir = g_dir_make_tmp("vz-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "key.pem", NULL);
    g_autoptr(vz_channel_keys) a = vz_channel_keys_generate(&err);
    g_autoptr(vz_channel_keys) b = vz_channel_keys_generate(&err);
    g_assert_no_error(err);
    g_assert_cmpstr(vz_channel_keys_fingerprint(a), !=, vz_channel_keys_fingerprint(b));
    g_assert_true(vz_channel_keys_save(a, path, &err));
    struct stat status;
    g_assert_cmpint(stat(path, &status), ==, 0);
    g_assert_cmpuint(status.st_mode & 07777, ==, 0600);
    g_autoptr(vz_channel_keys) loaded = vz_channel_keys_load(path, &err);
    g_assert_no_error(err);
    g_assert_cmpstr(vz_channel_keys_fingerprint(loaded), ==, vz_channel_keys_fingerprint(a));
    uint8_t bytes[VZ_FINGERPRINT_BYTES];
    g_assert_true(vz_fingerprint_parse(vz_channel_keys_fingerprint(a), bytes));
    g_assert_false(vz_fingerprint_parse(vz_channel_keys_fingerprint(a) + 1, bytes));
    g_assert_false(vz_fingerprint_parse(NULL, bytes));
    g_unlink(path);
    g_rmdir(dir);
}

static void assert_no_key(const char *path, const char *content, size_t bytes, mode_t mode,
                          const char *why)
{
    g_autoptr(GError) err = NULL;
    g_assert_true(g_file_set_contents(path, content, (gssize)bytes, NULL));
    g_assert_cmpint(chmod(path, mode), ==, 0);
    g_assert_null(vz_channel_keys_load(path, &err));
    g_assert_nonnull(strstr(err->message, path));
    g_assert_nonnull(strstr(err->message, why));
}

static void test_bad_keys(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *dir = g_dir_make_tmp("vz-XXXXXX", NULL);
    g_autofree char *path = g_build_filename(dir, "key.pem", NULL);
    g_assert_null(vz_channel_keys_load(path, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_SYSTEM_ERROR);
    g_clear_error(&err);
    g_autoptr(vz_channel_keys) keys = vz_channel_keys_generate(&err);
    char *pem = vz_channel_keys_to_pem(keys);
    g_autofree char *long_file = g_malloc0(VZ_KEY_FILE_MAX_BYTES + 1);
    assert_no_key(path, pem, strlen(pem), 0640, "open to others");
    assert_no_key(path, pem, strlen(pem) / 2, 0600, "not a private key");
    assert_no_key(path, "", 0, 0600, "not a private key");
    assert_no_key(path, long_file, VZ_KEY_FILE_MAX_BYTES + 1, 0600, "larger than");
    vz_channel_pem_free(pem);
    g_unlink(path);
    g_rmdir(dir);
}

static void test_prologue(void)
{
    vz_prologue in = {.door = VZ_DOOR_ASK}, out;
    uint8_t bytes[VZ_PROLOGUE_BYTES];
    vz_uuid_generate(in.job);
    vz_prologue_encode(&in, bytes);
    g_assert_true(vz_prologue_decode(bytes, &out));
    g_assert_cmpint(out.door, ==, VZ_DOOR_ASK);
    g_assert_cmpmem(out.job, VZ_UUID_BYTES, in.job, VZ_UUID_BYTES);
    /* Every bit before the job's id matters. */
    for (unsigned bit = 0; bit < 16 * 8; bit++) {
        uint8_t bad[VZ_PROLOGUE_BYTES];
        memcpy(bad, bytes, sizeof(bad));
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        g_assert_false(vz_prologue_decode(bad, &out));
    }
}

static void test_preface(void)
{
    vz_preface in = {.version = VZ_CHANNEL_VERSION, .purpose = VZ_PURPOSE_DISK, .index = 17}, out;
    uint8_t bytes[VZ_PREFACE_MAX_BYTES] = {0};
    vz_uuid_generate(in.job);
    vz_preface_encode(&in, bytes);
    g_assert_cmpuint(vz_preface_length(bytes), ==, VZ_PREFACE_BYTES);
    g_assert_cmpint(vz_preface_decode(bytes, VZ_PREFACE_BYTES, &out), ==, VZ_ANSWER_ACCEPTED);
    g_assert_cmpint(out.purpose, ==, VZ_PURPOSE_DISK);
    g_assert_cmpuint(out.index, ==, 17);
    g_assert_cmpmem(out.job, VZ_UUID_BYTES, in.job, VZ_UUID_BYTES);
    g_assert_cmpint(vz_preface_decode(bytes, VZ_PREFACE_BYTES - 1, &out), ==, VZ_ANSWER_MALFORMED);
    bytes[7] = VZ_PREFACE_BYTES + 1; /* a length that only a later version has */
    g_assert_cmpint(vz_preface_decode(bytes, VZ_PREFACE_BYTES + 1, &out), ==, VZ_ANSWER_MALFORMED);
    bytes[5] = VZ_CHANNEL_VERSION + 1;
    g_assert_cmpint(vz_preface_decode(bytes, VZ_PREFACE_BYTES + 1, &out), ==, VZ_ANSWER_VERSION);
    bytes[6] = 1; /* and one beyond all bounds */
    bytes[7] = 1;
    g_assert_cmpuint(vz_preface_length(bytes), ==, 0);
    in.index = VZ_CHANNEL_INDEX_MAX + 1;
    vz_preface_encode(&in, bytes);
    g_assert_cmpint(vz_preface_decode(bytes, VZ_PREFACE_BYTES, &out), ==, VZ_ANSWER_MALFORMED);
    in.index = 0;
    in.purpose = (vz_purpose)99;
    vz_preface_encode(&in, bytes);
    g_assert_cmpint(vz_preface_decode(bytes, VZ_PREFACE_BYTES, &out), ==, VZ_ANSWER_MALFORMED);
}

static void test_answer(void)
{
    g_autoptr(GError) err = NULL;
    uint8_t bytes[VZ_ANSWER_MAX_BYTES];
    size_t n = vz_answer_encode(VZ_ANSWER_ACCEPTED, bytes);
    g_assert_cmpuint(vz_answer_length(bytes), ==, n);
    g_assert_true(vz_answer_check(bytes, n, &err));
    for (unsigned answer = VZ_ANSWER_NOT_EXPECTED; answer <= VZ_ANSWER_BUSY; answer++) {
        n = vz_answer_encode((vz_answer)answer, bytes);
        g_assert_cmpuint(vz_answer_length(bytes), ==, n);
        g_assert_false(vz_answer_check(bytes, n, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
        g_assert_true(g_str_has_suffix(err->message, vz_answer_text((vz_answer)answer)));
        g_clear_error(&err);
    }
    bytes[VZ_ANSWER_HEAD_BYTES + 1] = 27; /* an escape, for somebody's terminal */
    g_assert_false(vz_answer_check(bytes, n, &err));
    g_assert_null(strchr(err->message, 27));
    g_clear_error(&err);
    g_assert_false(vz_answer_check(bytes, n - 1, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_RPC);
}

/* Random bytes, and good ones with some changed: no crash, and no length beyond its bound. */
static void test_fuzz(void)
{
    vz_preface preface = {.version = 1, .purpose = VZ_PURPOSE_MEMORY};
    for (unsigned round = 0; round < FUZZ_ROUNDS; round++) {
        uint8_t bytes[VZ_ANSWER_MAX_BYTES];
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)g_test_rand_int();
        if (round % 3 == 1)
            vz_preface_encode(&preface, bytes);
        if (round % 3 == 2)
            vz_answer_encode(VZ_ANSWER_USED, bytes);
        for (int i = 0; i < 2; i++)
            bytes[g_test_rand_int_range(0, 12)] = (uint8_t)g_test_rand_int();
        size_t n = vz_preface_length(bytes);
        vz_preface out;
        g_assert_cmpuint(n, <=, VZ_PREFACE_MAX_BYTES);
        if (n > 0 && vz_preface_decode(bytes, n, &out) == VZ_ANSWER_ACCEPTED)
            g_assert_cmpuint(out.index, <=, VZ_CHANNEL_INDEX_MAX);
        size_t m = vz_answer_length(bytes);
        g_autoptr(GError) err = NULL;
        g_assert_cmpuint(m, <=, VZ_ANSWER_MAX_BYTES);
        g_assert_true(m == 0 || vz_answer_check(bytes, m, &err) == (err == NULL));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/channel/keys", test_keys);
    g_test_add_func("/channel/bad-keys", test_bad_keys);
    g_test_add_func("/channel/prologue", test_prologue);
    g_test_add_func("/channel/preface", test_preface);
    g_test_add_func("/channel/answer", test_answer);
    g_test_add_func("/channel/fuzz", test_fuzz);
    return g_test_run();
}
