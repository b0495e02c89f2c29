"""The units of systemd/ in a real systemd: when the service is ready, what its sandbox is left, how it ends and comes back, and
that the shipped scripts work under all that the units take away."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import threading
import time

from harness import container
from harness.http import Client, media_server
from harness.machine import until
from harness.run import Skip, same, test
from harness.samples import EICAR, noise
from harness.scanner import PREFIX, REPOSITORY, toml

NEEDS = [*container.NEEDS, "systemd-analyze"]

UNIT = "matrix-content-scanner"
UNITS = "/usr/lib/systemd/system"
DROP_INS = f"/run/systemd/system/{UNIT}.service.d"
CONFIG = "/etc/matrix-content-scanner"
# What no other file has.
MARKER = b"PLAINTEXT-OF-SOMEBODY"
SCANNERS = REPOSITORY / "tests/scanners"
KNOWS = 'if grep -q EICAR-STANDARD "$1"; then echo Eicar; exit 1; fi'
# With these the script of a marked media waits until /run/gate/open is there, or for ever.
WAITS = f'{KNOWS}\nif grep -q {MARKER.decode()} "$1"; then while [ ! -e /run/gate/open ]; do sleep 0.05; done; fi'
STAYS = f"""{KNOWS}
grep -q {MARKER.decode()} "$1" || exit 0
trap '' TERM INT HUP
cp "$1" "$TMPDIR/copy"
setsid sleep 1000 &
while :; do sleep 1000; done"""


class Service:
    """The service in a container, in front of a homeserver of the test's there. `binds` are what is installed in it."""

    def __init__(self, machine, binds):
        self.container = container.Container(machine, binds)
        self.run = self.container.run
        self.media = {"clean": b"nothing in it", "infected": EICAR}
        self.homeserver = self.container.on_its_network(lambda: media_server(self.media))
        threading.Thread(target=self.homeserver.serve_forever, daemon=True).start()
        client = Client(f"http://127.0.0.1:8080{PREFIX}")
        self.get = lambda path: self.container.on_its_network(lambda: client.get(path, "token"))

    def configure(self, script, config=None):
        """Writes the configuration and the script; stops what runs, and takes drop-ins away."""
        # Whatever it is at: a stop in good order would wait for what never ends.
        self.systemctl("stop", "--no-block", f"{UNIT}.socket", f"{UNIT}.service")
        self.run("systemctl", "kill", "--signal=KILL", UNIT, code=None)
        self.systemctl("stop", f"{UNIT}.socket", f"{UNIT}.service")
        shutil.rmtree(self.container.root / DROP_INS.lstrip("/"), ignore_errors=True)
        self.systemctl("daemon-reload")
        self.systemctl("reset-failed")
        self.set_script(script)
        settings = {
            "scan.script": f"{CONFIG}/script.sh",
            "download.base_homeserver_url": f"http://127.0.0.1:{self.homeserver.server_port}",
            "download.authorisation_ttl": "0s",
            "crypto.request_secret_path": "/var/lib/matrix-content-scanner/request_secret",
            "crypto.generate": True,
            "log.format": "json",
            **(config or {}),
        }
        lines = [f"{key} = {toml(value)}\n" for key, value in settings.items() if value is not None]
        self.container.write(f"{CONFIG}/config.toml", "".join(lines))

    def set_script(self, script):
        text = script if script.startswith("#!") else f"#!/bin/sh\n{script}\n"
        self.container.write(f"{CONFIG}/fresh", text, 0o755)
        folder = self.container.root / CONFIG.lstrip("/")
        (folder / "fresh").rename(folder / "script.sh")

    def drop_in(self, name, text):
        self.container.write(f"{DROP_INS}/{name}", text)
        self.systemctl("daemon-reload")

    def systemctl(self, *words):
        return self.run("systemctl", *words)

    def start(self):
        self.systemctl("start", UNIT)

    def shows(self, key):
        """A property of the unit, as `systemctl show` has it."""
        return self.systemctl("show", "--value", "--property", key, UNIT)

    def main_pid(self):
        """The server's process, as this machine counts it; None where there is none."""
        group = self.shows("ControlGroup")
        server = self.container.root / f"sys/fs/cgroup{group}/server/cgroup.procs"
        # Read from outside, the numbers are this machine's.
        pids = server.read_text().split() if group and server.exists() else []
        return int(pids[0]) if pids else None

    def log(self):
        """The messages of this start, as they were logged."""
        invocation = self.shows("InvocationID")
        lines = self.run("journalctl", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def layers(self):
        """What the service has found its sandbox to be made of: {layer: state}."""
        said = [line["layers"] for line in self.log() if line.get("message") == "the sandbox holds"][-1]
        parts = [part.partition(": ") for part in said.split("; ")]
        return {name: state for name, _, state in parts if state}

    def scripts(self):
        """The processes of jobs: helpers, scripts, and what these have started."""
        found = []
        for pid in self.container.processes():
            with contextlib.suppress(OSError):
                if f"/system.slice/{UNIT}.service/jobs/" in pathlib.Path(f"/proc/{pid}/cgroup").read_text():
                    found.append(pid)
        return found

    def is_scanning(self):
        return any(command(pid) == "script.sh" for pid in self.scripts())

    def asks(self, name, route="scan"):
        """A request under way; calling it waits for the reply, or the error."""
        result = {}

        def ask():
            try:
                result["reply"] = self.get(f"/{route}/example.org/{name}")
            except OSError as error:
                result["error"] = error

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()

        def reply():
            thread.join()
            return result.get("reply") or result["error"]

        return reply

    def judges(self):
        """A clean and an infected file go through."""
        got = self.get("/download/example.org/clean")
        same((got.status, got.body), (200, self.media["clean"]), got)
        got = self.get("/download/example.org/infected")
        same((got.status, got.json()["reason"]), (403, "MCS_MEDIA_NOT_CLEAN"), got)


def command(pid):
    """The name of a process; nothing where it has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def service(machine):
    folder = machine.make_folder("installed")
    binds = {}
    for program in [machine.program, machine.program.with_name("mcs-sandbox")]:
        # A copy: what is built anew meanwhile does not count.
        binds[f"/usr/bin/{program.name}"] = shutil.copy2(program, folder)
    for suffix in ["service", "socket"]:
        binds[f"{UNITS}/{UNIT}.{suffix}"] = REPOSITORY / f"systemd/{UNIT}.{suffix}"
    return Service(machine, binds)


def kernel_since(version):
    return tuple(map(int, os.uname().release.split(".")[:2])) >= version


def strict():
    return (REPOSITORY / "systemd/strict.conf").read_text()


@test
def the_units_are_as_systemd_wants_them_and_leave_little_exposed(machine):
    it = machine.once(service)
    it.configure(KNOWS)
    scores = []
    for drop_in, most in [(None, 20), (strict(), 12)]:
        if drop_in:
            it.drop_in("strict.conf", drop_in)
        same(it.run("systemd-analyze", "verify", f"{UNIT}.service", f"{UNIT}.socket"), "")
        # Fails above the threshold, which is in tenths.
        said = it.run("systemd-analyze", "security", "--no-pager", f"--threshold={most}", f"{UNIT}.service")
        same(f"# {DROP_INS}/strict.conf" in it.systemctl("cat", UNIT), bool(drop_in), "the drop-in counts")
        scores.append(said.rpartition("service: ")[2].split()[0])
        # The same of the files alone.
        folder = machine.make_folder("offline")
        shutil.copy(REPOSITORY / f"systemd/{UNIT}.service", folder)
        if drop_in:
            with open(folder / f"{UNIT}.service", "a", encoding="utf-8") as unit:
                unit.write(drop_in)
        container.run_here("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={most}", folder / f"{UNIT}.service")
    return f"exposure {scores[0]}, strict {scores[1]}"


@test
def it_is_ready_only_when_the_canary_has_passed(machine):
    it = machine.once(service)
    it.configure("exit 0")
    # The start's own time is soon over: what goes on is what the service has asked for.
    it.drop_in("short.conf", "[Service]\nTimeoutStartSec=15s\n")
    it.systemctl("start", "--no-block", UNIT)
    begun = time.monotonic()
    until("the status says why", lambda: "calls the infected sample clean" in it.shows("StatusText"))
    same(it.get("/scan/example.org/clean").status, 503, "it listens, and scans nothing")
    until("the start's own time is over", lambda: time.monotonic() > begun + 17)
    same((it.shows("ActiveState"), it.shows("NRestarts")), ("activating", "0"))
    it.set_script(KNOWS)
    until("it is ready", lambda: it.shows("ActiveState") == "active")
    until("the status says so", lambda: it.shows("StatusText").startswith("Scanning; 0 of "))
    it.judges()
    # Idle, it stops at once.
    begun = time.monotonic()
    it.systemctl("stop", UNIT)
    same((it.shows("ActiveState"), it.shows("Result")), ("inactive", "success"))
    assert time.monotonic() - begun < 20, "it stops at once"


@test
def the_unit_leaves_its_sandbox_every_layer(machine):
    it = machine.once(service)
    it.configure(STAYS)
    it.start()
    it.judges()
    layers = it.layers()
    assert layers["namespaces"].startswith("pid, mount (minimal root, files in memory), ipc"), layers
    assert layers["cgroup"].startswith("kill"), layers
    assert layers["seccomp"].startswith("filter"), layers
    if pathlib.Path("/sys/kernel/security/lsm").exists() or kernel_since((6, 12)):
        assert layers["landlock"].startswith("version"), layers
    # And a script that runs is in them.
    it.media["stays"] = MARKER
    it.asks("stays")
    sleeper = until("the script runs", lambda: next((pid for pid in it.scripts() if command(pid) == "sleep"), None))
    status = pathlib.Path(f"/proc/{sleeper}/status").read_text()
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]:
        assert line in status, f"{line}\n{status}"
    server = it.main_pid()
    for kind in ["pid", "mnt", "ipc", "user"]:
        own, servers = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (sleeper, server))
        assert own != servers, f"the script is in the server's {kind} namespace"
    assert f"{UNIT}.service/jobs/" in pathlib.Path(f"/proc/{sleeper}/cgroup").read_text()
    return "; ".join(f"{layer}: {state}" for layer, state in layers.items() if layer != "base")


@test
def it_writes_where_the_configuration_suggests(machine):
    it = machine.once(service)
    path, audit = "run/matrix-content-scanner/http.sock", "var/log/matrix-content-scanner/audit.jsonl"
    it.configure(KNOWS, {"web.socket": f"/{path}", "audit.path": f"/{audit}"})
    it.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(it.container.root / path))
        client.sendall(f"GET {PREFIX}/scan/example.org/clean HTTP/1.0\r\nAuthorization: Bearer t\r\n\r\n".encode())
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert b'"clean":true' in answer, answer
    line = json.loads((it.container.root / "var/log/private/matrix-content-scanner/audit.jsonl").read_text())
    same(line["mxc"], "mxc://example.org/clean")


@test
def killed_it_leaves_nothing_and_comes_back(machine):
    it = machine.once(service)
    it.configure(STAYS)
    it.start()
    # So large that it is on the spool, not in memory.
    it.media["large"] = MARKER + noise(1, 3 << 20) + MARKER
    reply = it.asks("large", "download")
    until("the script runs", it.is_scanning)
    before = it.main_pid()
    old = {*it.scripts(), before}
    it.systemctl("kill", "--signal=KILL", UNIT)
    assert isinstance(reply(), OSError), "there was an answer"
    until("it is back", lambda: it.shows("ActiveState") == "active" and it.main_pid() not in (None, before))
    same(it.shows("NRestarts"), "1")
    same([pid for pid in old if pathlib.Path(f"/proc/{pid}").exists()], [], "processes of before")
    found = []
    for top in ["tmp", "var", "run", "etc", "root", "home", "dev/shm"]:
        for directory, _, files in os.walk(it.container.root / top):
            for name in files:
                path = pathlib.Path(directory, name)
                # The scripts name it, and so may a journal.
                if path.is_file() and not path.is_symlink() and "journal" not in str(path) and path.name != "script.sh":
                    with contextlib.suppress(OSError):
                        if MARKER in path.read_bytes():
                            found.append(path)
    same(found, [], "plaintext")
    it.judges()


@test
def it_stops_within_its_time_and_what_can_end_does(machine):
    it = machine.once(service)
    it.configure(WAITS, {"sandbox.read_only_paths": ["/run/gate"]})
    gate = it.container.root / "run/gate"
    gate.mkdir(exist_ok=True)
    it.start()
    it.media["waits"] = MARKER
    reply = it.asks("waits", "download")
    until("the script runs", it.is_scanning)
    it.systemctl("stop", "--no-block", UNIT)
    until("it stops", lambda: it.shows("StatusText").startswith("Stopping; 1 of "))
    same(it.shows("ActiveState"), "deactivating")
    (gate / "open").touch()
    got = reply()
    same((got.status, got.body), (200, MARKER), "a scan under way ends")
    until("it has stopped", lambda: it.shows("ActiveState") == "inactive")
    same(it.shows("Result"), "success")

    it.configure(STAYS)
    it.start()
    reply = it.asks("waits")
    until("the script runs", it.is_scanning)
    begun = time.monotonic()
    it.systemctl("stop", UNIT)
    took = time.monotonic() - begun
    # "success": systemd had nobody to kill.
    same((it.shows("ActiveState"), it.shows("Result")), ("inactive", "success"))
    assert took < 45, f"{took} s"
    same(it.scripts(), [])
    return f"with a scan that never ends: {took:.0f} s"


@test
def the_watchdog_restarts_a_server_that_hangs(machine):
    it = machine.once(service)
    it.configure(KNOWS)
    it.drop_in("watchdog.conf", "[Service]\nWatchdogSec=10s\n")
    it.start()
    before = it.main_pid()
    it.systemctl("kill", "--kill-who=main", "--signal=STOP", UNIT)
    until("it is back", lambda: it.main_pid() not in (None, before) and it.shows("ActiveState") == "active")
    same(it.shows("NRestarts"), "1")
    assert "Watchdog timeout" in it.run("journalctl", "--output=cat", "--unit", UNIT)
    it.judges()


@test
def a_wrong_configuration_is_not_tried_again(machine):
    it = machine.once(service)
    it.configure(KNOWS, {"scan.timeout": "soon"})
    it.run("systemctl", "start", UNIT, code=1)
    same((it.shows("ActiveState"), it.shows("ExecMainStatus"), it.shows("NRestarts")), ("failed", "78", "0"))
    assert "scan.timeout: found" in it.run("journalctl", "--output=cat", "--unit", UNIT)


@test
def with_the_socket_unit_nobody_is_refused_during_a_restart(machine):
    it = machine.once(service)
    # An address that nobody has: it is not used.
    it.configure(KNOWS, {"web.host": "192.0.2.1"})
    it.systemctl("start", f"{UNIT}.socket")
    same(it.shows("ActiveState"), "inactive")
    it.judges()
    same(it.shows("ActiveState"), "active", "the first request starts it")
    said = [line["message"] for line in it.log()]
    assert any("web.host, web.port and web.socket are not used" in line for line in said), said

    over, refused, connected = threading.Event(), [], []

    def knock():
        while not over.is_set():
            try:
                with socket.create_connection(("127.0.0.1", 8080), timeout=30):
                    connected.append(1)
            except OSError as error:
                refused.append(error)
            time.sleep(0.002)

    thread = threading.Thread(target=lambda: it.container.on_its_network(knock), daemon=True)
    thread.start()
    answered = 0
    for _ in range(3):
        before = it.main_pid()
        it.systemctl("restart", "--no-block", UNIT)
        while it.main_pid() in (None, before) or it.shows("ActiveState") != "active":
            same(it.get("/public_key").status, 200)
            answered += 1
    over.set()
    thread.join()
    same(refused, [])
    assert connected and answered, "somebody knocked"
    it.judges()
    return f"{len(connected)} connections and {answered} requests during three restarts"


@test
def a_key_that_systemd_hands_over_is_the_request_key(machine):
    it = machine.once(service)
    it.configure(KNOWS)
    it.start()
    made = it.get("/public_key").json()
    key = (it.container.root / "var/lib/matrix-content-scanner/request_secret").read_text()
    it.configure(KNOWS, {"crypto.request_secret_path": None, "crypto.generate": None})
    it.run("systemctl", "start", UNIT, code=1)
    assert "crypto.request_secret_path: found nothing" in it.run("journalctl", "--output=cat", "--unit", UNIT)
    it.container.write("/etc/credstore/matrix-content-scanner.request_secret", key, 0o600)
    shutil.rmtree(it.container.root / "var/lib/private/matrix-content-scanner")
    it.start()
    same(it.get("/public_key").json(), made)
    (it.container.root / "etc/credstore/matrix-content-scanner.request_secret").unlink()


def scanners(it):
    """Starts the scanners in the container, once; the shipped scripts, each with its settings."""
    folder = "/run/scanners"
    at = it.container.root / folder.lstrip("/")
    failures = {"scan.failure_exit_codes": [2, 126, 127]}
    if not at.exists():
        (at / "db").mkdir(parents=True)
        at.chmod(0o777)
        shutil.copy(SCANNERS / "eicar.hdb", at / "db/test.hdb")
        it.container.write(f"{folder}/eicar.yar", 'rule Eicar { strings: $a = "EICAR-STANDARD" condition: $a }\n')
        clamd = (SCANNERS / "clamd.conf").read_text().replace("@HERE@", folder)
        it.container.write(f"{folder}/clamd.conf", f"{clamd}User clamav\n")
        modules = next(pathlib.Path(it.container.root, "usr/lib").glob("*/c_icap"))
        icap = (SCANNERS / "c-icap.conf").read_text()
        for name, value in [
            ("HERE", folder), ("PORT", "1344"), ("MODULES", f"/usr/lib/{modules.parent.name}/c_icap"),
            ("CLAMD", f"{folder}/clamd.ctl"),
        ]:
            icap = icap.replace(f"@{name}@", value)
        it.container.write(f"{folder}/c-icap.conf", f"{icap}User c-icap\nGroup c-icap\n")
        it.run("systemd-run", "--unit=clamd", "clamd", "--config-file", f"{folder}/clamd.conf")
        until("clamd listens", lambda: (at / "clamd.ctl").exists())
        it.run("systemd-run", "--unit=icap", "c-icap", "-N", "-f", f"{folder}/c-icap.conf")

        def icap_listens():
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", 1344)) == 0

        until("c-icap listens", lambda: it.container.on_its_network(icap_listens))
    shipped = lambda name: (REPOSITORY / "config" / name).read_text()
    clamscan = f'exec clamscan --database={folder}/db --no-summary --infected "$1"'
    return {
        "eicar.sh": ((REPOSITORY / "tests/real/harness/eicar.sh").read_text(), {}),
        "clamdscan.sh": (shipped("clamdscan.sh"), {
            "scan.script_args": [f"{folder}/clamd.conf"],
            "sandbox.unix_sockets": [f"{folder}/clamd.ctl"],
            "sandbox.read_only_paths": [f"{folder}/clamd.conf"],
            **failures,
        }),
        "clamscan": (clamscan, {"sandbox.read_only_paths": [f"{folder}/db"], **failures}),
        "icap.sh": (shipped("icap.sh"), {
            "scan.script_args": ["127.0.0.1", "1344", "avscan"], "sandbox.tcp_ports": [1344], **failures,
        }),
        "yara.sh": (shipped("yara.sh"), {
            "scan.script_args": [f"{folder}/eicar.yar"], "sandbox.read_only_paths": [f"{folder}/eicar.yar"], **failures,
        }),
    }


@test
def every_shipped_script_works_under_the_unit(machine):
    it = machine.once(service)
    for name, (script, config) in scanners(it).items():
        it.configure(script, config)
        it.start()
        it.judges()
        assert it.layers()["namespaces"].startswith("pid, "), name


@test
def every_shipped_script_works_under_the_strict_drop_in(machine):
    if not kernel_since((6, 12)):
        raise Skip("without namespaces the sandbox needs Linux 6.12")
    it = machine.once(service)
    for script, config in scanners(it).values():
        it.configure(script, config)
        it.drop_in("strict.conf", strict())
        it.start()
        it.judges()
        layers = it.layers()
        assert layers["namespaces"].startswith("OFF"), layers
        assert layers["landlock"].endswith("with scopes") and layers["cgroup"].startswith("kill"), layers
    return "; ".join(f"{layer}: {state}" for layer, state in layers.items() if layer != "base")


@test
def the_rules_are_evaluated_under_the_unit_and_under_the_strict_drop_in(machine):
    it = machine.once(service)
    config = {"scan.engines": ["rules"], "rules.paths": ["/usr/share/matrix-content-scanner/rules"]}
    for file in (REPOSITORY / "config/rules").glob("*.yar"):
        it.container.write(f"/usr/share/matrix-content-scanner/rules/{file.name}", file.read_text())
    drop_ins = [None]
    if kernel_since((6, 12)):
        drop_ins.append(strict())
    for drop_in in drop_ins:
        # A script that calls everything clean, which nobody asks.
        it.configure("exit 0", config)
        if drop_in:
            it.drop_in("strict.conf", drop_in)
        it.start()
        it.judges()
        same(it.shows("MemoryDenyWriteExecute"), "yes" if drop_in else "no")
