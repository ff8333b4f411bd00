"""Records what a build of virtvz keeps and sends, by moving a guest in a lab: README.md says what for.

    VZ_BUILD=build python3 tests/recorded/record.py DIRECTORY

A job's records are removed when it is over, so each has a second name from its first moment on: what
is kept is the whole of it, and each beginning of it that ends with a line is what a daemon that was
killed there would have left. Needs root.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "lab"))
import phases  # noqa: E402
from scene import VZ, Scene, eventually  # noqa: E402

BUILD = os.environ.get("VZ_BUILD", "build")
STATE, RUN = "/var/lib/virtvz", "/run/virtvz"
POLL_S = 0.002


class Keeper(threading.Thread):
    """Gives every record of a job on a host a second name."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.jobs, self.kept = host.path(STATE + "/jobs"), host.path(STATE + "/kept")
        self.kept.mkdir(exist_ok=True)
        self.ended = threading.Event()
        self.start()

    def run(self):
        while not self.ended.wait(POLL_S):
            for name in os.listdir(self.jobs):
                with contextlib.suppress(OSError):
                    os.link(self.jobs / name, self.kept / name)

    def end(self):
        self.ended.set()
        self.join()

    def text(self, suffix):
        (path,) = self.kept.glob("*" + suffix)
        return path.read_text()


class Recorder:
    def __init__(self, scene, directory):
        self.scene, self.directory = scene, pathlib.Path(directory)
        self.guest = scene.guest("web", disk=True)

    def write(self, name, text):
        text = text.replace(self.scene.network + ".", "192.0.2.")  # the lab's is another one tomorrow
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def copy(self, name, host, place):
        found = sorted(host.path(os.path.dirname(place)).glob(os.path.basename(place)))
        if found:
            self.write(name, found[0].read_text())

    def daemon(self, host, fault=None):
        host.daemon("stop")
        env = {**os.environ, **({"VZ_FAULT": fault} if fault else {})}
        subprocess.run([*self.scene.lab.argv, "daemon", host.name, "start"], env=env, check=True)

    @contextlib.contextmanager
    def kept(self, name):
        a, b = self.scene.a, self.scene.b
        keepers = {".out": Keeper(a), ".in": Keeper(b)}
        yield
        eventually("the job is over", lambda: not any(
            one.name.endswith((".out", ".in")) for host in (a, b)
            for one in host.path(STATE + "/jobs").iterdir()), 60)
        for suffix, keeper in keepers.items():
            keeper.end()
            self.write("%s%s" % (name, suffix), keeper.text(suffix))
            if suffix == ".in":
                self.write("job.key", keeper.text(".in.key"))
            shutil.rmtree(keeper.kept)

    def clear(self):
        for host in self.scene.lab.hosts:
            for words in (("destroy",), ("undefine",)):
                host.run("virsh", "-c", VZ, *words, self.guest.name, check=False)
            for place in ("domains/*.marks", "trail/*"):
                for one in host.path(STATE).glob(place):
                    one.unlink()

    def phases(self, cancelled):
        """A managed move, call by call."""
        source, destination = phases.Client(self.scene.a), phases.Client(self.scene.b)
        domain = source.lookup(self.guest.name)
        cookies = {}
        cookies["begin"], xml = source.begin(domain)
        cookies["prepare"], address = destination.prepare(cookies["begin"], xml)
        self.copy("arriving.marks", self.scene.b, STATE + "/domains/*.marks")
        cookies["perform"] = source.perform(domain, cookies["prepare"], address)
        if cancelled:
            with contextlib.suppress(phases.Refused):
                destination.finish(self.guest.name, cookies["perform"], cancelled=1)
            source.confirm(domain, b"", cancelled=1)
        else:
            cookies["finish"] = destination.finish(self.guest.name, cookies["perform"])
            self.copy("web.lease", self.scene.b, "/shared/.virtvz-lease-*")
            source.confirm(domain, cookies["finish"])
            for phase, cookie in cookies.items():
                self.write("%s.cookie" % phase, cookie.decode())
        source.close()
        destination.close()

    def moved(self):
        self.guest.start(self.scene.a)
        with self.kept("moved"):
            self.phases(cancelled=False)
        self.copy("running.status", self.scene.b, RUN + "/domains/*.status")
        self.copy("moved.marks", self.scene.a, STATE + "/domains/*.marks")
        self.copy("job.trail", self.scene.a, STATE + "/trail/*[0-9a-f]")
        self.clear()

    def cancelled(self):
        self.guest.start(self.scene.a)
        with self.kept("cancelled"):
            self.phases(cancelled=True)
        self.clear()

    def offline(self):
        """Of a domain that is shut off."""
        a, b = self.scene.a, self.scene.b
        a.run("virsh", "-c", VZ, "define", self.guest.file)
        with self.kept("offline"):
            a.run("virsh", "-c", VZ, "migrate", "--offline", "--persistent", self.guest.name,
                  self.scene.uri(b), timeout=120)
        self.clear()

    def resolved(self, name, fault, word):
        """In doubt, until the operator decides."""
        a, b = self.scene.a, self.scene.b
        self.guest.start(a)
        self.daemon(b, fault)
        with self.kept(name):
            a.run("virsh", "-c", VZ, "migrate", "--live", "--p2p", "--persistent", "--undefinesource",
                  self.guest.name, self.scene.uri(b), check=False, timeout=120)
            eventually("it is in doubt", lambda: "in doubt" in a.out("vz", "jobs"), 60)
            b.run("sh", "-c", "kill -9 $(pgrep qemu-system)")
            if word == "--there":
                record = next(b.path(STATE + "/jobs").glob("*.in"))
                with open(record, "a", encoding="ascii") as file:
                    file.write("state start-attempted\n")
                self.daemon(b)
                time.sleep(3)
            a.run("vz", "resolve", self.guest.name, word, "--yes")
            if word == "--here":
                self.daemon(b)
        self.clear()


def main():
    with Scene("record", env={"VZ_BUILD": BUILD}) as scene:
        for host in scene.lab.hosts:
            host.daemon("stop")
            program = host.path("/usr/sbin/virtvzd")
            program.unlink()
            shutil.copy(os.path.join(BUILD, "tests", "virtvzd-faults"), program)
            host.daemon("start")
        recorder = Recorder(scene, sys.argv[1])
        try:
            recorder.moved()
            recorder.cancelled()
            if "check-stopped" in subprocess.run([os.path.join(BUILD, "print-steps")], check=True,
                                                 stdout=subprocess.PIPE, text=True).stdout:
                recorder.offline()
            if "resolve" in scene.a.run("vz", "--help", check=False).stdout:
                recorder.resolved("here", "commit:crash:after", "--here")
                recorder.resolved("there", "start-guest:crash:before", "--there")
        except BaseException:
            scene.show_logs()
            raise
    done = subprocess.run([os.path.join(BUILD, "tests", "record_wire")], stdout=subprocess.PIPE, text=True,
                          check=True)
    recorder.write("wire.hex", done.stdout)


main()
