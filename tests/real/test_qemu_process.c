/* test_qemu_process.c - vz_qemu_start and its kin with a real QEMU 10 and a real kernel. Runs as
 * root inside the lab's root (tests/real/in-root), in a network namespace of its own.
 *
 * The kernel has no initramfs: it boots, prints, and waits after its panic. That is enough of a
 * guest for everything here. */
#include "driver/qemu/process.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "domain/def.h"
#include "driver/qemu/caps_probe.h"
#include "net/link.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/if.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECOND_US ((int64_t)1000000)
#define UUID      "90d73e52-dfc9-4059-afcd-88fc67d4bffb"
#define OTHER     "11111111-dfc9-4059-afcd-88fc67d4bffb"

static char *dir;
static char *kernel;
static vz_qemu_host host;
static vz_inbox *inbox;

typedef struct {
    GString *events;
    int exits;
} seen;

static void on_event(vz_qemu *qemu, const vz_qmp_event *event, void *user)
{
    (void)qemu;
    g_string_append_printf(((seen *)user)->events, "%s ", event->name);
}

static void on_exit_hook(vz_qemu *qemu, void *user)
{
    (void)qemu;
    ((seen *)user)->exits++;
}

static const char *canonical(const char *name, void *user)
{
    const vz_qemu_machine *machine = vz_qemu_caps_machine(user, name);
    return machine ? machine->name : NULL;
}

static vz_def *parse(const char *xml)
{
    g_autoptr(GError) err = NULL;
    const vz_qemu_caps *caps = vz_qemu_caps_get(vz_qemu_default_emulator(), &err);
    g_assert_no_error(err);
    vz_def_host def_host = {
        .arch = "x86_64",
        .emulator = vz_qemu_default_emulator(),
        .default_machine = "pc",
        .default_cpu = "qemu64",
        .canonical_machine = canonical,
        .user = (void *)(uintptr_t)caps,
    };
    vz_def *def = vz_def_parse(xml, VZ_DEF_PARSE_INACTIVE, &def_host, &err);
    g_assert_no_error(err);
    return def;
}

typedef struct {
    const char *uuid;
    const char *kernel;  /* NULL: the test's own */
    const char *devices; /* more of them */
    const char *cpu;     /* an element; NULL: none */
    const char *machine; /* NULL: "pc" */
} guest;

static vz_def *make_def(guest g)
{
    g_autofree char *xml = g_strdup_printf(
        "<domain type='qemu'><name>t-%.4s</name><uuid>%s</uuid><memory unit='MiB'>160</memory>"
        "<vcpu>1</vcpu><os><type arch='x86_64' machine='%s'>hvm</type><kernel>%s</kernel>"
        "<cmdline>console=ttyS0 panic=0</cmdline></os>%s"
        "<devices><serial type='pty'/>%s</devices></domain>",
        g.uuid ? g.uuid : UUID, g.uuid ? g.uuid : UUID, g.machine ? g.machine : "pc",
        g.kernel ? g.kernel : kernel, g.cpu ? g.cpu : "", g.devices ? g.devices : "");
    return parse(xml);
}

static vz_qemu *start(const vz_def *def, bool incoming, seen *s, vz_def **ret_live, GError **err)
{
    s->events = g_string_new(NULL);
    vz_qemu_start_request request = {
        .host = &host,
        .def = def,
        .incoming = incoming,
        .inbox = inbox,
        .hooks = {on_event, on_exit_hook, s},
    };
    int64_t before_us = vz_now_us();
    vz_qemu *qemu = vz_qemu_start(&request, ret_live, err);
    g_test_message("start: %" G_GINT64_FORMAT " ms", (vz_now_us() - before_us) / 1000);
    return qemu;
}

static vz_qemu *start_ok(const vz_def *def, bool incoming, seen *s, vz_def **ret_live)
{
    g_autoptr(GError) err = NULL;
    vz_qemu *qemu = start(def, incoming, s, ret_live, &err);
    g_assert_no_error(err);
    g_assert_nonnull(qemu);
    return qemu;
}

