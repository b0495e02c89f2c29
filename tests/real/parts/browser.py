"""A browser's own rules: preflights, what a script may read, pictures and videos on an isolated page,
its cache, and that nothing it is given runs."""

import hashlib

from harness import homeserver
from harness.browser import Web, browsing, decode, encode
from harness.run import same, test
from harness.samples import EICAR, picture, video
from harness.scanner import PREFIX, Scanner

NEEDS = ["chromium", "node"]

SIZE = (640, 480)


def scanner(machine):
    """In front of the homeserver with authenticated media; it asks about each request anew."""
    settings = {"download.authorisation_ttl": "0s"}
    return Scanner(machine, machine.once(homeserver.authenticated), settings)


def open_scanner(machine):
    """In front of the homeserver that gives media to everybody, as elements without a token need it."""
    return Scanner(machine, machine.once(homeserver.unauthenticated))


def logged_in(machine, page, service=scanner, place=homeserver.authenticated):
    return Web(page, machine.once(place).user("web"), machine.once(service))


def answers(service, media, **expected):
    """The lines of the log about a media, with these fields in line or span."""
    for line in service.logged("answered"):
        fields = {**line, **line.get("span", {})}
        if fields.get("media") == media and expected.items() <= fields.items():
            yield fields


@test
def a_script_asks_with_a_token_after_a_preflight(machine):
    with browsing(machine) as page:
        web, service = logged_in(machine, page), machine.once(scanner)
        mxc = web.upload(encode(picture("PNG")), "image/png", "ü “cat”.png")
        before = len([1 for line in service.logged("answered") if line["span"]["method"] == "OPTIONS"])
        got = web.fetch(mxc, "scan")
        same((got["status"], got["json"]["clean"]), (200, True), got)
        got = web.fetch(mxc, "download")
        same((got["status"], decode(got["body"]) == picture("PNG")), (200, True), got["headers"])
        # What a script of another origin is let read.
        same(got["headers"]["etag"], f'"{hashlib.sha256(picture("PNG")).hexdigest()}"')
        assert "%C3%BC" in got["headers"]["content-disposition"], got["headers"]
        preflights = [line for line in service.logged("answered") if line["span"]["method"] == "OPTIONS"]
        assert len(preflights) > before, "the browser asked for no leave"
        same({line["status"] for line in preflights}, {200})


@test
def an_attachment_that_the_page_encrypted_comes_back_and_opens(machine):
    with browsing(machine) as page:
        web = logged_in(machine, page)
        file = web.uploadEncrypted(encode(picture("JPEG", seed=1)))
        got = web.post("download_encrypted", {"file": file})
        same(got["status"], 200, got)
        same(decode(web.decrypt(got["body"], file)), picture("JPEG", seed=1))
        same(web.post("scan_encrypted", {"file": file})["json"]["clean"], True)
        file = web.uploadEncrypted(encode(EICAR))
        same(web.post("scan_encrypted", {"file": file})["json"]["clean"], False)


@test
def refusals_can_be_read_by_a_script(machine):
    with browsing(machine) as page:
        web = logged_in(machine, page)
        infected = web.upload(encode(EICAR), "text/plain", "e.txt")
        none = infected.rsplit("/", 1)[0] + "/nothing"
        for got, status, reason in [
            (web.fetch(infected, "download"), 403, "MCS_MEDIA_NOT_CLEAN"),
            (web.fetch(none, "download"), 404, "M_NOT_FOUND"),
            (web.post("scan_encrypted", []), 400, "MCS_MALFORMED_JSON"),
            (web.post("scan_encrypted", {"encrypted_body": {}}), 403, "MCS_BAD_DECRYPTION"),
            (web.fetch(infected, "scan", {"headers": {"Authorization": "Bearer no"}}), 401, "M_UNKNOWN_TOKEN"),
        ]:
            same((got["status"], got["json"] and got["json"]["reason"]), (status, reason), got)
            same(sorted(got["json"]), ["info", "reason"])
        unknown = web.request(f"{PREFIX}/elsewhere")
        same((unknown["status"], unknown["json"]["errcode"]), (404, "M_UNRECOGNIZED"))
        method = web.request(f"{PREFIX}/public_key", {"method": "POST", "body": "{}"})
        same((method["status"], method["json"]["errcode"]), (405, "M_UNRECOGNIZED"))


