"""The mistakes that compare_libvirt.py makes: what callers of the migration API can do wrongly.

Rules come from defs/options.def itself: a mistake for each option that a rule excludes or misses. The rest is
listed here. A case is a dictionary that mistakes_client.py understands; "mistake" is its name, and with
"way" (p2p or managed) it is known in docs/decisions/0030 and docs/generated/mistakes.md.
"""

import itertools
import pathlib
import re

SOURCE = pathlib.Path(__file__).resolve().parents[2]
TABLE = (SOURCE / "defs" / "options.def").read_text()
RUNNING, PAUSED, SHUT_OFF = 1, 3, 5
PORTS = {"qemu": 16519, "vz": 16509}

FLAGS = {name: 1 << int(bit) for name, bit in re.findall(r"^FLAG\((\w+),\s*(\d+),", TABLE, re.M)}
PARAMS = {name: (wire, kind.lower(), unit) for name, wire, kind, unit in
          re.findall(r'^PARAM\((\w+),\s*"([^"]+)",\s*(\w+),\s*(\w+),', TABLE, re.M)}
CHOICES = {name: (param, value) for name, param, value in
           re.findall(r'^CHOICE\((\w+),\s*(\w+),\s*"([^"]+)"', TABLE, re.M)}
RULES = [(option, relation, re.findall(r"\w+", others)) for option, relation, others in
         re.findall(r"^RULE\((\w+),\s*(NEEDS|EXCLUDES),\s*(?:ONE|TWO)\(([^)]*)\)", TABLE, re.M)
         if option in {**FLAGS, **PARAMS, **CHOICES}]  # libvirt knows none of ours

# What libvirt has not: it is left out of what a libvirtd is asked, and no mistake is made with it.
OURS = {name for name, (wire, _, _) in PARAMS.items() if wire.startswith("vz.")}

VALUES = {"NONE": 1, "COUNT": 2, "LEVEL": 5, "PORT": 49300, "PERCENT": 20, "BYTES": 1 << 26, "MIB_S": 7,
          "DISK": "vda", "ADDRESS": "0.0.0.0", "URI": "tcp:hostb", "NAME": "renamed"}

XML = """<domain type='%(kind)s'><name>%(name)s</name><uuid>%(uuid)s</uuid><title>%(title)s</title>
<memory unit='MiB'>%(memory)d</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features>
<devices>%(disk)s<memballoon model='virtio'/></devices></domain>"""
DISK = """<disk type='file' device='disk'><driver name='qemu' type='raw' cache='none'/>
<source file='%s'/><target dev='vda' bus='virtio'/></disk>"""
NAME, UUID, OTHER_UUID = ("mistaken", "0c6a3b1e-58a1-4f4e-9b64-3c5e8a2f7d10",
                          "5ac2f0d4-8a57-4b3c-b1c7-64d0f2a81e33")


def xml(kind, name=NAME, uuid=UUID, memory=48, disk=None, title="from here"):
    return XML % {"kind": kind, "name": name, "uuid": uuid, "memory": memory, "title": title,
                  "disk": DISK % disk if disk else ""}


def closure(options, but=None):
    """What these options need besides, of alternatives the first; not by the rule `but`."""
    found = list(options)
    for option in found:
        for rule in RULES:
            one, relation, others = rule
            if one == option and relation == "NEEDS" and rule is not but and \
                    not set(others) & set(found):
                found.append(others[0])
    return found


def triples(options, kind):
    """The typed parameters of these options."""
    found = []
    for option in options:
        if option == "URI_UNIX":
            found.append(["migrate_uri", "string", "unix:/run/x"])
        elif option in OURS and kind == "qemu":
            continue
        elif option in CHOICES:
            param, value = CHOICES[option]
            found.append([PARAMS[param][0], "string", value])
        elif option == "COMPRESSION" and not set(options) & set(CHOICES):
            found.append(["compression", "string", "zstd"])
        elif option in PARAMS and option != "COMPRESSION":
            wire, wire_type, unit = PARAMS[option]
            found.append([wire, wire_type, xml(kind) if unit == "XML" else VALUES[unit]])
    return found