static void kill_ok(vz_qemu *qemu, seen *s)
{
    g_autoptr(GError) err = NULL;
    pid_t pid = vz_qemu_pid(qemu);
    g_autofree char *rundir = g_strdup(vz_qemu_rundir(qemu));
    g_assert_true(g_file_test(rundir, G_FILE_TEST_IS_DIR));
    int64_t before_us = vz_now_us();
    g_assert_true(vz_qemu_kill(qemu, false, &err));
    g_test_message("kill: %" G_GINT64_FORMAT " ms", (vz_now_us() - before_us) / 1000);
    g_assert_cmpint(kill(pid, 0), ==, -1); /* reaped, too */
    g_assert_false(g_file_test(rundir, G_FILE_TEST_EXISTS));
    g_string_free(s->events, TRUE);
}

/* Nothing that a start made is there. */
static void check_nothing_left(void)
{
    g_assert_false(vz_link_exists("vnet0"));
    g_autoptr(GDir) d = g_dir_open(host.run_dir, 0, NULL);
    g_assert_true(!d || !g_dir_read_name(d));
}

static bool saw(void *data)
{
    const seen *s = ((void **)data)[0];
    return strstr(s->events->str, ((void **)data)[1]) != NULL;
}

static void await_event(seen *s, const char *name)
{
    void *data[2] = {s, (void *)(uintptr_t)name};
    g_assert_cmpint(vz_wait(inbox, saw, data, vz_now_us() + 30 * SECOND_US), ==, VZ_WAIT_DONE);
}

static bool exited(void *data)
{
    return ((seen *)data)->exits > 0;
}

static void check_status(vz_qemu *qemu, const char *expected)
{
    g_autoptr(GError) err = NULL;
    vz_qemu_status status;
    g_assert_true(vz_qemu_query_status(qemu, &status, &err));
    g_assert_cmpstr(status.status, ==, expected);
}

/* Reads the pty until the text comes. */
static void await_output(const char *pty, const char *text)
{
    vz_autofd fd = open(pty, O_RDONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    g_assert_cmpint(fd, >=, 0);
    g_autoptr(GString) got = g_string_new(NULL);
    int64_t deadline_us = vz_now_us() + 60 * SECOND_US;
    while (!strstr(got->str, text)) {
        if (!vz_poll_one(fd, POLLIN, deadline_us))
            g_error("no \"%s\" in: %s", text, got->str);
        char chunk[4096];
        ssize_t n = read(fd, chunk, sizeof(chunk));
        if (n > 0)
            g_string_append_len(got, chunk, n);
    }
}

static char *proc_field(pid_t pid, const char *field)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/status", (int)pid);
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
    const char *at = strstr(text, field);
    g_assert_nonnull(at);
    at += strlen(field);
    return g_strstrip(g_strndup(at, strcspn(at, "\n")));
}

static void check_confined(vz_qemu *qemu)
{
    uid_t uid;
    gid_t gid;
    vz_qemu_identity(qemu, &uid, &gid);
    g_assert_cmpuint(uid, !=, 0);
    g_autofree char *uids = proc_field(vz_qemu_pid(qemu), "\nUid:");
    g_autofree char *expected = g_strdup_printf("%u\t%u\t%u\t%u", uid, uid, uid, uid);
    g_assert_cmpstr(uids, ==, expected);
    g_autofree char *seccomp = proc_field(vz_qemu_pid(qemu), "\nSeccomp:");
    g_assert_cmpstr(seccomp, ==, "2");
    g_autofree char *caps = proc_field(vz_qemu_pid(qemu), "\nCapEff:");
    g_assert_cmpstr(caps, ==, "0000000000000000");
}

static void test_life(void)
{
    g_autoptr(vz_def) def = make_def((guest){0});
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);
    check_status(qemu, "prelaunch");
    check_confined(qemu);
    g_assert_true(g_str_has_prefix(live->serials[0].source.path, "/dev/pts/"));
    g_assert_cmpstr(live->consoles[0].tty, ==, live->serials[0].source.path);
    g_assert_nonnull(strstr(vz_qemu_accel_note(qemu), "TCG"));

    g_assert_true(vz_qemu_cont(qemu, &err));
    await_event(&s, "RESUME ");
    check_status(qemu, "running");
    await_output(live->serials[0].source.path, "Linux version");
    g_assert_true(vz_qemu_stop(qemu, &err));
    await_event(&s, "STOP ");
    check_status(qemu, "paused");
    g_assert_true(vz_qemu_reset(qemu, &err));
    await_event(&s, "RESET ");
    g_assert_true(vz_qemu_announce_self(qemu, &err));
    kill_ok(qemu, &s);
    g_assert_cmpint(s.exits, ==, 0); /* an end by vz_qemu_kill is no news */
    check_nothing_left();
}

