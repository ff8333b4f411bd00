#!/usr/bin/env python3
"""Fills guest.xml.in: the definition of a test guest for virsh or vz, on standard output.

  domain.py g1 --ip 10.0.0.50/24 --to 10.0.0.2:7700 --files /shared/guest > g1.xml

The MAC address and UUID follow from the name unless given, so the same guest comes out each time.
"""

import argparse
import hashlib
import os
import re
import uuid
from xml.sax.saxutils import escape, quoteattr

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, "..", "..", "build", "guest"))
BUSES = {"virtio": "vda", "sata": "sda", "scsi": "sda"}


def own_mac(name):
    """A locally administered address that follows from the name."""
    return "52:54:00:" + ":".join("%02x" % byte for byte in
                                  hashlib.sha256(name.encode()).digest()[:3])


def disk_xml(path, bus="virtio", image="raw"):
    """A <disk> of a file, or of a block device if path is under /dev."""
    kind = "block" if path.startswith("/dev/") else "file"
    source = {"block": "dev", "file": "file"}[kind]
    return ("<disk type='%s' device='disk'>\n"
            "      <driver name='qemu' type='%s' cache='none'/>\n"
            "      <source %s=%s/>\n"
            "      <target dev='%s' bus='%s'/>\n"
            "    </disk>" % (kind, image, source, quoteattr(path), BUSES[bus], bus))


def domain_xml(name, words="", disk=None, files=OUT, **more):
    """The XML of a guest. words: beyond vz.id, for the guest; disk: what disk_xml() gives; files: where the
    hosts find what build.sh made; more: bus, mac, memory_mib, domain_uuid."""
    with open(os.path.join(OUT, "cmdline"), encoding="ascii") as file:
        cmdline = "%s vz.id=%s %s" % (file.read().strip(), name, words)
    if disk:
        cmdline += " vz.disk=/dev/" + re.search("target dev='([a-z]+)'", disk).group(1)
    values = {
        "NAME": escape(name), "MEM": str(more.get("memory_mib") or 192),
        "UUID": more.get("domain_uuid") or str(uuid.uuid5(uuid.NAMESPACE_DNS, name + ".virtvz")),
        "MAC": more.get("mac") or own_mac(name), "CMDLINE": escape(" ".join(cmdline.split())),
        "KERNEL": escape(files + "/vmlinuz"), "INITRD": escape(files + "/initrd.img"),
        "DISK": disk or ""}
    with open(os.path.join(HERE, "guest.xml.in"), encoding="utf-8") as file:
        text = file.read()
    filled = re.sub("@([A-Z]+)@", lambda match: values[match.group(1)], text)
    return re.sub(r"\n *\n", "\n", filled)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("name")
    parser.add_argument("--ip", help="ADDRESS/PREFIX of the guest")
    parser.add_argument("--to", help="ADDRESS:PORT of the observer")
    parser.add_argument("--disk", help="image or device, as the hosts see it")
    parser.add_argument("--bus", choices=sorted(BUSES), default="virtio")
    parser.add_argument("--image", choices=("raw", "qcow2"), default="raw")
    parser.add_argument("--files", default=OUT, help="where the hosts find vmlinuz and initrd.img")
    parser.add_argument("--memory", type=int, default=192, help="MiB")
    parser.add_argument("--mac")
    parser.add_argument("--uuid")
    parser.add_argument("words", nargs="*", help="more vz.* words, such as vz.dirty=5")
    options = parser.parse_intermixed_args()
    words = (["vz.ip=" + options.ip] if options.ip else []) + \
        (["vz.to=" + options.to] if options.to else []) + options.words
    disk = disk_xml(options.disk, options.bus, options.image) if options.disk else None
    print(domain_xml(options.name, " ".join(words), disk, options.files, mac=options.mac,
                     memory_mib=options.memory, domain_uuid=options.uuid), end="")


if __name__ == "__main__":
    main()
