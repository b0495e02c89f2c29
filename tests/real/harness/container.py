"""A container with a real systemd: a Debian root directory made by debootstrap, booted by systemd-nspawn. Writes go to
memory and are discarded. The container has its own network with only a loopback interface."""

import ctypes
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import threading
import time

from .machine import Process, wait_until
from .run import Skip
from .scanner import REPOSITORY

# Includes the scanners of config/*.sh.
PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "clamav", "clamav-daemon", "clamdscan", "yara", "c-icap", "libc-icap-mod-virus-scan",
]
MIRROR = "http://deb.debian.org/debian"
NEEDS = ["debootstrap", "systemd-nspawn", "nsenter", "unshare", "mount"]
# unshare(2), setns(2)
CLONE_NEWNET = 0x40000000


def root_directory():
    """Returns the root directory for containers; created at the first call and kept in target/real."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not suite:
        raise Skip("needs Debian: the container has the release of this machine, for which the program is built")
    kept = REPOSITORY / "target/real/systemd"
    root, stamp = kept / "root", kept / "stamp"
    recipe = f"{suite} {MIRROR} {' '.join(PACKAGES)}\n"
    if stamp.exists() and stamp.read_text() == recipe:
        return root
    # An incomplete directory has no stamp.
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    packages = ",".join(PACKAGES)
    # debootstrap mounts /proc. In its own mount namespace no mount remains, also after a failure.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", suite, root, MIRROR]
    with open(kept / "log", "wb") as log:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise AssertionError(f"debootstrap failed:\n{(kept / 'log').read_text()[-2000:]}")
    for name in ["clamav-daemon.service", "clamav-daemon.socket", "clamav-freshclam.service", "c-icap.service"]:
        # Tests start the services that they need.
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    stamp.write_text(recipe)
    return root


class Container(Process):
    """A booted container. `binds` are read-only bind mounts: {path in the container: path on this machine}."""

    def __init__(self, machine, binds):
        if os.geteuid() != 0:
            raise Skip("needs root to boot a container")
        allowed = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
        if allowed.returncode != 0:
            raise Skip("mounting is not permitted")
        root = root_directory()
        # The name is unique, since several containers may run at a time.
        self.machine_name = name = f"mcs-real-{os.getpid()}-{len(machine.processes)}"
        self.groups = [make_cgroup(hierarchy, name) for hierarchy in cgroup_hierarchies()]
        # The default filter of nspawn does not allow Landlock.
        landlock = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
        bound = [f"--bind-ro={source}:{target}" for target, source in binds.items()]
        nspawn = [
            "systemd-nspawn", "--directory", root, "--volatile=overlay", "--register=no", "--keep-unit", "--boot", "--quiet",
            "--private-network", "--console=pipe", "--machine", name, f"--system-call-filter={landlock}", *bound,
        ]
        enter = 'while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs"; shift; done; shift; exec "$@"'
        command = ["sh", "-ec", enter, "sh", *self.groups, "--", *nspawn]
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        folder = machine.make_folder("container")
        machine.processes.append(self)
        super().__init__("container", command, folder / "container.log", environment)
        self.init = wait_until("the container boots", self.first_process, self)
        self.root = pathlib.Path(f"/proc/{self.init}/root")
        # "degraded" means that a unit of Debian failed, which does not matter here.
        states = ["running", "degraded"]
        wait_until("systemd is up", lambda: self.run("systemctl", "is-system-running", code=None) in states, self)
        machine.record_version("systemd", self.run("systemctl", "--version").splitlines()[0].partition(" ")[2])

    def first_process(self):
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in children:
            command = pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
            if b"systemd-nspawn" not in command and command:
                return int(child)
        return None

    def run(self, *command, code=0):
        """Runs a command in the container; returns its output. Fails on an exit code other than `code`; None allows
        any."""
        enter = ["nsenter", "--target", str(self.init), "--all", *map(str, command)]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(enter, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
        output = (done.stdout + done.stderr).strip()
        if code is not None and done.returncode != code:
            raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{output[-4000:]}")
        return output

    def write(self, path, text, mode=0o644):
        """Writes a file in the container."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def in_network(self, work):
        """Runs `work()` in a thread that is in the network namespace of the container; returns its result."""
        result = {}

        def enter():
            try:
                libc = ctypes.CDLL(None, use_errno=True)
                with open(f"/proc/{self.init}/ns/net", "rb") as network:
                    if libc.setns(network.fileno(), CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                result["value"] = work()
            except BaseException as error:  # pylint: disable=broad-except
                result["error"] = error

        thread = threading.Thread(target=enter, daemon=True)
        thread.start()
        thread.join()
        if "error" in result:
            raise result["error"]
        return result["value"]

    def processes(self):
        """Returns the process ids of the container, in the PID namespace of this machine."""
        namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                # Processes in nested namespaces are identified by their control group.
                group = (entry / "cgroup").read_text() if entry.name.isdigit() else ""
                if os.path.basename(self.groups[0]) in group or os.readlink(entry / "ns/pid") == namespace:
                    found.append(int(entry.name))
            except (OSError, ValueError):
                pass
        return found

    def stop(self, seconds=15):
        # A second signal stops nspawn without waiting for services. nspawn has to handle the first signal before.
        deadline = time.monotonic() + seconds
        while not self.has_exited() and time.monotonic() < deadline:
            self.child.terminate()
            time.sleep(0.2)
        code = super().stop(0.2)
        # Remains if nspawn was killed.
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self.machine_name}", ignore_errors=True)
        for group in self.groups:
            remove_cgroup(group)
        return code


def cgroup_hierarchies():
    """Returns the control group hierarchies that systemd-nspawn uses: version 2, and name=systemd of version 1."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        is_used = kind.startswith("cgroup2 ") or (kind.startswith("cgroup ") and "name=systemd" in kind)
        if is_used:
            found.append(pathlib.Path(fields.split(" ")[4]))
    if not found:
        raise Skip("no control group hierarchy is mounted")
    return found


def make_cgroup(hierarchy, name):
    group = hierarchy / name
    try:
        group.mkdir()
    except OSError as error:
        raise Skip(f"cannot create a control group: {error}") from error
    return group


def remove_cgroup(group):
    """Removes a control group; kills the processes in it."""
    deadline = time.monotonic() + 10
    while group.exists() and time.monotonic() < deadline:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                for pid in pathlib.Path(directory, "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                os.rmdir(directory)
            except OSError:
                pass
        time.sleep(0.02)
    assert not group.exists(), f"{group} remains"


def run_here(*command):
    """Runs a command on this machine; fails with its output."""
    done = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
