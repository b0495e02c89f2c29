//! Rich Text Format, RTF specification 1.9.1: embedded objects, pictures and other data in hexadecimal digits.

mod destination;
mod hex;
mod parser;

use self::{
    destination::DataKind,
    parser::{HexData, RtfParser},
};
use super::ole;
use crate::{
    report::NoteKind,
    unpack::{
        content::{StreamContent, positions},
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// First bytes of a document. Word does not need the rest of the control word `\rtf1`.
const SIGNATURE: &[u8] = b"{\\rt";

/// Number of bytes in which a document starts.
const MAX_LEADING: usize = 1024;

/// Returns whether bytes are a document, possibly after a byte order mark, white space and zeros.
pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    let head = bytes.get(..MAX_LEADING).unwrap_or(bytes);
    let head = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
    let is_leading = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b);
    let start = head.iter().position(|byte| !is_leading(byte));
    start.and_then(|start| head.get(start..)).is_some_and(|rest| rest.starts_with(SIGNATURE))
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut parser = RtfParser::new(bytes);
    let mut count = 0;
    while let Some(data) = parser.next_data() {
        count += 1;
        if !data.bytes.is_empty() {
            examine(&data, count, unpacker)?;
        }
    }
    if parser.has_reached_limit() {
        unpacker.note(NoteKind::Limit, "the groups of the document are nested too deeply");
    }
    Ok(())
}

/// Passes the data of one destination.
fn examine(data: &HexData, number: u32, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let HexData { kind, bytes } = data;
    match kind {
        DataKind::MediaObject => object(bytes, number, unpacker),
        DataKind::Picture => unpacker.slice(EntryName::label(format!("picture {number}")), bytes),
        DataKind::Other => unpacker.slice(EntryName::label(format!("data {number}")), bytes),
    }
}

/// Passes an embedded object in the format of OLE 1.0. If it has another format, passes the bytes as they are, and the
/// compound file in them: programs may read the header differently.
fn object(bytes: &[u8], number: u32, unpacker: &mut Unpacker<'_>) -> Unpacked {
    let name = EntryName::label(format!("object {number}"));
    let compound = positions(bytes, &ole::SIGNATURE).next();
    match ole::ole1_data(&StreamContent::whole(bytes)) {
        Some(data) if data.copy(0, ole::SIGNATURE.len()) == ole::SIGNATURE => {
            return data.visit(name, unpacker);
        }
        Some(data) => ole::native_data(&data, unpacker)?,
        None if compound != Some(0) => unpacker.slice(name.clone(), bytes)?,
        None => {}
    }
    match compound.and_then(|start| bytes.get(start..)) {
        Some(compound) => unpacker.slice(name, compound),
        None => Ok(()),
    }
}
