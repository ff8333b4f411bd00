"""Labs and their hosts, for tests: everything goes through lab/lab.

    with Lab("migrate") as lab:
        a, b = lab.hosts
        a.run("virsh", "-c", "vz:///system", "list")
        watcher = lab.observer.popen("python3", "tests/lab/watch.py")
        b.daemon("kill")

A command's output is text; run() raises CommandFailed with all of it. Needs root, Python 3.11.
"""

import fcntl
import os
import pathlib
import pty
import signal
import subprocess
import termios

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = SOURCE / "lab" / "lab"
COMMAND_TIMEOUT_S = 60
UP_TIMEOUT_S = 900  # the first `up` on a machine builds the Debian root


class CommandFailed(Exception):
    """A command ended with another exit code than 0; `result` is its CompletedProcess."""

    def __init__(self, result):
        self.result = result
        super().__init__(
            f"{' '.join(map(str, result.args))}: exit code {result.returncode}\n"
            f"{result.stdout or ''}{result.stderr or ''}"
        )


class Process(subprocess.Popen):
    """A running command. Signals go to the command itself, not to what entered the host for it."""

    terminal = None  # with tty=True: the master side (a file descriptor) of the command's terminal

    def send_signal(self, sig):
        self.poll()
        if self.returncode is None:
            inner = self.inner_pid()
            os.kill(inner or self.pid, sig)
            if inner and sig == signal.SIGKILL:  # nsenter stops with a command that is stopped
                os.kill(self.pid, signal.SIGCONT)

    def inner_pid(self):
        """The command's process, numbered as this machine does; None until it has entered."""
        try:
            children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
            comm = pathlib.Path(f"/proc/{self.pid}/comm").read_text().strip()
        except OSError:
            return None
        return int(children.split()[0]) if comm == "nsenter" and children else None

    def interrupt(self):
        """Ctrl-C, as the user's terminal does it; without a terminal SIGINT."""
        if self.terminal is None:
            self.send_signal(signal.SIGINT)
        else:
            os.write(self.terminal, b"\x03")

    def __exit__(self, *args):
        if self.poll() is None:
            self.kill()
        super().__exit__(*args)
        if self.terminal is not None:
            os.close(self.terminal)
            self.terminal = None


