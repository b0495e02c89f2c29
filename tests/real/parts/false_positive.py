"""A false positive of clamd, which an operator reverts at one of two replicas with one command."""

import hashlib
import subprocess

from harness import homeserver
from harness.clamav import LIMIT, Clamd
from harness.http import Client
from harness.machine import free_port, wait_until
from harness.run import assert_equal, test
from harness.samples import EICAR, zipped
from harness.scanner import Scanner, installed_program
from parts.synapse import alice, assert_error

NEEDS = ["clamd", "redis-server", "redis-cli"]


def start_redis(machine):
    """Starts a server without persistence; returns its URL."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = machine.start("redis", command, machine.make_folder("redis"))
    ping = ["redis-cli", "-p", str(port), "ping"]
    wait_until("redis answers", lambda: subprocess.run(ping, capture_output=True, check=False).stdout == b"PONG\n", process)
    return f"redis://127.0.0.1:{port}"


def start_replica(machine, clamd, url, secrets):
    """Starts a replica that uses the clamd engine and the shared store."""
    config = {
        "scan.script": None,
        "scan.engines": ["clamd"],
        "clamd.addresses": [str(clamd.socket)],
        "clamd.max_size": LIMIT,
        "store.kind": "shared",
        "store.urls": [url],
        "crypto.request_secret_path": str(secrets / "request_secret"),
        "operations.port": free_port(),
        "admin.enabled": True,
        "admin.host": "127.0.0.1",
        "admin.port": free_port(),
        "admin.token_path": str(secrets / "token"),
        "audit.path": "audit.jsonl",
    }
    return Scanner(machine, machine.shared(homeserver.authenticated), config)


def run_store_command(machine, replica, *words):
    """Runs `store` as an operator does; returns its output."""
    command = [machine.shared(installed_program), "-c", replica.folder / "config.toml", "store", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_equal(done.returncode, 0, done.stderr)
    return done.stdout


@test
def one_command_reverts_a_false_positive_on_two_replicas(machine):
    clamd, user = Clamd(machine), machine.shared(alice)
    secrets = machine.make_folder("replica-secrets", 0o700)
    (secrets / "token").write_text("operator-token-of-the-test")
    (secrets / "token").chmod(0o600)
    url = start_redis(machine)
    replicas = [start_replica(machine, clamd, url, secrets) for _ in range(2)]
    for replica in replicas:
        probe = Client(f"http://127.0.0.1:{replica.config['operations.port']}")
        wait_until("the replica is ready", lambda probe=probe: probe.get("/health/ready").status == 200, replica.process)
    media = user.upload(zipped(EICAR, "training.txt"))
    for replica in replicas:
        assert_error(replica.get(f"/download/{media.path}", user.token), 403, "MCS_MEDIA_NOT_CLEAN")
    content = hashlib.sha256(media.content).hexdigest()
    known = run_store_command(machine, replicas[0], "show", content)
    assert "Test.EICAR" in known, known

    run_store_command(machine, replicas[0], "allow", content, "--comment", "training material, checked by hand")
    for replica in replicas:
        wait_until(
            "the file is served",
            lambda replica=replica: replica.get(f"/download/{media.path}", user.token).status == 200,
            replica.process,
            seconds=10,
        )
    # Other malware is refused as before.
    other = user.upload(zipped(EICAR, "other.txt"))
    for replica in replicas:
        assert_error(replica.get(f"/download/{other.path}", user.token), 403, "MCS_MEDIA_NOT_CLEAN")
    audit = (replicas[0].folder / "audit.jsonl").read_text()
    assert "training material, checked by hand" in audit, audit
    for replica in replicas:
        replica.stop()
    clamd.stop()
