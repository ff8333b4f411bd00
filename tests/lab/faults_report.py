"""What a run of the fault matrix says of itself: docs/generated/faults.md."""

import collections
import datetime
import subprocess

import faults
import matrix

COLUMNS = ("stayed", "moved", "died", "doubted", "failed", "dropped")
TEXT_MAX = 300


def git(*words):
    return subprocess.run(["git", "-C", str(matrix.SOURCE), *words], stdout=subprocess.PIPE,
                          text=True, check=True).stdout.strip()


def commit():
    """The commit that is run, and whether it is all there is to say."""
    changed = git("status", "--porcelain", "--", "src", "defs", "lab", "tests", "tools")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes not committed" if changed else "")


class Report:
    def __init__(self, seed, total, left_out):
        self.seed, self.total, self.left_out = seed, total, left_out
        self.commit = commit()
        self.date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC")

    def text(self, done, seconds):
        verdicts = collections.Counter(result.verdict for _, result in done)
        return "\n".join(["# The fault matrix, as last run", "",
                          "Written by `make check-faults`; not to be edited. See "
                          "[testing.md](../testing.md).", "",
                          *self.head(done, seconds, verdicts), "",
                          *table(done), "", *failures(done, self.seed)]) + "\n"

    def head(self, done, seconds, verdicts):
        if len(done) < self.total:
            part = "**A part only: %d of %d cases were run (%.1f %%).** The others were not." % (
                len(done), self.total, 100 * len(done) / self.total)
        else:
            part = "All %d cases were run." % self.total
        return [part, "",
                "- Begun %s, %.0f minutes; commit %s; seed %d" % (self.date, seconds / 60, self.commit,
                                                                 self.seed),
                "- %d passed, %d failed, %d dropped: there was nothing to break at that point" % (
                    verdicts["passed"], verdicts["failed"], verdicts["dropped"]),
                *("- Not counted as cases: %d, since %s" % (number, rule)
                  for rule, number in self.left_out.items())]


def table(done):
    """fault by result; a passed case counts under what became of the guest."""
    count = collections.Counter((case.fault, result.outcome if result.verdict == "passed"
                                 else result.verdict) for case, result in done)
    yield "A case that passed counts under what became of the guest."
    yield ""
    yield "| fault | run | %s |" % " | ".join(COLUMNS)
    yield "|---|%s" % ("---|" * (len(COLUMNS) + 1))
    for fault in faults.FAULTS:
        row = [count[fault, column] for column in COLUMNS]
        yield "| %s | %s |" % (fault, " | ".join(str(one or "") for one in (sum(row) or "0", *row)))


def failures(done, seed):
    failed = [(number, case, result) for number, (case, result) in enumerate(done, 1)
              if result.verdict == "failed"]
    yield "## Failures"
    yield ""
    if not failed:
        yield "None among those that were run."
    for number, case, result in failed:
        yield "- Number %d of seed %d: %s" % (number, seed,
                                             " ".join(result.text.split())[:TEXT_MAX])
        yield "  `tests/lab/run_faults.py --case %s`" % matrix.name(case)
