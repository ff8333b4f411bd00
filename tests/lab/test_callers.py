"""The programs that move most guests, with their own sequences of calls: what comes out must be what they
expect of libvirt. Nova and virt-manager as caller_programs.py has them; Pacemaker's agent VirtualDomain
is the real one, of Debian's package resource-agents, unchanged.

Running, paused and stopped guests; whether they came whole is said by the guest and a third host. What is
not every day's is behind VZ_LONG=1.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import caller_programs  # noqa: E402
import tap  # noqa: E402
from hosts import SOURCE  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

PROGRAM_TIMEOUT_S = 180
AGENT = "/usr/lib/ocf/resource.d/heartbeat/VirtualDomain"
OCF_SUCCESS, OCF_GENERIC, OCF_NOT_RUNNING = 0, 1, 7
UNBOUNDED, COMPLETED, FAILED = 2, 3, 4  # types of jobs
RUNNING, PAUSED = 1, 3
OPERATION_INVALID, OPERATION_ABORTED, NO_DOMAIN = 55, 78, 42
GUESSED_PORT = 49152  # where libvirt's QEMU would listen first; virt-manager fills it in
GAP_LIVE_MS = 5000  # far above what a live move takes; a guest that is paused for all of it takes longer
SLOW = "200mbit"  # so that a job lasts for some polls
IMPATIENT = """
import libvirt, sys
name, uri = sys.argv[1:]
here, there = libvirt.open("vz:///system"), libvirt.open(uri)
domain = here.lookupByName(name)
for _ in range(40):
    domain.migrate3(there, {}, libvirt.VIR_MIGRATE_LIVE)
    there.lookupByName(name).destroy()
    domain.create()
