"""Migrations of a running VM between two hosts, by unmodified virsh (of the hosts, and of this machine
where it is another one) and by vz, judged by what a third host hears and what the guest verifies.

One lab and a few guests serve the whole file; every test leaves its guest running on one of the
hosts, whole, with nothing else left over.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

MIGRATE_TIMEOUT_S = 120
GAP_LIVE_MS = 1000  # far above what is measured (bench tells that); it only catches a paused guest
MOVE = ("--live", "--persistent", "--undefinesource")

scene = None
worker = None  # the guest that most tests move


def setUpModule():
    global scene, worker
    with for_module(Scene("migrate")) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        worker.start(scene.a)


def own_virsh_version():
    return subprocess.run(["virsh", "--version"], stdout=subprocess.PIPE, text=True,
                          check=False).stdout.strip()


def virsh_of_the_machine(host, *words, **more):
    """This machine's virsh, on a host's network and with that host's sockets at their usual place."""
    script = ("mount -t tmpfs none /run && ln -s /proc/%d/root/run/libvirt /run/libvirt && "
              "exec virsh -c %s \"$@\"" % (host.init_pid, VZ))
    return subprocess.run(
        ["nsenter", "-t", str(host.init_pid), "-n", "unshare", "-m", "sh", "-c", script, "virsh",
         *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        timeout=MIGRATE_TIMEOUT_S, check=False, **more)


class MigrateTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)

    def failed(self):
        """Has this test, or a part of it, failed so far?"""
        result = self._outcome.result
        return not self._outcome.success or any(
            self in (test, getattr(test, "test_case", None))
            for test, _ in result.failures + result.errors)

    def after(self):
        try:
            if not self.failed():
                scene.expect_nothing_left()
                return
        except AssertionError:
            scene.show_logs()
            raise
        scene.show_logs()

    def where(self, guest=None):
        """(the host where it runs, the other one)."""
        guest = guest or worker
        if guest.state(scene.a) == "running":
            return scene.a, scene.b
        self.assertEqual(guest.state(scene.b), "running")
        return scene.b, scene.a

    def virsh(self, host, *words, check=True, **more):
        done = host.run("virsh", "-c", VZ, *words, check=False, timeout=MIGRATE_TIMEOUT_S, **more)
        if check and done.returncode != 0:
            raise AssertionError("virsh %s: %s%s" % (" ".join(words), done.stdout, done.stderr))
        return done

    def move(self, *options, guest=None, check=True):
        """virsh migrate to the other host; returns (from, to, result)."""
        guest = guest or worker
        here, there = self.where(guest)
        done = self.virsh(here, "migrate", *options, guest.name, scene.uri(there), check=check)
        return here, there, done


# libvirt-python in a host: the older calls, which use the procedures without typed parameters.
OLDER_API = """
import libvirt, sys
source = libvirt.open("vz:///system")
domain = source.lookupByName(sys.argv[1])
flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST |
         libvirt.VIR_MIGRATE_UNDEFINE_SOURCE)
if sys.argv[3] == "managed":
    moved = domain.migrate(libvirt.open(sys.argv[2]), flags, None, None, 0)
    print(moved.name(), moved.isActive())
else:
    domain.migrateToURI(sys.argv[2], flags | libvirt.VIR_MIGRATE_PEER2PEER, None, 0)
"""

# In the observer's network: prints the senders' MAC addresses of RARP frames for some seconds.
RARP_LISTENER = """
import socket, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x8035))
print("listening", flush=True)
end = time.monotonic() + 15
while time.monotonic() < end:
    sock.settimeout(max(0.1, end - time.monotonic()))
    try:
        frame = sock.recv(2048)
    except TimeoutError:
        break
    print(frame[6:12].hex(":"), flush=True)
"""


