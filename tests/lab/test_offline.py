"""Domains that are shut off and move to another host: their definition, and with it the right to
start them. By virsh of both releases, managed and peer to peer, and by vz; and what dies, is cut or
asked of a host meanwhile. Afterwards one host has the definition, whole, and may start it.

The daemons are virtvzd-faults (src/migrate/saga.c). A sample of its deaths for `make check`; all of
them with VZ_LONG=1.
"""

import json
import os
import random
import re
import signal
import struct
import sys
import threading
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import matrix  # noqa: E402
import phases  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402
from test_migrate import own_virsh_version, virsh_of_the_machine  # noqa: E402

COMMAND_TIMEOUT_S = 120
SETTLE_TIMEOUT_S = 90
FAULT_FILE = "/run/virtvz-fault"
DUMP_XML, SECURE, INACTIVE, MIGRATABLE = 14, 1, 2, 8  # libvirt's numbers
STATES = {1: "running", 3: "paused", 5: "shut off"}
MOVE = ("--offline", "--persistent", "--undefinesource")
SEED = int(os.environ.get("VZ_TEST_SEED", "1"))
SAMPLE = 6
LONG = os.environ.get("VZ_LONG") == "1"

scene = None
disked = bare = None


def setUpModule():
    global scene, disked, bare
    with for_module(Scene("offline", faulty=True, env={"VZ_FAULT_FILE": FAULT_FILE})) as scene:
        disked = scene.guest("disked", "vz.dirty=2", disk=True)
        bare = scene.guest("bare", "vz.dirty=2")


def virsh(host, *words, **more):
    return host.run("virsh", "-c", VZ, *words, check=False, timeout=COMMAND_TIMEOUT_S, **more)


def vz(host, *words):
    return host.run("vz", *words, check=False, timeout=COMMAND_TIMEOUT_S)


def alive(host):
    try:
        with phases.Client(host):
            return True
    except (OSError, EOFError):
        return False


def state(host, guest):
    """None where it is not known; by the protocol itself, which is quicker than virsh."""
    with phases.Client(host) as client:
        found = client.state_of(guest.name)
    return STATES[found[0]] if found else None


def jobs(host):
    return [json.loads(line) for line in vz(host, "--json", "jobs").stdout.splitlines()]


def definition(host, name):
    with phases.Client(host) as client:
        return client.call(DUMP_XML, client.lookup(name) + struct.pack(
            ">I", SECURE | INACTIVE | MIGRATABLE)).opaque().decode()


def arm(host, step, how, when):
    new = host.path(FAULT_FILE + ".new")
    new.write_text("%s:%s:%s\n" % (step, how, when))
    os.rename(new, host.path(FAULT_FILE))


def fired(host):
    return host.path(FAULT_FILE + ".fired").exists()


def disarm(host):
    for suffix in ("", ".fired"):
        host.path(FAULT_FILE + suffix).unlink(missing_ok=True)


