//! Explains why a program could not be executed. execve(2) reports the same error for a missing script, for a missing
//! interpreter and for a first line that ends in a carriage return. The server inspects the files after the failure, so
//! the explanation may be wrong if files change in between; the kernel's error is reported with it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::policy::Policy;
use crate::view::View;

/// `BINPRM_BUF_SIZE`: bytes of a script in which the kernel looks for the interpreter line.
const FIRST_LINE: u64 = 256;

/// Returns the kernel's error, with an explanation if one was found.
pub(crate) fn explain_exec_error(
    program: &Path,
    policy: &Policy,
    job: &Path,
    error: io::Error,
) -> io::Error {
    let view = View { network: policy.network.clone(), paths: policy.paths.clone() };
    match explanation(program, &view, job) {
        Some(explanation) => io::Error::new(error.kind(), format!("{explanation}: {error}")),
        None => error,
    }
}

fn explanation(program: &Path, view: &View, job: &Path) -> Option<String> {
    let name = program.display();
    if !program.is_absolute() {
        return Some(format!("{name} was not found in PATH"));
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
    // If the server cannot read the file, the kernel's error stands alone.
    let first = first_line(program).ok()?;
    let Some(interpreter) = first.strip_prefix(b"#!") else {
        let unrecognised = || {
            format!("{name} is neither a compiled program nor starts with #! and an interpreter")
        };
        return hidden(program).or_else(|| (!first.starts_with(b"\x7fELF")).then(unrecognised));
    };
    if interpreter.ends_with(b"\r") {
        return Some(format!(
            "the first line of {name} ends in a carriage return (Windows line ending)"
        ));
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
    use crate::policy::{NetworkAccess, Paths};

    #[test]
    fn explains_why_program_cannot_be_executed() {
        let directory = std::env::temp_dir().join(format!("mcs-diagnosis-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let script = directory.join("script");
        let view = |shown: bool| View {
            network: NetworkAccess::None,
            paths: Paths {
                read_only: shown.then(|| directory.clone()).into_iter().collect(),
                ..Paths::default()
            },
        };
        let explain = |content: &str, mode: u32, shown: bool| {
            fs::write(&script, content).unwrap();
            fs::set_permissions(&script, Permissions::from_mode(mode)).unwrap();
            explanation(&script, &view(shown), Path::new("/job")).unwrap_or_default()
        };
        for (content, mode, shown, expected) in [
            ("#!/bin/sh\n", 0o644, true, "is not executable (chmod +x)"),
            ("#!/bin/sh\r\nexit\r\n", 0o755, true, "ends in a carriage return"),
            ("#!/nowhere/python -u\n", 0o755, true, "/nowhere/python, the interpreter of "),
            ("#!  \n", 0o755, true, "names no interpreter"),
            ("exit 0\n", 0o755, true, "nor starts with #!"),
            ("", 0o755, true, "nor starts with #!"),
            ("#!/bin/sh\n", 0o755, false, "script is not in the sandbox (sandbox.read_only_paths)"),
            ("#!/etc/shadow\n", 0o755, true, "/etc/shadow is not in the sandbox"),
        ] {
            let found = explain(content, mode, shown);
            assert!(found.contains(expected), "{content:?} {mode:o}: {found:?}");
        }
        assert_eq!(explain("#!/bin/sh\n", 0o755, true), "");
        assert_eq!(explain("\x7fELF", 0o755, true), "");
        fs::remove_dir_all(&directory).unwrap();

        let explain_missing =
            |path: &str| explanation(Path::new(path), &view(true), Path::new("/job")).unwrap();
        assert!(explain_missing("/nowhere/script").ends_with("does not exist"));
        assert!(explain_missing("/usr").ends_with("is not a file"));
        assert!(explain_missing("nowhere").ends_with("was not found in PATH"));
    }
}
