#!/usr/bin/env python3
"""Every virsh command of the support matrix but migrate, by both releases' virsh: what it prints, its
exit code, its error in libvirt's words, and its effect."""

import re
import time
from xml.etree import ElementTree

import contract
from contract import Case, for_both, tap

NOT_RUNNING = "Requested operation is not valid: domain is not running"


def setUpModule():
    contract.set_up_module()


def tearDownModule():
    contract.tear_down_module()


class Host(Case):
    """What is asked about the host."""

    def test_uri_hostname(self):
        self.assertRegex(self.ok("uri"), r"^vz(\+unix)?:///system")
        self.assertEqual(self.ok("hostname"), self.host.name)

    def test_version(self):
        out = self.ok("version", "--daemon")
        qemu = self.host.out("sh", "-c", "qemu-system-x86_64 --version | grep -o 'version [0-9.]*'")
        self.assertIn("Running hypervisor: vz " + qemu.split()[1], out)
        self.assertIn("Running against daemon: 11.3.0", out)

    def test_capabilities(self):
        out = self.ok("capabilities")
        uuid = self.host.out("cat", "/etc/virtvz/host-uuid")
        self.assertIn("<uuid>%s</uuid>" % uuid, out)
        tree = ElementTree.fromstring(out)
        types = {one.get("type") for one in tree.findall("guest/arch/domain")}
        self.assertLessEqual({"vz", "qemu"}, types)
        machines = {one.get("canonical") for one in tree.findall("guest/arch/machine")}
        self.assertTrue(any(name and name.startswith("pc-i440fx-") for name in machines), machines)

    def test_domcapabilities(self):
        tree = ElementTree.fromstring(self.ok("domcapabilities"))
        self.assertEqual(tree.findtext("path"), "/usr/bin/qemu-system-x86_64")
        self.assertGreaterEqual(int(tree.find("vcpu").get("max")), 1)
        tree = ElementTree.fromstring(self.ok("domcapabilities", "--machine", "q35", "--virttype",
                                              "qemu"))
        self.assertRegex(tree.findtext("machine"), "^pc-q35-")
        self.assertEqual(self.virsh.run("domcapabilities", "--arch", "s390x").code, 1)
        self.assertEqual(self.virsh.run("domcapabilities", "--emulatorbin", "/bin/true").code, 1)

    def test_nodeinfo(self):
        out = dict(re.findall(r"(.+?): +(.+)", self.ok("nodeinfo")))
        self.assertEqual(out["CPU model"], "x86_64")
        self.assertEqual(out["CPU(s)"], self.host.out("nproc"))
        total = self.host.out("grep", "MemTotal", "/proc/meminfo").split()[1]
        self.assertEqual(out["Memory size"].split()[0], total)
        product = 1
        for key in ("NUMA cell(s)", "CPU socket(s)", "Core(s) per socket", "Thread(s) per core"):
            product *= int(out[key])
        self.assertGreaterEqual(product, int(out["CPU(s)"]))

    def test_memory(self):
        self.assertRegex(self.ok("nodememstats"), r"(?s)total.*KiB.*free.*KiB.*cached")
        self.assertRegex(self.ok("freecell"), r"Total: \d+ KiB")

    def test_read_only(self):
        self.define()
        listed = self.virsh.run("list", "--all", "--name", read_only=True)
        self.assertEqual((listed.code, listed.out), (0, "g1"))
        self.fails("operation forbidden: read only access prevents virDomainCreate", "start", "g1",
                   read_only=True)
        self.assertEqual(self.state(), "shut off (unknown)")

    def test_what_does_not_exist(self):
        """An older libvirtd answers so too; virsh has tried its older ways by then."""
        self.define()
        for words in (["net-list"], ["pool-list"], ["save", "g1", "/tmp/x"], ["managedsave", "g1"]):
            done = self.virsh.run(*words)
            self.assertEqual(done.code, 1)
            self.assertRegex(done.errors[-1], r"^unknown procedure: \d+$")