class OfflineTest(unittest.TestCase):
    def setUp(self):
        self.a, self.b = scene.a, scene.b
        self.before = {}
        self.define(disked)

    def define(self, guest):
        self.ok(virsh(self.a, "define", guest.file))
        self.before[guest.name] = definition(self.a, guest.name)

    def tearDown(self):
        for host in scene.lab.hosts:
            disarm(host)
            if not alive(host):
                host.daemon("start")
        try:
            scene.expect_nothing_left(60)
        except BaseException:
            scene.show_logs()
            raise
        finally:
            for host in scene.lab.hosts:
                with phases.Client(host) as client:
                    domains = client.domains()
                for name, _, active in domains:
                    if active:
                        virsh(host, "destroy", name)
                    virsh(host, "undefine", name)
            for host in scene.lab.hosts:
                for place, names in (("domains", "*.marks"), ("trail", "*")):
                    for one in host.path("/var/lib/virtvz/" + place).glob(names):
                        one.unlink()

    def ok(self, done):
        self.assertEqual(done.returncode, 0, "%s%s" % (done.stdout, done.stderr))
        return done

    def refused(self, done, *texts):
        self.assertNotEqual(done.returncode, 0, done.stdout)
        for text in texts:
            self.assertRegex(done.stderr, text)

    def move(self, here, there, *options, guest=None):
        return virsh(here, "migrate", *(options or MOVE), (guest or disked).name, scene.uri(there))

    def is_on(self, host, guest=None, other=None):
        """Defined here, as it was; there it is gone, or what is said."""
        guest = guest or disked
        rest = [one for one in scene.lab.hosts if one is not host][0]
        self.assertEqual((state(host, guest), state(rest, guest)), ("shut off", other))
        self.assertEqual(definition(host, guest.name), self.before[guest.name])

    def starts_on(self, host, guest=None):
        """Really, and alone: its disk is not another's."""
        guest = guest or disked
        eventually("it starts on %s" % host.name, lambda: virsh(
            host, "start", "--paused", guest.name).returncode == 0 or self.say(
                virsh(host, "start", "--paused", guest.name)), 30)
        self.assertEqual(state(host, guest), "paused")
        self.ok(virsh(host, "destroy", guest.name))

    @staticmethod
    def say(done):
        print("# not yet:", done.stderr.strip())
        return False


