"""Media of real homeservers, uploaded by a real client library: all kinds of files on all routes with content and
headers, thumbnails, and remote media."""

import hashlib

from nio.crypto import decrypt_attachment

from harness import homeserver
from harness.run import assert_equal, test
from harness.samples import EICAR, noise, pdf, picture, zipped
from harness.scanner import Scanner

NEEDS = []

# Headers of every response, and additional headers of media.
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, HEAD, POST, OPTIONS",
    "access-control-allow-headers": "Origin, X-Requested-With, Content-Type, Accept, Authorization, Range",
    "access-control-expose-headers": "Content-Disposition, Content-Range, ETag, Retry-After",
    "access-control-max-age": "86400",
}
MEDIA = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; "
    "style-src 'unsafe-inline'; media-src 'self'; object-src 'self';",
    "cross-origin-resource-policy": "cross-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "private, max-age=86400",
    "accept-ranges": "bytes",
}

HTML = "<!doctype html><script>alert('ü')</script>".encode()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

# Name, declared type, content, and whether the homeserver serves it inline.
FILES = [
    ("cat.png", "image/png", picture("PNG"), True),
    ("cat.jpg", "image/jpeg", picture("JPEG"), True),
    ("cat.gif", "image/gif", picture("GIF"), True),
    ("cat.webp", "image/webp", picture("WEBP"), True),
    ("paper.pdf", "application/pdf", pdf(), False),
    ("letter.txt", "text/plain", "Grüße\n".encode(), True),
    ("page.html", "text/html", HTML, False),
    ("image.svg", "image/svg+xml", SVG, False),
    ("files.zip", "application/zip", zipped(b"something", "a"), False),
    ('a "quoted" name; and more.txt', "text/plain", b"quoted", True),
    ("Übersicht 资料 🐈.png", "image/png", picture("PNG", seed=1), True),
    (None, "application/octet-stream", noise(2, 5000), False),
    ("one", "application/octet-stream", b"1", False),
    ("nothing.txt", "text/plain", b"", True),
    ("film.mp4", "video/mp4", noise(3, 50 << 20), True),
]


def scanner(machine):
    """A service in front of the homeserver with authenticated media. It authorises each request."""
    return Scanner(machine, machine.shared(homeserver.authenticated), {"download.authorisation_ttl": "0s"})


def alice(machine):
    return machine.shared(homeserver.authenticated).user()


def uploaded_files(machine):
    """Uploads all files plain and encrypted; returns the fields of FILES and both media for each."""
    user = machine.shared(alice)
    return [
        (*file, user.upload(file[2], file[1], file[0]), user.upload(file[2], filename=file[0], encrypt=True))
        for file in FILES
    ]


def from_homeserver(machine, media, route="download", query=""):
    """Requests media directly from the homeserver."""
    client, token = machine.shared(homeserver.authenticated).client, machine.shared(alice).token
    return client.get(f"/_matrix/client/v1/media/{route}/{media.path}{query}", token)


def assert_headers(got, expected, about):
    """Asserts that the response has exactly these headers, each once, and Date."""
    found = sorted((name.lower(), value) for name, value in got.headers if name.lower() != "date")
    assert_equal(found, sorted(expected.items()), about)


def media_headers(body, content_type, disposition):
    return {
        **CORS,
        **MEDIA,
        "content-type": content_type,
        "content-length": str(len(body)),
        "content-disposition": disposition,
        "etag": f'"{hashlib.sha256(body).hexdigest()}"',
    }


def assert_verdict(got, clean, about=""):
    """Asserts a verdict of a scan route and its headers."""
    assert_equal(got.status, 200, f"{about}: {got}")
    verdict = got.json()
    assert_equal(sorted(verdict), ["clean", "info"], about)
    assert_equal(verdict["clean"], clean, about)
    start = "File clean at 20" if clean else "File not clean. Output: '"
    assert verdict["info"].startswith(start), f"{about}: {verdict}"
    json_headers = {**CORS, "content-type": "application/json", "cache-control": "no-store"}
    assert_headers(got, {**json_headers, "content-length": str(len(got.body))}, about)


def assert_error(got, status, reason, about=""):
    """Asserts an error of the contract: status, reason, and no other fields than `info`."""
    assert_equal((got.status, got.json().get("reason")), (status, reason), f"{about}: {got}")
    assert_equal(sorted(got.json()), ["info", "reason"], about)
    assert_equal({name: got.header(name) for name in CORS}, CORS, about)


