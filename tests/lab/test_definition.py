"""Definitions that callers give to a migration: destination_xml and persistent_xml, by virsh, vz and
libvirt-python as Nova calls it; and what is defined where after a move, in all cases of libvirt's
table. What runs is read from QEMU's open files and the host's bridges, not from virtvzd.

One guest serves the whole file; each test begins with it running on one host, defined there only.
"""

import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import moving  # noqa: E402
import tap  # noqa: E402
from moving import BOTH_WAYS, MIGRATE_TIMEOUT_S, MOVE, VNC_PORT, MovingTest, virsh  # noqa: E402

PASSWORD = "s3cret"
# Where the images are on one host only, in other words the same directory under another name.
ELSEWHERE = "/elsewhere"
TITLE = "<title>as it runs there</title>"
# The names of an RFB server's security types; 2 is VNC's password.
RFB = """
import socket, sys
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
version = sock.recv(12)
sock.sendall(version)
types = sock.recv(1)
print(version.decode().strip(), *sock.recv(types[0]))
"""
NOVA = """
import libvirt, sys
name, uri, changed, kept = sys.argv[1:]
flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER |
         libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_PERSIST_DEST)
domain = libvirt.open("vz:///system").lookupByName(name)
domain.migrateToURI3(uri, params={"destination_xml": open(changed).read(),
                                  "persistent_xml": open(kept).read(), "bandwidth": 0}, flags=flags)
"""
OLDER = """
import libvirt, sys
name, uri, changed = sys.argv[1:]
flags = libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
domain = libvirt.open("vz:///system").lookupByName(name)
domain.migrate2(libvirt.open(uri), open(changed).read(), flags, None, None, 0)
"""

scene = None
worker = None


def setUpModule():
    global scene, worker
    scene, worker = moving.begin("definition", lambda _, xml: moving.with_graphics(
        xml, "127.0.0.1", " passwd='%s'" % PASSWORD))


def open_files(host):
    """Of the one QEMU that runs there, as that host calls them."""
    return host.out("sh", "-c", "readlink /proc/$(pgrep -x qemu-system-x86)/fd/*").split("\n")


class ChangedThere(MovingTest):
    """destination_xml: what may differ does."""

    def setUp(self):
        super().setUp()
        self.here, self.there = self.where()
        self.there.run("sh", "-ec", "mkdir -p %s; mount --bind /shared %s; "
                       "ip link set br0 name brx" % (ELSEWHERE, ELSEWHERE))
        self.addCleanup(self.as_before, self.there)

    def as_before(self, host):
        """Runs before put_in_order: the guest goes back to where its paths are as they were."""
        here, there = self.where()
        host.run("ip", "link", "set", "brx", "name", "br0")
        if here is host and worker.state(here) == "running":
            xml = self.restored(self.xml(here, "--migratable"))
            self.move(*MOVE, "--xml", xml, here=here, there=there)
        host.run("umount", ELSEWHERE)

    def restored(self, text):
        for changed, usual in ((ELSEWHERE, "/shared"), ("bridge='brx'", "bridge='br0'"),
                               (self.there.address, "127.0.0.1"), (TITLE, "")):
            text = text.replace(changed, usual)
        return self.file("back.xml", text)

    def changed(self, *options):
        """The definition that this test's destination needs, from what dumpxml says."""
        text = self.xml(self.here, *options).replace(" passwd='%s'" % PASSWORD, "")
        for old, new in (("/shared/worker.img", ELSEWHERE + "/worker.img"),
                         ("bridge='br0'", "bridge='brx'"),
                         ("listen='127.0.0.1'", "listen='%s'" % self.there.address),
                         ("address='127.0.0.1'", "address='%s'" % self.there.address),
                         ("<memory", TITLE + "<memory")):
            self.assertIn(old, text)
            text = text.replace(old, new)
        return self.file("changed.xml", text)

    def expect_changed(self):
        worker.expect_on(self.there)
        self.assertIn(ELSEWHERE + "/worker.img", open_files(self.there))
        self.assertIn("vnet", self.there.out("ls", "/sys/class/net/brx/brif"))
        said = scene.lab.observer.out(sys.executable, "-c", RFB, self.there.address, VNC_PORT)
        self.assertEqual(said, "RFB 003.008 2", "it listens where it was told, with the password")
        live = self.xml(self.there)
        self.assertIn(TITLE, live)
        self.assertEqual(scene.lease(worker.image)["host_name"], self.there.name)

    def test_managed(self):
        changed = self.changed("--migratable")
        with worker.unharmed():
            self.move(*MOVE, "--xml", changed)
        self.expect_changed()
        kept = self.xml(self.there, "--inactive")
        self.assertNotIn(TITLE, kept, "without persistent_xml the source's is kept")
        self.assertIn("/shared/worker.img", kept)

    def test_as_nova_calls(self):
        changed = self.changed("--inactive")
        with worker.unharmed():
            self.here.run("python3", "-c", NOVA, worker.name, scene.uri(self.there), changed, changed,
                          timeout=MIGRATE_TIMEOUT_S)
        self.expect_changed()
        self.assertIn(TITLE, self.xml(self.there, "--inactive"))

    @tap.long
    def test_older_call(self):
        changed = self.changed()
        with worker.unharmed():
            self.here.run("python3", "-c", OLDER, worker.name, scene.uri(self.there), changed,
                          timeout=MIGRATE_TIMEOUT_S)
        self.expect_changed()

    def test_vz_with_a_new_name(self):
        changed = self.changed()
        with worker.unharmed():
            self.here.run("vz", "migrate", "--xml", changed, "--persistent-xml", changed, "--dname",
                          "other", worker.name, self.there.name, timeout=MIGRATE_TIMEOUT_S)
        self.assertEqual(virsh(self.there, "domstate", "other").stdout.strip(), "running")
        self.assertIn("<name>other</name>", virsh(self.there, "dumpxml", "--inactive", "other").stdout)
        self.assertIn(ELSEWHERE + "/worker.img", open_files(self.there))
        back = self.restored(virsh(self.there, "dumpxml", "--migratable", "other").stdout)
        virsh(self.there, "migrate", *MOVE, "--xml", back, "--dname", worker.name, "other",
              scene.uri(self.here))
        worker.expect_on(self.here)


