"""Direct streams: memory that goes from QEMU to QEMU. By unix sockets, which a third party joins as
KubeVirt does; by TCP, plain, without copies, and encrypted by QEMU's own certificates. What went where
is read off the wire and counted by the third party, and both QEMUs are asked by a second monitor.
"""

import contextlib
import json
import os
import re
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
from scene import VZ, eventually, program  # noqa: E402

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
    scene, worker = moving.begin("direct", spy.let_in)
    for host in scene.lab.hosts:
        host.out("install", "-d", "-o", "vz-qemu", "-m", "0755", PLACE)


class Joiner:
    """The third party, which sees the sockets of both hosts: what comes to the source's is carried to
    the destination's and back, and counted."""

    def __init__(self, here, there):
        self.there = there
        self.count = 0
        self.seen = 0  # how often the marker was among it
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
                self.seen += data.count(MARKER.encode())
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


class Direct(MovingTest):
    def expect_no_socket(self):
        for host in scene.lab.hosts:
            self.assertFalse(os.path.lexists(host.path(PATH)), host.name)


class Unix(Direct):
    def move_by_socket(self, *options):
        here, there = self.where()
        with Joiner(here, there) as joiner, worker.unharmed():
            before = here.wire_bytes()[1]
            self.move(*MOVE, *options, "--migrateuri", URI, here=here, there=there)
            self.assertLess(here.wire_bytes()[1] - before, CHANNEL_BYTES_MAX)
        worker.expect_on(there)
        self.assertGreater(joiner.count, MEMORY_BYTES_MIN)
        self.assertGreater(joiner.seen, 50)
        self.expect_no_socket()
        return joiner

    def test_third_party_joins_them(self):
        for way in BOTH_WAYS:
            with self.subTest(way=way):
                self.assertEqual(self.move_by_socket(*way).connections, 1)

    @tap.long
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
                         error="Failed to bind socket to /nowhere/memory.sock: No such file or directory (QEMU makes")
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

    @tap.long
    def test_daemon_killed(self):
        for killed in range(2):
            hosts = self.where()
            with self.subTest(killed=hosts[killed].name), worker.unharmed():
                here, there = hosts
                with Joiner(here, there) as joiner:
                    process = here.popen("virsh", "-c", VZ, "migrate", *MOVE, "--p2p", "--bandwidth", "4",
                                         "--migrateuri", URI, worker.name, scene.uri(there))
                    eventually("memory goes by the socket", lambda: joiner.count > 1 << 20, 60)
                    hosts[killed].daemon("kill")
                    process.communicate(timeout=MIGRATE_TIMEOUT_S)
                    hosts[killed].daemon("start")
                    eventually("it goes on", lambda: worker.state(here) == "running", 60)
                    scene.expect_nothing_left(90)
            worker.expect_on(here)
            self.expect_no_socket()


SNIFFER = """
import signal, socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
sock.bind(("up0", 0))
first, last, marker, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode(), sys.argv[4]
count = seen = 0
def end(*_):
    with open(place, "w") as file:
        file.write("%d %d" % (count, seen))
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("listening", flush=True)
while True:
    frame = sock.recv(1 << 17)
    if frame[12:14] != b"\\x08\\0" or frame[23] != 6:
        continue
    tcp = 14 + (frame[14] & 15) * 4
    if first <= int.from_bytes(frame[tcp + 2:tcp + 4], "big") <= last:
        count += len(frame)
        seen += frame.count(marker)
"""
MARKER = "virtio"  # hundreds of times in the memory of the guest, whose kernel has drivers of that name


@contextlib.contextmanager
def sniffer(host, first, last):
    """Bytes that went to these ports of others are in .count at the end, and in .seen how often the
    marker was among them."""
    found = "/tmp/sniffed"
    with program(host, "python3", "-c", SNIFFER, first, last, MARKER, found, says="listening") as process:
        yield process
    process.count, process.seen = map(int, host.path(found).read_text().split())


def may_raise_limits():
    """CAP_SYS_RESOURCE, which containers often have not."""
    with open("/proc/self/status", encoding="ascii") as status:
        return bool(int(re.search(r"CapEff:\s+(\S+)", status.read()).group(1), 16) & 1 << 24)


