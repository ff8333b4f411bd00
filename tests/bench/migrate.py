"""make bench: the same guests moved by libvirt and by virtvz, in one lab, in turns.

For each guest (light, busy, and disk: busy with a disk of its host's own) and link (unshaped, 1gbit) everybody who can move a guest does so once a round,
VZ_BENCH_N rounds. Guests that are not moving are paused, so nothing competes. Measured per move:

    wall_ms   what the user waits: from the start of the client to its end
    gap_ms    the longest silence of the guest as a third host hears it (beats come every 10 ms)
    wire_mb   bytes through the source's cable, both ways, in 10^6
    cpu_s     what all processors of this machine did meanwhile, the guest's own work included
    disk_mb   of a guest whose disk is copied: what its new image takes of the file system, in 10^6

It prints min/median/max and the ratio of medians (below 1: virtvz needs less), and writes
build/bench.json. Environment:

    VZ_BENCH_N        rounds, 5
    VZ_BENCH_GUESTS   light,busy,disk
    VZ_BENCH_RATES    none,1gbit
    VZ_BENCH_MOVERS   of MOVERS below; the first of those of libvirt is what ratios refer to
    VZ_BENCH_IDLE_S   how long to wait for an idle machine before each move, 30

Needs root, and the machine for itself: a move that began while it was busy is marked and counted.
"""

import glob
import json
import os
import pathlib
import signal
import statistics
import sys
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS / "lab"))
from scene import SOURCE, VZ, Scene, eventually  # noqa: E402

ROUNDS = int(os.environ.get("VZ_BENCH_N", "5"))
IDLE_WAIT_S = float(os.environ.get("VZ_BENCH_IDLE_S", "30"))
BUSY_SHARE = 0.1  # of all processors, while all guests are paused
MOVE_TIMEOUT_S = 180
SETTLE_S = 1  # a guest runs so long before it moves
QEMU = "qemu:///system?mode=legacy"
LIBVIRT_PORT = 16519  # virtvzd has libvirt's own
WORDS = ("--live", "--persistent", "--undefinesource")

GUESTS = {
    "light": {"memory_mib": 192, "words": "vz.mem=32 vz.dirty=2"},
    "busy": {"memory_mib": 512, "words": "vz.mem=300 vz.hot=100 vz.dirty=20"},
    # libvirt is told to copy it, onto a sparse file that is made for it before; virtvz is told nothing.
    "disk": {"memory_mib": 512, "words": "vz.mem=300 vz.hot=100 vz.dirty=20", "disk_mib": 1024,
             "filled_mib": 300},
}


def virsh(uri, *words):
    return lambda guest, there, to: ["virsh", "-c", uri, "migrate", *words, *WORDS, guest, to(there)]


def libvirt_uri(host):
    return "qemu+tcp://%s:%d/system" % (host.name, LIBVIRT_PORT)


def virtvz_uri(host):
    return "vz+tcp://%s/system" % host.name


# name: whose guest, the client's words, the destination's URI
MOVERS = {
    "libvirt p2p": (QEMU, virsh(QEMU, "--p2p"), libvirt_uri),
    "libvirt managed": (QEMU, virsh(QEMU), libvirt_uri),
    "virtvz p2p": (VZ, virsh(VZ, "--p2p"), virtvz_uri),
    "virtvz managed": (VZ, virsh(VZ), virtvz_uri),
    "virtvz vz": (VZ, lambda guest, there, to: ["vz", "migrate", guest, there.name], virtvz_uri),
}
MEASURES = (("wall_ms", "%.0f"), ("gap_ms", "%.0f"), ("wire_mb", "%.1f"), ("cpu_s", "%.2f"),
            ("disk_mb", "%.0f"))


def chosen(variable, known):
    words = os.environ.get(variable)
    names = [one.strip() for one in words.split(",")] if words else list(known)
    for one in names:
        if one not in known:
            sys.exit("%s: '%s' is none of %s" % (variable, one, ", ".join(known)))
    return names


