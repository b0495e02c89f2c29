"""Debian's Chromium, headless, and a page that is a web client (browser/page.js), on an origin of its own
that is isolated from others: what a client sees that takes its browser's rules as they are."""

import base64
import contextlib
import functools
import http.server
import os
import pathlib
import re
import subprocess
import threading
from importlib.metadata import version

from playwright.sync_api import sync_playwright

from .machine import output_of

SOURCES = pathlib.Path(__file__).resolve().parents[1] / "browser"
LOCK = SOURCES.parent / "package-lock.json"
PACKAGES = pathlib.Path(os.environ["NODE_PATH"])
# No sandbox of its own where the suite is root; no word to anybody but whom the page names.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
]


def pages(machine):
    """The folder that the page is served from."""
    folder = machine.make_folder("pages")
    (folder / "index.html").write_text('<!doctype html><meta charset="utf-8"><script src="page.js"></script>')
    (folder / "worker.js").write_bytes((SOURCES / "worker.js").read_bytes())
    subprocess.run(
        [
            PACKAGES / ".bin/esbuild",
            SOURCES / "page.js",
            "--bundle",
            "--define:global=globalThis",
            "--log-level=error",
            f"--outfile={folder / 'page.js'}",
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    found = re.search(r'"node_modules/matrix-js-sdk": \{\s*"version": "([^"]+)"', LOCK.read_text())
    machine.ran("matrix-js-sdk", found[1])
    machine.ran("Chromium", output_of("chromium", "--version").split()[1])
    machine.ran("Playwright", version("playwright"))
    return folder



class Pages(http.server.SimpleHTTPRequestHandler):
    """Files, in an isolated origin: what it embeds of others has to allow that (CORP)."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def browsing(machine):
    """A fresh browser, and the client's page in it."""
    folder = machine.once(pages)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Pages, directory=folder)
    )
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            try:
                page = browser.new_context().new_page()
                # Another site than the scanner's, which is named by its address.
                page.goto(f"http://localhost:{server.server_port}/")
                yield page
            finally:
                browser.close()
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


class Web:
    """The client on the page, logged in: its functions by their names in page.js."""

    def __init__(self, page, user, scanner):
        self.page = page
        base = scanner.base.partition("/_matrix")[0]
        self.logIn(user.homeserver.base, user.name, "a password", base)

    def __getattr__(self, name):
        # Its arguments are JSON.
        return lambda *arguments: self.page.evaluate(f"given => web.{name}(...given)", list(arguments))


def encode(content):
    return base64.b64encode(content).decode()


def decode(text):
    return base64.b64decode(text)