"""

scene = None
worker = None


def setUpModule():
    global scene, worker
    with for_module(Scene("callers")) as scene:
        worker = scene.guest("worker", "vz.dirty=2", disk=True)
        worker.start(scene.a)


class CallerTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)
        self.restore()

    def after(self):
        with scene.last_look(self):
            scene.expect_nothing_left()

    def virsh(self, host, *words, check=True):
        done = host.run("virsh", "-c", VZ, *words, check=False, timeout=PROGRAM_TIMEOUT_S)
        if check and done.returncode != 0:
            raise AssertionError("virsh %s: %s%s" % (" ".join(words), done.stdout, done.stderr))
        return done.stdout.strip()

    def where(self):
        """(the host where it runs, the other one)."""
        if worker.state(scene.a) in ("running", "paused"):
            return scene.a, scene.b
        return scene.b, scene.a

    def restore(self):
        """The guest runs on one of the hosts, defined there and nowhere else."""
        here, there = self.where()
        if worker.state(here) not in ("running", "paused"):
            for host in scene.lab.hosts:
                self.virsh(host, "undefine", worker.name, check=False)
            worker.start(here)
            scene.observe("mark", "restored")
            eventually("it has booted", lambda: worker.report("restored").get("beats", 0) > 20, 60)
        if worker.state(here) == "paused":
            self.virsh(here, "resume", worker.name)
        if worker.state(there) is not None:
            self.virsh(there, "undefine", worker.name)
        self.virsh(here, "define", worker.file)

    def slow(self):
        scene.lab.shape(SLOW)
        self.addCleanup(scene.lab.shape, "none")

    def run_program(self, program, host, there, **asked):
        done = host.run("python3", "-c", program, worker.name, scene.uri(there), json.dumps(asked),
                        timeout=PROGRAM_TIMEOUT_S)
        return json.loads(done.stdout)

    def nova(self, here, there, **asked):
        return self.run_program(caller_programs.NOVA, here, there, **asked)

    def virt_manager(self, here, there, **asked):
        return self.run_program(caller_programs.VIRT_MANAGER, here, there, **asked)

    def persistent(self, host):
        return "Persistent:     yes" in self.virsh(host, "dominfo", worker.name)

    def expect_moved(self, here, there):
        """As virDomainMigrate with PERSIST_DEST and UNDEFINE_SOURCE: kept there, unknown here."""
        worker.expect_on(there)
        self.assertIsNone(worker.state(here))
        self.assertTrue(self.persistent(there))


class Nova(CallerTest):
    def test_running(self):
        """Statistics while it moves, downtime steps; then the domain is gone, which Nova takes for success."""
        here, there = self.where()
        self.slow()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.nova(here, there, steps=[50, 100, 300], migrate_uri="tcp://%s" % there.address)
        self.assertEqual((out["error"], out["final"]), (0, COMPLETED), out)
        self.assertEqual(out["types"], [UNBOUNDED, COMPLETED], out)
        self.assertEqual(out["calls"], [["migrateSetMaxDowntime", 0]] * 3 + [["lookupByUUID", NO_DOMAIN]])
        for field in ("time_elapsed", "memory_total", "memory_processed", "memory_remaining",
                      "memory_bps", "memory_iteration", "data_total"):
            self.assertIn(field, out["fields"])
        self.expect_moved(here, there)

    @tap.long
    def test_unlimited_after_network_events(self):
        """Nova begins with 1 MiB/s, and sets its own limit, 0 for none, when the ports are plugged."""
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.nova(here, there, bandwidth=1, release=True)
        self.assertEqual((out["error"], out["final"]), (0, COMPLETED), out)
        self.assertIn(["migrateSetMaxSpeed", 0], out["calls"])
        self.assertGreater(out["left"], 16 << 20, "it was limited until then")
        self.assertLess(out["fields"]["time_elapsed"], 1000 * out["left"] / (1 << 20),
                        "it was not limited after that")
        self.expect_moved(here, there)

    def test_definition_that_goes_along(self):
        """destination_xml and persistent_xml are one and the same, changed for the destination."""
        here, there = self.where()
        title = "<title>as Nova has it</title>"
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.nova(here, there, xml=[["</name>", "</name>" + title]])
        self.assertEqual((out["error"], out["final"]), (0, COMPLETED), out)
        self.expect_moved(here, there)
        for words in ((), ("--inactive",)):
            self.assertIn(title, self.virsh(there, "dumpxml", worker.name, *words))

    @tap.long
    def test_abort(self):
        here, there = self.where()
        self.slow()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.nova(here, there, abort=True)
        self.assertEqual((out["error"], out["final"]), (OPERATION_ABORTED, FAILED), out)
        self.assertIn(["abortJob", 0], out["calls"])
        self.assertIn(["lookupByUUID", 0], out["calls"])
        worker.expect_on(here)
        self.assertTrue(self.persistent(here))

    def test_paused(self):
        here, there = self.where()
        with worker.unharmed():
            self.virsh(here, "suspend", worker.name)
            out = self.nova(here, there)
            self.assertEqual((out["error"], out["final"]), (0, COMPLETED), out)
            self.assertEqual(worker.state(there), "paused")
            self.virsh(there, "resume", worker.name)
        self.expect_moved(here, there)


class VirtManager(CallerTest):
    def test_running(self):
        """As the dialog has it when it opens: the destination's name and libvirt's first port."""
        here, there = self.where()
        self.slow()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.virt_manager(here, there, port=GUESSED_PORT)
        self.assertEqual(out["error"], 0, out)
        self.assertEqual(out["moved"], [worker.name, 1, 1, RUNNING])
        totals = [total for total, _ in out["progress"]]
        rest = [rest for _, rest in out["progress"]]
        self.assertGreater(len(totals), 2)
        self.assertLess(rest[-1], rest[0])
        self.expect_moved(here, there)

    @tap.long
    def test_address_alone(self):
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.virt_manager(here, there, port=0)
        self.assertEqual(out["error"], 0, out)
        self.expect_moved(here, there)

    @tap.long
    def test_definition_of_the_editor(self):
        """The dialog's XML tab: the live definition, as it is."""
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.virt_manager(here, there, port=GUESSED_PORT, xml=True)
        self.assertEqual(out["error"], 0, out)
        self.expect_moved(here, there)

    @tap.long
    def test_temporary(self):
        """Kept defined here, shut off; not defined there."""
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.virt_manager(here, there, temporary=True)
        self.assertEqual(out["moved"], [worker.name, 1, 0, RUNNING], out)
        worker.expect_on(there, other="shut off")

    @tap.long
    def test_cancel(self):
        here, there = self.where()
        self.slow()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            out = self.virt_manager(here, there, cancel=True)
        self.assertEqual(out["error"], OPERATION_ABORTED, out)
        worker.expect_on(here)

    def test_tunnelled_and_unsafe(self):
        for asked in ({"tunnel": True}, {"unsafe": True, "port": GUESSED_PORT}):
            here, there = self.where()
            with worker.unharmed(gap_ms=GAP_LIVE_MS):
                out = self.virt_manager(here, there, **asked)
                self.assertEqual(out["error"], 0, out)
            self.expect_moved(here, there)

    def test_paused(self):
        here, there = self.where()
        with worker.unharmed():
            self.virsh(here, "suspend", worker.name)
            out = self.virt_manager(here, there, port=GUESSED_PORT)
            self.assertEqual(out["moved"], [worker.name, 1, 1, PAUSED], out)
            self.virsh(there, "resume", worker.name)
        self.expect_moved(here, there)


