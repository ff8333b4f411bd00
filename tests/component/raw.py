"""A client of libvirt's protocol that makes its frames by hand, and so may make them wrongly.
Its procedures and domains are those of tests/support/fake_host.c.
"""
import socket
import struct

REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
CALL, REPLY, MESSAGE, STREAM = range(4)
OK, ERROR, CONTINUE = range(3)
AUTH_LIST, FEATURE, OPEN, CLOSE = 66, 60, 1, 2
HOSTNAME, CAPABILITIES, HOOKS, VERSION = 59, 7, 5, 4
SUSPEND, RESUME, STATE, CONSOLE = 34, 28, 212, 201
PATIENCE = 30  # seconds; nothing here takes one, but on a loaded machine under sanitizers


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


NAMES = ["g1", "g2", "slow"]


def domain(name):
    number = NAMES.index(name) + 1
    return string(name) + bytes([number]) * 16 + struct.pack(">i", number)


class Packet:
    def __init__(self, data):
        self.program, _, self.procedure, self.type, self.serial, self.status = struct.unpack(
            ">IIiIII", data[:24])
        self.payload = data[24:]

    def error(self):
        """Code and message of an error payload."""
        code, _, present, length = struct.unpack(">iiII", self.payload[:16])
        assert present == 1
        return code, self.payload[16:16 + length].decode()


class Client:
    """A raw connection: frames are made by hand."""

    def __init__(self, address, greet=True):
        """address: a path, or (host, port)."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.connect(address)
        self.socket.settimeout(PATIENCE)
        self.serial = 0
        try:
            if greet:
                assert self.call(AUTH_LIST).payload == struct.pack(">Ii", 1, 0)
                assert self.call(OPEN, struct.pack(">II", 0, 0)).status == OK
        except (EOFError, OSError):
            self.close()
            raise

    def send(self, procedure, payload=b"", program=REMOTE, kind=CALL, status=OK, serial=None):
        if serial is None:
            serial = self.serial
            self.serial += 1
        self.socket.sendall(struct.pack(">IIIiIII", 28 + len(payload), program, 1, procedure, kind,
                                        serial, status) + payload)
        return serial

    def read(self, count):
        data = bytearray(count)
        have = 0
        while have < count:
            more = self.socket.recv_into(memoryview(data)[have:])
            if not more:
                raise EOFError
            have += more
        return bytes(data)

    def receive(self):
        length, = struct.unpack(">I", self.read(4))
        return Packet(self.read(length - 4))

    def call(self, procedure, payload=b"", **others):
        serial = self.send(procedure, payload, **others)
        reply = self.receive()
        assert (reply.type, reply.serial, reply.procedure) == (REPLY, serial, procedure), vars(reply)
        return reply

    def hooks(self):
        return struct.unpack(">i", self.call(HOOKS, struct.pack(">I", 0)).payload)[0]

    def state(self, name):
        return struct.unpack(">ii", self.call(STATE, domain(name) + bytes(4)).payload)[0]

    def closed(self):
        try:
            while self.socket.recv(65536):
                pass
            return True
        except ConnectionResetError:
            return True
        except socket.timeout:
            return False

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
