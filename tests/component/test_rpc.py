#!/usr/bin/env python3
"""The server side of the protocol against real virsh, and against clients worse than any.

    test_rpc.py RPC_SERVER        (tests/component/rpc_server.c with the domains of fake_host)
"""
import os
import pty
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402  pylint: disable=wrong-import-position
from raw import (AUTH_LIST, CALL, CAPABILITIES, CLOSE, CONSOLE,  # noqa: E402
                 CONTINUE, ERROR, FEATURE, HOSTNAME, KEEPALIVE, MESSAGE, OK, OPEN, PATIENCE,
                 REMOTE, REPLY, RESUME, STREAM, SUSPEND, VERSION, Client, domain, string)

SERVER = None


class Case(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="vz-rpc-")
        self.path = self.directory + "/rw"
        self.readonly_path = self.directory + "/ro"
        self.server = subprocess.Popen([SERVER, self.path, self.readonly_path],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
        self.port = int(self.server.stdout.readline().split()[1])
        self.uri = f"vz+unix:///system?socket={self.path}"

    def tearDown(self):
        """The server ends cleanly whatever was done to it, and its sockets are gone."""
        _, errors = self.server.communicate(timeout=PATIENCE)
        self.assertEqual(self.server.returncode, 0, errors)
        self.assertNotIn("CRITICAL", errors)
        self.assertEqual(os.listdir(self.directory), [])
        os.rmdir(self.directory)

    def virsh(self, *words, uri=None, status=0):
        done = subprocess.run(["virsh", "-c", uri or self.uri, *words], capture_output=True,
                              text=True, timeout=PATIENCE, check=False)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout if status == 0 else done.stderr

    def eventually(self, what):
        end = time.monotonic() + PATIENCE
        while not what():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)


