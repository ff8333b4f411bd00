"""Post-copy between two hosts, of a guest that outruns the link: by call, by virsh, by vz; with its link
cut, its daemons killed, and paused and resumed by a user. Judged by what QEMU counts, by what a third
host hears, and by the memory that the guest verifies.

One lab and one guest serve the whole file; every test leaves it running on one of the hosts.
"""

import contextlib
import ctypes
import functools
import json
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moving  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

RATE = "100mbit"  # some 12 MiB/s, of which post-copy of the guest takes ten seconds
DIRTY_MIB_S = 40
MOVE = ("--live", "--p2p", "--persistent", "--undefinesource", "--postcopy")
LONG_S = 180
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207  # <linux/ptrace.h>
WALL = 0x40000000
virsh = functools.partial(moving.virsh, timeout=LONG_S)

scene = None
worker = None


def setUpModule():
    global scene, worker
    with for_module(Scene("postcopy")) as scene:
        worker = scene.guest("worker", "vz.mem=128 vz.dirty=%d" % DIRTY_MIB_S, disk=True, memory_mib=256)
        worker.start(scene.a)


def numbers(host, *words):
    """virsh domjobinfo as a dict of text; {} where there is no job."""
    done = virsh(host, "domjobinfo", worker.name, *words, check=False)
    pairs = (line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def state(host):
    done = virsh(host, "domstate", "--reason", worker.name, check=False)
    return done.stdout.strip()


def where():
    """(the host where it runs, the other one)."""
    pair = (scene.a, scene.b)
    return pair if worker.state(scene.a) == "running" else pair[::-1]


class PostCopy(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)
        self.here, self.there = where()
        scene.lab.shape(RATE)

    def after(self):
        scene.lab.shape("none")
        with scene.last_look(self):
            scene.expect_nothing_left()

    def begin(self, *words, command="virsh"):
        """A move that does not converge, going on."""
        uri = scene.uri(self.there)
        argv = ("virsh", "-c", VZ, "migrate", *(words or MOVE), worker.name, uri)
        if command == "vz":
            argv = ("vz", "migrate", "--json", *words, worker.name, self.there.name)
        process = self.here.popen(*argv)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def phase(self):
        lines = self.here.out("vz", "--json", "jobs").splitlines()
        return json.loads(lines[0])["phase"] if lines else None

    def in_precopy(self, process):
        def copied():
            if process.poll() is not None:
                raise AssertionError("the move ended: %s" % (process.communicate(),))
            return int(numbers(self.here).get("Iteration", 0)) >= 2
        eventually("a second pass", copied, LONG_S)

    def switch(self, process):
        self.in_precopy(process)
        virsh(self.here, "migrate-postcopy", worker.name)
        eventually("it runs there by post-copy",
                   lambda: state(self.there).startswith("running (post-copy"), 60)

    def succeed(self, process):
        out, err = process.communicate(timeout=LONG_S)
        self.assertEqual(process.returncode, 0, out + err)
        worker.expect_on(self.there)
        eventually("all has come", lambda: state(self.there) == "running (migrated)", 30)
        self.expect_closed()

    def expect_closed(self):
        """QEMU's user was let in for this, and is not any more."""
        self.assertEqual(self.there.path("/dev/userfaultfd").stat().st_mode & 0o777, 0o600)

    def expect_end(self):
        """Of a move whose client may have gone."""
        eventually("all has come", lambda: state(self.there) == "running (migrated)", LONG_S)
        eventually("the source's copy has ended", lambda: worker.state(self.here) is None, 60)
        worker.expect_on(self.there)
        self.expect_closed()


class Moves(PostCopy):
    def test_by_call(self):
        with worker.unharmed():
            process = self.begin()
            self.in_precopy(process)
            virsh(self.here, "migrate-postcopy", worker.name)
            eventually("the source serves pages", lambda: state(self.here) == "paused (post-copy)", 60)
            eventually("it runs there", lambda: state(self.there) == "running (post-copy)", 10)
            eventually("pages are asked for",
                       lambda: int(numbers(self.here).get("Postcopy requests", 0)), 30)
            self.assertNotEqual(virsh(self.here, "domjobabort", worker.name, check=False).returncode, 0)
            self.succeed(process)

    def test_after_precopy(self):
        """virsh waits for the first iteration's event and switches then."""
        with worker.unharmed():
            process = self.begin(*MOVE, "--postcopy-after-precopy", "--verbose")
            eventually("it has switched", lambda: state(self.there).startswith("running (post-copy"), LONG_S)
            self.succeed(process)

    @tap.long
    def test_vz_decides(self):
        with worker.unharmed():
            process = self.begin("--postcopy", command="vz")
            out, err = process.communicate(timeout=LONG_S)
            self.assertEqual(process.returncode, 0, out + err)
            self.assertIn("switching to post-copy", out + err)
            self.expect_end()

    @tap.long
    def test_speed(self):
        """What QEMU is told while it runs, as its own parameters say, and how fast pages then go."""
        with worker.unharmed():
            process = self.begin(*MOVE, "--postcopy-bandwidth", "2")
            self.in_precopy(process)
            self.assertEqual(virsh(self.here, "migrate-getspeed", "--postcopy", worker.name).stdout.strip(), "2")
            virsh(self.here, "migrate-postcopy", worker.name)
            eventually("the source serves pages", lambda: state(self.here) == "paused (post-copy)", 60)
            begin, first = time.monotonic(), self.here.wire_bytes()[1]
            time.sleep(4)
            slow = (self.here.wire_bytes()[1] - first) / (time.monotonic() - begin)
            self.assertLess(slow, 7 << 20, "of 12 MiB/s; what the guest waits for is not limited")
            virsh(self.here, "migrate-setspeed", "--postcopy", worker.name, "1000")
            self.succeed(process)


class Refused(PostCopy):
    @tap.long
    def test_call_without_the_flag(self):
        process = self.begin("--live", "--p2p", "--persistent", "--undefinesource")
        self.in_precopy(process)
        done = virsh(self.here, "migrate-postcopy", worker.name, check=False)
        self.assertIn("requires migration to be started with VIR_MIGRATE_POSTCOPY flag", done.stderr)
        virsh(self.here, "domjobabort", worker.name)
        process.communicate(timeout=LONG_S)
        worker.expect_on(self.here)

    def test_without_userfaultfd(self):
        """Refused before anything moves; and nobody else is let in afterwards where it is there."""
        node = self.there.path("/dev/userfaultfd")
        before = node.stat()
        node.rename(str(node) + ".away")
        try:
            done = virsh(self.here, "migrate", *MOVE, worker.name, scene.uri(self.there), check=False)
        finally:
            node.with_name("userfaultfd.away").rename(node)
        self.assertIn("post-copy needs userfaultfd", done.stderr)
        self.assertIn("/dev/userfaultfd", done.stderr)
        self.assertEqual(node.stat().st_mode, before.st_mode)
        worker.expect_on(self.here)


class Faults(PostCopy):
    def test_link_cut(self):
        """Both sides pause and go on by themselves when it is back; no byte is lost."""
        with worker.unharmed():
            process = self.begin()
            self.switch(process)
            eventually("Finish has been answered", lambda: self.phase() == "post-copy", 20)
            self.there.link("down")
            eventually("both see that it is broken",
                       lambda: state(self.here) == "paused (post-copy failed)" and
                       state(self.there) == "running (post-copy failed)", 60)
            self.there.link("up")
            eventually("it goes on", lambda: state(self.there) != "running (post-copy failed)", 90)
            self.succeed(process)

    @tap.long
    def test_destination_is_gone_for_good(self):
        """Only then the source's part can be destroyed; the guest is lost, and both say so."""
        process = self.begin()
        self.switch(process)
        eventually("Finish has been answered", lambda: self.phase() == "post-copy", 20)
        refused = virsh(self.here, "destroy", worker.name, check=False)
        self.assertIn("has been let go", refused.stderr)
        self.there.link("down")
        try:
            eventually("it is broken", lambda: state(self.here) == "paused (post-copy failed)", 60)
            virsh(self.here, "destroy", worker.name)
            _, err = process.communicate(timeout=60)
            self.assertIn("the guest is lost", err)
            eventually("it has ended", lambda: worker.state(self.here) in (None, "shut off"), 30)
        finally:
            self.there.link("up")
            virsh(self.there, "destroy", worker.name, check=False)
            for host in (self.here, self.there):
                virsh(host, "undefine", worker.name, check=False)
            worker.start(self.there)

    def kill_daemon(self, host):
        with worker.unharmed():
            process = self.begin()
            self.switch(process)
            host.daemon("kill")
            host.daemon("start")
            self.expect_end()

    def test_source_daemon_killed(self):
        """QEMU goes on serving meanwhile, and nobody breaks its connection."""
        with worker.unharmed():
            process = self.begin()
            self.switch(process)
            scene.lab.shape("40mbit")  # for longer than a crippled connection is let live
            self.here.daemon("kill")
            self.here.daemon("start")
            seen = set()
            eventually("all has come", lambda: seen.add(state(self.there)) or
                       "running (migrated)" in seen, LONG_S)
            self.assertEqual(seen, {"running (post-copy)", "running (migrated)"})
            self.expect_end()

    def test_client_gone_after_perform(self):
        """The guest does not wait for a client that never comes to Finish."""
        with worker.unharmed():
            process = self.begin(*(word for word in MOVE if word != "--p2p"))
            self.in_precopy(process)
            process.send_signal(signal.SIGSTOP)
            virsh(self.here, "migrate-postcopy", worker.name)
            eventually("the source has let go", lambda: state(self.here) == "paused (post-copy)", 60)
            process.kill()
            process.communicate(timeout=LONG_S)
            eventually("it runs there", lambda: state(self.there).startswith("running"), 30)
            self.expect_end()

    def test_destination_daemon_killed(self):
        self.kill_daemon(self.there)


@contextlib.contextmanager
def main_loop_hangs(qemu):
    """As it does when the guest's device waits for a page in it: that thread stands still, the others
    go on. Which pages a device will touch is chance; so a tracer holds it."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)

    def trace(request):
        if libc.ptrace(request, qemu, None, None) != 0:
            raise OSError(ctypes.get_errno(), "ptrace %#x" % request)
    trace(PTRACE_SEIZE)
    try:
        trace(PTRACE_INTERRUPT)
        os.waitpid(qemu, WALL)
        yield
    finally:
        trace(PTRACE_DETACH)


class Paused(PostCopy):
    def pause_and(self, *words):
        with worker.unharmed():
            process = self.begin(*words)
            self.switch(process)
            virsh(self.here, "domjobabort", "--postcopy", worker.name)
            _, err = process.communicate(timeout=LONG_S)
            if "--p2p" in words:  # else virsh knows by Confirm alone, of which it says nothing
                self.assertNotEqual(process.returncode, 0)
                self.assertIn("paused in post-copy by a user", err)
            self.assertEqual(state(self.here), "paused (post-copy failed)")
            resume = (VZ, "migrate", *words, "--postcopy-resume", worker.name, scene.uri(self.there))
            (qemu,) = self.there.processes("qemu-system-x86_64")
            with main_loop_hangs(qemu):
                process = self.here.popen("virsh", "-c", *resume)
                eventually("pages flow again", lambda: state(self.here) == "paused (post-copy)", 30)
            out, err = process.communicate(timeout=LONG_S)
            self.assertEqual(process.returncode, 0, out + err)
            worker.expect_on(self.there)

    def test_peer_to_peer(self):
        self.pause_and(*MOVE)

    @tap.long
    def test_managed(self):
        self.pause_and(*(word for word in MOVE if word != "--p2p"))


if __name__ == "__main__":
    tap.main()
