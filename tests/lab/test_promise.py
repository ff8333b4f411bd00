"""What `vz check` says is what `vz migrate` with the same words does: with other definitions, by other
ports and ways, and of domains that are shut off. The guest's image is qcow2, which grows while it runs.
"""

import json
import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402
from scene import VZ, Scene, for_module  # noqa: E402

TIMEOUT_S = 120
MOVES, WOULD_NOT = 0, 5
GUESSED_PORT = "49152"
LISTENER = """
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
print("listens", flush=True)
server.settimeout(60)
try:
    server.accept()
    print("somebody came", flush=True)
except OSError:
    pass
"""

scene = None
worker = None


def setUpModule():
    global scene, worker
    with for_module(Scene("promise")) as scene:
        worker = scene.guest("worker", "vz.dirty=2", disk=True)
        worker.xml = worker.xml.replace("type='raw'", "type='qcow2'").replace('type="raw"', 'type="qcow2"')
        scene.a.path(worker.file).write_text(worker.xml)
        scene.a.out("qemu-img", "create", "-q", "-f", "qcow2", worker.image, "16M")
        worker.start(scene.a)


class Promise(unittest.TestCase):
    def setUp(self):
        self.addCleanup(self.after)
        self.here, self.there = scene.a, scene.b
        if worker.state(self.here) != "running":
            self.here, self.there = self.there, self.here

    def after(self):
        with scene.last_look(self):
            scene.expect_nothing_left()

    def vz(self, *words):
        return self.here.run("vz", *words, check=False, timeout=TIMEOUT_S)

    def check(self, name, *words, exit_code=MOVES):
        """The plan; and what people read of it."""
        done = self.vz("--json", "check", name, self.there.name, *words)
        self.assertEqual(done.returncode, exit_code, done.stdout + done.stderr)
        return json.loads(done.stdout.splitlines()[-1]), self.vz("check", name, self.there.name, *words).stdout

    def found(self, name, *words):
        plan, _ = self.check(name, *words, exit_code=WOULD_NOT)
        return {one["check"]: one["text"] for one in plan["findings"]}

    def file(self, name, text):
        self.here.path("/shared/" + name).write_text(text)
        self.addCleanup(self.here.path("/shared/" + name).unlink)
        return "/shared/" + name

    def test_grows_while_it_moves(self):
        with worker.unharmed():
            for _ in range(2):
                self.check(worker.name)
                done = self.vz("migrate", worker.name, self.there.name)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.here, self.there = self.there, self.here
        worker.expect_on(self.here)

    def test_definitions(self):
        live = self.here.out("virsh", "-c", VZ, "dumpxml", "--migratable", worker.name)
        titled = self.file("titled.xml", live.replace("<memory", "<title>there</title><memory", 1))
        larger = self.file("larger.xml", live.replace("196608", "262144"))
        broken = self.file("broken.xml", "<domain")
        self.check(worker.name, "--xml", titled, "--persistent-xml", larger)
        for words in (("--xml", larger), ("--xml", broken), ("--persistent-xml", broken)):
            with self.subTest(words=words):
                text = self.found(worker.name, *words)["definition"]
                done = self.vz("migrate", worker.name, self.there.name, *words)
                self.assertEqual(done.returncode, 1)
                self.assertIn(text, done.stderr)
        worker.expect_on(self.here)

    def test_nobody_knocks_at_a_guess(self):
        """At such a port another guest's QEMU may wait, which a stray connection would end."""
        listener = self.there.popen("python3", "-c", LISTENER, GUESSED_PORT)
        self.addCleanup(listener.communicate)
        self.addCleanup(listener.kill)
        self.assertEqual(listener.stdout.readline(), "listens\n")
        self.check(worker.name, "--migrateuri", "tcp:%s:%s" % (self.there.name, GUESSED_PORT))
        self.assertIsNone(listener.poll())
        self.there.run("pkill", "-f", "create_server")
        self.assertEqual(listener.stdout.read(), "")

    def test_protection(self):
        _, text = self.check(worker.name)
        self.assertIn("encrypted (TLS 1.3)", text)
        plan, text = self.check(worker.name, "--direct-stream")
        self.assertIn("memory NOT encrypted", text)
        self.assertNotIn("tls", [one["word"] for one in plan["options"]])

    def test_domain_that_is_shut_off(self):
        idle = scene.guest("idle", disk=True)
        self.addCleanup(scene.guests.remove, idle)
        self.here.out("virsh", "-c", VZ, "define", idle.file)
        for host in scene.lab.hosts:
            self.addCleanup(host.run, "virsh", "-c", VZ, "undefine", idle.name, check=False)
        plan, text = self.check(idle.name)
        self.assertEqual(plan["disks"], [{"target": "vda", "path": idle.image, "shared": True, "copy": False}])
        self.assertIn("offline: it is shut off, and its definition moves", text)
        self.assertIn("shut off, defined", text)
        self.assertIn("offline", [one["word"] for one in plan["options"]])
        done = self.vz("migrate", idle.name, self.there.name, "--keep-source")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(idle.state(self.there), "shut off")
        text = self.found(idle.name)["state"]
        self.assertIn("has moved to %s and is defined there" % self.there.name, text)
        done = self.vz("migrate", idle.name, self.there.name)
        self.assertEqual(done.returncode, 1)
        self.assertIn(text, done.stderr)


if __name__ == "__main__":
    tap.main()
