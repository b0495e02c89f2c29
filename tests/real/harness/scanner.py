"""The service under test, in a folder of its own, in front of a homeserver."""

import json
import os
import pathlib
import shutil

from .http import Client
from .machine import output_of, until

REPOSITORY = pathlib.Path(__file__).resolve().parents[3]
PREFIX = "/_matrix/media_proxy/unstable"


# Debian's "nobody" and "nogroup": whom the service runs as where it is not to be root.
NOBODY = 65534


def program(machine):
    """The program and its helper, where users other than the suite's can execute them."""
    folder = machine.make_folder("bin")
    for name in (machine.program, machine.program.with_name("mcs-sandbox")):
        shutil.copy(name, folder)
    machine.ran("matrix-content-scanner", output_of(machine.program, "--version").split()[-1])
    return folder / machine.program.name


class Scanner:
    """A running service, in front of a homeserver or of none, with these keys of its configuration, and
    a script of this repository or the text of one. `unprivileged`: not as root, even if the suite is."""

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
        self.as_nobody = unprivileged and os.geteuid() == 0
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
        # None takes a key out.
        self.config.update(config or {})
        self.config = {key: value for key, value in self.config.items() if value is not None}
        if self.as_nobody:
            for path in (self.folder, *self.folder.iterdir()):
                os.chown(path, NOBODY, NOBODY)
        self.start()

    def start(self):
        """Starts it and waits until it listens."""
        lines = [f"{key} = {toml(value)}" for key, value in self.config.items()]
        path = self.folder / "config.toml"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        command = [self.machine.once(program), "-c", path]
        if self.as_nobody:
            to = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
            command = ["setpriv", *to, *command]
        # Its log goes on in the same file.
        earlier = len(self.logged("listening")) if hasattr(self, "process") else 0
        self.process = self.machine.start("scanner", command, self.folder)
        listening = until("the scanner listens", lambda: self.logged("listening")[earlier:], self.process)
        self.base = f"http://{listening[0]['address']}{PREFIX}"
        self.client = Client(self.base)
        self.get, self.post, self.request = self.client.get, self.client.post, self.client.request

    def stop(self):
        """Stops it as an operator does; its exit code."""
        return self.machine.stop(self.process)

    def set_script(self, text):
        """Puts another script in place, whole at once."""
        fresh = self.folder / "fresh"
        fresh.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}\n", encoding="utf-8")
        fresh.chmod(0o755)
        fresh.rename(self.script)

    def log(self):
        return self.process.said()

    def logged(self, message):
        """The lines of the log with this message."""
        lines = [line for line in self.log().splitlines() if line.endswith("}")]
        return [line for line in map(json.loads, lines) if line.get("message") == message]

    def helpers(self):
        """The processes that it has started and that are still there: each job has a helper."""
        children = []
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            children += (task / "children").read_text().split()
        return children

    def jobs(self):
        """The folders of jobs at the moment."""
        return [job for run in (self.folder / "temp").iterdir() if run.is_dir() for job in run.iterdir()]

    def descriptors(self):
        """What its descriptors are open on: without idle connections to the homeserver, which it keeps for
        a while, and those that close meanwhile."""
        open_on = []
        for descriptor in pathlib.Path(f"/proc/{self.process.pid}/fd").iterdir():
            try:
                open_on.append(os.readlink(descriptor))
            except FileNotFoundError:
                pass
        tcp = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        kept = {f"socket:[{line[9]}]" for line in tcp if int(line[2].split(":")[1], 16) == self.homeserver_port}
        return sorted(what for what in open_on if what not in kept)

    def memory(self):
        """What it holds in memory, bytes."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def idle(self):
        """Waits until nothing of any job is left."""
        until("nothing of a job is left", lambda: not self.helpers() and not self.jobs(), self.process)


def toml(value):
    """A value in TOML; strings are JSON's there, but for a few that nobody writes in a test."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(key)} = {toml(held)}" for key, held in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
