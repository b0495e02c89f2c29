"""Tests of packaging/Dockerfile and packaging/kubernetes.yaml.

The steps of the Dockerfile are executed in a directory tree. The result runs with the settings of the Deployment: as an
arbitrary user, without capabilities, on a read-only root, with /tmp in memory, and without namespaces, as with the
default profile of Docker. It is also imported into Podman, which runs the documented commands."""

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
from harness.machine import free_port, wait_until
from harness.run import Skip, assert_equal, test
from harness.samples import EICAR
from harness.scanner import PREFIX, REPOSITORY

NEEDS = [*container.NEEDS, "setpriv", "chroot", "strip", "tar", "podman", "runc"]

DOCKERFILE = REPOSITORY / "packaging/Dockerfile"
MANIFESTS = REPOSITORY / "packaging/kubernetes.yaml"
PROGRAM = "/usr/bin/matrix-content-scanner"
# Contents of the Secret besides the request key. No store is running in these tests.
STORE_SECRETS = {"store_secret": "5a" * 32, "store_password": "a5" * 32}
SECRET = "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=\n"
PUBLIC = "jLVWQUTEEkeqHPMAkPsDyj7Wh6jKUAw5rkp6h4VPqBA"
# Mounts the root of the image: the Debian root directory below the files written by the steps.
OVERLAY = 'mount -t overlay overlay -o "lowerdir=$TREE,upperdir=$LAYER/upper,workdir=$LAYER/work" "$LAYER/root"'


def steps():
    """Returns the steps of the Dockerfile as (stage, instruction, arguments). Stages count from 0."""
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
            raise Skip("needs root to build an image")
        tree, self.layer = container.root_directory(), machine.make_folder("image")
        for name in ["upper", "work", "root"]:
            (self.layer / name).mkdir()
        self.settings = {"TREE": str(tree), "LAYER": str(self.layer), "PATH": os.environ["PATH"]}
        self.user, self.command, self.variables, self.volumes = None, [], [], []
        # What `podman import --change` applies.
        self.changes = []
        for stage, instruction, words in steps():
            self.apply(stage, instruction, words)

    def run_in_root(self, script):
        """Runs a script in its own mount namespace, with the root of the image mounted at $LAYER/root."""
        variables = [f"{name}={value}" for name, value in self.settings.items()]
        run_here("env", *variables, "unshare", "--mount", "--propagation=private", "sh", "-ec", f"{OVERLAY}\n{script}")

    def apply(self, stage, instruction, words):
        if stage == 0:
            # The build stage runs on this machine, with this source tree.
            if instruction == "RUN":
                assert_equal(words, "packaging/programs")
                run_here(REPOSITORY / words, "--dev")
            return
        if instruction in ("ENV", "VOLUME", "USER", "ENTRYPOINT", "CMD"):
            self.changes.append(f"{instruction} {words}")
        if instruction == "FROM":
            assert re.fullmatch(r"debian:12(-slim)?", words), words
        elif instruction == "RUN":
            resolver = "cp /etc/resolv.conf $LAYER/root/etc/resolv.conf; cp -r /etc/apt/. $LAYER/root/etc/apt"
            self.run_in_root(f"{resolver}; mount --rbind /dev $LAYER/root/dev; chroot $LAYER/root sh -ec {shlex.quote(words)}")
        elif instruction == "COPY":
            *sources, target = [word for word in words.split() if not word.startswith("--")]
            directory = self.layer / "upper" / target.strip("/")
            directory.mkdir(parents=True, exist_ok=True)
            for source in sources:
                is_built = source.startswith("/source/")
                assert is_built == ("--from=build" in words), words
                path = REPOSITORY / source.removeprefix("/source/")
                # COPY copies the contents of a folder.
                if path.is_dir():
                    shutil.copytree(path, directory, dirs_exist_ok=True)
                else:
                    shutil.copy2(path, directory)
        elif instruction == "ENV":
            self.variables.append(words)
        elif instruction == "VOLUME":
            self.volumes.append(words)
        elif instruction == "USER":
            self.user = tuple(map(int, words.split(":")))
        elif instruction in ("ENTRYPOINT", "CMD"):
            self.command += yaml.safe_load(words)
        else:
            assert_equal(instruction, "EXPOSE")


def image(machine):
    return Image(machine)


class Podman:
    """The image in Podman's own folder. Each command runs in its own mount namespace, so that no mount remains."""

    def __init__(self, machine):
        built, self.folder = machine.shared(image), machine.make_folder("podman")
        self.options = [
            *("--root", str(self.folder / "storage"), "--runroot", str(self.folder / "run"), "--runtime", "runc"),
            *("--cgroup-manager", "cgroupfs", "--events-backend", "none"),
        ]
        built.run_in_root(f"tar -C $LAYER/root -cf {self.folder}/image.tar .")
        changes = [word for change in built.changes for word in ("--change", change)]
        run_here(*self.command("import", *changes, str(self.folder / "image.tar"), "matrix-content-scanner"))
        (self.folder / "image.tar").unlink()

    def command(self, *words):
        return ["unshare", "--mount", "--propagation=private", "podman", *self.options, *words]

    def run(self, machine, documented, variables):
        """Starts a documented `docker run` command. Published ports are those of this machine, where 8080 may be in use."""
        assert_equal(documented[:2], ["docker", "run"])
        words = [word for index, word in enumerate(documented[2:]) if "-p" not in documented[index + 1 : index + 3]]
        variables = [f"--env={name}={value}" for name, value in variables.items()]
        # The defaults of Podman are above the limits of test machines.
        limits = ["--ulimit=nofile=8192:8192", "--ulimit=nproc=4096:4096"]
        network = [] if "--network" in words else ["--network=host"]
        command = self.command("run", *limits, *network, *variables, *words)
        return machine.start("podman", command, machine.make_folder("container"))


