"""The units of systemd/ under a real systemd: readiness, sandbox layers, stop and restart, and the shipped scripts
under the restrictions of the units."""

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
from harness.machine import wait_until
from harness.run import Skip, assert_equal, test
from harness.samples import EICAR, noise
from harness.scanner import PREFIX, REPOSITORY, toml

NEEDS = [*container.NEEDS, "systemd-analyze"]

UNIT = "matrix-content-scanner"
UNITS = "/usr/lib/systemd/system"
DROP_INS = f"/run/systemd/system/{UNIT}.service.d"
CONFIG = "/etc/matrix-content-scanner"
# Content that no other file has.
MARKER = b"PLAINTEXT-MARKER-OF-TEST"
SCANNER_CONFIGS = REPOSITORY / "tests/scanners"
EICAR_SCRIPT = 'if grep -q EICAR-STANDARD "$1"; then echo Eicar; exit 1; fi'
# On a marked file these scripts wait until /run/gate/open exists, or never end.
WAITING_SCRIPT = f'{EICAR_SCRIPT}\nif grep -q {MARKER.decode()} "$1"; then while [ ! -e /run/gate/open ]; do sleep 0.05; done; fi'
HANGING_SCRIPT = f"""{EICAR_SCRIPT}
grep -q {MARKER.decode()} "$1" || exit 0
trap '' TERM INT HUP
cp "$1" "$TMPDIR/copy"
setsid sleep 1000 &
while :; do sleep 1000; done"""


class Service:
    """The service in a container, in front of a minimal homeserver. `binds` are the installed files."""

    def __init__(self, machine, binds):
        self.container = container.Container(machine, binds)
        self.run = self.container.run
        self.media = {"clean": b"nothing in it", "infected": EICAR}
        self.homeserver = self.container.in_network(lambda: media_server(self.media))
        threading.Thread(target=self.homeserver.serve_forever, daemon=True).start()
        client = Client(f"http://127.0.0.1:8080{PREFIX}")
        self.get = lambda path, token="token": self.container.in_network(lambda: client.get(path, token))

    def configure(self, script, config=None):
        """Stops the service, removes drop-ins, and writes the configuration and the script."""
        # Killed, since an orderly stop would wait for scans that never end.
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
            # Each test scans.
            "store.kind": "none",
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

    def systemctl(self, *arguments):
        return self.run("systemctl", *arguments)

    def start(self):
        self.systemctl("start", UNIT)

    def get_property(self, key):
        """Returns a property of the unit from `systemctl show`."""
        return self.systemctl("show", "--value", "--property", key, UNIT)

    def main_pid(self):
        """Returns the process id of the server in the PID namespace of this machine, or None."""
        group = self.get_property("ControlGroup")
        server = self.container.root / f"sys/fs/cgroup{group}/server/cgroup.procs"
        # Read from outside the container, the ids are those of this machine.
        pids = server.read_text().split() if group and server.exists() else []
        return int(pids[0]) if pids else None

    def log(self):
        """Returns the log entries since the last start."""
        invocation = self.get_property("InvocationID")
        lines = self.run("journalctl", "--output=cat", f"_SYSTEMD_INVOCATION_ID={invocation}").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def layers(self):
        """Returns the sandbox layers reported by the service: {layer: state}."""
        layers = [line["layers"] for line in self.log() if line.get("message") == "the sandbox is active"][-1]
        parts = [part.partition(": ") for part in layers.split("; ")]
        return {name: state for name, _, state in parts if state}

    def job_processes(self):
        """Returns the processes of jobs: helpers, scripts and their children."""
        found = []
        for pid in self.container.processes():
            with contextlib.suppress(OSError):
                if f"/system.slice/{UNIT}.service/jobs/" in pathlib.Path(f"/proc/{pid}/cgroup").read_text():
                    found.append(pid)
        return found

    def is_scanning(self):
        return any(process_name(pid) == "script.sh" for pid in self.job_processes())

    def wait_for_sleeper(self):
        """Waits until the hanging script has started its child, and returns the child's process id."""
        sleepers = lambda: [pid for pid in self.job_processes() if process_name(pid) == "sleep"]
        return wait_until("the script runs", sleepers)[0]

    def start_request(self, name, route="scan", token="token"):
        """Sends a request in a thread; returns a function that waits for and returns the response or the error."""
        result = {}

        def send():
            try:
                result["response"] = self.get(f"/{route}/example.org/{name}", token)
            except OSError as error:
                result["error"] = error

        thread = threading.Thread(target=send, daemon=True)
        thread.start()

        def wait():
            thread.join()
            return result.get("response") or result["error"]

        return wait

    def assert_scans(self):
        """Asserts the responses for a clean and an infected file."""
        got = self.get("/download/example.org/clean")
        assert_equal((got.status, got.body), (200, self.media["clean"]), got)
        got = self.get("/download/example.org/infected")
        assert_equal((got.status, got.json()["reason"]), (403, "MCS_MEDIA_NOT_CLEAN"), got)


