"""The commit protocol, checked by spin: docs/model/README.md. Configurations that must hold, with a
complete search, and mutations, each of which must be caught. With VZ_LONG=1 more faults at once.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402

MODELS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "model"
LONG = os.environ.get("VZ_LONG") == "1"
RUN_TIMEOUT_S = 600 if LONG else 120
DEPTH_MAX = 1000000
MEMORY_MIB = 6000

ONE = {"crashes_max": 1, "losses_max": 1, "starts_max": 1}
TWO = {"crashes_max": 2, "losses_max": 1, "starts_max": 1, "decides": 1}
POSTCOPY = {"crashes_max": 1, "losses_max": 1, "p2p": 1, "postcopy": 1}
PAIR = {"hosts": 2, "moves_max": 2, "starts_max": 2, "users_max": 2}
TRIO = {"hosts": 3, "moves_max": 2, "starts_max": 1, "users_max": 1, "crashes_max": 1}

# What must hold.
HOLD = {
    "commit": [{}, {"p2p": 1}, ONE, {**ONE, "p2p": 1}, {**ONE, "stay": 1}, {**ONE, "early": 1},
               {**ONE, "decides": 1}, POSTCOPY, {**TWO, "p2p": 1}],
    "journey": [PAIR, TRIO],
}
HOLD_LONG = {
    "commit": [TWO, {**TWO, "losses_max": 2}, {**TWO, "forgetful": 1}, {**TWO, "early": 1, "stay": 1},
               {**POSTCOPY, "crashes_max": 2, "decides": 1}],
    "journey": [{**PAIR, "crashes_max": 1, "losses_max": 1}, {**TRIO, "starts_max": 2, "users_max": 2},
                {**TRIO, "moves_max": 3, "crashes_max": 0, "starts_max": 2, "users_max": 2}],
}
# Where a mutation is looked for, in this order: the first that catches it will do.
HUNT = {
    "commit": [{}, ONE, {**ONE, "p2p": 1}, {**ONE, "early": 1}, POSTCOPY, TWO,
               {**POSTCOPY, "crashes_max": 2, "decides": 1}, {**TWO, "forgetful": 1}],
    "journey": [PAIR, TRIO, {**TRIO, "starts_max": 2, "users_max": 2},
                {**TRIO, "moves_max": 3, "crashes_max": 0, "starts_max": 2, "users_max": 2},
                {**TRIO, "starts_max": 2, "users_max": 2, "losses_max": 1}],
}
# They need more faults at once than `make check` has time for.
ONLY_LONG = {"commit": {14, 18, 20, 24, 25, 27, 28, 29, 30, 31}, "journey": set()}

work = None


def setUpModule():
    global work
    work = tempfile.TemporaryDirectory(prefix="vz-model-")
    for name in HOLD:
        place = pathlib.Path(work.name) / name
        place.mkdir()
        for command in (["spin", "-a", str(MODELS / (name + ".pml"))],
                        ["cc", "-O2", "-w", "-DSAFETY", "-DCOLLAPSE", "-DMEMLIM=%d" % MEMORY_MIB,
                         "-o", "pan", "pan.c"]):
            done = subprocess.run(command, cwd=place, text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, check=False)
            if done.returncode != 0:
                raise RuntimeError("%s: %s" % (command, done.stdout))


def tearDownModule():
    work.cleanup()


def mutations(name):
    """{number: word}, from the model's own list."""
    text = (MODELS / (name + ".pml")).read_text()
    lines = re.findall(r"#define ([a-z]\w+) +(\d+) +/\*", text)
    return {int(number): word for word, number in lines}


def search(name, settings):
    """(errors, what spin printed). A search that was not complete is a failure."""
    environment = {**os.environ, **{key: str(value) for key, value in settings.items()}}
    done = subprocess.run(["./pan", "-m%d" % DEPTH_MAX], cwd=pathlib.Path(work.name) / name,
                          env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=RUN_TIMEOUT_S, check=False)
    found = re.search(r"errors: (\d+)", done.stdout)
    if not found or "too small" in done.stdout or "out of memory" in done.stdout:
        raise AssertionError("the search did not end: " + done.stdout[-2000:])
    return int(found.group(1)), done.stdout


class Holds(unittest.TestCase):
    def one(self, name, settings):
        errors, text = search(name, settings)
        self.assertEqual(errors, 0, text[:2000])
        self.assertNotIn("Search not completed", text)


class Mutations(unittest.TestCase):
    def one(self, name, number):
        for settings in HUNT[name]:
            errors, text = search(name, {**settings, "mutation": number})
            if errors:
                self.assertIn("assertion violated", text)
                return
        self.fail("no configuration catches it")


def add():
    for name in HOLD:
        for number, settings in enumerate(HOLD[name] + (HOLD_LONG[name] if LONG else [])):
            setattr(Holds, "test_%s_%02d" % (name, number),
                    lambda self, name=name, settings=settings: self.one(name, settings))
        for number, word in mutations(name).items():
            if number in ONLY_LONG[name] and not LONG:
                continue
            setattr(Mutations, "test_%s_%s" % (name, word),
                    lambda self, name=name, number=number: self.one(name, number))


add()

if __name__ == "__main__":
    tap.main()
