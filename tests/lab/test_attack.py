"""Attacks on guests that move: phases called wrongly, everybody at once, processes that stop or die
at any moment. After each: exactly one copy runs, whole, nothing is left over, and the next move works.

What takes long is behind VZ_TEST_LONG=1. VZ_TEST_SEED repeats a run's choices.
"""

import json
import os
import random
import re
import signal
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import phases  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually  # noqa: E402

LONG = os.environ.get("VZ_TEST_LONG") == "1"
SEED = int(os.environ.get("VZ_TEST_SEED", "1"))
MIGRATE_TIMEOUT_S = 120
MOVE = ("--live", "--persistent", "--undefinesource")

scene = None
worker = None


def setUpModule():
    global scene, worker
    scene = Scene(os.environ.get("VZ_TEST_LAB", "attack"))
    scene.__enter__()
    try:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        worker.start(scene.a)
    except BaseException:
        scene.__exit__()
        raise


def tearDownModule():
    scene.__exit__()


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
        self.here, self.there = scene.a, scene.b
        if worker.state(scene.a) != "running":
            self.here, self.there = scene.b, scene.a
        self.survived = worker.unharmed()
        self.survived.__enter__()

    def tearDown(self):
        try:
            eventually("one host runs it, the other does not", settled, 90)
            self.survived.__exit__(None, None, None)
            scene.expect_nothing_left()
            self.assertEqual([self.daemon(host) for host in scene.lab.hosts], self.daemons,
                             "the daemons are the same processes")
        except BaseException:
            scene.show_logs()
            raise

    def daemon(self, host):
        return host.out("pgrep", "-x", "virtvzd").split()[0]

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


if __name__ == "__main__":
    tap.main()
