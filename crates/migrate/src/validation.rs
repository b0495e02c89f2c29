//! The new program's validation of a migrated configuration.

use std::path::Path;

/// A value of the new file that its validation rejects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejection {
    /// Path of the key, e.g. `web.port`, and of the part of its value: `scan.engines[2]`,
    /// `download.additional_headers.x-name`. `None`, if the file as a whole is rejected, has no effect.
    pub key: Option<String>,
    /// What was found and what was expected. Contains no secrets.
    pub message: String,
}

/// Validates the text of a new file against the new program's configuration. Relative paths in it are
/// resolved against the directory. Called several times for one migration.
pub type Validate<'a> = dyn Fn(&str, &Path) -> Vec<Rejection> + 'a;
