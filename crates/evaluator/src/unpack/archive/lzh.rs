//! LHA archives (`.lzh`).

mod header;

use std::io::{self, Read};

use self::header::LzhHeader;
use super::lzh_reader;
use crate::{
    report::NoteKind,
    unpack::{
        embedded::ArchiveSignature,
        name::EntryName,
        unpacker::{Completeness, Unpacked, Unpacker},
    },
};

/// Offset of the name of the method in a header, bytes.
const METHOD_OFFSET: usize = 2;

/// Method of directories and links.
const DIRECTORY: &[u8; 5] = b"-lhd-";

/// Methods of files that are stored as they are.
const STORED: [&[u8; 5]; 3] = [b"-lh0-", b"-lz4-", b"-pm0-"];

pub(in crate::unpack) const SIGNATURE: ArchiveSignature =
    ArchiveSignature { magic: b"-lh", offset: METHOD_OFFSET, extent, is_preferred: false };

/// Returns the length of the first member, if its header is valid.
fn extent(archive: &[u8]) -> Option<usize> {
    let header = LzhHeader::parse(archive)?;
    usize::try_from(header.packed).ok()?.checked_add(header.data_start)
}

pub(in crate::unpack) fn matches(bytes: &[u8]) -> bool {
    LzhHeader::parse(bytes).is_some()
}

pub(in crate::unpack) fn unpack(bytes: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let mut rest = bytes;
    // A zero ends an archive. Some archives have none, so that the end of a file is not the end of an archive in it.
    while rest.first().is_some_and(|byte| *byte != 0) {
        let Some(header) = LzhHeader::parse(rest) else {
            unpacker.note(NoteKind::Unreadable, "an LZH header is damaged");
            return Ok(());
        };
        unpacker.set_read(rest.get(..header.data_start).unwrap_or(rest));
        if header.is_ambiguous {
            unpacker.note(NoteKind::Inconsistent, "the length of an LZH header is wrong");
        }
        let data = rest.get(header.data_start..).unwrap_or_default();
        let length = usize::try_from(header.packed).unwrap_or(usize::MAX);
        let (data, next) = data.split_at_checked(length).unwrap_or((data, &[]));
        if (data.len() as u64) < header.packed {
            unpacker.note(NoteKind::Unreadable, "a file in an LZH archive is truncated");
        }
        examine(&header, data, unpacker)?;
        if let Some(other) = header.other_start.and_then(|start| rest.get(start..)) {
            let data = other.get(..length).unwrap_or(other);
            unpacker.alternative(|unpacker| examine(&header, data, unpacker))?;
        }
        rest = next;
    }
    if !rest.is_empty() {
        let end = bytes.len() - rest.len();
        unpacker.set_ended(bytes.get(..end).unwrap_or(bytes));
    }
    Ok(())
}

/// Examines a member.
fn examine(header: &LzhHeader, data: &[u8], unpacker: &mut Unpacker<'_>) -> Unpacked {
    let name = EntryName::file(&header.name);
    let mut crc = Crc16::default();
    if STORED.contains(&&header.method) {
        crc.update(data);
        if !data.is_empty() {
            unpacker.slice(name, data)?;
        }
    } else if header.method == *DIRECTORY || header.size == 0 {
        return Ok(());
    } else {
        let reader = match lzh_reader::open(header.method, data, header.size) {
            Ok(reader) => reader,
            Err(error) => {
                unpacker.note_error(&error);
                return Ok(());
            }
        };
        let reader = Crc16Reader { reader, crc: &mut crc };
        if unpacker.decode(name, reader)? == Completeness::Incomplete {
            return Ok(());
        }
    }
    if crc.0 == header.crc {
        unpacker.set_decoded(data);
    } else {
        unpacker.note(NoteKind::Unreadable, "wrong CRC-16 of a file in an LZH archive");
    }
    Ok(())
}

/// CRC-16 with the reversed polynomial 0xa001.
#[derive(Default)]
struct Crc16(u16);

impl Crc16 {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u16::from(*byte);
            for _ in 0..8 {
                let is_odd = self.0 & 1 != 0;
                self.0 = self.0 >> 1 ^ if is_odd { 0xa001 } else { 0 };
            }
        }
    }
}

struct Crc16Reader<'c, R> {
    reader: R,
    crc: &'c mut Crc16,
}

impl<R: Read> Read for Crc16Reader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.crc.update(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}
