//! `[audit]`.

use super::{paths, reader::Reader};
use crate::audit::Settings;

/// Returns `None` if the audit log is disabled.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    reader.section("audit").read("path", |value| match value.text() {
        Some("-") => Ok(Settings::Stdout),
        _ => paths::file_to_write(value).map(Settings::File),
    })
}