/* The daemon ends and another finds the guest again. */
static void test_adopt(void)
{
    g_autoptr(vz_def) def = make_def((guest){0});
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);
    g_assert_true(vz_qemu_cont(qemu, &err));
    vz_qemu_adopt_request request = {
        .host = &host,
        .live = live,
        .pid = vz_qemu_pid(qemu),
        .start_time = vz_qemu_start_time(qemu),
        .inbox = inbox,
        .hooks = {on_event, on_exit_hook, &s},
    };
    vz_qemu_release(qemu);
    g_assert_cmpint(kill(request.pid, 0), ==, 0);
    bool ended = true;
    qemu = vz_qemu_adopt(&request, &ended, &err);
    g_assert_no_error(err);
    g_assert_false(ended);
    check_status(qemu, "running");
    g_assert_true(vz_qemu_stop(qemu, &err));
    await_event(&s, "STOP ");
    kill_ok(qemu, &s);

    /* Now it is gone; so is a process that only has its number. */
    s.events = g_string_new(NULL);
    g_assert_null(vz_qemu_adopt(&request, &ended, &err));
    g_assert_error(err, VZ_ERROR, VZ_ERR_NO_DOMAIN);
    g_assert_true(ended);
    g_clear_error(&err);
    request.pid = getpid();
    request.start_time = vz_process_start_time(getpid()) + 1;
    g_assert_null(vz_qemu_adopt(&request, &ended, &err));
    g_assert_true(ended);
    g_string_free(s.events, TRUE);
    check_nothing_left();
}

/* QEMU dies by itself: told once, after its events. */
static void test_death(void)
{
    g_autoptr(vz_def) def = make_def((guest){0});
    for (int signal_number = SIGTERM;; signal_number = SIGKILL) {
        g_autoptr(vz_def) live = NULL;
        seen s = {0};
        vz_qemu *qemu = start_ok(def, false, &s, &live);
        kill(vz_qemu_pid(qemu), signal_number);
        g_assert_cmpint(vz_wait(inbox, exited, &s, vz_now_us() + 20 * SECOND_US), ==, VZ_WAIT_DONE);
        g_assert_cmpint(s.exits, ==, 1);
        g_assert_false(vz_qemu_alive(qemu));
        g_assert_cmpint(strstr(s.events->str, "SHUTDOWN") != NULL, ==, signal_number == SIGTERM);
        kill_ok(qemu, &s);
        if (signal_number == SIGKILL)
            break;
    }
    check_nothing_left();
}

static void check_start_fails(vz_def *take_def, const char *text)
{
    g_autoptr(vz_def) def = take_def;
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    int64_t before_us = vz_now_us();
    g_assert_null(start(def, false, &s, &live, &err));
    g_assert_cmpint(vz_now_us() - before_us, <, 10 * SECOND_US);
    g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, text));
    g_assert_cmpint(s.exits, ==, 0);
    g_string_free(s.events, TRUE);
    check_nothing_left();
}

static char *make_file(const char *name, const char *content, mode_t mode)
{
    char *path = g_build_filename(dir, name, NULL);
    g_assert_true(g_file_set_contents(path, content, -1, NULL));
    g_assert_cmpint(chmod(path, mode), ==, 0);
    return path;
}

