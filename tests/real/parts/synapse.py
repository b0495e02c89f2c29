"""Media of real homeservers, uploaded by a real client library: every kind of file by every route, byte
for byte and with its headers; thumbnails; remote media."""

import hashlib

from nio.crypto import decrypt_attachment

from harness import homeserver
from harness.run import same, test
from harness.samples import EICAR, noise, pdf, picture, zipped
from harness.scanner import Scanner

NEEDS = []

# What every answer of the service carries, and what media carries beside it.
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

# Name, declared type, content, and whether it may be shown inline.
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
    """In front of the homeserver with authenticated media; it asks about each request anew."""
    return Scanner(machine, machine.once(homeserver.authenticated), {"download.authorisation_ttl": "0s"})


def alice(machine):
    return machine.once(homeserver.authenticated).user()


def uploaded(machine):
    """All files, as they are and encrypted: what FILES says of each, and both media."""
    user = machine.once(alice)
    return [
        (*file, user.upload(file[2], file[1], file[0]), user.upload(file[2], filename=file[0], encrypt=True))
        for file in FILES
    ]


def from_homeserver(machine, media, what="download", query=""):
    """What the homeserver itself answers."""
    client, token = machine.once(homeserver.authenticated).client, machine.once(alice).token
    return client.get(f"/_matrix/client/v1/media/{what}/{media.path}{query}", token)


def has_headers(got, expected, about):
    """Exactly these headers, each once, and the date."""
    found = sorted((name.lower(), value) for name, value in got.headers if name.lower() != "date")
    same(found, sorted(expected.items()), about)


def media_headers(body, content_type, disposition):
    return {
        **CORS,
        **MEDIA,
        "content-type": content_type,
        "content-length": str(len(body)),
        "content-disposition": disposition,
        "etag": f'"{hashlib.sha256(body).hexdigest()}"',
    }


def is_verdict(got, clean, about=""):
    """A verdict on the scan routes, with the headers of JSON."""
    same(got.status, 200, f"{about}: {got}")
    verdict = got.json()
    same(sorted(verdict), ["clean", "info"], about)
    same(verdict["clean"], clean, about)
    start = "File clean at 20" if clean else "File not clean. Output: '"
    assert verdict["info"].startswith(start), f"{about}: {verdict}"
    json_headers = {**CORS, "content-type": "application/json", "cache-control": "no-store"}
    has_headers(got, {**json_headers, "content-length": str(len(got.body))}, about)


def is_refused(got, status, reason, about=""):
    """An error of the contract's table: exactly two fields."""
    same((got.status, got.json().get("reason")), (status, reason), f"{about}: {got}")
    same(sorted(got.json()), ["info", "reason"], about)
    same({name: got.header(name) for name in CORS}, CORS, about)


@test
def every_kind_of_file_comes_byte_for_byte_with_its_headers(machine):
    service, token = machine.once(scanner), machine.once(alice).token
    for name, content_type, content, inline, media, _ in machine.once(uploaded):
        direct = from_homeserver(machine, media)
        same(direct.body == content, True, f"the homeserver has {name}")
        disposition = direct.header("content-disposition")
        kind = disposition.split(";")[0]
        same(kind, "inline" if inline else "attachment", name)
        got = service.get(f"/download/{media.path}", token)
        same((got.status, got.body == content), (200, True), f"{name}: {got}")
        expected = media_headers(content, direct.header("content-type"), disposition)
        has_headers(got, expected, name)
        assert expected["content-type"].split(";")[0] == content_type, expected
        # Also where a client names it, and asks in the ways that clients do.
        named = service.get(f"/download/{media.path}/other.bin?allow_redirect=true", token)
        has_headers(named, {**expected, "content-disposition": f'{kind}; filename="other.bin"'}, name)
        same(named.body == content, True, name)
        slash = service.get(f"/download/{media.path}/", token)
        same((slash.status, slash.body == content), (200, True), name)
        head = service.request("HEAD", f"/download/{media.path}", token)
        same((head.status, head.body), (200, b""), name)
        has_headers(head, expected, f"HEAD {name}")
        is_verdict(service.get(f"/scan/{media.path}", token), True, name)
    service.idle()
    return f"{len(FILES)} files"


