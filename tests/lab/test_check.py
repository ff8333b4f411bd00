"""What is looked at before a guest moves: each thing that can stand in its way is put there for real,
found by `vz check` and by the move itself, taken away, and then the guest moves.

`worker` is watched by a third host and moves in the end, by the plan. `odd` is made so that it needs much of
the other host; it stands paused.
"""

import json
import os
import pathlib
import re
import shutil
import sys
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module, scene_virsh  # noqa: E402

CHECK_TIMEOUT_S = 120
MOVES, WOULD_NOT = 0, 5
QEMU = "/usr/bin/qemu-system-x86_64"
MIB = 1 << 20

scene = None
worker = None

# In a host, in place of its virtvzd, which stands still: QMP to one guest.
QMP = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect("/run/virtvz/qemu/%s/monitor.sock" % sys.argv[1])
stream = sock.makefile("rw")
def command(name, arguments):
    stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "error" in answer:
            sys.exit("%s: %s" % (name, answer["error"]["desc"]))
        if "return" in answer:
            return answer["return"]
stream.readline()
command("qmp_capabilities", {})
print(json.dumps([command(name, arguments) for name, arguments in json.loads(sys.argv[2])]))
"""


def setUpModule():
    global scene, worker
    with for_module(Scene("check")) as scene:
        worker = scene.guest("worker", "vz.dirty=4", disk=True)
        worker.start(scene.a)


def qmp(host, guest, *commands):
    """Commands to the guest's QEMU, behind the back of virtvzd; what they return."""
    host.daemon("stop")
    try:
        return json.loads(host.out("python3", "-c", QMP, uuid_of(guest), json.dumps(commands)))
    finally:
        host.daemon("start")


def uuid_of(guest):
    return xml.etree.ElementTree.fromstring(guest.xml).findtext("uuid")


class CheckTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)
        self.a, self.b = scene.a, scene.b

    def after(self):
        """Nothing is left, and the guest that was only looked at runs where it ran."""
        with scene.last_look(self):
            scene.expect_nothing_left()
            worker.expect_on(self.a)

    def check(self, guest, *words, exit_code):
        done = self.a.run("vz", "--json", "check", guest.name, self.b.name, *words, check=False,
                          timeout=CHECK_TIMEOUT_S)
        self.assertEqual(done.returncode, exit_code, done.stdout + done.stderr)
        plan = json.loads(done.stdout)
        self.assertEqual(plan["move"], exit_code == MOVES)
        self.assertEqual(plan["exit"], exit_code)
        return plan

    def findings(self, guest, *words, exit_code=WOULD_NOT):
        """{check: finding}"""
        found = self.check(guest, *words, exit_code=exit_code)["findings"]
        return {one["check"]: one for one in found}

    def refused(self, guest, *words):
        """What a real move says that is refused; the same by `vz` and by virsh."""
        by_vz = self.a.run("vz", "migrate", guest.name, self.b.name, *words, check=False,
                           timeout=CHECK_TIMEOUT_S)
        self.assertEqual(by_vz.returncode, 1, by_vz.stdout + by_vz.stderr)
        by_virsh = self.a.run("virsh", "-c", VZ, "migrate", "--live", guest.name, scene.uri(self.b),
                              *words, check=False, timeout=CHECK_TIMEOUT_S)
        self.assertEqual(by_virsh.returncode, 1, by_virsh.stdout + by_virsh.stderr)
        said = by_virsh.stderr.replace("error: ", "").strip()
        # What is measured differs a little from one time to the other.
        self.assertIn(re.sub(r"\d+", "N", said), re.sub(r"\d+", "N", by_vz.stderr))
        return said

    def move(self, guest, *words):
        done = self.a.run("vz", "--json", "migrate", guest.name, self.b.name, *words, check=False,
                          timeout=CHECK_TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        guest.expect_on(self.b)
        return json.loads(done.stdout.splitlines()[-1])

    def odd(self, name="odd", disk=False, memory_mib=None, cpu="", bridge="br0"):
        """A guest that stands paused on hosta, until the test is over."""
        guest = scene.guest(name, disk=disk, memory_mib=memory_mib)
        guest.xml = guest.xml.replace("bridge='br0'", "bridge='%s'" % bridge).replace(
            'bridge="br0"', 'bridge="%s"' % bridge).replace("</domain>", cpu + "</domain>")
        self.a.path(guest.file).write_text(guest.xml)
        self.addCleanup(self.remove, guest)
        virsh = scene_virsh(self.a)
        virsh("define", guest.file)
        virsh("start", "--paused", guest.name)
        return guest

    def remove(self, guest):
        if guest in scene.guests:
            scene.guests.remove(guest)
        for host in (self.a, self.b):
            for verb in ("destroy", "undefine"):
                host.run("virsh", "-c", VZ, verb, guest.name, check=False)

    def expect_paused_on(self, guest, host, other):
        self.assertEqual((guest.state(host), guest.state(other)), ("paused", None))

    def move_paused(self, guest):
        done = self.a.run("vz", "migrate", guest.name, self.b.name, check=False, timeout=CHECK_TIMEOUT_S)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.expect_paused_on(guest, self.b, self.a)

    def images(self):
        """/images, which only hosta has from the shared storage so far."""
        self.sh(self.a, "mkdir -p /shared/images /images && mount --bind /shared/images /images")
        self.sh(self.b, "mkdir -p /images")
        self.addCleanup(self.sh, self.a, "umount /images && rm -rf /images /shared/images")
        self.addCleanup(self.sh, self.b, "umount /images 2>/dev/null || : ; rm -rf /images")

    def sh(self, host, script):
        return host.out("sh", "-ec", script)


class Findings(CheckTest):
    def test_all_is_well(self):
        with worker.unharmed(gap_ms=1000):
            plan = self.check(worker, exit_code=MOVES)
        self.assertEqual(plan["findings"], [])
        self.assertEqual((plan["from"]["host"], plan["to"]["host"]), ("hosta", "hostb"))
        self.assertEqual(plan["disks"], [{"target": "vda", "path": worker.image, "shared": True, "copy": False}])
        self.assertTrue(plan["live"])
        self.assertEqual({one["word"]: one["why"] for one in plan["options"]}, {
            "live": "default", "p2p": "default", "persistent": "default", "undefinesource": "default",
            "change-protection": "always", "tls": "always", "migrate-disks-detect-zeroes": "always",
            "migrate-disks-target-zero": "always"})
        text = self.a.out("vz", "check", worker.name, self.b.name, "--bandwidth", "20")
        for word in ("worker would move from hosta to hostb", "shared, proved", "bandwidth (asked for)",
                     "20.0 MiB/s: the bandwidth that is allowed", "encrypted"):
            self.assertIn(word, text)

    def test_bridge_missing(self):
        self.sh(self.a, "ip link add brx type bridge && ip link set brx up")
        self.addCleanup(self.a.run, "ip", "link", "del", "brx", check=False)
        guest = self.odd(bridge="brx")
        found = self.findings(guest)
        self.assertEqual(list(found), ["network"])
        self.assertEqual(found["network"]["text"], "Cannot get interface MTU on 'brx': No such device")
        self.assertIn("make a bridge 'brx' on hostb", found["network"]["remedy"])
        self.assertTrue(self.refused(guest).startswith("Cannot get interface MTU on 'brx': No such device ("))
        self.sh(self.b, "ip link add brx type bridge && ip link set brx up")
        self.addCleanup(self.b.run, "ip", "link", "del", "brx", check=False)
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    @tap.long
    def test_name_clash(self):
        guest = self.odd()
        other = guest.xml.replace(uuid_of(guest), "11111111-2222-3333-4444-555555555555")
        self.b.path("/tmp/other.xml").write_text(other)
        scene_virsh(self.b)("define", "/tmp/other.xml")
        found = self.findings(guest)
        self.assertEqual(list(found), ["clash"])
        text = "domain 'odd' already exists with uuid 11111111-2222-3333-4444-555555555555"
        self.assertEqual((found["clash"]["text"], found["clash"]["code"]), (text, 9))
        self.assertTrue(self.refused(guest).startswith("operation failed: " + text))
        self.check(guest, "--dname", "even", exit_code=MOVES)
        scene_virsh(self.b)("undefine", guest.name)
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    def test_guest_too_big(self):
        memory = {words[0]: int(words[1]) // 1024 for words in (
            line.split() for line in pathlib.Path("/proc/meminfo").read_text().splitlines())}
        size_mib = (memory["MemTotal:"] + memory["MemAvailable:"]) // 2
        guest = self.odd(memory_mib=size_mib)
        found = self.findings(guest)
        self.assertEqual(list(found), ["memory"])
        self.assertRegex(found["memory"]["text"], "memory is short on hostb: the guest may use up to "
                         "%d MiB, and [0-9]+ MiB are available there" % size_mib)
        self.assertRegex(self.refused(guest), "^operation failed: memory is short on hostb")

    def test_data_port_closed(self):
        """A firewall that says no, one that says nothing, and an address that nobody listens at."""
        rules = (("ipproto tcp dport 16515 prohibit", self.a, "Permission denied"),
                 ("ipproto tcp sport 16515 blackhole", self.b, "hostb|%s" % self.b.address))
        for rule, host, words in rules if tap.LONG else rules[:1]:
            with self.subTest(rule=rule):
                self.sh(host, "ip rule add " + rule)
                try:
                    found = self.findings(worker)
                    self.assertEqual(list(found), ["data-port"])
                    self.assertRegex(found["data-port"]["text"], words)
                    self.assertIn("let TCP through", found["data-port"]["remedy"])
                    if "prohibit" in rule:
                        with worker.unharmed(gap_ms=1000):
                            self.assertIn("let TCP through", self.refused(worker))
                        scene.expect_nothing_left()
                finally:
                    self.sh(host, "ip rule del " + rule)
                self.check(worker, exit_code=MOVES)
        found = self.findings(worker, "--migrateuri", "tcp:hostb:16599")
        self.assertIn("connection refused", found["data-port"]["text"])

    @tap.long
    def test_daemon_does_not_listen(self):
        self.b.daemon("stop")
        try:
            found = self.findings(worker)
        finally:
            self.b.daemon("start")
        self.assertEqual(list(found), ["connection"])
        self.assertIn("Connection refused", found["connection"]["text"])
        self.check(worker, exit_code=MOVES)

    @tap.long
    def test_disk_not_shared(self):
        """/images is another directory on each host, until it is not."""
        self.images()
        self.sh(self.b, "truncate -s 16M /images/odd.img")
        guest = self.odd(disk="/images/odd.img")
        found = self.findings(guest)
        self.assertEqual(list(found), ["disks"])
        self.assertEqual(found["disks"]["code"], 81)
        self.assertIn("disk 'vda' is not on shared storage", found["disks"]["text"])
        self.assertRegex(self.refused(guest), "^Unsafe migration: disk 'vda' is not on shared storage")
        self.sh(self.b, "mount --bind /shared/images /images")
        self.assertTrue(self.check(guest, exit_code=MOVES)["disks"][0]["shared"])
        notes = [name for name in os.listdir(pathlib.Path(scene.lab.shared) / "images")
                 if name.startswith(".virtvz-") and not name.startswith(".virtvz-lease-")]
        self.assertEqual(notes, [])
        self.move_paused(guest)

    @tap.long
    def test_other_clock(self):
        """A warning, no refusal: a daemon whose clock is an hour ahead takes the guest."""
        shim = pathlib.Path(os.environ.get("VZ_BUILD", "build"), "tests", "libother_clock.so")
        shutil.copy(shim, pathlib.Path(scene.lab.shared) / "other_clock.so")
        self.b.daemon("stop")
        self.sh(self.b, """
            mkdir /usr/sbin/real && mv /usr/sbin/virtvzd /usr/sbin/real/virtvzd
            printf '%s\\n' '#!/bin/sh' \
                'LD_PRELOAD=/shared/other_clock.so VZ_OTHER_CLOCK_S=3600 exec /usr/sbin/real/virtvzd' \
                >/usr/sbin/virtvzd
            chmod 755 /usr/sbin/virtvzd""")
        self.b.daemon("start")
        guest = self.odd()
        try:
            found = self.findings(guest, exit_code=MOVES)
            self.assertEqual(list(found), ["clock"])
            self.assertFalse(found["clock"]["refuses"])
            self.assertRegex(found["clock"]["text"],
                             r"the clock of hostb is 3[56][0-9]{2}\.[0-9] s ahead of that of hosta")
            self.assertIn("NTP", found["clock"]["remedy"])
            self.move_paused(guest)
            self.assertIn("ahead of that of hosta", self.b.path("/var/log/virtvzd.log").read_text())
        finally:
            self.b.daemon("stop")
            self.sh(self.b, "mv /usr/sbin/real/virtvzd /usr/sbin/virtvzd && rmdir /usr/sbin/real && "
                    "rm /shared/other_clock.so")
            self.b.daemon("start")

    def add_immovable(self, guest):
        self.sh(self.a, "qemu-img create -q -f vdi /shared/extra.vdi 1M && chmod 666 /shared/extra.vdi")
        self.addCleanup(self.sh, self.a, "rm /shared/extra.vdi")
        qmp(self.a, guest, ("blockdev-add", {
            "driver": "vdi", "node-name": "extra",
            "file": {"driver": "file", "filename": "/shared/extra.vdi"}}))

    def test_device_that_cannot_move(self):
        """One of which QEMU itself says so: an image in a format without support for migration."""
        guest = self.odd()
        self.add_immovable(guest)
        found = self.findings(guest)
        self.assertEqual(list(found), ["devices"])
        self.assertIn("The vdi format used by node 'extra' does not support live migration",
                      found["devices"]["text"])
        self.assertRegex(self.refused(guest), "^Requested operation is not valid: cannot migrate domain: ")
        qmp(self.a, guest, ("blockdev-del", {"node-name": "extra"}))
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    def test_active_block_job(self):
        guest = self.odd(disk=True)
        nodes = qmp(self.a, guest, ("query-block", {}))[0]
        node = [one["inserted"]["node-name"] for one in nodes if "inserted" in one][0]
        qmp(self.a, guest,
            ("blockdev-add", {"driver": "null-co", "node-name": "void", "size": 16 * MIB}),
            ("blockdev-mirror", {"job-id": "copy", "device": node, "target": "void", "sync": "full",
                                 "speed": 1}))
        found = self.findings(guest)
        self.assertEqual(list(found), ["block-jobs"])
        self.assertIn("domain has active block job: mirror 'copy'", found["block-jobs"]["text"])
        self.assertRegex(self.refused(guest),
                         "^Requested operation is not valid: domain has active block job")
        qmp(self.a, guest, ("block-job-cancel", {"device": "copy", "force": True}))
        eventually("the job has ended", lambda: not qmp(self.a, guest, ("query-block-jobs", {}))[0])
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    def poor_qemu(self):
        """hostb's QEMU gives its guests no AVX2 and no SHA: a real one, told so behind a script."""
        self.b.daemon("stop")
        self.sh(self.b, """
            mv {0} {0}.real
            printf '%s\\n' '#!/bin/sh' 'exec {0}.real -global max-x86_64-cpu.avx2=off \
                -global max-x86_64-cpu.sha-ni=off "$@"' >{0}
            chmod 755 {0}""".format(QEMU))
        self.b.daemon("start")
        self.addCleanup(self.rich_qemu)

    def rich_qemu(self):
        self.b.daemon("stop")
        self.sh(self.b, "[ ! -e {0}.real ] || mv {0}.real {0}".format(QEMU))
        self.b.daemon("start")

    @tap.long
    def test_cpu_features_missing(self):
        guest = self.odd(cpu="<cpu mode='maximum'/>")
        self.check(guest, exit_code=MOVES)
        self.poor_qemu()
        found = self.findings(guest)
        self.assertEqual(list(found), ["cpu"])
        self.assertEqual(found["cpu"]["text"], "hostb lacks CPU features that the guest has: avx2, sha-ni")
        self.assertRegex(self.refused(guest), "^the CPU is incompatible with host CPU: hostb lacks CPU")
        self.check(worker, exit_code=MOVES)  # it has neither
        # The remedy is a model that really runs there: the same guest with it moves.
        model = found["cpu"]["remedy"].split("<model>")[1].split("</model>")[0]
        self.remove(guest)
        guest = self.odd(cpu="<cpu mode='custom'><model>%s</model></cpu>" % model)
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    @tap.long
    def test_machine_unknown_and_qemu_older(self):
        """By what hostb's virtvzd remembers of its QEMU: one of version 9.2, and one without the machine."""
        guest = self.odd()
        machine = xml.etree.ElementTree.fromstring(
            scene_virsh(self.a)("dumpxml", guest.name)).find("os/type").get("machine")
        self.check(guest, exit_code=MOVES)  # now it has asked it
        caches = list(self.b.path("/var/cache/virtvz").glob("**/*.json"))
        self.assertEqual(len(caches), 1)
        real = caches[0].read_text()
        self.addCleanup(self.restore, caches[0], real)
        for version, check, words in (
                ((9, 2, 1), "qemu-version", "QEMU on hostb is 9.2.1, the guest's machine came with 10.0"),
                ((10, 0, 13), "machine", "(QEMU 10.0.13 on hostb)")):
            cache = json.loads(real)
            cache["replies"]["query-version"]["qemu"] = dict(zip(("major", "minor", "micro"), version))
            cache["replies"]["query-machines"] = [
                one for one in cache["replies"]["query-machines"] if one["name"] != machine]
            with self.subTest(check=check):
                self.restore(caches[0], json.dumps(cache))
                found = self.findings(guest)
                self.assertEqual(list(found), [check])
                self.assertIn(words, found[check]["text"])
                self.assertRegex(self.refused(guest), "^unsupported configuration: Emulator '%s' does not "
                                 "support machine type '%s'" % (QEMU, machine))
        self.restore(caches[0], real)
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    def restore(self, path, text):
        self.b.daemon("stop")
        path.write_text(text)
        self.b.daemon("start")

    def test_all_at_once(self):
        """One error says all: bridge, name, CPU and disk."""
        self.images()
        self.sh(self.b, "truncate -s 16M /images/odd.img")  # else the disk would be copied
        self.sh(self.a, "ip link add brx type bridge && ip link set brx up")
        for host in (self.a, self.b):
            self.addCleanup(host.run, "ip", "link", "del", "brx", check=False)
        guest = self.odd(disk="/images/odd.img", bridge="brx", cpu="<cpu mode='maximum'/>")
        self.poor_qemu()
        self.b.path("/tmp/other.xml").write_text(
            guest.xml.replace(uuid_of(guest), "11111111-2222-3333-4444-555555555555").replace("brx", "br0"))
        scene_virsh(self.b)("define", "/tmp/other.xml")
        found = self.findings(guest)
        self.assertEqual(set(found), {"clash", "cpu", "network", "disks"})
        said = self.refused(guest)
        self.assertRegex(said, r"^operation failed: domain 'odd' already exists with uuid .*; 3 more: ")
        for one in found.values():
            # The disk's text has the time at which its image was changed.
            self.assertIn(one["text"].split(" (")[0], said)
            self.assertIn(one["remedy"], said)
        # One after the other is mended, and is not found any more.
        scene_virsh(self.b)("undefine", guest.name)
        self.assertEqual(set(self.findings(guest)), {"cpu", "network", "disks"})
        self.assertRegex(self.refused(guest), "^the CPU is incompatible with host CPU: .*; 2 more: ")
        self.rich_qemu()
        self.sh(self.b, "ip link add brx type bridge && ip link set brx up")
        self.assertEqual(set(self.findings(guest)), {"disks"})
        self.sh(self.b, "mount --bind /shared/images /images")
        self.check(guest, exit_code=MOVES)
        self.move_paused(guest)

    def test_both_sides_at_once(self):
        """`vz check` says what both sides find."""
        self.sh(self.a, "ip link add brx type bridge && ip link set brx up")
        self.addCleanup(self.a.run, "ip", "link", "del", "brx", check=False)
        guest = self.odd(bridge="brx")
        self.add_immovable(guest)
        found = self.findings(guest)
        self.assertEqual({name: one["side"] for name, one in found.items()},
                         {"devices": "source", "network": "destination"})


