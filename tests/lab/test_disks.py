"""Disks that only one host has are copied with their guest: by virsh without a flag, there and back,
raw and qcow2, live and not. Judged by the images, block by block, while neither copy of the guest
runs; by what the guest verifies of its own writing; by the files that are there before and after.
"""

import glob
import os
import pathlib
import re
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moving  # noqa: E402
import tap  # noqa: E402
from scene import VZ, Scene, eventually, for_module  # noqa: E402

MOVE = ("--live", "--persistent", "--undefinesource")
SIZE = 64 << 20
FILLED = (32 << 20, 20 << 20)  # what the guest does not come to write to, so that there is much to copy
OWNER = (1234, 1235)
SLOW = ("--bandwidth", "4")

scene = None
virsh = moving.virsh


def setUpModule():
    global scene
    with for_module(Scene("disks", faulty=True)) as scene:
        pass


def inside(host, path):
    return pathlib.Path(host.path(path))


def compare(one, other, image="raw"):
    """Same content, whatever is allocated."""
    done = subprocess.run(["qemu-img", "compare", "-U", "-f", image, "-F", image, one, other],
                          capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError("%s and %s: %s" % (one, other, done.stdout + done.stderr))


class DisksTest(unittest.TestCase):
    def make(self, name, image="raw", options=""):
        """A guest whose disk is on hosta only, running there."""
        path = "/local/%s.img" % name
        guest = scene.guest(name, "vz.dirty=2", disk=path)
        for host in scene.lab.hosts:
            inside(host, path).unlink(missing_ok=True)
        outside = inside(scene.a, path)
        if image == "raw":
            with open(outside, "wb") as file:
                file.truncate(SIZE)
                file.seek(FILLED[0])
                file.write(os.urandom(FILLED[1]))
        else:
            subprocess.run(["qemu-img", "create", "-q", "-f", image, "-o", options, outside, str(SIZE)],
                           check=True)
            guest.xml = guest.xml.replace("type='raw'", "type='%s'" % image)
            inside(scene.a, guest.file).write_text(guest.xml)
        os.chown(outside, *OWNER)
        os.chmod(outside, 0o640)
        guest.start(scene.a)
        self.addCleanup(self.clean, guest, path)
        return guest, path

    def clean(self, guest, path):
        with scene.last_look(self):
            for host in scene.lab.hosts:
                virsh(host, "destroy", guest.name, check=False)
                virsh(host, "undefine", guest.name, check=False)
            for host in scene.lab.hosts:
                for left in glob.glob(str(inside(host, path)) + "*"):
                    os.unlink(left)
            scene.guests.remove(guest)
            scene.expect_nothing_left()

    def aside(self, host, path):
        (found,) = glob.glob(str(inside(host, path)) + ".migrated-*")
        return found

    def expect_alike(self, there, path, here_file, image="raw"):
        """The new image is as the old one was: content, owner, mode, and no more is allocated."""
        old, new = os.stat(here_file), os.stat(inside(there, path))
        compare(here_file, inside(there, path), image)
        self.assertEqual((new.st_uid, new.st_gid, new.st_mode), (*OWNER, 0o100640))
        self.assertLess(new.st_blocks, old.st_blocks + 4096)

    def begin(self, guest, *words):
        """A slow move from hosta to hostb, when its disk is being copied."""
        process = scene.a.popen("virsh", "-c", VZ, "migrate", *MOVE, *SLOW, *words, guest.name,
                                scene.uri(scene.b))
        self.addCleanup(lambda: process.poll() is None and process.kill())
        eventually("its disk is copied", lambda: self.copied(process) > 1, 30)
        return process

    def copied(self, process):
        """MiB of it."""
        if process.poll() is not None:
            raise AssertionError("the move ended: %s" % (process.communicate(),))
        done = virsh(scene.a, "domjobinfo", process.args[-2], check=False).stdout
        found = re.search(r"File processed: +([0-9.]+) MiB", done)
        return float(found.group(1)) if found else 0

    def expect_undone(self, guest, path, before):
        """As if nothing had been: the guest on hosta with its image, and nothing new on hostb."""
        eventually("it is not on hostb", lambda: guest.state(scene.b) is None, 60)
        guest.expect_on(scene.a)
        self.assertTrue(inside(scene.a, path).exists())
        eventually("nothing is left on hostb", lambda: self.files(scene.b) == before, 30)
        eventually("the job has ended", lambda: virsh(
            scene.a, "domjobinfo", guest.name).stdout.split()[-1] == "None", 30)

    @staticmethod
    def files(host):
        return sorted(os.listdir(inside(host, "/local")))

    def there_and_back(self, guest, path, image="raw", *more):
        for here, there in ((scene.a, scene.b), (scene.b, scene.a)):
            with guest.unharmed():
                virsh(here, "migrate", *MOVE, *more, "--suspend", guest.name, scene.uri(there))
                self.assertEqual(guest.state(there), "paused")
                self.assertFalse(inside(here, path).exists())
                self.expect_alike(there, path, self.aside(here, path), image)
                virsh(there, "resume", guest.name)
            guest.expect_on(there)
            os.unlink(self.aside(here, path))

    def test_raw(self):
        self.there_and_back(*self.make("raw"), "raw", "--p2p")

    def test_source_is_removed(self):
        guest, path = self.make("removed")
        with guest.unharmed():
            done = scene.a.run("vz", "migrate", "--remove-source-disks", guest.name, scene.b.name, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        guest.expect_on(scene.b)
        self.assertEqual(self.files(scene.a), [])
        self.assertTrue(inside(scene.b, path).exists())

    def test_qcow2_managed(self):
        self.there_and_back(*self.make("qcow2", "qcow2", "cluster_size=128k,lazy_refcounts=on"), "qcow2")

    def test_over_what_was_made_for_it(self):
        """As Nova makes it: an image of the right size, full of something else. Holes come out as holes, and
        what there was before is gone; its owner stays."""
        guest, path = self.make("over")
        outside = inside(scene.b, path)
        outside.write_bytes(os.urandom(SIZE))
        with guest.unharmed():
            virsh(scene.a, "migrate", "--p2p", *MOVE, "--copy-storage-all", "--migrate-disks", "vda",
                  "--copy-storage-synchronous-writes", "--suspend", guest.name, scene.uri(scene.b))
            compare(self.aside(scene.a, path), outside)
            self.assertLess(os.stat(outside).st_blocks * 512, SIZE * 3 // 4)
            self.assertEqual(os.stat(outside).st_uid, 0)
            virsh(scene.b, "resume", guest.name)
        guest.expect_on(scene.b)

    def test_over_the_wrong_thing(self):
        """Another size; a disk that there is not. It stays as it is."""
        guest, path = self.make("wrong")
        outside = inside(scene.b, path)
        copy = ("--live", "--persistent", "--copy-storage-all")

        def refused(words, *more):
            done = virsh(scene.a, "migrate", *copy, *more, guest.name, scene.uri(scene.b), check=False)
            self.assertIn(words, done.stderr)
        outside.write_bytes(b"small")
        refused("of another size")
        self.assertEqual(outside.read_bytes(), b"small")
        refused("names disk 'vdz', which the domain does not have", "--migrate-disks", "vdz")
        guest.expect_on(scene.a)

    def test_over_the_source_itself(self):
        """Its image is the source's own, mounted there alone into a directory that is not shared."""
        guest = scene.guest("itself", "vz.dirty=2", disk="/shared/itself.img")
        inside(scene.a, guest.file).write_text(guest.xml.replace(guest.image, "/local/itself.img"))
        for host in scene.lab.hosts:
            inside(host, "/local/itself.img").touch()
            host.run("mount", "--bind", "/shared/itself.img", "/local/itself.img")
        guest.start(scene.a)
        try:
            with guest.unharmed():
                done = virsh(scene.a, "migrate", "--p2p", *MOVE, "--copy-storage-all", guest.name,
                             scene.uri(scene.b), check=False)
            self.assertIn("what is there is in use", done.stderr)
            guest.expect_on(scene.a)
        finally:
            virsh(scene.a, "destroy", guest.name)
            for host in scene.lab.hosts:
                host.run("umount", "/local/itself.img")
            self.clean(guest, "/local/itself.img")
            os.unlink(inside(scene.a, "/shared/itself.img"))

    def test_shared_and_copied(self):
        """What is the source's own file is not copied, whatever is asked for: it is shared already."""
        guest = scene.guest("shared", "vz.dirty=2", disk=True)
        guest.start(scene.a)
        inode = inside(scene.a, guest.image).stat().st_ino
        try:
            with guest.unharmed():
                virsh(scene.a, "migrate", "--p2p", *MOVE, "--copy-storage-all", guest.name, scene.uri(scene.b))
            guest.expect_on(scene.b)
            self.assertEqual(inside(scene.a, guest.image).stat().st_ino, inode)
            self.assertEqual(glob.glob(str(inside(scene.a, guest.image)) + ".migrated*"), [])
        finally:
            self.clean(guest, guest.image)

    def test_no_room(self):
        """Refused before anything moves, with both figures, and the check says the same."""
        guest, path = self.make("large")
        before = self.files(scene.b)
        with guest.unharmed():
            scene.b.run("mount", "-t", "tmpfs", "-o", "size=8m", "none", "/local")
            try:
                done = virsh(scene.a, "migrate", *MOVE, guest.name, scene.uri(scene.b), check=False)
                plan = scene.a.run("vz", "check", guest.name, scene.b.name, check=False).stdout
                self.assertEqual(self.files(scene.b), [])
            finally:
                scene.b.run("umount", "/local")
        self.assertRegex(done.stderr, "disk 'vda': no room for '%s': [0-9]+ MiB are needed, and 8 MiB" % path)
        self.assertIn("no room for '%s'" % path, plan)
        self.expect_undone(guest, path, before)

    def test_something_is_there(self):
        """It is named, and stays as it is."""
        guest, path = self.make("taken")
        inside(scene.b, path).write_bytes(b"another")
        done = virsh(scene.a, "migrate", *MOVE, guest.name, scene.uri(scene.b), check=False)
        self.assertIn("Unsafe migration: disk 'vda' is not on shared storage", done.stderr)
        self.assertIn("here: a file of 7 bytes", done.stderr)
        self.assertIn("is not overwritten", done.stderr)
        self.assertEqual(inside(scene.b, path).read_bytes(), b"another")
        guest.expect_on(scene.a)

    def test_abort(self):
        guest, path = self.make("aborted")
        before = self.files(scene.b)
        with guest.unharmed(gap_ms=1000):
            process = self.begin(guest, "--p2p")
            virsh(scene.a, "domjobabort", guest.name)
            _, err = process.communicate(timeout=60)
            self.assertIn("job 'migration out' canceled by client", err)
        self.expect_undone(guest, path, before)
        self.there_and_back(guest, path, "raw", "--p2p")

    def test_takes_longer_than_a_client_may(self):
        """While its disk comes the destination does not miss the memory that is to follow."""
        config = inside(scene.b, "/etc/virtvz/virtvzd.conf")
        before = config.read_text()
        guest, _ = self.make("long")
        try:
            config.write_text(before + "phase_timeout = 2\n")
            scene.b.daemon("restart")
            with guest.unharmed():
                process = self.begin(guest, "--p2p")
                eventually("it has taken longer", lambda: self.copied(process) > 12, 30)
                virsh(scene.a, "migrate-setspeed", guest.name, "1000")
                out, err = process.communicate(timeout=10)
                self.assertEqual(process.returncode, 0, out + err)
            guest.expect_on(scene.b)
        finally:
            config.write_text(before)
            scene.b.daemon("restart")

    @tap.long
    def test_other_ways(self):
        """Through the other daemon alone; beside a direct stream; with post-copy; a guest that stands still."""
        for words in (("--p2p", "--tunnelled"), ("--parallel", "--parallel-connections", "2"), ("--auto-converge",)):
            with self.subTest(words=words):
                self.there_and_back(*self.make("ways"), "raw", *words)
            self.doCleanups()
        guest, path = self.make("coma")
        with guest.unharmed():
            virsh(scene.a, "migrate", "--p2p", *MOVE, "--postcopy", "--postcopy-after-precopy", guest.name,
                  scene.uri(scene.b))
            guest.expect_on(scene.b)
            virsh(scene.b, "migrate", "--p2p", *MOVE, guest.name, scene.uri(scene.a))
        with guest.unharmed():
            virsh(scene.a, "migrate", "--p2p", "--persistent", "--undefinesource", guest.name, scene.uri(scene.b))
        guest.expect_on(scene.b)
        done = scene.b.run("vz", "migrate", "--json", "--direct-stream", guest.name, scene.a.address, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        guest.expect_on(scene.a)
        self.assertTrue(inside(scene.a, path).exists())

    def test_destination_fills_up(self):
        guest, path = self.make("filled")
        with guest.unharmed(gap_ms=1000):
            scene.b.run("mount", "-t", "tmpfs", "-o", "size=48m", "none", "/local")
            try:
                process = self.begin(guest, "--p2p")
                scene.b.run("sh", "-c", "dd if=/dev/zero of=/local/filler bs=1M 2>/dev/null", check=False)
                _, err = process.communicate(timeout=60)
                self.assertEqual(self.files(scene.b), ["filler"])
            finally:
                scene.b.run("umount", "/local")
        self.assertIn("migration of disk vda failed: No space left on device", err)
        self.expect_undone(guest, path, self.files(scene.b))

    def test_destination_qemu_dies(self):
        guest, path = self.make("killed")
        before = self.files(scene.b)
        with guest.unharmed(gap_ms=1000):
            process = self.begin(guest)
            for pid in scene.b.processes("qemu-system-x86_64"):
                os.kill(pid, signal.SIGKILL)
            _, err = process.communicate(timeout=60)
            self.assertNotEqual(process.returncode, 0, err)
        self.expect_undone(guest, path, before)

    def test_link_is_cut(self):
        guest, path = self.make("cut")
        before = self.files(scene.b)
        with guest.unharmed():
            process = self.begin(guest, "--p2p")
            scene.b.link("down")
            try:
                _, err = process.communicate(timeout=120)
            finally:
                scene.b.link("up")
            self.assertNotEqual(process.returncode, 0, err)
        self.expect_undone(guest, path, before)

    def crash(self, side, fault):
        """Whichever host has it then, has all of it, and no other image stays but one put aside."""
        guest, path = self.make("crash")
        victim = scene.a if side == "source" else scene.b
        scene.survive_crash(guest, victim, fault, lambda: scene.a.popen(
            "virsh", "-c", VZ, "migrate", "--p2p", *MOVE, guest.name, scene.uri(scene.b)))
        runs_on, other = (scene.b, scene.a) if guest.state(scene.b) == "running" else (scene.a, scene.b)
        self.assertTrue(inside(runs_on, path).exists())
        self.assertFalse(inside(other, path).exists())
        self.assertEqual([name for name in self.files(other) if "migrated" not in name], [])
        with guest.unharmed():
            virsh(runs_on, "migrate", "--p2p", *MOVE, guest.name, scene.uri(other))
        guest.expect_on(other)

    def test_destination_daemon_dies_making_images(self):
        self.crash("destination", "create-disks:crash:after")

    def test_source_daemon_dies_with_a_copy(self):
        self.crash("source", "copy-disks:crash:after")

    @tap.long
    def test_daemons_die(self):
        for side, step in (("source", "offer-disks"), ("source", "prove-disks"), ("source", "copy-disks"),
                           ("source", "settle-disks"), ("source", "release"), ("source", "end-source"),
                           ("source", "put-aside"), ("destination", "answer-disks"),
                           ("destination", "create-disks"), ("destination", "open-door"),
                           ("destination", "close-disks"), ("destination", "commit")):
            for when in ("before", "after"):
                with self.subTest(side=side, step=step, when=when):
                    self.crash(side, "%s:crash:%s" % (step, when))
                self.doCleanups()


if __name__ == "__main__":
    tap.main()
