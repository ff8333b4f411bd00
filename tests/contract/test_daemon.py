#!/usr/bin/env python3
"""virtvzd as a program: it ends, is killed, and comes back, with guests that run, hang or have died
meanwhile, and with damaged files. Looked at through both releases' virsh."""

import contextlib
import re
import socket
import time

import contract
import guest
from contract import Case, Virsh13, for_both, tap


def setUpModule():
    contract.set_up_module()


def tearDownModule():
    contract.tear_down_module()


class DaemonCase(Case):
    def log(self):
        return self.host.out("cat", "/var/log/virtvzd.log")


class Daemon(DaemonCase):
    """virtvzd ends, is killed, and comes back."""

    def test_guests_survive(self):
        self.define("g1")
        self.ok("create", self.xml("t1"))
        self.ok("start", "g1")
        self.ok("suspend", "g1")
        pid, number = self.qemu_pid(), self.ok("domid", "g1")
        live = self.ok("dumpxml", "g1")
        for how in ("restart", "kill"):
            self.host.daemon(how)
            if how == "kill":
                self.host.daemon("start")
            self.assertEqual(self.state("g1"), "paused (user)")
            self.assertEqual(self.state("t1"), "running (booted)")
            self.assertEqual((self.qemu_pid(), self.ok("domid", "g1")), (pid, number))
            self.assertEqual(self.ok("dumpxml", "g1"), live)
            self.assertIn("Persistent:     no", self.ok("dominfo", "t1"))
        self.ok("resume", "g1")
        self.boot()
        self.ok("shutdown", "g1")
        self.wait_state("shut off (shutdown)")
        self.define("g3")
        self.ok("start", "g3")
        self.assertGreater(int(self.ok("domid", "g3")), int(number))

    def kill_qemu(self, name):
        """Until it is gone: a dying one is found alive by a starting virtvzd, and dies a little later."""
        pid = self.qemu_pid(name)
        self.host.run("kill", "-KILL", pid)
        while self.host.run("kill", "-0", pid, check=False).returncode == 0:
            time.sleep(0.05)

    def test_guest_died_meanwhile(self):
        self.define("g1")
        self.ok("start", "g1")
        self.ok("create", self.xml("t1"))
        self.host.daemon("stop")
        for name in ("g1", "t1"):
            self.kill_qemu(name)
        self.host.daemon("start")
        self.assertEqual(self.ok("list", "--all", "--name").split(), ["g1"])
        self.assertEqual(self.state(), "shut off (crashed)")  # as libvirt 11.3 says
        self.assertIn("ended while virtvzd was not running", self.ok("dominfo", "g1"))
        self.assertRegex(self.log(), "warn.* t1.* ended while virtvzd was not running")
        self.assertEqual(self.host.out("sh", "-c", "ls /run/virtvz/domains /run/virtvz/qemu | grep -v :"
                                                   " || :").split(), [])
        self.ok("start", "g1")

    def test_definitions_survive(self):
        self.define()
        self.ok("autostart", "g1")
        xml = self.ok("dumpxml", "g1", "--inactive", "--security-info")
        self.host.daemon("kill")
        self.host.daemon("start")
        self.assertEqual(self.ok("dumpxml", "g1", "--inactive", "--security-info"), xml)
        self.assertIn("Autostart:      enable", self.ok("dominfo", "g1"))
        # Autostart was done at this boot, before there was a g1.
        self.assertEqual(self.state(), "shut off (unknown)")
        self.host.crash()
        self.host.boot()
        self.wait_state("running (booted)")

    def test_damaged_definition(self):
        self.define("g1")
        self.define("g2")
        path = "/var/lib/virtvz/domains/%s.xml" % self.ok("domuuid", "g1")
        self.host.daemon("stop")
        self.host.run("truncate", "-s", "100", path)
        self.host.daemon("start")
        self.assertEqual(self.ok("list", "--all", "--name").split(), ["g2"])
        self.assertRegex(self.log(), "error.*its definition cannot be used and is left as it is")
        self.assertEqual(self.host.out("stat", "-c", "%s", path), "100")
        self.host.run("rm", path)

    def test_damaged_status(self):
        self.define("g1")
        self.ok("start", "g1")
        pid = self.qemu_pid()
        path = "/run/virtvz/domains/%s.status" % self.ok("domuuid", "g1")
        self.host.daemon("stop")
        whole = self.host.path(path).read_text()
        self.host.path(path).write_text(whole[:50])
        self.host.daemon("start")
        done = self.virsh.run("start", "g1")
        self.assertRegex(done.errors[-1], "may be running already: '%s'" % path)
        self.assertEqual(self.qemu_pid(), pid)  # neither killed nor doubled
        self.host.daemon("stop")
        self.host.path(path).write_text(whole)
        self.host.daemon("start")
        self.assertEqual(self.state(), "running (booted)")

    def test_hung_qemu(self):
        """A QEMU that hangs costs nobody else anything, and can be destroyed."""
        self.define("g1")
        self.define("g2")
        self.ok("start", "g1")
        pid = self.qemu_pid()
        self.host.run("kill", "-STOP", pid)
        began = time.monotonic()
        self.assertEqual(self.state(), "running (booted)")
        self.ok("start", "g2")
        self.ok("dominfo", "g1")
        self.assertLess(time.monotonic() - began, 5)
        self.ok("destroy", "g1")
        self.assertEqual(self.state(), "shut off (destroyed)")
        self.assertNotEqual(self.host.run("kill", "-0", pid, check=False).returncode, 0)

    def test_hung_qemu_and_restart(self):
        self.define("g1")
        self.ok("start", "g1")
        pid = self.qemu_pid()
        self.host.run("kill", "-STOP", pid)
        began = time.monotonic()
        self.host.daemon("restart")
        self.assertLess(time.monotonic() - began, 15)
        self.assertEqual(self.state(), "running (booted)")
        self.host.run("kill", "-CONT", pid)
        self.ok("suspend", "g1")
        self.assertEqual(self.state(), "paused (user)")
        self.assertEqual(self.qemu_pid(), pid)

    def test_single_instance(self):
        done = self.host.run("/usr/sbin/virtvzd", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("another virtvzd holds", done.stderr)
        self.ok("list")

    def test_another_instance(self):
        """With directories of its own: tells the service manager, serves TCP, leaves nothing."""
        base = "/tmp/other"
        self.host.run("rm", "-rf", base)
        self.host.run("mkdir", base)
        self.host.path(base + "/conf").write_text(
            "".join("%s_dir = %s/%s\n" % (name, base, name)
                    for name in ("socket", "state", "run", "log", "cache")) +
            "listen_tcp = yes\ntcp_address = 127.0.0.1\ntcp_port = 26509\ndata_port = 26515\n"
            "host_uuid = 01234567-89ab-4cde-8f01-23456789abcd\n")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(self.host.path(base + "/notify")))
            notify.settimeout(20)
            daemon = self.host.popen("/usr/sbin/virtvzd", "-f", base + "/conf",
                                     env={"NOTIFY_SOCKET": base + "/notify"})
            self.addCleanup(daemon.stdout.close)
            self.addCleanup(daemon.stderr.close)
            self.addCleanup(daemon.kill)
            self.assertEqual(notify.recv(100), b"READY=1")
            done = self.host.run("virsh", "-c", "vz+tcp://127.0.0.1:26509/system", "capabilities")
            self.assertIn("<uuid>01234567-89ab-4cde-8f01-23456789abcd</uuid>", done.stdout)
            self.assertEqual(sorted(self.host.out("ls", base + "/socket").split()),
                             ["virtvzd-sock", "virtvzd-sock-ro"])
            daemon.terminate()
            self.assertEqual(notify.recv(100), b"STOPPING=1")
            self.assertEqual(daemon.wait(20), 0)
        self.assertEqual(self.host.out("ls", base + "/socket"), "")

    def test_options(self):
        self.assertRegex(self.host.out("/usr/sbin/virtvzd", "--version"), r"^virtvzd \d")
        self.assertIn("#tcp_port = 16509", self.host.out("/usr/sbin/virtvzd", "--help-config"))
        self.assertEqual(self.host.run("/usr/sbin/virtvzd", "--check").returncode, 0)
        self.host.path("/tmp/bad.conf").write_text("listen_tcp = yes\nbogus = 1\n")
        done = self.host.run("/usr/sbin/virtvzd", "-f", "/tmp/bad.conf", "--check", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("/tmp/bad.conf:2: unknown key 'bogus'", done.stderr)
        self.assertEqual(self.host.run("/usr/sbin/virtvzd", "--bogus", check=False).returncode, 2)


class Restart(DaemonCase):
    """What guests and clients have of virtvzd, before and after it was killed or restarted."""

    client_class = Virsh13  # what is looked at are guests, not words

    def start(self, name="g1", on_poweroff="destroy"):
        path = self.xml(name)
        text = (self.lab.shared / ("%s.xml" % name)).read_text()
        self.write("%s.xml" % name, text.replace("<on_poweroff>destroy", "<on_poweroff>" + on_poweroff))
        self.ok("define", path)
        self.ok("start", name)

    @contextlib.contextmanager
    def monitor(self, name="g1"):
        """QEMU's own, which is free while no virtvzd runs."""
        uuid = re.search("<uuid>(.*)</uuid>", (self.lab.shared / ("%s.xml" % name)).read_text())
        path = self.host.path("/run/virtvz/qemu/%s/monitor.sock" % uuid.group(1))
        with contextlib.closing(guest.Qmp(str(path))) as qmp:
            yield qmp

    def wait_shutdown(self, name):
        end = time.monotonic() + 20
        with self.monitor(name) as qmp:
            while qmp("query-status")["status"] != "shutdown" and time.monotonic() < end:
                time.sleep(0.05)
            self.assertEqual(qmp("query-status")["status"], "shutdown")

    @staticmethod
    def last_beat(console):
        return [int(number) for number in re.findall(rb"beat \S+ \S+ (\d+) ", console.text)][-1]

    def test_clients(self):
        """They are told of the end. Nothing blocks the guest meanwhile; its console can be opened
        again, and who comes back hears of what happens from then on."""
        told = b"Disconnected from vz:///system due to end of file"
        self.start()
        console, events = self.console(), self.events()
        self.assertTrue(console.read_until(contract.BOOTED), console.text)
        console.read_until(b"no such text", 1)
        began, beat = time.monotonic(), self.last_beat(console)
        self.host.daemon("kill")
        # The console of virsh 11.3 then waits for ever, with libvirtd, too.
        self.assertTrue(console.read_until(told, 10), console.text)
        self.assertIsNotNone(events.process.wait(10))
        self.host.daemon("start")
        console, events = self.console(), self.events()
        self.assertTrue(console.read_until(contract.BOOTED), console.text)
        console.read_until(b"no such text", 1)
        passed = time.monotonic() - began
        self.assertGreater(self.last_beat(console) - beat, 100 * passed / 2)  # it makes 100 a second
        self.ok("shutdown", "g1")
        self.wait_state("shut off (shutdown)")
        self.ok("start", "g1")
        events.expect(self, ["lifecycle g1 " + words for words in (
            "Shutdown Finished after guest request", "Stopped Shutdown", "Resumed Unpaused",
            "Started Booted")])
        self.host.daemon("restart")
        self.assertTrue(self.console().read_until(contract.BOOTED))
        events = self.events()
        self.ok("reset", "g1")
        self.assertTrue(events.terminal.read_until(b"reboot", 10), events.terminal.text)
        self.host.run("kill", "-KILL", self.qemu_pid())
        self.assertTrue(events.terminal.read_until(b"Stopped Failed", 10), events.terminal.text)
        self.assertEqual(self.state(), "shut off (crashed)")

    def test_autodestroy(self):
        """Its connection has ended, so such a guest ends with an orderly virtvzd, as with libvirtd,
        or, what libvirtd forgets, when the next one finds it."""
        self.define("g1")
        self.define("g2")
        self.ok("start", "g2")
        other = self.qemu_pid("g2")
        for how in ("kill", "restart"):
            terminal = contract.Terminal(self.virsh.popen(tty=True))
            self.addCleanup(self.end, terminal.process)
            terminal.type(b"create --autodestroy %s\nstart --autodestroy g1\n" %
                          self.xml("t1").encode())
            self.assertTrue(terminal.read_until(b"'g1' started"), terminal.text)
            pids = [self.qemu_pid(name) for name in ("t1", "g1")]
            self.host.daemon(how)
            if how == "kill":
                for pid in pids:
                    self.host.run("kill", "-0", pid)
                self.host.daemon("start")
            self.wait_state("shut off (destroyed)" if how == "kill" else "shut off (unknown)")
            self.assertEqual(self.ok("list", "--all", "--name").split(), ["g2", "g1"])
            for pid in pids:
                self.assertNotEqual(self.host.run("kill", "-0", pid, check=False).returncode, 0)
            self.assertEqual(self.qemu_pid("g2"), other)

    def test_killed_while_it_started_guests(self):
        """What it leaves is a QEMU that was not told to run yet, and no status. One that has run is
        another matter."""
        for name in ("g1", "g2"):
            self.define(name)
        self.ok("start", "--paused", "g1")
        self.ok("start", "g2")
        pid = self.qemu_pid("g2")
        self.host.daemon("kill")
        statuses = list(self.host.path("/run/virtvz/domains").glob("*.status"))
        kept = {path: path.read_text() for path in statuses}
        for path in statuses:
            path.unlink()
        self.host.daemon("start")
        self.assertEqual(self.host.out("pgrep", "qemu-system"), pid)
        self.assertRegex(self.log(), "error.* a QEMU of it runs of which there is no status")
        self.ok("start", "g1")
        self.host.daemon("kill")
        for path, text in kept.items():
            if "<name>g2</name>" in text:
                path.write_text(text)
        self.host.daemon("start")
        self.assertEqual(self.state("g2"), "running (booted)")

    def test_what_follows_a_shutdown(self):
        """The end, a new start, or a reboot that a client asked for: although virtvzd is not there when
        the guest shuts down, or is another one."""
        names = ("g1", "g2", "g3")
        for name in names:
            self.start(name, "restart" if name == "g2" else "destroy")
        for name in names:
            self.boot(name)
        before = [(self.qemu_pid(name), self.ok("domid", name)) for name in names[1:]]
        self.ok("suspend", "g3")
        self.ok("reboot", "g3")  # it hears of that when it goes on
        self.host.daemon("kill")
        for name in names[:2]:
            with self.monitor(name) as qmp:
                qmp("system_powerdown")
        for name in names[:2]:
            self.wait_shutdown(name)
        self.host.daemon("start")
        self.wait_state("shut off (shutdown)")
        self.assertRegex(self.state("g2"), "^running")
        events = self.events()
        self.ok("resume", "g3")
        self.assertTrue(events.terminal.read_until(b"'reboot'", 20), events.terminal.text)
        for name in names[1:]:
            self.boot(name)
        after = [(self.qemu_pid(name), self.ok("domid", name)) for name in names[1:]]
        self.assertEqual(after, before)
        self.ok("shutdown", "g3")  # that was one reboot
        self.wait_state("shut off (shutdown)", "g3")


for_both(Daemon, globals())

if __name__ == "__main__":
    tap.main()
