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
mod stage;
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

/// Length of the end of a file without header in which `startxref` is searched, bytes.
const MAX_END: usize = 2048;

/// Length of the line after `%!PS` in which the version is searched, bytes.
const MAX_FIRST_LINE: usize = 100;

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    header(bytes).is_some() || is_without_header(bytes)
}

/// Returns the offset of the header. Viewers accept it without hyphen, and with the name of PostScript, annex H, note 14.
fn header(bytes: &[u8]) -> Option<usize> {
    let first = bytes.get(..MAX_HEADER + 4).unwrap_or(bytes);
    let post_script = || {
        positions(first, b"%!PS").find(|start| {
            let end = start.saturating_add(MAX_FIRST_LINE).min(first.len());
            first.get(*start..end).is_some_and(|line| positions(line, b"PDF-").next().is_some())
        })
    };
    positions(first, b"%PDF").next().or_else(post_script)
}

/// Returns whether a file without header in the first bytes ends like a PDF. Viewers repair it.
fn is_without_header(bytes: &[u8]) -> bool {
    let end = bytes.get(bytes.len().saturating_sub(MAX_END)..).unwrap_or(bytes);
    positions(end, b"startxref").next().is_some() && positions(bytes, b" obj").next().is_some()
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let structure = PdfStructure::find(bytes);
    if structure.headers.is_empty() {
        // Sources and texts that mention the header are no PDF.
        if structure.has_cross_references && !is_doubtful(bytes) {
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
    let is_quiet = is_doubtful(bytes) || !keys.is_empty() || is_encrypted(&reader.objects);
    PdfWalk { bytes, structure: &structure, key: None, is_quiet, unpacker }.run(reader)?;
    for key in &keys {
        let reader = ObjectReader::read(bytes, &structure, Some(key));
        let is_quiet = is_doubtful(bytes);
        PdfWalk { bytes, structure: &structure, key: Some(key), is_quiet, unpacker }.run(reader)?;
    }
    Ok(())
}

/// Returns whether a file has no header, or has text before it and is text as a whole: a container of a PDF, or a source
/// such as a test.
fn is_doubtful(bytes: &[u8]) -> bool {
    header(bytes).is_none_or(|start| start > 0 && std::str::from_utf8(bytes).is_ok())
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
