//! Formats single values as TOML.

use std::{ffi::OsStr, path::Path, time::Duration};

pub(super) use mcs_migrate::format::{key, quoted, size};

/// Text in place of secrets.
pub(super) const SECRET: &str = "..";

pub(super) fn path(path: &Path) -> String {
    os_string(path)
}

/// Formats a size with a space before the unit, for text.
pub(super) fn spaced_size(bytes: u64) -> String {
    let text = size(bytes);
    match text.find(|c: char| !c.is_ascii_digit()).map(|unit| text.split_at(unit)) {
        Some((number, unit)) => format!("{number} {unit}"),
        None => format!("{text} bytes"),
    }
}

/// Formats a duration, e.g. `1h 30m`.
pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Formats the bound of a duration: `humantime` writes 3650 days as years of 365.25 days and a rest.
pub(super) fn longest_duration(bound: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match bound.as_secs() {
        seconds if seconds > DAY && seconds.is_multiple_of(DAY) => format!("{}d", seconds / DAY),
        _ => duration(bound),
    }
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
