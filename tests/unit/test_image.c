/* test_image.c - opening images by helper processes, and chains of qcow2 headers made here byte by
 * byte, as the format's specification has them. */
#include "driver/qemu/image.h"

#include "base/fd.h"
#include "base/wait.h"

#include <dirent.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;

static char *in_dir(const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void put_be(GByteArray *out, uint64_t value, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--)
        g_byte_array_append(out, &(uint8_t){(uint8_t)(value >> (8 * i))}, 1);
}

typedef struct {
    const char *backing;
    const char *backing_format;
    uint32_t crypt;
    uint64_t incompatible;
} qcow2;

static void make_qcow2(const char *name, qcow2 q)
{
    g_autoptr(GByteArray) out = g_byte_array_new();
    uint32_t bytes = q.backing ? (uint32_t)strlen(q.backing) : 0;
    put_be(out, 0x514649fb, 4);
    put_be(out, 3, 4);
    put_be(out, q.backing ? 512 : 0, 8);
    put_be(out, bytes, 4);
    put_be(out, 16, 4);
    put_be(out, 1 << 20, 8);
    put_be(out, q.crypt, 4);
    for (int i = 0; i < 36; i++) /* l1_size to snapshots_offset */
        put_be(out, 0, 1);
    put_be(out, q.incompatible, 8);
    put_be(out, 0, 8);
    put_be(out, 0, 8);
    put_be(out, 4, 4);
    put_be(out, 104, 4);
    put_be(out, 0x6803f857, 4); /* an extension of another kind comes first */
    put_be(out, 3, 4);
    put_be(out, 0, 8);
    if (q.backing_format) {
        put_be(out, 0xe2792aca, 4);
        put_be(out, strlen(q.backing_format), 4);
        g_byte_array_append(out, (const uint8_t *)q.backing_format,
                            (guint)strlen(q.backing_format));
    }
    while (out->len < 512)
        put_be(out, 0, 1);
    g_byte_array_append(out, (const uint8_t *)q.backing, bytes);
    while (out->len < 65536)
        put_be(out, 0, 1);
    g_autofree char *path = in_dir(name);
    g_assert_true(g_file_set_contents(path, (const char *)out->data, out->len, NULL));
}

static vz_image_request request_for(const char *path, const char *format)
{
    return (vz_image_request){
        .path = path, .format = format, .deadline_us = vz_now_us() + 10 * (int64_t)1000000};
}

static void test_open(void)
{
    g_autofree char *path = in_dir("disk.raw");
    g_assert_true(g_file_set_contents(path, "QFI", 3, NULL));
    vz_image_request request = request_for(path, "raw");
    vz_image image = {.fd = -1};
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_image_open(&request, &image, &err));
    g_assert_cmpuint(image.bytes, ==, 3);
    g_assert_false(image.block_device);
    struct stat st;
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpuint(image.inode, ==, st.st_ino);
    int flags = fcntl(image.fd, F_GETFL);
    g_assert_cmpint(flags & O_ACCMODE, ==, O_RDWR);
    g_assert_false(flags & O_NONBLOCK);
    g_assert_true(fcntl(image.fd, F_GETFD) & FD_CLOEXEC);
    vz_image_clear(&image);
    g_assert_false(flags & O_DIRECT);
    request.direct = true;
    if (vz_image_open(&request, &image, &err))
        g_assert_true(fcntl(image.fd, F_GETFL) & O_DIRECT);
    else
        g_assert_error(err, VZ_ERROR, VZ_ERR_CONFIG_UNSUPPORTED); /* not by this file system */
    g_clear_error(&err);
    vz_image_clear(&image);
    request.direct = false;
    request.read_only = true;
    g_assert_true(vz_image_open(&request, &image, &err));
    g_assert_cmpint(fcntl(image.fd, F_GETFL) & O_ACCMODE, ==, O_RDONLY);
    vz_image_clear(&image);
}

static void check_refused(const char *name, const char *format, int code, const char *text)
{
    g_autofree char *path = in_dir(name);
    vz_image_request request = request_for(path, format);
    g_autoptr(GError) err = NULL;
    g_assert_null(vz_image_chain_open(&request, &err));
    g_assert_error(err, VZ_ERROR, code);
    if (!strstr(err->message, text))
        g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, text));
}

