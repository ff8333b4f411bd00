"""Guests that stand still: moves without --live, guests that were paused, --suspend, and a suspend
while the move runs. Both QEMUs are asked by monitors of the test's own, virsh for state and reason,
and a third host listens whether the guest beats.

One guest serves the whole file; each test begins with it running on one host, defined there only.
"""

import os
import re
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moving  # noqa: E402
import spy  # noqa: E402
import tap  # noqa: E402
from moving import MIGRATE_TIMEOUT_S, MovingTest, virsh  # noqa: E402
from scene import VZ, eventually  # noqa: E402

KEEP = ("--persistent", "--undefinesource")
SILENCE_S = 1.0  # of a guest that beats 100 times a second
RUNNING = ("running", r"running \((?!migrating)")
MIGRATING = ("paused", r"paused \(migrating\)")
BY_USER = ("paused", r"paused \(user\)")

scene = None
worker = None


def setUpModule():
    global scene, worker
    scene, worker = moving.begin("paused", spy.let_in)
    scene.lab.shape("200mbit")  # so that there is something to see while memory is copied


def state(host):
    return virsh(host, "domstate", "--reason", worker.name).stdout.strip()


class PausedTest(MovingTest):
    def begin(self, *options):
        """(the command, here, there) when memory is being copied."""
        here, there = self.where()
        process = here.popen("virsh", "-c", VZ, "migrate", *options, *KEEP, worker.name,
                             scene.uri(there))
        self.addCleanup(process.__exit__, None, None, None)
        eventually("memory is being copied", lambda: re.search(
            r"Memory processed: +[1-9]", virsh(here, "domjobinfo", worker.name, check=False).stdout))
        return process, here, there

    def end(self, process):
        _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(process.returncode, 0, err)

    def expect(self, host, wanted):
        qemu, virsh_says = wanted
        self.assertEqual(spy.status(host), qemu)
        self.assertRegex(state(host), virsh_says)

    def beats(self, yes):
        """From now on it beats, or does not."""
        scene.observe("mark", "paused")
        if yes:
            eventually("it beats", lambda: worker.report("paused").get("beats", 0) > 20)
        else:
            time.sleep(SILENCE_S)
            self.assertEqual(worker.report("paused").get("beats", 0), 0, "it stands still")


class Table(PausedTest):
    # paused before, options -> while memory is copied, at the end
    TABLE = (
        (False, ("--live",), RUNNING, RUNNING),
        (False, ("--p2p",), MIGRATING, RUNNING),
        (False, ("--suspend",), MIGRATING, BY_USER),
        (False, ("--live", "--p2p", "--suspend"), RUNNING, BY_USER),
        (True, ("--live",), BY_USER, BY_USER),
        (True, ("--p2p",), BY_USER, BY_USER),
    )

    def test_table(self):
        for paused, options, meanwhile, after in self.TABLE:
            with self.subTest(paused=paused, options=options), worker.unharmed():
                if paused:
                    virsh(self.where()[0], "suspend", worker.name)
                process, here, there = self.begin(*options)
                self.expect(here, meanwhile)
                self.expect(there, ("inmigrate", r"paused \(migrating\)"))
                self.beats(meanwhile is RUNNING)
                self.end(process)
                self.expect(there, after)
                self.assertIsNone(worker.state(here))
                self.beats(after is RUNNING)
                if after is not RUNNING:
                    virsh(there, "resume", worker.name)
                    self.expect(there, RUNNING)


class Meanwhile(PausedTest):
    @tap.long
    def test_suspended_by_a_timeout(self):
        """virsh suspends it after a second; where it arrives it runs, since it ran before."""
        with worker.unharmed():
            process, here, there = self.begin("--live", "--timeout", "1", "--timeout-suspend")
            eventually("virsh has suspended it", lambda: spy.status(here) == "paused")
            self.expect(here, BY_USER)
            self.beats(False)
            self.end(process)
            self.expect(there, RUNNING)
            self.beats(True)

    def test_not_live_and_aborted(self):
        """The guest goes on here, and says why it runs."""
        with worker.unharmed():
            process, here, there = self.begin("--p2p")
            self.expect(here, MIGRATING)
            virsh(here, "domjobabort", worker.name)
            process.communicate(timeout=MIGRATE_TIMEOUT_S)
            self.assertEqual(process.returncode, 1)
            self.expect(here, ("running", r"running \(migration canceled\)"))
            self.beats(True)
            self.assertIsNone(worker.state(there))


if __name__ == "__main__":
    tap.main()
