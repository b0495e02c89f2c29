//! Remarks on settings that were not converted unchanged.

use std::fmt;

/// A setting that was not converted unchanged, or that can be simpler.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// Whether a decision is required.
    pub kind: RemarkKind,
    /// Line in the old file, from 1; `None` for a missing key.
    pub line: Option<usize>,
    /// Path of the key in the old file or, if the old file has no such key, in the new file.
    pub key: String,
    /// The reason and the consequence. Contains no secrets, but text of the old file: escape control
    /// characters before display.
    pub message: String,
}

/// Severity of a [`Remark`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemarkKind {
    /// Invalid in the old or in the new configuration; requires a decision.
    Mistake,
    /// A key that has no counterpart, or does not need a counterpart.
    NoCounterpart,
    /// A simpler configuration with the same effect.
    Suggestion,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{}: {}", self.key, self.message)
    }
}