class Refused(MovingTest):
    """Another machine, another guest, another file."""

    def changed(self, pattern, new):
        here, _ = self.where()
        text, count = re.subn(pattern, new, self.xml(here, "--migratable"), count=1)
        self.assertEqual(count, 1, pattern)
        return self.file("changed.xml", text)

    def test_another_machine(self):
        cases = (
            (r"<memory unit='KiB'>\d+", "<memory unit='KiB'>262144",
             "Target domain max memory 262144 does not match source 196608"),
            (r"machine='[^']*'", "machine='pc-i440fx-7.2'",
             "Target domain machine type pc-i440fx-7.2 does not match source"),
            (r"52:54:00:[^']*", "52:54:00:00:00:77",
             "Target network card mac 52:54:00:00:00:77 does not match source"),
            (r"<target dev='vda' bus='virtio'/>", "<target dev='vdb' bus='virtio'/>",
             "Target disk vdb does not match source vda"),
            (r"(?s)<rng.*?</rng>", "", "Target domain RNG device count 0 does not match source 1"),
            (r"<name>[^<]*", "<name>backdoor",
             "Target domain name 'backdoor' does not match source 'worker'"),
            (r"<uuid>[^<]*", "<uuid>11111111-2222-4333-8444-555555555555",
             "Target domain uuid 11111111-2222-4333-8444-555555555555 does not match source"),
        )
        with worker.unharmed():
            for number, (pattern, new, error) in enumerate(cases):
                with self.subTest(error=error):
                    xml = self.changed(pattern, new)
                    self.refused(*BOTH_WAYS[number % 2], *MOVE, "--xml", xml,
                                 error="unsupported configuration: " + error)

    @tap.long
    def test_another_file(self):
        scene.a.path("/shared/other.img").write_bytes(b"\0" * (16 << 20))
        self.addCleanup(scene.a.path("/shared/other.img").unlink)
        for host in scene.lab.hosts:  # where nothing is, it would be copied to
            host.path("/local/worker.img").write_bytes(b"\0" * (16 << 20))
            self.addCleanup(host.path("/local/worker.img").unlink)
        with worker.unharmed():
            for path, error in (
                    ("/shared/other.img", "disk 'vda': the directory of '/shared/other.img' is shared, "
                                          "but the file there is a different one"),
                    ("/local/worker.img", "disk 'vda' is not on shared storage")):
                self.refused(*MOVE, "--xml", self.changed("/shared/worker.img", path),
                             error="Unsafe migration: " + error)

    def test_no_definition_at_all(self):
        self.refused(*MOVE, "--xml", self.file("changed.xml", "<domain"), error="(domain_definition):1: ")

    def test_what_is_kept(self):
        other = self.changed(r"<name>[^<]*", "<name>backdoor")
        self.refused(*MOVE, "--persistent-xml", other, error=(
            "unsupported configuration: persistent_xml: Target domain name 'backdoor' does not match "
            "source 'worker'"))
        large = self.changed("<memory", "<metadata><a xmlns='urn:a'>%s</a></metadata><memory" % (
            "x" * 500000))
        self.refused(*MOVE, "--persistent-xml", large, error=(
            "is the most that travels with a guest"))
        here, there = self.where()
        done = here.run("vz", "migrate", "--transient", "--persistent-xml", worker.file, worker.name,
                        there.name, check=False)
        self.assertIn("a definition to keep needs the persistent flag", done.stderr)
        worker.expect_on(here)


