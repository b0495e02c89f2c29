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
    "pypdf-7.1.1/resources/issue-297.pdf": "PDF_Runs_Code",
    "python_pptx-1.0.2/features/steps/test_files/act-props.pptm": "Office_Macros",
    "wand-0.7.2/docs/make.bat": "Windows_Batch_File",
}


def corpus(machine):
    return unpack(machine, LIST)


@test
def harmless_files_are_not_refused(machine):
    files = machine.shared(corpus)
    names = sorted(str(path.relative_to(files)) for path in files.rglob("*") if path.is_file())
    folder = machine.make_folder("rules")
    config = folder / "config.toml"
    config.write_text(
        f'[scan]\nengines = ["rules"]\ntemp_directory = "{folder}"\n'
        f'[rules]\npaths = ["{RULES}"]\n'
        f'[crypto]\nrequest_secret_path = "{folder / "secret"}"\ngenerate = true\n'
    )
    command = [machine.shared(installed_program), "-c", config, "scan", *names]
    done = subprocess.run(command, cwd=files, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    verdicts = dict(line.rsplit(": ", 1) for line in done.stdout.splitlines() if ": not clean: " in line)
    refused = {name.removesuffix(": not clean"): rule for name, rule in verdicts.items()}
    scripts = [name for name in names if (files / name).read_bytes()[:2] == b"#!"]
    assert_equal(refused, {**REFUSED, **dict.fromkeys(scripts, "Script_With_Interpreter")})
    clean = [line for line in done.stdout.splitlines() if line.endswith(": clean")]
    assert_equal((len(clean), done.returncode), (len(names) - len(refused), 1), done.stderr[-2000:])
    size = sum((files / name).stat().st_size for name in names)
    return f"{len(names)} files, {size >> 20} MiB, {len(refused)} refused, of these {len(scripts)} scripts"


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
