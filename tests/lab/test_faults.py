"""A sample of the fault matrix (matrix.py): each step, each fault, and what is crucial. VZ_TEST_SEED
chooses another one. All of it: make check-faults. One case:

    tests/lab/run_faults.py --case release:kill-source-daemon:after:p2p:live
"""

import os
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import faults  # noqa: E402
import matrix  # noqa: E402
import tap  # noqa: E402
import trial  # noqa: E402

SEED = int(os.environ.get("VZ_TEST_SEED", "1"))
field = None


def setUpModule():
    global field
    field = trial.Field(os.environ.get("VZ_TEST_LAB", "faults"), matrix.BUILD / "faults")
    field.up()


def tearDownModule():
    field.down()


class Tables(unittest.TestCase):
    def test_every_step_is_in_the_matrix(self):
        self.assertEqual(matrix.unreached(), [], "no move of the matrix has these steps: give matrix.py "
                         "the option that brings their fact about")


class Sample(unittest.TestCase):
    def one(self, case):
        if faults.FAULTS[case.fault].fuse and not os.access("/dev/fuse", os.R_OK | os.W_OK):
            self.skipTest("this kernel has no FUSE")
        result = field.run(case)
        print("%s: %s %s" % (matrix.name(case), result.outcome or result.verdict, result.text))
        if result.verdict == "failed":
            for path in sorted(field.logs_of(case).glob("*.log")):
                print("--- %s" % path, *path.read_text().splitlines()[-60:], sep="\n", file=sys.stderr)
            self.fail("%s\nrepeat it: tests/lab/run_faults.py --case %s" %
                      (result.text, matrix.name(case)))


def add(number, case):
    name = "test_%02d_%s" % (number, matrix.name(case).replace(":", "_").replace("-", "_"))
    setattr(Sample, name, lambda self: self.one(case))


for index, chosen in enumerate(matrix.sample(SEED)):
    add(index, chosen)


if __name__ == "__main__":
    tap.main()