def podman(machine):
    return Podman(machine)


def documented_command(path):
    """Returns the words of the `docker run` command in a file, without continuation lines and comment signs."""
    text = re.sub(r"\\\n#? *", "", path.read_text())
    [command] = re.findall(r"^(?:# +)?(docker run .*)$", text, re.M)
    return shlex.split(command)


def manifests():
    return list(yaml.safe_load_all(MANIFESTS.read_text()))


def manifest(kind, name="matrix-content-scanner"):
    [match] = [item for item in manifests() if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return match


@test
def dockerfile_steps_build_image(machine):
    built = machine.shared(image)
    assert_equal(built.command, [PROGRAM, "serve"])
    assert built.user and built.user[0] > 0, "the image runs as root"
    [volume] = built.volumes
    assert_equal(built.variables, [f"STATE_DIRECTORY={volume}"])
    owner = (built.layer / "upper" / volume.lstrip("/")).stat()
    assert_equal((owner.st_uid, owner.st_mode & 0o777), (built.user[0], 0o700))
    built.run_in_root(f"chroot $LAYER/root {PROGRAM} --version; test -x $LAYER/root/usr/bin/clamdscan")
    # The source tree is not part of the image.
    built.run_in_root("! test -e $LAYER/root/source")


@test
def manifests_are_valid_and_hardened(_machine):
    kinds = ["ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"]
    store = [kind for kind in kinds if kind != "PodDisruptionBudget"]
    assert_equal([item["kind"] for item in manifests()], kinds + store)
    for item in manifests():
        kubernetes_validate.validate(item, "1.37", strict=True)
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert_equal(pod["automountServiceAccountToken"], False)
    assert_equal((pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["seccompProfile"]), (True, {"type": "RuntimeDefault"}))
    [scanner] = pod["containers"]
    restrictions = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert_equal(scanner["securityContext"], restrictions)
    store_pod = manifest("Deployment", "matrix-content-scanner-store")["spec"]["template"]["spec"]
    assert_equal(store_pod["containers"][0]["securityContext"], restrictions)
    ports = {port["name"]: port["containerPort"] for port in scanner["ports"]}
    assert_equal(ports, {"http": 8080, "operations": 8081})
    probes = [scanner[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
    assert_equal(probes, [{"path": f"/health/{probe}", "port": "operations"} for probe in ("live", "ready")])
    assert "memory" in scanner["resources"]["limits"]
    # Every mount has a volume, and the spool is in memory.
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert_equal(sorted(mount["name"] for mount in scanner["volumeMounts"]), sorted(volumes))
    assert_equal(volumes["tmp"]["emptyDir"]["medium"], "Memory")
    assert pod["terminationGracePeriodSeconds"] > 30


@test
def image_runs_with_deployment_settings(machine):
    built = machine.shared(image)
    homeserver = media_server({"clean": b"nothing in it", "infected": EICAR})
    threading.Thread(target=homeserver.serve_forever, daemon=True).start()
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    user = pod["securityContext"]["runAsUser"]
    assert f"\n{user}:" not in (container.root_directory() / "etc/passwd").read_text() and user < 65536
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    for name, file, text in [
        ("config", "config.toml", manifest("ConfigMap")["data"]["config.toml"]),
        ("key", "request_secret", SECRET),
        *(("key", file, text) for file, text in STORE_SECRETS.items()),
    ]:
        folder = built.layer / "upper" / mounts[name].lstrip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
        (folder / file).chmod(0o440)
        os.chown(folder / file, 0, pod["securityContext"]["fsGroup"])
    web, operations, gate = free_port(), free_port(), built.layer / "gate"
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
            # Executing a program as root of the user namespace grants all capabilities in it.
            exec sh -e "$LAYER/inner"'
    """
    inner = f"""
        mount -t proc proc proc
        # Forbids nested user namespaces.
        echo 0 >/proc/sys/user/max_user_namespaces
        # The ports of the manifest may be in use on this machine.
        exec env -i MCS_WEB__HOST=127.0.0.1 MCS_WEB__PORT={web} MCS_OPERATIONS__HOST=127.0.0.1 MCS_OPERATIONS__PORT={operations} \\
            MCS_DOWNLOAD__BASE_HOMESERVER_URL=http://127.0.0.1:{homeserver.server_port} \\
            /usr/sbin/chroot . /usr/bin/setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all \\
            --bounding-set=-all --no-new-privs {" ".join(built.command)}
    """
    (built.layer / "inner").write_text(inner)
    folder = machine.make_folder("deployment")
    outer = machine.start("image", ["unshare", "--mount", "--propagation=private", "sh", "-ec", mount], folder, built.settings)
    users = pathlib.Path(f"/proc/{outer.pid}/ns/user")
    wait_until("the user namespace exists", lambda: os.readlink(users) != os.readlink("/proc/self/ns/user"), outer)
    for kind in ("uid_map", "gid_map"):
        pathlib.Path(f"/proc/{outer.pid}/{kind}").write_text("0 0 65536\n")
    gate.write_text("go\n")

    probe = Client(f"http://127.0.0.1:{operations}")
    wait_until("the service is ready", lambda: get_status(probe, "/health/ready") == 200, outer)
    assert_equal(get_status(probe, "/health/live"), 200)
    [pid] = pathlib.Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    none = "0000000000000000"
    reported = {name: status[name].split()[0] for name in ["Uid", "Gid", "CapEff", "CapPrm", "CapBnd", "NoNewPrivs"]}
    assert_equal(reported, {"Uid": str(user), "Gid": str(user), "CapEff": none, "CapPrm": none, "CapBnd": none, "NoNewPrivs": "1"})
    # According to the kernel, the root is read-only and /tmp is writable.
    table = [line.split() for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines()]
    flags = {fields[4]: fields[5].split(",")[0] for fields in table}
    assert_equal((flags["/"], flags["/tmp"]), ("ro", "rw"))

    client = Client(f"http://127.0.0.1:{web}{PREFIX}")
    assert_equal(client.get("/public_key").json(), {"public_key": PUBLIC})
    got = client.get("/download/example.org/clean", "token")
    assert_equal((got.status, got.body), (200, b"nothing in it"), got)
    got = client.get("/download/example.org/infected", "token")
    assert_equal((got.status, got.json()["reason"]), (403, "MCS_MEDIA_NOT_CLEAN"), got)
    for expected in ["; namespaces: OFF: ", "; landlock: version ", '"helper":"/usr/lib/matrix-content-scanner/mcs-sandbox"']:
        assert expected in outer.output(), outer.output()

    start = time.monotonic()
    os.kill(int(pid), signal.SIGTERM)
    wait_until("the service has stopped", outer.has_exited)
    assert time.monotonic() - start < pod["terminationGracePeriodSeconds"]
    homeserver.shutdown()


def container_ports(homeserver):
    """Returns free ports, and the variables that set them."""
    web, operations = free_port(), free_port()
    return web, operations, {
        **{"MCS_WEB__HOST": "127.0.0.1", "MCS_WEB__PORT": web},
        **{"MCS_OPERATIONS__HOST": "127.0.0.1", "MCS_OPERATIONS__PORT": operations},
        "MCS_DOWNLOAD__BASE_HOMESERVER_URL": f"http://127.0.0.1:{homeserver.server_port}",
    }


def check_container(machine, documented):
    """Runs a documented command, requests media, and stops the container as `docker stop` does."""
    homeserver = media_server({"clean": b"nothing in it", "infected": EICAR})
    threading.Thread(target=homeserver.serve_forever, daemon=True).start()
    web, operations, variables = container_ports(homeserver)
    started = machine.shared(podman).run(machine, documented, variables)
    probe = Client(f"http://127.0.0.1:{operations}")
    wait_until("the service is ready", lambda: get_status(probe, "/health/ready") == 200, started)
    client = Client(f"http://127.0.0.1:{web}{PREFIX}")
    got = client.get("/download/example.org/clean", "token")
    assert_equal((got.status, got.body), (200, b"nothing in it"), got)
    got = client.get("/download/example.org/infected", "token")
    assert_equal((got.status, got.json()["reason"]), (403, "MCS_MEDIA_NOT_CLEAN"), got)
    # Podman passes the signal on.
    os.kill(started.child.pid, signal.SIGTERM)
    wait_until("the container has stopped", started.has_exited)
    assert_equal(started.child.returncode, 0, started.output())
    homeserver.shutdown()
    return started.output()


@test
def documented_command_for_tests_of_others_runs_in_podman(machine):
    check_container(machine, documented_command(REPOSITORY / "docs/api.md"))


@test
def documented_command_of_the_dockerfile_runs_in_podman(machine):
    folder = machine.shared(podman).folder
    (folder / "keys").mkdir()
    (folder / "keys").chmod(0o770)
    text = 'crypto.request_secret_path = "/keys/request_secret"\ncrypto.generate = true\nscan.engines = ["rules"]\n'
    (folder / "config.toml").write_text(f'{text}rules.paths = ["/usr/share/matrix-content-scanner/rules"]\n')
    documented = documented_command(DOCKERFILE)
    output = check_container(machine, [word.replace("./", f"{folder}/") for word in documented])
    assert (folder / "keys/request_secret").exists()
    for expected in ["; landlock: version ", "; seccomp: filter"]:
        assert expected in output, output


def get_status(client, path):
    try:
        return client.get(path).status
    except OSError:
        return None
