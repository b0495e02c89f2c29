"""Request keys and encrypted bodies made by the libraries of clients and of the two earlier scanners: libolm and
vodozemac."""

import base64
import json
import os
import pathlib
import subprocess
from importlib.metadata import version

import vodozemac

from harness import homeserver
from harness.machine import output_of
from harness.run import assert_equal, test
from harness.samples import EICAR, picture
from harness.scanner import Scanner
from parts.synapse import alice, assert_error, assert_verdict

NEEDS = ["node"]


def libolm(command, **arguments):
    """Runs a command of olm.js; returns its result."""
    script = pathlib.Path(__file__).parents[1] / "harness/olm.js"
    request = json.dumps({"command": command, **arguments}).encode()
    done = subprocess.run(["node", script], input=request, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def seal_with_libolm(public_key, content):
    sealed = libolm("seal", public_key=public_key, content=content)
    return {name: sealed[name] for name in ("ciphertext", "mac", "ephemeral")}


def seal_with_vodozemac(public_key, content):
    key = vodozemac.Curve25519PublicKey.from_base64(public_key)
    sealed = vodozemac.PkEncryption.from_key(key).encrypt(content.encode())
    parts = {"ciphertext": sealed.ciphertext, "mac": sealed.mac, "ephemeral": sealed.ephemeral_key}
    return {name: base64.b64encode(part).decode().rstrip("=") for name, part in parts.items()}


def service_with_libolm_pickle(machine):
    """Returns a public key from libolm, and a service that loads this key from a pickle of the Node scanner."""
    package = pathlib.Path(os.environ["NODE_PATH"]) / "@matrix-org/olm/package.json"
    machine.record_version("libolm (@matrix-org/olm)", json.loads(package.read_text())["version"])
    machine.record_version("Node", output_of("node", "--version"))
    machine.record_version("vodozemac (PyPI)", version("vodozemac"))
    pickled = libolm("pickle", pickle_key="a pickle key: ünïcode")
    pickle = machine.make_folder("pickle") / "pickle"
    pickle.write_text(pickled["pickle"])
    pickle.chmod(0o600)
    config = {
        "crypto.request_secret_path": None,
        "crypto.generate": None,
        "crypto.pickle_path": str(pickle),
        "crypto.pickle_key": "a pickle key: ünïcode",
    }
    return pickled["public_key"], Scanner(machine, machine.shared(homeserver.authenticated), config)


@test
def loads_pickle_of_node_scanner(machine):
    public_key, service = machine.shared(service_with_libolm_pickle)
    got = service.get("/public_key")
    assert_equal((got.status, got.json()), (200, {"public_key": public_key}))


@test
def loads_request_secret_of_python_scanner(machine):
    secret = base64.b64encode(os.urandom(32)).decode()
    expected = libolm("public_key", secret=secret)["public_key"]
    key = vodozemac.Curve25519SecretKey.from_base64(secret.rstrip("="))
    assert_equal(vodozemac.PkDecryption.from_key(key).public_key.to_base64(), expected)
    for text in (secret, secret.rstrip("="), f"{secret}\n"):
        path = machine.make_folder("secret") / "request_secret"
        path.write_text(text)
        path.chmod(0o600)
        config = {"crypto.request_secret_path": str(path), "crypto.generate": False}
        service = Scanner(machine, machine.shared(homeserver.authenticated), config)
        assert_equal(service.get("/public_key").json(), {"public_key": expected}, text)
        service.stop()


@test
def decrypts_bodies_of_libolm_and_vodozemac(machine):
    public_key, service = machine.shared(service_with_libolm_pickle)
    user = machine.shared(alice)
    clean = user.upload(picture("PNG", seed=30), filename="ü.png", encrypt=True)
    infected = user.upload(EICAR, encrypt=True)
    direct = user.homeserver.client.get(f"/_matrix/client/v1/media/download/{clean.path}", user.token)
    for seal in (seal_with_libolm, seal_with_vodozemac):

        def sealed(media, seal=seal):
            # Contains a multi-byte character, as a file name may.
            file = {**media.file, "name": "ü✓"}
            return {"encrypted_body": seal(public_key, json.dumps({"file": file}, ensure_ascii=False))}

        assert_verdict(service.post("/scan_encrypted", sealed(clean), user.token), True, seal.__name__)
        got = service.post("/download_encrypted", sealed(clean), user.token)
        assert_equal((got.status, got.body == direct.body), (200, True), f"{seal.__name__}: {got}")
        assert_verdict(service.post("/scan_encrypted", sealed(infected), user.token), False, seal.__name__)
        got = service.post("/download_encrypted", sealed(infected), user.token)
        assert_error(got, 403, "MCS_MEDIA_NOT_CLEAN", seal.__name__)
        # The encrypted body takes precedence over the plain one.
        got = service.post("/scan_encrypted", {"file": clean.file, **sealed(infected)}, user.token)
        assert_verdict(got, False, seal.__name__)


@test
def distinguishes_decryption_errors_from_invalid_bodies(machine):
    public_key, service = machine.shared(service_with_libolm_pickle)
    user = machine.shared(alice)
    media = user.upload(b"secret", encrypt=True)
    body = json.dumps({"file": media.file})
    another = libolm("pickle", pickle_key="")["public_key"]
    for seal in (seal_with_libolm, seal_with_vodozemac):
        right = seal(public_key, body)
        damaged = [
            seal(another, body),
            {**right, "mac": seal(public_key, body)["mac"]},
            {**right, "ephemeral": seal(public_key, body)["ephemeral"]},
            {**right, "ciphertext": right["ciphertext"][:40]},
        ]
        for path in ("/scan_encrypted", "/download_encrypted"):
            for wrong in damaged:
                got = service.post(path, {"encrypted_body": wrong}, user.token)
                assert_error(got, 403, "MCS_BAD_DECRYPTION", seal.__name__)
            for content in ("[]", "no JSON", "{}"):
                got = service.post(path, {"encrypted_body": seal(public_key, content)}, user.token)
                assert_error(got, 400, "MCS_MALFORMED_JSON", content)