class Moves(MigrateTest):
    def test_managed_live(self):
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            _, there, _ = self.move(*MOVE)
        worker.expect_on(there)

    def test_managed_not_live(self):
        with worker.unharmed():
            _, there, _ = self.move("--persistent", "--undefinesource")
        worker.expect_on(there)
        self.assertGreater(worker.gap_ms, 100, "without --live the guest is paused while it is copied")

    def test_peer_to_peer_live(self):
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            _, there, _ = self.move("--p2p", *MOVE)
        worker.expect_on(there)

    def test_peer_to_peer_not_live(self):
        with worker.unharmed():
            _, there, _ = self.move("--p2p", "--persistent", "--undefinesource")
        worker.expect_on(there)

    def test_bare_command(self):
        """flags 0: not live, transient there, kept shut off here; then brought back into order."""
        with worker.unharmed():
            here, there, _ = self.move()
        worker.expect_on(there, other="shut off")
        info = self.virsh(there, "dominfo", worker.name).stdout
        self.assertRegex(info, r"Persistent:\s+no")
        with worker.unharmed():
            self.move("--live", "--persistent")
        worker.expect_on(here)

    def test_the_machines_virsh(self):
        """Another release's client: managed and peer to peer, live and not, with a time limit."""
        version = own_virsh_version()
        if not version or version == scene.a.out("virsh", "--version"):
            self.skipTest("this machine's virsh is the hosts' own")
        keep = ("--persistent", "--undefinesource")
        for options in (("--live",), ("--live", "--p2p"), (), ("--p2p",),
                        ("--live", "--verbose", "--timeout", "60")):
            here, there = self.where()
            with self.subTest(options=options), worker.unharmed(
                    gap_ms=GAP_LIVE_MS if "--live" in options else None):
                done = virsh_of_the_machine(here, "migrate", *options, *keep, worker.name,
                                            scene.uri(there))
                self.assertEqual(done.returncode, 0, done.stderr)
                worker.expect_on(there)

    def test_there_and_back(self):
        """Five round trips, managed and peer to peer in turn."""
        for trip in range(10):
            with self.subTest(trip=trip), worker.unharmed(gap_ms=GAP_LIVE_MS):
                _, there, _ = self.move(*(("--p2p",) if trip % 2 else ()), *MOVE)
                worker.expect_on(there)

    def test_suspend_leaves_it_paused_there(self):
        here, there = self.where()
        with worker.unharmed():
            self.virsh(here, "migrate", *MOVE, "--suspend", worker.name, scene.uri(there))
            self.assertEqual(worker.state(there), "paused")
            self.virsh(there, "resume", worker.name)
        worker.expect_on(there)

    def test_paused_guest_stays_paused(self):
        here, there = self.where()
        with worker.unharmed():
            self.virsh(here, "suspend", worker.name)
            self.virsh(here, "migrate", *MOVE, worker.name, scene.uri(there))
            self.assertEqual(worker.state(there), "paused")
            self.virsh(there, "resume", worker.name)
        worker.expect_on(there)

    def test_new_name(self):
        here, there = self.where()
        with worker.unharmed():
            self.virsh(here, "migrate", "--live", "--undefinesource", "--dname", "renamed",
                       worker.name, scene.uri(there))
        try:
            self.assertEqual(self.virsh(there, "domstate", "renamed").stdout.strip(), "running")
            self.assertIsNone(worker.state(here))
        finally:
            self.virsh(there, "migrate", *MOVE, "--dname", worker.name, "renamed", scene.uri(here))
        worker.expect_on(here)

    def test_job_statistics_on_both_sides(self):
        with worker.unharmed():
            here, there, _ = self.move("--live", "--persistent")
        for host, operation in ((here, "Outgoing migration"), (there, "Incoming migration")):
            text = self.virsh(host, "domjobinfo", "--completed", worker.name).stdout
            self.assertRegex(text, r"Job type:\s+Completed")
            self.assertRegex(text, r"Operation:\s+" + operation)
            for field in ("Time elapsed", "Data processed", "Memory processed", "Total downtime"):
                self.assertRegex(text, field + r":\s+\S")
        self.virsh(here, "undefine", worker.name)
        worker.expect_on(there)

    def test_events_in_libvirts_order(self):
        here, there = self.where()
        watchers = {host: host.popen("virsh", "-c", VZ, "event", "--event", "lifecycle", "--loop",
                                     worker.name) for host in (here,)}
        watchers[there] = there.popen("virsh", "-c", VZ, "event", "--event", "lifecycle", "--loop")
        time.sleep(0.5)
        with worker.unharmed():
            self.move(*MOVE)
        lines = {}
        for host, process in watchers.items():
            process.send_signal(signal.SIGINT)
            text = process.communicate(timeout=10)[0]
            lines[host] = re.findall(r"event 'lifecycle' for domain '?%s'?: (.*)" % worker.name, text)
        self.assertEqual(lines[here], ["Suspended Migrated", "Stopped Migrated", "Undefined Removed"])
        self.assertEqual(lines[there], ["Started Migrated", "Defined Added", "Resumed Migrated"])

    def test_older_api(self):
        for mode in ("managed", "p2p"):
            here, there = self.where()
            with self.subTest(mode=mode), worker.unharmed(gap_ms=GAP_LIVE_MS):
                here.run("python3", "-c", OLDER_API, worker.name, scene.uri(there), mode,
                         timeout=MIGRATE_TIMEOUT_S)
                worker.expect_on(there)

    def test_the_network_is_told(self):
        """RARP frames with the guest's address arrive at a third host after the move."""
        mac = re.search(r"mac address='([^']*)'", worker.xml).group(1)
        listener = scene.lab.observer.popen(sys.executable, "-c", RARP_LISTENER)
        self.assertEqual(listener.stdout.readline(), "listening\n")
        with worker.unharmed():
            self.move(*MOVE)
        self.assertIn(mac, listener.communicate(timeout=30)[0].split())

    def test_two_guests_at_once(self):
        other = scene.guest("other", "vz.dirty=2")
        here, there = self.where()
        other.start(here)
        try:
            with worker.unharmed(), other.unharmed():
                both = [here.popen("virsh", "-c", VZ, "migrate", *MOVE, one.name, scene.uri(there))
                        for one in (worker, other)]
                for process in both:
                    _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
                    self.assertEqual(process.returncode, 0, err)
            worker.expect_on(there)
            other.expect_on(there)
        finally:
            for host in (here, there):
                self.virsh(host, "destroy", other.name, check=False)
                self.virsh(host, "undefine", other.name, check=False)