class Host:
    """A host of a lab, or its observer, which runs this machine's programs."""

    def __init__(self, lab, name):
        self.lab = lab
        self.name = name
        self.prefix = ["observer"] if name == "observer" else ["host", name]

    def _argv(self, argv, env):
        variables = ["env", *(f"{k}={v}" for k, v in env.items())] if env else []
        return [*self.lab.argv, *self.prefix, *variables, *map(str, argv)]

    def run(self, *argv, check=True, timeout=COMMAND_TIMEOUT_S, env=None, **keywords):
        """Runs a command to its end and returns its CompletedProcess."""
        return _run(self._argv(argv, env), check=check, timeout=timeout, **keywords)

    def out(self, *argv, **keywords):
        """What a command prints, without the newline at its end."""
        return self.run(*argv, **keywords).stdout.rstrip("\n")

    def popen(self, *argv, env=None, tty=False, **keywords):
        """Starts a command. With tty, it has a terminal of its own, whose master is `terminal`."""
        keywords.setdefault("text", True)
        if not tty:
            for stream in ("stdout", "stderr"):
                keywords.setdefault(stream, subprocess.PIPE)
            keywords.setdefault("stdin", subprocess.DEVNULL)
            return Process(self._argv(argv, env), **keywords)
        master, slave = pty.openpty()
        process = Process(
            self._argv(argv, env),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            **keywords,
        )
        os.close(slave)
        process.terminal = master
        return process

    @property
    def address(self):
        for line in (self.lab.state / "hosts").read_text().splitlines():
            address, name = line.split()
            if name == self.name:
                return address
        raise KeyError(self.name)

    @property
    def init_pid(self):
        """Process 1 of the host, numbered as this machine does."""
        return int((self.lab.state / self.name / "init").read_text().split()[0])

    def path(self, inside):
        """Where this machine sees a path of the running host."""
        return pathlib.Path(f"/proc/{self.init_pid}/root") / str(inside).lstrip("/")

    def processes(self, name):
        """Its processes of that name, numbered as this machine does."""
        namespace = os.readlink(f"/proc/{self.init_pid}/ns/pid")
        found = []
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                if (entry / "comm").read_text().strip() == name[:15] and \
                        os.readlink(entry / "ns/pid") == namespace:
                    found.append(int(entry.name))
            except OSError:
                pass  # it has just ended
        return found

    @property
    def local(self):
        """Where this machine sees the host's /local, also after a crash."""
        return self.lab.state / self.name / "local"

    def daemon(self, action, fault=None):
        """start, stop, kill or restart its virtvzd; a virtvzd-faults with a fault (HACKING.md)."""
        variables = ["env", "VZ_FAULT=" + fault] if fault else []
        _run([*variables, *self.lab.argv, "daemon", self.name, action], check=True,
             timeout=COMMAND_TIMEOUT_S)

    def wire_bytes(self):
        """(received, sent) by the host's cable (lab/net.sh), as the kernel counts."""
        for line in pathlib.Path("/proc/%d/net/dev" % self.init_pid).read_text().splitlines():
            name, _, numbers = line.partition(":")
            if name.strip() == "up0":
                fields = [int(word) for word in numbers.split()]
                return fields[0], fields[8]
        raise AssertionError("%s has no up0" % self.name)

    def link(self, state):
        self.lab.command("link", self.name, state)

    def crash(self):
        self.lab.command("crash", self.name)

    def boot(self):
        self.lab.command("boot", self.name)


class Lab:
    """One lab, up inside a `with`. `env` goes to lab/lab (VZ_BUILD, VZ_LAB_STATE, ...)."""

    def __init__(self, name="test", hosts=2, daemon=True, kvm=True, env=None):
        self.name = name
        self.count = hosts
        self.options = ([] if daemon else ["--no-daemon"]) + ([] if kvm else ["--no-kvm"])
        # Popen's own env is not used, so that hosts' commands and the lab's have the same.
        self.argv = ["env", *(f"{k}={v}" for k, v in (env or {}).items())] if env else []
        self.argv += [str(PROGRAM), "-L", name]
        environment = {**os.environ, **(env or {})}
        self.state = pathlib.Path(environment.get("VZ_LAB_STATE", "/var/lib/virtvz-lab")) / name
        self.hosts = [Host(self, f"host{chr(ord('a') + i)}") for i in range(hosts)]
        self.observer = Host(self, "observer")

    def command(self, *argv, check=True, timeout=COMMAND_TIMEOUT_S):
        return _run([*self.argv, *argv], check=check, timeout=timeout)

    def up(self):
        self.command("up", str(self.count), *self.options, timeout=UP_TIMEOUT_S)

    def down(self):
        self.command("down")

    def shape(self, rate):
        """1gbit, 100mbit, ..., or none."""
        self.command("shape", rate)

    @property
    def shared(self):
        """Where this machine sees the directory that all hosts have as /shared."""
        return self.state / "shared"

    def __enter__(self):
        self.up()
        return self

    def __exit__(self, *_):
        self.down()


def _run(argv, check, timeout, input=None, **keywords):
    keywords.setdefault("stdin", subprocess.DEVNULL if input is None else subprocess.PIPE)
    keywords.setdefault("stdout", subprocess.PIPE)
    keywords.setdefault("stderr", subprocess.PIPE)
    with Process(argv, text=True, **keywords) as process:
        out, err = process.communicate(input, timeout=timeout)
    result = subprocess.CompletedProcess(argv, process.returncode, out, err)
    if check and result.returncode != 0:
        raise CommandFailed(result)
    return result
