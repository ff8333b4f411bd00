"""The moment that matters: daemons that die right before and after the source lets the guest go, and
right before and after the destination commits. Afterwards exactly one copy answers, whole.

The daemons are virtvzd-faults, which dies where VZ_FAULT says (src/migrate/saga.c). A sample for
`make check`; all of it with --long.
"""

import itertools
import os
import random
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

MIGRATE_TIMEOUT_S = 120
MOVE = ("--live", "--persistent", "--undefinesource")
SEED = int(os.environ.get("VZ_TEST_SEED", "1"))
SAMPLE = 8

SOURCE_STEPS = ("copy-memory", "release", "hand-over", "end-source", "undefine")
DESTINATION_STEPS = ("prepare-lease", "record-prepared", "load", "take-lease", "persist", "await-lease",
                     "commit", "start-guest", "announce")
# Always in the sample: around the release and around the commit.
CRUCIAL = [("source", "release", "after", "--p2p"), ("source", "release", "after", None),
           ("destination", "await-lease", "after", None),
           ("destination", "commit", "before", "--p2p"), ("destination", "commit", "after", "--p2p"),
           ("destination", "start-guest", "after", None)]

scene = None
worker = None


def every_case():
    for side, steps in (("source", SOURCE_STEPS), ("destination", DESTINATION_STEPS)):
        yield from itertools.product([side], steps, ["before", "after"], [None, "--p2p"])


def cases():
    if tap.LONG:
        return list(every_case())
    rest = [one for one in every_case() if one not in CRUCIAL]
    return CRUCIAL + random.Random(SEED).sample(rest, SAMPLE - len(CRUCIAL))


def setUpModule():
    global scene, worker
    with for_module(Scene("release", faulty=True)) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        worker.start(scene.a)


def records(host):
    return "".join(path.read_text() for path in host.path("/var/lib/virtvz/jobs").glob("*.in"))


class Crashes(unittest.TestCase):
    def where(self):
        return (scene.a, scene.b) if worker.state(scene.a) == "running" else (scene.b, scene.a)

    def one(self, side, step, when, mode):
        here, there = self.where()
        victim = here if side == "source" else there
        scene.survive_crash(worker, victim, "%s:crash:%s" % (step, when), lambda: here.popen(
            "virsh", "-c", VZ, "migrate", *((mode,) if mode else ()), *MOVE, worker.name,
            scene.uri(there)))

    def test_90_qemu_dies_after_the_commit(self):
        """It was never started there, so the commit is revoked and the guest goes on here."""
        here, there = self.where()
        there.daemon("restart", "start-guest:fail:before")
        with worker.unharmed():
            process = here.popen("virsh", "-c", VZ, "migrate", "--p2p", *MOVE, worker.name,
                                 scene.uri(there))
            eventually("the destination commits", lambda: "state committed" in records(there), 60)
            there.run("sh", "-c", "kill -9 $(pgrep qemu-system)")
            process.communicate(timeout=MIGRATE_TIMEOUT_S)
            self.assertNotEqual(process.returncode, 0)
            eventually("it runs where it was", lambda: worker.state(here) == "running", 60)
            self.assertIsNone(worker.state(there))
        scene.expect_nothing_left(60)
        there.daemon("restart")


def add(number, case):
    def test(self):
        try:
            self.one(*case)
        except BaseException:
            scene.show_logs()
            raise
    name = "test_%02d_%s_dies_%s_%s_%s" % (number, case[0], case[2], case[1].replace("-", "_"),
                                          "p2p" if case[3] else "managed")
    setattr(Crashes, name, test)


for index, chosen in enumerate(cases()):
    add(index, chosen)


if __name__ == "__main__":
    tap.main()
