//! ARJ archives: `TECHNOTE.TXT` of ARJ.

mod fastest;

use std::io::Read;

use flate2::Crc;

use super::{checked::Checked, lzh_reader};
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Completeness, Unpacked, Unpacker},
    },
};

const MAGIC: &[u8] = &[0x60, 0xea];

/// Maximum length of a header without extended headers, bytes.
const MAX_HEADER: usize = 2600;

/// The method of LHA with the same coding as the methods 1 to 3, and at least their window.
const COMPRESSED: [u8; 5] = *b"-lh7-";

/// Type of the header that starts an archive.
const MAIN_HEADER: u8 = 2;

/// Types of files: binary and text.
const FILES: std::ops::RangeInclusive<u8> = 0..=1;

const GARBLED: u8 = 0x01;
/// The file continues in the next volume, or began in the one before.
const IN_VOLUMES: u8 = 0x04 | 0x08;

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: MAGIC, offset: 0, extent, is_preferred: false };

/// Returns the length of the first header, if it is valid.
fn extent(archive: &[u8]) -> Option<usize> {
    // Before the checksum of the header, because the headers of candidates may overlap.
    if archive.get(10) != Some(&MAIN_HEADER) {
        return None;
    }
    match ArjPart::parse(archive)? {
        ArjPart::Header(header) if header.file_type == MAIN_HEADER => Some(header.length),
        ArjPart::Header(_) | ArjPart::End => None,
    }
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC) && extent(bytes).is_some()
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut rest = bytes;
    loop {
        let header = match ArjPart::parse(rest) {
            Some(ArjPart::Header(header)) => header,
            Some(ArjPart::End) => {
                let end = bytes.len() - rest.len();
                unpacker.set_ended(bytes.get(..end).unwrap_or(bytes));
                return Ok(());
            }
            None => {
                unpacker.note(NoteKind::Unreadable, "an ARJ header is damaged");
                return Ok(());
            }
        };
        unpacker.set_read(rest.get(..header.length).unwrap_or(rest));
        rest = rest.get(header.length..).unwrap_or_default();
        if header.file_type == MAIN_HEADER {
            continue;
        }
        let length = usize::try_from(header.packed).unwrap_or(usize::MAX);
        let (data, next) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if data.len() < length {
            unpacker.note(NoteKind::Unreadable, "a file in an ARJ archive is truncated");
        }
        examine(&header, data, unpacker)?;
        rest = next;
    }
}

/// Examines a member.
fn examine(header: &ArjHeader<'_>, data: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    if !FILES.contains(&header.file_type) || header.size == 0 {
        return Ok(());
    }
    if header.flags & GARBLED != 0 {
        unpacker.note(NoteKind::Encrypted, "file in an ARJ archive");
        return Ok(());
    }
    if header.flags & IN_VOLUMES != 0 {
        unpacker.note(NoteKind::Unreadable, "a part of a file in an ARJ archive in volumes");
    }
    let size = u64::from(header.size);
    let reader: Box<dyn Read> = match header.method {
        0 => {
            let mut crc = Crc::new();
            crc.update(data);
            if crc.sum() != header.crc {
                unpacker.note(NoteKind::Unreadable, "wrong CRC-32 of a file");
            }
            return unpacker.slice(EntryName::file(header.name), data);
        }
        1..=3 => match lzh_reader::open(COMPRESSED, data, size) {
            Ok(reader) => Box::new(reader),
            Err(error) => {
                unpacker.note_error(&error);
                return Ok(());
            }
        },
        4 => Box::new(fastest::open(data, size)),
        method => {
            unpacker.note(NoteKind::Unreadable, format!("ARJ method {method}"));
            return Ok(());
        }
    };
    let crc = [header.crc];
    let checked = Checked::new(reader, &crc);
    if unpacker.decode(EntryName::file(header.name), checked)? == Completeness::Complete {
        unpacker.set_decoded(data);
    }
    Ok(())
}

struct ArjHeader<'a> {
    /// With the magic number and extended headers, bytes.
    length: usize,
    flags: u8,
    method: u8,
    file_type: u8,
    /// Length of the data, bytes.
    packed: u32,
    /// Size of the file, bytes.
    size: u32,
    crc: u32,
    name: &'a [u8],
}

/// A header, or the end of the archive.
enum ArjPart<'a> {
    Header(ArjHeader<'a>),
    End,
}

impl<'a> ArjPart<'a> {
    /// Parses the header at the start of `bytes`. `None` if it is damaged.
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (size, rest) = rest.split_first_chunk()?;
        let size = usize::from(u16::from_le_bytes(*size));
        if size == 0 {
            return Some(Self::End);
        }
        let (header, rest) = rest.split_at_checked(size).filter(|_| size <= MAX_HEADER)?;
        let (stated, mut rest) = rest.split_first_chunk()?;
        let mut crc = Crc::new();
        crc.update(header);
        if u32::from_le_bytes(*stated) != crc.sum() {
            return None;
        }
        loop {
            let (size, after) = rest.split_first_chunk()?;
            rest = after;
            match u16::from_le_bytes(*size) {
                0 => break,
                // The extended header, and its CRC-32.
                size => rest = rest.get(usize::from(size) + 4..)?,
            }
        }
        let number =
            |offset: usize| Some(u32::from_le_bytes(*header.get(offset..)?.first_chunk()?));
        let name = header.get(usize::from(*header.first()?)..)?;
        Some(Self::Header(ArjHeader {
            length: bytes.len() - rest.len(),
            flags: *header.get(4)?,
            method: *header.get(5)?,
            file_type: *header.get(6)?,
            packed: number(12)?,
            size: number(16)?,
            crc: number(20)?,
            name: name.split(|byte| *byte == 0).next().unwrap_or_default(),
        }))
    }
}
