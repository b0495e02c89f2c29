"""Authorisation against real homeservers: tokens, deleted and quarantined media, rate limits per address, and that no
token is sent to a host from a media URI."""

import concurrent.futures
import http.server
import os
import ssl
import threading
import time

from harness import homeserver
from harness.machine import free_port, wait_until
from harness.run import assert_equal, test
from harness.samples import noise, picture
from harness.scanner import Scanner
from parts.synapse import alice, assert_error, assert_verdict, scanner

NEEDS = []


def upload_new(machine, seed):
    """Uploads a file that has not been requested before."""
    return machine.shared(alice).upload(picture("PNG", seed=1000 + seed), "image/png", "fresh.png")


def assert_media(service, media, token):
    got = service.get(f"/download/{media.path}", token)
    assert_equal((got.status, got.body == media.content), (200, True), got)


def request_all_routes(service, media, token, sealed=None):
    """Yields the responses of all routes for a file, and for an encrypted file if given."""
    yield service.get(f"/download/{media.path}", token)
    yield service.get(f"/scan/{media.path}", token)
    yield service.get(f"/thumbnail/{media.path}?width=96&height=96&method=crop", token)
    if sealed:
        yield service.post("/download_encrypted", {"file": sealed.file}, token)
        yield service.post("/scan_encrypted", {"file": sealed.file}, token)


@test
def missing_invalid_and_logged_out_tokens_are_refused(machine):
    service, user = machine.shared(scanner), machine.shared(alice)
    media, sealed = upload_new(machine, 1), user.upload(b"secret", encrypt=True)
    leaver = machine.shared(homeserver.authenticated).register("leaver")
    leaver.log_out()
    for about in ("not cached", "cached"):
        for got in request_all_routes(service, media, None, sealed):
            assert_error(got, 404, "M_NOT_FOUND", about)
        for token in ("bad", leaver.token, f"{user.token}x"):
            for got in request_all_routes(service, media, token, sealed):
                assert_error(got, 401, "M_UNKNOWN_TOKEN", about)
        for got in request_all_routes(service, media, user.token, sealed):
            assert_equal(got.status, 200, got)
    # A token in the query string is ignored.
    got = service.get(f"/download/{media.path}?access_token={user.token}")
    assert_error(got, 404, "M_NOT_FOUND")


@test
def logged_out_token_cannot_read_cached_media(machine):
    service = machine.shared(scanner)
    media = upload_new(machine, 2)
    leaver = machine.shared(homeserver.authenticated).register("late-leaver")
    assert_media(service, media, leaver.token)
    leaver.log_out()
    assert_error(service.get(f"/download/{media.path}", leaver.token), 401, "M_UNKNOWN_TOKEN")
    assert_error(service.get(f"/scan/{media.path}", leaver.token), 401, "M_UNKNOWN_TOKEN")
    assert_media(service, media, machine.shared(alice).token)


@test
def cached_authorisation_expires(machine):
    media = upload_new(machine, 3)
    leaver = machine.shared(homeserver.authenticated).register("slow-leaver")
    service = Scanner(machine, machine.shared(homeserver.authenticated), {"download.authorisation_ttl": "2s"})
    assert_media(service, media, leaver.token)
    leaver.log_out()
    start = time.monotonic()
    wait_until(
        "the authorisation has expired",
        lambda: service.get(f"/download/{media.path}", leaver.token).status == 401,
        seconds=20,
    )
    assert time.monotonic() - start < 10, "the authorisation outlived its TTL"
    service.stop()


