//! The sources of the configuration: one TOML file, and variables named `MCS_<SECTION>__<KEY>` that
//! override single keys; below both, the defaults. Passes the entries to the [`Reader`] without interpreting them.

use std::{
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
    problem::{Location, Problem},
    reader::{KeyPath, PassedDirectories, RawEntry, Reader},
};
use crate::identity::denied_user;

const PREFIX: &str = "MCS_";

/// The lowest layer.
const DEFAULTS: &str = include_str!("../../config/default.toml");

/// Keys that `DEFAULTS` sets only so that it works in a fresh checkout. They have no default.
pub(super) const WITHOUT_DEFAULT: [KeyPath; 3] =
    [("rules", "paths"), ("crypto", "request_secret_path"), ("crypto", "generate")];

/// Variable with the directory of the credentials set by `LoadCredential=`. systemd.exec(5), "Credentials".
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// Variable with the directories of `StateDirectory=`, separated by colons. systemd.exec(5).
const STATE: &str = "STATE_DIRECTORY";

/// Variable with the directories of `RuntimeDirectory=`, separated by colons. systemd.exec(5).
const RUNTIME: &str = "RUNTIME_DIRECTORY";

/// Maximum size of the file, in bytes, so that a wrong path does not fill the memory.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// Maximum number of reported syntax errors; a file with more is usually the wrong file.
const MAX_SYNTAX_ERRORS: usize = 10;

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
        let text = Zeroizing::new(fs::read_to_string(path)?);
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
            let problem = |error: &toml::de::Error| Problem {
                location: self.location(&error.span().unwrap_or(0..0)),
                key: None,
                // `Display` would print the line, which may contain a secret.
                message: format!("not valid TOML: {}", error.message()),
            };
            return Err(errors.iter().take(MAX_SYNTAX_ERRORS).map(problem).collect());
        }
        for (section, value) in table.into_inner() {
            let location = self.location(&section.span());
            let section = section.into_inner();
            let DeValue::Table(entries) = value.into_inner() else {
                reader.outside_any_section(location, &section);
                continue;
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

    fn location(&self, span: &Range<usize>) -> Location {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Location::Line {
            file: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl Variable {
    fn parse_into<'a>(&'a self, reader: &mut Reader<'a>, base: &'a Path) {
        let location = Location::Environment(self.name.clone());
        let path = self.name.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        let Some((section, key)) = path.split_once("__") else {
            reader.misnamed(location, &path);
            return;
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
