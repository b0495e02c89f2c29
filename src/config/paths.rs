//! Parsers for paths. Relative paths are resolved against the directory of the configuration file (in a
//! variable, against the current directory); the results are absolute.
//!
//! Symbolic links are resolved in the parent directory, but not in the last component: `/bin/grep` may
//! link to busybox, which depends on the name, and a mounted `ConfigMap` changes its links' targets.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};
use toml::de::DeValue;

use super::{
    format,
    key::Key,
    problem::InvalidValue,
    types,
    value::{ParseResult, RawValue},
};
use crate::identity::denied_user;

/// Scripts may use the path unquoted, so a shell must parse it as one word.
const TEMP_DIRECTORY_CHARACTERS: &str = "[A-Za-z0-9._/-]";

/// Declares a key with a path; `parse` is one of the functions of this module.
pub(super) fn key(parse: fn(RawValue<'_>) -> ParseResult<PathBuf>) -> Key<PathBuf> {
    Key::new(parse, |path: &PathBuf| format::path(path))
}

/// Parses a path, which need not exist.
pub(super) fn path(value: RawValue<'_>) -> ParseResult<PathBuf> {
    let text = types::parse_text(value).or_else(|_| value.invalid("a path"))?;
    if text.is_empty() {
        return value.invalid("a path");
    }
    let path = value.base.join(text);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        // `/` and `..` have no file name.
        return Ok(path.canonicalize().unwrap_or(path));
    };
    Ok(parent.canonicalize().map_or_else(|_| path.clone(), |parent| parent.join(name)))
}

/// Parses the path of a Unix socket, which may follow `unix:` or `unix://`.
pub(super) fn socket(value: RawValue<'_>) -> ParseResult<PathBuf> {
    let path_text = value.text().and_then(|text| text.strip_prefix("unix:"));
    let Some(text) = path_text else { return path(value) };
    let text = text.strip_prefix("//").unwrap_or(text);
    let toml = DeValue::String(text.into());
    // Without a path, the error names the whole value.
    path(RawValue { toml: &toml, raw: None, base: value.base }).or_else(|_| value.invalid("a path"))
}

/// Parses the path of a program: a regular file with an execute permission bit.
pub(super) fn program(value: RawValue<'_>) -> ParseResult<PathBuf> {
    const EXPECTED: &str = "the path of an executable file";
    let path = path(value).or_else(|_| value.invalid(EXPECTED))?;
    if let Some(name) = program_of_command(&path) {
        let found = format!("is not a file, while {} is", format::path(&name));
        return invalid(&path, &found, "the program alone; its arguments belong in a separate key");
    }
    let metadata = stat(&path, EXPECTED)?;
    if !metadata.is_file() {
        return invalid(&path, "is not a regular file", EXPECTED);
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return invalid(&path, "is not executable (chmod +x)", EXPECTED);
    }
    Ok(path)
}

/// Returns the program if the path is a command line with arguments.
fn program_of_command(path: &Path) -> Option<PathBuf> {
    let (name, _arguments) = path.to_str()?.split_once(' ')?;
    let name = PathBuf::from(name);
    (!path.exists() && name.is_file()).then_some(name)
}

/// Parses the path of a readable regular file.
pub(super) fn file(value: RawValue<'_>) -> ParseResult<PathBuf> {
    const EXPECTED: &str = "the path of a readable file";
    let path = path(value).or_else(|_| value.invalid(EXPECTED))?;
    if !stat(&path, EXPECTED)?.is_file() {
        return invalid(&path, "is not a regular file", EXPECTED);
    }
    match fs::File::open(&path) {
        Ok(_) => Ok(path),
        Err(error) => {
            invalid(&path, &format!("is not readable{}: {error}", denied_user(&error)), EXPECTED)
        }
    }
}

/// Parses the path of a file that exists or can be created: its parent directory exists.
pub(super) fn file_to_write(value: RawValue<'_>) -> ParseResult<PathBuf> {
    const EXPECTED: &str = "the path of a file in an existing directory";
    let path = path(value).or_else(|_| value.invalid(EXPECTED))?;
    match path.parent() {
        Some(folder) if folder.is_dir() => {}
        _ => return invalid(&path, "has no existing parent directory", EXPECTED),
    }
    if path.is_dir() {
        return invalid(&path, "is a directory", EXPECTED);
    }
    Ok(path)
}

/// Returns the path as written, with its symbolic links, absolute where the configuration file's directory is.
pub(super) fn as_written(value: RawValue<'_>) -> ParseResult<PathBuf> {
    types::parse_text(value).map(|text| value.base.join(text))
}

/// Parses the path of a writable directory for jobs, with all symbolic links resolved: scripts see this
/// path.
pub(super) fn temp_directory(value: RawValue<'_>) -> ParseResult<PathBuf> {
    const EXPECTED: &str = "the path of a writable directory";
    let path = path(value).or_else(|_| value.invalid(EXPECTED))?;
    if !stat(&path, EXPECTED)?.is_dir() {
        return invalid(&path, "is not a directory", EXPECTED);
    }
    let path = match path.canonicalize() {
        Ok(path) => path,
        Err(error) => return invalid(&path, &error.to_string(), EXPECTED),
    };
    if !is_one_word(&path) {
        return invalid(
            &path,
            "contains other characters",
            &format!("only {TEMP_DIRECTORY_CHARACTERS}, since scripts may use the path unquoted"),
        );
    }
    match access(&path, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(path),
        Err(errno) => {
            let error = io::Error::from(errno);
            invalid(&path, &format!("is not writable{}: {error}", denied_user(&error)), EXPECTED)
        }
    }
}

fn is_one_word(path: &Path) -> bool {
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(byte))
}

fn stat(path: &Path, expected: &str) -> ParseResult<Metadata> {
    fs::metadata(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => invalid(path, "does not exist", expected),
        _ => {
            invalid(path, &format!("cannot be accessed{}: {error}", denied_user(&error)), expected)
        }
    })
}

/// Returns an error with the absolute path, since a relative path may resolve to an unexpected one.
fn invalid<T>(path: &Path, reason: &str, expected: &str) -> ParseResult<T> {
    Err(InvalidValue::single(format!("{}, which {reason}", format::path(path)), expected))
}
