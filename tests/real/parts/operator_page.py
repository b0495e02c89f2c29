"""The operator page in Chromium: use by keyboard alone, hostile texts, pages of other origins, and screenshots.

With the variable SCREENSHOTS, the screenshots for docs/ are written to that folder, after SCREENSHOT_MINUTES of requests."""

import contextlib
import hashlib
import http.server
import json
import os
import pathlib
import shutil
import threading
import time
from types import SimpleNamespace

from playwright.sync_api import sync_playwright

from harness.browser import FLAGS
from harness.http import media_server
from harness.machine import output_of, wait_until
from harness.run import assert_equal, test
from harness.scanner import Scanner

NEEDS = ["chromium"]

TOKEN = "0123456789abcdef0123456789abcdef"

# Ends an element and an attribute, runs a script, reverses the text.
HOSTILE = "</td><script>document.title='run'</script>\"'><img src=x onerror=\"document.title='run'\">\u202egpj.exe"

SCRIPT = f"""#!/bin/sh
if grep -q EICAR "$1"; then echo 'Win.Test.EICAR_HDB-1 FOUND'; exit 1; fi
if grep -q hostile "$1"; then cat <<'END'
{HOSTILE}
END
exit 1; fi
"""

MEDIA = {
    "positive": b"EICAR in a newsletter",
    "hostile": b"a hostile file",
    **{f"photo{number}": f"photo {number}".encode() for number in range(8)},
}


def digest(media):
    return hashlib.sha256(MEDIA[media]).hexdigest()


class OperatorFixture:
    """A service with the listener of operators, and verdicts on media."""

    def __init__(self, machine, media=MEDIA):
        self.media = dict(media)
        self.server = media_server(self.media)
        # Ends with the suite.
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        port = self.server.server_port
        homeserver = SimpleNamespace(base=f"http://127.0.0.1:{port}", client=SimpleNamespace(port=port))
        folder = machine.make_folder("operator", 0o700)
        token = folder / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        self.audit = folder / "audit.jsonl"
        config = {
            "admin.enabled": True,
            "admin.host": "127.0.0.1",
            "admin.port": 0,
            "admin.token_path": str(token),
            "audit.path": str(self.audit),
            "store.path": str(folder / "store.db"),
            "store.kind": "file",
        }
        self.scanner = Scanner(machine, homeserver, config, script=SCRIPT, canary="off")
        listening = wait_until(
            "the listener of operators",
            lambda: self.scanner.log_entries("listening for operators' changes ([admin])"),
            self.scanner.process,
        )
        self.base = f"http://{listening[0]['address']}"
        self.scan_all()

    def scan_all(self):
        for media in self.media:
            self.scan(media)

    def scan(self, media, token="token"):
        return self.scanner.get(f"/scan/hs.example/{media}", token=token)

    def make_requests(self, minutes):
        """Requests media by several users, for plots with some content."""
        end, number = time.monotonic() + 60 * minutes, 0
        while time.monotonic() < end:
            number += 1
            name = f"{hashlib.sha256(str(number).encode()).hexdigest()[:18]}"
            self.media[name] = b"EICAR" if number % 23 == 0 else name.encode()
            for _ in range(1 + number % 3):
                self.scan(name, f"token{number % 5}")
            time.sleep(0.5 + number % 40 / 20)

    def changes(self):
        lines = map(json.loads, self.audit.read_text().splitlines())
        return [line for line in lines if "change" in line]


class BrowserTab:
    """A tab of a new browser, with what the browser reports."""

    def __init__(self, context):
        self.page = context.new_page()
        self.reports = []
        self.page.on("console", lambda message: self.reports.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.reports.append(str(error)))

    def press_until(self, what, key="Tab", limit=80):
        """Moves the focus until the focused element has this id or this text."""
        focused = "e => { const a = document.activeElement; return a.id || a.innerText || a.value }"
        for _ in range(limit):
            if self.page.evaluate(focused).strip() == what:
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"{what!r} cannot be reached by keyboard: {self.page.content()}")

    def press(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)

    def submit(self):
        """Presses Enter, and waits for the next page."""
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")

    def type_in(self, field, text):
        """Types into the field that the page gives the focus to, which happens some time after it is loaded."""
        self.page.wait_for_selector(f"#{field}:focus")
        self.page.keyboard.type(text)
        assert_equal(self.page.input_value(f"#{field}"), text)

    def heading(self):
        return self.page.locator("h1").inner_text()

    def sign_in(self, base):
        """By keyboard: the field for the token has the focus."""
        self.page.goto(base)
        assert_equal(self.page.url, f"{base}/sign-in")
        self.type_in("token", TOKEN)
        self.submit()
        assert_equal((self.page.url, self.heading()), (f"{base}/", "Overview"))


