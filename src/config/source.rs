//! The sources of the configuration: one TOML file, and variables named `MCS_<SECTION>__<KEY>` that
//! override single keys; below both, the defaults. Passes the entries to the [`Reader`] without interpreting them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    ops::Range,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use mcs_sandbox::User;
use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::{
    duplicates::{self, Duplicate},
    format,
    problem::{Location, Problem},
    reader::{KeyPath, PassedDirectories, RawEntry, Reader},
    service_links::is_service_link,
    syntax,
};
use crate::identity::denied_user;

const PREFIX: &str = "MCS_";

/// The lowest layer.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Keys that `DEFAULTS` sets only so that it works in a fresh checkout. They have no default.
pub(super) const WITHOUT_DEFAULT: [KeyPath; 3] =
    [("rules", "paths"), ("crypto", "request_secret_path"), ("crypto", "generate")];

/// Key of the tables `[[notify]]`: each of them is an element of its list.
const TARGETS: KeyPath = ("notify", "targets");

/// Variable with the directory of the credentials set by `LoadCredential=`. systemd.exec(5), "Credentials".
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Variable with the directories of `StateDirectory=`, separated by colons. systemd.exec(5).
const STATE: &str = "STATE_DIRECTORY";

/// Variable with the directories of `RuntimeDirectory=`, separated by colons. systemd.exec(5).
const RUNTIME: &str = "RUNTIME_DIRECTORY";

/// Maximum size of the file, in bytes, so that a wrong path does not fill the memory.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// Maximum number of reported syntax errors; a file with more is usually the wrong file.
const MAX_SYNTAX_ERRORS: usize = 5;

/// The text of all sources. Parsed values borrow from it, so that secrets exist once, in memory that is
/// zeroed on drop.
pub(super) struct Sources {
    file: Option<File>,
    environment: Vec<Variable>,
    passed: PassedDirectories,
    current_directory: PathBuf,
}

struct File {
    path: Arc<Path>,
    /// Directory that relative paths in the file are resolved against.
    directory: PathBuf,
    text: Zeroizing<String>,
}

struct Variable {
    name: String,
    text: Zeroizing<String>,
}

impl Sources {
    /// Reads the file and the variables.
    ///
    /// # Errors
    /// Returns a problem for each source that cannot be read.
    pub(super) fn collect(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem =
            |location, message| problems.push(Problem { location, key: None, message });

        let file = file.and_then(|path| match File::read(path) {
            Ok(file) => Some(file),
            Err(error) => {
                problem(
                    Location::File(path.into()),
                    format!("cannot be read{}: {error}", denied_user(&error)),
                );
                None
            }
        });
        let (mut variables, mut passed) = (Vec::new(), PassedDirectories::default());
        for (name, text) in environment {
            if name == CREDENTIALS {
                passed.credentials = Some(text.into());
                continue;
            }
            if name == STATE || name == RUNTIME {
                let first = text.as_encoded_bytes().split(|byte| *byte == b':').next();
                let first = first.filter(|first| !first.is_empty());
                let directory = if name == STATE { &mut passed.state } else { &mut passed.runtime };
                *directory = first.map(|first| OsStr::from_bytes(first).into());
                continue;
            }
            let name = name.to_string_lossy();
            if !name.starts_with(PREFIX) {
                continue;
            }
            let name = name.into_owned();
            if let Ok(text) = text.into_string() {
                variables.push(Variable { name, text: Zeroizing::new(text) });
            } else {
                problem(Location::Environment(name), "not valid UTF-8".into());
            }
        }
        // Gives problems the same order on every start.
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        if problems.is_empty() {
            let current_directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
            Ok(Self { file, environment: variables, passed, current_directory })
        } else {
            Err(problems)
        }
    }

    /// Creates sources from the text of a file in `directory`, without variables.
    pub(super) fn from_text(text: &str, directory: &Path) -> Self {
        let file = File {
            path: directory.into(),
            directory: directory.into(),
            text: Zeroizing::new(text.to_owned()),
        };
        Self {
            file: Some(file),
            environment: Vec::new(),
            passed: PassedDirectories::default(),
            current_directory: directory.into(),
        }
    }

    /// Parses the sources, for a service that runs as `server`.
    ///
    /// # Errors
    /// Returns the syntax errors of the file. Nothing else is validated in that case, since the rest of the
    /// file is often misparsed.
    pub(super) fn parse(&self, server: User) -> Result<Reader<'_>, Vec<Problem>> {
        let location =
            self.file.as_ref().map_or(Location::Defaults, |file| Location::File(file.path.clone()));
        let mut reader = Reader::new(location, &self.passed, server);
        insert_defaults(&mut reader);
        if let Some(file) = &self.file {
            file.parse_into(&mut reader)?;
        }
        for variable in &self.environment {
            variable.parse_into(&mut reader, &self.current_directory);
        }
        Ok(reader)
    }
}

fn insert_defaults(reader: &mut Reader<'_>) {
    // A test loads the file without errors.
    let (sections, _) = DeTable::parse_recoverable(DEFAULTS);
    for (section, keys) in sections.into_inner() {
        let DeValue::Table(keys) = keys.into_inner() else { continue };
        for (key, value) in keys {
            if !WITHOUT_DEFAULT.contains(&(section.get_ref(), key.get_ref())) {
                reader.insert_default(section.get_ref(), key.get_ref(), value.into_inner());
            }
        }
    }
}

