"""Runs the test guest in a QEMU of its own, for tests of the guest and of what looks at it.
Tests of what manages guests define them with lab/guest/domain.py.

QEMU must be 10 or later (7.2 loses guests when it migrates under emulation). It is the one named by
VZ_QEMU, or that of PATH, or that of the lab's Debian 13 root, run by that root's dynamic linker so that
neither chroot nor installation is needed.
"""

import functools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.normpath(os.path.join(HERE, "..", ".."))
GUEST = os.path.join(TOP, "lab", "guest")
sys.path.insert(0, GUEST)
import observer  # noqa: E402  pylint: disable=wrong-import-position

QEMU_MAJOR_MIN = 10
RAM_MB = 192
BOOT_TIMEOUT_S = 60
QMP_TIMEOUT_S = 30
EXIT_TIMEOUT_S = 20


def major(argv):
    """QEMU's major version, 0 if it does not run."""
    try:
        text = subprocess.run(argv + ["--version"], stdout=subprocess.PIPE, check=False).stdout
    except OSError:
        return 0
    match = re.search(rb"version (\d+)\.", text)
    return int(match.group(1)) if match else 0


@functools.lru_cache(None)
def root():
    """The Debian 13 root that kernel, busybox and perhaps QEMU come from; None if there is none."""
    path = os.environ.get("VZ_GUEST_ROOT")
    lab = os.path.join(TOP, "lab", "lab")
    if not path and os.access(lab, os.X_OK):
        done = subprocess.run([lab, "root"], stdout=subprocess.PIPE, text=True, check=False)
        path = done.stdout.strip() if done.returncode == 0 else None
    return path


@functools.lru_cache(None)
def qemu():
    """The command that runs QEMU >= 10, as a list; None if there is none."""
    candidates = [[os.environ["VZ_QEMU"]]] if "VZ_QEMU" in os.environ else []
    candidates.append(["qemu-system-x86_64"])
    for argv in candidates:
        if shutil.which(argv[0]) and major(argv) >= QEMU_MAJOR_MIN:
            return argv
    if not root():
        return None
    argv = [root() + "/lib64/ld-linux-x86-64.so.2", "--library-path",
            root() + "/usr/lib/x86_64-linux-gnu", root() + "/usr/bin/qemu-system-x86_64",
            "-L", root() + "/usr/share/seabios", "-L", root() + "/usr/share/qemu"]
    return argv if major(argv) >= QEMU_MAJOR_MIN else None


@functools.lru_cache(None)
def files():
    """(kernel, initrd, first words of the command line), built now."""
    out = os.environ.get("VZ_GUEST_OUT") or os.path.join(TOP, "build", "guest")
    subprocess.run([os.path.join(GUEST, "build.sh"), out], check=True,
                   env=dict(os.environ, **({"VZ_GUEST_ROOT": root()} if root() else {})))
    with open(os.path.join(out, "cmdline"), encoding="ascii") as file:
        return os.path.join(out, "vmlinuz"), os.path.join(out, "initrd.img"), file.read().strip()


def require():
    """Skips a test that has no QEMU or no root to make the guest from; with VZ_MUST_WORK, fails."""
    for what, found in (("a Debian 13 root: run lab/lab root", root()), ("QEMU >= 10", qemu())):
        if not found:
            if os.environ.get("VZ_MUST_WORK") == "1":
                raise AssertionError("needs " + what)
            raise unittest.SkipTest("needs " + what)


