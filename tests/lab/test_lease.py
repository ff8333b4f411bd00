"""Leases beside the images on shared storage: who has one is read by this machine, from the files, and
whether a guest runs is heard by the observer.

One guest serves the whole file; each test begins with it running on hosta, and nowhere else defined.
"""

import os
import re
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from moving import virsh  # noqa: E402
from scene import Scene, eventually, for_module  # noqa: E402

MOVE = ("--live", "--persistent", "--undefinesource")
KEEP = ("--live", "--persistent")
CONFIG = "/etc/virtvz/virtvzd.conf"
# All that a host knows of its guests' moves.
FORGET = "rm -rf /var/lib/virtvz/jobs /var/lib/virtvz/marks /var/lib/virtvz/domains/*.marks"

scene = None
worker = None


def setUpModule():
    global scene, worker
    with for_module(Scene("lease", faulty=True)) as scene:
        worker = scene.guest("worker", "vz.dirty=2", disk=True)
        worker.start(scene.a)


def reachable(host):
    eventually("virtvzd of %s" % host.name, lambda: virsh(host, "list", check=False).returncode == 0)


def beats_on(guest=None):
    """The guest is heard from now on."""
    guest = guest or worker
    mark = "beats-" + guest.name
    scene.observe("mark", mark)
    eventually("%s beats" % guest.name, lambda: guest.report(mark).get("beats", 0) > 20, 60)


class LeaseTest(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)

    def after(self):
        with scene.last_look(self):
            self.bring_back()
            scene.expect_nothing_left()

    def bring_back(self):
        a, b = scene.a, scene.b
        reachable(a)
        reachable(b)
        if worker.state(b) == "running" and worker.state(a) != "running":
            virsh(b, "migrate", *MOVE, worker.name, scene.uri(a))
        if worker.state(b) is not None:
            virsh(b, "undefine", worker.name)
        virsh(a, "autostart", "--disable", worker.name)
        if worker.state(a) != "running":
            virsh(a, "start", worker.name)
            beats_on()  # the next test takes its silence amiss

    def expect_lease(self, host, **more):
        """Returns its generation."""
        lease = scene.lease(worker.image)
        uuid = host.path("/etc/virtvz/host-uuid").read_text().strip()
        wanted = {"host_name": host.name, "host_uuid": uuid, "domain_name": worker.name,
                  "image": worker.image, "version": 1, **more}
        self.assertEqual({key: lease.get(key) for key in wanted}, wanted)
        return lease["generation"]

    def refused(self, host, holder):
        done = virsh(host, "start", worker.name, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, (
            r"Requested operation is not valid: image '%s' of domain '%s' is in use by domain '%s' of "
            r"host '%s' \([-0-9a-f]{36}\) since \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, says "
            r"'/shared/\.virtvz-lease-%s\.img'") % (worker.image, worker.name, worker.name,
                                                    holder.name, worker.name))
        self.assertNotEqual(worker.state(host), "running")

    def forget_and_crash(self, host):
        """The host is gone at once, and all that it knew of moves with it."""
        host.daemon("kill")
        host.run("sh", "-c", FORGET)
        host.crash()


