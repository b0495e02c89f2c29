"""Detected file types on files of many producers: the same as those of the installed `file`."""

import collections
import subprocess

from harness.corpus import unpack
from harness.run import test
from harness.scanner import REPOSITORY

NEEDS = ["file", "cargo", "apt-get", "dpkg-deb"]

LISTS = [REPOSITORY / "tests/real/corpus.txt", REPOSITORY / "tests/real/corpus-types.txt"]
# OpenDocument templates, ZIP and Java archives, and texts in German, Spanish, Italian, Polish, Russian, Czech,
# Japanese and Chinese.
DEBIAN = (
    "libreoffice-common libreoffice-java-common junit4 ant libhamcrest-java libcommons-lang3-java "
    "fortunes-de fortunes-es fortunes-it fortunes-pl fortunes-ru fortunes-cs doc-debian "
    "debian-faq-de debian-faq-ru debian-faq-ja debian-faq-zh-cn"
).split()

# Names that changed between releases of `file`, as in crates/filetype/src/media_type.rs: a MIME list matches both.
RENAMED = {
    "application/x-dosexec": "application/vnd.microsoft.portable-executable",
    "application/x-rar": "application/vnd.rar",
    "application/x-gzip": "application/gzip",
    "application/cdfv2": "application/x-ole-storage",
    "text/x-python": "text/x-script.python",
    "image/x-ms-bmp": "image/bmp",
    "image/x-icon": "image/vnd.microsoft.icon",
    "image/x-pcx": "image/vnd.zbrush.pcx",
    "font/ttf": "font/sfnt",
    "application/vnd.oasis.opendocument.database": "application/vnd.oasis.opendocument.base",
}
# General types of older releases, and the types of 5.46. A MIME list matches both.
REFINED = {
    ("application/zip", "application/java-archive"),
    ("text/xml", "application/xhtml+xml"),
    ("text/plain", "application/x-subrip"),
    ("text/plain", "application/x-wine-extension-ini"),
}
# Types that `file` before 5.46 does not detect, and why. A MIME list matches only the new one: the old type says
# nothing about the file.
DETECTED_SINCE_546 = {
    ("application/octet-stream", f"application/vnd.openxmlformats-officedocument.{kind}"): "examines more entries"
    for kind in ("wordprocessingml.document", "presentationml.presentation", "spreadsheetml.sheet")
} | {
    ("application/octet-stream", "application/x-pcapng"): "new rule",
    ("text/plain", "text/x-script.python"): "tests for functions before other Python",
}
# The fewest files of types that users send, so that the lists cannot lose them unnoticed.
REQUIRED = {
    "application/vnd.android.package-archive": 30,
    "application/java-archive": 40,
    "application/epub+zip": 2,
    "application/vnd.ms-outlook": 3,
    "message/rfc822": 20,
    "image/vnd.dxf": 30,
    "application/x-subrip": 10,
}

