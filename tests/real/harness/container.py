"""A machine of its own with a real systemd: Debian, as debootstrap lays it out, booted by systemd-nspawn. What is written to
it lies in memory and goes with it; its network is a loopback of its own."""

import ctypes
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import threading
import time

from .machine import Process, until
from .run import Skip
from .scanner import REPOSITORY

# The scanners are those of config/*.sh.
PACKAGES = [
    "systemd", "systemd-sysv", "dbus", "clamav", "clamav-daemon", "clamdscan", "yara", "c-icap", "libc-icap-mod-virus-scan",
]
MIRROR = "http://deb.debian.org/debian"
NEEDS = ["debootstrap", "systemd-nspawn", "nsenter", "unshare", "mount"]
# unshare(2), setns(2)
CLONE_NEWNET = 0x40000000


def tree():
    """The root directory that containers are booted from; made at the first call, then kept."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", "")
    if release.get("ID") != "debian" or not suite:
        raise Skip("the program that was built here runs in a container of the same release; this is not Debian")
    kept = REPOSITORY / "target/real/systemd"
    root, stamp = kept / "root", kept / "stamp"
    made_of = f"{suite} {MIRROR} {' '.join(PACKAGES)}\n"
    if stamp.exists() and stamp.read_text() == made_of:
        return root
    # A tree that was broken off has no stamp.
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    packages = ",".join(PACKAGES)
    # debootstrap mounts /proc in it: in a mount namespace of its own, nothing is left mounted however it ends.
    command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={packages}", suite, root, MIRROR]
    with open(kept / "log", "wb") as log:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)
    if done.returncode != 0:
        raise AssertionError(f"debootstrap failed:\n{(kept / 'log').read_text()[-2000:]}")
    for name in ["clamav-daemon.service", "clamav-daemon.socket", "clamav-freshclam.service", "c-icap.service"]:
        # What tests need of these they start themselves.
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    stamp.write_text(made_of)
    return root


class Container(Process):
    """A booted machine. `binds` are files of this machine that it sees, read-only: {its path: ours}."""

    def __init__(self, machine, binds):
        if os.geteuid() != 0:
            raise Skip("only root boots a container")
        allowed = subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
        if allowed.returncode != 0:
            raise Skip("nothing may be mounted here")
        root = tree()
        # Two may run at a time.
        self.name_of_machine = name = f"mcs-real-{os.getpid()}-{len(machine.processes)}"
        self.groups = [make_group(at, name) for at in hierarchies()]
        # nspawn's own filter is older than Landlock.
        landlock = "landlock_create_ruleset landlock_add_rule landlock_restrict_self"
        bound = [f"--bind-ro={ours}:{its}" for its, ours in binds.items()]
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
        self.init = until("it boots", self.first_process, self)
        self.root = pathlib.Path(f"/proc/{self.init}/root")
        # "degraded" where a unit failed: that is Debian's matter.
        states = ["running", "degraded"]
        until("systemd is up", lambda: self.run("systemctl", "is-system-running", code=None) in states, self)
        machine.ran("systemd", self.run("systemctl", "--version").splitlines()[0].partition(" ")[2])

    def first_process(self):
        children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for child in children:
            command = pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
            if b"systemd-nspawn" not in command and command:
                return int(child)
        return None

    def run(self, *command, code=0):
        """Runs a command in it; what it printed. `code` None takes any exit code."""
        inside = ["nsenter", "--target", str(self.init), "--all", *map(str, command)]
        environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(inside, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False)
        said = (done.stdout + done.stderr).strip()
        if code is not None and done.returncode != code:
            raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{said[-4000:]}")
        return said

    def write(self, path, text, mode=0o644):
        """Writes a file of its."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        file.chmod(mode)

    def on_its_network(self, work):
        """What `work()` gives, whose sockets are on the container's network. A thread has a network of its own."""
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
        """All that run in it, as this machine counts them."""
        namespace = os.readlink(f"/proc/{self.init}/ns/pid")
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                # Those of namespaces below are seen by their group.
                group = (entry / "cgroup").read_text() if entry.name.isdigit() else ""
                if os.path.basename(self.groups[0]) in group or os.readlink(entry / "ns/pid") == namespace:
                    found.append(int(entry.name))
            except (OSError, ValueError):
                pass
        return found

    def stop(self, seconds=15):
        # A second signal ends it without waiting for its services. In between nspawn has to see the first.
        end = time.monotonic() + seconds
        while not self.has_ended() and time.monotonic() < end:
            self.child.terminate()
            time.sleep(0.2)
        code = super().stop(0.2)
        # Left where nspawn was killed.
        shutil.rmtree(f"/run/systemd/nspawn/propagate/{self.name_of_machine}", ignore_errors=True)
        for group in self.groups:
            remove_group(group)
        return code


def hierarchies():
    """Where the trees of control groups are that systemd-nspawn uses: version 2, and systemd's own of version 1."""
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        own = kind.startswith("cgroup2 ") or (kind.startswith("cgroup ") and "name=systemd" in kind)
        if own:
            found.append(pathlib.Path(fields.split(" ")[4]))
    if not found:
        raise Skip("no control groups are mounted")
    return found


def make_group(hierarchy, name):
    group = hierarchy / name
    try:
        group.mkdir()
    except OSError as error:
        raise Skip(f"no control group can be made: {error}") from error
    return group


def remove_group(group):
    """With all that is still in it."""
    end = time.monotonic() + 10
    while group.exists() and time.monotonic() < end:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                for pid in pathlib.Path(directory, "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                os.rmdir(directory)
            except OSError:
                pass
        time.sleep(0.02)
    assert not group.exists(), f"{group} stays"


def run_here(*command):
    """Runs a command on this machine, and fails with what it says."""
    done = subprocess.run([*map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