class Definition(Case):
    """define, create, undefine, dumpxml, list."""

    def test_define_and_undefine(self):
        self.assertRegex(self.ok("define", self.xml("g1")), "^Domain '?g1'? defined from ")
        info = dict(re.findall(r"(.+?): +(.+)", self.ok("dominfo", "g1")))
        self.assertEqual(info["Id"], "-")
        self.assertEqual(info["State"], "shut off")
        self.assertEqual(info["Persistent"], "yes")
        self.assertEqual(info["Autostart"], "disable")
        self.assertEqual(info["Max memory"], "196608 KiB")
        self.assertEqual(info["OS Type"], "hvm")
        self.assertEqual(self.ok("domuuid", "g1"), info["UUID"])
        self.assertEqual(self.ok("domname", info["UUID"]), "g1")
        self.assertEqual(self.ok("domid", "g1"), "-")
        self.assertRegex(self.ok("undefine", "g1"), "^Domain '?g1'? has been undefined$")
        self.assertEqual(self.virsh.run("dominfo", "g1").errors, ["failed to get domain 'g1'"])

    def test_clashes(self):
        self.define()
        uuid = self.ok("domuuid", "g1")
        other = self.xml("g1", domain_uuid="00000000-0000-4000-8000-000000000001")
        self.fails("operation failed: domain 'g1' already exists with uuid " + uuid, "define", other)
        self.fails("operation failed: domain 'g1' already exists with uuid " + uuid, "create", other)
        renamed = self.xml("g2", domain_uuid=uuid)
        self.fails("operation failed: domain 'g1' is already defined with uuid " + uuid, "define",
                   renamed)
        self.assertEqual(self.ok("list", "--all", "--name").split(), ["g1"])

    def test_bad_definitions(self):
        for text, error in (
                ("<domain", r"\(domain_definition\):1: .*"),
                ("<domain type='vz'><name>x</name></domain>", r".*memory.*"),
                ("<domain type='xen'><name>x</name></domain>", r".*xen.*")):
            done = self.virsh.run("define", self.write("bad.xml", text))
            self.assertEqual(done.code, 1)
            self.assertRegex(done.errors[-1], error)
        text = contract.guest_domain.domain_xml("g1", files="/x").replace(
            "<devices>", "<devices><tpm model='tpm-tis'><backend type='emulator'/></tpm>")
        done = self.virsh.run("define", self.write("bad.xml", text))
        self.assertRegex(done.errors[-1], "^unsupported configuration: .*tpm")
        self.assertEqual(self.ok("list", "--all", "--name"), "")

    def test_define_validate(self):
        self.ok("define", "--validate", self.xml("g1"))

    def test_transient_and_back(self):
        self.assertRegex(self.ok("create", self.xml("t1")), "^Domain '?t1'? created from ")
        self.assertIn("Persistent:     no", self.ok("dominfo", "t1"))
        self.fails("Requested operation is not valid: cannot undefine transient domain", "undefine",
                   "t1")
        self.fails("Requested operation is not valid: cannot set autostart for transient domain",
                   "autostart", "t1")
        self.fails("Requested operation is not valid: domain 't1' is already active", "create",
                   self.xml("t1"))
        self.ok("define", self.xml("t1"))
        self.assertIn("Persistent:     yes", self.ok("dominfo", "t1"))
        self.ok("undefine", "t1")
        self.assertIn("Persistent:     no", self.ok("dominfo", "t1"))
        self.ok("destroy", "t1")
        self.assertEqual(self.ok("list", "--all", "--name"), "")

    def test_create_autodestroy(self):
        terminal = contract.Terminal(self.virsh.popen(tty=True))
        self.addCleanup(self.end, terminal.process)
        terminal.type(b"create --autodestroy %s\n" % self.xml("t1").encode())
        self.assertTrue(terminal.read_until(b"created from"), terminal.text)
        self.assertEqual(self.state("t1"), "running (booted)")
        terminal.process.kill()
        end = time.monotonic() + 20
        while self.ok("list", "--all", "--name") and time.monotonic() < end:
            time.sleep(0.1)
        self.assertEqual(self.ok("list", "--all", "--name"), "")

    def test_list_filters(self):
        for name in ("a1", "a2", "a3"):
            self.define(name)
        self.ok("start", "a1")
        self.ok("start", "a2", "--paused")
        self.ok("autostart", "a3")
        self.ok("create", self.xml("t1"))
        for filters, names in (
                ([], "a1 a2 t1"), (["--all"], "a1 a2 a3 t1"), (["--inactive"], "a3"),
                (["--persistent"], "a1 a2"), (["--all", "--transient"], "t1"),
                (["--state-paused"], "a2"), (["--all", "--state-shutoff"], "a3"),
                (["--state-running"], "a1 t1"), (["--all", "--autostart"], "a3"),
                (["--all", "--no-autostart"], "a1 a2 t1"), (["--all", "--with-snapshot"], ""),
                (["--all", "--with-managed-save"], "")):
            self.assertEqual(sorted(self.ok("list", "--name", *filters).split()), names.split(),
                             filters)
        ids = [int(word) for word in self.ok("list", "--id").split()]
        self.assertEqual(len(ids), 3)
        self.assertEqual(ids[0] + 1, ids[1])  # as they were started
        self.assertRegex(self.ok("list", "--all"), r" - +a3 +shut off")

    def test_dumpxml(self):
        self.define()
        inactive = self.ok("dumpxml", "g1")
        self.assertTrue(inactive.startswith("<domain type='vz'>"), inactive)
        self.assertIn("<emulator>/usr/bin/qemu-system-x86_64</emulator>", inactive)
        self.assertRegex(inactive, "machine='pc-i440fx-[0-9.]+'")
        self.assertNotIn("<alias", inactive)
        self.ok("start", "g1")
        live = self.ok("dumpxml", "g1")
        self.assertRegex(live, r"^<domain type='vz' id='\d+'>")
        self.assertRegex(live, r"<source path='/dev/pts/\d+'/>")
        self.assertIn("<alias name='serial0'/>", live)
        self.assertIn("<target dev='vnet", live)
        self.assertEqual(self.ok("dumpxml", "g1", "--inactive", "--security-info"), inactive)
        migratable = self.ok("dumpxml", "g1", "--migratable")
        self.assertNotIn("/dev/pts", migratable)
        # What it shows is what it takes.
        self.ok("define", self.write("again.xml", inactive))
        self.assertEqual(self.ok("dumpxml", "g1", "--inactive"), inactive)

    def test_secrets(self):
        text = contract.guest_domain.domain_xml("g1", files=contract.GUEST_FILES).replace(
            "</devices>", "<graphics type='vnc' passwd='hush'/></devices>")
        self.ok("define", self.write("g1.xml", text))
        self.assertNotIn("hush", self.ok("dumpxml", "g1"))
        self.assertIn("hush", self.ok("dumpxml", "g1", "--security-info"))
        done = self.virsh.run("dumpxml", "g1", "--security-info", read_only=True)
        self.assertEqual(done.code, 1)
        self.assertNotIn("hush", done.out)

    def test_autostart(self):
        self.define()
        self.ok("autostart", "g1")
        self.assertIn("Autostart:      enable", self.ok("dominfo", "g1"))
        self.ok("autostart", "g1", "--disable")
        self.assertIn("Autostart:      disable", self.ok("dominfo", "g1"))


