"""The reverse proxies that docs/clients.md shows, each between a client and the service and a homeserver: what
goes where, what both are told of the client, and that nothing is changed on the way."""

import hashlib
import re
import threading
import tomllib

from harness import homeserver
from harness.proxy import CLIENT, NAME, PROXIES, SHOWN, Recorder
from harness.run import same, test
from harness.samples import EICAR, noise
from harness.scanner import PREFIX, REPOSITORY, Scanner
from parts.synapse import CORS, alice, is_refused

NEEDS = [proxy.kind for proxy in PROXIES]

# Of a client that would like to be somebody else, elsewhere.
CLAIMS = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "other.example"}


class Recorded:
    """A proxy between two recorders."""

    def __init__(self, machine, proxy):
        self.scanner, self.homeserver = Recorder(), Recorder()
        self.proxy = proxy(machine, self.scanner.port, self.homeserver.port)
        self.request = self.proxy.client.request

    def close(self, machine):
        machine.stop(self.proxy.process)
        self.scanner.close()
        self.homeserver.close()


def each_recorded(machine):
    for proxy in PROXIES:
        recorded = Recorded(machine, proxy)
        try:
            yield proxy.kind, recorded
        finally:
            recorded.close(machine)


def settings():
    """What of docs/proxies/scanner.toml does not name this test's own ports."""
    shown = tomllib.loads((SHOWN / "scanner.toml").read_text())["download"]
    same(shown.pop("base_homeserver_url"), "http://127.0.0.1:8008")
    return {f"download.{key}": value for key, value in shown.items()}


class Served:
    """A proxy in front of the service, as docs/proxies/scanner.toml has it, and of this homeserver, which the
    service finds by the Host that clients ask."""

    def __init__(self, machine, proxy, base):
        found_by_host = {**settings(), "download.homeservers": {NAME: base}}
        self.service = Scanner(machine, None, found_by_host)
        ports = [int(address.rsplit(":", 1)[1]) for address in (self.service.base.removesuffix(PREFIX), base)]
        self.proxy = proxy(machine, *ports)
        self.client = self.proxy.client

    def get(self, path, token=None, headers=()):
        return self.client.get(PREFIX + path, token, headers)

    def close(self, machine):
        machine.stop(self.proxy.process)
        self.service.stop()


def each_before(machine, base):
    for proxy in PROXIES:
        served = Served(machine, proxy, base)
        try:
            yield proxy.kind, served
        finally:
            served.close(machine)


@test
def the_scanners_prefix_reaches_the_scanner_and_all_else_the_homeserver(machine):
    for kind, it in each_recorded(machine):
        for method, path in [
            ("GET", f"{PREFIX}/public_key"),
            ("POST", f"{PREFIX}/download_encrypted"),
            ("OPTIONS", f"{PREFIX}/scan/a/b"),
            ("HEAD", f"{PREFIX}/download/a/b"),
            ("GET", "/_matrix/media_proxy/unknown"),
        ]:
            before = len(it.scanner.seen), len(it.homeserver.seen)
            same(it.request(method, path, body=b"{}" if method == "POST" else None).status, 200, f"{kind} {path}")
            same((len(it.scanner.seen), len(it.homeserver.seen)), (before[0] + 1, before[1]), f"{kind} {path}")
            same(it.scanner.seen[-1].line, f"{method} {path} HTTP/1.1", kind)
        for method, path in [
            ("GET", "/_matrix/client/versions"),
            ("POST", "/_matrix/client/v3/login"),
            ("GET", "/_matrix/client/v1/media/download/a/b"),
            ("GET", "/_matrix/media_proxy_of_another_kind"),
            ("GET", "/.well-known/matrix/client"),
            ("GET", "/"),
        ]:
            before = len(it.scanner.seen), len(it.homeserver.seen)
            same(it.request(method, path, body=b"{}" if method == "POST" else None).status, 200, f"{kind} {path}")
            same((len(it.scanner.seen), len(it.homeserver.seen)), (before[0], before[1] + 1), f"{kind} {path}")


@test
def paths_arrive_as_they_were_sent(machine):
    paths = [
        f"{PREFIX}/download/lab.test/abc/Gr%C3%BC%C3%9Fe%20%26%20mehr%2B.png?allow_redirect=true",
        f"{PREFIX}/download/lab.test:8448/a-b_c/%e8%b3%87.png",
        f"{PREFIX}/download/%5B2001%3adb8::1%5D:8448/abc",
        f"{PREFIX}/download/lab.test/a%2Fb",
        f"{PREFIX}/thumbnail/lab.test/abc?width=96&height=96&method=crop&x=%2F%20+",
        f"{PREFIX}/scan/lab.test/abc/",
    ]
    rooms = "/_matrix/client/v3/rooms/%21abc%3Alab.test/state/m.room.name/%2Fx%20y?a=%26"
    for kind, it in each_recorded(machine):
        for path in paths:
            same(it.request("GET", path).status, 200, f"{kind} {path}")
            same(it.scanner.seen[-1].line, f"GET {path} HTTP/1.1", kind)
        same(it.request("GET", rooms).status, 200, kind)
        same(it.homeserver.seen[-1].line, f"GET {rooms} HTTP/1.1", kind)
    return f"{len(paths) + 1} paths"


@test
def host_and_token_come_as_they_were_sent_and_the_address_is_the_proxys_word(machine):
    for kind, it in each_recorded(machine):
        for recorder, path in ((it.scanner, f"{PREFIX}/download/a/b"), (it.homeserver, "/_matrix/client/versions")):
            it.request("GET", path, "a token", {**CLAIMS, "Range": "bytes=0-9", "If-None-Match": '"x"'})
            headers = recorder.seen[-1].headers
            found = {name: [value for key, value in headers if key == name] for name, _ in headers}
            same(found["x-forwarded-for"], [CLIENT], f"{kind} {path}")
            same(found["host"], [NAME], f"{kind} {path}")
            same(found.get("x-forwarded-host", [NAME]), [NAME], f"{kind} {path}")
            same(found["authorization"], ["Bearer a token"], f"{kind} {path}")
            same((found["range"], found["if-none-match"]), (["bytes=0-9"], ['"x"']), f"{kind} {path}")


