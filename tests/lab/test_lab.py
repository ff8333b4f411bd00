#!/usr/bin/env python3
"""The lab does what docs/lab.md says. Needs root; builds the lab's Debian root if it is not there.

Run one: python3 tests/lab/test_lab.py OneLab.test_crash_and_boot
"""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "support")]
import tap  # noqa: E402
from hosts import PROGRAM, CommandFailed, Lab  # noqa: E402

GONE_TIMEOUT_S = 5

RECEIVER = """
import socket, sys
server = socket.create_server(("", 9000))
print("ready", flush=True)
peer, _ = server.accept()
print(sum(iter(lambda: len(peer.recv(1 << 20)), 0)))
"""
SENDER = """
import socket, sys, time
peer = socket.create_connection((sys.argv[1], 9000))
start, left = time.monotonic(), int(sys.argv[2])
while left > 0:
    peer.sendall(bytes(min(left, 1 << 16)))
    left -= 1 << 16
peer.shutdown(socket.SHUT_WR)
peer.recv(1)
print(int(sys.argv[2]) / (time.monotonic() - start))
"""

# Stands in for the real daemon, so that this tests the lab alone.
FAKE_DAEMON = """#!/usr/bin/python3
import os, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
path = "/run/libvirt/virtvzd-sock"
os.makedirs("/run/libvirt", exist_ok=True)
if os.path.exists(path):
    os.unlink(path)
print("started", os.environ.get("VZ_TEST_WORD", "-"), flush=True)
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen()
while True:
    server.accept()[0].close()
"""


def setUpModule():
    if os.getuid() != 0:
        raise unittest.SkipTest("needs root")


def processes_of(mark):
    """Processes that have to do with a path: by command line, environment, directory or mounts."""
    found = {}
    for proc in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            command = (proc / "cmdline").read_bytes()
            facts = command + (proc / "environ").read_bytes() + (proc / "mountinfo").read_bytes()
            facts += os.readlink(proc / "cwd").encode() + os.readlink(proc / "root").encode()
        except OSError:
            continue
        if mark.encode() in facts and int(proc.name) != os.getpid():
            found[int(proc.name)] = command
    return found


def machine(mark):
    """All that a lab whose state is at `mark` could leave on the machine."""
    sysctls = {}
    for file in pathlib.Path("/proc/sys/net").glob("*/**/*"):
        try:
            sysctls[str(file)] = file.read_text() if file.is_file() else None
        except OSError:
            pass
    return {
        "processes": processes_of(mark),
        "mounts": [m for m in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
                   if mark in m or "virtvz" in m],
        "network namespaces": os.listdir("/run/netns") if os.path.isdir("/run/netns") else [],
        "interfaces": sorted(os.listdir("/sys/class/net")),
        "loop devices": sorted(map(str, pathlib.Path("/sys/block").glob("loop*/loop"))),
        "sysctls": {k: v for k, v in sysctls.items() if "neigh" not in k and "count" not in k},
        "files": sorted(map(str, [pathlib.Path(mark), *pathlib.Path(mark).glob("**/*")]))
                 if os.path.exists(mark) else [],
        "builds": sorted(map(str, pathlib.Path("/var/cache/virtvz-lab").glob("building.*"))),
        "/etc/hosts": pathlib.Path("/etc/hosts").read_text(),
        # Other labs of this machine may come and go meanwhile.
        "directories": [sorted(f for f in os.listdir(d) if ("virtvz" in f or "lab" in f) and
                               not f.startswith(("virtvz-lab", "virtvz-observer-")))
                        for d in ("/run", "/run/lock", "/var/lib", "/tmp") if os.path.isdir(d)],
    }


