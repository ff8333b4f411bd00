"""The calls of a migration, one by one, by a client that may make them wrongly.

It speaks libvirt's protocol to a lab host's virtvzd through the host's unix socket. The phases are
those of virDomainMigrate3 (defs/messages.def has the layouts); cookies and definitions are bytes,
as they came.
"""

import os
import socket
import struct
import uuid

REMOTE, KEEPALIVE = 0x20008086, 0x6B656570
CALL, REPLY = 0, 1
OPEN, AUTH_LIST, LOOKUP_NAME = 1, 66, 23
RESUME, SUSPEND, STATE, SET_MAX_DOWNTIME, LIST_ALL = 28, 34, 212, 166, 273
RUNNING, PAUSED = 1, 3
NO_DOMAIN = 42
BEGIN, PREPARE, PERFORM, FINISH, CONFIRM = 213, 214, 216, 217, 218
LIVE, PERSIST_DEST, UNDEFINE_SOURCE = 1, 8, 16
MOVE = LIVE | PERSIST_DEST | UNDEFINE_SOURCE
PATIENCE_S = 60


class Refused(Exception):
    """An error that the daemon answered; `code` is libvirt's."""

    def __init__(self, code, text):
        self.code = code
        super().__init__("%d: %s" % (code, text))


def opaque(data):
    data = data.encode() if isinstance(data, str) else data
    return struct.pack(">I", len(data)) + data + bytes(-len(data) % 4)


def optional(text):
    return struct.pack(">I", 0) if text is None else struct.pack(">I", 1) + opaque(text)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self):
        return struct.unpack(">I", self.take(4))[0]

    def opaque(self):
        length = self.number()
        data = self.take(length)
        self.take(-length % 4)
        return data

    def optional(self):
        return self.opaque() if self.number() else None


class Client:
    """One connection. A call returns when its reply is there; send() and receive() are its halves."""

    def __init__(self, host):
        self.socket = socket.socket(socket.AF_UNIX)
        # The machine's path may be longer than an address can be; a directory's number never is.
        directory = os.open(host.path("/run/libvirt"), os.O_PATH)
        try:
            self.socket.connect("/proc/self/fd/%d/virtvzd-sock" % directory)
        finally:
            os.close(directory)
        self.socket.settimeout(PATIENCE_S)
        self.serial = 0
        self.call(AUTH_LIST)
        self.call(OPEN, struct.pack(">II", 0, 0))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, procedure, payload=b""):
        self.serial += 1
        self.socket.sendall(struct.pack(">IIIiIII", 28 + len(payload), REMOTE, 1, procedure, CALL,
                                        self.serial, 0) + payload)
        return self.serial

    def read(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError("the daemon closed the connection")
            data += more
        return data

    def receive(self, serial):
        while True:
            length = struct.unpack(">I", self.read(4))[0]
            packet = self.read(length - 4)
            program, _, _, kind, answered, status = struct.unpack(">IIiIII", packet[:24])
            if program == REMOTE and kind == REPLY and answered == serial:
                break
        if status == 0:
            return Reader(packet[24:])
        error = Reader(packet[24:])
        code, _ = error.number(), error.number()
        raise Refused(code, (error.optional() or b"").decode())

    def call(self, procedure, payload=b""):
        return self.receive(self.send(procedure, payload))

    # domains are name, uuid, id, as lookup() returns them

    def lookup(self, name):
        return self.call(LOOKUP_NAME, opaque(name)).data

    def resume(self, domain):
        self.call(RESUME, domain)

    def suspend(self, domain):
        self.call(SUSPEND, domain)

    def state(self, domain):
        return self.call(STATE, domain + struct.pack(">I", 0)).number()

    def set_max_downtime(self, domain, limit_ms):
        self.call(SET_MAX_DOWNTIME, domain + struct.pack(">QI", limit_ms, 0))

    def state_of(self, name):
        """(state, reason) in libvirt's numbers; None where the domain is not known."""
        try:
            reply = self.call(STATE, self.lookup(name) + struct.pack(">I", 0))
        except Refused as refusal:
            if refusal.code != NO_DOMAIN:
                raise
            return None
        return reply.number(), reply.number()

    def domains(self):
        """[(name, UUID as text, whether it is active)]"""
        reply = self.call(LIST_ALL, struct.pack(">iI", 1, 0))
        found = []
        for _ in range(reply.number()):
            name, identity = reply.opaque().decode(), uuid.UUID(bytes=reply.take(16))
            found.append((name, str(identity), reply.number() != 0xFFFFFFFF))
        return found

    def begin(self, domain, flags=MOVE):
        """(cookie, definition)"""
        reply = self.call(BEGIN, domain + optional(None) + struct.pack(">Q", flags) +
                          optional(None) + struct.pack(">Q", 0))
        return reply.opaque(), reply.opaque()

    def prepare(self, cookie, xml, name=None, flags=MOVE):
        """(cookie, address)"""
        reply = self.call(PREPARE, opaque(cookie) + optional(None) + struct.pack(">Q", flags) +
                          optional(name) + struct.pack(">Q", 0) + opaque(xml))
        return reply.opaque(), reply.optional()

    def send_perform(self, domain, cookie, address, flags=MOVE):
        return self.send(PERFORM, domain + optional(None) + opaque(cookie) + optional(None) +
                         optional(address) + struct.pack(">Q", flags) + optional(None) +
                         struct.pack(">Q", 0))

    def perform(self, *words, **more):
        """cookie"""
        return self.receive(self.send_perform(*words, **more)).opaque()

    def finish(self, name, cookie, cancelled=0, flags=MOVE):
        """cookie"""
        reply = self.call(FINISH, opaque(name) + opaque(cookie) + optional(None) + optional(None) +
                          struct.pack(">Qi", flags, cancelled))
        reply.opaque()
        reply.take(20)  # the rest of the domain
        return reply.opaque()

    def confirm(self, domain, cookie, cancelled=0, flags=MOVE):
        self.call(CONFIRM, domain + opaque(cookie) + struct.pack(">Qi", flags, cancelled))
