"""Debian's headless Chromium with a page that is a web client (browser/page.js), on its own, cross-origin isolated
origin. The security rules of the browser apply unchanged."""

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
# Chromium has no sandbox for root. Requests in the background are disabled.
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


def build_pages(machine):
    """Builds the page; returns the folder from which it is served."""
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
    machine.record_version("matrix-js-sdk", found[1])
    machine.record_version("Chromium", output_of("chromium", "--version").split()[1])
    machine.record_version("Playwright", version("playwright"))
    return folder


class PageHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files of a cross-origin isolated page: embedded resources of other origins need a CORP header."""

    def end_headers(self):
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def open_page(machine):
    """Starts a browser and opens the page of the client."""
    folder = machine.shared(build_pages)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(PageHandler, directory=folder)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
            try:
                page = browser.new_context().new_page()
                # "localhost" is not the same site as the scanner, which is addressed as 127.0.0.1.
                page.goto(f"http://localhost:{server.server_port}/")
                yield page
            finally:
                browser.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class WebClient:
    """The logged-in client on the page. Calls the functions of page.js by name."""

    def __init__(self, page, user, scanner):
        self.page = page
        base = scanner.base.partition("/_matrix")[0]
        self.logIn(user.homeserver.base, user.name, "a password", base)

    def __getattr__(self, name):
        # Arguments are passed as JSON.
        return lambda *arguments: self.page.evaluate(f"arguments_ => web.{name}(...arguments_)", list(arguments))


def encode(content):
    return base64.b64encode(content).decode()


def decode(text):
    return base64.b64decode(text)
