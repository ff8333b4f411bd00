"""virtvzd is replaced by a later version in the middle of a job, on both hosts: the records that the
earlier one left are gone on with, and exactly one copy answers, whole.

What the earlier version left is made of what this one left, where it is not there: nothing stays but what
the recorded records of version 1 have (tests/recorded/1). With VZ_OLD_BUILD, a build directory of an
earlier version, that version itself begins the jobs. A sample for `make check`; all of it with VZ_LONG=1.
"""

import os
import pathlib
import re
import shutil
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from hosts import SOURCE  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

BUILD = os.environ.get("VZ_BUILD", "build")
OLD_BUILD = os.environ.get("VZ_OLD_BUILD")
HOLD = ":hang:" if OLD_BUILD else ":hold:"  # as it was called then
RECORDED = SOURCE / "tests" / "recorded" / "1"
MIGRATE_TIMEOUT_S = 120
MOVE = ("--live", "--persistent", "--undefinesource")
PROGRAMS = {"tests/virtvzd-faults": "/usr/sbin/virtvzd",
            "virtvz-carrier": "/usr/libexec/virtvz/virtvz-carrier",
            "virtvz-probe": "/usr/libexec/virtvz/virtvz-probe"}
# What version 1 did not know of, on a host.
UNKNOWN_FILES = ("/var/lib/virtvz/domains/*.marks", "/var/lib/virtvz/trail/*", "/shared/.virtvz-lease-*")

# (who is killed at which step, the records then, where the guest ends up)
CASES = (("source", "copy-memory:before", ("none", "prepared"), "source"),
         ("destination", "load:after", ("released", "loaded"), "source"),
         ("destination", "commit:after", ("released", "committed"), "destination"),
         ("destination", "start-guest:after", ("released", "started"), "destination"))
MORE = (("destination", "record-prepared:after", ("none", "prepared"), "source"),
        ("source", "release:before", ("none", "prepared"), "source"),
        ("source", "release:after", ("released", "prepared"), "source"),
        ("destination", "commit:before", ("released", "loaded"), "source"),
        ("destination", "start-guest:before", ("released", "committed"), "destination"),
        ("destination", "announce:after", ("released", "started"), "destination"),
        ("source", "hand-over:after", ("released", "started"), "destination"),
        ("source", "end-source:before", ("released", "started"), "destination"),
        ("source", "undefine:before", ("released", "started"), "destination"))

scene = None
worker = None


def cases():
    """With who is started first."""
    if tap.LONG:
        return [(*case, first) for case in CASES + MORE for first in ("source", "destination")]
    return [(*case, ("source", "destination")[index % 2]) for index, case in enumerate(CASES)]


def install(host, build):
    for name, place in PROGRAMS.items():
        path = host.path(place)
        path.unlink()  # one that runs goes on
        shutil.copy(os.path.join(build, name), path)


def setUpModule():
    global scene, worker
    with for_module(Scene("upgrade", faulty=not OLD_BUILD)) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        if not OLD_BUILD:
            worker.start(scene.a)


def virsh(host, *words):
    return host.run("virsh", "-c", VZ, *words, check=False, timeout=MIGRATE_TIMEOUT_S)


def files(host, pattern):
    path = host.path(pattern)
    return sorted(path.parent.glob(path.name))


def start_over():
    """Both hosts as the earlier version has them, with a guest that it started."""
    for host in scene.lab.hosts:
        for words in (("destroy",), ("undefine",)):
            virsh(host, *words, worker.name)
        host.daemon("stop")
        for pattern in UNKNOWN_FILES:
            for path in files(host, pattern):
                path.unlink()
        install(host, OLD_BUILD)
        host.daemon("start")
    worker.start(scene.a)


def events_of(text):
    """The steps, values and states that a record names, as its lines begin."""
    return {tuple(line.split(" ")[:2]) for line in text.splitlines()[1:]}


