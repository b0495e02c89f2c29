//! The programs that unpack.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, UNIX_EPOCH},
};

use tempfile::TempDir;

use super::digest;

/// Prints the SHA-256 digests of all files that Python's zipfile and tarfile read without an error, a line for each
/// module and archive.
const PYTHON: &str = r"
import hashlib, io, sys, tarfile, zipfile

def in_zip(path):
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            yield archive.read(entry)

def in_tar(path):
    with tarfile.open(path) as archive:
        for entry in archive:
            if entry.isreg():
                yield archive.extractfile(entry).read()

for path in sys.stdin:
    for unpack in in_zip, in_tar:
        try:
            digests = [hashlib.sha256(content).hexdigest() for content in unpack(path.rstrip('\n'))]
        except Exception:
            digests = []
        print(*digests, flush=True)
";

/// What one program has extracted without an error.
pub(super) struct Extracted {
    pub(super) program: &'static str,
    pub(super) digests: BTreeSet<[u8; 32]>,
    /// Of these, the files with no other bytes than zeros.
    pub(super) holes: BTreeSet<[u8; 32]>,
}

/// A program that is started for each archive.
struct Extractor {
    program: &'static str,
    /// The arguments before the archive.
    arguments: &'static [&'static str],
    /// The argument before the directory, or the prefix of the argument with the directory.
    directory: OutputOption,
}

