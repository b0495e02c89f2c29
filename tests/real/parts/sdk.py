"""The content scanner client of the Rust SDK, which apps like Element X use: the service understands its requests, and
the client can parse all responses, including errors."""

import contextlib
import hashlib
import json
import re
import subprocess
import threading

from harness import homeserver
from harness.machine import TIMEOUT
from harness.run import assert_equal, test
from harness.samples import EICAR, picture
from harness.scanner import REPOSITORY, Scanner
from parts.synapse import alice

NEEDS = ["cargo"]

SOURCE = REPOSITORY / "tests/real/sdk"


def build_client(machine):
    """Builds the client and returns its path. The first build compiles most of the SDK and takes minutes."""
    target = REPOSITORY / "target/real/sdk"
    command = ["cargo", "build", "--quiet", "--locked", "--manifest-path", SOURCE / "Cargo.toml"]
    # The SDK declares a newer compiler than needed.
    subprocess.run([*command, "--ignore-rust-version", "--target-dir", target], check=True)
    lock = (SOURCE / "Cargo.lock").read_text()
    found = re.search(r'name = "matrix-sdk-contentscanner"\nversion = "([^"]+)"', lock)
    machine.record_version("matrix-sdk-contentscanner", found[1])
    return target / "debug/sdk-client"


def scanner(machine):
    return Scanner(
        machine, machine.shared(homeserver.authenticated), {"scan.blocked_mimetypes": ["image/gif"]}
    )


@contextlib.contextmanager
def sdk_client(machine, service):
    """Starts the client; yields a function that sends one command and returns the response."""
    base = service.base.partition("/_matrix")[0]
    user = machine.shared(alice)
    command = [machine.shared(build_client), user.homeserver.base, user.name, "a password", base]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # The SDK retries server errors for 15 minutes.
    timer = threading.Timer(TIMEOUT, client.kill)
    timer.start()

    def send(command, media):
        source = {"file": {**media.file, "url": media.mxc}} if media.file else {"url": media.mxc}
        client.stdin.write(json.dumps({"command": command, "source": source}) + "\n")
        client.stdin.flush()
        response = client.stdout.readline()
        assert response, "the client did not respond in time, or exited"
        return json.loads(response)

    try:
        yield send
        client.stdin.close()
        assert_equal(client.wait(), 0)
    finally:
        timer.cancel()
        client.kill()
        client.wait()
        client.stdout.close()


def assert_media(response, content):
    assert_equal(response, {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def assert_error(response, status, reason):
    assert_equal((response.get("status"), response.get("reason")), (status, reason), response)
    assert response["info"], response


@test
def client_gets_clean_media(machine):
    with sdk_client(machine, machine.shared(scanner)) as send:
        for encrypt in (False, True):
            content = picture("PNG", seed=20)
            media = machine.shared(alice).upload(content, "image/png", "cat.png", encrypt)
            response = send("scan", media)
            assert_equal(response["clean"], True, response)
            assert response["info"].startswith("File clean at "), response
            # The SDK gets the ciphertext of encrypted files, checks its hash and decrypts it.
            assert_media(send("media", media), content)


@test
def client_reads_not_clean_verdict(machine):
    with sdk_client(machine, machine.shared(scanner)) as send:
        for encrypt in (False, True):
            media = machine.shared(alice).upload(EICAR, "text/plain", "e.txt", encrypt)
            info = "File not clean. Output: 'Eicar-Test-Signature'"
            assert_equal(send("scan", media), {"clean": False, "info": info})
            assert_error(send("media", media), 403, "MCS_MEDIA_NOT_CLEAN")


@test
def client_reads_other_errors(machine):
    user = machine.shared(alice)
    with sdk_client(machine, machine.shared(scanner)) as send:
        for encrypt in (False, True):
            forbidden = user.upload(picture("GIF", seed=21), "image/gif", "cat.gif", encrypt)
            assert_error(send("scan", forbidden), 403, "MCS_MIME_TYPE_FORBIDDEN")
            assert_error(send("media", forbidden), 403, "MCS_MIME_TYPE_FORBIDDEN")
            media = user.upload(picture("PNG", seed=22), "image/png", "cat.png", encrypt)
            gone = homeserver.Media(media.mxc + "x", media.content, media.file)
            assert_error(send("media", gone), 404, "M_NOT_FOUND")
        other = user.upload(picture("PNG", seed=23), "image/png", "cat.png", True)
        mixed = homeserver.Media(other.mxc, other.content, media.file)
        assert_error(send("scan", mixed), 400, "MCS_MEDIA_FAILED_TO_DECRYPT")


@test
def client_detects_replaced_key(machine):
    service = Scanner(machine, machine.shared(homeserver.authenticated), {"web.port": 0})
    media = machine.shared(alice).upload(picture("PNG", seed=24), "image/png", "cat.png", True)
    with sdk_client(machine, service) as send:
        assert_equal(send("scan", media)["clean"], True)
        port = int(service.base.split(":")[2].split("/")[0])
        service.stop()
        (service.folder / "request_secret").unlink()
        service.config["web.port"] = port
        service.start()
        # On this error clients fetch the key again.
        assert_error(send("scan", media), 403, "MCS_BAD_DECRYPTION")
    service.stop()

