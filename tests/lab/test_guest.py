#!/usr/bin/env python3
"""The test guest itself, in a QEMU of its own under emulation: that it beats, that it verifies, and
above all that each of its checks, and each of the observer's, can fail."""

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "support")]
import tap  # noqa: E402  pylint: disable=wrong-import-position
import guest  # noqa: E402  pylint: disable=wrong-import-position
from guest import observer  # noqa: E402  pylint: disable=wrong-import-position

DISK_MIB = 8
BLOCKS = DISK_MIB * 256
MAC = bytes.fromhex("525400767a01")


def setUpModule():
    guest.require()
    guest.files()


def numbers(text):
    """The NAME=NUMBER words of an answer."""
    return {name: int(value) for name, value in re.findall(r"(\S+)=(\d+)\b", text)}


def disk_options(path, bus):
    file = ["-blockdev", "driver=file,filename=%s,node-name=f0" % path,
            "-blockdev", "driver=raw,file=f0,node-name=d0"]
    if bus == "virtio":
        return file + ["-device", "virtio-blk-pci,drive=d0"]
    return file + ["-device", "ahci,id=ahci", "-device", "ide-hd,bus=ahci.0,drive=d0"]


class WithObserver(unittest.TestCase):
    def setUp(self):
        self.observer = observer.Observer(("127.0.0.1", 0))
        self.addCleanup(self.observer.close)
        self.dir = tempfile.TemporaryDirectory()
        self.addCleanup(self.dir.cleanup)

    def path(self, name):
        return os.path.join(self.dir.name, name)

    def start(self, name, words="", extra=(), **more):
        """A guest that has been heard on the network."""
        machine = guest.Machine(name, words, extra, beats_to=self.observer.port, **more)
        self.addCleanup(machine.close)
        if not more.get("incoming") and "quiet" not in words:
            self.assertTrue(self.observer.wait(name, 1, guest.BOOT_TIMEOUT_S), machine.text[-2000:])
            print("%s: first beat after %.2f s" % (name, time.monotonic() - machine.started))
        return machine

    def make_disk(self, name):
        with open(self.path(name), "wb") as file:
            file.truncate(16 << 20)
        return self.path(name)

    def wait_disk(self, machine):
        machine.wait_text(r"say \S+ \S+ disk \S+ blocks=%d" % BLOCKS)
        deadline = time.monotonic() + 20
        while machine.stat()["ready0"] != "1":
            self.assertLess(time.monotonic(), deadline, "the disk is not ready")
            time.sleep(0.05)