class Options(CheckTest):
    def capabilities(self, *words):
        return self.a.out("vz", "capabilities", "--migration", *words)

    def test_every_row_in_three_forms(self):
        report = json.loads(self.capabilities("--json"))
        rows = {one["name"]: one for one in report["options"]}
        self.assertEqual(rows["VIR_MIGRATE_LIVE"]["status"], "supported")
        self.assertEqual(rows["VIR_MIGRATE_TLS"]["status"], "already-true")
        self.assertIn("encrypted", rows["VIR_MIGRATE_TLS"]["reason"])
        self.assertEqual(rows["compression.mt.level"]["status"], "refused")
        self.assertEqual(report["qemu"], json.loads(self.a.out("vz", "--json", "check", "worker",
                                                               "hostb"))["from"]["qemu"])
        tree = xml.etree.ElementTree.fromstring(self.capabilities("--xml"))
        self.assertEqual({one.get("name"): one.find("here").get("status") for one in tree.iter("option")},
                         {name: one["status"] for name, one in rows.items()})
        text = self.capabilities()
        for name in rows:
            self.assertIn(name, text)
        self.assertEqual(xml.etree.ElementTree.fromstring(self.a.out("vz", "capabilities")).tag,
                         "capabilities")

    @tap.long
    def test_refused_is_refused_and_supported_is_not(self):
        """The report is what a move does; those flags are tried that need no others."""
        rows = {one["word"]: one for one in json.loads(self.capabilities("--json"))["options"]
                if "word" in one}
        for word in ("paused", "tls", "abort-on-error", "auto-converge", "unsafe"):
            done = self.a.run("vz", "--json", "check", "worker", "hostb", "--no-live", "--" + word,
                              check=False)
            found = {each["check"]: each for each in json.loads(done.stdout)["findings"]}
            with self.subTest(word=word):
                self.assertEqual("options" in found, rows[word]["status"] == "refused", found)
                self.assertIn(rows[word].get("reason", "") if "options" in found else "",
                              found.get("options", {}).get("text", ""))

    def test_the_pair(self):
        """hostb's QEMU is remembered as one that knows no limit of bandwidth."""
        pair = {one["name"]: one for one in json.loads(
            self.capabilities("--with", "hostb", "--json"))["options"]}
        self.assertEqual(pair["bandwidth"]["pair"], {"status": "supported"})
        cache, = self.b.path("/var/cache/virtvz").glob("**/*.json")
        real = cache.read_text()
        poor = json.loads(real)
        poor["replies"]["query-migrate-parameters"].pop("max-bandwidth")
        poor["replies"]["device-list-properties"] = [
            one for one in poor["replies"]["device-list-properties"] if one["name"] != "max-bandwidth"]
        self.addCleanup(Findings.restore, self, cache, real)
        Findings.restore(self, cache, json.dumps(poor))
        report = json.loads(self.capabilities("--with", "hostb", "--json"))
        row = [one for one in report["options"] if one["name"] == "bandwidth"][0]
        self.assertEqual((row["status"], row["there"]["status"], row["pair"]["status"]),
                         ("supported", "refused", "refused"))
        self.assertRegex(row["pair"]["reason"], "^hostb: QEMU .* has no 'max-bandwidth'")
        tree = xml.etree.ElementTree.fromstring(self.capabilities("--with", "hostb", "--xml"))
        row = [one for one in tree.iter("option") if one.get("name") == "bandwidth"][0]
        self.assertEqual(row.find("pair").get("status"), "refused")
        # And so it is, by the same function.
        found = self.findings(worker, "--bandwidth", "50")
        self.assertEqual(list(found), ["options"])
        done = self.a.run("vz", "migrate", "worker", "hostb", "--bandwidth", "50", check=False)
        self.assertIn("argument unsupported: Migration option 'bandwidth' is not supported by QEMU binary",
                      done.stderr)