class Mistakes:
    """All cases for one kind of daemon: 'qemu' or 'vz'. Both kinds have the same ones, in one order."""

    def __init__(self, kind):
        self.kind = kind
        self.cases = []

    def uri(self, host, port=None):
        return "%s+tcp://%s:%d/system" % (self.kind, host, port or PORTS[self.kind])

    def add(self, mistake, **more):
        case = {"mistake": mistake, "name": NAME, "xml": xml(self.kind), "state": RUNNING, **more}
        self.cases.append(case)

    def move(self, mistake, flags=(), params=(), ways=("p2p", "managed"), **more):
        for way in ways:
            bits = FLAGS["PEER2PEER"] if way == "p2p" else 0
            for one in flags:
                bits |= one if isinstance(one, int) else FLAGS[one]
            self.add(mistake, way=way, flags=bits, params=list(params), **more)

    def call(self, mistake, name, *numbers, **more):
        self.add(mistake, call=name, numbers=list(numbers), **more)

    def rule(self, mistake, options):
        state = SHUT_OFF if "OFFLINE" in options else RUNNING
        flags = [one for one in options if one in FLAGS]
        self.move(mistake, flags, triples(options, self.kind), state=state, ways=[
            way for way in ("p2p", "managed") if way == "p2p" or "PEER2PEER" not in options])

    def rules(self):
        for rule in RULES:
            option, relation, others = rule
            if option in OURS:
                continue
            if relation == "EXCLUDES":
                for other in sorted(set(others) - OURS, key=others.index):
                    self.rule("%s with %s" % (option, other), closure([option, other]))
                continue
            options = closure([option], but=rule)
            ways = ["managed"] if "PEER2PEER" in others else ["p2p", "managed"]
            flags = [one for one in options if one in FLAGS]
            self.move("%s without %s" % (option, " or ".join(others)), flags,
                      triples(options, self.kind), ways=ways,
                      state=SHUT_OFF if option == "OFFLINE" else RUNNING)

    def unknown(self):
        self.move("unknown flag 21", [1 << 21])
        self.move("unknown flag 30", [1 << 30])
        self.move("unknown parameter", params=[["no.such", "string", "x"]])
        for name, (wire, kind, _) in PARAMS.items():
            if name in OURS:
                continue
            wrong = ["int", 1] if kind == "string" else ["string", "x"]
            self.move("wrong type of %s" % name, params=[[wire, *wrong]])
        self.move("BANDWIDTH as unsigned int", params=[["bandwidth", "uint", 7]])
        self.move("BANDWIDTH twice", params=[["bandwidth", "ullong", 7]] * 2)
        self.move("URI twice", params=[["migrate_uri", "string", "tcp:hostb"]] * 2)
        self.move("DEST_NAME twice", params=[["destination_name", "string", "renamed"]] * 2)

    def values(self):
        most = (1 << 63) // (1 << 20)
        parallel = ["LIVE", "PARALLEL"]
        bad = [("BANDWIDTH of 2^43 MiB/s", [], ["bandwidth", "ullong", most]),
               ("BANDWIDTH of 2^64-1 MiB/s", [], ["bandwidth", "ullong", (1 << 64) - 1]),
               ("COMPRESSION by an unknown method", [], ["compression", "string", "lzma"]),
               ("PARALLEL_CONNECTIONS 0", parallel, ["parallel.connections", "int", 0]),
               ("PARALLEL_CONNECTIONS -1", parallel, ["parallel.connections", "int", -1]),
               ("PARALLEL_CONNECTIONS 256", parallel, ["parallel.connections", "int", 256]),
               ("AUTO_CONVERGE_INITIAL 0", ["AUTO_CONVERGE"], ["auto_converge.initial", "int", 0]),
               ("AUTO_CONVERGE_INITIAL 100", ["AUTO_CONVERGE"], ["auto_converge.initial", "int", 100]),
               ("DISKS_PORT -1", ["NON_SHARED_DISK"], ["disks_port", "int", -1]),
               ("DISKS_PORT 65536", ["NON_SHARED_DISK"], ["disks_port", "int", 65536]),
               ("DEST_NAME empty", [], ["destination_name", "string", ""]),
               ("DEST_NAME with a slash", [], ["destination_name", "string", "a/b"]),
               ("DEST_XML that is no XML", [], ["destination_xml", "string", "<domain"]),
               ("DEST_XML of another memory size", [],
                ["destination_xml", "string", xml(self.kind, memory=64)]),
               ("DEST_XML of another UUID", [],
                ["destination_xml", "string", xml(self.kind, uuid=OTHER_UUID)]),
               ("DEST_XML of another name", [],
                ["destination_xml", "string", xml(self.kind, name="renamed")]),
               ("PERSIST_XML that is no XML", ["PERSIST_DEST"],
                ["persistent_xml", "string", "<domain"]),
               ("PERSIST_XML of another memory size", ["PERSIST_DEST"],
                ["persistent_xml", "string", xml(self.kind, memory=64)])]
        for mistake, flags, param in bad:
            self.move(mistake, flags, [param])
        for level, top in (("zlib", 9), ("zstd", 20)):
            for value in (-1, top + 1):
                self.move("COMPRESSION_%s_LEVEL %d" % (level.upper(), value), [*parallel, "COMPRESSED"],
                          [["compression", "string", level],
                           ["compression.%s.level" % level, "int", value]])
        self.move("COMPRESSION_XBZRLE_CACHE of 1000 bytes", ["COMPRESSED"],
                  [["compression", "string", "xbzrle"], ["compression.xbzrle.cache", "ullong", 1000]])
        self.move("COMPRESSION_XBZRLE twice", ["COMPRESSED"], [["compression", "string", "xbzrle"]] * 2)

    def places(self):
        for uri in ("hostb", "tcp:", "tcp://", "http://hostb", "rdma://hostb", "unix:/run/x",
                    "tcp:hostb:99999", "tcp:hostb:0", "tcp:hostb:door", "tcp://hostb/x",
                    "tcp:no-such-host.invalid", "tcp:localhost"):
            self.move("URI '%s'" % uri, ["LIVE"], [["migrate_uri", "string", uri]])
        for what, uri in (("no such host", self.uri("no-such-host.invalid")),
                          ("a port where nobody listens", self.uri("hostb", 9)),
                          ("this host, without a name", "%s:///system" % self.kind),
                          ("this host, as localhost", self.uri("localhost")),
                          ("this host, by its name", self.uri("hosta")),
                          ("no URI", ""), ("not a URI", "hostb"),
                          ("another kind of daemon", "test+tcp://hostb:%d/default" %
                           PORTS[self.kind])):
            self.move("to %s" % what, ["LIVE"], ways=["p2p"], uri=uri)

    def states(self):
        self.move("a domain that is shut off", ["LIVE"], state=SHUT_OFF)
        self.move("a domain that is shut off, without LIVE", state=SHUT_OFF)
        there = {"name": NAME, "xml": xml(self.kind, uuid=OTHER_UUID), "state": SHUT_OFF}
        self.move("its name is another domain's there", ["LIVE"], there=there)
        self.move("its name is a running domain's there", ["LIVE"], there={**there, "state": PAUSED})
        self.move("its new name is another domain's there", ["LIVE"],
                  [["destination_name", "string", "renamed"]], there={
                      "name": "renamed", "xml": xml(self.kind, "renamed", OTHER_UUID),
                      "state": SHUT_OFF})
        self.move("its UUID is another domain's there", ["LIVE"], there={
            "name": "renamed", "xml": xml(self.kind, "renamed"), "state": SHUT_OFF})
        self.move("it runs there already", ["LIVE"], there={
            "name": NAME, "xml": xml(self.kind), "state": PAUSED})
        self.move("a disk at whose path that host has another", ["LIVE"],
                  xml=xml(self.kind, disk="/local/mistaken-%s.img" % self.kind))

    def definitions(self):
        """No mistakes: what is defined where after a move, in all cases."""
        there = {"name": NAME, "xml": xml(self.kind, title="from there"), "state": SHUT_OFF}
        options = ("UNDEFINE_SOURCE", "PERSIST_DEST")
        for persistent, defined, *chosen in itertools.product((True, False), repeat=4):
            flags = [one for one, on in zip(options, chosen) if on]
            self.move("a %s domain%s, %s" % ("persistent" if persistent else "transient",
                                             ", also defined there" if defined else "",
                                             " and ".join(flags) or "neither flag"),
                      ["LIVE", *flags], transient=not persistent, fresh=True, look=True,
                      **({"there": there} if defined else {}))

    def jobs(self):
        calls = [("get the downtime", "virDomainMigrateGetMaxDowntime", 0),
                 ("get the speed", "virDomainMigrateGetMaxSpeed", 0),
                 ("get the speed of post-copy", "virDomainMigrateGetMaxSpeed", 1),
                 ("get the compression cache", "virDomainMigrateGetCompressionCache", 0),
                 ("get the statistics", "virDomainGetJobStats", 0),
                 ("get the statistics of the last job", "virDomainGetJobStats", 1),
                 ("start post-copy", "virDomainMigrateStartPostCopy", 0),
                 ("abort a job", "virDomainAbortJobFlags", 0),
                 ("abort a job of post-copy", "virDomainAbortJobFlags", 1),
                 ("set the downtime to 2^63 ms", "virDomainMigrateSetMaxDowntime", 1 << 63, 0),
                 ("set the downtime to 0", "virDomainMigrateSetMaxDowntime", 0, 0),
                 ("get the downtime after that", "virDomainMigrateGetMaxDowntime", 0),
                 ("set the speed to 2^43 MiB/s", "virDomainMigrateSetMaxSpeed", 1 << 43, 0),
                 ("set the speed to 0", "virDomainMigrateSetMaxSpeed", 0, 0),
                 ("get the speed after that", "virDomainMigrateGetMaxSpeed", 0),
                 ("set the speed of post-copy", "virDomainMigrateSetMaxSpeed", 7, 1),
                 ("set the compression cache to 0", "virDomainMigrateSetCompressionCache", 0, 0),
                 ("set the compression cache to 1000", "virDomainMigrateSetCompressionCache", 1000, 0)]
        for state, words in ((RUNNING, "without a job"), (SHUT_OFF, "of a domain that is shut off")):
            for number, (mistake, name, *numbers) in enumerate(calls):
                self.call("%s %s" % (mistake, words), name, *numbers, state=state,
                          fresh=number == 0)
        for name in sorted({name for _, name, *_ in calls}):
            numbers = [0] if name in ("virDomainMigrateSetMaxDowntime", "virDomainMigrateSetMaxSpeed",
                                      "virDomainMigrateSetCompressionCache") else []
            self.call("unknown flag of %s" % name, name, *numbers, 1 << 20)

    def during(self):
        begun = FLAGS["LIVE"] | FLAGS["CHANGE_PROTECTION"]
        self.move("while another migration has begun", ["LIVE"], during=begun)
        for mistake, name, *numbers in (
                ("start post-copy", "virDomainMigrateStartPostCopy", 0),
                ("abort a job of post-copy", "virDomainAbortJobFlags", 1),
                ("start the domain", "virDomainCreateWithFlags", 0),
                ("undefine the domain", "virDomainUndefine")):
            self.call("%s while a migration has begun" % mistake, name, *numbers, during=begun)


def cases(kind):
    """For 'qemu' or 'vz'. States come first: virtvz starts no second copy of what has moved."""
    made = Mistakes(kind)
    for part in (made.states, made.rules, made.unknown, made.values, made.places,
                 made.definitions, made.jobs, made.during):
        part()
    return made.cases