class Moves(OfflineTest):
    def test_there_and_back(self):
        """Managed and peer to peer, with a shared disk and without any."""
        self.define(bare)
        here, there = self.a, self.b
        for options in (MOVE, (*MOVE, "--p2p")):
            for guest in (disked, bare):
                with self.subTest(options=options, guest=guest.name):
                    self.ok(self.move(here, there, *options, guest=guest))
                    self.is_on(there, guest)
            here, there = there, here
        self.starts_on(here)
        self.starts_on(here, bare)

    def test_the_machines_virsh(self):
        version = own_virsh_version()
        if not version or version == self.a.out("virsh", "--version"):
            self.skipTest("this machine's virsh is the hosts' own")
        here, there = self.a, self.b
        for options in (MOVE, (*MOVE, "--p2p")):
            with self.subTest(options=options):
                self.ok(virsh_of_the_machine(here, "migrate", *options, disked.name, scene.uri(there)))
                self.is_on(there)
            here, there = there, here
        self.starts_on(here)

    def test_the_client_is_elsewhere(self):
        """The hosts find each other although the client is on neither, or comes by another way."""
        for here, there in ((self.a, self.b), (self.b, self.a)):
            done = self.b.run("virsh", "-c", scene.uri(here), "migrate", *MOVE, disked.name,
                              scene.uri(there), check=False)
            self.ok(done)
            self.is_on(there)

    def test_vz(self):
        done = self.ok(vz(self.a, "migrate", disked.name, self.b.address))
        self.assertIn("'disked' is shut off: it is moved offline", done.stderr)
        self.assertRegex(done.stdout, r"disked is on \S+ now\n(.*\n)*  there +shut off, defined\n"
                                      r"  here +removed\n")
        self.is_on(self.b)
        done = self.ok(vz(self.b, "--json", "migrate", "--keep-source", disked.name, self.a.address))
        result = [json.loads(line) for line in done.stdout.splitlines()][-1]
        self.assertEqual((result["status"], result["guest"], result["defined_there"], result["kept_here"]),
                         ("moved", "shut off", True, True))
        self.is_on(self.a, other="shut off")
        self.refused(vz(self.a, "migrate", "--live", disked.name, self.b.address), "cannot be moved live")
        self.refused(vz(self.a, "migrate", "--max-downtime", "9", disked.name, self.b.address),
                     "no downtime to limit")
        self.refused(vz(self.a, "migrate", "--transient", disked.name, self.b.address),
                     "must be specified with the persistent flag")

    def test_kept_definition_is_marked(self):
        """As it is after a live move: it starts here when it is nowhere else any more."""
        self.ok(self.move(self.a, self.b, "--offline", "--persistent"))
        self.is_on(self.b, other="shut off")
        self.refused(virsh(self.a, "start", disked.name), "has moved to hostb and is defined there")
        self.refused(self.move(self.a, self.b, "--offline", "--persistent"), "has moved to hostb")
        self.starts_on(self.b)
        self.ok(self.move(self.b, self.a, "--offline", "--persistent"))
        self.refused(virsh(self.b, "start", disked.name), "has moved to hosta and is defined there")
        self.starts_on(self.a)
        self.ok(virsh(self.a, "undefine", disked.name))
        self.starts_on(self.b)

    def test_new_name(self):
        self.ok(self.move(self.a, self.b, *MOVE, "--dname", "other"))
        self.assertEqual(definition(self.b, "other"),
                         self.before["disked"].replace("<name>disked<", "<name>other<"))
        self.ok(virsh(self.b, "migrate", *MOVE, "--p2p", "--dname", "disked", "other", scene.uri(self.a)))
        self.is_on(self.a)

    def test_autostart_stays_behind(self):
        """As with libvirt, where it is no part of the definition."""
        self.ok(virsh(self.a, "autostart", disked.name))
        self.ok(self.move(self.a, self.b, "--offline", "--persistent"))
        for host, word in ((self.a, "enable"), (self.b, "disable")):
            self.assertRegex(virsh(host, "dominfo", disked.name).stdout, r"Autostart: +" + word)

    def test_what_was_defined_there_is_replaced(self):
        """And stands again where the move fails."""
        old = disked.xml.replace("</name>", "</name><title>old</title>")
        self.b.path("/tmp/old.xml").write_text(old)
        self.ok(virsh(self.b, "define", "/tmp/old.xml"))
        there = definition(self.b, disked.name)
        arm(self.b, "commit", "fail", "before")
        self.refused(self.move(self.a, self.b), "injected fault")
        self.is_on(self.a, other="shut off")
        self.assertEqual(definition(self.b, disked.name), there)
        self.ok(self.move(self.a, self.b))
        self.is_on(self.b)

    def test_events_and_statistics(self):
        watchers = {host: host.popen("virsh", "-c", VZ, "event", "--all", "--loop")
                    for host in (self.a, self.b)}
        time.sleep(1)
        self.ok(self.move(self.a, self.b))
        eventually("the source is done", lambda: state(self.a, disked) is None)
        lines = {}
        for host, process in watchers.items():
            process.send_signal(signal.SIGINT)
            text = process.communicate(timeout=10)[0]
            lines[host] = re.findall(r"event '([^']*)' for domain '?disked'?(?:: (\w+ \w+)$)?", text,
                                     re.MULTILINE)
        self.assertEqual(lines[self.a], [("job-completed", ""), ("lifecycle", "Undefined Removed")])
        self.assertEqual(lines[self.b], [("lifecycle", "Defined Added")])
        text = virsh(self.b, "domjobinfo", "--completed", disked.name).stdout
        self.assertRegex(text, r"Job type:\s+Completed\s+Operation:\s+Incoming migration")
        self.assertNotIn("Memory", text)


