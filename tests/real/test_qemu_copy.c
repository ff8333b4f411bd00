/* test_qemu_copy.c - one real QEMU 10 copies a disk to another. Runs in the lab's root
 * (tests/real/in-root). The guests never run: what writes is QEMU itself, by its qemu-io, through
 * the node that a guest's device would use. */
#include "driver/qemu/blockcopy.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "base/wait.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND_US ((int64_t)1000000)
#define MIB       ((size_t)1 << 20)
#define DISK      "vda"
#define NODE      "disk"
#define STORAGE   "storage"

typedef struct {
    pid_t pid;
    int pidfd;
    vz_qmp *qmp;
} machine;

static char *top;

static char *path_of(const char *name)
{
    return g_build_filename(top, name, NULL);
}

static machine start(const char *image, const char *format, bool incoming)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = path_of(image);
    int monitor[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, monitor), ==, 0);
    g_autofree char *node =
        g_strdup_printf("driver=%s,node-name=" NODE ",file.driver=file,file.node-name=" STORAGE ","
                        "file.filename=%s,file.discard=unmap",
                        format, path);
    const char *const argv[] = {"qemu-system-x86_64",
                                "-nodefaults",
                                "-display",
                                "none",
                                "-S",
                                "-M",
                                "pc-i440fx-10.0,accel=tcg",
                                "-m",
                                "64",
                                "-blockdev",
                                node,
                                "-device",
                                "virtio-blk-pci,drive=" NODE ",id=device",
                                "-chardev",
                                "socket,id=monitor,fd=3",
                                "-mon",
                                "chardev=monitor,mode=control",
                                incoming ? "-incoming" : NULL,
                                "defer",
                                NULL};
    vz_spawn_options options = {.argv = argv,
                                .fds = &monitor[1],
                                .n_fds = 1,
                                .stdin_fd = -1,
                                .stdout_fd = -1,
                                .stderr_fd = STDERR_FILENO};
    machine m;
    g_assert_true(vz_spawn(&options, &m.pid, &m.pidfd, &err));
    close(monitor[1]);
    m.qmp = vz_qmp_open(monitor[0], vz_now_us() + 30 * SECOND_US, &err);
    g_assert_no_error(err);
    return m;
}

/* So that what it holds in memory is in its images. */
static void quit(machine *m)
{
    g_autoptr(GError) err = NULL;
    vz_qmp_do(m->qmp, "quit", NULL, VZ_QMP_TIMEOUT_US, &err);
    waitpid(m->pid, NULL, 0);
    vz_qmp_close(m->qmp);
    close(m->pidfd);
}

static void write_there(machine *m, const char *words)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *line = g_strdup_printf("qemu-io -d device/virtio-backend \"%s\"", words);
    json_t *value =
        vz_qmp_command(m->qmp, "human-monitor-command", json_pack("{ss}", "command-line", line),
                       VZ_QMP_TIMEOUT_US, &err);
    g_assert_no_error(err);
    g_assert_null(strstr(json_string_value(value), "rror"));
    json_decref(value);
}

static void make_raw(const char *name, size_t bytes, size_t content)
{
    g_autofree char *path = path_of(name);
    g_autofree uint8_t *data = g_malloc(content + 1);
    for (size_t i = 0; i < content; i++)
        data[i] = (uint8_t)(i * 2654435761u >> 13);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    g_assert_cmpint(pwrite(fd, data, content, (off_t)MIB), ==, (ssize_t)content);
    g_assert_cmpint(ftruncate(fd, (off_t)bytes), ==, 0);
    close(fd);
}

static void run(const char *const *argv)
{
    g_autoptr(GError) err = NULL;
    vz_run(argv, vz_now_us() + 60 * SECOND_US, NULL, &err);
    g_assert_no_error(err);
}

static void make_qcow2(const char *name, const char *size)
{
    g_autofree char *path = path_of(name);
    const char *const argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", path, size, NULL};
    run(argv);
}

static void expect_same(const char *a, const char *b, const char *format)
{
    g_autofree char *one = path_of(a);
    g_autofree char *two = path_of(b);
    const char *const argv[] = {"qemu-img", "compare", "-q", "-f", format,
                                "-F",       format,    one,  two,  NULL};
    run(argv);
}

