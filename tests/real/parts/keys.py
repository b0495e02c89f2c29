"""Request keys and sealed bodies, made by the libraries that clients and the two earlier scanners use:
libolm and vodozemac."""

import base64
import json
import os
import pathlib
import subprocess
from importlib.metadata import version

import vodozemac

from harness import homeserver
from harness.machine import output_of
from harness.run import same, test
from harness.samples import EICAR, picture
from harness.scanner import Scanner
from parts.synapse import alice, is_refused, is_verdict

NEEDS = ["node"]


def libolm(command, **given):
    """What olm.js answers."""
    script = pathlib.Path(__file__).parents[1] / "harness/olm.js"
    asked = json.dumps({"command": command, **given}).encode()
    done = subprocess.run(["node", script], input=asked, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def libolm_seals(public_key, content):
    sealed = libolm("seal", public_key=public_key, content=content)
    return {name: sealed[name] for name in ("ciphertext", "mac", "ephemeral")}


def vodozemac_seals(public_key, content):
    key = vodozemac.Curve25519PublicKey.from_base64(public_key)
    sealed = vodozemac.PkEncryption.from_key(key).encrypt(content.encode())
    parts = {"ciphertext": sealed.ciphertext, "mac": sealed.mac, "ephemeral": sealed.ephemeral_key}
    return {name: base64.b64encode(part).decode().rstrip("=") for name, part in parts.items()}


def service_with_libolms_pickle(machine):
    """Its public key as libolm told it, and the service that has it from the Node scanner's pickle."""
    package = pathlib.Path(os.environ["NODE_PATH"]) / "@matrix-org/olm/package.json"
    machine.ran("libolm (@matrix-org/olm)", json.loads(package.read_text())["version"])
    machine.ran("Node", output_of("node", "--version"))
    machine.ran("vodozemac (PyPI)", version("vodozemac"))
    made = libolm("pickle", pickle_key="a pickle key: ünïcode")
    pickle = machine.make_folder("pickle") / "pickle"
    pickle.write_text(made["pickle"])
    pickle.chmod(0o600)
    config = {
        "crypto.request_secret_path": None,
        "crypto.generate": None,
        "crypto.pickle_path": str(pickle),
        "crypto.pickle_key": "a pickle key: ünïcode",
    }
    return made["public_key"], Scanner(machine, machine.once(homeserver.authenticated), config)


@test
def a_key_that_the_node_scanners_libolm_made_is_taken_over(machine):
    public_key, service = machine.once(service_with_libolms_pickle)
    got = service.get("/public_key")
    same((got.status, got.json()), (200, {"public_key": public_key}))


@test
def a_request_secret_as_the_python_scanner_keeps_it_is_taken_over(machine):
    secret = base64.b64encode(os.urandom(32)).decode()
    expected = libolm("public_key", secret=secret)["public_key"]
    key = vodozemac.Curve25519SecretKey.from_base64(secret.rstrip("="))
    same(vodozemac.PkDecryption.from_key(key).public_key.to_base64(), expected)
    for written in (secret, secret.rstrip("="), f"{secret}\n"):
        path = machine.make_folder("secret") / "request_secret"
        path.write_text(written)
        path.chmod(0o600)
        config = {"crypto.request_secret_path": str(path), "crypto.generate": False}
        service = Scanner(machine, machine.once(homeserver.authenticated), config)
        same(service.get("/public_key").json(), {"public_key": expected}, written)
        service.stop()


@test
def bodies_that_libolm_and_vodozemac_seal_are_opened(machine):
    public_key, service = machine.once(service_with_libolms_pickle)
    user = machine.once(alice)
    clean = user.upload(picture("PNG", seed=30), filename="ü.png", encrypt=True)
    infected = user.upload(EICAR, encrypt=True)
    direct = user.homeserver.client.get(f"/_matrix/client/v1/media/download/{clean.path}", user.token)
    for seal in (libolm_seals, vodozemac_seals):

        def sealed(media, seal=seal):
            # With a letter of more than one byte, as a name could bring it.
            file = {**media.file, "name": "ü✓"}
            return {"encrypted_body": seal(public_key, json.dumps({"file": file}, ensure_ascii=False))}

        is_verdict(service.post("/scan_encrypted", sealed(clean), user.token), True, seal.__name__)
        got = service.post("/download_encrypted", sealed(clean), user.token)
        same((got.status, got.body == direct.body), (200, True), f"{seal.__name__}: {got}")
        is_verdict(service.post("/scan_encrypted", sealed(infected), user.token), False, seal.__name__)
        got = service.post("/download_encrypted", sealed(infected), user.token)
        is_refused(got, 403, "MCS_MEDIA_NOT_CLEAN", seal.__name__)
        # Where both are there, the sealed one counts.
        got = service.post("/scan_encrypted", {"file": clean.file, **sealed(infected)}, user.token)
        is_verdict(got, False, seal.__name__)


@test
def bodies_sealed_for_another_key_or_damaged_are_told_apart_from_bad_ones(machine):
    public_key, service = machine.once(service_with_libolms_pickle)
    user = machine.once(alice)
    media = user.upload(b"secret", encrypt=True)
    body = json.dumps({"file": media.file})
    another = libolm("pickle", pickle_key="")["public_key"]
    for seal in (libolm_seals, vodozemac_seals):
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
                is_refused(got, 403, "MCS_BAD_DECRYPTION", seal.__name__)
            for content in ("[]", "no JSON", "{}"):
                got = service.post(path, {"encrypted_body": seal(public_key, content)}, user.token)
                is_refused(got, 400, "MCS_MALFORMED_JSON", content)