def processor_times():
    """Seconds that all processors were busy, and seconds in all."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    idle = ticks[3] + ticks[4]
    return [one / os.sysconf("SC_CLK_TCK") for one in (sum(ticks) - idle, sum(ticks))]


def wait_for_idle():
    """The share of the processors that was busy last, after waiting for it to be low."""
    deadline = time.monotonic() + IDLE_WAIT_S
    while True:
        before = processor_times()
        time.sleep(0.7)
        busy, total = (now - then for now, then in zip(processor_times(), before))
        share = busy / total if total else 0
        if share <= BUSY_SHARE or time.monotonic() > deadline:
            return share


def start_libvirt(host):
    """Debian's libvirtd beside virtvzd, as plain as it can be: no daemons besides, no cgroups."""
    files = {
        "/etc/libvirt/qemu.conf": 'stdio_handler = "file"\nnamespaces = []\ncgroup_controllers = []\n'
                                  'security_driver = "none"\nuser = "root"\ngroup = "root"\n',
        "/etc/libvirt/libvirtd.conf": 'listen_tls = 0\nlisten_tcp = 1\ntcp_port = "%d"\n'
                                      'auth_tcp = "none"\nauth_unix_rw = "none"\n' % LIBVIRT_PORT,
    }
    for path, text in files.items():
        host.run("mkdir", "-p", os.path.dirname(path))
        host.run("tee", path, input=text)
    host.run("sh", "-c", "libvirtd --listen -d </dev/null >/var/log/libvirtd.out 2>&1")
    eventually("libvirtd answers on %s" % host.name, lambda: host.run(
        "virsh", "-c", QEMU, "version", check=False).returncode == 0, 30)


class Traveller:
    """One guest of one of the two, on one of the hosts, paused unless it moves."""

    def __init__(self, scene, kind, uri):
        self.scene, self.uri = scene, uri
        number = "%s%s" % (kind, "l" if uri == QEMU else "v")
        self.disk_mib = GUESTS[kind].get("disk_mib", 0)
        self.image = "/local/%s.img" % number if self.disk_mib else None
        self.guest = scene.guest(number, GUESTS[kind]["words"], memory_mib=GUESTS[kind]["memory_mib"],
                                 disk=self.image or False)
        self.here, self.there = scene.a, scene.b
        if self.image:
            self.fill(GUESTS[kind]["filled_mib"])
        if uri == QEMU:
            text = self.guest.xml.replace("<domain type='vz'>", "<domain type='qemu'>")
            scene.a.path(self.guest.file).write_text(text)

    def fill(self, mib):
        """From the middle on, where the guest does not come to write."""
        with open(self.here.path(self.image), "r+b") as file:
            file.truncate(self.disk_mib << 20)
            file.seek(self.disk_mib << 19)
            for _ in range(mib):
                file.write(os.urandom(1 << 20))

    def make_room(self):
        """What earlier moves left is gone; for libvirt there is an image to write to."""
        for left in glob.glob(str(self.there.path(self.image)) + "*"):
            os.unlink(left)
        if self.uri == QEMU:
            with open(self.there.path(self.image), "wb") as file:
                file.truncate(self.disk_mib << 20)

    def virsh(self, *words):
        return self.here.out("virsh", "-c", self.uri, *words, timeout=MOVE_TIMEOUT_S)

    def boot(self):
        self.virsh("define", self.guest.file)
        self.virsh("start", self.guest.name)
        self.wait_for_beats()
        self.virsh("suspend", self.guest.name)

    def end(self):
        self.virsh("destroy", self.guest.name)
        self.virsh("undefine", self.guest.name)
        for host in (self.here, self.there) if self.image else ():
            for left in glob.glob(str(host.path(self.image)) + "*"):
                os.unlink(left)

    def wait_for_beats(self, timeout_s=90):
        mark = "wait"
        self.scene.observe("mark", mark)
        eventually("%s beats" % self.guest.name,
                   lambda: self.guest.report(mark).get("beats", 0) > 20, timeout_s)

    def move(self, mover):
        """One move there, measured."""
        _, words, to = MOVERS[mover]
        if self.image:
            self.make_room()
        idle = wait_for_idle()
        self.virsh("resume", self.guest.name)
        self.wait_for_beats()
        time.sleep(SETTLE_S)
        mark = "move"
        self.scene.observe("mark", mark)
        argv = words(self.guest.name, self.there, to)
        if self.image and self.uri == QEMU:
            argv.insert(argv.index("migrate") + 1, "--copy-storage-all")
        wire, processor = sum(self.here.wire_bytes()), processor_times()[0]
        began = time.monotonic()
        self.here.run(*argv, timeout=MOVE_TIMEOUT_S)
        wall = time.monotonic() - began
        processor = processor_times()[0] - processor
        wire = sum(self.here.wire_bytes()) - wire
        self.here, self.there = self.there, self.here
        try:
            self.wait_for_beats(20)
        except AssertionError as error:
            raise AssertionError("%s, moved by %s, is '%s' on %s: %s" % (
                self.guest.name, mover, self.virsh("domstate", self.guest.name), self.here.name,
                error)) from None
        report = self.guest.report(mark)
        if report["problems"]:
            raise AssertionError("%s, moved by %s: %s" % (self.guest.name, mover, report["problems"]))
        self.virsh("suspend", self.guest.name)
        disk = os.stat(self.here.path(self.image)).st_blocks * 512 if self.image else 0
        return {"disk_mb": disk / 1e6, "wall_ms": wall * 1000, "gap_ms": report["longest_gap_ms"], "wire_mb": wire / 1e6,
                "cpu_s": processor, "busy_before": round(idle, 2)}