class Leases(LeaseTest):
    def test_a_start_and_a_stop(self):
        before = self.expect_lease(scene.a)
        virsh(scene.a, "suspend", worker.name)
        self.expect_lease(scene.a, generation=before)
        scene.a.daemon("restart")
        self.expect_lease(scene.a, generation=before)
        virsh(scene.a, "resume", worker.name)
        virsh(scene.a, "destroy", worker.name)
        self.assertIsNone(scene.lease(worker.image))
        virsh(scene.a, "start", worker.name)
        self.expect_lease(scene.a)
        scene.a.run("sh", "-c", "kill -9 $(pgrep qemu-system)")
        eventually("its end is seen", lambda: worker.state(scene.a) == "shut off")
        self.assertIsNone(scene.lease(worker.image))

    def test_there_and_back(self):
        generation = self.expect_lease(scene.a)
        here, there = scene.a, scene.b
        for mode in ((), ("--p2p",)):
            with worker.unharmed():
                virsh(here, "migrate", *mode, *MOVE, worker.name, scene.uri(there))
            generation = self.expect_lease(there, generation=generation + 1)
            here, there = there, here

    def test_a_move_that_is_undone(self):
        """Its lease was there already; the source has it again."""
        generation = self.expect_lease(scene.a)
        there = scene.b
        there.daemon("stop")
        there.daemon("start", "await-lease:fail:after")
        try:
            with worker.unharmed():
                done = virsh(scene.a, "migrate", "--p2p", *MOVE, worker.name, scene.uri(there),
                             check=False)
                self.assertIn("injected fault", done.stderr)
                eventually("it goes on here", lambda: worker.state(scene.a) == "running")
            self.expect_lease(scene.a, generation=generation + 2, job=None, **{"from": None})
        finally:
            there.daemon("restart")

    def test_a_source_from_the_dead(self):
        """It has moved; the host that it came from crashes, and boots with its definition, autostart
        and no record of the move."""
        virsh(scene.a, "autostart", worker.name)
        virsh(scene.a, "migrate", *KEEP, worker.name, scene.uri(scene.b))
        self.expect_lease(scene.b)
        with worker.unharmed(gap_ms=1000):
            self.forget_and_crash(scene.a)
            scene.a.boot()
            reachable(scene.a)
            eventually("autostart says why not", lambda: "could not be started automatically" in
                       virsh(scene.a, "dominfo", worker.name).stdout, 20)
            self.refused(scene.a, scene.b)
        self.expect_lease(scene.b)
        worker.expect_on(scene.b, other="shut off")

    @tap.long
    def test_a_holder_from_the_dead(self):
        """It has not moved. Nobody else starts it; the host that ran it does."""
        generation = self.expect_lease(scene.a)
        virsh(scene.a, "autostart", worker.name)
        virsh(scene.b, "define", worker.file)
        self.refused(scene.b, scene.a)
        self.forget_and_crash(scene.a)
        self.expect_crashed(generation)
        self.refused(scene.b, scene.a)
        scene.a.boot()
        reachable(scene.a)
        eventually("autostart", lambda: worker.state(scene.a) == "running")
        beats_on()
        self.expect_lease(scene.a, generation=generation + 1)

    def expect_crashed(self, generation):
        lease = scene.lease(worker.image)
        self.assertEqual((lease["host_name"], lease["generation"]), (scene.a.name, generation))

    @tap.long
    def test_fencing(self):
        """A cluster manager has powered the holder off, and starts the guest elsewhere. The holder comes
        back and starts nothing by itself."""
        generation = self.expect_lease(scene.a)
        for host in (scene.a, scene.b):
            host.run("sh", "-c", "echo fencing = yes >> %s" % CONFIG)
        try:
            virsh(scene.a, "autostart", worker.name)
            scene.b.daemon("restart")
            virsh(scene.b, "define", worker.file)
            self.forget_and_crash(scene.a)
            virsh(scene.b, "start", worker.name)
            self.expect_lease(scene.b, generation=generation + 1)
            beats_on()
            self.assertIn("was taken from host 'hosta'",
                          scene.b.path("/var/log/virtvzd.log").read_text())
            scene.a.boot()
            reachable(scene.a)
            eventually("autostart says why not", lambda: "could not be started automatically" in
                       virsh(scene.a, "dominfo", worker.name).stdout, 20)
            worker.expect_on(scene.b, other="shut off")
        finally:
            if worker.state(scene.b) == "running":
                virsh(scene.a, "undefine", worker.name)
            for host in (scene.a, scene.b):
                host.run("sed", "-i", "/^fencing/d", CONFIG)
                host.daemon("restart")

    def test_qemus_own_lock(self):
        """Without the lease, where the file system has locks, QEMU refuses; the error says what it
        may be. Another domain: no host knows of a guest of it."""
        lease = scene.lab.shared / ".virtvz-lease-worker.img"
        content = lease.read_text()
        thief = scene.guest("thief", "vz.dirty=1", disk=True)
        path = scene.b.path(thief.file)
        path.write_text(thief.xml.replace(thief.image, worker.image))
        lease.unlink()
        try:
            with worker.unharmed(gap_ms=1000):
                done = virsh(scene.b, "create", thief.file, check=False)
                self.assertEqual(done.returncode, 1)
                self.assertIn("Is another process using the image [/shared/worker.img]?", done.stderr)
                self.assertIn("It may be one of another host", done.stderr)
            self.assertIsNone(scene.lease(worker.image), "who could not start has no lease")
        finally:
            lease.write_text(content)
            scene.guests.remove(thief)


class Without(LeaseTest):
    """Where there can be no lease the guest starts and moves all the same, and it is said."""

    def message(self, host, guest, *words):
        text = virsh(host, "dominfo", guest.name).stdout
        log = host.path("/var/log/virtvzd.log").read_text()
        for word in ("no lease for image '%s'" % guest.image, *words,
                     "only the hosts' own records say where its guest runs"):
            self.assertIn(word, re.sub(r"\s+", " ", text))
            self.assertIn(word, log)

    def test_a_move(self):
        """Something is in the way of the lease alone: notes beside the image can be made."""
        lease = scene.lab.shared / ".virtvz-lease-worker.img"
        lease.unlink()
        lease.mkdir()
        with worker.unharmed():
            virsh(scene.a, "migrate", *MOVE, worker.name, scene.uri(scene.b))
        worker.expect_on(scene.b)
        self.message(scene.b, worker, "cannot write '/shared/.virtvz-lease-worker.img'")
        self.assertTrue(lease.is_dir())
        lease.rmdir()

    def on_a_special_directory(self, name, set_up, reason):
        """A guest whose image lies in /local/NAME of hosta."""
        host = scene.a
        host.run("mkdir", "-p", "/local/" + name)
        # tmpfs, which cannot do direct I/O before Linux 6.6
        host.run("mount", "-t", "tmpfs", "-o", "size=20m", "none", "/local/" + name)
        guest = scene.guest(name, "vz.dirty=1", disk="/local/%s/%s.img" % (name, name))
        host.run("dd", "if=/dev/zero", "of=" + guest.image, "bs=1M", "count=16")
        path = host.path(guest.file)
        path.write_text(guest.xml.replace("cache='none'", "cache='writeback'"))
        host.run("sh", "-c", set_up)
        try:
            virsh(host, "create", guest.file)
            self.assertEqual(guest.state(host), "running")
            self.message(host, guest, reason)
            self.assertEqual(host.out("ls", "-A", "/local/" + name).split(),
                             sorted([guest.image.split("/")[-1], *(["filler"] if name == "full" else [])]))
        finally:
            virsh(host, "destroy", guest.name, check=False)
            host.run("sh", "-c", "umount -R /local/" + name)
            scene.guests.remove(guest)

    def test_a_start_in_a_full_directory(self):
        self.on_a_special_directory(
            "full", "cat /dev/zero > /local/full/filler || test -s /local/full/filler",
            "No space left on device")

    def test_a_start_in_a_read_only_directory(self):
        """The directory is read-only, the image in it is not: a mount of its own."""
        self.on_a_special_directory(
            "readonly", "cd /local/readonly && mv readonly.img /local/readonly.img && "
            "touch readonly.img && mount --bind /local/readonly.img readonly.img && "
            "mount -o remount,bind,ro /local/readonly", "Read-only file system")


if __name__ == "__main__":
    tap.main()
