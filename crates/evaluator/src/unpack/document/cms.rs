//! Cryptographic Message Syntax (RFC 5652, PKCS #7): signed files (`.p7m`), S/MIME.

mod ber;

use flate2::read::ZlibDecoder;

use self::ber::{BerReader, CONSTRUCTED, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SegmentReader};
use crate::{
    report::NoteKind,
    unpack::{
        name::EntryName,
        unpacker::{Unpacked, Unpacker, WalkEnd},
    },
};

/// Explicit tag 0, before contents.
const TAG_0: u8 = 0xa0;

/// Start of the identifiers of PKCS #7 and of S/MIME: 1.2.840.113549.1.7 and .9.16.1.
const PKCS7: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x07";
const SMIME: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01";

/// Maximum number of elements before a content: versions, algorithms, and names of time-stamped files.
const MAX_BEFORE: usize = 16;

/// Maximum number of structures in each other. Files that were signed again have a string between them.
const MAX_STRUCTURES: u32 = 8;

/// Types of contents.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CmsType {
    /// A string.
    Data,
    /// A sequence with another content in it: signed, digested and authenticated data.
    Wrapped,
    Compressed,
    Encrypted,
    /// A file with its time stamps (RFC 5544).
    TimeStamped,
    Unknown,
}

impl CmsType {
    fn from_identifier(identifier: &[u8]) -> Self {
        match (identifier.strip_prefix(PKCS7), identifier.strip_prefix(SMIME)) {
            (Some([1]), _) => Self::Data,
            (Some([2 | 5]), _) | (_, Some([2])) => Self::Wrapped,
            (Some([3 | 4 | 6]), _) | (_, Some([23])) => Self::Encrypted,
            (_, Some([9])) => Self::Compressed,
            (_, Some([31])) => Self::TimeStamped,
            _ => Self::Unknown,
        }
    }
}

/// Returns whether bytes are a sequence that starts with the identifier of a content.
pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    let mut reader = BerReader::new(bytes);
    content_type(&mut reader).is_some_and(|kind| kind != CmsType::Unknown)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut reader = BerReader::new(bytes);
    let parsed = match content_type(&mut reader) {
        Some(kind) => content_info(kind, reader, 0, unpacker)?,
        None => None,
    };
    if parsed.is_none() {
        unpacker.note(NoteKind::Unreadable, "the structure of the signed message is damaged");
    }
    Ok(())
}

/// Reads the start of a sequence of a type and its content.
fn content_type(reader: &mut BerReader<'_>) -> Option<CmsType> {
    let header = reader.enter(SEQUENCE)?;
    reader.end_at(header);
    reader.content(OBJECT_IDENTIFIER).map(CmsType::from_identifier)
}

/// Result of reading a structure: `None` if it is damaged.
type StructureResult = Result<Option<()>, WalkEnd>;

/// Reads the content after its type.
fn content_info(
    kind: CmsType,
    mut reader: BerReader<'_>,
    depth: u32,
    unpacker: &mut Unpacker<'_>,
) -> StructureResult {
    if kind == CmsType::Encrypted {
        unpacker.note(NoteKind::Encrypted, "encrypted message (CMS)");
        return Ok(Some(()));
    }
    if reader.enter(TAG_0).is_none() || depth >= MAX_STRUCTURES {
        return Ok(None);
    }
    if matches!(kind, CmsType::Data | CmsType::Unknown) {
        return string(reader, unpacker);
    }
    // The structure is in a string if it is the content of another one.
    let mut inner = reader;
    let is_string = inner.enter(OCTET_STRING).is_some();
    structure(kind, if is_string { inner } else { reader }, depth + 1, unpacker)
}

/// Reads signed data and similar structures: some elements, then the content with its type. If the content is in another
/// file, it is missing.
fn structure(
    kind: CmsType,
    mut reader: BerReader<'_>,
    depth: u32,
    unpacker: &mut Unpacker<'_>,
) -> StructureResult {
    let Some(header) = reader.enter(SEQUENCE) else { return Ok(None) };
    reader.end_at(header);
    for _ in 0..MAX_BEFORE {
        if kind == CmsType::TimeStamped && reader.is_at_string() {
            return string(reader, unpacker);
        }
        let mut wrapped = reader;
        // Algorithms are sequences with an identifier, too, but have another tag after it.
        if let Some(inner) = content_type(&mut wrapped)
            && wrapped.is_at(TAG_0)
        {
            return match kind {
                CmsType::Compressed => compressed(wrapped, unpacker),
                _ => content_info(inner, wrapped, depth, unpacker),
            };
        }
        if reader.is_at_end() {
            break;
        }
        if reader.skip().is_none() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// Passes the string, or the element of another type, at the start of `reader`.
fn string(mut reader: BerReader<'_>, unpacker: &mut Unpacker<'_>) -> StructureResult {
    let Some(header) = reader.header() else { return Ok(None) };
    let name = EntryName::label("content");
    if header.tag == OCTET_STRING | CONSTRUCTED {
        unpacker.decode(name, SegmentReader::new(reader, header))?;
        return Ok(Some(()));
    }
    let bytes = header.length.map_or(reader.rest(), |length| reader.up_to(length));
    if !bytes.is_empty() {
        unpacker.slice(name, bytes)?;
    }
    Ok(header.length.is_none_or(|length| bytes.len() == length).then_some(()))
}

/// Passes compressed content (RFC 3274).
fn compressed(mut reader: BerReader<'_>, unpacker: &mut Unpacker<'_>) -> StructureResult {
    let header = reader.enter(TAG_0).and_then(|_| reader.header());
    let Some(header) = header else { return Ok(None) };
    let content = ZlibDecoder::new(SegmentReader::new(reader, header));
    unpacker.decode(EntryName::label("content"), content)?;
    Ok(Some(()))
}
