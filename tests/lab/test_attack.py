"""Attacks on guests that move: phases called wrongly, everybody at once, processes that stop or die
at any moment. After each: exactly one copy runs, whole, nothing is left over, and the next move works.

What takes long is behind VZ_LONG=1. VZ_TEST_SEED repeats a run's choices.
"""

import contextlib
import json
import os
import random
import re
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import phases  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

SEED = int(os.environ.get("VZ_TEST_SEED", "1"))
MIGRATE_TIMEOUT_S = 120
MOVE = ("--live", "--persistent", "--undefinesource")

# Many connections to both ports of the hosts named, kept open for a while; prints how many.
STRANGERS = """
import os, socket, sys, time
words = [b"", os.urandom(1000), b"\\xff" * 4, b"\\0\\0", bytes.fromhex("0000001c200080860000000100000042")]
kept = []
for host in sys.argv[1:]:
    for port in (16509, 16515):
        for number in range(100):
            one = socket.create_connection((host, port), 10)
            try:
                one.send(words[number % len(words)])
            except OSError:
                pass
            kept.append(one)
print(len(kept), flush=True)
time.sleep(60)
"""

scene = None
worker = None


def setUpModule():
    global scene, worker
    with for_module(Scene("attack")) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        worker.start(scene.a)


def virsh(host, *words):
    return host.run("virsh", "-c", VZ, *words, check=False, timeout=MIGRATE_TIMEOUT_S)


def begin_move(here, there, *options, guest=None):
    return here.popen("virsh", "-c", VZ, "migrate", *options, *MOVE, (guest or worker).name,
                      scene.uri(there))


def settled(guest=None):
    states = sorted(str((guest or worker).state(host)) for host in scene.lab.hosts)
    return states == ["None", "running"]


class AttackTest(unittest.TestCase):
    def setUp(self):
        self.random = random.Random("%d %s" % (SEED, self.id()))
        self.daemons = [self.daemon(host) for host in scene.lab.hosts]
        self.held = self.resources()
        self.here, self.there = self.hosts_now()
        self.survived = worker.unharmed()
        self.survived.__enter__()

    def tearDown(self):
        try:
            eventually("one host runs it, the other does not", settled, 90)
            self.survived.__exit__(None, None, None)
            scene.expect_nothing_left()
            self.assertEqual([self.daemon(host) for host in scene.lab.hosts], self.daemons,
                             "the daemons are the same processes")
            eventually("descriptors and threads are as many as before, %r" % (self.held,),
                       lambda: self.resources() == self.held, 10)
        except BaseException:
            scene.show_logs()
            raise

    def hosts_now(self):
        """(the host where it runs, the other one)"""
        a, b = scene.lab.hosts
        return (a, b) if worker.state(a) == "running" else (b, a)

    def daemon(self, host):
        return host.out("pgrep", "-x", "virtvzd").split()[0]

    def resources(self):
        """How many descriptors and threads the daemons have, all together."""
        script = "for one in fd task; do ls /proc/$(pgrep -x virtvzd)/$one | wc -l; done"
        counts = [scene.lab.hosts[i].out("sh", "-c", script).split() for i in (0, 1)]
        return [sum(map(int, column)) for column in zip(*counts)]

    def copying(self):
        eventually("memory is being copied", lambda: re.search(
            r"Memory processed: +[1-9]", virsh(self.here, "domjobinfo", worker.name).stdout), 20)


