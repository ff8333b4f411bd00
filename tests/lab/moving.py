"""What tests of moves between two hosts of a scene have in common: one guest, moved to and fro by
virsh, unharmed, with nothing left over after each test."""

import unittest

from scene import VZ, Scene, eventually, for_module

MIGRATE_TIMEOUT_S = 120
VNC_PORT = 5907
BOTH_WAYS = ((), ("--p2p",))
MOVE = ("--live", "--persistent", "--undefinesource")


def virsh(host, *words, check=True, timeout=MIGRATE_TIMEOUT_S):
    done = host.run("virsh", "-c", VZ, *words, check=False, timeout=timeout)
    if check and done.returncode != 0:
        raise AssertionError("virsh %s: %s%s" % (" ".join(words), done.stdout, done.stderr))
    return done


def begin(name, change):
    """For setUpModule: a scene whose guest runs on hosta, and the guest. change(scene, xml): its
    definition."""
    with for_module(Scene(name)) as scene:
        guest = scene.guest("worker", "vz.dirty=2", disk=True)
        guest.xml = change(scene, guest.xml)
        scene.a.path(guest.file).write_text(guest.xml)
        guest.start(scene.a)
    MovingTest.scene, MovingTest.guest = scene, guest
    return scene, guest


def with_graphics(xml, listen, password=""):
    return xml.replace("</devices>", "<graphics type='vnc' port='%d' autoport='no' listen='%s'%s/>"
                       "<video><model type='vga'/></video></devices>" % (VNC_PORT, listen, password))


class MovingTest(unittest.TestCase):
    """With the scene and the guest of begin()."""

    scene = guest = None

    def setUp(self):
        self.addCleanup(self.after)

    def after(self):
        with self.scene.last_look(self):
            self.put_in_order()
            self.scene.expect_nothing_left()

    def put_in_order(self):
        """Running, persistent where it runs, and unknown on the other host."""
        here, there = self.where()
        if self.guest.state(here) == "paused":
            virsh(here, "resume", self.guest.name)
        if self.guest.state(there) is not None:
            virsh(there, "undefine", self.guest.name)
        virsh(here, "define", self.guest.file)

    def where(self):
        """(the host where it is, the other one)."""
        a, b = self.scene.a, self.scene.b
        return (a, b) if self.guest.state(a) in ("running", "paused") else (b, a)

    def move(self, *options, here=None, there=None, check=True):
        """virsh migrate; returns its result."""
        if here is None:
            here, there = self.where()
        return virsh(here, "migrate", *options, self.guest.name, self.scene.uri(there), check=check)

    def refused(self, *options, error):
        """The move is refused with these words, and the guest stays. Tests do it inside unharmed()."""
        here, there = self.where()
        done = self.move(*options, here=here, there=there, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn(error, done.stderr)
        self.guest.expect_on(here)

    def xml(self, host, *options):
        return virsh(host, "dumpxml", *options, self.guest.name).stdout

    def file(self, name, text):
        """A file that all hosts see."""
        self.scene.a.path("/shared/" + name).write_text(text)
        self.addCleanup(self.scene.a.path("/shared/" + name).unlink, missing_ok=True)
        return "/shared/" + name

    def eventually_runs_on(self, host):
        eventually("it runs on %s" % host.name, lambda: self.guest.state(host) == "running")