enum OutputOption {
    Argument(&'static str),
    Prefix(&'static str),
}

const EXTRACTORS: [Extractor; 3] = [
    Extractor {
        program: "unzip",
        arguments: &["-o", "-qq"],
        directory: OutputOption::Argument("-d"),
    },
    Extractor {
        program: "bsdtar",
        arguments: &["-x", "-f"],
        directory: OutputOption::Argument("-C"),
    },
    Extractor {
        program: "7zz",
        arguments: &["x", "-y", "-bd", "-p"],
        directory: OutputOption::Prefix("-o"),
    },
];

/// The commands that write archives, each without the archive and the files.
const WRITERS: [&[&str]; 23] = [
    &["7zz", "a", "-bd", "-tzip", "-mm=Copy"],
    &["7zz", "a", "-bd", "-tzip", "-mm=Deflate"],
    &["7zz", "a", "-bd", "-tzip", "-mm=Deflate64"],
    &["7zz", "a", "-bd", "-tzip", "-mm=BZip2"],
    &["7zz", "a", "-bd", "-tzip", "-mm=LZMA"],
    &["7zz", "a", "-bd", "-tzip", "-mm=PPMd:mem=1m"],
    &["7zz", "a", "-bd", "-t7z", "-mtm=off", "-m0=LZMA"],
    &["7zz", "a", "-bd", "-t7z", "-mtm=off", "-m0=LZMA2", "-ms=off"],
    &["7zz", "a", "-bd", "-t7z", "-mtm=off", "-m0=PPMd:mem=1m", "-mhc=off"],
    &["7zz", "a", "-bd", "-t7z", "-mtm=off", "-m0=BZip2"],
    &["7zz", "a", "-bd", "-t7z", "-mtm=off", "-m0=BCJ2", "-m1=LZMA:d1m", "-mb0s0:1"],
    &["bsdtar", "--format=newc", "-cf"],
    &["bsdtar", "--format=odc", "-cf"],
    &["bsdtar", "--format=bin", "-cf"],
    &["bsdtar", "--format=zip", "-cf"],
    &["bsdtar", "--format=ustar", "-cf"],
    &["bsdtar", "--format=pax", "-cf"],
    &["bsdtar", "--format=gnutar", "-cf"],
    &["bsdtar", "--format=v7", "-cf"],
    &["bsdtar", "--format=pax", "--options=gzip:!timestamp", "-czf"],
    &["bsdtar", "--format=gnutar", "-cjf"],
    &["bsdtar", "--format=gnutar", "-cJf"],
    &["bsdtar", "--format=iso9660", "-cf"],
];

/// The archive that bsdtar converts, and the command that writes it.
const ORIGINALS: &str = "originals.tar";
const ORIGINALS_WRITER: [&str; 12] = [
    "bsdtar",
    "--format=ustar",
    "-n",
    "--uid",
    "0",
    "--gid",
    "0",
    "--uname",
    "root",
    "--gname",
    "root",
    "-cf",
];

/// The programs that are installed, and a directory for them.
pub(super) struct Programs {
    extractors: Vec<Extractor>,
    python: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    directory: TempDir,
}

impl Programs {
    /// Starts Python. Returns `None`, and reports it, if a program is missing.
    pub(super) fn start() -> Option<Self> {
        for program in EXTRACTORS.iter().map(|extractor| extractor.program).chain(["python3"]) {
            if command(program).arg("--help").output().is_err() {
                mcs_testing::report_skipped("comparison with other unpackers", program);
                return None;
            }
        }
        let mut python = command("python3")
            .args(["-c", PYTHON])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let questions = python.stdin.take().unwrap();
        let answers = BufReader::new(python.stdout.take().unwrap());
        let directory = tempfile::tempdir().unwrap();
        Some(Self { extractors: EXTRACTORS.into(), python, questions, answers, directory })
    }

    /// Returns archives of the same files, which the programs write. The bytes are the same in each run.
    pub(super) fn write_archives(&self) -> Vec<Vec<u8>> {
        let files = self.directory.path().join("originals");
        write_files(&files);
        let archive = self.directory.path().join("written");
        let write = |writer: &[&str], contents: &[&str]| {
            let mut command = command(writer[0]);
            command.args(&writer[1..]).arg(&archive).args(contents);
            let output = command.current_dir(&files).stdin(Stdio::null()).output().unwrap();
            assert!(output.status.success(), "{writer:?}: {output:?}");
            // 7-Zip appends an extension to names without one.
            let extensions = ["zip", "7z"].map(|extension| archive.with_extension(extension));
            let mut written = [archive.clone()].into_iter().chain(extensions);
            let path = written.find(|path| path.exists()).unwrap();
            let bytes = fs::read(&path).unwrap();
            fs::remove_file(path).unwrap();
            bytes
        };
        // This archive has no time of access, and bsdtar writes no directory in the order of the file system.
        let names = ["a.txt", "noise.bin", "c", "c/text.txt", "c/empty"];
        fs::write(files.join(ORIGINALS), write(&ORIGINALS_WRITER, &names)).unwrap();
        let mut archives = Vec::new();
        for writer in WRITERS {
            let is_bsdtar = writer[0] == "bsdtar";
            let from_archive = [&format!("@{ORIGINALS}")[..]];
            let contents = if is_bsdtar { &from_archive[..] } else { &["a.txt", "noise.bin", "c"] };
            let mut bytes = write(writer, contents);
            if writer[1] == "--format=iso9660" {
                replace_date(&mut bytes);
            }
            archives.push(bytes);
        }
        archives
    }

    /// Unpacks an archive with all programs.
    pub(super) fn extract(&mut self, bytes: &[u8]) -> Vec<Extracted> {
        let archive = self.directory.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        let mut results: Vec<_> = self
            .extractors
            .iter()
            .map(|extractor| extractor.run(&archive, &self.directory.path().join("files")))
            .collect();
        writeln!(self.questions, "{}", archive.display()).unwrap();
        for program in ["zipfile", "tarfile"] {
            let mut line = String::new();
            self.answers.read_line(&mut line).unwrap();
            let digests = line.split_whitespace().map(from_hex).collect();
            results.push(Extracted { program, digests, holes: BTreeSet::new() });
        }
        results
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _exited = self.python.kill();
        let _status = self.python.wait();
    }
}

impl Extractor {
    fn run(&self, archive: &Path, directory: &Path) -> Extracted {
        fs::create_dir(directory).unwrap();
        // unzip does not end on some damaged archives.
        let mut extraction = command("timeout");
        extraction.args(["2", self.program]).args(self.arguments).arg(archive);
        match self.directory {
            OutputOption::Argument(option) => extraction.arg(option).arg(directory),
            OutputOption::Prefix(option) => {
                extraction.arg(format!("{option}{}", directory.display()))
            }
        };
        let output = extraction.stdin(Stdio::null()).output().unwrap();
        let program = self.program;
        let mut extracted = Extracted { program, digests: BTreeSet::new(), holes: BTreeSet::new() };
        if output.status.success() {
            add_files(directory, &mut extracted);
        }
        remove(directory);
        extracted
    }
}

/// Writes the files that are put into archives, with the same attributes in each run.
fn write_files(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let time = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    fs::create_dir_all(directory.join("c")).unwrap();
    let noise: Vec<u8> =
        (0..3000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for (name, content) in [
        ("a.txt", super::super::payload()),
        ("noise.bin", noise),
        ("c/text.txt", b"one line of text\n".repeat(200)),
        ("c/empty", Vec::new()),
    ] {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }
    let path = directory.join("c");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fs::File::open(path).unwrap().set_modified(time).unwrap();
}

/// Replaces the dates of today in an ISO image, which would make each run another one.
fn replace_date(image: &mut [u8]) {
    const ROOT_DATE: usize = 16 * 2048 + 156 + 18;
    // Of records, ECMA-119, section 9.1.5. Year, month and day.
    let today = image[ROOT_DATE..ROOT_DATE + 3].to_vec();
    for at in 0..image.len() - 7 {
        if image[at..].starts_with(&today) {
            image[at..at + 7].copy_from_slice(&[123, 11, 14, 0, 0, 0, 0]);
        }
    }
    // Of the primary and the Joliet volume, section 8.4.26.1.
    for sector in [16, 17] {
        let dates = sector * 2048 + 813;
        image[dates..dates + 4 * 17].fill(b'0');
    }
    // The version of libarchive, and the date.
    image[19 * 2048..20 * 2048].fill(0);
}

#[expect(clippy::disallowed_methods, reason = "not a program that the service starts")]
fn command(program: &str) -> Command {
    Command::new(program)
}

/// Adds all regular files below a directory. Does not follow links.
fn add_files(directory: &Path, extracted: &mut Extracted) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            add_files(&entry.path(), extracted);
        } else if kind.is_file() {
            // Archives can deny reading.
            if let Ok(content) = fs::read(entry.path()) {
                let digest = digest(&content);
                extracted.digests.insert(digest);
                if content.iter().all(|byte| *byte == 0) {
                    extracted.holes.insert(digest);
                }
            }
        }
    }
}

/// Removes extracted files, also from directories that the archive made read-only.
fn remove(directory: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if fs::remove_dir_all(directory).is_ok() {
        return;
    }
    let mut directories = vec![directory.to_owned()];
    while let Some(path) = directories.pop() {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let entries = fs::read_dir(&path).unwrap().map(Result::unwrap);
        directories.extend(
            entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()),
        );
    }
    fs::remove_dir_all(directory).unwrap();
}

fn from_hex(text: &str) -> [u8; 32] {
    std::array::from_fn(|index| u8::from_str_radix(&text[2 * index..2 * index + 2], 16).unwrap())
}
