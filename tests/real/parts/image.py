"""packaging/Dockerfile and packaging/kubernetes.yaml where there is no container engine: the steps of the first are done in a
directory tree, and what comes of it runs as the second one says: as any user, without capabilities, on a read-only root, with
/tmp in memory, and without namespaces, as Docker's default profile has it."""

import os
import pathlib
import re
import shlex
import shutil
import signal
import threading
import time

import kubernetes_validate
import yaml
from harness import container
from harness.container import run_here
from harness.http import Client, media_server
from harness.machine import free_port, until
from harness.run import Skip, same, test
from harness.samples import EICAR
from harness.scanner import PREFIX, REPOSITORY

NEEDS = [*container.NEEDS, "setpriv", "chroot", "strip"]

DOCKERFILE = REPOSITORY / "packaging/Dockerfile"
MANIFESTS = REPOSITORY / "packaging/kubernetes.yaml"
PROGRAM = "/usr/bin/matrix-content-scanner"
SECRET = "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=\n"
PUBLIC = "jLVWQUTEEkeqHPMAkPsDyj7Wh6jKUAw5rkp6h4VPqBA"
# The image's root, from Debian's and what the steps have written.
OVERLAY = 'mount -t overlay overlay -o "lowerdir=$TREE,upperdir=$LAYER/upper,workdir=$LAYER/work" "$LAYER/root"'


def steps():
    """The Dockerfile's: (stage, instruction, words). Stages count from 0."""
    stage, found = -1, []
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    for line in text.splitlines():
        instruction, _, words = line.strip().partition(" ")
        stage += instruction == "FROM"
        if instruction:
            found.append((stage, instruction, words.strip()))
    return found


class Image:
    def __init__(self, machine):
        if os.geteuid() != 0:
            raise Skip("only root lays out an image")
        tree, self.layer = container.tree(), machine.make_folder("image")
        for name in ["upper", "work", "root"]:
            (self.layer / name).mkdir()
        self.settings = {"TREE": str(tree), "LAYER": str(self.layer), "PATH": os.environ["PATH"]}
        self.user, self.command = None, []
        for stage, instruction, words in steps():
            self.take(stage, instruction, words)

    def inside(self, script):
        """Runs a script with the image's root mounted at $LAYER/root, in a mount namespace that goes with it."""
        variables = [f"{name}={value}" for name, value in self.settings.items()]
        run_here("env", *variables, "unshare", "--mount", "--propagation=private", "sh", "-ec", f"{OVERLAY}\n{script}")

    def take(self, stage, instruction, words):
        if stage == 0:
            # Its tools are those of this machine; its source is this one, and its last step is run here.
            if instruction == "RUN":
                same(words, "packaging/programs")
                run_here(REPOSITORY / words, "--dev")
            return
        if instruction == "FROM":
            assert re.fullmatch(r"debian:12(-slim)?", words), words
        elif instruction == "RUN":
            resolver = "cp /etc/resolv.conf $LAYER/root/etc/resolv.conf; cp -r /etc/apt/. $LAYER/root/etc/apt"
            self.inside(f"{resolver}; mount --rbind /dev $LAYER/root/dev; chroot $LAYER/root sh -ec {shlex.quote(words)}")
        elif instruction == "COPY":
            *sources, target = [word for word in words.split() if not word.startswith("--")]
            to = self.layer / "upper" / target.strip("/")
            to.mkdir(parents=True, exist_ok=True)
            for source in sources:
                built = source.startswith("/source/")
                assert built == ("--from=build" in words), words
                path = REPOSITORY / source.removeprefix("/source/")
                # Of a folder it is what is in it.
                if path.is_dir():
                    shutil.copytree(path, to, dirs_exist_ok=True)
                else:
                    shutil.copy2(path, to)
        elif instruction == "USER":
            self.user = tuple(map(int, words.split(":")))
        elif instruction in ("ENTRYPOINT", "CMD"):
            self.command += yaml.safe_load(words)
        else:
            same(instruction, "EXPOSE")


def image(machine):
    return Image(machine)


def manifests():
    return list(yaml.safe_load_all(MANIFESTS.read_text()))


def manifest(kind):
    [found] = [one for one in manifests() if one["kind"] == kind]
    return found


@test
def the_steps_of_the_dockerfile_make_an_image(machine):
    made = machine.once(image)
    same(made.command, [PROGRAM, "serve"])
    assert made.user and made.user[0] > 0, "it runs as root"
    made.inside(f"chroot $LAYER/root {PROGRAM} --version; test -x $LAYER/root/usr/bin/clamdscan")
    # A file of the build that is no part of the programs.
    made.inside("! test -e $LAYER/root/source")


