"""Tunnelled moves between hosts whose data ports nobody else can reach: what goes where is read from the
kernel's counters of each connection, and other clients ask all the while. Then connections that are cut
and daemons that die, around the release, too: the question whether the guest runs there has no other way
either.

One guest serves the whole file; each test begins with it running on one host, defined there only. The
daemons are virtvzd-faults (HACKING.md).
"""

import os
import re
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from moving import MIGRATE_TIMEOUT_S, MOVE, MovingTest, virsh  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

DATA_PORT = 16515
DAEMON_PORT = 16509
SLOW = "100mbit"  # some seconds for the guest's memory
MEMORY_BYTES_MIN = 20 << 20  # of what a move of the guest sends at least
CALLS_BYTES_MAX = 1 << 20
ANSWERS_MIN = 3  # to each client that asks during a slow move
ANSWER_S_MAX = 15  # on a busy machine; a client that has to wait for the move waits longer
BY_TUNNEL = ("--p2p", "--tunnelled", *MOVE)

scene = None
guest = None


def setUpModule():
    global scene, guest
    with for_module(Scene("tunnel", faulty=True)) as scene:
        guest = scene.guest("worker", "vz.dirty=4", disk=True)
        for host in scene.lab.hosts:
            with open(host.path("/etc/virtvz/virtvzd.conf"), "a", encoding="ascii") as file:
                file.write("data_address = 127.0.0.1\n")
            host.daemon("restart")
        guest.start(scene.a)
    MovingTest.scene, MovingTest.guest = scene, guest


def sent_by_port(host, port):
    """{connection: bytes sent} of the host's connections to that port of another."""
    out = host.out("ss", "-tinHO", "state", "established", "dport", "=", ":%d" % port)
    found = {}
    for line in out.splitlines():
        count = re.search(r"bytes_sent:(\d+)", line)
        local, peer = re.findall(r"(\S+:\d+)", line)[:2]
        if not peer.startswith(("127.", "[::1]", "[::ffff:127.")):
            found[local] = int(count.group(1)) if count else 0
    return found


class Asker(threading.Thread):
    """A client that asks the same again and again; how long each answer took is in `took`."""

    def __init__(self, host, *words):
        super().__init__()
        self.host, self.words = host, words
        self.took, self.failures = [], []
        self.over = threading.Event()
        self.start()

    def run(self):
        while not self.over.is_set():
            began = time.monotonic()
            done = virsh(self.host, *self.words, check=False)
            if done.returncode == 0:
                self.took.append(time.monotonic() - began)
            elif not self.over.is_set():
                self.failures.append(done.stderr)
            time.sleep(0.1)

    def stop(self):
        self.over.set()
        self.join()


class TunnelTest(MovingTest):
    def setUp(self):
        super().setUp()
        self.addCleanup(scene.lab.shape, "none")

    def begin(self, *options, shaped=True):
        """A tunnelled move that is under way: (here, there, its process)."""
        here, there = self.where()
        if shaped:
            scene.lab.shape(SLOW)
        process = here.popen("virsh", "-c", VZ, "migrate", *BY_TUNNEL, *options, guest.name,
                             scene.uri(there))
        return here, there, process

    def copying(self, host):
        eventually("memory is being copied", lambda: re.search(
            r"Memory processed: +[1-9][0-9.]+ MiB",
            virsh(host, "domjobinfo", guest.name, check=False).stdout), 30)

    def failed(self, process, here, there):
        _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(process.returncode, 1, err)
        eventually("it goes on here", lambda: guest.state(here) == "running")
        eventually("nothing is left there", lambda: guest.state(there) is None)
        return err