class Refusals(OfflineTest):
    def still_here(self, guest=None):
        self.is_on(self.a, guest)
        scene.expect_nothing_left(30)

    def test_options(self):
        for options, text in (
                (("--offline",), "must be specified with the persistent flag"),
                ((*MOVE, "--suspend"), "paused offline migration does not make sense"),
                ((*MOVE, "--copy-storage-all"), "cannot handle non-shared storage")):
            for mode in ((), ("--p2p",)):
                with self.subTest(options=options, mode=mode):
                    self.refused(self.move(self.a, self.b, *options, *mode), text)
        self.refused(self.move(self.a, self.b, "--persistent"), "domain is not running")
        self.still_here()

    def test_running(self):
        """Managed it is refused, peer to peer the domain moves as it runs."""
        self.define(bare)
        self.ok(virsh(self.a, "start", bare.name))
        self.refused(self.move(self.a, self.b, guest=bare), "domain is running; drop --offline")
        self.ok(self.move(self.a, self.b, "--offline", "--persistent", "--p2p", guest=bare))
        self.assertEqual((state(self.a, bare), state(self.b, bare)), ("shut off", "running"))
        self.assertIn("--offline was ignored", virsh(self.a, "dominfo", bare.name).stdout)
        done = self.ok(vz(self.b, "migrate", "--offline", bare.name, self.a.address))
        self.assertIn("'bare' is running, so --offline is ignored", done.stderr)
        self.assertEqual((state(self.a, bare), state(self.b, bare)), ("running", None))

    def test_disk_that_is_not_shared(self):
        image = "/var/lib/own.img"
        own = disked.xml.replace(disked.image, image)
        for host in scene.lab.hosts:
            host.run("truncate", "-s", "16M", image)
        self.a.path("/tmp/own.xml").write_text(own)
        self.ok(virsh(self.a, "define", "/tmp/own.xml"))
        self.before["disked"] = definition(self.a, disked.name)
        for mode in ((), ("--p2p",)):
            self.refused(self.move(self.a, self.b, *MOVE, *mode),
                         "Unsafe migration: disk '[a-z]*' is not on shared storage")
        self.still_here()
        for host in scene.lab.hosts:
            self.assertEqual([one for one in os.listdir(host.path("/var/lib")) if "virtvz-" in one], [])

    def test_name_clash(self):
        self.define(bare)
        other = re.sub("<uuid>.*</uuid>", "<uuid>2c8ff5f0-7f10-4d3e-9d6b-1f0f5b7d8a11</uuid>", bare.xml)
        self.b.path("/tmp/other.xml").write_text(other.replace(bare.address, "192.0.2.9"))
        self.ok(virsh(self.b, "define", "/tmp/other.xml"))
        theirs = definition(self.b, bare.name)
        for mode in ((), ("--p2p",)):
            self.refused(self.move(self.a, self.b, *MOVE, *mode, guest=bare), "'bare' already exists with uuid")
        self.is_on(self.a, bare, other="shut off")
        self.assertEqual(definition(self.b, bare.name), theirs)
        self.ok(self.move(self.a, self.b, *MOVE, "--dname", "another", guest=bare))

    def test_runs_there(self):
        """The same UUID is active there, by somebody's mistake: it is not touched."""
        self.define(bare)
        self.ok(virsh(self.b, "create", bare.file))
        self.refused(self.move(self.a, self.b, guest=bare), "'bare' is already active")
        self.assertEqual(state(self.b, bare), "running")

    def test_the_source_cannot_ask(self):
        """The way to ask is proved before the source lets go; the reason comes back to the client."""
        self.refused(self.move(self.a, self.b, *MOVE, "--migrateuri", "tcp:%s:1" % self.b.address),
                     "data port cannot be reached")
        self.is_on(self.a)
        self.starts_on(self.a)