def versions(scene):
    text = {"virtvz": scene.a.out("virtvzd", "--version").split()[-1],
            "virsh": scene.a.out("virsh", "--version"),
            "libvirt": scene.a.out("libvirtd", "--version").split()[-1],
            "qemu": scene.a.out("qemu-system-x86_64", "--version").splitlines()[0]}
    text["kernel"], text["processors"] = os.uname().release, os.cpu_count()
    return text


def summary(runs, key):
    values = [one[key] for one in runs]
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def table(kind, rate, results):
    """Prints one guest on one link; returns it for the file."""
    first = next(iter(results))
    measures = [one for one in MEASURES if one[0] != "disk_mb" or "disk_mib" in GUESTS[kind]]
    print("\n%s guest (%d MiB, %s), link %s, n = %d" % (
        kind, GUESTS[kind]["memory_mib"], GUESTS[kind]["words"], "unshaped" if rate == "none" else rate,
        len(results[first])))
    print("%-16s" % "min/median/max" + "".join("%26s" % key for key, _ in measures))
    record = {}
    for mover, runs in results.items():
        cells, record[mover] = "", {"runs": runs}
        for key, form in measures:
            record[mover][key] = one = summary(runs, key)
            one["ratio"] = one["median"] / (record[first][key]["median"] or 1)
            text = "/".join(form % one[word] for word in ("min", "median", "max"))
            cells += "%26s" % ("%s  %.2f" % (text, one["ratio"]))
        print("%-16s%s" % (mover, cells))
    sys.stdout.flush()
    return record


def measure(scene, kind, rate, movers):
    travellers = {uri: Traveller(scene, kind, uri) for uri in {MOVERS[one][0] for one in movers}}
    scene.lab.shape("none")
    results = {one: [] for one in movers}
    for one in travellers.values():
        one.boot()
    scene.lab.shape(rate)
    for number in range(ROUNDS):
        for mover in movers:
            results[mover].append(travellers[MOVERS[mover][0]].move(mover))
            print("\r%s, %s: round %d, %s   " % (kind, rate, number + 1, mover), end="",
                  file=sys.stderr)
    print("\r\033[K", end="", file=sys.stderr)
    for one in travellers.values():
        one.end()
    return table(kind, rate, results)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # takes the lab down
    kinds = chosen("VZ_BENCH_GUESTS", GUESTS)
    movers = chosen("VZ_BENCH_MOVERS", MOVERS)
    rates = [one.strip() for one in os.environ.get("VZ_BENCH_RATES", "none,1gbit").split(",")]
    record = {"rounds": ROUNDS, "guests": GUESTS, "results": []}
    with Scene("bench") as scene:
        if any(MOVERS[one][0] == QEMU for one in movers):
            for host in scene.lab.hosts:
                start_libvirt(host)
        record["versions"] = versions(scene)
        print(", ".join("%s %s" % pair for pair in record["versions"].items()))
        for kind in kinds:
            for rate in rates:
                record["results"].append({"guest": kind, "rate": rate,
                                          "movers": measure(scene, kind, rate, movers)})
    runs = [run for result in record["results"] for mover in result["movers"].values()
            for run in mover["runs"]]
    busy = sum(run["busy_before"] > BUSY_SHARE for run in runs)
    record["busy"] = "%d of %d moves began on a busy machine" % (busy, len(runs))
    print("\n" + record["busy"] + (": run it again with nothing else running" if busy else ""))
    path = pathlib.Path(os.environ.get("VZ_BUILD", SOURCE / "build")) / "bench.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("written: %s" % os.path.relpath(path))


if __name__ == "__main__":
    main()
