//! `[operations]`.

use super::{kinds, reader::Reader, web::listen};
use crate::operations::Settings;

/// Beside the 8080 of `[web]`.
const PORT: u16 = 8081;

/// None is off.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Settings> {
    let mut operations = reader.section("operations");
    let enabled = operations.read("enabled", kinds::boolean).unwrap_or(true);
    let listen = listen(&mut operations, PORT);
    enabled.then_some(Settings { listen })
}