static void test_refusals(void)
{
    g_autofree char *fifo = in_dir("fifo");
    g_assert_cmpint(mkfifo(fifo, 0600), ==, 0);
    check_refused("absent", "raw", VZ_ERR_SYSTEM_ERROR, "absent': No such file or directory");
    check_refused("fifo", "raw", VZ_ERR_SYSTEM_ERROR, "neither a file nor a block device");
    check_refused(".", "raw", VZ_ERR_SYSTEM_ERROR, "Is a directory");
    g_autofree char *path = in_dir("not.qcow2");
    g_assert_true(g_file_set_contents(path, "QFI", 3, NULL));
    check_refused("not.qcow2", "qcow2", VZ_ERR_OPERATION_FAILED, "not in qcow2 format");
    check_refused("not.qcow2", "vmdk", VZ_ERR_CONFIG_UNSUPPORTED, "'vmdk'");
}

/* A file system that never answers: FUSE, with nobody behind it. -1: not permitted here. */
static int mount_hung(const char *path)
{
    vz_autofd fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fuse < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mkdir(path, 0700) < 0)
        return -1;
    g_autofree char *options = g_strdup_printf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    return mount("hung", path, "fuse", 0, options) == 0 ? vz_steal_fd(&fuse) : -1;
}

static void test_hung_file_system(void)
{
    g_autofree char *path = in_dir("hung");
    g_autofree char *file = g_build_filename(path, "disk.raw", NULL);
    vz_autofd fuse = mount_hung(path);
    if (fuse < 0) {
        g_test_skip("mounting FUSE is not permitted here");
        return;
    }
    int64_t before_us = vz_now_us();
    vz_image_request request = request_for(file, "raw");
    request.deadline_us = before_us + 200000;
    vz_image image = {.fd = -1};
    g_autoptr(GError) err = NULL;
    g_assert_false(vz_image_open(&request, &image, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_TIMEOUT);
    g_assert_nonnull(strstr(err->message, "does not answer"));
    g_assert_cmpint(vz_now_us() - before_us, <, 2000000);
    vz_fd_clear(&fuse); /* the helper gets an error and ends */
    g_assert_cmpint(umount2(path, MNT_DETACH), ==, 0);
}

static void test_chain(void)
{
    g_autofree char *base = in_dir("base.raw");
    g_assert_true(g_file_set_contents(base, "base", 4, NULL));
    make_qcow2("mid.qcow2", (qcow2){.backing = base, .backing_format = "raw"});
    make_qcow2("top.qcow2", (qcow2){.backing = "mid.qcow2", .backing_format = "qcow2"});
    g_autofree char *top = in_dir("top.qcow2");
    vz_image_request request = request_for(top, "qcow2");
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_image_chain) chain = vz_image_chain_open(&request, &err);
    g_assert_no_error(err);
    g_assert_cmpuint(chain->n_layers, ==, 3);
    g_assert_cmpstr(chain->layers[2].path, ==, base);
    g_assert_cmpstr(chain->layers[2].format, ==, "raw");
    for (int i = 0; i < 3; i++) {
        int mode = fcntl(chain->layers[i].image.fd, F_GETFL) & O_ACCMODE;
        g_assert_cmpint(mode, ==, i == 0 ? O_RDWR : O_RDONLY);
        g_assert_cmpint(chain->layers[i].read_only, ==, i > 0);
    }
}

/* A raw disk's content is its guest's: a header in it must not be believed. */
static void test_raw_is_not_probed(void)
{
    make_qcow2("evil.raw", (qcow2){.backing = "/etc/shadow", .backing_format = "raw"});
    g_autofree char *path = in_dir("evil.raw");
    vz_image_request request = request_for(path, NULL);
    g_autoptr(GError) err = NULL;
    g_autoptr(vz_image_chain) chain = vz_image_chain_open(&request, &err);
    g_assert_no_error(err);
    g_assert_cmpuint(chain->n_layers, ==, 1);
    g_assert_cmpstr(chain->layers[0].format, ==, "raw");
}

