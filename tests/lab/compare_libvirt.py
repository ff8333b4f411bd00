"""The mistakes of mistakes.py, made against virtvzd and against a real libvirtd with its qemu driver, and
what both answer, compared: docs/generated/mistakes.md.

    make compare                                asks both and writes the document, in minutes
    tests/lab/compare_libvirt.py --write vz     asks virtvzd, and keeps libvirtd's answers

Both end with exit code 1 if a difference lacks a reason. As a test it asks virtvzd only, and takes
libvirtd's answers from the document; with VZ_LONG=1 it asks
both. The document must then be what it is. Code and prefix ("argument unsupported: ") must be the same,
or a row of docs/decisions/0030-migration-options.md says why not; a row that says why of no difference
fails, too. Each daemon has its own pair of lab hosts' sockets and its own, otherwise equal, guest.
"""

import collections
import difflib
import fnmatch
import json
import os
import re
import sys
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "support"), os.path.join(HERE, "..", "bench")]
import mistakes  # noqa: E402
import tap  # noqa: E402
from hosts import Lab  # noqa: E402
from migrate import QEMU, start_libvirt  # noqa: E402

LONG = os.environ.get("VZ_LONG") == "1"
DOCUMENT = mistakes.SOURCE / "docs" / "generated" / "mistakes.md"
DECISION = mistakes.SOURCE / "docs" / "decisions" / "0030-migration-options.md"
REASONS = "## Mistakes that are answered differently"
ERRORS = (mistakes.SOURCE / "defs" / "errors.def").read_text()
PREFIXES = {int(code): prefix for code, prefix in
            re.findall(r'^ERROR\(\w+,\s*(\d+),\s*"([^"]*)"\)', ERRORS, re.M)}
