"""Guests of which a host cannot know where they run: what is shown, what an operator decides, what
the marks of a move forbid, and that the last copy is never thrown away.

The daemons are virtvzd-faults (src/migrate/saga.c), so that they die where a test says.
"""

import json
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import phases  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

MOVE = ("migrate", "--live", "--persistent")
MIGRATE_TIMEOUT_S = 120
MARKS = "/var/lib/virtvz/domains/%s.marks"

scene = None
worker = None


def setUpModule():
    global scene, worker
    with for_module(Scene("doubt", hosts=3, faulty=True)) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)


def virsh(host, *words):
    return host.run("virsh", "-c", VZ, *words, check=False, timeout=MIGRATE_TIMEOUT_S)


def vz(host, *words):
    return host.run("vz", *words, check=False, timeout=MIGRATE_TIMEOUT_S)


def daemon(host, fault=None):
    """Its daemon anew, with a fault built in or none."""
    host.daemon("stop")
    host.daemon("start", fault)


def alive(host):
    return virsh(host, "list").returncode == 0


def jobs(host):
    return [json.loads(line) for line in vz(host, "--json", "jobs").stdout.splitlines()]


class DoubtTest(unittest.TestCase):
    def setUp(self):
        self.a, self.b, self.c = scene.lab.hosts
        worker.start(self.a)

    def tearDown(self):
        try:
            scene.expect_nothing_left(60)
        except BaseException:
            scene.show_logs()
            raise
        finally:
            for host in scene.lab.hosts:
                if not alive(host):
                    host.daemon("start")
                virsh(host, "destroy", worker.name)
                virsh(host, "undefine", worker.name)
            for host in scene.lab.hosts:
                for place, names in (("domains", "*.marks"), ("trail", "*")):
                    for one in host.path("/var/lib/virtvz/" + place).glob(names):
                        one.unlink()

    def refused(self, done, *texts):
        self.assertNotEqual(done.returncode, 0, done.stdout)
        for text in texts:
            self.assertRegex(done.stderr, text)

    def move(self, here, there, *options):
        done = virsh(here, *MOVE, *options, worker.name, scene.uri(there))
        self.assertEqual(done.returncode, 0, done.stderr)

    def runs_on(self, host):
        eventually("it runs on %s" % host.name, lambda: worker.state(host) == "running", 90)