def process_name(pid):
    """Returns the name of a process, or an empty string if the process has exited."""
    try:
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def systemd_service(machine):
    folder = machine.make_folder("installed")
    binds = {}
    for program in [machine.program, machine.program.with_name("mcs-sandbox")]:
        # Copied, so that a concurrent build does not affect the test.
        binds[f"/usr/bin/{program.name}"] = shutil.copy2(program, folder)
    for suffix in ["service", "socket"]:
        binds[f"{UNITS}/{UNIT}.{suffix}"] = REPOSITORY / f"systemd/{UNIT}.{suffix}"
    return Service(machine, binds)


def kernel_since(version):
    return tuple(map(int, os.uname().release.split(".")[:2])) >= version


def strict_drop_in():
    return (REPOSITORY / "systemd/strict.conf").read_text()


@test
def units_pass_verification_and_exposure_threshold(machine):
    service = machine.shared(systemd_service)
    service.configure(EICAR_SCRIPT)
    scores = []
    for drop_in, threshold in [(None, 21), (strict_drop_in(), 13)]:
        if drop_in:
            service.drop_in("strict.conf", drop_in)
        assert_equal(service.run("systemd-analyze", "verify", f"{UNIT}.service", f"{UNIT}.socket"), "")
        # Fails above the threshold, given in tenths.
        output = service.run("systemd-analyze", "security", "--no-pager", f"--threshold={threshold}", f"{UNIT}.service")
        assert_equal(f"# {DROP_INS}/strict.conf" in service.systemctl("cat", UNIT), bool(drop_in), "the drop-in is in use")
        scores.append(output.rpartition("service: ")[2].split()[0])
        # The same check on the unit files only.
        folder = machine.make_folder("offline")
        shutil.copy(REPOSITORY / f"systemd/{UNIT}.service", folder)
        if drop_in:
            with open(folder / f"{UNIT}.service", "a", encoding="utf-8") as unit:
                unit.write(drop_in)
        container.run_here("systemd-analyze", "security", "--no-pager", "--offline=true", f"--threshold={threshold}", folder / f"{UNIT}.service")
    page = (REPOSITORY / "docs/operations.md").read_text()
    for sentence in (f"`systemd-analyze security`: {scores[0]}.", f"(exposure {scores[1]})"):
        assert sentence in page, sentence
    return f"exposure {scores[0]}, strict {scores[1]}"