@test
def files_arrive_unchanged_with_their_headers(machine):
    service, token = machine.shared(scanner), machine.shared(alice).token
    for name, content_type, content, inline, media, _ in machine.shared(uploaded_files):
        direct = from_homeserver(machine, media)
        assert_equal(direct.body == content, True, f"the homeserver has {name}")
        disposition = direct.header("content-disposition")
        kind = disposition.split(";")[0]
        assert_equal(kind, "inline" if inline else "attachment", name)
        got = service.get(f"/download/{media.path}", token)
        assert_equal((got.status, got.body == content), (200, True), f"{name}: {got}")
        expected = media_headers(content, direct.header("content-type"), disposition)
        assert_headers(got, expected, name)
        assert expected["content-type"].split(";")[0] == content_type, expected
        # With a file name in the path and unknown query parameters, as clients send them.
        named = service.get(f"/download/{media.path}/other.bin?allow_redirect=true", token)
        assert_headers(named, {**expected, "content-disposition": f'{kind}; filename="other.bin"'}, name)
        assert_equal(named.body == content, True, name)
        slash = service.get(f"/download/{media.path}/", token)
        assert_equal((slash.status, slash.body == content), (200, True), name)
        head = service.request("HEAD", f"/download/{media.path}", token)
        assert_equal((head.status, head.body), (200, b""), name)
        assert_headers(head, expected, f"HEAD {name}")
        assert_verdict(service.get(f"/scan/{media.path}", token), True, name)
    service.wait_until_idle()
    return f"{len(FILES)} files"


