//! Moving over: the YAML of either earlier scanner, the one on Node.js or its Python successor, as our
//! TOML with comments. What has no counterpart is named, and what is wrong is told with its line.
//!
//! `yaml` reads any text within bounds, `old` finds the keys that a scanner knew, `python` and `node`
//! say what each becomes, `measures` translates times and sizes, `places` paths and programs, `hints`
//! looks into the script, and `draft` is the file to be written: what `config` does not take is taken out
//! again. Knows nothing of the service; the keys' facts are the documentation of those scanners.

mod draft;
mod hints;
mod measures;
mod node;
mod old;
mod places;
mod python;
mod yaml;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use draft::Draft;
use old::Old;
pub use yaml::YamlError;
use zeroize::Zeroizing;

/// Whose configuration a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Predecessor {
    /// The scanner on Node.js.
    Node,
    /// Its Python successor.
    Python,
}

/// A configuration of ours, and what there is to say about it.
pub struct Migrated {
    /// Whose it was.
    pub from: Predecessor,
    /// The new file. It may hold secrets that the old one held.
    pub toml: String,
    /// By line.
    pub remarks: Vec<Remark>,
}

/// Something that did not pass over as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// How much it matters.
    pub kind: RemarkKind,
    /// The line in the old file, from 1; none for what is missing.
    pub line: Option<usize>,
    /// The key's path in the old file (in ours, for what is missing).
    pub key: String,
    /// What is so, and what became of it. No value that may be a secret.
    pub message: String,
}

/// How much a [`Remark`] matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemarkKind {
    /// Wrong there or here: someone has to decide.
    Mistake,
    /// A key whose effect has no counterpart, or needs none.
    NoCounterpart,
}

/// Why nothing can be made of a file.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It cannot be read, or is not UTF-8.
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
    /// It is no YAML, or none that is read here.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// It is YAML, of something else.
    #[error(
        "it is neither scanner's configuration: found none of the sections web, crypto, result_cache \
         (Python), server, middleware (Node.js)"
    )]
    NeitherScanners,
}

/// Reads a file and translates it. Relative paths in it start from `base`, by default the file's folder.
pub fn migrate_file(file: &Path, base: Option<&Path>) -> Result<Migrated, MigrateError> {
    let mut text = Zeroizing::new(String::new());
    // One byte more than what is read: `yaml` says that it is too much.
    File::open(file)?.take(yaml::MAX_SIZE as u64 + 1).read_to_string(&mut text)?;
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    migrate(&text, file, &base.unwrap_or(folder).canonicalize()?)
}

/// Translates `text`, the content of `file`. Relative paths in it start from `base`, the directory that
/// the scanner was started in. Reads nothing but what its paths lead to, and writes nothing.
pub fn migrate(text: &str, file: &Path, base: &Path) -> Result<Migrated, MigrateError> {
    let root = yaml::parse(text)?;
    let from = old::whose(&root).ok_or(MigrateError::NeitherScanners)?;
    let mut draft = Draft::new(base);
    let old = Old::read(&root, from.keys(), &mut draft.remarks);
    match from {
        Predecessor::Python => python::translate(&old, &mut draft),
        Predecessor::Node => node::translate(&old, &mut draft),
    }
    draft.settle();
    let header = format!(
        "Made by `matrix-content-scanner migrate` from {}, {from}'s configuration. Every key, its \
         default and its why is in default.toml. `matrix-content-scanner -c THIS_FILE check-config` tells \
         what would be in force, and tries the sandbox and the script.",
        file.display()
    );
    let toml = draft.render(&header);
    let mut remarks = draft.remarks;
    remarks.sort_by_key(|remark| remark.line);
    Ok(Migrated { from, toml, remarks })
}

impl Predecessor {
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Python => &python::KEYS,
            Self::Node => &node::KEYS,
        }
    }
}

impl fmt::Display for Predecessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "the Node.js scanner",
            Self::Python => "the Python scanner",
        })
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.key, self.message)
    }
}
