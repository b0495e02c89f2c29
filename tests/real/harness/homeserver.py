"""Three Synapse instances that federate over self-signed TLS, and their users. Media is uploaded by matrix-nio, a
client library."""

import asyncio
import datetime
import hashlib
import hmac
import io
import ipaddress
import json
import sys
from importlib.metadata import version

import nio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from .http import Client
from .machine import free_port, wait_until

REGISTRATION_SECRET = "secret of this test suite"


def authenticated(machine):
    """The homeserver of most tests: default settings of Synapse; it takes the client address from the proxy."""
    return Homeserver(machine, "authenticated")


def federated(machine):
    """A homeserver whose media is remote to the others."""
    return Homeserver(machine, "federated")


def unauthenticated(machine):
    """A homeserver that serves media by the unauthenticated routes, and limits remote media to 2 MiB per client
    address."""
    return Homeserver(
        machine,
        "unauthenticated",
        enable_authenticated_media=False,
        remote_media_download_burst_count="2M",
        remote_media_download_per_second="1",
    )


class Media:
    """An uploaded file."""

    def __init__(self, mxc, content, keys):
        self.mxc, self.content = mxc, content
        # Server name and media id, as in paths.
        self.path = mxc.removeprefix("mxc://")
        # EncryptedFile object, or None for a plain file.
        self.file = keys and {**keys, "url": mxc}


class User:
    """A user with a token."""

    def __init__(self, homeserver, name, token):
        self.homeserver, self.name, self.token = homeserver, name, token

    def upload(self, content, content_type="application/octet-stream", filename=None, encrypt=False):
        """Uploads a file as a client does."""
        return asyncio.run(self._upload(content, content_type, filename, encrypt))

    async def _upload(self, content, content_type, filename, encrypt):
        client = nio.AsyncClient(self.homeserver.base, self.name)
        client.access_token = self.token
        try:
            response, keys = await client.upload(
                lambda *_: io.BytesIO(content), content_type, filename, encrypt, filesize=len(content)
            )
        finally:
            await client.close()
        assert isinstance(response, nio.UploadResponse), response
        return Media(response.content_uri, content, keys)

    def log_out(self):
        response = self.homeserver.client.post("/_matrix/client/v3/logout", {}, self.token)
        assert response.status == 200, response


class Homeserver:
    """A running Synapse."""

    def __init__(self, machine, kind, **settings):
        self.folder = folder = machine.make_folder(f"synapse-{kind}")
        # The server name contains the port, so that other homeservers can reach it.
        client_port, federation_port = free_port(), free_port()
        self.name = f"127.0.0.1:{federation_port}"
        self.base = f"http://127.0.0.1:{client_port}"
        self.client = Client(self.base)
        write_certificate(folder)
        unlimited = {"per_second": 1_000_000, "burst_count": 1_000_000}
        config = {
            "server_name": self.name,
            "public_baseurl": self.base,
            "pid_file": str(folder / "pid"),
            "log_config": str(folder / "log.json"),
            "database": {"name": "sqlite3", "args": {"database": str(folder / "database")}},
            "media_store_path": str(folder / "media"),
            "signing_key_path": str(folder / "signing.key"),
            "registration_shared_secret": REGISTRATION_SECRET,
            "macaroon_secret_key": "secret of this test suite",
            "form_secret": "secret of this test suite",
            "report_stats": False,
            "trusted_key_servers": [],
            "max_upload_size": "120M",
            "tls_certificate_path": str(folder / "certificate.pem"),
            "tls_private_key_path": str(folder / "key.pem"),
            "federation_verify_certificates": False,
            "ip_range_blacklist": [],
            "federation_ip_range_blacklist": [],
            "listeners": [
                listener(client_port, "client", x_forwarded=True),
                listener(federation_port, "federation", tls=True),
            ],
            **{
                f"rc_{limit}": unlimited
                for limit in ("message", "registration", "media_create", "federation_media_download")
            },
            "rc_login": {"address": unlimited, "account": unlimited, "failed_attempts": unlimited},
            "remote_media_download_burst_count": "10G",
            "remote_media_download_per_second": "1G",
            **settings,
        }
        logs = {
            "version": 1,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
            "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "line"}},
            "root": {"level": "WARNING", "handlers": ["out"]},
        }
        (folder / "log.json").write_text(json.dumps(logs))
        path = folder / "homeserver.json"
        path.write_text(json.dumps(config))
        command = [sys.executable, "-m", "synapse.app.homeserver", "-c", path]
        keys = machine.start("synapse-keys", [*command, "--generate-keys"], folder)
        wait_until("the homeserver keys are generated", keys.has_exited)
        assert machine.stop(keys) == 0, keys.output()
        self.process = machine.start(f"synapse-{kind}", command, folder)
        wait_until("Synapse answers", self.is_up, self.process)
        machine.record_version("Synapse", version("matrix-synapse"))
        machine.record_version("matrix-nio", version("matrix-nio"))

    def is_up(self):
        try:
            return self.client.get("/_matrix/client/versions").status == 200
        except OSError:
            return False

    def register(self, name, admin=False):
        """Registers a user; returns it with a token."""
        path = "/_synapse/admin/v1/register"
        nonce = self.client.get(path).json()["nonce"]
        fields = [nonce, name, "a password", "admin" if admin else "notadmin"]
        mac = hmac.new(REGISTRATION_SECRET.encode(), "\0".join(fields).encode(), hashlib.sha1)
        response = self.client.post(
            path,
            {"nonce": nonce, "username": name, "password": fields[2], "admin": admin, "mac": mac.hexdigest()},
        )
        assert response.status == 200, response
        return User(self, response.json()["user_id"], response.json()["access_token"])

    def user(self, name="alice", admin=False):
        """Returns the user of this name; registers it at the first call."""
        users = self.__dict__.setdefault("users", {})
        if name not in users:
            users[name] = self.register(name, admin)
        return users[name]

    def quarantine(self, media):
        path = f"/_synapse/admin/v1/media/quarantine/{media.path}"
        response = self.client.post(path, {}, self.user("admin", admin=True).token)
        assert response.status == 200, response

    def delete(self, media):
        path = f"/_synapse/admin/v1/media/{media.path}"
        response = self.client.request("DELETE", path, self.user("admin", admin=True).token)
        assert response.status == 200, response


def listener(port, names, **options):
    return {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "type": "http",
        "resources": [{"names": [names], "compress": False}],
        **options,
    }


def write_certificate(folder):
    """Writes a self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
