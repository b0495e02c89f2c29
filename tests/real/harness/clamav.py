"""ClamAV's daemon, and an ICAP server with it behind: what config/clamdscan.sh and config/icap.sh speak
to, on signatures of our own. The real ones cannot be had offline."""

import glob
import os
import signal
import socket

from .machine import free_port, output_of, until
from .scanner import REPOSITORY, Scanner

HERE = REPOSITORY / "tests/scanners"
# "Could not tell" of the shipped scripts, and a shell's.
FAILURES = [2, 126, 127]
# The largest file that this clamd looks into.
LIMIT = 2 << 20


def signatures(machine):
    """A folder that knows the EICAR test file, and it alone."""
    folder = machine.make_folder("signatures")
    (folder / "eicar.hdb").write_text((HERE / "eicar.hdb").read_text())
    return folder


class Clamd:
    """A running clamd."""

    def __init__(self, machine):
        self.machine, self.folder = machine, machine.make_folder("clamd", 0o777)
        (self.folder / "db").symlink_to(machine.once(signatures))
        self.socket, self.config = self.folder / "clamd.ctl", self.folder / "clamd.conf"
        text = (HERE / "clamd.conf").read_text().replace("@HERE@", str(self.folder))
        text += f"MaxFileSize {LIMIT}\nMaxScanSize {2 * LIMIT}\n"
        if os.geteuid() == 0:
            text += "User clamav\n"
        self.config.write_text(text)
        machine.ran("ClamAV", output_of("clamd", "--version").removeprefix("ClamAV "))
        self.start()

    def start(self):
        command = ["clamd", "--config-file", self.config]
        self.process = self.machine.start("clamd", command, self.folder)
        until("clamd answers", self.answers, self.process)

    def answers(self):
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(self.socket))
                connection.sendall(b"zPING\0")
                return connection.recv(100).startswith(b"PONG")
        except OSError:
            return False

    def stop(self):
        self.machine.stop(self.process)

    def kill(self):
        self.process.signal(signal.SIGKILL)
        self.stop()

    def pause(self):
        """It takes connections, since the kernel does, and says nothing."""
        self.process.signal(signal.SIGSTOP)

    def scanner(self, homeserver, config=None, **more):
        """The service with config/clamdscan.sh and what that script asks for."""
        config = {**self.settings(), **(config or {})}
        return Scanner(self.machine, homeserver, config, "config/clamdscan.sh", **more)

    def settings(self):
        return {
            "scan.script_args": [str(self.config)],
            "scan.failure_exit_codes": FAILURES,
            "sandbox.unix_sockets": [str(self.socket)],
            "sandbox.read_only_paths": [str(self.config)],
        }


class Icap:
    """A running c-icap in front of a clamd."""

    def __init__(self, machine, clamd):
        self.machine = machine
        folder = machine.make_folder("c-icap", 0o777)
        self.port = free_port()
        # Below the folder that Debian names after the architecture.
        modules = glob.glob("/usr/lib/*/c_icap")[0]
        text = (HERE / "c-icap.conf").read_text()
        for mark, value in {
            "@HERE@": folder,
            "@PORT@": self.port,
            "@MODULES@": modules,
            "@CLAMD@": clamd.socket,
        }.items():
            text = text.replace(mark, str(value))
        if os.geteuid() == 0:
            text += "User c-icap\nGroup c-icap\n"
        path = folder / "c-icap.conf"
        path.write_text(text)
        self.process = machine.start("c-icap", ["c-icap", "-N", "-f", path], folder)
        until("c-icap listens", self.listens, self.process)
        machine.ran("c-icap", output_of("c-icap", "-V"))

    def listens(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def scanner(self, homeserver, config=None, **more):
        """The service with config/icap.sh and what that script asks for."""
        config = {
            "scan.script_args": ["127.0.0.1", str(self.port), "avscan"],
            "scan.failure_exit_codes": FAILURES,
            "sandbox.tcp_ports": [self.port],
            **(config or {}),
        }
        return Scanner(self.machine, homeserver, config, "config/icap.sh", **more)