static void test_last_words(void)
{
    check_start_fails(make_def((guest){.cpu = "<cpu mode='custom'><model>qemu64</model>"
                                              "<feature policy='require' name='nonsense'/></cpu>"}),
                      "nonsense");
    check_start_fails(make_def((guest){.cpu = "<cpu mode='custom'><model>6502</model></cpu>"}),
                      "no CPU model '6502'");
    g_autofree char *junk = make_file("junk", "this is no kernel", 0644);
    check_start_fails(make_def((guest){.kernel = junk}), "process exited while connecting");
    check_start_fails(make_def((guest){.kernel = "/nonexistent/vmlinuz"}),
                      "Cannot access storage file '/nonexistent/vmlinuz'");

    vz_autofd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(5911)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    g_assert_cmpint(bind(listener, (struct sockaddr *)&address, sizeof(address)), ==, 0);
    g_assert_cmpint(listen(listener, 1), ==, 0);
    check_start_fails(
        make_def((guest){.devices = "<graphics type='vnc' port='5911' autoport='no'/>"}),
        "Address already in use");
    check_start_fails(make_def((guest){.devices = "<interface type='bridge'><source bridge='brA'/>"
                                                  "<model type='virtio'/></interface>"}),
                      "Cannot get interface MTU on 'brA': No such device");
}

static char *make_disk(const char *name)
{
    char *path = make_file(name, "", 0600); /* of root: QEMU's user cannot open it */
    g_assert_cmpint(truncate(path, 8 << 20), ==, 0);
    return path;
}

static char *disk_xml(const char *path, const char *format)
{
    return g_strdup_printf("<disk type='file' device='disk'><driver name='qemu' type='%s'/>"
                           "<source file='%s'/><target dev='vda' bus='virtio'/></disk>",
                           format, path);
}

/* Two guests must not write to one image; an arriving one opens it while the other has it. */
static void test_locks(void)
{
    g_autofree char *disk = make_disk("disk.raw");
    g_autofree char *xml = disk_xml(disk, "raw");
    g_autoptr(vz_def) def = make_def((guest){.devices = xml});
    g_autoptr(vz_def) live = NULL;
    seen s = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);

    g_autoptr(vz_def) other = make_def((guest){.uuid = OTHER, .devices = xml});
    g_autoptr(vz_def) other_live = NULL;
    g_autoptr(GError) err = NULL;
    seen second = {0};
    g_assert_null(start(other, false, &second, &other_live, &err));
    g_test_message("%s", err->message);
    g_assert_nonnull(strstr(err->message, "Failed to get \"write\" lock"));
    g_assert_nonnull(strstr(err->message, disk)); /* not the number of a descriptor */
    g_string_free(second.events, TRUE);

    vz_qemu *arriving = start_ok(other, true, &second, &other_live);
    check_status(arriving, "inmigrate");
    kill_ok(arriving, &second);
    kill_ok(qemu, &s);

    /* With its holder the lock is gone. */
    g_autoptr(vz_def) again = NULL;
    qemu = start_ok(other, false, &second, &again);
    kill_ok(qemu, &second);
    check_nothing_left();
}

static void run(const char *command)
{
    g_autoptr(GError) err = NULL;
    int status = 0;
    g_assert_true(g_spawn_command_line_sync(command, NULL, NULL, &status, &err));
    g_assert_cmpint(status, ==, 0);
}

static void test_chain(void)
{
    g_autofree char *base = make_disk("base.raw");
    g_autofree char *top = g_build_filename(dir, "top.qcow2", NULL);
    g_autofree char *create =
        g_strdup_printf("qemu-img create -q -f qcow2 -b base.raw -F raw '%s'", top);
    run(create);
    g_autofree char *xml = disk_xml(top, "qcow2");
    g_autoptr(vz_def) def = make_def((guest){.devices = xml});
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);
    json_t *nodes =
        vz_qmp_command(vz_qemu_qmp(qemu), "query-named-block-nodes", NULL, 10 * SECOND_US, &err);
    g_assert_cmpuint(json_array_size(nodes), ==, 4);
    json_decref(nodes);
    kill_ok(qemu, &s);
}

static void make_bridge(const char *name)
{
    vz_autofd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    g_assert_cmpint(ioctl(fd, SIOCBRADDBR, name), ==, 0);
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_link_set_up(name, true, &err));
    g_assert_true(vz_link_set_up("lo", true, &err));
}

#define MANY_DEVICES                                                                               \
    "<interface type='bridge'><source bridge='brtest'/><model type='virtio'/></interface>"         \
    "<interface type='user'><model type='e1000'/><link state='down'/></interface>"                 \
    "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"         \
    "<graphics type='vnc' port='-1' autoport='yes' passwd='geheim'/>"                              \
    "<video><model type='virtio'/></video><input type='tablet' bus='usb'/>"                        \
    "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>"