class Lifecycle(Case):
    """start, suspend, resume, shutdown, reboot, reset, destroy, and what follows from them."""

    def test_refused_while_inactive(self):
        self.define()
        for words in (["destroy"], ["shutdown"], ["reboot"], ["reset"], ["suspend"], ["resume"],
                      ["domjobinfo"], ["domjobabort"], ["domcontrol"]):
            self.fails(NOT_RUNNING, *words, "g1")
        self.fails(NOT_RUNNING, "migrate-setmaxdowntime", "g1", "100")

    def test_start_and_destroy(self):
        self.define()
        self.assertRegex(self.ok("start", "g1"), "^Domain '?g1'? started$")
        self.assertEqual(self.state(), "running (booted)")
        first = int(self.ok("domid", "g1"))
        self.fails("Domain is already active", "start", "g1")
        self.assertEqual(self.host.run("kill", "-0", self.qemu_pid()).returncode, 0)
        self.ok("destroy", "g1")
        self.assertEqual(self.state(), "shut off (destroyed)")
        self.assertEqual(self.host.run("pgrep", "-f", "guest=g1", check=False).stdout, "")
        self.assertEqual(self.host.run("ip", "link", "show", "vnet0", check=False).returncode, 1)
        self.ok("start", "g1")
        self.assertEqual(int(self.ok("domid", "g1")), first + 1)
        self.ok("destroy", "--graceful", "g1")

    def test_qemu_is_unprivileged(self):
        self.define()
        self.ok("start", "g1")
        self.assertEqual(self.host.out("ps", "-o", "user=", "-p", self.qemu_pid()), "vz-qemu")

    def test_start_paused(self):
        self.define()
        self.ok("start", "--paused", "g1")
        self.assertEqual(self.state(), "paused (user)")
        self.ok("resume", "g1")
        self.assertEqual(self.state(), "running (unpaused)")

    def test_suspend_and_resume(self):
        self.define()
        self.ok("start", "g1")
        self.boot()
        self.ok("suspend", "g1")
        self.ok("suspend", "g1")
        self.assertEqual(self.state(), "paused (user)")
        before = self.ok("domstats", "--cpu-total", "g1")
        time.sleep(0.5)
        after = self.ok("domstats", "--cpu-total", "g1")
        cpu = [int(re.search(r"cpu\.time=(\d+)", text).group(1)) for text in (before, after)]
        self.assertLess(cpu[1] - cpu[0], 100_000_000)  # it does not run
        self.ok("resume", "g1")
        self.fails("Requested operation is not valid: domain is already running", "resume", "g1")
        self.assertEqual(self.state(), "running (unpaused)")

    def test_shutdown(self):
        self.define()
        self.ok("start", "g1")
        self.boot()
        events = self.events()
        self.assertRegex(self.ok("shutdown", "g1"), "^Domain '?g1'? is being shutdown$")
        self.wait_state("shut off (shutdown)")
        events.expect(self, ["lifecycle g1 Shutdown Finished after guest request",
                             "lifecycle g1 Stopped Shutdown"])
        self.assertEqual(self.host.run("pgrep", "-f", "guest=g1", check=False).stdout, "")

    def test_shutdown_modes(self):
        self.define()
        self.ok("start", "g1")
        self.ok("shutdown", "g1", "--mode", "acpi")
        done = self.virsh.run("shutdown", "g1", "--mode", "agent")
        self.assertRegex(done.errors[-1], "^argument unsupported: .*agent")
        done = self.virsh.run("shutdown", "g1", "--mode", "initctl")
        self.assertRegex(done.errors[-1], r"^unsupported flags \(0x4\) in function ")

    def test_reboot_and_reset(self):
        self.define()
        self.ok("start", "g1")
        self.boot()
        number, pid = self.ok("domid", "g1"), self.qemu_pid()
        events = self.events()
        for command in ("reboot", "reset"):
            console = self.console("--force")
            console.read_until(contract.BOOTED)
            self.ok(command, "g1")
            end = time.monotonic() + contract.BOOT_TIMEOUT_S
            while not self.began_anew(console) and time.monotonic() < end:
                console.read_until(b"no such text", 0.5)
            self.assertTrue(self.began_anew(console), "%s: %s" % (command, console.text[-500:]))
            self.end(console.process)
        self.assertEqual((self.ok("domid", "g1"), self.qemu_pid()), (number, pid))
        self.assertRegex(self.state(), "^running")
        events.terminal.read_until(b"reboot", 5)
        self.assertEqual({line[0] for line in events.lines()}, {"reboot"})

    @staticmethod
    def began_anew(console):
        """Did the guest's beat number go back?"""
        beats = [int(number) for number in re.findall(rb"beat \S+ \S+ (\d+) ", console.text)]
        return any(later < earlier for earlier, later in zip(beats, beats[1:]))

    def test_events(self):
        events = self.events()
        path = self.xml("g1")
        self.ok("define", path)
        self.ok("define", path)
        self.ok("start", "g1")
        self.ok("suspend", "g1")
        self.ok("resume", "g1")
        self.ok("destroy", "g1")
        self.ok("start", "--paused", "g1")
        self.ok("destroy", "g1")
        self.ok("undefine", "g1")
        events.expect(self, ["lifecycle g1 " + words for words in (
            "Defined Added", "Defined Updated", "Resumed Unpaused", "Started Booted",
            "Suspended Paused", "Resumed Unpaused", "Stopped Destroyed", "Started Booted",
            "Suspended Paused", "Stopped Destroyed", "Undefined Removed")])

    def test_event_of_one_domain(self):
        self.define("g1")
        self.define("g2")
        process = self.virsh.popen("event", "--domain", "g2", "--event", "lifecycle", tty=True)
        self.addCleanup(self.end, process)
        time.sleep(1)
        self.ok("start", "g1")
        self.ok("start", "--paused", "g2")
        terminal = contract.Terminal(process)
        self.assertTrue(terminal.read_until(b"events received: 1"), terminal.text)
        self.assertIn(b"g2", terminal.text)
        self.assertNotIn(b"g1", terminal.text)
        self.assertEqual(process.wait(10), 0)

    def test_start_fails(self):
        text = contract.guest_domain.domain_xml("g1", files=contract.GUEST_FILES)
        self.ok("define", self.write("g1.xml", text.replace("bridge='br0'", "bridge='brNone'")))
        self.fails("Cannot get interface MTU on 'brNone': No such device", "start", "g1")
        self.assertEqual(self.state(), "shut off (failed)")
        self.ok("define", self.write("g1.xml", text.replace("vmlinuz", "nothing")))
        done = self.virsh.run("start", "g1")
        self.assertRegex(done.errors[-1], "nothing.*No such file or directory")
        self.assertEqual(self.host.run("pgrep", "-f", "guest=g1", check=False).stdout, "")
        self.assertEqual(self.host.out("sh", "-c", "ls /run/virtvz/domains"), "")

    def test_guest_dies(self):
        self.define()
        self.ok("start", "g1")
        events = self.events()
        self.host.run("kill", "-KILL", self.qemu_pid())
        self.wait_state("shut off (crashed)")
        events.expect(self, ["lifecycle g1 Stopped Failed"])
        self.assertIn("its process died", self.ok("dominfo", "g1"))
        self.ok("start", "g1")
        self.host.run("kill", "-TERM", self.qemu_pid())
        self.wait_state("shut off (shutdown)")
        events.expect(self, ["lifecycle g1 " + words for words in (
            "Resumed Unpaused", "Started Booted", "Shutdown Finished after host request",
            "Stopped Shutdown")])


