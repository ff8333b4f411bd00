#!/usr/bin/env python3
"""The observer's judgement, on beats made by hand: silence, loss, lateness, duplicates, rollback,
reboot, and two copies at once. Then the observer itself: datagrams, kernel time stamps, control."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
GUEST = os.path.join(HERE, "..", "..", "lab", "guest")
sys.path[:0] = [GUEST, os.path.join(HERE, "..", "support")]
import ledger  # noqa: E402  pylint: disable=wrong-import-position
import observer  # noqa: E402  pylint: disable=wrong-import-position
import tap  # noqa: E402  pylint: disable=wrong-import-position

BEAT_US = 10000


class Copy:
    """A guest's beats with its own jitter, as one copy of it would send them."""

    def __init__(self, seed=1, boot="ab01", counter=0, time_us=5_000_000, errors=0):
        self.random = random.Random(seed)
        self.boot, self.counter, self.time_us, self.errors = boot, counter, time_us, errors

    def fork(self, seed):
        return Copy(seed, self.boot, self.counter, self.time_us, self.errors)

    def beat(self):
        delta = BEAT_US + self.random.randint(-900, 900)
        self.counter += 1
        self.time_us += delta
        return "beat g %s %d %d %d 77 %d" % (self.boot, self.counter, self.time_us, delta,
                                             self.errors)


