//! cpio: the formats of `cpio(5)` of libarchive: new ASCII with and without checksum, old ASCII, the large ASCII of afio,
//! and binary in both byte orders.
//!
//! GNU cpio and bsdtar continue at the next valid header after damage, so this reader does so as well.

mod header;

use self::header::{CpioByteOrder, CpioHeader};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

/// Name of the entry that ends an archive.
const TRAILER: &[u8] = b"TRAILER!!!";

/// Magic number of archives whose headers are in the RPM package around them, for files above 4 GiB. They are not read.
const STRIPPED: &[u8] = b"07070X";

/// The ASCII formats.
pub(in crate::unpack) const SIGNATURE: ArchiveSignature = signature(header::ASCII);

/// The binary formats.
pub(in crate::unpack) const BINARY_SIGNATURES: [ArchiveSignature; 2] =
    [signature(&header::LITTLE_ENDIAN), signature(&header::BIG_ENDIAN)];

const fn signature(magic: &'static [u8]) -> ArchiveSignature {
    ArchiveSignature { magic, offset: 0, extent, is_preferred: false }
}

/// Returns the length of the first member, if its header is valid.
fn extent(archive: &[u8]) -> Option<usize> {
    let header = CpioHeader::parse(archive)?;
    header.is_plausible().then(|| header.content_start.saturating_add(header.size))
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(STRIPPED)
        || CpioHeader::parse(bytes).is_some_and(|header| header.is_acceptable_at_start())
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut rest = bytes;
    let mut is_ended = false;
    let mut order = CpioByteOrder::detect(bytes);
    while !rest.is_empty() {
        if let Some(first) = order.filter(|order| !rest.starts_with(&order.magic()) && !is_ended) {
            order = None;
            unpacker.alternative(|unpacker| without_magic(rest, first, unpacker))?;
        }
        let Some(header) = CpioHeader::parse(rest) else {
            let Some(next) = next_header(rest, is_ended) else { break };
            if !is_ended {
                unpacker.note(NoteKind::Unreadable, "a cpio header is damaged");
            }
            rest = next;
            continue;
        };
        is_ended = header.name == TRAILER;
        // 7-Zip does not continue behind another header, and may find the next one inside of it.
        if header.is_plausible() {
            // Bytes that look like a header may contain the start of one.
            unpacker.set_read(rest.get(..header.magic_length).unwrap_or(rest));
        }
        if header.is_ambiguous {
            unpacker.note(NoteKind::Inconsistent, "a number in a cpio header is invalid");
        }
        let content = rest.get(header.content_start..).unwrap_or_default();
        let (content, is_truncated) = match content.get(..header.size) {
            Some(content) => (content, false),
            None => (content, true),
        };
        if !content.is_empty() {
            unpacker.slice(EntryName::file(header.name), content)?;
        }
        if is_truncated {
            unpacker.note(NoteKind::Unreadable, "a file in a cpio archive is truncated");
            return Ok(());
        }
        rest = rest.get(header.end()..).unwrap_or_default();
    }
    if is_ended {
        let end = bytes.len() - rest.len();
        unpacker.set_ended(bytes.get(..end).unwrap_or(bytes));
    } else {
        unpacker.note(NoteKind::Unreadable, "a cpio archive without an end");
    }
    Ok(())
}

/// Examines the members from a header of the binary format with another magic number on, as bsdtar reads them: it checks
/// the magic number only where an archive starts.
fn without_magic(mut rest: &[u8], order: CpioByteOrder, unpacker: &mut Unpacker<'_>) -> Unpacked {
    while let Some(header) = CpioHeader::parse_binary(rest, order)
        && header.name != TRAILER
        && let Some(content) = rest.get(header.content_start..)
        && let Some(content) = content.get(..header.size)
    {
        if !content.is_empty() {
            unpacker.slice(EntryName::file(header.name), content)?;
        }
        rest = rest.get(header.end()..).unwrap_or_default();
    }
    Ok(())
}

/// Returns the rest from the next header on. After the end of an archive, another one may follow behind zeros, as in the
/// first file system of Linux; anything else is no archive.
fn next_header(rest: &[u8], is_ended: bool) -> Option<&[u8]> {
    if is_ended {
        let start = rest.iter().position(|byte| *byte != 0)?;
        return rest.get(start..).filter(|rest| start > 0 && CpioHeader::parse(rest).is_some());
    }
    (1..rest.len()).find_map(|start| {
        let rest = rest.get(start..)?;
        CpioHeader::parse(rest).filter(CpioHeader::is_acceptable).map(|_header| rest)
    })
}