class Phases(AttackTest):
    """The five phases by a client that makes them itself, in a wrong order or with wrong cookies."""

    def setUp(self):
        super().setUp()
        self.source = phases.Client(self.here)
        self.addCleanup(self.source.close)
        self.destination = phases.Client(self.there)
        self.addCleanup(self.destination.close)
        self.domain = self.source.lookup(worker.name)

    def tearDown(self):
        self.source.close()
        self.destination.close()
        super().tearDown()

    def refused(self, text, call, *words, **more):
        with self.assertRaisesRegex(phases.Refused, text):
            call(*words, **more)

    def prepared(self):
        cookie, xml = self.source.begin(self.domain)
        return self.destination.prepare(cookie, xml)

    def complete(self, cookie, address):
        cookie = self.source.perform(self.domain, cookie, address)
        cookie = self.destination.finish(worker.name, cookie)
        self.source.confirm(self.domain, cookie)

    def test_in_order(self):
        self.complete(*self.prepared())
        worker.expect_on(self.there)

    def test_begin_and_no_more(self):
        self.source.begin(self.domain)
        self.refused("another job", self.source.begin, self.domain)
        self.source.close()
        eventually("the domain is unlocked", lambda: re.search(
            r"Job type: +None", virsh(self.here, "domjobinfo", worker.name).stdout), 10)

    def test_prepare_twice(self):
        cookie, xml = self.source.begin(self.domain)
        prepared = self.destination.prepare(cookie, xml)
        self.refused("already active", self.destination.prepare, cookie, xml)
        other = re.sub(rb"<uuid>[^<]*</uuid>",
                       b"<uuid>11111111-2222-3333-4444-555555555555</uuid>", xml)
        self.refused("exists already", self.destination.prepare, cookie, other, "another")
        self.complete(*prepared)
        worker.expect_on(self.there)

    @tap.long
    def test_finish_before_perform(self):
        cookie, address = self.prepared()
        forged = {**json.loads(cookie), "release": "0" * 64, "running": True}
        self.refused("has not shown", self.destination.finish, worker.name, json.dumps(forged))
        self.refused("81: ", self.source.perform, self.domain, cookie, address)
        # The destination has dropped the job: the source must not wait for it to say so.
        scene.expect_nothing_left(10)

    def test_perform_twice(self):
        """The second would say that the guest was paused, or give the proof of a failed release."""
        prepared = self.prepared()
        cookie = self.source.perform(self.domain, *prepared)
        self.refused("performed already", self.source.perform, self.domain, *prepared)
        cookie = self.destination.finish(worker.name, cookie)
        self.source.confirm(self.domain, cookie)
        worker.expect_on(self.there)

    def test_finish_twice(self):
        cookie = self.source.perform(self.domain, *self.prepared())
        first = self.destination.finish(worker.name, cookie)
        self.destination.finish(worker.name, cookie)
        self.destination.finish(worker.name, cookie, cancelled=1)
        self.assertIn("has been let go", virsh(self.here, "destroy", worker.name).stderr)
        self.source.confirm(self.domain, first)
        self.refused("not being migrated|not found", self.source.confirm, self.domain, first)
        worker.expect_on(self.there)

    def test_confirm_before_finish(self):
        cookie = self.source.perform(self.domain, *self.prepared())
        self.refused("it goes on here", self.source.confirm, self.domain, b"")
        self.refused("", self.destination.finish, worker.name, cookie)
        worker.expect_on(self.here)

    @tap.long
    def test_finish_of_another_domain(self):
        other = scene.guest("other")
        self.assertEqual(virsh(self.there, "create", other.file, "--paused").returncode, 0)
        try:
            cookie = self.source.perform(self.domain, *self.prepared())
            self.refused("not arriving here", self.destination.finish, other.name, cookie)
            cookie = self.destination.finish(worker.name, cookie)
            self.refused("not arriving here", self.destination.finish, other.name, cookie)
            self.source.confirm(self.domain, cookie)
        finally:
            virsh(self.there, "destroy", other.name)
        worker.expect_on(self.there)

    def test_words_for_the_journal(self):
        cookie, xml = self.source.begin(self.domain)
        forged = {**json.loads(cookie), "host_name": "x\nstate committed\n%s%n"}
        cookie, address = self.destination.prepare(json.dumps(forged), xml)
        forged = {**json.loads(cookie), "host_name": "y\nstate ended\n%s%n"}
        self.complete(json.dumps(forged), address)
        worker.expect_on(self.there)

    def test_definitions_that_are_none(self):
        cookie, xml = self.source.begin(self.domain)
        for bad in (b"", b"<" * 1000, b"<a>" * 100000, b"<domain>" + b"x" * 3000000 + b"</domain>",
                    b"\0", b"<!DOCTYPE d [<!ENTITY a 'a'>]>" + xml,
                    xml.replace(b">worker<", b">../../worker<")):
            self.refused("", self.destination.prepare, cookie, bad)
        for bad in (b"", b"\xff" * 100, b"[" * 500000, b"{}", b'{"virtvz-migration":1}'):
            self.refused("", self.destination.prepare, bad, xml)