static void test_chain_refusals(void)
{
    g_autofree char *long_name = g_strnfill(1023, 'x');
    make_qcow2("long.qcow2", (qcow2){.backing = long_name, .backing_format = "raw"});
    g_autofree char *long_path = in_dir("long.qcow2");
    g_assert_cmpint(truncate(long_path, 200), ==, 0); /* the name lies behind the end */
    check_refused("long.qcow2", "qcow2", VZ_ERR_OPERATION_FAILED, "broken name");
    make_qcow2("noformat.qcow2", (qcow2){.backing = "base.raw"});
    check_refused("noformat.qcow2", "qcow2", VZ_ERR_OPERATION_INVALID, "was not specified");
    make_qcow2("self.qcow2", (qcow2){.backing = "self.qcow2", .backing_format = "qcow2"});
    check_refused("self.qcow2", "qcow2", VZ_ERR_OPERATION_FAILED, "its own backing file");
    make_qcow2("nbd.qcow2", (qcow2){.backing = "nbd://h/x", .backing_format = "raw"});
    check_refused("nbd.qcow2", "qcow2", VZ_ERR_CONFIG_UNSUPPORTED, "not a local file");
    make_qcow2("json.qcow2", (qcow2){.backing = "json:{\"driver\":1}", .backing_format = "raw"});
    check_refused("json.qcow2", "qcow2", VZ_ERR_CONFIG_UNSUPPORTED, "not a local file");
    make_qcow2("data.qcow2", (qcow2){.incompatible = 4});
    check_refused("data.qcow2", "qcow2", VZ_ERR_CONFIG_UNSUPPORTED, "external data file");
    make_qcow2("luks.qcow2", (qcow2){.crypt = 2});
    check_refused("luks.qcow2", "qcow2", VZ_ERR_CONFIG_UNSUPPORTED, "encrypted");
    make_qcow2("gone.qcow2", (qcow2){.backing = "absent", .backing_format = "raw"});
    check_refused("gone.qcow2", "qcow2", VZ_ERR_SYSTEM_ERROR, "No such file or directory");
}

/* Headers with any numbers in them: an answer or an error, nothing else. */
static void test_random_headers(void)
{
    g_autofree char *path = in_dir("random.qcow2");
    g_autofree char *base = in_dir("base.raw");
    for (int i = 0; i < 150; i++) {
        make_qcow2("random.qcow2", (qcow2){.backing = base, .backing_format = "raw"});
        g_autofree char *data = NULL;
        gsize bytes;
        g_assert_true(g_file_get_contents(path, &data, &bytes, NULL));
        for (int k = 0; k < 6; k++) /* behind the magic, up to the end of the extensions */
            data[g_test_rand_int_range(4, 160)] = (char)g_test_rand_int_range(0, 256);
        gsize cut = g_test_rand_bit() ? (gsize)g_test_rand_int_range(0, 2048) : bytes;
        g_assert_true(g_file_set_contents(path, data, (gssize)cut, NULL));
        vz_image_request request = request_for(path, "qcow2");
        g_autoptr(GError) err = NULL;
        g_autoptr(vz_image_chain) chain = vz_image_chain_open(&request, &err);
        g_assert_true((chain != NULL) == (err == NULL));
    }
}

/* Every descriptor of every failure above was closed. */
static void test_no_leaks(void)
{
    guint open_fds = 0;
    DIR *d = opendir("/proc/self/fd");
    for (const struct dirent *e; (e = readdir(d));) {
        g_autofree char *link = g_build_filename("/proc/self/fd", e->d_name, NULL);
        g_autofree char *target = g_file_read_link(link, NULL);
        if (target && g_str_has_prefix(target, dir))
            open_fds++;
    }
    closedir(d);
    g_assert_cmpuint(open_fds, ==, 0);
}

static void remove_dir(void)
{
    DIR *d = opendir(dir);
    for (const struct dirent *e; (e = readdir(d));) {
        g_autofree char *path = in_dir(e->d_name);
        g_remove(path);
    }
    closedir(d);
    g_rmdir(dir);
    g_free(dir);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    dir = g_dir_make_tmp("vz-image-XXXXXX", NULL);
    g_test_add_func("/image/open", test_open);
    g_test_add_func("/image/refusals", test_refusals);
    g_test_add_func("/image/hung-file-system", test_hung_file_system);
    g_test_add_func("/image/chain", test_chain);
    g_test_add_func("/image/raw-is-not-probed", test_raw_is_not_probed);
    g_test_add_func("/image/chain-refusals", test_chain_refusals);
    g_test_add_func("/image/random-headers", test_random_headers);
    g_test_add_func("/image/no-leaks", test_no_leaks);
    int rc = g_test_run();
    remove_dir();
    return rc;
}