class Judgement(unittest.TestCase):
    def setUp(self):
        self.book = ledger.Ledger()
        self.now = 100.0
        self.one = Copy()

    def feed(self, *texts, step=0.010):
        for text in texts:
            self.now += step
            self.book.line(self.now, text, "10.0.0.1:7707")

    def run_of(self, copy, count):
        self.feed(*[copy.beat() for _ in range(count)])

    def report(self, mark="start"):
        return self.book.report(self.now, mark, "g")

    def test_quiet_run_has_no_problem(self):
        self.run_of(self.one, 500)
        found = self.report()
        self.assertEqual([], found["problems"])
        self.assertEqual((500, 500), (found["beats"], found["counter"]))
        self.assertEqual((0, 0, 0, 0), (found["lost"], found["late"], found["forks"],
                                        found["duplicate"]))
        self.assertAlmostEqual(10, found["longest_gap_ms"], delta=0.2)
        self.assertEqual(1, found["boots"])

    def test_longest_gap_and_where(self):
        self.run_of(self.one, 100)
        self.feed(self.one.beat(), step=0.320)
        self.run_of(self.one, 100)
        found = self.report()
        self.assertAlmostEqual(320, found["longest_gap_ms"], delta=0.2)
        self.assertEqual(101, found["longest_gap_counter"])
        self.assertEqual([101], [gap["counter"] for gap in found["gaps"]])
        self.assertEqual([], found["problems"])

    def test_gap_counts_for_the_mark_it_ends_after(self):
        self.feed(self.one.beat(), step=0.5)
        self.run_of(self.one, 10)
        self.book.mark("later", self.now)
        self.run_of(self.one, 10)
        self.assertAlmostEqual(10, self.report("later")["longest_gap_ms"], delta=0.2)
        self.assertEqual(0, self.report("later")["boots"])
        self.now += 0.3
        self.book.mark("silent", self.now)
        self.feed(self.one.beat(), step=0.1)
        self.assertAlmostEqual(400, self.report("silent")["longest_gap_ms"], delta=0.2)

    def test_silence_now_is_a_gap(self):
        self.run_of(self.one, 10)
        self.now += 2
        self.assertAlmostEqual(2000, self.report()["longest_gap_ms"], delta=0.2)
        self.assertAlmostEqual(2000, self.report()["silent_ms"], delta=0.2)

    def test_no_beat_since_a_mark_is_a_problem(self):
        self.run_of(self.one, 10)
        self.book.mark("after", self.now)
        self.now += 1
        self.assertEqual(["no beat"], self.report("after")["problems"])

    def test_mark_before_the_first_beat(self):
        self.book.mark("early", self.now)
        self.run_of(self.one, 5)
        self.assertEqual(5, self.report("early")["beats"])

    def test_loss(self):
        self.run_of(self.one, 50)
        for _ in range(7):
            self.one.beat()
        self.run_of(self.one, 50)
        found = self.report()
        self.assertEqual((7, 0, 0), (found["lost"], found["forks"], found["counter_back"]))
        self.assertEqual([], found["problems"])

    def test_late_beat_is_neither_lost_nor_a_fork(self):
        self.run_of(self.one, 50)
        first, second, third = self.one.beat(), self.one.beat(), self.one.beat()
        self.feed(second, first, third)
        self.run_of(self.one, 5)
        found = self.report()
        self.assertEqual((0, 1, 0), (found["lost"], found["late"], found["forks"]))

    def test_duplicate(self):
        self.run_of(self.one, 50)
        text = self.one.beat()
        self.feed(text, text)
        self.run_of(self.one, 5)
        found = self.report()
        self.assertEqual((1, 0, 0), (found["duplicate"], found["forks"], found["lost"]))
        self.assertFalse(found["two_at_once"])

    def test_counter_back(self):
        self.run_of(self.one, 50)
        old = self.one.fork(2)
        self.run_of(self.one, 30)
        self.run_of(old, 100)
        found = self.report()
        self.assertEqual((1, 1), (found["counter_back"], found["forks"]))
        self.assertFalse(found["two_at_once"])
        self.assertEqual(["the counter went back"], found["problems"])

    def test_two_at_once(self):
        self.run_of(self.one, 50)
        other = self.one.fork(2)
        for _ in range(20):
            self.feed(self.one.beat(), other.beat(), step=0.005)
        found = self.report()
        self.assertTrue(found["two_at_once"])
        self.assertGreaterEqual(found["interleaved"], 30)
        self.assertIn("two copies answered at once", found["problems"])

    def test_two_at_once_though_most_is_lost(self):
        self.run_of(self.one, 50)
        other = self.one.fork(2)
        chance = random.Random(3)
        for _ in range(200):
            for copy in (self.one, other):
                text = copy.beat()
                if chance.random() < 0.4:
                    self.feed(text, step=0.005)
        self.assertTrue(self.report()["two_at_once"])

    def test_copy_that_wakes_up_later(self):
        self.run_of(self.one, 50)
        old = self.one.fork(2)
        self.run_of(self.one, 300)
        self.run_of(old, 3)
        self.run_of(self.one, 3)
        found = self.report()
        self.assertTrue(found["two_at_once"])
        self.assertEqual(1, found["counter_back"])

    def test_old_copy_behind_a_mark(self):
        self.run_of(self.one, 50)
        old = self.one.fork(2)
        self.run_of(self.one, 50)
        self.book.mark("moved", self.now)
        self.run_of(self.one, 50)
        self.assertEqual([], self.report("moved")["problems"])
        self.run_of(old, 1)
        self.assertIn("the counter went back", self.report("moved")["problems"])

    def test_reboot_is_not_a_fork(self):
        self.run_of(self.one, 50)
        self.run_of(Copy(9, boot="cd02"), 50)
        found = self.report()
        self.assertEqual((2, 0, 0), (found["boots"], found["forks"], found["interleaved"]))
        self.assertEqual("cd02", found["boot"])
        self.assertEqual([], found["problems"])

    def test_two_boots_at_once(self):
        other = Copy(9, boot="cd02")
        for _ in range(20):
            self.feed(self.one.beat(), other.beat())
        self.assertTrue(self.report()["two_at_once"])

    def test_errors_count_from_the_mark_and_over_boots(self):
        self.run_of(self.one, 5)
        self.one.errors = 2
        self.run_of(self.one, 5)
        self.book.mark("m", self.now)
        self.assertEqual(2, self.report()["errors"])
        self.run_of(self.one, 5)
        self.assertEqual(0, self.report("m")["errors"])
        self.run_of(Copy(9, boot="cd02", errors=1), 5)
        self.assertEqual(1, self.report("m")["errors"])
        self.assertEqual(3, self.report()["errors_total"])

    def test_what_the_guest_says(self):
        self.run_of(self.one, 5)
        self.feed("say g ab01 error memory page stale: 5 holds write 1, write 2 expected")
        self.feed("say g ab01 hello mem=64")
        found = self.report()
        self.assertEqual(2, len(found["says"]))
        self.assertEqual(1, len(found["problems"]))

    def test_garbage_is_counted_and_harmless(self):
        self.run_of(self.one, 5)
        self.feed("", "beat", "beat g", "beat g ab01 x 1 2 3 4", "beat g ab01 1 2 3 4",
                  "nonsense \x00", "say g")
        self.assertEqual(7, self.book.garbled)
        self.assertEqual(5, self.report()["beats"])

    def test_polled_answers_may_repeat_and_skip(self):
        self.book = ledger.Ledger(sampled=True)
        for _ in range(30):
            text = self.one.beat()
            self.feed(text, text.replace(" 77 ", " 78 "))
            self.one.beat()
        found = self.report()
        self.assertEqual(([], 0, 0), (found["problems"], found["duplicate"], found["forks"]))
        other = self.one.fork(4)
        for _ in range(10):
            self.feed(self.one.beat(), other.beat())
        self.assertTrue(self.report()["two_at_once"])