class Suspended(AttackTest):
    """A user suspends the guest while it is copied. Nobody resumes it before it has arrived or the
    move is undone: CPUs that run here meanwhile would be a second copy."""

    def setUp(self):
        super().setUp()
        scene.lab.shape("100mbit")
        self.addCleanup(scene.lab.shape, "none")
        self.user = phases.Client(self.here)
        self.addCleanup(self.user.close)
        self.domain = self.user.lookup(worker.name)

    def tearDown(self):
        self.user.close()
        super().tearDown()

    def expect_refusal(self):
        with self.assertRaises(phases.Refused) as caught:
            self.user.resume(self.domain)
        self.assertEqual(caught.exception.code, 55)
        self.assertRegex(str(caught.exception), "'worker' is being migrated .*resumed where it then "
                         "is, or once the job is aborted")
        self.assertEqual(self.user.state(self.domain), phases.PAUSED)

    def recorded(self, line):
        for record in self.here.path("/var/lib/virtvz/jobs").glob("*.out"):
            with contextlib.suppress(FileNotFoundError):
                if "\n%s\n" % line in record.read_text():
                    return True
        return False

    def suspend(self):
        eventually("memory is being copied", lambda: self.recorded("begin copy-memory"))
        self.user.suspend(self.domain)
        self.expect_refusal()

    def suspend_until_released(self):
        """Most of the memory is still to be sent then, which takes seconds."""
        self.suspend()
        self.user.set_max_downtime(self.domain, 60000)
        eventually("it is released", lambda: self.recorded("state released"))

    def ended(self, process, code=0):
        _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(process.returncode, code, err)
        return err

    def hand_over(self, *mode):
        process = begin_move(self.here, self.there, *mode)
        self.suspend_until_released()
        for _ in range(3):
            self.expect_refusal()
        self.assertFalse(self.recorded("done release"), "the last state is still on its way")
        self.ended(process)
        worker.expect_on(self.there)

    def test_resume_while_handed_over(self):
        self.hand_over()

    @tap.long
    def test_resume_while_handed_over_by_the_daemon(self):
        self.hand_over("--p2p")

    def test_resume_between_the_phases(self):
        """QEMU here has sent everything, and the destination may start the guest at any moment."""
        with phases.Client(self.here) as source, phases.Client(self.there) as destination:
            cookie, xml = source.begin(self.domain)
            cookie, address = destination.prepare(cookie, xml)
            performed = source.send_perform(self.domain, cookie, address)
            self.suspend_until_released()
            cookie = source.receive(performed).opaque()
            self.expect_refusal()
            cookie = destination.finish(worker.name, cookie)
            self.expect_refusal()
            source.confirm(self.domain, cookie)
        worker.expect_on(self.there)

    @tap.long
    def test_abort(self):
        """It stays suspended, as its user left it, and is his again."""
        for mode in ((), ("--p2p",)):
            with self.subTest(mode=mode):
                process = begin_move(self.here, self.there, *mode)
                self.suspend()
                virsh(self.here, "domjobabort", worker.name)
                self.assertIn("canceled by client", self.ended(process, 1))
                self.assertEqual(virsh(self.here, "domstate", "--reason", worker.name).stdout.strip(),
                                 "paused (user)")
                self.user.resume(self.domain)
                worker.expect_on(self.here)
                with worker.unharmed():
                    scene.expect_nothing_left()

    def test_suspended_by_a_timeout(self):
        """virsh suspends it after a second; where it arrives it runs."""
        process = begin_move(self.here, self.there, "--timeout", "1", "--timeout-suspend")
        eventually("virsh has suspended it",
                   lambda: self.user.state(self.domain) == phases.PAUSED, 20)
        self.assertFalse(self.recorded("done copy-memory"))
        self.expect_refusal()
        self.ended(process)
        worker.expect_on(self.there)


