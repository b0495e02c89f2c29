//! PDF, ISO 32000-2: all streams, scripts, and one text with all objects as a viewer reads them.
//!
//! Objects are found by their headers, and cross-reference tables are not read: a viewer uses objects of the last
//! revision, of older ones, or those that it finds when it repairs a file. All of them are evaluated.

mod ascii;
mod canonical;
mod decryption;
mod filter;
mod lexer;
mod normal;
mod objects;
mod predictor;
mod reader;
mod stream;
mod structure;
mod text;
mod walk;

use self::{
    decryption::{PdfKeyError, keys},
    objects::{PdfObjects, name},
    reader::ObjectReader,
    structure::{NO_NUMBER, PdfStructure, positions},
    walk::PdfWalk,
};
use crate::{
    report::NoteKind,
    unpack::unpacker::{Unpacked, Unpacker},
};

/// Viewers accept the header in the first bytes, ISO 32000-1, annex H, note 13.
const MAX_HEADER: usize = 1024;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    header(bytes).is_some()
}

fn header(bytes: &[u8]) -> Option<usize> {
    let first = bytes.get(..MAX_HEADER + 5).unwrap_or(bytes);
    positions(first, b"%PDF-").next()
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let structure = PdfStructure::find(bytes);
    if structure.headers.is_empty() {
        // Sources and texts that mention the header are no PDF.
        if structure.has_cross_references && !is_text(bytes) {
            unpacker.note(NoteKind::Unreadable, "a PDF without objects");
        }
        return Ok(());
    }
    let reader = ObjectReader::read(bytes, &structure, None);
    let (keys, errors) = keys(&reader.objects, &trailers(&reader.objects));
    for error in errors {
        let (kind, reason) = match error {
            PdfKeyError::Password => (NoteKind::Encrypted, "a PDF needs a password"),
            PdfKeyError::Algorithm => (NoteKind::Encrypted, "a PDF is encrypted in an unknown way"),
            PdfKeyError::Invalid => (NoteKind::Encrypted, "a PDF is encrypted in an invalid way"),
            PdfKeyError::TooMany => (NoteKind::Limit, "a PDF has too many encryption dictionaries"),
        };
        unpacker.note(kind, reason);
    }
    // A viewer that takes another trailer does not decrypt, so that contents without encryption count too. If the
    // contents are encrypted, they are not readable without a key.
    let is_quiet = is_text(bytes) || !keys.is_empty() || is_encrypted(&reader.objects);
    PdfWalk { bytes, structure: &structure, key: None, is_quiet, unpacker }.run(reader)?;
    for key in &keys {
        let reader = ObjectReader::read(bytes, &structure, Some(key));
        let is_quiet = is_text(bytes);
        PdfWalk { bytes, structure: &structure, key: Some(key), is_quiet, unpacker }.run(reader)?;
    }
    Ok(())
}

/// Returns whether a file with text before the header is text as a whole: a source that contains a PDF, such as a test.
fn is_text(bytes: &[u8]) -> bool {
    header(bytes).is_some_and(|start| start > 0) && std::str::from_utf8(bytes).is_ok()
}

/// Returns the dictionaries of trailers and cross-reference streams.
fn trailers(objects: &PdfObjects) -> Vec<&[u8]> {
    let is_trailer = |value: &&[u8]| {
        let types = objects.values(value, b"Type");
        types.into_iter().any(|value| name(value) == Some(b"XRef"))
    };
    let values = objects.list.iter().map(|object| (object.number, objects.value(object)));
    let trailers = values.filter(|(number, value)| *number == NO_NUMBER || is_trailer(value));
    trailers.map(|(_, value)| value).collect()
}

fn is_encrypted(objects: &PdfObjects) -> bool {
    trailers(objects).into_iter().any(|trailer| !objects.values(trailer, b"Encrypt").is_empty())
}