@test
def a_script_reads_when_to_ask_again(machine):
    # What proves nothing to the canary keeps the service from scanning.
    service = Scanner(machine, machine.once(homeserver.authenticated), script="exit 0")
    with browsing(machine) as page:
        web = Web(page, machine.once(homeserver.authenticated).user("web"), service)
        got = web.fetch(web.upload(encode(b"text"), "text/plain", "t.txt"), "download")
        same((got["status"], got["json"]["reason"]), (503, "M_UNKNOWN"), got)
        assert int(got["headers"]["retry-after"]) > 0, got
    service.stop()


@test
def pictures_are_shown_on_an_isolated_page_through_a_worker_with_a_token(machine):
    with browsing(machine) as page:
        web = logged_in(machine, page)
        assert page.evaluate("crossOriginIsolated"), "the page is not isolated"
        clean = web.upload(encode(picture("PNG", SIZE, seed=2)), "image/png", "cat.png")
        infected = web.upload(encode(EICAR), "image/png", "cat.png")
        same(web.image(web.address(clean)), None, "without a token")
        web.useWorker()
        same(web.image(web.address(clean)), list(SIZE))
        thumbnail = f"{web.address(clean, 'thumbnail')}&width=96&height=96&method=crop"
        same(web.image(thumbnail), [96, 96])
        same(web.image(web.address(infected)), None, "an infected one")


@test
def pictures_are_shown_on_an_isolated_page_as_they_are(machine):
    with browsing(machine) as page:
        web = logged_in(machine, page, open_scanner, homeserver.unauthenticated)
        assert page.evaluate("crossOriginIsolated"), "the page is not isolated"
        mxc = web.upload(encode(picture("WEBP", SIZE, seed=3)), "image/webp", "cat.webp")
        same(web.image(web.address(mxc)), list(SIZE))
        infected = web.upload(encode(EICAR), "image/png", "cat.png")
        same(web.image(web.address(infected)), None, "an infected one")


@test
def a_video_seeks_by_ranges(machine):
    colours, length = [(200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40)], 5
    film = video(colours, length)
    seconds = [17, 2, 12, 7]
    with browsing(machine) as page:
        web, service = logged_in(machine, page), machine.once(scanner)
        mxc = web.upload(encode(film), "video/webm", "film.webm")
        web.useWorker()
        played = web.video(web.address(mxc), seconds)
        same(round(played["duration"]), len(colours) * length)
        for second, seen in zip(seconds, played["colours"]):
            expected = colours[second // length]
            near = all(abs(a - b) < 60 for a, b in zip(seen, expected))
            assert near, f"at {second} s: {seen}, expected about {expected}"
        ranges = list(answers(service, mxc, status=206))
        assert len(ranges) > 1, f"{len(ranges)} ranges of {len(film)} bytes"
        return f"{len(film)} bytes, {len(ranges)} answers with a range"


@test
def what_the_browser_has_is_asked_about_and_not_sent_again(machine):
    with browsing(machine) as page:
        web, service = logged_in(machine, page), machine.once(scanner)
        content = picture("GIF", seed=4)
        mxc = web.upload(encode(content), "image/gif", "cat.gif")
        again = {"cache": "no-cache"}
        for _ in range(2):
            got = web.fetch(mxc, "download", again)
            same((got["status"], decode(got["body"]) == content), (200, True), got["headers"])
        same(len(list(answers(service, mxc, status=304))), 1)
        # What is gone at the homeserver is gone for the browser that has it, too.
        machine.once(homeserver.authenticated).quarantine(homeserver.Media(mxc, content, None))
        same(web.fetch(mxc, "download", again)["status"], 404)


@test
def nothing_that_is_given_out_runs(machine):
    script = "<script>document.title = 'run'</script>"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{script}</svg>'
    with browsing(machine) as page:
        web = logged_in(machine, page, open_scanner, homeserver.unauthenticated)
        for content, kind, name in [(f"<html>{script}", "text/html", "p.html"), (svg, "image/svg+xml", "p.svg")]:
            address = web.address(web.upload(encode(content.encode()), kind, name))
            tab = page.context.new_page()
            # Opened by a person, it is a file to keep and no page.
            with tab.expect_download() as kept:
                try:
                    tab.goto(address)
                except Exception as error:
                    assert "Download is starting" in str(error), error
            same(kept.value.suggested_filename, name)
            same(tab.title(), "")
            tab.close()