@test
def ready_only_after_canary_success(machine):
    service = machine.shared(systemd_service)
    service.configure("exit 0")
    # A short start timeout, which the service has to extend.
    service.drop_in("short.conf", "[Service]\nTimeoutStartSec=15s\n")
    service.systemctl("start", "--no-block", UNIT)
    start = time.monotonic()
    wait_until("the status contains the reason", lambda: "reports the infected sample as clean" in service.get_property("StatusText"))
    assert_equal(service.get("/scan/example.org/clean").status, 503, "the service listens but does not scan")
    wait_until("the start timeout has passed", lambda: time.monotonic() > start + 17)
    assert_equal((service.get_property("ActiveState"), service.get_property("NRestarts")), ("activating", "0"))
    service.set_script(EICAR_SCRIPT)
    wait_until("the service is ready", lambda: service.get_property("ActiveState") == "active")
    wait_until("the status is updated", lambda: service.get_property("StatusText").startswith("Scanning; 0 of "))
    service.assert_scans()
    # An idle service stops immediately.
    start = time.monotonic()
    service.systemctl("stop", UNIT)
    assert_equal((service.get_property("ActiveState"), service.get_property("Result")), ("inactive", "success"))
    assert time.monotonic() - start < 20, "the stop took too long"


@test
def unit_allows_every_sandbox_layer(machine):
    service = machine.shared(systemd_service)
    service.configure(HANGING_SCRIPT)
    service.start()
    service.assert_scans()
    layers = service.layers()
    assert layers["namespaces"].startswith("pid, mount (minimal root, files in memory), ipc"), layers
    assert layers["cgroup"].startswith("kill"), layers
    assert layers["seccomp"].startswith("filter"), layers
    if pathlib.Path("/sys/kernel/security/lsm").exists() or kernel_since((6, 12)):
        assert layers["landlock"].startswith("version"), layers
    # A running script is inside the layers.
    service.media["stays"] = MARKER
    service.start_request("stays")
    sleeper = service.wait_for_sleeper()
    status = pathlib.Path(f"/proc/{sleeper}/status").read_text()
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]:
        assert line in status, f"{line}\n{status}"
    server = service.main_pid()
    for kind in ["pid", "mnt", "ipc", "user", "uts"]:
        script_ns, server_ns = (os.readlink(f"/proc/{pid}/ns/{kind}") for pid in (sleeper, server))
        assert script_ns != server_ns, f"the script is in the {kind} namespace of the server"
    assert f"{UNIT}.service/jobs/" in pathlib.Path(f"/proc/{sleeper}/cgroup").read_text()
    return "; ".join(f"{layer}: {state}" for layer, state in layers.items() if layer != "base")


@test
def slow_script_is_demoted_by_its_control_group(machine):
    service = machine.shared(systemd_service)
    service.configure(HANGING_SCRIPT, {"scan.max_scripts": 1, "scan.slow_after": "100ms"})
    service.start()
    group = service.container.root / f"sys/fs/cgroup{service.get_property('ControlGroup')}"
    if "cpu" not in (group / "jobs/cgroup.subtree_control").read_text().split():
        raise Skip("the machine has no processor controller for control groups of version 2")
    assert_equal((group / "server/cpu.weight").read_text(), "1000\n")
    # A token is a tenant once the homeserver has accepted it.
    for token in ["first", "second"]:
        assert_equal(service.get("/scan/example.org/clean", token).status, 200)
    service.media.update(stays=MARKER, other=b"of the second tenant")
    service.start_request("stays", token="first")
    sleeper = service.wait_for_sleeper()
    job = group / "jobs" / pathlib.Path(pathlib.Path(f"/proc/{sleeper}/cgroup").read_text().strip()).name
    assert_equal(((job / "cpu.weight").read_text(), (job / "cpu.idle").read_text()), ("100\n", "0\n"))
    # Gets the only slot after the first script has been demoted.
    assert_equal(service.get("/scan/example.org/other", "second").status, 200)
    assert_equal((job / "cpu.idle").read_text(), "1\n")


