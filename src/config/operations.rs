//! `[operations]`.

use super::{reader::Reader, types, web::listen};
use crate::telemetry::operations::Settings;

const DEFAULT_PORT: u16 = 8081;

/// Returns `None` if the listener is disabled.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let mut operations = reader.section("operations");
    let enabled = operations.read("enabled", types::boolean).unwrap_or(true);
    let listen = listen(&mut operations, DEFAULT_PORT);
    enabled.then_some(Settings { listen })
}
