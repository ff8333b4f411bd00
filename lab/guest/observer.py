#!/usr/bin/env python3
"""The third observer: it hears the beats of test guests from a place that is neither of the hosts,
and tells how long a guest was silent, and whether two copies of it answered at once.

  observer.py run --udp ADDR:PORT --control PATH [--log FILE]   listen until told to stop
  observer.py mark|report|poll|stop PATH ...                    talk to a running one, JSON
  observer.py watch PATH|--udp ADDR:PORT                        one line every half second
  observer.py serial [FILE] [--watch]                           the same from a console's stream
  observer.py ask ADDR[:PORT] COMMAND [NUMBER]                  ask the guest itself

Arrival times are the kernel's (SO_TIMESTAMPNS), so a busy observer does not see gaps that were not
there. Only Python's own library. docs/test-guest.md describes the report.
"""

import argparse
import json
import os
import re
import secrets
import signal
import socket
import struct
import sys
import termios
import threading
import time
import tty

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ledger  # noqa: E402  pylint: disable=wrong-import-position

SO_TIMESTAMPNS = 35
RECEIVE_BUFFER = 4 << 20
DATAGRAM_MAX = 2048
GUEST_PORT = 7707
REQUEST_MAX = 65536
ASK_RETRY_S = 0.2
STOP_LATENCY_S = 0.2
CONTROL_TIMEOUT_S = 10
TOKENS_MAX = 4096
WATCH_S = 0.5
CELL_S = 0.02


def address(text, port=None):
    """('ADDR', PORT) of ADDR:PORT."""
    host, _, number = text.rpartition(":") if ":" in text else (text, "", port)
    return host or "0.0.0.0", int(number)


def arrival(ancillary):
    """When the kernel got a datagram, on the monotonic clock."""
    now, wall = time.monotonic(), time.time()
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            waited = wall - (seconds + nanoseconds / 1e9)
            # A wall clock that was set meanwhile is worth nothing.
            return now - waited if 0 <= waited < 5 else now
    return now


def udp_socket(bind_to):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.settimeout(STOP_LATENCY_S)
    sock.bind(bind_to)
    return sock


def receive(sock):
    """(arrival, text, 'ADDR:PORT') of the next datagram."""
    data, ancillary, _, source = sock.recvmsg(DATAGRAM_MAX, 128)
    return (arrival(ancillary), data.decode("ascii", "replace").rstrip(), "%s:%d" % source)


def window_of(book, since, guest=None):
    """What `watch` shows of each guest: arrivals since a moment of the monotonic clock."""
    return {name: {"arrivals": [at for at, _ in one.recent if at >= since],
                   "counter": one.highest, "errors": one.errors_total,
                   "two_at_once": one.marks["start"].interleaved > 0,
                   "longest_gap_ms": one.marks["start"].longest[0] * 1000}
            for name, one in book.guests.items() if guest in (None, name)}


class Poll:
    """Asks a guest `ping` again and again: for a guest that sends nothing of its own accord."""

    def __init__(self, lock, target, every_ms):
        self.lock = lock
        self.book = ledger.Ledger(sampled=True)
        self.asked = self.answered_twice = 0
        self.seen = {}
        self.target = target
        self.every_s = every_ms / 1000
        self.sock = udp_socket(("0.0.0.0", 0))
        self.stopping = threading.Event()
        for work in (self.send, self.hear):
            threading.Thread(target=work, daemon=True).start()

    def send(self):
        while not self.stopping.wait(self.every_s):
            self.asked += 1
            try:
                self.sock.sendto(b"ask p%d ping" % self.asked, self.target)
            except OSError:
                continue  # no route or no ARP answer just now: that is the silence we measure

    def hear(self):
        while True:
            try:
                at, text, source = receive(self.sock)
            except OSError:
                if self.stopping.is_set():
                    return
                continue
            match = re.match(r"re (p\d+) ping (.*)", text)
            with self.lock:
                if match:
                    self.take(at, match.group(1), match.group(2), source)

    def take(self, at, token, fields, source):
        self.answered_twice += token in self.seen
        self.seen[token] = True
        if len(self.seen) > TOKENS_MAX:
            del self.seen[next(iter(self.seen))]
        self.book.line(at, "beat " + fields, source)

    def report(self, now, mark, guest):
        found = self.book.report(now, mark, guest)
        for one in [found] if guest else found.values():
            one["answered_twice"] = self.answered_twice
            if self.answered_twice:
                one["problems"].append("one question was answered twice")
        return found

    def stop(self):
        self.stopping.set()
        self.sock.close()


