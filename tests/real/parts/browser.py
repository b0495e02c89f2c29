"""Security rules and cache of a browser: preflights, access of scripts to responses, pictures and videos on an isolated
page, revalidation, and that served files do not execute."""

import hashlib

from harness import homeserver
from harness.browser import WebClient, open_page, decode, encode
from harness.run import assert_equal, test
from harness.samples import EICAR, picture, video
from harness.scanner import PREFIX, Scanner

NEEDS = ["chromium", "node"]

SIZE = (640, 480)


def scanner(machine):
    """A service in front of the homeserver with authenticated media. It authorises each request."""
    settings = {"download.authorisation_ttl": "0s"}
    return Scanner(machine, machine.shared(homeserver.authenticated), settings)


def open_scanner(machine):
    """A service in front of the homeserver that requires no token, for page elements, which send none."""
    return Scanner(machine, machine.shared(homeserver.unauthenticated))


def web_client(machine, page, service=scanner, server=homeserver.authenticated):
    return WebClient(page, machine.shared(server).user("web"), machine.shared(service))


def log_lines(service, media, **expected):
    """Yields the log entries of responses for a file with these fields in the entry or its span."""
    for line in service.log_entries("answered"):
        fields = {**line, **line.get("span", {})}
        if fields.get("media") == media and expected.items() <= fields.items():
            yield fields


@test
def script_request_with_token_follows_preflight(machine):
    with open_page(machine) as page:
        web, service = web_client(machine, page), machine.shared(scanner)
        mxc = web.upload(encode(picture("PNG")), "image/png", "ü “cat”.png")
        before = len([1 for line in service.log_entries("answered") if line["span"]["method"] == "OPTIONS"])
        got = web.fetch(mxc, "scan")
        assert_equal((got["status"], got["json"]["clean"]), (200, True), got)
        got = web.fetch(mxc, "download")
        assert_equal((got["status"], decode(got["body"]) == picture("PNG")), (200, True), got["headers"])
        # Headers that a script of another origin may read.
        assert_equal(got["headers"]["etag"], f'"{hashlib.sha256(picture("PNG")).hexdigest()}"')
        assert "%C3%BC" in got["headers"]["content-disposition"], got["headers"]
        preflights = [line for line in service.log_entries("answered") if line["span"]["method"] == "OPTIONS"]
        assert len(preflights) > before, "the browser sent no preflight"
        assert_equal({line["status"] for line in preflights}, {200})


@test
def page_decrypts_its_encrypted_attachment(machine):
    with open_page(machine) as page:
        web = web_client(machine, page)
        file = web.uploadEncrypted(encode(picture("JPEG", seed=1)))
        got = web.post("download_encrypted", {"file": file})
        assert_equal(got["status"], 200, got)
        assert_equal(decode(web.decrypt(got["body"], file)), picture("JPEG", seed=1))
        assert_equal(web.post("scan_encrypted", {"file": file})["json"]["clean"], True)
        file = web.uploadEncrypted(encode(EICAR))
        assert_equal(web.post("scan_encrypted", {"file": file})["json"]["clean"], False)


@test
def script_can_read_error_responses(machine):
    with open_page(machine) as page:
        web = web_client(machine, page)
        infected = web.upload(encode(EICAR), "text/plain", "e.txt")
        none = infected.rsplit("/", 1)[0] + "/nothing"
        for got, status, reason in [
            (web.fetch(infected, "download"), 403, "MCS_MEDIA_NOT_CLEAN"),
            (web.fetch(none, "download"), 404, "M_NOT_FOUND"),
            (web.post("scan_encrypted", []), 400, "MCS_MALFORMED_JSON"),
            (web.post("scan_encrypted", {"encrypted_body": {}}), 403, "MCS_BAD_DECRYPTION"),
            (web.fetch(infected, "scan", {"headers": {"Authorization": "Bearer no"}}), 401, "M_UNKNOWN_TOKEN"),
        ]:
            assert_equal((got["status"], got["json"] and got["json"]["reason"]), (status, reason), got)
            assert_equal(sorted(got["json"]), ["info", "reason"])
        unknown = web.request(f"{PREFIX}/elsewhere")
        assert_equal((unknown["status"], unknown["json"]["errcode"]), (404, "M_UNRECOGNIZED"))
        method = web.request(f"{PREFIX}/public_key", {"method": "POST", "body": "{}"})
        assert_equal((method["status"], method["json"]["errcode"]), (405, "M_UNRECOGNIZED"))


