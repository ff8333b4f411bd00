"""What is done to hosts, processes, links and disks in the middle of a migration, as one table.

A fault is a generator that yields twice: what comes before the first yield is done before the move
begins; before the second, at the chosen point, while the step is held there; and what comes after it
repairs. It gets the Try (trial.py), which has the hosts `here` and `there`, the client's process and
the guest. Nothing(...) says that there is nothing to break at that point.
"""

import collections
import contextlib
import os
import select
import shutil
import signal
import time

JOBS = "/var/lib/virtvz/jobs"
SICK = "/run/virtvz-sick"
FULL_DISK_KIB = 256
DEATH_TIMEOUT_S = 10

# where: the host that is hit: "here" (the source), "there", or None for both or neither.
# lethal: the guest's QEMU on that host dies of it. slow: it takes much longer than a move. victim: it
# breaks something that is not there at every point. fuse: it needs a file system that fails on demand.
Fault = collections.namedtuple("Fault", "act where lethal slow victim fuse",
                               defaults=(False, False))


class Nothing(Exception):
    """The fault's victim does not exist at this point."""


def kill(host, comm):
    victims = host.processes(comm)
    if not victims:
        raise Nothing("no %s runs on that host" % comm)
    for one in victims:
        with contextlib.suppress(ProcessLookupError):
            dies = os.pidfd_open(one)
            signal.pidfd_send_signal(dies, signal.SIGKILL)
            # It has died at this very point, not when its memory has been freed at a later one.
            select.select([dies], [], [], DEATH_TIMEOUT_S)
            os.close(dies)


def error(_):
    yield
    yield


def daemons(*sides):
    def act(trial):
        hosts = [getattr(trial, side) for side in sides]
        yield
        for host in hosts:
            kill(host, "virtvzd")
        yield
        for host in hosts:
            host.daemon("start")
    return act


def client(trial):
    yield
    trial.client.kill()
    yield


def process(side, comm):
    def act(trial):
        yield
        kill(getattr(trial, side), comm)
        yield
    return act


def cut(*ways, for_s=None):
    """ways: pairs (from, to). Without a time it lasts until the guest runs, or stands in doubt."""
    def act(trial):
        def each(state):
            for start, end in ways:
                trial.lab.command("path", getattr(trial, start).name, getattr(trial, end).name, state)
        yield
        each("cut")
        trial.heal = lambda: each("heal")
        yield
        if for_s:
            time.sleep(for_s)
        else:
            trial.expect_patience()
        each("heal")
    return act


def full(side):
    def act(trial):
        host = getattr(trial, side)
        kept = host.path(JOBS + "/incarnation").read_text()
        host.run("mount", "-t", "tmpfs", "-o", "size=%dk,mode=700" % FULL_DISK_KIB, "jobs", JOBS)
        host.path(JOBS + "/incarnation").write_text(kept)
        filler = host.path(JOBS + "/filler")
        yield
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
        trial.expect_patience()
        filler.unlink()
        trial.afterwards(lambda: host.run("umount", "-l", JOBS))
    return act


def sick(side, word):
    def act(trial):
        host = getattr(trial, side)
        program = host.path("/local/sick_dir")
        shutil.copy(trial.build / "tests" / "sick_dir", program)
        disk = host.popen("/local/sick_dir", JOBS, SICK)
        trial.until("the sick directory is mounted", lambda: JOBS in host.path(
            "/proc/1/mounts").read_text())
        yield
        host.path(SICK).write_text(word)
        yield
        trial.expect_patience()
        host.path(SICK).unlink()

        def unmount():
            host.run("umount", "-l", JOBS)
            disk.communicate(timeout=10)
        trial.afterwards(unmount)
    return act


def crash(side):
    def act(trial):
        host = getattr(trial, side)
        yield
        host.crash()
        yield
        host.boot()
    return act


FAULTS = {
    "error": Fault(error, None, False, False),
    "kill-source-daemon": Fault(daemons("here"), "here", False, False),
    "kill-destination-daemon": Fault(daemons("there"), "there", False, False),
    "kill-both-daemons": Fault(daemons("here", "there"), None, False, False),
    "kill-client": Fault(client, None, False, False),
    "kill-source-carrier": Fault(process("here", "virtvz-carrier"), "here", False, False, True),
    "kill-destination-carrier": Fault(process("there", "virtvz-carrier"), "there", False, False, True),
    "kill-source-qemu": Fault(process("here", "qemu-system-x86_64"), "here", True, False),
    "kill-destination-qemu": Fault(process("there", "qemu-system-x86_64"), "there", True, False, True),
    "cut-3s": Fault(cut(("here", "there"), ("there", "here"), for_s=3), None, False, False),
    "cut-60s": Fault(cut(("here", "there"), ("there", "here"), for_s=60), None, False, True),
    "cut-for-good": Fault(cut(("here", "there"), ("there", "here")), None, False, True),
    "cut-to-destination": Fault(cut(("here", "there")), None, False, True),
    "cut-to-source": Fault(cut(("there", "here")), None, False, True),
    "full-source": Fault(full("here"), "here", False, False),
    "full-destination": Fault(full("there"), "there", False, False),
    "readonly-source": Fault(sick("here", "EROFS"), "here", False, False, fuse=True),
    "readonly-destination": Fault(sick("there", "EROFS"), "there", False, False, fuse=True),
    "eio-source": Fault(sick("here", "EIO"), "here", False, False, fuse=True),
    "eio-destination": Fault(sick("there", "EIO"), "there", False, False, fuse=True),
    "crash-source-host": Fault(crash("here"), "here", True, False),
    "crash-destination-host": Fault(crash("there"), "there", True, False),
}
