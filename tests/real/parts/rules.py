"""The rules of config/rules on files of many producers: exactly the files that the rules target are refused."""

import subprocess

from harness import homeserver
from harness.corpus import unpack
from harness.run import assert_equal, test
from harness.samples import EICAR, picture
from harness.scanner import REPOSITORY, Scanner, installed_program

NEEDS = []

RULES = REPOSITORY / "config/rules"
LIST = REPOSITORY / "tests/real/corpus.txt"

# Files that the rules target: macros, a document that runs a program when opened, programs, packages, shortcuts, disk
# images. Files that begin with an interpreter line are refused too.
REFUSED = {
    "hachoir-3.4.0/doc/make.bat": "Windows_Batch_File",
    "hachoir-3.4.0/tests/files/example2.arj": "Linux_Program in usr/bin/arj",
    "hachoir-3.4.0/tests/files/example4_chapters.arj": "Linux_Program in usr/bin/groups",
    "hachoir-3.4.0/tests/files/georgia.cab": "Windows_Program in fontinst.exe",
    "hachoir-3.4.0/tests/files/7zip.chm": "Windows_Help",
    "hachoir-3.4.0/tests/files/ReferenceMap.class": "Java_Program",
    "hachoir-3.4.0/tests/files/cercle.exe": "DOS_Program",
    "hachoir-3.4.0/tests/files/dell8.fat16": "Disk_Image",
    "hachoir-3.4.0/tests/files/eula.exe": "Windows_Program",
    "hachoir-3.4.0/tests/files/ftp-0.17-537.i586.rpm": "Linux_Package",
    "hachoir-3.4.0/tests/files/get-versions.64bit.little.elf": "Linux_Program",
    "hachoir-3.4.0/tests/files/macos_10.12.macho": "Mac_Program",
    "hachoir-3.4.0/tests/files/macos_10.5.macho": "Mac_Program",
    "hachoir-3.4.0/tests/files/mev.32bit.big.elf": "Linux_Program",
    "hachoir-3.4.0/tests/files/mev.64bit.big.elf": "Linux_Program",
    "hachoir-3.4.0/tests/files/ping_20020927-3ubuntu2": "Linux_Program",
    "hachoir-3.4.0/tests/files/twunk_16.exe": "DOS_Program",
    "hachoir-3.4.0/tests/files/verdan32.exe": "Windows_Program",
    "hachoir-3.4.0/tests/files/vim.lnk": "Windows_Shortcut",
    "puremagic-1.30/test/resources/media/test.iso": "Disk_Image",
    "puremagic-1.30/test/resources/system/test.exe": "Windows_Program",
    "pypdf-7.1.1/resources/issue-297.pdf": "PDF_Runs_Code in normalised",
    "python_pptx-1.0.2/features/steps/test_files/act-props.pptm": "Office_Macros",
    "wand-0.7.2/docs/make.bat": "Windows_Batch_File",
}


# Documents that need a password: `scan.on_encrypted`.
ENCRYPTED = {
    f"pypdf-7.1.1/resources/{name}.pdf": "encrypted contents (a PDF needs a password)"
    for name in (
        "crazyones-encrypted-256",
        "encrypted-file",
        "encryption/r2-user-password",
        "encryption/r3-user-password",
        "encryption/r4-aes-user-password",
        "encryption/r4-user-password",
        "encryption/r6-both-passwords",
        "encryption/r6-cleartext-metadata",
        "libreoffice-writer-password",
    )
}

# The source packages themselves: the first of the files above that is in each, and not limited to the media file itself
# by its scope.
PACKED = {
    "hachoir-3.4.0": ("Windows_Help", "hachoir-3.4.0/tests/files/7zip.chm"),
    "puremagic-1.30": ("Disk_Image", "puremagic-1.30/test/resources/media/test.iso"),
    "pypdf-7.1.1": ("PDF_Runs_Code", "pypdf-7.1.1/resources/issue-297.pdf > normalised"),
    "python_pptx-1.0.2": ("Office_Macros", "python_pptx-1.0.2/features/steps/test_files/act-props.pptm"),
}


def corpus(machine):
    return unpack(machine, LIST)


def scan(machine, folder, names):
    """Returns the reason for each of these files that is refused, and the number of clean files."""
    temp = machine.make_folder("rules")
    config = temp / "config.toml"
    config.write_text(
        f'[scan]\nengines = ["rules"]\ntemp_directory = "{temp}"\n'
        f'[rules]\npaths = ["{RULES}"]\n'
        f'[crypto]\nrequest_secret_path = "{temp / "secret"}"\ngenerate = true\n'
    )
    command = [machine.shared(installed_program), "-c", config, "scan", *names]
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines = [line.split(": not clean: ") for line in done.stdout.splitlines() if ": not clean: " in line]
    clean = [line for line in done.stdout.splitlines() if line.endswith(": clean")]
    assert_equal((len(lines) + len(clean), done.returncode), (len(names), 1), done.stderr[-2000:])
    return dict(lines), len(clean)


@test
def harmless_files_are_not_refused(machine):
    files = machine.shared(corpus)
    names = sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file())
    refused, _ = scan(machine, files, names)
    scripts = [name for name in names if (files / name).read_bytes()[:2] == b"#!"]
    assert_equal(refused, {**REFUSED, **ENCRYPTED, **dict.fromkeys(scripts, "Script_With_Interpreter")})
    size = sum((files / name).stat().st_size for name in names)
    return f"{len(names)} files, {size >> 20} MiB, {len(refused)} refused, of these {len(scripts)} scripts"


@test
def packed_harmless_files_are_not_refused(machine):
    packages = machine.shared(corpus).parent
    names = sorted(path.name for path in packages.glob("*.tar.gz"))
    refused, clean = scan(machine, packages, names)
    expected = {
        f"{package}.tar.gz": f"{rule} in {package}.tar > {name}" for package, (rule, name) in PACKED.items()
    }
    assert_equal(refused, expected)
    return f"{len(names)} archives, {clean} clean"


@test
def rules_engine_scans_homeserver_media(machine):
    config = {"scan.script": None, "scan.engines": ["rules"], "rules.paths": [str(RULES)]}
    service = Scanner(machine, machine.shared(homeserver.authenticated), config)
    user = machine.shared(homeserver.authenticated).user()
    clean = user.upload(picture("PNG", seed=30), "image/png", "cat.png")
    assert_equal(service.get(f"/scan/{clean.path}", user.token).json()["clean"], True)
    got = service.get(f"/download/{clean.path}", user.token)
    assert_equal((got.status, got.body), (200, clean.content))
    for encrypt in (False, True):
        infected = user.upload(EICAR, "text/plain", "eicar.txt", encrypt)
        if encrypt:
            got = service.post("/download_encrypted", {"file": infected.file}, user.token)
        else:
            got = service.get(f"/download/{infected.path}", user.token)
        expected = {"reason": "MCS_MEDIA_NOT_CLEAN", "info": "File not clean. Output: 'EICAR_Test_File'"}
        assert_equal((got.status, got.json()), (403, expected))
    service.stop()
