"""A second look into the QEMU of a lab host, past virtvzd: an emulator that gives QEMU a monitor of the
test's own. `install(scene)` returns what goes into the guest's <emulator>; `Spy(host)` talks to the one
QEMU of that host."""

import json
import os
import socket

EMULATOR = "/shared/qemu-spied-on"
MONITOR = "/tmp/spy.sock"
PATIENCE_S = 30
# Only what runs a guest, not what virtvzd asks for its abilities. The old socket may be a dead QEMU's,
# or belong to one that is just ending.
PROGRAM = """#!/bin/sh
case " $* " in
*" -name guest="*) rm -f %s; set -- "$@" -qmp unix:%s,server=on,wait=off ;;
esac
exec /usr/bin/qemu-system-x86_64 "$@"
""" % (MONITOR, MONITOR)


def install(scene):
    path = scene.a.path(EMULATOR)
    path.write_text(PROGRAM)
    path.chmod(0o755)
    return EMULATOR


class Spy:
    def __init__(self, host):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        # The machine's path may be longer than an address can be; a directory's number never is.
        directory = os.open(host.path(os.path.dirname(MONITOR)), os.O_PATH)
        try:
            self.socket.connect("/proc/self/fd/%d/%s" % (directory, os.path.basename(MONITOR)))
        finally:
            os.close(directory)
        self.stream = self.socket.makefile("r")
        self.stream.readline()
        self("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.socket.close()

    def __call__(self, command, **arguments):
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self.stream:
            reply = json.loads(line)
            if "error" in reply:
                raise RuntimeError("%s: %s" % (command, reply["error"]["desc"]))
            if "return" in reply:
                return reply["return"]
        raise EOFError("%s: QEMU closed the connection" % command)


def status(host):
    """query-status of the host's one QEMU: "running", "paused", "inmigrate", ..."""
    with Spy(host) as qemu:
        return qemu("query-status")["status"]
