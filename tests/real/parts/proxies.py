"""The documented reverse proxies between a client, the service and a homeserver: routing, client address, and unchanged
requests and responses."""

import hashlib
import re
import threading
import tomllib

from harness import homeserver
from harness.proxy import CLIENT, NAME, PROXIES, PROXY_DOCS, Recorder
from harness.run import assert_equal, test
from harness.samples import EICAR, noise
from harness.scanner import PREFIX, REPOSITORY, Scanner
from parts.synapse import CORS, alice, assert_error

NEEDS = [proxy.kind for proxy in PROXIES]

# Headers by which a client tries to forge its address.
FORGED_HEADERS = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "other.example"}


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
    """Returns the settings of docs/proxies/scanner.toml without the homeserver URL, whose port differs in tests."""
    documented = tomllib.loads((PROXY_DOCS / "scanner.toml").read_text())["download"]
    assert_equal(documented.pop("base_homeserver_url"), "http://127.0.0.1:8008")
    return {f"download.{key}": value for key, value in documented.items()}


class Served:
    """A proxy in front of a homeserver and of the service with docs/proxies/scanner.toml. The service selects the
    homeserver by the Host header."""

    def __init__(self, machine, proxy, base):
        config = {**settings(), "download.homeservers": {NAME: base}}
        self.service = Scanner(machine, None, config)
        ports = [int(address.rsplit(":", 1)[1]) for address in (self.service.base.removesuffix(PREFIX), base)]
        self.proxy = proxy(machine, *ports)
        self.client = self.proxy.client

    def get(self, path, token=None, headers=()):
        return self.client.get(PREFIX + path, token, headers)

    def close(self, machine):
        machine.stop(self.proxy.process)
        self.service.stop()


def each_served(machine, base):
    for proxy in PROXIES:
        served = Served(machine, proxy, base)
        try:
            yield proxy.kind, served
        finally:
            served.close(machine)


@test
def routes_scanner_prefix_to_scanner_and_rest_to_homeserver(machine):
    for kind, proxied in each_recorded(machine):
        for method, path in [
            ("GET", f"{PREFIX}/public_key"),
            ("POST", f"{PREFIX}/download_encrypted"),
            ("OPTIONS", f"{PREFIX}/scan/a/b"),
            ("HEAD", f"{PREFIX}/download/a/b"),
            ("GET", "/_matrix/media_proxy/unknown"),
        ]:
            before = len(proxied.scanner.requests), len(proxied.homeserver.requests)
            assert_equal(proxied.request(method, path, body=b"{}" if method == "POST" else None).status, 200, f"{kind} {path}")
            assert_equal((len(proxied.scanner.requests), len(proxied.homeserver.requests)), (before[0] + 1, before[1]), f"{kind} {path}")
            assert_equal(proxied.scanner.requests[-1].line, f"{method} {path} HTTP/1.1", kind)
        for method, path in [
            ("GET", "/_matrix/client/versions"),
            ("POST", "/_matrix/client/v3/login"),
            ("GET", "/_matrix/client/v1/media/download/a/b"),
            ("GET", "/_matrix/media_proxy_of_another_kind"),
            ("GET", "/.well-known/matrix/client"),
            ("GET", "/"),
        ]:
            before = len(proxied.scanner.requests), len(proxied.homeserver.requests)
            assert_equal(proxied.request(method, path, body=b"{}" if method == "POST" else None).status, 200, f"{kind} {path}")
            assert_equal((len(proxied.scanner.requests), len(proxied.homeserver.requests)), (before[0], before[1] + 1), f"{kind} {path}")


@test
def paths_are_unchanged(machine):
    paths = [
        f"{PREFIX}/download/lab.test/abc/Gr%C3%BC%C3%9Fe%20%26%20mehr%2B.png?allow_redirect=true",
        f"{PREFIX}/download/lab.test:8448/a-b_c/%e8%b3%87.png",
        f"{PREFIX}/download/%5B2001%3adb8::1%5D:8448/abc",
        f"{PREFIX}/download/lab.test/a%2Fb",
        f"{PREFIX}/thumbnail/lab.test/abc?width=96&height=96&method=crop&x=%2F%20+",
        f"{PREFIX}/scan/lab.test/abc/",
    ]
    rooms = "/_matrix/client/v3/rooms/%21abc%3Alab.test/state/m.room.name/%2Fx%20y?a=%26"
    for kind, proxied in each_recorded(machine):
        for path in paths:
            assert_equal(proxied.request("GET", path).status, 200, f"{kind} {path}")
            assert_equal(proxied.scanner.requests[-1].line, f"GET {path} HTTP/1.1", kind)
        assert_equal(proxied.request("GET", rooms).status, 200, kind)
        assert_equal(proxied.homeserver.requests[-1].line, f"GET {rooms} HTTP/1.1", kind)
    return f"{len(paths) + 1} paths"


@test
def host_and_token_are_unchanged_and_proxy_sets_client_address(machine):
    for kind, proxied in each_recorded(machine):
        for recorder, path in ((proxied.scanner, f"{PREFIX}/download/a/b"), (proxied.homeserver, "/_matrix/client/versions")):
            proxied.request("GET", path, "a token", {**FORGED_HEADERS, "Range": "bytes=0-9", "If-None-Match": '"x"'})
            headers = recorder.requests[-1].headers
            found = {name: [value for key, value in headers if key == name] for name, _ in headers}
            assert_equal(found["x-forwarded-for"], [CLIENT], f"{kind} {path}")
            assert_equal(found["host"], [NAME], f"{kind} {path}")
            assert_equal(found.get("x-forwarded-host", [NAME]), [NAME], f"{kind} {path}")
            assert_equal(found["authorization"], ["Bearer a token"], f"{kind} {path}")
            assert_equal((found["range"], found["if-none-match"]), (["bytes=0-9"], ['"x"']), f"{kind} {path}")