URIS = {"qemu": QEMU, "vz": "vz:///system"}
TIMEOUT_S = 1500  # libvirtd makes and ends some fifty guests
# What is another one in each run.
VARIABLE = ((r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID"),
            (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?Z?", "TIME"), (r":49[12]\d\d\b", ":PORT"),
            (r"\bprocess \d+", "process PID"),
            (r"\s*\n\s*", " / "))

Row = collections.namedtuple("Row", "mistake way theirs ours")
Reason = collections.namedtuple("Reason", "patterns words text")


def spoken(answer):
    """An answer as the document has it: 'accepted', 'accepted: VALUE', or 'CODE TEXT'."""
    if answer["code"] == 0:
        return "accepted" + (": %s" % answer["value"] if answer["value"] is not None else "")
    text = answer["text"]
    for pattern, word in VARIABLE:
        text = re.sub(pattern, word, text)
    return "%d %s" % (answer["code"], text)


def essence(cell):
    """What must be the same of an answer: code and prefix, or the value."""
    code, _, text = cell.partition(" ")
    if not code.isdigit():
        return cell
    prefix = PREFIXES.get(int(code), "")
    return code, prefix if text.startswith(prefix) else ""


def ask(host, kind, errors):
    """[(mistake, way, answer)] of one daemon; a failure goes to errors."""
    cases = mistakes.cases(kind)
    program = (mistakes.SOURCE / "tests" / "lab" / "mistakes_client.py").read_text()
    for number, one in enumerate(host.lab.hosts):
        one.run("truncate", "-s", "%dM" % (number + 1), "/local/mistaken-%s.img" % kind)
    done = host.run("python3", "-c", program, URIS[kind], mistakes.Mistakes(kind).uri("hostb"),
                    input=json.dumps(cases), timeout=TIMEOUT_S, check=False)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(cases):
        errors.append("%s, at '%s': %s" % (kind, cases[len(answers)]["mistake"], done.stderr))
    return [(case["mistake"], case.get("way", "call"), spoken(answer))
            for case, answer in zip(cases, answers)]


def ask_all(kinds):
    """{kind: what ask() returns}, of all at once."""
    found, errors = {}, []
    with Lab(os.environ.get("VZ_TEST_LAB", "compare")) as lab:
        if "qemu" in kinds:
            for host in lab.hosts:
                start_libvirt(host)
        threads = [threading.Thread(target=lambda kind=kind: found.update(
            {kind: ask(lab.hosts[0], kind, errors)})) for kind in kinds]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    if errors:
        raise AssertionError("; ".join(errors))
    return found


def cells(line):
    return [one.strip().replace("\\|", "|") for one in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def read_document():
    """The answers of libvirtd as ask() gives them, and with what words the document begins."""
    if not DOCUMENT.exists():
        return [], ""
    text = DOCUMENT.read_text(encoding="utf-8")
    rows = [cells(line) for line in text.splitlines() if line.startswith("| ")][1:]
    ways = {"both": ("p2p", "managed")}
    version = re.search(r"libvirt (\d[\d.]*)", text)
    return [(mistake, one, theirs) for mistake, way, theirs, *_ in rows
            for one in ways.get(way, (way,))], version.group(1) if version else ""


def read_reasons():
    _, _, text = DECISION.read_text(encoding="utf-8").partition(REASONS)
    found = []
    for line in text.split("\n## ")[0].splitlines():
        if line.startswith("| `"):
            patterns, words, why = cells(line)
            found.append(Reason(re.findall("`([^`]*)`", patterns), words.strip("`"), why))
    return found


def reason_of(row, reasons):
    for reason in reasons:
        if reason.words in row.ours and any(fnmatch.fnmatchcase(row.mistake, one)
                                            for one in reason.patterns):
            return reason
    return None


def joined(theirs, ours):
    """The rows of the document: p2p and managed in one where both answer the same."""
    answers = {(mistake, way): answer for mistake, way, answer in theirs}
    rows = [Row(mistake, way, answers.get((mistake, way), "not asked"), answer)
            for mistake, way, answer in ours]
    found = []
    for row in rows:
        last = found[-1] if found else None
        if last and (last.mistake, last.way, row.way) == (row.mistake, "p2p", "managed") and \
                last[2:] == row[2:]:
            found[-1] = row._replace(way="both")
        else:
            found.append(row)
    return found


def differs(row):
    return essence(row.theirs) != essence(row.ours)


def document(rows, reasons, version):
    head = ["# Mistakes, and what libvirt and virtvz answer", "",
            "Written by `make compare`; not to be edited. See [testing.md](../testing.md).", "",
            "Each call was made by libvirt's own client library against libvirt %s with its qemu driver "
            "and against virtvzd, peer to peer, managed, or both. %d of %d answers differ in code or "
            "prefix; why is said by [decision 0030](../decisions/0030-migration-options.md)." % (
                version, sum(map(differs, rows)), len(rows)), "",
            "| mistake | way | libvirt | virtvz | why they differ |", "|---|---|---|---|---|"]
    lines = []
    for row in rows:
        reason = reason_of(row, reasons) if differs(row) else None
        why = reason.text if reason else "**no reason**" if differs(row) else ""
        lines.append("| %s |" % " | ".join(one.replace("|", "\\|") for one in (*row, why)))
    return "\n".join(head + lines) + "\n"


def problems(rows, reasons):
    """Differences without a reason, and reasons without a difference."""
    different = [row for row in rows if differs(row)]
    for row in different:
        if not reason_of(row, reasons):
            yield "no reason for '%s' (%s):\n  libvirt: %s\n  virtvz:  %s" % row
    used = {id(reason_of(row, reasons)) for row in different}
    for reason in reasons:
        if id(reason) not in used:
            yield "nothing differs any more by: %s '%s'" % (reason.patterns, reason.words)


def libvirt_version():
    with Lab(os.environ.get("VZ_TEST_LAB", "compare"), hosts=1, daemon=False) as lab:
        return lab.hosts[0].out("libvirtd", "--version").split()[-1]


class Compare(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        theirs, cls.version = read_document()
        found = ask_all(("qemu", "vz") if LONG else ("vz",))
        cls.rows = joined(found.get("qemu", theirs), found["vz"])
        cls.reasons = read_reasons()

    def test_each_difference_has_a_reason_and_each_reason_a_difference(self):
        found = list(problems(self.rows, self.reasons))
        self.assertFalse(found, "\n".join(found))

    def test_the_document_says_so(self):
        """If not: see above how it is written; look at what is different, commit it."""
        lines = (DOCUMENT.read_text(encoding="utf-8"), document(self.rows, self.reasons, self.version))
        found = list(difflib.unified_diff(*(text.splitlines() for text in lines), "committed", "now",
                                          n=0, lineterm=""))
        self.assertFalse(found, "\n".join(found))

    def test_many_mistakes_are_made(self):
        """The table was read: rules, and each parameter of the wrong type."""
        self.assertGreater(len(self.rows), 2 * len(mistakes.RULES) + len(mistakes.PARAMS))


def write(kinds):
    theirs, version = read_document()
    if "qemu" in kinds:
        version = libvirt_version()
    found = ask_all(kinds)
    rows, reasons = joined(found.get("qemu", theirs), found["vz"]), read_reasons()
    DOCUMENT.write_text(document(rows, reasons, version), encoding="utf-8")
    wrong = list(problems(rows, reasons))
    print("\n".join([*wrong, "written: docs/generated/mistakes.md, %d rows, %d problems" % (
        len(rows), len(wrong))]))
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        sys.exit(write(sys.argv[2:] or ["qemu", "vz"]))
    tap.main()
