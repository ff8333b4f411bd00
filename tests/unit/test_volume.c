/* test_volume.c - images that are made like others, with the real probe and the real qemu-img, in
 * directories of this machine. */
#include "storage/volume.h"

#include "base/json.h"
#include "base/spawn.h"
#include "base/wait.h"
#include "storage/probe_call.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOB   "7d0f2d6e-0000-4000-8000-000000000001"
#define MIB   ((uint64_t)1 << 20)
#define OWNER 3000000000u /* more than an int holds */

static char *top;

static char *path_of(const char *name)
{
    return g_build_filename(top, name, NULL);
}

static void make_qcow2(const char *path, const char *options, const char *size)
{
    g_autoptr(GError) err = NULL;
    const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2",
                                "-o",       options,  path, size, NULL};
    g_assert_true(vz_run(argv, vz_now_us() + VZ_VOLUME_DEADLINE_US, NULL, &err));
    g_assert_no_error(err);
}

static void make_raw(const char *path, uint64_t bytes, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    g_assert_cmpint(fd, >=, 0);
    g_assert_cmpint(write(fd, text, strlen(text)), ==, (ssize_t)strlen(text));
    g_assert_cmpint(ftruncate(fd, (off_t)bytes), ==, 0);
    close(fd);
}

static vz_volume_shape look(const char *path, vz_volume_format format)
{
    g_autoptr(GError) err = NULL;
    vz_volume_shape shape;
    bool exists = false;
    uint64_t free_bytes = 0;
    g_assert_true(vz_volume_look(path, format, &shape, &exists, &free_bytes, &err));
    g_assert_no_error(err);
    g_assert_true(exists);
    g_assert_cmpuint(free_bytes, >, 0);
    return shape;
}

static json_t *create(const char *path, const vz_volume_shape *shape)
{
    g_autoptr(GError) err = NULL;
    json_t *created = NULL;
    g_assert_true(vz_volume_create(path, JOB, 0, shape, &created, &err));
    g_assert_no_error(err);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    return created;
}

static unsigned entries(const char *directory)
{
    unsigned count = 0;
    g_autoptr(GDir) dir = g_dir_open(directory, 0, NULL);
    while (g_dir_read_name(dir))
        count++;
    return count;
}

static void make_alike(const char *name, vz_volume_format format)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *from = path_of(name);
    g_autofree char *to = g_strconcat(from, ".copy", NULL);
    if (geteuid() == 0)
        g_assert_cmpint(chown(from, OWNER, OWNER + 1), ==, 0);
    g_assert_cmpint(chmod(from, 0604), ==, 0);
    vz_volume_shape theirs = look(from, format);
    json_t *travelled = vz_volume_shape_to_json(&theirs);
    vz_volume_shape arrived;
    g_assert_true(vz_volume_shape_from_json(travelled, &arrived, &err));
    json_t *created = create(to, &arrived);
    g_assert_true(vz_volume_settle(created, &err));
    g_assert_no_error(err);
    g_assert_true(vz_volume_settle(created, &err)); /* again, after a restart */
    vz_volume_shape ours = look(to, format);
    g_assert_cmpuint(ours.allocated_bytes, <=, theirs.allocated_bytes); /* sparse, and empty */
    ours.allocated_bytes = theirs.allocated_bytes;
    json_t *made = vz_volume_shape_to_json(&ours);
    if (!json_equal(travelled, made))
        g_error("%s became %s", json_dumps(travelled, 0), json_dumps(made, 0));
    vz_volume_remove(created);
    vz_volume_remove(created);
    g_assert_false(g_file_test(to, G_FILE_TEST_EXISTS));
    g_assert_true(g_file_test(from, G_FILE_TEST_EXISTS));
    g_unlink(from);
    json_decref(made);
    json_decref(created);
    json_decref(travelled);
    g_assert_cmpuint(entries(top), ==, 0);
}