class Console(Case):
    """The serial console: one at a time."""

    def start(self):
        self.define()
        self.ok("start", "g1")

    def test_console(self):
        self.start()
        console = self.console()
        self.assertTrue(console.read_until(contract.BOOTED), console.text)
        console.type(b"\x1d")  # Ctrl-]
        console.read_until(b"no such text", 1)
        self.assertEqual(console.process.wait(10), 0)
        again = self.console()
        self.assertTrue(again.read_until(contract.BOOTED), again.text)

    def test_one_at_a_time(self):
        self.start()
        first = self.console()
        self.assertTrue(first.read_until(contract.BOOTED))
        second = self.console()
        self.assertTrue(second.read_until(
            b"operation failed: Active console session exists for this domain"), second.text)
        self.assertEqual(second.process.wait(10), 1)
        forced = self.console("--force", "--safe")
        self.assertTrue(forced.read_until(contract.BOOTED), forced.text)
        first.read_until(b"taken over", 10)
        self.assertIsNotNone(first.process.wait(10))
        self.assertIsNone(forced.process.poll())

    def test_ends_with_the_guest(self):
        self.start()
        console = self.console()
        self.assertTrue(console.read_until(contract.BOOTED))
        self.ok("destroy", "g1")
        console.read_until(b"no such text", 2)
        self.assertEqual(console.process.wait(10), 0)

    def test_what_cannot_be_opened(self):
        self.define()
        self.fails("The domain is not running", "console", "g1", "--devname", "serial0")


