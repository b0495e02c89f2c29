//! Configurations with a mistake each, in `tests/configurations`, and what `check-config` says about them.
//!
//! Beside each `NAME.toml`, `NAME.expected` begins with a line `exit CODE`, lines `env NAME=VALUE` and `mode FILE MODE`;
//! then follows, after an empty line, the output. It is the complete output if the configuration is invalid. For a valid
//! one, other lines may be between, since notes on the sandbox depend on the machine.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use crate::harness::scanner::{command, is_root, list_dir};

/// User who runs the program if the tests run as root, which is denied nothing.
const NOBODY: u32 = 65_534;

/// Minimum number of configurations that are rejected.
const MIN_REJECTED: usize = 100;

const SCRIPT: &str = "#!/bin/sh\nif grep -q EICAR-STANDARD \"$1\"; then exit 1; fi\n";
const KEY: &str = "FjA38iRQh4mH6ED7wa1Ba7O0tv4x+AtX2tVPgireeic=\n";

/// SHA-256 of the EICAR test file.
const HASH: &str = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f\n";

/// Files beside each configuration.
const FILES: [(&str, &str, u32); 9] = [
    ("scan.sh", SCRIPT, 0o755),
    ("key", KEY, 0o600),
    ("short-key", "FjA38iRQh4mH6ED7\n", 0o600),
    ("empty", "", 0o600),
    ("plain", "no secret, no list, no program\n", 0o600),
    ("hashes.txt", HASH, 0o644),
    ("broken.yar", "rule Broken { condition: tru }\n", 0o644),
    ("rules/any.yar", "rule Any { condition: false }\n", 0o644),
    ("jobs/key", KEY, 0o600),
];

/// A configuration, and what is expected of it.
struct Case {
    toml: PathBuf,
    exit: i32,
    variables: Vec<(String, String)>,
    modes: Vec<(String, u32)>,
    output: String,
}

impl Case {
    fn read(toml: PathBuf) -> Self {
        let expected = fs::read_to_string(toml.with_extension("expected")).expect("expected");
        let (header, output) = expected.split_once("\n\n").expect("an empty line");
        let mut case =
            Self { toml, exit: -1, variables: vec![], modes: vec![], output: output.to_owned() };
        for line in header.lines() {
            match line.split_once(' ').expect("a word and a value") {
                ("exit", code) => case.exit = code.parse().expect("a number"),
                ("env", text) => {
                    let (name, value) = text.split_once('=').expect("NAME=VALUE");
                    case.variables.push((name.to_owned(), value.to_owned()));
                }
                ("mode", text) => {
                    let (file, mode) = text.split_once(' ').expect("FILE MODE");
                    let mode = u32::from_str_radix(mode, 8).expect("a mode");
                    case.modes.push((file.to_owned(), mode));
                }
                (word, _) => panic!("{word} in {}", case.toml.display()),
            }
        }
        case
    }

    /// Returns a description of what differs from the expectation.
    fn check(&self) -> Option<String> {
        let directory = tempfile::Builder::new().prefix("mcstest-").tempdir().expect("directory");
        self.prepare(directory.path());
        let mut command = command();
        command.arg("-c").arg(directory.path().join("config.toml"));
        command.args(["check-config", "--offline"]).current_dir(directory.path());
        command.envs(self.variables.iter().cloned());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let result = command.output().expect("run program");
        // The log of engines that cannot be reached is on standard error.
        let log = if self.exit == 0 { vec![] } else { result.stderr };
        let text = String::from_utf8([result.stdout, log].concat()).expect("UTF-8");
        let output = without_user(&text.replace(directory.path().to_str().unwrap(), "DIR"));
        let is_expected = if self.exit == 0 {
            let lines: BTreeSet<_> = output.lines().collect();
            self.output.lines().all(|line| lines.contains(line))
                && output.lines().last() == Some("OK")
        } else {
            output == self.output
        };
        let code = result.status.code();
        (!is_expected || code != Some(self.exit)).then(|| {
            format!(
                "{}: exit code {code:?}, expected {}\n{output}--- expected:\n{}",
                self.toml.display(),
                self.exit,
                self.output
            )
        })
    }

    fn prepare(&self, directory: &Path) {
        for name in ["jobs", "temp", "rules", "a b"] {
            fs::create_dir(directory.join(name)).expect("directory");
            set_mode(&directory.join(name), 0o755);
        }
        for (name, content, mode) in FILES {
            fs::write(directory.join(name), content).expect("file");
            set_mode(&directory.join(name), mode);
        }
        fs::copy(&self.toml, directory.join("config.toml")).expect("copy");
        if is_root() {
            give_away(directory);
        }
        for (name, mode) in &self.modes {
            set_mode(&directory.join(name), *mode);
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
}

fn give_away(path: &Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).expect("chown");
    for entry in list_dir(path) {
        give_away(&entry);
    }
}

/// Replaces the name and number of the user in errors of permission.
fn without_user(output: &str) -> String {
    let words = |line: &str| match line.split_once(" by ") {
        Some((before, rest)) if rest.contains("uid ") => {
            let end = rest.find(": ").expect("an error follows");
            format!("{before} by USER{}\n", &rest[end..])
        }
        _ => format!("{line}\n"),
    };
    output.lines().map(words).collect()
}

#[test]
fn messages_name_place_mistake_and_remedy() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configurations");
    let mut files = list_dir(&directory);
    files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    let cases: Vec<_> = files.into_iter().map(Case::read).collect();
    let rejected = cases.iter().filter(|case| case.exit != 0).count();
    assert!(rejected >= MIN_REJECTED, "only {rejected} configurations are rejected");
    let (queue, differences) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().next();
                    let Some(case) = next else { break };
                    differences.lock().unwrap().extend(case.check());
                }
            });
        }
    });
    let differences = differences.into_inner().unwrap();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