@test
def a_body_is_passed_on_as_it_comes_and_a_large_upload_arrives(machine):
    upload = noise(90, 60 << 20)
    for kind, it in each_recorded(machine):
        got_the_first = threading.Event()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 2000\r\n\r\n"
        it.scanner.answer = (head + b"1" * 1000, got_the_first, b"2" * 1000)
        connection = it.proxy.client.connect(60)
        try:
            connection.request("GET", f"{PREFIX}/download/a/b", headers={"Host": NAME})
            answer = connection.getresponse()
            same(answer.read(1000), b"1" * 1000, kind)
            got_the_first.set()
            same(answer.read(), b"2" * 1000, kind)
        finally:
            got_the_first.set()
            connection.close()
        same(it.request("POST", "/_matrix/media/v3/upload", body=upload).status, 200, kind)
        seen = it.homeserver.seen[-1]
        same((seen.length, seen.digest), (len(upload), hashlib.sha256(upload).hexdigest()), kind)


@test
def an_answer_that_takes_as_long_as_a_scan_may_is_waited_for(machine):
    default = tomllib.loads((REPOSITORY / "config/default.toml").read_text())
    deadline = int(re.fullmatch(r"(\d+)m", default["scan"]["deadline"])[1])
    # Caddy has no limit.
    for name, limit in (("nginx.conf", r"proxy_buffering off;.*?proxy_read_timeout (\d+)m"),
                        ("haproxy.cfg", r"backend scanner\n.*?timeout server (\d+)m")):
        found = int(re.search(limit, (SHOWN / name).read_text(), re.DOTALL)[1])
        assert found > deadline, f"{name}: {found} minutes, and scan.deadline is {deadline}"


@test
def the_service_finds_the_homeserver_by_the_host_and_tells_it_the_clients_address(machine):
    upstream = Recorder((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok",))
    try:
        for kind, it in each_before(machine, f"http://127.0.0.1:{upstream.port}"):
            got = it.get("/download/lab.test/abc", "a token", CLAIMS)
            same((got.status, got.body), (200, b"ok"), f"{kind}: {got}")
            seen = upstream.seen[-1]
            same(seen.line, "GET /_matrix/client/v1/media/download/lab.test/abc HTTP/1.1", kind)
            addresses = [value for name, value in seen.headers if name == "x-forwarded-for"]
            same(addresses, [CLIENT], kind)
    finally:
        upstream.close()


@test
def media_of_a_real_homeserver_comes_whole_in_parts_and_with_its_headers_once(machine):
    synapse, user = machine.once(homeserver.authenticated), machine.once(alice)
    content = noise(91, 50 << 20)
    film, page = user.upload(content, "video/mp4", "Grüße.mp4"), user.upload(b"<p>" * 1000, "text/html", "page.html")
    infected, sealed = user.upload(EICAR, "text/plain"), user.upload(noise(92, 3 << 20), encrypt=True)
    for kind, it in each_before(machine, synapse.base):
        same(it.client.get("/_matrix/client/v3/account/whoami", user.token).json()["user_id"], user.name, kind)
        same(len(it.get("/public_key").json()["public_key"]), 43, kind)
        direct = it.service.get
        for media in (film, page):
            path = f"/download/{media.path}"
            # The service itself, asked by the name that the proxy passes on.
            plain = direct(path, user.token, {"Host": NAME})
            same((plain.status, plain.body == media.content), (200, True), f"{kind}: {plain}")
            got = it.get(path, user.token, {"Accept-Encoding": "gzip, br"})
            same((got.status, got.body == media.content), (200, True), f"{kind}: {got}")
            # What the service has said comes once, and as it was said.
            for name in {name for name, _ in plain.headers} - {"date"}:
                same(got.all(name), plain.all(name), f"{kind}: {name} of {path}")
            same({name: got.header(name) for name in CORS}, CORS, kind)
            got = it.get(path, user.token, {"If-None-Match": plain.header("etag")})
            same((got.status, got.body), (304, b""), kind)
            got = it.get(path, user.token, {"Range": "bytes=1000-1999"})
            same((got.status, got.body), (206, media.content[1000:2000]), kind)
            same(got.header("content-range"), f"bytes 1000-1999/{len(media.content)}", kind)
        got = it.get(f"/download/{film.path}/Gr%C3%BC%C3%9Fe%20%2B.mp4", user.token, {"Range": "bytes=0-0"})
        assert got.header("content-disposition").endswith("''Gr%C3%BC%C3%9Fe%20+.mp4"), got
        is_refused(it.get(f"/download/{infected.path}", user.token), 403, "MCS_MEDIA_NOT_CLEAN", kind)
        is_refused(it.get(f"/download/{film.path}", "bad"), 401, "M_UNKNOWN_TOKEN", kind)
        is_refused(it.get("/download/lab.test/a%2fb", user.token), 404, "M_NOT_FOUND", kind)
        got = it.client.post(f"{PREFIX}/scan_encrypted", {"file": sealed.file}, user.token)
        same((got.status, got.json()["clean"]), (200, True), f"{kind}: {got}")
        preflight = it.client.request("OPTIONS", f"{PREFIX}/download/a/b", headers={"Origin": "https://app.example"})
        same((preflight.status, {name: preflight.header(name) for name in CORS}), (200, CORS), kind)
        it.service.idle()

