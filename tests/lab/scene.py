"""A lab with test guests that are watched from a third place, for the migration tests.

    with Scene("move") as scene:
        guest = scene.guest("g1", "vz.dirty=2", disk=True)
        guest.start(scene.a)
        with guest.unharmed(gap_ms=1000):
            scene.a.run("virsh", "-c", VZ, "migrate", "--live", "g1", scene.uri(scene.b))
        guest.expect_on(scene.b)

`unharmed` is the invariant after everything that is done to a guest: exactly one copy answers, its
counter never went back, all its memory and disk verify, and nothing else is left on either host.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import guest as test_guest  # noqa: E402
import phases  # noqa: E402
from hosts import SOURCE, Lab  # noqa: E402

sys.path.insert(0, str(SOURCE / "lab" / "guest"))
import domain  # noqa: E402
import observer  # noqa: E402

VZ = "vz:///system"
OBSERVER_PORT = 7700
BOOT_TIMEOUT_S = 60
SETTLE_TIMEOUT_S = 40
VIRSH_TIMEOUT_S = 120
# What a migration that is over must have taken away.
LEFTOVERS = ("/var/lib/virtvz/jobs", "/run/virtvz/jobs", "/run/virtvz/qemu", "/run/virtvz/domains")


def eventually(what, check, timeout_s=SETTLE_TIMEOUT_S):
    """Waits until check() is true; its last answer is in the failure."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError("%s: not within %d s; the last answer was %r" % (what, timeout_s, answer))
        time.sleep(0.1)


class Guest:
    """One test guest of a scene, wherever it is."""

    def __init__(self, scene, name, words, disk, memory_mib):
        number = len(scene.guests)
        self.scene, self.name = scene, name
        self.address = "%s.%d" % (scene.network, 100 + number)
        words = "vz.ip=%s/24 vz.to=%s:%d vz.serial=0 %s" % (
            self.address, scene.lab.observer.address, OBSERVER_PORT, words)
        disk_xml = self.image = None
        if disk:
            self.image = "/shared/%s.img" % name if disk is True else disk
            outside = scene.a.path(self.image)
            with open(outside, "wb") as file:
                file.truncate(16 << 20)
            disk_xml = domain.disk_xml(self.image)
        self.xml = domain.domain_xml(name, words, disk_xml, "/shared/guest",
                                     memory_mib=memory_mib)
        self.file = "/shared/%s.xml" % name
        scene.a.path(self.file).write_text(self.xml)

    def start(self, host, *, define=True):
        virsh = scene_virsh(host)
        if define:
            virsh("define", self.file)
            virsh("start", self.name)
        else:
            virsh("create", self.file)
        eventually("%s beats" % self.name, lambda: self.report("start").get("beats", 0) > 20,
                   BOOT_TIMEOUT_S)

    def report(self, mark="start"):
        return self.scene.observe("report", mark).get(self.name, {})

    def state(self, host):
        """virsh domstate, or None where the domain is not known."""
        done = host.run("virsh", "-c", VZ, "domstate", self.name, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    def expect_on(self, host, other="gone"):
        """Runs here, and there it is gone or shut off."""
        state = self.state(host)
        if state != "running":
            raise AssertionError("%s is '%s' on %s" % (self.name, state, host.name))
        for one in self.scene.lab.hosts:
            if one is not host:
                state = self.state(one)
                wanted = {"gone": [None], "shut off": ["shut off"], "any": [None, "shut off"]}[other]
                if state not in wanted:
                    raise AssertionError("%s is '%s' on %s" % (self.name, state, one.name))

    def ask(self, words, timeout_s=20):
        """A question by UDP, from the observer's place; "" without an answer."""
        return self.scene.observer().ask(self.address, words, timeout_s) or ""

    @contextlib.contextmanager
    def unharmed(self, gap_ms=None, beats=True):
        """What happens inside leaves exactly one copy of the guest, whole."""
        mark = "unharmed-" + self.name  # again and again: an observer keeps 64
        self.scene.observe("mark", mark)
        self.gap_ms = None
        yield self
        if beats:
            first = self.report(mark).get("beats", 0)
            eventually("%s beats again" % self.name,
                       lambda: self.report(mark).get("beats", 0) > first + 20)
        verdict = eventually("%s verifies" % self.name, lambda: self.ask("verify"))
        report = self.report(mark)
        self.gap_ms = report["longest_gap_ms"]
        if not verdict.startswith("verify ok"):
            raise AssertionError("%s: %s" % (self.name, verdict))
        if report["problems"]:
            raise AssertionError("%s: %s" % (self.name, report["problems"]))
        if gap_ms is not None and self.gap_ms > gap_ms:
            raise AssertionError("%s was silent for %d ms" % (self.name, self.gap_ms))


def scene_virsh(host):
    """virsh on a host, as a function of its words; returns what it prints."""
    return lambda *words, **more: host.out("virsh", "-c", VZ, *words,
                                           timeout=VIRSH_TIMEOUT_S, **more)


@contextlib.contextmanager
def program(host, *argv, says):
    """A program that runs on a host, once its first line is that; it is ended by SIGTERM."""
    process = host.popen(*argv)
    try:
        if process.stdout.readline() != says + "\n":
            raise AssertionError(process.communicate()[1])
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=VIRSH_TIMEOUT_S)


