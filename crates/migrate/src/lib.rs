//! Converts the YAML configuration of an earlier scanner (the Node.js scanner or its Python successor)
//! to TOML with comments. Remarks name settings without a counterpart, and errors with their line.
//!
//! `yaml` parses text within bounds, `embedded` finds the configuration in a Kubernetes manifest, `source` extracts the scanner's keys, `python` and `node` translate
//! them, `units` converts times and sizes, `paths` converts paths and programs, `hints` and
//! `clamd` inspect the script, and `draft` builds the new file without the values that the validation of the new program
//! (`validation`) rejects. The meaning of the old keys follows the documentation of those scanners.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod clamd;
mod draft;
mod embedded;
pub mod format;
mod hints;
mod node;
mod paths;
mod python;
mod remark;
mod source;
mod units;
mod validation;
mod yaml;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use draft::Draft;
use embedded::{LocateError, Located};
pub use remark::{Remark, RemarkKind};
pub use source::Predecessor;
use source::SourceConfig;
pub use validation::{Rejection, Validate};
pub use yaml::YamlError;
use zeroize::Zeroizing;

/// The result of a migration.
pub struct Migrated {
    /// The scanner that the old file was written for.
    pub from: Predecessor,
    /// Path of the key that contains the configuration; `None` if the file is the configuration.
    pub path: Option<String>,
    /// The new file. It contains the secrets of the old one.
    pub toml: String,
    /// Sorted by line.
    pub remarks: Vec<Remark>,
}

/// Errors that prevent a migration.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot be read")]
    Unreadable(#[from] io::Error),
    /// The file is not YAML, or uses unsupported features.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// The file is not the configuration of a known scanner.
    #[error(
        "neither scanner's configuration: found none of the sections web, crypto, result_cache \
         (Python), server, middleware (Node.js)"
    )]
    UnknownFormat,
    /// The file contains several configurations; with their keys and lines.
    #[error("contains several configurations: {0}; write one of them to a file of its own")]
    SeveralConfigurations(String),
    /// The file is a template, whose values are inserted before it is YAML.
    #[error("a template: render it first (helm template), then convert the result")]
    Template,
}

/// Reads and converts a file, as [`migrate`] does. Relative paths in it are resolved against `base`, by
/// default the file's directory.
pub fn migrate_file(
    file: &Path,
    base: Option<&Path>,
    validate: &Validate<'_>,
) -> Result<Migrated, MigrateError> {
    let mut text = Zeroizing::new(String::new());
    // One byte above the limit, so that the parser reports a larger file.
    File::open(file)?.take(yaml::MAX_SIZE as u64 + 1).read_to_string(&mut text)?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    migrate(&text, file, &base.unwrap_or(directory).canonicalize()?, validate)
}

/// Converts `text`, the content of `file`: a configuration, or a Kubernetes manifest that contains one. Relative paths in it are resolved against `base`, the directory
/// in which the scanner was started. Omits values that `validate` rejects, with a remark. Reads the files
/// that the configuration names; writes nothing.
pub fn migrate(
    text: &str,
    file: &Path,
    base: &Path,
    validate: &Validate<'_>,
) -> Result<Migrated, MigrateError> {
    let documents = yaml::parse_documents(text).map_err(|error| match error {
        YamlError::Syntax { .. } | YamlError::Unsupported { .. } if text.contains("{{") => {
            MigrateError::Template
        }
        error => error.into(),
    })?;
    let located = embedded::locate(&documents).map_err(|error| match error {
        LocateError::NotFound => MigrateError::UnknownFormat,
        LocateError::Several(keys) => MigrateError::SeveralConfigurations(keys),
    })?;
    let Located { root, from, path, scripts } = located;
    let mut draft = Draft::new(base, scripts);
    let source = SourceConfig::read(&root, from.keys(), &mut draft.remarks);
    match from {
        Predecessor::Python => python::translate(&source, &mut draft),
        Predecessor::Node => node::translate(&source, &mut draft),
    }
    draft.remove_rejected_values(validate);
    let header = format!(
        "Converted by `matrix-content-scanner migrate` from {}{}, the configuration of {from}. default.toml \
         documents every key and its default. `matrix-content-scanner -c THIS_FILE check-config` checks \
         it, and tests the homeserver, the sandbox and the script.",
        file.display(),
        path.as_ref().map_or_else(String::new, |path| format!(" ({})", source::printable(path))),
    );
    let toml = draft.render(&header);
    let mut remarks = draft.remarks;
    remarks.sort_by_key(|remark| remark.line);
    Ok(Migrated { from, path, toml, remarks })
}

impl Predecessor {
    /// Returns the paths of all keys of all versions of the scanner.
    #[must_use]
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Python => &python::KEYS,
            Self::Node => &node::KEYS,
        }
    }
}
