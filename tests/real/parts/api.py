"""The documentation of the HTTP interface against the running service: Schemathesis generates requests from the OpenAPI document, and
no response may be undocumented; the commands of docs/api.md run against Synapse."""

import base64
import http.server
import itertools
import json
import os
import re
import subprocess
import sys
import threading
from importlib.metadata import version

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from harness import homeserver
from harness.http import Client, media_server
from harness.machine import free_port, output_of, wait_until
from harness.run import assert_equal, test
from harness.samples import EICAR, picture, zipped
from harness.scanner import REPOSITORY, Scanner, installed_program
from parts.synapse import alice

NEEDS = ["curl", "openssl", "bash"]

PAGE = REPOSITORY / "docs/api.md"
ADMIN_TOKEN = "0123456789abcdef0123456789abcdef"
# Maximum number of requests for each operation and phase, by tag.
EXAMPLES = {"client": 50, "operations": 10, "admin": 20}
CHECKS = [
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
]


def document():
    return json.loads((REPOSITORY / "docs/openapi.json").read_text())


def example_media():
    """Returns the media that the examples of the document name, by media id: a picture, and the ciphertext of a text."""
    body = document()["components"]["requestBodies"]["EncryptedFile"]
    file = body["content"]["application/json"]["example"]["file"]
    decode = lambda text: base64.urlsafe_b64decode(text.replace("+", "-").replace("/", "_") + "==")
    cipher = Cipher(algorithms.AES(decode(file["key"]["k"])), modes.CTR(decode(file["iv"]))).encryptor()
    ciphertext = cipher.update(b"This file is clean.\n") + cipher.finalize()
    plain = document()["components"]["parameters"]["MediaId"]["example"]
    return {plain: picture("PNG"), file["url"].rpartition("/")[2]: ciphertext}


def answer(status, body, content_type="application/json", **headers):
    body = body if isinstance(body, bytes) else json.dumps({"errcode": body, "error": "Test"}).encode()
    return status, body, {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}


# Answers of the homeserver, which new paths get in turn.
ANSWERS = [
    answer(200, b"A file.\n", "text/plain"),
    answer(200, EICAR, "text/plain"),
    answer(200, zipped(b"A file.\n", "file"), "application/zip"),
    answer(200, b"x" * 2_000_000, "text/plain"),
    answer(401, "M_MISSING_TOKEN"),
    answer(401, "M_UNKNOWN_TOKEN"),
    answer(403, "M_FORBIDDEN"),
    answer(404, "M_NOT_FOUND"),
    answer(418, "M_UNKNOWN"),
    answer(429, "M_LIMIT_EXCEEDED", **{"Retry-After": "7"}),
    answer(500, "M_UNKNOWN"),
    answer(504, "M_NOT_YET_UPLOADED"),
    # Shorter than announced.
    answer(200, b"A file", "text/plain", **{"Content-Length": "100"}),
]