class Plan(CheckTest):
    """The move does what the plan said."""

    BANDWIDTH_MIB = 20

    def after(self):
        if worker.state(self.b) == "running":
            done = self.b.run("vz", "migrate", worker.name, self.a.name, check=False,
                              timeout=CHECK_TIMEOUT_S)
            self.assertEqual(done.returncode, 0, done.stderr)
        super().after()

    def test_bytes_and_time(self):
        words = ("--bandwidth", str(self.BANDWIDTH_MIB))
        plan = self.check(worker, *words, exit_code=MOVES)
        self.assertEqual(plan["rate"]["bytes_s"], self.BANDWIDTH_MIB * MIB)
        before = self.a.wire_bytes()[1]
        with worker.unharmed(gap_ms=1000):
            result = self.move(worker, *words)
        wire = self.a.wire_bytes()[1] - before
        self.assertLess(plan["bytes"] / 2, wire, plan)
        self.assertLess(wire, plan["bytes"] * 2, plan)
        # Not faster than the limit; a busy machine may take longer.
        self.assertGreater(result["total_ms"], plan["total_ms"] / 2, plan)

    @tap.long
    def test_paused_while_it_is_copied(self):
        """Not live: the downtime is the whole time, and was said to be."""
        words = ("--no-live", "--bandwidth", str(self.BANDWIDTH_MIB))
        plan = self.check(worker, *words, exit_code=MOVES)
        self.assertFalse(plan["live"])
        self.assertEqual(plan["downtime_ms"], plan["total_ms"])
        with worker.unharmed():
            self.move(worker, *words)
        self.assertGreater(worker.gap_ms, plan["downtime_ms"] / 2)


if __name__ == "__main__":
    tap.main()