@test
def streams_response_bodies_and_accepts_large_uploads(machine):
    upload = noise(90, 60 << 20)
    for kind, proxied in each_recorded(machine):
        received_first_half = threading.Event()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 2000\r\n\r\n"
        proxied.scanner.response = (head + b"1" * 1000, received_first_half, b"2" * 1000)
        connection = proxied.proxy.client.connect(60)
        try:
            connection.request("GET", f"{PREFIX}/download/a/b", headers={"Host": NAME})
            response = connection.getresponse()
            assert_equal(response.read(1000), b"1" * 1000, kind)
            received_first_half.set()
            assert_equal(response.read(), b"2" * 1000, kind)
        finally:
            received_first_half.set()
            connection.close()
        assert_equal(proxied.request("POST", "/_matrix/media/v3/upload", body=upload).status, 200, kind)
        request = proxied.homeserver.requests[-1]
        assert_equal((request.length, request.digest), (len(upload), hashlib.sha256(upload).hexdigest()), kind)


@test
def proxy_timeouts_exceed_scan_deadline(machine):
    default = tomllib.loads((REPOSITORY / "config/default.toml").read_text())
    deadline = int(re.fullmatch(r"(\d+)m", default["scan"]["deadline"])[1])
    # Caddy has no timeout by default.
    for name, limit in (("nginx.conf", r"proxy_buffering off;.*?proxy_read_timeout (\d+)m"),
                        ("haproxy.cfg", r"backend scanner\n.*?timeout server (\d+)m")):
        found = int(re.search(limit, (PROXY_DOCS / name).read_text(), re.DOTALL)[1])
        assert found > deadline, f"{name}: {found} minutes, and scan.deadline is {deadline}"


@test
def service_selects_homeserver_by_host_and_forwards_client_address(machine):
    upstream = Recorder((b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/plain\r\n\r\nok",))
    try:
        for kind, proxied in each_served(machine, f"http://127.0.0.1:{upstream.port}"):
            got = proxied.get("/download/lab.test/abc", "a token", FORGED_HEADERS)
            assert_equal((got.status, got.body), (200, b"ok"), f"{kind}: {got}")
            request = upstream.requests[-1]
            assert_equal(request.line, "GET /_matrix/client/v1/media/download/lab.test/abc HTTP/1.1", kind)
            addresses = [value for name, value in request.headers if name == "x-forwarded-for"]
            assert_equal(addresses, [CLIENT], kind)
    finally:
        upstream.close()


@test
def media_and_ranges_arrive_with_unchanged_headers(machine):
    synapse, user = machine.shared(homeserver.authenticated), machine.shared(alice)
    content = noise(91, 50 << 20)
    film, page = user.upload(content, "video/mp4", "Grüße.mp4"), user.upload(b"<p>" * 1000, "text/html", "page.html")
    infected, sealed = user.upload(EICAR, "text/plain"), user.upload(noise(92, 3 << 20), encrypt=True)
    for kind, proxied in each_served(machine, synapse.base):
        assert_equal(proxied.client.get("/_matrix/client/v3/account/whoami", user.token).json()["user_id"], user.name, kind)
        assert_equal(len(proxied.get("/public_key").json()["public_key"]), 43, kind)
        direct = proxied.service.get
        for media in (film, page):
            path = f"/download/{media.path}"
            # Directly from the service, with the Host header that the proxy sends.
            plain = direct(path, user.token, {"Host": NAME})
            assert_equal((plain.status, plain.body == media.content), (200, True), f"{kind}: {plain}")
            got = proxied.get(path, user.token, {"Accept-Encoding": "gzip, br"})
            assert_equal((got.status, got.body == media.content), (200, True), f"{kind}: {got}")
            # Headers of the service are unchanged and not repeated.
            for name in {name for name, _ in plain.headers} - {"date"}:
                assert_equal(got.all(name), plain.all(name), f"{kind}: {name} of {path}")
            assert_equal({name: got.header(name) for name in CORS}, CORS, kind)
            got = proxied.get(path, user.token, {"If-None-Match": plain.header("etag")})
            assert_equal((got.status, got.body), (304, b""), kind)
            got = proxied.get(path, user.token, {"Range": "bytes=1000-1999"})
            assert_equal((got.status, got.body), (206, media.content[1000:2000]), kind)
            assert_equal(got.header("content-range"), f"bytes 1000-1999/{len(media.content)}", kind)
        got = proxied.get(f"/download/{film.path}/Gr%C3%BC%C3%9Fe%20%2B.mp4", user.token, {"Range": "bytes=0-0"})
        assert got.header("content-disposition").endswith("''Gr%C3%BC%C3%9Fe%20+.mp4"), got
        assert_error(proxied.get(f"/download/{infected.path}", user.token), 403, "MCS_MEDIA_NOT_CLEAN", kind)
        assert_error(proxied.get(f"/download/{film.path}", "bad"), 401, "M_UNKNOWN_TOKEN", kind)
        assert_error(proxied.get("/download/lab.test/a%2fb", user.token), 404, "M_NOT_FOUND", kind)
        got = proxied.client.post(f"{PREFIX}/scan_encrypted", {"file": sealed.file}, user.token)
        assert_equal((got.status, got.json()["clean"]), (200, True), f"{kind}: {got}")
        preflight = proxied.client.request("OPTIONS", f"{PREFIX}/download/a/b", headers={"Origin": "https://app.example"})
        assert_equal((preflight.status, {name: preflight.header(name) for name in CORS}), (200, CORS), kind)
        proxied.service.wait_until_idle()
