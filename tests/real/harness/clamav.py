"""clamd, and an ICAP server in front of it, for config/clamdscan.sh and config/icap.sh. The signatures are those of
this repository, since the real ones cannot be downloaded offline."""

import glob
import os
import signal
import socket

from .machine import free_port, output_of, wait_until
from .scanner import REPOSITORY, Scanner

HERE = REPOSITORY / "tests/scanners"
# Exit codes for "no verdict" of the shipped scripts and of a shell.
FAILURES = [2, 126, 127]
# MaxFileSize of this clamd, bytes.
LIMIT = 2 << 20


def signatures(machine):
    """Creates a database folder whose only signature is the EICAR test file."""
    folder = machine.make_folder("signatures")
    (folder / "eicar.hdb").write_text((HERE / "eicar.hdb").read_text())
    return folder


class Clamd:
    """A running clamd."""

    def __init__(self, machine):
        self.machine, self.folder = machine, machine.make_folder("clamd", 0o777)
        (self.folder / "db").symlink_to(machine.shared(signatures))
        self.socket, self.config = self.folder / "clamd.ctl", self.folder / "clamd.conf"
        text = (HERE / "clamd.conf").read_text().replace("@HERE@", str(self.folder))
        text += f"MaxFileSize {LIMIT}\nMaxScanSize {2 * LIMIT}\n"
        if os.geteuid() == 0:
            text += "User clamav\n"
        self.config.write_text(text)
        machine.record_version("ClamAV", output_of("clamd", "--version").removeprefix("ClamAV "))
        self.start()

    def start(self):
        command = ["clamd", "--config-file", self.config]
        self.process = self.machine.start("clamd", command, self.folder)
        wait_until("clamd answers", self.is_up, self.process)

    def is_up(self):
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
        """Suspends clamd: the kernel still accepts connections, but clamd does not respond."""
        self.process.signal(signal.SIGSTOP)

    def start_scanner(self, homeserver, config=None, **options):
        """Starts the service with config/clamdscan.sh and the settings of that script."""
        config = {**self.settings(), **(config or {})}
        return Scanner(self.machine, homeserver, config, "config/clamdscan.sh", **options)

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
        # Debian names the parent folder after the architecture.
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
        wait_until("c-icap listens", self.is_listening, self.process)
        machine.record_version("c-icap", output_of("c-icap", "-V"))

    def is_listening(self):
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0

    def start_scanner(self, homeserver, config=None, **options):
        """Starts the service with config/icap.sh and the settings of that script."""
        config = {
            "scan.script_args": ["127.0.0.1", str(self.port), "avscan"],
            "scan.failure_exit_codes": FAILURES,
            "sandbox.tcp_ports": [self.port],
            **(config or {}),
        }
        return Scanner(self.machine, homeserver, config, "config/icap.sh", **options)
