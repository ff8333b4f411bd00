"""Runs cases of the fault matrix on a lab: one guest, moved to and fro, and in each move one fault.

    with Field("faults") as field:
        result = field.run(matrix.parse("release:kill-source-daemon:after:p2p:live"))

A case has passed when exactly one copy of the guest answers, with its counter and memory whole, or,
as long as the fault lasts, it stands paused in doubt with instructions; nothing is left over; and the
next move works. Where the fault itself killed the only copy, the hosts must say so, and it must be
possible to start it again.
"""

import collections
import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import traceback

import faults
import matrix
import phases
from scene import VZ, Scene, eventually

FAULT_FILE = "/run/virtvz-fault"
REACH_TIMEOUT_S = 60
CLIENT_TIMEOUT_S = 150
SETTLE_TIMEOUT_S = 100
LEFT_TIMEOUT_S = 100
WORDS, MEMORY_MIB = "vz.dirty=2 vz.mem=16", 112
STATES = {1: "running", 3: "paused", 5: "shut off", 6: "crashed"}  # libvirt's numbers
UNKNOWN = re.compile(r"verdict: unknown")
# Where a guest stopped and its host does not know by whose hand.
DIED = re.compile(r"(shut off|crashed) \((crashed|failed|unknown|daemon|panicked)\)")

# verdict: passed, failed, or dropped (there was nothing to break); outcome: what became of the guest.
Result = collections.namedtuple("Result", "verdict outcome seconds text")


def expected_outcomes(case):
    """What may become of the guest. Doubted: its start was tried at the destination and QEMU died, or
    the source's died before its record said that the stream had ended; it may have run on where it
    died, and the operator decides."""
    fault = faults.FAULTS[case.fault]
    committed = matrix.after(case, "pivot")
    if case.fault == "crash-source-host" and not committed and (case.step, case.when) == \
            (matrix.first_of("release").name, "after"):
        return {"doubted"}
    if fault.lethal and fault.where == "here":
        return {"moved"} if committed else {"died", "moved"}
    if fault.lethal:
        if matrix.after(case, "forward"):
            return {"died"}
        if matrix.step_of(case).phase == "begin":
            return {"stayed", "moved"}  # it is back before it is needed
        return {"stayed", "doubted"} if committed else {"stayed"}
    return {"moved"} if committed else {"stayed", "moved"}


