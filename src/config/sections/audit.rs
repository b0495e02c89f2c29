//! `[audit]`.

use std::path::PathBuf;

use super::prelude::*;

/// Validated `[audit]` section: destination of the lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settings {
    /// File to append to; created if missing.
    File(PathBuf),
    /// Standard output; the journal under systemd.
    Stdout,
}

/// `None` if the audit log is disabled.
impl KeyGroup for Option<Settings> {
    fn read(section: &mut Section<'_, '_>) -> Option<Self> {
        path().read(section, "path")
    }

    fn write(&self, lines: &mut Lines) {
        path().write(self, "path", lines);
    }
}

fn path() -> Key<Option<Settings>> {
    optional(Key::new(
        |value| match value.text() {
            Some("-") => Ok(Settings::Stdout),
            _ => paths::file_to_write(value).map(Settings::File),
        },
        |settings| match settings {
            Settings::File(file) => format::path(file),
            Settings::Stdout => format::quoted("-"),
        },
    ))
}