@test
def what_a_client_has_is_not_sent_again_and_parts_of_it_are(machine):
    service, token = machine.once(scanner), machine.once(alice).token
    for name, _, content, _, media, _ in machine.once(uploaded):
        path, etag = f"/download/{media.path}", f'"{hashlib.sha256(content).hexdigest()}"'
        got = service.get(path, token, {"If-None-Match": etag})
        same((got.status, got.body, got.header("etag")), (304, b"", etag), name)
        got = service.get(path, token, {"If-None-Match": '"another"'})
        same((got.status, got.body == content), (200, True), name)
        size = len(content)
        if size < 2:
            continue
        for asked, first, last in [("0-0", 0, 0), (f"{size // 2}-", size // 2, size - 1), ("-1", size - 1, size - 1)]:
            got = service.get(path, token, {"Range": f"bytes={asked}"})
            same((got.status, got.body == content[first : last + 1]), (206, True), f"{name} {asked}")
            same(got.header("content-range"), f"bytes {first}-{last}/{size}", name)
        got = service.get(path, token, {"Range": f"bytes={size}-"})
        is_refused(got, 416, "M_UNKNOWN", name)
        same(got.header("content-range"), f"bytes */{size}", name)


@test
def every_kind_of_encrypted_file_comes_as_it_was_fetched(machine):
    service = machine.once(scanner)
    token = machine.once(alice).token
    for name, _, content, _, _, media in machine.once(uploaded):
        ciphertext = from_homeserver(machine, media).body
        same(ciphertext == content, not content, name)
        keys = media.file
        opened = decrypt_attachment(ciphertext, keys["key"]["k"], keys["hashes"]["sha256"], keys["iv"])
        same(opened == content, True, name)
        # Real clients send none, or any, type with a body; unused fields are theirs.
        body = {"file": {**keys, "mimetype": "image/png", "size": len(content)}}
        for headers in ({}, {"Content-Type": "text/plain"}):
            got = service.post("/download_encrypted", body, token, headers)
            same((got.status, got.body == ciphertext), (200, True), f"{name}: {got}")
            disposition = got.header("content-disposition")
            assert disposition.split(";")[0] == "attachment", disposition
            has_headers(got, media_headers(ciphertext, "application/octet-stream", disposition), name)
            is_verdict(service.post("/scan_encrypted", body, token, headers), True, name)
    service.idle()


@test
def infected_files_are_refused_by_every_route_and_their_wrapping_is_not(machine):
    service, user = machine.once(scanner), machine.once(alice)
    token, info = user.token, "File not clean. Output: 'Eicar-Test-Signature'"
    plain = user.upload(EICAR, "text/plain", "eicar.txt")
    sealed = user.upload(EICAR, encrypt=True)
    body = {"file": sealed.file}
    for got in (
        service.get(f"/download/{plain.path}", token),
        service.get(f"/download/{plain.path}/cat.png", token),
        service.post("/download_encrypted", body, token),
    ):
        is_refused(got, 403, "MCS_MEDIA_NOT_CLEAN")
        same(got.json()["info"], info)
    head = service.request("HEAD", f"/download/{plain.path}", token)
    same((head.status, head.body), (403, b""), head)
    for got in (service.get(f"/scan/{plain.path}", token), service.post("/scan_encrypted", body, token)):
        is_verdict(got, False)
        same(got.json()["info"], info)
    # Without its key it is noise, and is given as that.
    got = service.get(f"/download/{sealed.path}", token)
    same((got.status, got.body), (200, from_homeserver(machine, sealed).body), got)


@test
def another_key_or_hash_opens_nothing(machine):
    service, user = machine.once(scanner), machine.once(alice)
    media = user.upload(picture("PNG"), encrypt=True)
    ciphertext = from_homeserver(machine, media).body
    # Another key: the hash holds, since it is the ciphertext's, and what comes out is scanned.
    key = {**media.file["key"], "k": user.upload(b"any", encrypt=True).file["key"]["k"]}
    got = service.post("/download_encrypted", {"file": {**media.file, "key": key}}, user.token)
    same((got.status, got.body == ciphertext), (200, True), got)
    other = user.upload(b"any", encrypt=True).file["hashes"]
    for path in ("/download_encrypted", "/scan_encrypted"):
        got = service.post(path, {"file": {**media.file, "hashes": other}}, user.token)
        is_refused(got, 400, "MCS_MEDIA_FAILED_TO_DECRYPT", path)


@test
def thumbnails_are_the_homeservers(machine):
    service, token = machine.once(scanner), machine.once(alice).token
    queries = [
        "?width=96&height=96&method=crop",
        "?width=320&height=240&method=scale",
        "?width=320&height=240",
        "?width=32&height=32&method=crop&animated=true",
        "?width=5000&height=5000&method=scale&timeout_ms=5000",
    ]
    count = 0
    for name, content_type, _, _, media, _ in machine.once(uploaded):
        if content_type not in ("image/png", "image/jpeg", "image/gif", "image/webp"):
            continue
        different = set()
        for query in queries:
            direct = from_homeserver(machine, media, "thumbnail", query)
            same(direct.status, 200, f"{name} {query}: {direct}")
            got = service.get(f"/thumbnail/{media.path}{query}", token)
            same((got.status, got.body == direct.body), (200, True), f"{name} {query}: {got}")
            disposition = got.header("content-disposition")
            expected = media_headers(direct.body, direct.header("content-type"), disposition)
            has_headers(got, expected, f"{name} {query}")
            same(disposition, direct.header("content-disposition"), name)
            different.add(got.body)
            count += 1
        assert len(different) > 1, name
    return f"{count} thumbnails"


@test
def what_the_homeserver_makes_no_thumbnail_of_is_refused_as_it_says(machine):
    service, token = machine.once(scanner), machine.once(alice).token
    for name, content_type, _, _, media, _ in machine.once(uploaded):
        queries = ["", "?width=96", "?width=x&height=96"]
        if content_type in ("text/plain", "application/pdf", "application/zip"):
            queries.append("?width=96&height=96")
        for query in queries:
            direct = from_homeserver(machine, media, "thumbnail", query)
            same(direct.status in (400, 404), True, f"{name} {query}: {direct}")
            got = service.get(f"/thumbnail/{media.path}{query}", token)
            reason = "M_NOT_FOUND" if direct.status == 404 else "M_UNKNOWN"
            is_refused(got, direct.status, reason, f"{name} {query}")


@test
def media_of_another_homeserver_is_fetched_and_scanned_by_ones_own(machine):
    service, token = machine.once(scanner), machine.once(alice).token
    bob = machine.once(homeserver.federated).user("bob")
    picture_there = bob.upload(picture("JPEG", seed=9), "image/jpeg", "weit weg ü.jpg")
    got = service.get(f"/download/{picture_there.path}", token)
    same((got.status, got.body == picture_there.content), (200, True), got)
    direct = from_homeserver(machine, picture_there)
    expected = media_headers(
        picture_there.content, direct.header("content-type"), direct.header("content-disposition")
    )
    has_headers(got, expected, "remote")
    query = "?width=96&height=96&method=crop"
    got = service.get(f"/thumbnail/{picture_there.path}{query}", token)
    direct = from_homeserver(machine, picture_there, "thumbnail", query)
    same((got.status, got.body == direct.body, len(got.body) > 100), (200, True, True), got)
    infected = bob.upload(EICAR, "text/plain")
    is_refused(service.get(f"/download/{infected.path}", token), 403, "MCS_MEDIA_NOT_CLEAN")
    sealed = bob.upload(picture("PNG", seed=10), encrypt=True)
    got = service.post("/download_encrypted", {"file": sealed.file}, token)
    same((got.status, got.body == from_homeserver(machine, sealed).body), (200, True), got)
    gone = sealed.path[:-1] + ("a" if sealed.path[-1] != "a" else "b")
    is_refused(service.get(f"/download/{gone}", token), 404, "M_NOT_FOUND")


@test
def without_a_token_media_comes_by_the_old_routes_where_the_homeserver_has_them(machine):
    old = machine.once(homeserver.unauthenticated)
    user = old.user("carol")
    service = Scanner(machine, old)
    media = user.upload(picture("PNG"), "image/png", "cat.png")
    sealed = user.upload(b"secret", encrypt=True)
    for token in (None, user.token):
        got = service.get(f"/download/{media.path}", token)
        same((got.status, got.body == media.content), (200, True), got)
        got = service.get(f"/thumbnail/{media.path}?width=96&height=96&method=crop", token)
        same((got.status, got.header("content-type")), (200, "image/png"), got)
        got = service.post("/download_encrypted", {"file": sealed.file}, token)
        same((got.status, len(got.body)), (200, 6), got)
    # The other homeserver has none for it there.
    got = machine.once(scanner).get(f"/download/{machine.once(uploaded)[0][4].path}")
    is_refused(got, 404, "M_NOT_FOUND")