class ConsoleStream(unittest.TestCase):
    def test_lines_in_any_pieces(self):
        one, console = Copy(), observer.Console()
        data = "[    0.1] hello\r\n" + "".join(one.beat() + "\r\n" for _ in range(50))
        for at in range(0, len(data), 7):
            console.feed(100 + at / 10000, data[at:at + 7].encode())
        found = console.book.report(101, "start", "g")
        self.assertEqual((50, 0, []), (found["beats"], found["lost"], found["problems"]))

    def test_panic_is_a_problem(self):
        one, console = Copy(), observer.Console()
        console.feed(100, (one.beat() + "\r\n[ 9.1] Kernel panic - not syncing: x\r\n").encode())
        self.assertEqual(1, len(console.book.report(101, "start", "g")["problems"]))


class Running(unittest.TestCase):
    """The program itself, as a process, heard and asked from outside."""

    def setUp(self):
        self.dir = tempfile.TemporaryDirectory()
        self.control = os.path.join(self.dir.name, "control")
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(GUEST, "observer.py"), "run", "--udp", "127.0.0.1:0",
             "--control", self.control, "--log", os.path.join(self.dir.name, "log")],
            stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(" ", 1)[1])
        self.client = observer.Client(self.control)
        deadline = time.monotonic() + 5
        while not os.path.exists(self.control) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def tearDown(self):
        self.sock.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(5)
        self.process.stdout.close()
        self.dir.cleanup()

    def wait_beats(self, count):
        deadline = time.monotonic() + 10
        while self.client.report().get("g", {"beats": 0})["beats"] != count:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    def send(self, text):
        self.sock.sendto(text.encode(), ("127.0.0.1", self.port))

    def test_report_mark_and_stop(self):
        one = Copy()
        for _ in range(20):
            self.send(one.beat())
        self.wait_beats(20)
        self.client.mark("m")
        self.send(one.beat())
        self.wait_beats(21)
        self.assertEqual(1, self.client.report("m", "g")["beats"])
        self.assertEqual(21, self.client.report()["g"]["beats"])
        with self.assertRaisesRegex(RuntimeError, "there is no 'nobody'"):
            self.client.report("m", "nobody")
        self.client.do("stop")
        last = json.loads(self.process.communicate(timeout=5)[0])
        self.assertEqual(21, last["g"]["counter"])
        self.assertFalse(os.path.exists(self.control))

    def test_kernel_time_stamps_see_through_a_stopped_observer(self):
        """Beats that wait in the socket while the observer is stopped keep their own times."""
        one = Copy()
        self.send(one.beat())
        self.wait_beats(1)
        self.process.send_signal(signal.SIGSTOP)
        sent = []
        for _ in range(40):
            time.sleep(0.010)
            sent.append(time.monotonic())
            self.send(one.beat())
        self.process.send_signal(signal.SIGCONT)
        self.wait_beats(41)
        with open(os.path.join(self.dir.name, "log"), encoding="ascii") as file:
            heard = [float(line.split()[0]) for line in file][1:]
        late_ms = sorted((at - was) * 1000 for at, was in zip(heard, sent))
        self.assertGreater(late_ms[0], -1)
        self.assertLess(late_ms[len(late_ms) // 2], 2)

    def test_bad_request_is_refused_and_survived(self):
        for junk in (b"\n", b"[]\n", b"{\"do\":\"fly\"}\n", b"\xff\n", b"{\"do\":\"poll\"}\n"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.connect(self.control)
                sock.sendall(junk)
                self.assertIn("error", json.loads(sock.makefile().readline()))
        self.send(Copy().beat())
        self.wait_beats(1)


if __name__ == "__main__":
    tap.main()