class Marks(DoubtTest):
    def test_a_definition_left_behind(self):
        """It starts when the guest is nowhere else any more, and not before."""
        self.move(self.a, self.b)
        self.refused(virsh(self.a, "start", worker.name), "has moved to hostb", "a guest of it on hostb")
        self.refused(virsh(self.a, "create", worker.file), "has moved to hostb")
        virsh(self.b, "destroy", worker.name)
        self.refused(virsh(self.a, "start", worker.name), "is defined there", "undefine it there")
        virsh(self.b, "undefine", worker.name)
        self.assertEqual(virsh(self.a, "start", worker.name).returncode, 0)
        virsh(self.b, "define", worker.file)
        self.refused(virsh(self.b, "start", worker.name), "has moved to hosta", "a guest of it on hosta")
        self.runs_on(self.a)

    @tap.long
    def test_undefined_and_defined_again(self):
        self.move(self.a, self.b, "--undefinesource")
        virsh(self.a, "define", worker.file)
        self.refused(virsh(self.a, "start", worker.name), "has moved to hostb")

    def test_autostart_after_a_reboot(self):
        virsh(self.a, "autostart", worker.name)
        self.move(self.a, self.b)
        self.a.crash()
        self.a.boot()
        eventually("hosta answers", lambda: alive(self.a), 30)
        message = eventually("it says why it does not start it", lambda: re.search(
            "not be started automatically.*has moved to hostb",
            virsh(self.a, "dominfo", worker.name).stdout))
        self.assertTrue(message)
        self.assertEqual(worker.state(self.a), "shut off")
        self.runs_on(self.b)

    def test_there_and_back(self):
        """Coming back clears the mark; what is left there gets one."""
        self.move(self.a, self.b)
        self.move(self.b, self.a, "--p2p")
        virsh(self.a, "destroy", worker.name)
        self.refused(virsh(self.b, "start", worker.name), "is defined there")
        self.assertEqual(virsh(self.a, "start", worker.name).returncode, 0)
        eventually("each host remembers one move", lambda: [
            len([one for one in host.path("/var/lib/virtvz/trail").iterdir()
                 if not one.name.endswith(".key")]) for host in (self.a, self.b)] == [1, 1])

    def test_over_three_hosts(self):
        """The first host asks the second, which asks the third."""
        self.move(self.a, self.b)
        self.move(self.b, self.c, "--p2p")
        for host in (self.a, self.b):
            self.refused(virsh(host, "start", worker.name), "a guest of it on hostc")
        self.c.daemon("stop")
        self.refused(virsh(self.a, "start", worker.name), "hostc may have it, and does not answer")
        self.c.daemon("start")
        virsh(self.c, "destroy", worker.name)
        virsh(self.c, "undefine", worker.name)
        self.assertEqual(virsh(self.a, "start", worker.name).returncode, 0)
        for host in (self.b, self.c):
            virsh(host, "define", worker.file)
            self.refused(virsh(host, "start", worker.name), "a guest of it on hosta")

    def test_a_silent_host(self):
        """Its word is missing, so the operator's is needed: by resolve, or by `fencing = yes`."""
        self.move(self.a, self.b)
        virsh(self.b, "destroy", worker.name)
        self.b.daemon("stop")
        self.refused(virsh(self.a, "start", worker.name), "does not answer", "vz resolve worker --here")
        shown = vz(self.a, "resolve", worker.name).stdout
        self.assertIn("no answer", shown)
        self.refused(vz(self.a, "resolve", worker.name, "--here"), "--yes")
        self.assertEqual(vz(self.a, "resolve", worker.name, "--here", "--yes").returncode, 0)
        self.assertEqual(virsh(self.a, "start", worker.name).returncode, 0)
        self.b.daemon("start")

    @tap.long
    def test_fencing(self):
        self.move(self.a, self.b)
        self.b.crash()
        config = self.a.path("/etc/virtvz/virtvzd.conf")
        text = config.read_text()
        try:
            config.write_text(text + "fencing = yes\n")
            daemon(self.a)
            self.assertEqual(virsh(self.a, "start", worker.name).returncode, 0)
        finally:
            config.write_text(text)
            daemon(self.a)
            self.b.boot()

    @tap.long
    def test_not_quite_arrived(self):
        """While the source has not ended its copy, the guest is not started anew at the destination."""
        daemon(self.a, "end-source:crash:before")
        virsh(self.a, *MOVE, "--p2p", worker.name, scene.uri(self.b))
        self.runs_on(self.b)
        virsh(self.b, "destroy", worker.name)
        self.refused(virsh(self.b, "start", worker.name), "has come from hosta", "does not answer")
        daemon(self.a)
        eventually("the source ends its copy", lambda: worker.state(self.a) == "shut off")
        eventually("it may start", lambda: virsh(self.b, "start", worker.name).returncode == 0)
        self.runs_on(self.b)