@contextlib.contextmanager
def open_tab(machine, scripts=True):
    """Starts a browser. Its locale and time zone do not matter: times are UTC."""
    machine.record_version("Chromium", output_of("chromium", "--version").split()[1])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        try:
            context = browser.new_context(java_script_enabled=scripts, viewport={"width": 1280, "height": 900})
            yield BrowserTab(context)
        finally:
            browser.close()


@contextlib.contextmanager
def other_page(html):
    """Serves a page of another origin at `localhost`, which is not the same site as 127.0.0.1, and at 127.0.0.1 with
    another port, which is. Yields the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@test
def operator_reverts_a_false_positive_by_keyboard_alone(machine):
    operator = machine.shared(OperatorFixture)
    assert_equal(operator.scan("positive").json()["clean"], False)
    with open_tab(machine) as tab:
        tab.sign_in(operator.base)
        # The look-up box.
        tab.press_until("subject")
        tab.page.keyboard.type(digest("positive"))
        tab.submit()
        assert_equal(tab.heading(), "Look up")
        assert "Win.Test.EICAR_HDB-1 FOUND" in tab.page.inner_text("main")
        tab.press_until("Allow…")
        tab.submit()
        assert_equal(tab.heading(), "Allow this file?")
        # The field for the reason has the focus.
        tab.type_in("comment", "false positive of a newsletter")
        tab.press_until("days")
        tab.press("ArrowDown")
        tab.press_until("Allow")
        tab.submit()
        assert_equal(tab.page.inner_text("[role=status]"), "The file is allowed.")
        assert_equal(operator.scan("positive").json()["clean"], True)
        change = operator.changes()[-1]
        assert_equal(
            (change["change"], change["state"], change["access"], change["peer"], change["comment"]),
            ("allow", "done", "session", "127.0.0.1", "false positive of a newsletter"),
        )
        # The filter of the verdicts, and forgetting from the list.
        tab.press_until("Latest verdicts")
        tab.submit()
        tab.press_until("text")
        tab.page.keyboard.type("EICAR")
        tab.submit()
        rows = tab.page.locator("table.scans tbody tr")
        # From the scan, and from memory.
        assert_equal(rows.count(), 2)
        tab.press_until("Forget…")
        tab.submit()
        assert_equal(tab.heading(), "Forget the verdicts?")
        tab.submit()
        assert_equal(operator.changes()[-1]["change"], "forget")
        tab.press_until("Withdraw decision…")
        tab.submit()
        tab.type_in("comment", "the signature is corrected")
        tab.submit()
        assert_equal(operator.scan("positive").json()["clean"], False)
        tab.press_until("Sign out")
        tab.submit()
        assert_equal(tab.page.url, f"{operator.base}/sign-in")
        tab.page.goto(operator.base)
        assert_equal(tab.page.url, f"{operator.base}/sign-in")
        assert_equal(tab.reports, [])


@test
def page_works_without_scripts(machine):
    operator = machine.shared(OperatorFixture)
    with open_tab(machine, scripts=False) as tab:
        tab.page.goto(operator.base)
        tab.page.fill("#token", TOKEN)
        tab.page.click("main button")
        assert_equal(tab.heading(), "Overview")
        row = tab.page.locator("table.scans tr", has_text="photo1").first
        row.get_by_role("button", name="Forget").click()
        tab.page.click("button.confirm")
        assert "forgotten" in tab.page.inner_text("[role=status]")


@test
def state_and_plots_are_refreshed_and_break_no_rule(machine):
    operator = machine.shared(OperatorFixture)
    with open_tab(machine) as tab:
        tab.sign_in(operator.base)
        plots = tab.page.locator("img.plot")
        sizes = plots.evaluate_all("images => images.map(image => image.complete && image.naturalWidth)")
        assert_equal(sizes, [480, 480, 480])
        tab.page.evaluate("document.querySelector('#state dl').textContent = 'old'")
        tab.page.evaluate("refresh()")
        tab.page.wait_for_function("document.querySelector('#state dl').innerText.includes('Busy workers')")
        cookies = tab.page.context.cookies()
        assert_equal(
            [(cookie["name"], cookie["httpOnly"], cookie["sameSite"], cookie["path"]) for cookie in cookies],
            [("mcs_session", True, "Strict", "/")],
        )
        assert_equal(tab.page.evaluate("document.cookie"), "", "scripts cannot read the cookie")
        # After the end of the session, the script shows the form.
        tab.page.context.clear_cookies()
        with tab.page.expect_navigation():
            tab.page.evaluate("refresh()")
        assert_equal(tab.page.url, f"{operator.base}/sign-in")
        assert_equal(tab.reports, [])


@test
def hostile_texts_are_shown_as_text(machine):
    operator = machine.shared(OperatorFixture)
    shown = HOSTILE.replace("\u202e", " ")
    with open_tab(machine) as tab:
        tab.sign_in(operator.base)
        for path in ("/", "/verdicts?text=document.title", f"/lookup?subject={digest('hostile')}"):
            tab.page.goto(operator.base + path)
            assert shown in tab.page.inner_text("main"), tab.page.inner_text("main")
            assert "run" not in tab.page.title()
            assert_equal(tab.page.locator("main script, main img:not(.plot)").count(), 0, path)
        # A comment keeps the character, which is shown as an escape.
        tab.page.goto(f"{operator.base}/confirm?action=block&subject={digest('hostile')}")
        tab.page.fill("#comment", HOSTILE)
        tab.page.click("button.confirm")
        assert HOSTILE.replace("\u202e", "\\u{202e}") in tab.page.inner_text("main")
        tab.page.goto(f"{operator.base}/verdicts")
        tab.page.fill("#text", HOSTILE[:49])
        tab.page.press("#text", "Enter")
        assert_equal(tab.page.input_value("#text"), HOSTILE[:49])
        links = tab.page.locator("a[href*='mxc'], a[href*='hs.example']")
        assert_equal(links.count(), 0, "no media URI becomes a link")
        assert "run" not in tab.page.title()
        assert_equal(tab.reports, [])


@test
def pages_of_other_origins_change_and_show_nothing(machine):
    operator = machine.shared(OperatorFixture)
    with open_tab(machine) as tab:
        tab.sign_in(operator.base)
        before = len(operator.changes())
        csrf = tab.page.get_attribute("input[name=csrf]", "value")
        fields = {"csrf": csrf, "action": "allow", "subject": digest("positive"), "comment": "x", "days": "30"}
        inputs = "".join(f'<input name="{name}" value="{value}">' for name, value in fields.items())
        form = f'<form method="post" action="{operator.base}/change">{inputs}</form>'
        with other_page(form) as port:
            # Even with the secret of the session. The second page is of the same site, so it has the cookie.
            for host in ("localhost", "127.0.0.1"):
                tab.page.goto(f"http://{host}:{port}/")
                with tab.page.expect_response(f"{operator.base}/change") as response:
                    tab.page.evaluate("document.forms[0].submit()")
                assert_equal(response.value.status, 403, host)
                tab.page.wait_for_load_state()
                assert "another origin" in tab.page.inner_text("main")
            # Scripts of the other page.
            tab.page.goto(f"http://127.0.0.1:{port}/")
            read = f"fetch('{operator.base}/', {{credentials: 'include'}}).then(r => r.text()).catch(() => 'blocked')"
            assert_equal(tab.page.evaluate(read), "blocked")
        with other_page(f'<iframe src="{operator.base}/"></iframe>') as port:
            tab.page.goto(f"http://127.0.0.1:{port}/")
            (frame,) = tab.page.main_frame.child_frames
            address = lambda: frame.evaluate("location.href")
            wait_until("the frame is refused", lambda: address().startswith("chrome-error:"))
            assert any("frame-ancestors" in report for report in tab.reports), tab.reports
        assert_equal(len(operator.changes()), before)
        # The session is not affected.
        tab.page.goto(operator.base)
        assert_equal(tab.heading(), "Overview")


@test
def rebound_name_shows_nothing(machine):
    operator = machine.shared(OperatorFixture)
    with sync_playwright() as playwright:
        rules = "--host-resolver-rules=MAP attacker.example 127.0.0.1"
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=[*FLAGS, rules])
        try:
            page = browser.new_page()
            port = operator.base.rpartition(":")[2]
            response = page.goto(f"http://attacker.example:{port}/sign-in")
            assert_equal(response.status, 421)
            assert_equal(page.locator("#token").count(), 0)
        finally:
            browser.close()


@test
def screenshots_show_the_page(machine):
    operator = OperatorFixture(machine, {name: MEDIA[name] for name in MEDIA if name != "hostile"})
    operator.make_requests(float(os.environ.get("SCREENSHOT_MINUTES", "0")))
    operator.scan("positive")
    with open_tab(machine) as tab:
        tab.sign_in(operator.base)
        folder = machine.make_folder("screenshots")
        tab.page.screenshot(path=folder / "operator-overview.png", full_page=True)
        tab.page.goto(f"{operator.base}/confirm?action=allow&subject={digest('positive')}")
        tab.page.fill("#comment", "false positive of a newsletter")
        tab.page.screenshot(path=folder / "operator-confirm.png")
        for picture in folder.iterdir():
            assert 5_000 < picture.stat().st_size < 400_000, picture
            if target := os.environ.get("SCREENSHOTS"):
                shutil.copy(picture, pathlib.Path(target))
    operator.scanner.stop()
