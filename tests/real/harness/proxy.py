"""The reverse proxies of docs/proxies, started with the documented files; only addresses, file names and the public
port are replaced. Recorder is a server behind a proxy that records requests."""

import collections
import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import threading

from .homeserver import write_certificate
from .http import Client
from .machine import free_port, output_of, wait_until
from .scanner import REPOSITORY

PROXY_DOCS = REPOSITORY / "docs/proxies"
NAME = "matrix.example.org"
# Source address of test clients; not the address of a trusted proxy.
CLIENT = "127.0.0.2"


class Proxy:
    """A running proxy in front of a scanner and a homeserver on these ports."""

    def __init__(self, machine, scanner, homeserver):
        self.folder, self.port = machine.make_folder(self.kind, 0o777), free_port()
        write_certificate(self.folder)
        self.certificate, self.key = self.folder / "certificate.pem", self.folder / "key.pem"
        text = (PROXY_DOCS / self.file).read_text()
        for documented, actual in (
            ("127.0.0.1:8080", f"127.0.0.1:{scanner}"),
            ("127.0.0.1:8008", f"127.0.0.1:{homeserver}"),
            *self.substitutions(),
        ):
            assert text.count(documented) == 1, f"{self.file} contains {documented} {text.count(documented)} times"
            text = text.replace(documented, actual)
        path = self.folder / self.file
        path.write_text(self.full_config(text))
        self.process = machine.start(self.kind, self.command(path), self.folder, {"HOME": str(self.folder)})
        wait_until(f"{self.kind} listens", self.is_listening, self.process)
        machine.record_version(self.kind, re.search(r"\d+(\.\d+)+\S*", output_of(*self.version_command))[0])
        self.client = TlsClient(self.port)

    def is_listening(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def full_config(self, text):
        """Returns the documented text within the default configuration of the distribution."""
        return text


class Nginx(Proxy):
    kind, file = "nginx", "nginx.conf"
    # Printed on stderr.
    version_command = ("sh", "-c", "nginx -v 2>&1")

    def substitutions(self):
        return (
            ("listen [::]:443 ssl ipv6only=off;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("/etc/ssl/matrix/fullchain.pem", str(self.certificate)),
            ("/etc/ssl/matrix/privkey.pem", str(self.key)),
        )

    def full_config(self, text):
        # The default of Debian with other paths for files that nginx writes.
        return f"""
            pid {self.folder}/pid;
            error_log stderr;
            events {{ worker_connections 768; }}
            http {{
                include /etc/nginx/mime.types;
                default_type application/octet-stream;
                sendfile on;
                tcp_nopush on;
                gzip on;
                access_log off;
                client_body_temp_path {self.folder}/bodies;
                proxy_temp_path {self.folder}/answers;
                {text}
            }}
        """

    def command(self, path):
        return ["nginx", "-p", self.folder, "-c", path, "-e", "stderr", "-g", "daemon off;"]


class Caddy(Proxy):
    kind, file = "caddy", "Caddyfile"
    version_command = ("caddy", "version")

    def substitutions(self):
        # Replaces the automatic certificate, which needs access to a public certificate authority.
        site = f"https://{NAME}:{self.port} {{\n\tbind 127.0.0.1\n\ttls {self.certificate} {self.key}\n"
        return ((f"{NAME} {{\n", site),)

    def full_config(self, text):
        return f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}"

    def command(self, path):
        return ["caddy", "run", "--adapter", "caddyfile", "--config", path]


class Haproxy(Proxy):
    kind, file = "haproxy", "haproxy.cfg"
    version_command = ("haproxy", "-v")

    def substitutions(self):
        bundle = self.folder / "bundle.pem"
        bundle.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        return (
            ("bind :::443 v4v6 ssl", f"bind 127.0.0.1:{self.port} ssl"),
            ("/etc/ssl/private/matrix.example.org.pem", str(bundle)),
        )

    def full_config(self, text):
        # The default of Debian without the settings that need root and a log daemon.
        return f"""global
    log stderr format raw local0
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
defaults
    log global
    mode http
    option httplog
    option dontlognull
    timeout connect 5000
    timeout client 50000
    timeout server 50000
{text}"""

    def command(self, path):
        return ["haproxy", "-db", "-f", path]


PROXIES = (Nginx, Caddy, Haproxy)


class TlsClient(Client):
    """A client of the public name. It connects from an untrusted address and accepts any certificate."""

    def __init__(self, port):
        super().__init__(f"https://127.0.0.1:{port}")

    def connect(self, timeout=120):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        plain = socket.create_connection((self.host, self.port), timeout, (CLIENT, 0))
        connection.sock = context.wrap_socket(plain, server_hostname=NAME)
        return connection

    def request(self, method, path, token=None, headers=(), body=None, timeout=120):
        return super().request(method, path, token, {"Host": NAME, **dict(headers)}, body, timeout)


RecordedRequest = collections.namedtuple("RecordedRequest", "line headers length digest")


class Recorder:
    """A server that records each request, with a digest instead of the body.

    `response` is a sequence of parts of the raw HTTP response. A part that is an event is awaited."""

    def __init__(self, response=(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",)):
        self.response, self.requests = response, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.handle, args=(connection,), daemon=True).start()

    def handle(self, connection):
        # A stopping proxy resets its pooled connections.
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            connection.settimeout(60)
            while (line := stream.readline()).strip():
                headers = []
                while (header := stream.readline().strip()):
                    name, _, value = header.decode("latin-1").partition(":")
                    headers.append((name.lower(), value.strip()))
                length, digest = self.read_body(stream, dict(headers))
                self.requests.append(RecordedRequest(line.decode("latin-1").strip(), headers, length, digest))
                for piece in self.response:
                    if isinstance(piece, threading.Event):
                        piece.wait(60)
                    else:
                        connection.sendall(piece)

    @staticmethod
    def read_body(stream, headers):
        length, digest = 0, hashlib.sha256()

        def consume(size):
            nonlocal length
            while size and (piece := stream.read(min(size, 1 << 16))):
                digest.update(piece)
                length, size = length + len(piece), size - len(piece)

        if "chunked" in headers.get("transfer-encoding", ""):
            while size := int(stream.readline(), 16):
                consume(size)
                stream.readline()
            stream.readline()
        else:
            consume(int(headers.get("content-length", 0)))
        return length, digest.hexdigest()

    def close(self):
        # close() alone does not wake a thread in accept().
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
