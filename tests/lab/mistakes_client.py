"""Makes mistakes against one libvirt-like daemon, through libvirt's own client library, and says what it
answered. compare_libvirt.py runs it inside a lab host, where only Python and libvirt.so are:

    python3 -c THIS SOURCE-URI DESTINATION-URI <cases.json >answers.jsonl

It calls the library by ctypes, since libvirt-python chooses the types of parameters by itself, and
wrong types are among the mistakes. A case is what the comparison's Case has; an answer is
{"code": libvirt's error number or 0, "text": ..., "value": ...}. Before each case the domain is put into
the state that it asks for.
"""

import ctypes
import json
import sys
import time

lib = ctypes.CDLL("libvirt.so.0")
Pointer, Int, UInt, ULong = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint, ctypes.c_ulonglong
Text = ctypes.c_char_p
RUNNING, PAUSED, SHUT_OFF = 1, 3, 5
CREATE_PAUSED, XML_INACTIVE = 1, 2
STUCK = "another migration job is already running"


class Error(ctypes.Structure):
    _fields_ = [("code", Int), ("domain", Int), ("message", Text)]


class Refused(Exception):
    def __init__(self):
        found = lib.virGetLastError()
        self.code = found.contents.code if found else -1
        self.text = found.contents.message.decode() if found and found.contents.message else ""
        super().__init__("%d: %s" % (self.code, self.text))


def function(name, *types, result=Int):
    found = getattr(lib, name)
    found.argtypes, found.restype = types, result
    return found


lib.virGetLastError.restype = ctypes.POINTER(Error)
QUIET = ctypes.CFUNCTYPE(None, Pointer, Pointer)(lambda *_: None)
lib.virSetErrorFunc(None, QUIET)
function("virConnectOpen", Text, result=Pointer)
function("virDomainDefineXML", Pointer, Text, result=Pointer)
function("virDomainCreateXML", Pointer, Text, UInt, result=Pointer)
function("virDomainIsPersistent", Pointer)
function("virDomainGetXMLDesc", Pointer, UInt, result=Pointer)
function("virDomainLookupByName", Pointer, Text, result=Pointer)
function("virDomainGetState", Pointer, ctypes.POINTER(Int), ctypes.POINTER(Int), UInt)
function("virDomainMigrate3", Pointer, Pointer, Pointer, UInt, UInt, result=Pointer)
function("virDomainMigrateToURI3", Pointer, Text, Pointer, UInt, UInt)
ADD = {"int": ("virTypedParamsAddInt", Int), "uint": ("virTypedParamsAddUInt", UInt),
       "llong": ("virTypedParamsAddLLong", ctypes.c_longlong),
       "ullong": ("virTypedParamsAddULLong", ULong), "boolean": ("virTypedParamsAddBoolean", Int),
       "string": ("virTypedParamsAddString", Text)}
for _name, _type in ADD.values():
    function(_name, ctypes.POINTER(Pointer), ctypes.POINTER(Int), ctypes.POINTER(Int), Text, _type)
for _name in ("virDomainCreate", "virDomainDestroy", "virDomainUndefine", "virDomainSuspend",
              "virDomainResume", "virDomainAbortJob", "virConnectClose"):
    function(_name, Pointer)
for _name in ("virDomainCreateWithFlags", "virDomainMigrateStartPostCopy", "virDomainAbortJobFlags"):
    function(_name, Pointer, UInt)
for _name in ("virDomainMigrateSetMaxDowntime", "virDomainMigrateSetCompressionCache"):
    function(_name, Pointer, ULong, UInt)
for _name in ("virDomainMigrateGetMaxDowntime", "virDomainMigrateGetCompressionCache",
              "virDomainMigrateGetMaxSpeed"):
    function(_name, Pointer, ctypes.POINTER(ULong), UInt)
function("virDomainMigrateSetMaxSpeed", Pointer, ctypes.c_ulong, UInt)
function("virDomainGetJobStats", Pointer, ctypes.POINTER(Int), ctypes.POINTER(Pointer),
         ctypes.POINTER(Int), UInt)
# What virDomainMigrate3 is made of; the library keeps it for the daemons.
function("virDomainMigrateBegin3Params", Pointer, Pointer, Int, ctypes.POINTER(Pointer),
         ctypes.POINTER(Int), UInt, result=Pointer)


def need(result):
    """What a call of the library gave, if it did not fail."""
    if result is None or result == -1 or result == 0 and isinstance(result, Pointer):
        raise Refused()
    return result


def parameters(triples):
    array, count, room = Pointer(), Int(0), Int(0)
    for name, kind, value in triples:
        call, _ = ADD[kind]
        value = value.encode() if isinstance(value, str) else value
        need(getattr(lib, call)(ctypes.byref(array), ctypes.byref(count), ctypes.byref(room),
                                name.encode(), value))
    return array, count.value


