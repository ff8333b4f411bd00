"""Disks that only one host has are copied with their guest: by virsh without a flag, there and back,
raw and qcow2, live and not. Judged by the images, block by block, while neither copy of the guest
runs; by what the guest verifies of its own writing; by the files that are there before and after.
"""

import glob
import os
import pathlib
import shutil
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
OWNER = (1234, 1235)

scene = None
virsh = moving.virsh


def setUpModule():
    global scene
    with for_module(Scene("disks")) as scene:
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

    def test_qcow2_managed(self):
        self.there_and_back(*self.make("qcow2", "qcow2", "cluster_size=128k,lazy_refcounts=on"), "qcow2")


if __name__ == "__main__":
    tap.main()