static void test_devices(void)
{
    make_bridge("brtest");
    g_autoptr(vz_def) def = make_def((guest){.devices = MANY_DEVICES});
    g_autoptr(vz_def) live = NULL;
    g_autoptr(vz_def) second_live = NULL;
    seen s = {0};
    seen second = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);
    g_assert_cmpstr(live->interfaces[0].target, ==, "vnet0");
    g_assert_true(vz_link_exists("vnet0"));
    g_assert_cmpint(live->graphics[0].port, ==, 5900);
    g_assert_cmpstr(live->graphics[0].listen, ==, "127.0.0.1");
    g_autoptr(GError) err = NULL;
    vz_autofd agent = vz_unix_connect(live->channels[0].source.path, &err);
    g_assert_no_error(err);

    g_autoptr(vz_def) other = make_def((guest){.uuid = OTHER, .devices = MANY_DEVICES});
    vz_qemu *neighbour = start_ok(other, false, &second, &second_live);
    g_assert_cmpstr(second_live->interfaces[0].target, ==, "vnet1");
    g_assert_cmpint(second_live->graphics[0].port, ==, 5901);
    kill_ok(neighbour, &second);
    kill_ok(qemu, &s);
    g_assert_false(vz_link_exists("vnet1"));
    check_nothing_left();
}

/* A kernel that only root may read. */
static void test_private_kernel(void)
{
    g_autofree char *copy = g_build_filename(dir, "vmlinuz", NULL);
    g_autofree char *command = g_strdup_printf("install -m 0600 '%s' '%s'", kernel, copy);
    run(command);
    g_autoptr(vz_def) def = make_def((guest){.kernel = copy});
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);
    g_autofree char *left = g_build_filename(vz_qemu_rundir(qemu), "kernel", NULL);
    g_assert_false(g_file_test(left, G_FILE_TEST_EXISTS)); /* the copy has served */
    g_assert_true(vz_qemu_cont(qemu, &err));
    await_output(live->serials[0].source.path, "Linux version");
    kill_ok(qemu, &s);
}