@unittest.skipUnless(shutil.which("virsh"), "virsh (libvirt-clients) is not installed")
class Virsh(Case):
    def test_list(self):
        rows = self.virsh("list", "--all").split("\n")[2:5]
        self.assertEqual([row.split() for row in rows],
                         [["1", "g1", "running"], ["2", "g2", "running"], ["3", "slow", "running"]])

    def test_tcp(self):
        self.assertEqual(self.virsh("hostname", uri=f"vz+tcp://127.0.0.1:{self.port}/system"),
                         "host-of-writer\n\n")

    def test_readonly(self):
        uri = f"vz+unix:///system?socket={self.readonly_path}"
        self.assertEqual(self.virsh("-r", "hostname", uri=uri), "host-of-reader\n\n")
        self.assertIn("read only access prevents", self.virsh("suspend", "g1", uri=uri, status=1))
        # A client that says it is read-only is held to it on the read-write socket too.
        self.assertEqual(self.virsh("-r", "hostname"), "host-of-reader\n\n")

    def test_errors(self):
        self.assertIn("failed to get domain 'nope'", self.virsh("domstate", "nope", status=1))
        self.assertIn("unknown procedure: 6", self.virsh("nodeinfo", status=1))

    def test_event(self):
        with subprocess.Popen(["virsh", "-c", self.uri, "event", "--all", "--loop"],
                              stdout=subprocess.PIPE, text=True) as watcher:
            def suspended():
                self.virsh("suspend", "g1")
                return select.select([watcher.stdout], [], [], 0.2)[0]
            self.eventually(suspended)
            self.assertEqual(watcher.stdout.readline(),
                             "event 'lifecycle' for domain 'g1': Suspended Paused\n")
            watcher.send_signal(signal.SIGINT)
            watcher.stdout.read()
        self.virsh("suspend", "g1")

    def test_event_of_one_domain(self):
        with subprocess.Popen(["virsh", "-c", self.uri, "event", "--domain", "g2", "--event",
                               "lifecycle"], stdout=subprocess.PIPE, text=True) as watcher:
            def both():
                self.virsh("suspend", "g1")
                self.virsh("suspend", "g2")
                return select.select([watcher.stdout], [], [], 0.2)[0]
            self.eventually(both)
            self.assertIn("'g2'", watcher.stdout.readline())

    def test_keepalive(self):
        """A call that takes longer than the client's patience for silence, both ways."""
        with subprocess.Popen(["virsh", "-k", "1", "-K", "3", "-c", self.uri, "suspend", "slow"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as slow:
            with Client(self.path) as other:
                self.eventually(lambda: other.state("slow") == 3)
            time.sleep(6)
            self.assertIsNone(slow.poll())
            self.virsh("resume", "slow")
            self.assertIn("suspended", slow.stdout.read())

    def test_console(self):
        child, terminal = pty.fork()
        if child == 0:
            os.execvp("virsh", ["virsh", "-c", self.uri, "console", "g1"])
        seen = b""

        def read_until(wanted):
            nonlocal seen
            end = time.monotonic() + PATIENCE
            while not re.search(wanted, seen):
                self.assertLess(time.monotonic(), end, seen)
                if select.select([terminal], [], [], 1)[0]:
                    try:
                        seen += os.read(terminal, 65536)
                    except OSError:  # EIO: virsh has left
                        break
        read_until(b"Escape character")
        time.sleep(0.2)  # virsh prints that before its terminal is raw
        os.write(terminal, b"hello\r")
        read_until(b"HELLO")
        os.write(terminal, b"quit\r")
        read_until(b"$^")  # never seen: until the end
        self.assertIn(b"QUIT", seen)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        os.close(terminal)

    def test_ten_at_once(self):
        answers = []

        def one():
            for _ in range(3):
                answers.append(self.virsh("list", "--name"))
        threads = [threading.Thread(target=one) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(answers, ["g1\ng2\nslow\n\n"] * 30)

    def test_killed_in_mid_call(self):
        """The call goes on; its hook runs; the answer goes nowhere."""
        with Client(self.path) as other:
            with subprocess.Popen(["virsh", "-c", self.uri, "suspend", "slow"]) as slow:
                self.eventually(lambda: other.state("slow") == 3)
                slow.kill()
            self.eventually(lambda: other.hooks() == 1)
            self.assertEqual(other.call(RESUME, domain("slow")).status, OK)
            self.assertEqual(other.state("slow"), 1)


class Session(Case):
    def test_order(self):
        with Client(self.path, greet=False) as client:
            self.assertEqual(client.call(HOSTNAME).error(), (39, "authentication required"))
            self.assertEqual(client.call(AUTH_LIST).status, OK)
            self.assertEqual(client.call(HOSTNAME).error(),
                             (1, "internal error: connection not open"))
            self.assertEqual(client.call(FEATURE, struct.pack(">i", 10)).payload, b"\0\0\0\1")
            self.assertEqual(client.call(FEATURE, struct.pack(">i", 13)).error()[0], 1)
            self.assertEqual(client.call(OPEN, struct.pack(">I", 1) + string("vz:///system") +
                                         bytes(4)).status, OK)
            self.assertEqual(client.call(OPEN, struct.pack(">II", 0, 0)).error(),
                             (1, "internal error: connection already open"))
            self.assertEqual(client.call(HOSTNAME).status, OK)
            self.assertEqual(client.call(CLOSE).status, OK)
            self.assertTrue(client.closed())

    def test_wrong_name(self):
        with Client(self.path, greet=False) as client:
            client.call(AUTH_LIST)
            for name in "vz:///session", "qemu:///system":
                code, text = client.call(OPEN, struct.pack(">I", 1) + string(name) + bytes(4)).error()
                self.assertEqual(code, 1)
                self.assertIn("try vz:///system", text)

    @unittest.skipUnless(os.getuid() == 0, "needs root")
    def test_other_user(self):
        """Whoever gets at the read-write socket without being root is told what to do."""
        os.chmod(self.directory, 0o755)
        os.chmod(self.path, 0o777)
        child = os.fork()
        if child == 0:
            os.setresuid(65534, 65534, 65534)
            with Client(self.path, greet=False) as client:
                code, text = client.call(AUTH_LIST).error()
                told = code == 45 and "read-only" in text
                told = told and client.call(HOSTNAME).error()[0] == 39
            with Client(self.readonly_path) as client:
                told = told and client.call(HOSTNAME).status == OK
                told = told and client.call(SUSPEND, domain("g1")).error()[0] == 29
            os._exit(0 if told else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_unknown(self):
        with Client(self.path) as client:
            self.assertEqual(client.call(9999).error(), (39, "unknown procedure: 9999"))
            self.assertEqual(client.call(1, program=0x20008087).error(),
                             (39, "Cannot find program 536903815 version 1"))
            self.assertEqual(client.call(HOSTNAME, status=ERROR).error()[0], 39)

    def test_malformed_arguments(self):
        with Client(self.path) as client:
            for payload, text in (
                    (b"", "domain_args.dom.name: truncated"),
                    (b"\xff\xff\xff\xff", "domain_args.dom.name: longer than allowed"),
                    (domain("g1") + b"more", "domain_args: bytes left over at the end"),
                    (string(b"g\0x") + bytes(20), "domain_args.dom.name: a NUL inside a string")):
                self.assertEqual(client.call(SUSPEND, payload).error(), (39, text))
            self.assertEqual(client.call(HOSTNAME).status, OK)

    def test_out_of_order(self):
        with Client(self.path) as client:
            first = client.send(SUSPEND, domain("slow"))
            self.assertEqual(client.call(HOSTNAME).status, OK)
            second = client.send(RESUME, domain("slow"))
            self.assertEqual({client.receive().serial, client.receive().serial}, {first, second})

    def test_calls_in_flight(self):
        """More than 16 are not read; so a quick call behind 40 slow ones waits for 24 of them."""
        with Client(self.path) as client:
            slow = [client.send(VERSION) for _ in range(40)]
            quick = client.send(HOSTNAME)
            order = [client.receive().serial for _ in range(41)]
            self.assertEqual([serial for serial in order if serial != quick], slow)
            self.assertGreaterEqual(order.index(quick), 24)
            self.assertLess(order.index(quick), 40)

    def test_client_keepalive(self):
        with Client(self.path) as client:
            client.send(1, program=KEEPALIVE, kind=MESSAGE, serial=0)
            pong = client.receive()
            self.assertEqual((pong.program, pong.procedure, pong.type, pong.serial, pong.payload),
                             (KEEPALIVE, 2, MESSAGE, 0, b""))

    def test_server_keepalive(self):
        """Silent for 1 s: a ping; not answered for another 2 s: dropped. Who did not ask: neither."""
        with Client(self.path) as silent, Client(self.path) as simple, Client(self.path) as polite:
            for client in silent, polite:
                client.call(FEATURE, struct.pack(">i", 10))
            end = time.monotonic() + 6
            while time.monotonic() < end:
                ping = polite.receive()
                self.assertEqual((ping.program, ping.procedure), (KEEPALIVE, 1))
                polite.send(2, program=KEEPALIVE, kind=MESSAGE, serial=0)
            self.assertTrue(silent.closed())
            self.assertEqual(simple.call(HOSTNAME).status, OK)
            simple.socket.settimeout(0.1)
            self.assertFalse(simple.closed())


class Abuse(Case):
    def alive(self):
        with Client(self.path) as client:
            self.assertEqual(client.call(HOSTNAME).status, OK)

    def test_garbage(self):
        """Each closes the connection; none disturbs the server."""
        for data in (b"GET / HTTP/1.0\r\n\r\n", b"\0\0\0\0", b"\0\0\0\x1b" + bytes(64),
                     b"\xff\xff\xff\xff" + bytes(64), b"\x02\0\0\x05" + bytes(64),
                     struct.pack(">IIIiIII", 28, REMOTE, 1, HOSTNAME, REPLY, 0, OK),
                     struct.pack(">IIIiIII", 28, REMOTE, 1, HOSTNAME, 77, 0, OK),
                     struct.pack(">IIIiIII", 32, REMOTE, 1, HOSTNAME, 4, 0, OK) + bytes(4)):
            with Client(self.path, greet=False) as client:
                client.socket.sendall(data)
                self.assertTrue(client.closed(), data)
        self.alive()

    def test_random(self):
        for _ in range(200):
            with Client(self.path, greet=False) as client:
                try:
                    client.socket.sendall(os.urandom(256))
                except (BrokenPipeError, ConnectionResetError):
                    pass
        self.alive()

    def test_half_frames(self):
        """Frames in pieces of one byte, and frames that never end."""
        with Client(self.path) as client, Client(self.path, greet=False) as half:
            half.socket.sendall(b"\0\0\0")
            frame = struct.pack(">IIIiIII", 28, REMOTE, 1, HOSTNAME, CALL, 7, OK)
            for byte in frame + frame:
                client.socket.sendall(bytes([byte]))
            self.assertEqual((client.receive().serial, client.receive().serial), (7, 7))
            client.socket.sendall(frame[:20])
        self.alive()

    def test_large_before_open(self):
        with Client(self.path, greet=False) as client:
            client.socket.sendall(struct.pack(">I", 100000))
            self.assertTrue(client.closed())

    def test_slow_reader(self):
        """Asks for 4 MiB 200 times and reads nothing: others are served, memory is bounded."""
        with Client(self.path) as slow:
            slow.socket.setblocking(False)
            frame = struct.pack(">IIIiIII", 28, REMOTE, 1, CAPABILITIES, CALL, 1, OK)
            sent = 0
            end = time.monotonic() + 2
            while sent < 200 and time.monotonic() < end:
                try:
                    slow.socket.sendall(frame)
                    sent += 1
                except BlockingIOError:
                    time.sleep(0.05)
            self.alive()
            self.assertLess(self.resident_mib(), 400)
            slow.socket.settimeout(PATIENCE)
            for _ in range(sent):
                self.assertEqual(len(slow.receive().payload), 4 + 4194304)

    def test_quick_reader(self):
        """200 calls in one go by a client that reads as fast as it can: each is answered, also
        where all that was queued went out at once (over TCP, whose buffers are large)."""
        with Client(("127.0.0.1", self.port)) as quick:
            frame = struct.pack(">IIIiIII", 28, REMOTE, 1, CAPABILITIES, CALL, 1, OK)
            quick.socket.sendall(frame * 200)
            buffer, left = bytearray(1 << 20), 200 * (len(frame) + 4 + 4194304)
            while left > 0:
                count = quick.socket.recv_into(buffer, min(left, len(buffer)))
                self.assertGreater(count, 0)
                left -= count

    def resident_mib(self):
        with open(f"/proc/{self.server.pid}/statm", encoding="ascii") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20

    def test_deaf_to_events(self):
        """A client that registered and reads nothing is dropped before it costs much."""
        with Client(self.path) as deaf, Client(self.path) as client:
            for _ in range(1000):
                self.assertEqual(deaf.call(316, struct.pack(">iI", 0, 0)).status, OK)
            name = string("g1" + "x" * 60000)
            for _ in range(3):
                self.assertEqual(client.call(SUSPEND, name + b"\1" * 16 + bytes(4)).status, OK)
            deaf.socket.settimeout(PATIENCE)
            self.assertTrue(deaf.closed())
            self.assertEqual(client.call(HOSTNAME).status, OK)

    def test_too_many_registrations(self):
        with Client(self.path) as client:
            for _ in range(1024):
                self.assertEqual(client.call(316, struct.pack(">iI", 1, 0)).status, OK)
            self.assertEqual(client.call(316, struct.pack(">iI", 1, 0)).error()[0], 9)

    def test_too_many_clients(self):
        clients = [Client(self.path) for _ in range(64)]
        with Client(self.path, greet=False) as late:
            self.assertTrue(late.closed())
        clients.pop().close()

        def room():
            try:
                self.alive()
                return True
            except (EOFError, ConnectionResetError, BrokenPipeError):
                return False
        self.eventually(room)
        for client in clients:
            client.close()


class Stream(Case):
    def open(self, client, flags=0):
        serial = client.send(CONSOLE, domain("g1") + struct.pack(">II", 0, flags))
        reply = client.receive()
        self.assertEqual((reply.type, reply.status, reply.serial), (REPLY, OK, serial))
        return serial

    @staticmethod
    def say(client, serial, data=b"", status=CONTINUE):
        client.send(CONSOLE, data, kind=STREAM, status=status, serial=serial)

    def hear(self, client, serial, count):
        data = bytearray()
        while len(data) < count:
            packet = client.receive()
            self.assertEqual((packet.program, packet.procedure, packet.type, packet.serial,
                              packet.status), (REMOTE, CONSOLE, STREAM, serial, CONTINUE))
            self.assertLessEqual(len(packet.payload), 262120)
            self.assertTrue(packet.payload)
            data += packet.payload
        return data

    def expect(self, client, serial, status):
        packet = client.receive()
        self.assertEqual((packet.type, packet.serial, packet.status, packet.payload),
                         (STREAM, serial, status, b""))

    def test_echo_and_end(self):
        """End of the descriptor: an empty CONTINUE; the client's finish is confirmed, once."""
        with Client(self.path) as client:
            serial = self.open(client)
            self.say(client, serial, b"hello\n")
            self.assertEqual(self.hear(client, serial, 6), b"HELLO\n")
            self.say(client, serial, b"quit\n")
            self.assertEqual(self.hear(client, serial, 5), b"QUIT\n")
            self.expect(client, serial, CONTINUE)
            self.say(client, serial, b"too late\n")
            self.say(client, serial, status=OK)
            self.expect(client, serial, OK)
            self.say(client, serial, b"much too late\n")
            self.say(client, serial, status=OK)
            self.say(client, serial, status=ERROR)
            self.assertEqual(client.call(HOSTNAME).status, OK)
            self.assertEqual(client.hooks(), 1)

    def test_finish(self):
        with Client(self.path) as client:
            serial = self.open(client)
            self.say(client, serial, status=OK)
            self.expect(client, serial, OK)
            self.assertEqual(client.hooks(), 1)

    def test_abort(self):
        with Client(self.path) as client:
            serial = self.open(client)
            self.say(client, serial, b"hello\n")
            self.assertEqual(self.hear(client, serial, 6), b"HELLO\n")
            self.say(client, serial, status=ERROR)
            self.expect(client, serial, OK)
            self.assertEqual(client.hooks(), 1)

    def test_taken_over(self):
        """The server's abort: an error, after which the stream is dead and the connection lives."""
        with Client(self.path) as client, Client(self.path) as other:
            serial = self.open(client)
            second = self.open(other, flags=1)
            packet = client.receive()
            self.assertEqual((packet.type, packet.serial, packet.status), (STREAM, serial, ERROR))
            self.assertEqual(packet.error(), (9, "operation failed: taken over"))
            self.say(client, serial, b"late\n")
            self.say(other, second, b"hello\n")
            self.assertEqual(self.hear(other, second, 6), b"HELLO\n")
            self.assertEqual(client.call(HOSTNAME).status, OK)

    def test_hole(self):
        with Client(self.path) as client:
            serial = self.open(client)
            client.send(CONSOLE, bytes(12), kind=6, status=CONTINUE, serial=serial)
            packet = client.receive()
            self.assertEqual((packet.type, packet.serial, packet.status), (STREAM, serial, ERROR))
            self.assertEqual(packet.error()[0], 39)
            self.assertEqual(client.call(HOSTNAME).status, OK)

    def test_connection_lost(self):
        with Client(self.path) as other:
            with Client(self.path) as client:
                self.open(client)
                self.open(client)
            self.eventually(lambda: other.hooks() == 2)

    def test_back_pressure(self):
        """16 MiB for a client that reads nothing wait in the descriptor, not in the server; they all
        come once it reads, and another call is answered meanwhile."""
        with Client(self.path) as other, Client(self.path) as client:
            before = Abuse.resident_mib(self)
            serial = self.open(client)
            self.say(client, serial, b"flood\n")
            time.sleep(0.5)
            self.assertEqual(other.call(HOSTNAME).status, OK)
            self.assertLess(Abuse.resident_mib(self) - before, 8)
            self.assertEqual(len(self.hear(client, serial, 6 + (16 << 20))), 6 + (16 << 20))
            self.say(client, serial, status=OK)
            self.expect(client, serial, OK)

    def test_input_nobody_takes(self):
        """The console floods, so it takes no input: the stream is given up, the connection lives."""
        with Client(self.path) as client:
            serial = self.open(client)
            self.say(client, serial, b"flood\n")
            for _ in range(40):
                self.say(client, serial, bytes(64 * 1024))
            while True:
                packet = client.receive()
                self.assertEqual(packet.type, STREAM)
                if packet.status == ERROR:
                    break
            self.assertEqual(packet.error()[0], 87)
            self.assertEqual(client.call(HOSTNAME).status, OK)

    def test_too_many(self):
        with Client(self.path) as client:
            for _ in range(16):
                self.open(client)
            reply = client.call(CONSOLE, domain("g1") + struct.pack(">II", 0, 0))
            self.assertEqual(reply.error()[0], 9)


if __name__ == "__main__":
    SERVER = sys.argv.pop(1)
    tap.main()
