#!/usr/bin/env python3
"""vz as its user meets it: exit codes, output, signals, completion; against fake_daemon.

Usage: test_vz.py VZ FAKE_DAEMON COMPLETION
"""
import json
import os
import pty
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402

VZ, DAEMON, COMPLETION = (os.path.abspath(sys.argv.pop(1)) for _ in range(3))
DEADLINE_S = 20


class VzTest(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.socket = os.path.join(self.dir.name, "sock")
        self.uri = "vz+unix:///system?socket=" + self.socket
        self.daemon = None
        self.start_daemon()

    def tearDown(self):
        self.stop_daemon()
        self.dir.cleanup()

    def start_daemon(self):
        self.daemon = subprocess.Popen([DAEMON, self.socket], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, text=True)
        self.assertEqual(self.daemon.stdout.readline(), "ready\n")

    def stop_daemon(self):
        """Ends it; returns what it was asked to do."""
        asked, _ = self.daemon.communicate(timeout=DEADLINE_S)
        return asked.splitlines()

    def command(self, *words):
        return [VZ, "-c", self.uri, *words]

    def environment(self):
        return dict(os.environ, VZ_CONF="/nonexistent")

    def start(self, *words):
        return subprocess.Popen(self.command(*words), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True, env=self.environment())

    def run_vz(self, *words):
        p = self.start(*words)
        out, errors = p.communicate(timeout=DEADLINE_S)
        return p.returncode, out, errors

    def run_json(self, *words):
        status, out, errors = self.run_vz(*words, "--json")
        self.assertEqual(errors, "")
        return status, [json.loads(line) for line in out.splitlines()]

    # --- moved ---

    def test_moved(self):
        status, out, errors = self.run_vz("migrate", "g1", "quick")
        self.assertEqual((status, errors), (0, ""))
        lines = out.splitlines()
        self.assertTrue(lines[0].startswith("copying memory"), out)
        table = lines[lines.index("g1 runs on quick now"):]
        self.assertRegex(table[1], r"^  total time   1\.\d s$")
        self.assertEqual(table[2], "  downtime     63 ms")
        self.assertRegex(table[3], r"^  data         100\.0 MiB, \d+\.\d MiB/s$")
        self.assertEqual(table[-2:], ["  there        running, defined", "  here         removed"])
        self.assertEqual(self.stop_daemon(), ["perform vz+tcp://quick/system flags=0x1b"])

    def test_options_arrive(self):
        status, _, _ = self.run_vz(
            "migrate", "--no-live", "--keep-source", "--transient", "--suspend", "--bandwidth", "7",
            "--name", "g2", "--migrateuri", "tcp:10.1.1.2", "--max-downtime", "30", "g1",
            "vz+tcp://quick/system")
        self.assertEqual(status, 0)
        self.assertEqual(self.stop_daemon(), [
            "max-downtime 30",
            "perform vz+tcp://quick/system flags=0x22 migrate_uri=tcp:10.1.1.2 "
            "destination_name=g2 bandwidth=7"])

    def test_kept_source_and_json(self):
        status, events = self.run_json("migrate", "g1", "quick", "--keep-source", "--paused")
        self.assertEqual(status, 0)
        result = events[-1]
        self.assertEqual((result["event"], result["status"], result["exit"]), ("result", "moved", 0))
        self.assertEqual((result["guest"], result["kept_here"], result["downtime_ms"]),
                         ("paused", True, 63))
        progress = [e for e in events if e["event"] == "progress"]
        self.assertGreaterEqual(len(progress), 3)
        percents = [e["percent"] for e in progress]
        self.assertEqual(percents, sorted(percents))
        self.assertGreater(percents[-1], percents[0])
        self.assertEqual(progress[0]["phase"], "copying memory")

    def test_paused_guest_stays_paused(self):
        status, out, _ = self.run_vz("migrate", "sleeper", "quick", "--quiet")
        self.assertEqual(status, 0)
        self.assertTrue(out.startswith("sleeper is on quick now\n"), out)

    def test_by_id_uuid_and_name(self):
        for word in ("1", "01010101-0101-0101-0101-010101010101", "g1"):
            status, out, _ = self.run_vz("migrate", word, "unsafe")
            self.assertEqual(status, 1)
        # "7" is no id here, so it is a name
        status, out, _ = self.run_vz("migrate", "7", "quick", "--keep-source", "--quiet")
        self.assertEqual(status, 0)
        self.assertIn("here         removed", out)  # transient: there is nothing to keep

    def test_terminal(self):
        pid, fd = pty.fork()
        if pid == 0:
            os.environ["VZ_CONF"] = "/nonexistent"
            os.execv(VZ, self.command("migrate", "g1", "quick"))
        text = b""
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            if not select.select([fd], [], [], 0.2)[0]:
                continue
            try:
                chunk = os.read(fd, 65536)
            except OSError:
                break
            if not chunk:
                break
            text += chunk
        _, status = os.waitpid(pid, 0)
        os.close(fd)
        self.assertEqual(os.waitstatus_to_exitcode(status), 0)
        shown = text.decode()
        self.assertIn("\rcopying memory  [", shown)
        self.assertIn("\r\x1b[Kg1 runs on quick now\r\n", shown)
        percents = [int(part.split("] ")[1].split(" %")[0]) for part in shown.split("\r")
                    if "] " in part and " %" in part]
        self.assertEqual(percents, sorted(percents))

    def test_hang_up_leaves_it_to_the_daemon(self):
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        p = self.start_stuck("quick")
        p.send_signal(signal.SIGHUP)
        p.communicate(timeout=DEADLINE_S)
        self.assertEqual(p.returncode, -signal.SIGHUP)
        end = time.monotonic() + DEADLINE_S
        while "g1" in self.run_vz("list", "--all")[1] and time.monotonic() < end:
            time.sleep(0.1)
        self.assertNotIn("g1", self.run_vz("list", "--all")[1])
        self.assertNotIn("abort g1", self.stop_daemon())

    # --- not moved ---

    def test_refused(self):
        status, out, errors = self.run_vz("migrate", "g1", "refuse")
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(errors, "vz: argument unsupported: something is not in this version\n"
                                 "    the guest is running here\n")

    def test_failed(self):
        status, _, errors = self.run_vz("migrate", "g1", "unsafe", "--quiet")
        self.assertEqual(status, 1)
        self.assertEqual(errors.splitlines(), [
            "vz: Unsafe migration: disk vda is not on shared storage",
            "    the guest is running here",
            "    put the guest's disks on storage that both hosts share"])

    def test_no_such_domain(self):
        status, events = self.run_json("migrate", "nobody", "quick")
        self.assertEqual((status, events[0]["code"]), (1, 42))
        self.assertEqual(events[0]["advice"], "`vz list --all` shows the domains of this host")

    def test_shut_off_goes_offline(self):
        status, _, errors = self.run_vz("migrate", "off", "quick")
        self.assertEqual(status, 1)
        self.assertIn("domain is not running", errors)
        # OFFLINE | UNDEFINE_SOURCE | PERSIST_DEST | PEER2PEER, without LIVE
        self.assertEqual(self.stop_daemon(), ["perform vz+tcp://quick/system flags=0x41a"])

    def test_no_daemon(self):
        self.stop_daemon()
        status, _, errors = self.run_vz("migrate", "g1", "quick")
        self.assertEqual(status, 1)
        self.assertIn("Failed to connect socket", errors)
        self.assertIn("is virtvzd running here?", errors)
        status, out, errors = self.run_vz("version")
        self.assertEqual(status, 0)
        self.assertRegex(out, r"^vz \d+\.\d+\.\d+\n$")
        self.assertIn("Failed to connect socket", errors)

    def test_usage(self):
        for words in (["migrate", "g1"], ["migrate", "g1", "h", "--frobnicate"], ["nonsense"],
                      ["migrate", "g1", "a b"], ["migrate", "g1", "h", "--transport", "pigeon"],
                      ["migrate", "g1", "h", "--max-downtime", "soon"], ["help", "nonsense"]):
            status, out, errors = self.run_vz(*words)
            self.assertEqual((status, out), (2, ""), words)
            self.assertTrue(errors.startswith("vz: "), errors)
        self.assertEqual(self.stop_daemon(), [])

    # --- signals ---

    def start_stuck(self, destination):
        p = self.start("migrate", "g1", destination, "--json")
        self.assertEqual(json.loads(p.stdout.readline())["event"], "progress")
        return p

    def test_interrupt_aborts(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            p = self.start_stuck("stuck")
            p.send_signal(number)
            out, _ = p.communicate(timeout=DEADLINE_S)
            last = json.loads(out.splitlines()[-1])
            self.assertEqual((p.returncode, last["status"], last["code"]), (4, "aborted", 78))
            self.assertEqual(last["detail"], "the guest is running here")

    def test_interrupt_at_once(self):
        """Before there is a job: the abort is sent again until there is one."""
        p = self.start("migrate", "g1", "stuck")
        time.sleep(0.05)
        p.send_signal(signal.SIGINT)
        p.communicate(timeout=DEADLINE_S)
        self.assertIn(p.returncode, (4, -signal.SIGINT))

    def test_second_interrupt_leaves(self):
        p = self.start_stuck("deaf")
        p.send_signal(signal.SIGINT)
        time.sleep(0.3)
        p.send_signal(signal.SIGINT)
        out, _ = p.communicate(timeout=DEADLINE_S)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual((p.returncode, events[-1]["status"]), (3, "in-doubt"))
        self.assertIn("goes on without this command", events[-1]["detail"])
        self.assertIn("cannot abort: it is too late",
                      [e["text"] for e in events if e["event"] == "note"])

    # --- in doubt ---

    def test_doubt(self):
        status, events = self.run_json("migrate", "g1", "doubt")
        self.assertEqual((status, events[-1]["status"], events[-1]["code"]), (3, "in-doubt", 38))
        self.assertIn("the guest is paused here; look with", events[-1]["detail"])
        _, out, _ = self.run_vz("list")
        self.assertEqual(out.splitlines()[1].split(), ["1", "g1", "paused,", "in", "doubt"])
        _, out, _ = self.run_vz("jobs")
        self.assertRegex(out, "^g1 +out +in doubt: doubt does not say what became of it; `vz resolve g1`")

    def test_limbo(self):
        status, events = self.run_json("migrate", "g1", "limbo")
        self.assertEqual((status, events[-1]["status"]), (3, "in-doubt"))
        self.assertIn("still going on", events[-1]["detail"])

    def test_daemon_gone(self):
        status, _, errors = self.run_vz("migrate", "g1", "crash", "--quiet")
        self.assertEqual(status, 3)
        self.assertIn("the daemon cannot be reached", errors)

    def test_daemon_restarted(self):
        """It comes back, the guest runs: that is an answer."""
        p = self.start("migrate", "g1", "restart", "--quiet")
        self.daemon.wait(timeout=DEADLINE_S)
        self.stop_daemon()
        self.start_daemon()
        _, errors = p.communicate(timeout=DEADLINE_S)
        self.assertEqual(p.returncode, 1)
        self.assertIn("the guest is running here", errors)

    # --- the other commands ---

    def test_list(self):
        _, out, _ = self.run_vz("list")
        self.assertEqual([line.split() for line in out.splitlines()],
                         [["Id", "Name", "State"], ["1", "g1", "running"],
                          ["2", "sleeper", "paused"], ["9", "7", "running"]])
        _, events = self.run_json("list", "--all")
        self.assertEqual([(e["name"], e["state"], e.get("id")) for e in events],
                         [("g1", "running", 1), ("sleeper", "paused", 2), ("off", "shut off", None),
                          ("7", "running", 9)])
        _, out, _ = self.run_vz("list", "--inactive")
        self.assertIn("off", out)
        self.assertNotIn("g1", out)

    def test_jobs_and_abort(self):
        _, out, _ = self.run_vz("jobs")
        self.assertEqual(out, "no migration is going on\n")
        p = self.start_stuck("stuck")
        status, events = self.run_json("jobs")
        self.assertEqual([(e["domain"], e["direction"], e["phase"]) for e in events],
                         [("g1", "out", "copying memory")])
        status, out, _ = self.run_vz("abort", "g1")
        self.assertEqual((status, out), (0, "g1 is not migrating any more; it is running here\n"))
        p.communicate(timeout=DEADLINE_S)
        self.assertEqual(p.returncode, 4)
        status, _, errors = self.run_vz("abort", "g1")
        self.assertEqual(status, 1)
        self.assertIn("no job is active", errors)

    def test_check(self):
        status, out, errors = self.run_vz("check", "g1", "quick", "--bandwidth", "1", "--max-downtime", "50")
        self.assertEqual((status, errors), (0, ""))
        lines = out.splitlines()
        self.assertEqual(lines[0], "g1 would move from hosta to hostb")
        for line in ("  data port   tcp:hostb:16515", "  memory      1.0 MiB of 2.0 MiB counted",
                     "  link        1.0 MiB/s: a cap", "  data        about 1.0 MiB",
                     "  total time  about 1.0 s of copying, at that rate",
                     "  there       running, defined", "  here        removed"):
            self.assertIn(line, lines)
        self.assertIn("bandwidth (asked for)", out)
        self.assertNotIn("In the way", out)
        # Nothing is asked for but the check: not even the downtime is set.
        self.assertEqual(self.stop_daemon(), ["check vz+tcp://quick/system flags=0x1b max-downtime 50"])

    def test_check_refused(self):
        status, out, errors = self.run_vz("check", "g1", "refuse")
        self.assertEqual((status, errors), (5, ""))
        self.assertTrue(out.startswith("g1 would not move from hosta to refuse\n"), out)
        self.assertIn("In the way:\n  network (destination): no bridge\n      what would help: make one\n"
                      "To be known:\n  clock (destination): it is late\n", out)
        self.assertIn("  total time  unknown: who knows\n", out)
        status, events = self.run_json("check", "g1", "refuse", "--paused")
        self.assertEqual(status, 5)
        self.assertEqual([(e["event"], e["exit"], e["move"]) for e in events], [("plan", 5, False)])
        self.assertIn({"id": "PAUSED", "word": "paused", "why": "asked for"}, events[0]["options"])
        self.assertIn({"id": "LIVE", "word": "live", "why": "default"}, events[0]["options"])

    def test_check_cannot_ask(self):
        self.assertEqual(self.run_vz("check", "nobody", "quick")[0], 1)
        self.assertEqual(self.run_vz("check", "g1")[0], 2)
        self.assertEqual(self.run_vz("check", "g1", "quick", "--no-such-option")[0], 2)

    def test_capabilities(self):
        status, out, _ = self.run_vz("capabilities", "--migration")
        self.assertEqual(status, 0)
        self.assertIn('A<B  --a  does a\n      refused: no "a" & no b\n', out)
        status, out, _ = self.run_vz("capabilities", "--migration", "--with", "hostb", "--xml")
        option = xml.etree.ElementTree.fromstring(out).find("option")
        self.assertEqual((option.get("name"), option.find("here").get("reason")),
                         ("A<B", 'no "a" & no b'))
        status, events = self.run_json("capabilities", "--migration")
        self.assertEqual(events[0]["event"], "migration-capabilities")
        self.assertEqual(self.run_vz("capabilities", "--with", "hostb")[0], 2)
        self.assertEqual(self.stop_daemon(),
                         ["capabilities -", "capabilities vz+tcp://hostb/system", "capabilities -"])

    def complete(self, *words):
        stub = os.path.join(self.dir.name, "vz")
        with open(stub, "w", encoding="utf-8") as f:
            f.write("#!/bin/sh\ncat <<'END'\n"
                    '{"event":"domain","name":"g1","uuid":"x"}\n'
                    '{"event":"domain","name":"g$(touch pwned)","uuid":"x"}\nEND\n')
        os.chmod(stub, 0o755)
        script = ('source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _vz; '
                  'printf "%s\\n" "${COMPREPLY[@]}"')
        out = subprocess.run(["bash", "-c", script, "bash", COMPLETION, "vz", *words],
                             cwd=self.dir.name, check=True, stdout=subprocess.PIPE, text=True,
                             env=dict(os.environ, PATH=self.dir.name + ":" + os.environ["PATH"]))
        return out.stdout.splitlines()

    def test_completion(self):
        self.assertEqual(self.complete("mig"), ["migrate"])
        self.assertEqual(self.complete("migrate", "--undef"), ["--undefinesource"])
        self.assertEqual(self.complete("-c", "x", "list", "--ina"), ["--inactive"])
        self.assertEqual(self.complete("help", "ab"), ["abort"])
        self.assertNotIn("--rdma-pin-all", self.complete("migrate", "--rd"))  # refused anyway
        self.assertEqual(self.complete("check", "--undef"), ["--undefinesource"])
        self.assertEqual(self.complete("capabilities", "--mig"), ["--migration"])
        self.assertEqual(self.complete("migrate", "g"), ["g1", r"g\$\(touch\ pwned\)"])
        self.assertFalse(os.path.exists(os.path.join(self.dir.name, "pwned")))

    def test_version_and_help(self):
        status, out, _ = self.run_vz("version")
        self.assertEqual(status, 0)
        self.assertEqual(out.splitlines()[1], "hosta: libvirt API 11.3.0, QEMU 10.0.13")
        _, events = self.run_json("version")
        self.assertEqual((events[0]["host"], events[0]["hypervisor"]), ("hosta", 10000013))
        status, out, _ = self.run_vz("help")
        self.assertEqual(status, 0)
        self.assertIn("migrate DOMAIN HOST|URI", out)
        status, out, _ = self.run_vz("migrate", "--help")
        self.assertEqual(status, 0)
        self.assertIn("--undefinesource", out)


if __name__ == "__main__":
    tap.main()