def free_port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Qmp:
    """Just enough of QMP."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(QMP_TIMEOUT_S)
        try:
            self.sock.connect(path)
        except OSError:
            self.sock.close()
            raise
        self.stream = self.sock.makefile("r")
        self.stream.readline()
        self("qmp_capabilities")

    def __call__(self, command, **arguments):
        self.sock.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self.stream:
            reply = json.loads(line)
            if "error" in reply:
                raise RuntimeError("%s: %s" % (command, reply["error"]["desc"]))
            if "return" in reply:
                return reply["return"]
        raise RuntimeError("%s: QEMU closed the connection" % command)

    def close(self):
        self.stream.close()
        self.sock.close()


class Machine:
    """One QEMU with the test guest. words: what the guest's command line gets beyond the usual;
    extra: QEMU options; incoming: a migration URI to start from, as left by save()."""

    def __init__(self, name, words="", extra=(), incoming=None, beats_to=None):
        kernel, initrd, cmdline = files()
        self.name = name
        self.dir = tempfile.TemporaryDirectory(prefix="vz-guest-")
        self.ask_port = free_port()
        self.console = observer.Console()
        self.lock = threading.Lock()
        self.text = ""
        to = "vz.to=10.0.2.2:%d" % beats_to if beats_to else ""
        argv = qemu() + [
            "-M", "pc", "-accel", "tcg", "-m", str(RAM_MB), "-nodefaults", "-no-user-config",
            "-display", "none", "-kernel", kernel, "-initrd", initrd,
            "-append", "%s vz.id=%s vz.ip=10.0.2.15/24 %s %s" % (cmdline, name, to, words),
            "-qmp", "unix:%s/qmp,server=on,wait=off" % self.dir.name,
            "-chardev", "pty,id=serial", "-serial", "chardev:serial",
            "-netdev", "user,id=net,hostfwd=udp:127.0.0.1:%d-:7707" % self.ask_port,
            "-device", "virtio-net-pci,netdev=net,mac=52:54:00:76:7a:01,romfile="] + list(extra)
        if incoming:
            argv += ["-incoming", incoming]
        self.started = time.monotonic()
        self.log = open(os.path.join(self.dir.name, "log"), "w+b")
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log)
        self.qmp = self.connect()
        self.pty = next(one["filename"][4:] for one in self.qmp("query-chardev")
                        if one["label"] == "serial")
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def connect(self):
        path = os.path.join(self.dir.name, "qmp")
        deadline = time.monotonic() + QMP_TIMEOUT_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return Qmp(path)
            except OSError:
                time.sleep(0.02)
        self.log.seek(0)
        raise RuntimeError("QEMU did not start: %s" % self.log.read().decode(errors="replace"))

    def read(self):
        """Feeds the serial console to the ledger, in its own thread, until QEMU ends."""
        fd = os.open(self.pty, os.O_RDWR | os.O_NOCTTY)
        observer.tty.setraw(fd)
        self.pty_fd = fd
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:
                data = b""
            if not data:
                os.close(fd)
                return
            with self.lock:
                self.console.feed(time.monotonic(), data)
                self.text = (self.text + data.decode("ascii", "replace"))[-100000:]

    def type(self, text):
        os.write(self.pty_fd, text.encode() + b"\r")

    def wait_text(self, pattern, timeout_s=BOOT_TIMEOUT_S):
        """The match of pattern in what the console said (its last 100 kB); fails if it does not come."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self.lock:
                match = re.search(pattern, self.text)
            if match:
                return match
            if self.process.poll() is not None and not self.reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError("'%s' was not said; the end: %r" % (pattern, self.text[-2000:]))

    def report(self, mark="start"):
        """The observer's judgement of the serial console."""
        with self.lock:
            return self.console.book.report(time.monotonic(), mark, self.name)

    def mark(self, name):
        with self.lock:
            self.console.book.mark(name, time.monotonic())

    def ask(self, words, timeout_s=15):
        """The answer over UDP; fails if there is none."""
        answer = observer.ask(("127.0.0.1", self.ask_port), words, timeout_s)
        if answer is None:
            raise AssertionError("no answer to '%s'" % words)
        return answer

    def stat(self):
        """The numbers of `stat` as a dict of text."""
        return dict(word.split("=", 1) for word in self.ask("stat").split()[1:])

    def migrate(self, uri, timeout_s=60):
        """Starts a migration and waits until it is completed."""
        self.qmp("migrate-set-parameters", **{"max-bandwidth": 1 << 34, "downtime-limit": 50})
        self.qmp("migrate", uri=uri)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = self.qmp("query-migrate")
            if status.get("status") in ("completed", "failed"):
                break
            time.sleep(0.01)
        if status.get("status") != "completed":
            raise AssertionError("migration: %s" % status)
        return status

    def wait_exit(self, timeout_s=EXIT_TIMEOUT_S):
        return self.process.wait(timeout_s)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join(5)
        self.qmp.close()
        self.log.close()
        self.dir.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

