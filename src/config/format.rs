//! Formats single values as TOML.

use std::{ffi::OsStr, path::Path, time::Duration};

pub(super) use mcs_migrate::format::{key, quoted, size};

/// Text in place of secrets.
pub(super) const SECRET: &str = "..";

pub(super) fn path(path: &Path) -> String {
    os_string(path)
}

/// Formats a duration, e.g. `1h 30m`.
pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

pub(super) fn os_string(text: impl AsRef<OsStr>) -> String {
    quoted(&text.as_ref().to_string_lossy())
}

/// Formats a table in one line.
pub(super) fn table(entries: impl Iterator<Item = (impl AsRef<str>, String)>) -> String {
    let entries: Vec<_> =
        entries.map(|(name, value)| format!("{} = {value}", key(name.as_ref()))).collect();
    if entries.is_empty() { "{}".into() } else { format!("{{ {} }}", entries.join(", ")) }
}