@test
def writes_socket_and_audit_log_to_suggested_paths(machine):
    service = machine.shared(systemd_service)
    path, audit = "run/matrix-content-scanner/http.sock", "var/log/matrix-content-scanner/audit.jsonl"
    service.configure(EICAR_SCRIPT, {"web.socket": f"/{path}", "audit.path": f"/{audit}"})
    service.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(service.container.root / path))
        client.sendall(f"GET {PREFIX}/scan/example.org/clean HTTP/1.0\r\nAuthorization: Bearer t\r\n\r\n".encode())
        response = b"".join(iter(lambda: client.recv(4096), b""))
    assert b'"clean":true' in response, response
    line = json.loads((service.container.root / "var/log/private/matrix-content-scanner/audit.jsonl").read_text())
    assert_equal(line["mxc"], "mxc://example.org/clean")


@test
def verdicts_survive_a_restart(machine):
    service = machine.shared(systemd_service)
    service.configure(EICAR_SCRIPT, {"store.kind": None})
    service.start()
    service.assert_scans()
    service.systemctl("restart", UNIT)
    service.assert_scans()
    operations = Client("http://127.0.0.1:8081")
    metrics = service.container.in_network(lambda: operations.get("/metrics", "token")).body.decode()
    [hits] = [line.split()[1] for line in metrics.splitlines() if line.startswith('mcs_store_lookups_total{result="hit"}')]
    assert int(hits) >= 2, metrics
    database = service.container.root / "var/lib/private/matrix-content-scanner/store.db"
    assert_equal(database.stat().st_mode & 0o777, 0o600)
    return f"{hits} hits"


@test
def kill_leaves_nothing_and_service_restarts(machine):
    service = machine.shared(systemd_service)
    service.configure(HANGING_SCRIPT)
    service.start()
    # Above the size that is kept in memory.
    service.media["large"] = MARKER + noise(1, 3 << 20) + MARKER
    wait_for_response = service.start_request("large", "download")
    wait_until("the script runs", service.is_scanning)
    before = service.main_pid()
    old = {*service.job_processes(), before}
    service.systemctl("kill", "--signal=KILL", UNIT)
    assert isinstance(wait_for_response(), OSError), "the request was answered"
    wait_until("the service has restarted", lambda: service.get_property("ActiveState") == "active" and service.main_pid() not in (None, before))
    assert_equal(service.get_property("NRestarts"), "1")
    assert_equal([pid for pid in old if pathlib.Path(f"/proc/{pid}").exists()], [], "processes of the killed service")
    found = []
    for top in ["tmp", "var", "run", "etc", "root", "home", "dev/shm"]:
        for directory, _, files in os.walk(service.container.root / top):
            for name in files:
                path = pathlib.Path(directory, name)
                # The script contains the marker, and the journal may.
                if path.is_file() and not path.is_symlink() and "journal" not in str(path) and path.name != "script.sh":
                    with contextlib.suppress(OSError):
                        if MARKER in path.read_bytes():
                            found.append(path)
    assert_equal(found, [], "plaintext")
    service.assert_scans()


@test
def stop_finishes_running_scans_within_timeout(machine):
    service = machine.shared(systemd_service)
    service.configure(WAITING_SCRIPT, {"sandbox.read_only_paths": ["/run/gate"]})
    gate = service.container.root / "run/gate"
    gate.mkdir(exist_ok=True)
    service.start()
    service.media["waits"] = MARKER
    wait_for_response = service.start_request("waits", "download")
    wait_until("the script runs", service.is_scanning)
    service.systemctl("stop", "--no-block", UNIT)
    wait_until("the service is stopping", lambda: service.get_property("StatusText").startswith("Stopping; 1 of "))
    assert_equal(service.get_property("ActiveState"), "deactivating")
    (gate / "open").touch()
    got = wait_for_response()
    assert_equal((got.status, got.body), (200, MARKER), "response of a running scan")
    wait_until("the service has stopped", lambda: service.get_property("ActiveState") == "inactive")
    assert_equal(service.get_property("Result"), "success")

    service.configure(HANGING_SCRIPT)
    service.start()
    service.start_request("waits")
    wait_until("the script runs", service.is_scanning)
    start = time.monotonic()
    service.systemctl("stop", UNIT)
    took = time.monotonic() - start
    # "success": systemd did not have to kill any process.
    assert_equal((service.get_property("ActiveState"), service.get_property("Result")), ("inactive", "success"))
    assert took < 45, f"{took} s"
    assert_equal(service.job_processes(), [])
    return f"with a scan that never ends: {took:.0f} s"


