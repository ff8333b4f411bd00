"""The fault matrix, as far as it needs no lab: which cases there are.

A case is STEP:FAULT:WHEN:MODE:LIVE, such as release:kill-source-daemon:after:p2p:live. Steps come
from the daemon's own tables (build/print-steps), faults from faults.py: there is no other list of
either.
"""

import collections
import os
import pathlib
import random
import subprocess

import faults

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("VZ_BUILD") or SOURCE / "build")

WHENS = ("before", "after")
MODES = {"managed": (), "p2p": ("--p2p",)}
# How the guest moves: virsh's options, and the facts by which steps then run (migration.h).
OPTIONS = ("--persistent", "--undefinesource")
FACTS = {"disks", "persist-dest", "undefine-source"}
OFFLINE_FACTS = FACTS | {"offline"}  # not in the matrix: test_offline.py
POSTCOPY_FACTS = FACTS | {"postcopy"}  # nor these: test_postcopy.py
LIVES = {"live": (("--live",), set()), "coma": ((), {"coma"})}

Step = collections.namedtuple("Step", "side name phase kind needs forbidden")
Case = collections.namedtuple("Case", "step fault when mode live")


def words(text):
    return set() if text == "-" else set(text.split(","))


def read_steps():
    """All steps, in the order of a migration: Begin and Perform's of the source, ..."""
    text = subprocess.run([str(BUILD / "print-steps")], check=True, stdout=subprocess.PIPE,
                          text=True).stdout
    steps = [Step(*line.split()[:4], *map(words, line.split()[4:])) for line in text.splitlines()]
    order = ("begin", "prepare", "perform", "finish", "confirm")
    return sorted(steps, key=lambda step: order.index(step.phase))


STEPS = read_steps()
NAMES = [step.name for step in STEPS]
assert len(set(NAMES)) == len(NAMES), "two steps have one name: the matrix cannot tell them apart"


def step_of(case):
    return STEPS[NAMES.index(case.step)]


def has(step, facts):
    """Whether a step is part of a move with these facts."""
    return (not step.needs or step.needs & facts) and not step.forbidden & facts


def runs(step, live):
    return has(step, FACTS | LIVES[live][1])


def name(case):
    return ":".join(case)


def parse(text):
    case = Case(*text.split(":"))
    for field, known in zip(case, (NAMES, faults.FAULTS, WHENS, MODES, LIVES)):
        if field not in known:
            raise SystemExit("'%s' in '%s' is none of: %s" % (field, text, " ".join(known)))
    return case


def every_case():
    """(cases, {rule: how many it drops})"""
    cases, dropped = [], collections.Counter()
    for step in STEPS:
        for fault in faults.FAULTS:
            for when in WHENS:
                for mode in MODES:
                    for live in LIVES:
                        if runs(step, live):
                            cases.append(Case(step.name, fault, when, mode, live))
                        else:
                            dropped["the step is not part of such a move"] += 1
    return cases, dropped


def unreached():
    """Steps that no move of the matrix has, nor one of test_offline.py or test_postcopy.py."""
    return [step.name for step in STEPS if not has(step, OFFLINE_FACTS)
            and not has(step, POSTCOPY_FACTS) and not any(runs(step, live) for live in LIVES)]


def first_of(kind):
    """Of the destination's and the source's pivot the destination's: the order is the phases'."""
    return next(step for step in STEPS if step.kind == kind)


def after(case, kind):
    """Whether the fault comes when the first step of this kind has been run."""
    first, at = NAMES.index(first_of(kind).name), NAMES.index(case.step)
    return at > first or (at == first and case.when == "after")


# Always in a sample, since they have failed once.
ONCE_FAILED = ("meet-destination:kill-destination-qemu:before:p2p:live",
               "answer-disks:eio-destination:before:managed:coma",
               "open-channel:readonly-source:after:managed:coma")


def crucial():
    """Always in a sample: around the release, the commit and the start."""
    yield from map(parse, ONCE_FAILED)
    for step in STEPS:
        if step.kind == "release":
            yield Case(step.name, "kill-source-daemon", "after", "p2p", "live")
            yield Case(step.name, "kill-client", "after", "managed", "live")
            yield Case(step.name, "cut-3s", "after", "managed", "live")
        if step.kind == "pivot" and step.side == "destination":
            yield Case(step.name, "kill-destination-daemon", "before", "p2p", "live")
            yield Case(step.name, "kill-both-daemons", "after", "managed", "live")
            yield Case(step.name, "kill-destination-qemu", "after", "p2p", "live")
    yield Case(first_of("forward").name, "kill-destination-daemon", "after", "managed", "live")


def sample(seed):
    """Each step and each quick fault at least once, one slow fault, and what is crucial."""
    chance = random.Random(seed)
    cases, _ = every_case()
    names = [step.name for step in STEPS if any(runs(step, live) for live in LIVES)]
    chosen = [case for case in crucial() if case in cases]
    steps = [one for one in names if one not in {case.step for case in chosen}]
    quick = [one for one in faults.FAULTS if not faults.FAULTS[one].slow]
    slow = [one for one in faults.FAULTS if faults.FAULTS[one].slow]
    kinds = [one for one in quick if one not in {case.fault for case in chosen}]
    kinds.append(chance.choice(slow))
    chance.shuffle(steps)
    chance.shuffle(kinds)
    while steps or kinds:
        fault = kinds.pop() if kinds else chance.choice(quick)
        step = steps.pop() if steps else chance.choice(names)
        if faults.FAULTS[fault].victim and STEPS[NAMES.index(step)].phase != "finish":
            steps.insert(0, step)
            step = first_of("release").name
        fitting = [case for case in cases if case.step == step and case.fault == fault]
        chosen.append(chance.choice(fitting))
    return chosen


def shuffled(seed):
    """All cases in an order that makes any beginning of it a sample."""
    cases, dropped = every_case()
    random.Random(seed).shuffle(cases)
    return cases, dropped
