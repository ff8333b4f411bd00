/* test_identify.c - the proof that a disk is the same file on both hosts, and ways to fool it.
 *
 * The two hosts are two directories: "there" is the same one by another path (a link), or another.
 * The probe is the real program (VZ_TEST_PROBE). */
#include "storage/identify.h"

#include "storage/probe_call.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *top;
static const vz_identify_policy strict;
static const vz_identify_policy lenient = {.unsafe = true};
static bool unsafe; /* as the caller of a move may have said */

static char *path_in(const char *directory, const char *name)
{
    return g_build_filename(top, directory, name, NULL);
}

static void make_image(const char *directory, const char *name, const char *text)
{
    g_autofree char *path = path_in(directory, name);
    g_assert_true(g_file_set_contents(path, text, -1, NULL));
}

/* A definition with one disk. */
static vz_def *def_with(const char *directory, const char *name)
{
    static const vz_def_host host = {
        .arch = "x86_64", .emulator = "/usr/bin/qemu-system-x86_64", .default_machine = "pc"};
    g_autofree char *path = path_in(directory, name);
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu'><name>x</name><memory>65536</memory><os><type>hvm</type></os><devices>"
        "<disk type='file'><source file='%s'/><target dev='vda' bus='virtio'/></disk>"
        "</devices></domain>",
        path);
    g_autoptr(GError) err = NULL;
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &host, &err);
    g_assert_no_error(err);
    return def;
}

static unsigned notes_in(const char *directory)
{
    g_autofree char *path = path_in(directory, NULL);
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    unsigned count = 0;
    for (const char *name; (name = g_dir_read_name(dir));)
        count += g_str_has_prefix(name, ".virtvz-");
    return count;
}

/* The whole exchange; true: proved. *err says why not. */
static bool prove(const vz_def *here, const vz_def *there, GError **err)
{
    json_t *offer = NULL;
    json_t *answer = NULL;
    bool proved =
        vz_identify_offer(here, "hosta", unsafe, &offer, err) &&
        vz_identify_answer(there, offer, &(vz_identify_policy){.unsafe = unsafe}, &answer, err) &&
        vz_identify_confirm(offer, answer, unsafe, err);
    if (offer)
        vz_identify_remove(NULL, offer);
    json_decref(offer);
    json_decref(answer);
    return proved;
}

static void expect_refused(const vz_def *here, const vz_def *there, const char *words)
{
    g_autoptr(GError) err = NULL;
    g_assert_false(prove(here, there, &err));
    g_assert_cmpint(err->code, ==, VZ_ERR_MIGRATE_UNSAFE);
    if (!strstr(err->message, words))
        g_error("'%s' does not say '%s'", err->message, words);
    g_assert_cmpuint(notes_in("shared"), ==, 0);
    g_assert_cmpuint(notes_in("other"), ==, 0);
}

static void test_shared(void)
{
    make_image("shared", "disk.img", "content");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(vz_def) by_link = def_with("link-to-shared", "disk.img");
    g_autoptr(GError) err = NULL;
    g_assert_true(prove(here, here, &err));
    g_assert_true(prove(here, by_link, &err));
    g_assert_true(prove(by_link, here, &err));
    g_assert_cmpuint(notes_in("shared"), ==, 0);
}

static void test_copy_of_the_same_name_is_refused(void)
{
    make_image("shared", "disk.img", "content");
    make_image("other", "disk.img", "content");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(vz_def) there = def_with("other", "disk.img");
    expect_refused(here, there, "not on shared storage");
}

/* The answer to an offer that was changed underway; the caller decrefs. */
static json_t *answer_to(const vz_def *here, const vz_def *there, void (*change)(json_t *offer),
                         const vz_identify_policy *policy, GError **err)
{
    json_t *offer = NULL;
    json_t *answer = NULL;
    g_assert_true(vz_identify_offer(here, "hosta", false, &offer, err));
    if (change)
        change(json_array_get(offer, 0));
    bool answered = vz_identify_answer(there, offer, policy, &answer, err);
    g_assert_true(!answered || vz_identify_confirm(offer, answer, false, err));
    vz_identify_remove(NULL, offer);
    json_decref(offer);
    return answered ? answer : NULL;
}

