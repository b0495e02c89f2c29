//! RPM packages: `doc/manual/format_v4.md` of rpm. Behind the headers is one compressed file, a cpio archive.

use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Unpacked, Unpacker},
    },
};

const MAGIC: &[u8] = &[0xed, 0xab, 0xee, 0xdb];

/// Length of the lead, bytes.
const LEAD: usize = 96;

/// Start of the signature and of the header.
const HEADER_MAGIC: &[u8] = &[0x8e, 0xad, 0xe8];

/// Length of the fixed part of a header, and of an entry of its index, bytes.
const INTRODUCTION: usize = 16;
const ENTRY: usize = 16;

/// What the length of the signature is a multiple of.
const SIGNATURE_ALIGNMENT: usize = 8;

/// Type of signature that has the structure of a header. Packages before RPM 3 have others.
const HEADER_SIGNATURE: u16 = 5;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: MAGIC, offset: 0, extent: payload_start, is_preferred: false };

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    match payload_start(bytes).and_then(|start| bytes.get(start..)) {
        Some(payload) if !payload.is_empty() => {
            unpacker.slice(EntryName::label("payload"), payload)
        }
        _ => {
            unpacker.note(NoteKind::Unreadable, "the headers of an RPM package are damaged");
            Ok(())
        }
    }
}

/// Returns the offset of the payload, if the headers are valid.
fn payload_start(package: &[u8]) -> Option<usize> {
    let kind = u16::from_be_bytes(*package.get(78..LEAD)?.first_chunk()?);
    let mut start = LEAD;
    if kind == HEADER_SIGNATURE {
        start = header_end(package, start)?.checked_next_multiple_of(SIGNATURE_ALIGNMENT)?;
    }
    header_end(package, start)
}

/// Returns the end of the header at `start`.
fn header_end(package: &[u8], start: usize) -> Option<usize> {
    let introduction = package.get(start..)?.get(..INTRODUCTION)?;
    let number = |offset: usize| {
        let bytes = *introduction.get(offset..)?.first_chunk()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    };
    if !introduction.starts_with(HEADER_MAGIC) {
        return None;
    }
    let (entries, size) = (number(8)?, number(12)?);
    let end = entries.checked_mul(ENTRY)?.checked_add(size)?.checked_add(start + INTRODUCTION)?;
    (end <= package.len()).then_some(end)
}