class Observer:
    """Listens on UDP in its own thread. Methods may be called from any thread."""

    def __init__(self, bind_to, log=None):
        self.lock = threading.Lock()
        self.book = ledger.Ledger()
        self.poll = None
        self.log = log
        self.sock = udp_socket(bind_to)
        self.port = self.sock.getsockname()[1]
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.hear, daemon=True)
        self.thread.start()

    def hear(self):
        while not self.stopping.is_set():
            try:
                at, text, source = receive(self.sock)
            except OSError:
                continue
            with self.lock:
                self.book.line(at, text, source)
            if self.log:
                self.log.write("%.6f %s %s\n" % (at, source, text))

    def mark(self, name="mark"):
        with self.lock:
            now = time.monotonic()
            self.book.mark(name, now)
            if self.poll:
                self.poll.book.mark(name, now)

    def report(self, mark="start", guest=None):
        with self.lock:
            return self.book.report(time.monotonic(), mark, guest)

    def poll_report(self, mark="start", guest=None):
        with self.lock:
            return self.poll.report(time.monotonic(), mark, guest)

    def start_poll(self, target, every_ms=10):
        self.stop_poll()
        self.poll = Poll(self.lock, target, every_ms)

    def stop_poll(self):
        if self.poll:
            self.poll.stop()
        self.poll = None

    def wait(self, guest, beats=1, timeout_s=60):
        """Waits until a guest is known and was heard that often from now on; False if not."""
        deadline, first = time.monotonic() + timeout_s, None
        while time.monotonic() < deadline:
            with self.lock:
                known = self.book.guests.get(guest)
                count = known.marks["start"].beats if known else 0
            first = count if first is None else first
            if known and count - first >= beats:
                return True
            time.sleep(0.02)
        return False

    def window(self, since, guest=None):
        with self.lock:
            return window_of(self.book, since, guest)

    def close(self):
        self.stop_poll()
        self.stopping.set()
        self.thread.join()
        self.sock.close()
        if self.log:
            self.log.flush()


def obey(observer, request, stopped):
    """Carries out one request of the control socket."""
    do, mark, guest = request.get("do"), request.get("mark"), request.get("guest")
    if do == "mark":
        observer.mark(mark or "mark")
    elif do == "report":
        found = observer.report(mark or "start", guest)
        return {"report": found}
    elif do == "poll-report":
        return {"report": observer.poll_report(mark or "start", guest)}
    elif do == "poll":
        observer.start_poll(address(request["target"], GUEST_PORT), request.get("every_ms", 10))
    elif do == "unpoll":
        observer.stop_poll()
    elif do == "wait":
        if not observer.wait(guest, request.get("beats", 1), request.get("timeout_s", 60)):
            return {"error": "'%s' was not heard" % guest}
    elif do == "window":
        return {"window": observer.window(request["since"], guest)}
    elif do == "ask":
        return {"answer": ask(address(request["target"], GUEST_PORT), request["words"],
                              request.get("timeout_s", 10))}
    elif do == "stop":
        stopped.set()
    else:
        return {"error": "unknown request '%s'" % do}
    return {}


def serve_one(observer, connection, stopped):
    connection.settimeout(CONTROL_TIMEOUT_S)
    with connection, connection.makefile("rw") as stream:
        try:
            reply = obey(observer, json.loads(stream.readline(REQUEST_MAX)), stopped)
        except KeyError as problem:
            reply = {"error": "there is no %s" % problem}
        except (ValueError, TypeError, AttributeError, OSError) as problem:
            reply = {"error": str(problem)}
        try:
            stream.write(json.dumps(reply) + "\n")
        except OSError:
            pass  # who asked is gone


def serve(observer, path, stopped):
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path + ".new")
    server.listen(16)
    os.rename(path + ".new", path)  # whoever sees it can connect
    server.settimeout(0.2)
    while not stopped.is_set():
        try:
            connection, _ = server.accept()
        except TimeoutError:
            continue
        threading.Thread(target=serve_one, args=(observer, connection, stopped),
                         daemon=True).start()
    server.close()
    os.unlink(path)