static void with_backing(json_t *offer)
{
    json_t *shape = json_pack("{ss si si si sb}", "format", "qcow2", "virtual", 1, "cluster", 65536,
                              "version", 3, "backing", 1);
    json_object_set_new(offer, "shape", shape);
}

static void of_another_format(json_t *offer)
{
    with_backing(offer);
    json_object_set_new(json_object_get(offer, "shape"), "backing", json_false());
}

static void without_shape(json_t *offer)
{
    json_object_del(offer, "shape");
}

static void of_no_shape(json_t *offer)
{
    json_object_set_new(offer, "shape", json_string("like this one"));
}

static void test_nothing_there(void)
{
    static const struct {
        void (*change)(json_t *offer);
        const char *words;
    } cases[] = {{with_backing, "it has a backing file"},
                 {of_another_format, "of another kind"},
                 {without_shape, "copies only disks of type file"},
                 {of_no_shape, "copies only disks of type file"}};
    make_image("shared", "disk.img", "content");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(vz_def) absent = def_with("other", "absent.img");
    g_autoptr(vz_def) absent_beside = def_with("shared", "absent.img");
    g_autoptr(vz_def) no_directory = def_with("no-such-directory", "disk.img");
    g_autoptr(GError) err = NULL;
    json_t *answer = answer_to(here, absent, NULL, &strict, &err);
    g_assert_no_error(err);
    g_assert_true(json_is_true(json_object_get(json_array_get(answer, 0), "copy")));
    json_decref(answer);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_assert_null(answer_to(here, absent, cases[i].change, &strict, &err));
        g_assert_error(err, VZ_ERROR, VZ_ERR_MIGRATE_UNSAFE);
        g_assert_nonnull(strstr(err->message, cases[i].words));
        g_clear_error(&err);
    }
    /* Shared, so the path is wrong. */
    expect_refused(here, absent_beside, "is shared, but the file there is a different one");
    expect_refused(here, no_directory, "no-such-directory");
    g_assert_cmpuint(notes_in("other"), ==, 0);
}

static void expect_over(const vz_def *here, const vz_def *there, const vz_identify_policy *policy,
                        const char *refusal)
{
    g_autoptr(GError) err = NULL;
    json_t *answer = answer_to(here, there, NULL, policy, &err);
    if (!refusal) {
        g_assert_no_error(err);
        g_assert_true(json_is_true(json_object_get(json_array_get(answer, 0), "over")));
    } else {
        g_assert_null(answer);
        g_assert_error(err, VZ_ERROR, VZ_ERR_MIGRATE_UNSAFE);
        if (!strstr(err->message, refusal))
            g_error("'%s' does not say '%s'", err->message, refusal);
    }
    json_decref(answer);
}

/* An image that the caller has made for the copy, and what is not one. */
static void test_copy_over(void)
{
    g_autoptr(GPtrArray) vda = g_ptr_array_new();
    g_autoptr(GPtrArray) vdb = g_ptr_array_new();
    g_ptr_array_add(vda, (void *)(uintptr_t) "vda");
    g_ptr_array_add(vdb, (void *)(uintptr_t) "vdb");
    const vz_identify_policy copy = {.copy = true};
    const vz_identify_policy copy_it = {.copy = true, .among = vda};
    const vz_identify_policy copy_another = {.copy = true, .among = vdb};
    make_image("shared", "disk.img", "content");
    make_image("other", "disk.img", "CONTENT");
    make_image("other", "small.img", "small");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(vz_def) there = def_with("other", "disk.img");
    g_autoptr(vz_def) small = def_with("other", "small.img");
    g_autoptr(vz_def) linked = def_with("other", "linked.img");
    expect_over(here, there, &strict, "is not overwritten");
    expect_over(here, there, &copy, NULL);
    expect_over(here, there, &copy_it, NULL);
    expect_over(here, there, &copy_another, "not among the disks");
    expect_over(here, small, &copy, "of another size");
    /* The source's own file in another directory: by a second link, or a mount of it alone. */
    g_autofree char *own = path_in("shared", "disk.img");
    g_autofree char *second = path_in("other", "linked.img");
    g_assert_cmpint(link(own, second), ==, 0);
    expect_over(here, linked, &copy, "may be the source's own file");
    g_assert_cmpint(unlink(second), ==, 0);
    g_autofree char *used = path_in("other", "disk.img");
    int fd = open(used, O_RDWR | O_CLOEXEC);
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
    g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
    expect_over(here, there, &copy, "is in use");
    close(fd);
}