class Side:
    """One daemon: the source's or the destination's."""

    def __init__(self, uri):
        self.uri = uri
        self.connection = need(lib.virConnectOpen(uri.encode()))

    def find(self, name):
        return lib.virDomainLookupByName(self.connection, name.encode())

    def state(self, name):
        domain = self.find(name)
        state, reason = Int(), Int()
        if domain is None or lib.virDomainGetState(domain, state, reason, 0) < 0:
            return None
        return state.value

    def clear(self, name):
        """No such domain here, whatever there was."""
        domain = self.find(name)
        if domain is None:
            return
        lib.virDomainDestroy(domain)
        lib.virDomainUndefine(domain)
        if self.find(name) is not None:
            raise Refused()

    def make(self, xml, state, transient=False):
        if transient:
            need(lib.virDomainCreateXML(self.connection, xml.encode(), 0))
            return
        domain = need(lib.virDomainDefineXML(self.connection, xml.encode()))
        if state != SHUT_OFF:
            need(lib.virDomainCreateWithFlags(domain, CREATE_PAUSED if state == PAUSED else 0))

    def definition(self, name):
        """Whose is kept here, by its title."""
        domain = self.find(name)
        if domain is None:
            return "nothing"
        if not need(lib.virDomainIsPersistent(domain)):
            return "a transient guest"
        text = ctypes.string_at(need(lib.virDomainGetXMLDesc(domain, XML_INACTIVE))).decode()
        return "the definition " + text.partition("<title>")[2].partition("</title>")[0]


class Stage:
    """The domain of one kind, where the cases want it."""

    def __init__(self, source, destination):
        self.source, self.destination = source, destination
        self.made = None  # the definition that the source has

    def set(self, case):
        """The domain on the source in the case's state, and on the destination what it says."""
        name, wanted = case["name"], (case["xml"], case["state"])
        other = case.get("there")  # {"name": ..., "xml": ..., "state": ...}
        for one in {name, "renamed", *case.get("clear", ())}:
            self.destination.clear(one)
        if case.get("fresh") or self.made != wanted or self.source.state(name) != case["state"]:
            self.source.clear(name)
            self.source.make(*wanted, case.get("transient", False))
            self.made = wanted
        if other:
            self.destination.clear(other["name"])
            self.destination.make(other["xml"], other["state"])
        return need(self.source.find(name))


def move(stage, domain, case):
    array, count = parameters(case["params"])
    if case["way"] == "p2p":
        uri = case.get("uri", stage.destination.uri)
        need(lib.virDomainMigrateToURI3(domain, uri.encode(), array, count, case["flags"]))
    else:
        need(lib.virDomainMigrate3(domain, stage.destination.connection, array, count,
                                   case["flags"]))
    if case.get("look"):
        return "%s here, %s there" % tuple(side.definition(case["name"])
                                           for side in (stage.source, stage.destination))
    return None


def call(_stage, domain, case):
    """A call about a job, with its numbers; a getter's value."""
    target = getattr(lib, case["call"])
    if case["call"] == "virDomainGetJobStats":
        kind, array, count = Int(), Pointer(), Int()
        need(target(domain, kind, array, count, *case["numbers"]))
        return kind.value
    if "Get" in case["call"]:
        value = ULong()
        need(target(domain, value, *case["numbers"]))
        return value.value
    need(target(domain, *case["numbers"]))
    return None


def during(stage, domain, case):
    """The same while another client's migration is at its beginning."""
    other = Side(stage.source.uri)
    cookie, length = Pointer(), Int()
    try:
        need(lib.virDomainMigrateBegin3Params(other.find(case["name"]), None, 0, cookie, length,
                                              case["during"]))
        return (move if "way" in case else call)(stage, domain, case)
    finally:
        lib.virConnectClose(other.connection)
        time.sleep(0.2)  # until the daemon has seen that


def attempt(stage, case):
    domain = stage.set(case)
    run = during if "during" in case else move if "way" in case else call
    try:
        return {"code": 0, "text": "", "value": run(stage, domain, case)}
    except Refused as refusal:
        return {"code": refusal.code, "text": refusal.text, "value": None}


def answer(stage, case):
    """What the daemon answers; a stage that cannot be set is an error of this program."""
    found = attempt(stage, case)
    if STUCK in found["text"] and "during" not in case:
        # libvirt 11.3 keeps the job of some migrations that failed (of the case before, that is).
        stage.source.clear(case["name"])
        found = attempt(stage, case)
    return found


def main():
    stage = Stage(*(Side(uri) for uri in sys.argv[1:3]))
    for case in json.load(sys.stdin):
        began = time.monotonic()
        found = answer(stage, case)
        found["seconds"] = round(time.monotonic() - began, 2)
        print(json.dumps(found), flush=True)


main()