class Client:
    """Talks to an observer that runs as a process of its own."""

    def __init__(self, path):
        self.path = path

    def do(self, do, **request):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(self.path)
            sock.sendall(json.dumps(dict(request, do=do)).encode() + b"\n")
            with sock.makefile("r") as stream:
                reply = json.loads(stream.readline())
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply

    def mark(self, mark="mark"):
        self.do("mark", mark=mark)

    def report(self, mark="start", guest=None):
        return self.do("report", mark=mark, guest=guest)["report"]

    def ask(self, target, words, timeout_s=10):
        """A question to a guest from the observer's place; None: no answer."""
        return self.do("ask", target=target, words=words, timeout_s=timeout_s)["answer"]

    def wait(self, guest, beats=1, timeout_s=60):
        self.do("wait", guest=guest, beats=beats, timeout_s=timeout_s)

    def window(self, since, guest=None):
        return self.do("window", since=since, guest=guest)["window"]


def ask(target, words, timeout_s=10):
    """The guest's answer to a command, without `re TOKEN`, or None."""
    token = secrets.token_hex(6)
    question = ("ask %s %s" % (token, words)).encode()
    deadline = time.monotonic() + timeout_s
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(ASK_RETRY_S)
        while time.monotonic() < deadline:
            try:
                sock.sendto(question, target)
                text = sock.recv(DATAGRAM_MAX).decode("ascii", "replace")
            except TimeoutError:
                continue
            except OSError:
                time.sleep(ASK_RETRY_S)
                continue
            if text.startswith("re %s " % token):
                return text.split(" ", 2)[2]
    return None


class Console:
    """Lines of a console's stream into a ledger. Text that is no beat is searched for trouble."""

    def __init__(self):
        self.book = ledger.Ledger()
        self.rest = b""

    def feed(self, at, data):
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > REQUEST_MAX:
            self.rest = b""
        for line in lines:
            self.line(at, line.decode("ascii", "replace").strip())

    def line(self, at, text):
        if text.startswith("re ") or not text:
            return
        if self.book.line(at, text) is None and ledger.is_trouble(text):
            for guest in self.book.guests.values():
                guest.say(at, text)


def watch_line(name, seen, start, before):
    """One line: how the last half second of a guest sounded."""
    cells = [0] * round(WATCH_S / CELL_S)
    for at in seen["arrivals"]:
        cells[min(int((at - start) / CELL_S), len(cells) - 1)] += 1
    marks = "▮·" if (sys.stdout.encoding or "").lower().startswith("utf") else "#."
    times = [start] + seen["arrivals"] + [start + WATCH_S]
    gap_ms = max(b - a for a, b in zip(times, times[1:])) * 1000
    trouble = ""
    if seen["two_at_once"]:
        trouble += "  TWO AT ONCE"
    if seen["errors"]:
        trouble += "  %d ERRORS" % seen["errors"]
    return "%s  %-12s counter %8d %+4d  gap %4.0f ms  longest %4.0f ms  %s%s" % (
        time.strftime("%H:%M:%S"), name, seen["counter"], seen["counter"] - before, gap_ms,
        seen["longest_gap_ms"], "".join(marks[0] if cell else marks[1] for cell in cells), trouble)


def watch(window, seconds, stopped=None):
    """Prints a line per guest every half second; window(since) gives the arrivals."""
    stopped = stopped or threading.Event()
    start, before = time.monotonic(), {}
    end = start + seconds if seconds else None
    while end is None or start < end:
        if stopped.wait(max(0, start + WATCH_S - time.monotonic())):
            return
        for name, seen in sorted(window(start).items()):
            seen["arrivals"] = [at for at in seen["arrivals"] if at < start + WATCH_S]
            print(watch_line(name, seen, start, before.get(name, seen["counter"])), flush=True)
            before[name] = seen["counter"]
        start += WATCH_S


def print_json(value):
    print(json.dumps(value, indent=2))


def run(options):
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    log = open(options.log, "w", encoding="ascii", buffering=1) if options.log else None
    observer = Observer(address(options.udp), log)
    if options.poll:
        observer.start_poll(address(options.poll, GUEST_PORT))
    print("listening on port %d" % observer.port, flush=True)
    serve(observer, options.control, stopped)
    observer.close()
    print_json(observer.report())


def cmd_mark(options):
    Client(options.control).mark(options.mark)


def cmd_report(options):
    client = Client(options.control)
    do = "poll-report" if options.polled else "report"
    found = client.do(do, mark=options.mark, guest=options.guest)["report"]
    print_json(found)
    reports = [found] if options.guest else list(found.values())
    return 1 if not reports or any(report["problems"] for report in reports) else 0


