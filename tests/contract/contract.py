"""What the contract tests share: real virsh, of both Debian releases, against virtvzd in a lab host.

A client is a way to run virsh: Virsh13 is libvirt 11.3's, inside the host, by vz:///system and without
any configuration; Virsh12 is this machine's own (9.0 on Debian 12), by the same socket.
"""

import functools
import os
import pathlib
import re
import select
import shutil
import subprocess
import sys
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(SOURCE / "tests" / "lab"), str(SOURCE / "tests" / "support"),
                str(SOURCE / "lab" / "guest")]
import domain as guest_domain  # noqa: E402  pylint: disable=wrong-import-position
import guest  # noqa: E402  pylint: disable=wrong-import-position
import tap  # noqa: E402,F401  pylint: disable=wrong-import-position,unused-import
from hosts import Host, Lab  # noqa: E402  pylint: disable=wrong-import-position

VIRSH_TIMEOUT_S = 90
BOOT_TIMEOUT_S = 60
GUEST_FILES = "/shared/guest"
BOOTED = b"beat "  # the test guest's first word on its console


def require():
    """Skips where there is no root for a lab; with VZ_MUST_WORK, fails."""
    if os.geteuid() == 0:
        guest.require()
    elif os.environ.get("VZ_MUST_WORK") == "1":
        raise AssertionError("needs root")
    else:
        raise unittest.SkipTest("needs root")


class Result:
    """A virsh run: code, what it printed, and its error text without 'error: '."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = out.strip()
        self.err = err.strip()
        self.errors = [line[len("error: "):] for line in self.err.splitlines()
                       if line.startswith("error: ")]


class Virsh13:
    """libvirt 11.3's virsh, in the host."""

    name = "virsh 11.3"

    def __init__(self, host):
        self.host = host

    def argv(self, *words, read_only=False):
        return ["virsh", *(["-r"] if read_only else []), "-c", "vz:///system", *words]

    def run(self, *words, read_only=False):
        done = self.host.run(*self.argv(*words, read_only=read_only), check=False,
                             timeout=VIRSH_TIMEOUT_S)
        return Result(done.returncode, done.stdout, done.stderr)

    def popen(self, *words, **more):
        return self.host.popen(*self.argv(*words), **more)

    def path(self, inside):
        return inside


class Machine(Host):
    """This machine itself, for programs that a terminal is wanted for."""

    def _argv(self, argv, env):
        return ["env", "LC_ALL=C", *argv]


class Virsh12(Virsh13):
    """This machine's virsh, through the host's socket."""

    name = "this machine's virsh"

    def argv(self, *words, read_only=False):
        socket = self.host.path("/run/libvirt/virtvzd-sock" + ("-ro" if read_only else ""))
        return ["virsh", *(["-r"] if read_only else []), "-c",
                "vz+unix:///system?socket=%s" % socket, *words]

    def run(self, *words, read_only=False):
        done = subprocess.run(self.argv(*words, read_only=read_only), capture_output=True, text=True,
                              timeout=VIRSH_TIMEOUT_S, stdin=subprocess.DEVNULL, check=False,
                              env=dict(os.environ, LC_ALL="C"))
        return Result(done.returncode, done.stdout, done.stderr)

    def popen(self, *words, **more):
        return Machine(self.host.lab, "machine").popen(*self.argv(*words), **more)

    def path(self, inside):
        return str(self.host.path(inside))


class Terminal:
    """What a program on a terminal prints, and what is typed to it."""

    def __init__(self, process):
        self.process = process
        self.text = b""

    def read_until(self, wanted, seconds=BOOT_TIMEOUT_S):
        end = time.monotonic() + seconds
        while wanted not in self.text and time.monotonic() < end:
            if not select.select([self.process.terminal], [], [], 0.2)[0]:
                continue
            try:
                self.text += os.read(self.process.terminal, 65536)
            except OSError:
                break
        return wanted in self.text

    def type(self, data):
        os.write(self.process.terminal, data)