@contextlib.contextmanager
def for_module(scene):
    """For setUpModule: the scene stays until the module's tests are over; where preparing it fails
    it goes at once."""
    with contextlib.ExitStack() as stack:
        yield stack.enter_context(scene)
        unittest.addModuleCleanup(stack.pop_all().close)


class Scene:
    """A lab, an observer that listens, and guests. VZ_TEST_LAB renames the lab, so that the same
    test can run twice at the same time. faulty: with virtvzd-faults for virtvzd (HACKING.md)."""

    def __init__(self, name, hosts=2, env=None, faulty=False):
        self.faulty = faulty
        self.lab = Lab(os.environ.get("VZ_TEST_LAB", name), hosts=hosts, env=env)
        self.guests = []
        self.watcher = None

    def __enter__(self):
        self.lab.up()
        try:
            self.a, self.b = self.lab.hosts[:2]
            self.network = self.a.address.rsplit(".", 1)[0]
            self.control = "/run/virtvz-observer-%s.sock" % self.lab.name
            with contextlib.suppress(OSError):
                os.unlink(self.control)  # of a run that was killed
            self.watcher = self.lab.observer.popen(
                sys.executable, SOURCE / "lab/guest/observer.py", "run", "--control", self.control,
                "--udp", "0.0.0.0:%d" % OBSERVER_PORT)
            self.install_guest()
            if self.faulty:
                self.install_faulty()
            eventually("the observer listens", lambda: os.path.exists(self.control), 10)
        except BaseException:
            self.__exit__()
            raise
        return self

    def install_faulty(self):
        for host in self.lab.hosts:
            host.daemon("stop")
            program = host.path("/usr/sbin/virtvzd")
            program.unlink()
            shutil.copy(pathlib.Path(os.environ.get("VZ_BUILD", "build"), "tests", "virtvzd-faults"), program)
            host.daemon("start")

    def __exit__(self, *_):
        if self.watcher:
            self.watcher.kill()
            self.watcher.communicate()
        with contextlib.suppress(OSError):
            os.unlink(self.control)
        self.lab.down()

    def install_guest(self):
        """Kernel and initramfs, where both hosts find them."""
        kernel, initrd, _ = test_guest.files()
        target = pathlib.Path(self.lab.shared) / "guest"
        target.mkdir(exist_ok=True)
        for path in (kernel, initrd):
            shutil.copy(path, target)
            os.chmod(target / os.path.basename(path), 0o644)

    def observer(self):
        return observer.Client(self.control)

    def observe(self, verb, mark):
        """mark or report"""
        return getattr(self.observer(), verb)(mark) or {}

    def guest(self, name, words="", disk=False, memory_mib=None):
        guest = Guest(self, name, words, disk, memory_mib)
        self.guests.append(guest)
        return guest

    def uri(self, host):
        """The destination's daemon, as a client or the other daemon opens it."""
        return "vz+tcp://%s/system" % host.address

    def leftovers(self):
        """What is left of jobs and dead guests on any host: records, run directories, carriers,
        QEMUs and taps that no domain accounts for."""
        found = []
        for host in self.lab.hosts:
            with phases.Client(host) as client:
                domains = client.domains()
            uuids = {identity for _, identity, _ in domains}
            active = [name for name, _, runs in domains if runs]
            for place in LEFTOVERS:
                path = host.path(place)
                for entry in sorted(os.listdir(path)) if path.is_dir() else []:
                    if entry != "incarnation" and entry.split(".")[0] not in uuids:
                        found.append("%s:%s/%s" % (host.name, place, entry))
            qemus = host.processes("qemu-system-x86_64")
            carriers = host.processes("virtvz-carrier")
            links = pathlib.Path("/proc/%d/net/dev" % host.init_pid).read_text().split()
            taps = [word for word in links if word.startswith("vnet")]
            if len(qemus) != len(active):
                found.append("%s: %d QEMUs for %d guests" % (host.name, len(qemus), len(active)))
            if carriers:
                found.append("%s: carriers %s" % (host.name, carriers))
            if len(taps) != len(active):
                found.append("%s: taps %s for %d guests" % (host.name, taps, len(active)))
        return found + self.stray_notes()

    def lease(self, image, directory=None):
        """What the lease of an image says, read by this machine; None: there is none."""
        path = pathlib.Path(directory or self.lab.shared) / (".virtvz-lease-" + os.path.basename(image))
        return json.loads(path.read_text()) if path.exists() else None

    def stray_notes(self):
        """Files beside the images that should not be there: all but one lease per running guest's
        image, which names the host that it runs on."""
        found = []
        expected = {}
        for guest in self.guests:
            for host in self.lab.hosts:
                if (guest.image or "").startswith("/shared/") and guest.state(host) in ("running", "paused"):
                    expected[".virtvz-lease-" + os.path.basename(guest.image)] = host.name
        present = [one for one in os.listdir(self.lab.shared) if one.startswith(".virtvz-")]
        for one in sorted({*present, *expected}):
            holder = json.loads((pathlib.Path(self.lab.shared) / one).read_text())["host_name"] if (
                one in present and one.startswith(".virtvz-lease-")) else None
            if holder is None or holder != expected.get(one):
                found.append("/shared/%s: of %s, but the guest runs on %s" % (
                    one, holder, expected.get(one)))
        return found

    def show_logs(self, lines=60):
        """The last lines of every daemon, for a test that failed; clients' comings are left out."""
        for host in self.lab.hosts:
            path = host.path("/var/log/virtvzd.log")
            text = path.read_text() if path.exists() else ""
            kept = [line for line in text.splitlines() if "debug client" not in line]
            print("--- %s" % host.name, *kept[-lines:], sep="\n", file=sys.stderr)

    @contextlib.contextmanager
    def last_look(self, test):
        """For what a test does at its end: the daemons' logs are shown where the test has failed, or this
        does."""
        failed = True
        try:
            yield
            failed = not test._outcome.success
        finally:
            if failed:
                self.show_logs()

    def survive_crash(self, guest, victim, fault, begin):
        """A daemon dies at a fault of the move that begin() starts, and comes back; whoever runs the guest
        then is the only one. Of a faulty scene."""
        victim.daemon("restart", fault)
        with guest.unharmed():
            process = begin()
            eventually("the daemon dies by %s" % fault, lambda: not victim.processes("virtvzd"), 60)
            victim.daemon("start")
            process.communicate(timeout=VIRSH_TIMEOUT_S)
            eventually("one host runs it, the other does not",
                       lambda: sorted(str(guest.state(host)) for host in self.lab.hosts) in
                       (["None", "running"], ["running", "shut off"]), 90)
        self.expect_nothing_left(60)
        victim.daemon("restart")

    def expect_nothing_left(self, timeout_s=SETTLE_TIMEOUT_S):
        deadline = time.monotonic() + timeout_s
        while True:
            found = self.leftovers()
            if not found:
                return
            if time.monotonic() > deadline:
                raise AssertionError("left over: " + "; ".join(found))
            time.sleep(0.5)