/* The destination listens, and a connection to it. */
static int serve(machine *target, bool raw)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *path = path_of("nbd.sock");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    g_assert_true(vz_blockcopy_serve(target->qmp, path, &err));
    g_assert_true(vz_blockcopy_export(target->qmp, DISK, NODE, raw ? STORAGE : NULL, &err));
    g_assert_no_error(err);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(connect(fd, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    return fd;
}

static void copy(machine *source, int take_fd, bool synchronous, uint64_t bytes_s)
{
    g_autoptr(GError) err = NULL;
    const vz_blockcopy_request request = {
        .disk = DISK, .node = NODE, .fd = take_fd, .synchronous = synchronous, .bytes_s = bytes_s};
    g_assert_true(vz_blockcopy_start(source->qmp, &request, &err));
    g_assert_no_error(err);
    close(take_fd);
}

static vz_blockcopy_progress await(machine *m, vz_blockcopy_state state)
{
    int64_t deadline_us = vz_now_us() + 30 * SECOND_US;
    for (;;) {
        g_autoptr(GError) err = NULL;
        vz_blockcopy_progress p;
        g_assert_true(vz_blockcopy_query(m->qmp, DISK, &p, &err));
        g_assert_no_error(err);
        if (p.state == state)
            return p;
        if (vz_now_us() >= deadline_us || p.state >= VZ_BLOCKCOPY_CONCLUDED)
            g_error("the copy is in state %d (%s), not %d", (int)p.state, p.reason, (int)state);
        g_usleep(20000);
    }
}

static void finish(machine *source, machine *target)
{
    g_autoptr(GError) err = NULL;
    vz_blockcopy_progress p = await(source, VZ_BLOCKCOPY_READY);
    g_assert_cmpuint(p.done_bytes, >, 0);
    g_assert_true(vz_blockcopy_finish(source->qmp, DISK, &err));
    await(source, VZ_BLOCKCOPY_CONCLUDED);
    g_assert_true(vz_blockcopy_end(source->qmp, DISK, &err));
    g_assert_true(vz_blockcopy_query(source->qmp, DISK, &p, &err));
    g_assert_cmpint(p.state, ==, VZ_BLOCKCOPY_NONE);
    for (int i = 0; i < 2; i++) {
        g_assert_true(vz_blockcopy_stop_serving(target->qmp, &err));
        g_assert_true(vz_blockcopy_remove_node(target->qmp, DISK, &err));
    }
    g_assert_no_error(err);
}

static void check_whole(const char *format, bool synchronous)
{
    machine source = start("source", format, false);
    machine target = start("target", format, true);
    write_there(&source, "write -P 17 0 300k");
    copy(&source, serve(&target, strcmp(format, "raw") == 0), synchronous, 0);
    await(&source, VZ_BLOCKCOPY_READY);
    write_there(&source, "write -P 51 40M 1M"); /* what comes while both are alike */
    write_there(&source, "write -z -u 1M 64k");
    finish(&source, &target);
    quit(&source);
    quit(&target);
    expect_same("source", "target", format);
}

static void test_raw(void)
{
    struct stat st;
    g_autofree char *target = path_of("target");
    make_raw("source", 64 * MIB, 4 * MIB);
    make_raw("target", 64 * MIB, 0);
    check_whole("raw", false);
    g_assert_cmpint(stat(target, &st), ==, 0);
    g_assert_cmpint(st.st_blocks * 512, <, 8 * (long)MIB); /* holes are holes */
}

static void test_qcow2(void)
{
    make_qcow2("source", "64M");
    make_qcow2("target", "64M");
    check_whole("qcow2", true);
}

/* The source's node is free again after each kind of end. */
static void test_cancel(void)
{
    g_autoptr(GError) err = NULL;
    make_raw("source", 64 * MIB, 16 * MIB);
    make_raw("target", 64 * MIB, 0);
    machine source = start("source", "raw", false);
    machine target = start("target", "raw", true);
    copy(&source, serve(&target, true), false, MIB);
    g_assert_true(vz_blockcopy_cancel(source.qmp, DISK, &err));
    await(&source, VZ_BLOCKCOPY_FAILED);
    g_assert_true(vz_blockcopy_end(source.qmp, DISK, &err));
    g_assert_true(vz_blockcopy_stop_serving(target.qmp, &err));
    g_assert_true(vz_blockcopy_remove_node(target.qmp, DISK, &err));
    copy(&source, serve(&target, true), false, MIB);
    g_assert_true(vz_blockcopy_set_speed(source.qmp, DISK, 0, &err));
    finish(&source, &target);
    quit(&source);
    quit(&target);
    expect_same("source", "target", "raw");
}

/* The other QEMU dies; a descriptor that leads nowhere. */
static void test_other_end_is_gone(void)
{
    g_autoptr(GError) err = NULL;
    int nowhere[2];
    make_raw("source", 64 * MIB, 16 * MIB);
    make_raw("target", 64 * MIB, 0);
    machine source = start("source", "raw", false);
    machine target = start("target", "raw", true);
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, nowhere), ==, 0);
    close(nowhere[1]);
    const vz_blockcopy_request request = {.disk = DISK, .node = NODE, .fd = nowhere[0]};
    g_assert_false(vz_blockcopy_start(source.qmp, &request, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_OPERATION_FAILED);
    g_clear_error(&err);
    close(nowhere[0]);
    copy(&source, serve(&target, true), false, MIB);
    kill(target.pid, SIGKILL);
    waitpid(target.pid, NULL, 0);
    vz_blockcopy_progress p = await(&source, VZ_BLOCKCOPY_FAILED);
    g_assert_cmpstr(p.reason, !=, "");
    g_assert_true(vz_blockcopy_end(source.qmp, DISK, &err));
    write_there(&source, "write -P 1 0 64k"); /* goes on as if nothing had been */
    quit(&source);
    vz_qmp_close(target.qmp);
    close(target.pidfd);
}

static void test_full(void)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *small = path_of("small");
    g_assert_cmpint(g_mkdir(small, 0755), ==, 0);
    g_assert_cmpint(mount("tmpfs", small, "tmpfs", 0, "size=4m"), ==, 0);
    make_raw("source", 64 * MIB, 16 * MIB);
    make_raw("small/target", 64 * MIB, 0);
    machine source = start("source", "raw", false);
    machine target = start("small/target", "raw", true);
    copy(&source, serve(&target, true), false, 0);
    vz_blockcopy_progress p = await(&source, VZ_BLOCKCOPY_FAILED);
    g_assert_cmpstr(p.reason, ==, "No space left on device");
    g_assert_true(vz_blockcopy_end(source.qmp, DISK, &err));
    quit(&source);
    quit(&target);
    umount(small);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    top = g_dir_make_tmp("virtvz-copy-XXXXXX", NULL);
    g_test_add_func("/copy/raw", test_raw);
    g_test_add_func("/copy/qcow2", test_qcow2);
    g_test_add_func("/copy/cancel", test_cancel);
    g_test_add_func("/copy/other-end-is-gone", test_other_end_is_gone);
    g_test_add_func("/copy/full", test_full);
    return g_test_run();
}