@test
def joining_a_running_scan_requires_a_token(machine):
    user = machine.shared(alice)
    media, sealed = upload_new(machine, 4), user.upload(noise(4, 4000), encrypt=True)
    leaver = machine.shared(homeserver.authenticated).register("joiner")
    leaver.log_out()
    marks = machine.make_folder("marks", 0o777)
    os.mkfifo(marks / "gate")
    (marks / "gate").chmod(0o666)
    service = Scanner(
        machine,
        machine.shared(homeserver.authenticated),
        {"download.authorisation_ttl": "0s", "sandbox.writable_paths": [str(marks)]},
        script=f"echo started >> {marks}/started\nread line < {marks}/gate\nexit 0",
        canary="off",
    )

    def downloads(token):
        return service.get(f"/download/{media.path}", token)

    def downloads_encrypted(token):
        return service.post("/download_encrypted", {"file": sealed.file}, token)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for round_number, send in enumerate((downloads, downloads_encrypted), 1):
            first = pool.submit(send, user.token)
            started = marks / "started"
            wait_until("the scan is running", lambda: started.exists() and len(started.read_text().split()) == round_number)
            try:
                for token in ("bad", leaver.token):
                    assert_error(send(token), 401, "M_UNKNOWN_TOKEN", "a joiner")
                assert_error(send(None), 404, "M_NOT_FOUND", "a joiner without a token")
                assert not first.done()
            finally:
                (marks / "gate").write_text("go\n")
            assert_equal(first.result().status, 200, first.result())
    assert_equal(len((marks / "started").read_text().split()), 2, "scans")
    service.stop()


@test
def missing_deleted_and_quarantined_media_is_not_found(machine):
    service, user = machine.shared(scanner), machine.shared(alice)
    server, token = machine.shared(homeserver.authenticated), machine.shared(alice).token
    for seed, remove in ((5, server.quarantine), (6, server.delete)):
        for cached in (False, True):
            media = upload_new(machine, 10 * seed + cached)
            sealed = user.upload(noise(10 * seed + cached, 3000), encrypt=True)
            if cached:
                for got in request_all_routes(service, media, token, sealed):
                    assert_equal(got.status, 200, got)
            remove(media)
            remove(sealed)
            about = f"{remove.__name__}, cached: {cached}"
            for got in request_all_routes(service, media, token, sealed):
                assert_error(got, 404, "M_NOT_FOUND", about)
            # An admin can get quarantined media from the homeserver, but not through the service.
            if remove == server.quarantine:
                bypass = "?admin_unsafely_bypass_quarantine=true"
                admin = server.user("admin", admin=True).token
                direct = server.client.get(f"/_matrix/client/v1/media/download/{media.path}{bypass}", admin)
                assert_equal(direct.status, 200, direct)
                got = service.get(f"/download/{media.path}{bypass}", admin)
                assert_error(got, 404, "M_NOT_FOUND", about)
    never = f"{server.name}/thisWasNeverUploadedByAny"
    assert_error(service.get(f"/download/{never}", token), 404, "M_NOT_FOUND")
    assert_error(service.get(f"/thumbnail/{never}?width=96&height=96", token), 404, "M_NOT_FOUND")


@test
def waits_for_pending_upload(machine):
    service, user = machine.shared(scanner), machine.shared(alice)
    server = machine.shared(homeserver.authenticated)
    created = server.client.post("/_matrix/media/v1/create", {}, user.token)
    path = created.json()["content_uri"].removeprefix("mxc://")
    got = service.get(f"/download/{path}?timeout_ms=200", user.token)
    assert_error(got, 504, "MCS_MEDIA_REQUEST_FAILED")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(service.get, f"/download/{path}?timeout_ms=20000", user.token)
        done, _ = concurrent.futures.wait([waiting], timeout=1)
        assert_equal(done, set(), "the request returned before the upload")
        content = picture("PNG", seed=7)
        headers = {"Content-Type": "image/png"}
        put = server.client.request("PUT", f"/_matrix/media/v3/upload/{path}", user.token, headers, content)
        assert_equal(put.status, 200, put)
        got = waiting.result()
    assert_equal((got.status, got.body == content), (200, True), got)
    assert_verdict(service.get(f"/scan/{path}", user.token), True)


