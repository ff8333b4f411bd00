"""Disks of which nobody can prove that both hosts see the same, and callers that vouch for them. Nothing
is faked: the directories are mounts in which no note can be written, while the images in them can be.

One guest for each kind of disk; each test leaves its guest where it began.
"""

import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from moving import BOTH_WAYS, MIGRATE_TIMEOUT_S, MOVE, MovingTest, virsh  # noqa: E402
from scene import Scene, for_module  # noqa: E402

LOG = "/var/log/virtvzd.log"
TAKEN = "disk 'vda' is not proved to be the same on both hosts, and was taken for shared"
# $1: a directory of this host, $2: where the image really is.
NO_NOTES = """
mkdir -p "$1" && mount -t tmpfs none "$1" && touch "$1/disk.img" &&
mount --bind "$2" "$1/disk.img" && mount -o remount,ro "$1"
"""
# The same directory, of which one host can only read what is beside the image.
NO_ANSWERS = """
mkdir -p "$1" && mount --bind "${2%/*}" "$1" && mount -o remount,bind,ro "$1" &&
mount --bind "$2" "$1/disk.img"
"""
UNMOUNT = 'umount "$1/disk.img"; umount "$1"'

scene = None


def setUpModule():
    global scene
    with for_module(Scene("unsafe")) as scene:
        pass
    MovingTest.scene = scene


class UnsafeTest(MovingTest):
    DISK = "/unproved/disk.img"
    AFTER_GUEST = False  # whose Python makes a file of its disk

    def setUp(self):
        """A guest with that disk, running on hosta."""
        self.image = scene.a.path("/shared/unproved/disk.img")
        self.image.parent.mkdir(exist_ok=True)
        self.image.write_bytes(b"")
        if not self.AFTER_GUEST:
            self.put_disk()
        self.guest = scene.guest("unproved", "vz.dirty=2", disk=self.DISK)
        self.addCleanup(scene.guests.remove, self.guest)
        if self.AFTER_GUEST:
            self.put_disk()
        super().setUp()
        self.addCleanup(self.end_guest)
        self.guest.start(scene.a)

    def put_disk(self):
        for host in scene.lab.hosts:
            self.mount(host, NO_NOTES, "/shared/unproved/disk.img")

    def mount(self, host, how, image):
        host.out("sh", "-c", how, "sh", "/unproved", image)
        self.addCleanup(host.run, "sh", "-c", UNMOUNT, "sh", "/unproved")

    def put_in_order(self):
        pass

    def end_guest(self):
        for host in scene.lab.hosts:
            virsh(host, "destroy", self.guest.name, check=False)
            virsh(host, "undefine", self.guest.name, check=False)

    def logged(self, host):
        return host.path(LOG).read_text().count(TAKEN)

    def moves(self, run):
        """By this function of (here, there), with a warning on both hosts."""
        here, there = self.where()
        before = self.logged(here), self.logged(there)
        with self.guest.unharmed():
            run(here, there)
            self.guest.expect_on(there)
        self.assertEqual((self.logged(here), self.logged(there)), (before[0] + 1, before[1] + 1))
        self.assertIn(TAKEN, virsh(there, "dominfo", self.guest.name).stdout)


