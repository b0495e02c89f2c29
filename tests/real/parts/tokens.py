"""Who may have a media, as real homeservers say it: tokens, what was deleted or quarantined, limits by
address; and that no token reaches a host that a media's name names."""

import concurrent.futures
import http.server
import os
import ssl
import threading
import time

from harness import homeserver
from harness.machine import free_port, until
from harness.run import same, test
from harness.samples import noise, picture
from harness.scanner import Scanner
from parts.synapse import alice, is_refused, is_verdict, scanner

NEEDS = []


def fresh(machine, seed):
    """A media that nobody has asked for yet."""
    return machine.once(alice).upload(picture("PNG", seed=1000 + seed), "image/png", "fresh.png")


def is_given(service, media, token):
    got = service.get(f"/download/{media.path}", token)
    same((got.status, got.body == media.content), (200, True), got)


def all_routes(service, media, token, sealed=None):
    """The answers of all routes to a media, and to an encrypted one."""
    yield service.get(f"/download/{media.path}", token)
    yield service.get(f"/scan/{media.path}", token)
    yield service.get(f"/thumbnail/{media.path}?width=96&height=96&method=crop", token)
    if sealed:
        yield service.post("/download_encrypted", {"file": sealed.file}, token)
        yield service.post("/scan_encrypted", {"file": sealed.file}, token)


@test
def no_token_a_bad_one_and_one_that_was_logged_out_get_nothing(machine):
    service, user = machine.once(scanner), machine.once(alice)
    media, sealed = fresh(machine, 1), user.upload(b"secret", encrypt=True)
    leaver = machine.once(homeserver.authenticated).register("leaver")
    leaver.log_out()
    for about in ("never asked for", "cached"):
        for got in all_routes(service, media, None, sealed):
            is_refused(got, 404, "M_NOT_FOUND", about)
        for token in ("bad", leaver.token, f"{user.token}x"):
            for got in all_routes(service, media, token, sealed):
                is_refused(got, 401, "M_UNKNOWN_TOKEN", about)
        for got in all_routes(service, media, user.token, sealed):
            same(got.status, 200, got)
    # A token in the query string is none.
    got = service.get(f"/download/{media.path}?access_token={user.token}")
    is_refused(got, 404, "M_NOT_FOUND")


@test
def a_token_that_is_logged_out_loses_what_is_cached(machine):
    service = machine.once(scanner)
    media = fresh(machine, 2)
    leaver = machine.once(homeserver.authenticated).register("late-leaver")
    is_given(service, media, leaver.token)
    leaver.log_out()
    is_refused(service.get(f"/download/{media.path}", leaver.token), 401, "M_UNKNOWN_TOKEN")
    is_refused(service.get(f"/scan/{media.path}", leaver.token), 401, "M_UNKNOWN_TOKEN")
    is_given(service, media, machine.once(alice).token)


@test
def a_permission_that_is_remembered_ends_with_its_time(machine):
    media = fresh(machine, 3)
    leaver = machine.once(homeserver.authenticated).register("slow-leaver")
    service = Scanner(machine, machine.once(homeserver.authenticated), {"download.authorisation_ttl": "2s"})
    is_given(service, media, leaver.token)
    leaver.log_out()
    out = time.monotonic()
    until(
        "the permission has ended",
        lambda: service.get(f"/download/{media.path}", leaver.token).status == 401,
        seconds=20,
    )
    assert time.monotonic() - out < 10, "it was remembered for far longer than it should be"
    service.stop()


@test
def who_joins_a_scan_under_way_needs_a_token_too(machine):
    user = machine.once(alice)
    media, sealed = fresh(machine, 4), user.upload(noise(4, 4000), encrypt=True)
    leaver = machine.once(homeserver.authenticated).register("joiner")
    leaver.log_out()
    marks = machine.make_folder("marks", 0o777)
    os.mkfifo(marks / "gate")
    (marks / "gate").chmod(0o666)
    service = Scanner(
        machine,
        machine.once(homeserver.authenticated),
        {"download.authorisation_ttl": "0s", "sandbox.writable_paths": [str(marks)]},
        script=f"echo begun >> {marks}/begun\nread line < {marks}/gate\nexit 0",
        canary="off",
    )

    def downloads(token):
        return service.get(f"/download/{media.path}", token)

    def downloads_encrypted(token):
        return service.post("/download_encrypted", {"file": sealed.file}, token)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        for round_, ask in enumerate((downloads, downloads_encrypted), 1):
            first = pool.submit(ask, user.token)
            begun = marks / "begun"
            until("the scan is under way", lambda: begun.exists() and len(begun.read_text().split()) == round_)
            try:
                for token in ("bad", leaver.token):
                    is_refused(ask(token), 401, "M_UNKNOWN_TOKEN", "a joiner")
                is_refused(ask(None), 404, "M_NOT_FOUND", "a joiner without a token")
                assert not first.done()
            finally:
                (marks / "gate").write_text("go\n")
            same(first.result().status, 200, first.result())
    same(len((marks / "begun").read_text().split()), 2, "each was scanned once")
    service.stop()


