"""Programs that run during the suite, each in its own folder and on loopback ports. They are started once, and stopped
by process id at the end of the suite, also after an error."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

# Seconds after which a wait fails; longer than any step takes on a busy machine.
TIMEOUT = 120


class Process:
    """A started program, with its output in a log file."""

    def __init__(self, name, command, log, environment):
        self.name, self.log = name, log
        with open(log, "ab") as out:
            # In its own session, Ctrl-C only reaches the suite, which then stops its programs in order.
            self.child = subprocess.Popen(
                [str(argument) for argument in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=environment,
                cwd=log.parent,
                start_new_session=True,
            )
        self.pid = self.child.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def has_exited(self):
        return self.child.poll() is not None

    def signal(self, number):
        self.child.send_signal(number)

    def stop(self, seconds=15):
        """Terminates the program, kills it after `seconds`, and kills the remaining processes of its session. Returns
        the exit code."""
        if not self.has_exited():
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
    """Starts programs for tests. As a context manager, stops them in reverse order on exit."""

    def __init__(self, program):
        self.program = program
        self.versions = set()
        self.instances = {}
        self.processes = []

    def __enter__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mcs-real-"))
        # Searchable by others: scripts and scanners run as other users if the suite runs as root.
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *_):
        # A second Ctrl-C must not interrupt the cleanup.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for process in reversed(self.processes):
            process.stop()
        shutil.rmtree(self.folder)

    def shared(self, make):
        """Returns the result of `make(machine)`, which is called once and shared by all callers."""
        if make not in self.instances:
            self.instances[make] = make(self)
        return self.instances[make]

    def record_version(self, name, version):
        """Records the version of a program for the report."""
        self.versions.add(f"{name} {version}")

    def make_folder(self, name, mode=0o755):
        """Creates a folder in that of the suite. Adds a number if the name is taken."""
        for number in range(1000):
            folder = self.folder / (f"{name}-{number}" if number else name)
            if not folder.exists():
                folder.mkdir()
                folder.chmod(mode)
                return folder
        raise AssertionError(f"too many folders named {name}")

    def start(self, name, command, folder, environment=None):
        """Starts a program with PATH, LANG and the variables of `environment`."""
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(environment or {})}
        process = Process(name, command, folder / f"{name}.log", environment)
        self.processes.append(process)
        return process

    def stop(self, process):
        """Stops a program before the end of the suite; returns its exit code."""
        code = process.stop()
        self.processes.remove(process)
        return code

    def log_excerpts(self):
        """Returns the last lines of all logs, for the report of a failed test."""
        ends = []
        for process in self.processes:
            lines = process.output().splitlines()[-6:]
            state = f"exited with {process.child.returncode}" if process.has_exited() else "running"
            ends.append("\n".join([f"--- {process.name} ({state})", *(line[:250] for line in lines)]))
        return "\n".join(ends)


def wait_until(what, condition, process=None, seconds=TIMEOUT):
    """Waits until `condition()` is true, and returns its value. Fails after `seconds`, or when `process` exits."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if process and process.has_exited():
            raise AssertionError(f"{process.name} exited before: {what}:\n{process.output()[-4000:]}")
        if time.monotonic() > deadline:
            output = f":\n{process.output()[-4000:]}" if process else ""
            raise AssertionError(f"timeout: {what}{output}")
        time.sleep(0.05)


def wait_until_equal(what, get, expected, seconds=30):
    """Waits until `get()` returns `expected`; fails with both values after `seconds`."""
    deadline = time.monotonic() + seconds
    while (got := get()) != expected:
        assert time.monotonic() < deadline, f"{what}: {got} is not {expected}"
        time.sleep(0.05)


def free_port():
    """Returns a loopback port that is free at the moment."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def output_of(*command):
    """Runs a program and returns its stdout."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True)
    return done.stdout.strip()