@test
def script_can_read_retry_after(machine):
    # With this script the canary fails, so the service refuses to scan.
    service = Scanner(machine, machine.shared(homeserver.authenticated), script="exit 0")
    with open_page(machine) as page:
        web = WebClient(page, machine.shared(homeserver.authenticated).user("web"), service)
        got = web.fetch(web.upload(encode(b"text"), "text/plain", "t.txt"), "download")
        assert_equal((got["status"], got["json"]["reason"]), (503, "M_UNKNOWN"), got)
        assert int(got["headers"]["retry-after"]) > 0, got
    service.stop()


@test
def isolated_page_shows_pictures_through_service_worker(machine):
    with open_page(machine) as page:
        web = web_client(machine, page)
        assert page.evaluate("crossOriginIsolated"), "the page is not isolated"
        clean = web.upload(encode(picture("PNG", SIZE, seed=2)), "image/png", "cat.png")
        infected = web.upload(encode(EICAR), "image/png", "cat.png")
        assert_equal(web.image(web.address(clean)), None, "without a token")
        web.useWorker()
        assert_equal(web.image(web.address(clean)), list(SIZE))
        thumbnail = f"{web.address(clean, 'thumbnail')}&width=96&height=96&method=crop"
        assert_equal(web.image(thumbnail), [96, 96])
        assert_equal(web.image(web.address(infected)), None, "infected picture")


@test
def isolated_page_shows_pictures_without_token(machine):
    with open_page(machine) as page:
        web = web_client(machine, page, open_scanner, homeserver.unauthenticated)
        assert page.evaluate("crossOriginIsolated"), "the page is not isolated"
        mxc = web.upload(encode(picture("WEBP", SIZE, seed=3)), "image/webp", "cat.webp")
        assert_equal(web.image(web.address(mxc)), list(SIZE))
        infected = web.upload(encode(EICAR), "image/png", "cat.png")
        assert_equal(web.image(web.address(infected)), None, "infected picture")


@test
def video_seeks_with_range_requests(machine):
    colours, length = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)], 5
    film = video(colours, length)
    seconds = [17, 2, 12, 7]
    with open_page(machine) as page:
        web, service = web_client(machine, page), machine.shared(scanner)
        mxc = web.upload(encode(film), "video/webm", "film.webm")
        web.useWorker()
        played = web.video(web.address(mxc), seconds)
        assert_equal(round(played["duration"]), len(colours) * length)
        for second, actual in zip(seconds, played["colours"]):
            expected = colours[second // length]
            near = all(abs(a - b) < 60 for a, b in zip(actual, expected))
            assert near, f"at {second} s: {actual}, expected about {expected}"
        ranges = list(log_lines(service, mxc, status=206))
        assert len(ranges) > 1, f"{len(ranges)} ranges of {len(film)} bytes"
        return f"{len(film)} bytes, {len(ranges)} range responses"


@test
def browser_cache_is_revalidated(machine):
    with open_page(machine) as page:
        web, service = web_client(machine, page), machine.shared(scanner)
        content = picture("GIF", seed=4)
        mxc = web.upload(encode(content), "image/gif", "cat.gif")
        revalidate = {"cache": "no-cache"}
        for _ in range(2):
            got = web.fetch(mxc, "download", revalidate)
            assert_equal((got["status"], decode(got["body"]) == content), (200, True), got["headers"])
        assert_equal(len(list(log_lines(service, mxc, status=304))), 1)
        # Quarantined media is refused also if the browser has it cached.
        machine.shared(homeserver.authenticated).quarantine(homeserver.Media(mxc, content, None))
        assert_equal(web.fetch(mxc, "download", revalidate)["status"], 404)


@test
def served_files_do_not_execute(machine):
    script = "<script>document.title = 'run'</script>"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{script}</svg>'
    with open_page(machine) as page:
        web = web_client(machine, page, open_scanner, homeserver.unauthenticated)
        for content, kind, name in [(f"<html>{script}", "text/html", "p.html"), (svg, "image/svg+xml", "p.svg")]:
            address = web.address(web.upload(encode(content.encode()), kind, name))
            tab = page.context.new_page()
            # Opened in a tab, it is downloaded and not rendered.
            with tab.expect_download() as download:
                try:
                    tab.goto(address)
                except Exception as error:
                    assert "Download is starting" in str(error), error
            assert_equal(download.value.suggested_filename, name)
            assert_equal(tab.title(), "")
            tab.close()
