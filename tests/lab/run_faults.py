#!/usr/bin/env python3
"""The fault matrix, all of it: make check-faults.

  run_faults.py                    every case, in an order given by the seed; writes the report
  run_faults.py --case CASE...     these only, such as release:kill-source-daemon:after:p2p:live
  run_faults.py --list             prints the cases

VZ_FAULTS_MINUTES: begins no case after that time (default: runs all, which takes more than a day).
VZ_TEST_SEED: another order, so another part. The report is docs/generated/faults.md.
"""

import argparse
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faults_report  # noqa: E402
import matrix  # noqa: E402
import trial  # noqa: E402

LAB = os.environ.get("VZ_TEST_LAB", "faults")
LOGS = matrix.BUILD / "faults"
REPORT = matrix.SOURCE / "docs" / "generated" / "faults.md"


def run_case(field, case):
    result = field.run(case)
    print("%-7s %-6s %5.1f s  %s%s" % (result.verdict, result.outcome or "", result.seconds,
                                     matrix.name(case),
                                     "\n        " + result.text if result.text else ""),
          flush=True)
    return result


def run_matrix(minutes, seed):
    """Runs as many as there is time for. The report is written after each, so that an interrupted
    run leaves a true one."""
    cases, dropped = matrix.shuffled(seed)
    begun, done = time.monotonic(), []
    report = faults_report.Report(seed, len(cases), dropped)
    with trial.Field(LAB, LOGS) as field:
        for case in cases:
            if minutes and time.monotonic() - begun > minutes * 60:
                break
            done.append((case, run_case(field, case)))
            REPORT.write_text(report.text(done, time.monotonic() - begun))
    print("%d of %d cases: %s" % (len(done), len(cases), REPORT))
    return done


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--case", nargs="+", default=[], type=matrix.parse)
    options = parser.parse_args()
    if options.list:
        print(*map(matrix.name, matrix.every_case()[0]), sep="\n")
        return 0
    if options.case:
        with trial.Field(LAB, LOGS) as field:
            done = [(case, run_case(field, case)) for case in options.case]
    else:
        done = run_matrix(float(os.environ.get("VZ_FAULTS_MINUTES") or 0),
                          int(os.environ.get("VZ_TEST_SEED", "1")))
    return 1 if any(result.verdict == "failed" for _, result in done) or not done else 0


if __name__ == "__main__":
    sys.exit(main())
