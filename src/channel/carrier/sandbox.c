/* sandbox.c - see sandbox.h. */
#include "channel/carrier/sandbox.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#ifdef VZ_CARRIER_SECCOMP
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#endif

/* A TCP and a local socket each, and the process that owns the local one. */
#define FDS_PER_CHANNEL 3
#define FDS_BESIDE      64

bool vz_sandbox_enter(unsigned channels_max, GError **err)
{
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return vz_fail_errno(err, errno, "cannot give up privileges");
    struct rlimit files;
    rlim_t wanted = channels_max * FDS_PER_CHANNEL + FDS_BESIDE;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < wanted) {
        files.rlim_cur = MIN(wanted, files.rlim_max);
        setrlimit(RLIMIT_NOFILE, &files);
    }
    return true;
}

#ifdef VZ_CARRIER_SECCOMP

static const int allowed_calls[] = {
    /* sockets and descriptors that exist */
    SCMP_SYS(read),
    SCMP_SYS(write),
    SCMP_SYS(readv),
    SCMP_SYS(writev),
    SCMP_SYS(recvfrom),
    SCMP_SYS(sendto),
    SCMP_SYS(recvmsg),
    SCMP_SYS(sendmsg),
    SCMP_SYS(accept4),
    SCMP_SYS(shutdown),
    SCMP_SYS(close),
    SCMP_SYS(poll),
    SCMP_SYS(ppoll),
    SCMP_SYS(getsockopt),
    SCMP_SYS(getpeername),
    SCMP_SYS(setsockopt),
    SCMP_SYS(fcntl),
    SCMP_SYS(fstat),
    /* threads */
    SCMP_SYS(futex),
    SCMP_SYS(set_robust_list),
    SCMP_SYS(rseq),
    SCMP_SYS(rt_sigprocmask),
    SCMP_SYS(rt_sigreturn),
    SCMP_SYS(sigaltstack),
    SCMP_SYS(gettid),
    SCMP_SYS(getpid),
    SCMP_SYS(sched_yield),
    SCMP_SYS(sched_getaffinity),
    SCMP_SYS(restart_syscall),
    SCMP_SYS(exit),
    SCMP_SYS(exit_group),
    /* memory */
    SCMP_SYS(munmap),
    SCMP_SYS(mremap),
    SCMP_SYS(madvise),
    SCMP_SYS(brk),
    /* clocks and randomness */
    SCMP_SYS(clock_gettime),
    SCMP_SYS(gettimeofday),
    SCMP_SYS(clock_nanosleep),
    SCMP_SYS(nanosleep),
    SCMP_SYS(getrandom),
    SCMP_SYS(getrusage),
};

/* What only an intruder would try; all else that is not allowed fails with EPERM, so that a libc
 * that tries a call it can do without does not cost a guest its migration. */
static const int deadly_calls[] = {
    SCMP_SYS(execve),
    SCMP_SYS(execveat),
    SCMP_SYS(ptrace),
    SCMP_SYS(process_vm_readv),
    SCMP_SYS(process_vm_writev),
    SCMP_SYS(bpf),
    SCMP_SYS(mount),
    SCMP_SYS(keyctl),
};

static void filter_clear(scmp_filter_ctx *filter)
{
    seccomp_release(*filter);
}

static int add_rules(scmp_filter_ctx filter)
{
    int r = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(allowed_calls) && r == 0; i++)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
    for (size_t i = 0; i < G_N_ELEMENTS(deadly_calls) && r == 0; i++)
        r = seccomp_rule_add(filter, SCMP_ACT_KILL_PROCESS, deadly_calls[i], 0);
    /* New threads, never processes. glibc prefers clone3, whose flags a filter cannot read; told
     * that it does not exist, it takes clone. */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    /* Memory, never executable. */
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (r == 0)
        r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
                             SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    return r;
}

bool vz_sandbox_seal(GError **err)
{
    __attribute__((cleanup(filter_clear))) scmp_filter_ctx filter =
        seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return vz_fail(err, VZ_ERR_INTERNAL_ERROR, "cannot make a system call filter");
    int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
    if (r == 0)
        r = add_rules(filter);
    if (r == 0)
        r = seccomp_load(filter);
    return r == 0 || vz_fail_errno(err, -r, "cannot set a system call filter");
}

#else

/* A carrier's environment is empty, so what its sanitizer is told stands here: GLib's own locks are
 * invisible to ThreadSanitizer, and a finding is to end the process, so that its test fails. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
    return "called_from_lib:libglib-2.0.so\nrace:libglib-2.0.so\n";
}

const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
    return "halt_on_error=1";
}

bool vz_sandbox_seal(G_GNUC_UNUSED GError **err)
{
    return true;
}

#endif
