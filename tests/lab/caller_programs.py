"""What Nova and virt-manager do when they move a guest, as programs that run in a lab host with its
libvirt-python, the real one. The sequences of calls, their flags, parameters, and what they make of answers and
errors are those of nova/virt/libvirt (guest.py, driver.py, migration.py) and virtManager (object/domain.py,
migrate.py, asyncjob.py). Each prints one JSON object of what came out.
"""

# Arguments: name, destination's URI, JSON of "migrate_uri", "xml" (replacements for the definition that
# is sent along, or null for none), "bandwidth", "steps" [(ms)], "abort", "release".
NOVA = """
import json, sys, threading, time
import libvirt

name, destination, asked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
connection = libvirt.open("vz:///system")
domain = connection.lookupByName(name)
flags = (libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PEER2PEER |
         libvirt.VIR_MIGRATE_UNDEFINE_SOURCE | libvirt.VIR_MIGRATE_PERSIST_DEST)
params = {"bandwidth": asked.get("bandwidth", 0)}
if asked.get("xml") is not None:
    xml = domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE)
    for old, new in asked["xml"]:
        xml = xml.replace(old, new)
    params["destination_xml"] = params["persistent_xml"] = xml
if asked.get("migrate_uri"):
    params["migrate_uri"] = asked["migrate_uri"]
out = {"error": 0, "text": "", "types": [], "fields": {}, "calls": []}


def migrate():
    try:
        domain.migrateToURI3(destination, params=params, flags=flags)
    except libvirt.libvirtError as error:
        out["error"], out["text"] = error.get_error_code(), error.get_error_message()


def job():
    # what JobInfo.for_domain makes of errors
    try:
        return domain.jobStats()
    except libvirt.libvirtError as error:
        if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID):
            return {"type": libvirt.VIR_DOMAIN_JOB_COMPLETED}
        if error.get_error_code() == libvirt.VIR_ERR_INTERNAL_ERROR and \\
                "migration was active, but no RAM info was set" in error.get_error_message():
            return {"type": libvirt.VIR_DOMAIN_JOB_NONE}
        raise


def found_type():
    # find_job_type: a job that is over, by what became of the guest
    try:
        return libvirt.VIR_DOMAIN_JOB_FAILED if domain.isActive() else libvirt.VIR_DOMAIN_JOB_COMPLETED
    except libvirt.libvirtError as error:
        out["calls"].append(["isActive", error.get_error_code()])
        return libvirt.VIR_DOMAIN_JOB_COMPLETED


def attempt(what, call, *arguments):
    try:
        call(*arguments)
        out["calls"].append([what, 0])
    except libvirt.libvirtError as error:
        out["calls"].append([what, error.get_error_code()])


steps, aborted, released, polls = list(asked.get("steps", ())), False, False, 0
thread = threading.Thread(target=migrate)
thread.start()
while True:
    info = job()
    kind = info["type"]
    if kind == libvirt.VIR_DOMAIN_JOB_NONE:
        if thread.is_alive():
            time.sleep(0.1)
            continue
        kind = found_type()
    if not out["types"] or out["types"][-1] != kind:
        out["types"].append(kind)
    if kind != libvirt.VIR_DOMAIN_JOB_UNBOUNDED:
        break
    polls += 1
    out["fields"].update({key: value for key, value in info.items() if value})
    if steps and info.get("memory_processed"):
        attempt("migrateSetMaxDowntime", domain.migrateSetMaxDowntime, steps.pop(0))
    if asked.get("release") and not released and info.get("memory_processed"):
        out["left"] = info["memory_remaining"]
        attempt("migrateSetMaxSpeed", domain.migrateSetMaxSpeed, 0)
        released = True
    if asked.get("abort") and not aborted and info.get("memory_processed"):
        attempt("abortJob", domain.abortJob)
        aborted = True
    time.sleep(0.1)
thread.join(120)
out["final"], out["polls"] = kind, polls
attempt("lookupByUUID", connection.lookupByUUIDString, domain.UUIDString())
print(json.dumps(out))
"""

# Arguments: name, destination's URI, JSON of "port", "tunnel", "unsafe", "temporary", "xml", "cancel".
VIRT_MANAGER = """
import json, sys, threading, time
import libvirt

name, destination, asked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
source, there = libvirt.open("vz:///system"), libvirt.open(destination)
domain = source.lookupByName(name)
flags = libvirt.VIR_MIGRATE_LIVE
if not asked.get("temporary"):
    flags |= libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
if asked.get("tunnel"):
    flags |= libvirt.VIR_MIGRATE_PEER2PEER | libvirt.VIR_MIGRATE_TUNNELLED
if asked.get("unsafe"):
    flags |= libvirt.VIR_MIGRATE_UNSAFE
params = {}
if not asked.get("tunnel") and asked.get("port") is not None:
    # the dialog fills in what the destination calls itself, and a port
    params[libvirt.VIR_MIGRATE_PARAM_URI] = "tcp:%s" % there.getHostname() + (
        ":%d" % asked["port"] if asked["port"] else "")
if asked.get("xml"):
    params[libvirt.VIR_MIGRATE_PARAM_DEST_XML] = domain.XMLDesc(0)
out = {"error": 0, "text": "", "progress": []}


def watch():
    # the meter: what jobInfo says of all data, until it fails
    while running:
        try:
            info = domain.jobInfo()
        except libvirt.libvirtError:
            break
        if info[3]:
            out["progress"].append([info[3], info[5]])
            if asked.get("cancel") and len(out["progress"]) == 2:
                domain.abortJob()
        time.sleep(0.1)


running = True
meter = threading.Thread(target=watch)
meter.start()
try:
    if asked.get("tunnel"):
        domain.migrateToURI3(destination, params, flags)
    else:
        moved = domain.migrate3(there, params, flags)
        out["moved"] = [moved.name(), moved.isActive(), moved.isPersistent(), moved.state()[0]]
except libvirt.libvirtError as error:
    out["error"], out["text"] = error.get_error_code(), error.get_error_message()
running = False
meter.join(20)
print(json.dumps(out))
"""
