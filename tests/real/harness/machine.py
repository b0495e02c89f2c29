"""What runs while the suite does: programs, in a folder of their own, on loopback ports, started once and
stopped by their process id when the suite ends, however it ends."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# Longer than anything takes that works, on a busy machine. What hangs fails after it.
PATIENCE = 120


class Process:
    """A program that was started, its log in a file."""

    def __init__(self, name, command, log, environment):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            # A session of its own: Ctrl-C comes to the suite, which stops what it started in order.
            self.child = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                cwd=log.parent,
                start_new_session=True,
            )
        self.pid = self.child.pid

    def said(self):
        return self.log.read_text(errors="replace")

    def has_ended(self):
        return self.child.poll() is not None

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, seconds=15):
        """Asks it to end, then kills it; and what it left running in its session."""
        if not self.has_ended():
            self.child.terminate()
            try:
                self.child.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        return self.child.wait()


class Machine:
    """Starts what tests ask for. `with` it: what was started is stopped, the newest first."""

    def __init__(self, program):
        self.program = program
        self.versions = set()
        self.shared = {}
        self.processes = []

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mcs-real-"))
        # Passable: scripts and scanners run as other users where the suite is root.
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not leave anything running.
        for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ending, signal.SIG_IGN)
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.folder)

    def once(self, make):
        """What `make(machine)` gives, made at the first call and shared by all later ones."""
        if make not in self.shared:
            self.shared[make] = make(self)
        return self.shared[make]

    def ran(self, what, version):
        """Notes what was run, for the report."""
        self.versions.add(f"{what} {version}")

    def make_folder(self, name, mode=0o755):
        """A new folder below the suite's; a number is added where the name is taken."""
        for number in range(1000):
            folder = self.folder / (f"{name}-{number}" if number else name)
            if not folder.exists():
                folder.mkdir()
                folder.chmod(mode)
                return folder
        raise AssertionError(f"too many folders are named {name}")

    def start(self, name, command, folder, environment=None):
        """Starts a program; it gets these variables beside PATH and LANG."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(environment or {})}
        process = Process(name, command, folder / f"{name}.log", environment)
        self.processes.append(process)
        return process

    def stop(self, process):
        """Stops a program before the suite ends; gives its exit code."""
        code = process.stop()
        self.processes.remove(process)
        return code

    def what_was_said(self):
        """The ends of all logs, for a failed test."""
        ends = []
        for process in self.processes:
            lines = process.said().splitlines()[-6:]
            state = f"ended with {process.child.returncode}" if process.has_ended() else "running"
            ends.append("\n".join([f"--- {process.name} ({state})", *(line[:250] for line in lines)]))
        return "\n".join(ends)


def until(what, condition, process=None, seconds=PATIENCE):
    """Waits until `condition()` gives something true, and gives that. Fails if it never comes, or if
    the process that should bring it ends."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if process and process.has_ended():
            raise AssertionError(f"{process.name} ended before {what}:\n{process.said()[-4000:]}")
        if time.monotonic() > end:
            said = f":\n{process.said()[-4000:]}" if process else ""
            raise AssertionError(f"it never came: {what}{said}")
        time.sleep(0.05)


def until_same(what, look, expected, seconds=30):
    """Waits until `look()` gives what is expected; fails with both."""
    end = time.monotonic() + seconds
    while (got := look()) != expected:
        assert time.monotonic() < end, f"{what}: {got} is not {expected}"
        time.sleep(0.05)


def free_port():
    """A loopback port that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def output_of(*command):
    """What a program prints, for its version."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return done.stdout.strip()