class Crowd(AttackTest):
    def test_ten_clients_at_once(self):
        """Each does what it likes to the same two guests, on both hosts."""
        self.second = scene.guest("second", "vz.dirty=2")
        deadline = time.monotonic() + (60 if tap.LONG else 6)
        crowd = [threading.Thread(target=self.client, args=(number, deadline))
                 for number in range(10)]
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()
        for host in scene.lab.hosts:
            virsh(host, "destroy", self.second.name)
            virsh(host, "undefine", self.second.name)
            virsh(host, "resume", worker.name)
        eventually("it runs", lambda: "running" in [worker.state(host) for host in scene.lab.hosts])
        here, there = self.hosts_now()
        virsh(there, "undefine", worker.name)  # one that a move without --undefinesource kept
        virsh(here, "define", worker.file)
        worker.expect_on(here)

    def client(self, number, deadline):
        chance = random.Random("%d %d" % (SEED, number))
        while time.monotonic() < deadline:
            here, there = chance.sample(scene.lab.hosts, 2)
            guest = chance.choice((worker, self.second))
            move = ("migrate", *MOVE, guest.name, scene.uri(there))
            words = [move, move, move + ("--p2p",), move + ("--p2p",), ("suspend", guest.name),
                     ("resume", guest.name), ("domjobabort", guest.name), ("dumpxml", guest.name),
                     ("define", guest.file), ("list", "--all"), ("reset", self.second.name),
                     ("start", guest.name), ("destroy", self.second.name),
                     ("undefine", self.second.name)]
            virsh(here, *chance.choice(words))

    def test_strangers_on_the_ports(self):
        """Connections that say nothing, half a word or rubbish do not keep others out."""
        with scene.lab.observer.popen(sys.executable, "-c", STRANGERS, self.here.address,
                                      self.there.address) as strangers:
            self.assertGreater(int(strangers.stdout.readline()), 100)
            for mode in ((), ("--p2p",)):
                here, there = self.hosts_now()
                done = begin_move(here, there, *mode)
                _, err = done.communicate(timeout=MIGRATE_TIMEOUT_S)
                self.assertEqual(done.returncode, 0, err)
            strangers.kill()


class Moments(AttackTest):
    """What happens at a random moment of a move."""

    def setUp(self):
        super().setUp()
        scene.lab.shape("300mbit")
        self.addCleanup(scene.lab.shape, "none")

    def each(self, attacks, rounds):
        for number in range(rounds):
            here, there = self.hosts_now()
            mode = self.random.choice(((), ("--p2p",)))
            name, attack = attacks[number % len(attacks)]
            with self.subTest(number=number, attack=name, mode=mode):
                with worker.unharmed():
                    process = begin_move(here, there, *mode)
                    time.sleep(self.random.uniform(0, 1.2))
                    attack(here, there, process)
                    process.communicate(timeout=MIGRATE_TIMEOUT_S)
                    eventually("one host runs it, the other does not", settled, 90)
                scene.expect_nothing_left()

    def signal(self, host, pattern, *signals, pause_s=0):
        for number in signals:
            host.run("pkill", "-" + number, "-f", pattern, check=False)
            time.sleep(pause_s)

    def test_kills_and_aborts(self):
        attacks = [
            ("abort", lambda here, there, process: virsh(here, "domjobabort", worker.name)),
            ("client", lambda here, there, process: process.kill()),
            ("carrier here", lambda here, there, process: self.signal(
                here, "virtvz-carrier", "KILL")),
            ("carrier there", lambda here, there, process: self.signal(
                there, "virtvz-carrier", "KILL")),
            ("abort there", lambda here, there, process: virsh(there, "domjobabort", worker.name)),
        ]
        self.each(attacks, 100 if tap.LONG else 6)

    def test_processes_that_stand_still(self):
        pause_s = 15 if tap.LONG else 3
        patterns = ("^/.*virtvzd", "virtvz-carrier", "qemu-system.*-incoming")
        attacks = [(pattern, lambda here, there, process, one=pattern: self.signal(
            there, one, "STOP", "CONT", pause_s=pause_s)) for pattern in patterns]
        self.each(attacks, len(attacks) if tap.LONG else 1)

    def test_guest_reboots_itself(self):
        process = begin_move(self.here, self.there)
        self.copying()
        worker.ask("reboot", 5)
        _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(process.returncode, 0, err)
        worker.expect_on(self.there)

    @tap.long
    def test_guest_powers_off(self):
        process = begin_move(self.here, self.there, "--p2p")
        self.copying()
        worker.ask("off", 5)
        _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertIn("the guest shut down while it was being migrated", err)
        eventually("it is shut off", lambda: worker.state(self.here) == "shut off")
        self.assertIsNone(worker.state(self.there))
        scene.expect_nothing_left()
        worker.start(self.here)


if __name__ == "__main__":
    tap.main()
