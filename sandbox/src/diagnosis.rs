//! Why a program could not be executed, in words that somebody can act on: execve(2) has one answer for a script that is not
//! there, one whose interpreter is not, and one that ends its first line as Windows does. Looked at after it failed, by the
//! server, so it may be wrong where files change meanwhile; the kernel's answer is told beside it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::policy::Policy;
use crate::view::View;

/// `BINPRM_BUF_SIZE`, of which the kernel reads the interpreter.
const FIRST_LINE: u64 = 256;

/// The kernel's answer with what explains it.
pub(crate) fn explained(
    program: &Path,
    policy: &Policy,
    job: &Path,
    answer: io::Error,
) -> io::Error {
    let view = View { network: policy.network.clone(), paths: policy.paths.clone() };
    match why(program, &view, job) {
        Some(why) => io::Error::new(answer.kind(), format!("{why}: {answer}")),
        None => answer,
    }
}

fn why(program: &Path, view: &View, job: &Path) -> Option<String> {
    let name = program.display();
    if !program.is_absolute() {
        return Some(format!("no directory of PATH has {name}"));
    }
    let Ok(metadata) = program.metadata() else { return Some(format!("{name} does not exist")) };
    if !metadata.is_file() {
        return Some(format!("{name} is not a file"));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Some(format!("{name} is not executable (chmod +x)"));
    }
    let hidden = |path: &Path| {
        let real = path.canonicalize().ok()?;
        let shown = view.shows(path, false, job) && view.shows(&real, false, job);
        (!shown)
            .then(|| format!("{} is not in the sandbox (sandbox.read_only_paths)", path.display()))
    };
    // One that the server cannot read either is told by the kernel alone.
    let first = first_line(program).ok()?;
    let Some(interpreter) = first.strip_prefix(b"#!") else {
        let neither = || {
            format!(
                "{name} has no #! and interpreter in its first line, and is no compiled program"
            )
        };
        return hidden(program).or_else(|| (!first.starts_with(b"\x7fELF")).then(neither));
    };
    if interpreter.ends_with(b"\r") {
        return Some(format!("the first line of {name} ends in a carriage return, as on Windows"));
    }
    let words = interpreter.trim_ascii().split(u8::is_ascii_whitespace);
    let interpreter = words.into_iter().next().filter(|word| !word.is_empty());
    let Some(interpreter) = interpreter else {
        return Some(format!("{name} names no interpreter after #!"));
    };
    let interpreter = Path::new(OsStr::from_bytes(interpreter));
    if !interpreter.exists() {
        let interpreter = interpreter.display();
        return Some(format!("{interpreter}, the interpreter of {name}, does not exist"));
    }
    hidden(interpreter).or_else(|| hidden(program))
}

fn first_line(program: &Path) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    BufReader::new(File::open(program)?.take(FIRST_LINE)).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;
    use crate::policy::{Network, Paths};

    #[test]
    fn what_keeps_a_program_from_being_executed_is_found() {
        let directory = std::env::temp_dir().join(format!("mcs-diagnosis-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let script = directory.join("script");
        let view = |shown: bool| View {
            network: Network::None,
            paths: Paths {
                read_only: shown.then(|| directory.clone()).into_iter().collect(),
                ..Paths::default()
            },
        };
        let told = |content: &str, mode: u32, shown: bool| {
            fs::write(&script, content).unwrap();
            fs::set_permissions(&script, Permissions::from_mode(mode)).unwrap();
            why(&script, &view(shown), Path::new("/job")).unwrap_or_default()
        };
        for (content, mode, shown, expected) in [
            ("#!/bin/sh\n", 0o644, true, "is not executable (chmod +x)"),
            ("#!/bin/sh\r\nexit\r\n", 0o755, true, "ends in a carriage return"),
            ("#!/nowhere/python -u\n", 0o755, true, "/nowhere/python, the interpreter of "),
            ("#!  \n", 0o755, true, "names no interpreter"),
            ("exit 0\n", 0o755, true, "has no #! and interpreter in its first line"),
            ("", 0o755, true, "has no #! and interpreter in its first line"),
            ("#!/bin/sh\n", 0o755, false, "script is not in the sandbox (sandbox.read_only_paths)"),
            ("#!/etc/shadow\n", 0o755, true, "/etc/shadow is not in the sandbox"),
        ] {
            let said = told(content, mode, shown);
            assert!(said.contains(expected), "{content:?} {mode:o}: {said:?}");
        }
        assert_eq!(told("#!/bin/sh\n", 0o755, true), "");
        assert_eq!(told("\x7fELF", 0o755, true), "");
        fs::remove_dir_all(&directory).unwrap();

        let absent = |path: &str| why(Path::new(path), &view(true), Path::new("/job")).unwrap();
        assert!(absent("/nowhere/script").ends_with("does not exist"));
        assert!(absent("/usr").ends_with("is not a file"));
        assert!(absent("nowhere").starts_with("no directory of PATH"));
    }
}
