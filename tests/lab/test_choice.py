"""How memory travels where nobody says how: compressed where a sample of it says that this pays, by as many
connections as that and the link need. `alike` has memory that shrinks, `random` has not. Judged by the bytes
on the wire and by what the QEMUs of both hosts say to a second monitor.
"""

import contextlib
import json
import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import spy  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

TIMEOUT_S = 240
MIB = 1 << 20
LINK = "200mbit"
LINK_SAID = ("--bandwidth", "24")  # MiB/s; the kernel knows no speed of the lab's links
SLOW = "20mbit"  # long enough to look
FAST_MIB_S = 100000  # faster than one connection carries
CPUS = len(os.sched_getaffinity(0))
ASKED_BY_PYTHON = """
import json, libvirt, sys
domain = libvirt.open("vz:///system").lookupByName(sys.argv[1])
print(json.dumps(domain.jobStats()))
"""

scene = None


def setUpModule():
    global scene
    with for_module(Scene("choice")) as scene:
        for kind in (Alike, Random):
            kind.guest = scene.guest(kind.NAME, kind.WORDS, memory_mib=kind.MEMORY_MIB)
            kind.guest.xml = spy.let_in(scene, kind.guest.xml)
            scene.a.path(kind.guest.file).write_text(kind.guest.xml)


def said(host):
    """(multifd, number of its channels, its compression): how the host's one QEMU is set up."""
    with contextlib.closing(spy.open_monitor(host)) as qemu:
        on = {one["capability"]: one["state"] for one in qemu("query-migrate-capabilities")}
        parameters = qemu("query-migrate-parameters")
    return on["multifd"], parameters["multifd-channels"], parameters["multifd-compression"]


