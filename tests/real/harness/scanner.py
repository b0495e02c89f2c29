"""The service under test, in its own folder, in front of a homeserver."""

import contextlib
import json
import os
import pathlib
import shutil

from .http import Client
from .machine import output_of, wait_until

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PREFIX = "/_matrix/media_proxy/unstable"

# Debian's "nobody" and "nogroup": user and group of an unprivileged service.
NOBODY = 65534


def installed_program(machine):
    """Copies the program and its helper to a folder in which all users can execute them; returns the path."""
    folder = machine.make_folder("bin")
    for name in (machine.program, machine.program.with_name("mcs-sandbox")):
        shutil.copy(name, folder)
    machine.record_version("matrix-content-scanner", output_of(machine.program, "--version").split()[-1])
    return folder / machine.program.name


def child_processes(pid):
    """Returns the child processes of all threads; none of a process that has ended."""
    children = []
    with contextlib.suppress(OSError):
        for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
            children += (task / "children").read_text().split()
    return children


def has_evaluator(helper):
    """Returns whether a child of a helper, or a child of that in a pid namespace, evaluates files."""
    children = child_processes(helper)
    for pid in children + [inner for child in children for inner in child_processes(child)]:
        with contextlib.suppress(OSError):
            if b"evaluate-resident" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
    return False


class Scanner:
    """A running service.

    `homeserver` may be None. `config` overrides configuration keys; None removes a key. `script` is the path of a
    script in this repository, or its text. `unprivileged` runs the service as another user if the suite runs as
    root."""

    def __init__(
        self,
        machine,
        homeserver,
        config=None,
        script="tests/real/harness/eicar.sh",
        canary="eicar",
        unprivileged=False,
    ):
        self.machine = machine
        self.homeserver_port = homeserver and homeserver.client.port
        self.is_unprivileged = unprivileged and os.geteuid() == 0
        self.folder = machine.make_folder("scanner")
        (self.folder / "temp").mkdir()
        self.script = self.folder / "script.sh"
        self.set_script((REPOSITORY / script).read_text() if script.endswith(".sh") else script)
        self.config = {
            "web.host": "127.0.0.1",
            "web.port": 0,
            "operations.port": 0,
            "scan.script": str(self.script),
            "scan.temp_directory": str(self.folder / "temp"),
            "scan.canary": canary,
            "crypto.request_secret_path": str(self.folder / "request_secret"),
            "crypto.generate": True,
            "log.format": "json",
            "log.level": "debug,hyper=info,hyper_util=info,reqwest=info",
        }
        if homeserver is not None:
            self.config["download.base_homeserver_url"] = homeserver.base
        self.config.update(config or {})
        self.config = {key: value for key, value in self.config.items() if value is not None}
        if self.is_unprivileged:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        self.start()

    def start(self):
        """Starts the service and waits until it listens."""
        lines = [f"{key} = {toml(value)}" for key, value in self.config.items()]
        path = self.folder / "config.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [self.machine.shared(installed_program), "-c", path]
        if self.is_unprivileged:
            options = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
            command = ["setpriv", *options, *command]
        # A restart appends to the same log.
        earlier = len(self.log_entries("listening")) if hasattr(self, "process") else 0
        self.process = self.machine.start("scanner", command, self.folder)
        listening = wait_until("the scanner listens", lambda: self.log_entries("listening")[earlier:], self.process)
        self.base = f"http://{listening[0]['address']}{PREFIX}"
        self.client = Client(self.base)
        self.get, self.post, self.request = self.client.get, self.client.post, self.client.request

    def stop(self):
        """Stops the service by SIGTERM; returns its exit code."""
        return self.machine.stop(self.process)

    def set_script(self, text):
        """Replaces the script atomically."""
        fresh = self.folder / "fresh"
        fresh.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n", encoding="utf-8")
        fresh.chmod(0o755)
        fresh.rename(self.script)

    def log(self):
        return self.process.output()

    def log_entries(self, message):
        """Returns the log entries with this message."""
        lines = [line for line in self.log().splitlines() if line.endswith("}")]
        return [line for line in map(json.loads, lines) if line.get("message") == message]

    def helpers(self):
        """Returns the child processes of the service: a helper for each job, and one for each evaluator of files."""
        return child_processes(self.process.pid)

    def evaluators(self):
        """Returns the helpers of evaluators, which run until they are replaced."""
        return [helper for helper in self.helpers() if has_evaluator(helper)]

    def jobs(self):
        """Returns the folders of current jobs."""
        return [job for run in (self.folder / "temp").iterdir() if run.is_dir() for job in run.iterdir()]

    def descriptors(self):
        """Returns the targets of the open file descriptors, without pooled connections to the homeserver and
        descriptors that are closed meanwhile."""
        targets = []
        for descriptor in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                targets.append(os.readlink(descriptor))
            except FileNotFoundError:
                pass
        tcp = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        pooled = {f"socket:[{line[9]}]" for line in tcp if int(line[2].split(":")[1], 16) == self.homeserver_port}
        return sorted(target for target in targets if target not in pooled)

    def memory(self):
        """Returns the resident memory in bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def wait_until_idle(self):
        """Waits until only the evaluators have a helper process and a job folder."""

        def is_idle():
            evaluators = self.evaluators()
            return self.helpers() == evaluators and len(self.jobs()) <= len(evaluators)

        wait_until("all jobs are cleaned up", is_idle, self.process)


def toml(value):
    """Formats a value as TOML. The strings used in tests have the same syntax in JSON and TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
