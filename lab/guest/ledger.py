"""What the beats of one guest say about it: the longest silence, what was lost, whether the counter
went back, and whether two copies of the guest answered at once.

A guest that moves has the same id, boot id and MAC on both hosts, so copies are told apart by
history. A beat carries its own time and the time since the beat before it, in microseconds of the
guest's clock; so each beat names its predecessor exactly. Beats that follow from each other make a
line. A beat that follows from none begins a new line: the guest was rolled back, rebooted, or
copied. When an older line goes on after a newer one has spoken, two copies are alive at once.

Pure logic, no clocks and no sockets: the caller gives the arrival time. Used by observer.py.
"""

import collections
import re

MARKS_MAX = 64
LINES_MAX = 64
SAYS_MAX = 200
GUESTS_MAX = 256
GAPS_MAX = 1000
HISTORY_MAX = 4096  # beats of a line that are remembered, to tell late beats from forks
RECENT_MAX = 4096  # arrivals kept for `watch`

# A silence of this length or more is listed by itself, not only as the longest.
GAP_LISTED_MS = 50

Beat = collections.namedtuple("Beat", "guest boot counter time_us delta_us verified errors")
_BEAT = re.compile(r"(\S+) ([0-9a-f]+) (\d+) (\d+) (\d+) (\d+) (\d+)\Z")


def parse(text):
    """The Beat of `ID BOOT COUNTER TIME_US DELTA_US VERIFIED ERRORS`, or None."""
    match = _BEAT.match(text)
    if not match:
        return None
    guest, boot, *numbers = match.groups()
    return Beat(guest, boot, *map(int, numbers))


def same(one, other):
    """True for two copies of one beat. VERIFIED may differ: an answer to a poll tells it as it is."""
    return one is not None and one[:5] == other[:5]


class Line:
    """Beats of one boot that follow from each other."""

    def __init__(self, beat):
        self.boot = beat.boot
        self.first = beat.counter
        self.last = beat
        self.history = collections.OrderedDict()
        self.note(beat)

    def note(self, beat):
        self.history[beat.counter] = beat
        if len(self.history) > HISTORY_MAX:
            self.history.popitem(last=False)

    def continues(self, beat):
        """True when beat is the very next one: its predecessor is the last one heard."""
        return (beat.boot == self.boot and beat.counter == self.last.counter + 1
                and beat.time_us - beat.delta_us == self.last.time_us)

    def may_continue(self, beat):
        """True when beat can be a later one of this line, with some lost between."""
        return (beat.boot == self.boot and beat.counter > self.last.counter + 1
                and beat.time_us - beat.delta_us > self.last.time_us)

    def is_late(self, beat):
        """True when beat is a lost one of this line that arrives after its successor."""
        if beat.boot != self.boot or beat.counter in self.history:
            return False
        if not self.first < beat.counter < self.last.counter:
            return False
        after = self.history.get(beat.counter + 1)
        if after:
            return after.time_us - after.delta_us == beat.time_us
        before = self.history.get(beat.counter - 1)
        return bool(before) and beat.time_us - beat.delta_us == before.time_us


class Mark:
    """What happened since a moment."""

    def __init__(self, at, guest):
        self.at = at
        self.beats = self.lost = self.late = self.duplicate = 0
        self.forks = self.back = self.interleaved = self.boots = 0
        self.longest = (0.0, None, None)  # seconds, its end, the counter after it
        self.errors_before = guest.errors_total
        self.gaps = []

    def silence(self, seconds, end, counter):
        if seconds > self.longest[0]:
            self.longest = (seconds, end, counter)
        if seconds * 1000 >= GAP_LISTED_MS and len(self.gaps) < GAPS_MAX:
            self.gaps.append((seconds, end, counter))


