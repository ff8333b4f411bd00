"""How memory travels when a caller says how: over several connections, compressed, with a guest that
is slowed down. Judged by the bytes and connections on the wire and by what QEMU itself says.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

MIGRATE_TIMEOUT_S = 240
MOVE = ("--live", "--persistent", "--undefinesource")
PLAIN = ("--no-compressed",)  # which virsh cannot say
DATA_PORT = 16515
SLOW = "100mbit"  # long enough to look
# As in src/migrate/stream.h, so that what one move asked for is not what the next one finds.
PLAIN_CAPABILITIES = {"multifd": False, "xbzrle": False, "auto-converge": False,
                      "postcopy-ram": False, "return-path": True, "pause-before-switchover": True}
PLAIN_PARAMETERS = {"multifd-compression": "none", "multifd-channels": 2, "cpu-throttle-initial": 20,
                    "cpu-throttle-increment": 10, "avail-switchover-bandwidth": 0}

scene = None
worker = None
busy = None  # writes faster than the slow link


def setUpModule():
    global scene, worker, busy
    with for_module(Scene("stream")) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        busy = scene.guest("busy", "vz.dirty=40 vz.mem=48 vz.hot=32")
        worker.start(scene.a)
        busy.start(scene.a)


class Monitor:
    """The monitor of a guest's QEMU, which serves one at a time: its daemon must be dead."""

    def __init__(self, host, guest):
        uuid = re.search(r"<uuid>(.*)</uuid>", guest.xml).group(1)
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(host.path("/run/virtvz/qemu/%s/monitor.sock" % uuid)))
        self.file = self.sock.makefile("r")
        self.ask("qmp_capabilities")

    def ask(self, command):
        self.sock.sendall(json.dumps({"execute": command}).encode())
        while True:
            answer = json.loads(self.file.readline())
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise AssertionError("%s: %s" % (command, answer["error"]))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()


class StreamTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)

    def after(self):
        scene.lab.shape("none")
        with scene.last_look(self):
            scene.expect_nothing_left(90)

    def where(self, guest):
        if guest.state(scene.a) == "running":
            return scene.a, scene.b
        self.assertEqual(guest.state(scene.b), "running")
        return scene.b, scene.a

    def begin(self, guest, *options):
        here, there = self.where(guest)
        how = ("vz", "migrate") if PLAIN[0] in options else ("virsh", "-c", VZ, "migrate")
        process = here.popen(*how, *MOVE, *options, guest.name, scene.uri(there))
        return here, there, process

    def end(self, process):
        out, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(process.returncode, 0, "%s%s" % (out, err))

    def stats(self, host, guest, *options):
        return host.run("virsh", "-c", VZ, "domjobinfo", *options, guest.name, check=False).stdout

    def copying(self, host, guest):
        eventually("memory is being copied", lambda: re.search(
            r"Memory processed: +[1-9]", self.stats(host, guest)), 30)

    def connections(self, host):
        done = host.run("ss", "-Htn", "state", "established", "dport", "=", ":%d" % DATA_PORT)
        return len(done.stdout.splitlines())


class Effects(StreamTest):
    def test_several_connections(self):
        for options, least, most in ((("--p2p", "--parallel", "--parallel-connections", "4"), 5, 6),
                                     (PLAIN, 1, 2)):
            with self.subTest(options=options), worker.unharmed():
                scene.lab.shape(SLOW)
                here, there, process = self.begin(worker, *options)
                self.copying(here, worker)
                seen = self.connections(here)
                scene.lab.shape("none")
                self.end(process)
                worker.expect_on(there)
                self.assertTrue(least <= seen <= most, seen)

    def page_bytes(self, host):
        """What QEMU sent as whole pages in the last move from here."""
        size, unit = re.search(r"Normal data: +([0-9.]+) ([KMG])iB",
                               self.stats(host, worker, "--completed")).groups()
        return float(size) * 1024 ** (1 + "KMG".index(unit))

    def test_compressed_is_smaller(self):
        """On the wire, than the pages that were sent: how often depends on the machine."""
        sizes = []
        for options in (PLAIN, ("--compressed",), ("--parallel", "--comp-methods", "zlib")):
            with worker.unharmed():
                here, there, process = self.begin(worker, *options)
                before = here.wire_bytes()[1]
                self.end(process)
                sizes.append((here.wire_bytes()[1] - before) / self.page_bytes(there))
                worker.expect_on(there)
        print("wire bytes a byte of page: plain %.2f, zstd %.2f, zlib %.2f" % tuple(sizes),
              file=sys.stderr)
        self.assertGreater(sizes[0], 1)
        self.assertLess(max(sizes[1:]), 0.9 * sizes[0])

    @contextlib.contextmanager
    def moving_busily(self, pattern, timeout_s, *options):
        """The busy guest moves over a link that it outruns; inside, its statistics have shown that."""
        with busy.unharmed():
            scene.lab.shape(SLOW)
            here, there, process = self.begin(busy, *options)
            eventually("the statistics show '%s'" % pattern,
                       lambda: re.search(pattern, self.stats(here, busy)), timeout_s)
            yield
            self.end(process)
            busy.expect_on(there)

    def test_xbzrle(self):
        """The busy guest's pages change a little, again and again: differences are sent."""
        with self.moving_busily(r"Compressed pages: +[1-9]", 60, "--comp-methods", "xbzrle",
                                "--comp-xbzrle-cache", "67108864"):
            scene.lab.shape("none")

    def test_auto_converge(self):
        """A guest that outruns the link is slowed down until it does not, and moves."""
        with self.moving_busily(r"Auto converge throttle: +[5-9][0-9]", 120, "--p2p",
                                "--auto-converge", "--auto-converge-initial", "50"):
            pass


