//! Fuzz target: migrates any bytes as the configuration of an earlier scanner, and loads the result.
//! `cargo test` replays the kept corpus.

use std::path::Path;

use mcs_migrate::{MigrateError, Migrated, Rejection, migrate};

use super::problems;

/// Keys that a migration keeps although they are invalid, since usually only the file is missing.
const FILE_KEYS: [&str; 5] = [
    "scan.script",
    "scan.temp_directory",
    "crypto.request_secret_path",
    "crypto.pickle_path",
    "crypto.pickle_key",
];

/// Migrates an old file in `base`, with the validation of this configuration.
pub(super) fn migrated(text: &str, file: &Path, base: &Path) -> Result<Migrated, MigrateError> {
    migrate(text, file, base, &|toml, base| {
        let problems = problems(toml, base).into_iter();
        problems.map(|problem| Rejection { key: problem.key, message: problem.message }).collect()
    })
}

/// Checks that the new file has problems only with files, and that each is reported.
///
/// # Panics
/// If a check fails.
pub fn old_file(input: &[u8]) {
    let (text, base) = (String::from_utf8_lossy(input), Path::new("/nowhere"));
    let Ok(migrated) = migrated(&text, Path::new("a\nb"), base) else { return };
    for problem in problems(&migrated.toml, base) {
        let is_file = problem.key.as_deref().is_some_and(|key| FILE_KEYS.contains(&key));
        assert!(is_file, "{problem}\nof {text:?}\nin {}", migrated.toml);
        let mut remarks = migrated.remarks.iter();
        let is_reported = remarks.any(|remark| remark.message.starts_with(&problem.message));
        assert!(is_reported, "{problem}\nof {text:?}\nin {}", migrated.toml);
    }
}