@test
def rate_limits_apply_per_client_address(machine):
    old = machine.shared(homeserver.unauthenticated)
    user = old.user("carol")
    bob = machine.shared(homeserver.federated).user("bob")
    with_forwarding = Scanner(
        machine, old, {"download.forward_client_address": True, "download.trusted_proxies": ["127.0.0.1"]}
    )
    # The homeserver limits an address to 2 MiB of remote media, and refuses requests when less than 1 MiB is left.
    first, second, third, fourth = (bob.upload(noise(20 + n, 3 << 19)) for n in range(4))

    def download(service, media, address):
        return service.get(f"/download/{media.path}", user.token, {"X-Forwarded-For": address})

    assert_equal(download(with_forwarding, first, "192.0.2.1").status, 200)
    refused = download(with_forwarding, second, "192.0.2.1")
    assert_error(refused, 429, "M_UNKNOWN")
    got = download(with_forwarding, second, "192.0.2.2")
    assert_equal((got.status, got.body == second.content), (200, True), got)
    with_forwarding.stop()
    # Without forwarding all clients share one address, whatever header a client sends.
    without_forwarding = Scanner(machine, old)
    assert_equal(download(without_forwarding, third, "192.0.2.3").status, 200)
    assert_error(download(without_forwarding, fourth, "192.0.2.4"), 429, "M_UNKNOWN")
    without_forwarding.stop()


class CapturingServer:
    """An HTTPS server that records requests with all headers, and serves one file."""

    def __init__(self, folder):
        self.content, self.requests = b"captured media", []
        homeserver.write_certificate(folder)
        self.certificate = folder / "certificate.pem"
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests.append(f"{self.command} {self.path}\n{self.headers}")
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(outer.content)))
                self.end_headers()
                self.wfile.write(outer.content)

            do_POST = do_PUT = do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.port = free_port()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, folder / "key.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.name = f"127.0.0.1:{self.port}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@test
def tokens_are_not_sent_to_host_in_path(machine):
    token = machine.shared(alice).token
    capture = CapturingServer(machine.make_folder("capture"))
    try:
        # Through the homeserver, which contacts the host itself.
        got = machine.shared(scanner).get(f"/download/{capture.name}/abc", token)
        assert_equal(got.status in (404, 502), True, got)
        by_homeserver = len(capture.requests)
        assert by_homeserver > 0, "no request of the homeserver"
        assert all("Synapse/" in request for request in capture.requests), capture.requests
        # Without a homeserver, the service contacts the host directly, and sends no token.
        discovering = Scanner(
            machine,
            None,
            {
                "download.allow_private_addresses": True,
                "download.ca_certificates": str(capture.certificate),
                "download.headers_to_forward": ["X-Secret"],
            },
        )
        got = discovering.get(f"/download/{capture.name}/abc", token, {"X-Secret": token})
        assert_equal((got.status, got.body), (200, capture.content), got)
        sealed = machine.shared(alice).upload(b"secret", encrypt=True).file
        file = {**sealed, "url": f"mxc://{capture.name}/def"}
        got = discovering.post("/scan_encrypted", {"file": file}, token, {"X-Secret": token})
        assert_error(got, 400, "MCS_MEDIA_FAILED_TO_DECRYPT")
        assert len(capture.requests) > by_homeserver + 1, capture.requests
        for request in capture.requests:
            assert token not in request, request
            assert "bearer" not in request.lower(), request
        # Tokens are not logged either.
        assert token not in machine.shared(scanner).log() + discovering.log()
        discovering.stop()
    finally:
        capture.close()


@test
def unreachable_hosts_fail_and_invalid_names_are_refused(machine):
    service, token = machine.shared(scanner), machine.shared(alice).token
    got = service.get(f"/download/127.0.0.1:{free_port()}/abc", token)
    assert_error(got, 502, "MCS_MEDIA_REQUEST_FAILED")
    for path in ("a..b/abc", "%2e%2e/abc", "lab.test/a%2fb", "user@lab.test/abc", "lab.test/a%00b"):
        assert_error(service.get(f"/download/{path}", token), 404, "M_NOT_FOUND", path)
