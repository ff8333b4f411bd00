"""The addresses that callers give to a migration: of the data (migrate_uri, listen_address), of disks,
and of viewers. Where data really goes is read from the destination's sockets, or counted by a
forwarder in its way; what a VNC viewer sees, by being one.

One guest serves the whole file; each test begins with it running on one host, defined there only.
"""

import contextlib
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moving  # noqa: E402
import tap  # noqa: E402
from moving import BOTH_WAYS, MIGRATE_TIMEOUT_S, MOVE, VNC_PORT, MovingTest, virsh  # noqa: E402
from scene import VZ, eventually, program  # noqa: E402

DATA_PORT = 16515
MEMORY_BYTES_MIN = 20 << 20  # of what a move of the guest sends at least
# An RFB client: "open" once it has the first picture, a line for each further one, "closed" when the
# server has gone.
VIEWER = """
import socket, struct, sys, time
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
sock.settimeout(None)
stream = sock.makefile("rb")
def take(count):
    try:
        data = stream.read(count)
    except ConnectionResetError:
        data = b""
    if len(data) < count:
        print("closed", flush=True)
        sys.exit()
    return data
sock.sendall(take(12))
assert 1 in take(take(1)[0])
sock.sendall(b"\\1")
assert take(4) == bytes(4)
sock.sendall(b"\\1")
width, height = struct.unpack(">HH", take(4))
bits = take(16)[0]
take(struct.unpack(">I", take(4))[0])
sock.sendall(struct.pack(">BBHi", 2, 0, 1, 0))
word = "open"
while True:
    try:
        sock.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))
    except OSError:
        pass
    kind, _, count = struct.unpack(">BBH", take(4))
    assert kind == 0
    for _ in range(count):
        _, _, wide, high, encoding = struct.unpack(">HHHHi", take(12))
        take(wide * high * bits // 8 if encoding == 0 else 0)
    print(word, flush=True)
    word = "picture"
    time.sleep(0.2)
"""
# On the destination: passes connections on to the data port, and says at its end how many bytes came.
FORWARDER = """
import signal, socket, sys, threading
server = socket.create_server(("", int(sys.argv[1])))
count = 0
def pump(source, sink, counted):
    global count
    while data := source.recv(65536):
        sink.sendall(data)
        count += len(data) if counted else 0
    sink.shutdown(socket.SHUT_WR)
def end(*_):
    print(count, flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("listening", flush=True)
while True:
    caller, _ = server.accept()
    port = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    for words in ((caller, port, True), (port, caller, False)):
        threading.Thread(target=pump, args=words, daemon=True).start()
"""
# As virt-manager calls it, with the port that it offers.
VIRT_MANAGER = """
import libvirt, sys
name, uri, host = sys.argv[1:]
flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
domain = libvirt.open("vz:///system").lookupByName(name)
domain.migrate3(libvirt.open(uri), {"migrate_uri": "tcp:%s:49152" % host}, flags)
"""

scene = None
worker = None


def setUpModule():
    global scene, worker
    scene, worker = moving.begin("address", lambda _, xml: moving.with_graphics(xml, "0.0.0.0"))


@contextlib.contextmanager
def viewer(host):
    """A VNC viewer in the observer's place, with a picture on its screen."""
    with program(scene.lab.observer, sys.executable, "-c", VIEWER, host.address, VNC_PORT,
                 says="open") as process:
        yield process


@contextlib.contextmanager
def forwarder(host, port):
    """Bytes that went in are in .count once it has ended."""
    process = host.popen("python3", "-c", FORWARDER, port, DATA_PORT)
    try:
        if process.stdout.readline() != "listening\n":
            raise AssertionError(process.communicate()[1])
        yield process
    finally:
        process.terminate()
        process.count = int(process.communicate(timeout=20)[0] or 0)


class Viewers(MovingTest):
    def test_graphics_uri(self):
        here, there = self.where()
        with viewer(here) as process, worker.unharmed():
            self.refused(*MOVE, "--graphicsuri", "vnc://%s:5900" % there.address, error=(
                "argument unsupported: parameter 'graphics_uri' (--graphicsuri) is not supported: QEMU "
                "tells only viewers of SPICE"))
            for _ in range(3):
                self.assertEqual(process.stdout.readline(), "picture\n", "it is as it was")

    def test_a_viewer_loses_its_connection(self):
        """What the refusal says is true, and all that a viewer has to do is to open the other one."""
        here, there = self.where()
        with viewer(here) as process:
            with worker.unharmed():
                self.move(*MOVE)
            while (line := process.stdout.readline()) == "picture\n":
                pass
            self.assertEqual(line, "closed\n")
        self.assertEqual(virsh(there, "vncdisplay", worker.name).stdout.strip(),
                         ":%d" % (VNC_PORT - 5900))
        with viewer(there) as process:
            self.assertEqual(process.stdout.readline(), "picture\n")


