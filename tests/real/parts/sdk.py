"""The Rust SDK's content scanner client, which apps like Element X use: what it sends is understood, and
what it gets back it can read, refusals included."""

import contextlib
import hashlib
import json
import re
import subprocess
import threading

from harness import homeserver
from harness.machine import PATIENCE
from harness.run import same, test
from harness.samples import EICAR, picture
from harness.scanner import REPOSITORY, Scanner
from parts.synapse import alice

NEEDS = ["cargo"]

SOURCE = REPOSITORY / "tests/real/sdk"


def program(machine):
    """The client, built: most of the SDK, so the first time takes minutes."""
    target = REPOSITORY / "target/real/sdk"
    command = ["cargo", "build", "--quiet", "--locked", "--manifest-path", SOURCE / "Cargo.toml"]
    # The SDK names a newest compiler, and builds with ours.
    subprocess.run([*command, "--ignore-rust-version", "--target-dir", target], check=True)
    lock = (SOURCE / "Cargo.lock").read_text()
    found = re.search(r'name = "matrix-sdk-contentscanner"\nversion = "([^"]+)"', lock)
    machine.ran("matrix-sdk-contentscanner", found[1])
    return target / "debug/sdk-client"


def scanner(machine):
    return Scanner(
        machine, machine.once(homeserver.authenticated), {"scan.blocked_mimetypes": ["image/gif"]}
    )


@contextlib.contextmanager
def logged_in(machine, service):
    """The client: a function that asks it for one thing and gives its answer."""
    base = service.base.partition("/_matrix")[0]
    user = machine.once(alice)
    command = [machine.once(program), user.homeserver.base, user.name, "a password", base]
    client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    # It tries again for a quarter of an hour what it takes for a server's passing fault.
    patience = threading.Timer(PATIENCE, client.kill)
    patience.start()

    def ask(what, media):
        source = {"file": {**media.file, "url": media.mxc}} if media.file else {"url": media.mxc}
        client.stdin.write(json.dumps({"do": what, "source": source}) + "\n")
        client.stdin.flush()
        answer = client.stdout.readline()
        assert answer, "the client gave no answer in time, or ended"
        return json.loads(answer)

    try:
        yield ask
        client.stdin.close()
        same(client.wait(), 0)
    finally:
        patience.cancel()
        client.kill()
        client.wait()
        client.stdout.close()


def is_given(answer, content):
    same(answer, {"length": len(content), "sha256": hashlib.sha256(content).hexdigest()})


def is_refused(answer, status, reason):
    same((answer.get("status"), answer.get("reason")), (status, reason), answer)
    assert answer["info"], answer


@test
def clean_media_arrives_plain_and_encrypted(machine):
    with logged_in(machine, machine.once(scanner)) as ask:
        for encrypt in (False, True):
            content = picture("PNG", seed=20)
            media = machine.once(alice).upload(content, "image/png", "cat.png", encrypt)
            answer = ask("scan", media)
            same(answer["clean"], True, answer)
            assert answer["info"].startswith("File clean at "), answer
            # Opened by the SDK: of an encrypted media it gets the ciphertext, and checks its hash.
            is_given(ask("media", media), content)


@test
def infected_media_is_told_and_refused(machine):
    with logged_in(machine, machine.once(scanner)) as ask:
        for encrypt in (False, True):
            media = machine.once(alice).upload(EICAR, "text/plain", "e.txt", encrypt)
            info = "File not clean. Output: 'Eicar-Test-Signature'"
            same(ask("scan", media), {"clean": False, "info": info})
            is_refused(ask("media", media), 403, "MCS_MEDIA_NOT_CLEAN")


@test
def every_other_refusal_is_one_that_it_can_read(machine):
    user = machine.once(alice)
    with logged_in(machine, machine.once(scanner)) as ask:
        for encrypt in (False, True):
            forbidden = user.upload(picture("GIF", seed=21), "image/gif", "cat.gif", encrypt)
            is_refused(ask("scan", forbidden), 403, "MCS_MIME_TYPE_FORBIDDEN")
            is_refused(ask("media", forbidden), 403, "MCS_MIME_TYPE_FORBIDDEN")
            media = user.upload(picture("PNG", seed=22), "image/png", "cat.png", encrypt)
            gone = homeserver.Media(media.mxc + "x", media.content, media.file)
            is_refused(ask("media", gone), 404, "M_NOT_FOUND")
        other = user.upload(picture("PNG", seed=23), "image/png", "cat.png", True)
        mixed = homeserver.Media(other.mxc, other.content, media.file)
        is_refused(ask("scan", mixed), 400, "MCS_MEDIA_FAILED_TO_DECRYPT")


@test
def a_body_for_a_key_that_was_replaced_says_so(machine):
    service = Scanner(machine, machine.once(homeserver.authenticated), {"web.port": 0})
    media = machine.once(alice).upload(picture("PNG", seed=24), "image/png", "cat.png", True)
    with logged_in(machine, service) as ask:
        same(ask("scan", media)["clean"], True)
        port = int(service.base.split(":")[2].split("/")[0])
        service.stop()
        (service.folder / "request_secret").unlink()
        service.config["web.port"] = port
        service.start()
        # Clients fetch the key anew when they hear this.
        is_refused(ask("scan", media), 403, "MCS_BAD_DECRYPTION")
    service.stop()