class WhileItMoves(OfflineTest):
    def held(self, host, step, when, *options):
        """A move that has come to a step, and stays there until let_on()."""
        arm(host, step, "hold", when)
        process = self.a.popen("virsh", "-c", VZ, "migrate", *(options or MOVE), disked.name,
                               scene.uri(self.b))
        eventually("%s is reached" % step, lambda: fired(host) or process.poll() is not None, 60)
        self.assertTrue(fired(host), process.poll() is not None and process.communicate())
        return process

    @staticmethod
    def ended(process):
        out, err = process.communicate(timeout=COMMAND_TIMEOUT_S)
        return process.returncode, out + err

    def test_changes_are_refused(self):
        for host, step in ((self.a, "hand-over"), (self.b, "persist")):
            with self.subTest(step=step):
                process = self.held(host, step, "before")
                (job,) = [one for one in jobs(self.a) if not one["phase"].startswith("over")]
                changes = [("start", disked.name), ("undefine", disked.name), ("define", disked.file),
                           ("create", disked.file), ("autostart", disked.name)]
                if host is self.b:  # a source that is held has no time for such a call
                    changes += [("migrate", *MOVE, disked.name, scene.uri(self.b)),
                                ("migrate", "--live", disked.name, scene.uri(self.b))]
                for words in changes:
                    self.refused(virsh(self.a, *words), "migration out to|another migration job")
                self.assertEqual(job["domain"], disked.name)
                self.assertRegex(virsh(self.a, "domjobinfo", disked.name).stdout, "Outgoing migration")
                if host is self.b:
                    self.refused(virsh(self.a, "destroy", disked.name), "domain is not running")
                    self.refused(virsh(self.a, "domjobabort", disked.name), "let go")
                    self.assertIsNone(state(self.b, disked), "nothing is defined before Finish")
                    self.refused(virsh(self.b, "create", disked.file), "already being started|job")
                disarm(host)
                self.assertEqual(self.ended(process)[0], 0)
                self.is_on(self.b)
                self.ok(self.move(self.b, self.a))

    def test_two_clients_at_once(self):
        """The second one comes to a domain that has gone meanwhile."""
        process = self.held(self.a, "hand-over", "before")
        second = self.a.popen("virsh", "-c", VZ, "migrate", *MOVE, disked.name, scene.uri(self.b))
        time.sleep(2)
        disarm(self.a)
        self.assertEqual(self.ended(process)[0], 0)
        status, text = self.ended(second)
        self.assertNotEqual(status, 0)
        self.assertRegex(text, "not defined here any more|failed to get domain|not found")
        self.is_on(self.b)

    def test_client_that_dies(self):
        """Before the source lets go the move is off; after it, it is what the destination says."""
        for host, step, when, there in ((self.b, "fetch-proof", "before", False),
                                        (self.a, "release", "after", None),
                                        (self.b, "commit", "after", True)):
            with self.subTest(step=step):
                process = self.held(host, step, when)
                process.kill()
                process.communicate()
                disarm(host)
                eventually("it is settled", lambda: not jobs(self.a) and not jobs(self.b), 60)
                states = (state(self.a, disked), state(self.b, disked))
                self.assertIn(states, [("shut off", None), (None, "shut off")])
                if there is not None:
                    self.assertEqual(states[1] is not None, there)
                home = self.b if states[1] else self.a
                self.is_on(home)
                self.starts_on(home)
                if home is self.b:
                    self.ok(self.move(self.b, self.a))

    def test_link_cut_before_confirm(self):
        process = self.held(self.a, "hand-over", "before", *MOVE)
        self.b.link("down")
        try:
            disarm(self.a)
            eventually("it is in doubt", lambda: [one for one in jobs(self.a) if one["phase"] == "in doubt"], 60)
            self.assertRegex(virsh(self.a, "dominfo", disked.name).stdout,
                             "in doubt: hostb does not say whether the guest is defined there; it is not "
                             "started here")
            self.refused(virsh(self.a, "start", disked.name), "migration out to")
            process.kill()
            process.communicate()
        finally:
            self.b.link("up")
        eventually("it is settled", lambda: state(self.a, disked) is None, SETTLE_TIMEOUT_S)
        self.is_on(self.b)
        self.starts_on(self.b)

    def in_doubt(self):
        """The destination has committed and is dead."""
        arm(self.b, "commit", "crash", "after")
        process = self.a.popen("virsh", "-c", VZ, "migrate", *MOVE, "--p2p", disked.name, scene.uri(self.b))
        eventually("the source is in doubt", lambda: [
            one for one in jobs(self.a) if one["phase"] == "in doubt"], 60)
        self.assertNotEqual(self.ended(process)[0], 0)
        self.refused(virsh(self.a, "start", disked.name), "migration out to")

    def test_doubt_resolved_here(self):
        """The operator takes it back, and the other host gives up its copy when it hears of that."""
        self.in_doubt()
        self.refused(vz(self.a, "resolve", disked.name, "--there", "--yes"), "may be the only one")
        self.ok(vz(self.a, "resolve", disked.name, "--here", "--yes"))
        self.starts_on(self.a)
        self.b.daemon("start")
        eventually("the other copy is given up", lambda: state(self.b, disked) is None, SETTLE_TIMEOUT_S)
        self.is_on(self.a)

    if LONG:
        def test_doubt_settles_itself(self):
            self.in_doubt()
            self.b.daemon("start")
            eventually("it is settled", lambda: state(self.a, disked) is None, SETTLE_TIMEOUT_S)
            self.is_on(self.b)
            self.starts_on(self.b)

        def test_host_that_goes_down(self):
            """With its disk as it was synced: the records decide as after a daemon's death."""
            process = self.held(self.b, "settle-in", "before", *MOVE, "--p2p")
            self.b.crash()
            process.kill()
            process.communicate()
            self.b.boot()
            eventually("it is settled", lambda: state(self.a, disked) is None, SETTLE_TIMEOUT_S)
            eventually("hostb answers", lambda: alive(self.b), 30)
            self.is_on(self.b)
            self.starts_on(self.b)


