"""Load test with a hundred concurrent clients, a real homeserver, clamd with the shipped script, and equal and
different files of all kinds. Every response must be correct, and the service must leak nothing."""

import collections
import concurrent.futures
import os
import random
import threading
import time

from nio.crypto import encrypt_attachment

from harness import homeserver
from harness.clamav import Clamd
from harness.machine import wait_until_equal
from harness.run import assert_equal, test
from harness.samples import EICAR, noise, picture, zipped
from parts.synapse import alice, from_homeserver

NEEDS = ["clamd", "clamdscan"]

CLIENTS = 100
SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
CROP = "?width=96&height=96&method=crop"


class ExpectedResponse:
    """A request and its expected response: status, and body, verdict or reason."""

    def __init__(self, kind, path, post, status, expected):
        self.kind, self.path, self.post = kind, path, post
        self.status, self.expected = status, expected

    def matches(self, got):
        if got.status != self.status:
            return False
        if self.status == 403:
            return got.json()["reason"] == self.expected
        if isinstance(self.expected, bool):
            return got.json()["clean"] is self.expected
        return got.body == self.expected


def for_media(kind, media, clean, body):
    """Yields requests for a plain file."""
    yield ExpectedResponse(f"{kind}, scan", f"/scan/{media.path}", None, 200, clean)
    response = (200, body) if clean else (403, "MCS_MEDIA_NOT_CLEAN")
    yield ExpectedResponse(f"{kind}, download", f"/download/{media.path}", None, *response)


def for_encrypted_file(kind, file, clean, ciphertext):
    """Yields requests for an encrypted file."""
    body = {"file": file}
    yield ExpectedResponse(f"{kind}, scan_encrypted", "/scan_encrypted", body, 200, clean)
    response = (200, ciphertext) if clean else (403, "MCS_MEDIA_NOT_CLEAN")
    yield ExpectedResponse(f"{kind}, download_encrypted", "/download_encrypted", body, *response)


def expected_responses(machine):
    """Returns groups of requests. The requests of a group are sent concurrently."""
    user = machine.shared(alice)
    single, parallel = [], []
    for seed in range(8):
        # Equal content under two media ids, and equal and different infected files.
        for _ in range(2):
            media = user.upload(picture("JPEG", seed=200 + seed), "image/jpeg")
            single += for_media("clean", media, True, media.content)
            thumbnail = from_homeserver(machine, media, "thumbnail", CROP).body
            single.append(ExpectedResponse("thumbnail", f"/thumbnail/{media.path}{CROP}", None, 200, thumbnail))
            same_bytes = user.upload(EICAR)
            single += for_media("infected", same_bytes, False, None)
        other_bytes = user.upload(zipped(EICAR, f"{seed}.txt"))
        single += for_media("infected zip", other_bytes, False, None)
        clean = user.upload(noise(300 + seed, 20_000 * (seed + 1)), encrypt=True)
        single += for_encrypted_file("encrypted", clean.file, True, from_homeserver(machine, clean).body)
        infected = user.upload(zipped(EICAR, f"{seed}.exe"), encrypt=True)
        single += for_encrypted_file("infected encrypted", infected.file, False, None)
        # One media id with two keys: one decrypts it to EICAR, the other one to noise.
        ciphertext, keys = encrypt_attachment(EICAR)
        media = user.upload(ciphertext)
        right = {**keys, "url": media.mxc}
        wrong = {**right, "key": {**keys["key"], "k": encrypt_attachment(b"")[1]["key"]["k"]}}
        with_right = for_encrypted_file("two keys, infected", right, False, None)
        with_wrong = for_encrypted_file("two keys, clean", wrong, True, ciphertext)
        parallel += zip(with_right, with_wrong)
    big = user.upload(noise(400, 1_500_000))
    single += for_media("large", big, True, big.content)
    return [(expected_response,) for expected_response in single] + parallel


class Clients:
    """Clients that send requests until they are stopped."""

    def __init__(self, service, token, groups):
        self.service, self.token, self.groups = service, token, groups
        self.stopping = threading.Event()
        self.wrong, self.counts, self.latencies = [], collections.Counter(), []
        self.pool = concurrent.futures.ThreadPoolExecutor(2 * CLIENTS)
        self.threads = [threading.Thread(target=self.run, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        rng = random.Random(number)
        while not self.stopping.is_set():
            list(self.pool.map(self.send_one, rng.choice(self.groups)))

    def send_one(self, expected_response):
        start = time.monotonic()
        try:
            if expected_response.post is None:
                got = self.service.get(expected_response.path, self.token)
            else:
                got = self.service.post(expected_response.path, expected_response.post, self.token)
            right = expected_response.matches(got)
        except Exception as error:
            right, got = False, error
        self.latencies.append(time.monotonic() - start)
        self.counts[expected_response.kind] += 1
        if not right:
            self.wrong.append(f"{expected_response.kind}: {expected_response.path}: {got!r}"[:500])

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive(), "a client is still waiting for a response"
        self.pool.shutdown()


@test
def hundred_clients_get_correct_responses_without_leaks(machine):
    user, groups = machine.shared(alice), machine.shared(expected_responses)
    for unprivileged in (False, True):
        print(f"        {load(machine, user, groups, unprivileged)}", flush=True)


def load(machine, user, groups, unprivileged):
    config = {
        # With these limits most requests cause a new download and scan.
        "result_cache.ttl": "1s",
        "result_cache.max_file_size": "100KB",
        "download.authorisation_ttl": "1s",
        # All clients share one token, so that one tenant uses the whole queue.
        "scan.queue_capacity": 4 * CLIENTS,
        "scan.workers": 32,
        "log.level": "info",
    }
    server = machine.shared(homeserver.authenticated)
    service = machine.shared(Clamd).start_scanner(server, config, unprivileged=unprivileged)
    # The canary has finished, so its descriptors are closed.
    service.wait_until_idle()
    before, at_start = service.descriptors(), service.memory()
    clients = Clients(service, user.token, groups)
    memory, deadline = [], time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
        memory.append(service.memory())
    clients.stop()
    assert_equal(clients.wrong[:5], [], f"{len(clients.wrong)} of {len(clients.latencies)} responses were wrong")
    missing = {expected_response.kind for group in groups for expected_response in group} - set(clients.counts)
    assert_equal(missing, set(), "kinds that were not requested")
    service.wait_until_idle()
    # Connections of clients are closed shortly after the clients have ended.
    wait_until_equal("open descriptors", service.descriptors, before)
    third = len(memory) // 3
    early, late = (max(part) for part in (memory[third : 2 * third], memory[2 * third :]))
    assert late < early * 1.2 + (8 << 20), f"memory grows: {memory}"
    latencies = sorted(clients.latencies)
    fetched = sum("download_ms" in line for line in service.log_entries("answered"))
    assert_equal((service.stop(), list((service.folder / "temp").iterdir())), (0, []), "exit code and remaining files")
    return (
        f"{'unprivileged' if unprivileged else 'root'}: {len(latencies)} responses in {SECONDS} s ({fetched} not from the cache), "
        f"median {latencies[len(latencies) // 2]:.2f} s, longest {latencies[-1]:.2f} s; "
        f"memory {at_start >> 20} MiB at start, at most {early >> 20} in the second third, "
        f"{late >> 20} in the last; descriptors {len(before)}, as before"
    )
