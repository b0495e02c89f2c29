//! Where the configuration is written: one TOML file, and variables named `MCS_<SECTION>__<KEY>`
//! that replace single keys of it. Knows no key; what it finds goes to the [`Reader`].

use std::{
    ffi::OsString,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use toml::de::{DeTable, DeValue};
use zeroize::Zeroizing;

use super::{
    problem::{Place, Problem},
    reader::{Entry, Reader},
};
use crate::identity::by;

const PREFIX: &str = "MCS_";

/// Where systemd puts what `LoadCredential=` names. systemd.exec(5), "Credentials".
const CREDENTIALS: &str = "CREDENTIALS_DIRECTORY";

/// A configuration is a page or two; this keeps a wrong path from being read into memory.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// A file with much wrong is mostly not the file that was meant.
const MAX_SYNTAX_ERRORS: usize = 10;

/// All that was written, as text. Values borrow from it, so that secrets are held once, in memory
/// that is wiped.
pub(super) struct Sources {
    file: Option<File>,
    environment: Vec<Variable>,
    credentials: Option<PathBuf>,
    current_directory: PathBuf,
}

struct File {
    path: Arc<Path>,
    /// The folder that relative paths in it start from.
    directory: PathBuf,
    text: Zeroizing<String>,
}

struct Variable {
    name: String,
    text: Zeroizing<String>,
}

impl Sources {
    /// Reads everything; what cannot be read is a problem.
    pub(super) fn gather(
        file: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut problem = |place, message| problems.push(Problem { place, key: None, message });

        let file = file.and_then(|path| match File::read(path) {
            Ok(file) => Some(file),
            Err(error) => {
                problem(Place::File(path.into()), format!("cannot be read{}: {error}", by(&error)));
                None
            }
        });
        let (mut variables, mut credentials) = (Vec::new(), None);
        for (name, text) in environment {
            if name == CREDENTIALS {
                credentials = Some(text.into());
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
                problem(Place::Environment(name), "found other bytes, expected UTF-8".into());
            }
        }
        // Problems come out in the same order on every start.
        variables.sort_by(|a, b| a.name.cmp(&b.name));
        if problems.is_empty() {
            let current_directory = std::env::current_dir().unwrap_or_else(|_| "/".into());
            Ok(Self { file, environment: variables, credentials, current_directory })
        } else {
            Err(problems)
        }
    }

    /// A file that is not written yet, and no environment.
    pub(super) fn of_text(text: &str, folder: &Path) -> Self {
        let file = File {
            path: folder.into(),
            directory: folder.into(),
            text: Zeroizing::new(text.to_owned()),
        };
        Self {
            file: Some(file),
            environment: Vec::new(),
            credentials: None,
            current_directory: folder.into(),
        }
    }

    /// Parses what was gathered. Errors of syntax are all told, and nothing else is judged then:
    /// what follows one is seldom what was meant.
    pub(super) fn parse(&self) -> Result<Reader<'_>, Vec<Problem>> {
        let place =
            self.file.as_ref().map_or(Place::Defaults, |file| Place::File(file.path.clone()));
        let mut reader = Reader::new(place, self.credentials.as_deref());
        if let Some(file) = &self.file {
            file.parse_into(&mut reader)?;
        }
        for variable in &self.environment {
            variable.parse_into(&mut reader, &self.current_directory);
        }
        Ok(reader)
    }
}

impl File {
    fn read(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        if metadata.len() > MAX_FILE_SIZE {
            return Err(io::Error::other("it is too large for a configuration"));
        }
        let text = Zeroizing::new(fs::read_to_string(path)?);
        // The folder as named: a mounted `ConfigMap`'s files are links into folders that come and go.
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
                place: self.place(&error.span().unwrap_or(0..0)),
                key: None,
                // Not its Display, which shows the line, and that may hold a secret.
                message: format!("not valid TOML: {}", error.message()),
            };
            return Err(errors.iter().take(MAX_SYNTAX_ERRORS).map(problem).collect());
        }
        for (section, value) in table.into_inner() {
            let place = self.place(&section.span());
            let section = section.into_inner();
            let DeValue::Table(entries) = value.into_inner() else {
                reader.outside_any_section(place, &section);
                continue;
            };
            reader.open(&section, place);
            for (key, value) in entries {
                let entry = Entry {
                    value: Some(value.into_inner()),
                    raw: None,
                    base: &self.directory,
                    place: self.place(&key.span()),
                };
                reader.insert(&section, &key.into_inner(), entry);
            }
        }
        Ok(())
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place::Line {
            file: self.path.clone(),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

impl Variable {
    fn parse_into<'a>(&'a self, reader: &mut Reader<'a>, base: &'a Path) {
        let place = Place::Environment(self.name.clone());
        let path = self.name.strip_prefix(PREFIX).unwrap_or_default().to_lowercase();
        let Some((section, key)) = path.split_once("__") else {
            reader.misnamed(place, &path);
            return;
        };
        // `MCS_WEB__PORT=8081` is a number, `MCS_SCAN__SCRIPT=/opt/scan.sh` is no TOML: a string.
        let value = match DeValue::parse(&self.text) {
            Ok(value) => value.into_inner(),
            Err(_) => DeValue::String(self.text.as_str().into()),
        };
        let value = (!self.text.is_empty()).then_some(value);
        reader.insert(section, key, Entry { value, raw: Some(&self.text), base, place });
    }
}