class Trial:
    """One case on the field."""

    def __init__(self, field, case):
        self.case, self.field = case, field
        self.scene, self.lab, self.guest = field.scene, field.scene.lab, field.guest
        self.build = matrix.BUILD
        a, b = self.scene.a, self.scene.b
        self.here, self.there = (a, b) if self.state(a) == "running" else (b, a)
        self.held = self.here if matrix.step_of(case).side == "source" else self.there
        self.client = None
        self.survivor = None  # of a guest in doubt: what an operator says
        self.last = []

    def afterwards(self, work):
        """To be done when the case is over."""
        self.last.append(work)

    @staticmethod
    def until(what, check, timeout_s=10):
        return eventually(what, check, timeout_s)

    # --- what the hosts say ---

    def state(self, host):
        """None where it is not known; "?" where the daemon does not say."""
        try:
            with phases.Client(host) as client:
                state = client.state_of(self.guest.name)
        except (OSError, EOFError, phases.Refused):
            return "?"
        return STATES.get(state[0], str(state[0])) if state else None

    def outcome(self):
        """stayed, moved, died; None: not decided (yet)."""
        states = self.states = (self.state(self.here), self.state(self.there))
        return {("running", None): "stayed", (None, "running"): "moved",
                ("shut off", None): "died", (None, "shut off"): "died",
                ("crashed", None): "died", (None, "crashed"): "died"}.get(states)

    def doubt(self):
        """The guest stands paused on the source, and a user is told why and what to do."""
        def virsh(*words):
            return self.here.run("virsh", "-c", VZ, *words, self.guest.name, check=False).stdout
        return "paused (migrating)" in virsh("domstate", "--reason") and \
            re.search("in doubt.*asked again", virsh("dominfo")) and \
            self.guest.name in self.here.run("vz", "jobs", check=False).stdout

    def expect_patience(self):
        """While the fault lasts: it runs somewhere, or stands in doubt."""
        self.wait_for_client()
        self.until("one copy runs, or it is in doubt with instructions",
                   lambda: self.outcome() or self.doubt() or
                   "running" in (self.state(self.here), self.state(self.there)), 60)

    def idle(self):
        """No job goes on that may yet move the guest: one goes on without its client."""
        said = [host.run("vz", "--json", "jobs", check=False) for host in (self.here, self.there)]
        return all(done.returncode == 0 for done in said) and all(
            json.loads(line)["phase"].startswith("over;")
            for done in said for line in done.stdout.splitlines())

    def settled(self):
        """The outcome, or "doubted" where the hosts say that they will never know."""
        if self.idle() and self.outcome():
            return self.outcome()
        if "doubted" not in expected_outcomes(self.case):
            return None
        said = self.here.run("vz", "resolve", self.guest.name, check=False).stdout
        left = self.state(self.here) != "paused" and "in doubt" in \
            self.there.run("vz", "list", check=False).stdout
        self.survivor = "--there" if left else "--here"
        return (left or (self.doubt() and UNKNOWN.search(said))) and "doubted"

    def decide(self):
        """As an operator does who knows which copy is dead."""
        done = self.here.run("vz", "resolve", self.guest.name, self.survivor, "--yes", check=False)
        if done.returncode != 0:
            raise AssertionError("vz resolve %s: %s%s" % (self.survivor, done.stdout, done.stderr))
        outcome = "stayed" if self.survivor == "--here" else "moved"
        self.until("it goes on as decided", lambda: self.outcome() == outcome, SETTLE_TIMEOUT_S)

    def wait_for_client(self):
        try:
            self.client.communicate(timeout=CLIENT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise AssertionError("virsh migrate does not end") from None

    # --- the case ---

    def arm(self):
        how = "fail" if self.case.fault == "error" else "hold"
        self.disarm()
        new = self.held.path(FAULT_FILE + ".new")
        new.write_text("%s:%s:%s\n" % (self.case.step, how, self.case.when))
        os.rename(new, self.held.path(FAULT_FILE))

    def disarm(self):
        for host in (self.here, self.there):
            for suffix in ("", ".fired"):
                with contextlib.suppress(OSError):
                    host.path(FAULT_FILE + suffix).unlink()

    def move(self):
        options = (*matrix.MODES[self.case.mode], *matrix.LIVES[self.case.live][0], *matrix.OPTIONS)
        here, there = self.here, self.there
        return here.popen("virsh", "-c", VZ, "migrate", *options, self.guest.name,
                          self.scene.uri(there))

    def reached(self):
        return self.held.path(FAULT_FILE + ".fired").exists() or self.client.poll() is not None

    def run(self):
        """The outcome; raises where an invariant does not hold, and faults.Nothing."""
        act = faults.FAULTS[self.case.fault].act(self)
        survived = self.guest.unharmed()
        survived.__enter__()
        next(act)
        self.arm()
        self.client = self.move()
        self.until("the step is reached", self.reached, REACH_TIMEOUT_S)
        if not self.held.path(FAULT_FILE + ".fired").exists():
            raise AssertionError("the step was not reached: %r" % (self.client.communicate(),))
        self.break_it(act)
        self.wait_for_client()
        outcome = self.until("one host runs the guest, or says that it died", self.settled,
                             SETTLE_TIMEOUT_S)
        if outcome == "doubted":
            self.decide()
        self.judge(outcome, survived)
        self.scene.expect_nothing_left(LEFT_TIMEOUT_S)
        for work in self.last:
            work()
        self.move_again(outcome)
        return outcome

    def break_it(self, act):
        try:
            next(act)
        except faults.Nothing:
            self.disarm()
            self.wait_for_client()
            self.until("it has moved", lambda: self.outcome() == "moved", SETTLE_TIMEOUT_S)
            raise
        self.disarm_if_up()
        for _ in act:
            pass

    def disarm_if_up(self):
        """Lets the step go on, where its host is still there."""
        with contextlib.suppress(OSError):
            self.held.path(FAULT_FILE + ".fired").unlink()

    def judge(self, outcome, survived):
        expected = expected_outcomes(self.case)
        if outcome not in expected:
            raise AssertionError("the guest %s, but only %s is right here" %
                                 (outcome, " or ".join(sorted(expected))))
        if self.client.returncode == 0 and outcome in ("stayed", "doubted"):
            raise AssertionError("virsh migrate reports success, and the guest has not moved")
        if outcome != "died":
            survived.__exit__(None, None, None)
            return
        where = self.here if self.state(self.here) else self.there
        said = where.out("virsh", "-c", VZ, "domstate", "--reason", self.guest.name)
        if not DIED.search(said):
            raise AssertionError("it died, and %s says '%s'" % (where.name, said))
        self.field.start(where)

    def move_again(self, outcome):
        """The same move without a fault, from where the guest is now."""
        if outcome != "stayed" and self.state(self.here) is None:
            self.here, self.there = self.there, self.here
        with self.guest.unharmed():
            self.client = self.move()
            out, err = self.client.communicate(timeout=CLIENT_TIMEOUT_S)
            if self.client.returncode != 0:
                raise AssertionError("the next move fails: %s%s" % (out, err))
            if self.outcome() != "moved":
                raise AssertionError("after the next move it is %r here, %r there" % self.states)
        self.scene.expect_nothing_left(LEFT_TIMEOUT_S)


class Field:
    """The lab with daemons that have faults compiled in, and a guest. It is made anew after a case
    that failed, since nobody knows what that has left."""

    def __init__(self, name, logs=None):
        self.name, self.logs = name, logs
        self.scene = self.guest = None

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        self.down()

    def up(self):
        self.scene = Scene(self.name, env={"VZ_FAULT_FILE": FAULT_FILE}, faulty=True)
        self.scene.__enter__()
        try:
            self.guest = self.scene.guest("worker", WORDS, disk=True, memory_mib=MEMORY_MIB)
            self.guest.start(self.scene.a)
        except BaseException:
            self.down()
            raise

    def down(self):
        if self.scene:
            self.scene.__exit__()
        self.scene = None

    def start(self, host):
        """The guest anew after its death, on a host that knows it."""
        host.out("virsh", "-c", VZ, "start", self.guest.name)
        self.scene.observe("mark", "started")
        eventually("it beats again", lambda: self.guest.report("started").get("beats", 0) > 20, 60)

    def daemons(self):
        return [host.processes("virtvzd") for host in self.scene.lab.hosts]

    def run(self, case):
        began = time.monotonic()
        try:
            if not self.scene:
                self.up()
            began = time.monotonic()
            outcome, verdict, text = Trial(self, case).run(), "passed", ""
        except faults.Nothing as nothing:
            outcome, verdict, text = None, "dropped", str(nothing)
        except Exception as problem:  # pylint: disable=broad-except
            outcome, verdict, text = None, "failed", "%s: %s" % (type(problem).__name__, problem)
            self.keep_logs(case, traceback.format_exc())
            self.down()
        return Result(verdict, outcome, time.monotonic() - began, text)

    def logs_of(self, case):
        return self.logs / matrix.name(case).replace(":", "-")

    def keep_logs(self, case, text):
        """What there is to be read about a failure, in one directory a case."""
        if not self.logs or not self.scene:
            return
        target = self.logs_of(case)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        (target / "failure").write_text(text)
        for host in self.scene.lab.hosts:
            with contextlib.suppress(OSError):
                for path in (host.path("/var/log/virtvzd.log"),
                             *host.path(faults.JOBS).glob("*.out"),
                             *host.path(faults.JOBS).glob("*.in"),
                             *host.path("/var/log/virtvz/qemu").glob("*.log")):
                    shutil.copy(path, target / ("%s-%s" % (host.name, path.name)))