class Data(MovingTest):
    def connections(self, host):
        """The addresses of the host that have a connection to the data port."""
        lines = host.out("ss", "-tnH", "state", "established", "sport", "=", ":%d" % DATA_PORT)
        return {line.split()[2].rsplit(":", 1)[0].strip("[]").removeprefix("::ffff:")
                for line in lines.splitlines()}

    def second_address(self, host):
        address = "%s.%d" % (scene.network, 200 + scene.lab.hosts.index(host))
        host.run("ip", "address", "add", address + "/24", "dev", "br0")
        self.addCleanup(host.run, "ip", "address", "del", address + "/24", "dev", "br0")
        return address

    def configure(self, host, line):
        """A line of virtvzd.conf; the daemon is restarted, and at the end so without it."""
        path = host.path("/etc/virtvz/virtvzd.conf")
        before = path.read_text()

        def write(text):
            path.write_text(text)
            host.daemon("restart")
            eventually("virtvzd is back", lambda: virsh(host, "list", check=False).returncode == 0)
        self.addCleanup(write, before)
        write(before + line + "\n")

    def test_listen_address(self):
        for way in BOTH_WAYS:
            with self.subTest(way=way):
                here, there = self.where()
                address = self.second_address(there)
                scene.lab.shape("200mbit")
                self.addCleanup(scene.lab.shape, "none")
                with worker.unharmed():
                    process = here.popen("virsh", "-c", VZ, "migrate", *way, *MOVE, "--listen-address",
                                         address, worker.name, scene.uri(there))
                    seen = set()
                    while process.poll() is None:
                        seen |= self.connections(there)
                    self.assertEqual(process.returncode, 0, process.communicate()[1])
                self.assertEqual(seen, {address})
                scene.lab.shape("none")
                worker.expect_on(there)

    @tap.long
    def test_everywhere(self):
        _, there = self.where()
        with worker.unharmed():
            self.move(*MOVE, "--listen-address", "0.0.0.0")
        worker.expect_on(there)

    def test_listen_address_that_is_not_there(self):
        here, there = self.where()
        said = "but data arrives at all addresses of this host, port %d" % DATA_PORT
        for address, why in ((here.address, "%s is another host's address" % here.address),
                             ("%s.250" % scene.network, "unable to connect")):
            with self.subTest(address=address), worker.unharmed():
                self.refused(*MOVE, "--listen-address", address, error=(
                    "argument unsupported: parameter 'listen_address' names '%s', %s (data_address and "
                    "data_port of virtvzd.conf set that): %s" % (address, said, why)))

    @tap.long
    def test_port_that_listens_elsewhere(self):
        _, there = self.where()
        address = self.second_address(there)
        self.configure(there, "data_address = %s" % there.address)
        with worker.unharmed():
            self.refused(*MOVE, "--listen-address", address, error=(
                "names '%s', but data arrives at %s port %d" % (address, there.address, DATA_PORT)))

    def test_disks(self):
        here, there = self.where()
        for words, error in (
                (("--disks-port", "49153"), "'disks_port' names port 49153, but disks arrive at this "
                                            "host's one data port, %d" % DATA_PORT),
                (("--disks-uri", "tcp://%s:49153" % there.address), "'disks_uri' names port 49153"),
                (("--disks-uri", "tcp://%s" % here.address), "'disks_uri' names '%s'" % here.address),
                (("--disks-uri", "unix:///run/disks"), "unsupported scheme unix")):
            with self.subTest(words=words), worker.unharmed():
                self.refused(*MOVE, *words, error=error)
        for words in (("--disks-port", str(DATA_PORT)),
                      ("--disks-uri", "tcp://%s:%d" % (here.address, DATA_PORT))):
            here, there = self.where()
            with self.subTest(words=words), worker.unharmed():
                words = [word.replace(here.address, there.address) for word in words]
                self.move(*MOVE, *words)
                worker.expect_on(there)

    def test_as_virt_manager_calls(self):
        here, there = self.where()
        with worker.unharmed():
            here.run("python3", "-c", VIRT_MANAGER, worker.name, scene.uri(there), there.address,
                     timeout=MIGRATE_TIMEOUT_S)
        worker.expect_on(there)

    def test_port_that_is_passed_on(self):
        """A port that no tool guesses is used, and no other."""
        here, there = self.where()
        uri = "tcp:%s:5555" % there.address
        with worker.unharmed():
            self.refused(*MOVE, "--migrateuri", uri, error="port 5555: connection refused")
        with worker.unharmed(), forwarder(there, 5555) as process:
            self.move(*MOVE, "--migrateuri", uri, here=here, there=there)
            scene.expect_nothing_left()
        self.assertGreater(process.count, MEMORY_BYTES_MIN)
        worker.expect_on(there)

    @tap.long
    def test_guessed_port_that_is_passed_on(self):
        """One that tools guess is used, too, where the data port itself cannot be reached."""
        here, there = self.where()
        self.configure(there, "data_address = 127.0.0.1")
        with worker.unharmed(), forwarder(there, 49152) as process:
            self.move(*MOVE, "--migrateuri", "tcp:%s:49152" % there.address, here=here, there=there)
            scene.expect_nothing_left()
        self.assertGreater(process.count, MEMORY_BYTES_MIN)
        worker.expect_on(there)


if __name__ == "__main__":
    tap.main()