# Remaining differences: the end of the path, the type of `file` 5.44, the detected type, the reason.
PRESENTATION = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
HTML = "5.46 tests for HTML before other languages"
PYTHON = "5.46 tests for functions before other Python and before Ruby and JavaScript"
PDF = "5.46 finds the header after other content"
DIFFERENCES = [
    ("samples/01_basic_create/create.py", "text/x-script.python", "text/html", HTML),
    ("samples/02_cover_create/create.py", "text/x-script.python", "text/html", HTML),
    ("samples/03_advanced_create/create.py", "text/x-script.python", "text/html", HTML),
    ("samples/07_pagebreaks/create.py", "text/x-script.python", "text/html", HTML),
    ("samples/08_SMIL/create.py", "text/x-script.python", "text/html", HTML),
    ("samples/09_create_image/create.py", "text/x-script.python", "text/html", HTML),
    ("agenda/TemplateConsts.py", "text/x-script.python", "text/html", HTML),
    ("armstrong/layout.html", "application/javascript", "text/html", HTML),
    ("pentest/__init__.py", "application/javascript", "text/x-script.python", PYTHON),
    ("compoundfiles/mmap.py", "text/x-ruby", "text/x-script.python", PYTHON),
    ("tests/test_attachment_anomalies.py", "text/plain", "application/pdf", PDF),
    ("hachoir/parser/misc/pdf.py", "text/plain", "application/pdf", PDF),
    ("templates/docx-icon.emf", "application/octet-stream", "application/pdf", PDF),
    ("templates/xlsx-icon.emf", "application/octet-stream", "application/pdf", PDF),
    ("chardet/models/idf.bin", "image/x-tga", "application/octet-stream", "a model; the rule for pictures is not the same"),
    ("tests/files/paktest.pak", "application/vnd.hp-hpgl", "application/octet-stream", "a game archive; since 5.45"),
    ("tests/mails/mail_test_16", "text/plain", "message/rfc822", "mail that begins with the subject"),
    ("no-core-props.pptx", "application/zip", PRESENTATION, "5.46 examines more entries"),
    ("tests/messages/email_issue_82.eml", "text/plain", "application/mbox", "begins with the first line of a mailbox"),
    ("integration_tests/data/PLOTFILE.plt", "application/vnd.hp-hpgl", "text/plain", "a plot, which no rule matches"),
    ("ezdxf/acc/constants.h", "text/plain", "text/x-c", "a header in C"),
    ("test_08_addons/test_824_svg_drawing_backend.py", "text/x-script.python", "text/html", HTML),
    (".vscode/extensions.json", "application/json", "text/plain", "a comma before a bracket is no JSON"),
    (".vscode/settings.json", "application/json", "text/plain", "a comma before a bracket is no JSON"),
    ("buildserver/Vagrantfile", "text/x-ruby", "text/plain", "a Ruby program, which no rule matches"),
    ("fdroidserver/vmtools.py", "text/x-ruby", "text/x-script.python", PYTHON),
    ("tests/gnupghome/pubring.gpg", "application/pgp-keys", "application/octet-stream", "a key ring, which no rule matches"),
    ("tests/gnupghome/secring.gpg", "application/pgp-keys", "application/octet-stream", "a key ring, which no rule matches"),
    ("es/ciencia.fortunes.dat", "application/octet-stream", "application/x-adobe-aco", "an index; not a colour table"),
    ("es/varios.fortunes", "text/plain", "text/x-c", "prose with code"),
]


def types(files):
    """Returns the types of these files: those of `file`, and the detected ones."""
    names = "".join(f"{name}\n" for name in files)
    build = ["cargo", "build", "--quiet", "--locked", "--package", "mcs-filetype", "--example", "types"]
    subprocess.run(build, cwd=REPOSITORY, check=True)
    commands = (["file", "--brief", "--mime-type", "-f", "-"], [REPOSITORY / "target/debug/examples/types"])
    results = []
    for command in commands:
        done = subprocess.run(command, input=names, capture_output=True, text=True, check=True)
        results.append(done.stdout.lower().splitlines())
    return results


@test
def types_agree_with_those_of_file(machine):
    folders = [unpack(machine, LISTS[0]), unpack(machine, LISTS[1], DEBIAN)]
    paths = sorted(path for folder in folders for path in folder.rglob("*"))
    # `file` has a type of its own for empty files, which no client can request.
    paths = [path for path in paths if path.is_file() and not path.is_symlink() and path.stat().st_size > 0]
    expected, detected = types(paths)
    assert len(expected) == len(detected) == len(paths), (len(expected), len(detected), len(paths))
    counts, different, unnamed, newer, found = collections.Counter(), collections.Counter(), [], 0, collections.Counter()
    for path, file_type, ours in zip(paths, expected, detected):
        pair = (file_type, ours)
        if pair in DETECTED_SINCE_546:
            newer += 1
            print(f"  {path.relative_to(REPOSITORY / 'target/real')}: {ours}, {DETECTED_SINCE_546[pair]} since 5.46")
            continue
        counts[file_type] += 1
        found[ours] += 1
        if RENAMED.get(file_type, file_type) == RENAMED.get(ours, ours) or pair in REFINED:
            continue
        different[file_type] += 1
        if not any(str(path).endswith(end) and pair == (a, b) for end, a, b, _ in DIFFERENCES):
            unnamed.append((str(path), *pair))
    for file_type, count in counts.most_common():
        print(f"  {100 * (count - different[file_type]) / count:6.2f} % of {count:5} {file_type}")
    agreement = 1 - different.total() / counts.total()
    machine.record_version("file", subprocess.run(["file", "--version"], capture_output=True, text=True).stdout.split()[0])
    low = {name: count for name, count in counts.items() if count >= 10 and different[name] > 0.05 * count}
    assert agreement >= 0.995 and not low, (agreement, low, unnamed)
    assert not unnamed, unnamed
    lacking = {name: found[name] for name, fewest in REQUIRED.items() if found[name] < fewest}
    assert not lacking, lacking
    return f"{100 * agreement:.2f} % of {counts.total()} files, {len(counts)} types; {newer} detected only since 5.46"
