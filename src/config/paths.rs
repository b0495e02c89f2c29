//! Paths: relative ones start from the folder of the file that names them (from the current folder
//! in a variable), and final ones are absolute.
//!
//! A path's folder is resolved, its last name is not: `/bin/grep` may be a link to busybox, which
//! looks at its name, and a mounted `ConfigMap` swaps what its links lead to.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

use super::{
    kinds,
    problem::Wrong,
    reader::{Parsed, Value},
    show,
};
use crate::identity::by;

/// What scripts leave unquoted must be one word to a shell.
const TEMP_DIRECTORY_CHARACTERS: &str = "[A-Za-z0-9._/-]";

/// Any path; nothing needs to be there.
pub(super) fn path(value: Value<'_>) -> Parsed<PathBuf> {
    let text = kinds::text(value).or_else(|_| value.wrong("a path"))?;
    if text.is_empty() {
        return value.wrong("a path");
    }
    let path = value.base.join(text);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        // `/` and `..` have no last name of their own.
        return Ok(path.canonicalize().unwrap_or(path));
    };
    Ok(parent.canonicalize().map_or_else(|_| path.clone(), |parent| parent.join(name)))
}

/// A program: a regular file that someone may execute.
pub(super) fn program(value: Value<'_>) -> Parsed<PathBuf> {
    const EXPECTED: &str = "the path of an executable file";
    let path = path(value).or_else(|_| value.wrong(EXPECTED))?;
    if let Some(name) = program_of_a_command(&path) {
        let found = format!("is no file, while {} is one", show::path(&name));
        return wrong(&path, &found, "the program alone; its arguments have a key of their own");
    }
    let metadata = stat(&path, EXPECTED)?;
    if !metadata.is_file() {
        return wrong(&path, "is not a regular file", EXPECTED);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return wrong(&path, "is not executable (chmod +x)", EXPECTED);
    }
    Ok(path)
}

/// The program, where a whole command was written.
fn program_of_a_command(path: &Path) -> Option<PathBuf> {
    let (name, _arguments) = path.to_str()?.split_once(' ')?;
    let name = PathBuf::from(name);
    (!path.exists() && name.is_file()).then_some(name)
}

/// A regular file that can be read.
pub(super) fn file(value: Value<'_>) -> Parsed<PathBuf> {
    const EXPECTED: &str = "the path of a readable file";
    let path = path(value).or_else(|_| value.wrong(EXPECTED))?;
    if !stat(&path, EXPECTED)?.is_file() {
        return wrong(&path, "is not a regular file", EXPECTED);
    }
    match fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => wrong(&path, &format!("cannot be read{}: {error}", by(&error)), EXPECTED),
    }
}

/// A file that may be made: its folder is there, and it is nothing else.
pub(super) fn file_to_write(value: Value<'_>) -> Parsed<PathBuf> {
    const EXPECTED: &str = "the path of a file in a folder that exists";
    let path = path(value).or_else(|_| value.wrong(EXPECTED))?;
    match path.parent() {
        Some(folder) if folder.is_dir() => {}
        _ => return wrong(&path, "has no folder to lie in", EXPECTED),
    }
    if path.is_dir() {
        return wrong(&path, "is a directory", EXPECTED);
    }
    Ok(path)
}

/// The path as it was written, links and all, and absolute where the file's folder is.
pub(super) fn as_written(value: Value<'_>) -> Parsed<PathBuf> {
    kinds::text(value).map(|text| value.base.join(text))
}

/// A directory that jobs can live in. Resolved to its end: this is the path that scripts see.
pub(super) fn temp_directory(value: Value<'_>) -> Parsed<PathBuf> {
    const EXPECTED: &str = "the path of a writable directory";
    let path = path(value).or_else(|_| value.wrong(EXPECTED))?;
    if !stat(&path, EXPECTED)?.is_dir() {
        return wrong(&path, "is not a directory", EXPECTED);
    }
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) => return wrong(&path, &error.to_string(), EXPECTED),
    };
    if !is_one_word(&path) {
        return wrong(
            &path,
            "has other characters",
            &format!("only {TEMP_DIRECTORY_CHARACTERS} in it, since scripts may leave it unquoted"),
        );
    }
    match access(&path, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(path),
        Err(errno) => {
            let error = io::Error::from(errno);
            wrong(&path, &format!("cannot be written{}: {error}", by(&error)), EXPECTED)
        }
    }
}

fn is_one_word(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(byte))
}

fn stat(path: &Path, expected: &str) -> Parsed<Metadata> {
    fs::metadata(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => wrong(path, "does not exist", expected),
        _ => wrong(path, &format!("cannot be looked at{}: {error}", by(&error)), expected),
    })
}

/// With the path in full: what a relative one came to is often the mistake.
fn wrong<T>(path: &Path, what: &str, expected: &str) -> Parsed<T> {
    Err(Wrong::one(format!("{}, which {what}", show::path(path)), expected))
}