class Statistics(Case):
    """domstats and its like; jobs of a domain that has none."""

    def test_domstats(self):
        self.define("g1")
        self.define("g2")
        self.ok("start", "g1")
        out = self.ok("domstats")
        self.assertRegex(out, r"(?s)Domain: 'g1'.*state.state=1\n.*state.reason=1\n.*vcpu.current=1")
        self.assertRegex(out, r"(?s)balloon.maximum=196608.*net.count=1\n.*net.0.name=vnet\d")
        self.assertRegex(out, r"(?s)Domain: 'g2'\n  state.state=5")
        self.assertNotIn("g2", self.ok("domstats", "--state", "--list-active"))
        self.assertNotIn("vcpu", self.ok("domstats", "--state", "g1"))
        self.assertRegex(self.virsh.run("domstats", "--enforce", "--dirtyrate").errors[-1],
                         "^argument unsupported: Stats types bits 0x200 are not supported")

    def test_sizes(self):
        self.define()
        self.ok("start", "g1")
        self.assertEqual(self.ok("vcpucount", "g1", "--live", "--maximum"), "1")
        self.assertEqual(self.ok("domcontrol", "g1"), "ok")
        self.assertRegex(self.ok("dommemstat", "g1"), r"actual 196608\nrss \d+")
        self.assertRegex(self.ok("domifstat", "g1", "vnet0"), "vnet0 rx_bytes")
        self.fails("invalid argument: 'eth7' is not a known interface", "domifstat", "g1", "eth7")
        self.assertEqual(self.ok("desc", "g1"), "No description for domain: g1")

    def test_no_job(self):
        self.define()
        self.ok("start", "g1")
        self.assertRegex(self.ok("domjobinfo", "g1"), r"^Job type: +None")
        self.assertRegex(self.ok("domjobinfo", "g1", "--completed"), r"^Job type: +None")
        self.fails("Requested operation is not valid: no job is active on the domain", "domjobabort",
                   "g1")

    def test_migration_limits(self):
        self.define()
        self.assertEqual(self.ok("migrate-getspeed", "g1"), "8796093022207")
        self.ok("migrate-setspeed", "g1", "17")
        self.assertEqual(self.ok("migrate-getspeed", "g1"), "17")
        self.fails("numerical overflow: bandwidth must be less than 8796093022208",
                   "migrate-setspeed", "g1", "8796093022208")
        self.ok("start", "g1")
        self.assertEqual(self.ok("migrate-getmaxdowntime", "g1"), "50")
        self.ok("migrate-setmaxdowntime", "g1", "77")
        self.assertEqual(self.ok("migrate-getmaxdowntime", "g1"), "77")
        self.assertEqual(self.virsh.run("migrate-setmaxdowntime", "g1", "2000001").code, 1)


for case in (Host, Definition, Lifecycle, Console, Statistics):
    for_both(case, globals())
del case

if __name__ == "__main__":
    tap.main()