class Beats(WithObserver):
    def test_beats(self):
        machine = self.start("beats", "vz.mem=32")
        self.serial_and_network_agree(machine)
        self.questions_on_the_console(machine)
        self.idle_guest_is_cheap(machine)
        self.stopped_qemu_is_a_gap_of_that_length(machine)

    def serial_and_network_agree(self, machine):
        self.observer.mark("m")
        machine.mark("m")
        time.sleep(2)
        heard, typed = self.observer.report("m", "beats"), machine.report("m")
        for found in (heard, typed):
            self.assertEqual([], found["problems"])
            self.assertEqual((0, 0, 0), (found["lost"], found["duplicate"], found["boots"]))
            self.assertGreater(found["beats"], 100)
        self.assertEqual(heard["boot"], typed["boot"])
        self.assertAlmostEqual(heard["counter"], typed["counter"], delta=30)
        self.assertRegex(heard["boot"], "^[0-9a-f]{8}$")

    def questions_on_the_console(self, machine):
        machine.type("verify")
        machine.wait_text(r"re - verify ok pages=8192 bad_pages=0")
        machine.type("fly")
        machine.wait_text(r"re - unknown command 'fly'")

    def idle_guest_is_cheap(self, machine):
        before = self.cpu_s(machine.process.pid)
        time.sleep(3)
        used = self.cpu_s(machine.process.pid) - before
        print("idle guest: %.0f %% of a core" % (used / 3 * 100))
        self.assertLess(used / 3, 0.5)

    @staticmethod
    def cpu_s(pid):
        with open("/proc/%d/stat" % pid, encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stopped_qemu_is_a_gap_of_that_length(self, machine):
        self.observer.mark("stop")
        machine.mark("stop")
        machine.process.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        machine.process.send_signal(signal.SIGCONT)
        time.sleep(1)
        for found in (self.observer.report("stop", "beats"), machine.report("stop")):
            self.assertGreater(found["longest_gap_ms"], 490)
            self.assertLess(found["longest_gap_ms"], 800)
            self.assertEqual([], found["problems"])


class Quiet(WithObserver):
    def test_sends_nothing_unless_asked(self):
        """By a capture of all frames: not even ARP or IPv6, until the first question."""
        pcap = self.path("pcap")
        machine = self.start("quiet", "vz.quiet=1", (
            "-object", "filter-dump,id=dump,netdev=net,file=" + pcap))
        machine.wait_text("beat quiet ")
        time.sleep(2)
        self.assertEqual([], self.frames_from_guest(pcap))
        self.assertTrue(machine.ask("ping").startswith("ping quiet "))
        self.assertNotEqual([], self.frames_from_guest(pcap))
        self.assertEqual({}, self.observer.report())
        self.observer.start_poll(("127.0.0.1", machine.ask_port))
        time.sleep(1)
        found = self.observer.poll_report("start", "quiet")
        self.assertEqual(([], 0), (found["problems"], found["answered_twice"]))
        self.assertGreater(found["beats"], 30)

    @staticmethod
    def frames_from_guest(pcap):
        with open(pcap, "rb") as file:
            data = file.read()
        frames, at = [], 24
        while at + 16 <= len(data):
            length = struct.unpack_from("<I", data, at + 8)[0]
            frames.append(data[at + 16:at + 16 + length])
            at += 16 + length
        return [frame.hex() for frame in frames if frame[6:12] == MAC]


class Verification(WithObserver):
    def test_memory_check_can_fail(self):
        machine = self.start("memory", "vz.mem=32 vz.hot=4 vz.verify=0")
        good = machine.ask("verify")
        self.assertRegex(good, "^verify ok ")
        self.assertEqual((8192, 0, 0), tuple(
            numbers(good)[name] for name in ("pages", "bad_pages", "errors")))
        expected = {"corrupt 11": "damaged: 11 differs from byte 2048",
                    "stale 12": "stale: 12 holds write 0, write 1 expected",
                    "lose 13": "lost: 13 is all zero, write 1 expected"}
        for count, (command, text) in enumerate(expected.items(), 1):
            self.assertRegex(machine.ask(command), "^damaged page")
            found = machine.ask("verify")
            self.assertRegex(found, "^verify bad ")
            self.assertEqual((1, count), (numbers(found)["bad_pages"], numbers(found)["errors"]))
            machine.wait_text(re.escape(text))
        heard = self.observer.report("start", "memory")
        self.assertEqual(3, heard["errors"])
        self.assertEqual(3, len([one for one in heard["says"] if "error memory" in one]))
        self.assertEqual(0, numbers(machine.ask("verify"))["bad_pages"])
        self.dirty_rate(machine)
        # Nobody asks: the next write to a page finds it.
        self.assertRegex(machine.ask("corrupt 1000"), "^damaged page")
        machine.wait_text("error memory page damaged: 1000", 20)

    def dirty_rate(self, machine):
        before = int(machine.stat()["written"])
        time.sleep(0.5)
        self.assertEqual(before, int(machine.stat()["written"]))
        self.assertEqual("dirty 10", machine.ask("dirty 10"))
        started, before = time.monotonic(), int(machine.stat()["written"])
        time.sleep(2)
        pages = int(machine.stat()["written"]) - before
        self.assertAlmostEqual(10, pages / 256 / (time.monotonic() - started), delta=4)
        self.assertRegex(machine.ask("verify"), " bad_pages=0 ")

    def test_sata_disk_check_can_fail(self):
        path = self.make_disk("disk")
        machine = self.start("sata", "vz.disk=/dev/sda vz.writes=0", disk_options(path, "sata"))
        self.wait_disk(machine)
        good = machine.ask("verify")
        self.assertRegex(good, "^verify ok ")
        self.assertEqual(BLOCKS, numbers(good)["blocks"])
        self.assertRegex(machine.ask("stale-disk 9"), "^damaged block")
        self.assertRegex(machine.ask("verify"), "^verify bad .*bad_blocks=1 errors=1 ")
        machine.wait_text("block stale: 9 holds write 9, write 10 expected")
        # From outside, as a write that the image lost would look.
        with open(path, "r+b") as file:
            file.seek(100 * 4096)
            file.write(b"\0" * 4096)
        self.assertRegex(machine.ask("verify"), "^verify bad .*bad_blocks=1 errors=2 ")
        machine.wait_text("block lost: 100 is all zero, write 101 expected")


class Power(WithObserver):
    def test_button_and_disk_over_boots(self):
        path = self.make_disk("disk")
        options = disk_options(path, "virtio")
        machine = self.start("power", "vz.disk=/dev/vda vz.writes=100", options)
        self.wait_disk(machine)
        time.sleep(1)
        newest = int(machine.stat()["newest0"])
        self.assertGreater(newest, BLOCKS)
        machine.qmp("system_powerdown")
        self.assertEqual(0, machine.wait_exit())
        machine.wait_text("say power off")

        machine = self.start("power", "vz.disk=/dev/vda vz.writes=0", options)
        self.wait_disk(machine)
        stat = machine.stat()
        self.assertEqual(str(BLOCKS), stat["found0"])
        self.assertGreaterEqual(int(stat["newest0"]), newest)
        self.assertRegex(machine.ask("verify"), "^verify ok ")
        self.assertEqual("off", machine.ask("off"))
        self.assertEqual(0, machine.wait_exit())

        self.make_one_block_old(path, int(stat["newest0"]))
        machine = self.start("power", "vz.disk=/dev/vda vz.writes=0", options)
        self.wait_disk(machine)
        machine.wait_text("block stale: ")
        self.assertEqual("1", machine.stat()["errors"])

    @staticmethod
    def make_one_block_old(path, newest):
        """Puts the first write of the fill back where a later write went, and not the newest."""
        with open(path, "r+b") as file:
            for block in range(BLOCKS):
                file.seek(block * 4096)
                words = struct.unpack("<4Q", file.read(32))
                if BLOCKS < words[3] < newest:
                    old = stamp(words[1], words[2], block + 1)
                    file.seek(block * 4096)
                    file.write(old)
                    return
        raise AssertionError("no block was written twice")

    def test_reboot_is_a_new_boot(self):
        machine = self.start("again", "vz.nonsense=1")
        self.assertEqual(1, self.observer.report("start", "again")["errors"])
        machine.wait_text("error unknown word 'vz.nonsense=1'")
        self.observer.mark("reboot")
        boot = self.observer.report("start", "again")["boot"]
        self.assertEqual("reboot", machine.ask("reboot"))
        deadline = time.monotonic() + guest.BOOT_TIMEOUT_S
        while self.observer.report("reboot", "again")["boots"] < 1:
            self.assertLess(time.monotonic(), deadline, machine.text[-2000:])
            time.sleep(0.1)
        found = self.observer.report("reboot", "again")
        self.assertNotEqual(boot, found["boot"])
        self.assertEqual((0, 0, 1), (found["forks"], found["interleaved"], found["errors"]))


class Copies(WithObserver):
    def test_migration_keeps_everything_and_is_seen_as_one(self):
        source = self.start("move", "vz.mem=64 vz.dirty=10")
        self.observer.mark("m")
        uri = "unix:" + self.path("socket")
        target = self.start("move", "vz.mem=64 vz.dirty=10", incoming=uri)
        source.migrate(uri)
        self.assertTrue(self.observer.wait("move", 50, 20))
        self.assertRegex(target.ask("verify"), "^verify ok ")
        found = self.observer.report("m", "move")
        self.assertEqual(([], 0, 0), (found["problems"], found["boots"], found["forks"]))
        print("migration on one machine: longest gap %.0f ms" % found["longest_gap_ms"])

    def resume(self, machine):
        """Lets a copy run that was saved while it was paused."""
        deadline = time.monotonic() + 20
        while machine.qmp("query-status")["status"] != "paused":
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        machine.qmp("cont")

    def test_two_copies_at_once_and_a_rollback(self):
        state = self.path("state")
        first = self.start("twin", "vz.mem=16")
        first.qmp("stop")
        first.migrate("file:" + state)
        first.close()
        self.observer.mark("m")
        one = self.start("twin", "vz.mem=16", incoming="file:" + state)
        self.resume(one)
        self.assertTrue(self.observer.wait("twin", 50, 20))
        self.assertEqual([], self.observer.report("m", "twin")["problems"])

        one.qmp("stop")
        self.observer.mark("back")
        two = self.start("twin", "vz.mem=16", incoming="file:" + state)
        self.resume(two)
        self.assertTrue(self.observer.wait("twin", 20, 20))
        self.assertEqual(["the counter went back"],
                         self.observer.report("back", "twin")["problems"])

        self.observer.mark("both")
        one.qmp("cont")
        time.sleep(1)
        found = self.observer.report("both", "twin")
        self.assertTrue(found["two_at_once"])
        self.assertGreater(found["interleaved"], 20)
        self.assertEqual(2, len(found["sources"]) - 1, found["sources"])


def stamp(key, index, count):
    """A stamp as lab/guest/stamp.c writes it, made here from its description."""
    mask = (1 << 64) - 1

    def mix(a, b):
        x = (a + 0x9e3779b97f4a7c15 * (b + 1)) & mask
        x = ((x ^ (x >> 30)) * 0xbf58476d1ce4e5b9) & mask
        x = ((x ^ (x >> 27)) * 0x94d049bb133111eb) & mask
        return x ^ (x >> 31)

    words = [int.from_bytes(b"vzstamp1", "little"), key, index, count]
    x = mix(mix(key, index), count) | 1
    while len(words) < 512:
        x ^= (x << 13) & mask
        x ^= x >> 7
        x ^= (x << 17) & mask
        words.append(x)
    return struct.pack("<512Q", *words)


if __name__ == "__main__":
    tap.main()
