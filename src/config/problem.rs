//! What can be wrong with a configuration, and what is merely worth a word. A problem names its
//! place and key, what was found and what was expected; secrets are named by their type alone.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::ownership::Exposure;

/// Where something was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the configuration file, as a whole.
    File(Arc<Path>),
    /// In a line of it; both count from 1, columns in characters.
    Line {
        /// The configuration file.
        file: Arc<Path>,
        /// Its line.
        line: usize,
        /// The line's column.
        column: usize,
    },
    /// In this variable of the environment.
    Environment(String),
    /// Nowhere: there is no configuration file.
    Defaults,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The key's path, e.g. `web.port`; none where the file itself is at fault.
    pub key: Option<String>,
    /// What was found, and what was expected.
    pub message: String,
}

/// All that is wrong; never empty.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub struct ConfigErrors(pub(super) Vec<Problem>);

/// What works and is probably not meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Warning {
    /// The script runs as a user that other services may run as too.
    SharedUser(&'static str),
    /// `scan.temp_directory_shared` accepts a directory that other users can replace.
    SharedTempDirectory(Exposure),
    /// A path in `sandbox.writable_paths`.
    Writable(PathBuf),
    /// A path that scripts are to see, and that does not exist.
    NotThere(PathBuf),
    /// A limit that another one always precedes.
    NeverReached {
        /// The limit that has no effect.
        key: &'static str,
        /// The one that comes first.
        because: &'static str,
    },
    /// The spool does not hold the largest media twice.
    TightSpool,
    /// A header in `download.headers_to_forward` that passes anyway.
    AlwaysForwarded(&'static str),
}

/// A value that its key cannot have.
pub(super) struct Wrong {
    /// Which part of the key's value: `[2]`, `.name`, or nothing.
    part: String,
    found: String,
    expected: String,
}

impl Wrong {
    /// As a list: tables and lists may have several.
    pub(super) fn one(found: impl Into<String>, expected: impl Into<String>) -> Vec<Self> {
        vec![Self { part: String::new(), found: found.into(), expected: expected.into() }]
    }

    /// The same, inside a list or a table.
    pub(super) fn within(mut self, part: &str) -> Self {
        self.part.insert_str(0, part);
        self
    }

    pub(super) fn at(self, place: Place, key: &str) -> Problem {
        Problem {
            place,
            key: Some(format!("{key}{}", self.part)),
            message: format!("found {}, expected {}", self.found, self.expected),
        }
    }
}

impl ConfigErrors {
    /// In the order of sections and keys.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Line { file, line, column } => {
                write!(f, "{}:{line}:{column}", file.display())
            }
            Self::Environment(name) => f.write_str(name),
            Self::Defaults => f.write_str("no configuration file (see -c)"),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SharedUser(name) => write!(
                f,
                "sandbox.user: not set, so scripts run as {name}, which other services may run as \
                 too; a user of its own is safer"
            ),
            Self::SharedTempDirectory(exposure) => write!(
                f,
                "scan.temp_directory: {exposure}; scan.temp_directory_shared accepts that: whoever shares \
                 the directory can read and replace media while they are scanned"
            ),
            Self::Writable(path) => write!(
                f,
                "sandbox.writable_paths: what one script writes to {} the next one reads, and whoever \
                 else does",
                path.display()
            ),
            Self::NotThere(path) => write!(
                f,
                "sandbox: {} does not exist; scripts do without it until it does",
                path.display()
            ),
            Self::NeverReached { key, because } => {
                write!(f, "{key}: has no effect, since {because} is smaller")
            }
            Self::TightSpool => f.write_str(
                "scan.max_spool_size: less than twice download.max_size; a large media may need its size \
                 twice, and is then too large",
            ),
            Self::AlwaysForwarded(name) => {
                write!(f, "download.headers_to_forward: {name} is forwarded without being listed")
            }
        }
    }
}