class IoError(StreamTest):
    """A guest's image on a file system that both hosts have mounted, and that becomes full."""

    def setUp(self):
        super().setUp()
        file = os.path.join(scene.lab.shared, "small.fs")
        with open(file, "wb") as image:
            image.truncate(320 << 20)
        subprocess.run(["mkfs.xfs", "-q", file], check=True)
        self.device = subprocess.run(["losetup", "--find", "--show", file], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", self.device], check=True)
        numbers = os.stat(self.device).st_rdev
        for host in (scene.a, scene.b):
            host.out("sh", "-c", "mkdir -p /small && mknod /small.dev b %d %d && mount /small.dev /small"
                     % (os.major(numbers), os.minor(numbers)))
            self.addCleanup(host.run, "sh", "-c", "umount /small; rm /small.dev")
        self.guest = scene.guest("io", "vz.dirty=1 vz.disksize=8", disk="/small/io.img")
        self.addCleanup(scene.guests.remove, self.guest)
        self.guest.start(scene.a)
        for word in ("undefine", "destroy"):
            self.addCleanup(scene.a.run, "virsh", "-c", VZ, word, "io", check=False)

    def test_abort_on_error(self):
        with self.guest.unharmed():
            scene.lab.shape(SLOW)
            here, there, process = self.begin(self.guest, "--p2p", "--abort-on-error")
            self.copying(here, self.guest)
            # With a second owner of its blocks a file needs new ones for what it writes.
            here.out("cp", "--reflink=always", "/small/io.img", "/small/copy.img")
            here.run("sh", "-c", "cat /dev/zero > /small/filler", check=False)
            _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
            self.assertEqual(process.returncode, 1)
            self.assertIn("error: operation failed: job 'migration out' failed due to I/O error", err)
            self.assertIn("paused (I/O error)", here.out("virsh", "-c", VZ, "domstate", "--reason",
                                                         "io"))
            self.assertIsNone(self.guest.state(there))
            here.out("rm", "/small/filler", "/small/copy.img")
            here.out("virsh", "-c", VZ, "resume", "io")


class WhatQemuSays(StreamTest):
    """The source's daemon is killed while memory is copied; its QEMU is then asked directly."""

    def setUp(self):
        super().setUp()
        self.during = lambda: None

    def asked(self, *options):
        scene.lab.shape(SLOW)
        here, _, process = self.begin(worker, "--p2p", *options)
        self.copying(here, worker)
        self.during()
        here.daemon("kill")
        process.communicate(timeout=MIGRATE_TIMEOUT_S)
        with Monitor(here, worker) as monitor:
            capabilities = {one["capability"]: one["state"]
                            for one in monitor.ask("query-migrate-capabilities")}
            parameters = monitor.ask("query-migrate-parameters")
        here.daemon("start")
        scene.lab.shape("none")
        eventually("it goes on here", lambda: worker.state(here) == "running", 60)
        return capabilities, parameters

    def check(self, options, capabilities, parameters):
        with self.subTest(options=options), worker.unharmed():
            said = self.asked(*options)
            for name, value in {**PLAIN_CAPABILITIES, **capabilities}.items():
                self.assertEqual((name, said[0][name]), (name, value))
            for name, value in {**PLAIN_PARAMETERS, **parameters}.items():
                self.assertEqual((name, said[1][name]), (name, value))

    def test_parameters(self):
        self.check(("--parallel", "--parallel-connections", "3", "--comp-methods", "zstd",
                    "--comp-zstd-level", "5", "--auto-converge", "--auto-converge-initial", "33",
                    "--auto-converge-increment", "7", "--bandwidth", "9",
                    "--available-switchover-bandwidth", "8"),
                   {"multifd": True, "auto-converge": True},
                   {"multifd-channels": 3, "multifd-compression": "zstd", "multifd-zstd-level": 5,
                    "cpu-throttle-initial": 33, "cpu-throttle-increment": 7,
                    "max-bandwidth": 9 << 20, "avail-switchover-bandwidth": 8 << 20})
        self.check(("--comp-methods", "xbzrle", "--comp-xbzrle-cache", "33554432"),
                   {"xbzrle": True}, {"xbzrle-cache-size": 32 << 20, "max-bandwidth": 1 << 40})
        self.check(PLAIN, {}, {"xbzrle-cache-size": 64 << 20})

    def test_cache_while_it_moves(self):
        here, _ = self.where(worker)
        virsh = ("virsh", "-c", VZ)
        with worker.unharmed():
            here.out(*virsh, "migrate-compcache", worker.name, "--size", str(16 << 20))
            self.during = lambda: here.out(*virsh, "migrate-compcache", worker.name, "--size",
                                           str(8 << 20))
            _, parameters = self.asked("--comp-methods", "xbzrle")
            self.assertEqual(parameters["xbzrle-cache-size"], 8 << 20)
            self.assertIn("64.000 MiB", here.out(*virsh, "migrate-compcache", worker.name))
            done = here.run(*virsh, "migrate-compcache", worker.name, "--size", "5000", check=False)
            self.assertRegex(done.stderr, "5000 bytes: QEMU takes powers of two")


if __name__ == "__main__":
    tap.main()
