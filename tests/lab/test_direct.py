"""Direct streams: memory that goes from QEMU to QEMU. By unix sockets, which a third party joins as
KubeVirt does; by TCP, plain, without copies, and encrypted by QEMU's own certificates. What went where
is read off the wire and counted by the third party, and both QEMUs are asked by a second monitor.
"""

import contextlib
import os
import re
import resource
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moving  # noqa: E402
import spy  # noqa: E402
import tap  # noqa: E402
from moving import BOTH_WAYS, MIGRATE_TIMEOUT_S, MOVE, MovingTest, virsh  # noqa: E402
from scene import VZ, eventually  # noqa: E402

DATA_PORT = 16515
PLACE = "/var/lib/sockets"
PATH = PLACE + "/memory.sock"
URI = "unix://" + PATH
MEMORY_BYTES_MIN = 20 << 20  # of what a move of the guest sends at least
CHANNEL_BYTES_MAX = 1 << 20  # questions go by the data port, memory does not
SLOW = "100mbit"
PKI = "/etc/pki/qemu"
PORTS = range(49152, 49152 + 64)

scene = None
worker = None


def setUpModule():
    global scene, worker

    scene, worker = moving.begin("direct", lambda its_scene, xml: xml.replace(
        "<devices>", "<devices><emulator>%s</emulator>" % spy.install(its_scene)))
    for host in scene.lab.hosts:
        host.out("install", "-d", "-o", "vz-qemu", "-m", "0755", PLACE)


class Joiner:
    """The third party, which sees the sockets of both hosts: what comes to the source's is carried to
    the destination's and back, and counted."""

    def __init__(self, here, there):
        self.there = there
        self.count = 0
        self.connections = 0
        self.ends = []
        self.path = here.path(PATH)
        self.server = socket.socket(socket.AF_UNIX)
        with self.near(here) as path:
            self.server.bind(path)
        self.server.listen(16)
        threading.Thread(target=self.accept, daemon=True).start()

    @staticmethod
    @contextlib.contextmanager
    def near(host):
        """The path, short enough for an address."""
        directory = os.open(host.path(PLACE), os.O_PATH)
        try:
            yield "/proc/self/fd/%d/%s" % (directory, os.path.basename(PATH))
        finally:
            os.close(directory)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self.server.accept()
                self.connections += 1
                called = socket.socket(socket.AF_UNIX)
                with self.near(self.there) as path:
                    called.connect(path)
                self.ends += [caller, called]
                for ends in ((caller, called), (called, caller)):
                    threading.Thread(target=self.pump, args=ends, daemon=True).start()

    def pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(data)
                self.count += len(data)
            sink.shutdown(socket.SHUT_WR)

    def break_off(self):
        for end in self.ends:
            end.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.path.unlink(missing_ok=True)


def sent(host):
    """On the wire out of the host (lab/net.sh)."""
    counters = re.search(r"up0:(.*)", host.run("cat", "/proc/net/dev").stdout).group(1)
    return int(counters.split()[8])


class Direct(MovingTest):
    def expect_no_socket(self):
        for host in scene.lab.hosts:
            self.assertFalse(os.path.lexists(host.path(PATH)), host.name)


class Unix(Direct):
    def move_by_socket(self, *options):
        here, there = self.where()
        with Joiner(here, there) as joiner, worker.unharmed():
            before = sent(here)
            self.move(*MOVE, *options, "--migrateuri", URI, here=here, there=there)
            self.assertLess(sent(here) - before, CHANNEL_BYTES_MAX)
        worker.expect_on(there)
        self.assertGreater(joiner.count, MEMORY_BYTES_MIN)
        self.expect_no_socket()
        return joiner

    def test_third_party_joins_them(self):
        for way in BOTH_WAYS:
            with self.subTest(way=way):
                self.assertEqual(self.move_by_socket(*way).connections, 1)

    def test_several_connections(self):
        """QEMU makes them itself, so it has to be let in."""
        here, there = self.where()
        with Joiner(here, there) as joiner, worker.unharmed():
            os.chmod(here.path(PATH), 0o666)
            self.move(*MOVE, "--p2p", "--parallel", "--parallel-connections", "3", "--migrateuri", URI,
                      here=here, there=there)
        worker.expect_on(there)
        self.assertEqual(joiner.connections, 4)
        self.expect_no_socket()

    def test_what_stands_in_the_way(self):
        here, there = self.where()
        with worker.unharmed():
            self.refused(*MOVE, "--p2p", "--migrateuri", URI,
                         error="Failed to connect socket to '%s': No such file or directory" % PATH)
            self.expect_no_socket()
            there.path(PATH).write_text("somebody's")
            self.refused(*MOVE, "--migrateuri", URI,
                         error="Failed to listen on socket '%s' on %s: File exists" % (PATH, there.name))
            self.assertEqual(there.path(PATH).read_text(), "somebody's")
            there.path(PATH).unlink()
            self.refused(*MOVE, "--migrateuri", "unix:///nowhere/memory.sock",
                         error="Failed to bind socket to /nowhere/memory.sock: No such file or directory")
            for uri, error in (("unix:memory.sock", "has no absolute path"),
                               ("unix:///" + 107 * "x", "has 108 bytes, and a socket's has at most 107")):
                self.refused(*MOVE, "--migrateuri", uri, error=error)
            self.refused(*MOVE, "--migrateuri", URI, "--tls", error=(
                "Explicit destination hostname is required for TLS migration over UNIX socket"))

    def test_carrier_that_breaks(self):
        """The third party dies while memory is copied: the guest stays, and nothing is left."""
        here, there = self.where()
        with worker.unharmed():
            with Joiner(here, there) as joiner:
                process = here.popen("virsh", "-c", VZ, "migrate", *MOVE, "--p2p", "--bandwidth", "4",
                                     "--migrateuri", URI, worker.name, scene.uri(there))
                eventually("memory goes by the socket", lambda: joiner.count > 1 << 20, 60)
                joiner.break_off()
                _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
            self.assertEqual(process.returncode, 1)
            self.assertIn("job 'migration out' failed", err)
            worker.expect_on(here)
        self.expect_no_socket()


class Rdma(Direct):
    def test_says_what_is_missing(self):
        here, there = self.where()
        with worker.unharmed():
            for way in BOTH_WAYS:
                self.refused(*MOVE, *way, "--migrateuri", "rdma://" + there.address, error=(
                    "cannot start RDMA migration with no memory hard limit set"))
            self.refused(*MOVE, "--migrateuri", "rdma://" + there.address,
                         error="%s has no RDMA device: there is none in /sys/class/infiniband" % here.name)
            self.refused(*MOVE, "--rdma-pin-all", error="memory is not sent by RDMA")


if __name__ == "__main__":
    tap.main()