class Way(TunnelTest):
    def test_there_is_no_other(self):
        with guest.unharmed():
            self.refused("--p2p", *MOVE, error="data port cannot be reached")

    def test_only_the_daemons_port(self):
        """And nobody who asks either daemon meanwhile has to wait."""
        with guest.unharmed():
            here, there, process = self.begin()
            askers = [Asker(here, "domjobinfo", guest.name), Asker(there, "list", "--all"),
                      Asker(here, "-c", scene.uri(there), "list")]
            most = {}
            while process.poll() is None:
                for connection, count in sent_by_port(here, DAEMON_PORT).items():
                    most[connection] = max(count, most.get(connection, 0))
                self.assertEqual(sent_by_port(here, DATA_PORT), {})
                time.sleep(0.2)
                answered = min(len(one.took) for one in askers)
                if answered >= ANSWERS_MIN and max(most.values(), default=0) > MEMORY_BYTES_MIN:
                    scene.lab.shape("none")
            for one in askers:
                one.over.set()
            out, err = process.communicate()
            for one in askers:
                one.stop()
            self.assertEqual(process.returncode, 0, out + err)
            guest.expect_on(there)
        sizes = sorted(most.values())
        print("bytes of each connection to the daemon: %s; answers: %s, the slowest after %.1f s" % (
            sizes, [len(one.took) for one in askers], max(max(one.took) for one in askers)),
            file=sys.stderr)
        self.assertGreater(sizes[-1], MEMORY_BYTES_MIN)
        self.assertLess(sizes[-2], CALLS_BYTES_MAX)  # that of the calls, and questions
        for one in askers:
            # The first that comes after the move, of one that asks for the guest.
            self.assertEqual([text for text in one.failures if "failed to get domain" not in text], [])
            self.assertGreaterEqual(len(one.took), ANSWERS_MIN)
            self.assertLess(max(one.took), ANSWER_S_MAX)

    def test_by_vz(self):
        here, there = self.where()
        with guest.unharmed():
            plan = here.run("vz", "check", guest.name, there.address, "--tunnelled", check=False)
            self.assertEqual(plan.returncode, 0, plan.stdout + plan.stderr)
            self.assertRegex(plan.stdout, r"data port +vz\+tcp://%s/system\n" % there.address)
            here.out("vz", "migrate", guest.name, there.address, "--tunnelled", "--compressed",
                     timeout=MIGRATE_TIMEOUT_S)
            guest.expect_on(there)

    def test_not_without_the_daemon(self):
        """libvirt's client refuses it by itself."""
        with guest.unharmed():
            self.refused("--tunnelled", *MOVE, error="cannot perform tunnelled migration without using peer2peer")

    @tap.long
    def test_where_it_is(self):
        """A host that has moved its guest away asks before it starts the definition that it kept."""
        here, there = self.where()
        with guest.unharmed():
            virsh(here, "migrate", "--p2p", "--tunnelled", "--live", "--persistent", guest.name,
                  scene.uri(there))
            done = virsh(here, "start", guest.name, check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("moved to %s" % there.name, done.stderr)
            self.assertNotIn("cannot", done.stderr)
            guest.expect_on(there, other="shut off")


class Cuts(TunnelTest):
    def test_connection_of_the_data(self):
        """It alone is cut, by a reset out of nowhere; the move is called off over the other one."""
        with guest.unharmed():
            here, there, process = self.begin()
            self.copying(here)
            sent = sent_by_port(here, DAEMON_PORT)
            fattest = max(sent, key=sent.get)
            here.out("ss", "-K", "state", "established", "src", fattest, "dport", "=", ":%d" % DAEMON_PORT)
            self.failed(process, here, there)

    @tap.long
    def test_link(self):
        """A short cut is survived, a long one ends the move."""
        with guest.unharmed(beats=False):
            here, there, process = self.begin()
            self.copying(here)
            there.link("down")
            time.sleep(2)
            there.link("up")
            scene.lab.shape("none")
            out, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
            self.assertEqual(process.returncode, 0, out + err)
            guest.expect_on(there)

    @tap.long
    def test_daemon_of_the_source(self):
        with guest.unharmed():
            here, there, process = self.begin()
            self.copying(here)
            here.daemon("kill")
            here.daemon("start")
            self.failed(process, here, there)

    @tap.long
    def test_daemon_of_the_destination(self):
        with guest.unharmed():
            here, there, process = self.begin()
            self.copying(here)
            there.daemon("kill")
            there.daemon("start")
            self.failed(process, here, there)


class Crashes(TunnelTest):
    """Daemons that die around the release and the commit: the record knows the way by which to ask."""

    def one(self, side, step, when):
        here, there = self.where()
        victim = here if side == "source" else there
        scene.survive_crash(guest, victim, "%s:crash:%s" % (step, when),
                            lambda: self.begin(shaped=False)[2])

    @tap.long
    def test_source_before_the_release(self):
        self.one("source", "release", "before")

    def test_source_after_the_release(self):
        self.one("source", "release", "after")

    @tap.long
    def test_source_after_the_verdict(self):
        self.one("source", "hand-over", "after")

    @tap.long
    def test_destination_before_the_commit(self):
        self.one("destination", "commit", "before")

    def test_destination_after_the_commit(self):
        self.one("destination", "commit", "after")


if __name__ == "__main__":
    tap.main()
