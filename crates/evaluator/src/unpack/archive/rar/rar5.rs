//! Headers of RAR 5 to 7.

use super::block::{RarBlock, RarBlockKind, RarFile};

const FILE: u64 = 2;
const SERVICE: u64 = 3;
const ENCRYPTION: u64 = 4;
const END: u64 = 5;

/// Flags of all headers.
const HAS_EXTRA: u64 = 1;
const HAS_DATA: u64 = 2;
const SPLIT: u64 = 8 | 16;

/// Flags of files.
const DIRECTORY: u64 = 1;
const HAS_TIME: u64 = 2;
const HAS_CRC: u64 = 4;

/// Type of the record in the extra area of a file that states how it is encrypted.
const ENCRYPTION_RECORD: u64 = 1;

/// The method of compression in the information about it; zero for stored files.
const METHOD: u64 = 7 << 7;

/// Length of the CRC-32 of a header, and of other fixed fields, bytes.
const FIXED: usize = 4;

pub(super) fn parse(bytes: &[u8]) -> Option<RarBlock<'_>> {
    let mut header = bytes.get(FIXED..)?;
    let size = usize::try_from(number(&mut header)?).ok()?;
    let start = bytes.len() - header.len();
    let mut header = header.get(..size)?;
    let kind = number(&mut header)?;
    let flags = number(&mut header)?;
    let extra = if flags & HAS_EXTRA == 0 { 0 } else { number(&mut header)? };
    let data = if flags & HAS_DATA == 0 { 0 } else { number(&mut header)? };
    let extra = header.len().checked_sub(usize::try_from(extra).ok()?)?;
    let (fields, extra) = header.split_at_checked(extra)?;
    let kind = match kind {
        ENCRYPTION => RarBlockKind::EncryptedHeaders,
        END => RarBlockKind::End,
        FILE | SERVICE => RarBlockKind::File(file(fields, extra, kind, flags)?),
        _ => RarBlockKind::Other,
    };
    Some(RarBlock { kind, length: start + size, data })
}

fn file<'a>(mut fields: &'a [u8], extra: &[u8], kind: u64, flags: u64) -> Option<RarFile<'a>> {
    let file_flags = number(&mut fields)?;
    let _size = number(&mut fields)?;
    let _attributes = number(&mut fields)?;
    for flag in [HAS_TIME, HAS_CRC] {
        if file_flags & flag != 0 {
            fields = fields.get(FIXED..)?;
        }
    }
    let compression = number(&mut fields)?;
    let _system = number(&mut fields)?;
    let name_length = usize::try_from(number(&mut fields)?).ok()?;
    let name = fields.get(..name_length)?;
    Some(RarFile {
        name,
        is_directory: file_flags & DIRECTORY != 0,
        is_content: kind == FILE || name == b"STM",
        is_encrypted: has_encryption_record(extra),
        is_stored: compression & METHOD == 0,
        is_split: flags & SPLIT != 0,
    })
}

fn has_encryption_record(mut extra: &[u8]) -> bool {
    while let Some(size) = number(&mut extra).and_then(|size| usize::try_from(size).ok()) {
        let Some((mut record, rest)) = extra.split_at_checked(size) else { return false };
        if number(&mut record) == Some(ENCRYPTION_RECORD) {
            return true;
        }
        extra = rest;
    }
    false
}

/// Reads a number of seven bits in each byte, least significant ones first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