@test
def supports_conditional_and_range_requests(machine):
    service, token = machine.shared(scanner), machine.shared(alice).token
    for name, _, content, _, media, _ in machine.shared(uploaded_files):
        path, etag = f"/download/{media.path}", f'"{hashlib.sha256(content).hexdigest()}"'
        got = service.get(path, token, {"If-None-Match": etag})
        assert_equal((got.status, got.body, got.header("etag")), (304, b"", etag), name)
        got = service.get(path, token, {"If-None-Match": '"another"'})
        assert_equal((got.status, got.body == content), (200, True), name)
        size = len(content)
        if size < 2:
            continue
        for range_, first, last in [("0-0", 0, 0), (f"{size // 2}-", size // 2, size - 1), ("-1", size - 1, size - 1)]:
            got = service.get(path, token, {"Range": f"bytes={range_}"})
            assert_equal((got.status, got.body == content[first : last + 1]), (206, True), f"{name} {range_}")
            assert_equal(got.header("content-range"), f"bytes {first}-{last}/{size}", name)
        got = service.get(path, token, {"Range": f"bytes={size}-"})
        assert_error(got, 416, "M_UNKNOWN", name)
        assert_equal(got.header("content-range"), f"bytes */{size}", name)


@test
def encrypted_files_arrive_as_ciphertext(machine):
    service = machine.shared(scanner)
    token = machine.shared(alice).token
    for name, _, content, _, _, media in machine.shared(uploaded_files):
        ciphertext = from_homeserver(machine, media).body
        assert_equal(ciphertext == content, not content, name)
        keys = media.file
        opened = decrypt_attachment(ciphertext, keys["key"]["k"], keys["hashes"]["sha256"], keys["iv"])
        assert_equal(opened == content, True, name)
        # Clients send no or any Content-Type, and additional fields.
        body = {"file": {**keys, "mimetype": "image/png", "size": len(content)}}
        for headers in ({}, {"Content-Type": "text/plain"}):
            got = service.post("/download_encrypted", body, token, headers)
            assert_equal((got.status, got.body == ciphertext), (200, True), f"{name}: {got}")
            disposition = got.header("content-disposition")
            assert disposition.split(";")[0] == "attachment", disposition
            assert_headers(got, media_headers(ciphertext, "application/octet-stream", disposition), name)
            assert_verdict(service.post("/scan_encrypted", body, token, headers), True, name)
    service.wait_until_idle()


@test
def infected_files_are_refused_on_every_route(machine):
    service, user = machine.shared(scanner), machine.shared(alice)
    token, info = user.token, "File not clean. Output: 'Eicar-Test-Signature'"
    plain = user.upload(EICAR, "text/plain", "eicar.txt")
    sealed = user.upload(EICAR, encrypt=True)
    body = {"file": sealed.file}
    for got in (
        service.get(f"/download/{plain.path}", token),
        service.get(f"/download/{plain.path}/cat.png", token),
        service.post("/download_encrypted", body, token),
    ):
        assert_error(got, 403, "MCS_MEDIA_NOT_CLEAN")
        assert_equal(got.json()["info"], info)
    head = service.request("HEAD", f"/download/{plain.path}", token)
    assert_equal((head.status, head.body), (403, b""), head)
    for got in (service.get(f"/scan/{plain.path}", token), service.post("/scan_encrypted", body, token)):
        assert_verdict(got, False)
        assert_equal(got.json()["info"], info)
    # Without the key, the ciphertext is served as a plain file.
    got = service.get(f"/download/{sealed.path}", token)
    assert_equal((got.status, got.body), (200, from_homeserver(machine, sealed).body), got)


@test
def wrong_key_or_hash_reveals_nothing(machine):
    service, user = machine.shared(scanner), machine.shared(alice)
    media = user.upload(picture("PNG"), encrypt=True)
    ciphertext = from_homeserver(machine, media).body
    # Another key: the hash of the ciphertext is valid, and the decrypted noise is scanned.
    key = {**media.file["key"], "k": user.upload(b"any", encrypt=True).file["key"]["k"]}
    got = service.post("/download_encrypted", {"file": {**media.file, "key": key}}, user.token)
    assert_equal((got.status, got.body == ciphertext), (200, True), got)
    other = user.upload(b"any", encrypt=True).file["hashes"]
    for path in ("/download_encrypted", "/scan_encrypted"):
        got = service.post(path, {"file": {**media.file, "hashes": other}}, user.token)
        assert_error(got, 400, "MCS_MEDIA_FAILED_TO_DECRYPT", path)


@test
def thumbnails_equal_those_of_homeserver(machine):
    service, token = machine.shared(scanner), machine.shared(alice).token
    queries = [
        "?width=96&height=96&method=crop",
        "?width=320&height=240&method=scale",
        "?width=320&height=240",
        "?width=32&height=32&method=crop&animated=true",
        "?width=5000&height=5000&method=scale&timeout_ms=5000",
    ]
    count = 0
    for name, content_type, _, _, media, _ in machine.shared(uploaded_files):
        if content_type not in ("image/png", "image/jpeg", "image/gif", "image/webp"):
            continue
        different = set()
        for query in queries:
            direct = from_homeserver(machine, media, "thumbnail", query)
            assert_equal(direct.status, 200, f"{name} {query}: {direct}")
            got = service.get(f"/thumbnail/{media.path}{query}", token)
            assert_equal((got.status, got.body == direct.body), (200, True), f"{name} {query}: {got}")
            disposition = got.header("content-disposition")
            expected = media_headers(direct.body, direct.header("content-type"), disposition)
            assert_headers(got, expected, f"{name} {query}")
            assert_equal(disposition, direct.header("content-disposition"), name)
            different.add(got.body)
            count += 1
        assert len(different) > 1, name
    return f"{count} thumbnails"


@test
def thumbnail_errors_keep_homeserver_status(machine):
    service, token = machine.shared(scanner), machine.shared(alice).token
    for name, content_type, _, _, media, _ in machine.shared(uploaded_files):
        queries = ["", "?width=96", "?width=x&height=96"]
        if content_type in ("text/plain", "application/pdf", "application/zip"):
            queries.append("?width=96&height=96")
        for query in queries:
            direct = from_homeserver(machine, media, "thumbnail", query)
            assert_equal(direct.status in (400, 404), True, f"{name} {query}: {direct}")
            got = service.get(f"/thumbnail/{media.path}{query}", token)
            reason = "M_NOT_FOUND" if direct.status == 404 else "M_UNKNOWN"
            assert_error(got, direct.status, reason, f"{name} {query}")


@test
def remote_media_is_fetched_through_own_homeserver(machine):
    service, token = machine.shared(scanner), machine.shared(alice).token
    bob = machine.shared(homeserver.federated).user("bob")
    picture_there = bob.upload(picture("JPEG", seed=9), "image/jpeg", "weit weg ü.jpg")
    got = service.get(f"/download/{picture_there.path}", token)
    assert_equal((got.status, got.body == picture_there.content), (200, True), got)
    direct = from_homeserver(machine, picture_there)
    expected = media_headers(
        picture_there.content, direct.header("content-type"), direct.header("content-disposition")
    )
    assert_headers(got, expected, "remote")
    query = "?width=96&height=96&method=crop"
    got = service.get(f"/thumbnail/{picture_there.path}{query}", token)
    direct = from_homeserver(machine, picture_there, "thumbnail", query)
    assert_equal((got.status, got.body == direct.body, len(got.body) > 100), (200, True, True), got)
    infected = bob.upload(EICAR, "text/plain")
    assert_error(service.get(f"/download/{infected.path}", token), 403, "MCS_MEDIA_NOT_CLEAN")
    sealed = bob.upload(picture("PNG", seed=10), encrypt=True)
    got = service.post("/download_encrypted", {"file": sealed.file}, token)
    assert_equal((got.status, got.body == from_homeserver(machine, sealed).body), (200, True), got)
    gone = sealed.path[:-1] + ("a" if sealed.path[-1] != "a" else "b")
    assert_error(service.get(f"/download/{gone}", token), 404, "M_NOT_FOUND")


@test
def requests_without_token_use_unauthenticated_routes(machine):
    old = machine.shared(homeserver.unauthenticated)
    user = old.user("carol")
    service = Scanner(machine, old)
    media = user.upload(picture("PNG"), "image/png", "cat.png")
    sealed = user.upload(b"secret", encrypt=True)
    for token in (None, user.token):
        got = service.get(f"/download/{media.path}", token)
        assert_equal((got.status, got.body == media.content), (200, True), got)
        got = service.get(f"/thumbnail/{media.path}?width=96&height=96&method=crop", token)
        assert_equal((got.status, got.header("content-type")), (200, "image/png"), got)
        got = service.post("/download_encrypted", {"file": sealed.file}, token)
        assert_equal((got.status, len(got.body)), (200, 6), got)
    # The other homeserver does not serve this media on the unauthenticated routes.
    got = machine.shared(scanner).get(f"/download/{machine.shared(uploaded_files)[0][4].path}")
    assert_error(got, 404, "M_NOT_FOUND")