impl File {
    fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        if metadata.len() > MAX_FILE_SIZE {
            return Err(io::Error::other("too large for a configuration file"));
        }
        let text = decode(Zeroizing::new(fs::read(path)?))?;
        // The parent of the path as given: the files of a mounted `ConfigMap` are links into directories
        // that are replaced.
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(Self { path: path.into(), directory: directory.canonicalize()?, text })
    }

    fn parse_into<'a>(&'a self, reader: &mut Reader<'a>) -> Result<(), Vec<Problem>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        if !errors.is_empty() {
            return Err(self.syntax_problems(&errors));
        }
        for (section, value) in table.into_inner() {
            let location = self.location(&section.span());
            let section = section.into_inner();
            let entries = match value.into_inner() {
                DeValue::Table(entries) => entries,
                DeValue::Array(tables) if section == TARGETS.0 => {
                    reader.open(&section, location.clone());
                    let value = Some(DeValue::Array(tables));
                    let entry = RawEntry { value, raw: None, base: &self.directory, location };
                    reader.insert(TARGETS.0, TARGETS.1, entry);
                    continue;
                }
                other => {
                    reader.outside_any_section(location, &section, &other);
                    continue;
                }
            };
            reader.open(&section, location);
            for (key, value) in entries {
                let entry = RawEntry {
                    value: Some(value.into_inner()),
                    raw: None,
                    base: &self.directory,
                    location: self.location(&key.span()),
                };
                reader.insert(&section, &key.into_inner(), entry);
            }
        }
        Ok(())
    }

    /// Returns the first problem of each line, since the others usually follow from it.
    fn syntax_problems(&self, errors: &[toml::de::Error]) -> Vec<Problem> {
        if let Some(message) = syntax::other_format(&self.text) {
            return vec![Problem { location: self.location(&(0..0)), key: None, message }];
        }
        let mut by_line = BTreeMap::new();
        let mut errors: Vec<_> =
            errors.iter().map(|error| (error.span().unwrap_or(0..0), error)).collect();
        errors.sort_by_key(|(span, _)| span.start);
        for (span, error) in errors {
            let problem = by_line.entry(self.line(span.start));
            problem.or_insert_with(|| self.syntax_problem(error.message(), &span));
        }
        by_line.into_values().take(MAX_SYNTAX_ERRORS).collect()
    }

    fn syntax_problem(&self, error: &str, span: &Range<usize>) -> Problem {
        let duplicate = (error == "duplicate key").then(|| duplicates::find(&self.text, span));
        let (key, message) = match duplicate.flatten() {
            Some(Duplicate { path, first, is_table }) => {
                let key = path.iter().map(|name| format::key(name)).collect::<Vec<_>>().join(".");
                let line = self.line(first.start);
                let expected = if is_table {
                    format!("all its keys below one line [{key}]")
                } else {
                    "it once".to_owned()
                };
                let message =
                    format!("found a second time, first in line {line}; expected {expected}");
                (Some(key), message)
            }
            // `Display` would print the line, which may contain a secret.
            None => (None, syntax::explain(error, self.text.get(span.start..).unwrap_or_default())),
        };
        Problem { location: self.location(span), key, message }
    }

    /// Returns the number of the line at this position, from 1.
    fn line(&self, position: usize) -> usize {
        self.text.get(..position).unwrap_or_default().matches('\n').count() + 1
    }

    fn location(&self, span: &Range<usize>) -> Location {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Location::Line {
            file: self.path.clone(),
            line: self.line(span.start),
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// Returns the content of a file as text.
fn decode(mut bytes: Zeroizing<Vec<u8>>) -> io::Result<Zeroizing<String>> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        let message = "UTF-16, expected UTF-8: iconv -f UTF-16 -t UTF-8 OLD > NEW converts it";
        return Err(io::Error::other(message));
    }
    if let Err(error) = str::from_utf8(&bytes) {
        let (before, rest) = bytes.split_at(error.valid_up_to());
        let line = before.split(|byte| *byte == b'\n').count();
        let found = rest.first().copied().unwrap_or_default();
        return Err(io::Error::other(format!(
            "line {line} contains the byte 0x{found:02X}, which is not UTF-8: \
             iconv -f ISO-8859-1 -t UTF-8 OLD > NEW converts Latin-1"
        )));
    }
    if bytes.contains(&0) {
        let before = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let message =
            format!("line {line} contains a NUL byte, so the file is damaged or not a text");
        return Err(io::Error::other(message));
    }
    // The bytes were checked; this takes them without a copy.
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(io::Error::other)
}

impl Variable {
    fn parse_into<'a>(&'a self, reader: &mut Reader<'a>, base: &'a Path) {
        let location = Location::Environment(self.name.clone());
        let path = self.name.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        if is_service_link(&self.name, &self.text) {
            return reader.service_link(&self.name);
        }
        let Some((section, key)) = path.split_once("__") else {
            return reader.misnamed(location, &path);
        };
        // `MCS_WEB__PORT=8081` is a number. `MCS_SCAN__SCRIPT=/opt/scan.sh` is not valid TOML, hence a string.
        let value = match DeValue::parse(&self.text) {
            Ok(value) => value.into_inner(),
            Err(_) => DeValue::String(self.text.as_str().into()),
        };
        let value = (!self.text.is_empty()).then_some(value);
        reader.insert(section, key, RawEntry { value, raw: Some(&self.text), base, location });
    }
}