/* A destination that would write to a disk that was not offered for that. */
static void test_unwanted_copy(void)
{
    make_image("shared", "disk.img", "content");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(GError) err = NULL;
    json_t *offer = NULL;
    g_assert_true(vz_identify_offer(here, "hosta", false, &offer, &err));
    json_t *answer = json_pack("[{ss sb}]", "target", "vda", "copy", 1);
    g_assert_true(vz_identify_confirm(offer, answer, false, &err));
    vz_identify_remove(NULL, offer); /* that nothing is seen there proves nothing then */
    g_assert_false(vz_identify_confirm(offer, answer, false, &err));
    g_assert_nonnull(strstr(err->message, "is gone"));
    g_clear_error(&err);
    vz_identify_withhold_copies(offer);
    g_assert_false(vz_identify_confirm(offer, answer, false, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_MIGRATE_UNSAFE);
    vz_identify_remove(NULL, offer);
    json_decref(answer);
    json_decref(offer);
}

static void test_another_file_of_a_shared_directory(void)
{
    make_image("shared", "disk.img", "content");
    make_image("shared", "other.img", "CONTENT");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(vz_def) there = def_with("shared", "other.img");
    expect_refused(here, there, "a different one");
}

#define IMAGE_GROWS_TO 65536

/* A running guest changes its image between the two looks, and one of qcow2 grows; QEMU's locks
 * then tell that it is it. */
static void test_locks_stand_in_for_the_time(void)
{
    make_image("shared", "disk.img", "content");
    g_autoptr(vz_def) def = def_with("shared", "disk.img");
    g_autofree char *path = path_in("shared", "disk.img");
    g_autoptr(GError) err = NULL;
    for (int locked = 0; locked < 2; locked++) {
        json_t *offer = NULL;
        json_t *answer = NULL;
        int fd = open(path, O_RDWR | O_CLOEXEC);
        struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 100, .l_len = 1};
        if (locked)
            g_assert_cmpint(fcntl(fd, F_OFD_SETLK, &lock), ==, 0);
        g_assert_true(vz_identify_offer(def, "hosta", false, &offer, &err));
        const struct timespec times[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
        g_assert_cmpint(futimens(fd, times), ==, 0);
        g_assert_cmpint(pwrite(fd, "more", 4, IMAGE_GROWS_TO - 4), ==, 4);
        g_assert_cmpint(vz_identify_answer(def, offer, &strict, &answer, &err), ==, locked);
        g_clear_error(&err);
        vz_identify_remove(NULL, offer);
        json_decref(offer);
        json_decref(answer);
        close(fd);
    }
}

/* A source that is lied to by the destination: an answer that is not beside its image. */
static void test_confirm_wants_the_answer_itself(void)
{
    make_image("shared", "disk.img", "content");
    g_autoptr(vz_def) def = def_with("shared", "disk.img");
    g_autoptr(GError) err = NULL;
    json_t *offer = NULL;
    g_assert_true(vz_identify_offer(def, "hosta", false, &offer, &err));
    json_t *lie =
        json_pack("[{ss ss}]", "target", "vda", "text", "virtvz answers: it is shared. 00");
    g_assert_false(vz_identify_confirm(offer, lie, false, &err));
    g_assert_cmpint(err->code, ==, VZ_ERR_MIGRATE_UNSAFE);
    g_clear_error(&err);
    json_t *nothing = json_array();
    g_assert_false(vz_identify_confirm(offer, nothing, false, &err));
    vz_identify_remove(NULL, offer);
    json_decref(nothing);
    json_decref(lie);
    json_decref(offer);
}

static void test_hostile_offers(void)
{
    make_image("shared", "disk.img", "content");
    g_autoptr(vz_def) def = def_with("shared", "disk.img");
    static const char *const offers[] = {"{}", "[{}]", "[]",
                                         "[{\"target\":\"vda\",\"nonce\":\"../../etc/passwd\"}]",
                                         "[{\"target\":\"vda\",\"nonce\":7,\"text\":[]}]"};
    for (size_t i = 0; i < G_N_ELEMENTS(offers); i++) {
        g_autoptr(GError) err = NULL;
        json_t *offer = json_loads(offers[i], 0, NULL);
        json_t *answer = NULL;
        g_assert_false(vz_identify_answer(def, offer, &strict, &answer, &err));
        g_assert_nonnull(err);
        json_decref(offer);
    }
    g_assert_cmpuint(notes_in("shared"), ==, 0);
}

static vz_def *def_at(const char *path)
{
    vz_def *def = def_with("shared", "disk.img");
    g_free(def->disks[0].path);
    def->disks[0].path = g_strdup(path);
    return def;
}

/* A directory in which nobody can make a file. */
static void test_unproved(void)
{
    g_autoptr(vz_def) here = def_at("/sys/kernel/uevent_seqnum");
    g_autoptr(vz_def) there = def_at("/sys/kernel/notes");
    g_autoptr(vz_def) gone = def_at("/sys/kernel/no-such-file");
    g_autoptr(GError) err = NULL;
    json_t *offer = NULL;
    json_t *answer = NULL;
    expect_refused(here, here, "--unsafe would move it");
    unsafe = true;
    g_assert_true(prove(here, here, &err));
    expect_refused(here, there, "a different one");
    expect_refused(here, gone, "here: nothing");
    unsafe = false;
    g_assert_true(vz_identify_offer(here, "hosta", true, &offer, &err));
    g_assert_false(vz_identify_answer(here, offer, &strict, &answer, &err));
    g_assert_cmpint(err->code, ==, VZ_ERR_MIGRATE_UNSAFE);
    g_clear_error(&err);
    g_assert_true(vz_identify_answer(here, offer, &lenient, &answer, &err));
    g_autofree char *warning = vz_identify_warning(json_array_get(answer, 0));
    g_assert_nonnull(strstr(warning, "disk 'vda' is not proved"));
    json_decref(answer);
    json_decref(offer);
}

/* Somebody's word is no proof that two files are one. */
static void test_unsafe_but_different(void)
{
    make_image("shared", "disk.img", "content");
    make_image("shared", "other.img", "CONTENT");
    make_image("other", "disk.img", "content");
    g_autoptr(vz_def) here = def_with("shared", "disk.img");
    g_autoptr(vz_def) copy = def_with("other", "disk.img");
    g_autoptr(vz_def) beside = def_with("shared", "other.img");
    g_autoptr(GError) err = NULL;
    unsafe = true;
    expect_refused(here, copy, "not on shared storage");
    expect_refused(here, beside, "a different one");
    g_assert_true(prove(here, here, &err));
    unsafe = false;
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    vz_probe_set_program(g_getenv("VZ_TEST_PROBE"));
    top = g_dir_make_tmp("vz-identify-XXXXXX", NULL);
    g_autofree char *shared = path_in("shared", NULL);
    g_autofree char *other = path_in("other", NULL);
    g_autofree char *link_path = path_in("link-to-shared", NULL);
    g_assert_true(g_mkdir(shared, 0755) == 0 && g_mkdir(other, 0755) == 0 &&
                  symlink(shared, link_path) == 0);
    g_test_add_func("/storage/identify/shared", test_shared);
    g_test_add_func("/storage/identify/copy", test_copy_of_the_same_name_is_refused);
    g_test_add_func("/storage/identify/nothing", test_nothing_there);
    g_test_add_func("/storage/identify/copy-over", test_copy_over);
    g_test_add_func("/storage/identify/unwanted-copy", test_unwanted_copy);
    g_test_add_func("/storage/identify/another-file", test_another_file_of_a_shared_directory);
    g_test_add_func("/storage/identify/unproved", test_unproved);
    g_test_add_func("/storage/identify/unsafe-but-different", test_unsafe_but_different);
    g_test_add_func("/storage/identify/locks", test_locks_stand_in_for_the_time);
    g_test_add_func("/storage/identify/lying-answer", test_confirm_wants_the_answer_itself);
    g_test_add_func("/storage/identify/hostile-offers", test_hostile_offers);
    int status = g_test_run();
    g_autofree char *command = g_strdup_printf("rm -r '%s'", top);
    if (system(command) != 0)
        g_printerr("%s is left\n", top);
    g_free(top);
    return status;
}