def as_version_1(path):
    """Rewrites a record as version 1 would have written it."""
    known = set()
    for one in RECORDED.glob("*" + path.suffix):
        known |= events_of(one.read_text())
    header, *lines = path.read_text().splitlines()
    kept = [line for line in lines if tuple(line.split(" ")[:2]) in known]
    path.write_text("\n".join([re.sub("^virtvz-journal [0-9]+ ", "virtvz-journal 1 ", header), *kept]) + "\n")


def become_older(host):
    """Takes away what version 1 would not have left, while no daemon runs."""
    for pattern in UNKNOWN_FILES:
        for path in files(host, pattern):
            path.unlink()
    for path in files(host, "/var/lib/virtvz/jobs/*.out") + files(host, "/var/lib/virtvz/jobs/*.in"):
        as_version_1(path)
    for path in files(host, "/run/virtvz/domains/*.status"):
        text = re.sub("^version 2\n", "version 1\n", path.read_text())
        path.write_text(re.sub("\nreboot .\n", "\n", text, count=1))


def text_of(host, suffix):
    """The one record of a side, or none."""
    return "".join(path.read_text() for path in files(host, "/var/lib/virtvz/jobs/*" + suffix))


def state_of(host, suffix):
    return (["none"] + re.findall("^state (.*)$", text_of(host, suffix), re.M))[-1]


def leftovers():
    """But for leases: a guest that version 1 started has none."""
    return [one for one in scene.leftovers() if ": of None, but" not in one]


class Upgrade(unittest.TestCase):
    def test_99_nothing_is_left(self):
        """Of all that came before."""
        self.assertEqual(leftovers(), [])

    def interrupted(self, here, there, who, fault, records):
        """A migration whose daemons are both killed, when one of them is at a certain step."""
        victim, other, suffix = (here, there, ".out") if who == "source" else (there, here, ".in")
        victim.daemon("stop")
        victim.daemon("start", fault.replace(":", HOLD))
        process = here.popen("virsh", "-c", VZ, "migrate", "--p2p", *MOVE, worker.name,
                             scene.uri(there))
        step = "begin %s\n" % fault.split(":")[0]
        eventually("it is held at %s" % fault, lambda: step in text_of(victim, suffix) and
                   (state_of(here, ".out"), state_of(there, ".in")) == records, 60)
        other.daemon("kill")  # first, for it would hear of the other's end
        victim.daemon("kill")
        process.communicate(timeout=MIGRATE_TIMEOUT_S)

    def one(self, who, fault, records, end, first):
        if OLD_BUILD:
            start_over()
        here, there = (scene.a, scene.b) if worker.state(scene.a) == "running" else (scene.b, scene.a)
        with worker.unharmed():
            self.interrupted(here, there, who, fault, records)
            for host in (here, there):
                if OLD_BUILD:
                    install(host, BUILD)
                else:
                    become_older(host)
            self.assertEqual((state_of(here, ".out"), state_of(there, ".in")), records)
            for text in (text_of(here, ".out"), text_of(there, ".in")):
                self.assertRegex(text, "^virtvz-journal 1 ")
            for host in (here, there) if first == "source" else (there, here):
                host.daemon("start")
            stays, other = (here, there) if end == "source" else (there, here)
            eventually("it runs on %s" % stays.name, lambda: worker.state(stays) == "running", 90)
            eventually("it has left %s" % other.name, lambda: worker.state(other) is None, 90)
        eventually("the job is forgotten", lambda: not any(
            text_of(host, suffix) for host in scene.lab.hosts for suffix in (".out", ".in")), 60)


def add(number, case):
    def test(self):
        try:
            self.one(*case)
        except BaseException:
            scene.show_logs()
            raise
    name = "test_%02d_%s_at_%s_%s_first" % (number, case[0], re.sub(r"\W", "_", case[1]), case[4])
    setattr(Upgrade, name, test)


for index, chosen in enumerate(cases()):
    add(index, chosen)


if __name__ == "__main__":
    tap.main()
