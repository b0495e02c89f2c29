"""Malware in plain media at a real homeserver: quarantine by its admin API, and a notice in a room, also when the service
is killed in between."""

import json
import signal
import urllib.parse

from harness import homeserver
from harness.http import Client
from harness.machine import wait_until
from harness.run import assert_equal, test
from harness.samples import EICAR, noise
from harness.scanner import Scanner

NEEDS = []

ADMIN_TOKEN = "0123456789abcdef" * 4


class Room:
    """A room with a bot, and its notices as another member sees them."""

    def __init__(self, machine):
        self.homeserver = machine.shared(homeserver.authenticated)
        self.admin = self.homeserver.user("incident-admin", admin=True)
        self.bot = self.homeserver.user("incident-bot")
        self.member = self.homeserver.user("incident-member")
        self.id = self.call("POST", "createRoom", {"preset": "public_chat"}, self.bot)["room_id"]
        self.call("POST", f"join/{self.path()}", {}, self.member)

    def path(self):
        return urllib.parse.quote(self.id, safe="")

    def call(self, method, path, body, user):
        body = None if body is None else json.dumps(body).encode()
        got = self.homeserver.client.request(method, f"/_matrix/client/v3/{path}", user.token, body=body)
        assert_equal(got.status, 200, got)
        return got.json()

    def notices(self):
        """Returns the contents of the notices, the oldest first."""
        events = self.call("GET", f"rooms/{self.path()}/messages?dir=f&limit=100", None, self.member)["chunk"]
        contents = [event["content"] for event in events if event["type"] == "m.room.message"]
        return [content for content in contents if content["msgtype"] == "m.notice"]

    def scanner(self, machine):
        """Starts a service that quarantines and notifies this room."""
        folder = machine.make_folder("incident-secrets", 0o700)
        state = machine.make_folder("incident-state", 0o700)
        for name, user in (("admin", self.admin), ("bot", self.bot)):
            (folder / name).write_text(user.token)
            (folder / name).chmod(0o600)
        target = {"room": self.id, "homeserver": self.homeserver.base, "token_path": str(folder / "bot")}
        config = {
            "store.path": str(state / "store.db"),
            "quarantine.at": "synapse",
            "quarantine.token_path": str(folder / "admin"),
            "notify.targets": [target],
            "audit.path": str(state / "audit.jsonl"),
            "admin.enabled": True,
            "admin.host": "127.0.0.1",
            "admin.port": 0,
            "admin.token_path": str(folder / "token"),
        }
        (folder / "token").write_text(ADMIN_TOKEN)
        (folder / "token").chmod(0o600)
        return Scanner(machine, self.homeserver, config)

    def is_quarantined(self, media):
        """Returns whether a client gets 404 for media directly from the homeserver."""
        path = f"/_matrix/client/v1/media/download/{media.path}"
        status = self.homeserver.client.get(path, self.member.token).status
        assert status in (200, 404), status
        return status == 404


def outbox_length(service):
    entry = service.log_entries("serving metrics and health")[-1]
    metrics = Client(f"http://{entry['address']}").get("/metrics").body.decode()
    lines = [line for line in metrics.splitlines() if line.startswith("mcs_incident_outbox ")]
    return int(lines[0].split()[1])


def ask_admin(service, method, path, body=None):
    """Sends a request to the listener of operators; returns the reply."""
    entry = service.log_entries("listening for operators' changes ([admin])")[-1]
    body = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    client = Client(f"http://{entry['address']}")
    got = client.request(method, f"/v1/{path}", ADMIN_TOKEN, body=body, headers=headers)
    assert_equal(got.status, 200, got)
    return got.json()


def finished(service, room, media, count):
    """Waits until the media is quarantined, and the room has this number of notices."""
    wait_until("the media is quarantined", lambda: room.is_quarantined(media), service.process)
    wait_until("the room is notified", lambda: len(room.notices()) >= count, service.process)
    wait_until("nothing is left to do", lambda: outbox_length(service) == 0, service.process)
    assert_equal(len(room.notices()), count, room.notices())


@test
def infected_media_is_quarantined_and_the_room_is_notified_once(machine):
    room = Room(machine)
    service = room.scanner(machine)
    member = room.member
    media = member.upload(EICAR + noise(70, 100), "text/plain", "name of a patient.txt")
    clean = member.upload(noise(71, 100), "text/plain")
    sealed = member.upload(EICAR + noise(72, 100), encrypt=True)
    assert not room.is_quarantined(media)
    assert_equal(service.get(f"/download/{clean.path}", member.token).status, 200)
    got = service.post("/download_encrypted", {"file": sealed.file}, member.token)
    assert_equal(got.status, 403, got)
    assert_equal(service.get(f"/download/{media.path}", member.token).status, 403)
    finished(service, room, media, 1)
    assert not room.is_quarantined(clean)
    assert not room.is_quarantined(sealed)
    notice = room.notices()[0]
    assert f"mxc://{media.path}" in notice["body"] and "Eicar-Test-Signature" in notice["body"], notice
    assert "patient" not in json.dumps(notice), notice
    # The same media again: Synapse does not have it any more.
    assert service.get(f"/download/{media.path}", member.token).status in (403, 404)
    assert_equal(service.stop(), 0)


@test
def killed_service_finishes_what_it_has_begun(machine):
    room = Room(machine)
    service = room.scanner(machine)
    for number in range(4):
        media = room.member.upload(EICAR + noise(80 + number, 100), "text/plain")
        assert_equal(service.get(f"/download/{media.path}", room.member.token).status, 403)
        service.process.signal(signal.SIGKILL)
        service.process.child.wait()
        service.stop()
        service.start()
        # Neither the verdict nor the incident, or both, were on the disk.
        assert service.get(f"/download/{media.path}", room.member.token).status in (403, 404)
        finished(service, room, media, number + 1)
    for step in ("malware in media", "step done"):
        media = room.member.upload(EICAR + noise(90 + len(step), 100), "text/plain")
        earlier = len(service.log_entries(step))
        count = len(room.notices()) + 1
        assert_equal(service.get(f"/download/{media.path}", room.member.token).status, 403)
        wait_until(step, lambda step=step, earlier=earlier: len(service.log_entries(step)) > earlier, service.process)
        service.process.signal(signal.SIGKILL)
        service.process.child.wait()
        service.stop()
        service.start()
        finished(service, room, media, count)
    assert_equal(service.stop(), 0)


@test
def released_media_is_served_again(machine):
    room = Room(machine)
    service = room.scanner(machine)
    member = room.member
    media = member.upload(EICAR + noise(73, 100), "text/plain")
    assert_equal(service.get(f"/download/{media.path}", member.token).status, 403)
    finished(service, room, media, 1)
    listed = ask_admin(service, "GET", "incidents")["incidents"]
    assert_equal([incident["state"] for incident in listed], ["done"])
    assert_equal(listed[0]["media"][0]["quarantine"]["state"], "done")
    body = {"mxc": f"mxc://{media.path}", "comment": "false positive", "allow": True}
    released = ask_admin(service, "POST", "quarantine/release", body)
    assert_equal(released["was_quarantined"], True)
    assert_equal([content["allowed"] for content in released["contents"]], [True])
    assert not room.is_quarantined(media)
    assert_equal(service.get(f"/download/{media.path}", member.token).status, 200)
    assert_equal(service.stop(), 0)