class NothingCanBeWritten(UnsafeTest):
    def test_by_nobodys_word(self):
        here, there = self.where()
        with self.guest.unharmed():
            for way in BOTH_WAYS:
                self.refused(*way, *MOVE, error="error: Unsafe migration: disk 'vda' "
                             "(/unproved/disk.img) is unproved: cannot create '/unproved/.virtvz-")
            done = self.move(*MOVE, check=False)
            self.assertIn("Read-only file system; --unsafe would move it on your word", done.stderr)
            done = here.run("vz", "check", self.guest.name, there.address, check=False)
            self.assertEqual(done.returncode, 5, done.stdout)
            self.assertIn("--unsafe would move it", done.stdout + done.stderr)

    def test_on_the_callers_word(self):
        for way in BOTH_WAYS:
            self.moves(lambda here, there, way=way: virsh(
                here, "migrate", "--unsafe", *way, *MOVE, self.guest.name, scene.uri(there)))

    @tap.long
    def test_by_vz(self):
        here, there = self.where()
        done = here.run("vz", "check", self.guest.name, there.address, "--unsafe", check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn(TAKEN, done.stdout)
        self.assertIn("/unproved/disk.img: not proved to be shared", done.stdout)
        self.moves(lambda here, there: here.out("vz", "migrate", self.guest.name, there.address,
                                                "--unsafe", timeout=MIGRATE_TIMEOUT_S))

    def test_another_file(self):
        """The word is taken for what is unproved, not for what is false."""
        here, there = self.where()
        there.path("/shared/unproved/copy.img").write_bytes(self.image.read_bytes())
        there.out("sh", "-c", UNMOUNT, "sh", "/unproved")
        there.out("sh", "-c", NO_NOTES, "sh", "/unproved", "/shared/unproved/copy.img")
        with self.guest.unharmed():
            for way in BOTH_WAYS:
                self.refused("--unsafe", *way, *MOVE, error="error: Unsafe migration: disk 'vda': what is "
                             "at '/unproved/disk.img' on this host is a different one")
        self.guest.expect_on(here)


class OnlyTheSourceCanWrite(UnsafeTest):
    def put_disk(self):
        scene.a.out("sh", "-c", 'mkdir -p /unproved && mount --bind /shared/unproved /unproved')
        self.addCleanup(scene.a.run, "umount", "/unproved")
        self.mount(scene.b, NO_ANSWERS, "/shared/unproved/disk.img")

    def test_half_a_proof(self):
        here, there = self.where()
        with self.guest.unharmed():
            self.refused(*MOVE, error="is unproved: cannot create '/unproved/.virtvz-")
        self.moves(lambda here, there: virsh(here, "migrate", "--unsafe", *MOVE, self.guest.name,
                                             scene.uri(there)))
        left = [name for name in os.listdir(self.image.parent) if name.endswith((".offer", ".answer"))]
        self.assertEqual(left, [])


class BlockDevice(UnsafeTest):
    """Of which notes tell nothing: here it is one device, as both hosts see it."""

    DISK = "/dev/unproved"
    AFTER_GUEST = True

    def put_disk(self):
        with open(self.image, "wb") as file:
            file.truncate(16 << 20)
        self.device = subprocess.run(["losetup", "--find", "--show", self.image], check=True,
                                     stdout=subprocess.PIPE, text=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", self.device], check=True)
        for host in scene.lab.hosts:
            self.node(host, self.device)

    def node(self, host, device):
        numbers = os.stat(device).st_rdev
        host.out("sh", "-c", "rm -f %s && mknod %s b %d %d" % (
            self.DISK, self.DISK, os.major(numbers), os.minor(numbers)))
        self.addCleanup(host.run, "rm", "-f", self.DISK)

    @tap.long
    def test_word_and_size(self):
        with self.guest.unharmed():
            self.refused(*MOVE, error="is unproved: it is a block device")
        self.moves(lambda here, there: virsh(here, "migrate", "--unsafe", *MOVE, self.guest.name,
                                             scene.uri(there)))
        here, there = self.where()
        larger = self.image.with_name("larger.img")
        with open(larger, "wb") as file:
            file.truncate(32 << 20)
        device = subprocess.run(["losetup", "--find", "--show", larger], check=True,
                                stdout=subprocess.PIPE, text=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", device], check=True)
        self.node(there, device)
        with self.guest.unharmed():
            self.refused("--unsafe", *MOVE, error="is a different one")


class NotShared(UnsafeTest):
    """A directory of each host's own, in which notes can be written."""

    def put_disk(self):
        for host in scene.lab.hosts:
            host.out("sh", "-c", "mkdir -p /unproved && mount -t tmpfs none /unproved && "
                     "truncate -s 16M /unproved/disk.img")
            self.addCleanup(host.run, "umount", "/unproved")

    @tap.long
    def test_nobodys_word_helps(self):
        here, _ = self.where()
        with self.guest.unharmed():
            for way in BOTH_WAYS:
                self.refused("--unsafe", *way, *MOVE,
                             error="Unsafe migration: disk 'vda' is not on shared storage")
        self.guest.expect_on(here)


if __name__ == "__main__":
    tap.main()
