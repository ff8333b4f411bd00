"""Runs unittest tests and reports each of them as TAP, so that meson and tests/run count them.

    if __name__ == "__main__":
        tap.main()

It takes the names of tests like unittest.main(). On a terminal, or with -v, it is unittest.main().
Tests that are marked @tap.long run where VZ_LONG=1 is set, or where they are named.
What tests and their children print goes to stderr: stdout is for TAP alone.
"""

import os
import sys
import time
import traceback
import unittest


LONG = os.environ.get("VZ_LONG") == "1"


def long(test):
    """Marks a test that is for `make check-long`."""
    test.long = True
    return test


def is_long(test):
    return getattr(getattr(test, getattr(test, "_testMethodName", ""), None), "long", False)


def flatten(suite):
    """The single tests of a suite, in its order."""
    for one in suite:
        if isinstance(one, unittest.TestSuite):
            yield from flatten(one)
        else:
            yield one


def one_line(text):
    return " ".join(str(text).split())


class TapResult(unittest.TestResult):
    """Prints one line a test when it ends. A test with failed sub-tests has failed, once."""

    def __init__(self, out):
        super().__init__()
        self.out = out
        self.number = 0
        self.reported = set()
        self.problems = {}  # of the test that runs: its failures, in full
        self.skip = None
        self.started = 0.0
        self.module_problem = None  # ("skip" or "fail", text): setUpModule or setUpClass ended so

    def say(self, text):
        self.out.write(text + "\n")
        self.out.flush()

    def report(self, test, ok, skip=None, detail=""):
        self.number += 1
        self.reported.add(id(test))
        for line in detail.splitlines():
            self.say("# " + line)
        directive = " # SKIP " + one_line(skip) if skip is not None else ""
        name = ".".join(test.id().split(".")[-2:])
        self.say("%s %d - %s%s" % ("ok" if ok else "not ok", self.number, name, directive))

    def startTest(self, test):
        super().startTest(test)
        self.problems = {}
        self.skip = None
        self.started = time.monotonic()
        self.say("# %s" % test.id())

    def stopTest(self, test):
        super().stopTest(test)
        seconds = time.monotonic() - self.started
        self.say("# took %.2f s" % seconds)
        skip = self.skip if not self.problems else None
        self.report(test, not self.problems, skip, "\n".join(self.problems.values()))

    def note(self, test, err, subtest=None):
        text = "".join(traceback.format_exception(*err))
        if isinstance(test, unittest.TestCase):
            self.problems[(subtest or test).id() + str(len(self.problems))] = text
        else:  # unittest's stand-in for a module or class whose setUp or tearDown failed
            self.module_problem = ("fail", text)

    def addError(self, test, err):
        self.note(test, err)

    addFailure = addError

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.note(test, err, subtest)

    def addUnexpectedSuccess(self, test):
        self.problems["unexpected"] = "%s was expected to fail" % test.id()

    def addSkip(self, test, reason):
        if isinstance(test, unittest.TestCase):
            self.skip = reason
        elif self.module_problem is None:
            self.module_problem = ("skip", reason)

    def finish(self, tests):
        """Reports the tests that were never started, since what they share could not be set up."""
        kind, text = self.module_problem or ("fail", "it was not run")
        left = [test for test in tests if id(test) not in self.reported]
        for test in left:
            if kind == "skip":
                self.report(test, True, text)
            else:
                self.report(test, False, None, text)
                text = "as above"
        if not left and self.module_problem and kind == "fail":  # a tearDown
            for line in text.splitlines():
                self.say("# " + line)
            self.say("Bail out! the tests' tear-down failed")


def run_tap(names):
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.stdout.flush()
    loader = unittest.defaultTestLoader
    module = sys.modules["__main__"]
    suite = loader.loadTestsFromNames(names, module) if names else loader.loadTestsFromModule(module)
    tests = [test for test in flatten(suite) if LONG or names or not is_long(test)]
    result = TapResult(out)
    result.say("1..%d" % len(tests))
    unittest.TestSuite(tests).run(result)
    result.finish(tests)


def main():
    names = sys.argv[1:]
    if os.isatty(1) or any(name.startswith("-") for name in names):
        unittest.main()
    run_tap(names)