class Clean(unittest.TestCase):
    """Each test has a state directory of its own, of which nothing may be left."""

    maxDiff = 4000

    def setUp(self):
        # Not in /tmp: overlayfs takes no upper directory on another overlay, or on some tmpfs.
        self.state = tempfile.mkdtemp(prefix="vztest.", dir="/var/lib")
        os.rmdir(self.state)
        self.addCleanup(shutil.rmtree, self.state, ignore_errors=True)
        self.env = {"VZ_LAB_STATE": self.state}
        self.before = machine(self.state)

    def lab(self, name="one", daemon=False, **keywords):
        lab = Lab(name, daemon=daemon, env=self.env, **keywords)
        self.addCleanup(lab.down)
        return lab

    def assert_clean(self):
        deadline = time.monotonic() + GONE_TIMEOUT_S
        while (after := machine(self.state)) != self.before and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual(after, self.before)


class OneLab(unittest.TestCase):
    """What one lab of two hosts does; all of it on the same lab."""

    @classmethod
    def setUpClass(cls):
        cls.lab = Lab("vztest-one", daemon=False)
        cls.lab.down()
        cls.lab.up()
        cls.addClassCleanup(cls.lab.down)
        cls.a, cls.b = cls.lab.hosts
        for host in cls.lab.hosts:
            host.run("sh", "-c", "cat >/root/receive.py", input=RECEIVER)
            host.run("sh", "-c", "cat >/root/send.py", input=SENDER)

    def test_names_reach(self):
        for source, target in ((self.a, "hostb"), (self.b, "hosta"), (self.a, "observer")):
            source.run("ping", "-c", "1", "-W", "5", target)
        probe = "import socket; socket.create_connection(('hostb', 9000)).close()"
        with self.b.popen("python3", "/root/receive.py") as receiver:
            self.assertEqual(receiver.stdout.readline(), "ready\n")
            self.lab.observer.run(sys.executable, "-c", probe)
            self.assertEqual(receiver.wait(10), 0)

    def test_observer_sees_broadcasts_of_a_host(self):
        watch = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
                 "s.bind(('', 9001)); print('ready', flush=True); print(s.recv(99).decode())")
        send = ("import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
                "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1);"
                f"s.sendto(b'beat', ('{self.a.address.rsplit('.', 1)[0]}.255', 9001))")
        with self.lab.observer.popen(sys.executable, "-c", watch) as watcher:
            self.assertEqual(watcher.stdout.readline(), "ready\n")
            self.a.run("python3", "-c", send)
            self.assertEqual(watcher.communicate(timeout=10)[0], "beat\n")

    def test_the_machine_is_not_on_the_lab_network(self):
        result = subprocess.run(["ip", "-o", "route", "get", self.a.address],
                                capture_output=True, text=True)
        self.assertNotIn("br0", result.stdout)
        self.assertEqual(self.a.out("ip", "-4", "route", "show", "default"), "")

    def test_shared_and_local_directories(self):
        self.a.run("sh", "-c", "echo common >/shared/file; echo mine >/local/file")
        self.assertEqual(self.b.out("cat", "/shared/file"), "common")
        self.assertEqual(self.b.run("test", "-e", "/local/file", check=False).returncode, 1)
        self.assertEqual((self.lab.shared / "file").read_text(), "common\n")
        self.assertEqual((self.a.local / "file").read_text(), "mine\n")

    def test_each_host_is_another_machine(self):
        for fact in ("/etc/machine-id", "/etc/virtvz/host-uuid", "/etc/hostname"):
            values = {host.out("cat", fact) for host in self.lab.hosts}
            self.assertEqual(len(values), 2, fact)
            self.assertNotIn("", values)
        uuid = self.a.out("cat", "/etc/virtvz/host-uuid")
        self.assertRegex(uuid, r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
        self.assertRegex(self.a.out("cat", "/etc/machine-id"), r"^[0-9a-f]{32}$")
        self.assertEqual([host.out("hostname") for host in self.lab.hosts], ["hosta", "hostb"])
        for kind in ("mnt", "net", "pid", "uts", "ipc"):
            spaces = {host.out("readlink", f"/proc/self/ns/{kind}") for host in self.lab.hosts}
            spaces.add(os.readlink(f"/proc/self/ns/{kind}"))
            self.assertEqual(len(spaces), 3, kind)
        self.a.run("sh", "-c", "echo x >/etc/only-a; echo x >/var/only-a; echo x >/run/only-a")
        for place in ("/etc", "/var", "/run"):
            self.assertNotIn("only-a", self.b.out("ls", place))

    def test_process_1_is_tini_and_reaps(self):
        self.assertEqual(self.a.out("cat", "/proc/1/comm"), "tini-static")
        self.a.run("sh", "-c", "(sleep 0.2 &) ; exit 0")
        time.sleep(0.5)
        self.assertNotIn("<defunct>", self.a.out("ps", "ax"))
        self.assertNotIn(str(PROGRAM), self.a.out("ps", "axww"))

    def test_devices(self):
        self.a.run("sh", "-c", "echo x >/dev/null && head -c 9 /dev/urandom /dev/zero >/dev/null")
        self.a.run("ip", "tuntap", "add", "tap7", "mode", "tap")
        self.a.run("ip", "link", "set", "tap7", "master", "br0")
        before = self.a.out("cat", "/sys/class/net/br0/address")
        self.a.run("ip", "link", "del", "tap7")
        self.assertEqual(self.a.out("cat", "/sys/class/net/br0/address"), before)
        self.a.run("python3", "-c", "import pty; pty.openpty()")
        self.assertEqual(self.a.run("test", "-e", "/dev/vda", check=False).returncode, 1)
        self.a.run("qemu-system-x86_64", "--version")
        self.a.run("id", "vz-qemu")

    def test_exit_codes_pass_through(self):
        for where in (self.a, self.lab.observer):
            for code in (0, 1, 42, 255):
                result = where.run("sh", "-c", f"exit {code}", check=False)
                self.assertEqual(result.returncode, code)
            self.assertEqual(where.run("/nonexistent", check=False).returncode, 127)
        self.assertEqual(self.a.run("sh", "-c", "kill -9 $$", check=False).returncode, -9)
        with self.assertRaises(CommandFailed) as raised:
            self.lab.command("host", "hostz", "true")
        self.assertEqual(raised.exception.result.returncode, 125)
        self.assertIn("no host 'hostz'", str(raised.exception))

    def test_stdin_and_no_stdin(self):
        self.assertEqual(self.a.run("cat", input="words\n").stdout, "words\n")
        result = subprocess.run(["sh", "-c", 'exec "$@" <&- 2>&1', "sh", *self.lab.argv, "host",
                                 "hosta", "sh", "-c", "test -e /proc/self/fd/0; echo $?"],
                                stdout=subprocess.PIPE, text=True)
        self.assertEqual((result.returncode, result.stdout), (0, "1\n"))

    def test_terminal_and_interrupt(self):
        code = ("import sys, time\n"
                "try: print(sys.stdin.isatty(), flush=True); time.sleep(30)\n"
                "except KeyboardInterrupt: time.sleep(0.3); sys.exit(5)")
        for tty in (True, False):
            with self.a.popen("python3", "-c", code, tty=tty) as process:
                source = os.fdopen(os.dup(process.terminal)) if tty else process.stdout
                self.assertEqual(source.readline().strip(), str(tty))
                time.sleep(0.1)
                process.interrupt()
                self.assertEqual(process.wait(10), 5)
                source.close()

    def test_a_killed_command_ends(self):
        process = self.a.popen("sh", "-c", "echo ready; exec sleep 4321")
        self.assertEqual(process.stdout.readline(), "ready\n")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)
        deadline = time.monotonic() + GONE_TIMEOUT_S
        while self.a.run("pgrep", "-f", "sleep 4321", check=False).returncode == 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)

    def test_environment(self):
        result = self.a.out("env", env={"WORD": "w"})
        self.assertIn("WORD=w", result)
        self.assertNotIn("VZ_LAB", result)

    def transfer(self, source, target, size):
        with target.popen("python3", "/root/receive.py") as receiver:
            self.assertEqual(receiver.stdout.readline(), "ready\n")
            rate = float(source.out("python3", "/root/send.py", target.name, size))
            self.assertEqual(int(receiver.communicate(timeout=10)[0]), size)
        return rate

    def test_shape_limits_and_is_reached(self):
        self.addCleanup(self.lab.shape, "none")
        for rate, bytes_s, size in (("100mbit", 12.5e6, 8_000_000), ("10mbit", 1.25e6, 1_500_000)):
            self.lab.shape(rate)
            for source, target in ((self.a, self.b), (self.b, self.a)):
                measured = self.transfer(source, target, size)
                self.assertLess(measured, bytes_s * 1.1)
                self.assertGreater(measured, bytes_s * 0.75)
        self.lab.shape("none")
        self.assertGreater(self.transfer(self.a, self.b, 50_000_000), 25e6)
        for bad in ("fast", "0mbit", "1 gbit", "-1kbit"):
            with self.assertRaises(CommandFailed):
                self.lab.shape(bad)

    def test_link_down_and_up(self):
        self.b.link("down")
        self.addCleanup(self.b.link, "up")
        self.assertNotEqual(
            self.a.run("ping", "-c", "1", "-W", "1", "hostb", check=False).returncode, 0)
        self.assertEqual(self.b.out("cat", "/sys/class/net/up0/carrier"), "0")
        self.b.link("up")
        self.a.run("ping", "-c", "1", "-W", "5", "hostb")

    def test_crash_and_boot(self):
        self.b.run("sh", "-c", "echo kept >/var/kept; echo lost >/run/lost; echo own >/local/own")
        uuid = self.b.out("cat", "/etc/virtvz/host-uuid")
        self.lab.shape("100mbit")
        self.addCleanup(self.lab.shape, "none")
        with self.b.popen("sleep", "1000") as process:
            while not process.inner_pid():
                time.sleep(0.01)
            self.b.crash()
            self.assertEqual(process.wait(GONE_TIMEOUT_S), -9)
        self.assertEqual(self.b.run("true", check=False).returncode, 125)
        self.assertIn("hostb  down", self.lab.command("status").stdout)
        self.b.boot()
        self.assertEqual(self.b.out("cat", "/var/kept", "/local/own"), "kept\nown")
        self.assertEqual(self.b.run("cat", "/run/lost", check=False).returncode, 1)
        self.assertEqual(self.b.out("cat", "/etc/virtvz/host-uuid"), uuid)
        self.a.run("ping", "-c", "1", "-W", "5", "hostb")
        self.assertLess(self.transfer(self.b, self.a, 3_000_000), 12.5e6 * 1.2)
        with self.assertRaises(CommandFailed):
            self.b.boot()

    def test_up_again_is_refused(self):
        result = self.lab.command("up", "--no-daemon", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("is up already", result.stderr)
        self.a.run("true")

    def test_entry_is_quick(self):
        start = time.monotonic()
        for _ in range(10):
            self.a.run("true")
        self.assertLess(time.monotonic() - start, 5)


class Lives(Clean):
    """Labs that come and go leave nothing."""

    def test_up_and_down(self):
        lab = self.lab(hosts=3)
        lab.up()
        self.assertEqual(lab.command("list").stdout, "one\tup\thosta hostb hostc\n")
        self.assertGreaterEqual(len(processes_of(self.state)), 8)
        lab.hosts[2].run("ping", "-c", "1", "-W", "5", "hosta")
        lab.hosts[0].run("sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 &")
        lab.hosts[0].run("ip", "link", "add", "d0", "type", "bridge")
        lab.down()
        self.assert_clean()
        lab.down()
        self.assert_clean()

    def test_two_labs_side_by_side(self):
        one, two = self.lab("one"), self.lab("two")
        one.up()
        two.up()
        (a, b), (c, d) = one.hosts, two.hosts
        self.assertNotEqual(a.address, c.address)
        (one.shared / "whose").write_text("one")
        self.assertEqual(d.run("test", "-e", "/shared/whose", check=False).returncode, 1)
        self.assertNotEqual(c.run("ping", "-c1", "-W1", a.address, check=False).returncode, 0)
        one.down()
        c.run("ping", "-c", "1", "-W", "5", "hostb")
        self.assertEqual(two.command("list").stdout, "two\tup\thosta hostb\n")
        two.down()
        self.assert_clean()

    def test_up_returns_to_a_pipe(self):
        lab = self.lab()
        subprocess.run(f"{' '.join(lab.argv)} up --no-daemon 2>&1 | cat", shell=True, timeout=60,
                       check=True, stdout=subprocess.DEVNULL)
        lab.down()
        self.assert_clean()

    def interrupted_ups(self, sig, times):
        """Signals to `up` at moments spread over the time it takes; yields (lab, exit code)."""
        lab = self.lab()
        start = time.monotonic()
        lab.up()
        up_s = time.monotonic() - start
        lab.down()
        for step in range(times):
            with self.subTest(sig=sig, step=step):
                yield self.interrupted_up(sig, up_s * (step + 0.5) / times)

    def interrupted_up(self, sig, delay_s):
        lab = self.lab()
        argv = [*lab.argv, "up", "--no-daemon"]
        with subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True) as up:
            time.sleep(delay_s)
            os.kill(up.pid, sig)
            up.communicate(timeout=60)
        return lab, up.returncode

    def test_interrupted_up_cleans_up(self):
        for sig in (signal.SIGINT, signal.SIGTERM):
            stopped = 0
            for lab, code in self.interrupted_ups(sig, 8):
                if code == 0:  # it was up already: nothing was interrupted
                    lab.down()
                else:
                    # Before its traps are set the signal itself ends it.
                    self.assertIn(code, (128 + sig, -sig))
                    stopped += 1
                self.assert_clean()
            self.assertGreater(stopped, 3)

    def test_down_after_a_killed_up(self):
        killed = 0
        for lab, code in self.interrupted_ups(signal.SIGKILL, 10):
            killed += code == -signal.SIGKILL
            lab.down()
            self.assert_clean()
        self.assertGreater(killed, 4)

    def test_up_after_a_killed_up(self):
        lab, _ = self.interrupted_up(signal.SIGKILL, 0.2)
        if not (lab.state / "complete").exists():
            lab.up()
        lab.hosts[0].run("ping", "-c", "1", "-W", "5", "hostb")
        lab.down()
        self.assert_clean()

    def test_down_after_a_killed_down(self):
        for step in range(4):
            lab = self.lab()
            lab.up()
            with subprocess.Popen([*lab.argv, "down"], start_new_session=True) as down:
                time.sleep(0.005 + 0.015 * step)
                down.kill()
            lab.down()
            self.assert_clean()

    def test_full_disk(self):
        for blocks, inodes in ((8, 1000), (64, 12), (200, 40)):
            script = (f"mkdir {self.state} && mount -t tmpfs -o size={blocks}k,nr_inodes={inodes} "
                      f"none {self.state} && {PROGRAM} -L full up --no-daemon; "
                      f"echo code $?; find {self.state} -mindepth 1; umount {self.state}")
            result = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True,
                                    text=True, env={**os.environ, **self.env}, timeout=60)
            os.rmdir(self.state)
            self.assertEqual(result.stdout, "code 1\n", result.stderr)
            self.assertIn("No space left", result.stderr)
            self.assert_clean()

    def test_failed_root_leaves_nothing(self):
        cache = self.state + ".cache"
        self.addCleanup(shutil.rmtree, cache, ignore_errors=True)
        self.env |= {"VZ_LAB_CACHE": cache, "VZ_LAB_MIRROR": "http://127.0.0.1:9/debian"}
        lab = self.lab()
        with self.assertRaises(CommandFailed) as raised:
            lab.up()
        self.assertIn("mmdebstrap failed", str(raised.exception))
        self.assertFalse(os.path.exists(cache))
        self.assert_clean()

    def test_bad_names_and_words(self):
        for argv in (["-L", "../x", "up"], ["-L", "A", "down"], ["up", "9"], ["up", "0"],
                     ["up", "--nonsense"], ["nonsense"], ["-x"]):
            result = subprocess.run([PROGRAM, *argv], capture_output=True, text=True,
                                    env={**os.environ, **self.env})
            self.assertEqual(result.returncode, 1, argv)
            self.assertRegex(result.stderr, r"^lab: .+\n$")
        self.assert_clean()