class WhileItMoves(MigrateTest):
    """What others do while a migration runs; the link is made slow so that it runs for some time."""

    def setUp(self):
        super().setUp()
        scene.lab.shape("200mbit")
        self.addCleanup(scene.lab.shape, "none")

    def begin(self, *options, tty=False):
        here, there = self.where()
        process = here.popen("virsh", "-c", VZ, "migrate", *options, *MOVE, worker.name,
                             scene.uri(there), tty=tty)
        eventually("memory is being copied", lambda: re.search(
            r"Memory processed: +[1-9]", self.virsh(here, "domjobinfo", worker.name,
                                                    check=False).stdout), 20)
        return here, there, process

    def end(self, process, returncode=0):
        out, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(process.returncode, returncode, "%s%s" % (out, err))
        return "%s%s" % (out or "", err or "")

    def test_another_client_polls(self):
        with worker.unharmed():
            here, there, process = self.begin()
            polls = 0
            while process.poll() is None:
                self.virsh(here, "domjobinfo", worker.name, check=False)
                self.virsh(here, "list", "--all")
                self.virsh(here, "dominfo", worker.name, check=False)
                polls += 1
            self.end(process)
        self.assertGreater(polls, 3)
        worker.expect_on(there)

    def test_changes_are_refused(self):
        with worker.unharmed():
            here, there, process = self.begin("--p2p")
            for words in (("undefine", worker.name), ("start", worker.name),
                          ("autostart", worker.name), ("define", worker.file)):
                done = self.virsh(here, *words, check=False)
                self.assertNotEqual(done.returncode, 0, words)
            self.end(process)
        worker.expect_on(there)

    def test_verbose(self):
        with worker.unharmed():
            _, there, process = self.begin("--verbose")
            text = self.end(process)
        percents = [float(one) for one in re.findall(r"\[ *([0-9.]+) %\]", text)]
        self.assertGreater(len(percents), 3)
        self.assertEqual(percents[-1], 100)
        worker.expect_on(there)

    def test_abort_by_another_client(self):
        for options in ((), ("--p2p",)):
            with self.subTest(options=options), worker.unharmed(gap_ms=GAP_LIVE_MS):
                here, _, process = self.begin(*options)
                self.virsh(here, "domjobabort", worker.name)
                text = self.end(process, 1)
                self.assertIn("operation aborted: job 'migration out' canceled by client", text)
                worker.expect_on(here)
                scene.expect_nothing_left()

    def test_ctrl_c_on_a_terminal(self):
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            here, _, process = self.begin("--verbose", tty=True)
            time.sleep(1)
            with process:
                process.interrupt()
                self.assertEqual(process.wait(MIGRATE_TIMEOUT_S), 1)
        worker.expect_on(here)

    def test_timeout_suspends(self):
        with worker.unharmed():
            _, there, process = self.begin("--timeout", "1")
            self.end(process)
        worker.expect_on(there)

    def test_max_downtime_and_speed(self):
        with worker.unharmed():
            here, there, process = self.begin()
            self.virsh(here, "migrate-setmaxdowntime", worker.name, "200")
            self.virsh(here, "migrate-setspeed", worker.name, "1000")
            self.end(process)
        worker.expect_on(there)

    def test_bandwidth_is_a_cap(self):
        scene.lab.shape("none")
        here, there = self.where()
        started = time.monotonic()
        with worker.unharmed():
            self.virsh(here, "migrate", *MOVE, "--bandwidth", "20", worker.name, scene.uri(there))
        text = worker.report("start")
        self.assertTrue(text)
        self.assertGreater(time.monotonic() - started, 3, "about 90 MB at 20 MiB/s")
        worker.expect_on(there)


