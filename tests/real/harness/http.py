"""HTTP client without conveniences: follows no redirects, adds and merges no headers, decodes nothing."""

import http.client
import http.server
import json
import urllib.parse


class Response:
    """A response with its complete body."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def all(self, name):
        """Returns all values of a header."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name):
        """Returns the value of a header that must not be repeated, or None."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} is present {len(values)} times: {values}"
        return values[0] if values else None

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:300]!r} ({len(self.body)} bytes)"


class Client:
    """A client of one server. Each request opens a connection."""

    def __init__(self, base):
        self.base = base
        parts = urllib.parse.urlsplit(base)
        self.host, self.port, self.prefix = parts.hostname, parts.port, parts.path

    def connect(self, timeout):
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    def request(self, method, path, token=None, headers=(), body=None, timeout=120):
        connection = self.connect(timeout)
        try:
            headers = dict(headers)
            if token is not None:
                headers["Authorization"] = f"Bearer {token}"
            connection.request(method, self.prefix + path, body, headers)
            response = connection.getresponse()
            return Response(response.status, response.getheaders(), response.read())
        finally:
            connection.close()

    def get(self, path, token=None, headers=()):
        return self.request("GET", path, token, headers)

    def post(self, path, value, token=None, headers=()):
        """Sends `value` as JSON."""
        body = json.dumps(value).encode()
        return self.request("POST", path, token, {"Content-Type": "application/json", **dict(headers)}, body)


def media_server(media):
    """Returns a minimal homeserver for `media`, a dict of contents by media id. It ignores tokens, is bound to a free
    port, and does not serve yet."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = media.get(self.path.rpartition("/")[2].partition("?")[0])
            body = content or b'{"errcode": "M_NOT_FOUND"}'
            self.send_response(200 if content else 404)
            self.send_header("Content-Type", "text/plain" if content else "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
