/* caps_probe.c - see caps_probe.h.
 *
 * The KVM probe boots a ROM of our own: /dev/kvm that opens, or even a virtual CPU that can be
 * made, says nothing about whether guests run (nested KVM, PVM, a forbidding hypervisor). The ROM
 * (kvm_probe.S) reports by QEMU's exit code, through the isa-debug-exit device. */
#include "driver/qemu/caps_probe.h"

#include "base/fd.h"
#include "base/spawn.h"
#include "base/wait.h"
#include "driver/qemu/cpu.h"
#include "driver/qemu/qmp.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Together some 100 ms on an idle machine; a busy one may need many times that. */
#define LISTS_TIMEOUT_US (30 * (int64_t)1000000)
#define GUEST_TIMEOUT_US (10 * (int64_t)1000000)
#define WORDS_MAX        ((size_t)64 * 1024)

typedef struct {
    pid_t pid;
    int pidfd;
    int words_fd; /* memfd with what it writes to standard error */
} child;

static void child_clear(child *c)
{
    if (c->pidfd >= 0) {
        siginfo_t info;
        syscall(SYS_pidfd_send_signal, c->pidfd, SIGKILL, NULL, 0);
        while (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED) < 0 && errno == EINTR)
            ;
    }
    vz_fd_clear(&c->pidfd);
    vz_fd_clear(&c->words_fd);
}

static bool child_start(child *c, const char *const *argv, int fd, const vz_qemu_user *user,
                        GError **err)
{
    c->words_fd = memfd_create("qemu-words", MFD_CLOEXEC);
    if (c->words_fd < 0)
        return vz_fail_errno(err, errno, "cannot make a memfd");
    vz_spawn_options options = {
        .argv = argv,
        .fds = &fd,
        .n_fds = 1,
        .stdin_fd = -1,
        .stdout_fd = -1,
        .stderr_fd = c->words_fd,
        .change_identity = user->change,
        .uid = user->uid,
        .gid = user->gid,
        .groups = user->groups,
        .n_groups = user->n_groups,
    };
    return vz_spawn(&options, &c->pid, &c->pidfd, err);
}

/* All it wrote so far; caller frees. */
static char *child_words(const child *c)
{
    char *text = g_malloc0(WORDS_MAX + 1);
    ssize_t n = pread(c->words_fd, text, WORDS_MAX, 0);
    text[n > 0 ? n : 0] = '\0';
    return g_strchomp(text);
}

/* The line that says most: the first that speaks of an error (assertions and register dumps follow
 * it), else the last. Caller frees. */
static char *child_complaint(const child *c)
{
    g_autofree char *text = child_words(c);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    char *last = NULL;
    for (size_t i = 0; lines[i]; i++) {
        last = lines[i];
        if (strstr(last, "error"))
            break;
    }
    return g_strdup(last ? last : "");
}

static const struct {
    const char *command;
    const char *type_name; /* its only argument; NULL: none */
} questions[] = {
    {"query-version", NULL},
    {"query-target", NULL},
    {"query-kvm", NULL},
    {"query-machines", NULL},
    {"query-cpu-definitions", NULL},
    {"qom-list-types", NULL},
    {"query-commands", NULL},
    {"query-migrate-capabilities", NULL},
    {"query-migrate-parameters", NULL},
    {"device-list-properties", "migration"},
};

static json_t *ask_all(vz_qmp *qmp, GError **err)
{
    json_t *replies = json_object();
    for (size_t i = 0; i < G_N_ELEMENTS(questions); i++) {
        const char *type_name = questions[i].type_name;
        json_t *args = type_name ? json_pack("{s:s}", "typename", type_name) : NULL;
        json_t *value = vz_qmp_command(qmp, questions[i].command, args, LISTS_TIMEOUT_US, err);
        if (!value) {
            json_decref(replies);
            return NULL;
        }
        json_object_set_new(replies, questions[i].command, value);
    }
    return replies;
}

/* A QEMU without a machine, asked over the pair that `c` was started with; NULL: it does not
 * answer.
 */
static vz_qmp *start_asking(child *c, const char *emulator, const char *accel,
                            const vz_qemu_user *user, GError **err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        vz_fail_errno(err, errno, "cannot make a socket pair");
        return NULL;
    }
    vz_autofd mine = pair[0];
    vz_autofd theirs = pair[1];
    const char *const argv[] = {emulator,
                                "-S",
                                "-no-user-config",
                                "-nodefaults",
                                "-display",
                                "none",
                                "-machine",
                                "none",
                                "-accel",
                                accel,
                                "-chardev",
                                "socket,id=m,fd=3",
                                "-mon",
                                "chardev=m,mode=control",
                                NULL};
    if (!child_start(c, argv, theirs, user, err))
        return NULL;
    vz_fd_clear(&theirs);
    return vz_qmp_open(vz_steal_fd(&mine), vz_now_us() + LISTS_TIMEOUT_US, err);
}

/* null: it does not tell. */
static json_t *ask_cpu(vz_qmp *qmp)
{
    g_autoptr(GError) ignored = NULL;
    GHashTableIter iter;
    void *name;
    g_autoptr(GHashTable) set = vz_qemu_cpu_model_features(qmp, "max", NULL, &ignored);
    if (!set)
        return json_null();
    json_t *names = json_array();
    g_hash_table_iter_init(&iter, set);
    while (g_hash_table_iter_next(&iter, &name, NULL))
        json_array_append_new(names, json_string(name));
    return names;
}

/* The parameter of its level is there either way; the value is not in a QEMU that was built
 * without. */