def cmd_poll(options):
    client = Client(options.control)
    if options.target:
        client.do("poll", target=options.target, every_ms=options.every)
    else:
        client.do("unpoll")


def cmd_stop(options):
    Client(options.control).do("stop")


def cmd_watch(options):
    if options.udp:
        watch(Observer(address(options.udp)).window, options.seconds)
    else:
        watch(Client(options.control).window, options.seconds)


def read_console(options, console, lock, stopped):
    fd = sys.stdin.fileno() if options.file == "-" else os.open(options.file,
                                                                os.O_RDONLY | os.O_NOCTTY)
    if os.isatty(fd) and options.file != "-":
        tty.setraw(fd, termios.TCSANOW)
    os.set_blocking(fd, True)
    while not stopped.is_set():
        try:
            data = os.read(fd, 65536)
        except OSError:  # a pty whose other end was closed
            break
        if not data:
            break
        with lock:
            console.feed(time.monotonic(), data)
    stopped.set()


def cmd_serial(options):
    console, lock, stopped = Console(), threading.Lock(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())

    def window(since):
        with lock:
            return window_of(console.book, since)

    threading.Thread(target=read_console, args=(options, console, lock, stopped),
                     daemon=True).start()
    if options.watch:
        watch(window, options.seconds, stopped)
    else:
        stopped.wait(options.seconds or None)
    with lock:
        found = console.book.report(time.monotonic())
    print_json(found)
    return 1 if not found or any(report["problems"] for report in found.values()) else 0


def cmd_ask(options):
    words = " ".join([options.command] + ([options.number] if options.number else []))
    found = ask(address(options.target, GUEST_PORT), words, options.timeout)
    if found is None:
        print("no answer", file=sys.stderr)
        return 2
    print(found)
    return 1 if re.match(r"refused|unknown|verify bad|no disk", found) else 0


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name, function, text, control=True):
        one = verbs.add_parser(name, help=text, description=text)
        one.set_defaults(function=function)
        if control:
            one.add_argument("control", help="the running observer's socket")
        return one

    one = verb("run", run, "listen until told to stop; prints a report then", control=False)
    one.add_argument("--udp", default="0.0.0.0:7700", help="ADDR:PORT to hear beats on")
    one.add_argument("--control", required=True, help="socket to make for the other verbs")
    one.add_argument("--log", help="file for every datagram, with arrival and source")
    one.add_argument("--poll", help="ADDR[:PORT] of a quiet guest to ping every 10 ms")
    one = verb("mark", cmd_mark, "begin to count anew under a name")
    one.add_argument("mark", nargs="?", default="mark")
    one = verb("report", cmd_report, "what happened since a mark; fails if that was not well")
    one.add_argument("mark", nargs="?", default="start")
    one.add_argument("--guest")
    one.add_argument("--polled", action="store_true", help="of the answers to polls")
    one = verb("poll", cmd_poll, "ping a quiet guest every few milliseconds; without one, stop it")
    one.add_argument("target", nargs="?", help="ADDR[:PORT]")
    one.add_argument("--every", type=int, default=10, help="milliseconds")
    verb("stop", cmd_stop, "end the observer")
    one = verb("watch", cmd_watch, "one line every half second", control=False)
    one.add_argument("control", nargs="?", help="the running observer's socket")
    one.add_argument("--udp", help="or ADDR:PORT to hear beats on by itself")
    one.add_argument("--seconds", type=float, default=0, help="then end; 0 is never")
    one = verb("serial", cmd_serial, "beats of a console's stream", control=False)
    one.add_argument("file", nargs="?", default="-", help="pty, pipe or file; - is standard input")
    one.add_argument("--seconds", type=float, default=0, help="then end; 0 is at its end")
    one.add_argument("--watch", action="store_true", help="and one line every half second")
    one = verb("ask", cmd_ask, "ask the guest: ping, stat, verify, ...", control=False)
    one.add_argument("target", help="ADDR[:PORT]")
    one.add_argument("command")
    one.add_argument("number", nargs="?")
    one.add_argument("--timeout", type=float, default=10, help="seconds")
    options = parser.parse_args()
    if options.verb == "watch" and bool(options.control) == bool(options.udp):
        parser.error("watch needs either a socket or --udp")
    return options


def main():
    options = arguments()
    try:
        sys.exit(options.function(options) or 0)
    except (OSError, RuntimeError) as problem:
        print("observer: %s" % problem, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