class Events:
    """`virsh event --all --loop` in the background; its lines as words: 'lifecycle g1 Started Booted'."""

    def __init__(self, client):
        self.process = client.popen("event", "--all", "--loop", tty=True)
        self.terminal = Terminal(self.process)
        time.sleep(1)  # there is no sign of its registrations

    def lines(self):
        return re.findall(r"event '([\w-]+)' for domain '([^']+)'(?::? ?)([^\r\n]*)",
                          self.terminal.text.decode())

    def expect(self, test, wanted, seconds=20):
        """The events so far, in order, all of them."""
        self.terminal.read_until(b"", 0)
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.lines()) < len(wanted):
            self.terminal.read_until(b"no such text", 0.3)
        self.terminal.read_until(b"no such text", 0.3)
        test.assertEqual([" ".join(filter(None, line)) for line in self.lines()], wanted)
        self.terminal.text = b""

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.process.terminal)


class Case(unittest.TestCase):
    """A test of one client. Subclasses are made by for_both()."""

    client_class = None
    lab = None

    def setUp(self):
        self.host = self.lab.hosts[0]
        self.virsh = self.client_class(self.host)
        self.addCleanup(self.remove_domains)

    def remove_domains(self):
        for name in self.virsh.run("list", "--name").out.split():
            self.virsh.run("destroy", name)
        for name in self.virsh.run("list", "--all", "--name").out.split():
            self.virsh.run("undefine", name)

    def ok(self, *words):
        """Runs virsh, which must succeed; what it prints."""
        done = self.virsh.run(*words)
        self.assertEqual(done.code, 0, "virsh %s: %s" % (" ".join(words), done.err))
        return done.out

    def fails(self, error, *words, read_only=False):
        """Runs virsh, which must fail with this as its last error line."""
        done = self.virsh.run(*words, read_only=read_only)
        self.assertNotEqual(done.code, 0, done.out)
        self.assertEqual((done.errors or [""])[-1], error)

    def xml(self, name, words="", **more):
        """The path of a definition, as the client's virsh sees it."""
        text = guest_domain.domain_xml(name, words, files=GUEST_FILES, **more)
        return self.write("%s.xml" % name, text)

    def write(self, name, text):
        (self.lab.shared / name).write_text(text)
        return self.virsh.path("/shared/" + name)

    def define(self, name="g1", **more):
        self.ok("define", self.xml(name, **more))

    def state(self, name="g1"):
        return self.ok("domstate", name, "--reason")

    def wait_state(self, wanted, name="g1", seconds=30):
        end = time.monotonic() + seconds
        while self.state(name) != wanted and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual(self.state(name), wanted)

    def events(self):
        events = Events(self.virsh)
        self.addCleanup(events.close)
        return events

    def console(self, *flags, name="g1"):
        process = self.virsh.popen("console", name, *flags, tty=True)
        self.addCleanup(self.end, process)
        return Terminal(process)

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.terminal is not None:
            os.close(process.terminal)
            process.terminal = None

    def boot(self, name="g1"):
        """Waits until the guest's userspace speaks, so that it listens to ACPI too."""
        terminal = self.console("--force", name=name)
        self.assertTrue(terminal.read_until(BOOTED), terminal.text[-1000:])
        self.end(terminal.process)

    def qemu_pid(self, name="g1"):
        """Of the domain's QEMU, as the host numbers it."""
        return self.host.out("pgrep", "-f", "guest=%s" % name)


@functools.lru_cache(None)
def the_lab():
    """One lab of one host for a whole test program."""
    lab = Lab("contract-%d" % os.getpid(), hosts=1)
    lab.up()
    kernel, initrd, _ = guest.files()
    (lab.shared / "guest").mkdir()
    shutil.copy(kernel, lab.shared / "guest" / "vmlinuz")
    shutil.copy(initrd, lab.shared / "guest" / "initrd.img")
    return lab


def set_up_module():
    require()
    Case.lab = the_lab()


def tear_down_module():
    """Ends virtvzd, which must have nothing to complain about: no sanitizer's report, no crash."""
    host = the_lab().hosts[0]
    try:
        host.daemon("stop")
        log = host.out("cat", "/var/log/virtvzd.log")
    finally:
        the_lab().down()
    bad = re.search(r"(?s)(ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|GLib-CRITICAL|"
                    r"\*\*\nERROR).*", log)
    if bad:
        raise AssertionError(bad.group(0)[:4000])


def for_both(base, namespace):
    """Makes of a Case the test classes of both clients, in the module's namespace."""
    for client in (Virsh12, Virsh13):
        name = "%s_%s" % (base.__name__, client.__name__)
        namespace[name] = type(name, (base,), {"client_class": client, "__module__": base.__module__,
                                               "__qualname__": name, "__doc__": base.__doc__})
    del namespace[base.__name__]