static void test_raw(void)
{
    g_autofree char *path = path_of("a.img");
    make_raw(path, 8 * MIB + 512, "content");
    make_alike("a.img", VZ_VOLUME_RAW);
}

static void test_qcow2(void)
{
    static const char *const options[] = {
        "cluster_size=4k,compat=0.10",
        "cluster_size=65536,compat=1.1",
        "cluster_size=2M,compat=1.1,lazy_refcounts=on",
        "cluster_size=128k,extended_l2=on,compression_type=zstd",
    };
    g_autofree char *path = path_of("a.qcow2");
    for (size_t i = 0; i < G_N_ELEMENTS(options); i++) {
        make_qcow2(path, options[i], "1G");
        make_alike("a.qcow2", VZ_VOLUME_QCOW2);
    }
}

/* Whatever has the name by then stays as it is, also after the undo. */
static void test_what_is_there_stays(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *content = NULL;
    g_autofree char *path = path_of("late.img");
    const vz_volume_shape shape = {.virtual_bytes = MIB, .mode = 0600};
    json_t *created = create(path, &shape);
    make_raw(path, 7, "another");
    g_assert_false(vz_volume_settle(created, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_INVALID);
    g_assert_nonnull(strstr(err->message, path));
    vz_volume_remove(created);
    g_assert_true(g_file_get_contents(path, &content, NULL, NULL));
    g_assert_cmpstr(content, ==, "another");
    g_assert_cmpuint(entries(top), ==, 1);
    g_unlink(path);
    json_decref(created);
}

/* It was renamed away by someone, and another file has its name: not this job's. */
static void test_another_of_its_name_stays(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = path_of("mine.img");
    const vz_volume_shape shape = {.virtual_bytes = MIB, .mode = 0600};
    json_t *created = create(path, &shape);
    g_assert_true(vz_volume_settle(created, &err));
    g_unlink(path);
    g_usleep(20000);              /* a birth is as exact as the kernel's tick */
    make_raw(path, 7, "another"); /* may even have its number */
    vz_volume_remove(created);
    g_assert_true(g_file_test(path, G_FILE_TEST_EXISTS));
    g_unlink(path);
    json_decref(created);
}

/* The host died before the file's number was noted. */
static void test_undo_of_the_expected(void)
{
    g_autofree char *path = path_of("early.img");
    const vz_volume_shape shape = {.virtual_bytes = MIB, .mode = 0600};
    json_t *created = create(path, &shape);
    json_t *expected = vz_volume_expected(path, JOB, 0);
    make_raw(path, 7, "another");
    vz_volume_remove(expected);
    g_assert_cmpuint(entries(top), ==, 1);
    g_unlink(path);
    json_decref(expected);
    json_decref(created);
}

static void expect_aside(const char *path, const json_t *inode, const char *expected)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *aside = NULL;
    g_assert_true(vz_volume_put_aside(path, JOB, inode, &aside, &err));
    g_assert_no_error(err);
    g_assert_cmpstr(aside, ==, expected);
}

/* Only the file that was meant, behind a link, and once. */
static void test_put_aside(void)
{
    struct stat st;
    g_autofree char *path = path_of("left.img");
    g_autofree char *link_path = path_of("link.img");
    g_autofree char *aside = g_strconcat(path, ".migrated-" JOB, NULL);
    make_raw(path, 7, "content");
    g_assert_cmpint(symlink(path, link_path), ==, 0);
    g_assert_cmpint(stat(path, &st), ==, 0);
    json_t *inode = json_integer((json_int_t)st.st_ino);
    json_t *another = json_integer((json_int_t)st.st_ino + 1);
    expect_aside(path, another, NULL);
    expect_aside(link_path, inode, aside);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_cmpint(lstat(link_path, &st), ==, 0);
    expect_aside(path, inode, NULL);
    vz_volume_remove_aside(aside);
    vz_volume_remove_aside(aside);
    g_assert_cmpuint(entries(top), ==, 1);
    g_unlink(link_path);
    json_decref(another);
    json_decref(inode);
}