class ByVz(Direct):
    def vz(self, *options, here=None, there=None, check=True):
        if here is None:
            here, there = self.where()
        done = here.run("vz", "migrate", *options, worker.name, there.name, check=False,
                        timeout=MIGRATE_TIMEOUT_S)
        if check and done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)
        return done

    def vz_refused(self, *options, error):
        here, there = self.where()
        done = self.vz(*options, here=here, there=there, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(error, done.stderr)
        worker.expect_on(here)

    def sniffed(self, ports, *options):
        here, there = self.where()
        before = here.wire_bytes()[1]
        with worker.unharmed(), sniffer(here, ports[0], ports[-1]) as seen:
            self.vz(*options, "--bandwidth", "50", here=here, there=there)
        worker.expect_on(there)
        self.assertGreater(here.wire_bytes()[1] - before, MEMORY_BYTES_MIN)
        self.assertGreater(seen.count, MEMORY_BYTES_MIN // 4)  # a busy machine's kernel drops some
        return seen.seen


class Tcp(ByVz):
    def test_plain(self):
        """Memory goes to QEMU's own port, for all to read; without being asked for it does not."""
        self.assertGreater(self.sniffed(PORTS, "--direct-stream"), 50)
        self.assertEqual(self.sniffed([DATA_PORT]), 0)

    @contextlib.contextmanager
    def slowly(self, *options):
        """A move that takes long enough to look at its source's QEMU."""
        here, there = self.where()
        scene.lab.shape(SLOW)
        process = here.popen("vz", "migrate", *options, worker.name, there.name)
        try:
            eventually("memory is being copied", lambda: re.search(
                r"Memory processed: +[1-9]", virsh(here, "domjobinfo", worker.name, check=False).stdout), 60)
            yield here, there, process
        finally:
            scene.lab.shape("none")
            process.communicate(timeout=MIGRATE_TIMEOUT_S)

    @staticmethod
    def locked_limit(host):
        pid, = host.processes("qemu-system-x86_64")
        with open("/proc/%d/limits" % pid, encoding="ascii") as limits:
            return re.search(r"Max locked memory +(\S+) +(\S+)", limits.read()).groups()

    def test_zero_copy(self):
        """As strace sees it send; its limit of locked memory is raised for just as long."""
        options = ("--direct-stream", "--parallel", "--parallel-connections", "1", "--zerocopy")
        before = self.locked_limit(self.where()[0])
        with worker.unharmed(), self.slowly(*options) as (here, there, process):
            with contextlib.closing(spy.open_monitor(here)) as qemu:
                said = {one["capability"]: one["state"] for one in qemu("query-migrate-capabilities")}
            self.assertTrue(said["zero-copy-send"])
            if may_raise_limits():
                self.assertEqual(self.locked_limit(here), ("unlimited",) * 2)
            pid, = here.processes("qemu-system-x86_64")
            traced = subprocess.run(["timeout", "--signal=INT", "3", "strace", "-f", "-e", "trace=sendmsg",
                                     "-p", str(pid)], check=False, stderr=subprocess.PIPE, text=True)
            self.assertRegex(traced.stderr, r"MSG_ZEROCOPY\) += [0-9]{5}")
            virsh(here, "domjobabort", worker.name)
        self.assertEqual(process.returncode, 4)
        self.assertEqual(self.locked_limit(here), before)
        worker.expect_on(here)
        with worker.unharmed():
            self.vz(*options, here=here, there=there)
        worker.expect_on(there)

    @tap.long
    def test_zero_copy_locks_too_much(self):
        """Where the daemon may not raise QEMU's limit it says what is missing."""
        options = ("--direct-stream", "--parallel", "--parallel-connections", "16", "--zerocopy")
        with worker.unharmed():
            if may_raise_limits():
                self.vz(*options)
            else:
                self.vz_refused(*options, error="QEMU's limit (RLIMIT_MEMLOCK) is")

    @tap.long
    def test_what_does_not_fit(self):
        with worker.unharmed():
            self.refused(*MOVE, "--zerocopy", "--parallel", error="zero-copy needs a direct TCP stream")
            self.refused(*MOVE, "--tls", "--tls-destination", "hostb",
                         error="tls.destination needs a direct stream")
            for words, error in (
                    (("--zerocopy",), "zero-copy is only available for parallel migration"),
                    (("--zerocopy", "--parallel", "--tls"), "zero-copy is not possible with encryption"),
                    (("--postcopy",), "post-copy is not supported by a direct stream"),
                    (("--migrateuri", URI), "a direct stream goes by TCP or by a unix socket, not both")):
                self.vz_refused("--direct-stream", *words, error=error)


class Tls(ByVz):
    """Each host has a certificate; hostb's is for another name."""

    names = {"hosta": "hosta", "hostb": "other.example"}

    def setUp(self):
        super().setUp()
        self.addCleanup(self.take_away)

    def take_away(self):
        for host in scene.lab.hosts:
            host.run("rm", "-rf", PKI)

    @staticmethod
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, stderr=subprocess.PIPE)

    def checked(self, *options):
        """(side, how it begins) of what `vz check` finds in the certificates."""
        here, there = self.where()
        done = here.run("vz", "check", "--json", *options, worker.name, there.name, check=False)
        return [(one["side"], one["text"][:one["text"].index(": ") + 2])
                for one in json.loads(done.stdout)["findings"] if one["check"] == "certificates"]

    def certify(self):
        """As `man certtool` tells libvirt's users, by openssl."""
        top = scene.lab.shared
        ca = [os.path.join(top, name) for name in ("ca-key.pem", "ca-cert.pem")]
        self.openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", ca[0], "-out", ca[1],
                     "-subj", "/CN=lab", "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE",
                     "-addext", "keyUsage=critical,keyCertSign")
        for host in scene.lab.hosts:
            host.out("install", "-d", PKI)
            host.path(PKI + "/ca-cert.pem").write_bytes(open(ca[1], "rb").read())
            for kind in ("server", "client"):
                self.certify_one(host, kind, ca)
            host.out("chown", "-R", "vz-qemu", PKI)
        for one in ca:
            os.unlink(one)

    def certify_one(self, host, kind, ca):
        name = self.names[host.name]
        key, cert = (str(host.path("%s/%s-%s.pem" % (PKI, kind, part))) for part in ("key", "cert"))
        request, extensions = cert + ".csr", cert + ".ext"
        with open(extensions, "w", encoding="ascii") as file:
            file.write("subjectAltName=DNS:%s\nkeyUsage=critical,digitalSignature,keyEncipherment\n"
                       "extendedKeyUsage=%sAuth\n" % (name, kind))
        self.openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj",
                     "/CN=" + name)
        self.openssl("x509", "-req", "-in", request, "-CA", ca[1], "-CAkey", ca[0], "-CAcreateserial",
                     "-out", cert, "-days", "2", "-extfile", extensions)
        os.unlink(request)
        os.unlink(extensions)

    def test_by_certificates(self):
        tls = ("--direct-stream", "--tls")
        here, there = self.where()
        missing = "TLS of a direct stream needs x509 certificates in '%s' on %%s: " % PKI
        with worker.unharmed():
            self.vz_refused(*tls, error=missing % here.name)
        self.assertEqual(self.checked(*tls), [("source", missing % here.name),
                                              ("destination", missing % there.name)])
        self.certify()
        if here.name == "hostb":
            self.assertEqual(self.sniffed(PORTS, *tls), 0)
        with worker.unharmed():
            self.vz_refused(*tls, error="Certificate does not match the hostname hostb")
        self.assertEqual([side for side, _ in self.checked(*tls)], ["destination"])
        self.assertEqual(self.checked(*tls, "--tls-destination", "other.example"), [])
        self.assertEqual(self.sniffed(PORTS, *tls, "--tls-destination", "other.example"), 0)
        with worker.unharmed():
            self.vz_refused(*tls, "--tls-destination", "other.example",
                            error="Certificate does not match the hostname other.example")
        self.assertEqual(self.sniffed(PORTS, *tls, "--parallel"), 0)

    @tap.long
    def test_by_a_socket(self):
        """The caller says whose certificate will be there."""
        self.certify()
        here, there = self.where()
        with Joiner(here, there) as joiner, worker.unharmed():
            self.move(*MOVE, "--p2p", "--migrateuri", URI, "--tls", "--tls-destination",
                      self.names[there.name], here=here, there=there)
        worker.expect_on(there)
        self.assertGreater(joiner.count, MEMORY_BYTES_MIN)
        self.assertEqual(joiner.seen, 0)


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