@test
def watchdog_restarts_hanging_server(machine):
    service = machine.shared(systemd_service)
    service.configure(EICAR_SCRIPT)
    service.drop_in("watchdog.conf", "[Service]\nWatchdogSec=10s\n")
    service.start()
    before = service.main_pid()
    service.systemctl("kill", "--kill-who=main", "--signal=STOP", UNIT)
    wait_until("the service has restarted", lambda: service.main_pid() not in (None, before) and service.get_property("ActiveState") == "active")
    assert_equal(service.get_property("NRestarts"), "1")
    assert "Watchdog timeout" in service.run("journalctl", "--output=cat", "--unit", UNIT)
    service.assert_scans()


@test
def invalid_configuration_is_not_restarted(machine):
    service = machine.shared(systemd_service)
    service.configure(EICAR_SCRIPT, {"scan.timeout": "soon"})
    service.run("systemctl", "start", UNIT, code=1)
    assert_equal((service.get_property("ActiveState"), service.get_property("ExecMainStatus"), service.get_property("NRestarts")), ("failed", "78", "0"))
    assert "scan.timeout: found" in service.run("journalctl", "--output=cat", "--unit", UNIT)


@test
def restart_with_socket_unit_refuses_no_connection(machine):
    service = machine.shared(systemd_service)
    # Not an address of this machine: it is not used.
    service.configure(EICAR_SCRIPT, {"web.host": "192.0.2.1"})
    service.systemctl("start", f"{UNIT}.socket")
    assert_equal(service.get_property("ActiveState"), "inactive")
    service.assert_scans()
    assert_equal(service.get_property("ActiveState"), "active", "the first request starts the service")
    messages = [line["message"] for line in service.log()]
    assert any("ignoring web.host, web.port and web.socket" in line for line in messages), messages

    stop, refused, connected = threading.Event(), [], []

    def connect_repeatedly():
        while not stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", 8080), timeout=30):
                    connected.append(1)
            except OSError as error:
                refused.append(error)
            time.sleep(0.002)

    thread = threading.Thread(target=lambda: service.container.in_network(connect_repeatedly), daemon=True)
    thread.start()
    answered = 0
    for _ in range(3):
        before = service.main_pid()
        service.systemctl("restart", "--no-block", UNIT)
        while service.main_pid() in (None, before) or service.get_property("ActiveState") != "active":
            assert_equal(service.get("/public_key").status, 200)
            answered += 1
    stop.set()
    thread.join()
    assert_equal(refused, [])
    assert connected and answered, "no connection was made"
    service.assert_scans()
    return f"{len(connected)} connections and {answered} requests during three restarts"


@test
def uses_credential_as_request_key(machine):
    service = machine.shared(systemd_service)
    service.configure(EICAR_SCRIPT)
    service.start()
    public_key = service.get("/public_key").json()
    key = (service.container.root / "var/lib/matrix-content-scanner/request_secret").read_text()
    service.configure(EICAR_SCRIPT, {"crypto.request_secret_path": None, "crypto.generate": None})
    service.run("systemctl", "start", UNIT, code=1)
    assert "crypto.request_secret_path: missing" in service.run("journalctl", "--output=cat", "--unit", UNIT)
    service.container.write("/etc/credstore/matrix-content-scanner.request_secret", key, 0o600)
    shutil.rmtree(service.container.root / "var/lib/private/matrix-content-scanner")
    service.start()
    assert_equal(service.get("/public_key").json(), public_key)
    (service.container.root / "etc/credstore/matrix-content-scanner.request_secret").unlink()