@test
def the_manifests_are_of_their_schemas_and_shut_what_can_be_shut(_machine):
    same([one["kind"] for one in manifests()], ["ConfigMap", "Deployment", "Service", "NetworkPolicy"])
    for one in manifests():
        kubernetes_validate.validate(one, "1.37", strict=True)
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    same(pod["automountServiceAccountToken"], False)
    same((pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["seccompProfile"]), (True, {"type": "RuntimeDefault"}))
    [scanner] = pod["containers"]
    shut = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    same(scanner["securityContext"], shut)
    ports = {port["name"]: port["containerPort"] for port in scanner["ports"]}
    same(ports, {"http": 8080, "operations": 8081})
    probes = [scanner[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
    same(probes, [{"path": f"/health/{what}", "port": "operations"} for what in ("live", "ready")])
    assert "memory" in scanner["resources"]["limits"]
    # What is mounted is there, and the spool is memory.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    same(sorted(mount["name"] for mount in scanner["volumeMounts"]), sorted(volumes))
    same(volumes["tmp"]["emptyDir"]["medium"], "Memory")
    assert pod["terminationGracePeriodSeconds"] > 30


@test
def the_image_runs_as_the_deployment_says(machine):
    made = machine.once(image)
    homeserver = media_server({"clean": b"nothing in it", "infected": EICAR})
    threading.Thread(target=homeserver.serve_forever, daemon=True).start()
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    user = pod["securityContext"]["runAsUser"]
    assert f"\n{user}:" not in (container.tree() / "etc/passwd").read_text() and user < 65536
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    for name, file, text in [
        ("config", "config.toml", manifest("ConfigMap")["data"]["config.toml"]),
        ("key", "request_secret", SECRET),
    ]:
        folder = made.layer / "upper" / mounts[name].lstrip("/")
        folder.mkdir(parents=True)
        (folder / file).write_text(text)
        (folder / file).chmod(0o440)
        os.chown(folder / file, 0, pod["securityContext"]["fsGroup"])
    web, operations, gate = free_port(), free_port(), made.layer / "gate"
    os.mkfifo(gate)
    size = pod["volumes"][2]["emptyDir"]["sizeLimit"].removesuffix("i").lower()
    mount = f"""
        {OVERLAY}
        cd "$LAYER/root"
        mount -t tmpfs -o mode=1777,size={size} tmpfs tmp
        mount -t tmpfs -o mode=755 tmpfs dev
        for device in null zero full random urandom; do : >dev/$device; mount --bind /dev/$device dev/$device; done
        mount -o remount,ro "$LAYER/root"
        exec unshare --user --mount --pid --fork --kill-child sh -ec '
            read -r go <"$LAYER/gate"
            # Who executes something as root has all capabilities there; nobody was root before.
            exec sh -e "$LAYER/inner"'
    """
    inner = f"""
        mount -t proc proc proc
        # Of this user namespace alone: below it there is none.
        echo 0 >/proc/sys/user/max_user_namespaces
        # On loopback, where others have these ports.
        exec env -i MCS_WEB__HOST=127.0.0.1 MCS_WEB__PORT={web} MCS_OPERATIONS__HOST=127.0.0.1 MCS_OPERATIONS__PORT={operations} \\
            MCS_DOWNLOAD__BASE_HOMESERVER_URL=http://127.0.0.1:{homeserver.server_port} \\
            /usr/sbin/chroot . /usr/bin/setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all \\
            --bounding-set=-all --no-new-privs {" ".join(made.command)}
    """
    (made.layer / "inner").write_text(inner)
    folder = machine.make_folder("deployment")
    outer = machine.start("image", ["unshare", "--mount", "--propagation=private", "sh", "-ec", mount], folder, made.settings)
    users = pathlib.Path(f"/proc/{outer.pid}/ns/user")
    until("it has users of its own", lambda: os.readlink(users) != os.readlink("/proc/self/ns/user"), outer)
    for kind in ("uid_map", "gid_map"):
        pathlib.Path(f"/proc/{outer.pid}/{kind}").write_text("0 0 65536\n")
    gate.write_text("go\n")

    probe = Client(f"http://127.0.0.1:{operations}")
    until("it is ready", lambda: answers(probe, "/health/ready") == 200, outer)
    same(answers(probe, "/health/live"), 200)
    [pid] = pathlib.Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    none = "0000000000000000"
    said = {name: status[name].split()[0] for name in ["Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs"]}
    same(said, {"Uid": str(user), "Gid": str(user), "CapEff": none, "CapPrm": none, "CapBnd": none, "NoNewPrivs": "1"})
    # As the kernel has it: the root is read-only, /tmp is not.
    table = [line.split() for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    flags = {fields[4]: fields[5].split(",")[0] for fields in table}
    same((flags["/"], flags["/tmp"]), ("ro", "rw"))

    client = Client(f"http://127.0.0.1:{web}{PREFIX}")
    same(client.get("/public_key").json(), {"public_key": PUBLIC})
    got = client.get("/download/example.org/clean", "token")
    same((got.status, got.body), (200, b"nothing in it"), got)
    got = client.get("/download/example.org/infected", "token")
    same((got.status, got.json()["reason"]), (403, "MCS_MEDIA_NOT_CLEAN"), got)
    for words in ["; namespaces: OFF: ", "; landlock: version ", '"helper":"/usr/lib/matrix-content-scanner/mcs-sandbox"']:
        assert words in outer.said(), outer.said()

    begun = time.monotonic()
    os.kill(int(pid), signal.SIGTERM)
    until("it has stopped", outer.has_ended)
    assert time.monotonic() - begun < pod["terminationGracePeriodSeconds"]
    homeserver.shutdown()


def answers(client, path):
    try:
        return client.get(path).status
    except OSError:
        return None