class ChoiceTest(unittest.TestCase):
    guest = None

    @classmethod
    def setUpClass(cls):
        cls.guest.start(scene.a)

    @classmethod
    def tearDownClass(cls):
        for host in (scene.a, scene.b):
            for verb in ("destroy", "undefine"):
                host.run("virsh", "-c", VZ, verb, cls.guest.name, check=False)
        scene.guests.remove(cls.guest)

    def setUp(self):
        self.addCleanup(self.after)
        pair = (scene.a, scene.b)
        self.here, self.there = pair if self.guest.state(scene.a) == "running" else pair[::-1]

    def after(self):
        scene.lab.shape("none")
        with scene.last_look(self):
            scene.expect_nothing_left(90)

    def plan(self, *words):
        done = self.here.run("vz", "--json", "check", self.guest.name, self.there.name, *words,
                             check=False, timeout=TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return json.loads(done.stdout)

    def begin(self, *words):
        return self.here.popen("vz", "--json", "migrate", self.guest.name, self.there.name, *words)

    def end(self, process):
        out, err = process.communicate(timeout=TIMEOUT_S)
        self.assertEqual(process.returncode, 0, out + err)
        self.guest.expect_on(self.there)
        return json.loads(out.splitlines()[-1])

    def moved(self, *words):
        """(the plan's figures of the stream, its memory in use, what vz said, the wire's bytes)"""
        plan = self.plan(*words)
        before = self.here.wire_bytes()[1]
        result = self.end(self.begin(*words))
        sent = self.here.wire_bytes()[1] - before
        self.assertEqual((result["compression"], result["channels"], result["choice"]),
                         tuple(plan["stream"][name] for name in ("compression", "channels", "why")))
        print("%s %s: %s; %.1f MiB in use, %.1f MiB sent, %s" % (
            self.guest.name, words, result["choice"], plan["memory"]["used_bytes"] / MIB, sent / MIB,
            said(self.there)), file=sys.stderr)
        return plan, result, sent

    def logged(self, pattern):
        return re.findall(pattern, self.here.path("/var/log/virtvzd.log").read_text())


class Alike(ChoiceTest):
    NAME, WORDS, MEMORY_MIB = "alike", "vz.mem=96 vz.repeat=16 vz.dirty=2", 192

    def test_compressed_by_itself(self):
        scene.lab.shape(LINK)
        with self.guest.unharmed():
            plan, result, sent = self.moved(*LINK_SAID)
            self.assertEqual(result["compression"], "zstd", plan)
            multifd, channels, method = said(self.there)
            self.assertEqual((multifd, method), (True, "zstd"))
            self.assertEqual(channels, result["channels"])
            self.assertLessEqual(channels, CPUS)
        self.assertLess(sent, 0.6 * plan["memory"]["used_bytes"])
        # The prediction is of what really goes over, within what the guest writes meanwhile.
        self.assertLess(plan["bytes"], 0.6 * plan["memory"]["used_bytes"])
        self.assertRegex(result["choice"], r"shrinks to \d+ %.* pays for a link of 24 MiB/s")
        self.assertTrue(self.logged(r"compression zstd, %d channels" % result["channels"]))

    def test_seen_while_it_moves(self):
        """By libvirt's own client, by vz, and in the source's QEMU."""
        scene.lab.shape(SLOW)
        with self.guest.unharmed():
            process = self.begin("--bandwidth", "1")

            def copying():
                self.assertIsNone(process.poll())
                with contextlib.closing(spy.open_monitor(self.here)) as qemu:
                    return qemu("query-migrate").get("ram", {}).get("transferred", 0) > 0
            eventually("memory is being copied", copying, 60)
            multifd, channels, method = said(self.here)
            self.assertEqual((multifd, method), (True, "zstd"))
            self.assertEqual(said(self.there), (True, channels, "zstd"))
            by_python = json.loads(self.here.out("python3", "-c", ASKED_BY_PYTHON, self.guest.name))
            [job] = [json.loads(line) for line in self.here.out("vz", "--json", "jobs").splitlines()]
            virsh = self.here.out("virsh", "-c", VZ, "domjobinfo", self.guest.name)
            scene.lab.shape("none")
            self.here.out("virsh", "-c", VZ, "migrate-setspeed", self.guest.name, "1000")
            self.end(process)
        self.assertEqual((by_python["vz.compression"], by_python["vz.channels"]), ("zstd", channels))
        self.assertLess(by_python["vz.sample.packed"], by_python["vz.sample.bytes"] / 2)
        self.assertGreater(by_python["vz.sample.bps"], MIB)
        self.assertIn("pays for a link of 1 MiB/s", by_python["vz.choice"])
        self.assertEqual((job["compression"], job["channels"], job["choice"]),
                         ("zstd", channels, by_python["vz.choice"]))
        self.assertEqual(job["sample"]["packed_bytes"], by_python["vz.sample.packed"])
        self.assertIn("Memory processed:", virsh)

    def test_not_where_it_is_forbidden(self):
        with self.guest.unharmed():
            plan, result, sent = self.moved("--no-compressed", "--bandwidth", "100")
            self.assertEqual(result["compression"], "none")
            self.assertEqual(said(self.there)[::2], (False, "none"))
        self.assertIn("not compressed, as asked", result["choice"])
        self.assertGreater(sent, 0.8 * plan["memory"]["used_bytes"])

    def test_not_where_the_link_is_unknown(self):
        with self.guest.unharmed():
            _, result, _ = self.moved()
            self.assertEqual(said(self.there)[::2], (False, "none"))
        self.assertIn("whether that pays is not known", result["choice"])

    def test_forbidden_and_asked_for(self):
        done = self.here.run("vz", "migrate", self.guest.name, self.there.name, "--compressed",
                             "--no-compressed", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("memory is either compressed or not", done.stderr)
        self.guest.expect_on(self.here)

    def test_yields_to_postcopy(self):
        with self.guest.unharmed():
            process = self.here.popen("virsh", "-c", VZ, "migrate", "--live", "--p2p", "--persistent",
                                      "--undefinesource", "--postcopy", "--bandwidth", "100",
                                      self.guest.name, scene.uri(self.there))
            out, err = process.communicate(timeout=TIMEOUT_S)
            self.assertEqual(process.returncode, 0, out + err)
            self.guest.expect_on(self.there)
            self.assertEqual(said(self.there)[::2], (False, "none"))
        self.assertTrue(self.logged(r"compression none, 0 channels .*post-copy by one connection"))

    def test_managed(self):
        """A client that drives by itself; and what the destination's record says afterwards."""
        with self.guest.unharmed():
            self.here.out("virsh", "-c", VZ, "migrate", "--live", "--persistent", "--undefinesource",
                          *LINK_SAID, self.guest.name, scene.uri(self.there), timeout=TIMEOUT_S)
            self.guest.expect_on(self.there)
            multifd, channels, method = said(self.there)
            self.assertEqual((multifd, method), (True, "zstd"))
        stats = json.loads(self.there.out("python3", "-c", ASKED_BY_PYTHON.replace(
            "jobStats()", "jobStats(libvirt.VIR_DOMAIN_JOB_STATS_COMPLETED)"), self.guest.name))
        self.assertEqual((stats["vz.compression"], stats["vz.channels"]), ("zstd", channels))
        self.assertIn("shrinks to", stats["vz.choice"])


class Random(ChoiceTest):
    NAME, WORDS, MEMORY_MIB = "random", "vz.mem=192 vz.dirty=2", 288

    def test_not_compressed_by_itself(self):
        with self.guest.unharmed():
            plan, result, sent = self.moved("--bandwidth", "100")
            self.assertEqual(result["compression"], "none")
            self.assertEqual(said(self.there)[::2], (False, "none"))
        self.assertIn("does not pay", result["choice"])
        self.assertGreater(sent, 0.8 * plan["memory"]["used_bytes"])

    @tap.long
    def test_compressed_where_asked(self):
        with self.guest.unharmed():
            _, result, _ = self.moved("--compressed")
            self.assertEqual(said(self.there), (True, result["channels"], "zstd"))
        self.assertEqual(result["choice"], "compressed as asked")

    def test_a_faster_link_has_more_channels(self):
        with self.guest.unharmed():
            plan, result, _ = self.moved("--bandwidth", str(FAST_MIB_S))
            multifd, channels, method = said(self.there)
        self.assertEqual(method, "none")
        self.assertEqual(multifd, CPUS > 1)
        if multifd:
            self.assertTrue(1 < channels <= CPUS, channels)
            self.assertEqual(channels, result["channels"])


if __name__ == "__main__":
    tap.main()