def start_scanners(service):
    """Starts clamd and c-icap in the container at the first call; returns {name: (script, settings)} of the shipped
    scripts."""
    folder = "/run/scanners"
    host_folder = service.container.root / folder.lstrip("/")
    failures = {"scan.failure_exit_codes": [2, 126, 127]}
    if not host_folder.exists():
        (host_folder / "db").mkdir(parents=True)
        host_folder.chmod(0o777)
        shutil.copy(SCANNER_CONFIGS / "eicar.hdb", host_folder / "db/test.hdb")
        service.container.write(f"{folder}/eicar.yar", 'rule Eicar { strings: $a = "EICAR-STANDARD" condition: $a }\n')
        clamd = (SCANNER_CONFIGS / "clamd.conf").read_text().replace("@HERE@", folder)
        service.container.write(f"{folder}/clamd.conf", f"{clamd}User clamav\n")
        modules = next(pathlib.Path(service.container.root, "usr/lib").glob("*/c_icap"))
        icap = (SCANNER_CONFIGS / "c-icap.conf").read_text()
        for name, value in [
            ("HERE", folder), ("PORT", "1344"), ("MODULES", f"/usr/lib/{modules.parent.name}/c_icap"),
            ("CLAMD", f"{folder}/clamd.ctl"),
        ]:
            icap = icap.replace(f"@{name}@", value)
        service.container.write(f"{folder}/c-icap.conf", f"{icap}User c-icap\nGroup c-icap\n")
        service.run("systemd-run", "--unit=clamd", "clamd", "--config-file", f"{folder}/clamd.conf")
        wait_until("clamd listens", lambda: (host_folder / "clamd.ctl").exists())
        service.run("systemd-run", "--unit=icap", "c-icap", "-N", "-f", f"{folder}/c-icap.conf")

        def icap_listens():
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", 1344)) == 0

        wait_until("c-icap listens", lambda: service.container.in_network(icap_listens))
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
def shipped_scripts_work_under_unit(machine):
    service = machine.shared(systemd_service)
    for name, (script, config) in start_scanners(service).items():
        service.configure(script, config)
        service.start()
        service.assert_scans()
        assert service.layers()["namespaces"].startswith("pid, "), name


@test
def shipped_scripts_work_under_strict_drop_in(machine):
    if not kernel_since((6, 12)):
        raise Skip("without namespaces the sandbox needs Linux 6.12")
    service = machine.shared(systemd_service)
    for script, config in start_scanners(service).values():
        service.configure(script, config)
        service.drop_in("strict.conf", strict_drop_in())
        service.start()
        service.assert_scans()
        layers = service.layers()
        assert layers["namespaces"].startswith("OFF"), layers
        assert layers["landlock"].endswith("with scopes") and layers["cgroup"].startswith("kill"), layers
    return "; ".join(f"{layer}: {state}" for layer, state in layers.items() if layer != "base")


@test
def rules_engine_works_under_unit_and_strict_drop_in(machine):
    service = machine.shared(systemd_service)
    config = {"scan.engines": ["rules"], "rules.paths": ["/usr/share/matrix-content-scanner/rules"]}
    for file in (REPOSITORY / "config/rules").glob("*.yar"):
        service.container.write(f"/usr/share/matrix-content-scanner/rules/{file.name}", file.read_text())
    drop_ins = [None]
    if kernel_since((6, 12)):
        drop_ins.append(strict_drop_in())
    for drop_in in drop_ins:
        # The script is not a configured engine; it would accept every file.
        service.configure("exit 0", config)
        if drop_in:
            service.drop_in("strict.conf", drop_in)
        service.start()
        service.assert_scans()
        assert_equal(service.get_property("MemoryDenyWriteExecute"), "yes" if drop_in else "no")