static bool has_zstd(vz_qmp *qmp)
{
    g_autoptr(GError) ignored = NULL;
    return vz_qmp_do(qmp, "migrate-set-parameters",
                     json_pack("{ss}", "multifd-compression", "zstd"), LISTS_TIMEOUT_US, &ignored);
}

json_t *vz_caps_probe_lists(const char *emulator, const vz_qemu_user *user, GError **err)
{
    __attribute__((cleanup(child_clear))) child c = {.pidfd = -1, .words_fd = -1};
    g_autoptr(vz_qmp) qmp = start_asking(&c, emulator, "tcg", user, err);
    json_t *replies = qmp ? ask_all(qmp, err) : NULL;
    if (replies) {
        json_object_set_new(replies, "cpu-features", ask_cpu(qmp));
        json_object_set_new(replies, "multifd-zstd", json_boolean(has_zstd(qmp)));
        return replies;
    }
    g_autofree char *words = c.words_fd >= 0 ? child_complaint(&c) : g_strdup("");
    g_prefix_error(err, "cannot ask QEMU '%s' what it can do: ", emulator);
    if (*words) {
        g_autofree char *text = g_strdup_printf("%s: %s", (*err)->message, words);
        g_clear_error(err);
        vz_fail(err, VZ_ERR_OPERATION_FAILED, "%s", text);
    }
    return NULL;
}

json_t *vz_caps_probe_cpu(const char *emulator, const char *accel, const vz_qemu_user *user)
{
    g_autoptr(GError) ignored = NULL;
    __attribute__((cleanup(child_clear))) child c = {.pidfd = -1, .words_fd = -1};
    g_autoptr(vz_qmp) qmp = start_asking(&c, emulator, accel, user, &ignored);
    return qmp ? ask_cpu(qmp) : json_null();
}

char *vz_caps_probe_baseline(const char *emulator, const char *accel, const vz_qemu_user *user,
                             GHashTable *allowed)
{
    g_autoptr(GError) ignored = NULL; /* then none is recommended */
    __attribute__((cleanup(child_clear))) child c = {.pidfd = -1, .words_fd = -1};
    g_autoptr(vz_qmp) qmp = start_asking(&c, emulator, accel, user, &ignored);
    return qmp ? vz_qemu_cpu_baseline(qmp, allowed) : NULL;
}

/* kvm_probe.S; empty on other architectures. */
extern const uint8_t vz_kvm_probe_rom[] __attribute__((visibility("hidden")));
extern const uint8_t vz_kvm_probe_rom_end[] __attribute__((visibility("hidden")));

/* It writes 0x31; isa-debug-exit makes (0x31 << 1) | 1 of that. */
#define DONE_STATUS 99
/* A guest that KVM gave up stays, stopped, and QEMU with it: looked for so often. */
#define STUCK_LOOK_US ((int64_t)50000)
#define STUCK_WORDS   "KVM internal error"

static int make_rom(void)
{
    g_autoptr(GError) err = NULL;
    size_t bytes = (size_t)(vz_kvm_probe_rom_end - vz_kvm_probe_rom);
    vz_autofd fd = memfd_create("kvm-probe-rom", MFD_CLOEXEC);
    if (bytes == 0 || fd < 0 || !vz_fd_write_all(fd, vz_kvm_probe_rom, bytes, &err))
        return -1;
    return vz_steal_fd(&fd);
}

/* false: it did not end in time, or never will. */
static bool await_end(const child *c)
{
    for (int64_t deadline_us = vz_now_us() + GUEST_TIMEOUT_US; vz_now_us() < deadline_us;) {
        if (vz_poll_one(c->pidfd, POLLIN, vz_now_us() + STUCK_LOOK_US))
            return true;
        g_autofree char *words = child_words(c);
        if (strstr(words, STUCK_WORDS))
            return false;
    }
    return false;
}

bool vz_caps_probe_guest(const char *emulator, const char *accel, const char *cpu_model,
                         const vz_qemu_user *user, char **ret_why)
{
    g_autoptr(GError) err = NULL;
    vz_autofd rom = make_rom();
    const char *const argv[] = {emulator,
                                "-no-user-config",
                                "-nodefaults",
                                "-display",
                                "none",
                                "-machine",
                                "pc",
                                "-accel",
                                accel,
                                "-cpu",
                                cpu_model,
                                "-m",
                                "2",
                                "-bios",
                                "/proc/self/fd/3",
                                "-no-reboot",
                                "-device",
                                "isa-debug-exit,iobase=0xf4,iosize=0x4",
                                NULL};
    __attribute__((cleanup(child_clear))) child c = {.pidfd = -1, .words_fd = -1};
    if (rom < 0 || !child_start(&c, argv, rom, user, &err)) {
        *ret_why = g_strdup(err ? err->message : "there is no probe for this architecture");
        return false;
    }
    siginfo_t info = {0};
    bool ended = await_end(&c);
    if (ended) {
        waitid(P_PIDFD, (id_t)c.pidfd, &info, WEXITED);
        vz_fd_clear(&c.pidfd);
    }
    if (ended && info.si_code == CLD_EXITED && info.si_status == DONE_STATUS)
        return true;
    g_autofree char *complaint = child_complaint(&c);
    if (*complaint)
        *ret_why = g_steal_pointer(&complaint);
    else if (!ended)
        *ret_why = g_strdup("a probing guest made no progress");
    else
        *ret_why =
            g_strdup_printf("a probing guest ended with %s %d",
                            info.si_code == CLD_EXITED ? "status" : "signal", info.si_status);
    return false;
}