class ThreeHosts(DoubtTest):
    """What a host knows only from hearsay. Hosta has a definition and a mark that names hostb; the
    guest has gone on from there to hostc."""

    def setUp(self):
        super().setUp()
        self.move(self.a, self.b)
        self.move(self.b, self.c, "--undefinesource")

    def come_back(self, *options):
        """From hostc to hostb; one of them dies on the way."""
        virsh(self.c, *MOVE, "--p2p", *options, worker.name, scene.uri(self.b))

    @tap.long
    def test_taken_back_from_a_host_between(self):
        daemon(self.b, "announce:crash:before")
        self.come_back()
        eventually("it is in doubt", lambda: "in doubt" in [one["phase"] for one in jobs(self.c)], 60)
        self.b.crash()
        done = vz(self.c, "resolve", worker.name, "--here", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.runs_on(self.c)
        self.b.boot()
        eventually("the other host has heard", lambda: jobs(self.c) == [], 90)
        self.refused(virsh(self.a, "start", worker.name), "has moved to hostb", "a guest of it on hostc")

    @tap.long
    def test_a_source_that_has_not_ended_its_copy(self):
        daemon(self.c, "end-source:crash:before")
        self.come_back()
        self.runs_on(self.b)
        virsh(self.b, "destroy", worker.name)
        virsh(self.b, "undefine", worker.name)
        self.refused(virsh(self.a, "start", worker.name), "hostc may have it, and does not answer")
        daemon(self.c)
        eventually("it may start", lambda: virsh(self.c, "undefine", worker.name).returncode == 0 and
                   virsh(self.a, "start", worker.name).returncode == 0, 60)
        self.runs_on(self.a)

    @tap.long
    def test_an_earlier_arrival_that_is_not_over(self):
        daemon(self.c, "end-source:crash:before")
        self.come_back()
        self.runs_on(self.b)
        virsh(self.b, "destroy", worker.name)
        virsh(self.b, "undefine", worker.name)
        done = vz(self.a, "resolve", worker.name, "--here", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(virsh(self.a, "start", worker.name).returncode, 0)
        self.refused(virsh(self.a, *MOVE, worker.name, scene.uri(self.b)),
                     "came here from hostc before, which has not ended its copy")
        self.runs_on(self.a)
        daemon(self.c)
        eventually("hostc has ended its copy", lambda: jobs(self.c) == [] and
                   worker.state(self.c) == "shut off", 60)
        self.move(self.a, self.b)


class Doubt(DoubtTest):
    def doubt(self, fault):
        """The destination dies after the release; the guest is in doubt."""
        daemon(self.b, fault)
        done = virsh(self.a, *MOVE, "--undefinesource", "--p2p", worker.name, scene.uri(self.b))
        self.assertNotEqual(done.returncode, 0)
        eventually("it is in doubt", lambda: "in doubt" in [one["phase"] for one in jobs(self.a)], 60)

    def test_shown_and_healed(self):
        with worker.unharmed():
            self.doubt("commit:crash:after")
            self.assertIn("paused (migrating)",
                          virsh(self.a, "domstate", "--reason", worker.name).stdout)
            self.assertIn("in doubt", virsh(self.a, "dominfo", worker.name).stdout)
            self.assertIn("paused, in doubt", vz(self.a, "list").stdout)
            self.assertIn("vz resolve worker", vz(self.a, "jobs").stdout)
            self.assertIn("released", vz(self.a, "resolve", worker.name).stdout)
            for words in (("start",), ("resume",), ("destroy",), ("undefine",)):
                self.refused(virsh(self.a, *words, worker.name))
            self.refused(vz(self.a, "resolve", worker.name, "--there", "--yes"), "may be the only one")
            daemon(self.a)  # the doubt outlives the daemon
            eventually("it is in doubt still",
                       lambda: [one["phase"] for one in jobs(self.a)] == ["in doubt"], 60)
            daemon(self.b)
            self.runs_on(self.b)
            eventually("it has left", lambda: worker.state(self.a) is None, 90)

    def test_taken_back_by_the_operator(self):
        self.doubt("commit:crash:after")
        self.b.crash()
        with worker.unharmed():
            done = vz(self.a, "resolve", worker.name, "--here", "--yes")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.runs_on(self.a)
            self.assertIn("resolved by the operator", virsh(self.a, "dominfo", worker.name).stdout)
            self.assertIn("resolved", self.a.path("/var/log/virtvzd.log").read_text())
            self.b.boot()
            eventually("the other host has heard", lambda: jobs(self.a) == [], 90)
            self.assertIsNone(worker.state(self.b))
        self.move(self.a, self.b, "--undefinesource")

    @tap.long
    def test_taken_back_and_started_there_by_another_word(self):
        """Its first operator took it back, and shut it down; then that of the destination goes on with
        what has come there. The order to give it up comes too late."""
        self.doubt("commit:crash:before")
        self.link("cut")
        daemon(self.b)
        done = vz(self.a, "resolve", worker.name, "--here", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.runs_on(self.a)
        virsh(self.a, "destroy", worker.name)
        done = vz(self.b, "resolve", worker.name, "--here", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.runs_on(self.b)
        self.link("heal")
        eventually("hosta's order was heard", lambda: jobs(self.a) == [], 90)
        self.assertEqual(worker.state(self.b), "running")
        self.assertEqual(scene.lease(worker.image)["host_name"], self.b.name)

    def link(self, state):
        for one, other in ((self.a, self.b), (self.b, self.a)):
            scene.lab.command("path", one.name, other.name, state)

    @tap.long
    def test_nobody_can_know(self):
        """A start was attempted, and QEMU died: the destination says so, and the operator decides."""
        self.doubt("start-guest:crash:before")
        self.b.run("sh", "-c", "kill -9 $(pgrep qemu-system)")
        journal = next(self.b.path("/var/lib/virtvz/jobs").glob("*.in"))
        with open(journal, "a") as file:
            file.write("state start-attempted\n")
        daemon(self.b)
        eventually("it says that nobody knows", lambda: "verdict: unknown" in
                   vz(self.a, "resolve", worker.name).stdout, 30)
        self.assertEqual([one["phase"] for one in jobs(self.a)], ["in doubt"])
        with worker.unharmed():
            done = vz(self.a, "resolve", worker.name, "--here", "--yes")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.runs_on(self.a)
            eventually("the other host has given it up", lambda: worker.state(self.b) is None, 30)

    @tap.long
    def test_left_there_by_the_operator(self):
        self.doubt("start-guest:crash:before")
        self.b.run("sh", "-c", "kill -9 $(pgrep qemu-system)")
        journal = next(self.b.path("/var/lib/virtvz/jobs").glob("*.in"))
        with open(journal, "a") as file:
            file.write("state start-attempted\n")
        daemon(self.b)
        eventually("it says that nobody knows", lambda: "verdict: unknown" in
                   vz(self.a, "resolve", worker.name).stdout, 30)
        done = vz(self.a, "resolve", worker.name, "--there", "--yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        eventually("it has left", lambda: worker.state(self.a) is None, 30)
        eventually("it may start there", lambda: virsh(self.b, "start", worker.name).returncode == 0)


class LastCopy(DoubtTest):
    """The source's host dies when it has let go, and before the destination has committed."""

    def released(self):
        """A client that has everything but its Finish done dies with the host."""
        with phases.Client(self.a) as source, phases.Client(self.b) as destination:
            domain = source.lookup(worker.name)
            cookie, xml = source.begin(domain)
            cookie, address = destination.prepare(cookie, xml)
            source.perform(domain, cookie, address)
            self.a.crash()
        self.kept()

    def kept(self):
        eventually("the destination keeps it", lambda: "worker" in vz(self.b, "list").stdout and
                   "in doubt" in vz(self.b, "list").stdout, 60)

    def test_runs_when_the_source_is_back(self):
        with worker.unharmed():
            self.released()
            self.a.boot()
            self.runs_on(self.b)
            eventually("nothing is left of the job", lambda: jobs(self.a) + jobs(self.b) == [], 90)
        self.assertIsNone(worker.state(self.a))

    def test_kept_when_the_source_may_have_run_on(self):
        """Its record does not say that the stream had ended when QEMU died."""
        with worker.unharmed():
            daemon(self.a, "release:crash:after")
            virsh(self.a, *MOVE, "--undefinesource", "--p2p", worker.name, scene.uri(self.b))
            self.a.crash()
            self.kept()
            self.a.boot()
            eventually("it is in doubt there, too", lambda: "in doubt" in
                       [one["phase"] for one in jobs(self.a)], 60)
            self.assertIn("verdict: wait", vz(self.a, "resolve", worker.name).stdout)
            self.assertEqual(worker.state(self.b), "paused")
            self.refused(vz(self.a, "resolve", worker.name, "--here", "--yes"), "copy here has died")
            done = vz(self.a, "resolve", worker.name, "--there", "--yes")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.runs_on(self.b)
            eventually("nothing is left of the job", lambda: jobs(self.a) + jobs(self.b) == [], 90)
        self.assertIsNone(worker.state(self.a))

    @tap.long
    def test_runs_by_the_operators_word(self):
        with worker.unharmed():
            self.released()
            done = vz(self.b, "resolve", worker.name, "--here", "--yes")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.runs_on(self.b)
        self.a.boot()
        eventually("the source has ended its part", lambda: jobs(self.a) + jobs(self.b) == [], 90)

    def test_kept_when_a_step_fails(self):
        """No failure on the way to its start throws it away, also not after a restart in between."""
        with worker.unharmed():
            daemon(self.b, "persist:fail:after")
            self.released()
            for when, fault in (("after", "commit:fail:before"), ("before", None)):
                self.refused(vz(self.b, "resolve", worker.name, "--here", "--yes"),
                             "injected fault %s" % when)
                self.assertEqual(worker.state(self.b), "paused")
                self.assertIn("in doubt", vz(self.b, "list").stdout)
                self.assertRegex(virsh(self.b, "dominfo", worker.name).stdout, r"Persistent: +no")
                daemon(self.b, fault)
                self.kept()
            done = vz(self.b, "resolve", worker.name, "--here", "--yes")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.runs_on(self.b)
            self.assertEqual(scene.lease(worker.image)["host_name"], self.b.name)
        self.a.boot()
        eventually("the source has ended its part", lambda: jobs(self.a) + jobs(self.b) == [], 90)


class Deadlines(DoubtTest):
    """Clients that live, but do not go on."""

    def setUp(self):
        super().setUp()
        self.configs = []
        for host in (self.a, self.b):
            config = host.path("/etc/virtvz/virtvzd.conf")
            self.configs.append((host, config, config.read_text()))
            config.write_text(config.read_text() + "phase_timeout = 3\n")
            daemon(host)

    def tearDown(self):
        for host, config, text in self.configs:
            config.write_text(text)
            daemon(host)
        super().tearDown()

    def test_after_each_phase(self):
        for calls in (1, 2, 3):
            source, destination = phases.Client(self.a), phases.Client(self.b)
            domain = source.lookup(worker.name)
            with self.subTest(calls=calls), worker.unharmed():
                cookie, xml = source.begin(domain)
                if calls > 1:
                    cookie, address = destination.prepare(cookie, xml)
                if calls > 2:
                    source.perform(domain, cookie, address)
                eventually("it is given up", lambda: jobs(self.a) + jobs(self.b) == [], 30)
                self.runs_on(self.a)
                self.assertIsNone(worker.state(self.b))
            source.close()
            destination.close()


if __name__ == "__main__":
    tap.main()
