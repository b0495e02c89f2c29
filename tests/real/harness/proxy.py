"""The reverse proxies of docs/proxies, started with the very files that operators are shown: only addresses,
names of files and the public name's port are put in place. And what stands behind them where a test has to
see a request as it was sent: a server that records."""

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
from .machine import free_port, output_of, until
from .scanner import REPOSITORY

SHOWN = REPOSITORY / "docs/proxies"
NAME = "matrix.example.org"
# Whom the proxy believes to be a client: none of this machine's own addresses that anybody trusts.
CLIENT = "127.0.0.2"


class Proxy:
    """One that runs in front of these two ports."""

    def __init__(self, machine, scanner, homeserver):
        self.folder, self.port = machine.make_folder(self.kind, 0o777), free_port()
        write_certificate(self.folder)
        self.certificate, self.key = self.folder / "certificate.pem", self.folder / "key.pem"
        text = (SHOWN / self.file).read_text()
        for shown, here in (
            ("127.0.0.1:8080", f"127.0.0.1:{scanner}"),
            ("127.0.0.1:8008", f"127.0.0.1:{homeserver}"),
            *self.in_place(),
        ):
            assert text.count(shown) == 1, f"{self.file} has {shown} {text.count(shown)} times"
            text = text.replace(shown, here)
        path = self.folder / self.file
        path.write_text(self.whole(text))
        self.process = machine.start(self.kind, self.command(path), self.folder, {"HOME": str(self.folder)})
        until(f"{self.kind} listens", self.listens, self.process)
        machine.ran(self.kind, re.search(r"\d+(\.\d+)+\S*", output_of(*self.version_of))[0])
        self.client = ThroughTls(self.port)

    def listens(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def whole(self, text):
        """What is shown, within what a distribution brings."""
        return text


class Nginx(Proxy):
    kind, file = "nginx", "nginx.conf"
    # It says so on standard error.
    version_of = ("sh", "-c", "nginx -v 2>&1")

    def in_place(self):
        return (
            ("listen [::]:443 ssl ipv6only=off;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("/etc/ssl/matrix/fullchain.pem", str(self.certificate)),
            ("/etc/ssl/matrix/privkey.pem", str(self.key)),
        )

    def whole(self, text):
        # As Debian has it, but for where it writes.
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
    version_of = ("caddy", "version")

    def in_place(self):
        # A certificate from an authority of the world's cannot be had here.
        site = f"https://{NAME}:{self.port} {{\n\tbind 127.0.0.1\n\ttls {self.certificate} {self.key}\n"
        return ((f"{NAME} {{\n", site),)

    def whole(self, text):
        return f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{text}"

    def command(self, path):
        return ["caddy", "run", "--adapter", "caddyfile", "--config", path]


class Haproxy(Proxy):
    kind, file = "haproxy", "haproxy.cfg"
    version_of = ("haproxy", "-v")

    def in_place(self):
        both = self.folder / "both.pem"
        both.write_bytes(self.certificate.read_bytes() + self.key.read_bytes())
        return (
            ("bind :::443 v4v6 ssl", f"bind 127.0.0.1:{self.port} ssl"),
            ("/etc/ssl/private/matrix.example.org.pem", str(both)),
        )

    def whole(self, text):
        # Debian's own, without what takes root and a log daemon.
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


class ThroughTls(Client):
    """A client of the public name. It comes from an address that nobody trusts, and takes any certificate."""

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


Seen = collections.namedtuple("Seen", "line headers length digest")


class Recorder:
    """A server of one port: keeps each request as it came (its body as a digest), and answers it with `answer`,
    pieces of a whole HTTP answer; a piece that is an event is waited for."""

    def __init__(self, answer=(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",)):
        self.answer, self.seen = answer, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        # A connection that a proxy kept is reset when it is stopped.
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as stream:
            connection.settimeout(60)
            while (line := stream.readline()).strip():
                headers = []
                while (header := stream.readline().strip()):
                    name, _, value = header.decode("latin-1").partition(":")
                    headers.append((name.lower(), value.strip()))
                length, digest = self.take_body(stream, dict(headers))
                self.seen.append(Seen(line.decode("latin-1").strip(), headers, length, digest))
                for piece in self.answer:
                    if isinstance(piece, threading.Event):
                        piece.wait(60)
                    else:
                        connection.sendall(piece)

    @staticmethod
    def take_body(stream, headers):
        length, digest = 0, hashlib.sha256()

        def take(size):
            nonlocal length
            while size and (piece := stream.read(min(size, 1 << 16))):
                digest.update(piece)
                length, size = length + len(piece), size - len(piece)

        if "chunked" in headers.get("transfer-encoding", ""):
            while size := int(stream.readline(), 16):
                take(size)
                stream.readline()
            stream.readline()
        else:
            take(int(headers.get("content-length", 0)))
        return length, digest.hexdigest()

    def close(self):
        # A thread in accept would not see a mere close.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
