"""Files of many producers, from source packages on PyPI and from Debian packages."""

import hashlib
import os
import re
import shutil
import subprocess
import sys

from harness.scanner import REPOSITORY


def unpack(machine, requirements, debian=()):
    """Returns the folder of the unpacked files of the packages in a pip requirements file, and of these Debian packages.

    The folder is kept until the lists change."""
    folder = REPOSITORY / "target/real" / requirements.stem
    lists = requirements.read_bytes() + " ".join(debian).encode()
    stamp = folder / hashlib.sha256(lists).hexdigest()
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download"]
        # Only these as source: pip gets what it needs to read their names as wheels, which takes a tenth of the time.
        names = ",".join(re.findall(r"^([\w.-]+)==", requirements.read_text(), re.MULTILINE))
        options = ["--no-deps", f"--no-binary={names}", "--require-hashes", "--requirement", requirements]
        # Package builds may write below HOME.
        environment = {**os.environ, "HOME": str(machine.make_folder("home"))}
        subprocess.run([*pip, *options, "--dest", folder], check=True, env=environment)
        (folder / "files").mkdir()
        for archive in folder.glob("*.tar.gz"):
            command = ["tar", "--extract", "--no-same-owner", "--file", archive]
            subprocess.run([*command, "--directory", folder / "files"], check=True)
        if debian:
            subprocess.run(["apt-get", "--quiet=2", "download", *debian], cwd=folder, check=True)
        for package in folder.glob("*.deb"):
            name = package.name.split("_")[0]
            subprocess.run(["dpkg-deb", "--extract", package, folder / "files" / name], check=True)
        stamp.touch()
    return folder / "files"