def every_death():
    facts = matrix.OFFLINE_FACTS
    for step in matrix.STEPS:
        if matrix.has(step, facts):
            for when in ("before", "after"):
                for mode in ("managed", "p2p"):
                    yield step.side, step.name, when, mode


def deaths():
    every = list(every_death())
    if LONG:
        return every
    crucial = [("source", "release", "after", "managed"), ("destination", "persist", "after", "managed"),
               ("destination", "commit", "after", "p2p"), ("source", "undefine", "after", "managed")]
    rest = [one for one in every if one not in crucial]
    return crucial + random.Random(SEED).sample(rest, SAMPLE - len(crucial))


class Deaths(OfflineTest):
    def one(self, side, step, when, mode):
        victim = self.a if side == "source" else self.b
        arm(victim, step, "crash", when)
        process = self.a.popen("virsh", "-c", VZ, "migrate", *MOVE, *matrix.MODES[mode], disked.name,
                               scene.uri(self.b))
        eventually("the daemon dies at %s" % step, lambda: not alive(victim), 60)
        victim.daemon("start")
        self.try_both()
        process.communicate(timeout=COMMAND_TIMEOUT_S)
        eventually("one host has it, the other has not", self.settled, SETTLE_TIMEOUT_S)
        home = self.a if state(self.a, disked) else self.b
        self.is_on(home)
        if matrix.after(matrix.Case(step, None, when, mode, None), "pivot"):
            self.assertIs(home, self.b)
        self.starts_on(home)
        scene.expect_nothing_left(60)

    def try_both(self):
        """While nothing is settled yet, somebody starts it on both hosts at once."""
        started = []

        def start(host):
            if virsh(host, "start", "--paused", disked.name).returncode == 0:
                started.append(host)
        threads = [threading.Thread(target=start, args=(host,)) for host in scene.lab.hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertLessEqual(len(started), 1, "it was started on both hosts")
        for host in started:
            self.ok(virsh(host, "destroy", disked.name))

    def settled(self):
        states = sorted(str(state(host, disked)) for host in scene.lab.hosts)
        return not any(jobs(host) for host in scene.lab.hosts) and states == ["None", "shut off"]


def add(number, case):
    def test(self):
        try:
            self.one(*case)
        except BaseException:
            scene.show_logs()
            raise
    setattr(Deaths, "test_%02d_%s_dies_%s_%s_%s" % (number, case[0], case[2], case[1].replace("-", "_"), case[3]),
            test)


for index, chosen in enumerate(deaths()):
    add(index, chosen)


if __name__ == "__main__":
    tap.main()