class Kept(MovingTest):
    """persistent_xml: for the next start, so it may be another machine."""

    def test_kept(self):
        for way in BOTH_WAYS if tap.LONG else BOTH_WAYS[1:]:
            with self.subTest(way=way):
                here, there = self.where()
                text = self.xml(here, "--inactive").replace(
                    "<memory", "<title>kept</title><memory").replace("196608", "262144")
                with worker.unharmed():
                    self.move(*way, *MOVE, "--persistent-xml", self.file("kept.xml", text))
                kept, live = self.xml(there, "--inactive"), self.xml(there)
                self.assertIn("<title>kept</title>", kept)
                self.assertIn(">262144</memory>", kept)
                self.assertNotIn("<title>", live)
                self.assertIn(">196608</memory>", live)
                self.put_in_order()


class WhatIsWhere(MovingTest):
    """libvirt's table of what is defined where (its docs, "Config file handling")."""

    # source persistent, defined there before, --undefinesource, --persistent
    #                            -> persistent there, still defined here, whose definition is there
    TABLE = {
        (False, False, False, False): (False, False, None),
        (False, False, True, False): (False, False, None),
        (False, False, False, True): (True, False, "source"),
        (False, False, True, True): (True, False, "source"),
        (False, True, False, False): (True, False, "there"),
        (False, True, True, False): (True, False, "there"),
        (False, True, False, True): (True, False, "source"),
        (False, True, True, True): (True, False, "source"),
        (True, False, False, False): (False, True, None),
        (True, False, True, False): (False, False, None),
        (True, False, False, True): (True, True, "source"),
        (True, False, True, True): (True, False, "source"),
        (True, True, False, False): (True, True, "there"),
        (True, True, True, False): (True, False, "there"),
        (True, True, False, True): (True, True, "source"),
        (True, True, True, True): (True, False, "source"),
    }

    def titled(self, title):
        return self.file(title + ".xml", worker.xml.replace(
            "</name>", "</name><title>of %s</title>" % title))

    def title(self, host):
        found = re.search("<title>of (.*)</title>", self.xml(host, "--inactive"))
        return found and found.group(1)

    def set_up(self, persistent, defined_there):
        """Running and (not) persistent on one host; (not) defined, otherwise, on the other."""
        here, there = self.where()
        virsh(here, "define", self.titled("source"))
        if not persistent:
            virsh(here, "undefine", worker.name)
        if worker.state(there) is not None:
            virsh(there, "undefine", worker.name)
        if defined_there:
            virsh(there, "define", self.titled("there"))
        return here, there

    def is_persistent(self, host):
        return "Persistent:     yes" in virsh(host, "dominfo", worker.name).stdout

    def test_table(self):
        with worker.unharmed():
            for number, (before, after) in enumerate(self.TABLE.items()):
                with self.subTest(before=before):
                    self.row(*before, way=BOTH_WAYS[number % 2], after=after)

    def row(self, persistent, defined_there, undefine, persist, way, after):
        here, there = self.set_up(persistent, defined_there)
        options = ["--live"] + ["--undefinesource"] * undefine + ["--persistent"] * persist
        self.move(*options, *way, here=here, there=there)
        persistent_there, defined_here, whose = after
        self.assertEqual(worker.state(there), "running")
        self.assertEqual(self.is_persistent(there), persistent_there)
        self.assertEqual(worker.state(here), "shut off" if defined_here else None)
        if persistent_there:
            # A transient guest's own definition is the one that it was started with.
            self.assertEqual(self.title(there), whose if persistent or whose == "there" else None)
        if defined_here:
            self.assertEqual(self.title(here), "source")


if __name__ == "__main__":
    tap.main()