@test
def what_is_missing_deleted_or_quarantined_is_not_found(machine):
    service, user = machine.once(scanner), machine.once(alice)
    place, token = machine.once(homeserver.authenticated), machine.once(alice).token
    for seed, take_away in ((5, place.quarantine), (6, place.delete)):
        for cached in (False, True):
            media = fresh(machine, 10 * seed + cached)
            sealed = user.upload(noise(10 * seed + cached, 3000), encrypt=True)
            if cached:
                for got in all_routes(service, media, token, sealed):
                    same(got.status, 200, got)
            take_away(media)
            take_away(sealed)
            about = f"{take_away.__name__}, cached: {cached}"
            for got in all_routes(service, media, token, sealed):
                is_refused(got, 404, "M_NOT_FOUND", about)
            # An admin could ask the homeserver for what is quarantined; nobody can through the service.
            if take_away == place.quarantine:
                bypass = "?admin_unsafely_bypass_quarantine=true"
                admin = place.user("admin", admin=True).token
                direct = place.client.get(f"/_matrix/client/v1/media/download/{media.path}{bypass}", admin)
                same(direct.status, 200, direct)
                got = service.get(f"/download/{media.path}{bypass}", admin)
                is_refused(got, 404, "M_NOT_FOUND", about)
    never = f"{place.name}/thisWasNeverUploadedByAny"
    is_refused(service.get(f"/download/{never}", token), 404, "M_NOT_FOUND")
    is_refused(service.get(f"/thumbnail/{never}?width=96&height=96", token), 404, "M_NOT_FOUND")


@test
def what_is_not_yet_uploaded_is_waited_for(machine):
    service, user = machine.once(scanner), machine.once(alice)
    place = machine.once(homeserver.authenticated)
    made = place.client.post("/_matrix/media/v1/create", {}, user.token)
    path = made.json()["content_uri"].removeprefix("mxc://")
    got = service.get(f"/download/{path}?timeout_ms=200", user.token)
    is_refused(got, 504, "MCS_MEDIA_REQUEST_FAILED")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        waiting = pool.submit(service.get, f"/download/{path}?timeout_ms=20000", user.token)
        done, _ = concurrent.futures.wait([waiting], timeout=1)
        same(done, set(), "it is waited for")
        content = picture("PNG", seed=7)
        headers = {"Content-Type": "image/png"}
        put = place.client.request("PUT", f"/_matrix/media/v3/upload/{path}", user.token, headers, content)
        same(put.status, 200, put)
        got = waiting.result()
    same((got.status, got.body == content), (200, True), got)
    is_verdict(service.get(f"/scan/{path}", user.token), True)


@test
def limits_by_address_are_each_clients_own(machine):
    old = machine.once(homeserver.unauthenticated)
    user = old.user("carol")
    bob = machine.once(homeserver.federated).user("bob")
    each = Scanner(
        machine, old, {"download.forward_client_address": True, "download.trusted_proxies": ["127.0.0.1"]}
    )
    # The homeserver gives an address 2 MiB of remote media, and nothing where less than one is left.
    first, second, third, fourth = (bob.upload(noise(20 + n, 3 << 19)) for n in range(4))

    def asks(service, media, address):
        return service.get(f"/download/{media.path}", user.token, {"X-Forwarded-For": address})

    same(asks(each, first, "192.0.2.1").status, 200)
    refused = asks(each, second, "192.0.2.1")
    is_refused(refused, 429, "M_UNKNOWN")
    got = asks(each, second, "192.0.2.2")
    same((got.status, got.body == second.content), (200, True), got)
    each.stop()
    # Unless the address is told, all clients are one. A client alone cannot tell it.
    alike = Scanner(machine, old)
    same(asks(alike, third, "192.0.2.3").status, 200)
    is_refused(asks(alike, fourth, "192.0.2.4"), 429, "M_UNKNOWN")
    alike.stop()


class Capturing:
    """An https server that writes down what it is asked, with all headers, and has a media."""

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
def tokens_never_reach_a_host_that_the_path_names(machine):
    token = machine.once(alice).token
    capturing = Capturing(machine.make_folder("capturing"))
    try:
        # Through one's own homeserver, which asks that host itself.
        got = machine.once(scanner).get(f"/download/{capturing.name}/abc", token)
        same(got.status in (404, 502), True, got)
        by_homeserver = len(capturing.requests)
        assert by_homeserver > 0, "the homeserver has not asked it"
        assert all("Synapse/" in request for request in capturing.requests), capturing.requests
        # Without a homeserver, from that host itself: it answers, and gets no token.
        discovering = Scanner(
            machine,
            None,
            {
                "download.allow_private_addresses": True,
                "download.ca_certificates": str(capturing.certificate),
                "download.headers_to_forward": ["X-Secret"],
            },
        )
        got = discovering.get(f"/download/{capturing.name}/abc", token, {"X-Secret": token})
        same((got.status, got.body), (200, capturing.content), got)
        sealed = machine.once(alice).upload(b"secret", encrypt=True).file
        file = {**sealed, "url": f"mxc://{capturing.name}/def"}
        got = discovering.post("/scan_encrypted", {"file": file}, token, {"X-Secret": token})
        is_refused(got, 400, "MCS_MEDIA_FAILED_TO_DECRYPT")
        assert len(capturing.requests) > by_homeserver + 1, capturing.requests
        for request in capturing.requests:
            assert token not in request, request
            assert "bearer" not in request.lower(), request
        # Nor any log.
        assert token not in machine.once(scanner).log() + discovering.log()
        discovering.stop()
    finally:
        capturing.close()


@test
def hosts_that_cannot_be_reached_are_a_failure_and_impossible_names_are_never_asked_for(machine):
    service, token = machine.once(scanner), machine.once(alice).token
    got = service.get(f"/download/127.0.0.1:{free_port()}/abc", token)
    is_refused(got, 502, "MCS_MEDIA_REQUEST_FAILED")
    for path in ("a..b/abc", "%2e%2e/abc", "lab.test/a%2fb", "user@lab.test/abc", "lab.test/a%00b"):
        is_refused(service.get(f"/download/{path}", token), 404, "M_NOT_FOUND", path)