class Guest:
    """One guest id: its lines, marks and what it said."""

    def __init__(self, name, at, sampled):
        self.name = name
        self.sampled = sampled  # beats are answers to polls: counters have holes of right
        self.lines = []
        self.current = None
        self.last_at = None
        self.highest = 0
        self.boots = []
        self.errors_total = 0
        self.errors_seen = {}
        self.verified = 0
        self.says = collections.deque(maxlen=SAYS_MAX)
        self.sources = {}
        self.recent = collections.deque(maxlen=RECENT_MAX)
        self.marks = {"start": Mark(at, self)}

    def mark(self, name, at):
        self.marks[name] = Mark(at, self)

    def count(self, field, amount=1):
        for mark in self.marks.values():
            setattr(mark, field, getattr(mark, field) + amount)

    def beat(self, at, beat, source=None):
        """Takes one beat that arrived at `at` (seconds, monotonic)."""
        if source:
            self.sources[source] = self.sources.get(source, 0) + 1
        self.count("beats")
        if self.last_at is not None:
            for mark in self.marks.values():
                mark.silence(at - self.last_at, at, beat.counter)
        self.last_at = at
        self.recent.append((at, beat.counter))
        self.take_errors(beat)
        self.verified = beat.verified
        self.assign(beat)
        self.highest = self.current.last.counter

    def take_errors(self, beat):
        before = self.errors_seen.get(beat.boot, 0)
        if beat.errors > before:
            self.errors_total += beat.errors - before
            self.errors_seen[beat.boot] = beat.errors

    def assign(self, beat):
        newest_first = sorted(self.lines, key=lambda line: line is not self.current)
        for line in newest_first:
            if line.continues(beat):
                return self.extend(line, beat, 0)
        for line in newest_first:
            if line.boot == beat.boot and same(line.history.get(beat.counter), beat):
                return None if self.sampled else self.count("duplicate")
            if line.is_late(beat):
                line.note(beat)
                self.count("late")
                return self.count("lost", -1)
        for line in newest_first:
            if line.may_continue(beat):
                return self.extend(line, beat, beat.counter - line.last.counter - 1)
        return self.begin(beat)

    def extend(self, line, beat, lost):
        if not self.sampled:
            self.count("lost", lost)
        if line is not self.current:
            self.count("interleaved")
            self.current = line
        line.last = beat
        line.note(beat)

    def begin(self, beat):
        """A beat that follows from nothing that was heard."""
        if beat.boot not in self.boots:
            self.boots.append(beat.boot)
            self.count("boots")
        else:
            self.count("forks")
            heard = [line.last.counter for line in self.lines if line.boot == beat.boot]
            if heard and beat.counter <= max(heard):
                self.count("back")
        if len(self.lines) >= LINES_MAX:
            self.lines.pop(0)
        self.current = Line(beat)
        self.lines.append(self.current)

    def say(self, at, text):
        self.says.append((at, text))

    def report(self, now, name="start"):
        """Everything since a mark, ready for JSON. Times are seconds since the mark."""
        mark = self.marks[name]
        silent = now - (self.last_at if self.last_at is not None else mark.at)
        longest, end, counter = mark.longest
        if silent > longest:  # a guest that is silent now must not look well
            longest, end, counter = silent, None, None
        report = {
            "guest": self.name,
            "boot": self.current.boot if self.current else None,
            "boots": mark.boots,
            "seconds": round(now - mark.at, 3),
            "beats": mark.beats,
            "counter": self.highest,
            "longest_gap_ms": round(longest * 1000, 1),
            "longest_gap_ended_s": None if end is None else round(end - mark.at, 3),
            "longest_gap_counter": counter,
            "gaps": [{"ms": round(gap * 1000, 1), "ended_s": round(at - mark.at, 3), "counter": n}
                     for gap, at, n in mark.gaps],
            "silent_ms": round(silent * 1000, 1),
            "lost": mark.lost,
            "late": mark.late,
            "duplicate": mark.duplicate,
            "counter_back": mark.back,
            "forks": mark.forks,
            "interleaved": mark.interleaved,
            "two_at_once": mark.interleaved > 0,
            "verified": self.verified,
            "errors": self.errors_total - mark.errors_before,
            "errors_total": self.errors_total,
            "says": [text for at, text in self.says if at >= mark.at],
            "sources": self.sources,
        }
        report["problems"] = problems(report)
        return report


def problems(report):
    """The parts of a report that are never right, in words; empty if there are none."""
    found = []
    if report["beats"] == 0:
        found.append("no beat")
    if report["two_at_once"]:
        found.append("two copies answered at once")
    if report["counter_back"]:
        found.append("the counter went back")
    elif report["forks"]:
        found.append("a second history of the same boot")
    if report["errors"]:
        found.append("the guest found %d error(s)" % report["errors"])
    found += ["the guest said: " + text for text in report["says"] if is_trouble(text)]
    return found


_TROUBLE = re.compile(r"\berror\b|Kernel panic|\bOops\b|\bBUG:|general protection|"
                      r"soft lockup|rcu.*(stall|detected)|Call Trace|I/O error")


def is_trouble(text):
    return bool(_TROUBLE.search(text))


class Ledger:
    """All guests of an observer; takes lines of text as the guest says them."""

    def __init__(self, sampled=False):
        self.guests = {}
        self.marks = {}
        self.sampled = sampled
        self.garbled = 0

    def guest(self, name, at):
        if name not in self.guests:
            guest = Guest(name, at, self.sampled)
            for mark, since in self.marks.items():
                guest.mark(mark, since)
            self.guests[name] = guest
        return self.guests[name]

    def mark(self, name, at):
        """Begins to count anew under a name, for guests that are known and those still to come."""
        if name not in self.marks and len(self.marks) >= MARKS_MAX:
            raise ValueError("too many marks (%d)" % MARKS_MAX)
        self.marks[name] = at
        for guest in self.guests.values():
            guest.mark(name, at)

    def line(self, at, text, source=None):
        """One datagram, or one line of a console. Returns its Beat, if it was one."""
        word, _, rest = text.partition(" ")
        name = rest.partition(" ")[0]
        full = name not in self.guests and len(self.guests) >= GUESTS_MAX
        if word == "beat" and not full:
            beat = parse(rest)
            if beat:
                self.guest(beat.guest, at).beat(at, beat, source)
                return beat
        elif word == "say" and rest.count(" ") >= 2 and not full:
            said = rest.split(" ", 2)[2]
            self.guest(name, at).say(at, said)
            return None
        self.garbled += 1
        return None

    def report(self, now, mark="start", name=None):
        if name is not None:
            return self.guests[name].report(now, mark)
        return {name: guest.report(now, mark) for name, guest in self.guests.items()}
