"""A second look into the QEMU of a lab host, past virtvzd: an emulator that gives QEMU a monitor of the
test's own. `install(scene)` returns what goes into the guest's <emulator>; `open_monitor(host)` talks to the
one QEMU of that host."""

import contextlib
import os

import guest

EMULATOR = "/shared/qemu-spied-on"
MONITOR = "/tmp/spy.sock"
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


def let_in(scene, xml):
    """The definition of a guest that is looked at."""
    return xml.replace("<devices>", "<devices><emulator>%s</emulator>" % install(scene))


def open_monitor(host):
    """A guest.Qmp, to be closed by its caller."""
    # The machine's path may be longer than an address can be; a directory's number never is.
    directory = os.open(host.path(os.path.dirname(MONITOR)), os.O_PATH)
    try:
        return guest.Qmp("/proc/self/fd/%d/%s" % (directory, os.path.basename(MONITOR)))
    finally:
        os.close(directory)


def status(host):
    """query-status of the host's one QEMU: "running", "paused", "inmigrate", ..."""
    with contextlib.closing(open_monitor(host)) as qemu:
        return qemu("query-status")["status"]