/* Two QEMUs of one definition: what one sends the other can receive. */
static void test_migrate(void)
{
    g_autofree char *disk = make_disk("moving.raw");
    g_autofree char *xml = disk_xml(disk, "raw");
    g_autofree char *devices = g_strconcat(xml, MANY_DEVICES, NULL);
    g_autoptr(vz_def) def = make_def((guest){.devices = devices});
    g_autoptr(vz_def) other = make_def((guest){.uuid = OTHER, .devices = devices});
    g_autoptr(vz_def) live = NULL;
    g_autoptr(vz_def) other_live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    seen second = {0};
    vz_qemu *from = start_ok(def, false, &s, &live);
    vz_qemu *to = start_ok(other, true, &second, &other_live);
    g_assert_true(vz_qemu_cont(from, &err));
    await_output(live->serials[0].source.path, "Linux version");

    int pair[2];
    g_assert_cmpint(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
    g_assert_true(vz_qmp_send_fd(vz_qemu_qmp(from), "mig", pair[0], &err));
    g_assert_true(vz_qmp_send_fd(vz_qemu_qmp(to), "mig", pair[1], &err));
    close(pair[0]);
    close(pair[1]);
    g_assert_true(vz_qmp_do(vz_qemu_qmp(to), "migrate-incoming",
                            json_pack("{s:s}", "uri", "fd:mig"), 10 * SECOND_US, &err));
    g_assert_true(vz_qmp_do(vz_qemu_qmp(from), "migrate", json_pack("{s:s}", "uri", "fd:mig"),
                            10 * SECOND_US, &err));
    await_event(&s, "STOP ");
    vz_qemu_status status = {0};
    for (int64_t until_us = vz_now_us() + 60 * SECOND_US;
         strcmp(status.status, "paused") != 0 && vz_now_us() < until_us;) {
        vz_wait(inbox, NULL, NULL, vz_now_us() + SECOND_US / 20);
        g_assert_true(vz_qemu_query_status(to, &status, &err));
    }
    check_status(from, "postmigrate");
    g_assert_true(vz_qemu_cont(to, &err)); /* takes the image's lock over */
    check_status(to, "running");
    kill_ok(from, &s);
    kill_ok(to, &second);
    check_nothing_left();
}

#define EVERY_KIND                                                                                 \
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none' io='native' "     \
    "discard='unmap' detect_zeroes='unmap' error_policy='enospace'/><source file='%1$s/a'/>"       \
    "<target dev='vda' bus='virtio'/><serial>S1</serial></disk>"                                   \
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='writethrough'/>"        \
    "<source file='%1$s/b'/><target dev='sda' bus='scsi'/><shareable/></disk>"                     \
    "<disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/>"              \
    "<source file='%1$s/c'/><target dev='sdb' bus='sata'/></disk>"                                 \
    "<disk type='file' device='cdrom'><source file='%1$s/d'/><target dev='sdc' bus='sata'/>"       \
    "<readonly/></disk>"                                                                           \
    "<disk type='file' device='cdrom'><target dev='sdd' bus='scsi'/><readonly/></disk>"            \
    "<interface type='ethernet'><target dev='tap7'/><model type='virtio'/><mtu size='1400'/>"      \
    "</interface><interface type='user'><model type='rtl8139'/></interface>"                       \
    "<interface type='user'><model type='e1000e'/></interface>"                                    \
    "<serial type='file'><source path='%1$s/serial.log'/></serial>"                                \
    "<serial type='unix'><source mode='bind' path='%1$s/serial.sock'/></serial>"                   \
    "<console type='pty'><target type='virtio'/></console>"                                        \
    "<channel type='pty'><target type='virtio' name='org.example.pty'/></channel>"                 \
    "<input type='keyboard' bus='virtio'/><input type='mouse' bus='usb'/>"                         \
    "<graphics type='vnc' port='-1' autoport='yes'/>"                                              \
    "<video><model type='%2$s' vram='16384'/></video><watchdog model='i6300esb' action='pause'/>"  \
    "<rng model='virtio'><rate bytes='1024' period='2000'/>"                                       \
    "<backend model='random'>/dev/random</backend></rng>"

static void test_every_kind(void)
{
    static const char *const machines[] = {"pc", "q35"};
    static const char *const videos[] = {"cirrus", "vga"};
    for (const char *name = "abcd"; *name; name++)
        g_free(make_disk((char[]){*name, '\0'}));
    for (size_t i = 0; i < G_N_ELEMENTS(machines); i++) {
        g_autofree char *devices = g_strdup_printf(EVERY_KIND, dir, videos[i]);
        g_autoptr(vz_def) def = make_def((guest){.devices = devices, .machine = machines[i]});
        g_autoptr(vz_def) live = NULL;
        g_autoptr(GError) err = NULL;
        seen s = {0};
        vz_qemu *qemu = start_ok(def, false, &s, &live);
        g_assert_true(vz_link_exists("tap7"));
        g_assert_true(g_str_has_prefix(live->channels[0].source.path, "/dev/pts/"));
        g_assert_true(vz_qemu_cont(qemu, &err));
        check_status(qemu, "running");
        g_autofree char *path = g_build_filename(dir, "serial.sock", NULL);
        vz_autofd serial = vz_unix_connect(path, &err);
        g_assert_no_error(err);
        kill_ok(qemu, &s);
        g_assert_false(vz_link_exists("tap7"));
    }
}

/* What virt-install writes starts as it is, but for the places of its disk and bridge. */
static void test_virt_install(void)
{
    g_autofree char *text = NULL;
    g_assert_true(g_file_get_contents(
        g_test_get_filename(G_TEST_DIST, "golden", "virt-install.xml", NULL), &text, NULL, NULL));
    g_autofree char *disk = g_build_filename(dir, "x.qcow2", NULL);
    g_autofree char *create = g_strdup_printf("qemu-img create -q -f qcow2 '%s' 64M", disk);
    run(create);
    make_bridge("br0");
    g_autoptr(GString) xml = g_string_new(text);
    g_string_replace(xml, "/local/x.qcow2", disk, 0);
    g_autoptr(vz_def) def = parse(xml->str);
    g_autoptr(vz_def) live = NULL;
    g_autoptr(GError) err = NULL;
    seen s = {0};
    vz_qemu *qemu = start_ok(def, false, &s, &live);
    g_assert_true(vz_qemu_cont(qemu, &err));
    check_status(qemu, "running");
    kill_ok(qemu, &s);
    check_nothing_left();
}

/* The ROM of the KVM probe, on an accelerator that is known to work; and what KVM makes of it. */
static void test_kvm_probe(void)
{
    vz_qemu_user user;
    g_autoptr(GError) err = NULL;
    g_assert_true(vz_qemu_user_find(host.user, &user, &err));
    const char *emulator = vz_qemu_default_emulator();
    g_autofree char *why = NULL;
    g_assert_true(vz_caps_probe_guest(emulator, "tcg", "max", &user, &why));
    g_assert_true(vz_caps_probe_guest(emulator, "tcg", "qemu64", &user, &why));
    g_assert_false(vz_caps_probe_guest(emulator, "tcg", "host", &user, &why));
    g_assert_cmpstr(why, ==, "qemu-system-x86_64: CPU model 'host' requires KVM or HVF");
    g_clear_pointer(&why, g_free);
    bool works = vz_caps_probe_guest(emulator, "kvm", "host", &user, &why);
    g_test_message("KVM %s: %s", works ? "works" : "does not work", works ? "" : why);
    g_assert_true(works || (why && *why));
}

/* Not a test but a number: from the call to a QEMU that can be told to go. */
static void test_start_time(void)
{
    g_autoptr(vz_def) def = make_def((guest){.devices = MANY_DEVICES});
    int64_t best_us = INT64_MAX;
    for (int i = 0; i < 5; i++) {
        g_autoptr(vz_def) live = NULL;
        seen s = {0};
        int64_t before_us = vz_now_us();
        vz_qemu *qemu = start_ok(def, true, &s, &live);
        best_us = MIN(best_us, vz_now_us() - before_us);
        kill_ok(qemu, &s);
    }
    g_test_message("best start of 5: %.1f ms", (double)best_us / 1000);
    g_assert_cmpint(best_us, <, 2 * SECOND_US);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_autoptr(GError) err = NULL;
    kernel = g_strdup(g_getenv("VZ_TEST_KERNEL"));
    if (!kernel || geteuid() != 0 || unshare(CLONE_NEWNET) < 0) {
        g_printerr("needs root, namespaces and VZ_TEST_KERNEL: run it by tests/real/in-root\n");
        return 77;
    }
    dir = g_dir_make_tmp("vz-real-XXXXXX", NULL);
    g_autofree char *run_dir = g_build_filename(dir, "run", NULL);
    g_autofree char *log_dir = g_build_filename(dir, "log", NULL);
    g_assert_cmpint(chmod(dir, 0755), ==, 0);
    host = vz_qemu_host_default;
    host.run_dir = run_dir;
    host.log_dir = log_dir;
    inbox = vz_inbox_new();
    vz_qemu_caps_settings settings = {.accel = "tcg", .user = host.user};
    g_assert_true(vz_qemu_caps_setup(&settings, &err));
    g_test_add_func("/qemu/life", test_life);
    g_test_add_func("/qemu/adopt", test_adopt);
    g_test_add_func("/qemu/death", test_death);
    g_test_add_func("/qemu/last-words", test_last_words);
    g_test_add_func("/qemu/locks", test_locks);
    g_test_add_func("/qemu/chain", test_chain);
    g_test_add_func("/qemu/devices", test_devices);
    g_test_add_func("/qemu/every-kind", test_every_kind);
    g_test_add_func("/qemu/virt-install", test_virt_install);
    g_test_add_func("/qemu/kvm-probe", test_kvm_probe);
    g_test_add_func("/qemu/private-kernel", test_private_kernel);
    g_test_add_func("/qemu/migrate", test_migrate);
    g_test_add_func("/qemu/start-time", test_start_time);
    int rc = g_test_run();
    vz_inbox_free(inbox);
    g_autofree char *remove = g_strdup_printf("rm -r '%s'", dir);
    g_spawn_command_line_sync(remove, NULL, NULL, NULL, NULL);
    g_free(dir);
    g_free(kernel);
    return rc;
}