def varied_homeserver(media):
    """Returns a homeserver with these media, and with one of the answers for each other path."""
    turns, answers = itertools.cycle(ANSWERS), {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.rpartition("/")[2].partition("?")[0]
            if name in media:
                answers[self.path] = answer(200, media[name], "image/png")
            elif self.path not in answers:
                answers[self.path] = next(turns)
            status, body, headers = answers[self.path]
            self.send_response(status)
            for header, value in headers.items():
                self.send_header(header, value)
            self.end_headers()
            try:
                self.wfile.write(body)
            except OSError:
                # The service reads only as much as it needs.
                pass

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def wait_until_ready(operations, process):
    """Waits until the service with this port for operators is ready."""

    def is_ready():
        try:
            return Client(f"http://127.0.0.1:{operations}").get("/health/ready").status == 200
        except OSError:
            return False

    wait_until("the service is ready", is_ready, process)


def service(machine):
    """Returns a service with all three listeners, and the addresses of the listeners."""
    server = varied_homeserver(example_media())
    folder = machine.make_folder("admin")
    token = folder / "token"
    token.write_text(ADMIN_TOKEN)
    token.chmod(0o600)
    admin, operations = free_port(), free_port()
    config = {
        "download.base_homeserver_url": f"http://127.0.0.1:{server.server_port}",
        "download.max_size": "1MB",
        "scan.blocked_mimetypes": ["application/zip"],
        "operations.port": operations,
        "admin.enabled": True,
        "admin.host": "127.0.0.1",
        "admin.port": admin,
        "admin.token_path": str(token),
        "audit.path": str(folder / "audit"),
        "store.path": str(machine.make_folder("store", 0o700) / "store.db"),
    }
    scanner = Scanner(machine, None, config)
    wait_until_ready(operations, scanner.process)
    web = scanner.base.removesuffix("/_matrix/media_proxy/unstable")
    return scanner, {"client": web, "operations": f"http://127.0.0.1:{operations}", "admin": f"http://127.0.0.1:{admin}"}


def generate_requests(machine, tag, *options):
    """Sends generated requests to the operations with this tag. Returns the line with the number of requests."""
    url = machine.shared(service)[1][tag]
    folder = machine.make_folder(f"schemathesis-{tag}")
    command = [
        os.path.join(os.path.dirname(sys.executable), "schemathesis"),
        *("run", REPOSITORY / "docs/openapi.json", "--url", url, "--include-tag", tag),
        *("--checks", ",".join(CHECKS), "--phases", "examples,coverage,fuzzing", "--mode", "all"),
        *("--max-examples", str(EXAMPLES[tag]), "--continue-on-failure", "--generation-deterministic", "--no-color", *options),
    ]
    done = subprocess.run(
        [str(word) for word in command], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    machine.record_version("Schemathesis", version("schemathesis"))
    return re.search(r"(\d+) generated", done.stdout).group(0)


@test
def openapi_document_is_valid(machine):
    output_of(sys.executable, "-m", "openapi_spec_validator", "--errors", "all", REPOSITORY / "docs/openapi.json")
    got = Client(machine.shared(service)[1]["operations"]).get("/openapi.json")
    assert_equal((got.status, got.header("Content-Type"), got.json()), (200, "application/json", document()))


@test
def requests_of_clients_get_documented_responses(machine):
    count = generate_requests(machine, "client")
    log = machine.shared(service)[0].log_entries("answered")
    # The requests reach most of the table of errors.
    found = {(line["status"], line.get("reason")) for line in log}
    expected = {
        *((200, None), (206, None), (304, None), (404, None), (405, None)),
        *((400, "M_UNKNOWN"), (400, "MCS_MALFORMED_JSON"), (401, "M_MISSING_TOKEN"), (401, "M_UNKNOWN_TOKEN")),
        *((403, "M_UNKNOWN"), (403, "MCS_MEDIA_NOT_CLEAN"), (403, "MCS_MIME_TYPE_FORBIDDEN"), (404, "M_NOT_FOUND")),
        *((413, "MCS_MEDIA_REQUEST_FAILED"), (418, "M_UNKNOWN"), (429, "M_UNKNOWN")),
        *((502, "MCS_MEDIA_REQUEST_FAILED"), (504, "MCS_MEDIA_REQUEST_FAILED")),
    }
    assert expected <= found, expected - found
    return f"{count}, {len(found)} kinds of responses"


@test
def requests_of_operators_get_documented_responses(machine):
    header = ("--header", f"Authorization: Bearer {ADMIN_TOKEN}")
    return f"{generate_requests(machine, 'operations')}, {generate_requests(machine, 'admin', *header)}"


def blocks(heading, language):
    """Returns the code blocks of a section of the page."""
    section = PAGE.read_text().split(f"\n{heading}\n")[1].split("\n#")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.M | re.S)


@test
def documented_commands_work(machine):
    """The commands with curl, openssl and Python on a clean and an infected file, in front of Synapse."""
    user = machine.shared(alice)
    scanner = Scanner(machine, user.homeserver)
    environment = {
        **{"PATH": os.environ["PATH"], "HOMESERVER": user.homeserver.base},
        **{"SCANNER": scanner.base, "TOKEN": user.token},
    }
    (plain,), (encrypted,) = blocks("### A plain file", "sh"), blocks("### An encrypted file", "sh")
    (sealed,) = blocks("### Encrypted bodies", "python")
    for content, is_clean in ((b"A file.\n", True), (EICAR, False)):
        for commands in (plain, encrypted):
            folder = machine.make_folder("commands")
            (folder / "file").write_bytes(content)

            def run(*command, folder=folder):
                done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=False)
                assert_equal((done.returncode, done.stderr), (0, b""), command)
                return done.stdout

            verdict = json.loads(run("bash", "-ec", commands))
            assert_equal(verdict["clean"], is_clean, commands)
            downloaded = (folder / "downloaded").read_bytes()
            if not is_clean:
                if commands == plain:
                    assert_equal(json.loads(downloaded)["reason"], "MCS_MEDIA_NOT_CLEAN")
                continue
            if commands == plain:
                assert_equal(downloaded, content)
                continue
            assert_equal((folder / "decrypted").read_bytes(), content)
            body = json.loads(run(sys.executable, "-c", sealed))
            assert_equal(list(body), ["encrypted_body"])
            got = scanner.post("/scan_encrypted", body, user.token)
            assert_equal((got.status, got.json()["clean"]), (200, True), got)
    scanner.stop()


@test
def configuration_for_tests_of_other_projects_starts(machine):
    """As docs/api.md states, apart from the ports and the path of the key."""
    media = {"clean": b"A file.\n", "infected": EICAR}
    server = media_server(media)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = machine.make_folder("embedded")
    web, operations = free_port(), free_port()
    variables = {
        "MCS_WEB__PORT": str(web),
        "MCS_OPERATIONS__PORT": str(operations),
        "MCS_DOWNLOAD__BASE_HOMESERVER_URL": f"http://127.0.0.1:{server.server_port}",
        "MCS_CRYPTO__REQUEST_SECRET_PATH": str(folder / "key"),
    }
    command = [machine.shared(installed_program), "-c", REPOSITORY / "config/testing.toml"]
    process = machine.start("embedded", command, folder, variables)
    wait_until_ready(operations, process)
    client = Client(f"http://127.0.0.1:{web}/_matrix/media_proxy/unstable")
    got = client.get("/download/example.org/clean")
    assert_equal((got.status, got.body), (200, media["clean"]), got)
    got = client.get("/scan/example.org/infected")
    assert_equal((got.status, got.json()["clean"]), (200, False), got)
    assert_equal(machine.stop(process), 0)
    server.shutdown()