static void test_no_room(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = path_of("huge.img");
    json_t *created = NULL;
    const vz_volume_shape shape = {
        .virtual_bytes = (uint64_t)1 << 50, .allocated_bytes = (uint64_t)1 << 50, .mode = 0600};
    g_assert_false(vz_volume_create(path, JOB, 0, &shape, &created, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_assert_nonnull(strstr(err->message, "no room for"));
    g_assert_cmpuint(entries(top), ==, 0);
}

static void expect_bad_look(const char *path, vz_volume_format format, int code, const char *words)
{
    g_autoptr(GError) err = NULL;
    vz_volume_shape shape;
    bool exists;
    uint64_t free_bytes;
    g_assert_false(vz_volume_look(path, format, &shape, &exists, &free_bytes, &err));
    g_assert_error(err, VZ_ERROR, code);
    if (!strstr(err->message, words) || !strstr(err->message, path))
        g_error("'%s' does not say '%s'", err->message, words);
}

static void test_looks(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *absent = path_of("absent.img");
    g_autofree char *nowhere = path_of("no-such/absent.img");
    g_autofree char *raw = path_of("raw.img");
    vz_volume_shape shape;
    bool exists = true;
    uint64_t free_bytes = 0;
    g_assert_true(vz_volume_look(absent, VZ_VOLUME_RAW, &shape, &exists, &free_bytes, &err));
    g_assert_false(exists);
    g_assert_cmpuint(free_bytes, >, 0);
    make_raw(raw, 100000, "no header");
    expect_bad_look(nowhere, VZ_VOLUME_RAW, VZ_ERR_SYSTEM_ERROR, "No such file");
    expect_bad_look(top, VZ_VOLUME_RAW, VZ_ERR_SYSTEM_ERROR, "not a regular file");
    expect_bad_look(raw, VZ_VOLUME_QCOW2, VZ_ERR_SYSTEM_ERROR, "no qcow2 image");
    g_unlink(raw);
}

static void test_bad_shapes(void)
{
    static const char *const bad[] = {
        "{}",
        "{\"format\": \"vmdk\"}",
        "{\"format\": \"raw\", \"virtual\": 9000000000000000000}",
        "{\"format\": \"qcow2\", \"virtual\": 1, \"cluster\": 1000, \"version\": 3}",
        "{\"format\": \"qcow2\", \"virtual\": 1, \"cluster\": 4194304, \"version\": 3}",
        "{\"format\": \"qcow2\", \"virtual\": 1, \"cluster\": 65536, \"version\": 4}",
    };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) err = NULL;
        vz_volume_shape shape;
        json_t *object = json_loads(bad[i], 0, NULL);
        g_assert_false(vz_volume_shape_from_json(object, &shape, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_INVALID_ARG);
        json_decref(object);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autofree char *program = g_strdup(g_getenv("VZ_TEST_PROBE"));
    vz_probe_set_program(program);
    top = g_dir_make_tmp("virtvz-volume-XXXXXX", NULL);
    g_test_add_func("/volume/raw", test_raw);
    g_test_add_func("/volume/qcow2", test_qcow2);
    g_test_add_func("/volume/what-is-there-stays", test_what_is_there_stays);
    g_test_add_func("/volume/another-of-its-name-stays", test_another_of_its_name_stays);
    g_test_add_func("/volume/undo-of-the-expected", test_undo_of_the_expected);
    g_test_add_func("/volume/put-aside", test_put_aside);
    g_test_add_func("/volume/no-room", test_no_room);
    g_test_add_func("/volume/looks", test_looks);
    g_test_add_func("/volume/bad-shapes", test_bad_shapes);
    int result = g_test_run();
    g_rmdir(top);
    g_free(top);
    return result;
}