class Failures(MigrateTest):
    """Somebody dies; the guest does not."""

    def setUp(self):
        super().setUp()
        scene.lab.shape("200mbit")
        self.addCleanup(scene.lab.shape, "none")

    begin = WhileItMoves.begin

    def qemu_pid(self, host):
        return host.out("pgrep", "-f", "qemu-system.*-name guest=%s" % worker.name)

    def test_client_killed(self):
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            here, _, process = self.begin()
            process.kill()
            process.communicate()
            eventually("it is undone", lambda: worker.state(here) == "running")
        worker.expect_on(here)

    def test_client_of_a_peer_to_peer_move_killed(self):
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            here, there, process = self.begin("--p2p")
            process.kill()
            process.communicate()
            eventually("it moves all the same", lambda: worker.state(there) == "running" and
                       worker.state(here) is None)
        worker.expect_on(there)

    def test_source_daemon_killed(self):
        for options in ((), ("--p2p",)):
            with self.subTest(options=options), worker.unharmed(gap_ms=GAP_LIVE_MS):
                here, _, process = self.begin(*options)
                here.daemon("kill")
                process.communicate(timeout=MIGRATE_TIMEOUT_S)
                self.assertNotEqual(process.returncode, 0)
                here.daemon("start")
                eventually("it is undone", lambda: worker.state(here) == "running")
                worker.expect_on(here)
                scene.expect_nothing_left()

    def test_destination_daemon_killed(self):
        for options in ((), ("--p2p",)):
            with self.subTest(options=options), worker.unharmed(gap_ms=GAP_LIVE_MS):
                here, there, process = self.begin(*options)
                there.daemon("kill")
                process.communicate(timeout=MIGRATE_TIMEOUT_S)
                self.assertNotEqual(process.returncode, 0)
                there.daemon("start")
                eventually("it is undone", lambda: worker.state(here) == "running")
                worker.expect_on(here)
                scene.expect_nothing_left()

    def test_destination_qemu_killed(self):
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            here, there, process = self.begin()
            there.run("kill", "-9", self.qemu_pid(there))
            _, err = process.communicate(timeout=MIGRATE_TIMEOUT_S)
            self.assertEqual(process.returncode, 1)
            self.assertIn("job 'migration out' failed", err)
        worker.expect_on(here)

    def test_link_cut_for_good(self):
        with worker.unharmed():
            here, there, process = self.begin("--p2p")
            there.link("down")
            try:
                process.communicate(timeout=MIGRATE_TIMEOUT_S)
            finally:
                there.link("up")
            self.assertNotEqual(process.returncode, 0)
            eventually("it is undone", lambda: worker.state(here) == "running")
        worker.expect_on(here)


