"""A hundred clients at once, with everything real: a homeserver, ClamAV's daemon by the shipped script,
and media of all sorts, the same and different ones. Every answer has to be right, and nothing may be left."""

import collections
import concurrent.futures
import os
import random
import threading
import time

from nio.crypto import encrypt_attachment

from harness import homeserver
from harness.clamav import Clamd
from harness.machine import until_same
from harness.run import same, test
from harness.samples import EICAR, noise, picture, zipped
from parts.synapse import alice, from_homeserver

NEEDS = ["clamd", "clamdscan"]

CLIENTS = 100
SECONDS = int(os.environ.get("LOAD_SECONDS", "60"))
CROP = "?width=96&height=96&method=crop"


class Question:
    """A request and its one right answer: status, and body or reason."""

    def __init__(self, kind, path, post, status, expected):
        self.kind, self.path, self.post = kind, path, post
        self.status, self.expected = status, expected

    def is_answered_by(self, got):
        if got.status != self.status:
            return False
        if self.status == 403:
            return got.json()["reason"] == self.expected
        if isinstance(self.expected, bool):
            return got.json()["clean"] is self.expected
        return got.body == self.expected


def of_media(kind, media, clean, body):
    """Questions about a media as it is."""
    yield Question(f"{kind}, scan", f"/scan/{media.path}", None, 200, clean)
    answer = (200, body) if clean else (403, "MCS_MEDIA_NOT_CLEAN")
    yield Question(f"{kind}, download", f"/download/{media.path}", None, *answer)


def of_file(kind, file, clean, ciphertext):
    """Questions about an encrypted one."""
    body = {"file": file}
    yield Question(f"{kind}, scan_encrypted", "/scan_encrypted", body, 200, clean)
    answer = (200, ciphertext) if clean else (403, "MCS_MEDIA_NOT_CLEAN")
    yield Question(f"{kind}, download_encrypted", "/download_encrypted", body, *answer)


def questions(machine):
    """All that the clients ask: each of these at once."""
    user = machine.once(alice)
    all_, at_once = [], []
    for seed in range(8):
        # The same bytes by two names each, and all infected ones the same or not.
        for _ in range(2):
            media = user.upload(picture("JPEG", seed=200 + seed), "image/jpeg")
            all_ += of_media("clean", media, True, media.content)
            thumbnail = from_homeserver(machine, media, "thumbnail", CROP).body
            all_.append(Question("thumbnail", f"/thumbnail/{media.path}{CROP}", None, 200, thumbnail))
            same_bytes = user.upload(EICAR)
            all_ += of_media("infected", same_bytes, False, None)
        other_bytes = user.upload(zipped(EICAR, f"{seed}.txt"))
        all_ += of_media("infected zip", other_bytes, False, None)
        clean = user.upload(noise(300 + seed, 20_000 * (seed + 1)), encrypt=True)
        all_ += of_file("encrypted", clean.file, True, from_homeserver(machine, clean).body)
        infected = user.upload(zipped(EICAR, f"{seed}.exe"), encrypt=True)
        all_ += of_file("infected encrypted", infected.file, False, None)
        # One mxc and two keys: with one it is EICAR, with the other it is noise.
        ciphertext, keys = encrypt_attachment(EICAR)
        media = user.upload(ciphertext)
        right = {**keys, "url": media.mxc}
        wrong = {**right, "key": {**keys["key"], "k": encrypt_attachment(b"")[1]["key"]["k"]}}
        with_right = of_file("two keys, infected", right, False, None)
        with_wrong = of_file("two keys, clean", wrong, True, ciphertext)
        at_once += zip(with_right, with_wrong)
    big = user.upload(noise(400, 1_500_000))
    all_ += of_media("large", big, True, big.content)
    return [(question,) for question in all_] + at_once


class Clients:
    """Those who ask, until they are told to end."""

    def __init__(self, service, token, asked):
        self.service, self.token, self.asked = service, token, asked
        self.ending = threading.Event()
        self.wrong, self.counts, self.waits = [], collections.Counter(), []
        self.pool = concurrent.futures.ThreadPoolExecutor(2 * CLIENTS)
        self.threads = [threading.Thread(target=self.ask, args=(n,), daemon=True) for n in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def ask(self, number):
        choice = random.Random(number)
        while not self.ending.is_set():
            list(self.pool.map(self.ask_one, choice.choice(self.asked)))

    def ask_one(self, question):
        begun = time.monotonic()
        try:
            if question.post is None:
                got = self.service.get(question.path, self.token)
            else:
                got = self.service.post(question.path, question.post, self.token)
            right = question.is_answered_by(got)
        except Exception as error:
            right, got = False, error
        self.waits.append(time.monotonic() - begun)
        self.counts[question.kind] += 1
        if not right:
            self.wrong.append(f"{question.kind}: {question.path}: {got!r}"[:500])

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join(120)
            assert not thread.is_alive(), "a client has no answer"
        self.pool.shutdown()


@test
def a_hundred_clients_get_right_answers_and_nothing_is_left(machine):
    user, asked = machine.once(alice), machine.once(questions)
    for unprivileged in (False, True):
        print(f"        {load(machine, user, asked, unprivileged)}", flush=True)


def load(machine, user, asked, unprivileged):
    config = {
        # So that most of what is asked is fetched and scanned again and again.
        "result_cache.ttl": "1s",
        "result_cache.max_file_size": "100KB",
        "download.authorisation_ttl": "1s",
        # One token is all clients' here: nobody else's share is to be kept.
        "scan.queue_capacity": 4 * CLIENTS,
        "scan.workers": 32,
        "log.level": "info",
    }
    front = machine.once(homeserver.authenticated)
    service = machine.once(Clamd).scanner(front, config, unprivileged=unprivileged)
    # What starts takes some: the canary among it.
    service.idle()
    before, at_start = service.descriptors(), service.memory()
    clients = Clients(service, user.token, asked)
    memory, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end:
        time.sleep(0.5)
        memory.append(service.memory())
    clients.end()
    same(clients.wrong[:5], [], f"{len(clients.wrong)} of {len(clients.waits)} answers were wrong")
    missing = {question.kind for group in asked for question in group} - set(clients.counts)
    same(missing, set(), "all sorts were asked for")
    service.idle()
    # Clients' connections are closed a moment after them.
    until_same("the descriptors of before", service.descriptors, before)
    third = len(memory) // 3
    early, late = (max(part) for part in (memory[third : 2 * third], memory[2 * third :]))
    assert late < early * 1.2 + (8 << 20), f"memory grows: {memory}"
    waits = sorted(clients.waits)
    fetched = sum("download_ms" in line for line in service.logged("answered"))
    same((service.stop(), list((service.folder / "temp").iterdir())), (0, []), "it leaves nothing")
    return (
        f"{'unprivileged' if unprivileged else 'root'}: {len(waits)} answers in {SECONDS} s ({fetched} not from memory), "
        f"median {waits[len(waits) // 2]:.2f} s, longest {waits[-1]:.2f} s; "
        f"memory {at_start >> 20} MiB at start, at most {early >> 20} in the second third, "
        f"{late >> 20} in the last; descriptors {len(before)}, as before"
    )