class Pacemaker(CallerTest):
    @classmethod
    def setUpClass(cls):
        build = pathlib.Path(os.environ.get("VZ_BUILD") or SOURCE / "build")
        package = build / "tests" / "resource-agents"
        subprocess.run([SOURCE / "tests/support/fetch-package", "trixie", "resource-agents", package],
                       check=True, timeout=PROGRAM_TIMEOUT_S, stdout=sys.stderr)
        for host in scene.lab.hosts:
            shutil.copytree(package / "root/usr/lib/ocf", host.path("/usr/lib/ocf"), dirs_exist_ok=True)
            host.run("mkdir", "-p", "/run/resource-agents")
            shutil.copy(scene.a.path(worker.file), host.path("/etc/worker.xml"))

    def agent(self, host, action, **settings):
        """Its exit code, and what it said. Settings without CRM_meta_ are the resource's own."""
        wanted = {"config": "/etc/worker.xml", "hypervisor": VZ, "migration_transport": "tcp",
                  "force_stop": "true", "CRM_meta_timeout": "60000", **settings}
        # There is no cluster to tell of the guest's size.
        wanted.update({"autoset_utilization_cpu": "false", "autoset_utilization_host_memory": "false",
                       "autoset_utilization_hv_memory": "false"})
        environment = {"OCF_RESKEY_" + key: value for key, value in wanted.items()}
        environment.update({"OCF_ROOT": "/usr/lib/ocf", "OCF_RESOURCE_INSTANCE": worker.name,
                            "OCF_RESOURCE_TYPE": "VirtualDomain", "HA_LOGTAG": "test", "AWK": "awk",
                            "LIBVIRT_DEFAULT_URI": VZ})
        done = host.run(AGENT, action, env=environment, check=False, timeout=PROGRAM_TIMEOUT_S)
        return done.returncode, done.stdout + done.stderr

    def expect(self, code, host, action, **settings):
        found, text = self.agent(host, action, **settings)
        self.assertEqual(found, code, "%s on %s: %s" % (action, host.name, text))
        return text

    def move(self, here, there, **settings):
        """What Pacemaker does: migrate_to here, migrate_from there, stop here."""
        self.expect(OCF_SUCCESS, here, "migrate_to", CRM_meta_migrate_target=there.name, **settings)
        self.expect(OCF_SUCCESS, there, "migrate_from", CRM_meta_migrate_source=here.name)
        self.expect(OCF_SUCCESS, here, "stop")
        self.expect(OCF_SUCCESS, there, "monitor")
        self.expect(OCF_NOT_RUNNING, here, "monitor")

    def test_running_there_and_back(self):
        """Without options of the administrator's: transient there, and the way back meets the old
        definition. Speed is set before, downtime 2 s after the start."""
        here, there = self.where()
        self.slow()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            self.move(here, there, migration_speed="900", migration_downtime="300")
            worker.expect_on(there, other="shut off")
            self.move(there, here)
        worker.expect_on(here)

    @tap.long
    def test_administrators_options(self):
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            self.move(here, there, migrate_options="--p2p --persistent --undefinesource",
                      migrateuri="tcp://%n")
        self.expect_moved(here, there)

    @tap.long
    def test_refused_options(self):
        """It fails, and the guest stays, which Pacemaker finds by its monitor."""
        here, there = self.where()
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            text = self.expect(OCF_GENERIC, here, "migrate_to", CRM_meta_migrate_target=there.name,
                               migrate_options="--p2p --copy-storage-inc")
            self.assertIn("is not in this version", text)
            self.expect(OCF_SUCCESS, here, "monitor")
            self.expect(OCF_NOT_RUNNING, there, "monitor")
        worker.expect_on(here)

    def test_paused(self):
        here, there = self.where()
        with worker.unharmed():
            self.virsh(here, "suspend", worker.name)
            self.move(here, there, migrate_options="--persistent --undefinesource")
            self.assertEqual(worker.state(there), "paused")
            self.virsh(there, "resume", worker.name)
        self.expect_moved(here, there)

    @tap.long
    def test_stopped_here_and_started_there(self):
        """After a move with the agent's own options: what was transient is gone with its stop."""
        here, there = self.where()
        self.move(here, there)
        self.expect(OCF_SUCCESS, there, "stop")
        self.assertIsNone(worker.state(there))
        self.expect(OCF_SUCCESS, here, "start")
        self.expect(OCF_SUCCESS, here, "monitor")

    @tap.long
    def test_monitor_without_the_daemon(self):
        """The agent then looks for the emulator of the definition and '-name guest=' among processes."""
        here, there = self.where()
        self.expect(OCF_SUCCESS, here, "monitor")
        with worker.unharmed(gap_ms=GAP_LIVE_MS):
            here.daemon("stop")
            try:
                self.expect(OCF_SUCCESS, here, "monitor")
            finally:
                here.daemon("start")
        self.expect(OCF_SUCCESS, here, "monitor")
        self.expect(OCF_NOT_RUNNING, there, "monitor")

    def test_stopped(self):
        """A domain that does not run is none that moves: libvirt's 55 for those who ask all the same. It is
        started again by its file."""
        here, there = self.where()
        self.expect(OCF_SUCCESS, here, "stop")
        self.assertEqual(worker.state(here), "shut off")
        for caller in (self.nova, self.virt_manager):
            out = caller(here, there)
            self.assertEqual(out["error"], OPERATION_INVALID, out)
            self.assertIn("domain is not running", out["text"])
        text = self.expect(OCF_GENERIC, here, "migrate_to", CRM_meta_migrate_target=there.name)
        self.assertIn("Not active locally", text)
        self.assertEqual(worker.state(here), "shut off")
        self.assertIsNone(worker.state(there))
        self.expect(OCF_SUCCESS, here, "start")
        self.expect(OCF_SUCCESS, here, "monitor")
        self.expect(OCF_NOT_RUNNING, there, "monitor")


class Impatient(CallerTest):
    @tap.long
    def test_ended_there_and_started_here_at_once(self):
        """Both hosts still forget the job when the next start asks what became of it."""
        here, there = self.where()
        done = here.run("python3", "-c", IMPATIENT, worker.name, scene.uri(there), check=False,
                        timeout=PROGRAM_TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIsNone(worker.state(there))
        worker.expect_on(here)


if __name__ == "__main__":
    tap.main()