class Refusals(MigrateTest):
    def refused(self, *options, guest=None):
        guest = guest or worker
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            here, there, done = self.move(*options, guest=guest, check=False)
            self.assertEqual(done.returncode, 1)
        worker.expect_on(here, other="any")
        return done.stderr, here, there

    def test_name_clash(self):
        here, there = self.where()
        other_uuid = re.sub(r"<uuid>[^<]*", "<uuid>11111111-2222-4333-8444-555555555555", worker.xml)
        scene.a.path("/shared/clash.xml").write_text(other_uuid)
        self.virsh(there, "define", "/shared/clash.xml")
        try:
            done = self.virsh(here, "migrate", *MOVE, worker.name, scene.uri(there), check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("operation failed: domain 'worker' already exists with uuid "
                          "11111111-2222-4333-8444-555555555555", done.stderr)
        finally:
            self.virsh(there, "undefine", worker.name)

    def test_no_bridge_there(self):
        _, there = self.where()
        there.run("ip", "link", "set", "br0", "name", "br9")
        try:
            err, _, _ = self.refused(*MOVE)
            self.assertIn("Cannot get interface MTU on 'br0': No such device", err)
        finally:
            there.run("ip", "link", "set", "br9", "name", "br0")

    def test_directory_that_is_not_shared(self):
        local = scene.guest("local", "", disk="/local/local.img")
        here, there = self.where()
        for host in (here, there):
            with open(host.path("/local/local.img"), "wb") as file:
                file.truncate(16 << 20)
        local.start(here)
        try:
            done = self.virsh(here, "migrate", *MOVE, "local", scene.uri(there), check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("Unsafe migration: disk 'vda' is not on shared storage", done.stderr)
            self.assertEqual(local.state(here), "running")
            self.assertIsNone(local.state(there))
        finally:
            self.virsh(here, "destroy", "local")
            self.virsh(here, "undefine", "local")

    def test_same_host(self):
        here, _ = self.where()
        done = self.virsh(here, "migrate", *MOVE, worker.name, scene.uri(here), check=False)
        self.assertEqual(done.returncode, 1)
        worker.expect_on(here)

    def test_options_of_later_versions(self):
        err, _, _ = self.refused("--live", "--copy-storage-inc")
        self.assertIn("argument unsupported: ", err)
        self.assertIn("not in this version", err)

    def test_nobody_listens(self):
        here, there = self.where()
        there.daemon("stop")
        try:
            done = self.virsh(here, "migrate", "--p2p", *MOVE, worker.name, scene.uri(there),
                              check=False)
            self.assertEqual(done.returncode, 1)
            self.assertIn("unable to connect to server at", done.stderr)
        finally:
            there.daemon("start")
        worker.expect_on(here)


class ByVz(MigrateTest):
    """The same by vz."""

    def vz(self, host, *words, check=True, **more):
        done = host.run("vz", *words, check=False, timeout=MIGRATE_TIMEOUT_S, **more)
        if check and done.returncode != 0:
            raise AssertionError("vz %s: %s%s" % (" ".join(words), done.stdout, done.stderr))
        return done

    def test_migrate(self):
        for _ in range(2):
            here, there = self.where()
            with worker.unharmed(gap_ms=GAP_LIVE_MS):
                done = self.vz(here, "migrate", worker.name, there.name)
            self.assertIn(there.name, done.stdout)
            worker.expect_on(there)

    def test_json(self):
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            done = self.vz(here, "migrate", "--json", worker.name, there.name)
        for line in done.stdout.splitlines():
            json.loads(line)
        listed = [json.loads(line) for line in
                  self.vz(there, "list", "--json").stdout.splitlines()]
        self.assertEqual([one["name"] for one in listed], [worker.name])

    def test_abort(self):
        scene.lab.shape("200mbit")
        try:
            here, there = self.where()
            with worker.unharmed(gap_ms=GAP_LIVE_MS):
                process = here.popen("vz", "migrate", worker.name, there.name)
                eventually("the job runs",
                           lambda: worker.name in self.vz(here, "jobs").stdout, 20)
                self.vz(here, "abort", worker.name)
                process.communicate(timeout=MIGRATE_TIMEOUT_S)
                self.assertNotEqual(process.returncode, 0)
            worker.expect_on(here)
        finally:
            scene.lab.shape("none")


if __name__ == "__main__":
    tap.main()
