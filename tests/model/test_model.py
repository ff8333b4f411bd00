"""The commit protocol, checked by spin: docs/model/README.md. Configurations that must hold, with a
complete search, and mutations, each of which must be caught. With VZ_LONG=1 more faults at once.
"""

import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import tap  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "docs" / "model"
LONG = os.environ.get("VZ_LONG") == "1"
RUN_TIMEOUT_S = 600 if LONG else 240
SEARCHES_AT_ONCE = 2
DEPTH_MAX = 20000
HASH_BITS = 20
MEMORY_MIB = 6000

ONE = {"crashes_max": 1, "losses_max": 1, "starts_max": 1}
TWO = {"crashes_max": 2, "losses_max": 1, "starts_max": 1}
# Nobody starts anything, so that what is lost is not made good by a start.
ALONE = {"crashes_max": 1, "losses_max": 1, "p2p": 1}
RESOLVED = {**TWO, "decides": 1}
POSTCOPY = {"crashes_max": 1, "losses_max": 1, "p2p": 1, "postcopy": 1}
PAIR = {"hosts": 2, "moves_max": 2, "starts_max": 2, "users_max": 2}
TRIO = {"hosts": 3, "moves_max": 2, "starts_max": 1, "users_max": 1, "crashes_max": 1}
FAR = {"hosts": 3, "moves_max": 3, "starts_max": 2, "users_max": 1, "crashes_max": 1}

# What must hold.
HOLD = {
    "commit": [{}, {"p2p": 1}, ONE, {**ONE, "p2p": 1}, {**ONE, "stay": 1}, {**ONE, "early": 1},
               {**ONE, "decides": 1}, ALONE, POSTCOPY, TWO, {**RESOLVED, "p2p": 1}],
    "journey": [PAIR, {**PAIR, "crashes_max": 1, "losses_max": 1}, TRIO, FAR],
}
HOLD_LONG = {
    "commit": [RESOLVED, {**RESOLVED, "starts_max": 0}, {**RESOLVED, "losses_max": 2}, {**RESOLVED, "starts_max": 2},
               {**RESOLVED, "forgetful": 1}, {**RESOLVED, "early": 1, "stay": 1},
               {**POSTCOPY, "crashes_max": 2, "decides": 1}],
    "journey": [{**TRIO, "starts_max": 2, "users_max": 2, "losses_max": 1},
                {**FAR, "users_max": 2}, {**FAR, "losses_max": 1}, {**FAR, "crashes_max": 2}],
}
# Where a mutation is looked for, in this order: the first that catches it will do.
HUNT = {
    "commit": [{}, ONE, {**ONE, "early": 1}, ALONE, POSTCOPY, TWO, RESOLVED, {**RESOLVED, "forgetful": 1}],
    "journey": [PAIR, TRIO, FAR],
}

work = None
pool = concurrent.futures.ThreadPoolExecutor(SEARCHES_AT_ONCE)
jobs = {}  # name of a test: what it waits for


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
    for test, (function, arguments) in jobs.items():
        jobs[test] = pool.submit(function, *arguments)


def tearDownModule():
    pool.shutdown(cancel_futures=True)
    work.cleanup()


def mutations(name):
    """{number: word}, from the model's own list."""
    text = (MODELS / (name + ".pml")).read_text()
    lines = re.findall(r"#define ([a-z]\w+) +(\d+) +/\*", text)
    return {int(number): word for word, number in lines}


def search(name, settings):
    """(errors, what spin printed). A search that was not complete is a failure."""
    environment = {**os.environ, **{key: str(value) for key, value in settings.items()}}
    done = subprocess.run(["./pan", "-m%d" % DEPTH_MAX, "-w%d" % HASH_BITS],
                          cwd=pathlib.Path(work.name) / name, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=RUN_TIMEOUT_S,
                          check=False)
    found = re.search(r"errors: (\d+)", done.stdout)
    if not found or "too small" in done.stdout or "out of memory" in done.stdout:
        raise AssertionError("the search did not end: " + done.stdout[-2000:])
    return int(found.group(1)), done.stdout


def hunt(name, number):
    """What spin printed where the mutation was caught; else None."""
    for settings in HUNT[name]:
        errors, text = search(name, {**settings, "mutation": number})
        if errors:
            return text
    return None


class Holds(unittest.TestCase):
    def one(self, test):
        errors, text = jobs[test].result()
        self.assertEqual(errors, 0, text[:2000])
        self.assertNotIn("Search not completed", text)


class Mutations(unittest.TestCase):
    def one(self, test):
        text = jobs[test].result()
        self.assertIsNotNone(text, "no configuration catches it")
        self.assertIn("assertion violated", text)


class Words(unittest.TestCase):
    """The model speaks of what the code calls so."""

    def model(self, name, word):
        """The mtype declaration in which a word stands."""
        text = (MODELS / (name + ".pml")).read_text()
        for words in re.findall(r"^mtype = \{(.*?)\};", text, re.MULTILINE | re.DOTALL):
            names = {one.strip() for one in words.split(",")}
            if word in names:
                return names
        return self.fail("no mtype has " + word)

    def code(self, file, pattern):
        found = re.findall(pattern, (ROOT / "src" / "migrate" / file).read_text())
        self.assertTrue(found, "%s has no such table any more" % file)
        return {word.replace("-", "_") for word in found}

    def test_records(self):
        records = self.code("journal.c", r'\[VZ_RECORD_\w+\] = "(.*?)"')
        self.assertEqual(self.model("commit", "no_record") - {"no_record"}, records)
        self.assertLessEqual(self.model("journey", "no_record") - {"no_record"}, records)

    def test_verdicts(self):
        verdicts = self.code("verdict.c", r'\{"(\w+)", VZ_OUTCOME_')
        answers = {word[len("Answer_"):] for word in self.model("commit", "Answer_wait")
                   if word.startswith("Answer_")}
        self.assertEqual(answers, verdicts)


def add_test(group, test, function, *arguments):
    jobs[test] = (function, arguments)
    setattr(group, test, lambda self: self.one(test))


def add():
    for name in HOLD:
        for number, settings in enumerate(HOLD[name] + (HOLD_LONG[name] if LONG else [])):
            add_test(Holds, "test_hold_%s_%02d" % (name, number), search, name, settings)
        for number, word in mutations(name).items():
            add_test(Mutations, "test_%s_%s" % (name, word), hunt, name, number)


add()

if __name__ == "__main__":
    tap.main()