class Daemons(Clean):
    """What the lab does with a build; the daemon in it is a stand-in."""

    def setUp(self):
        super().setUp()
        self.source = pathlib.Path(tempfile.mkdtemp(prefix="vzbuild."))
        self.addCleanup(shutil.rmtree, self.source)
        (self.source / "virtvzd").write_text(FAKE_DAEMON)
        (self.source / "meson.build").write_text(
            "project('fake')\n"
            "install_data('virtvzd', install_dir: get_option('sbindir'),\n"
            "             install_mode: 'rwxr-xr-x')\n")
        self.env["VZ_BUILD"] = str(self.source / "build")

    def build(self, prefix="/usr"):
        subprocess.run(["meson", "setup", "--prefix", prefix, self.source / "build", self.source],
                       check=True, capture_output=True)

    def pid(self, host):
        found = host.run("pgrep", "-x", "virtvzd", check=False).stdout.split()
        self.assertLessEqual(len(found), 1)
        return found[0] if found else None

    def test_daemons_run(self):
        self.build()
        self.env["VZ_TEST_WORD"] = "passed-on"
        lab = self.lab(daemon=True)
        lab.up()
        a, b = lab.hosts
        first = self.pid(a)
        self.assertIsNotNone(first)
        self.assertIsNotNone(self.pid(b))
        self.assertIn("started passed-on", a.path("/var/log/virtvzd.log").read_text())
        self.assertTrue(a.path("/etc/virtvz/virtvzd.conf").exists())
        self.assertRegex(lab.command("status").stdout, rf"hosta .* virtvzd {first}\n")
        a.daemon("kill")
        self.assertIsNone(self.pid(a))
        a.daemon("start")
        second = self.pid(a)
        with self.assertRaises(CommandFailed):
            a.daemon("start")
        a.daemon("restart")
        self.assertNotIn(self.pid(a), (first, second, None))
        a.daemon("stop")
        a.daemon("stop")
        self.assertIsNone(self.pid(a))
        self.assertIsNotNone(self.pid(b))
        b.crash()
        b.boot()
        self.assertIsNotNone(self.pid(b))
        self.assertNotIn("<defunct>", a.out("ps", "ax") + b.out("ps", "ax"))
        lab.down()
        self.assert_clean()

    def test_a_daemon_that_fails_fails_up(self):
        (self.source / "virtvzd").write_text("#!/bin/sh\necho its last words; exit 1\n")
        self.build()
        lab = self.lab(daemon=True)
        with self.assertRaises(CommandFailed) as raised:
            lab.up()
        self.assertIn("its last words", str(raised.exception))
        self.assert_clean()

    def test_no_build_and_a_wrong_one(self):
        lab = self.lab(daemon=True)
        result = lab.command("up")
        self.assertIn("no build in", result.stderr)
        lab.down()
        self.build(prefix="/opt/elsewhere")
        result = lab.command("up", check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("has another prefix", result.stderr)
        self.assert_clean()


if __name__ == "__main__":
    tap.main()
